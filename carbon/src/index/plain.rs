//! Series without tags, as the tag queries see them: carbon registers every series, so a plain one
//! has the tag `name` and no other.
//!
//! Plain series have no sets of their own. A query that can match one looks at their names in the
//! table, a batch at a time, so that no lock is held for long; one that asks for a name in full
//! looks it up, and one that says how the names begin looks at those below that place of the tree. In a store that receives nothing ([`Index::receives_nothing`]) the tag queries see
//! what was registered, and nothing else.

use std::collections::BTreeSet;
use std::ops::Range;

use super::expression::{NAME, PlainSpecs};
use super::hold::{Hold, is_waited_for};
use super::state::Index;
use super::tag_search::kept;
use super::tree::GoOn;
use crate::datapoint::SeriesId;
use crate::error::TagError;
use crate::series;

/// Names that are looked at while the index is locked.
const AT_ONCE: usize = 4_096;

/// Series that are looked at one by one because of how their names begin. With more, all are.
const MOST_BELOW: usize = 1 << 16;

/// Series that a query looks at.
enum Candidates {
    Some(Vec<SeriesId>),
    /// All ids below this one.
    All(u32),
}

impl Candidates {
    /// The next places from `at` on.
    fn batch(&self, at: usize) -> Range<usize> {
        let len = match self {
            Self::Some(ids) => ids.len(),
            Self::All(end) => *end as usize,
        };
        at.min(len)..len.min(at.saturating_add(AT_ONCE))
    }

    fn get(&self, at: usize) -> Option<SeriesId> {
        match self {
            Self::Some(ids) => ids.get(at).copied(),
            Self::All(_) => u32::try_from(at).ok().map(SeriesId),
        }
    }
}

impl Index {
    /// The index of a store that receives nothing: plain series are not registered by themselves.
    pub(crate) fn receives_nothing(mut self) -> Self {
        self.receives_nothing = true;
        self
    }

    /// The series that may satisfy `specs` and whose names may begin with `beginning`.
    fn candidates(&self, specs: &PlainSpecs<'_>, beginning: &str) -> Candidates {
        let names = self.names();
        if let Some(name) = specs.exactly() {
            let id = names.get(name.as_bytes());
            return Candidates::Some(id.into_iter().collect());
        }
        let below = match beginning {
            "" => None,
            beginning => self
                .tree
                .read()
                .series_beginning(&names, beginning, MOST_BELOW),
        };
        match below {
            Some(below) => Candidates::Some(below),
            None => Candidates::All(u32::try_from(names.end()).unwrap_or(u32::MAX)),
        }
    }

