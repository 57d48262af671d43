//! Datapoints on their way from a receiver to the cache, and the [`Sink`] that takes them.

use std::fmt;
use std::num::NonZeroU32;

use whisper::Timestamp;

/// A small integer in place of a series name.
///
/// Ids are dense and begin at zero. An id keeps its name while any part of the program uses it: from
/// [`Sink::intern`] until [`Sink::release`], and while points of it are in the cache. If a series is deleted
/// and comes back meanwhile, it has its old id. Afterwards the id may be assigned to another name
/// (`index::grace`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u32);

/// When a datapoint was measured, in whole seconds since 1970. Never 0: a slot of a whisper file
/// that has the timestamp 0 is empty.
///
/// A receiver converts each timestamp that it reads, and counts those that are refused:
///
/// ```
/// use carbon::{PointTime, Timestamp};
///
/// let at = PointTime::new(Timestamp(1_700_000_000)).expect("not 0");
/// assert_eq!(at.timestamp(), Timestamp(1_700_000_000));
/// assert_eq!(PointTime::new(Timestamp(0)), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PointTime(NonZeroU32);

impl PointTime {
    /// The time `at`, unless it is 0.
    pub const fn new(at: Timestamp) -> Option<Self> {
        match NonZeroU32::new(at.0) {
            Some(at) => Some(Self(at)),
            None => None,
        }
    }

    /// The time `at`, or 1 if it is 0. For the time of a clock, which is 0 only if it is not set.
    pub const fn of_clock(at: Timestamp) -> Self {
        match NonZeroU32::new(at.0) {
            Some(at) => Self(at),
            None => Self(NonZeroU32::MIN),
        }
    }

    /// The time as a timestamp of a file.
    pub const fn timestamp(self) -> Timestamp {
        Timestamp(self.0.get())
    }
}

impl From<PointTime> for Timestamp {
    fn from(at: PointTime) -> Self {
        at.timestamp()
    }
}

impl fmt::Display for PointTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One value of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Datapoint {
    /// The series.
    pub series: SeriesId,
    /// When it was measured.
    pub at: PointTime,
    /// The value. Always finite: receivers reject others.
    pub value: f64,
}

/// The key of the limit on series in all.
pub(crate) const MAX_SERIES: &str = "carbon.max_series";
/// The key of the limit on series below a prefix.
pub(crate) const MAX_PER_PREFIX: &str = "carbon.max_series_per_prefix";
/// The key of the limit on new series.
pub(crate) const MAX_NEW: &str = "carbon.max_new_series_per_minute";

/// Why a series name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// The name has only empty nodes.
    #[error("the name is empty")]
    Empty,
    /// A NUL byte.
    #[error("the name holds a character that a file name cannot")]
    Forbidden,
    /// Not UTF-8.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// A node over 251 bytes (255 with `.wsp`), or a name over 4,000.
    #[error("the name is too long")]
    TooLong,
    /// The path of its file, below the directory of all files, would be longer than the system
    /// allows.
    #[error("the path of its file would be too long")]
    PathTooLong,
    /// A tag without `=`, with an empty part, or with a forbidden character.
    #[error("the name's tags are malformed")]
    BadTag,
    /// Every id has a name.
    #[error("the limit on the number of series is reached")]
    TooMany,
    /// The name is new and over the limit with this configuration key. It may be accepted later.
    #[error("{0} is reached")]
    Limit(&'static str),
}

/// Takes datapoints from receivers, which need not know the store behind it.
///
/// [`Carbon`](crate::Carbon) is a sink; tests and benches have others.
pub trait Sink: Send + Sync {
    /// The id of the series called `name`, a new one if the name was not seen before.
    ///
    /// The name is converted to its canonical form first (without empty nodes, tags sorted), so that all
    /// aliases of a series have one id.
    ///
    /// The id is valid until [`Sink::release`] has been called for it as often as this function returned it.
    ///
    /// # Errors
    /// [`NameError`] if no file can have the name, or if the name is new and over a limit.
    fn intern(&self, name: &[u8]) -> Result<SeriesId, NameError>;

    /// Gives back ids from [`Sink::intern`], once for each call: the caller has submitted all points that it
    /// has for them. A sink that never frees ids does nothing.
    fn release(&self, _ids: &[SeriesId]) {}

    /// Takes `points`, in order. Blocks while the cache or the journal is full, so it is for threads that may
    /// wait. Queries see the points when it returns.
    fn submit(&self, points: &[Datapoint]);

    /// As [`Sink::submit`], but never waits: returns how many of `points`, from the front, were
    /// taken. The caller counts the rest as dropped.
    fn try_submit(&self, points: &[Datapoint]) -> usize;
}

/// Is called with the points that are taken: for other uses of a few series.
///
/// [`Observer::named`] is called once for each name, before [`Observer::taken`] with points of its id. So an
/// observer compares each name once, and then only ids.
pub trait Observer: Send + Sync {
    /// The id `series` has the name `name`.
    fn named(&self, series: SeriesId, name: &str);

    /// The series was removed. Its id may soon have another name.
    fn forgotten(&self, series: SeriesId);

    /// These points were taken. Called on the thread that submits them, so it must not block.
    fn taken(&self, points: &[Datapoint]);
}
