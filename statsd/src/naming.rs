//! From a series' name to the names that it is flushed to.
//!
//! Parts are joined with dots, empty ones left out: namespace, name, statistic, global suffix.
//! Tags come last: `stats.timers.lat.mean_90.host1;code=200`.

use crate::options::Options;

/// Where the console output has the value of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    /// Its type says so by itself, or it is not shown.
    Elsewhere,
    /// Among the statistics of the series that was begun last.
    Statistic,
    /// By the series' name, in the section of that name.
    Named(&'static str),
}

/// One line of a flush, in the pieces that its name is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line<'a> {
    pub(crate) section: Section,
    /// `stats.timers.`, with its dot, or empty.
    pub(crate) namespace: &'a [u8],
    /// The series' name with its tags.
    pub(crate) name: &'a [u8],
    /// `.mean_90`, or empty.
    pub(crate) stat: &'a [u8],
    /// `.host1`, or empty.
    pub(crate) suffix: &'a [u8],
}

impl Line<'_> {
    /// Appends the whole name.
    pub(crate) fn push_name(&self, out: &mut Vec<u8>) {
        let end = memchr::memchr(b';', self.name).unwrap_or(self.name.len());
        let (name, tags) = self.name.split_at(end);
        for part in [self.namespace, name, self.stat, self.suffix, tags] {
            out.extend_from_slice(part);
        }
    }
}

/// The namespaces of all types.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    pub(crate) rate: (Vec<u8>, Vec<u8>),
    pub(crate) count: (Vec<u8>, Vec<u8>),
    pub(crate) timer: Vec<u8>,
    pub(crate) gauge: Vec<u8>,
    pub(crate) set: Vec<u8>,
    pub(crate) average: Vec<u8>,
    pub(crate) distribution: Vec<u8>,
    /// Of self metrics, counters apart: `stats.statsd.`.
    pub(crate) self_metrics: Vec<u8>,
    /// Of `numStats`, which the legacy namespace keeps without `stats.`.
    pub(crate) num_stats: Vec<u8>,
    /// Of self metrics that are counters and gauges, as series: `statsd.`.
    pub(crate) self_series: Vec<u8>,
    pub(crate) suffix: Vec<u8>,
}

impl Naming {
    pub(crate) fn new(options: &Options) -> Self {
        let Options {
            prefix_stats,
            legacy_namespace,
            global_prefix,
            prefix_counter,
            prefix_timer,
            prefix_gauge,
            prefix_set,
            global_suffix,
            ..
        } = options;
        // Empty parts are left out, so that no name has an empty node.
        let join = |parts: &[&str]| {
            let mut joined = Vec::new();
            for part in parts.iter().filter(|part| !part.is_empty()) {
                joined.extend_from_slice(part.as_bytes());
                joined.push(b'.');
            }
            joined
        };
        let suffix = if global_suffix.is_empty() {
            Vec::new()
        } else {
            format!(".{global_suffix}").into_bytes()
        };
        let self_series = join(&[prefix_stats]);
        // The names of StatsD before version 0.1, which are still its default.
        if *legacy_namespace {
            return Self {
                rate: (join(&["stats"]), Vec::new()),
                count: (join(&["stats_counts"]), Vec::new()),
                timer: join(&["stats", "timers"]),
                gauge: join(&["stats", "gauges"]),
                set: join(&["stats", "sets"]),
                average: join(&["stats", "averages"]),
                distribution: join(&["stats", "distributions"]),
                self_metrics: join(&["stats", prefix_stats]),
                num_stats: self_series.clone(),
                self_series,
                suffix,
            };
        }
        // In the new namespace every type has a prefix that can be set.
        let counter = join(&[global_prefix, prefix_counter]);
        let self_metrics = join(&[global_prefix, prefix_stats]);
        Self {
            rate: (counter.clone(), b".rate".to_vec()),
            count: (counter, b".count".to_vec()),
            timer: join(&[global_prefix, prefix_timer]),
            gauge: join(&[global_prefix, prefix_gauge]),
            set: join(&[global_prefix, prefix_set]),
            average: join(&[global_prefix, "averages"]),
            distribution: join(&[global_prefix, "distributions"]),
            num_stats: self_metrics.clone(),
            self_metrics,
            self_series,
            suffix,
        }
    }
}
