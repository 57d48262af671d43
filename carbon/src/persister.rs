//! Writes the cache to the files. In the server, nothing else writes whisper files.
//!
//! ```text
//!            sweep: which series wait
//!                      │
//!   no file, and no     ▼                 file there
//!   budget or disk ── series ───────────────────────► update_many ──► done
//!   for a new one,      │ no file                        │ damaged: set aside as .corrupt
//!   or one timestamp    ▼                                │ gone
//!        │            create ◄───────────────────────────┘
//!        ▼              │ disk full, or refused
//!     waits  ◄──────────┤
//!                       └─ no file can have this name: its points are dropped, and counted
//! ```
//!
//! 1. All points of a series are written together: one open file, one propagation, one write per archive.
//! 2. Points that cannot be written now go back to the cache and wait. Points that can never be written
//!    are dropped. Points that only one file refuses (no permission) are dropped when the cache is nearly
//!    full, so that one series does not take the room of all others.
//! 3. Points wait for up to `carbon.persist_within`, so that a visit of a file writes many: the persister
//!    goes round all series in this time, in the order of their ids, which is mostly that of their files on
//!    the disk ([`Hand`]). With a second or less, and without a journal, a pass over all series begins when
//!    arrivals pause, or when points have waited for a second.
//! 4. A new series whose step is to be inferred waits for its second timestamp ([`crate::undecided`]),
//!    but not past a shutdown.
//! 5. The age of a point decides which archive it goes into. When the clock has jumped, the clock by which
//!    the point is youngest applies ([`crate::clock`]).
//! 6. Points that went into a file which another program had replaced or deleted are written again
//!    ([`Persister::write_displaced`]).

mod budget;
mod displaced;
mod hand;
mod kind;
mod locked;
mod parts;
mod report;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use whisper::{Arrival, Point, Updated};

use crate::cache::{Since, Waiting};
use crate::clock::Clocks;
use crate::datapoint::SeriesId;
use crate::index::Index;
use crate::options::WriteStrategy;
use crate::schema::New;
use crate::undecided::Undecided;

use budget::Budget;
use locked::Locked;
pub(crate) use parts::Parts;

pub(crate) use hand::{Hand, Place};
pub(crate) use kind::Kind;

/// How long no file is created after the disk was found full.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);
/// After this many series a pass wakes receivers that wait for room.
const WAKE_EVERY: usize = 64;

/// The state that the persister keeps from pass to pass.
#[derive(Debug)]
pub(crate) struct Persister {
    updates: Budget,
    creates: Budget,
    /// The disk was full: no creation before this.
    full_until: Option<Instant>,
    waiting: Vec<Waiting>,
    points: Vec<Point>,
    /// The points among them to which one of several clocks applies.
    judged: Vec<Point>,
    path: PathBuf,
    /// When a message about waiting points was last logged.
    waits_logged: Option<Instant>,
    /// When a message about dropped points was last logged.
    dropped_logged: Option<Instant>,
    /// Of the present pass, the time that no series was written in: pauses and creations of files.
    aside: Duration,
    /// The series that the last pass did not write.
    pub(crate) left: Vec<SeriesId>,
    /// The series that hand passes did not write since the last [`Persister::take_stuck`].
    stuck: HashSet<SeriesId, foldhash::fast::RandomState>,
    /// Why it did not write the last one of them.
    pub(crate) why: Option<String>,
    /// New series that wait for a second timestamp.
    undecided: Undecided,
    /// Files that another program has locked.
    locked: Locked,
}

/// The result of a pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Series written.
    pub written: usize,
    /// Points written.
    pub points: usize,
    /// Series whose points were dropped because they can never be written.
    pub dropped: usize,
    /// Series that still wait: their file may not, or cannot, be created or written now.
    pub waiting: usize,
}

/// The result for one series.
enum Outcome {
    Written(usize),
    Waits,
    /// It waits for a second timestamp.
    Undecided,
    /// Its points were dropped.
    Dropped,
}

