//! The arguments of [`Carbon::open`](super::Carbon::open).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use whisper::Timestamp;

use crate::alarm::OnDeath;
use crate::conf::Files;
use crate::datapoint::Observer;
use crate::journal::disk::{Disk, RealDisk};
use crate::options::{JournalOptions, Options, Span};
use crate::remote::Delivery;
use crate::schema::Schema;

/// The operations that an opened store allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// All operations.
    #[default]
    Serve,
    /// Answer queries and keep registrations of tags; datapoints are counted and dropped, whisper
    /// files are not written.
    Frozen,
    /// Answer queries and change nothing on disk: for reading a data directory that a server may be using.
    Inspect,
}

/// Returns the time of the store.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The arguments of [`Carbon::open`](super::Carbon::open).
#[derive(Clone)]
pub struct Setup {
    /// `[carbon]`.
    pub options: Options,
    /// `[journal]`.
    pub journal: JournalOptions,
    /// The retentions of new files.
    pub schema: Schema,
    /// The operations that are allowed.
    pub access: Access,
    /// The clock.
    pub clock: Clock,
    /// The disk below journal and checkpoints.
    pub disk: Arc<dyn Disk>,
    /// Called at the start with how much of the journal has been read back and written to files, and the
    /// total.
    pub replaying: Progress,
    /// Called about once a second to check that the data directory is still the caller's own. Its result
    /// is part of [`Carbon::health`](super::Carbon::health).
    pub guard: Option<Guard>,
    /// Called with points that are taken.
    pub observer: Option<Arc<dyn Observer>>,
    /// Called with the name of a thread of the store that has ended by a panic.
    pub on_death: OnDeath,
    /// Rule files beside those that `options` name: read again on changes and by
    /// [`Carbon::reload`](super::Carbon::reload).
    pub files: Files,
    /// A store that takes the points in the place of whisper files. It wants a journal.
    pub delivery: Option<Delivery>,
}

/// Checks something and returns what is wrong with it.
pub type Guard = Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync>;

/// Called with the amount of work done, and the total.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

impl Setup {
    /// A setup for serving by the system's clock, with the built-in schema for a statsd that flushes every
    /// `flush_interval`.
    pub fn new(options: Options, journal: JournalOptions, flush_interval: Span) -> Self {
        Self {
            options,
            journal,
            schema: Schema::built_in(flush_interval),
            access: Access::Serve,
            clock: Arc::new(system_clock),
            disk: Arc::new(RealDisk),
            replaying: Arc::new(|_, _| {}),
            guard: None,
            observer: None,
            on_death: crate::alarm::silent(),
            files: Files::default(),
            delivery: None,
        }
    }
}

fn system_clock() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(elapsed.map_or(0, |elapsed| elapsed.as_secs() as u32))
}
