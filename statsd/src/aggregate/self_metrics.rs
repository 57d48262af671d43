//! The server's metrics about itself: the reference's, and counters beyond them.

use std::io;

use hashbrown::HashMap;

use super::registry::{Registry, State};
use crate::kind::Kind;
use crate::naming::Naming;
use crate::stats::Stats;

/// What is counted beyond the reference. Each is flushed from the first time on that it is not 0,
/// so that a server to which nothing odd happens has the reference's series and no others.
const EXTRA: [&str; 14] = [
    "kernel_drops",
    "names_refused",
    "members_refused",
    "samples_unranked",
    "not_finite",
    "series_refused",
    "points_refused",
    "connections_refused",
    "connections_displaced",
    "connections_timed_out",
    "answers_refused",
    "lines_dropped",
    "console_dropped",
    "repeater_dropped",
];

/// The counters that are series of their own.
pub(super) struct SelfSeries {
    pub(super) packets: u32,
    pub(super) metrics: u32,
    pub(super) bad_lines: u32,
}

impl SelfSeries {
    /// Takes the series up in the registry.
    ///
    /// # Errors
    /// There is no room for them.
    pub(super) fn new(registry: &mut Registry, naming: &Naming) -> io::Result<Self> {
        let mut own = |name: &str| {
            let mut text = naming.self_series.clone();
            text.extend_from_slice(name.as_bytes());
            let hash = registry.hash(Kind::Counter, &text);
            let (number, _) = registry
                .intern(hash, Kind::Counter, &text, None, || State::Nothing)
                .ok_or(io::ErrorKind::OutOfMemory)?;
            registry.keep(number);
            Ok::<_, io::Error>(number)
        };
        Ok(Self {
            bad_lines: own("bad_lines_seen")?,
            packets: own("packets_received")?,
            metrics: own("metrics_received")?,
        })
    }

    /// Packets, metrics, bad lines.
    pub(super) fn all(&self) -> [u32; 3] {
        [self.packets, self.metrics, self.bad_lines]
    }
}

/// How the flush before this one went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LastFlush {
    /// Unix seconds of the last flush that was handed over.
    pub(super) flush: f64,
    pub(super) exception: f64,
    pub(super) flush_time_ms: f64,
    pub(super) flush_length: f64,
    pub(super) timestamp: Option<f64>,
}

impl LastFlush {
    /// As the reference's `stats` command has it.
    pub(super) fn named(&self) -> [(&'static str, f64); 4] {
        [
            ("last_flush", self.flush),
            ("last_exception", self.exception),
            ("flush_time", self.flush_time_ms),
            ("flush_length", self.flush_length),
        ]
    }
}

/// What counters had at the flush before, so that each flush has the difference.
#[derive(Debug, Default)]
pub(super) struct Before {
    extra: [u64; EXTRA.len()],
    bad_lines: HashMap<String, u64>,
}

impl Before {
    /// What was added to the counters beyond the reference's since the last call.
    pub(super) fn extra(&mut self, stats: &Stats) -> Vec<(&'static str, f64)> {
        let counters: Vec<_> = stats.each().collect();
        let known = |name: &str| counters.iter().find(|(known, _, _)| *known == name);
        let added = EXTRA.iter().zip(&mut self.extra);
        let added = added.filter_map(|(name, before)| {
            let (_, _, total) = known(name)?;
            let seen = *before > 0;
            let added = total - std::mem::replace(before, *total);
            (seen || added > 0).then_some((*name, added as f64))
        });
        added.collect()
    }

    /// What was added to a count of bad lines since the last call: those of a reason or a sender
    /// are flushed from the first one on.
    pub(super) fn bad_lines(&mut self, name: &str, total: u64) -> f64 {
        let before = match self.bad_lines.get_mut(name) {
            Some(before) => std::mem::replace(before, total),
            None => self.bad_lines.insert(name.to_owned(), total).unwrap_or(0),
        };
        (total - before) as f64
    }
}
