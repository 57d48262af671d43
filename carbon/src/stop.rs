//! Ends the threads of a store.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// Set once, at the shutdown. Threads check it between two pieces of work, and pause with it.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    stopping: AtomicBool,
    lock: Mutex<()>,
    stopped: Condvar,
}

impl Stop {
    /// Asks the threads to end, and wakes those that pause.
    pub(crate) fn set(&self) {
        self.stopping.store(true, Ordering::Release);
        drop(self.lock.lock());
        self.stopped.notify_all();
    }

    /// Whether the threads are to end.
    pub(crate) fn is_set(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Sleeps until `span` has passed or the threads are to end.
    pub(crate) fn pause(&self, span: Duration) {
        let until = Instant::now() + span;
        let mut lock = self.lock.lock();
        while !self.is_set() {
            if self.stopped.wait_until(&mut lock, until).timed_out() {
                return;
            }
        }
    }
}