    /// Calls `visit` with each name of a plain series that satisfies `specs` and begins with `prefix`, in
    /// no order. A series that the tag index has is left out.
    fn each_plain(
        &self,
        specs: &PlainSpecs<'_>,
        prefix: &str,
        go_on: &mut GoOn<'_>,
        visit: &mut dyn FnMut(SeriesId, &str, &mut GoOn<'_>) -> Result<(), TagError>,
    ) -> Result<(), TagError> {
        if self.receives_nothing {
            return Ok(());
        }
        let _pin = self.pin();
        let known = specs.beginning();
        let (beginning, other) = match known.len() > prefix.len() {
            true => (known, prefix),
            false => (prefix, known),
        };
        // No name begins with both.
        if !beginning.starts_with(other) {
            return Ok(());
        }
        let candidates = self.candidates(specs, beginning);
        // Without a beginning nothing is compared: a comparison with an empty text takes longer than one
        // with a short text, because its address is that of no memory.
        let begins = |name: &str| beginning.is_empty() || name.starts_with(beginning);
        let mut next = 0;
        loop {
            let batch = candidates.batch(next);
            if batch.is_empty() {
                return Ok(());
            }
            let names = self.names();
            let tags = self.tags.read();
            let flags = self.flags.read();
            let hold = Hold::short();
            let is_waited_for = || {
                is_waited_for(&self.names)
                    || is_waited_for(&self.tags)
                    || is_waited_for(&self.flags)
            };
            for at in batch {
                if hold.is_over(is_waited_for) {
                    break;
                }
                next = at + 1;
                let Some(id) = candidates.get(at) else {
                    continue;
                };
                if !flags.listed.get(id.0) {
                    continue;
                }
                let name = names.name(id);
                if !begins(name) || series::is_tagged(name) || tags.contains(id) {
                    continue;
                }
                if !go_on(None) {
                    return Err(TagError::Ended);
                }
                if specs.select(name) {
                    visit(id, name, go_on)?;
                }
            }
        }
    }

    /// The names of the plain series that satisfy every expression.
    pub(super) fn plain_series(
        &self,
        expressions: &[&str],
        go_on: &mut GoOn<'_>,
    ) -> Result<Vec<String>, TagError> {
        let mut found = Vec::new();
        let Some(specs) = PlainSpecs::parse(expressions)? else {
            return Ok(found);
        };
        self.each_plain(&specs, "", go_on, &mut |_, name, go_on| {
            found.push(kept(name, go_on)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// The plain series with their ids.
    pub(super) fn plain_names(
        &self,
        go_on: &mut GoOn<'_>,
    ) -> Result<Vec<(SeriesId, String)>, TagError> {
        let mut found = Vec::new();
        let Some(all) = PlainSpecs::parse(&[])? else {
            return Ok(found);
        };
        self.each_plain(&all, "", go_on, &mut |id, name, go_on| {
            found.push((id, kept(name, go_on)?));
            Ok(())
        })?;
        Ok(found)
    }

    /// The first `limit` names, bytewise, of plain series that begin with `prefix` and satisfy
    /// `expressions`.
    pub(super) fn complete_plain(
        &self,
        expressions: &[&str],
        prefix: &str,
        limit: usize,
        go_on: &mut GoOn<'_>,
    ) -> Result<BTreeSet<String>, TagError> {
        let mut found: BTreeSet<String> = BTreeSet::new();
        let Some(specs) = PlainSpecs::parse(expressions)? else {
            return Ok(found);
        };
        self.each_plain(&specs, prefix, go_on, &mut |_, name, go_on| {
            let is_full = found.len() >= limit;
            let is_late = found.last().is_none_or(|last| name >= last.as_str());
            if is_full && is_late {
                return Ok(());
            }
            if is_full {
                found.pop_last();
            }
            found.insert(kept(name, go_on)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// Whether there are plain series, and so the tag `name`.
    pub(super) fn has_plain(&self) -> bool {
        !self.receives_nothing && self.tree.read().len() > 0
    }
}

/// The id of the tag `name` while no tagged series has come.
pub(super) const FIRST_TAG: (u32, &str) = (1, NAME);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(names: &[String]) -> Index {
        opened(names, false)
    }

    fn opened(names: &[String], read_only: bool) -> Index {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let index = Index::open(root, root.join("names"), read_only).unwrap();
        for name in names {
            let id = index.intern(name.as_bytes()).unwrap();
            index.list(&[id]);
        }
        index
    }

    #[test]
    fn plain_series_have_the_tag_name() {
        let names = ["a.b", "a.c", "m;dc=x", "a.b;dc=y"].map(str::to_owned);
        let index = index(&names);
        let found = |expressions: &[&str]| index.find_tagged(expressions).unwrap();
        assert_eq!(found(&["name=a.b"]), ["a.b", "a.b;dc=y"]);
        assert_eq!(found(&["name=~a", "dc="]), ["a.b", "a.c"]);
        assert_eq!(found(&["name=~a", "dc!=y"]), ["a.b", "a.c"]);
        assert_eq!(found(&["dc=x"]), ["m;dc=x"]);
        assert_eq!(found(&["name!="]), ["a.b", "a.b;dc=y", "a.c", "m;dc=x"]);
        assert!(found(&["name=nosuch"]).is_empty());
        assert!(index.find_tagged(&["dc!=x"]).is_err());
        let (_, values) = index.values("name").unwrap();
        let values: Vec<_> = values.iter().map(|v| (v.value.as_str(), v.count)).collect();
        assert_eq!(values, [("a.b", 2), ("a.c", 1), ("m", 1)]);
        let complete = |expressions: &[&str], prefix, limit| {
            index
                .complete_values(expressions, "name", prefix, limit, &mut |_| true)
                .unwrap()
        };
        assert_eq!(complete(&[], "", 9), ["a.b", "a.c", "m"]);
        assert_eq!(complete(&[], "", 1), ["a.b"]);
        assert_eq!(complete(&["dc="], "a", 9), ["a.b", "a.c"]);
        assert_eq!(complete(&["name!=a.b"], "", 9), ["a.c", "m"]);
    }

    #[test]
    fn the_tag_is_there_before_any_tagged_series() {
        let plain = index(&["a".to_owned()]);
        assert_eq!(plain.tags(), [(1, "name".to_owned())]);
        assert_eq!(plain.values("name").unwrap().1.len(), 1);
        assert!(index(&[]).tags().is_empty());
        assert_eq!(index(&[]).values("name"), None);
        let replay = opened(&["a".to_owned()], true);
        assert!(replay.tags().is_empty());
        assert!(replay.find_tagged(&["name=a"]).unwrap().is_empty());
        let ended = plain.find_tagged_while(&["name=~a"], &mut |_| false);
        assert!(ended.is_err());
    }

    proptest! {
        #[test]
        fn as_a_look_at_every_series(
            names in prop::collection::btree_set("[mn](\\.[ab])?(;a=[xy])?", 0..12),
            specs in prop::collection::vec("(name|a|c)(=|!=|=~|!=~)(x|y|m|m\\.a|m\\\\\\.|n\\.|\\.\\*|\\.\\+|)", 1..4),
            limit in 0..5_usize,
        ) {
            let names: Vec<String> = names.into_iter().collect();
            let index = index(&names);
            let texts: Vec<&str> = specs.iter().map(String::as_str).collect();
            let selects = |name: &String| texts.iter().all(|text| {
                let end = text.find(['=', '!']).unwrap();
                let value = series::tags(name).find(|(tag, _)| *tag == &text[..end]);
                super::super::expression::selects(text, value.map_or("", |(_, value)| value))
            });
            let expected: Vec<String> = names.iter().filter(|name| selects(name)).cloned().collect();
            match index.find_tagged(&texts) {
                Ok(found) => prop_assert_eq!(found, expected.clone()),
                Err(_) => prop_assert!(texts.iter().all(|text| super::super::expression::selects(text, ""))),
            }
            let mut values: Vec<String> = expected
                .iter()
                .map(|name| name.split(';').next().unwrap().to_owned())
                .collect();
            values.sort();
            values.dedup();
            values.truncate(limit);
            let completed = index.complete_values(&texts, "name", "", limit, &mut |_| true).unwrap();
            prop_assert_eq!(completed, values);
            for prefix in ["m", "m.", "m.a", "n.b"] {
                let mut values: Vec<String> = expected
                    .iter()
                    .map(|name| name.split(';').next().unwrap().to_owned())
                    .filter(|name| name.starts_with(prefix))
                    .collect();
                values.sort();
                values.dedup();
                values.truncate(limit);
                let completed = |prefix| index.complete_values(&texts, "name", prefix, limit, &mut |_| true);
                prop_assert_eq!(completed(prefix).unwrap(), values);
            }
        }
    }
}
