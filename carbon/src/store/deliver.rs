//! Sends the points to a remote store, in the place of the persister.
//!
//! ```text
//! take ──► journal + cache ──round──► block ──► remote store
//!      └─► journal alone (the cache is full) ──► read back from the segment ──► block ──► remote store
//! ```
//!
//! 1. A round sweeps the cache and sends all points of each series, in blocks. Points stay readable in the cache until
//!    their block has been acknowledged.
//! 2. A block that is not acknowledged is sent again, until it is. Meanwhile new points go into cache and journal,
//!    and when the cache is full into the journal alone (they *spill*): receivers wait only when the journal is full.
//! 3. A round may begin with the end of a segment of the journal. When all blocks of the round are acknowledged, the
//!    points of the segments before are in the remote store, but for those that spilled: such segments are read from
//!    the disk and sent, oldest first, and then deleted.
//! 4. At the start all segments count as spilled, so that the server need not wait for the remote store.
//! 5. Points of one series and timestamp are distinguished by the time of their arrival, which the journal keeps with
//!    them: what is sent twice changes nothing.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;
use whisper::{Point, Timestamp};

use super::background::GUARD_EVERY;
use super::carbon::Carbon;
use super::deliveries::Deliveries;
use super::inner::Inner;
use crate::cache::Waiting;
use crate::datapoint::{Datapoint, SeriesId};
use crate::error::{Error, Result};
use crate::journal::frame::{Item, Reader};
use crate::journal::{Journal, Rotation, read_segment};
use crate::remote::Remote;

/// How often the thread looks whether a round is due.
const STEP: Duration = Duration::from_millis(50);
/// The age from which a segment of the journal ends with the next round.
const SEGMENT_AGE: Duration = Duration::from_secs(10);
/// The size from which a segment ends, at most: it may have to be read into memory.
const SEGMENT_BYTES: u64 = 64 << 20;
/// The first and the longest wait before a block is sent again.
const PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(5)];

impl Carbon {
    /// The points of the series called `name` that the remote store has not acknowledged yet, in order of arrival.
    pub fn unacknowledged(&self, name: &str) -> Vec<Point> {
        let inner = &*self.0;
        let mut points = Vec::new();
        let Ok(canonical) = crate::series::canonical(name.as_bytes()) else {
            return points;
        };
        let _pin = inner.index.pin();
        let known = inner.index.names().get(canonical.as_bytes());
        if let Some(id) = known {
            inner.cache.read(id, &mut points);
            inner.stats.queries.add(1);
        }
        points
    }

    /// Whether series may have been listed since the last complete round of deliveries began.
    pub fn has_new_series(&self) -> bool {
        let remote = self.0.remote.as_ref();
        remote.is_some_and(|remote| remote.listed.load(Ordering::Acquire) != self.0.index.len())
    }

    /// The id of the series called `name`, if points of it wait.
    pub fn waiting_id(&self, name: &str) -> Option<SeriesId> {
        let inner = &*self.0;
        let _pin = inner.index.pin();
        let known = inner.index.names().get(name.as_bytes());
        known.filter(|id| inner.cache.holds(*id))
    }

    /// Why the remote store does not acknowledge points at present, if it does not.
    pub fn delivery_trouble(&self) -> Option<String> {
        let remote = self.0.remote.as_ref()?;
        remote.why()
    }

    /// How many segments of the journal have points that are neither in the cache nor in the remote store.
    pub fn spilled_segments(&self) -> usize {
        self.0.remote.as_ref().map_or(0, |remote| {
            remote.segments.lock().len() + usize::from(remote.spilled.load(Ordering::Relaxed))
        })
    }
}

impl Inner {
    /// Appends `points`, for which the cache has no room, to the journal alone. The caller holds the gate.
    pub(super) fn spill(&self, clock: Timestamp, points: &[Datapoint]) -> Option<u64> {
        let (journal, remote) = (self.journal.as_ref()?, self.remote.as_ref()?);
        let ticket = journal.append_only(&self.index, clock, points)?;
        remote.spilled.store(true, Ordering::Relaxed);
        self.stats.spilled.add(points.len() as u64);
        Some(ticket)
    }

