//! The management interface: a line is a command, answered as the reference answers.
//!
//! Ours on top: input is buffered by lines (the reference takes each segment for one command),
//! answers have the names that were asked for, `bad_lines` shows reasons and senders, and `counts`
//! all that the server counts about itself.
//!
//! A client that sends nothing for [`IDLE`], or does not read its answer within [`ANSWER`], is
//! disconnected and counted. So, uncounted, is one that sends an HTTP request: any page in a browser on
//! this machine can send one, and its body would be taken for commands.
//!
//! Tables, and lists of what was deleted, are as large as there are names: [`LARGE`] of them exist at
//! once, in memory or on their way to their clients. Others wait for [`TURN`] at most.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use hashbrown::HashMap;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit, oneshot, watch};
use tokio::time::timeout;

use crate::aggregate::kinds::KINDS;
use crate::aggregate::{Aggregator, Dropped};
use crate::inspect::{PLAIN, Shown};
use crate::kind::Kind;
use crate::listener::Peer;
use crate::options::Options;
use crate::report::{Peek, Shared};
use crate::stats::now_ms;

/// The longest command.
const LONGEST: u64 = 64 << 10;
/// What a connection has for its commands at first.
const BUFFER: usize = 1 << 10;
/// The usual [`Admin::idle`].
pub(crate) const IDLE: Duration = Duration::from_secs(600);
/// The usual [`Admin::answer`].
pub(crate) const ANSWER: Duration = Duration::from_secs(30);
/// Answers that may be large and exist at the same time.
pub(crate) const LARGE: usize = 2;
/// The usual [`Admin::turn`]: a client that does not read its answer is disconnected before.
pub(crate) const TURN: Duration = Duration::from_secs(60);

/// What only the aggregator can answer.
#[derive(Debug)]
pub(crate) enum Query {
    /// The live table of a kind.
    Table(Kind, oneshot::Sender<String>),
    /// Deletes names; a final `.*` takes all below.
    Delete(Kind, Vec<String>, oneshot::Sender<String>),
    /// How the last flush went.
    LastFlush(oneshot::Sender<[(&'static str, f64); 4]>),
}

/// What all connections share.
pub(crate) struct Admin {
    pub(crate) shared: Arc<Shared>,
    pub(crate) queries: Sender<Query>,
    pub(crate) started: Instant,
    pub(crate) options: Options,
    /// For how long a client may say nothing.
    pub(crate) idle: Duration,
    /// For how long a client may take to read an answer.
    pub(crate) answer: Duration,
    /// Room for the answers that may be large.
    pub(crate) large: Semaphore,
    /// For how long a command waits for that room.
    pub(crate) turn: Duration,
}

/// An answer, and the room that it takes until it has been sent.
struct Reply<'a> {
    text: String,
    _room: Option<SemaphorePermit<'a>>,
}

impl From<String> for Reply<'_> {
    fn from(text: String) -> Self {
        Self { text, _room: None }
    }
}

impl Admin {
    /// Serves one connection until it ends, `stop` changes, or it has to make room for another.
    pub(crate) async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        mut stop: watch::Receiver<bool>,
        peer: Arc<Peer>,
    ) {
        let served = tokio::select! {
            served = self.connection(stream, &peer) => served,
            () = peer.displaced() => return,
            _ = stop.changed() => return,
        };
        if served.is_err_and(|why| why.kind() == io::ErrorKind::TimedOut) {
            let stats = &self.shared.stats;
            stats.connections_timed_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn connection(&self, stream: TcpStream, peer: &Peer) -> io::Result<()> {
        let mut stream = BufReader::with_capacity(BUFFER, stream);
        loop {
            let mut line = Vec::new();
            let mut command = (&mut stream).take(LONGEST);
            let read = timeout(self.idle, command.read_until(b'\n', &mut line)).await??;
            peer.works();
            if read == 0 || (read as u64 == LONGEST && !line.ends_with(b"\n")) {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line);
            let command = text.trim();
            if is_http_request(command) {
                return Ok(());
            }
            let Some(reply) = self.reply(command).await else {
                return stream.shutdown().await;
            };
            // The client is waited for until it has read the answer and sent the next command.
            peer.waits();
            let answer = async {
                stream.write_all(reply.text.as_bytes()).await?;
                stream.flush().await
            };
            timeout(self.answer, answer).await??;
        }
    }

    /// The answer to one command; `None` for "goodbye".
    async fn reply(&self, line: &str) -> Option<Reply<'_>> {
        let mut words = line.split(' ').map(str::trim);
        let command = words.next().unwrap_or_default();
        let names = || words.clone().map(str::to_owned).collect::<Vec<_>>();
        let text = match command {
            "help" => "Commands: stats, counters, timers, gauges, delcounters, deltimers, delgauges, health, config, bad_lines, counts, quit\n\n".to_owned(),
            "stats" => self.stats().await,
            "health" => self.health(words.next()),
            "config" => config(&self.options),
            "bad_lines" => self.shared.stats.bad_lines_text() + "END\n\n",
            "counts" => self.counts(),
            "quit" => return None,
            _ => match (kind_of(command), command.strip_prefix("del").and_then(kind_of)) {
                (Some(kind), _) => return Some(self.large(self.table(kind)).await),
                (_, Some(kind)) => {
                    let deleted = async { self.delete(kind, names()).await };
                    return Some(self.large(deleted).await);
                }
                _ => "ERROR\n".to_owned(),
            },
        };
        Some(text.into())
    }

    /// The `answer`, once there is room for it.
    async fn large(&self, answer: impl Future<Output = String>) -> Reply<'_> {
        let Ok(Ok(room)) = timeout(self.turn, self.large.acquire()).await else {
            self.shared.stats.answers_refused.add(1);
            let text = "ERROR: large answers are on their way to other clients, ask again later\n";
            return text.to_owned().into();
        };
        Reply {
            text: answer.await,
            _room: Some(room),
        }
    }

