//! The observer of datapoints that stores the events which the rules with `metric` make of them.
//!
//! It compares each name once, when the series gets its id; after that a point of any other series
//! costs one comparison of integers, and without such rules there is no observer at all. The events
//! go to the store without waiting for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use carbon::{Datapoint, Observer, SeriesId};
use parking_lot::RwLock;

use super::Store;
use super::metrics::MetricEvent;

/// What to hand to carbon so that the metrics which the rules of `store` name become events in
/// it. `None` without such rules.
pub fn observer(store: &Arc<Store>) -> Option<Arc<dyn Observer>> {
    if store.rules().metrics().is_empty() {
        return None;
    }
    Some(Arc::new(Watch {
        store: Arc::clone(store),
        lowest: AtomicU32::new(u32::MAX),
        highest: AtomicU32::new(0),
        watched: RwLock::default(),
    }))
}

struct Watch {
    store: Arc<Store>,
    /// The range of ids in `watched`; empty (`MAX..=0`) while nothing has matched.
    lowest: AtomicU32,
    highest: AtomicU32,
    watched: RwLock<HashMap<SeriesId, MetricEvent>>,
}

impl Observer for Watch {
    fn named(&self, series: SeriesId, name: &str) {
        let Some(event) = self.store.rules().metrics().matches(name) else {
            return;
        };
        let mut watched = self.watched.write();
        watched.insert(series, event);
        self.lowest.fetch_min(series.0, Ordering::Release);
        self.highest.fetch_max(series.0, Ordering::Release);
    }

    fn forgotten(&self, series: SeriesId) {
        let mut watched = self.watched.write();
        watched.remove(&series);
    }

    fn taken(&self, points: &[Datapoint]) {
        let lowest = self.lowest.load(Ordering::Acquire);
        let highest = self.highest.load(Ordering::Acquire);
        for point in points {
            if !(lowest..=highest).contains(&point.series.0) {
                continue;
            }
            let watched = self.watched.read();
            if let Some(draft) = watched.get(&point.series).and_then(|event| event.at(point)) {
                self.store.insert_later(draft);
            }
        }
    }
}
