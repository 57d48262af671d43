//! Tags to series: an inverted index with a bitmap per value.
//!
//! 1. A series is here while it is listed. Tags and values stay known, with their ids, after their last
//!    series is removed over HTTP. If it expires ([`Tags::expire`]), they are removed as well.
//! 2. The metric's name is the tag `name`. A registered name without tags has only that one.
//! 3. Expressions are Graphite's: `tag=v`, `tag!=v`, `tag=~re`, `tag!=~re`. An absent tag counts as
//!    the empty value; expressions match from the start of the value, not necessarily to its end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;

use roaring::RoaringBitmap;

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

/// One expression.
#[derive(Debug)]
struct Spec<'a> {
    tag: &'a str,
    wanted: Wanted<'a>,
    negated: bool,
}

#[derive(Debug)]
enum Wanted<'a> {
    Exactly(&'a str),
    Matching(fancy_regex::Regex),
}

impl<'a> Spec<'a> {
    fn parse(text: &'a str) -> Result<Self, TagError> {
        let malformed = || TagError::Malformed(text.to_owned());
        let end = text.find(['=', '!', ';']).ok_or_else(malformed)?;
        let (tag, rest) = text.split_at(end);
        if tag.is_empty() {
            return Err(malformed());
        }
        let (negated, rest) = match rest.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.strip_prefix('=').ok_or_else(malformed)?;
        if rest.contains(';') {
            return Err(malformed());
        }
        let wanted = match rest.strip_prefix('~') {
            None => Wanted::Exactly(rest),
            Some(pattern) => {
                Wanted::Matching(regex(&format!("^(?:{pattern})")).map_err(|error| {
                    TagError::Regex {
                        spec: text.to_owned(),
                        reason: error.to_string(),
                    }
                })?)
            }
        };
        Ok(Self {
            tag,
            wanted,
            negated,
        })
    }

    /// Whether `value` matches, before negation. An expression that exceeds its backtracking limit matches
    /// no value.
    fn wants(&self, value: &str) -> bool {
        match &self.wanted {
            Wanted::Exactly(wanted) => *wanted == value,
            Wanted::Matching(regex) => regex.is_match(value).unwrap_or(false),
        }
    }

    fn matches_empty(&self) -> bool {
        self.wants("") != self.negated
    }
}

/// About how many bytes a compiled expression may take.
const MAX_COMPILED: usize = 10 << 20;

/// How many instructions a compiled expression may have for the parts that need backtracking.
const MAX_INSTRUCTIONS: usize = 10_000;

/// The largest number of a group that an expression may refer to.
const MAX_GROUP: usize = 9_999;

/// Compiles a regular expression that a client sent, within bounds.
///
/// # Errors
/// The expression is invalid or very large.
pub fn regex(pattern: &str) -> Result<fancy_regex::Regex, fancy_regex::Error> {
    // The engine has a set of bits up to the largest number.
    if let Some(at) = reference_beyond(pattern, MAX_GROUP) {
        let error = fancy_regex::ParseError::InvalidBackref;
        return Err(fancy_regex::Error::ParseError(at, error));
    }
    // Parts between look-arounds and references are compiled separately, and calls of groups (which
    // Python does not have) once more at each call.
    let calls = ["\\g", "(?&", "(?P>", "(?R", "(?0"];
    let n_parts = if calls.iter().any(|call| pattern.contains(call)) {
        MAX_INSTRUCTIONS
    } else {
        1 + pattern.matches("(?").count() + pattern.matches('\\').count() / 8
    };
    let size = MAX_COMPILED / n_parts;
    fancy_regex::RegexBuilder::new(&kept_apart(pattern))
        .max_prog_size(MAX_INSTRUCTIONS)
        .delegate_size_limit(size)
        .delegate_dfa_size_limit(size)
        .build()
}

/// A number behind these is that of a group.
const REFERENCES: [&str; 14] = [
    "\\", "\\g", "\\g<", "\\g'", "\\k<", "\\k'", "(?", "(?P>", "(?P=", "(?&", "(?R", "(?(", "(?(<",
    "(?('",
];

/// Where `pattern` refers to a group by a number beyond `most`.
fn reference_beyond(pattern: &str, most: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = pattern[at..].find(['\\', '(']) {
        at += found;
        let rest = &pattern[at..];
        let refers = |begin: &&str| {
            let number = rest.strip_prefix(*begin).unwrap_or_default();
            // Directly behind a backslash a character stands for itself.
            let number = match *begin {
                "\\" => number,
                _ => number.trim_start_matches(['+', '-']),
            };
            let end = number.find(|c: char| !c.is_ascii_digit());
            let digits = &number[..end.unwrap_or(number.len())];
            !digits.is_empty() && digits.parse().map_or(true, |number: usize| number > most)
        };
        if REFERENCES.iter().any(refers) {
            return Some(at);
        }
        // What is escaped begins nothing.
        let mut chars = rest.chars();
        if chars.next() == Some('\\') {
            chars.next();
        }
        at = pattern.len() - chars.as_str().len();
    }
    None
}

/// The tag that every series has: its name without tags.
pub(super) const NAME: &str = "name";

/// Expressions as a series without tags is judged by: it has [`NAME`] only.
#[derive(Debug)]
pub(super) struct PlainSpecs<'a>(Vec<Spec<'a>>);

