//! What can be set, with the defaults of the reference where it has them.
//!
//! Names follow the reference in snake case (`flushInterval` is `flush_interval`), with the
//! `graphite` section flattened (`graphite.globalPrefix` is `global_prefix`).

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use settings::options::{Checked, addresses, at_least, between};
use settings::{ByteSize, Key, Span, Step, UnitError};
use std::fmt;
use std::str::FromStr;

settings::options! {
    /// `[statsd]`.
    #[derive(PartialEq)]
    pub struct Options {
        /// Addresses to receive datagrams on, IPv4 or IPv6. An address that is listed twice gets two
        /// sockets, each with its own thread.
        udp: Vec<String> = vec!["127.0.0.1:8125".to_owned()] => addresses("127.0.0.1:8125");
        /// Addresses to receive lines on over TCP.
        tcp: Vec<String> = Vec::new() => addresses("127.0.0.1:8125");
        /// Paths of Unix datagram sockets.
        unix: Vec<String> = Vec::new();
        /// Paths of Unix stream sockets, for lines.
        unix_stream: Vec<String> = Vec::new();
        /// File mode of the Unix sockets in octal, such as "0660". Empty: as the umask has it.
        unix_mode: String = String::new() => check_mode;
        /// Addresses of the management interface (stats, counters, delgauges, health, ...).
        admin: Vec<String> = vec!["127.0.0.1:8126".to_owned()] => addresses("127.0.0.1:8126");
        /// Receive buffer of each datagram socket: SO_RCVBUFFORCE beyond net.core.rmem_max where the
        /// process has CAP_NET_ADMIN, otherwise SO_RCVBUF. The log says what the kernel granted. It
        /// takes memory only while datagrams wait. "0B": the system's default.
        receive_buffer: ByteSize = ByteSize(16 << 20) => between(ByteSize(0), ByteSize(1 << 30));
        /// Longest pause after a read that found few datagrams, so that one wake-up takes many.
        /// Shortened to what the receive buffer holds. "0s": never pause.
        receive_pause: Span = Span::millis(2);
        /// Let the kernel coalesce datagrams of one size (UDP_GRO) where it can.
        receive_gro: bool = true;

        /// Length of an interval. Intervals are aligned to the clock: "10s" ends at :00, :10, :20, ...
        flush_interval: Span = Span::seconds(10)
            => between(Span::millis(1), Span::seconds(86_400));
        /// Which end of the interval is the timestamp of a flushed value: "end", as the reference
        /// does, or "start".
        timestamp: Stamp = Stamp::End;
        /// Where flushes go, several at once: "embedded" (this server's own store),
        /// "tcp://HOST:2003", "pickle://HOST:2004", "console", "discard".
        output: Vec<Output> = vec![Output::Embedded] => check_outputs;
        /// Memory for data that waits for each remote output while it is slow or unreachable. When it
        /// is full, the oldest flushes are dropped and counted.
        output_queue: ByteSize = ByteSize(16 << 20) => at_least(ByteSize(64 << 10));
        /// Longest wait between two attempts to reach a remote output; the first wait is 250ms, and
        /// each doubles.
        output_backoff: Span = Span::seconds(10);
        /// Print all levels of the console output (histograms, too), in colours.
        console_prettyprint: bool = false;

        /// Percentiles of timers, numbers from -100 to 100: 90 gives upper_90, mean_90, sum_90, ...;
        /// -10 gives lower_top10, .... Empty: none.
        percentiles: Percentiles = Percentiles(vec![90.0]);
        /// Flush the count of each counter beside its rate.
        flush_counts: bool = true;
        /// Default of the next four keys. true: flush nothing for names that had no samples; false:
        /// repeat zeros, and gauges.
        delete_idle_stats: bool = false;
        /// Forget counters after each flush: true, false, or "idle" for what delete_idle_stats says.
        delete_counters: Choice = Choice::Idle;
        /// Forget timers after each flush: true, false, or "idle" for what delete_idle_stats says.
        delete_timers: Choice = Choice::Idle;
        /// Forget sets after each flush: true, false, or "idle" for what delete_idle_stats says.
        delete_sets: Choice = Choice::Idle;
        /// Forget gauges that were not updated for gauges_max_ttl flushes: true, false, or "idle" for
        /// what delete_idle_stats says.
        delete_gauges: Choice = Choice::Idle;
        /// For how many flushes a gauge is repeated after its last update, where gauges are deleted.
        gauges_max_ttl: u32 = 1 => at_least(1);
        /// Histograms of timers: the first entry whose metric is part of the timer's name gives the
        /// upper bounds of the bins, as in `[{metric = "render", bins = [1, 10, "inf"]}]`.
        histogram: Vec<Histogram> = Vec::new() => check_bins;
        /// Statistics of timers to flush, such as `["count", "median", "upper_percent", "histogram"]`.
        /// Empty: all.
        calculated_timer_metrics: Vec<String> = Vec::new() => check_statistics;
        /// Flush DogStatsD's distributions (letter d) as a type of their own: count, sum, avg, min, max,
        /// p50, p75, p90, p95 and p99 below stats.distributions.NAME. false: flush them as timers.
        distributions: bool = false;
        /// Samples per timer and interval up to which percentiles, median and histogram are exact;
        /// beyond, they are within 0.1 %. Count, sum, mean, std, lower and upper are always exact.
        timer_exact_samples: u32 = 10_000 => at_least(1);
        /// Memory for the samples of timers in an interval. When it is full, further samples count in
        /// everything but percentiles, median and histogram.
        timer_memory: ByteSize = ByteSize(256 << 20) => at_least(ByteSize(64 << 10));

        /// Reduce names and tags to A-Z a-z 0-9 _ . - (a space becomes _, a / becomes -). false keeps
        /// tags as they are sent.
        key_name_sanitize: bool = true;
        /// First part of the names of the server's own metrics.
        prefix_stats: String = "statsd".to_owned() => check_name_part;
        /// Name series as StatsD does by default (stats.NAME, stats_counts.NAME,
        /// stats.timers.NAME.*). false: use the prefixes below.
        legacy_namespace: bool = true;
        /// First part of all names, if legacy_namespace is false.
        global_prefix: String = "stats".to_owned() => check_name_part;
        /// Second part of the names of counters, if legacy_namespace is false.
        prefix_counter: String = "counters".to_owned() => check_name_part;
        /// Second part of the names of timers, if legacy_namespace is false.
        prefix_timer: String = "timers".to_owned() => check_name_part;
        /// Second part of the names of gauges, if legacy_namespace is false.
        prefix_gauge: String = "gauges".to_owned() => check_name_part;
        /// Second part of the names of sets, if legacy_namespace is false.
        prefix_set: String = "sets".to_owned() => check_name_part;
        /// Last part of all names. Empty: none.
        global_suffix: String = String::new() => check_name_part;

        /// Addresses of other StatsD servers that get a copy of every packet.
        repeater: Vec<String> = Vec::new() => addresses("192.0.2.1:8125");
        /// How packets are repeated: "udp4", "udp6" or "tcp".
        repeater_protocol: RepeaterProtocol = RepeaterProtocol::Udp4;
        /// Store DogStatsD's _e{...} events and _sc service checks as events. false: count them as bad
        /// lines, as the reference does.
        events: bool = true;

        /// Most names kept; samples of further names are dropped and counted in names_refused. Names
        /// of values that are stored by themselves (kv, r, |T) count until they had none for eight
        /// intervals. 0: no limit.
        max_names: u64 = 5_000_000;
        /// Most new names within one interval. 0: no limit.
        max_new_names: u64 = 0;
        /// Most names with one prefix; the first refused name of each prefix is logged. 0: no limit.
        max_names_per_prefix: u64 = 0;
        /// How many leading nodes of a name are the prefix for max_names_per_prefix.
        prefix_nodes: u32 = 2 => at_least(1);
        /// Longest name in bytes with its tags, at most 65000; a line with a longer one is a bad line.
        /// Longer members of sets are dropped and counted in members_refused.
        max_name_length: u32 = 1_024 => between(1, 65_000);
        /// Most connections at once: to tcp and unix_stream together, and to admin. At the limit, the
        /// connection that has been silent longest is closed for a new one; while all are sending, the
        /// new one is closed and counted in connections_refused. 0: no limit.
        max_connections: u32 = 4_096;

        /// How often the busiest names are written to key_flush_log. "0s": never.
        key_flush_interval: Span = Span::seconds(0);
        /// Which share of the names is written then, in percent, the busiest first.
        key_flush_percent: f64 = 100.0 => check_percent;
        /// File to append the busiest names to. Empty: the log.
        key_flush_log: String = String::new();
        /// Log every packet.
        dump_messages: bool = false;
        /// What the management interface's health command answers after a start: "up" or "down".
        health_status: Health = Health::Up;

        beside {
            /// Whether the server's own metrics are flushed, as `stats.self` says.
            self_metrics: bool = true;
        }
    }
}

