//! A series ready to be computed with, printed or drawn.

use std::collections::{BTreeMap, HashSet};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use whisper::{ABSENT, Aggregation, present};

use crate::budget::{Budget, Reservation};
use crate::error::Result;

/// A column of values, one per step, [`whisper::ABSENT`] where there is no value.
///
/// Cloning is cheap; [`Column::write`] copies only when the data is shared,
/// so a chain of functions over one fetch works in place. A column holds the reservation of its
/// memory in a [`Budget`], and gives it back when its last clone is dropped.
#[derive(Clone, Debug, Default)]
pub struct Column(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    values: Vec<f64>,
    /// Absent where there is no budget yet: [`Column::reserve_in`].
    reserved: OnceLock<Reservation>,
}

/// The bytes of so many values.
pub(crate) fn bytes_of(n_values: usize) -> usize {
    n_values.saturating_mul(size_of::<f64>())
}

/// The bytes of all names and tags of `series`.
pub(crate) fn size_of_texts(series: &[Series]) -> usize {
    let sizes = series.iter().map(Series::size_of_texts);
    sizes.fold(0, usize::saturating_add)
}

/// The distinct expressions of `series` in their order, joined by commas.
pub fn path_expressions(series: &[Series]) -> String {
    let mut seen = HashSet::new();
    let distinct: Vec<&str> = series
        .iter()
        .map(|series| series.path_expression.as_str())
        .filter(|expression| seen.insert(*expression))
        .collect();
    distinct.join(",")
}

/// The tags on which all of `series` agree; `name` becomes `otherwise` if they do not agree on it.
pub fn common_tags(series: &[Series], otherwise: &str) -> BTreeMap<String, String> {
    let mut tags = series
        .first()
        .map(|first| first.tags.clone())
        .unwrap_or_default();
    for other in series.iter().skip(1) {
        tags.retain(|tag, value| other.tags.get(tag) == Some(value));
    }
    tags.entry("name".to_owned())
        .or_insert_with(|| otherwise.to_owned());
    tags
}

impl Column {
    /// The values that `make` makes, after room for `n_values` of them has been set aside in
    /// `budget`. What `make` allocates in passing has to be part of that number.
    ///
    /// # Errors
    /// As [`Budget::check`] and [`Budget::reserve`], and those of `make`.
    pub fn reserved(
        budget: &Budget,
        n_values: usize,
        make: impl FnOnce() -> Result<Vec<f64>>,
    ) -> Result<Self> {
        budget.check()?;
        let mut reservation = budget.hold(bytes_of(n_values))?;
        let values = make()?;
        reservation.resize(bytes_of(values.capacity()))?;
        Ok(Self(Arc::new(Held {
            values,
            reserved: OnceLock::from(reservation),
        })))
    }

    /// As [`Column::reserved`], in the budget that this column has.
    ///
    /// # Errors
    /// As [`Column::reserved`].
    pub fn beside(&self, n_values: usize, make: impl FnOnce() -> Result<Vec<f64>>) -> Result<Self> {
        match self.0.reserved.get() {
            Some(own) => Self::reserved(own.budget(), n_values, make),
            None => make().map(Self::from),
        }
    }

    /// Sets the memory of the column aside in `budget`, unless it is set aside already.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub fn reserve_in(&self, budget: &Budget) -> Result<()> {
        if self.0.reserved.get().is_none() {
            let reservation = budget.hold(bytes_of(self.0.values.capacity()))?;
            // Nobody else has this column on another thread: it cannot have been set meanwhile.
            let _ = self.0.reserved.set(reservation);
        }
        Ok(())
    }

    /// The values for writing, copied first if they are shared.
    ///
    /// # Errors
    /// As [`Column::reserved`].
    pub fn write(&mut self) -> Result<&mut Vec<f64>> {
        match self.0.reserved.get() {
            Some(own) => own.budget().check()?,
            None => return Ok(self.make_mut()),
        }
        if Arc::get_mut(&mut self.0).is_none() {
            *self = self.beside(self.len(), || Ok(self.to_vec()))?;
        }
        Ok(self.make_mut())
    }

    /// The values for writing, copied first if they are shared: for columns without a budget.
    pub fn make_mut(&mut self) -> &mut Vec<f64> {
        &mut Arc::make_mut(&mut self.0).values
    }
}

impl Clone for Held {
    /// The copy is not set aside.
    fn clone(&self) -> Self {
        Self {
            values: self.values.clone(),
            reserved: OnceLock::new(),
        }
    }
}

