//! Searches of the tag index, which give its lock up when a writer waits for it.
//!
//! 1. Expressions are Graphite's: `tag=v`, `tag!=v`, `tag=~re`, `tag!=~re`. An absent tag counts as
//!    the empty value; expressions match from the start of the value, not necessarily to its end.
//! 2. While tags or values are gone through, writers are let in ([`Hold`]). What they add or remove may
//!    be seen or not, as if they had come before or after the question.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};

use parking_lot::RwLock;
use roaring::RoaringBitmap;

use super::expression::{Spec, Wanted, parse};
use super::hold::{Hold, is_waited_for};
use super::tags::{Tags, Value};
use super::tree::GoOn;
use crate::error::TagError;

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

/// Calls `visit` with the entries of a map of the index whose keys begin with `prefix`, in order, until
/// it breaks.
fn each<V>(
    tags: &RwLock<Tags>,
    prefix: &str,
    map: impl Fn(&Tags) -> Option<&BTreeMap<Box<str>, V>>,
    mut visit: impl FnMut(&str, &V) -> Result<ControlFlow<()>, TagError>,
) -> Result<(), TagError> {
    let mut from: Bound<Box<str>> = Bound::Included(prefix.into());
    loop {
        let locked = tags.read();
        let hold = Hold::short();
        let Some(map) = map(&locked) else {
            return Ok(());
        };
        let range = (from.as_ref().map(|key| &**key), Bound::Unbounded);
        let mut last = None;
        for (key, value) in map.range::<str, _>(range) {
            if !key.starts_with(prefix) || visit(key, value)?.is_break() {
                return Ok(());
            }
            if hold.is_over(|| is_waited_for(tags)) {
                last = Some(key.clone());
                break;
            }
        }
        match last {
            Some(key) => from = Bound::Excluded(key),
            None => return Ok(()),
        }
    }
}

/// A search of the tag index.
pub(super) struct TagSearch<'a>(pub(super) &'a RwLock<Tags>);

