//! Options as operators write them: durations like `"10s"` and sizes like `"64MiB"`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time, written as a number and a unit: `"200ms"`, `"10s"`, `"1m"`, `"6h"`, `"7d"`,
/// `"1w"`, `"1y"` (365 days), or several together (`"1h30m"`). `"0s"` usually means "none".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes, written `"512"`, `"64KiB"`, `"512MiB"`, `"1GiB"` (or `kB`, `MB`, `GB` by
/// thousands).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Why a duration or a size was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct UnitError {
    text: String,
    expected: &'static str,
}

const SPAN: &str = "a duration such as \"200ms\", \"10s\", \"5m\", \"6h\" or \"7d\"";
const SIZE: &str = "a size such as \"64KiB\", \"512MiB\" or \"1GiB\"";

impl Span {
    /// A span of whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A span of milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }
}

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || UnitError {
            text: text.to_owned(),
            expected: SPAN,
        };
        let mut rest = text.trim();
        let mut total = Duration::ZERO;
        if rest.is_empty() {
            return Err(refuse());
        }
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .ok_or_else(refuse)?;
            let number: u64 = rest[..digits].parse().map_err(|_| refuse())?;
            rest = &rest[digits..];
            let letters = rest
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(rest.len());
            let unit_ms = match &rest[..letters] {
                "ms" => 1,
                "s" => 1_000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                "w" => 7 * 86_400_000,
                "y" => 365 * 86_400_000,
                _ => return Err(refuse()),
            };
            let part = number.checked_mul(unit_ms).ok_or_else(refuse)?;
            total = total
                .checked_add(Duration::from_millis(part))
                .ok_or_else(refuse)?;
            rest = &rest[letters..];
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0.as_millis();
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, name) in [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1_000, "s"),
            (1, "ms"),
        ] {
            if ms >= unit {
                write!(f, "{}{name}", ms / unit)?;
                ms %= unit;
            }
        }
        Ok(())
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let refuse = || UnitError {
            text: text.to_owned(),
            expected: SIZE,
        };
        let text_trimmed = text.trim();
        let digits = text_trimmed
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text_trimmed.len());
        let number: u64 = text_trimmed[..digits].parse().map_err(|_| refuse())?;
        let unit: u64 = match text_trimmed[digits..].trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            "kB" | "KB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(refuse()),
        };
        number.checked_mul(unit).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, name) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if self.0 >> shift > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(f, "{}{name}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

macro_rules! text_serde {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
text_serde!(Span);
text_serde!(ByteSize);
text_serde!(Sync);

/// One configuration key: its dotted name within its section, and the comment that
/// `plumbago config` prints above it.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name below the section, for example `flush_interval` in `[statsd]`.
    pub name: &'static str,
    /// One or two sentences: meaning, unit, what 0 or empty means.
    pub help: &'static str,
}

/// Which series the persister writes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteStrategy {
    /// Each series once per pass, those with the most points first (carbon's default).
    #[default]
    Sorted,
    /// After every few series, those with the most points at that moment: the fewest updates per
    /// point, but a series with few points may wait long.
    Max,
    /// Each series once per pass, the one that has waited longest first.
    TimeSorted,
    /// Each series once per pass, in the order in which the series were first seen: files that
    /// were made together are written together.
    Naive,
}

/// `[carbon]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Addresses that take lines over TCP.
    pub line_tcp: Vec<String>,
    /// Addresses that take lines in datagrams.
    pub line_udp: Vec<String>,
    /// The tree of whisper files; empty: `whisper` in the data directory.
    pub whisper_dir: String,
    /// Files written per second at most; 0: no limit.
    pub max_updates_per_second: u32,
    /// Files created per minute at most; 0: no limit.
    pub max_creates_per_minute: u32,
    /// Which series are written first.
    pub write_strategy: WriteStrategy,
    /// Memory for datapoints that are not in their files yet.
    pub max_cache_size: ByteSize,
    /// Take whisper's file lock around writes.
    pub flock: bool,
    /// TCP connections per listener at most; 0: no limit.
    pub max_connections: u32,
    /// A TCP connection that sends nothing for this long is closed; 0s: never.
    pub idle_timeout: Span,
    /// Series at most; 0: no limit.
    pub max_series: u64,
    /// Series with one prefix at most; 0: no limit.
    pub max_series_per_prefix: u64,
    /// Nodes of a name that make its prefix.
    pub prefix_nodes: u32,
    /// Series first seen within a minute at most; 0: no limit.
    pub max_new_series_per_minute: u64,
    /// Series without a point for this long are removed; 0s: never.
    pub expire_after: Span,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            line_tcp: vec!["127.0.0.1:2003".to_owned()],
            line_udp: vec!["127.0.0.1:2003".to_owned()],
            whisper_dir: String::new(),
            max_updates_per_second: 0,
            max_creates_per_minute: 0,
            write_strategy: WriteStrategy::default(),
            max_cache_size: ByteSize(512 << 20),
            flock: false,
            max_connections: 10_000,
            idle_timeout: Span::seconds(3_600),
            max_series: 0,
            max_series_per_prefix: 0,
            prefix_nodes: 2,
            max_new_series_per_minute: 0,
            expire_after: Span::seconds(0),
        }
    }
}

