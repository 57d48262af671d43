//! What the store knows about the delivery to a remote store.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::journal::Journal;
use crate::remote::Delivery;

/// The shortest time between two messages in the log about blocks that were not acknowledged.
const QUIET: Duration = Duration::from_secs(30);

/// What the store knows about the delivery.
pub(crate) struct Deliveries {
    pub(super) delivery: Delivery,
    /// The present segment has points that are not in the cache.
    pub(super) spilled: AtomicBool,
    /// Finished segments with such points.
    pub(super) segments: Mutex<BTreeSet<u64>>,
    /// The series that were listed when the last complete round began.
    pub(super) listed: AtomicUsize,
    trouble: Mutex<Trouble>,
}

/// Why the remote store does not acknowledge blocks at present.
#[derive(Debug, Default)]
struct Trouble {
    why: Option<String>,
    logged: Option<Instant>,
}

impl Deliveries {
    pub(crate) fn new(delivery: Delivery) -> Self {
        Self {
            delivery,
            spilled: AtomicBool::new(false),
            segments: Mutex::default(),
            listed: AtomicUsize::new(0),
            trouble: Mutex::default(),
        }
    }

    pub(crate) fn within(&self) -> Duration {
        self.delivery.within
    }

    /// The segments that are there at the start have points that are not in the cache.
    pub(crate) fn read_back(&self, journal: Option<&Journal>) {
        if let Some(journal) = journal {
            self.segments.lock().extend(journal.finished());
        }
    }

    /// Why blocks are not acknowledged at present.
    pub(super) fn why(&self) -> Option<String> {
        self.trouble.lock().why.clone()
    }

    /// Whether there are points that are neither in the cache nor in the remote store.
    pub(super) fn has_spilled(&self) -> bool {
        self.spilled.load(Ordering::Relaxed) || !self.segments.lock().is_empty()
    }

    /// A block was acknowledged.
    pub(super) fn acknowledged(&self) {
        let mut trouble = self.trouble.lock();
        if trouble.why.take().is_some() {
            trouble.logged = None;
            tracing::info!("the remote store takes points again");
        }
    }

    /// A block was not acknowledged.
    pub(super) fn refused(&self, why: String) {
        let mut trouble = self.trouble.lock();
        if trouble.logged.is_none_or(|at| at.elapsed() >= QUIET) {
            trouble.logged = Some(Instant::now());
            tracing::error!(
                "the remote store does not take points; they wait in the journal: {why}"
            );
        }
        trouble.why = Some(why);
    }
}
