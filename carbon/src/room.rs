//! Where receivers wait until the cache or the journal has room.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// How long a receiver waits for room before it looks again whether it still should.
const LOOK: Duration = Duration::from_millis(100);

/// Where receivers wait until the cache or the journal has room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// How many wait: mostly none, and then telling costs a load.
    waiting: AtomicUsize,
    lock: Mutex<()>,
    made: Condvar,
}

impl Room {
    /// Tells those who wait that there may be room.
    pub(crate) fn tell(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            drop(self.lock.lock());
            self.made.notify_all();
        }
    }

    /// Waits until there may be room.
    pub(crate) fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.made.wait_for(&mut self.lock.lock(), LOOK);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
