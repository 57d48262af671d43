//! One of `impact.rules`, as it is written.

use serde::{Deserialize, Serialize};

/// One rule. See [`super::options::Options::rules`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// A tag expression; the rule is for the events that it selects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<String>,
    /// Patterns of series names, or `seriesByTag(…)`.
    pub targets: Vec<String>,
    /// `up` or `down`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worse: Option<String>,
    /// The smallest change that matters: `5%`, or an amount in the unit of the series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least: Option<String>,
}
