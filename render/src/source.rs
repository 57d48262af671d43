//! Where series come from: the seam between the query language and whatever stores points.
//!
//! The server hands in carbon's store; tests hand in series held in memory. Nothing here knows
//! about targets, functions or HTTP.

use whisper::{Aggregation, Retention, Timestamp};

use crate::budget::Budget;
use crate::error::Error;
use crate::paths::Paths;

/// One node found by a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    /// The full dotted path.
    pub path: String,
    /// Whether it is a series (else a branch).
    pub leaf: bool,
}

/// The points of one series over one range.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Unix seconds of the first value.
    pub start: i64,
    /// Unix seconds one step after the last value.
    pub end: i64,
    /// Seconds per value.
    pub step: i64,
    /// One per step, [`whisper::ABSENT`] for none.
    pub values: Vec<f64>,
    /// How the file aggregates.
    pub aggregation: Aggregation,
    /// The share of known points that it takes to make a coarser one, 0 to 1.
    pub x_files_factor: f32,
}

/// `all` and `more` in bytewise order, each text once; `more` is reserved in `budget`.
///
/// # Errors
/// What `budget` refuses.
pub fn merged(
    mut all: Vec<String>,
    more: impl IntoIterator<Item = String>,
    budget: &Budget,
) -> Result<Vec<String>, SourceError> {
    let mut steps = budget.steps();
    for text in more {
        steps.take(text.len() + PER_TEXT)?;
        all.push(text);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// What a text of a list takes beside its bytes.
const PER_TEXT: usize = 64;

/// The layout of a series' file, as `/info` answers it.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    /// The archives, finest first.
    pub retentions: Vec<Retention>,
    /// How the file aggregates.
    pub aggregation: Aggregation,
    /// The share of known points that it takes to make a coarser one, 0 to 1.
    pub x_files_factor: f32,
}

/// Which points of a series are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRange {
    /// Points after this time.
    pub from: Timestamp,
    /// Points up to this time.
    pub until: Timestamp,
    /// The clock, by which archives are chosen.
    pub now: Timestamp,
}

/// What a query reads. All calls may touch the disk and are made from the worker pool, never from
/// the async runtime.
pub trait Source: Send + Sync {
    /// The part of this machine, if others are merged into the answers: what other machines are answered
    /// from.
    fn local(&self) -> Option<&dyn Source> {
        None
    }

    /// Every node that `pattern` matches, node by node (`* ? [a-z] [!a] {a,b} **`), sorted by
    /// path bytewise; a name that is leaf and branch comes twice, branch first. What is found stays
    /// reserved in `budget`.
    ///
    /// # Errors
    /// A sentence saying what is wrong with the pattern, or what `budget` refuses.
    fn find(&self, pattern: &str, budget: &Budget) -> Result<Vec<Node>, SourceError>;

    /// The names of all series whose tags satisfy every expression (`tag=v`, `tag!=v`, `tag=~re`,
    /// `tag!=~re`), sorted bytewise, in canonical `name;tag=value` form. They stay reserved in
    /// `budget`.
    ///
    /// # Errors
    /// A malformed expression, a bad regular expression, no expression that demands a value, or
    /// what `budget` refuses.
    fn find_tagged(
        &self,
        expressions: &[&str],
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError>;

    /// The names of all series that have tags, in canonical form and in any order. They stay reserved in
    /// `budget`.
    ///
    /// # Errors
    /// As [`Source::find_tagged`].
    fn tagged(&self, budget: &Budget) -> Result<Vec<String>, SourceError> {
        let mut names = self.find_tagged(&["name=~."], budget)?;
        names.retain(|name| name.contains(';'));
        Ok(names)
    }

    /// The names of the series that `pattern` matches: the leaves of [`Source::find`], in any order.
    ///
    /// # Errors
    /// As [`Source::find`].
    fn find_series(&self, pattern: &str, budget: &Budget) -> Result<Vec<String>, SourceError> {
        let nodes = self.find(pattern, budget)?.into_iter();
        let leaves = nodes.filter(|node| node.leaf);
        Ok(leaves.map(|node| node.path).collect())
    }

    /// The paths that [`Source::find`] finds, each once, or those of series alone.
    ///
    /// # Errors
    /// As [`Source::find`].
    fn find_paths(
        &self,
        pattern: &str,
        leaves_only: bool,
        budget: &Budget,
    ) -> Result<Paths, SourceError> {
        let nodes = self.find(pattern, budget)?;
        let nodes = nodes.iter().filter(|node| node.leaf || !leaves_only);
        Ok(Paths::new(nodes.map(|node| node.path.as_str()), budget)?)
    }

    /// The points of the series called `name` in `(from, until]`, whisper and cache merged, as
    /// `whisper.fetch` in Graphite would choose archive and range at the clock `now`. `None` if
    /// there is no such series or the range lies wholly outside what it keeps.
    ///
    /// # Errors
    /// A damaged or unreadable file.
    fn fetch(&self, name: &str, range: FetchRange) -> Result<Option<Fetched>, SourceError>;

    /// Announces fetches of `names`, one after the other, over this range. What is returned is called before
    /// each with the number of its name, so that the source can read ahead, in the time of `budget`.
    fn announce<'a>(
        &'a self,
        names: &'a [String],
        range: FetchRange,
        budget: &'a Budget,
    ) -> Box<dyn FnMut(usize) + 'a> {
        let _ = (names, range, budget);
        Box::new(|_| {})
    }

    /// From when to when the series called `name` may hold points, at the clock `now`: what
    /// `/metrics/find` says in its machine formats. `None` if that is not known.
    ///
    /// # Errors
    /// A damaged or unreadable file.
    fn reach(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<(Timestamp, Timestamp)>, SourceError> {
        let _ = (name, now);
        Ok(None)
    }

    /// The layout of the file of the series called `name`. `None` if there is no such series, or if
    /// the source does not know it.
    ///
    /// # Errors
    /// A damaged or unreadable file.
    fn info(&self, name: &str) -> Result<Option<Info>, SourceError> {
        let _ = name;
        Ok(None)
    }
}

