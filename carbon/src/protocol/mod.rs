//! Wire protocols: bytes in, datapoints and counted rejects out. No I/O here.
//!
//! A protocol takes its bytes apart and hands each metric to the [`Resolver`]: name, timestamp and
//! value. What happens to a metric from there on is the same for all of them.

pub mod line;
pub mod resolver;

pub use resolver::{At, Reject, Resolver};
