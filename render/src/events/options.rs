//! The keys of `[events]`.

use carbon::options::{Key, Span};
use serde::{Deserialize, Serialize};

/// How events are kept and how they look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// How long an event is kept after its end. `"0s"`: for ever.
    pub retention: Span,
    /// Colours and labels by tag, and metrics that are events. The first rule that says something
    /// is followed.
    pub rules: Vec<Rule>,
    /// Whether events in datagrams are taken although tokens are set.
    pub allow_datagrams: bool,
    /// How many events in datagrams are taken a second, ten times as many at once; 0 for no limit.
    pub max_per_second: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            retention: Span::default(),
            rules: Vec::new(),
            allow_datagrams: false,
            max_per_second: 100,
        }
    }
}

/// One rule: for the events that `tags` selects, or for the metrics that `metric` names.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// A tag expression; the rule gives `color` and `label` to the events that it selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
    /// A colour name of Graphite's or hex digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// The short text beside the line: `{what}`, `{tag:PREFIX}` (the rest of the first tag that
    /// begins with PREFIX) and plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// A metric name with `*` for a node or a part of one: every value that is not 0 is an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// What such an event says; `{1}` is what the first `*` stands for. Default: the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Its tags, separated by blanks, with `{1}` as in `what`. Default: the nodes of the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_tags: Option<String>,
}

/// The keys of `[events]`, for `plumbago config`.
pub const KEYS: &[Key] = &[
    Key {
        name: "retention",
        help: "How long an event is kept after its end. \"0s\": for ever.",
    },
    Key {
        name: "allow_datagrams",
        help: "Take events in DogStatsD datagrams although auth.tokens or auth.event_tokens are set: \
               a datagram carries no token. Without tokens they are taken anyway.",
    },
    Key {
        name: "max_per_second",
        help: "How many events in datagrams are taken a second, ten times as many at once; what is over \
               it is dropped and counted. 0: no limit.",
    },
    Key {
        name: "rules",
        help: "Looks by tag: {tags = \"deploy web\", color = \"#ff0000\", label = \"{tag:version:}\"}; \
               metrics that are events: {metric = \"deploys.*.*\", what = \"deploy {1}\", event_tags = \"deploy {1} {2}\"}.",
    },
];
