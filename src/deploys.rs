//! Delivery figures as series: `plumbago.deploys.*`.
//!
//! Each point has the figures of the 30 days before it, as `/stats/deploys` answers them. Nothing is written before the
//! first deploy. `render::verdicts::series` bounds the groups.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use carbon::{Carbon, Datapoint, PointTime, SeriesId, Sink, Timestamp};
use render::events::{Store, TagQuery};
use render::verdicts::{delivery, series};
use tokio::time::{MissedTickBehavior, interval};
use tracing::debug;

/// The days that the figures are about, in seconds.
const RANGE: f64 = 30.0 * 86_400.0;

/// Writes the figures into the store.
pub struct DeploySeries {
    query: TagQuery,
    events: Arc<Store>,
    sink: Arc<dyn Sink>,
    /// The series of the last points.
    known: BTreeMap<String, SeriesId>,
}

impl DeploySeries {
    /// The figures of the events that `deploys` selects, into `sink`; `None` if that is empty.
    pub fn new(deploys: &str, events: &Arc<Store>, sink: Arc<dyn Sink>) -> Option<Self> {
        let query = deploys.parse().ok().filter(|_| !deploys.is_empty())?;
        Some(Self {
            query,
            events: events.clone(),
            sink,
            known: BTreeMap::new(),
        })
    }

    /// Writes one point of each figure, at the clock `now`. Blocks while the events are read.
    pub fn write(&mut self, now: Timestamp) {
        let until = f64::from(now.0);
        let from = until - RANGE;
        let found = self.events.deploys(&self.query, from, until);
        let (deploys, is_cut) = match found {
            Ok(found) => found,
            Err(error) => return debug!(%error, "the events for delivery figures"),
        };
        if deploys.is_empty() && self.known.is_empty() {
            return;
        }
        let at = PointTime::of_clock(now);
        let mut before = std::mem::take(&mut self.known);
        let mut points = Vec::new();
        for (name, value) in series(&delivery(&deploys, from, until, is_cut)) {
            let series = match before.remove(&name) {
                Some(series) => series,
                // The store logs why it has no room for a name, and the next round tries again.
                None => match self.sink.intern(name.as_bytes()) {
                    Ok(series) => series,
                    Err(_) => continue,
                },
            };
            points.push(Datapoint { series, at, value });
            self.known.insert(name, series);
        }
        // A full cache must not block this.
        self.sink.try_submit(&points);
        let gone: Vec<SeriesId> = before.into_values().collect();
        self.sink.release(&gone);
    }

    /// Writes every `period` until the runtime ends.
    pub async fn keep(mut self, period: Duration, carbon: Carbon) {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = carbon.now();
            let written = tokio::task::spawn_blocking(move || {
                self.write(now);
                self
            });
            match written.await {
                Ok(series) => self = series,
                Err(_) => return,
            }
        }
    }
}
