//! Tags to series: an inverted index with a bitmap per value.
//!
//! 1. A series is here while it is listed. Tags and values stay known, with their ids, after their last
//!    series is removed over HTTP. If it expires ([`Tags::expire`]), they are removed as well.
//! 2. The metric's name is the tag `name`. A registered name without tags has only that one.
//! 3. Expressions are Graphite's: `tag=v`, `tag!=v`, `tag=~re`, `tag!=~re`. An absent tag counts as
//!    the empty value; expressions match from the start of the value, not necessarily to its end.

use std::collections::BTreeMap;
use std::ops::Bound;

use roaring::RoaringBitmap;

use super::expression::{Spec, Wanted, parse};
use super::tree::GoOn;
use crate::datapoint::SeriesId;
use crate::error::TagError;
use crate::series;

/// The values of a tag with their ids and how many series carry each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagValue {
    /// Id of the value.
    pub id: u32,
    /// The value.
    pub value: String,
    /// How many series carry it.
    pub count: usize,
}

/// The index.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    tags: BTreeMap<Box<str>, Tag>,
    all: RoaringBitmap,
    last_value: u32,
    last_tag: u32,
}

#[derive(Debug, Default)]
struct Tag {
    id: u32,
    /// All series that carry the tag.
    any: RoaringBitmap,
    values: BTreeMap<Box<str>, Value>,
}

#[derive(Debug, Default)]
struct Value {
    id: u32,
    series: RoaringBitmap,
}

fn asked(go_on: &mut GoOn<'_>) -> Result<(), TagError> {
    if go_on(None) {
        Ok(())
    } else {
        Err(TagError::Ended)
    }
}

/// A text of the answer: the caller counts it.
pub(super) fn kept(text: &str, go_on: &mut GoOn<'_>) -> Result<String, TagError> {
    if go_on(Some(text)) {
        Ok(text.to_owned())
    } else {
        Err(TagError::Ended)
    }
}

impl Tags {
    /// Adds the series called `name`.
    pub(crate) fn insert(&mut self, id: SeriesId, name: &str) {
        if !self.all.insert(id.0) {
            return;
        }
        for (tag, value) in series::tags(name) {
            if !self.tags.contains_key(tag) {
                self.last_tag += 1;
                let new = Tag {
                    id: self.last_tag,
                    ..Tag::default()
                };
                self.tags.insert(tag.into(), new);
            }
            let Some(entry) = self.tags.get_mut(tag) else {
                continue;
            };
            entry.any.insert(id.0);
            if !entry.values.contains_key(value) {
                self.last_value += 1;
                let new = Value {
                    id: self.last_value,
                    ..Value::default()
                };
                entry.values.insert(value.into(), new);
            }
            if let Some(value) = entry.values.get_mut(value) {
                value.series.insert(id.0);
            }
        }
    }

    /// Removes the series. Whether it was there.
    pub(crate) fn remove(&mut self, id: SeriesId, name: &str) -> bool {
        if !self.all.remove(id.0) {
            return false;
        }
        for (tag, value) in series::tags(name) {
            if let Some(entry) = self.tags.get_mut(tag) {
                entry.any.remove(id.0);
                if let Some(value) = entry.values.get_mut(value) {
                    value.series.remove(id.0);
                }
            }
        }
        true
    }

    /// As [`Tags::remove`]; also removes tags and values that no series carries any longer.
    pub(crate) fn expire(&mut self, id: SeriesId, name: &str) -> bool {
        let was_in = self.remove(id, name);
        for (tag, value) in series::tags(name) {
            let Some(entry) = self.tags.get_mut(tag) else {
                continue;
            };
            if entry
                .values
                .get(value)
                .is_some_and(|value| value.series.is_empty())
            {
                entry.values.remove(value);
            }
            if entry.any.is_empty() {
                self.tags.remove(tag);
            }
        }
        was_in
    }

