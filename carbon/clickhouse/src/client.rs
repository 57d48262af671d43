//! The HTTP client of a ClickHouse server.
//!
//! A query runs on a thread of its own, so that the request that waits for it can look several times a second whether
//! its own client is still there. If not, the server is asked to end the query (`KILL QUERY`); the thread ends when the
//! server has answered.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use base64::Engine;
use parking_lot::Mutex;
use render::budget::{Budget, Reservation};
use settings::Span;
use ureq::unversioned::transport::DefaultConnector;

use crate::addresses::Addresses;
use crate::incoming::Incoming;
use crate::options::Options;
use crate::stats::Stats;

/// How often a request that waits looks whether it may go on.
const LOOK: Duration = Duration::from_millis(50);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// How long statements without a deadline of their own may take.
const SHORT: Duration = Duration::from_secs(30);
/// How long a server that did not say its version is not asked again.
const SORRY: Duration = Duration::from_secs(1);
/// The most bytes of an answer.
const MAX_ANSWER: u64 = 2 << 30;
/// The most bytes of an error that are shown.
const MAX_ERROR: usize = 600;
/// The first version that knows the settings of inserts and of queries that 18.16 does not know.
const MODERN: u32 = 20;
/// How much of an answer is reserved at once.
const PIECE: usize = 256 << 10;

/// Why a statement has no answer.
#[derive(Debug)]
pub enum Failure {
    /// ClickHouse refused it, or could not be reached.
    Failed(String),
    /// The request may not go on.
    Budget(render::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(why) => f.write_str(why),
            Self::Budget(error) => error.fmt(f),
        }
    }
}

/// An answer, and its memory.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) bytes: Vec<u8>,
    _held: Reservation,
}

impl Answer {
    fn read(reader: &mut dyn Read, mut held: Reservation) -> Result<Self, Failure> {
        let mut bytes = Vec::new();
        loop {
            held.grow(PIECE).map_err(Failure::Budget)?;
            bytes.reserve(PIECE);
            let read = (&mut *reader).take(PIECE as u64).read_to_end(&mut bytes);
            match read {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return Err(Failure::Failed(error.to_string())),
            }
        }
        Ok(Self { bytes, _held: held })
    }
}

/// When the server sends an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    /// When it has made all of it.
    Whole,
    /// While it makes it.
    AsMade,
}

/// A query for the server.
struct Asked<'a> {
    id: &'a str,
    sql: &'a str,
    timeout: Duration,
    modern: bool,
    sent: Sent,
}

/// A client. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
    database: String,
    query_timeout: Duration,
    query_memory: u64,
    insert_timeout: Duration,
    version: Mutex<Version>,
    ids: AtomicU64,
    stats: Arc<Stats>,
}

/// The first number of the server's version, as far as it is known.
#[derive(Clone, Debug, Default)]
enum Version {
    #[default]
    Unknown,
    Known(u32),
    /// When the server was last asked in vain, and why.
    Failed(Instant, String),
}

impl Client {
    /// A client for the server of `options`.
    ///
    /// # Errors
    /// The password cannot be read.
    pub fn new(options: &Options, stats: Arc<Stats>) -> Result<Self, String> {
        let password = options.secret()?;
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .http_status_as_error(false)
            .user_agent(concat!("plumbago/", env!("CARGO_PKG_VERSION")))
            .max_idle_connections_per_host(16)
            .proxy(None)
            .build();
        let is_named = !options.user.is_empty() || !password.is_empty();
        let user = match options.user.as_str() {
            "" => "default",
            user => user,
        };
        let pair = format!("{user}:{password}");
        let encoded = base64::engine::general_purpose::STANDARD.encode(pair);
        Ok(Self(Arc::new(Shared {
            agent: ureq::Agent::with_parts(
                config,
                DefaultConnector::default(),
                Addresses::default(),
            ),
            url: options.url.trim_end_matches('/').to_owned(),
            authorization: is_named.then(|| format!("Basic {encoded}")),
            database: options.database.clone(),
            query_timeout: options.query_timeout.0,
            query_memory: options.query_memory.0,
            insert_timeout: options.insert_timeout.0,
            version: Mutex::default(),
            ids: AtomicU64::new(0),
            stats,
        })))
    }

    /// The server's URL.
    pub(crate) fn url(&self) -> &str {
        &self.0.url
    }

    /// The counters.
    pub(crate) fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// The first number of the server's version.
    ///
    /// # Errors
    /// The server cannot be reached, or its answer cannot be understood.
    pub fn version(&self) -> Result<u32, String> {
        self.0.version(SHORT)
    }

