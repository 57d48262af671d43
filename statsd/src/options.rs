//! What can be set, with the defaults of the reference where it has them.
//!
//! Names follow the reference in snake case (`flushInterval` is `flush_interval`), with the
//! `graphite` section flattened (`graphite.globalPrefix` is `global_prefix`).

use carbon::options::{ByteSize, Key, Span};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// `[statsd]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// UDP addresses; one listed twice gets two sockets.
    pub udp: Vec<String>,
    /// TCP addresses for lines.
    pub tcp: Vec<String>,
    /// Paths of Unix datagram sockets.
    pub unix: Vec<String>,
    /// Paths of Unix stream sockets for lines.
    pub unix_stream: Vec<String>,
    /// File mode of the Unix sockets in octal; empty keeps what the umask gives.
    pub unix_mode: String,
    /// TCP addresses of the management interface.
    pub admin: Vec<String>,
    /// `SO_RCVBUF` of datagram sockets; 0 leaves the system's default.
    pub receive_buffer: ByteSize,
    /// Longest pause after a short read; 0 never pauses.
    pub receive_pause: Span,
    /// Whether UDP sockets ask the kernel to coalesce datagrams (`UDP_GRO`).
    pub receive_gro: bool,

    /// Length of an interval.
    pub flush_interval: Span,
    /// Which end of the interval its lines carry.
    pub timestamp: Stamp,
    /// Outputs of a flush.
    pub output: Vec<Output>,
    /// Bytes that may wait for a remote output.
    pub output_queue: ByteSize,
    /// Longest wait between attempts to reach a remote output.
    pub output_backoff: Span,
    /// Whether the console output shows all levels of its object, in colours.
    pub console_prettyprint: bool,

    /// Thresholds of timers; negative ones from the top.
    pub percentiles: Percentiles,
    /// Whether counters have a count line beside their rate.
    pub flush_counts: bool,
    /// Default of the next four.
    pub delete_idle_stats: bool,
    /// Whether counters without samples are forgotten.
    pub delete_counters: Choice,
    /// Whether timers without samples are forgotten.
    pub delete_timers: Choice,
    /// Whether sets without members are forgotten.
    pub delete_sets: Choice,
    /// Whether gauges are forgotten after `gauges_max_ttl` flushes without an update.
    pub delete_gauges: Choice,
    /// Flushes a gauge lives on after its last update, if gauges are deleted.
    pub gauges_max_ttl: u32,
    /// Histogram bins by substring of the name.
    pub histogram: Vec<Histogram>,
    /// Statistics of timers to keep; empty keeps all.
    pub calculated_timer_metrics: Vec<String>,
    /// Whether `d` is a type of its own.
    pub distributions: bool,
    /// Samples per timer and interval up to which percentiles are exact.
    pub timer_exact_samples: u32,
    /// Memory for samples of timers.
    pub timer_memory: ByteSize,

    /// Whether names and tags are reduced to safe characters.
    pub key_name_sanitize: bool,
    /// First part of the names of the server's own metrics.
    pub prefix_stats: String,
    /// Whether names are built as the reference does by default.
    pub legacy_namespace: bool,
    /// First part of all names in the new namespace.
    pub global_prefix: String,
    /// Second part of counters' names in the new namespace.
    pub prefix_counter: String,
    /// Second part of timers' names in the new namespace.
    pub prefix_timer: String,
    /// Second part of gauges' names in the new namespace.
    pub prefix_gauge: String,
    /// Second part of sets' names in the new namespace.
    pub prefix_set: String,
    /// Last part of all names.
    pub global_suffix: String,

    /// Packets go unchanged to these servers as well.
    pub repeater: Vec<String>,
    /// How packets are repeated.
    pub repeater_protocol: RepeaterProtocol,
    /// Whether `_e` and `_sc` lines become events.
    pub events: bool,

    /// Most names kept; 0 disables the limit.
    pub max_names: u64,
    /// Most names first seen in one interval; 0 disables the limit.
    pub max_new_names: u64,
    /// Most names below one prefix; 0 disables the limit.
    pub max_names_per_prefix: u64,
    /// Nodes of a name that make its prefix for `max_names_per_prefix`.
    pub prefix_nodes: u32,
    /// Longest name in bytes, tags included.
    pub max_name_length: u32,
    /// Most connections at once, of streams and of the management interface each; 0 disables the limit.
    pub max_connections: u32,

    /// How often the busiest names are written out; 0 never.
    pub key_flush_interval: Span,
    /// Which share of the names is written out, in percent.
    pub key_flush_percent: f64,
    /// File that they are appended to; empty is the log.
    pub key_flush_log: String,
    /// Whether every packet is logged.
    pub dump_messages: bool,
    /// Health reported at the start.
    pub health_status: Health,
    /// Whether the server's own metrics are flushed; set from `stats.self`, not a key of this section.
    #[serde(skip, default = "yes")]
    pub self_metrics: bool,
}