impl<'a> PlainSpecs<'a> {
    /// `None` if an expression demands another tag: no plain series satisfies it.
    ///
    /// # Errors
    /// An expression is malformed.
    pub(super) fn parse(expressions: &[&'a str]) -> Result<Option<Self>, TagError> {
        let mut specs = parse(expressions)?;
        if specs
            .iter()
            .any(|spec| spec.tag != NAME && !spec.matches_empty())
        {
            return Ok(None);
        }
        specs.retain(|spec| spec.tag == NAME);
        Ok(Some(Self(specs)))
    }

    /// The one name that can satisfy them.
    pub(super) fn exactly(&self) -> Option<&'a str> {
        self.0.iter().find_map(|spec| match spec.wanted {
            Wanted::Exactly(name) if !spec.negated => Some(name),
            _ => None,
        })
    }

    /// Whether the series called `name` satisfies them.
    pub(super) fn select(&self, name: &str) -> bool {
        self.0.iter().all(|spec| spec.wants(name) != spec.negated)
    }
}

/// Whether `value` satisfies an expression.
#[cfg(test)]
pub(super) fn selects(expression: &str, value: &str) -> bool {
    let spec = Spec::parse(expression).unwrap();
    spec.wants(value) != spec.negated
}

/// `pattern` with an empty group after each repetition of one or more. Without it fancy-regex 0.20
/// takes `a+.*a+` for `a+(.+a+)?`, which matches a single `a`. The group is not quite empty, because
/// an empty one is dropped: its second branch matches nothing.
fn kept_apart(pattern: &str) -> Cow<'_, str> {
    const APART: &str = r"(?:|[^\s\S])";
    if pattern.matches(['+', '{']).count() < 2 {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 2 * APART.len());
    let mut rest = pattern;
    let mut class_depth = 0;
    while let Some(c) = rest.chars().next() {
        let comment = rest.starts_with("(?#").then(|| rest.find(')')).flatten();
        let length = match (c, comment) {
            ('\\', _) => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            // A bracket in the first place is one of the class.
            ('[', _) if rest.starts_with("[]") => 2,
            ('[', _) if rest.starts_with("[^]") => 3,
            (_, Some(end)) if class_depth == 0 => end + 1,
            _ => c.len_utf8(),
        };
        match c {
            '[' => class_depth += 1,
            ']' if class_depth > 0 => class_depth -= 1,
            _ => {}
        }
        let repeated = class_depth == 0 && (c == '+' || c == '}' && out.ends_with("{1,"));
        out.push_str(&rest[..length]);
        rest = &rest[length..];
        if repeated && !rest.starts_with(['?', '+', '*', '{']) {
            out.push_str(APART);
        }
    }
    Cow::Owned(out)
}

fn parse<'a>(expressions: &[&'a str]) -> Result<Vec<Spec<'a>>, TagError> {
    expressions.iter().map(|text| Spec::parse(text)).collect()
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
            Wanted::Matching(_) => {
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
    fn references_to_groups_are_bounded() {
        let number = "999999999999";
        for pattern in [
            "(a)\\N",
            "\\gN",
            "\\g<N>",
            "\\g'N'",
            "\\g<-N>",
            "(a)\\k<N>",
            "(a)\\k'N'",
            "(?(N)a|b)",
            "(?(<N>)a|b)",
            "(?P>N)",
            "(?&N)",
            "(?N)",
            "(?+N)",
            "\\\\\\gN",
        ] {
            assert!(regex(&pattern.replace('N', number)).is_err(), "{pattern}");
        }
        for pattern in [
            "hostN",
            "\\\\gN",
            "(N)\\1",
            "(?:N)",
            "[N]",
            "\\.N",
            "\\+N",
            "\\-N",
            "\\<N",
            "(?=N)",
            "(?<=N)",
            "(a)(?(1)N|b)",
        ] {
            assert!(regex(&pattern.replace('N', number)).is_ok(), "{pattern}");
        }
        let groups = "(a)".repeat(120);
        assert!(regex(&format!("{groups}\\120")).is_ok());
        assert!(regex("(a)\\121").is_err());
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
    fn expressions_that_compile_to_much_are_refused() {
        for pattern in [
            r"(?:\w{500}){500}",
            r"(?<a>\w{9})(?<b>\g<a>\g<a>\g<a>\g<a>)(?<c>\g<b>\g<b>\g<b>\g<b>)\g<c>\g<c>",
            &r"(?=a)\w".repeat(9_000),
        ] {
            assert!(regex(pattern).is_err(), "{pattern}");
        }
        let hosts: Vec<String> = (0..4_000).map(|n| format!("host{n}.*")).collect();
        for pattern in [r"(?!a)\w{9}".repeat(20), hosts.join("|")] {
            assert!(regex(&pattern).is_ok(), "{pattern}");
        }
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

    #[test]
    fn equal_repetitions_are_not_mistaken_for_one() {
        for (pattern, matching, other) in [
            (r"^a+.*a+$", "aa", "a"),
            (r"^\w+\.?\w+$", "a.b", "a"),
            (r"^a{1,}b*a{1,}$", "aba", "a"),
            (r"^[a+]+x*[a+]+$", "+x+", "+"),
            (r"^a+(?# a+ )-*a+$", "a-a", "a"),
            (r"^\++-?\++$", "+-+", "+"),
            (r"^a+?b*a+$", "aba", "a"),
            (r"^a++b*c++$", "aabcc", "aab"),
        ] {
            let regex = regex(pattern).unwrap();
            assert!(regex.is_match(matching).unwrap(), "{pattern}");
            assert!(!regex.is_match(other).unwrap(), "{pattern}");
        }
    }
}
