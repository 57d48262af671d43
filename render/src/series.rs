//! A series ready to be computed with, printed or drawn.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

/// A column of values, one per step, [`whisper::ABSENT`] where there is none.
///
/// Cloning is cheap; [`Column::make_mut`] copies only when somebody else still looks at the data,
/// so a chain of functions over one fetch works in place.
#[derive(Clone, Debug, Default)]
pub struct Column(Arc<Vec<f64>>);

impl Column {
    /// The values for writing, copied first if they are shared.
    pub fn make_mut(&mut self) -> &mut Vec<f64> {
        Arc::make_mut(&mut self.0)
    }
}

impl From<Vec<f64>> for Column {
    fn from(values: Vec<f64>) -> Self {
        Self(Arc::new(values))
    }
}

impl Deref for Column {
    type Target = [f64];

    fn deref(&self) -> &[f64] {
        &self.0
    }
}

/// How a group of points becomes one when a series is thinned for an answer or a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consolidation {
    /// The mean of the present values.
    #[default]
    Average,
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

/// Values at equal steps under a name: what functions take and give.
#[derive(Clone, Debug)]
pub struct Series {
    /// The name it is shown under (`target` in JSON).
    pub name: String,
    /// The expression that found it; combining functions print it in their own names.
    pub path_expression: String,
    /// Unix seconds of the first value.
    pub start: i64,
    /// Unix seconds one step after the last value (exclusive).
    pub end: i64,
    /// Seconds per value, before consolidation. Always above 0.
    pub step: i64,
    /// The values.
    pub values: Column,
    /// How it is thinned.
    pub consolidation: Consolidation,
    /// The share of known points, 0 to 1, that a consolidated point needs.
    pub x_files_factor: f64,
    /// Tags; `name` is always among them.
    pub tags: BTreeMap<String, String>,
    /// How it is drawn.
    pub drawing: Drawing,
}
