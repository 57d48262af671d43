//! A store on another machine, which takes the points in the place of whisper files.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use whisper::{Point, Timestamp};

use crate::datapoint::SeriesId;

/// Takes points in blocks. Only one thread uses it at a time.
///
/// Blocks that were sent may be sent again after a crash: the remote store has to recognise a point of the same
/// series and timestamp, and to keep the one with the later time of arrival.
pub trait Remote: Send {
    /// Adds points of a series, in order of their arrival, to the present block. The first of them was received at
    /// `received`, or later.
    fn add(&mut self, series: SeriesId, name: &str, points: &[Point], received: Timestamp);

    /// Whether the present block is as large as it may become.
    fn is_full(&self) -> bool;

    /// Sends the present block and begins the next one when it has been acknowledged, which it waits for no longer than
    /// `patience`. Does nothing if the block is empty.
    ///
    /// # Errors
    /// A sentence that says why it was not acknowledged. The block stays as it is, and can be sent again.
    fn send(&mut self, patience: Duration) -> Result<(), String>;

    /// Empties the present block: its points will be added again.
    fn discard(&mut self);
}

/// A remote store, and how its blocks are made up.
#[derive(Clone)]
pub struct Delivery {
    /// The store.
    pub remote: Arc<Mutex<dyn Remote>>,
    /// The most points of one series that are added at once.
    pub rows: usize,
    /// How long points wait for others.
    pub within: Duration,
}