impl From<Vec<f64>> for Column {
    fn from(values: Vec<f64>) -> Self {
        Self(Arc::new(Held {
            values,
            reserved: OnceLock::new(),
        }))
    }
}

impl FromIterator<Option<f64>> for Column {
    fn from_iter<I: IntoIterator<Item = Option<f64>>>(values: I) -> Self {
        let values: Vec<f64> = values.into_iter().map(or_absent).collect();
        values.into()
    }
}

impl Deref for Column {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        &self.0.values
    }
}

/// The value as it stands in a column.
#[inline(always)]
pub fn or_absent(value: Option<f64>) -> f64 {
    value.unwrap_or(ABSENT)
}

/// How a group of points becomes one when a series is downsampled for an answer or a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consolidation {
    /// The mean of the present values.
    #[default]
    Average,
    /// The mean again, under its other name: answers that carry the name tell them apart.
    Avg,
    /// The mean, absent values counting as 0.
    AvgZero,
    /// Their sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The first present one.
    First,
    /// The last present one.
    Last,
    /// An unknown one: `consolidateBy` takes any name, and it is refused when it is needed.
    Unknown,
}

impl Consolidation {
    /// Every name, as `consolidateBy` takes them.
    pub const NAMES: &'static [(&'static str, Self)] = &[
        ("sum", Self::Sum),
        ("average", Self::Average),
        ("avg", Self::Avg),
        ("avg_zero", Self::AvgZero),
        ("min", Self::Min),
        ("max", Self::Max),
        ("first", Self::First),
        ("last", Self::Last),
    ];

    /// The function called `name`.
    pub fn named(name: &str) -> Option<Self> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name)?;
        Some(found.1)
    }

    /// Its name; [`Series::consolidation_name`] knows that of an unknown one.
    fn name(self) -> &'static str {
        match self {
            Self::Average => "average",
            Self::Avg => "avg",
            Self::AvgZero => "avg_zero",
            Self::Sum => "sum",
            Self::Min => "min",
            Self::Max => "max",
            Self::First => "first",
            Self::Last => "last",
            Self::Unknown => "",
        }
    }
}

/// Where a series belongs when several are stacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack(pub String);

/// What functions such as `color`, `dashed` and `secondYAxis` say about how a series is drawn.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Drawing {
    /// Colour text as given to `color()`; the drawing resolves names and hex.
    pub color: Option<String>,
    /// Opacity 0 to 1, from `alpha()`.
    pub alpha: Option<f64>,
    /// Dash length in pixels, from `dashed()`.
    pub dashed: Option<f64>,
    /// Line width in pixels, from `lineWidth()`.
    pub line_width: Option<f64>,
    /// Drawn against the right-hand axis, from `secondYAxis()`.
    pub second_y_axis: bool,
    /// A full-height line wherever the value is above 0, from `drawAsInfinite()`.
    pub infinite: bool,
    /// Drawn as an area on top of the series before it in this stack, from `stacked()`.
    pub stack: Option<Stack>,
    /// Fills nothing and shows no line: the lower edge of `areaBetween()`.
    pub invisible: bool,
    /// The lower bound of confidence areas carries no entry in the legend.
    pub hide_from_legend: bool,
}

/// A name that is not text. Graphite answers `alias(x, 5)` with the number, and a line without
/// a label with null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OddName {
    /// Null; as text it is `None`.
    Nothing,
    /// The number that the name is the text of.
    Number,
}

/// Values at equal steps under a name: what functions take and give.
#[derive(Clone, Debug)]
pub struct Series {
    /// The name it is shown under (`target` in JSON).
    pub name: String,
    /// What the name is instead of text, in JSON; it counts as long as the name is the text of that.
    pub odd_name: Option<OddName>,
    /// The expression that found it; combining functions print it in their own names.
    pub path_expression: String,
    /// Unix seconds of the first value.
    pub start: i64,
    /// Unix seconds one step after the last value. Lines that functions make up
    /// (`constantLine`) have a last value *at* the end: answers print every value whose
    /// timestamp is not after it.
    pub end: i64,
    /// Seconds per value, before consolidation. Always above 0.
    pub step: i64,
    /// The values.
    pub values: Column,
    /// How it is downsampled.
    pub consolidation: Consolidation,
    /// The share of known points, 0 to 1, that a consolidated point needs.
    pub x_files_factor: f64,
    /// Tags; `name` is always among them.
    pub tags: BTreeMap<String, String>,
    /// How it is drawn.
    pub drawing: Drawing,
}

/// A series as the store has it.
pub(crate) struct Stored {
    /// Its values over the range.
    pub(crate) series: Series,
    /// How its file aggregates.
    pub(crate) aggregation: Aggregation,
    /// The file's share of known points that it takes to make a coarser one.
    pub(crate) x_files_factor: f32,
}