/// The keys of `[carbon]`.
pub const KEYS: &[Key] = &[
    Key {
        name: "line_tcp",
        help: "Addresses that take Graphite's lines (\"path value timestamp\") over TCP; an empty list turns it off.",
    },
    Key {
        name: "line_udp",
        help: "Addresses that take the same lines in datagrams, several to a datagram.",
    },
    Key {
        name: "whisper_dir",
        help: "An existing tree of whisper files to use in place. Empty: \"whisper\" in the data directory.",
    },
    Key {
        name: "max_updates_per_second",
        help: "Files written per second at most; what waits stays in the cache. 0: no limit.",
    },
    Key {
        name: "max_creates_per_minute",
        help: "Files created per minute at most. New series wait in the cache, can be queried there, and lose nothing. 0: no limit.",
    },
    Key {
        name: "write_strategy",
        help: "Which series are written first: \"sorted\" (each once per pass, most points first), \"max\" (always those with the most points), \"timesorted\" (longest waiting first), \"naive\" (in the order of their ids).",
    },
    Key {
        name: "max_cache_size",
        help: "Memory for datapoints that are not in their files yet. When it is full, TCP is not read until there is room again, and datagrams are dropped and counted.",
    },
    Key {
        name: "flock",
        help: "Take whisper's file lock (flock) around writes, for other programs that write the same files.",
    },
    Key {
        name: "max_connections",
        help: "TCP connections per address of line_tcp at most. When there are as many, the connection that has been silent longest is closed for the next one; a new connection is refused only while all others are sending. 0: no limit.",
    },
    Key {
        name: "idle_timeout",
        help: "How long a TCP connection of line_tcp may send nothing before it is closed. Longer than the longest pause of any sender: the first line after a close is lost with most clients. 0s: never.",
    },
    Key {
        name: "max_series",
        help: "Series at most, of all receivers together. Values of further series are refused and counted; known series are never refused. 0: no limit.",
    },
    Key {
        name: "max_series_per_prefix",
        help: "Series at most whose names begin with the same prefix_nodes nodes; values of further ones are refused and counted by prefix. 0: no limit.",
    },
    Key {
        name: "prefix_nodes",
        help: "How many leading nodes of a series name make the prefix for max_series_per_prefix. Names of statsd metrics begin with nodes such as stats.timers: add those.",
    },
    Key {
        name: "max_new_series_per_minute",
        help: "Series first seen within a minute at most; values of further ones are refused and counted until there is room again. 0: no limit.",
    },
    Key {
        name: "expire_after",
        help: "Series that have had no point for this long are removed: file, empty directories, names and tags. At least as long as the longest pause of any series that is still wanted; \"plumbago expire --dry-run\" lists what would go. 0s: never.",
    },
];

/// When a datapoint in the journal is safe from a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Before it is taken: receivers wait for the disk.
    Always,
    /// This long after it was taken, at most: one sync for all that came since the last.
    Every(Span),
    /// There is no journal: what is not in its file is lost with the process.
    Off,
}

impl fmt::Display for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Every(span) => span.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

impl FromStr for Sync {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text.trim() {
            "always" => Ok(Self::Always),
            "off" => Ok(Self::Off),
            span => match span.parse() {
                Ok(Span(Duration::ZERO)) => Ok(Self::Always),
                Ok(span) => Ok(Self::Every(span)),
                Err(UnitError { text, .. }) => Err(UnitError {
                    text,
                    expected: "\"always\", \"off\" or a duration such as \"200ms\"",
                }),
            },
        }
    }
}

/// `[journal]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalOptions {
    /// When what is in it is synced.
    pub sync: Sync,
    /// How large it may grow.
    pub max_size: ByteSize,
}

impl Default for JournalOptions {
    fn default() -> Self {
        Self {
            sync: Sync::Every(Span::millis(200)),
            max_size: ByteSize(1 << 30),
        }
    }
}

/// The keys of `[journal]`.
pub const JOURNAL_KEYS: &[Key] = &[
    Key {
        name: "sync",
        help: "How long after its arrival a datapoint survives a power failure: \"always\" (receivers wait for the disk), a duration (one sync for all that came meanwhile), or \"off\" (no journal).",
    },
    Key {
        name: "max_size",
        help: "How large the journal may grow before what it holds is in synced files. At a quarter of it files are synced; when it is full, receivers wait.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_back_as_printed() {
        for (text, ms) in [
            ("200ms", 200),
            ("10s", 10_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span, Span::millis(ms));
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
        }
        for bad in ["", "10", "s", "1x", "-1s", "99999999999999999999s", "1s 2s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
        assert_eq!(Span::default().to_string(), "0s");
    }

    #[test]
    fn every_key_is_an_option_and_every_option_a_key() {
        let names = |value: serde_json::Value| -> Vec<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let keys = |keys: &[Key]| {
            let mut names: Vec<String> = keys.iter().map(|key| key.name.to_owned()).collect();
            names.sort();
            names
        };
        let mut options = names(serde_json::to_value(Options::default()).unwrap());
        options.sort();
        assert_eq!(options, keys(KEYS));
        let mut options = names(serde_json::to_value(JournalOptions::default()).unwrap());
        options.sort();
        assert_eq!(options, keys(JOURNAL_KEYS));
    }

    #[test]
    fn journal_sync_reads_back() {
        for text in ["always", "off", "200ms"] {
            assert_eq!(text.parse::<Sync>().unwrap().to_string(), text);
        }
        assert_eq!("0s".parse::<Sync>().unwrap(), Sync::Always);
        assert!("often".parse::<Sync>().is_err());
    }

    #[test]
    fn sizes_read_back_as_printed() {
        for (text, bytes) in [
            ("64KiB", 65_536),
            ("1GiB", 1 << 30),
            ("5", 5),
            ("2MB", 2_000_000),
        ] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size, ByteSize(bytes));
            assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
        }
        for bad in ["", "GiB", "1Gb", "-1", "99999999999TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }
}