/// Every key of `[statsd]`, in the order in which they are printed.
pub const KEYS: &[Key] = Options::KEYS;

/// The statistics that `calculated_timer_metrics` can name.
const STATISTICS: &[&str] = &[
    "count",
    "count_percent",
    "count_ps",
    "histogram",
    "lower",
    "lower_percent",
    "mean",
    "mean_percent",
    "median",
    "std",
    "sum",
    "sum_percent",
    "sum_squares",
    "sum_squares_percent",
    "upper",
    "upper_percent",
];

fn check_mode(mode: &str, checked: &mut Checked<'_>) {
    let octal = mode.len() <= 4 && mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    if !(octal && u32::from_str_radix(mode, 8).map_or(mode.is_empty(), |mode| mode <= 0o777)) {
        let wrong = format!("{mode:?} is not a file mode in octal");
        checked.refuse(wrong, "\"0660\"");
    }
}

fn check_outputs(outputs: &[Output], checked: &mut Checked<'_>) {
    for (n, output) in outputs.iter().enumerate() {
        if let Output::Tcp(address) | Output::Pickle(address) = output
            && !settings::is_address(address)
        {
            let wrong = format!("\"{output}\" names no host and port");
            checked.refuse_item(n, wrong, "\"tcp://192.0.2.1:2003\"");
        }
        if outputs[..n].contains(output) {
            checked.say_at([Step::Item(n)], format!("\"{output}\" is listed twice"));
        }
    }
}