    /// As [`Inner::begin_segment`]; remembers whether the segment that ends has points that are not in the cache.
    fn end_segment(&self, remote: &Deliveries, journal: &Journal) -> Result<Rotation> {
        let _ = journal.commit(&self.stats);
        let mut spilled = false;
        let rotation = journal.rotate(&self.stats, || {
            let gate = self.gate.write();
            if self.behind.lock().journalled > 0 {
                let why = "it has points that found no room while stopping";
                return Err(std::io::Error::other(why));
            }
            spilled = remote.spilled.swap(false, Ordering::Relaxed);
            Ok(gate)
        });
        match rotation {
            Ok(rotation) => {
                if spilled {
                    remote.segments.lock().insert(rotation.ended());
                }
                Ok(rotation)
            }
            Err(error) => {
                // The segment goes on.
                remote.spilled.fetch_or(spilled, Ordering::Relaxed);
                let action = "beginning a segment of the journal";
                Err(Error::io(&self.root, action, error))
            }
        }
    }

    /// Sends everything, once, at the shutdown. What is not acknowledged stays in the journal.
    pub(super) fn drain_remote(&self, remote: &Deliveries) -> Result<()> {
        let mut courier = Courier::new(self, remote);
        let done = courier.round(true);
        drop(courier);
        let left = self.cache.len();
        let spilled = remote.segments.lock().len();
        if !done || left > 0 || spilled > 0 {
            let why = remote.why();
            let why = why.unwrap_or_else(|| self.drain_timeout_passed());
            tracing::warn!(
                "{left} datapoints of the cache and {spilled} segments of the journal are not in the remote store ({why}); the journal keeps them for the next start"
            );
        }
        match &self.journal {
            None => Ok(()),
            Some(journal) => journal
                .commit(&self.stats)
                .map_err(|error| Error::io(&self.root, "committing the journal", error)),
        }
    }
}

/// The thread.
pub(super) fn run(inner: &Inner) {
    let Some(remote) = &inner.remote else {
        return;
    };
    let mut courier = Courier::new(inner, remote);
    let mut guarded = Instant::now();
    while !inner.stop.is_set() {
        courier.wait();
        if guarded.elapsed() >= GUARD_EVERY {
            guarded = Instant::now();
            inner.look_around();
            inner.files.look(&inner.stats);
        }
        if courier.is_due() {
            courier.round(false);
        }
    }
}

/// Carries points from cache and journal to the remote store.
struct Courier<'a> {
    inner: &'a Inner,
    remote: &'a Deliveries,
    to: MutexGuard<'a, dyn Remote>,
    waiting: Vec<Waiting>,
    /// The series of the present block whose points are in hand.
    taken: Vec<Waiting>,
    points: Vec<Point>,
}

impl<'a> Courier<'a> {
    fn new(inner: &'a Inner, remote: &'a Deliveries) -> Self {
        Self {
            inner,
            remote,
            to: remote.delivery.remote.lock(),
            waiting: Vec::new(),
            taken: Vec::new(),
            points: Vec::new(),
        }
    }

    /// Sleeps until there may be something to do.
    fn wait(&self) {
        let work = self.inner.work.next();
        if self.inner.stop.is_set() || self.is_due() {
            return;
        }
        let span = match self.inner.cache.is_empty() {
            true => GUARD_EVERY,
            false => STEP.min(self.remote.within()),
        };
        work.wait(Some(Instant::now() + span));
        self.inner.stop.pause(Duration::from_millis(5));
    }

    /// Whether points have waited for long enough, or there are enough of them.
    fn is_due(&self) -> bool {
        let cache = &self.inner.cache;
        cache.len() >= self.remote.delivery.rows
            || self.remote.has_spilled()
            || cache.used_bytes() >= cache.max_bytes() / 2
            || !cache.is_empty() && cache.oldest_age() >= self.remote.within()
    }

