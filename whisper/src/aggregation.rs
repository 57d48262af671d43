//! How the points of a finer archive become one point of a coarser one.

/// An aggregation method, with the code that a whisper header holds.
///
/// Codes 1 to 8 are read as Python's whisper 1.1.10 reads them (go-whisper gives 6 to 8 other
/// meanings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Aggregation {
    /// The mean of the known points.
    #[default]
    Average = 1,
    /// Their sum.
    Sum = 2,
    /// The newest known point.
    Last = 3,
    /// The largest.
    Max = 4,
    /// The smallest.
    Min = 5,
    /// The sum of the known points divided by the number of slots, known or not.
    AvgZero = 6,
    /// The point of the largest magnitude, sign kept.
    AbsMax = 7,
    /// The point of the smallest magnitude, sign kept.
    AbsMin = 8,
}
