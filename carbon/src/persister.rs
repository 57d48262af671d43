//! From the cache to the files: the one writer.
//!
//! ```text
//!            sweep: which series wait
//!                      │
//!   no file, and no     ▼                 file there
//!   budget or disk ── series ───────────────────────► update_many ──► done
//!   for a new one       │ no file                        │ damaged: set aside as .corrupt
//!        │              ▼                                │ gone
//!        │            create ◄───────────────────────────┘
//!        ▼              │ disk full, or refused
//!     waits on ◄────────┘
//! ```
//!
//! 1. A series is taken whole: one open file, one propagation, one write per archive for all of its
//!    points.
//! 2. Nothing is dropped because it cannot be written now: it goes back to the cache and waits.
//! 3. A pass begins when arrivals pause, or when points have waited for a second: a burst is
//!    written once when it is over, and a steady stream once a second.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use whisper::map::Event;
use whisper::{Point, Timestamp, Updated};

use crate::cache::Waiting;
use crate::datapoint::SeriesId;
use crate::options::WriteStrategy;
use crate::store::Inner;

/// How long creations rest after the disk was found full.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(1);

/// What the persister remembers from pass to pass.
#[derive(Debug)]
pub(crate) struct Persister {
    updates: Budget,
    creates: Budget,
    /// The disk was full: no creation before this.
    full_until: Option<Instant>,
    waiting: Vec<Waiting>,
    points: Vec<Point>,
    path: PathBuf,
    complained: Option<Instant>,
    /// The series that the last pass did not write.
    pub(crate) left: Vec<SeriesId>,
}

/// How a pass goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Within the budgets, in the order of the write strategy.
    Ordinary,
    /// Each series that waits at the beginning once, so that the pass has an end.
    Whole,
    /// As `Whole`, and the budgets are not looked at.
    Drain,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Series written.
    pub written: usize,
    /// Points written.
    pub points: usize,
    /// Series that wait on: their file may not, or cannot, be created or written now.
    pub waiting: usize,
}

/// So many per period; what is not used is not saved up beyond one period.
#[derive(Debug)]
struct Budget {
    per_second: f64,
    most: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    /// `count` per `period`; 0: no limit.
    fn new(count: u32, period: Duration) -> Self {
        let count = f64::from(count);
        Self {
            per_second: count / period.as_secs_f64(),
            most: count,
            left: count.min(count / period.as_secs_f64()).max(1.0),
            at: Instant::now(),
        }
    }

    fn spend(&mut self, now: Instant) -> bool {
        if self.most == 0.0 {
            return true;
        }
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + elapsed * self.per_second).min(self.most);
        if self.left < 1.0 {
            return false;
        }
        self.left -= 1.0;
        true
    }

    /// How long until there is something to spend again.
    fn wait(&self) -> Duration {
        if self.most == 0.0 || self.left >= 1.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64((1.0 - self.left) / self.per_second)
    }
}

/// What became of one series.
enum Outcome {
    Written(usize),
    Waits,
}

impl Persister {
    pub(crate) fn new(max_updates_per_second: u32, max_creates_per_minute: u32) -> Self {
        Self {
            updates: Budget::new(max_updates_per_second, Duration::from_secs(1)),
            creates: Budget::new(max_creates_per_minute, Duration::from_secs(60)),
            full_until: None,
            waiting: Vec::new(),
            points: Vec::new(),
            path: PathBuf::new(),
            complained: None,
            left: Vec::new(),
        }
    }

    /// Writes every series that waits, once, at the clock `now`. `go_on` is asked after each one,
    /// with the pass so far; what is not written when it says no waits on.
    pub(crate) fn pass(
        &mut self,
        inner: &Inner,
        now: Timestamp,
        kind: Kind,
        mut go_on: impl FnMut(Pass) -> bool,
    ) -> Pass {
        let mut pass = Pass::default();
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.clear();
        self.left.clear();
        inner.cache.sweep(&mut waiting);
        order(inner.options.write_strategy, &mut waiting);
        let mut next = 0;
        while let Some(Waiting { series, .. }) = waiting.get(next) {
            if !go_on(pass) {
                break;
            }
            if kind != Kind::Drain {
                while !self.updates.spend(Instant::now()) {
                    std::thread::sleep(self.updates.wait().min(Duration::from_millis(100)));
                }
            }
            match self.write(inner, *series, now, kind) {
                Outcome::Written(points) => {
                    pass.written += 1;
                    pass.points += points;
                }
                Outcome::Waits => {
                    pass.waiting += 1;
                    self.left.push(*series);
                }
            }
            next += 1;
            // The largest first, as they are now: looked at anew from time to time.
            if kind == Kind::Ordinary
                && inner.options.write_strategy == WriteStrategy::Max
                && next % 1_024 == 0
            {
                let mut since = Vec::new();
                inner.cache.sweep(&mut since);
                waiting.drain(..next);
                next = 0;
                waiting.append(&mut since);
                order(WriteStrategy::Max, &mut waiting);
            }
        }
        for Waiting { series, .. } in waiting.drain(next..) {
            inner.cache.postpone(series);
            pass.waiting += 1;
            self.left.push(series);
        }
        self.waiting = waiting;
        report(inner);
        pass
    }

