//! The whisper round-robin file: format, mathematics and the mapped file.

pub mod aggregation;
pub mod point;
pub mod units;

pub use aggregation::Aggregation;
pub use point::{ABSENT, Point, is_absent, present};
pub use units::{Step, Timestamp};
