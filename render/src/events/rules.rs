//! `events.rules`, checked and ready: looks by tag, and metrics that are events.

use serde::{Deserialize, Serialize};

use super::metrics::MetricRules;
use super::{Error, Event, Look, TagQuery, words};

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

/// The rules of `events.rules`, in their order.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    looks: Vec<LookRule>,
    metrics: MetricRules,
}

#[derive(Clone, Debug)]
struct LookRule {
    tags: TagQuery,
    color: Option<String>,
    label: Option<Label>,
}

/// A label's template, cut into its parts.
#[derive(Clone, Debug, PartialEq)]
struct Label(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    What,
    /// The rest of the first tag that begins like this.
    Tag(String),
}

impl Rules {
    /// Checks and takes over `rules`.
    ///
    /// # Errors
    /// [`Error::Refused`] naming the first rule that makes no sense, and why.
    pub fn new(rules: &[Rule]) -> Result<Self, Error> {
        let mut ready = Self::default();
        for (i, rule) in rules.iter().enumerate() {
            ready
                .add(rule)
                .map_err(|why| Error::Refused(format!("events.rules, rule {}: {why}", i + 1)))?;
        }
        Ok(ready)
    }

    fn add(&mut self, rule: &Rule) -> Result<(), String> {
        let Rule {
            tags,
            color,
            label,
            metric,
            what,
            event_tags,
        } = rule;
        match (tags, metric) {
            (Some(tags), None) => {
                if what.is_some() || event_tags.is_some() {
                    return Err("\"what\" and \"event_tags\" go with \"metric\"".to_owned());
                }
                if color.is_none() && label.is_none() {
                    return Err("a rule for tags needs a \"color\", a \"label\" or both".to_owned());
                }
                let tags: TagQuery = tags.parse().map_err(|error| format!("\"tags\": {error}"))?;
                let label = label.as_deref().map(Label::parse).transpose()?;
                self.looks.push(LookRule {
                    tags,
                    color: color.clone(),
                    label,
                });
                Ok(())
            }
            (None, Some(metric)) => {
                if color.is_some() || label.is_some() {
                    return Err("\"color\" and \"label\" go with \"tags\"".to_owned());
                }
                self.metrics
                    .add(metric, what.as_deref(), event_tags.as_deref())
            }
            _ => Err("a rule has either \"tags\" or \"metric\"".to_owned()),
        }
    }

    /// How an event looks: colour and label each from the first rule that selects it and has one.
    pub fn look(&self, event: &Event) -> Look {
        let tags: Vec<&str> = words::ours(&event.tags).collect();
        let mut look = Look::default();
        for rule in &self.looks {
            if (look.color.is_some() || rule.color.is_none())
                && (look.label.is_some() || rule.label.is_none())
            {
                continue;
            }
            if rule.tags.any.iter().any(|clause| clause.holds(&tags)) {
                look.color = look.color.or_else(|| rule.color.clone());
                look.label = look
                    .label
                    .or_else(|| rule.label.as_ref().map(|label| label.text(event)));
            }
        }
        look
    }

    /// The rules by which metrics are events.
    pub fn metrics(&self) -> &MetricRules {
        &self.metrics
    }
}

impl Label {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let close = rest[open..]
                .find('}')
                .ok_or_else(|| format!("\"label\": {text:?} has an unclosed brace"))?;
            parts.push(Part::Text(rest[..open].to_owned()));
            let name = &rest[open + 1..open + close];
            parts.push(match (name, name.strip_prefix("tag:")) {
                ("what", _) => Part::What,
                (_, Some(prefix)) => Part::Tag(prefix.to_owned()),
                _ => {
                    return Err(format!(
                        "\"label\": {{{name}}} is neither {{what}} nor {{tag:PREFIX}}"
                    ));
                }
            });
            rest = &rest[open + close + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    fn text(&self, event: &Event) -> String {
        let mut text = String::new();
        for part in &self.0 {
            text += match part {
                Part::Text(text) => text,
                Part::What => &event.what,
                Part::Tag(prefix) => event
                    .tags
                    .iter()
                    .find_map(|tag| tag.strip_prefix(prefix.as_str()))
                    .unwrap_or_default(),
            };
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(tags: &str, color: Option<&str>, label: Option<&str>) -> Rule {
        Rule {
            tags: Some(tags.to_owned()),
            color: color.map(str::to_owned),
            label: label.map(str::to_owned),
            ..Rule::default()
        }
    }

    #[test]
    fn the_first_rule_that_says_something_is_followed() {
        let rules = Rules::new(&[
            rule("deploy web", Some("red"), None),
            rule(
                "deploy,config",
                Some("blue"),
                Some("{tag:version:} ({what})"),
            ),
        ])
        .unwrap();
        let mut event = Event {
            what: "web out".to_owned(),
            tags: ["deploy", "web", "version:1.4"].map(str::to_owned).to_vec(),
            ..Event::default()
        };
        let look = rules.look(&event);
        assert_eq!(look.color.as_deref(), Some("red"));
        assert_eq!(look.label.as_deref(), Some("1.4 (web out)"));
        event.tags = vec!["config".to_owned()];
        assert_eq!(rules.look(&event).color.as_deref(), Some("blue"));
        assert_eq!(rules.look(&event).label.as_deref(), Some(" (web out)"));
        event.tags.clear();
        assert_eq!(rules.look(&event), Look::default());
    }

    #[test]
    fn a_rule_without_sense_is_named() {
        for (rule, part) in [
            (Rule::default(), "either \"tags\" or \"metric\""),
            (rule("a", None, None), "\"color\""),
            (rule("a*b", Some("red"), None), "rule 1: \"tags\": \"a*b\""),
            (rule("a", None, Some("{who}")), "{who}"),
            (rule("a", None, Some("{what")), "unclosed brace"),
        ] {
            let error = Rules::new(&[rule]).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
