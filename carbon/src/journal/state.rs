//! The parts of a journal, each behind its lock.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::disk::{Disk, Segment};
use super::frame::MAGIC;
use super::segments::{segment_path, segments};
use crate::datapoint::SeriesId;
use crate::error::{Error, Result};
use crate::index::Bits;
use crate::options::{JournalOptions, SyncPolicy};
use crate::signal::Signal;

/// The journal.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(super) directory: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) sync: SyncPolicy,
    pub(super) max_size: u64,
    pub(super) pending: Mutex<Pending>,
    /// Signalled when something is pending, and at the end.
    pub(super) work: Condvar,
    /// Sent after a commit, when the shutdown is announced, and at the end.
    pub(super) done: Signal,
    pub(super) current: Mutex<Current>,
    pub(super) committed: AtomicU64,
    /// Bytes in all segments and pending.
    pub(super) size: AtomicU64,
    /// Why nothing is committed at present.
    pub(super) trouble: Mutex<Option<String>>,
    /// Sent when the journal pauses and wants a checkpoint.
    pub(super) paused: Arc<Signal>,
}

/// Bytes that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) bytes: Vec<u8>,
    /// When the oldest of them was appended.
    pub(super) since: Option<Instant>,
    /// Points appended since the start, with or without the journal.
    pub(super) appended: u64,
    /// Series named in the current segment.
    pub(super) named: Bits,
    /// The journal pauses: nothing is appended to it until the next rotation.
    pub(super) paused: bool,
    pub(super) stopping: bool,
}

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) number: u64,
    pub(super) segment: Option<Box<dyn Segment>>,
    pub(super) bytes: u64,
    pub(super) begun: Instant,
    /// Finished segments that are not deleted yet, with their sizes.
    pub(super) older: Vec<(u64, u64)>,
    /// Bytes that were taken from `pending` and are not written yet.
    pub(super) unwritten: Vec<u8>,
    /// Points appended up to the end of `unwritten`.
    pub(super) upto: u64,
    /// Something was written and not synced.
    pub(super) written: bool,
    /// Points were taken that are in no segment: no further points count as committed until a checkpoint
    /// has written them to synced files.
    pub(super) gap: bool,
}

impl Current {
    /// Takes the pending bytes, to be written.
    pub(super) fn take(&mut self, pending: &mut Pending) {
        if self.unwritten.is_empty() {
            std::mem::swap(&mut self.unwritten, &mut pending.bytes);
        } else {
            self.unwritten.append(&mut pending.bytes);
        }
        self.upto = pending.appended;
        pending.since = None;
    }
}

impl Journal {
    /// Begins a new segment in `directory`, after the existing ones. `paused` is sent whenever the journal
    /// pauses.
    ///
    /// # Errors
    /// The directory cannot be listed. If no segment can be created, the journal begins paused.
    pub(crate) fn open(
        directory: &Path,
        disk: Arc<dyn Disk>,
        options: &JournalOptions,
        paused: Arc<Signal>,
    ) -> Result<Self> {
        let older = segments(directory)
            .map_err(|error| Error::io(directory, "listing the journal", error))?;
        let number = older.last().map_or(1, |(number, _)| number + 1);
        let size = older.iter().map(|(_, size)| size).sum();
        // Existing segments are deleted by the checkpoint that follows their replay.
        let current = Current {
            number,
            segment: None,
            bytes: 0,
            begun: Instant::now(),
            older,
            unwritten: Vec::new(),
            upto: 0,
            written: false,
            gap: false,
        };
        let journal = Self {
            directory: directory.to_owned(),
            disk,
            sync: options.sync,
            max_size: options.max_size.0.max(1),
            pending: Mutex::default(),
            work: Condvar::new(),
            done: Signal::default(),
            current: Mutex::new(current),
            committed: AtomicU64::new(0),
            size: AtomicU64::new(size),
            trouble: Mutex::default(),
            paused,
        };
        {
            let mut current = journal.current.lock();
            match journal.create(number) {
                Ok(segment) => journal.begin(&mut current, segment),
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be written: points are safe only once their files are synced");
                    current.gap = true;
                    journal.pending.lock().paused = true;
                    *journal.trouble.lock() = Some(error.to_string());
                }
            }
        }
        Ok(journal)
    }

    /// Creates the file of the segment `number`.
    pub(super) fn create(&self, number: u64) -> io::Result<Box<dyn Segment>> {
        let path = segment_path(&self.directory, number);
        let mut segment = self.disk.create(&path)?;
        if let Err(error) = segment.append(MAGIC) {
            // An empty file has no content to keep; the number is used again.
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        Ok(segment)
    }

    /// Writes into `segment` from now on.
    pub(super) fn begin(&self, current: &mut Current, segment: Box<dyn Segment>) {
        current.segment = Some(segment);
        current.bytes = MAGIC.len() as u64;
        current.begun = Instant::now();
        current.written = false;
        self.size.fetch_add(MAGIC.len() as u64, Ordering::Relaxed);
    }

    /// Whether nothing is appended until segments are dropped.
    pub(crate) fn is_full(&self) -> bool {
        self.size.load(Ordering::Relaxed) >= self.max_size
    }

    /// Has the names of these ids written again before their next points: the ids may have other names.
    pub(crate) fn forget(&self, ids: &[SeriesId]) {
        let mut pending = self.pending.lock();
        for id in ids {
            pending.named.clear(id.0);
        }
    }

    /// How many points, in the order in which they were appended, a crash can no longer lose.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// How many points were appended.
    pub(crate) fn appended(&self) -> u64 {
        self.pending.lock().appended
    }

    /// Whether receivers wait until their points are committed.
    pub(crate) fn is_synchronous(&self) -> bool {
        self.sync == SyncPolicy::Always
    }

    /// Whether its thread is to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.pending.lock().stopping
    }

    /// Keeps the segments that existed at the start until the next start, because not all of their points
    /// found room.
    pub(crate) fn keep_older(&self) {
        let older = std::mem::take(&mut self.current.lock().older);
        let bytes = older.iter().map(|(_, bytes)| bytes).sum();
        self.size.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Why it cannot be written at present, if it cannot.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// Ends the committing thread.
    pub(crate) fn stop(&self) {
        self.pending.lock().stopping = true;
        self.work.notify_all();
        self.done.send();
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The bytes from which on nothing is appended.
    pub(crate) fn max_size(&self) -> u64 {
        self.max_size
    }

    /// Bytes in all segments and pending.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }
}
