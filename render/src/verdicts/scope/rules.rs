//! `impact.rules`: which series belong to the events with some tags, which way is worse, and how much matters.

use std::collections::BTreeSet;

use super::pattern::Pattern;
use crate::events::{Event, TagQuery};
use crate::impact::{Direction, Least};
use crate::verdicts::rule::Rule;

/// The rules of `impact.rules`, checked.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<ReadyRule>);

#[derive(Clone, Debug)]
struct ReadyRule {
    /// `None`: the rule adds no series to an event.
    tags: Option<TagQuery>,
    targets: Vec<String>,
    matters: Matters,
}

/// What a rule says about the changes of its series.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Matters {
    /// Which way is worse.
    pub(super) direction: Option<Direction>,
    /// The smallest change that matters.
    pub(super) least: Option<Least>,
}

impl Rules {
    /// Checks and takes over `rules`.
    ///
    /// # Errors
    /// A sentence about the first rule that makes no sense.
    pub fn new(rules: &[Rule]) -> Result<Self, String> {
        rules
            .iter()
            .map(ReadyRule::new)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The targets of all rules whose tags select `event`.
    pub(super) fn targets(&self, event: &Event) -> BTreeSet<String> {
        let mine = self.0.iter().filter(|rule| {
            let tags = rule.tags.as_ref();
            tags.is_some_and(|tags| tags.matches(&event.tags))
        });
        mine.flat_map(|rule| rule.filled(event)).collect()
    }

    /// For each target of a rule for `event` what the rule says about changes, in the order of the rules.
    pub(super) fn matters(&self, event: &Event) -> Vec<(String, Matters)> {
        let mine = self.0.iter().filter(|rule| {
            let tags = rule.tags.as_ref();
            let Matters { direction, least } = rule.matters;
            tags.is_none_or(|tags| tags.matches(&event.tags))
                && (direction.is_some() || least.is_some())
        });
        let all = mine.flat_map(|rule| {
            let targets = rule.filled(event);
            targets.map(|target| (target, rule.matters))
        });
        all.collect()
    }
}

impl ReadyRule {
    fn new(rule: &Rule) -> Result<Self, String> {
        let Rule {
            tags,
            targets,
            worse,
            least,
        } = rule;
        let tags = match tags {
            None => None,
            Some(text) => {
                let query: Result<TagQuery, _> = text.parse();
                Some(query.map_err(|error| format!("\"tags\": {error}"))?)
            }
        };
        if targets.is_empty() {
            return Err("a rule needs \"targets\", such as [\"stats.*.web.**\"]".to_owned());
        }
        for target in targets {
            // Any value in the place of tags.
            let filled = fill(target, |_| Some("a".to_owned()))?;
            Pattern::read(&filled.unwrap_or_default())?;
        }
        let direction = match worse.as_deref() {
            None => None,
            Some("up") => Some(Direction::UpIsWorse),
            Some("down") => Some(Direction::DownIsWorse),
            Some(other) => {
                return Err(format!("\"worse\": {other:?}, write \"up\" or \"down\""));
            }
        };
        let least = least.as_deref().map(read_least).transpose()?;
        if tags.is_none() && direction.is_none() && least.is_none() {
            return Err("a rule without \"tags\" needs \"worse\" or \"least\"".to_owned());
        }
        Ok(Self {
            tags,
            targets: targets.clone(),
            matters: Matters { direction, least },
        })
    }

    /// The targets, with the values of the tags of `event` filled in; those without a value are left out.
    fn filled(&self, event: &Event) -> impl Iterator<Item = String> {
        let tag = |prefix: &str| {
            let value = event.tags.iter().find_map(|tag| tag.strip_prefix(prefix));
            value.map(str::to_owned)
        };
        let targets = self.targets.iter();
        targets.filter_map(move |target| fill(target, tag).ok().flatten())
    }
}

fn read_least(text: &str) -> Result<Least, String> {
    let number = |text: &str| {
        let number = text.trim().parse::<f64>().ok();
        number.filter(|number| *number >= 0.0 && number.is_finite())
    };
    let least = match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| Least::Share(percent / 100.0)),
        None => number(text).map(Least::Amount),
    };
    least.ok_or_else(|| {
        format!("\"least\": {text:?} is not a size, write \"5%\" or an amount such as \"0.5\"")
    })
}

/// `target` with each `{tag:PREFIX}` replaced by `value` of the prefix; `None` if a value is missing.
fn fill(target: &str, value: impl Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    const OPEN: &str = "{tag:";
    let mut text = String::new();
    let mut rest = target;
    while let Some(at) = rest.find(OPEN) {
        text += &rest[..at];
        let after = &rest[at + OPEN.len()..];
        let close = after
            .find('}')
            .ok_or_else(|| format!("{target:?} has an unclosed brace"))?;
        match value(&after[..close]) {
            Some(value) => text += &value,
            None => return Ok(None),
        }
        rest = &after[close + 1..];
    }
    Ok(Some(text + rest))
}