    async fn stats(&self) -> String {
        let stats = &self.shared.stats;
        let now = now_ms() / 1_000;
        let last = match stats.last_packet.load(Ordering::Relaxed) {
            0 => self.started.elapsed().as_secs(),
            at => now.saturating_sub(at),
        };
        let mut text = format!(
            "uptime: {}\nmessages.last_msg_seen: {last}\nmessages.bad_lines_seen: {}\n",
            self.started.elapsed().as_secs(),
            stats.bad_lines.load(Ordering::Relaxed),
        );
        let (reply, answer) = oneshot::channel();
        if self.queries.send(Query::LastFlush(reply)).is_ok()
            && let Ok(values) = answer.await
        {
            for (name, value) in values {
                // As in the reference: what begins with last_ is shown as its age.
                let value = if name.starts_with("last_") {
                    now as f64 - value
                } else {
                    value
                };
                let _ = writeln!(text, "graphite.{name}: {value}");
            }
        }
        text + "END\n\n"
    }

    fn counts(&self) -> String {
        let mut text = String::new();
        for (name, _, value) in self.shared.stats.each() {
            let _ = writeln!(text, "{name}: {value}");
        }
        text + "END\n\n"
    }

    async fn table(&self, kind: Kind) -> String {
        let (reply, answer) = oneshot::channel();
        match self.queries.send(Query::Table(kind, reply)) {
            Ok(()) => answer.await.unwrap_or_default() + "\nEND\n\n",
            Err(_) => "ERROR\n".to_owned(),
        }
    }

    async fn delete(&self, kind: Kind, names: Vec<String>) -> String {
        let (reply, answer) = oneshot::channel();
        match self.queries.send(Query::Delete(kind, names, reply)) {
            Ok(()) => answer.await.unwrap_or_default() + "END\n\n",
            Err(_) => "ERROR\n".to_owned(),
        }
    }

    fn health(&self, wanted: Option<&str>) -> String {
        let is_down = &self.shared.is_down;
        match wanted {
            Some("up") => is_down.store(false, Ordering::Relaxed),
            Some("down") => is_down.store(true, Ordering::Relaxed),
            _ => {}
        }
        let state = if is_down.load(Ordering::Relaxed) {
            "down"
        } else {
            "up"
        };
        format!("health: {state}\n")
    }
}

/// Whether `line` is the first of an HTTP request: its last word is the version of the protocol.
pub fn is_http_request(line: &str) -> bool {
    let version = line.split_ascii_whitespace().next_back();
    version.is_some_and(|version| version.starts_with("HTTP/"))
}

/// The type whose table is called `table`.
fn kind_of(table: &str) -> Option<Kind> {
    let facts = KINDS.iter().find(|facts| facts.table == Some(table))?;
    Some(facts.kind)
}