    /// Runs a statement that has a short answer or none.
    ///
    /// # Errors
    /// What ClickHouse says.
    pub fn execute(&self, sql: &str) -> Result<String, String> {
        let answer = self.0.post(&[], sql.as_bytes(), SHORT)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Inserts `rows` into `table` with these columns; they are compressed if `is_packed`. Waits no longer than
    /// `patience`.
    ///
    /// # Errors
    /// They were not acknowledged.
    pub(crate) fn insert(
        &self,
        table: &str,
        columns: &str,
        rows: &[u8],
        is_packed: bool,
        patience: Duration,
    ) -> Result<(), String> {
        let sql = format!("INSERT INTO {table} ({columns}) FORMAT RowBinary");
        let mut settings = vec![("query", sql.as_str())];
        if is_packed {
            settings.push(("decompress", "1"));
        }
        let began = Instant::now();
        if self.0.version(patience.min(SHORT))? >= MODERN {
            // The same rows may come in other blocks: they are to be rolled up when parts are merged.
            settings.push(("optimize_on_insert", "0"));
            settings.push(("max_partitions_per_insert_block", "0"));
        }
        let left = patience.saturating_sub(began.elapsed());
        let sent = self
            .0
            .post(&settings, rows, self.0.insert_timeout.min(left));
        if sent.is_err() {
            // Another server may be there afterwards.
            *self.0.version.lock() = Version::Unknown;
        }
        sent.map(drop)
    }

    /// The answer to the query `sql`, within `budget`.
    ///
    /// # Errors
    /// What ClickHouse says, or what `budget` refuses.
    pub(crate) fn query(&self, sql: String, budget: &Budget) -> Result<Answer, Failure> {
        self.ask(sql, budget, Sent::Whole, Answer::read)
    }

    /// What `read` makes of the answer to `sql` while the server makes it, and what is set aside for that. If the server
    /// fails meanwhile, the answer ends with what it says ([`crate::incoming`]).
    ///
    /// # Errors
    /// As [`Client::query`], and those of `read`.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        sql: String,
        budget: &Budget,
        read: impl FnOnce(&mut Incoming<'_>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<(T, Reservation), Failure> {
        self.ask(sql, budget, Sent::AsMade, |source, held| {
            let mut incoming = Incoming::new(source, held)?;
            let made = read(&mut incoming)?;
            Ok((made, incoming.into_held()))
        })
    }

    fn ask<T: Send + 'static>(
        &self,
        sql: String,
        budget: &Budget,
        sent: Sent,
        read: impl FnOnce(&mut dyn Read, Reservation) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let stats = &self.0.stats;
        stats.queries.add(1);
        budget.check().map_err(Failure::Budget)?;
        let left = budget
            .deadline()
            .map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = self.0.query_timeout.min(left.unwrap_or(Duration::MAX));
        let began = Instant::now();
        let number = self.0.ids.fetch_add(1, Ordering::Relaxed);
        let id = format!("plumbago-{}-{number}", std::process::id());
        let (send, receive) = sync_channel(1);
        let (shared, own, held) = (Arc::clone(&self.0), id.clone(), budget.clone());
        let is_asked = Arc::new(AtomicBool::new(false));
        let asking = Arc::clone(&is_asked);
        let work = move || {
            let version = shared.version(timeout.min(SHORT)).map_err(Failure::Failed);
            // The server may have needed all of the time for its version.
            let version = version.and_then(|version| {
                asking.store(true, Ordering::Release);
                held.check().map(|()| version).map_err(Failure::Budget)
            });
            let answer = version.and_then(|version| {
                let asked = Asked {
                    id: &own,
                    sql: &sql,
                    timeout: timeout.saturating_sub(began.elapsed()),
                    modern: version >= MODERN,
                    sent,
                };
                shared.ask(&asked, &held, read)
            });
            // The request that waited may have gone.
            let _ = send.send(answer);
        };
        let spawned = std::thread::Builder::new()
            .name("clickhouse".to_owned())
            .spawn(work);
        spawned.map_err(|error| self.failed(format!("starting a thread: {error}")))?;
        loop {
            match receive.recv_timeout(LOOK) {
                Ok(Err(Failure::Failed(why))) => return Err(self.failed(why)),
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.failed("the query's thread has ended".to_owned()));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Err(error) = budget.check() {
                if !is_asked.load(Ordering::Acquire) {
                    return Err(Failure::Budget(error));
                }
                stats.killed.add(1);
                let kill = format!("KILL QUERY WHERE query_id = '{id}' ASYNC");
                let shared = Arc::clone(&self.0);
                let killing = move || drop(shared.post(&[], kill.as_bytes(), SHORT));
                // If there is no thread, the query ends with its time.
                let _ = std::thread::Builder::new().spawn(killing);
                return Err(Failure::Budget(error));
            }
        }
    }

