//! What the server counts about itself; read by the management interface, `/metrics` and the page.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tracing::warn;

use crate::metric::Reject;

/// Senders of bad lines that are counted one by one; further ones are counted together.
const SENDERS: usize = 1_024;
/// Senders of bad lines that are flushed as series; further ones are flushed together.
const SENDER_SERIES: usize = 100;
/// Bad lines that are logged per interval; all are counted.
const LOGGED: u32 = 10;

/// Counters since the start. They only grow, unless said otherwise.
#[derive(Debug, Default)]
pub struct Stats {
    /// Datagrams, and blocks of lines from streams.
    pub packets: AtomicU64,
    /// Lines that were not empty, good or bad.
    pub metrics: AtomicU64,
    /// Values, or lines, that were refused.
    pub bad_lines: AtomicU64,
    /// Datagrams that the kernel dropped because a receive buffer was full.
    pub kernel_drops: AtomicU64,
    /// Samples of names beyond a limit.
    pub names_refused: AtomicU64,
    /// Members of sets beyond the limit.
    pub members_refused: AtomicU64,
    /// Samples of timers that count in no percentile because `timer_memory` was used up.
    pub samples_unranked: AtomicU64,
    /// Values that were not flushed because they are not finite.
    pub not_finite: AtomicU64,
    /// Series that the sink refused.
    pub series_refused: AtomicU64,
    /// Values that were not kept because the sink refuses their series.
    pub points_refused: AtomicU64,
    /// Connections that were closed at once because there were `max_connections`.
    pub connections_refused: AtomicU64,
    /// Connections of the management interface that were closed because the client was silent, or
    /// did not read its answer.
    pub connections_timed_out: AtomicU64,
    /// Events and service checks taken.
    pub events: AtomicU64,
    /// Events and service checks dropped because the store was behind.
    pub events_dropped: AtomicU64,
    /// Lines that remote outputs dropped because their queue was full.
    pub lines_dropped: AtomicU64,
    /// Attempts to reach a remote output that failed.
    pub output_errors: AtomicU64,
    /// Packets that could not be repeated.
    pub repeater_dropped: AtomicU64,
    /// Intervals flushed.
    pub flushes: AtomicU64,
    /// Lines (values) in all flushes.
    pub lines_flushed: AtomicU64,
    /// Names known now; falls when names are forgotten.
    pub names: AtomicU64,
    /// Unix seconds of the last packet; 0 before the first.
    pub last_packet: AtomicU64,
    /// Unix seconds of the last attempt to reach a remote output that failed; 0 if none did.
    pub last_output_error: AtomicU64,
    reasons: [AtomicU64; Reject::COUNT],
    logged: AtomicU32,
    senders: Mutex<Senders>,
}

#[derive(Debug, Default)]
struct Senders {
    /// With the order in which they were first seen.
    known: HashMap<IpAddr, (usize, u64)>,
    others: u64,
}

