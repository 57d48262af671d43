//! The keys of `[render]`.

use std::fmt;
use std::str::FromStr;

use carbon::options::{ByteSize, Key, Span};
use serde::{Deserialize, Serialize};

use crate::budget;

/// How queries are answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Addresses that answer HTTP.
    pub http: Vec<String>,
    /// How many connections may be open on all of them together; 0 for as many as there are
    /// descriptors.
    pub max_connections: usize,
    /// How long the head of a request may take to arrive.
    pub header_timeout: Span,
    /// How long a connection may rest between two requests.
    pub idle_timeout: Span,
    /// How long an answer may go unread, or a body not arrive.
    pub write_timeout: Span,
    /// The time zone of requests that name none, as in the IANA database.
    pub time_zone: String,
    /// How many series one request may match; 0 for no limit.
    pub max_series: usize,
    /// How many values one request may fetch, and how many it may show; 0 for no limit. Sums over plain globs hold
    /// one series, however many they add up.
    pub max_points: usize,
    /// Memory that all requests together may hold; 0 for no limit.
    pub max_memory: MemorySize,
    /// How long one request may take, waiting included; `"0s"` for ever.
    pub timeout: Span,
    /// How many requests are computed at once, small ones aside; 0 for as many as there are
    /// processors.
    pub concurrency: usize,
    /// A tag expression: the events drawn on every picture that does not say `events=`; nothing
    /// when empty.
    pub default_events: String,
    /// Unix seconds at which all queries are answered instead of the clock; 0 for the clock.
    pub now: i64,
}

/// An amount of memory: a number of bytes (`"2GiB"`), or a share of what there is (`"25%"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MemorySize {
    /// So many bytes.
    Bytes(ByteSize),
    /// So many hundredths, 1 to 100, of [`budget::available`].
    Percent(u8),
}

impl MemorySize {
    /// In bytes, on this machine.
    pub fn bytes(self) -> u64 {
        match self {
            Self::Bytes(ByteSize(bytes)) => bytes,
            Self::Percent(percent) => budget::available() / 100 * u64::from(percent),
        }
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(size) => size.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim().strip_suffix('%') {
            Some(percent) => match percent.trim().parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(format!("{text:?} is not a share from \"1%\" to \"100%\"")),
            },
            None => match text.parse() {
                Ok(size) => Ok(Self::Bytes(size)),
                Err(_) => Err(format!(
                    "{text:?} is not a size such as \"2GiB\" or a share such as \"25%\""
                )),
            },
        }
    }
}

impl TryFrom<String> for MemorySize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<MemorySize> for String {
    fn from(size: MemorySize) -> Self {
        size.to_string()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            http: vec!["127.0.0.1:8080".to_owned()],
            max_connections: 1_000,
            header_timeout: Span::seconds(10),
            idle_timeout: Span::seconds(75),
            write_timeout: Span::seconds(30),
            time_zone: "UTC".to_owned(),
            max_series: 1_000_000,
            max_points: 50_000_000,
            max_memory: MemorySize::Percent(25),
            timeout: Span::seconds(60),
            concurrency: 0,
            default_events: String::new(),
            now: 0,
        }
    }
}

/// The keys of `[render]`, for `plumbago config`.
pub const KEYS: &[Key] = &[
    Key {
        name: "http",
        help: "Addresses that answer HTTP: Graphite's API and the page.",
    },
    Key {
        name: "max_connections",
        help: "How many connections may be open on all of render.http together. Beyond, one that is idle \
               makes room; while all are busy a new one gets a 503. Fewer when descriptors are few: see \
               the log. 0: as many as there are descriptors.",
    },
    Key {
        name: "header_timeout",
        help: "How long the head of a request may take from its first byte to its last; then the \
               connection is closed. \"0s\": for ever.",
    },
    Key {
        name: "idle_timeout",
        help: "How long a connection may rest between two requests. \"0s\": for ever.",
    },
    Key {
        name: "write_timeout",
        help: "How long a client may leave an answer unread, or a body unsent, before its connection is \
               closed. One that reads slowly goes on. \"0s\": for ever.",
    },
    Key {
        name: "time_zone",
        help: "The time zone of requests that name none: a name of the IANA database.",
    },
    Key {
        name: "max_series",
        help: "How many series one request may match; beyond, it is refused with a 413. 0: no limit.",
    },
    Key {
        name: "max_points",
        help: "How many values one request may fetch, and how many it may show (8 bytes each); beyond, it is refused \
               with a 413. 0: no limit.",
    },
    Key {
        name: "max_memory",
        help: "Memory that all requests together may hold (values, names, answers, pictures); a request \
               that needs more is refused with a 413. A size such as \"2GiB\", or a share of the memory \
               that the machine or its cgroup has, such as \"25%\". \"0B\": no limit.",
    },
    Key {
        name: "timeout",
        help: "How long one request may take, waiting included; then it is a 503. \"0s\": for ever.",
    },
    Key {
        name: "concurrency",
        help: "How many requests are computed at once. 0: as many as there are processors. One thread \
               more answers small requests only: at most 32 targets without \"**\", and windows of at \
               most seven days in all.",
    },
    Key {
        name: "default_events",
        help: "A tag expression (\"deploy\", \"deploy,config -canary\"): these events are drawn on every \
               picture, unless it says events=none or events=OTHER. Empty: none.",
    },
    Key {
        name: "now",
        help: "Unix seconds at which all queries are answered instead of the clock, for replaying \
               recordings. 0: the clock.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_read_back() {
        for text in ["25%", "100%", "2GiB", "0B", "1B"] {
            let size: MemorySize = text.parse().unwrap();
            assert_eq!(size.to_string(), text);
        }
        for text in ["0%", "101%", "-1%", "%", "many", ""] {
            assert!(text.parse::<MemorySize>().is_err(), "{text}");
        }
        assert_eq!("1KiB".parse::<MemorySize>().unwrap().bytes(), 1_024);
        let quarter = MemorySize::Percent(25).bytes();
        assert!(quarter > 0 && quarter <= MemorySize::Percent(100).bytes() / 3);
    }
}
