//! StatsD: parse, aggregate and flush, from a socket into a carbon sink.

pub mod marks;

pub use marks::{Mark, Marks};