impl Persister {
    pub(crate) fn new(max_updates_per_second: u32, max_creates_per_minute: u32) -> Self {
        Self {
            updates: Budget::new(max_updates_per_second, Duration::from_secs(1)),
            creates: Budget::new(max_creates_per_minute, Duration::from_secs(60)),
            full_until: None,
            waiting: Vec::new(),
            points: Vec::new(),
            judged: Vec::new(),
            path: PathBuf::new(),
            waits_logged: None,
            dropped_logged: None,
            left: Vec::new(),
            stuck: HashSet::default(),
            aside: Duration::ZERO,
            why: None,
            undecided: Undecided::default(),
            locked: Locked::default(),
        }
    }

    /// Writes every waiting series once; `clocks` decide how old its points are. `go_on` is called before
    /// each series with the result so far; once it returns false, the remaining series wait.
    pub(crate) fn pass(
        &mut self,
        parts: &Parts<'_>,
        clocks: &Clocks,
        kind: Kind,
        go_on: impl FnMut(Pass) -> bool,
    ) -> Pass {
        // Series that get points from now on belong to the next pass, so that this one ends.
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        parts.cache.sweep(&mut waiting);
        let all = !kind.may_wait();
        self.undecided
            .due(Instant::now(), all, parts.room_used(), &mut waiting);
        order(parts, &mut waiting);
        self.write_all(parts, clocks, kind, waiting, go_on)
    }

    /// Writes the series that `hand` has come to; as [`Persister::pass`].
    pub(crate) fn hand_pass(
        &mut self,
        parts: &Parts<'_>,
        clocks: &Clocks,
        hand: &mut Hand,
        pressure: f64,
        go_on: impl FnMut(Pass) -> bool,
    ) -> Pass {
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        hand.go_on(parts.cache, pressure, &mut waiting);
        self.undecided
            .due(Instant::now(), false, parts.room_used(), &mut waiting);
        self.locked.due(Instant::now(), parts.cache, &mut waiting);
        if waiting.is_empty() {
            self.waiting = waiting;
            return Pass::default();
        }
        let pass = self.write_all(parts, clocks, Kind::Hand, waiting, go_on);
        self.stuck.extend(self.left.iter().copied());
        pass
    }

