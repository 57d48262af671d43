//! From a receiver into journal and cache.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::carbon::Carbon;
use super::patience::PATIENCE;
use super::setup::Access;
use crate::datapoint::{Datapoint, NameError, SeriesId, Sink};
use crate::journal::Journal;

impl Carbon {
    /// Takes up to all of `points`, from the front: how many there was room for, and the ticket to
    /// wait for.
    fn take(&self, points: &[Datapoint]) -> (usize, u64) {
        let inner = &*self.0;
        if inner.access != Access::Serve {
            inner.stats.read_only.add(points.len() as u64);
            return (points.len(), 0);
        }
        if inner.journal.as_ref().is_some_and(Journal::is_full) {
            return (0, 0);
        }
        let taken = inner.cache.reserve(points.len());
        if taken == 0 {
            return (0, 0);
        }
        let points = &points[..taken];
        let mut woken = Vec::new();
        let mut ticket = 0;
        {
            let _gate = inner.gate.read();
            if let Some(journal) = &inner.journal {
                ticket = journal.append(&inner.index, inner.clocks().earliest(), points);
            }
            inner.cache.insert(points, &mut woken);
        }
        inner.index.list(&woken);
        inner.stats.received.add(taken as u64);
        if let Some(observer) = &inner.observer {
            inner.introduce(&**observer);
            observer.taken(points);
        }
        (taken, ticket)
    }
}

impl Sink for Carbon {
    fn intern(&self, name: &[u8]) -> std::result::Result<SeriesId, NameError> {
        let interned = self.0.index.hold(name);
        if let Err(reason @ NameError::Limit(_)) = interned {
            self.0.stats.count_refusal(reason);
        }
        interned
    }

    fn release(&self, ids: &[SeriesId]) {
        self.0.index.release(ids);
    }

    fn submit(&self, points: &[Datapoint]) {
        let inner = &*self.0;
        let is_closing = || inner.closing.load(Ordering::Acquire);
        let mut rest = points;
        // Since when nothing has been taken while the store is shut down.
        let mut stuck: Option<Instant> = None;
        loop {
            let (taken, ticket) = self.take(rest);
            rest = &rest[taken..];
            if let Some(journal) = &inner.journal
                && taken > 0
                && journal.is_synchronous()
            {
                let begun = Instant::now();
                journal.wait(ticket, || is_closing() && begun.elapsed() >= PATIENCE);
            }
            if rest.is_empty() {
                return;
            }
            if is_closing() {
                // Once something was left behind the wait is over for all.
                let since = *match taken {
                    0 => stuck.get_or_insert_with(Instant::now),
                    _ => stuck.insert(Instant::now()),
                };
                let left = !inner.behind.lock().series.is_empty();
                if left || since.elapsed() >= PATIENCE {
                    return inner.leave_behind(rest);
                }
            }
            inner.stats.waits.add(1);
            inner.room.wait();
        }
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        self.take(points).0
    }
}