impl Stats {
    /// Counts a bad line; logs the first few of each interval with their sender.
    pub(crate) fn bad_line(&self, reason: Reject, line: &[u8], from: Option<IpAddr>) {
        self.bad_lines.fetch_add(1, Ordering::Relaxed);
        self.reasons[reason as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(from) = from.map(|from| from.to_canonical()) {
            let mut senders = self.senders.lock();
            let rank = senders.known.len();
            if let Some((_, count)) = senders.known.get_mut(&from) {
                *count += 1;
            } else if rank < SENDERS {
                senders.known.insert(from, (rank, 1));
            } else {
                senders.others += 1;
            }
        }
        if self.logged.fetch_add(1, Ordering::Relaxed) < LOGGED {
            let shown = String::from_utf8_lossy(&line[..line.len().min(256)]);
            match from {
                Some(from) => warn!("bad line from {from}: {} in {shown:?}", reason.name()),
                None => warn!("bad line: {} in {shown:?}", reason.name()),
            }
        }
    }

    /// Lets bad lines be logged again; logs how many were not.
    pub(crate) fn end_interval(&self) {
        let logged = self.logged.swap(0, Ordering::Relaxed);
        if logged > LOGGED {
            warn!("{} more bad lines in this interval", logged - LOGGED);
        }
    }

    /// Bad lines by reason, most frequent first.
    pub fn bad_lines_by_reason(&self) -> Vec<(&'static str, u64)> {
        let mut reasons: Vec<_> = Reject::ALL
            .iter()
            .map(|reason| {
                let count = self.reasons[*reason as usize].load(Ordering::Relaxed);
                (reason.name(), count)
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        reasons.sort_by_key(|(name, count)| (std::cmp::Reverse(*count), *name));
        reasons
    }

    /// Bad lines by the address that sent them, most frequent first. Past 1,024 addresses further
    /// ones are counted under `None`.
    pub fn bad_lines_by_sender(&self) -> Vec<(Option<IpAddr>, u64)> {
        let senders = self.senders.lock();
        let mut counts: Vec<_> = senders
            .known
            .iter()
            .map(|(from, (_, count))| (Some(*from), *count))
            .collect();
        if senders.others > 0 {
            counts.push((None, senders.others));
        }
        counts.sort_by_key(|(from, count)| (std::cmp::Reverse(*count), *from));
        counts
    }

    /// Bad lines since the start as parts of the names of self metrics: `bad_lines.by_reason.REASON`
    /// and `bad_lines.by_sender.ADDRESS`, with `_` for what an address has between its numbers.
    /// The first 100 senders have names of their own, the rest is `others`.
    pub(crate) fn bad_lines_series(&self) -> Vec<(String, u64)> {
        let mut series: Vec<_> = self
            .bad_lines_by_reason()
            .into_iter()
            .map(|(reason, count)| (format!("bad_lines.by_reason.{reason}"), count))
            .collect();
        let senders = self.senders.lock();
        let mut others = senders.others;
        for (from, (rank, count)) in &senders.known {
            if *rank < SENDER_SERIES {
                let from = from.to_string().replace(['.', ':'], "_");
                series.push((format!("bad_lines.by_sender.{from}"), *count));
            } else {
                others += count;
            }
        }
        if others > 0 {
            series.push(("bad_lines.by_sender.others".to_owned(), others));
        }
        series.sort_unstable();
        series
    }

    /// The counters with their names, in a fixed order.
    pub fn counters(&self) -> [(&'static str, u64); 20] {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("packets_received", read(&self.packets)),
            ("metrics_received", read(&self.metrics)),
            ("bad_lines_seen", read(&self.bad_lines)),
            ("kernel_drops", read(&self.kernel_drops)),
            ("names", read(&self.names)),
            ("names_refused", read(&self.names_refused)),
            ("members_refused", read(&self.members_refused)),
            ("samples_unranked", read(&self.samples_unranked)),
            ("not_finite", read(&self.not_finite)),
            ("series_refused", read(&self.series_refused)),
            ("points_refused", read(&self.points_refused)),
            ("connections_refused", read(&self.connections_refused)),
            ("connections_timed_out", read(&self.connections_timed_out)),
            ("events", read(&self.events)),
            ("events_dropped", read(&self.events_dropped)),
            ("lines_dropped", read(&self.lines_dropped)),
            ("output_errors", read(&self.output_errors)),
            ("repeater_dropped", read(&self.repeater_dropped)),
            ("flushes", read(&self.flushes)),
            ("lines_flushed", read(&self.lines_flushed)),
        ]
    }

    /// The text of the management interface's `bad_lines` command.
    pub(crate) fn bad_lines_text(&self) -> String {
        let mut text = String::new();
        for (reason, count) in self.bad_lines_by_reason() {
            let _ = writeln!(text, "reason.{reason}: {count}");
        }
        for (sender, count) in self.bad_lines_by_sender() {
            let _ = match sender {
                Some(sender) => writeln!(text, "sender.{sender}: {count}"),
                None => writeln!(text, "sender.others: {count}"),
            };
        }
        text
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn series_of_bad_lines_are_bounded() {
        let stats = Stats::default();
        let last: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
        stats.bad_line(Reject::NoColon, b"x", Some(last.to_ipv6_mapped().into()));
        for sender in 0..2_000_u32 {
            let from = Ipv6Addr::from(u128::from(sender) << 64 | 1);
            stats.bad_line(Reject::NoType, b"x", Some(from.into()));
        }
        stats.bad_line(Reject::NoColon, b"x", None);
        let series = stats.bad_lines_series();
        assert_eq!(series.len(), 2 + 100 + 1);
        let count = |name: &str| {
            series
                .iter()
                .find(|(known, _)| known == name)
                .map(|found| found.1)
        };
        assert_eq!(count("bad_lines.by_reason.no_colon"), Some(2));
        assert_eq!(count("bad_lines.by_reason.no_type"), Some(2_000));
        assert_eq!(count("bad_lines.by_sender.10_0_0_7"), Some(1));
        assert_eq!(count("bad_lines.by_sender.__3e_0_0_0_1"), Some(1));
        assert_eq!(count("bad_lines.by_sender.others"), Some(2_001 - 100));
    }
}
