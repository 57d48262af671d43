//! The keys of `[carbon]` and `[journal]`.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use settings::UnitError;
use settings::options::{Checked, addresses, at_least, between};
pub use settings::{ByteSize, Key, Span};

use crate::conf;
use crate::conf::{Findings, Missing, load};
use crate::relay::{Protocol, Route};
use crate::rules::{aggregate, lists, rewrite};
use crate::schema::{load_aggregations, load_schemas};

settings::options! {
    /// `[carbon]`.
    #[derive(PartialEq, Eq)]
    pub struct Options {
        /// Addresses that receive Graphite's lines ("path value timestamp") over TCP. An empty list
        /// disables it.
        line_tcp: Vec<String> = vec!["127.0.0.1:2003".to_owned()] => addresses("127.0.0.1:2003");
        /// Addresses that receive the same lines in datagrams, several to a datagram.
        line_udp: Vec<String> = vec!["127.0.0.1:2003".to_owned()] => addresses("127.0.0.1:2003");
        /// Addresses that receive pickled datapoints over TCP, as carbon's relays and aggregators send
        /// them. Only data is read from a pickle: it cannot run code.
        pickle: Vec<String> = vec!["127.0.0.1:2004".to_owned()] => addresses("127.0.0.1:2004");
        /// Addresses that receive datapoints as length-framed protobuf over TCP, with the schema of
        /// carbon 1.1.
        protobuf: Vec<String> = Vec::new() => addresses("127.0.0.1:2005");
        /// Addresses that receive lines over TCP from the routes of other servers: these points are stored
        /// here and not sent to any destination of carbon.routes, so that servers can have routes to each
        /// other.
        relay_line_tcp: Vec<String> = Vec::new() => addresses("127.0.0.1:2013");
        /// Addresses that receive lines in the bodies of HTTP POST requests, plain or gzip-compressed.
        http: Vec<String> = Vec::new() => addresses("127.0.0.1:2007");
        /// Most bytes of a body that http takes, after decompression.
        http_max_body: ByteSize = ByteSize(64 << 20) => at_least(ByteSize(1 << 10));
        /// Addresses that answer CarbonLink, carbon-cache's protocol for queries of its cache: list them
        /// as CARBONLINK_HOSTS in graphite-web's local_settings.py.
        carbonlink: Vec<String> = Vec::new() => addresses("127.0.0.1:7002");
        /// Longest frame of pickle and protobuf. A connection that announces a longer one is closed. One
        /// frame needs up to 50 times its size in memory while it is read.
        max_frame_size: ByteSize = ByteSize(1 << 20) => between(ByteSize(1 << 10), ByteSize(64 << 20));
        /// Most bytes that all TCP connections together keep of lines and frames whose end has not come;
        /// one frame of max_frame_size is always kept. Beyond it, connections with such bytes that have been
        /// silent longest are closed, and if there are none, the one that goes beyond. 0: no limit.
        max_unread_size: ByteSize = ByteSize(256 << 20);
        /// An existing tree of whisper files to use in place. Empty: "whisper" in the data directory.
        whisper_dir: String = String::new() => check_directory;
        /// Most files written per second; further points stay in the cache. 0: no limit.
        max_updates_per_second: u32 = 0;
        /// Most files created per minute. New series wait in the cache, can be queried there, and lose
        /// nothing. 0: no limit.
        max_creates_per_minute: u32 = 0;
        /// How long datapoints wait for their files at most, so that a file is written less often and with
        /// many at once. Queries see them at once, and the journal keeps them. "1s": files are up to date
        /// within a second, for other programs that read them. Without a journal ("journal.sync" is "off")
        /// it is "1s" in any case.
        persist_within: Span = Span::seconds(300) => between(Span::seconds(0), Span::seconds(3_600));
        /// Which series a pass over all of them writes first: "sorted" (each once per pass, most points first), "max"
        /// (always the series with the most points), "timesorted" (longest wait first), "naive" (in the
        /// order in which the series were first seen).
        write_strategy: WriteStrategy = WriteStrategy::default();
        /// Memory for datapoints that are not in their files yet. When it is full, TCP is not read until
        /// there is room again, and datagrams are dropped and counted.
        max_cache_size: ByteSize = ByteSize(512 << 20) => at_least(ByteSize(64 << 10));
        /// How long a shutdown writes waiting datapoints to their files. The rest stays in the journal for
        /// the next start, and the log says how much it is. Choose less than what the service manager
        /// waits for. "0s", or without a journal: as long as it takes.
        drain_timeout: Span = Span::seconds(20);
        /// Take whisper's file lock (flock) around writes, for other programs that write the same files.
        flock: bool = false;
        /// Most directories of the tree that are watched for files which other programs create, replace
        /// or delete (inotify; the kernel's own limit is fs.inotify.max_user_watches). Directories beyond
        /// are walked. 0: none are watched.
        max_watches: u32 = 65_536;
        /// How many directories are read per second, at the start until all are watched, and later for
        /// as long as some are not. New directories are read at once.
        walk_rate: u32 = 500 => at_least(1);
        /// Most TCP connections of all receivers together. When there are as many, the connection that has
        /// been silent longest is closed for the next one; a new connection is refused only while all
        /// others are sending. 0: no limit.
        max_connections: u32 = 10_000;
        /// How long a TCP connection of a receiver may send nothing before it is closed. Choose more than
        /// the longest pause of any sender: most clients lose the first line after a close. "0s": never.
        idle_timeout: Span = Span::seconds(3_600);
        /// Most series, of all receivers together. Values of further series are refused and counted;
        /// known series are never refused. 0: no limit.
        max_series: u64 = 0;
        /// Most series whose names begin with the same prefix_nodes nodes; values of further series are
        /// refused and counted by prefix. 0: no limit.
        max_series_per_prefix: u64 = 0;
        /// How many leading nodes of a series name are the prefix for max_series_per_prefix. Names of
        /// statsd metrics begin with nodes such as stats.timers: count those, too.
        prefix_nodes: u32 = 2 => at_least(1);
        /// Most series first seen within a minute; values of further series are refused and counted
        /// until there is room again. 0: no limit.
        max_new_series_per_minute: u64 = 0;
        /// Series that have had no point for this long are removed: file, empty directories, names and
        /// tags. Choose more than the longest pause of any series that is still wanted; "plumbago expire
        /// --dry-run" lists what would be removed. "0s": never.
        expire_after: Span = Span::seconds(0);
        /// Graphite's storage-schemas.conf: the retentions of new files, by regular expressions on
        /// names. Read again when it changes and on SIGHUP. Empty: no rules, so that carbon.infer_step
        /// decides.
        schemas: String = String::new() => check_schemas;
        /// Graphite's storage-aggregation.conf: how new files aggregate. Read again when it changes and
        /// on SIGHUP. Empty: sum for counts, max for upper, min for lower, last for gauges, otherwise
        /// average, each with an xFilesFactor of 0.
        aggregation: String = String::new() => check_aggregation;
        /// Choose the step of a new series that no rule of carbon.schemas matches by the distance of its
        /// first two timestamps: 10 s, 30 s, 1 min or 5 min. Off: carbon's default of 60 s for 7 days
        /// beside a file of rules, otherwise 10 s.
        infer_step: bool = true;
        /// Give a new series that no rule of carbon.schemas matches the retentions of the files in the
        /// same directory, where these are not built-in ones.
        infer_siblings: bool = true;
        /// Graphite's whitelist.conf: only names that one of its patterns matches are received. A file
        /// without patterns, and the empty path, allow every name. Read again when it changes.
        allow: String = String::new() => rule_file(lists::parse);
        /// Graphite's blacklist.conf: names that one of its patterns matches are not received. Empty: no
        /// such list. Read again when it changes.
        deny: String = String::new() => rule_file(lists::parse);
        /// Graphite's rewrite-rules.conf: names are changed before aggregation ([pre]) and before they
        /// are stored ([post]). Empty: no rules. Read again when it changes.
        rewrite_rules: String = String::new() => rule_file(rewrite::parse);
        /// Graphite's aggregation-rules.conf: series that are made of the points of others. Empty: no
        /// rules. Read again when it changes; rules that stay keep their open intervals.
        aggregation_rules: String = String::new() => rule_file(aggregate::parse);
        /// Whether points are stored themselves while aggregation_rules is set (FORWARD_ALL in
        /// carbon.conf). If false, only aggregates are stored.
        aggregation_forward_all: bool = true;
        /// For how many of its intervals an aggregate waits for late points after its end and after its
        /// last point (MAX_AGGREGATION_INTERVALS). Later points are counted and not aggregated.
        aggregation_late_intervals: u32 = 5 => between(0, 1_000_000);
        /// Most series that one aggregation rule makes. Points of further series are counted and not
        /// aggregated. 0: no limit.
        aggregation_max_series: u64 = 100_000;
        /// Most intervals that one aggregation rule has open, in all its series together; 64 values that
        /// a percentile keeps count as one more. Points of further intervals are counted and not
        /// aggregated. 0: no limit.
        aggregation_max_buckets: u64 = 1_000_000;
        /// Where points are sent, in [[carbon.routes]] tables: "match" (regular expressions, of which one
        /// matches in the name; none: every name), "destinations" ("host:port" or "host:port:instance"),
        /// "method" ("all", "any_of", "failover", carbon-c-relay's "carbon_ch", "fnv1a_ch" and
        /// "jump_fnv1a_ch", carbon's "consistent-hashing", "aggregated-consistent-hashing", "fast-hashing"
        /// and "fast-aggregated-hashing" with "hash"), "replication", "diverse" (copies on different
        /// hosts), "protocol" ("line" or "pickle"), "continue" (later routes apply, too), "keep" (whether
        /// the points are stored here: "always", "placed", "never"). The first route that matches applies;
        /// names that no route matches are stored here. See docs/relay.md.
        routes: Vec<Route> = Vec::new();
        /// The one of the destinations of carbon.routes that is this server: its points are stored here
        /// and not sent. So all servers of a ring can have the same routes. Empty: none is.
        relay_self: String = String::new();
        /// Graphite's relay-rules.conf: destinations by patterns, for names that carbon.routes leave. Read
        /// at the start. Empty: no such file.
        relay_rules: String = String::new();
        /// Only these destinations of carbon.relay_rules are used (DESTINATIONS in carbon.conf). Empty: all
        /// that the file names.
        relay_destinations: Vec<String> = Vec::new();
        /// What the destinations of carbon.relay_rules speak: "line" or "pickle".
        relay_protocol: Protocol = Protocol::default();
        /// Store the points of carbon.relay_rules here, too.
        relay_keep: bool = true;
        /// Graphite's aggregation-rules.conf for routes with an aggregated method, which place a name with
        /// the aggregates that it feeds. Nothing is aggregated by it.
        relay_aggregation_rules: String = String::new();
        /// Most bytes on disk for each destination that is away or slow; the oldest points beyond are
        /// dropped and counted.
        relay_queue_size: ByteSize = ByteSize(1 << 30) => at_least(ByteSize(16 << 20));
        /// How long a shutdown goes on sending to destinations that are there. What is left stays on disk
        /// for the next start.
        relay_stop_timeout: Span = Span::seconds(5) => between(Span::seconds(0), Span::seconds(60));
    }
}

