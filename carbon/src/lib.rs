//! Carbon: protocols, cache, journal, persister, schemas and index over whisper files.

pub mod datapoint;
pub mod options;

pub use datapoint::{Datapoint, NameError, SeriesId, Sink};
pub use whisper::Timestamp;
