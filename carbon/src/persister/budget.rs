//! Limits on operations per time.

use std::time::{Duration, Instant};

/// A number of operations per period. Unused operations are kept for one period at most.
#[derive(Debug)]
pub(super) struct Budget {
    per_second: f64,
    most: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    /// `count` operations per `period`; 0: no limit.
    pub(super) fn new(count: u32, period: Duration) -> Self {
        let count = f64::from(count);
        Self {
            per_second: count / period.as_secs_f64(),
            most: count,
            left: count.min(count / period.as_secs_f64()).max(1.0),
            at: Instant::now(),
        }
    }

    /// Gives one back that was not needed.
    pub(super) fn refund(&mut self) {
        self.left = (self.left + 1.0).min(self.most);
    }

    /// Whether an operation is allowed at the time `now()`, which is asked for only if there is a limit.
    pub(super) fn spend(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if self.most == 0.0 {
            return true;
        }
        let now = now();
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + elapsed * self.per_second).min(self.most);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }

    /// How long until the next operation is allowed.
    pub(super) fn wait(&self) -> Duration {
        if self.most == 0.0 || self.left >= 1.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - self.left) / self.per_second)
    }
}
