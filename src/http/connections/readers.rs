//! The clients that are reading large answers, and which of them go when others find no memory.
//!
//! 1. An answer holds its memory until its last client has read it. What all of them hold may fill half of
//!    `render.max_memory` ([`SHARE`]) however slowly their clients read, and more while nobody misses it.
//! 2. When requests miss it, clients are broken off until the others hold no more than that: first the
//!    one that lags farthest behind.
//! 3. A client that takes [`PACE`] bytes a second or more, or lags behind that by less than [`PATIENCE`], is
//!    never broken off. Only the time in which the answer waits for the client counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use render::http::Holds;
use settings::Counter;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

/// The part of the memory that slow clients may hold: one in so many bytes.
const SHARE: u64 = 2;
/// The bytes that a client has to take in a second so that it does not fall behind.
const PACE: u64 = 1 << 20;
/// How far a client may fall behind.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time between two lines of the log.
const QUIET: Duration = Duration::from_secs(60);

/// All clients that are reading large answers.
#[derive(Default)]
pub(super) struct Readers {
    by_number: Mutex<BTreeMap<u64, Arc<Reader>>>,
    n_readers: AtomicU64,
    /// When the log last had a line, and how many clients have been broken off since.
    said: Mutex<(Option<Instant>, u64)>,
}

/// One client.
struct Reader {
    held: Holds,
    lag: Mutex<Lag>,
    is_broken: AtomicBool,
    /// Ends the connection.
    end: Arc<Notify>,
}

/// A client's place among the readers. Dropped, it reads no longer.
pub(super) struct Place {
    readers: Arc<Readers>,
    number: u64,
    reader: Arc<Reader>,
}

impl Place {
    /// The client has room for the next piece.
    pub(super) fn wants(&self) {
        self.reader.lag.lock().wants(Instant::now());
    }

    /// A piece of `n_bytes` is on its way to the client.
    pub(super) fn sent(&self, n_bytes: usize) {
        self.reader.lag.lock().sent(n_bytes, Instant::now());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.readers.by_number.lock().remove(&self.number);
    }
}

impl Readers {
    /// A client that begins to read; `end` is notified when its connection has to end at once.
    pub(super) fn join(self: &Arc<Self>, held: Holds, end: Arc<Notify>) -> Place {
        let reader = Arc::new(Reader {
            held,
            lag: Mutex::new(Lag::new(Instant::now())),
            is_broken: AtomicBool::new(false),
            end,
        });
        let number = self.n_readers.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            readers: Arc::clone(self),
            number,
            reader: Arc::clone(&reader),
        };
        self.by_number.lock().insert(number, reader);
        place
    }

    /// Breaks off clients that lag behind, if all together hold more than their share of `limit` bytes: as many
    /// as it takes. Whether memory is about to be given back.
    pub(super) fn make_room(&self, limit: u64, counter: &Counter) -> bool {
        self.make_room_at(Instant::now(), limit / SHARE, counter)
    }

    fn make_room_at(&self, now: Instant, share: u64, counter: &Counter) -> bool {
        let readers = self.by_number.lock();
        let mut staying: BTreeMap<u64, &Reader> = BTreeMap::new();
        let mut lagging = Vec::new();
        for (number, reader) in &*readers {
            // The memory of others is on its way back.
            if !reader.is_broken.load(Ordering::Relaxed) {
                staying.insert(*number, reader);
                let lag = reader.lag.lock().at(now);
                if lag > PATIENCE {
                    lagging.push((lag, *number));
                }
            }
        }
        lagging.sort_unstable();
        let mut n_broken = 0;
        while held(&staying) > share
            && let Some((_, number)) = lagging.pop()
        {
            if let Some(reader) = staying.remove(&number) {
                reader.is_broken.store(true, Ordering::Relaxed);
                reader.end.notify_one();
                n_broken += 1;
            }
        }
        let gives_back = staying.len() < readers.len();
        drop(readers);
        if n_broken > 0 {
            counter.add(n_broken);
            self.say(now, n_broken);
        }
        gives_back
    }

    fn say(&self, now: Instant, n_broken: u64) {
        let mut said = self.said.lock();
        said.1 += n_broken;
        if said.0.is_none_or(|last| now.duration_since(last) > QUIET) {
            warn!(
                "render.max_memory: broke off {} answers that their clients read slowly: other requests miss the memory",
                said.1
            );
            *said = (Some(now), 0);
        }
    }
}

/// What the answers to these clients hold together.
fn held(readers: &BTreeMap<u64, &Reader>) -> u64 {
    let mut answers = BTreeSet::new();
    let each = readers.values().map(|reader| {
        let Holds {
            own,
            shared,
            answer,
        } = reader.held;
        match answers.insert(answer) {
            true => own.saturating_add(shared),
            false => own,
        }
    });
    each.fold(0, u64::saturating_add)
}

