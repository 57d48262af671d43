//! Names that are new or gone: the observer is told, ids are given back.

use super::inner::Inner;
use crate::datapoint::{Observer, SeriesId};

impl Inner {
    /// Tells the observer the names that are new since the last time.
    pub(crate) fn introduce(&self, observer: &dyn Observer) {
        let names = self.index.names();
        let mut observed = self.observed.lock();
        let new = (observed.below..names.end()).map(|id| id as u32);
        let reused = names.reused_ids().iter().skip(observed.reused).copied();
        for series in new.chain(reused).map(SeriesId) {
            let name = names.name(series);
            // Empty: freed again before anybody was told.
            if !name.is_empty() {
                observer.named(series, name);
            }
        }
        observed.below = names.end();
        observed.reused = names.reused_ids().len();
    }

    /// Gives back the names and ids of series that are gone; how many.
    pub(crate) fn reclaim(&self) -> usize {
        // What the persister has in hand is in the cache until it is done with it.
        let busy = |id| self.cache.holds(id);
        let freed = |ids: &[SeriesId]| {
            for id in ids {
                self.maps.forget(id.0);
                if let Some(observer) = &self.observer {
                    observer.forgotten(*id);
                }
            }
            if let Some(journal) = &self.journal {
                journal.forget(ids);
            }
        };
        let settle = |reused: &mut Vec<u32>| match &self.observer {
            None => reused.clear(),
            Some(_) => {
                let mut observed = self.observed.lock();
                reused.drain(..observed.reused);
                observed.reused = 0;
            }
        };
        let count = self.index.reclaim(busy, freed, settle);
        self.stats.names_freed.add(count as u64);
        count
    }
}