    fn write(&mut self, inner: &Inner, id: SeriesId, now: Timestamp, kind: Kind) -> Outcome {
        let mut path = std::mem::take(&mut self.path);
        let stored = inner.index.path(id, &mut path);
        let outcome = if stored || self.may_create(inner, kind) {
            self.write_at(inner, id, now, &path, stored)
        } else {
            inner.cache.postpone(id);
            Outcome::Waits
        };
        self.path = path;
        outcome
    }

    /// Whether a file may be created now.
    fn may_create(&mut self, inner: &Inner, kind: Kind) -> bool {
        let now = Instant::now();
        if self.full_until.is_some_and(|until| now < until) {
            inner.stats.creates_refused.add(1);
            return false;
        }
        if kind == Kind::Drain || self.creates.spend(now) {
            return true;
        }
        inner.stats.creates_delayed.add(1);
        false
    }

    fn write_at(
        &mut self,
        inner: &Inner,
        id: SeriesId,
        now: Timestamp,
        path: &Path,
        stored: bool,
    ) -> Outcome {
        let mut points = std::mem::take(&mut self.points);
        points.clear();
        let count = inner.cache.take(id, &mut points);
        let written = if count == 0 {
            Ok(Updated::default())
        } else {
            self.update(inner, id, now, path, stored, &points)
        };
        self.points = points;
        match written {
            Ok(updated) => {
                inner.cache.done(id);
                inner.stats.updates.add(u64::from(count > 0));
                inner.stats.committed.add(updated.taken as u64);
                inner.stats.too_old.add(updated.too_old as u64);
                Outcome::Written(count)
            }
            Err(error) => {
                inner.cache.put_back(id);
                if error.is_disk_full() {
                    inner.stats.creates_refused.add(1);
                    self.full_until = Some(Instant::now() + FULL_DISK_PAUSE);
                } else {
                    inner.stats.errors.add(1);
                }
                self.complain(&error);
                Outcome::Waits
            }
        }
    }

    /// Writes into the file, which is created if it is not there and replaced if it is damaged.
    fn update(
        &mut self,
        inner: &Inner,
        id: SeriesId,
        now: Timestamp,
        path: &Path,
        stored: bool,
        points: &[Point],
    ) -> whisper::Result<Updated> {
        let update = || inner.maps.update_many(id.0, path, now, points);
        let error = match update() {
            Ok(updated) => {
                if !stored {
                    self.remember(inner, id);
                }
                return Ok(updated);
            }
            Err(error) => error,
        };
        // Gone, never there, or damaged and set aside: a new one takes its place.
        if !error.is_missing() {
            return Err(error);
        }
        inner.index.not_stored(id);
        let options = inner.schema.create_options(inner.index.names().name(id));
        inner.maps.create(path, &options)?;
        inner.stats.creates.add(1);
        self.remember(inner, id);
        update()
    }

    fn remember(&mut self, inner: &Inner, id: SeriesId) {
        // A name that could not be written down is found again when the disk is walked.
        if let Err(error) = inner.index.stored(id) {
            tracing::warn!(%error, "the index could not be written");
        }
    }

    /// Logs an error, one in ten seconds.
    fn complain(&mut self, error: &whisper::Error) {
        let now = Instant::now();
        let quiet = Duration::from_secs(10);
        if self.complained.is_none_or(|at| now - at > quiet) {
            self.complained = Some(now);
            tracing::error!(%error, "points cannot be written; they wait in the cache");
        }
    }
}

/// Tells the operator what happened to files.
fn report(inner: &Inner) {
    for event in inner.maps.take_events() {
        match event {
            Event::SetAside { aside, damage, .. } => {
                inner.stats.set_aside.add(1);
                let aside = aside.display();
                tracing::error!(%damage, %aside, "a damaged file was set aside and begun anew");
            }
            Event::Replaced { path } => {
                tracing::info!(file = %path.display(), "the file was replaced or is gone");
            }
            Event::Lost { path } => {
                inner.stats.errors.add(1);
                tracing::error!(file = %path.display(), "pages of the file were lost");
            }
            Event::NotMapped { path, reason } => {
                tracing::warn!(file = %path.display(), %reason, "the file is written unmapped");
            }
            Event::Missed(count) => tracing::warn!(count, "further events of files"),
            other => tracing::warn!(?other, "an event of a file"),
        }
    }
}

fn order(strategy: WriteStrategy, waiting: &mut [Waiting]) {
    match strategy {
        WriteStrategy::Sorted | WriteStrategy::Max => {
            let by = |w: &Waiting| (std::cmp::Reverse(w.count), w.series);
            waiting.sort_unstable_by_key(by);
        }
        WriteStrategy::Naive => waiting.sort_unstable_by_key(|w| w.series),
        // As they came: each shard hands out the oldest first.
        WriteStrategy::TimeSorted => {}
    }
}