fn check_statistics(names: &[String], checked: &mut Checked<'_>) {
    for (n, name) in names.iter().enumerate() {
        if !STATISTICS.contains(&name.as_str()) {
            let wrong = format!("{name:?} is not a statistic of timers");
            let accepted = match settings::nearest(name, STATISTICS) {
                Some(near) => format!("{near:?}"),
                None => format!("some of {}", STATISTICS.join(", ")),
            };
            checked.refuse_item(n, wrong, &accepted);
        }
    }
}

fn check_bins(histograms: &[Histogram], checked: &mut Checked<'_>) {
    for (n, Histogram { bins, .. }) in histograms.iter().enumerate() {
        let ascend = bins.is_sorted_by(|Bound(below), Bound(above)| below < above);
        if !ascend || bins.iter().any(|Bound(bound)| bound.is_nan()) {
            let path = [Step::Item(n), Step::Key("bins".to_owned())];
            let message = "the bins are not in ascending order, write [1, 10, 100, \"inf\"]";
            checked.say_at(path, message);
        }
    }
}

/// What goes in front of and behind the names of series.
fn check_name_part(name: &str, checked: &mut Checked<'_>) {
    let bad = |c: char| c.is_whitespace() || c.is_control() || "/;:|".contains(c);
    let empty_node = !name.is_empty() && name.split('.').any(str::is_empty);
    if name.len() > 200 || name.contains(bad) || empty_node {
        let wrong = format!("{name:?} cannot be part of a series' name");
        checked.refuse(wrong, "letters, digits, \"_\", \"-\" and single dots");
    }
}

fn check_percent(percent: &f64, checked: &mut Checked<'_>) {
    if !(*percent > 0.0 && *percent <= 100.0) {
        let wrong = format!("{percent} is not a percentage");
        checked.refuse(wrong, "a number above 0 and up to 100");
    }
}

/// Which end of its interval a flushed value carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stamp {
    /// The end, as in the reference.
    #[default]
    End,
    /// The start of the interval.
    Start,
}

/// An answer to "is it healthy".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Send traffic here.
    #[default]
    Up,
    /// Do not.
    Down,
}

/// How packets are repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RepeaterProtocol {
    /// Datagrams over IPv4.
    #[default]
    Udp4,
    /// Datagrams over IPv6.
    Udp6,
    /// A stream, each packet ended by a line feed.
    Tcp,
}

/// Yes, no, or the value of `delete_idle_stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The value of `delete_idle_stats`; written `"idle"`.
    #[default]
    Idle,
    /// Written `true`.
    Yes,
    /// Written `false`.
    No,
}

impl Choice {
    /// The answer, given that of `delete_idle_stats`.
    pub fn or(self, idle: bool) -> bool {
        match self {
            Self::Idle => idle,
            Self::Yes => true,
            Self::No => false,
        }
    }
}

impl Serialize for Choice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Idle => serializer.serialize_str("idle"),
            Self::Yes => serializer.serialize_bool(true),
            Self::No => serializer.serialize_bool(false),
        }
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Answer;
        impl Visitor<'_> for Answer {
            type Value = Choice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or \"idle\"")
            }

            fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Choice, E> {
                Ok(if yes { Choice::Yes } else { Choice::No })
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Choice, E> {
                match text {
                    "idle" => Ok(Choice::Idle),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Answer)
    }
}

