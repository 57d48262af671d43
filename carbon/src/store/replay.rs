//! Reads the journal back at the start.

use std::path::Path;

use parking_lot::MutexGuard;

use super::inner::Inner;
use crate::clock::Clocks;
use crate::error::{Error, Result};
use crate::journal::{Replay, Replayed};
use crate::persister::{Kind, Pass, Persister};

impl Inner {
    /// Reads the journal back: into the cache, and from there into the files by the clocks at which
    /// the points were taken, so that they go where they went or would have gone then.
    pub(crate) fn replay(&self, directory: &Path, progress: &dyn Fn(u64, u64)) -> Result<()> {
        let now = (self.clock)();
        // Half is reading, in two rounds; half is writing.
        let replay = Replay::open(directory, now, |bytes, all| progress(bytes, 4 * all))?;
        let bytes = replay.bytes();
        let mut writing = Writing {
            store: self,
            persister: self.persister.lock(),
            clocks: Clocks::one(now),
            read: 0,
            written: 0,
            progress: &|done| progress(bytes + done, 4 * bytes),
        };
        let mut left = 0;
        let replayed = replay.run(&self.index, |clocks, points, read| {
            if !writing.clocks.leads_to(&clocks) {
                writing.write();
            }
            writing.clocks = clocks;
            let mut rest = points;
            while !rest.is_empty() {
                let room = self.cache.reserve(rest.len());
                if room == 0 {
                    let pass = writing.write();
                    if pass.points == 0 && pass.dropped == 0 {
                        left += rest.len();
                        break;
                    }
                    continue;
                }
                let mut woken = Vec::new();
                self.cache.insert(&rest[..room], &mut woken);
                self.index.list(&woken);
                rest = &rest[room..];
            }
            writing.read(read);
        })?;
        if replayed == Replayed::default() {
            return Ok(());
        }
        writing.write();
        let Writing {
            mut persister,
            clocks,
            ..
        } = writing;
        self.stats.journal_replayed.add(replayed.points);
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
        if left > 0 {
            // Not a point of these segments may go before all of them have been read.
            self.stats.errors.add(1);
            let why = format!(
                "{left} datapoints of the journal found no room and stay in it until the next start ({})",
                persister.why.as_deref().unwrap_or("the cache is full")
            );
            self.note("start", Err(why));
            if let Some(journal) = &self.journal {
                journal.keep_older();
            }
            return Ok(());
        }
        if let Err(error) = self.checkpoint(&mut persister, &clocks, Kind::Drain) {
            tracing::error!(%error, "what was read back could not be synced; the journal keeps it");
        }
        progress(4 * bytes, 4 * bytes);
        if self.journal.is_none() && self.cache.is_empty() {
            // Turned off since: what it held is in its files.
            let removed = std::fs::remove_dir_all(directory);
            removed.map_err(|error| Error::io(directory, "removing the old journal", error))?;
        }
        Ok(())
    }
}

/// Writes what was read back from the journal, and says how far that has come.
struct Writing<'a> {
    store: &'a Inner,
    persister: MutexGuard<'a, Persister>,
    /// What the points in the cache are judged by.
    clocks: Clocks,
    /// Bytes of the journal that were read.
    read: u64,
    /// Of those, the bytes whose points were written.
    written: u64,
    /// Told the sum: a byte counts once when it is read, and twice when its points are written.
    progress: &'a dyn Fn(u64),
}

impl Writing<'_> {
    fn read(&mut self, bytes: u64) {
        self.read = bytes;
        (self.progress)(self.read + 2 * self.written);
    }

    /// Writes what is in the cache.
    fn write(&mut self) -> Pass {
        let (read, written) = (self.read, self.written);
        let series = self.store.cache.waiting().max(1) as u64;
        let pass = self
            .persister
            .pass(&self.store.parts(), &self.clocks, Kind::Drain, |pass| {
                let done = (pass.written + pass.waiting + pass.dropped) as u64;
                let written = written + (read - written) * done.min(series) / series;
                (self.progress)(read + 2 * written);
                true
            });
        self.written = read;
        pass
    }
}