impl Query {
    /// Answers from what the aggregator has, and the `peeks` at what receivers have of the interval
    /// `epoch`. Receivers get the names to `forget` before the client has the answer, so that what it
    /// sends afterwards follows the deletion.
    pub(crate) fn answer(
        self,
        aggregator: &mut Aggregator,
        epoch: u64,
        peeks: &[Option<Peek>],
        forget: impl FnOnce(Dropped),
    ) {
        match self {
            Self::LastFlush(reply) => {
                let _ = reply.send(aggregator.last_flush());
            }
            Self::Table(kind, reply) => {
                let table = aggregator.table(epoch, kind, peeks);
                let _ = reply.send(Shown::object(table).text(PLAIN));
            }
            Self::Delete(kind, patterns, reply) => {
                let known = aggregator.names(epoch, kind, peeks);
                let mut found = vec![Vec::new(); patterns.len()];
                let patterns = Patterns::new(&patterns);
                for (number, name) in &known {
                    if let Some(at) = patterns.first_that_means(name) {
                        found[at].push((*number, name));
                    }
                }
                let numbers: Vec<u32> = found.iter().flatten().map(|(number, _)| *number).collect();
                if !numbers.is_empty() {
                    forget(aggregator.delete(&numbers));
                }
                let mut text = String::new();
                for (pattern, found) in patterns.all.iter().zip(found) {
                    if found.is_empty() {
                        let _ = writeln!(text, "metric {pattern} not found");
                    }
                    for (_, name) in found {
                        let _ = writeln!(text, "deleted: {name}");
                    }
                }
                let _ = reply.send(text);
            }
        }
    }

    /// Whether the answer includes what receivers have not reported yet.
    pub(crate) fn needs_peek(&self) -> bool {
        !matches!(self, Self::LastFlush(_))
    }
}

/// What a command deletes: each pattern is a name, or ends with `.*` and means all names below that
/// folder, too. Finding the pattern of a name takes no longer with many patterns than with one.
struct Patterns<'a> {
    all: &'a [String],
    /// By name: the first pattern.
    names: HashMap<&'a str, usize>,
    /// By folder, its dot included: the first pattern.
    folders: HashMap<&'a str, usize>,
}

impl<'a> Patterns<'a> {
    fn new(all: &'a [String]) -> Self {
        let (mut names, mut folders) = (HashMap::new(), HashMap::new());
        for (at, pattern) in all.iter().enumerate() {
            names.entry(pattern.as_str()).or_insert(at);
            if let Some(folder) = pattern.strip_suffix('*').filter(|rest| rest.ends_with('.')) {
                folders.entry(folder).or_insert(at);
            }
        }
        Self {
            all,
            names,
            folders,
        }
    }

    /// The first pattern that means `name`.
    fn first_that_means(&self, name: &str) -> Option<usize> {
        let mut first = self.names.get(name).copied();
        if !self.folders.is_empty() {
            for (dot, _) in name.match_indices('.') {
                let found = self.folders.get(&name[..=dot]).copied();
                first = first.into_iter().chain(found).min();
            }
        }
        first
    }
}

/// The options as `key: value`, members of lists as `key > index: value`.
fn config(options: &Options) -> String {
    let mut text = "\n".to_owned();
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(options) {
        // Sorted here: serde_json's own order depends on features that other crates choose.
        for (key, value) in fields.iter().collect::<BTreeMap<_, _>>() {
            config_value(key, value, &mut text);
        }
    }
    text
}