impl TagSearch<'_> {
    /// The series that satisfy every expression.
    pub(super) fn find(
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
        Ok(found.unwrap_or_else(|| self.0.read().all().clone()))
    }

    fn matching(&self, spec: &Spec<'_>, go_on: &mut GoOn<'_>) -> Result<RoaringBitmap, TagError> {
        asked(go_on)?;
        let mut wanted = RoaringBitmap::new();
        match &spec.wanted {
            Wanted::Exactly(value) => {
                let tags = self.0.read();
                let value = tags.tags.get(spec.tag).map(|tag| tag.values.get(*value));
                if let Some(value) = value.flatten() {
                    wanted.clone_from(&value.series);
                }
            }
            Wanted::Matching(..) => each(self.0, "", values_of(spec.tag), |value, entry| {
                asked(go_on)?;
                if spec.wants(value) {
                    wanted |= &entry.series;
                }
                Ok(ControlFlow::Continue(()))
            })?,
        }
        let tags = self.0.read();
        if spec.wants("") {
            match tags.tags.get(spec.tag) {
                Some(tag) => wanted |= tags.all() - &tag.any,
                None => wanted.clone_from(tags.all()),
            }
        }
        Ok(if spec.negated {
            tags.all() - wanted
        } else {
            wanted
        })
    }

    /// Every tag with its id, sorted.
    pub(super) fn tags(&self, go_on: &mut GoOn<'_>) -> Result<Vec<(u32, String)>, TagError> {
        let mut tags = Vec::new();
        each(
            self.0,
            "",
            |tags| Some(&tags.tags),
            |name, tag| {
                tags.push((tag.id, kept(name, go_on)?));
                Ok(ControlFlow::Continue(()))
            },
        )?;
        Ok(tags)
    }

    /// The id of `tag` and the values that series carry, sorted.
    pub(super) fn values(
        &self,
        tag: &str,
        go_on: &mut GoOn<'_>,
    ) -> Result<Option<(u32, Vec<TagValue>)>, TagError> {
        let Some(id) = self.0.read().tags.get(tag).map(|tag| tag.id) else {
            return Ok(None);
        };
        let mut values = Vec::new();
        each(self.0, "", values_of(tag), |text, value| {
            if !value.series.is_empty() {
                values.push(TagValue {
                    id: value.id,
                    value: kept(text, go_on)?,
                    count: value.series.len() as usize,
                });
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(Some((id, values)))
    }

    /// The tags, beginning with `prefix`, of the series that satisfy `expressions` (of all series
    /// when there are none), without those that the expressions name.
    pub(super) fn complete_tags(
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
        each(
            self.0,
            prefix,
            |tags| Some(&tags.tags),
            |name, tag| {
                if found.len() >= limit {
                    return Ok(ControlFlow::Break(()));
                }
                asked(go_on)?;
                let is_named = specs.iter().any(|spec| spec.tag == name);
                let is_carried = |among| !tag.any.is_disjoint(among);
                if !is_named && among.as_ref().is_none_or(is_carried) {
                    found.push(kept(name, go_on)?);
                }
                Ok(ControlFlow::Continue(()))
            },
        )?;
        Ok(found)
    }

    /// The values of `tag`, beginning with `prefix`, among the series that satisfy `expressions`.
    /// An expression that requires a value is not needed: the series carry `tag`.
    pub(super) fn complete_values(
        &self,
        expressions: &[&str],
        tag: &str,
        prefix: &str,
        limit: usize,
        go_on: &mut GoOn<'_>,
    ) -> Result<Vec<String>, TagError> {
        let specs = parse(expressions)?;
        if !self.0.read().tags.contains_key(tag) {
            return Ok(Vec::new());
        }
        let among = self.select(&specs, go_on)?;
        let mut found = Vec::new();
        each(self.0, prefix, values_of(tag), |text, value| {
            if found.len() >= limit {
                return Ok(ControlFlow::Break(()));
            }
            asked(go_on)?;
            if !value.series.is_disjoint(&among) {
                found.push(kept(text, go_on)?);
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }
}

/// The values of the tag called `tag`.
fn values_of(tag: &str) -> impl Fn(&Tags) -> Option<&BTreeMap<Box<str>, Value>> {
    move |tags| Some(&tags.tags.get(tag)?.values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapoint::SeriesId;
    use crate::series;
    use proptest::prelude::*;

    fn index(names: &[&str]) -> RwLock<Tags> {
        let mut tags = Tags::default();
        for (id, name) in names.iter().enumerate() {
            tags.insert(SeriesId(id as u32), name);
        }
        RwLock::new(tags)
    }

    fn ids(tags: &RwLock<Tags>, expressions: &[&str]) -> Vec<u32> {
        TagSearch(tags)
            .find(expressions, &mut |_| true)
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
                TagSearch(&tags).find(&[everything], &mut |_| true),
                Err(TagError::MatchesEverything),
                "{everything}"
            );
        }
        for bad in ["", "bad", "=x", "a=b;c", "a!b", ";a=b"] {
            assert_eq!(
                TagSearch(&tags).find(&[bad], &mut |_| true),
                Err(TagError::Malformed(bad.into()))
            );
        }
        assert!(matches!(
            TagSearch(&tags).find(&["a=~("], &mut |_| true),
            Err(TagError::Regex { .. })
        ));
    }

    #[test]
    fn a_search_ends_when_it_is_told() {
        let tags = index(&["m;dc=a;host=x", "m;dc=b", "n;host=xy", "p"]);
        for expressions in [&["host=~x"][..], &["name=m"], &["name=m", "dc=~a"]] {
            let ended = TagSearch(&tags).find(expressions, &mut |_| false);
            assert_eq!(ended, Err(TagError::Ended));
        }
        let ended = TagSearch(&tags).complete_tags(&[], "", 9, &mut |_| false);
        assert_eq!(ended, Err(TagError::Ended));
        let ended = TagSearch(&tags).complete_values(&[], "host", "", 9, &mut |_| false);
        assert_eq!(ended, Err(TagError::Ended));
    }

    #[test]
    fn completion_names_what_is_left_to_say() {
        let tags = index(&["m;dc=a;host=x", "m;dc=b", "n;host=xy"]);
        assert_eq!(
            TagSearch(&tags)
                .complete_tags(&["name=m"], "", 9, &mut |_| true)
                .unwrap(),
            ["dc", "host"]
        );
        assert_eq!(
            TagSearch(&tags)
                .complete_tags(&["dc=b"], "", 9, &mut |_| true)
                .unwrap(),
            ["name"]
        );
        assert_eq!(
            TagSearch(&tags)
                .complete_tags(&[], "h", 9, &mut |_| true)
                .unwrap(),
            ["host"]
        );
        assert_eq!(
            TagSearch(&tags)
                .complete_tags(&[], "", 1, &mut |_| true)
                .unwrap(),
            ["dc"]
        );
        assert_eq!(
            TagSearch(&tags)
                .complete_values(&["dc!=a"], "host", "", 9, &mut |_| true)
                .unwrap(),
            ["xy"]
        );
        assert_eq!(
            TagSearch(&tags)
                .complete_values(&[], "host", "x", 9, &mut |_| true)
                .unwrap(),
            ["x", "xy"]
        );
        assert!(
            TagSearch(&tags)
                .complete_values(&[], "no", "", 9, &mut |_| true)
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn a_removed_series_leaves_its_tags() {
        let tags = index(&["m;dc=a"]);
        assert!(tags.write().remove(SeriesId(0), "m;dc=a"));
        assert!(!tags.write().remove(SeriesId(0), "m;dc=a"));
        assert_eq!(TagSearch(&tags).tags(&mut |_| true).unwrap().len(), 2);
        assert!(
            TagSearch(&tags)
                .values("dc", &mut |_| true)
                .unwrap()
                .unwrap()
                .1
                .is_empty()
        );
        assert_eq!(TagSearch(&tags).values("no", &mut |_| true), Ok(None));
        assert!(ids(&tags, &["name=m"]).is_empty());
        tags.write().insert(SeriesId(0), "m;dc=a");
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
            let tags = index(&names);
            let gone = (!names.is_empty()).then(|| removed.index(names.len()));
            if let Some(gone) = gone {
                tags.write().remove(SeriesId(gone as u32), names[gone]);
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
            match TagSearch(&tags).find(&texts, &mut |_| true) {
                Ok(found) => prop_assert_eq!(found.into_iter().collect::<Vec<_>>(), expected),
                Err(error) => {
                    prop_assert_eq!(error, TagError::MatchesEverything);
                    prop_assert!(parsed.iter().all(Spec::matches_empty));
                }
            }
        }
    }
}
