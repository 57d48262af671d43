//! New series whose files wait for a second timestamp.
//!
//! 1. A series is here once, and its points are in the cache, where queries see them; the sweep of
//!    the cache does not return it. The persister writes each series that [`Undecided::due`] returns, or
//!    adds it again.
//! 2. Every [`LOOK_EVERY`] it is checked again, and returned if points have come since, or if it has
//!    waited for [`LONGEST`].
//! 3. The number of series is bounded ([`MOST`]); beyond it, and while the cache is more than half or the
//!    journal more than a quarter full, series do not wait. Nor does one with [`MOST_POINTS`]: in the cache
//!    equal points take next to nothing, but in the journal each has its bytes, and none is deleted before
//!    the series is written.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::cache::{self, Cache, Waiting};
use crate::datapoint::SeriesId;

/// The longest wait: two points of a sender with the longest step that is chosen from.
pub(crate) const LONGEST: Duration = Duration::from_secs(2 * 300);
/// How often it is looked whether a series has new points.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many series wait at most. Each takes 100 bytes here, and 32 in the cache.
const MOST: usize = 1_000_000;
/// A series with so many points does not wait.
const MOST_POINTS: u32 = 256;
/// The share of the journal from which on no series waits.
const JOURNAL: f64 = 1.0 / 4.0;

/// The series that wait.
#[derive(Debug, Default)]
pub(crate) struct Undecided {
    /// In the order in which they are looked at.
    queue: VecDeque<(SeriesId, Instant)>,
    since: HashMap<SeriesId, Since, foldhash::fast::RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    at: Instant,
    /// When it is looked at again; other entries of the queue for the series are out of date.
    look: Instant,
    /// How many points it had when it was added.
    points: u32,
    /// When they came.
    came: cache::Since,
}

impl Undecided {
    /// How many series wait.
    pub(crate) fn len(&self) -> usize {
        self.since.len()
    }

    /// Whether `series`, which is not stored, may wait: it has not done so for too long, and there is
    /// room for it. `journal`: the share of the journal that is used.
    pub(crate) fn may_wait(
        &self,
        series: SeriesId,
        now: Instant,
        (cache, journal): (&Cache, f64),
    ) -> bool {
        let has_room = cache.used_bytes() < cache.max_bytes() / 2 && journal < JOURNAL;
        has_room
            && cache.count(series) < MOST_POINTS
            && match self.since.get(&series) {
                Some(since) => now.saturating_duration_since(since.at) < LONGEST,
                None => self.since.len() < MOST,
            }
    }

    /// Has a series wait: its points, `count` of them, have one timestamp.
    pub(crate) fn add(&mut self, waiting: Waiting, now: Instant) {
        let Waiting {
            series,
            count: points,
            since: came,
        } = waiting;
        let look = now + LOOK_EVERY;
        let since = self.since.entry(series).or_insert(Since {
            at: now,
            look,
            points,
            came,
        });
        (since.look, since.points) = (look, points);
        self.queue.push_back((series, look));
    }

    /// The file of `series` was created, or its points are gone.
    pub(crate) fn remove(&mut self, series: SeriesId) {
        self.since.remove(&series);
    }

