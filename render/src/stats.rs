//! What the query side counts about itself.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Requests to `/render`.
    pub renders: AtomicU64,
    /// Requests to `/metrics/find` and `/metrics/expand`.
    pub finds: AtomicU64,
    /// Requests answered from one that was being computed already.
    pub shared: AtomicU64,
    /// Requests refused because they were wrong.
    pub refused: AtomicU64,
    /// Requests refused because they would pass a limit or found the queue full.
    pub limited: AtomicU64,
    /// Requests that took longer than `render.timeout`.
    pub timed_out: AtomicU64,
    /// Requests whose client went away before the answer was there.
    pub cancelled: AtomicU64,
    /// Requests that the store failed to answer.
    pub failed: AtomicU64,
    /// Requests whose computation panicked: each is a mistake in this program.
    pub panicked: AtomicU64,
}

impl Stats {
    /// Every counter with its name, for self metrics.
    pub fn all(&self) -> [(&'static str, u64); 9] {
        [
            ("renders", &self.renders),
            ("finds", &self.finds),
            ("shared", &self.shared),
            ("refused", &self.refused),
            ("limited", &self.limited),
            ("timedOut", &self.timed_out),
            ("cancelled", &self.cancelled),
            ("failed", &self.failed),
            ("panicked", &self.panicked),
        ]
        .map(|(name, counter)| (name, counter.load(Ordering::Relaxed)))
    }
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
