//! What carbon reports about itself: counters since the start.

pub use settings::Counter;

use crate::datapoint::{MAX_PER_PREFIX, MAX_SERIES, NameError};

settings::counters! {
    /// Every counter of this crate.
    pub struct Stats in "carbon" {
        /// Datapoints taken into the cache, from any receiver. If this stops growing, check the
        /// senders.
        received = "metricsReceived";
        /// Datapoints sent to destinations of carbon.routes and not stored here. For information.
        only_relayed = "relay.notStored";
        /// Lines without three fields. If this grows, a sender speaks another protocol: the log
        /// names it.
        rejected_fields = "rejects.fields";
        /// Lines and datapoints whose value is not a finite number. If this grows, fix the sender,
        /// which the log names.
        rejected_value = "rejects.value";
        /// Lines whose timestamp is not a number of seconds from 1 to 4294967295. If
        /// this grows, check the clock and the units of the sender, which the log names.
        rejected_timestamp = "rejects.timestamp";
        /// Lines and datapoints whose name no file can have, such as one with an empty node. If this grows, fix
        /// the sender, which the log names.
        rejected_name = "rejects.name";
        /// Lines longer than 64 KiB. If this grows, a sender speaks another protocol or sends no
        /// line feeds.
        rejected_length = "rejects.length";
        /// Lines without a line feed and frames without their end at the end of connections. If
        /// this grows, senders or proxies cut connections.
        rejected_torn = "rejects.torn";
        /// Frames of carbon.pickle and carbon.protobuf that do not hold what the protocol says. If
        /// this grows, a sender speaks another protocol: the log names it.
        rejected_frame = "rejects.frame";
        /// Frames longer than carbon.max_frame_size; their connections were closed. If this grows,
        /// let the sender, which the log names, send fewer datapoints in a frame, or raise the limit.
        rejected_frame_length = "rejects.frameLength";
        /// Pickles that refer to classes or functions, which are never loaded. If this grows, let
        /// the sender, which the log names, send plain numbers: NumPy's are such objects.
        rejected_code = "rejects.code";
        /// Items of pickles that are not (name, (timestamp, value)). If this grows, fix the sender,
        /// which the log names.
        rejected_item = "rejects.item";
        /// Lines and statsd names of new series refused because of carbon.max_series. If this
        /// grows, raise the limit or remove series that are no longer needed.
        rejected_series = "rejects.maxSeries";
        /// Lines and statsd names of new series refused because of carbon.max_series_per_prefix. If
        /// this grows, fix the sender of that prefix or raise the limit.
        rejected_prefix = "rejects.maxSeriesPerPrefix";
        /// Lines and statsd names of new series refused because of
        /// carbon.max_new_series_per_minute. If this grows for more than a few minutes, a sender
        /// makes new names all the time.
        rejected_new = "rejects.maxNewSeries";
        /// Datapoints whose name is on the list of carbon.deny. For information, if that is intended.
        denied = "blacklistMatches";
        /// Datapoints whose name is not on the list of carbon.allow. For information, if that is
        /// intended.
        not_allowed = "whitelistRejects";
        /// Rules that were skipped for a name because matching took too many steps or the name grew
        /// too long. If this grows, simplify the rule that the log names.
        rules_skipped = "rules.skipped";
        /// Datapoints added to aggregates, once for each aggregate. If this stops growing, check
        /// carbon.aggregation_rules and the names of the senders.
        aggregated = "aggregator.datapointsAdded";
        /// Datapoints of aggregator.datapointsAdded whose effect a restart keeps. If this stays behind, the
        /// data directory cannot be written: see the log.
        aggregates_saved = "aggregator.datapointsSaved";
        /// Times that the open intervals of aggregates could not be saved. If this grows, a restart loses
        /// them: the log has the reason.
        aggregates_unsaved = "aggregator.saveFailures";
        /// Aggregates made and stored. If this stops growing while aggregator.datapointsAdded grows,
        /// check the timestamps of the senders.
        aggregates_sent = "aggregateDatapointsSent";
        /// Datapoints that came too late for their aggregate. If this grows, raise
        /// carbon.aggregation_late_intervals, or check the clocks of the senders.
        aggregated_late = "aggregator.latePoints";
        /// Datapoints not aggregated because of carbon.aggregation_max_series or
        /// carbon.aggregation_max_buckets. If this grows, change the rule that the log names, or raise
        /// the limit.
        aggregated_full = "aggregator.refusedPoints";
        /// Aggregates not stored because they are infinite, or their timestamp is not from 1 to
        /// 4294967295. If this grows, check the senders.
        aggregates_unsound = "aggregator.unsoundPoints";
        /// Datapoints lost because they came by UDP while the cache or the journal was full. If
        /// this grows, raise carbon.max_cache_size or journal.max_size, or use a faster disk.
        overflow = "cache.overflow";
        /// Datapoints that went into the journal alone because the cache was full while the remote store did
        /// not take them; they are sent from there. If this grows, look why the remote store is slow or away.
        spilled = "cache.spilled";
        /// Datapoints dropped because the store is read-only. If that is not intended, set render.now to
        /// 0.
        read_only = "cache.readOnly";
        /// Requests over CarbonLink. For information only.
        carbonlink_requests = "carbonlink.requests";
        /// Requests over CarbonLink that were answered with an error. If this grows, look at
        /// graphite-web's log, which has the error.
        carbonlink_errors = "carbonlink.errors";
        /// Reads of the cache by queries. For information only.
        queries = "cache.queries";
        /// Queries of the cache for many series at once. For information only.
        bulk_queries = "cache.bulk_queries";
        /// Series that such queries asked for. For information only.
        bulk_query_series = "cache.bulk_query_series";
        /// Times that a receiver had to wait because the cache or the journal was full. If this
        /// grows, the disk is too slow: raise carbon.max_cache_size, or
        /// carbon.max_updates_per_second if that is set.
        waits = "cache.waits";
        /// Batches written, one file each. If this stops growing while cache.size grows, check the
        /// disk and the log.
        updates = "updateOperations";
        /// Time spent in writing batches, in nanoseconds, without creating files. Divided by
        /// updateOperations it is the time of a write: if that grows, the disk is too slow.
        update_nanoseconds = "updateNanoseconds";
        /// Datapoints written to files. If this stops growing while metricsReceived grows, check
        /// the disk and the log.
        committed = "committedPoints";
        /// Datapoints dropped because they are older than the retention of their file. If this
        /// grows, check the timestamps of the senders, or give the files longer retentions.
        too_old = "pointsTooOld";
        /// Files created. If this grows all the time, a sender makes new names all the time.
        creates = "creates";
        /// Files created with an assumed step, because their series had only one timestamp for ten
        /// minutes or until the shutdown. If this grows fast, many series get one point each: a sender
        /// makes new names all the time.
        steps_assumed = "stepsAssumed";
        /// Files whose creation was delayed by carbon.max_creates_per_minute. If this grows for
        /// long, raise the limit.
        creates_delayed = "createsDelayed";
        /// Files that could not be created because the disk is full. If this grows, make room; the
        /// datapoints wait in the cache and the journal.
        creates_refused = "createsRefused.diskFull";
        /// Files that could not be opened, created or written for another reason than a full disk.
        /// If this grows, the log says which and why.
        errors = "errors";
        /// Datapoints dropped because no file can have the name of their series. If this grows, fix
        /// the sender.
        unwritable = "pointsUnwritable";
        /// Datapoints of files that cannot be written, dropped because the cache was nearly full.
        /// If this grows, repair the files that the log names.
        given_up = "pointsGivenUp";
        /// Times that a query went on without a file that is damaged or cannot be read. If this
        /// grows, check the files that the log names with `plumbago whisper verify`.
        left_out = "filesLeftOut";
        /// Files that the kernel was asked to read before a query came to them, because the query had waited
        /// for others. If this grows all the time, more memory would make queries faster.
        read_ahead = "filesReadAhead";
        /// Damaged files renamed to NAME.wsp.corrupt. If this grows, check the disk, and restore
        /// the files from a backup.
        set_aside = "filesSetAside";
        /// Datapoints that a crash can no longer lose. If this stops growing while metricsReceived
        /// grows, check the disk and the log.
        journal_committed = "journal.committed_points";
        /// Bytes written to the journal. For information only.
        journal_bytes = "journal.bytes";
        /// Group commits of the journal. For information only.
        journal_commits = "journal.commits";
        /// Writes or syncs of the journal that failed. If this grows, points are at risk in a
        /// crash: check the disk and the log.
        journal_errors = "journal.errors";
        /// Datapoints read back from the journal at the start. More than 0 after a clean shutdown
        /// is worth a look at the log.
        journal_replayed = "journal.replayed_points";
        /// Journal segments deleted after their datapoints were in synced files. If this stops
        /// growing, check the disk and the log.
        journal_dropped = "journal.segmentsDropped";
        /// TCP connections accepted. If this grows fast, senders reconnect for each line: let them
        /// keep the connection.
        connections_opened = "connectionsOpened";
        /// TCP connections that have ended. The difference to connectionsOpened is open now.
        connections_closed = "connectionsClosed";
        /// TCP connections closed because of carbon.idle_timeout. If this grows, raise it above the
        /// longest pause of the senders: most lose the first line after a close.
        connections_idle = "connectionsIdle";
        /// Silent TCP connections closed to make room because of carbon.max_connections. If this
        /// grows, raise the limit.
        connections_evicted = "connectionsEvicted";
        /// TCP connections closed because of carbon.max_unread_size. If this grows, senders stop in the
        /// middle of lines or frames, or send very large frames at once: let them send smaller ones, or
        /// raise the limit.
        connections_unread = "connectionsUnread";
        /// TCP connections refused because of carbon.max_connections while all others were sending.
        /// If this grows, raise the limit.
        connections_refused = "connectionsRefused";
        /// Times that a file in use was replaced or deleted by another program. Its last points are
        /// written again. If this grows and no tool is running, look for the program that does it.
        replaced = "filesReplaced";
        /// Files of other programs that were found while the server runs. For information only.
        found = "filesFound";
        /// Series dropped from the index because another program deleted their file. For information
        /// only.
        vanished = "filesGone";
        /// Directories of the tree that are watched now. If it equals carbon.max_watches, raise that and
        /// fs.inotify.max_user_watches; the directories beyond are walked.
        watched = level "directoriesWatched";
        /// Series removed because of carbon.expire_after. For information, if that is intended.
        expired = "expired";
        /// Series due to be removed whose file could not be deleted. If this grows, check the
        /// permissions of the files that the log names.
        expire_errors = "expireErrors";
        /// Names of removed series whose memory was freed. For information only.
        names_freed = "namesFreed";
        /// Times that a rule file (carbon.schemas and its like) was read again. For information
        /// only.
        rules_reloaded = "rules.reloads";
        /// Times that a changed rule file was refused; the rules read before stay in effect. If this
        /// grows, the log names file, line and key.
        rules_refused = "rules.reloadsRefused";
    }
}

impl Stats {
    /// Counts a query of the cache for `series` series at once.
    pub(crate) fn count_bulk_query(&self, series: usize) {
        self.bulk_queries.add(1);
        self.bulk_query_series.add(series as u64);
    }

    /// Counts a name that was refused when it was looked up.
    pub(crate) fn count_refusal(&self, reason: NameError) {
        let counter = match reason {
            NameError::Limit(MAX_SERIES) => &self.rejected_series,
            NameError::Limit(MAX_PER_PREFIX) => &self.rejected_prefix,
            NameError::Limit(_) => &self.rejected_new,
            _ => &self.rejected_name,
        };
        counter.add(1);
    }
}
