//! What the query side counts about itself.

use settings::Counter;

settings::counters! {
    /// Counters since the start.
    pub struct Stats in "render" {
        /// Requests to /render. For information only.
        renders = "renders";
        /// Requests to /metrics/find and /metrics/expand. For information only.
        finds = "finds";
        /// Requests answered together with an equal one that was being computed. For information
        /// only.
        shared = "shared";
        /// Requests that were wrong (400). If this grows, the answer to the client says what is
        /// wrong.
        refused = "refused";
        /// Requests refused because of render.max_series, max_points or max_memory (413), or
        /// because too many were waiting (503). If this grows, narrow the queries or raise the
        /// limits.
        limited = "limited";
        /// Requests that took longer than render.timeout (503). If this grows, narrow the queries
        /// or raise the timeout.
        timed_out = "timedOut";
        /// Requests whose client went away before the answer was ready. If this grows, queries are
        /// slower than the patience of the clients.
        cancelled = "cancelled";
        /// Requests that failed because the store could not be read. If this grows, check the disk
        /// and the log.
        failed = "failed";
        /// Requests that failed because of a bug in this program. If this is not 0, please report
        /// the lines in the log.
        panicked = "panicked";
    }
}

/// Counts one.
pub(crate) fn count(counter: &Counter) {
    counter.add(1);
}

/// Whether a series is a self metric of this server.
pub(crate) fn is_ours(path: &str) -> bool {
    [
        "carbon.",
        "plumbago.",
        "stats.statsd.",
        "stats_counts.statsd.",
        "stats.gauges.statsd.",
        "stats.timers.statsd.",
        "statsd.",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}
