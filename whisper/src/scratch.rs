//! Memory for the work on files, used again and again.

use crate::point::Point;
use crate::units::Timestamp;

/// Memory that batches have in common, so that none of them allocates.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) sorted: Vec<Point>,
    pub(crate) aligned: Vec<Point>,
    pub(crate) propagation: Propagation,
    pub(crate) bytes: Vec<u8>,
    /// Slots as read by a fetch.
    pub(crate) fetched: Vec<u8>,
}

/// The part of [`Scratch`] that propagation uses.
#[derive(Debug, Default)]
pub(crate) struct Propagation {
    /// Starts of the coarser archive's steps that were touched, ascending.
    pub(crate) intervals: Vec<Timestamp>,
    /// What they came to.
    pub(crate) results: Vec<Point>,
    /// Slots of the finer archive, as read.
    pub(crate) read: Vec<u8>,
    /// The known values of one step.
    pub(crate) known: Vec<f64>,
}
