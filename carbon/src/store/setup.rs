//! What [`Carbon::open`](super::Carbon::open) needs.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use whisper::Timestamp;

use crate::alarm::OnDeath;
use crate::conf::Files;
use crate::datapoint::Observer;
use crate::journal::disk::{Disk, RealDisk};
use crate::options::{JournalOptions, Options, Span};
use crate::schema::Schema;

/// What an opened store may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    #[default]
    Serve,
    /// Answer queries and keep registrations of tags; datapoints are counted and dropped, whisper
    /// files are not written.
    Frozen,
    /// Answer queries and change nothing on disk: for a look at a data directory that a server
    /// may be using.
    Inspect,
}

/// Where the store gets the time from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Everything that [`Carbon::open`] is told.
#[derive(Clone)]
pub struct Setup {
    /// `[carbon]`.
    pub options: Options,
    /// `[journal]`.
    pub journal: JournalOptions,
    /// What new files are like.
    pub schema: Schema,
    /// What may be changed.
    pub access: Access,
    /// The clock.
    pub clock: Clock,
    /// The disk below journal and checkpoints.
    pub disk: Arc<dyn Disk>,
    /// Told at the start, often, how much of the journal has been read back and written to files,
    /// of how much.
    pub replaying: Progress,
    /// Asked about once a second whether the data directory is still the caller's own; what it
    /// answers is part of [`Carbon::health`].
    pub guard: Option<Guard>,
    /// Looks at what is taken.
    pub observer: Option<Arc<dyn Observer>>,
    /// Told the name of a thread of the store that has ended by a panic.
    pub on_death: OnDeath,
    /// Rule files beside those that `options` name: read again on changes and by
    /// [`Carbon::reload`](super::Carbon::reload).
    pub files: Files,
}

/// Says what is wrong with what it guards.
pub type Guard = Arc<dyn Fn() -> std::result::Result<(), String> + Send + Sync>;

/// Told how far something has come, of how much.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

impl Setup {
    /// A setup for serving by the system's clock, with the built-in schema for statsd that flushes
    /// every `flush_interval`.
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
        }
    }
}

fn system_clock() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(elapsed.map_or(0, |elapsed| elapsed.as_secs() as u32))
}
