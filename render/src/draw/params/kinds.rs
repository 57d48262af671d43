//! What a parameter can be: the kinds of graphs, lines, areas, labels, units and limits.

use super::Color;

/// The kind of picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GraphType {
    /// Values over time.
    #[default]
    Line,
    /// One slice per series.
    Pie,
}

/// How points are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::draw) enum LineMode {
    /// Straight from point to point, broken where values are absent.
    #[default]
    Slope,
    /// Each value holds for its step.
    Staircase,
    /// Straight over gaps of at most `connectedLimit` absent values.
    Connected,
}

/// Which areas are filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::draw) enum AreaMode {
    #[default]
    None,
    First,
    All,
    Stacked,
}

/// Which single value stands for a series in a pie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PieMode {
    /// The mean of the present values.
    #[default]
    Average,
    /// The largest.
    Maximum,
    /// The smallest.
    Minimum,
}

/// The text on a slice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::draw) enum ValueLabels {
    None,
    Number,
    #[default]
    Percent,
}

/// The steps in which large values are abbreviated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::draw) enum UnitSystem {
    #[default]
    Si,
    Binary,
    Sec,
    Msec,
    None,
}

/// The upper end of a value axis.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::draw) enum AxisMax {
    /// A round number at or above the largest value.
    #[default]
    Auto,
    /// Exactly the largest value (`yMax=max`).
    Extremum,
    /// This value.
    At(f64),
}

/// Limits and step of one value axis.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::draw) struct AxisLimits {
    pub(in crate::draw) min: Option<f64>,
    pub(in crate::draw) max: AxisMax,
    /// Ceiling of the automatic maximum.
    pub(in crate::draw) limit: Option<f64>,
    pub(in crate::draw) step: Option<f64>,
}

/// How all series of one side are drawn; it wins over the series' own looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::draw) struct SideStyle {
    pub(in crate::draw) width: Option<f64>,
    pub(in crate::draw) color: Option<Color>,
    pub(in crate::draw) dash: Option<f64>,
}