    /// When a file that was locked is tried again by the next pass of the hand.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        self.locked.next()
    }

    /// An ordinary pass over all series, between passes of the hand.
    pub(crate) fn whole_pass(
        &mut self,
        parts: &Parts<'_>,
        clocks: &Clocks,
        go_on: impl FnMut(Pass) -> bool,
    ) -> Pass {
        let pass = self.pass(parts, clocks, Kind::Ordinary, go_on);
        self.stuck.extend(self.left.iter().copied());
        pass
    }

    /// The series that may have points which hand passes could not write: those that were left since the last
    /// call, and those that wait for a second timestamp.
    pub(crate) fn take_stuck(&mut self) -> Vec<SeriesId> {
        let mut stuck = std::mem::take(&mut self.stuck);
        stuck.extend(self.undecided.series());
        stuck.into_iter().collect()
    }

    /// Has [`Persister::take_stuck`] return these series again.
    pub(crate) fn stick(&mut self, series: &[SeriesId]) {
        self.stuck.extend(series);
    }

    /// Writes `waiting`, in this order.
    fn write_all(
        &mut self,
        parts: &Parts<'_>,
        clocks: &Clocks,
        kind: Kind,
        mut waiting: Vec<Waiting>,
        mut go_on: impl FnMut(Pass) -> bool,
    ) -> Pass {
        let mut pass = Pass::default();
        let begun = Instant::now();
        self.aside = Duration::ZERO;
        self.left.clear();
        let mut next = 0;
        while let Some(one) = waiting.get(next).copied() {
            if !go_on(pass) {
                break;
            }
            // The budget slows passes down, but no shutdown.
            if kind.is_budgeted() {
                self.keep_to_budget(parts);
            }
            let key = |n: usize| waiting.get(n).map(|one| one.series.0);
            parts.maps.will_write(key(next + 1), key(next + 2));
            match self.write(parts, one, clocks, kind) {
                Outcome::Written(points) => {
                    pass.written += 1;
                    pass.points += points;
                }
                Outcome::Waits => {
                    pass.waiting += 1;
                    self.left.push(one.series);
                }
                Outcome::Undecided => self.updates.refund(),
                Outcome::Dropped => pass.dropped += 1,
            }
            next += 1;
            // Receivers need not wait for the end of the pass.
            if next % WAKE_EVERY == 0 {
                parts.room.send();
                write_log(parts.index);
            }
            // This strategy wants the series with the most points at present: sort again now and then.
            if kind == Kind::Ordinary
                && parts.write_strategy == WriteStrategy::Max
                && next % 1_024 == 0
            {
                let mut since = Vec::new();
                parts.cache.sweep(&mut since);
                waiting.drain(..next);
                next = 0;
                waiting.append(&mut since);
                order(parts, &mut waiting);
            }
        }
        // The sweep returns each series once: the rest has to be postponed, or it would be forgotten.
        for one in waiting.drain(next..) {
            parts.cache.postpone(one);
            pass.waiting += 1;
            self.left.push(one.series);
        }
        self.waiting = waiting;
        self.end_pass(parts, kind, begun);
        pass
    }

    /// Waits until `max_updates_per_second` allows a further write, or the store stops.
    fn keep_to_budget(&mut self, parts: &Parts<'_>) {
        while !self.updates.spend(Instant::now) {
            let paused = Instant::now();
            parts.stop.pause(self.updates.wait());
            self.aside += paused.elapsed();
            if parts.stop.is_set() {
                break;
            }
        }
    }

    /// The end of a pass that began at `begun`: its time, the series that wait for their step, and the
    /// receivers that wait for room.
    fn end_pass(&mut self, parts: &Parts<'_>, kind: Kind, begun: Instant) {
        // One look at the clock for a pass: for a series it would cost as much as half of its write.
        let written = begun.elapsed().saturating_sub(self.aside);
        parts
            .stats
            .update_nanoseconds
            .add(written.as_nanos() as u64);
        if !matches!(kind, Kind::Ordinary | Kind::Hand) && self.undecided.len() > 0 {
            self.left.extend(self.undecided.series());
            self.left.sort_unstable();
            self.left.dedup();
        }
        let undecided = self.undecided.len();
        parts.undecided.store(undecided, Ordering::Relaxed);
        parts.room.send();
        write_log(parts.index);
        report::count_events(parts);
    }

    fn write(
        &mut self,
        parts: &Parts<'_>,
        waiting: Waiting,
        clocks: &Clocks,
        kind: Kind,
    ) -> Outcome {
        let id = waiting.series;
        // The expiry may be deleting its file right now.
        parts.cache.wait_unclaimed(id);
        let mut path = std::mem::take(&mut self.path);
        let stored = parts.index.path(id, &mut path);
        let outcome = if !stored && self.is_undecided(parts, id, &path, kind) {
            let count = self.points.len() as u32;
            self.undecided
                .add(Waiting { count, ..waiting }, Instant::now());
            Outcome::Undecided
        } else if stored || self.may_create(parts, kind) {
            let came = (clocks, kind, waiting.since);
            self.write_at(parts, id, came, &path, stored)
        } else {
            parts.cache.postpone(waiting);
            Outcome::Waits
        };
        self.path = path;
        outcome
    }

    /// Whether `id`, which has no file, has to wait for a second timestamp. Its points are in
    /// `self.points` then.
    fn is_undecided(&mut self, parts: &Parts<'_>, id: SeriesId, path: &Path, kind: Kind) -> bool {
        let now = Instant::now();
        if !kind.may_wait() || !self.undecided.may_wait(id, now, parts.room_used()) {
            return false;
        }
        self.points.clear();
        parts.cache.read(id, &mut self.points);
        let chosen = of_new(parts, id, path, &self.points, |new| {
            parts.schema.choose(new)
        });
        // Another program may have created it.
        !self.points.is_empty() && chosen.is_none() && path.symlink_metadata().is_err()
    }

    /// Whether a file may be created now.
    fn may_create(&mut self, parts: &Parts<'_>, kind: Kind) -> bool {
        let now = Instant::now();
        if self.full_until.is_some_and(|until| now < until) {
            parts.stats.creates_refused.add(1);
            return false;
        }
        if !kind.is_budgeted() || self.creates.spend(|| now) {
            return true;
        }
        parts.stats.creates_delayed.add(1);
        self.why = Some("max_creates_per_minute puts off the creation of files".to_owned());
        false
    }

    fn write_at(
        &mut self,
        parts: &Parts<'_>,
        id: SeriesId,
        (clocks, kind, since): (&Clocks, Kind, Since),
        path: &Path,
        stored: bool,
    ) -> Outcome {
        let mut points = std::mem::take(&mut self.points);
        points.clear();
        // The points stay readable in the cache until their fate is decided below.
        let count = parts.cache.take(id, &mut points);
        let written = if count == 0 {
            Ok(Some(Updated::default()))
        } else {
            let came = (clocks, kind, since);
            self.update(parts, id, came, path, stored, &points)
        };
        self.points = points;
        let is_refused = written.as_ref().is_err_and(whisper::Error::is_of_this_path);
        if is_refused && !stored && kind.is_budgeted() {
            // It has created no file: others may be created.
            self.creates.refund();
        }
        let is_locked = written.as_ref().is_err_and(whisper::Error::is_busy);
        if !is_locked {
            self.locked.remove(id);
        }
        match written {
            Ok(None) => {
                // Its file is gone: the next pass sees a new series.
                parts.cache.put_back(id, since);
                Outcome::Waits
            }
            Ok(Some(updated)) => {
                self.undecided.remove(id);
                parts.cache.done(id);
                parts.stats.updates.add(u64::from(count > 0));
                parts.stats.committed.add(updated.taken as u64);
                parts.stats.too_old.add(updated.too_old as u64);
                Outcome::Written(count)
            }
            // No file can have this name, now or later.
            Err(error) if error.is_hopeless() => {
                self.undecided.remove(id);
                parts.cache.done(id);
                parts.stats.unwritable.add(count as u64);
                report::dropped(&mut self.dropped_logged, parts, id, count, &error);
                Outcome::Dropped
            }
            // Another program holds the lock; most locks are short, so the points wait.
            Err(error) if is_locked && self.locked.is_short(id, Instant::now()) => {
                parts.cache.put_back(id, since);
                self.why = Some(error.to_string());
                Outcome::Waits
            }
            // Only this file refuses them, and others need the room.
            Err(error) if error.is_of_this_path() && is_nearly_full(parts) => {
                self.undecided.remove(id);
                parts.cache.done(id);
                parts.stats.errors.add(1);
                parts.stats.given_up.add(count as u64);
                report::dropped(&mut self.dropped_logged, parts, id, count, &error);
                Outcome::Dropped
            }
            // They may be written later.
            Err(error) => {
                parts.cache.put_back(id, since);
                if error.is_disk_full() {
                    parts.stats.creates_refused.add(1);
                    self.full_until = Some(Instant::now() + FULL_DISK_PAUSE);
                } else {
                    parts.stats.errors.add(1);
                }
                report::waits(&mut self.waits_logged, &error);
                self.why = Some(error.to_string());
                Outcome::Waits
            }
        }
    }

    /// Writes into the file. A missing file is created, a damaged one is replaced. `None`: the file was
    /// there before and is not now, and a new one has to wait for a second timestamp.
    fn update(
        &mut self,
        parts: &Parts<'_>,
        id: SeriesId,
        (clocks, kind, since): (&Clocks, Kind, Since),
        path: &Path,
        stored: bool,
        points: &[Point],
    ) -> whisper::Result<Option<Updated>> {
        if stored {
            match self.update_many(parts, id, (clocks, since), path, points) {
                Err(error) if error.is_missing() => parts.index.not_stored(id),
                written => return written.map(Some),
            }
            if self.is_undecided(parts, id, path, kind) {
                return Ok(None);
            }
        }
        // The file is missing, or it was damaged and set aside: create a new one.
        match self.create(parts, id, (clocks, since), path, points) {
            Err(whisper::Error::Exists { .. }) => {}
            created => return created.map(Some),
        }
        // Another program has created it meanwhile.
        match self.update_many(parts, id, (clocks, since), path, points) {
            Err(whisper::Error::SetAside { .. }) => self
                .create(parts, id, (clocks, since), path, points)
                .map(Some),
            // It is gone again.
            Err(missing) if missing.is_missing() => Err(missing),
            written => {
                parts.index.stored(id);
                written.map(Some)
            }
        }
    }

    /// Creates the file, with `points` in it.
    fn create(
        &mut self,
        parts: &Parts<'_>,
        id: SeriesId,
        came: (&Clocks, Since),
        path: &Path,
        points: &[Point],
    ) -> whisper::Result<Updated> {
        let chosen = of_new(parts, id, path, points, |new| parts.schema.choose_now(new));
        let creating = Instant::now();
        let (now, options) = (came.0.earliest(), &chosen.options);
        let written = parts.maps.create_with(id.0, path, options, now, |draft| {
            self.by_clocks(parts, came, points, |arrival, points| {
                draft.update_many(arrival, points)
            })
        });
        self.aside += creating.elapsed();
        let written = written?;
        parts.stats.creates.add(1);
        parts.stats.steps_assumed.add(u64::from(chosen.is_assumed));
        parts.index.stored(id);
        Ok(written)
    }

    /// Writes into an existing file.
    fn update_many(
        &mut self,
        parts: &Parts<'_>,
        id: SeriesId,
        came: (&Clocks, Since),
        path: &Path,
        points: &[Point],
    ) -> whisper::Result<Updated> {
        self.by_clocks(parts, came, points, |arrival, points| {
            parts.maps.update_many(id.0, path, arrival, points)
        })
    }

    /// Has `update` write `points`. With several clocks, those to which the same clock applies are written
    /// together.
    fn by_clocks(
        &mut self,
        parts: &Parts<'_>,
        (clocks, since): (&Clocks, Since),
        points: &[Point],
        mut update: impl FnMut(Arrival, &[Point]) -> whisper::Result<Updated>,
    ) -> whisper::Result<Updated> {
        if let Some(arrival) = clocks.arrival(since.clock, || parts.cache.age(since)) {
            return update(arrival, points);
        }
        let clocks = clocks.and_arrival(since.clock);
        let mut all = Updated::default();
        for now in clocks.each() {
            self.judged.clear();
            let judged = points.iter().filter(|point| clocks.of(point.at) == now);
            self.judged.extend(judged);
            let updated = update(now.into(), &self.judged)?;
            all.taken += updated.taken;
            all.too_old += updated.too_old;
        }
        Ok(all)
    }
}

