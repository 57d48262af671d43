//! Series held in memory: what tests and examples evaluate targets against.

use std::collections::BTreeMap;

use whisper::{ABSENT, Aggregation, Retention};

use crate::budget::Budget;
use crate::series::tags_of;
use crate::source::{
    Completion, FetchRange, Fetched, Info, Node, Source, SourceError, TagValue, Tags,
};

/// A [`Source`] of series whose points begin one step after 0.
#[derive(Debug, Default)]
pub struct Memory {
    series: BTreeMap<String, (i64, Vec<f64>)>,
}

impl Memory {
    /// Adds a series: `values[0]` is at `step`, the next a step later.
    pub fn insert(&mut self, name: &str, step: i64, values: Vec<f64>) {
        self.series.insert(name.to_owned(), (step.max(1), values));
    }

    /// The timestamp of the last point of all.
    pub fn end(&self) -> i64 {
        let ends = self.series.values();
        let ends = ends.map(|(step, values)| step * i64::try_from(values.len()).unwrap_or(0));
        ends.max().unwrap_or(0)
    }
}

impl Source for Memory {
    fn find(&self, pattern: &str, budget: &Budget) -> Result<Vec<Node>, SourceError> {
        let mut pace = budget.pace();
        let depth = pattern.split('.').count();
        let mut nodes = Vec::new();
        for name in self.series.keys().filter(|name| !name.contains(';')) {
            let parts: Vec<&str> = name.split('.').collect();
            pace.check()?;
            if pattern == "**" {
                budget.reserve(name.len() + size_of::<Node>())?;
                nodes.push(Node {
                    path: name.clone(),
                    leaf: true,
                });
                continue;
            }
            if parts.len() < depth {
                continue;
            }
            let head = parts[..depth].join(".");
            let matches = head
                .split('.')
                .zip(pattern.split('.'))
                .all(|(part, glob)| node_matches(glob, part));
            if matches {
                budget.reserve(head.len() + size_of::<Node>())?;
                nodes.push(Node {
                    path: head,
                    leaf: parts.len() == depth,
                });
            }
        }
        nodes.sort();
        nodes.dedup();
        Ok(nodes)
    }

    fn find_tagged(
        &self,
        expressions: &[&str],
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let mut pace = budget.pace();
        let names = self.series.keys().filter(|name| name.contains(';'));
        let mut found = Vec::new();
        for name in names {
            pace.check()?;
            let tags = tags_of(name);
            let mut all = true;
            for expression in expressions {
                let (tag, value) = expression.split_once('=').ok_or_else(|| {
                    SourceError::Refused(format!("{expression:?} is not a tag expression"))
                })?;
                let (tag, wanted) = match tag.strip_suffix('!') {
                    Some(tag) => (tag, false),
                    None => (tag, true),
                };
                let has = tags.get(tag).map_or("", String::as_str);
                let same = match value.strip_prefix('~') {
                    Some(begin) => has.starts_with(begin.trim_end_matches(".*")),
                    None => has == value,
                };
                all &= same == wanted;
            }
            if all {
                budget.reserve(name.len() + size_of::<String>())?;
                found.push(name.clone());
            }
        }
        Ok(found)
    }

    fn tagged(&self, budget: &Budget) -> Result<Vec<String>, SourceError> {
        let names = self.series.keys().filter(|name| name.contains(';'));
        let reserved = names.map(|name| {
            budget.reserve(name.len() + size_of::<String>())?;
            Ok(name.clone())
        });
        reserved.collect()
    }

    fn fetch(&self, name: &str, range: FetchRange) -> Result<Option<Fetched>, SourceError> {
        let FetchRange { from, until, now } = range;
        let Some((step, values)) = self.series.get(name) else {
            return Ok(None);
        };
        // As a file would.
        if from > until {
            return Err(SourceError::Failed(
                "the range ends before it starts".into(),
            ));
        }
        let (from, until) = (i64::from(from.0), i64::from(until.0.min(now.0)));
        if until < from {
            return Ok(None);
        }
        let start = from - from % step + step;
        let end = (until - until % step + step).max(start + step);
        let slots = (start..end).step_by(usize::try_from(*step).unwrap_or(1));
        let values = slots
            .map(|at| {
                let index = usize::try_from(at / step - 1).ok();
                index.and_then(|i| values.get(i)).copied().unwrap_or(ABSENT)
            })
            .collect();
        Ok(Some(Fetched {
            start,
            end,
            step: *step,
            values,
            aggregation: Aggregation::Average,
            x_files_factor: 0.5,
        }))
    }

    fn info(&self, name: &str) -> Result<Option<Info>, SourceError> {
        let Some((step, values)) = self.series.get(name) else {
            return Ok(None);
        };
        let retention = u32::try_from(*step)
            .ok()
            .zip(u32::try_from(values.len()).ok())
            .and_then(|(step, points)| Retention::new(step, points));
        Ok(Some(Info {
            retentions: retention.into_iter().collect(),
            aggregation: Aggregation::Average,
            x_files_factor: 0.5,
        }))
    }
}

/// No series in memory has tags that could be listed or changed.
impl Tags for Memory {
    fn tags(&self, _: &Budget) -> Result<Vec<(u32, String)>, SourceError> {
        Ok(Vec::new())
    }

    fn values(&self, _: &str, _: &Budget) -> Result<Option<(u32, Vec<TagValue>)>, SourceError> {
        Ok(None)
    }

    fn complete_tags(&self, _: &Completion<'_>, _: &Budget) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn complete_values(
        &self,
        _: &str,
        _: &Completion<'_>,
        _: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn register(&self, path: &str) -> Result<String, SourceError> {
        Ok(path.to_owned())
    }

    fn unregister(&self, _: &str) -> Result<(), SourceError> {
        Ok(())
    }
}

/// `*`, `?`, `[a-z]` and one level of `{a,b}`: enough for examples.
fn node_matches(glob: &str, part: &str) -> bool {
    if let Some(open) = glob.find('{')
        && let Some(length) = glob[open..].find('}')
    {
        let (before, after) = (&glob[..open], &glob[open + length + 1..]);
        let choices = glob[open + 1..open + length].split(',');
        return choices
            .map(|choice| format!("{before}{choice}{after}"))
            .any(|glob| node_matches(&glob, part));
    }
    let Some(first) = glob.chars().next() else {
        return part.is_empty();
    };
    let rest = &glob[first.len_utf8()..];
    match first {
        '*' => part
            .char_indices()
            .map(|(at, _)| at)
            .chain([part.len()])
            .any(|at| node_matches(rest, &part[at..])),
        _ => {
            let Some(next) = part.chars().next() else {
                return false;
            };
            let after = &part[next.len_utf8()..];
            if first == '['
                && let Some((set, rest)) = rest.split_once(']')
            {
                let set: Vec<char> = set.chars().collect();
                let within = set.contains(&next)
                    || set
                        .windows(3)
                        .any(|w| w[1] == '-' && (w[0]..=w[2]).contains(&next));
                return within && node_matches(rest, after);
            }
            (first == '?' || first == next) && node_matches(rest, after)
        }
    }
}
