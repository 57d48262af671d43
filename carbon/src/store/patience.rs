//! The end of a shutdown that makes no progress.

use std::time::{Duration, Instant};

/// How long a shutdown waits without progress, for room and for files that cannot be written.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Measures how long a shutdown has made no progress.
pub(crate) struct Patience {
    done: usize,
    since: Instant,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self {
            done: 0,
            since: Instant::now(),
        }
    }

    /// Whether `done` has changed within [`PATIENCE`].
    pub(crate) fn lasts(&mut self, done: usize) -> bool {
        if done != self.done {
            *self = Self {
                done,
                since: Instant::now(),
            };
        }
        self.since.elapsed() < PATIENCE
    }
}
