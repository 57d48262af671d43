//! The whisper round-robin file: format, mathematics and the mapped file.
//!
//! A whisper file holds one series in a few *archives*, each a ring of points at a fixed step:
//! every 10 seconds for six hours, say, then every minute for a week. It never grows. The format
//! is Graphite's; a file of Python's whisper or of go-carbon is read and written in place, with
//! the same bytes. All numbers are big-endian, nothing is padded:
//!
//! ```text
//! byte    size
//! 0       4      aggregation code                            header, 16 bytes
//! 4       4      seconds that the longest archive reaches back
//! 8       4      xFilesFactor, a 32-bit float
//! 12      4      n, the number of archives
//! 16      12     offset | seconds per point | points         archive infos, n times,
//! ...                                                        finest first
//! 16+12n  12     timestamp (4) | value (8, a double)         slots of archive 0,
//! ...                                                        as many as it has points
//! ...     12     timestamp | value                           slots of archive 1, and so on
//! ```
//!
//! ```
//! use whisper::{CreateOptions, File, Lock, Point, Retention, Timestamp, create};
//!
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("hits.wsp");
//! let retentions = vec![Retention::parse_carbon("10s:6h")?, Retention::parse_carbon("1m:7d")?];
//! create(&path, &CreateOptions::new(retentions))?;
//!
//! let now = Timestamp(1_700_000_050);
//! let points: Vec<Point> = (0..6).map(|n| Point::new(1_699_999_980 + n * 10, 1.0)).collect();
//! File::open_mut(&path, Lock::None)?.update_many(now, &points)?;
//!
//! let file = File::open(&path)?;
//! // The last minute from the fine archive: (from, until], so six values.
//! let fine = file.fetch(now, Timestamp(1_699_999_970), Timestamp(1_700_000_030))?;
//! assert_eq!(fine.map(|fetched| fetched.values), Some(vec![1.0; 6]));
//! // Six points of six made one of the coarse archive.
//! let coarse = file.fetch_archive(now, Timestamp(1_699_999_920), Timestamp(1_699_999_980), 60)?;
//! assert_eq!(coarse.map(|fetched| fetched.values), Some(vec![1.0]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`File`] opens a file for one call; [`Maps`] keeps files mapped for a process that writes to
//! many of them again and again. There is no clock here, no runtime, no log and no configuration:
//! `now` is an argument, and what happened comes back as a value.
//!
//! ## Sharing files
//!
//! Readers need nothing: a slot says itself which time it is for. Of writers there should be one.
//! Where other programs write too, both sides take the file lock ([`Lock::Exclusive`],
//! [`MapOptions::flock`]). A file is replaced by renaming another over it, never by overwriting it
//! in place, and never shortened: a writer that has it mapped sees it (see [`map`]), but points
//! written in between are gone with the old file.

pub mod aggregation;
pub mod archive;
pub mod create;
pub mod dump;
pub mod erase;
pub mod error;
pub mod explain;
pub mod fetch;
pub mod file;
pub mod fill;
pub mod header;
mod layer;
pub mod map;
pub mod merge;
pub mod pending;
pub mod point;
mod propagate;
pub mod resize;
pub mod retention;
mod runs;
mod scratch;
mod storage;
pub mod units;
pub mod update;

pub use aggregation::Aggregation;
pub use archive::Archive;
pub use create::{Allocation, CreateOptions, Draft, create};
pub use dump::Dump;
pub use erase::{Erased, erase};
pub use error::{Error, Result};
pub use explain::explain;
pub use fetch::Fetched;
pub use file::{File, Lock};
pub use fill::{Gaps, fill};
pub use header::Header;
pub use map::{MapOptions, Maps};
pub use merge::{ArchiveDiff, diff, merge};
pub use pending::{Needed, Question, fetch_unwritten};
pub use point::{ABSENT, Point, is_absent, present};
pub use resize::{ResizeOptions, resize};
pub use retention::Retention;
pub use units::{Step, Timestamp};
pub use update::{Arrival, Updated};
