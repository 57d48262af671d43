//! Expiry of series: the thread of a running store, and the calls for `plumbago expire`.

use std::time::{Duration, Instant};

use whisper::Timestamp;

use super::carbon::Carbon;
use super::inner::Inner;
use crate::error::{Error, Result};
use crate::expiry::{Expired, Idle, Pace, REMOVES, Scope, SteadyClock, before, pass};

/// Obsolete records that the log of the index may have beside a quarter of all.
const VOID_RECORDS: usize = 10_000;
/// How long unlinked names wait for short users (`index::grace`) before they are freed.
const GRACE: Duration = Duration::from_secs(1);
/// Steps of priority below the other threads: thousands of files are removed at a time, which may take longer.
const NICE: i32 = 10;

/// The thread of a running store.
pub(crate) fn run(inner: &Inner) {
    // On Linux this is the priority of the thread alone.
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the priority of the expiry");
    }
    let expire_after = inner.options.expire_after.0;
    let pause = (expire_after / 16).clamp(Duration::from_secs(1), Duration::from_secs(3_600));
    let path = inner.data.join("index").join("expiry-clock");
    let mut clock = SteadyClock::read(&path).unwrap_or_else(|| {
        // The first start: begin with the last change of any file.
        let wall = (inner.clock)();
        let pace = Pace::Slow {
            removes: REMOVES,
            from: None,
        };
        let seen = pass(&inner.scope(), Timestamp(0), wall, pace, &mut |_| false);
        let newest = if seen.series == 0 { wall } else { seen.newest };
        SteadyClock::new(wall.min(newest))
    });
    let mut since = Instant::now();
    let mut created_before = inner.stats.creates.get();
    let mut from = None;
    while !inner.stop.is_set() {
        // How far series have aged since the last pass.
        let wall = (inner.clock)();
        let begun = Instant::now();
        let elapsed = begun - since;
        since = begun;
        let now = clock.advance(wall, elapsed);
        let cutoff = before(now, expire_after);
        // Removing keeps up with creating, or the tree would grow without end.
        let created = inner.stats.creates.get();
        let creates = (created - created_before) as f64 / elapsed.as_secs_f64().max(1.0);
        created_before = created;
        let pace = Pace::Slow {
            removes: REMOVES.max(2.0 * creates),
            from,
        };
        let done = pass(&inner.scope(), cutoff, wall, pace, &mut |_| true);
        from = done.left;
        if done.removed > 0 {
            let Expired {
                removed,
                size_bytes,
                idle,
                ..
            } = done;
            let left = idle - removed;
            tracing::info!(removed, size_bytes, left, "series without points expired");
        }
        if let Err(error) = clock.write(&path) {
            let error = Error::io(&path, "writing the time by which series age", error);
            tracing::warn!(%error, "after a restart series may stay longer");
        }
        // The first call unlinks names, the second frees them.
        inner.reclaim();
        inner.stop.pause(GRACE);
        inner.reclaim();
        if let Err(error) = inner.index.compact(VOID_RECORDS) {
            tracing::warn!(%error, "cannot rewrite the index");
        }
        inner.stop.pause(pause.saturating_sub(begun.elapsed()));
    }
}

impl Inner {
    /// The parts that a pass over the series works on.
    fn scope(&self) -> Scope<'_> {
        Scope {
            root: &self.root,
            index: &self.index,
            cache: &self.cache,
            maps: &self.maps,
            stats: &self.stats,
            stop: &self.stop,
            flock: self.options.flock,
        }
    }
}

impl Carbon {
    /// Calls `each` for every series that has been idle for `older_than`, by the system's clock.
    pub fn idle_series(&self, older_than: Duration, mut each: impl FnMut(&Idle)) -> Expired {
        let wall = self.now();
        let cutoff = before(wall, older_than);
        pass(&self.0.scope(), cutoff, wall, Pace::Fast, &mut |idle| {
            each(idle);
            false
        })
    }

    /// Removes every series that has been idle for `older_than` by the system's clock, without pauses, and
    /// calls `each` before each.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn expire(&self, older_than: Duration, mut each: impl FnMut(&Idle)) -> Result<Expired> {
        let wall = self.now();
        let cutoff = before(wall, older_than);
        let done = pass(&self.0.scope(), cutoff, wall, Pace::Fast, &mut |idle| {
            each(idle);
            true
        });
        self.0.index.sync()?;
        Ok(done)
    }

    /// Frees names and ids of removed series that no part of the program uses, and returns how many. Those
    /// that have become unused since the last call are freed by a later one.
    pub fn reclaim(&self) -> usize {
        self.0.reclaim()
    }
}