/// How far a client is behind one that takes [`PACE`] bytes a second. What it takes faster at one time makes up for
/// what it takes more slowly before, not after.
struct Lag {
    /// When the last piece was on its way to it.
    behind: Duration,
    /// Since when that piece has been on its way, and how long it may take; `None` while the next one is made.
    sent: Option<(Instant, Duration)>,
}

impl Lag {
    fn new(now: Instant) -> Self {
        Self {
            behind: Duration::ZERO,
            sent: Some((now, Duration::ZERO)),
        }
    }

    fn sent(&mut self, n_bytes: usize, now: Instant) {
        let may_take = Duration::from_micros((n_bytes as u64).saturating_mul(1_000_000) / PACE);
        self.sent = Some((now, may_take));
    }

    fn wants(&mut self, now: Instant) {
        self.behind = self.at(now);
        self.sent = None;
    }

    fn at(&self, now: Instant) -> Duration {
        let Some((since, may_take)) = self.sent else {
            return self.behind;
        };
        let behind = self.behind + now.saturating_duration_since(since);
        behind.saturating_sub(may_take)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn is_told(place: &Place) -> bool {
        let end = std::pin::pin!(place.reader.end.notified());
        let mut context = Context::from_waker(Waker::noop());
        end.poll(&mut context).is_ready()
    }

    fn join(readers: &Arc<Readers>, own: u64, shared: u64, answer: usize) -> Place {
        let held = Holds {
            own,
            shared,
            answer,
        };
        readers.join(held, Arc::default())
    }

    #[test]
    fn only_the_time_that_a_client_takes_beyond_its_pace_counts() {
        let start = Instant::now();
        let mut lag = Lag::new(start);
        let mut now = start;
        // Each MiB takes as long to make as it likes, and its client a second.
        for _ in 0..100 {
            lag.wants(now);
            now += SECOND * 60;
            lag.sent(1 << 20, now);
            now += SECOND;
        }
        assert_eq!(lag.at(now), Duration::ZERO);
        // At half the pace it falls behind, and when it stops.
        for _ in 0..3 {
            lag.wants(now);
            lag.sent(1 << 20, now);
            now += SECOND * 2;
        }
        assert_eq!(lag.at(now), SECOND * 3);
        assert_eq!(lag.at(now + SECOND * 10), SECOND * 13);
        // It makes up for that, and no more than that.
        for _ in 0..10 {
            lag.wants(now);
            lag.sent(1 << 20, now);
        }
        assert_eq!(lag.at(now), Duration::ZERO);
        assert_eq!(lag.at(now + SECOND * 3), SECOND * 2);
    }

    #[test]
    fn the_slowest_are_broken_off_until_the_others_hold_their_share() {
        let readers: Arc<Readers> = Arc::default();
        let counter = Counter::default();
        let broken = |place: &Place| place.reader.is_broken.load(Ordering::Relaxed);
        // The one that joined first lags farthest behind.
        let start = Instant::now();
        let places = [0, 1, 2, 3].map(|nth| {
            let place = join(&readers, 30, 0, nth);
            let began = start + Duration::from_millis(nth as u64);
            *place.reader.lag.lock() = Lag::new(began);
            place
        });
        let fast = join(&readers, 40, 0, 4);
        fast.wants();
        assert!(!readers.make_room_at(start + PATIENCE, 50, &counter));
        let late = start + PATIENCE + SECOND;
        assert!(!readers.make_room_at(late, 160, &counter));
        assert!(readers.make_room_at(late, 100, &counter));
        assert_eq!(places.each_ref().map(broken), [true, true, false, false]);
        assert_eq!(counter.get(), 2);
        // Their memory is on its way back: nothing else has to go.
        assert!(readers.make_room_at(late, 100, &counter));
        assert_eq!(counter.get(), 2);
        let [first, second, ..] = &places;
        assert!(is_told(first));
        assert!(is_told(second));
        assert!(!is_told(&fast));
        let [first, second, _third, _fourth] = places;
        drop((first, second));
        assert!(!readers.make_room_at(late, 100, &counter));
        assert!(readers.make_room_at(late, 0, &counter));
        assert_eq!(counter.get(), 4);
        assert!(!broken(&fast), "it does not lag");
    }

    #[test]
    fn an_answer_of_several_clients_counts_once() {
        let readers: Arc<Readers> = Arc::default();
        let counter = Counter::default();
        let all: Vec<Place> = (0..10).map(|_| join(&readers, 1, 50, 7)).collect();
        let late = Instant::now() + PATIENCE + SECOND;
        assert!(!readers.make_room_at(late, 60, &counter));
        assert!(readers.make_room_at(late, 55, &counter));
        assert_eq!(counter.get(), 5);
        drop(all);
        assert!(readers.by_number.lock().is_empty());
    }
}
