//! Writes and syncs pending bytes, and wakes those that wait for it.

use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::append::EARLY_WRITE;
use super::state::{Current, Journal};
use crate::options::SyncPolicy;
use crate::signal::Changed;
use crate::stats::Stats;

/// The most pending bytes that are kept while the disk refuses writes.
const MAX_PENDING: usize = 32 << 20;
/// How long after a refused write the next one is tried.
const RETRY: Duration = Duration::from_millis(500);

impl Journal {
    /// The committing thread: until [`Journal::stop`], writes and syncs pending bytes when they are due.
    pub(crate) fn run(&self, stats: &Stats) {
        let mut complained: Option<Instant> = None;
        loop {
            let mut pending = self.pending.lock();
            loop {
                if pending.stopping {
                    return;
                }
                let left = match (pending.since, self.sync) {
                    (None, _) => Duration::from_secs(3_600),
                    (Some(_), _) if pending.bytes.len() >= EARLY_WRITE => Duration::ZERO,
                    (Some(since), SyncPolicy::Every(span)) => {
                        span.0.saturating_sub(since.elapsed())
                    }
                    (Some(_), _) => Duration::ZERO,
                };
                if left.is_zero() {
                    break;
                }
                self.work.wait_for(&mut pending, left);
            }
            drop(pending);
            if let Err(error) = self.commit(stats) {
                stats.journal_errors.add(1);
                if complained.is_none_or(|at| at.elapsed() > RETRY * 20) {
                    complained = Some(Instant::now());
                    tracing::error!(%error, "the journal could not be written");
                }
                let mut pending = self.pending.lock();
                if !pending.stopping {
                    self.work.wait_for(&mut pending, RETRY);
                }
            }
        }
    }

    /// Writes and syncs pending bytes.
    ///
    /// # Errors
    /// The disk failed. The bytes are kept for the next commit, or the journal pauses.
    pub(crate) fn commit(&self, stats: &Stats) -> io::Result<()> {
        let mut current = self.current.lock();
        let committed = self.commit_with(&mut current, stats);
        match &committed {
            Ok(()) if !current.gap => *self.trouble.lock() = None,
            // A journal that pauses has noted the cause already.
            Err(error) if !current.gap || self.trouble.lock().is_none() => {
                *self.trouble.lock() = Some(error.to_string());
            }
            _ => {}
        }
        committed
    }

    fn commit_with(&self, current: &mut Current, stats: &Stats) -> io::Result<()> {
        {
            let mut pending = self.pending.lock();
            if pending.paused {
                return Err(io::Error::other("the journal pauses"));
            }
            current.take(&mut pending);
        }
        self.write_taken(current, stats)
    }

    /// Writes and syncs bytes that were taken from `pending`.
    pub(super) fn write_taken(&self, current: &mut Current, stats: &Stats) -> io::Result<()> {
        let Some(segment) = &mut current.segment else {
            self.pause(current);
            return Err(io::Error::other("the journal has no segment"));
        };
        if !current.unwritten.is_empty() {
            if let Err(error) = segment.append(&current.unwritten) {
                if current.unwritten.len() > MAX_PENDING {
                    self.pause(current);
                } else {
                    // The write must be tried again even if no point arrives.
                    self.pending.lock().since.get_or_insert_with(Instant::now);
                }
                return Err(error);
            }
            let bytes = current.unwritten.len() as u64;
            current.bytes += bytes;
            stats.journal_bytes.add(bytes);
            current.unwritten.clear();
            current.unwritten.shrink_to(EARLY_WRITE);
            current.written = true;
        }
        if current.written {
            if let Err(error) = segment.sync() {
                // After a failed sync the kernel may report success and have lost the data: this
                // segment no longer counts.
                *self.trouble.lock() = Some(error.to_string());
                self.pause(current);
                return Err(error);
            }
            stats.journal_commits.add(1);
            current.written = false;
        }
        if !current.gap {
            self.advance(current.upto, stats);
        }
        Ok(())
    }

    /// Goes on without the journal until the next rotation. The points that are dropped here are in the
    /// cache, and count as committed after a checkpoint.
    pub(super) fn pause(&self, current: &mut Current) {
        let mut pending = self.pending.lock();
        let dropped = current.unwritten.len() + pending.bytes.len();
        self.size.fetch_sub(dropped as u64, Ordering::Relaxed);
        current.unwritten = Vec::new();
        pending.bytes = Vec::new();
        pending.since = None;
        pending.paused = true;
        current.gap = true;
        self.paused.send();
    }

    pub(super) fn advance(&self, upto: u64, stats: &Stats) {
        let before = self.committed.fetch_max(upto, Ordering::AcqRel);
        if upto > before {
            stats.journal_committed.add(upto - before);
        }
        self.done.send();
    }

    /// The next time that points are committed, or that [`Journal::wake_waiting`] is called.
    pub(crate) fn next_commit(&self) -> Changed {
        self.done.next()
    }

    /// Wakes everything that waits for a commit, to check its deadline.
    pub(crate) fn wake_waiting(&self) {
        self.done.send();
    }

    /// Blocks until `ticket` points are committed, the journal stops, or `deadline()` has passed, which is
    /// called again after each [`Journal::wake_waiting`].
    pub(crate) fn wait(&self, ticket: u64, deadline: impl Fn() -> Option<Instant>) {
        while self.committed() < ticket {
            let commit = self.next_commit();
            let deadline = deadline();
            let is_over = deadline.is_some_and(|at| Instant::now() >= at);
            if is_over || self.committed() >= ticket || self.is_stopping() {
                return;
            }
            commit.wait(deadline);
        }
    }
}