impl Series {
    /// A series that a function makes up: its tags are those in its name.
    pub fn new(name: impl Into<String>, start: i64, end: i64, step: i64, values: Column) -> Self {
        let name = name.into();
        Self {
            odd_name: None,
            path_expression: name.clone(),
            start,
            end,
            step: step.max(1),
            values,
            consolidation: Consolidation::default(),
            x_files_factor: 0.0,
            tags: tags_of(&name),
            drawing: Drawing::default(),
            name,
        }
    }

    /// The name of how it is downsampled, in answers that carry it (pickle, msgpack): of an unknown
    /// one what `consolidateBy` was given.
    pub fn consolidation_name(&self) -> &str {
        match self.consolidation {
            Consolidation::Unknown => self.tags.get("consolidateBy").map_or("", String::as_str),
            known => known.name(),
        }
    }

    /// A series computed from this one: range, step, tags and consolidation go along; the
    /// drawing does not, and the expression that found it is now its name. This is what
    /// Graphite's functions that copy do (`derivative`, `summarize`, …).
    pub fn derived(&self, name: String, values: Column) -> Self {
        Self {
            odd_name: None,
            path_expression: name.clone(),
            name,
            start: self.start,
            end: self.end,
            step: self.step,
            values,
            consolidation: self.consolidation,
            x_files_factor: self.x_files_factor,
            tags: self.tags.clone(),
            drawing: Drawing::default(),
        }
    }

    /// Takes a new name that combining functions will print too (`scale`, `offset`, …).
    pub fn rename(&mut self, name: String) {
        self.path_expression.clone_from(&name);
        self.name = name;
    }

    /// What the name is, if it is not text.
    pub fn odd_name(&self) -> Option<OddName> {
        self.odd_name.filter(|odd| match odd {
            OddName::Nothing => self.name == "None",
            OddName::Number => self.name.parse::<f64>().is_ok_and(f64::is_finite),
        })
    }

    /// Sets a tag.
    pub fn tag(&mut self, tag: &str, value: impl Into<String>) {
        self.tags.insert(tag.to_owned(), value.into());
    }

    /// Replaces every value, present or not, in place if the column is not shared.
    ///
    /// # Errors
    /// As [`Column::write`].
    pub fn map(&mut self, mut function: impl FnMut(Option<f64>) -> Option<f64>) -> Result<()> {
        for value in self.values.write()? {
            *value = or_absent(function(present(*value)));
        }
        Ok(())
    }

    /// About how many bytes it takes beside its column: itself, its names and its tags.
    pub fn size_of_texts(&self) -> usize {
        let Drawing { color, stack, .. } = &self.drawing;
        let color = color.as_ref().map_or(0, String::len);
        let stack = stack.as_ref().map_or(0, |Stack(name)| name.len());
        let tags = self.tags.iter();
        let tags: usize = tags
            .map(|(tag, value)| tag.len() + value.len() + PER_TAG)
            .sum();
        let node = if self.tags.is_empty() { 0 } else { TAGS };
        size_of::<Self>()
            + self.name.len()
            + self.path_expression.len()
            + color
            + stack
            + node
            + tags
    }

    /// The values as options, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Option<f64>> + ExactSizeIterator {
        self.values.iter().map(|&value| present(value))
    }

    /// The timestamp of the value at `index`.
    pub fn time_of(&self, index: usize) -> i64 {
        self.start + self.step * i64::try_from(index).unwrap_or(i64::MAX / self.step)
    }
}

/// What the first node of a tree of tags takes, with room for eleven.
const TAGS: usize = 11 * size_of::<(String, String)>();

/// What a tag takes beside its text: two strings in a node of a tree that is not always full,
/// and what the allocator adds.
const PER_TAG: usize = 128;

/// The tags in a name, as Graphite reads them: `name;tag=value;…`, or OpenMetrics'
/// `name{tag="value"}`. A malformed or function-like name is its own only tag.
pub fn tags_of(name: &str) -> BTreeMap<String, String> {
    let plain = || BTreeMap::from([("name".to_owned(), name.to_owned())]);
    if looks_like_a_call(name) {
        return plain();
    }
    parse_tags(name).unwrap_or_else(plain)
}

/// `^[a-z]+[(].+[)]$`, case ignored.
fn looks_like_a_call(name: &str) -> bool {
    let letters = name
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(name.len());
    let rest = &name[letters..];
    letters > 0 && rest.len() > 2 && rest.starts_with('(') && rest.ends_with(')')
}

