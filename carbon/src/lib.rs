//! Carbon: protocols, cache, journal, persister, schemas and index over whisper files.

pub mod alarm;
pub mod cache;
mod clock;
pub mod conf;
pub mod datapoint;
pub mod error;
pub mod expiry;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod index;
pub mod journal;
pub mod listener;
pub mod options;
mod persister;
pub mod private;
pub mod protocol;
mod room;
pub mod schema;
pub mod series;
pub mod stats;
mod stop;
pub mod store;

pub use alarm::{Alarm, OnDeath};
pub use datapoint::{Datapoint, NameError, Observer, PointTime, SeriesId, Sink};
pub use error::{Error, Result};
pub use persister::Pass;
pub use store::{Access, Carbon, Clock, Fetched, Setup};
pub use whisper::Timestamp;