/// The tags of the tagged series: what `/tags/*` asks and changes.
pub trait Tags: Send + Sync {
    /// As [`Source::local`].
    fn local(&self) -> Option<&dyn Tags> {
        None
    }

    /// Every tag with its id, sorted by tag. Tags of deleted series stay.
    ///
    /// # Errors
    /// What `budget` refuses: the tags stay reserved in it.
    fn tags(&self, budget: &Budget) -> Result<Vec<(u32, String)>, SourceError>;

    /// The values of `tag` with their ids and the number of series that carry each, sorted by
    /// value; `None` for a tag that nobody has used. The first number is the id of the tag.
    ///
    /// # Errors
    /// What `budget` refuses: the values stay reserved in it.
    fn values(
        &self,
        tag: &str,
        budget: &Budget,
    ) -> Result<Option<(u32, Vec<TagValue>)>, SourceError>;

    /// The tags that the series in `wanted` carry and that begin with its prefix, except those that its
    /// expressions name, sorted.
    ///
    /// # Errors
    /// As [`Source::find_tagged`].
    fn complete_tags(
        &self,
        wanted: &Completion<'_>,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError>;

    /// The values of `tag` among the series in `wanted` that begin with its prefix, sorted.
    ///
    /// # Errors
    /// As [`Source::find_tagged`].
    fn complete_values(
        &self,
        tag: &str,
        wanted: &Completion<'_>,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError>;

    /// Registers a series (in the notation of carbon or OpenMetrics); returns its canonical name. Kept
    /// across restarts.
    ///
    /// # Errors
    /// A malformed name.
    fn register(&self, path: &str) -> Result<String, SourceError>;

    /// Registers some series, as [`Self::register`] does, and returns their canonical names.
    ///
    /// # Errors
    /// A malformed name; others may be registered then.
    fn register_all(&self, paths: &[&str]) -> Result<Vec<String>, SourceError> {
        paths.iter().map(|path| self.register(path)).collect()
    }

    /// Forgets a registered series. New data revives it.
    ///
    /// # Errors
    /// The deletion could not be kept.
    fn unregister(&self, path: &str) -> Result<(), SourceError>;
}

/// What a completion begins with, and among which series it is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Completion<'a> {
    /// The series that satisfy all of these; all series without any.
    pub expressions: &'a [&'a str],
    /// What the answers begin with.
    pub prefix: &'a str,
    /// Most answers.
    pub limit: usize,
}

impl Completion<'_> {
    /// The answers among `texts`: those that begin with the prefix, in bytewise order, each once, up to the limit.
    pub fn of(&self, texts: impl IntoIterator<Item = String>) -> Vec<String> {
        let texts = texts.into_iter();
        let mut texts: Vec<String> = texts.filter(|text| text.starts_with(self.prefix)).collect();
        texts.sort_unstable();
        texts.dedup();
        texts.truncate(self.limit);
        texts
    }
}

/// One value of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagValue {
    /// Its id.
    pub id: u32,
    /// The value.
    pub value: String,
    /// How many series carry it.
    pub count: usize,
}

/// Why the source could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The question is wrong: the answer is a 400.
    #[error("{0}")]
    Refused(String),
    /// The store failed: a 500 with a counter.
    #[error("{0}")]
    Failed(String),
    /// The budget of the request is used up, or its client has gone.
    #[error(transparent)]
    Budget(Box<Error>),
}

impl From<SourceError> for Error {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Refused(sentence) => Self::Refused(sentence),
            SourceError::Failed(sentence) => Self::Failed(sentence),
            SourceError::Budget(error) => *error,
        }
    }
}

impl From<Error> for SourceError {
    fn from(error: Error) -> Self {
        Self::Budget(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_are_in_order_each_once_up_to_the_limit() {
        let texts = ["dc", "host", "hop", "hop", "hour"];
        let wanted = |prefix, limit| Completion {
            expressions: &[],
            prefix,
            limit,
        };
        let of = |prefix, limit| wanted(prefix, limit).of(texts.map(str::to_owned));
        assert_eq!(of("ho", 2), ["hop", "host"]);
        assert_eq!(of("", 9), ["dc", "hop", "host", "hour"]);
    }
}
