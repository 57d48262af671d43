//! Carbon: the store behind every receiver. Datapoints go in by a series id, come out by a name, and
//! end in whisper files.
//!
//! # The path of a datapoint
//!
//! ```text
//! servers.web1.load 0.42 1700000000
//!   listener    a TCP connection or a UDP socket
//!   protocol    the line's three fields, in place
//!   index       the name: a series id; a new one may be over a limit
//!   store       room in cache and journal, or none: see below
//!   journal     into the buffer of the next commit (disk: every journal.sync)
//!   cache       beside the other points of its series: from here on queries see it
//!   persister   all waiting points of a series at once, at the latest after carbon.persist_within
//!   schema      the retentions of a new file
//!   whisper     whisper/servers/web1/load.wsp, coarser archives included
//!   journal     its segment is deleted after the files were synced
//! ```
//!
//! The StatsD side and the server's own metrics enter at *store*, through [`Sink`]. A query
//! ([`Carbon::fetch`]) reads cache and file and answers as if every point were in the file.
//!
//! # When the cache is full
//!
//! The cache (`carbon.max_cache_size`) fills up when files are written more slowly than points arrive, the
//! journal (`journal.max_size`) when files cannot be synced. Then:
//!
//! - [`Sink::submit`] blocks its thread until the persister has made room, [`Carbon::submit_async`] its
//!   task: a TCP sender is not read until then, and loses nothing.
//! - [`Sink::try_submit`] takes what there is room for. A UDP receiver counts the rest in
//!   `cache.overflow` and drops it.
//! - Points that one file refuses (a permission, say) are dropped once the cache is three quarters full,
//!   so that one series does not take the room of all. The counters name each such loss.
//! - After [`Carbon::shut_down`] no receiver waits longer than three seconds without progress: what finds
//!   no room then goes into the journal alone, and the next start reads it back.
//!
//! # Example
//!
//! ```
//! use carbon::options::{JournalOptions, Options, Span};
//! use carbon::{Carbon, Datapoint, PointTime, Setup, Sink, Timestamp};
//!
//! let directory = tempfile::tempdir()?;
//! let setup = Setup::new(Options::default(), JournalOptions::default(), Span::seconds(10));
//! let carbon = Carbon::open(setup, directory.path())?;
//!
//! let series = carbon.intern(b"servers.web1.load")?;
//! let now = carbon.now();
//! carbon.submit(&[Datapoint { series, at: PointTime::of_clock(now), value: 0.42 }]);
//!
//! // Seen at once, wherever it is: in the cache, in the file, or on its way.
//! let minute_ago = Timestamp(now.0 - 60);
//! let fetched = carbon.fetch("servers.web1.load", minute_ago, now, now)?;
//! let values = fetched.map(|fetched| fetched.points.values).unwrap_or_default();
//! assert!(values.contains(&0.42));
//!
//! // Everything into synced files; the journal is empty afterwards.
//! carbon.drain(|_points_left| {})?;
//! assert!(directory.path().join("whisper/servers/web1/load.wsp").exists());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where to look
//!
//! - what a name may be, and the path of its file: [`series`]
//! - patterns, tags, limits on new series: [`index`]
//! - what survives a crash: [`journal`], with its tests in `carbon/tests/`
//! - which clock decides how old a point is: `clock.rs`
//! - series that have no points any more: [`expiry`]

pub mod alarm;
pub mod cache;
mod clock;
pub mod conf;
pub mod datapoint;
pub mod error;
pub mod expiry;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod index;
pub mod journal;
pub mod listener;
mod metadata;
pub mod options;
pub mod pattern;
mod patterns;
mod persister;
pub mod private;
pub mod protocol;
pub mod relay;
pub mod remote;
pub mod rules;
pub mod schema;
pub mod series;
mod signal;
mod source;
pub mod stats;
mod stop;
pub mod store;
mod undecided;
mod watch;

pub use alarm::{Alarm, OnDeath};
pub use datapoint::{Datapoint, NameError, Observer, PointTime, SeriesId, Sink};
pub use error::{Error, Result};
pub use persister::Pass;
pub use signal::Changed;
pub use source::Every;
pub use store::{Access, Carbon, Clock, Fetched, Info, Setup};
pub use whisper::Timestamp;
