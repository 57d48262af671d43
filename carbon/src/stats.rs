//! What carbon reports about itself: counters since the start.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::index::limits;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! stats {
    ($($(#[doc = $doc:literal])+ $field:ident = $name:literal,)*) => {
        /// Every counter of this crate.
        #[derive(Debug, Default)]
        pub struct Stats {
            $($(#[doc = $doc])+ pub $field: Counter,)*
        }

        impl Stats {
            /// Name, meaning and value of each counter.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$(($name, concat!($($doc),+).trim_ascii(), self.$field.get()),)*].into_iter()
            }
        }
    };
}

impl Stats {
    /// Counts a name that was refused when it was looked up.
    pub(crate) fn count_refusal(&self, reason: crate::NameError) {
        let counter = match reason {
            crate::NameError::Limit(limits::MAX_SERIES) => &self.rejected_series,
            crate::NameError::Limit(limits::MAX_PER_PREFIX) => &self.rejected_prefix,
            crate::NameError::Limit(_) => &self.rejected_new,
            _ => &self.rejected_name,
        };
        counter.add(1);
    }
}

stats! {
    /// Datapoints taken into the cache, from any receiver.
    received = "metricsReceived",
    /// Lines without three fields.
    rejected_fields = "rejects.fields",
    /// Lines whose value is no finite number.
    rejected_value = "rejects.value",
    /// Lines and datapoints whose timestamp is no number of seconds between 1 and 4294967295.
    rejected_timestamp = "rejects.timestamp",
    /// Lines whose name no file can have.
    rejected_name = "rejects.name",
    /// Lines longer than 64 KiB.
    rejected_length = "rejects.length",
    /// Unterminated last lines of closed connections.
    rejected_torn = "rejects.torn",
    /// Lines and statsd names of new series refused because of max_series.
    rejected_series = "rejects.maxSeries",
    /// Lines and statsd names of new series refused because of max_series_per_prefix.
    rejected_prefix = "rejects.maxSeriesPerPrefix",
    /// Lines and statsd names of new series refused because of max_new_series_per_minute.
    rejected_new = "rejects.maxNewSeries",
    /// Datapoints that came by UDP while the cache or the journal was full.
    overflow = "cache.overflow",
    /// Datapoints handed to a store that takes none (render.now is set).
    read_only = "cache.readOnly",
    /// Reads of the cache by queries.
    queries = "cache.queries",
    /// Times that a receiver had to wait because the cache or the journal was full.
    waits = "cache.waits",
    /// Batches written, one file each.
    updates = "updateOperations",
    /// Datapoints written to files.
    committed = "committedPoints",
    /// Datapoints older than their file reaches back.
    too_old = "pointsTooOld",
    /// Files created.
    creates = "creates",
    /// Files whose creation was put off by max_creates_per_minute.
    creates_delayed = "createsDelayed",
    /// Files that could not be created because the disk is full.
    creates_refused = "createsRefused.diskFull",
    /// Files that could not be opened, created or written for another reason.
    errors = "errors",
    /// Datapoints dropped because no file can have the name of their series.
    unwritable = "pointsUnwritable",
    /// Datapoints of files that cannot be written, dropped because the cache was nearly full.
    given_up = "pointsGivenUp",
    /// Times that a query went on without a file that is damaged or cannot be read.
    left_out = "filesLeftOut",
    /// Damaged files set aside as NAME.wsp.corrupt.
    set_aside = "filesSetAside",
    /// Datapoints that a crash can no longer lose, in the order in which they were taken.
    journal_committed = "journal.committed_points",
    /// Bytes written to the journal.
    journal_bytes = "journal.bytes",
    /// Group commits.
    journal_commits = "journal.commits",
    /// Writes or syncs of the journal that failed.
    journal_errors = "journal.errors",
    /// Datapoints read back from the journal at the start.
    journal_replayed = "journal.replayed_points",
    /// Segments dropped after their datapoints were in synced files.
    journal_dropped = "journal.segmentsDropped",
    /// TCP connections accepted.
    connections_opened = "connectionsOpened",
    /// TCP connections that have ended.
    connections_closed = "connectionsClosed",
    /// TCP connections closed after idle_timeout.
    connections_idle = "connectionsIdle",
    /// Silent TCP connections closed to make room because of max_connections.
    connections_evicted = "connectionsEvicted",
    /// TCP connections refused because of max_connections while all others were sending.
    connections_refused = "connectionsRefused",
    /// Series removed because of expire_after.
    expired = "expired",
    /// Series due to be removed whose file could not be deleted.
    expire_errors = "expireErrors",
    /// Names of removed series whose memory was given back.
    names_freed = "namesFreed",
}
