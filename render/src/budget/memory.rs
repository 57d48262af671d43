//! The memory that all requests share, and how the process is asked to give back more of it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The memory that all requests have together, in bytes.
#[derive(Debug)]
pub struct Memory {
    pub(super) limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    /// What the process holds for requests beside what they have reserved.
    charged: AtomicU64,
    /// All that was ever reserved: what is given back meanwhile does not count.
    growth: AtomicU64,
    /// The bodies that are still arriving.
    pub(super) arriving: AtomicU64,
    on_growth: OnceLock<OnGrowth>,
}

/// Called by requests that grow, and by those that are about to be refused.
struct OnGrowth(Box<Look>);

type Look = dyn Fn(&Memory, Occasion) + Send + Sync;

/// Why the process's memory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// Requests have reserved 16 MiB more.
    Growth,
    /// A request that needs so many bytes more is refused unless memory is given back.
    Refusal(u64),
}

impl fmt::Debug for OnGrowth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnGrowth")
    }
}

/// How much requests reserve together between two calls of [`OnGrowth`].
const GROWTH: u64 = 16 << 20;

impl Memory {
    /// `limit` bytes; 0 for no limit.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            charged: AtomicU64::new(0),
            growth: AtomicU64::new(0),
            arriving: AtomicU64::new(0),
            on_growth: OnceLock::new(),
        })
    }

    /// Has `look` called each time that requests have reserved 16 MiB more and hold more than half of
    /// the limit, and before one is refused: by the thread that reserves, before it allocates. The
    /// first call of this function counts.
    pub fn on_growth(&self, look: impl Fn(&Self, Occasion) + Send + Sync + 'static) {
        // A second one would see the same growth.
        let _ = self.on_growth.set(OnGrowth(Box::new(look)));
    }

    /// The bytes that requests hold reserved now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes that requests held together since the last [`Memory::restart_peak`].
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Charges `bytes` that the process holds for requests beside what they have reserved: requests
    /// may reserve so much less until the next call.
    pub fn charge(&self, bytes: u64) {
        self.charged.store(bytes, Ordering::Relaxed);
    }

    /// What was charged last.
    pub fn charged(&self) -> u64 {
        self.charged.load(Ordering::Relaxed)
    }

    /// Lets the peak begin again with what requests hold now.
    pub fn restart_peak(&self) {
        self.peak.store(self.used(), Ordering::Relaxed);
    }

    /// The most that requests may hold together; 0 for no limit.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// The bytes that requests may still reserve.
    pub fn left(&self) -> u64 {
        self.most().saturating_sub(self.used())
    }

    fn most(&self) -> u64 {
        match self.limit {
            0 => u64::MAX,
            limit => limit.saturating_sub(self.charged()),
        }
    }

    pub(super) fn take(&self, bytes: u64) -> bool {
        let mut taken = self.try_take(bytes);
        if taken.is_none() && self.limit > 0 && bytes <= self.limit {
            self.look(Occasion::Refusal(bytes));
            taken = self.try_take(bytes);
        }
        let Some(now) = taken else {
            return false;
        };
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(now, Ordering::Relaxed);
        }
        let before = self.growth.fetch_add(bytes, Ordering::Relaxed);
        if before / GROWTH != before.wrapping_add(bytes) / GROWTH
            && now > self.limit / 2
            && self.limit > 0
        {
            self.look(Occasion::Growth);
        }
        true
    }

    /// What requests hold with `bytes` more; `None` if that is too much. Nothing more is never too much, even where
    /// what was charged since leaves less than is reserved.
    fn try_take(&self, bytes: u64) -> Option<u64> {
        let most = self.most();
        let fits = |used: &u64| bytes == 0 || *used <= most;
        let more = |used: u64| used.checked_add(bytes).filter(fits);
        let before = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        before.ok().map(|before| before.saturating_add(bytes))
    }

    fn look(&self, occasion: Occasion) {
        if let Some(OnGrowth(look)) = self.on_growth.get() {
            look(self, occasion);
        }
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use parking_lot::Mutex;

    use super::super::Budget;
    use super::*;

    #[test]
    fn what_is_charged_is_refused_to_requests_until_it_is_given_back() {
        let memory = Memory::new(100);
        let given_back = Arc::new(AtomicBool::new(false));
        let gives = Arc::clone(&given_back);
        memory.on_growth(move |memory, occasion| {
            assert!(matches!(occasion, Occasion::Refusal(_)));
            if gives.load(Ordering::Relaxed) {
                memory.charge(10);
            }
        });
        let budget = Budget::new(Arc::clone(&memory), None);
        memory.charge(30);
        budget.reserve(70).unwrap();
        assert!(budget.reserve(1).is_err());
        given_back.store(true, Ordering::Relaxed);
        budget.reserve(20).unwrap();
        assert!(budget.reserve(1).is_err());
        assert_eq!((memory.used(), memory.charged()), (90, 10));
        // More than there is at all.
        memory.charge(200);
        budget.reserve(0).unwrap();
        budget.release(90);
        given_back.store(false, Ordering::Relaxed);
        assert!(budget.reserve(1).is_err());
    }

    #[test]
    fn growth_in_the_upper_half_of_the_limit_is_looked_at() {
        const MB: usize = 1 << 20;
        let memory = Memory::new(100 * MB as u64);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        memory.on_growth(move |memory, occasion| {
            sink.lock().push((memory.used() / MB as u64, occasion));
        });
        memory.on_growth(|_, _| panic!("the first one counts"));
        let budget = Budget::new(Arc::clone(&memory), None);
        for _ in 0..100 {
            budget.reserve(MB).unwrap();
        }
        assert!(budget.reserve(1).is_err());
        let growth = |used| (used, Occasion::Growth);
        let refusal = |used| (used, Occasion::Refusal(1));
        assert_eq!(
            *seen.lock(),
            [growth(64), growth(80), growth(96), refusal(100)]
        );
        // What is given back and reserved again counts as growth.
        seen.lock().clear();
        for _ in 0..16 {
            budget.release(MB);
            budget.reserve(MB).unwrap();
        }
        assert_eq!(*seen.lock(), [growth(100)]);
        let unlimited = Memory::new(0);
        unlimited.on_growth(|_, _| panic!("no limit, no half of it"));
        Budget::new(unlimited, None)
            .reserve(usize::MAX / 2)
            .unwrap();
    }
}