/// Thresholds of timers in percent, in the order in which they are flushed.
#[derive(Clone, Debug, PartialEq)]
pub struct Percentiles(pub Vec<f64>);

impl Serialize for Percentiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for &threshold in &self.0 {
            if threshold.fract() == 0.0 && threshold.abs() <= 100.0 {
                list.serialize_element(&(threshold as i64))?;
            } else {
                list.serialize_element(&threshold)?;
            }
        }
        list.end()
    }
}

/// A number, or text that is one.
struct Threshold(f64);

impl<'de> Deserialize<'de> for Threshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Threshold;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from -100 to 100")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Threshold, E> {
                if (-100.0..=100.0).contains(&number) {
                    Ok(Threshold(number))
                } else {
                    Err(E::invalid_value(de::Unexpected::Float(number), &self))
                }
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Threshold, E> {
                self.visit_f64(number as f64)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Threshold, E> {
                self.visit_f64(number as f64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Threshold, E> {
                match f64::from_str(text.trim()) {
                    Ok(number) => self.visit_f64(number),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Number)
    }
}

impl<'de> Deserialize<'de> for Percentiles {
    /// One threshold or a list; as in the reference a lone 0 means 90.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Percentiles;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a threshold or a list of thresholds from -100 to 100")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Percentiles, A::Error> {
                let mut thresholds = Vec::new();
                while let Some(Threshold(number)) = list.next_element()? {
                    thresholds.push(number);
                }
                Ok(Percentiles(thresholds))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Percentiles, E> {
                let Threshold(number) =
                    Threshold::deserialize(de::value::F64Deserializer::new(number))?;
                Ok(Percentiles(vec![if number == 0.0 { 90.0 } else { number }]))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Percentiles, E> {
                self.visit_f64(number as f64)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Percentiles, E> {
                self.visit_f64(number as f64)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Percentiles, E> {
                let Threshold(number) =
                    Threshold::deserialize(de::value::StrDeserializer::new(text))?;
                self.visit_f64(number)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// Bins for the timers whose name contains `metric`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// Part of the timer's name; empty matches all.
    pub metric: String,
    /// Exclusive upper bounds, ascending; none switches histograms off.
    pub bins: Vec<Bound>,
}

/// The exclusive upper bound of a bin; `"inf"` for none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound(pub f64);

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_infinite() {
            serializer.serialize_str("inf")
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Number;
        impl Visitor<'_> for Number {
            type Value = Bound;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or \"inf\"")
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Bound, E> {
                Ok(Bound(number))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Bound, E> {
                Ok(Bound(number as f64))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Bound, E> {
                Ok(Bound(number as f64))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Bound, E> {
                match (text, f64::from_str(text)) {
                    ("inf", _) => Ok(Bound(f64::INFINITY)),
                    (_, Ok(number)) if number.is_finite() => Ok(Bound(number)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Number)
    }
}

/// Where flushes go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Into the carbon of this process, by series id.
    Embedded,
    /// Lines to a carbon elsewhere.
    Tcp(String),
    /// Pickles to a carbon elsewhere.
    Pickle(String),
    /// To standard output, as an object.
    Console,
    /// Nowhere.
    Discard,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Pickle(address) => write!(f, "pickle://{address}"),
            Self::Console => f.write_str("console"),
            Self::Discard => f.write_str("discard"),
        }
    }
}

impl FromStr for Output {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || {
            let accepted = "\"embedded\", \"tcp://HOST:2003\", \"pickle://HOST:2004\", \
                            \"console\" or \"discard\"";
            UnitError::new(text, "an output", accepted)
        };
        let address = |rest: &str, port: u16| {
            if rest.is_empty() || rest.contains('/') {
                return Err(refuse());
            }
            let has_port = rest
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
                && !(rest.starts_with('[') && rest.ends_with(']'));
            Ok(if has_port {
                rest.to_owned()
            } else {
                format!("{rest}:{port}")
            })
        };
        Ok(match text {
            "embedded" => Self::Embedded,
            "console" => Self::Console,
            "discard" => Self::Discard,
            _ => match text.split_once("://") {
                Some(("tcp", rest)) => Self::Tcp(address(rest, 2003)?),
                Some(("pickle", rest)) => Self::Pickle(address(rest, 2004)?),
                _ => return Err(refuse()),
            },
        })
    }
}

settings::text!(Output, "an output", "tcp://HOST:{}");

#[cfg(test)]
mod tests;
