//! The keys of `[render]`.

use std::fmt;
use std::str::FromStr;

use jiff::tz::TimeZone;
use settings::options::{Checked, addresses, between};
use settings::{ByteSize, Key, Span, UnitError};

use crate::budget;
use crate::events::TagQuery;

settings::options! {
    /// `[render]`: how queries are answered.
    #[derive(PartialEq)]
    pub struct Options {
        /// Addresses that answer HTTP: Graphite's API and the page.
        http: Vec<String> = vec!["127.0.0.1:8080".to_owned()] => addresses("127.0.0.1:8080");
        /// The path below which everything is answered, such as "/graphite", for a reverse proxy that
        /// passes the path on. Outside of it there are only /healthz, /readyz and /metrics. Empty:
        /// no such path.
        base_path: String = String::new() => check_base_path;
        /// How many connections may be open on all of render.http together. When there are as many, an
        /// idle one is closed for the next; while all are busy, a new one is answered with a 503. The
        /// log says so when descriptors allow fewer. 0: as many as there are descriptors.
        max_connections: usize = 1_000;
        /// How long the head of a request may take from its first byte to its last; then the connection
        /// is closed. "0s": no limit.
        header_timeout: Span = Span::seconds(10);
        /// How long a connection may be idle between two requests. "0s": no limit.
        idle_timeout: Span = Span::seconds(75);
        /// How long a client may leave an answer unread, or a body unsent, before its connection is
        /// closed. A client that reads slowly is not closed. "0s": no limit.
        write_timeout: Span = Span::seconds(30);
        /// The time zone of requests that name none: a name of the IANA database, such as
        /// "Europe/Berlin".
        time_zone: String = "UTC".to_owned() => check_time_zone;
        /// Font files (TTF, OTF, TTC) for characters that the embedded fonts lack in PNGs, such as
        /// Chinese, Japanese and Korean: ["/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"]. The
        /// first one that has a character is used.
        fonts: Vec<String> = Vec::new() => check_fonts;
        /// How many series one request may match; a request that matches more is refused with a 413.
        /// 0: no limit.
        max_series: usize = 1_000_000;
        /// How many values one request may fetch, and how many it may show (8 bytes each); a request
        /// that needs more is refused with a 413. 0: no limit.
        max_points: usize = 50_000_000;
        /// Memory that all requests together may hold (bodies, values, names, answers, pictures); a request
        /// that needs more is refused with a 413. A size such as "2GiB", or a share of the memory of the
        /// machine or its cgroup, such as "25%". "0B": no limit.
        max_memory: MemorySize = MemorySize::Percent(25);
        /// How long one request may take, including the wait before it is computed; then it is answered with a
        /// 503. "0s": no limit.
        timeout: Span = Span::seconds(60);
        /// How many requests are computed at once. 0: as many as there are processors. One more thread
        /// answers small requests only: at most 32 targets without "**", and windows of at most seven
        /// days in all.
        concurrency: usize = 0 => between(0, 1024);
        /// A tag expression ("deploy", "deploy,config -canary"): these events are drawn on every
        /// picture, unless its URL says events=none or events=OTHER. Empty: none.
        default_events: String = String::new() => check_events;
        /// URLs of other servers, such as "http://graphite-b:8080", whose series are part of all answers:
        /// names of all are found, and values that are not known here are theirs. They can name this server,
        /// too. Events are exchanged with them.
        peers: Vec<String> = Vec::new() => check_peers;
        /// How long a peer may take to answer. One that fails is left out of answers for 5 seconds.
        peer_timeout: Span = Span::seconds(2) => between(Span::millis(50), Span::seconds(60));
        /// Unix time in seconds at which all queries are answered, for replaying recordings. 0: the
        /// clock.
        now: i64 = 0 => between(0, i64::from(u32::MAX));
    }
}

/// The keys of `[render]`, for `plumbago config`.
pub const KEYS: &[Key] = Options::KEYS;

fn check_time_zone(name: &str, checked: &mut Checked<'_>) {
    if TimeZone::get(name).is_err() {
        let wrong = format!("{name:?} is not an IANA time zone");
        checked.refuse(wrong, "\"UTC\" or \"Europe/Berlin\"");
    }
}

fn check_peers(urls: &[String], checked: &mut Checked<'_>) {
    for (n, url) in urls.iter().enumerate() {
        let host = url.strip_prefix("http://").unwrap_or_default();
        if host.is_empty() || host.starts_with('/') || host.contains(char::is_whitespace) {
            let wrong = format!("{url:?} is not the URL of a server");
            checked.refuse_item(n, wrong, "\"http://graphite-b:8080\"");
        } else if urls[..n].contains(url) {
            checked.say_at([settings::Step::Item(n)], format!("{url:?} is there twice"));
        }
    }
}

/// The paths that are answered outside of the base path, too.
pub const ALWAYS: [&str; 3] = ["healthz", "readyz", "metrics"];

fn check_base_path(path: &str, checked: &mut Checked<'_>) {
    if path.is_empty() {
        return;
    }
    let part = |part: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        !matches!(part, "" | "." | "..") && part.bytes().all(plain)
    };
    let is_path = path
        .strip_prefix('/')
        .is_some_and(|rest| rest.split('/').all(part));
    if !is_path {
        let wrong = format!(
            "{path:?} is not a path of letters, digits, \"-\", \".\", \"_\" and \"~\" that begins \
             with a slash and ends without one"
        );
        checked.refuse(wrong, "\"/graphite\", or \"\" for none");
    } else if ALWAYS
        .iter()
        .any(|name| path[1..].split('/').next() == Some(name))
    {
        let wrong =
            format!("{path:?} begins with a path that is answered outside of the base path");
        checked.refuse(wrong, "another name, such as \"/graphite\"");
    }
}

fn check_fonts(paths: &[String], checked: &mut Checked<'_>) {
    for (n, wrong) in crate::draw::check_fonts(paths) {
        checked.refuse_item(n, wrong, "the path of a TTF, OTF or TTC file");
    }
}

fn check_events(expression: &str, checked: &mut Checked<'_>) {
    if let Err(why) = expression.parse::<TagQuery>() {
        checked.say(format!("{expression:?}: {why}"));
    }
}

/// An amount of memory: a number of bytes (`"2GiB"`), or a share of what there is (`"25%"`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text.trim().strip_suffix('%') {
            Some(percent) => match percent.trim().parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(UnitError::new(text, "a share", "\"1%\" to \"100%\"")),
            },
            None => match text.parse() {
                Ok(size) => Ok(Self::Bytes(size)),
                Err(_) => Err(UnitError::new(
                    text,
                    "an amount of memory",
                    "\"2GiB\" or \"25%\"",
                )),
            },
        }
    }
}

settings::text!(MemorySize, "an amount of memory", "{}MiB");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_paths_are_checked() {
        let problems = |path: &str| {
            let options = Options {
                base_path: path.to_owned(),
                ..Options::default()
            };
            let mut problems = settings::Problems::default();
            options.check(&mut problems);
            problems.into_iter().count()
        };
        for path in ["", "/graphite", "/a/b-c_d.e~f/0"] {
            assert_eq!(problems(path), 0, "{path}");
        }
        let refused = [
            "graphite",
            "/",
            "/graphite/",
            "//a",
            "/a//b",
            "/a/../b",
            "/.",
            "/a b",
            "/a?b",
            "/ä",
            "/%41",
            "/metrics",
            "/healthz/a",
            "http://x/y",
        ];
        for path in refused {
            assert_eq!(problems(path), 1, "{path}");
        }
    }

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
