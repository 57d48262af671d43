//! When may an id stand for another name? Not while anything still has it in hand.
//!
//! A [`SeriesId`](crate::SeriesId) is a plain number that receivers, queries, the cache, the
//! journal and the statsd side pass on. If it were given to another name while one of them still
//! had it, a value would go into the series of somebody else. The places that have ids are these:
//!
//! 1. *Holders* keep an id for long (the statsd side, for as long as it knows the metric). They got
//!    it from [`Sink::intern`](crate::Sink::intern), which counts it, and give it back with
//!    [`Sink::release`](crate::Sink::release). A held id keeps its name, even when its series has
//!    expired: the next value creates the series again under the same id.
//! 2. *Passers-by* (a receiver with the points of one read, a query) have an id from a lookup until
//!    they are done with it. They take a [`Pin`] before the lookup and drop it afterwards.
//! 3. The *cache* has ids of points that wait or that the persister has in hand. An id that the cache has is never freed. Journal,
//!    maps and observer are told when an id is freed, before it can be given out again.
//!
//! So a name goes in two steps. First it is *unlinked*, under the lock that all lookups need: it is
//! not listed, has no file and no holder, and from now on no lookup finds it. A passer-by that had
//! looked it up before may still submit points. They carry the old id, whose name is unchanged: they
//! go into the file of their own series, and the index links the id again, or lists the id that the
//! name has got meanwhile. Second, when all pins from before the unlinking are gone and the cache
//! has no points of it, nothing can have the id any more, and it is *freed*.
//!
//! Pins are counted by the parity of an epoch, as in epoch-based reclamation: the epoch is advanced
//! after names were unlinked, and they are freed when the count of the epoch before is zero. Only
//! then may the epoch advance again. A connection that waits for room in a full cache has a pin for
//! all that time, which delays the freeing and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the pins.
#[derive(Debug, Default)]
pub(crate) struct Grace {
    epoch: AtomicU64,
    /// Pins by the parity of the epoch in which they were taken.
    pins: [AtomicU64; 2],
}

/// While it lives, no id that was looked up since it was taken stands for another name.
#[derive(Debug)]
pub struct Pin<'a>(&'a AtomicU64);

impl Grace {
    /// Takes a pin.
    pub(crate) fn pin(&self) -> Pin<'_> {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            let pins = &self.pins[(epoch % 2) as usize];
            pins.fetch_add(1, Ordering::SeqCst);
            // Counted in an epoch that is over, it might be overlooked.
            if self.epoch.load(Ordering::SeqCst) == epoch {
                return Pin(pins);
            }
            pins.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Ends the epoch: pins taken from now on are told from those before.
    pub(crate) fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether all pins from before the last [`Grace::advance`] are gone.
    pub(crate) fn is_over(&self) -> bool {
        let before = self.epoch.load(Ordering::SeqCst).wrapping_sub(1);
        self.pins[(before % 2) as usize].load(Ordering::SeqCst) == 0
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pins_from_before_count() {
        let grace = Grace::default();
        let before = grace.pin();
        grace.advance();
        let after = grace.pin();
        assert!(!grace.is_over());
        drop(before);
        assert!(grace.is_over());
        grace.advance();
        assert!(!grace.is_over());
        drop(after);
        assert!(grace.is_over());
    }
}
