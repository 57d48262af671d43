//! A datapoint on its way from a receiver to the cache, and the [`Sink`] that takes it.

use whisper::Timestamp;

/// The small integer that stands for a series name.
///
/// Ids are dense and count up from zero. An id stands for its name for as long as anything has it:
/// what [`Sink::intern`] gave until [`Sink::release`], what waits in the cache until it is in its
/// file. A series that was deleted and comes back has its old id then. Afterwards the id may stand for
/// another name (`index::grace` says how that is kept apart).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesId(pub u32);

/// One value of one series at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Datapoint {
    /// Whose value.
    pub series: SeriesId,
    /// When, in whole seconds. Never 0, which means "no point" in a whisper file: the store counts
    /// such points as rejected.
    pub at: Timestamp,
    /// How much. Always finite: receivers reject the rest.
    pub value: f64,
}

/// Why a series name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Nothing is left of the name once empty nodes are gone.
    #[error("the name is empty")]
    Empty,
    /// A `/` or NUL byte, or a node that is `.` or `..` after unescaping.
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
    /// No further names are taken: there are as many as ids can tell apart.
    #[error("the limit on the number of series is reached")]
    TooMany,
    /// A new name that is over a configured limit, whose key this is. The same name may be taken
    /// later.
    #[error("{0} is reached")]
    Limit(&'static str),
}

/// Where datapoints go: handed to receivers so that they need not know what is behind it.
///
/// `carbon`'s cache is one; tests and benches have their own.
pub trait Sink: Send + Sync {
    /// The id of the series called `name`, a new one if the name was not seen before.
    ///
    /// The name is brought into its canonical form first (empty nodes collapse, tags sort), so
    /// two spellings of one series have one id.
    ///
    /// The id is good until [`Sink::release`] has been called for it as often as it was given out.
    ///
    /// # Errors
    /// [`NameError`] if no file could be named so, or if the name is new and over a limit.
    fn intern(&self, name: &[u8]) -> Result<SeriesId, NameError>;

    /// Gives ids back that [`Sink::intern`] gave, one for each time: the caller has submitted all that
    /// it had for them. A sink that never lets an id go has nothing to do here.
    fn release(&self, _ids: &[SeriesId]) {}

    /// Takes `points`, in order. Blocks while the cache or the journal is full, so call it from
    /// a thread that may wait; what it accepted is visible to queries when it returns.
    fn submit(&self, points: &[Datapoint]);

    /// As [`Sink::submit`], but never waits: returns how many of `points`, from the front, were
    /// taken. The caller counts the rest as dropped.
    fn try_submit(&self, points: &[Datapoint]) -> usize;
}

/// Looks at what is taken, beside the cache: for those few series that mean something to others.
///
/// A name is told once, before the first points that come after it had its id; so an observer
/// compares names once each and points by their ids only.
pub trait Observer: Send + Sync {
    /// There is a series called `name`.
    fn named(&self, series: SeriesId, name: &str);

    /// The series is gone, and its id may soon be told with another name.
    fn forgotten(&self, series: SeriesId);

    /// These points were taken. Called by whoever submits them: must not wait.
    fn taken(&self, points: &[Datapoint]);
}
