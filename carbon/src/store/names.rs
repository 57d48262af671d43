//! Informs the observer of new names, and frees names that are not used.

use super::inner::Inner;
use crate::datapoint::{Observer, SeriesId};

impl Inner {
    /// Calls the observer with the names that are new since the last call.
    pub(crate) fn introduce(&self, observer: &dyn Observer) {
        let names = self.index.names();
        let mut observed = self.observed.lock();
        let new = (observed.below..names.end()).map(|id| id as u32);
        let reused = names.reused_ids().iter().skip(observed.reused).copied();
        for series in new.chain(reused).map(SeriesId) {
            let name = names.name(series);
            // Empty: the name was freed before the observer was informed.
            if !name.is_empty() {
                observer.named(series, name);
            }
        }
        observed.below = names.end();
        observed.reused = names.reused_ids().len();
    }

    /// Frees names and ids that no part of the program uses, and returns how many.
    pub(crate) fn reclaim(&self) -> usize {
        // The cache has the points until the persister has written them.
        let busy = |id| self.cache.holds(id);
        let freed = |ids: &[SeriesId]| {
            self.schema.known.forget(ids);
            for id in ids {
                self.maps.forget(id.0);
                if let Some(observer) = &self.observer {
                    observer.forgotten(*id);
                }
            }
            if let Some(journal) = &self.journal {
                journal.forget(ids);
            }
            if let Some(relay) = &self.relay {
                relay.forget(ids);
            }
        };
        let inform = |reused: &mut Vec<u32>| match &self.observer {
            None => reused.clear(),
            Some(_) => {
                let mut observed = self.observed.lock();
                reused.drain(..observed.reused);
                observed.reused = 0;
            }
        };
        let count = self.index.reclaim(busy, freed, inform);
        self.stats.names_freed.add(count as u64);
        count
    }
}
