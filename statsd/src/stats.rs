//! What the server counts about itself; read by the management interface, `/metrics` and the page.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use parking_lot::Mutex;
use settings::{Counter, Reading};
use tracing::warn;

use crate::metric::Reject;

/// Senders of bad lines that are counted one by one; further ones are counted together.
const SENDERS: usize = 1_024;
/// Senders of bad lines that are flushed as series; further ones are flushed together.
const SENDER_SERIES: usize = 100;
/// Bad lines that are logged per interval; all are counted.
const LOGGED: u32 = 10;

settings::counters! {
    /// Counters since the start. They only grow, unless said otherwise.
    pub struct Stats in "statsd" {
        /// Datagrams, and blocks of lines from streams. If this stops growing, check the senders.
        packets = "packets_received";
        /// Lines that were not empty, good or bad. If this stops growing, check the senders.
        metrics = "metrics_received";
        /// Values, or lines, that were refused. If this grows, the management command bad_lines
        /// says why and from which sender.
        bad_lines = "bad_lines_seen";
        /// Buffers of the kernel lost because a receive buffer was full; each had one datagram, or
        /// up to 64 that were sent or coalesced as one. If this grows, raise statsd.receive_buffer
        /// and net.core.rmem_max, or list the address several times.
        kernel_drops = "kernel_drops";
        /// Series known now, each name of each type. Compare with name_entries.
        names = level "names";
        /// What receivers hold of names: each takes an entry for each way in which a name is written. Compare
        /// with statsd.max_names. If it is far above names, find the senders that write them differently.
        name_entries = level "name_entries";
        /// Samples and values of new names dropped because of statsd.max_names, max_new_names or
        /// max_names_per_prefix, or for want of memory. If this grows, fix the sender of the prefix
        /// that the log names, or raise the limit.
        names_refused = "names_refused";
        /// Members of sets dropped because there were too many in the interval, or because one was
        /// longer than statsd.max_name_length. If this grows, count something with fewer different
        /// values.
        members_refused = "members_refused";
        /// Samples of timers that are in no percentile, median or histogram because
        /// statsd.timer_memory was full. If this grows, raise it.
        samples_unranked = "samples_unranked";
        /// Values that were not flushed because they are not finite. If this grows, a sender sends
        /// numbers near the limit of a double.
        not_finite = "not_finite";
        /// Series that the store refused. If this grows, the log says which and why.
        series_refused = "series_refused";
        /// Values that were not kept because the store refuses their series. If this grows, the log
        /// says which series and why.
        points_refused = "points_refused";
        /// Connections closed at once because statsd.max_connections others were sending. If this
        /// grows, raise the limit, or let clients keep their connections.
        connections_refused = "connections_refused";
        /// Silent connections closed to make room for new ones, at statsd.max_connections. If this
        /// grows, raise the limit, or find the clients that open connections and do not use them.
        connections_displaced = "connections_displaced";
        /// Management connections closed because the client was silent, or did not read its answer.
        /// If this grows, fix the client.
        connections_timed_out = "connections_timed_out";
        /// Management commands answered with an error because other clients had not read their large
        /// answers yet. If this grows, find the client that asks for tables and does not read them.
        answers_refused = "answers_refused";
        /// DogStatsD events and service checks taken. For information only.
        events = "events";
        /// DogStatsD events and service checks dropped because the event store was behind. If this
        /// grows, check the disk, or send fewer events.
        events_dropped = "events_dropped";
        /// Lines lost because the queue of a remote output was full. If this grows, check that
        /// server, or raise statsd.output_queue.
        lines_dropped = "lines_dropped";
        /// Flushes that were not printed because standard output did not take them in time. If this
        /// grows, check the program that reads it, or take "console" out of statsd.output.
        console_dropped = "console_dropped";
        /// Attempts to reach a remote output that failed. If this grows, check that server and
        /// statsd.output.
        output_errors = "output_errors";
        /// Packets that could not be repeated. If this grows, check the servers in statsd.repeater.
        repeater_dropped = "repeater_dropped";
        /// Lines of the state that the server before this one saved which could not be read. If this is
        /// not 0, check the disk; the log has the file and the line.
        state_unread = "state_lines_unread";
        /// Intervals flushed. If this stops growing, the aggregator hangs: look at the log and
        /// restart.
        flushes = "flushes";
        /// Values in all flushes. For information only.
        lines_flushed = "lines_flushed";
        beside {
            /// Unix seconds of the last packet; 0 before the first.
            pub last_packet: Counter;
            /// Unix seconds of the last failed attempt to reach a remote output; 0 if none failed.
            pub last_output_error: Counter;
            reasons: [Counter; Reject::COUNT];
            logged: AtomicU32;
            senders: Mutex<Senders>;
            /// Packets that could not be repeated, by the server that did not get them.
            repeater_targets: Mutex<Vec<(String, Arc<Counter>)>>;
        }
    }
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
        self.bad_lines.add(1);
        self.reasons[reason as usize].add(1);
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
                let count = self.reasons[*reason as usize].get();
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

    /// What counts the packets that could not be repeated to a server.
    pub(crate) fn repeater_target(&self, name: &str) -> Arc<Counter> {
        let dropped = Arc::<Counter>::default();
        let mut targets = self.repeater_targets.lock();
        targets.push((name.to_owned(), dropped.clone()));
        dropped
    }

    /// [`Stats::readings`], with a count of bad lines for each reason, and one of dropped packets for
    /// each server that packets are repeated to.
    pub fn all_readings(&self) -> Vec<Reading> {
        let help = "Bad lines of this kind. If this grows, the management command bad_lines names \
                    the senders.";
        let mut readings = self.readings();
        readings.extend(
            self.bad_lines_by_reason()
                .into_iter()
                .map(|(reason, count)| {
                    Reading::count("statsd", format!("bad_lines.{reason}"), help, count)
                }),
        );
        let help = "Packets that could not be repeated to this server. If this grows, check it.";
        let targets = self.repeater_targets.lock();
        readings.extend(targets.iter().map(|(target, dropped)| {
            Reading::count("statsd", "repeater_dropped.target", help, dropped.get())
                .labelled("target", target)
        }));
        readings
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
