//! Metrics that are events: Etsy's `deploys.web.production 1 1700000000`.
//!
//! A rule names metrics (`deploys.*.*`); every value of theirs that is not 0 is an event at its
//! timestamp, under a key made of name and timestamp, so a value sent twice is one event.

use carbon::Datapoint;

use super::Draft;

/// The rules with `metric`, in their order.
#[derive(Clone, Debug, Default)]
pub struct MetricRules(Vec<MetricRule>);

#[derive(Clone, Debug)]
struct MetricRule {
    pattern: Vec<String>,
    what: Option<String>,
    tags: Option<String>,
}

/// What the points of one metric say as events.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricEvent {
    /// The metric.
    pub name: String,
    /// What happened.
    pub what: String,
    /// Under these tags.
    pub tags: Vec<String>,
}

impl MetricRules {
    pub(super) fn add(
        &mut self,
        pattern: &str,
        what: Option<&str>,
        tags: Option<&str>,
    ) -> Result<(), String> {
        let pattern: Vec<String> = pattern.split('.').map(str::to_owned).collect();
        if pattern.iter().any(String::is_empty) {
            return Err("\"metric\" has an empty node".to_owned());
        }
        let n_stars = pattern.iter().map(|node| node.matches('*').count()).sum();
        for template in [what, tags].into_iter().flatten() {
            for n in numbers(template) {
                if n == 0 || n > n_stars {
                    return Err(format!("{{{n}}} has no matching \"*\" in \"metric\""));
                }
            }
        }
        self.0.push(MetricRule {
            pattern,
            what: what.map(str::to_owned),
            tags: tags.map(str::to_owned),
        });
        Ok(())
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the points of the metric called `name` say as events, by the first rule that names it.
    pub fn matches(&self, name: &str) -> Option<MetricEvent> {
        self.0.iter().find_map(|rule| {
            let stars = captures(&rule.pattern, name)?;
            let fill = |template: &str| {
                let mut text = template.to_owned();
                for (i, star) in stars.iter().enumerate() {
                    text = text.replace(&format!("{{{}}}", i + 1), star);
                }
                text
            };
            let tags = match &rule.tags {
                Some(template) => fill(template),
                None => name.replace('.', " "),
            };
            Some(MetricEvent {
                name: name.to_owned(),
                what: rule.what.as_deref().map_or_else(|| name.to_owned(), fill),
                tags: tags.split_whitespace().map(str::to_owned).collect(),
            })
        })
    }
}

impl MetricEvent {
    /// The event that a point is, `None` for one of value 0 (a counter's idle intervals).
    pub fn at(&self, point: &Datapoint) -> Option<Draft> {
        (point.value != 0.0).then(|| Draft {
            what: Some(self.what.clone()),
            data: (point.value != 1.0).then(|| format!("value {}", point.value)),
            tags: Some(self.tags.clone()),
            when: Some(f64::from(point.at.timestamp().0)),
            key: Some(format!("metric {} {}", self.name, point.at)),
            ..Draft::default()
        })
    }
}

/// The numbers in braces of a template.
fn numbers(template: &str) -> impl Iterator<Item = usize> {
    template
        .split('{')
        .skip(1)
        .filter_map(|part| part.split_once('}')?.0.parse().ok())
}

/// What each `*` of `pattern` stands for in `name`, `None` if it does not match. A `*` stays
/// within its node.
fn captures<'a>(pattern: &[String], name: &'a str) -> Option<Vec<&'a str>> {
    let mut stars = Vec::new();
    let mut nodes = name.split('.');
    for node_pattern in pattern {
        capture_node(node_pattern, nodes.next()?, &mut stars).then_some(())?;
    }
    nodes.next().is_none().then_some(stars)
}

/// Matches one node; on success the parts that its stars stand for are on `stars`.
fn capture_node<'a>(pattern: &str, node: &'a str, stars: &mut Vec<&'a str>) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == node;
    };
    let Some(rest) = node.strip_prefix(head) else {
        return false;
    };
    let n_before = stars.len();
    // The longest first, as a regular expression would; nodes are short.
    let ends = rest.char_indices().map(|(i, _)| i).chain([rest.len()]);
    for end in ends.collect::<Vec<_>>().into_iter().rev() {
        stars.push(&rest[..end]);
        if capture_node(tail, &rest[end..], stars) {
            return true;
        }
        stars.truncate(n_before);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(pattern: &str, what: Option<&str>, tags: Option<&str>) -> MetricRules {
        let mut rules = MetricRules::default();
        rules.add(pattern, what, tags).unwrap();
        rules
    }

    #[test]
    fn stars_stand_for_nodes_and_their_parts() {
        let rules = rules(
            "deploys.*.*",
            Some("deploy {1} to {2}"),
            Some("deploy {1} env:{2}"),
        );
        let event = rules.matches("deploys.web.production").unwrap();
        assert_eq!(event.what, "deploy web to production");
        assert_eq!(event.tags, ["deploy", "web", "env:production"]);
        for other in [
            "deploys.web",
            "deploys.web.a.b",
            "deploy.web.a",
            "x.deploys.web.a",
        ] {
            assert_eq!(rules.matches(other), None, "{other}");
        }
    }

    #[test]
    fn parts_of_nodes_are_captured_longest_first() {
        let pattern = |text: &str| text.split('.').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(captures(&pattern("a*-*"), "ab-c-d"), Some(vec!["b-c", "d"]));
        assert_eq!(captures(&pattern("*x"), "éx"), Some(vec!["é"]));
        assert_eq!(captures(&pattern("*"), "a.b"), None);
    }

    #[test]
    fn the_name_is_the_default() {
        let event = rules("events.*", None, None)
            .matches("events.chef")
            .unwrap();
        assert_eq!((event.what.as_str(), event.tags.len()), ("events.chef", 2));
        let mut rules = MetricRules::default();
        assert!(rules.add("a.*", Some("{2}"), None).is_err());
        assert!(rules.add("a..b", None, None).is_err());
    }
}