    /// Ends the present segment if it is old or large, or has points that are not in the cache.
    fn end_segment(&self, always: bool) -> Option<Rotation> {
        let journal = self.inner.journal.as_ref()?;
        let (bytes, age) = journal.segment();
        let most = (journal.max_size() / 16).min(SEGMENT_BYTES);
        let has_points = || journal.has_points() || !journal.finished().is_empty();
        let is_old = age >= SEGMENT_AGE && has_points();
        let due = always || is_old || bytes >= most || journal.is_paused();
        if !due && !self.remote.has_spilled() {
            return None;
        }
        match self.inner.end_segment(self.remote, journal) {
            Ok(rotation) => {
                self.inner.note("checkpoint", Ok(()));
                Some(rotation)
            }
            Err(error) => {
                self.inner.note("checkpoint", Err(error.to_string()));
                self.inner.stop.pause(STEP);
                None
            }
        }
    }

    /// Sends what waits. With `once` a block is sent only once, and everything goes. Whether all was acknowledged.
    fn round(&mut self, once: bool) -> bool {
        let listed = self.inner.index.len();
        let rotation = self.end_segment(once);
        let done = self.send_cache(once);
        if let Err(error) = self.inner.index.write_log() {
            tracing::warn!(%error, "the index could not be written");
        }
        if !done {
            return false;
        }
        self.remote.listed.store(listed, Ordering::Release);
        let Some(rotation) = rotation else {
            return true;
        };
        let done = self.send_segments(rotation, once);
        self.inner.room.send();
        done
    }

    /// Sends the points of the cache.
    fn send_cache(&mut self, once: bool) -> bool {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        self.inner.cache.sweep(&mut waiting);
        let mut done = true;
        let mut next = 0;
        while let Some(one) = waiting.get(next).copied() {
            if (!once && self.inner.stop.is_set()) || (once && self.inner.is_late()) {
                done = false;
                break;
            }
            next += 1;
            if !self.send_series(one, once) {
                done = false;
                break;
            }
        }
        done = done && self.send(once);
        if !done {
            // The next round gets all of them once more.
            self.to.discard();
            for one in self.taken.drain(..) {
                self.inner.cache.put_back(one.series, one.since);
            }
        }
        for one in waiting.drain(next..) {
            self.inner.cache.postpone(one);
        }
        self.waiting = waiting;
        self.inner.room.send();
        done
    }

    /// Adds the points of a series, and sends the block when it is full.
    fn send_series(&mut self, one: Waiting, once: bool) -> bool {
        let mut points = std::mem::take(&mut self.points);
        points.clear();
        self.inner.cache.take(one.series, &mut points);
        self.taken.push(one);
        let last = points.len().saturating_sub(1) / self.remote.delivery.rows.max(1);
        let mut done = true;
        for (n, part) in points.chunks(self.remote.delivery.rows.max(1)).enumerate() {
            let names = self.inner.index.names();
            self.to
                .add(one.series, names.name(one.series), part, one.since.clock);
            drop(names);
            // Its last part may be acknowledged together with other series.
            done = if n < last {
                self.send_block(once)
            } else {
                !self.to.is_full() || self.send(once)
            };
            if !done {
                break;
            }
        }
        self.points = points;
        done
    }

    /// Sends the block. The points in hand are done when it is acknowledged.
    fn send(&mut self, once: bool) -> bool {
        if self.taken.is_empty() {
            return self.send_block(once);
        }
        let sent = self.send_block(once);
        if sent {
            let before = self.inner.cache.len();
            self.inner.cache.all_done();
            let points = before.saturating_sub(self.inner.cache.len());
            self.inner.stats.updates.add(1);
            self.inner.stats.committed.add(points as u64);
            self.taken.clear();
            self.inner.room.send();
        }
        sent
    }