    /// Whether the series is there.
    pub(crate) fn contains(&self, id: SeriesId) -> bool {
        self.all.contains(id.0)
    }

    /// Every series.
    pub(crate) fn all(&self) -> &RoaringBitmap {
        &self.all
    }

    /// The series that satisfy every expression.
    pub(crate) fn find(
        &self,
        expressions: &[&str],
        go_on: &mut GoOn<'_>,
    ) -> Result<RoaringBitmap, TagError> {
        let specs = parse(expressions)?;
        if specs.iter().all(Spec::matches_empty) {
            return Err(TagError::MatchesEverything);
        }
        self.select(&specs, go_on)
    }

    fn select(&self, specs: &[Spec<'_>], go_on: &mut GoOn<'_>) -> Result<RoaringBitmap, TagError> {
        let mut found: Option<RoaringBitmap> = None;
        // Expressions that require a value come first: they are the smaller sets.
        let (demanding, lenient): (Vec<_>, Vec<_>) =
            specs.iter().partition(|spec| !spec.matches_empty());
        for spec in demanding.into_iter().chain(lenient) {
            let set = self.matching(spec, go_on)?;
            match &mut found {
                None => found = Some(set),
                Some(found) => *found &= set,
            }
            if found.as_ref().is_some_and(RoaringBitmap::is_empty) {
                break;
            }
        }
        Ok(found.unwrap_or_else(|| self.all.clone()))
    }

    fn matching(&self, spec: &Spec<'_>, go_on: &mut GoOn<'_>) -> Result<RoaringBitmap, TagError> {
        asked(go_on)?;
        let Some(tag) = self.tags.get(spec.tag) else {
            return Ok(if spec.matches_empty() {
                self.all.clone()
            } else {
                RoaringBitmap::new()
            });
        };
        let mut wanted = match &spec.wanted {
            Wanted::Exactly(value) => tag
                .values
                .get(*value)
                .map(|value| value.series.clone())
                .unwrap_or_default(),
            Wanted::Matching(..) => {
                let mut union = RoaringBitmap::new();
                for (value, entry) in &tag.values {
                    asked(go_on)?;
                    if spec.wants(value) {
                        union |= &entry.series;
                    }
                }
                union
            }
        };
        if spec.wants("") {
            wanted |= &self.all - &tag.any;
        }
        Ok(if spec.negated {
            &self.all - wanted
        } else {
            wanted
        })
    }

    /// Every tag with its id, sorted.
    pub(crate) fn tags(&self, go_on: &mut GoOn<'_>) -> Result<Vec<(u32, String)>, TagError> {
        let mut tags = Vec::new();
        for (name, tag) in &self.tags {
            tags.push((tag.id, kept(name, go_on)?));
        }
        Ok(tags)
    }

    /// The id of `tag` and the values that series carry, sorted.
    pub(crate) fn values(
        &self,
        tag: &str,
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<(u32, Vec<TagValue>)>, TagError> {
        let Some(tag) = self.tags.get(tag) else {
            return Ok(None);
        };
        let carried = tag.values.iter();
        let carried = carried.filter(|(_, value)| !value.series.is_empty());
        let mut values = Vec::new();
        for (text, value) in carried {
            values.push(TagValue {
                id: value.id,
                value: kept(text, go_on)?,
                count: value.series.len() as usize,
            });
        }
        Ok(Some((tag.id, values)))
    }

    /// The tags, beginning with `prefix`, of the series that satisfy `expressions` (of all series
    /// when there are none), without those that the expressions name.
    pub(crate) fn complete_tags(
        &self,
        expressions: &[&str],
        prefix: &str,
        limit: usize,
        go_on: &mut GoOn<'_>,
    ) -> Result<Vec<String>, TagError> {
        let specs = parse(expressions)?;
        let among = match specs.as_slice() {
            [] => None,
            specs if specs.iter().all(Spec::matches_empty) => {
                return Err(TagError::MatchesEverything);
            }
            specs => Some(self.select(specs, go_on)?),
        };
        let mut found = Vec::new();
        let later = (Bound::Included(prefix), Bound::Unbounded);
        let tags = self.tags.range::<str, _>(later);
        for (name, tag) in tags.take_while(|(name, _)| name.starts_with(prefix)) {
            if found.len() >= limit {
                break;
            }
            asked(go_on)?;
            let is_named = specs.iter().any(|spec| spec.tag == &**name);
            let is_carried = |among| !tag.any.is_disjoint(among);
            if !is_named && among.as_ref().is_none_or(is_carried) {
                found.push(kept(name, go_on)?);
            }
        }
        Ok(found)
    }

    /// The values of `tag`, beginning with `prefix`, among the series that satisfy `expressions`.
    /// An expression that requires a value is not needed: the series carry `tag`.
    pub(crate) fn complete_values(
        &self,
        expressions: &[&str],
        tag: &str,
        prefix: &str,
        limit: usize,
        go_on: &mut GoOn<'_>,
    ) -> Result<Vec<String>, TagError> {
        let specs = parse(expressions)?;
        let Some(tag) = self.tags.get(tag) else {
            return Ok(Vec::new());
        };
        let among = self.select(&specs, go_on)?;
        let mut found = Vec::new();
        let later = (Bound::Included(prefix), Bound::Unbounded);
        let values = tag.values.range::<str, _>(later);
        for (text, value) in values.take_while(|(text, _)| text.starts_with(prefix)) {
            if found.len() >= limit {
                break;
            }
            asked(go_on)?;
            if !value.series.is_disjoint(&among) {
                found.push(kept(text, go_on)?);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(names: &[&str]) -> Tags {
        let mut tags = Tags::default();
        for (id, name) in names.iter().enumerate() {
            tags.insert(SeriesId(id as u32), name);
        }
        tags
    }

    fn ids(tags: &Tags, expressions: &[&str]) -> Vec<u32> {
        tags.find(expressions, &mut |_| true)
            .unwrap()
            .into_iter()
            .collect()
    }

    #[test]
    fn operators_and_the_empty_value() {
        let tags = index(&["m;dc=a;host=x", "m;dc=b", "n;host=xy", "p"]);
        assert_eq!(ids(&tags, &["name=m"]), [0, 1]);
        assert_eq!(ids(&tags, &["host=~x"]), [0, 2]);
        assert_eq!(ids(&tags, &["host=~x$"]), [0]);
        assert_eq!(ids(&tags, &["host=~.*y"]), [2]);
        assert_eq!(ids(&tags, &["host!="]), [0, 2]);
        assert_eq!(ids(&tags, &["name=m", "host="]), [1]);
        assert_eq!(ids(&tags, &["name=m", "host!=x"]), [1]);
        assert_eq!(ids(&tags, &["name=m", "host!=~x.*"]), [1]);
        assert_eq!(ids(&tags, &["name=~.+", "nosuch="]), [0, 1, 2, 3]);
        assert!(ids(&tags, &["server!=~.*"]).is_empty());
        assert!(ids(&tags, &["name=m", "name=n"]).is_empty());
        for everything in ["host=", "host!=x", "host=~.*", "host=~", "name=~$"] {
            assert_eq!(
                tags.find(&[everything], &mut |_| true),
                Err(TagError::MatchesEverything),
                "{everything}"
            );
        }
        for bad in ["", "bad", "=x", "a=b;c", "a!b", ";a=b"] {
            assert_eq!(
                tags.find(&[bad], &mut |_| true),
                Err(TagError::Malformed(bad.into()))
            );
        }
        assert!(matches!(
            tags.find(&["a=~("], &mut |_| true),
            Err(TagError::Regex { .. })
        ));
    }

    #[test]
    fn a_search_ends_when_it_is_told() {
        let tags = index(&["m;dc=a;host=x", "m;dc=b", "n;host=xy", "p"]);
        for expressions in [&["host=~x"][..], &["name=m"], &["name=m", "dc=~a"]] {
            let ended = tags.find(expressions, &mut |_| false);
            assert_eq!(ended, Err(TagError::Ended));
        }
        let ended = tags.complete_tags(&[], "", 9, &mut |_| false);
        assert_eq!(ended, Err(TagError::Ended));
        let ended = tags.complete_values(&[], "host", "", 9, &mut |_| false);
        assert_eq!(ended, Err(TagError::Ended));
    }

    #[test]
    fn completion_names_what_is_left_to_say() {
        let tags = index(&["m;dc=a;host=x", "m;dc=b", "n;host=xy"]);
        assert_eq!(
            tags.complete_tags(&["name=m"], "", 9, &mut |_| true)
                .unwrap(),
            ["dc", "host"]
        );
        assert_eq!(
            tags.complete_tags(&["dc=b"], "", 9, &mut |_| true).unwrap(),
            ["name"]
        );
        assert_eq!(
            tags.complete_tags(&[], "h", 9, &mut |_| true).unwrap(),
            ["host"]
        );
        assert_eq!(
            tags.complete_tags(&[], "", 1, &mut |_| true).unwrap(),
            ["dc"]
        );
        assert_eq!(
            tags.complete_values(&["dc!=a"], "host", "", 9, &mut |_| true)
                .unwrap(),
            ["xy"]
        );
        assert_eq!(
            tags.complete_values(&[], "host", "x", 9, &mut |_| true)
                .unwrap(),
            ["x", "xy"]
        );
        assert!(
            tags.complete_values(&[], "no", "", 9, &mut |_| true)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_removed_series_leaves_its_tags() {
        let mut tags = index(&["m;dc=a"]);
        assert!(tags.remove(SeriesId(0), "m;dc=a"));
        assert!(!tags.remove(SeriesId(0), "m;dc=a"));
        assert_eq!(tags.tags(&mut |_| true).unwrap().len(), 2);
        assert!(
            tags.values("dc", &mut |_| true)
                .unwrap()
                .unwrap()
                .1
                .is_empty()
        );
        assert_eq!(tags.values("no", &mut |_| true), Ok(None));
        assert!(ids(&tags, &["name=m"]).is_empty());
        tags.insert(SeriesId(0), "m;dc=a");
        assert_eq!(ids(&tags, &["name=m"]), [0]);
    }

    proptest! {
        #[test]
        fn as_a_look_at_every_series(
            names in prop::collection::btree_set("[mn](;a=[xy]{1,2})?(;b=[xy])?", 0..12),
            removed in any::<prop::sample::Index>(),
            specs in prop::collection::vec("(name|a|b|c)(=|!=|=~|!=~)(x|y|xy|m|x\\.\\*|\\.\\*|\\.\\+|)", 1..4),
        ) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let mut tags = index(&names);
            let gone = (!names.is_empty()).then(|| removed.index(names.len()));
            if let Some(gone) = gone {
                tags.remove(SeriesId(gone as u32), names[gone]);
            }
            let texts: Vec<&str> = specs.iter().map(String::as_str).collect();
            let parsed = parse(&texts).unwrap();
            let expected: Vec<u32> = (0..names.len())
                .filter(|id| Some(*id) != gone)
                .filter(|id| parsed.iter().all(|spec| {
                    let value = series::tags(names[*id])
                        .find(|(tag, _)| *tag == spec.tag)
                        .map_or("", |(_, value)| value);
                    spec.wants(value) != spec.negated
                }))
                .map(|id| id as u32)
                .collect();
            match tags.find(&texts, &mut |_| true) {
                Ok(found) => prop_assert_eq!(found.into_iter().collect::<Vec<_>>(), expected),
                Err(error) => {
                    prop_assert_eq!(error, TagError::MatchesEverything);
                    prop_assert!(parsed.iter().all(Spec::matches_empty));
                }
            }
        }
    }
}
