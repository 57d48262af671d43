//! The end of a segment, the beginning of the next, and when segments are deleted.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::disk::Segment;
use super::frame::MAGIC;
use super::segments::segment_path;
use super::state::Journal;
use crate::index::Bits;
use crate::stats::Stats;

/// After this long a checkpoint is wanted even if little was appended.
const LONGEST_SEGMENT: Duration = Duration::from_secs(300);

/// The beginning of a segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    pub(super) number: u64,
    pub(super) appended: u64,
}

impl Rotation {
    /// The number of the segment that ended with it.
    pub(crate) fn ended(self) -> u64 {
        self.number.saturating_sub(1)
    }
}

impl Journal {
    /// Whether files should be synced so that segments can be dropped: a quarter of the journal
    /// is used, or a long time has passed, or the journal pauses.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        if self.pending.lock().paused {
            return true;
        }
        let used = self.size.load(Ordering::Relaxed);
        let current = self.current.lock();
        used >= self.max_size / 4
            || (current.begun.elapsed() >= LONGEST_SEGMENT
                && (current.bytes > MAGIC.len() as u64 || !current.older.is_empty()))
    }

    /// The share of its greatest size that is used.
    pub(crate) fn share_used(&self) -> f64 {
        self.size.load(Ordering::Relaxed) as f64 / self.max_size as f64
    }

    /// Whether points are taken without it, until a checkpoint.
    pub(crate) fn is_paused(&self) -> bool {
        self.pending.lock().paused
    }

    /// Whether the present segment has points.
    pub(crate) fn has_points(&self) -> bool {
        let current = self.current.lock();
        current.bytes > MAGIC.len() as u64
    }

    /// Bytes of the present segment that are on the disk, and how long ago it began.
    pub(crate) fn segment(&self) -> (u64, Duration) {
        let current = self.current.lock();
        (current.bytes, current.begun.elapsed())
    }

    /// The numbers of the finished segments, oldest first.
    pub(crate) fn finished(&self) -> Vec<u64> {
        let current = self.current.lock();
        current.older.iter().map(|(number, _)| *number).collect()
    }

    /// The end of the segment `number`.
    pub(crate) fn after(number: u64) -> Rotation {
        Rotation {
            number: number + 1,
            appended: 0,
        }
    }

    /// The end of the segments that were there when the journal was opened.
    pub(crate) fn read_back(&self) -> Rotation {
        let current = self.current.lock();
        Rotation {
            number: current.older.last().map_or(0, |(number, _)| number + 1),
            appended: 0,
        }
    }

    /// Begins the next segment. Points that are appended before `exclude` returns are in the segments before
    /// it, later points in the next one. While the guard exists that `exclude` returns, the caller prevents
    /// all appending. That takes a few instructions: the disk is used before and after.
    ///
    /// # Errors
    /// `exclude` failed; or the disk refused pending bytes (the segment goes on) or the next segment (the
    /// journal pauses).
    pub(crate) fn rotate<G>(
        &self,
        stats: &Stats,
        exclude: impl FnOnce() -> io::Result<G>,
    ) -> io::Result<Rotation> {
        // Locked to the end: a commit in between would write later points into the segment that ends.
        let mut current = self.current.lock();
        let number = current.number + u64::from(current.segment.is_some());
        let next = self.create(number);
        let discard = |next: io::Result<Box<dyn Segment>>| {
            if next.is_ok() {
                let _ = self.disk.remove(&segment_path(&self.directory, number));
            }
        };
        let (paused, appended) = {
            let _excluded = match exclude() {
                Ok(guard) => guard,
                Err(error) => {
                    discard(next);
                    return Err(error);
                }
            };
            let mut pending = self.pending.lock();
            let paused = pending.paused;
            if !paused {
                current.take(&mut pending);
            }
            // The next segment names its series again.
            pending.named = Bits::default();
            pending.paused = next.is_err();
            (paused, pending.appended)
        };
        // The rest of the segment that ends. If it cannot be written, the segment goes on: points that
        // were appended meanwhile have their names with them, and follow.
        let written = match paused {
            true => Ok(()),
            false => self.write_taken(&mut current, stats),
        };
        current.gap |= next.is_err();
        if let Err(error) = written {
            if next.is_err() {
                self.pause(&mut current);
            }
            discard(next);
            return Err(error);
        }
        if current.segment.take().is_some() {
            let finished = (current.number, current.bytes);
            current.older.push(finished);
        }
        current.number = number;
        current.bytes = 0;
        self.begin(&mut current, next?);
        Ok(Rotation { number, appended })
    }

    /// Counts everything that was appended before `rotation` as committed, and deletes the segments before
    /// it. The caller has written these points to synced files, or appended them again and committed that.
    ///
    /// # Errors
    /// A segment could not be deleted. The next call tries again.
    pub(crate) fn drop_before(&self, rotation: Rotation, stats: &Stats) -> io::Result<()> {
        let mut current = self.current.lock();
        self.advance(rotation.appended, stats);
        current.gap &= current.number != rotation.number || self.pending.lock().paused;
        if !current.gap {
            *self.trouble.lock() = None;
        }
        while let Some((number, bytes)) = current.older.first().copied() {
            if number >= rotation.number {
                break;
            }
            match self.disk.remove(&segment_path(&self.directory, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            current.older.remove(0);
            self.size.fetch_sub(bytes, Ordering::Relaxed);
            stats.journal_dropped.add(1);
        }
        Ok(())
    }
}
