//! Files that another program has locked, while `carbon.flock` is on.
//!
//! A program holds the lock of a file for as long as it writes to it, mostly for milliseconds. The file is tried
//! again soon, and less often the longer the lock lasts; nothing waits for it meanwhile. A lock that lasts is
//! reported as any other error.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::cache::{Cache, Waiting};
use crate::datapoint::SeriesId;

/// How long after each try the next one is; the last holds for all further ones.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
/// A lock that has lasted this long is logged and counted as an error.
const LONG: Duration = Duration::from_secs(1);
/// The most files that are tried again soon. Others are tried when the hand comes to them.
const MOST: usize = 1_024;

/// The files that were locked when they were last tried.
#[derive(Debug, Default)]
pub(super) struct Locked(HashMap<SeriesId, Lock, foldhash::fast::RandomState>);

#[derive(Clone, Copy, Debug)]
struct Lock {
    /// The first try.
    since: Instant,
    tries: usize,
    /// When it is tried again.
    due: Instant,
}

impl Locked {
    /// Notes that the file of `id` was locked at `now`. Returns whether the lock may still be a short one.
    pub(super) fn is_short(&mut self, id: SeriesId, now: Instant) -> bool {
        if self.0.len() >= MOST && !self.0.contains_key(&id) {
            return false;
        }
        let lock = self.0.entry(id).or_insert(Lock {
            since: now,
            tries: 0,
            due: now,
        });
        lock.due = now + AGAIN[lock.tries.min(AGAIN.len() - 1)];
        lock.tries += 1;
        now.saturating_duration_since(lock.since) < LONG
    }

    /// The file of `id` was not locked.
    pub(super) fn remove(&mut self, id: SeriesId) {
        if !self.0.is_empty() {
            self.0.remove(&id);
        }
    }

    /// Appends the series to `into` that are tried again at `now`.
    pub(super) fn due(&mut self, now: Instant, cache: &Cache, into: &mut Vec<Waiting>) {
        self.0.retain(|id, lock| {
            if now >= lock.due {
                cache.sweep_one(*id, into);
            }
            // Its points may have been dropped with the series.
            cache.holds(*id)
        });
    }

    /// When the next one is tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|lock| lock.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapoint::{Datapoint, PointTime, Sink};
    use crate::options::{JournalOptions, Options, Span};
    use crate::store::{Carbon, Setup};
    use whisper::{File, Timestamp};

    #[test]
    fn a_lock_is_tried_soon_and_then_less_often_and_is_short_for_a_second() {
        let (begun, a) = (Instant::now(), SeriesId(7));
        let mut locked = Locked::default();
        let mut tries = Vec::new();
        let mut now = begun;
        for _ in 0..6 {
            let is_short = locked.is_short(a, now);
            tries.push(((now - begun).as_millis(), is_short));
            now = locked.next().unwrap();
        }
        let expected = [0, 50, 250, 1_250, 6_250, 11_250].map(|at| (at, at < 1_000));
        assert_eq!(tries, expected);
        locked.remove(a);
        assert_eq!(locked.next(), None);
        // Beyond the limit a lock counts as a long one, so that no more of them take memory.
        for id in 0..MOST as u32 {
            assert!(locked.is_short(SeriesId(id), now));
        }
        assert!(!locked.is_short(SeriesId(u32::MAX), now));
        assert_eq!(locked.0.len(), MOST);
        locked.due(now, &Cache::new(1 << 20), &mut Vec::new());
        assert_eq!(locked.0.len(), 0, "they have no points");
    }

    #[test]
    fn a_file_that_was_locked_for_a_moment_is_written_soon() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            flock: true,
            infer_step: false,
            persist_within: Span::seconds(3_600),
            ..Options::default()
        };
        let setup = Setup::new(options, JournalOptions::default(), Span::seconds(10));
        let carbon = Carbon::open(setup, dir.path()).unwrap();
        let series = carbon.intern(b"a.x").unwrap();
        let at = carbon.now().0;
        let point = |ago| Datapoint {
            series,
            at: PointTime::new(Timestamp(at - ago)).unwrap(),
            value: 1.0,
        };
        carbon.submit(&[point(9_000)]);
        carbon.persist();
        let path = dir.path().join("whisper/a/x.wsp");
        let neighbour = File::open_mut(&path, whisper::Lock::Exclusive).unwrap();
        // A series with so many points is written at once; with fewer the hand comes in an hour.
        let points: Vec<_> = (0..300).rev().map(|n| point(n * 10)).collect();
        carbon.submit(&points);
        let begun = Instant::now();
        let until = |what: &str, done: &dyn Fn() -> bool| {
            while !done() {
                assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
                std::thread::yield_now();
            }
        };
        let was_tried = || {
            let persister = carbon.0.persister.lock();
            let why = persister.why.as_deref();
            why.is_some_and(|why| why.contains("locking it"))
        };
        until("no try", &was_tried);
        assert_eq!(carbon.cache().len(), 300, "its points wait");
        drop(neighbour);
        until("not tried again", &|| carbon.cache().is_empty());
        assert_eq!(carbon.stats().given_up.get(), 0);
    }
}