/// Which series the persister writes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WriteStrategy {
    /// Each series once per pass, those with the most points first (carbon's default).
    #[default]
    Sorted,
    /// Always the series with the most points at present: the fewest updates per
    /// point, but a series with few points may wait long.
    Max,
    /// Each series once per pass, the one that has waited longest first.
    TimeSorted,
    /// Each series once per pass, in the order in which the series were first seen: files that
    /// were made together are written together.
    Naive,
}

/// When a datapoint in the journal is safe from a crash of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncPolicy {
    /// When it has been taken: receivers wait for the disk.
    Always,
    /// At most this long after it was taken: one sync for all points since the last.
    Every(Span),
    /// Never. There is no journal: points that are not in their file are lost with the process.
    Off,
}

impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Always => f.write_str("always"),
            Self::Every(span) => span.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

impl FromStr for SyncPolicy {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text.trim() {
            "always" => Ok(Self::Always),
            "off" => Ok(Self::Off),
            span => match span.parse() {
                Ok(Span(Duration::ZERO)) => Ok(Self::Always),
                Ok(span) => Ok(Self::Every(span)),
                Err(_) => Err(UnitError::new(
                    text,
                    "a time to sync",
                    "\"always\", \"200ms\" or \"off\"",
                )),
            },
        }
    }
}

