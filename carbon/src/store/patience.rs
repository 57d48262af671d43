//! How long a shutdown goes on without progress.

use std::time::{Duration, Instant};

/// How long a shutdown waits for room, and for files that are not written, without any progress.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// How long a shutdown goes on without progress.
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

    /// Whether it goes on: `done` has changed, or did so not long ago.
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
