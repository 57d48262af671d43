//! Series whose points wait, and since when.

use whisper::Timestamp;

use crate::datapoint::SeriesId;

/// When points came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The clock by which they were received.
    pub clock: Timestamp,
    /// Tenths of a second of [`super::Cache::ticks`].
    pub(super) ticks: u32,
}

/// Later than anything.
pub(super) const LATER: Since = Since {
    clock: Timestamp(u32::MAX),
    ticks: u32::MAX,
};

/// The sweep of a block that was never swept: long ago, and no points.
pub(super) const NEVER: Since = Since {
    clock: Timestamp(u32::MAX),
    ticks: 0,
};

impl Since {
    /// The earlier one.
    pub(super) fn min(self, other: Self) -> Self {
        Self {
            clock: self.clock.min(other.clock),
            ticks: self.ticks.min(other.ticks),
        }
    }
}

/// A series that has points waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The series.
    pub series: SeriesId,
    /// How many points wait.
    pub count: u32,
    /// When the first of them came, or earlier.
    pub since: Since,
}
