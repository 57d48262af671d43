//! How long a search keeps the index locked while others wait for it.
//!
//! A thread that waits to write holds up all that come to read after it: receivers, other queries, the
//! server's own state. So a search that goes on for long gives the locks up from time to time. It does so
//! only if somebody waits.

use std::cell::Cell;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

/// How long a search that can go on from where it was keeps the locks.
const SHORT: Duration = Duration::from_millis(5);

/// How long one that has to begin again does.
const LONG: Duration = Duration::from_millis(50);

/// Steps between two looks at the clock where a step may be a regular expression that runs to its limit,
/// which takes about a millisecond.
const SLOW_STEPS: u32 = 8;

/// Steps between two looks at the clock where a step compares a node with a pattern.
const STEPS: u32 = 64;

/// The time for which a search keeps the locks.
#[derive(Debug)]
pub(super) struct Hold {
    since: Instant,
    longest: Duration,
    between: u32,
    steps: Cell<u32>,
}

impl Hold {
    fn of(longest: Duration, between: u32) -> Self {
        Self {
            since: Instant::now(),
            longest,
            between,
            steps: Cell::new(0),
        }
    }

    /// Of a search that goes on where it was.
    pub(super) fn short() -> Self {
        Self::of(SHORT, SLOW_STEPS)
    }

    /// Of a search that begins again.
    pub(super) fn long() -> Self {
        Self::of(LONG, STEPS)
    }

    /// Called at each step: whether the locks are to be given up, because they were held for long enough
    /// and somebody waits for them.
    pub(super) fn is_over(&self, is_waited_for: impl FnOnce() -> bool) -> bool {
        let steps = self.steps.get() + 1;
        self.steps.set(steps % self.between);
        steps == self.between && self.since.elapsed() >= self.longest && is_waited_for()
    }
}

/// Whether a thread waits to write what `lock` holds. The caller has locked it for reading, and readers
/// queue behind such a thread.
pub(super) fn is_waited_for<T>(lock: &RwLock<T>) -> bool {
    lock.try_read().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_over_only_if_somebody_waits() {
        let hold = Hold::of(Duration::ZERO, STEPS);
        let steps = 0..10 * STEPS;
        assert!(steps.clone().all(|_| !hold.is_over(|| false)));
        let over = steps.clone().filter(|_| hold.is_over(|| true)).count();
        assert_eq!(over, 10);
        let long = Hold::of(Duration::MAX, STEPS);
        assert!(steps.clone().all(|_| !long.is_over(|| true)));
    }

    #[test]
    fn a_writer_is_seen() {
        let lock = RwLock::new(0);
        let read = lock.read();
        assert!(!is_waited_for(&lock));
        std::thread::scope(|scope| {
            scope.spawn(|| *lock.write() += 1);
            while !is_waited_for(&lock) {
                std::thread::yield_now();
            }
            drop(read);
        });
        assert_eq!(*lock.read(), 1);
    }
}
