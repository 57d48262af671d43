//! The words of an event's tags, looked for in the names of series.

use std::collections::BTreeSet;

use crate::events::Event;

/// Tags whose values name a part of a system.
const PARTS: [&str; 9] = [
    "service",
    "app",
    "application",
    "component",
    "host",
    "node",
    "instance",
    "server",
    "job",
];
/// Bare tags that name a kind of event, a place or a state, and no part of a system.
const GENERAL: [&str; 24] = [
    "deploy",
    "deployment",
    "deploys",
    "release",
    "rollback",
    "config",
    "canary",
    "hotfix",
    "note",
    "production",
    "prod",
    "staging",
    "stage",
    "test",
    "testing",
    "dev",
    "development",
    "qa",
    "succeeded",
    "failed",
    "started",
    "blue",
    "green",
    "impact",
];

/// The words of an event's tags that name a part of a system; `tag=value` for tagged series beside.
pub(super) fn words(event: &Event) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for tag in &event.tags {
        match tag.split_once(':') {
            Some((name, value)) if PARTS.contains(&name) && !value.is_empty() => {
                words.insert(value.to_owned());
                words.insert(format!("{name}={value}"));
            }
            Some(_) => {}
            None if GENERAL.contains(&&*tag.to_ascii_lowercase()) => {}
            None if tag.len() < 2 || tag.contains('=') => {}
            None => {
                words.insert(tag.clone());
            }
        }
    }
    words
}

/// Whether the tags of `event` name a part of a system that the series `name` belongs to.
pub(in crate::verdicts) fn concerns(event: &Event, name: &str) -> bool {
    words(event).iter().any(|word| has_word(name, word))
}

/// Whether a node of `name`, or the value of one of its tags, has `word` as a part of its own: `web` is in
/// `web`, `web01`, `eu-web` and `web_errors`, but not in `webmail`; `web1` is not in `web10`.
pub(super) fn has_word(name: &str, word: &str) -> bool {
    let ends_in_digit = word.ends_with(|c: char| c.is_ascii_digit());
    let separates = |c: char| !c.is_alphanumeric();
    name.match_indices(word).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let after = name[at + word.len()..].chars().next();
        before.is_none_or(separates)
            && after.is_none_or(|c| separates(c) || (c.is_ascii_digit() && !ends_in_digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole() {
        for (name, word, expected) in [
            ("a.web.b", "web", true),
            ("web", "web", true),
            ("a.web01", "web", true),
            ("a.my_web", "web", true),
            ("a.webmail", "web", false),
            ("a.b;service=web", "web", true),
            ("a.svc10", "svc1", false),
            ("a.svc1-h2.x", "svc1", true),
            ("cobweb.web", "web", true),
        ] {
            assert_eq!(has_word(name, word), expected, "{name} {word}");
        }
    }
}