    /// Sends the block until it is acknowledged, or once.
    fn send_block(&mut self, once: bool) -> bool {
        let mut pause = PAUSES[0];
        loop {
            let patience = match once {
                true => self.inner.options.drain_timeout.0.max(PAUSES[1]),
                false => Duration::MAX,
            };
            let why = match self.to.send(patience) {
                Ok(()) => {
                    self.remote.acknowledged();
                    return true;
                }
                Err(why) => why,
            };
            self.inner.stats.errors.add(1);
            self.remote.refused(why);
            if once || self.inner.stop.is_set() {
                return false;
            }
            // Receivers may have filled the cache: they need not wait.
            self.inner.room.send();
            self.inner.stop.pause(pause);
            pause = (pause * 2).min(PAUSES[1]);
            self.inner.look_around();
            let journal = self.inner.journal.as_ref();
            let is_large = journal.is_some_and(|journal| {
                let most = (journal.max_size() / 16).min(SEGMENT_BYTES);
                journal.segment().0 >= most
            });
            if is_large {
                self.end_segment(false);
            }
        }
    }

    /// Sends the segments before `rotation` that have points which were not in the cache, and deletes all segments
    /// before it.
    fn send_segments(&mut self, rotation: Rotation, once: bool) -> bool {
        let Some(journal) = &self.inner.journal else {
            return true;
        };
        loop {
            let next = self.remote.segments.lock().first().copied();
            let Some(number) = next.filter(|number| *number <= rotation.ended()) else {
                break;
            };
            if (!once && self.inner.stop.is_set()) || (once && self.inner.is_late()) {
                return false;
            }
            if !self.send_segment(journal, number, once) {
                self.to.discard();
                return false;
            }
            self.remote.segments.lock().remove(&number);
            self.drop_before(journal, Journal::after(number));
            self.inner.room.send();
        }
        self.drop_before(journal, rotation);
        true
    }

    fn drop_before(&self, journal: &Journal, rotation: Rotation) {
        let dropped = journal.drop_before(rotation, &self.inner.stats);
        let action = "dropping a segment of the journal";
        let state = dropped.map_err(|error| Error::io(&self.inner.root, action, error).to_string());
        self.inner.note("checkpoint", state);
    }

    /// Sends the points of a segment.
    fn send_segment(&mut self, journal: &Journal, number: u64, once: bool) -> bool {
        let bytes = match read_segment(journal.directory(), number) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return true,
            Err(error) => {
                let error = Error::io(journal.directory(), "reading the journal", error);
                self.inner.note("journal segment", Err(error.to_string()));
                self.inner.stop.pause(GUARD_EVERY);
                return false;
            }
        };
        self.inner.note("journal segment", Ok(()));
        // Ids in the segment may be those of another process.
        let mut ids: HashMap<u32, SeriesId, foldhash::fast::RandomState> = HashMap::default();
        let mut reader = Reader::new(&bytes);
        let (mut sent, mut nameless) = (0, 0);
        let mut points: Vec<(SeriesId, Point)> = Vec::new();
        for frame in reader.by_ref() {
            let clock = frame.clock;
            points.clear();
            frame.each(|item| match item {
                Item::Name(id, name) => {
                    if let Ok(own) = self.inner.index.intern(name) {
                        ids.insert(id.0, own);
                    }
                }
                Item::Point(point) => match ids.get(&point.series.0) {
                    Some(series) => {
                        let at = point.at.timestamp();
                        let value = point.value;
                        points.push((*series, Point { at, value }));
                    }
                    None => nameless += 1,
                },
            });
            sent += points.len() as u64;
            for (series, point) in &points {
                let names = self.inner.index.names();
                self.to.add(*series, names.name(*series), &[*point], clock);
                drop(names);
                if self.to.is_full() && !self.send_block(once) {
                    return false;
                }
            }
        }
        if !self.send_block(once) {
            return false;
        }
        self.inner.stats.journal_replayed.add(sent);
        self.inner.stats.committed.add(sent);
        if reader.unsound > 0 || nameless > 0 {
            let unsound = reader.unsound;
            tracing::warn!(
                "segment {number} of the journal had {unsound} torn or damaged bytes and {nameless} points without a name"
            );
        }
        true
    }
}
