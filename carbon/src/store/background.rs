//! The threads of a running store that persist what waits and verify the index.

use std::time::{Duration, Instant};

use super::inner::Inner;
use crate::index::Reconciled;
use crate::journal::Journal;
use crate::persister::Kind;

/// How often it is looked whether data directory and lock are still there.
const GUARD_EVERY: Duration = Duration::from_secs(1);
/// How often the persister looks whether a pass is due.
const TICK: Duration = Duration::from_millis(20);
/// The longest that points wait for a pass.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Looks once whether disk and index agree.
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
}

/// The persister's thread: a pass when arrivals pause, or when points have waited long enough.
pub(crate) fn persist(inner: &Inner) {
    let mut seen = 0;
    let mut since = Instant::now();
    // No checkpoint before this: one has failed.
    let mut rest_until = Instant::now();
    // No pass before this: nothing could be written.
    let mut pass_after = Instant::now();
    let mut guarded = Instant::now();
    while !inner.stop.is_set() {
        std::thread::sleep(TICK);
        let clocks = inner.clocks();
        if guarded.elapsed() >= GUARD_EVERY {
            guarded = Instant::now();
            inner.look_around();
            inner.files.look(&inner.stats);
        }
        let received = inner.stats.received.get();
        let due = if inner.cache.is_empty() {
            since = Instant::now();
            false
        } else {
            received == seen || since.elapsed() >= LONGEST_WAIT
        };
        seen = received;
        let wants_checkpoint = || {
            inner
                .journal
                .as_ref()
                .is_some_and(Journal::wants_checkpoint)
        };
        let rested = Instant::now() >= rest_until;
        if rested && wants_checkpoint() {
            match inner.checkpoint(&mut inner.persister.lock(), &clocks, Kind::Whole) {
                Ok(()) => {
                    inner.note("checkpoint", Ok(()));
                    since = Instant::now();
                    continue;
                }
                Err(error) => {
                    inner.note("checkpoint", Err(error.to_string()));
                    rest_until = Instant::now() + LONGEST_WAIT;
                }
            }
        }
        if due && Instant::now() >= pass_after {
            let rested = rest_until <= Instant::now();
            let pass =
                inner
                    .persister
                    .lock()
                    .pass(&inner.parts(), &clocks, Kind::Ordinary, |pass| {
                        let interrupted = rested && pass.written > 0 && pass.written % 1_024 == 0;
                        let ends = inner.stop.is_set() || interrupted && wants_checkpoint();
                        !ends
                    });
            // What could not be written is not tried again at once.
            if pass.written == 0 {
                pass_after = Instant::now() + TICK * 10;
            }
            since = Instant::now();
        }
    }
}