fn parse_tags(name: &str) -> Option<BTreeMap<String, String>> {
    let mut tags = BTreeMap::new();
    let metric = if name.ends_with("\"}") && name.contains('{') {
        let (metric, rest) = name[..name.len() - 1].split_once('{')?;
        let mut rest = rest;
        while !rest.is_empty() {
            let (tag, after) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => match chars.next()?.1 {
                        c @ ('"' | '\\') => value.push(c),
                        _ => return None,
                    },
                    (_, c) => value.push(c),
                }
            };
            insert_tag(&mut tags, tag, &value)?;
            rest = &after[end + 1..];
            if !rest.is_empty() {
                rest = rest.strip_prefix(':').unwrap_or(rest).strip_prefix(',')?;
            }
        }
        metric
    } else {
        let mut segments = name.split(';');
        let metric = segments.next()?;
        for segment in segments {
            let (tag, value) = segment.split_once('=')?;
            insert_tag(&mut tags, tag, value)?;
        }
        metric
    };
    let metric = metric.trim_start_matches('~');
    if metric.is_empty() {
        return None;
    }
    tags.insert("name".to_owned(), metric.to_owned());
    Some(tags)
}

fn insert_tag(tags: &mut BTreeMap<String, String>, tag: &str, value: &str) -> Option<()> {
    let fits = !tag.is_empty()
        && !tag.contains([';', '!', '^', '='])
        && !value.is_empty()
        && !value.contains(';')
        && !value.starts_with('~');
    fits.then(|| {
        tags.insert(tag.to_owned(), value.to_owned());
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Memory;

    #[test]
    fn tags_are_read_from_names() {
        let tags = |name: &str| {
            let tags: Vec<_> = tags_of(name)
                .into_iter()
                .map(|(k, v)| k + "=" + &v)
                .collect();
            tags.join(" ")
        };
        assert_eq!(tags("a.b"), "name=a.b");
        assert_eq!(tags("disk;rack=a1;host=w"), "host=w name=disk rack=a1");
        assert_eq!(
            tags("disk{rack=\"a\\\"1\",host=\"w\"}"),
            "host=w name=disk rack=a\"1"
        );
        assert_eq!(tags("scale(a;b=c,1)"), "name=scale(a;b=c,1)");
        assert_eq!(tags("a;b"), "name=a;b");
        assert_eq!(tags("~a"), "name=a");
        assert_eq!(tags(""), "name=");
    }

    #[test]
    fn consolidations_keep_their_names() {
        let mut series = Series::new("a", 0, 10, 10, vec![1.0].into());
        assert_eq!(series.consolidation_name(), "average");
        series.consolidation = Consolidation::named("avg").unwrap();
        assert_eq!(series.consolidation_name(), "avg");
        series.consolidation = Consolidation::Unknown;
        series.tag("consolidateBy", "diff");
        assert_eq!(series.consolidation_name(), "diff");
    }

    #[test]
    fn columns_hold_their_memory_until_the_last_clone_is_gone() {
        let memory = Memory::new(200);
        let budget = Budget::new(Arc::clone(&memory), None);
        let column = Column::reserved(&budget, 10, || Ok(vec![1.0; 10])).unwrap();
        let mut series = Series::new("a", 0, 100, 10, column);
        let mut shared = series.clone();
        assert_eq!(memory.used(), 80);
        shared.map(|value| value).unwrap();
        assert_eq!(memory.used(), 160);
        // In place: no more is needed.
        shared.map(|value| value).unwrap();
        series.map(|value| value).unwrap();
        assert_eq!(memory.used(), 160);
        let again = series.clone();
        assert!(series.map(|value| value).is_err());
        drop(shared);
        series.map(|value| value).unwrap();
        assert!(series.values.beside(6, || Ok(vec![0.0; 6])).is_err());
        drop((series, again));
        assert_eq!(memory.used(), 0);
        let late = Column::from(vec![0.0; 5]);
        late.reserve_in(&budget).unwrap();
        late.clone().reserve_in(&budget).unwrap();
        assert_eq!(memory.used(), 40);
    }

    #[test]
    fn a_shared_column_is_copied_before_it_changes() {
        let mut series = Series::new("a", 0, 20, 10, vec![1.0, ABSENT].into());
        let before = series.clone();
        series.map(|value| Some(value? * 2.0)).unwrap();
        assert_eq!(series.iter().collect::<Vec<_>>(), [Some(2.0), None]);
        assert_eq!(before.iter().collect::<Vec<_>>(), [Some(1.0), None]);
    }
}