    fn failed(&self, why: String) -> Failure {
        self.0.stats.query_errors.add(1);
        Failure::Failed(why)
    }
}

impl Shared {
    /// The first number of the server's version, asked for `patience` at most. A server that does not say it is not
    /// asked again for [`SORRY`].
    fn version(&self, patience: Duration) -> Result<u32, String> {
        match &*self.version.lock() {
            Version::Known(version) => return Ok(*version),
            Version::Failed(at, why) if at.elapsed() < SORRY => return Err(why.clone()),
            Version::Failed(..) | Version::Unknown => {}
        }
        let answer = self.post(&[], b"SELECT version()", patience);
        let version = answer.and_then(|answer| {
            let text = String::from_utf8_lossy(&answer);
            let first = text.trim().split('.').next().unwrap_or_default();
            let version = first.parse();
            version.map_err(|_| format!("{} is not ClickHouse: it answers {text:?}", self.url))
        });
        let mut known = self.version.lock();
        match &version {
            Ok(version) => *known = Version::Known(*version),
            // Another one may have been patient for longer.
            Err(_) if patience < SORRY || matches!(*known, Version::Known(_)) => {}
            Err(why) => *known = Version::Failed(Instant::now(), why.clone()),
        }
        version
    }

    fn request(
        &self,
        settings: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<ureq::http::Response<ureq::Body>, String> {
        let mut request = self.agent.post(format!("{}/", self.url));
        request = request.query("database", &self.database);
        for (name, value) in settings {
            request = request.query(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let request = request.config().timeout_global(Some(timeout)).build();
        let mut response = request
            .send(body)
            .map_err(|error| format!("{}: {error}", self.url))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.body_mut().with_config().limit(1 << 20);
        let mut said = body.read_to_string().unwrap_or_default();
        if said.len() > MAX_ERROR {
            let end = (0..=MAX_ERROR)
                .rev()
                .find(|end| said.is_char_boundary(*end));
            said.truncate(end.unwrap_or(0));
        }
        let (url, status) = (&self.url, status.as_u16());
        Err(format!("{url} answers {status}: {}", said.trim()))
    }

    fn post(
        &self,
        settings: &[(&str, &str)],
        body: &[u8],
        timeout: Duration,
    ) -> Result<Vec<u8>, String> {
        let mut response = self.request(settings, body, timeout)?;
        let body = response.body_mut().with_config().limit(64 << 20);
        body.read_to_vec()
            .map_err(|error| format!("{}: {error}", self.url))
    }

    fn ask<T>(
        &self,
        asked: &Asked<'_>,
        budget: &Budget,
        read: impl FnOnce(&mut dyn Read, Reservation) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Asked {
            id,
            sql,
            timeout,
            modern,
            sent,
        } = *asked;
        let seconds = timeout.as_secs().max(1).to_string();
        let memory = self.query_memory.to_string();
        let mut settings = vec![
            ("query_id", id),
            ("max_execution_time", seconds.as_str()),
            ("max_query_size", "16777216"),
        ];
        if sent == Sent::Whole {
            // The status says whether the answer is whole.
            settings.extend([("wait_end_of_query", "1"), ("buffer_size", "33554432")]);
        }
        if self.query_memory > 0 {
            settings.push(("max_memory_usage", &memory));
        }
        if modern {
            settings.push(("cancel_http_readonly_queries_on_client_close", "1"));
        }
        // The server ends the query first.
        let patience = timeout + Duration::from_secs(5);
        let answer = self.request(&settings, sql.as_bytes(), patience);
        let mut response = answer.map_err(|why| self.explained(why))?;
        let mut reader = response.body_mut().with_config().limit(MAX_ANSWER).reader();
        let held = budget.hold(0).map_err(Failure::Budget)?;
        read(&mut reader, held).map_err(|failure| match failure {
            Failure::Failed(why) => self.explained(format!("{}: {why}", self.url)),
            refused => refused,
        })
    }

    /// Names the options if the time is over.
    fn explained(&self, why: String) -> Failure {
        Failure::Failed(match is_over(&why) {
            true => format!(
                "store.clickhouse.query_timeout = {} or render.timeout is over: {why}",
                Span(self.query_timeout)
            ),
            false => why,
        })
    }
}

/// Whether ClickHouse says that the time is over (TIMEOUT_EXCEEDED).
fn is_over(why: &str) -> bool {
    why.contains("Code: 159") || why.contains("Code: 160")
}
