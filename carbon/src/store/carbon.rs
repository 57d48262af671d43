//! The handle of a store, for receivers, queries and the server.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use whisper::Timestamp;

use super::inner::Inner;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::index::{Index, Reconciled};
use crate::journal::Journal;
use crate::persister::{Kind, Pass};
use crate::relay::live::Relay;
use crate::schema::Schema;
use crate::stats::Stats;

/// A store. Clones are cheap and refer to the same store.
#[derive(Clone)]
pub struct Carbon(
    pub(crate) Arc<Inner>,
    pub(super) Arc<Handle>,
    pub(super) Origin,
);

/// Who sends the points that a handle takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Routes apply.
    Anyone,
    /// A relay has sent them here: they are stored.
    Relay,
}

/// Shared by all clones: the threads of the store end when the last clone is dropped.
pub(crate) struct Handle(pub(super) Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop_threads();
    }
}

impl Carbon {
    /// The same store for points that the routes of another server have sent here: they are stored, and
    /// sent to no destination.
    #[must_use]
    pub fn behind_relay(&self) -> Self {
        let Self(inner, handle, _) = self.clone();
        Self(inner, handle, Origin::Relay)
    }

    /// What is wrong with destinations of routes at present, a sentence each: their points wait on disk.
    pub fn away(&self) -> Vec<String> {
        self.0
            .relay
            .as_ref()
            .map(Relay::trouble)
            .unwrap_or_default()
    }

    /// Writes the cache to the files now.
    pub fn persist(&self) -> Pass {
        if self.0.remote.is_some() {
            return Pass::default();
        }
        let clocks = self.0.clocks();
        self.0
            .persister
            .lock()
            .pass(&self.0.parts(), &clocks, Kind::Whole, |_| true)
    }

    /// Writes the cache to the files, syncs them, and deletes the segments of the journal that are no longer
    /// needed.
    ///
    /// # Errors
    /// Something could not be synced. The journal keeps its segments.
    pub fn checkpoint(&self) -> Result<()> {
        if self.0.remote.is_some() {
            return self.commit();
        }
        let clocks = self.0.clocks();
        self.0
            .checkpoint(&mut self.0.persister.lock(), &clocks, Kind::Whole)
    }

    /// Writes and syncs to the journal everything that was taken so far.
    ///
    /// # Errors
    /// The disk failed, or the journal pauses because it failed before.
    pub fn commit(&self) -> Result<()> {
        match &self.0.journal {
            None => Ok(()),
            Some(journal) => journal
                .commit(&self.0.stats)
                .map_err(|error| Error::io(&self.0.root, "committing the journal", error)),
        }
    }

    /// Reads all rule files again. A file that cannot be used leaves its old rules in effect; the log
    /// has everything that is wrong with it.
    pub fn reload(&self) {
        self.0.files.reload(&self.0.stats);
    }

    /// How many datapoints, in the order in which they were taken, survive a crash. Always 0 without a
    /// journal.
    pub fn committed(&self) -> u64 {
        self.0.journal.as_ref().map_or(0, Journal::committed)
    }

    /// Bytes in the journal.
    pub fn journal_bytes(&self) -> u64 {
        self.0.journal.as_ref().map_or(0, Journal::size_bytes)
    }

    /// `carbon.max_frame_size`.
    pub(crate) fn max_frame(&self) -> usize {
        usize::try_from(self.0.options.max_frame_size.0).unwrap_or(usize::MAX)
    }

    /// The index: patterns, tags, registrations.
    pub fn index(&self) -> &Index {
        &self.0.index
    }

    /// How many new series wait for a second timestamp.
    pub fn undecided(&self) -> usize {
        self.0.undecided.load(Ordering::Relaxed)
    }

    /// The choice of archives for new files.
    pub fn schema(&self) -> &Schema {
        &self.0.schema
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// The cache, for its size.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The store's clock.
    pub fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    /// Walks the disk and corrects the index.
    ///
    /// # Errors
    /// As [`Index::reconcile`].
    pub fn reconcile(&self) -> Result<Reconciled> {
        self.0
            .index
            .reconcile(|id| self.0.cache.holds(id), || false)
    }
}