settings::text!(SyncPolicy, "a time to sync", "{}ms");

fn check_directory(directory: &str, checked: &mut Checked<'_>) {
    if directory.is_empty() {
        return;
    }
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => checked.say(format!("{directory:?} is not a directory")),
        // The configuration may be checked by another user than the server's.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => checked.say(format!(
            "{directory:?} does not exist: create it first, or leave the key empty for \"whisper\" in \
             the data directory"
        )),
        Err(error) => checked.say(format!("{directory:?}: {error}")),
    }
}

fn check_schemas(path: &str, checked: &mut Checked<'_>) {
    if !path.is_empty() {
        let found = load_schemas(Path::new(path), Span::seconds(10));
        say_all(found.err(), checked);
    }
}

fn check_aggregation(path: &str, checked: &mut Checked<'_>) {
    if path.is_empty() {
        return;
    }
    // carbon ignores a missing file at its usual place; this one was named.
    match Path::new(path).exists() {
        true => say_all(load_aggregations(Path::new(path)).err(), checked),
        false => checked.say(format!("{path}: the file does not exist")),
    }
}

/// Reports what makes a file of rules unusable.
fn say_all(problems: Option<Vec<conf::Problem>>, checked: &mut Checked<'_>) {
    for problem in problems.into_iter().flatten() {
        checked.say(problem.to_string());
    }
}

