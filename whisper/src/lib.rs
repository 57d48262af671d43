//! The whisper round-robin file: format, mathematics and the mapped file.

pub mod aggregation;
pub mod archive;
pub mod create;
pub mod error;
pub mod fetch;
pub mod file;
pub mod header;
pub mod map;
pub mod merge;
pub mod pending;
pub mod point;
mod propagate;
pub mod retention;
mod storage;
pub mod units;
pub mod update;

pub use aggregation::Aggregation;
pub use archive::Archive;
pub use create::{Allocation, CreateOptions, create};
pub use error::{Error, Result};
pub use fetch::Fetched;
pub use file::{File, Lock};
pub use header::Header;
pub use map::{MapOptions, Maps};
pub use merge::{ArchiveDiff, diff, merge};
pub use pending::{Question, fetch_unwritten};
pub use point::{ABSENT, Point, is_absent, present};
pub use retention::Retention;
pub use units::{Step, Timestamp};
pub use update::Updated;