fn yes() -> bool {
    true
}

impl Default for Options {
    fn default() -> Self {
        Self {
            udp: vec!["127.0.0.1:8125".to_owned()],
            tcp: Vec::new(),
            unix: Vec::new(),
            unix_stream: Vec::new(),
            unix_mode: String::new(),
            admin: vec!["127.0.0.1:8126".to_owned()],
            receive_buffer: ByteSize(16 << 20),
            receive_pause: Span::millis(2),
            receive_gro: true,
            flush_interval: Span::seconds(10),
            timestamp: Stamp::End,
            output: vec![Output::Embedded],
            output_queue: ByteSize(16 << 20),
            output_backoff: Span::seconds(10),
            console_prettyprint: false,
            percentiles: Percentiles(vec![90.0]),
            flush_counts: true,
            delete_idle_stats: false,
            delete_counters: Choice::Idle,
            delete_timers: Choice::Idle,
            delete_sets: Choice::Idle,
            delete_gauges: Choice::Idle,
            gauges_max_ttl: 1,
            histogram: Vec::new(),
            calculated_timer_metrics: Vec::new(),
            distributions: false,
            timer_exact_samples: 10_000,
            timer_memory: ByteSize(256 << 20),
            key_name_sanitize: true,
            prefix_stats: "statsd".to_owned(),
            legacy_namespace: true,
            global_prefix: "stats".to_owned(),
            prefix_counter: "counters".to_owned(),
            prefix_timer: "timers".to_owned(),
            prefix_gauge: "gauges".to_owned(),
            prefix_set: "sets".to_owned(),
            global_suffix: String::new(),
            repeater: Vec::new(),
            repeater_protocol: RepeaterProtocol::Udp4,
            events: true,
            max_names: 5_000_000,
            max_new_names: 0,
            max_names_per_prefix: 0,
            prefix_nodes: 2,
            max_name_length: 1_024,
            max_connections: 4_096,
            key_flush_interval: Span::seconds(0),
            key_flush_percent: 100.0,
            key_flush_log: String::new(),
            dump_messages: false,
            health_status: Health::Up,
            self_metrics: true,
        }
    }
}

macro_rules! keys {
    ($($name:literal: $help:literal,)*) => {
        &[$(Key { name: $name, help: $help },)*]
    };
}

