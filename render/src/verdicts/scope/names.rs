//! The names in the store, and what they are searched by.

use std::collections::BTreeSet;

use super::pattern::{Pattern, patterns_of};
use super::words::has_word;
use crate::budget::Budget;
use crate::error::Error;
use crate::query;
use crate::source::Source;

/// What decides which series belong to an event: two events with something in common have the same scope.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Targets of rules.
    Targets(BTreeSet<String>),
    /// Words, and `tag=value` for tagged series.
    Words(BTreeSet<String>),
    /// What is on the dashboards.
    Dashboards,
}

impl Key {
    /// Whether two events share series.
    pub fn meets(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Targets(a), Self::Targets(b)) | (Self::Words(a), Self::Words(b)) => {
                !a.is_disjoint(b)
            }
            (Self::Dashboards, Self::Dashboards) => true,
            _ => false,
        }
    }
}

/// The names in the store, for one verdict.
pub struct Names<'a> {
    source: &'a dyn Source,
    budget: &'a Budget,
    /// All series without tags, sorted, or `None` where there are too many to hold.
    pub(super) all: Option<Vec<String>>,
    /// The targets on the dashboards.
    dashboards: Vec<String>,
}

impl<'a> Names<'a> {
    /// Reads the names; more than `listing` allows are not held. Searches use `budget`.
    ///
    /// # Errors
    /// The store fails, or the work was cancelled.
    pub fn read(
        source: &'a dyn Source,
        listing: &Budget,
        budget: &'a Budget,
        dashboards: Vec<String>,
    ) -> Result<Self, Error> {
        let all = match Pattern::Path("**".to_owned()).find(source, listing) {
            Ok(all) => Some(all),
            Err(Error::Limit { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            source,
            budget,
            all,
            dashboards,
        })
    }

    pub(super) fn find(&self, text: &str) -> Result<Vec<String>, Error> {
        match Pattern::read(text) {
            Ok(pattern) => pattern.find(self.source, self.budget),
            Err(_) => Ok(Vec::new()),
        }
    }

    /// The series that have one of `words`.
    fn with_words(&self, words: &BTreeSet<String>) -> Result<BTreeSet<String>, Error> {
        let mut found = BTreeSet::new();
        for word in words {
            if word.contains('=') {
                let tagged = Pattern::Tags(vec![word.clone()]);
                found.extend(tagged.find(self.source, self.budget)?);
                continue;
            }
            if self.all.is_none()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            {
                for pattern in [format!("**.*{word}*.**"), format!("**.*{word}*")] {
                    let some = Pattern::Path(pattern).find(self.source, self.budget)?;
                    found.extend(some.into_iter().filter(|name| has_word(name, word)));
                }
            }
        }
        if let Some(all) = &self.all {
            let plain = || words.iter().filter(|word| !word.contains('='));
            let has = |name: &&String| plain().any(|word| has_word(name, word));
            found.extend(all.iter().filter(has).cloned());
        }
        found.retain(|name| !is_own(name));
        Ok(found)
    }

    /// The series that the dashboards draw.
    pub(super) fn on_dashboards(&self) -> Result<BTreeSet<String>, Error> {
        let mut found = read_by(&self.dashboards, self.source, self.budget)?;
        found.retain(|name| !is_own(name));
        Ok(found)
    }

    /// All names of `key`.
    pub(super) fn of(&self, key: &Key) -> Result<BTreeSet<String>, Error> {
        match key {
            Key::Targets(targets) => {
                let mut found = BTreeSet::new();
                for target in targets {
                    found.extend(self.find(target)?);
                }
                Ok(found)
            }
            Key::Words(words) => self.with_words(words),
            Key::Dashboards => self.on_dashboards(),
        }
    }
}

/// Whether a series is one of the server's own counters: no deploy of others moves them.
pub(super) fn is_own(name: &str) -> bool {
    crate::stats::is_ours(name)
}

/// The series that `targets` read, whatever functions make of them; those that cannot be parsed read none.
///
/// # Errors
/// The store fails, or `budget` is used up.
pub(in crate::verdicts) fn read_by(
    targets: &[String],
    source: &dyn Source,
    budget: &Budget,
) -> Result<BTreeSet<String>, Error> {
    let mut patterns = Vec::new();
    for target in targets {
        if let Ok(parsed) = query::parse(target) {
            patterns_of(&parsed.expression, &mut patterns);
        }
    }
    let mut found = BTreeSet::new();
    for pattern in patterns {
        found.extend(pattern.find(source, budget)?);
    }
    Ok(found)
}
