//! Reads the journal back at the start.

use std::path::Path;
use std::time::Duration;

use parking_lot::MutexGuard;
use whisper::Timestamp;

use super::inner::Inner;
use crate::clock::Clocks;
use crate::datapoint::Datapoint;
use crate::error::{Error, Result};
use crate::journal::{Replay, Replayed};
use crate::persister::{Kind, Pass, Persister};

/// The seconds before the present clock from which points may wait on.
const RECENT: u32 = 3_600;

impl Inner {
    /// Reads the journal back into the cache, with the clocks at which the points were taken: they go into the
    /// archives that they went into, or would have gone into, then. Points of a clock that leads to the
    /// present one stay in the cache, as if the process had not ended. Others are written to the files.
    pub(crate) fn replay(&self, directory: &Path, progress: &dyn Fn(u64, u64)) -> Result<()> {
        let now = (self.clock)();
        // Progress counts reading, which is done twice, as half, and writing as half.
        let replay = Replay::open(directory, now, |bytes, all| progress(bytes, 4 * all))?;
        let bytes = replay.bytes();
        // Without a journal only the old segments have what waits on; they are to go.
        let kind = match self.journal {
            Some(_) => Kind::Replay,
            None => Kind::Drain,
        };
        let mut writing = Writing {
            store: self,
            now,
            kind,
            persister: self.persister.lock(),
            clocks: Clocks::one(now),
            read: 0,
            written: 0,
            left: 0,
            progress: &|done| progress(bytes + done, 4 * bytes),
        };
        let replayed = replay.run(&self.index, |clocks, points, read| {
            // Write points first to which other clocks apply.
            if !writing.can_go_on(&clocks) {
                writing.write();
            }
            writing.clocks = clocks;
            writing.insert(points);
            writing.read(read);
        })?;
        if replayed == Replayed::default() {
            return Ok(());
        }
        let stays = self.journal.is_some() && writing.is_recent(&writing.clocks);
        if !stays {
            writing.write();
        }
        let Writing {
            mut persister,
            clocks,
            left,
            ..
        } = writing;
        self.stats.journal_replayed.add(replayed.points);
        log_replayed(replayed);
        if replayed.points == 0
            && replayed.nameless == 0
            && replayed.unsound_bytes == 0
            && self.journal.is_some()
        {
            // A sync waits for all programs that write to the filesystem. The segments hold nothing that
            // needs one; the next checkpoint deletes them.
            return Ok(());
        }
        if left > 0 {
            // These segments may not be deleted before all of their points have been written.
            self.keep_segments(left, persister.why.as_deref());
            return Ok(());
        }
        if stays {
            // The segments are deleted when the points are in files.
            progress(4 * bytes, 4 * bytes);
            return Ok(());
        }
        if let Err(error) = self.checkpoint(&mut persister, &clocks, kind) {
            tracing::error!(%error, "what was read back could not be synced; the journal keeps it");
        }
        progress(4 * bytes, 4 * bytes);
        if self.journal.is_none() && self.cache.is_empty() {
            // The journal has been disabled. Its points are in files now.
            let removed = std::fs::remove_dir_all(directory);
            removed.map_err(|error| Error::io(directory, "removing the old journal", error))?;
        }
        Ok(())
    }

    /// Keeps the segments until the next start, because `left` of their points found no room.
    fn keep_segments(&self, left: usize, why: Option<&str>) {
        self.stats.errors.add(1);
        let why = why.unwrap_or("the cache is full");
        self.note(
            "start",
            Err(format!(
                "{left} datapoints of the journal found no room and stay in it until the next start ({why})"
            )),
        );
        if let Some(journal) = &self.journal {
            journal.keep_older();
        }
    }
}

fn log_replayed(replayed: Replayed) {
    let Replayed {
        points,
        nameless,
        unsound_bytes,
        segments,
    } = replayed;
    if unsound_bytes > 0 || nameless > 0 {
        tracing::warn!(
            points,
            segments,
            nameless,
            unsound_bytes,
            "the journal was read back, but for a torn or damaged part of {unsound_bytes} bytes and {nameless} points without a name"
        );
    } else if points > 0 {
        tracing::info!(points, segments, "journal read back");
    }
}

/// Writes points of the journal to the files, and reports the progress.
struct Writing<'a> {
    store: &'a Inner,
    /// The present clock.
    now: Timestamp,
    kind: Kind,
    persister: MutexGuard<'a, Persister>,
    /// The clocks that decide how old the points in the cache are.
    clocks: Clocks,
    /// Bytes of the journal that were read.
    read: u64,
    /// Bytes of the journal whose points were written.
    written: u64,
    /// Points that found no room.
    left: usize,
    /// Called with the sum: a byte counts once when it is read, and twice when its points are written.
    progress: &'a dyn Fn(u64),
}

impl Writing<'_> {
    /// Whether `clocks` are a clock of the last hour: points that were taken then can wait on in the cache.
    fn is_recent(&self, clocks: &Clocks) -> bool {
        let ago = |clock: Timestamp| self.now.0.checked_sub(clock.0);
        let clock = clocks.single();
        clock.is_some_and(|clock| ago(clock).is_some_and(|ago| ago <= RECENT))
    }

    /// Whether points of `next` can be in the cache together with those before.
    fn can_go_on(&self, next: &Clocks) -> bool {
        if self.is_recent(&self.clocks) && self.is_recent(next) {
            return self.clocks.earliest() <= next.earliest();
        }
        self.clocks.leads_to(next)
    }

    /// Inserts `points` into the cache, and writes the cache whenever it is full.
    fn insert(&mut self, points: &[Datapoint]) {
        let mut rest = points;
        while !rest.is_empty() {
            let room = self.store.cache.reserve(rest.len());
            if room == 0 {
                let pass = self.write();
                if pass.points == 0 && pass.dropped == 0 {
                    self.left += rest.len();
                    return;
                }
                continue;
            }
            let mut woken = Vec::new();
            let clock = self.clocks.earliest();
            let ago = Duration::from_secs(u64::from(self.now.0.saturating_sub(clock.0)));
            let cache = &self.store.cache;
            let since = cache.since(clock, ago);
            cache.insert_since(&rest[..room], || since, &mut woken);
            self.store.index.list(&woken);
            rest = &rest[room..];
        }
    }

    fn read(&mut self, bytes: u64) {
        self.read = bytes;
        (self.progress)(self.read + 2 * self.written);
    }

    /// Writes the cache to the files.
    fn write(&mut self) -> Pass {
        let (read, written) = (self.read, self.written);
        let series = self.store.cache.waiting().max(1) as u64;
        // Recent points have the clock of their arrival with them.
        let clocks = match self.is_recent(&self.clocks) {
            true => Clocks::one(self.now),
            false => self.clocks,
        };
        let pass = self
            .persister
            .pass(&self.store.parts(), &clocks, self.kind, |pass| {
                let done = (pass.written + pass.waiting + pass.dropped) as u64;
                let written = written + (read - written) * done.min(series) / series;
                (self.progress)(read + 2 * written);
                true
            });
        self.written = read;
        pass
    }
}
