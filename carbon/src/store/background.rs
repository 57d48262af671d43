//! The threads of a running store.

use std::time::{Duration, Instant};

use super::inner::{Inner, LONGEST_WAIT};
use crate::clock::Clocks;
use crate::index::Reconciled;
use crate::journal::Journal;
use crate::persister::{Kind, Pass};
use crate::watch;

/// How often data directory and lock are checked.
pub(super) const GUARD_EVERY: Duration = Duration::from_secs(1);
/// How long arrivals pause before a pass begins.
pub(super) const PAUSE: Duration = Duration::from_millis(20);
/// How long the persister waits after a pass that could write nothing.
const UNWRITTEN_PAUSE: Duration = Duration::from_millis(200);
/// How long points of displaced files wait that could not be written.
const DISPLACED_PAUSE: Duration = Duration::from_secs(1);

/// Compares disk and index once and corrects the index.
pub(crate) fn verify(inner: &Inner) {
    let stop = &inner.stop;
    let busy = |id| inner.cache.holds(id);
    match inner.index.reconcile(busy, || stop.is_set()) {
        Ok(report) if report == Reconciled::default() => {}
        Ok(Reconciled {
            added,
            removed,
            leftovers,
            unreadable,
        }) => tracing::info!(
            added,
            removed,
            leftovers,
            unreadable,
            "index reconciled with the files on disk"
        ),
        Err(error) => tracing::warn!(%error, "cannot read the whisper tree to refresh the index"),
    }
    watch::warn_of_nameless(inner);
}

/// The journal's thread: writes and syncs what is pending.
pub(crate) fn commit(inner: &Inner) {
    if let Some(journal) = &inner.journal {
        journal.run(&inner.stats);
    }
}

/// The persister's thread while points may not wait for longer than a pass does: a pass when arrivals pause
/// or points have waited for long enough, and a checkpoint when the journal wants one.
pub(crate) fn persist(inner: &Inner) {
    let mut rhythm = Rhythm::new();
    while !inner.stop.is_set() {
        rhythm.wait(inner);
        let clocks = inner.clocks();
        rhythm.look_around(inner, &clocks);
        let due = rhythm.is_pass_due(inner);
        if wants_checkpoint(inner) && rhythm.checkpoint(inner, &clocks) {
            rhythm.since = Instant::now();
        } else if due {
            rhythm.pass(inner, &clocks);
        }
    }
}

fn wants_checkpoint(inner: &Inner) -> bool {
    let journal = inner.journal.as_ref();
    journal.is_some_and(Journal::wants_checkpoint)
}

/// When the next pass, checkpoint and check are due.
pub(super) struct Rhythm {
    /// Points received at the last check.
    received: u64,
    /// Since when points have waited, or the end of the last pass.
    since: Instant,
    /// No checkpoint before this time, because one has failed.
    checkpoint_after: Instant,
    /// No pass before this time, because nothing could be written.
    pass_after: Instant,
    /// Points of displaced files are not written before this time, because some could not be.
    displaced_after: Instant,
    /// When data directory and lock were last checked.
    guarded: Instant,
}

impl Rhythm {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            received: 0,
            since: now,
            checkpoint_after: now,
            pass_after: now,
            displaced_after: now,
            guarded: now,
        }
    }

    /// Checks data directory, lock and rule files once a second, and writes the points of displaced files.
    pub(super) fn look_around(&mut self, inner: &Inner, clocks: &Clocks) {
        if self.guarded.elapsed() >= GUARD_EVERY {
            self.guarded = Instant::now();
            inner.look_around();
            inner.files.look(&inner.stats);
        }
        if Instant::now() >= self.displaced_after {
            let mut persister = inner.persister.lock();
            let left = persister.write_displaced(&inner.parts(), clocks, Kind::Ordinary);
            if !left.is_empty() {
                self.displaced_after = Instant::now() + DISPLACED_PAUSE;
            }
        }
    }

    /// A checkpoint, unless one has failed a short time ago. Whether it was done.
    pub(super) fn checkpoint(&mut self, inner: &Inner, clocks: &Clocks) -> bool {
        if Instant::now() < self.checkpoint_after {
            return false;
        }
        let done = inner.checkpoint(&mut inner.persister.lock(), clocks, Kind::Checkpoint);
        let is_done = done.is_ok();
        if !is_done {
            self.checkpoint_after = Instant::now() + LONGEST_WAIT;
        }
        inner.note("checkpoint", done.map_err(|error| error.to_string()));
        is_done
    }

    /// Sleeps until points arrive or the journal pauses. While points wait, it sleeps for [`PAUSE`]: if
    /// no point arrives meanwhile, a pass is due.
    fn wait(&mut self, inner: &Inner) {
        let work = inner.work.next();
        if inner.stop.is_set() {
            return;
        }
        let rested = Instant::now() >= self.checkpoint_after;
        if inner.cache.is_empty() && !(rested && wants_checkpoint(inner)) {
            work.wait(Some(Instant::now() + GUARD_EVERY));
            self.since = Instant::now();
            // Arrivals that end now have paused when `PAUSE` is over.
            self.received = inner.stats.received.get();
        }
        if !inner.cache.is_empty() {
            let rest = self.pass_after.saturating_duration_since(Instant::now());
            inner.stop.pause(rest.clamp(PAUSE, GUARD_EVERY));
        }
    }

    /// Whether points wait, and arrivals have paused or the oldest have waited for long enough.
    fn is_pass_due(&mut self, inner: &Inner) -> bool {
        let received = inner.stats.received.get();
        let pauses = received == self.received;
        self.received = received;
        if inner.cache.is_empty() {
            self.since = Instant::now();
            return false;
        }
        (pauses || self.since.elapsed() >= LONGEST_WAIT) && Instant::now() >= self.pass_after
    }

    /// Runs a pass, which ends early if a checkpoint is wanted.
    fn pass(&mut self, inner: &Inner, clocks: &Clocks) {
        let rested = Instant::now() >= self.checkpoint_after;
        let go_on = |pass: Pass| {
            let looks = rested && pass.written > 0 && pass.written.is_multiple_of(1_024);
            let ends = inner.stop.is_set() || looks && wants_checkpoint(inner);
            !ends
        };
        let mut persister = inner.persister.lock();
        let pass = persister.pass(&inner.parts(), clocks, Kind::Ordinary, go_on);
        drop(persister);
        // Do not try at once again what could not be written.
        if pass.written == 0 {
            self.pass_after = Instant::now() + UNWRITTEN_PAUSE;
        }
        self.since = Instant::now();
    }
}