/// A check that wants the path of a rule file that can be used; the empty path means no file.
fn rule_file<T>(parse: fn(&str, &mut Findings) -> T) -> impl Fn(&String, &mut Checked<'_>) {
    move |path, checked| {
        if !path.is_empty() {
            say_all(load(path.as_ref(), Missing::Empty, parse).err(), checked);
        }
    }
}

impl Options {
    /// Lines of the file that `rewrite_rules` names which have no effect: the server starts with them,
    /// as carbon does.
    pub fn ignored_rewrites(&self) -> Vec<conf::Problem> {
        match self.rewrite_rules.as_str() {
            "" => Vec::new(),
            path => load(path.as_ref(), Missing::Empty, rewrite::parse)
                .map_or_else(|_| Vec::new(), |loaded| loaded.ignored),
        }
    }
}

settings::options! {
    /// `[journal]`.
    #[derive(PartialEq, Eq)]
    pub struct JournalOptions {
        /// How long after its arrival a datapoint survives a power failure: "always" (receivers wait for
        /// the disk), a duration (one sync for everything that arrived meanwhile), or "off" (no journal).
        sync: SyncPolicy = SyncPolicy::Every(Span::millis(200));
        /// How large the journal may grow before its contents are in synced files. At a quarter of it
        /// files are synced; when it is full, receivers wait.
        max_size: ByteSize = ByteSize(1 << 30) => at_least(ByteSize(1 << 20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_sync_reads_back() {
        for text in ["always", "off", "200ms"] {
            assert_eq!(text.parse::<SyncPolicy>().unwrap().to_string(), text);
        }
        assert_eq!("0s".parse::<SyncPolicy>().unwrap(), SyncPolicy::Always);
        assert!("often".parse::<SyncPolicy>().is_err());
    }
}