/// Every key of `[statsd]`, in the order in which they are printed.
pub const KEYS: &[Key] = keys! {
    "udp": "Addresses that receive datagrams, IPv4 or IPv6. An address that is listed several times gets several sockets, each with its own thread.",
    "tcp": "Addresses that receive lines over TCP.",
    "unix": "Paths of Unix datagram sockets.",
    "unix_stream": "Paths of Unix stream sockets that receive lines.",
    "unix_mode": "File mode of the Unix sockets in octal, such as \"0660\"; empty keeps what the umask gives.",
    "admin": "Addresses of the management interface (stats, counters, delgauges, health, ...).",
    "receive_buffer": "Receive buffer of each datagram socket. With CAP_NET_ADMIN it may exceed net.core.rmem_max (SO_RCVBUFFORCE, otherwise SO_RCVBUF). The log has the size that the kernel granted. The buffer takes memory only while datagrams wait. 0 keeps the system's default.",
    "receive_pause": "Longest pause after a read that found few datagrams, so that one wake-up reads many. It is shortened to what the receive buffer can hold. 0s disables pauses.",
    "receive_gro": "Ask the kernel to deliver runs of equally long datagrams as one (UDP_GRO).",
    "flush_interval": "Length of an interval. Intervals are aligned to the clock: 10s ends at :00, :10, :20, ...",
    "timestamp": "Which end of its interval a flushed value carries: \"end\" as the reference does, or \"start\".",
    "output": "Outputs of a flush, several at once: \"embedded\", \"tcp://host:2003\", \"pickle://host:2004\", \"console\", \"discard\".",
    "output_queue": "Bytes that may wait for each remote output while it is slow or unreachable. Beyond it the oldest flushes are dropped and counted in lines_dropped.",
    "output_backoff": "Longest wait between two attempts to reach a remote output. The first wait is 250ms, and each doubles.",
    "console_prettyprint": "Print all levels of the console output, histograms included, in colours.",
    "percentiles": "Thresholds of timers, numbers from -100 to 100: 90 gives upper_90, mean_90, sum_90, ...; -10 gives lower_top10, .... Empty gives none.",
    "flush_counts": "Flush the count of each counter as well as its rate.",
    "delete_idle_stats": "Default of the next four keys. true flushes nothing for names without samples in the interval, false repeats zeros (and gauges).",
    "delete_counters": "Forget counters after each flush: true, false, or \"idle\" for the value of delete_idle_stats.",
    "delete_timers": "Forget timers after each flush: true, false, or \"idle\" for the value of delete_idle_stats.",
    "delete_sets": "Forget sets after each flush: true, false, or \"idle\" for the value of delete_idle_stats.",
    "delete_gauges": "Forget gauges that were not updated for gauges_max_ttl flushes: true, false, or \"idle\" for the value of delete_idle_stats.",
    "gauges_max_ttl": "Flushes that repeat a gauge after its last update, if gauges are deleted; at least 1.",
    "histogram": "Bins by name: the first entry whose metric is part of the timer's name gives its upper bounds, as in [{metric = \"render\", bins = [1, 10, \"inf\"]}].",
    "calculated_timer_metrics": "Statistics of timers to flush, such as [\"count\", \"median\", \"upper_percent\", \"histogram\"]; empty flushes all.",
    "distributions": "Flush DogStatsD's distributions (letter d) as a type of their own: count, sum, avg, min, max, p50, p75, p90, p95 and p99 below stats.distributions.NAME. false flushes them as timers.",
    "timer_exact_samples": "Samples per timer and interval up to which percentiles, median and histogram are exact; beyond it they are within 0.1 %. Count, sum, mean, std, lower and upper are always exact.",
    "timer_memory": "Memory for samples of timers in an interval. Beyond it further samples are left out of percentiles, median and histogram, and counted in samples_unranked.",
    "key_name_sanitize": "Reduce names and tags to A-Z a-z 0-9 _ . - (blanks become _, / becomes -). false keeps tags as they are sent.",
    "prefix_stats": "First part of the names of the server's own metrics.",
    "legacy_namespace": "Name series as StatsD does by default (stats.NAME, stats_counts.NAME, stats.timers.NAME.*); false uses the prefixes below.",
    "global_prefix": "First part of all names where legacy_namespace is false.",
    "prefix_counter": "Second part of the names of counters where legacy_namespace is false.",
    "prefix_timer": "Second part of the names of timers where legacy_namespace is false.",
    "prefix_gauge": "Second part of the names of gauges where legacy_namespace is false.",
    "prefix_set": "Second part of the names of sets where legacy_namespace is false.",
    "global_suffix": "Last part of all names; may be empty.",
    "repeater": "Addresses of other StatsD servers that receive a copy of every packet.",
    "repeater_protocol": "Protocol of the repeater: \"udp4\", \"udp6\" or \"tcp\".",
    "events": "Store DogStatsD's _e{...} events and _sc service checks as events; false counts them as bad lines, as the reference does.",
    "max_names": "Most names kept; samples of further ones are counted in names_refused. 0 disables the limit.",
    "max_new_names": "Most names first seen within one interval; 0 disables the limit.",
    "max_names_per_prefix": "Most names with one prefix; the first refused one of each prefix is logged. 0 disables the limit.",
    "prefix_nodes": "How many leading nodes of a name make the prefix for max_names_per_prefix.",
    "max_name_length": "Longest name in bytes with its tags, at most 65000; longer ones are bad lines.",
    "max_connections": "Most connections at once: to tcp and unix_stream together, and to admin. Further ones are closed at once and counted in connections_refused. 0 disables the limit.",
    "key_flush_interval": "Interval between two lists of the busiest names; 0s disables them.",
    "key_flush_percent": "Share of the names in such a list, in percent, the busiest first.",
    "key_flush_log": "File that the lists are appended to; empty writes them to the log.",
    "dump_messages": "Log every packet.",
    "health_status": "Answer of the management interface's health command after the start: \"up\" or \"down\".",
};

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

/// Bins for the timers whose name holds `metric`.
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
    type Err = OutputError;

    fn from_str(text: &str) -> Result<Self, OutputError> {
        let refuse = || OutputError(text.to_owned());
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

/// Why an output was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an output; known are \"embedded\", \"tcp://host:2003\", \"pickle://host:2004\", \"console\" or \"discard\""
)]
pub struct OutputError(String);

impl Serialize for Output {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Output {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