/// Writes the records of the index's log that are due: of new series, and of series that receivers listed.
fn write_log(index: &Index) {
    // A name that could not be written is found again when the disk is walked.
    if let Err(error) = index.write_log() {
        tracing::warn!(%error, "the index could not be written");
    }
}

/// What `answer` says to what is known of `id`, whose file at `path` is to be created for `points`.
fn of_new<T>(
    parts: &Parts<'_>,
    id: SeriesId,
    path: &Path,
    points: &[Point],
    answer: impl FnOnce(New<'_>) -> T,
) -> T {
    let names = parts.index.names();
    answer(New {
        name: names.name(id),
        directory: path.parent().unwrap_or(Path::new("")),
        points,
        interval: parts.schema.known.get(id),
    })
}

/// Whether the cache has little room left.
fn is_nearly_full(parts: &Parts<'_>) -> bool {
    parts.cache.used_bytes() >= parts.cache.max_bytes() / 4 * 3
}

fn order(parts: &Parts<'_>, waiting: &mut [Waiting]) {
    match parts.write_strategy {
        WriteStrategy::Sorted | WriteStrategy::Max => {
            let by = |w: &Waiting| (std::cmp::Reverse(w.count), w.series);
            waiting.sort_unstable_by_key(by);
        }
        WriteStrategy::Naive => waiting.sort_unstable_by_key(|w| w.series),
        WriteStrategy::TimeSorted => {
            waiting.sort_by_cached_key(|w| (parts.cache.oldest(w.series), w.series));
        }
    }
}
