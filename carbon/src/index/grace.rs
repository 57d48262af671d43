//! When an id may be assigned to another name: when no part of the program uses it any longer.
//!
//! A [`SeriesId`](crate::SeriesId) is a plain number that receivers, queries, the cache, the journal
//! and the statsd side pass on. If it were assigned to another name while one of them still used it, a
//! value would go into the wrong series. These places have ids:
//!
//! 1. *Holders* keep an id for a long time (the statsd side, for as long as it knows the metric). They have
//!    it from [`Sink::intern`](crate::Sink::intern), which counts it, and give it back with
//!    [`Sink::release`](crate::Sink::release). A held id keeps its name even if its series has expired:
//!    the next value creates the series again under the same id.
//! 2. *Short users* (a receiver with the points of one read, a query) have an id from a lookup until they
//!    have used it. They take a [`Pin`] before the lookup and drop it afterwards.
//! 3. The *cache* has the ids of points that wait or are being written. An id with points in the cache is
//!    never freed. Journal, maps and observer are informed when an id is freed, before it is assigned
//!    again.
//!
//! A name is removed in two steps. First it is *unlinked*, under the lock that all lookups take: its series
//! is not listed and has no file and no holder, and no later lookup finds it. A short user that looked it up
//! before may still submit points. They have the old id, whose name is unchanged: they go into the file of
//! their own series, and the index links the id again, or lists the id that the name has been given
//! meanwhile. Second, after all pins from before the unlinking are dropped and the cache has no points of
//! it, no part of the program has the id, and it is *freed*.
//!
//! Pins are counted by the parity of an epoch, as in epoch-based reclamation: the epoch is advanced after
//! names were unlinked, and they are freed when the count of the previous epoch is zero. Only then may the
//! epoch advance again. A connection that waits for room in a full cache keeps its pin, which delays the
//! freeing and nothing else.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the pins.
#[derive(Debug, Default)]
pub(crate) struct Grace {
    epoch: AtomicU64,
    /// Pins by the parity of the epoch in which they were taken.
    pins: [AtomicU64; 2],
}

/// While it exists, no id that was looked up after it was taken is assigned to another name.
#[derive(Debug)]
pub struct Pin<'a>(&'a AtomicU64);

impl Grace {
    /// Takes a pin.
    pub(crate) fn pin(&self) -> Pin<'_> {
        loop {
            let epoch = self.epoch.load(Ordering::SeqCst);
            let pins = &self.pins[(epoch % 2) as usize];
            pins.fetch_add(1, Ordering::SeqCst);
            // The epoch has ended meanwhile: a pin of an old epoch would be missed.
            if self.epoch.load(Ordering::SeqCst) == epoch {
                return Pin(pins);
            }
            pins.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Begins the next epoch: pins taken from now on are counted apart from those before.
    pub(crate) fn advance(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether all pins from before the last [`Grace::advance`] are dropped.
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