fn config_value(key: &str, value: &serde_json::Value, text: &mut String) {
    use serde_json::Value;
    match value {
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                config_value(&format!("{key} > {at}"), item, text);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields.iter().collect::<BTreeMap<_, _>>() {
                config_value(&format!("{key} > {name}"), field, text);
            }
        }
        Value::String(value) => {
            let _ = writeln!(text, "{key}: {value}");
        }
        other => {
            let _ = writeln!(text, "{key}: {other}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Harness;
    use crossbeam::channel;
    use proptest::prelude::*;
    use tokio::net::TcpListener;

    fn interface(queries: Sender<Query>, idle: Duration, answer: Duration) -> Arc<Admin> {
        Arc::new(Admin {
            shared: Arc::default(),
            queries,
            started: Instant::now(),
            options: Options::default(),
            idle,
            answer,
            large: Semaphore::new(LARGE),
            turn: SHORT,
        })
    }

    /// An interface without an aggregator, and one connection to it.
    async fn connected(idle: Duration, answer: Duration) -> (Arc<Admin>, TcpStream, TcpStream) {
        let (queries, _) = channel::unbounded();
        let (stream, client) = connection().await;
        (interface(queries, idle, answer), stream, client)
    }

    /// Both ends of a connection.
    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        (accepted.unwrap().0, client.unwrap())
    }

    fn block_on(run: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(run);
    }

    proptest! {
        #[test]
        fn the_first_pattern_that_means_a_name_is_found(
            patterns in prop::collection::vec("[ab.]{0,4}\\*?", 0..8),
            name in "[ab.*]{0,5}",
        ) {
            let means = |pattern: &String| {
                let folder = pattern.strip_suffix('*').filter(|rest| rest.ends_with('.'));
                name == *pattern || folder.is_some_and(|folder| name.starts_with(folder))
            };
            let found = Patterns::new(&patterns).first_that_means(&name);
            prop_assert_eq!(found, patterns.iter().position(means));
        }
    }

    /// With a pass over all names for each that is deleted this takes hours.
    #[test]
    fn very_many_names_are_deleted_by_one_command() {
        const NAMES: usize = 300_000;
        let mut harness = Harness::new(&Options::default());
        let lines: Vec<String> = (0..NAMES).map(|at| format!("a.{at}:1|g")).collect();
        for lines in lines.chunks(1_000) {
            harness.packet(lines.join("\n").as_bytes());
        }
        harness.packet(b"b:1|g");
        harness.end_interval();
        let aggregator = &mut harness.aggregator;
        let mut patterns: Vec<String> = (0..20_000).map(|at| format!("x{at}")).collect();
        patterns.push("a.*".to_owned());
        let (reply, mut answer) = oneshot::channel();
        let mut dropped = 0;
        Query::Delete(Kind::Gauge, patterns, reply).answer(aggregator, 0, &[], |names| {
            dropped = names.entries[0].len();
        });
        assert_eq!(dropped, NAMES);
        let text = answer.try_recv().unwrap();
        assert_eq!(text.lines().count(), 20_000 + NAMES);
        let left = aggregator.names(0, Kind::Gauge, &[]);
        assert!(left.iter().all(|(_, name)| !name.starts_with("a.")));
    }

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_silent_client_is_disconnected() {
        block_on(async {
            let (admin, stream, mut client) = connected(SHORT, LONG).await;
            let (_stop, stopping) = watch::channel(false);
            client.write_all(b"health\nhea").await.unwrap();
            admin.clone().serve(stream, stopping, Peer::alone()).await;
            let mut text = String::new();
            client.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "health: up\n");
            let timed_out = &admin.shared.stats.connections_timed_out;
            assert_eq!(timed_out.load(Ordering::Relaxed), 1);
        });
    }

    #[test]
    fn a_client_that_does_not_read_is_disconnected() {
        block_on(async {
            let (admin, stream, mut client) = connected(LONG, SHORT).await;
            let (_stop, stopping) = watch::channel(false);
            let serving = tokio::spawn(admin.clone().serve(stream, stopping, Peer::alone()));
            // Until the server has gone; what it has answered by then is more than buffers hold.
            while client.write_all(&b"config\n".repeat(1_000)).await.is_ok() {}
            serving.await.unwrap();
            let timed_out = &admin.shared.stats.connections_timed_out;
            assert_eq!(timed_out.load(Ordering::Relaxed), 1);
        });
    }
    #[test]
    fn few_large_answers_exist_at_once() {
        block_on(async {
            let (queries, asked) = channel::unbounded();
            let admin = interface(queries, LONG, LONG);
            let (_stop, stopping) = watch::channel(false);
            // A client that asks for a table; and the question, or the line that refuses it.
            let ask = async || {
                let (stream, mut client) = connection().await;
                tokio::spawn(admin.clone().serve(stream, stopping.clone(), Peer::alone()));
                client.write_all(b"gauges\n").await.unwrap();
                let mut client = BufReader::new(client);
                let mut line = String::new();
                let asked = async || loop {
                    match asked.try_recv() {
                        Ok(Query::Table(_, reply)) => break reply,
                        _ => tokio::task::yield_now().await,
                    }
                };
                let outcome = tokio::select! {
                    reply = asked() => Ok(reply),
                    read = client.read_line(&mut line) => Err(read.map(|_| line).unwrap()),
                };
                (client, outcome)
            };
            // More than the kernel takes of an answer that is not read.
            let table = "x".repeat(64 << 20);
            let (mut first, asked) = ask().await;
            asked.unwrap().send(table.clone()).unwrap();
            let (_second, asked) = ask().await;
            asked.unwrap().send(table.clone()).unwrap();
            let (_third, refused) = ask().await;
            let refused = refused.expect_err("a third table is made");
            assert!(refused.starts_with("ERROR: "), "{refused}");
            assert_eq!(admin.shared.stats.answers_refused.get(), 1);
            // Once the first has been read, there is room for another.
            let mut answer = vec![0; table.len() + "\nEND\n\n".len()];
            first.read_exact(&mut answer).await.unwrap();
            assert!(answer.ends_with(b"\nEND\n\n"));
            while ask().await.1.is_err() {}
        });
    }
}