    /// Appends to `into` the series that may be decided now. `all`: every series.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        all: bool,
        (cache, journal): (&Cache, f64),
        into: &mut Vec<Waiting>,
    ) {
        for _ in 0..self.queue.len() {
            let Some((series, look)) = self.queue.front().copied() else {
                return;
            };
            if look > now && !all {
                return;
            }
            self.queue.pop_front();
            let found = self.since.get(&series).copied();
            let Some(since) = found.filter(|since| since.look == look) else {
                continue;
            };
            let count = cache.count(series);
            let waited = now.saturating_duration_since(since.at) >= LONGEST;
            let waiting = Waiting {
                series,
                count,
                since: since.came,
            };
            if all
                || waited
                || count != since.points
                || !self.may_wait(series, now, (cache, journal))
            {
                into.push(waiting);
            } else {
                self.add(waiting, now);
            }
        }
    }

    /// The series that wait on.
    pub(crate) fn series(&self) -> impl Iterator<Item = SeriesId> {
        self.since.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapoint::{Datapoint, PointTime};
    use whisper::Timestamp;

    const A: SeriesId = SeriesId(1);

    fn insert(cache: &Cache, series: SeriesId, at: u32) {
        let point = Datapoint {
            series,
            at: PointTime::new(Timestamp(at)).unwrap(),
            value: 1.0,
        };
        assert_eq!(cache.reserve(1), 1);
        cache.insert(&[point], Timestamp(at), &mut Vec::new());
    }

    fn one(cache: &Cache, series: SeriesId, count: u32) -> Waiting {
        Waiting {
            series,
            count,
            since: cache.since(Timestamp(100), Duration::ZERO),
        }
    }

    fn due(undecided: &mut Undecided, now: Instant, all: bool, cache: &Cache) -> Vec<SeriesId> {
        let mut due = Vec::new();
        undecided.due(now, all, (cache, 0.0), &mut due);
        due.iter().map(|waiting| waiting.series).collect()
    }

    #[test]
    fn a_series_waits_for_points_but_not_too_long() {
        let cache = Cache::new(1 << 20);
        let mut undecided = Undecided::default();
        let start = Instant::now();
        insert(&cache, A, 100);
        undecided.add(one(&cache, A, 1), start);
        assert_eq!(due(&mut undecided, start, false, &cache), []);
        assert_eq!(due(&mut undecided, start + LOOK_EVERY, false, &cache), []);
        insert(&cache, A, 100);
        assert_eq!(due(&mut undecided, start + LOOK_EVERY, false, &cache), []);
        let later = start + 2 * LOOK_EVERY;
        assert_eq!(due(&mut undecided, later, false, &cache), [A]);
        // The timestamp was the same: it waits on, from the same start.
        undecided.add(one(&cache, A, 2), later);
        assert!(undecided.may_wait(A, start + LONGEST - LOOK_EVERY, (&cache, 0.0)));
        assert!(!undecided.may_wait(A, start + LONGEST, (&cache, 0.0)));
        assert_eq!(due(&mut undecided, start + LONGEST, false, &cache), [A]);
        undecided.remove(A);
        assert_eq!(undecided.len(), 0);
    }

    #[test]
    fn all_are_named_at_the_end_and_when_room_is_short() {
        let cache = Cache::new(8 << 10);
        let mut undecided = Undecided::default();
        let start = Instant::now();
        for n in 0..3 {
            insert(&cache, SeriesId(n), 100);
            undecided.add(one(&cache, SeriesId(n), 1), start);
        }
        let ids: Vec<SeriesId> = (0..3).map(SeriesId).collect();
        assert_eq!(due(&mut undecided, start, true, &cache), ids);
        assert_eq!(due(&mut undecided, start, true, &cache), []);
        undecided.add(one(&cache, A, 1), start);
        assert_eq!(cache.reserve(128), 128);
        assert!(!undecided.may_wait(A, start, (&cache, 0.0)));
        assert_eq!(due(&mut undecided, start + LOOK_EVERY, false, &cache), [A]);
    }

    #[test]
    fn a_series_takes_little_of_the_journal() {
        let cache = Cache::new(1 << 20);
        let undecided = Undecided::default();
        let now = Instant::now();
        (1..MOST_POINTS).for_each(|_| insert(&cache, A, 100));
        assert!(undecided.may_wait(A, now, (&cache, JOURNAL / 2.0)));
        assert!(!undecided.may_wait(A, now, (&cache, JOURNAL)));
        insert(&cache, A, 100);
        assert!(!undecided.may_wait(A, now, (&cache, 0.0)));
    }

    #[test]
    fn a_series_that_was_removed_is_not_named() {
        let cache = Cache::new(1 << 20);
        let mut undecided = Undecided::default();
        let start = Instant::now();
        undecided.add(one(&cache, A, 1), start);
        undecided.remove(A);
        assert_eq!(due(&mut undecided, start + LONGEST, true, &cache), []);
    }
}
