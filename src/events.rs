//! DogStatsD's events and service checks, on their way into the event store.
//!
//! 1. A datagram has no token: if writing over HTTP needs one, events in datagrams are refused
//!    unless `events.allow_datagrams` is set.
//! 2. At most `events.max_per_second` are stored, after a burst of [`BURST`] seconds' worth, because
//!    each event stays on disk for ever, or for the retention.
//! 3. Dropped events are counted and reported in the log at a limited rate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use render::events::{Draft, Options, Store};
use statsd::{Event, EventSink};
use tracing::warn;

/// Seconds of the rate that may come at once: a whole fleet reports the same deploy.
const BURST: f64 = 10.0;
/// How often the log says what was left out.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Hands events to the event store, which counts what it refuses or has no room for.
pub struct IntoEvents {
    store: Arc<Store>,
    refuses: bool,
    rate: f64,
    state: Mutex<State>,
}

/// What is left of the burst, and what the log has said.
struct State {
    left: f64,
    at: Instant,
    said: Option<Instant>,
}

impl IntoEvents {
    /// A door to `store` by `options`; `wants_tokens` if writing over HTTP needs a token.
    pub fn new(store: Arc<Store>, options: &Options, wants_tokens: bool) -> Self {
        let rate = f64::from(options.max_per_second);
        let state = State {
            left: rate * BURST,
            at: Instant::now(),
            said: None,
        };
        Self {
            store,
            refuses: wants_tokens && !options.allow_datagrams,
            rate,
            state: Mutex::new(state),
        }
    }

    /// Why an event that comes at `now` is left out, if it is, with the counter for it.
    fn against(&self, state: &mut State, now: Instant) -> Option<(&'static str, &AtomicU64)> {
        let stats = self.store.stats();
        if self.refuses {
            let why = "tokens are set, and events.allow_datagrams is not";
            return Some((why, &stats.datagrams_refused));
        }
        if self.rate > 0.0 {
            let since = now.saturating_duration_since(state.at).as_secs_f64();
            state.left = (state.left + since * self.rate).min(self.rate * BURST);
            state.at = now;
            if state.left < 1.0 {
                return Some(("more than events.max_per_second", &stats.datagrams_limited));
            }
            state.left -= 1.0;
        }
        None
    }

    fn admits(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let Some((why, counter)) = self.against(&mut state, now) else {
            return true;
        };
        let count = counter.fetch_add(1, Ordering::Relaxed) + 1;
        let silent = |said: Instant| now.saturating_duration_since(said) < SAID_EVERY;
        if !state.said.is_some_and(silent) {
            state.said = Some(now);
            warn!(count, "events in datagrams are dropped: {why}");
        }
        false
    }
}

impl EventSink for IntoEvents {
    fn event(&self, event: Event) {
        if !self.admits(Instant::now()) {
            return;
        }
        let Event {
            what,
            data,
            tags,
            when,
            key,
        } = event;
        self.store
            .insert_later(Draft::from_mark(what, data, tags, when, key));
    }
}

#[cfg(test)]
mod tests {
    use render::events::TagQuery;

    use super::*;

    #[test]
    fn a_mark_becomes_an_event() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("events.db"), &Options::default()).unwrap();
        IntoEvents::new(store.clone(), &Options::default(), false).event(Event {
            what: "app 2".to_owned(),
            data: "by ann".to_owned(),
            tags: vec!["deploy".to_owned()],
            when: Some(1_700_000_000),
            key: Some("app-2".to_owned()),
        });
        // The store answers in order: the first event is stored by now.
        store.insert(Draft::new("later", &["other"])).unwrap();
        let query: TagQuery = "deploy".parse().unwrap();
        let found = store.query(&query, 1.6e9, 1.8e9, 10).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].what.as_str(), found[0].when), ("app 2", 1.7e9));
    }

    #[test]
    fn tokens_close_the_door_for_datagrams_unless_they_are_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("events.db"), &Options::default()).unwrap();
        let now = Instant::now();
        assert!(!IntoEvents::new(store.clone(), &Options::default(), true).admits(now));
        assert_eq!(store.stats().datagrams_refused.load(Ordering::Relaxed), 1);
        let allowed = Options {
            allow_datagrams: true,
            ..Options::default()
        };
        assert!(IntoEvents::new(store, &allowed, true).admits(now));
    }

    #[test]
    fn a_burst_goes_on_and_then_the_rate() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            max_per_second: 5,
            ..Options::default()
        };
        let store = Store::open(&dir.path().join("events.db"), &options).unwrap();
        let door = IntoEvents::new(store.clone(), &options, false);
        let start = Instant::now();
        let admitted = |at| (0..100).filter(|_| door.admits(at)).count();
        assert_eq!(admitted(start), 50);
        assert_eq!(store.stats().datagrams_limited.load(Ordering::Relaxed), 50);
        assert_eq!(admitted(start + Duration::from_millis(1_001)), 5);
        assert_eq!(admitted(start + Duration::from_secs(3600)), 50);
        let unlimited = Options {
            max_per_second: 0,
            ..options
        };
        let door = IntoEvents::new(store, &unlimited, false);
        assert!((0..10_000).all(|_| door.admits(start)));
    }
}
