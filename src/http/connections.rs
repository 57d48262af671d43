//! HTTP connections: accepted up to a limit, and closed when they make no progress.
//!
//! ```text
//! accept ─> Head ──(request whole)──> Busy ──(answer sent)──> Idle ─┐
//!            │  ▲                      │                        │   │ first byte of the next
//!       header_timeout                 │ write_timeout     idle_timeout
//!            │  └──────────────────────┼────────────────────────┼───┘
//!            └──────────> closed <─────┴────────────────────────┘
//! ```
//!
//! 1. The head of a request must be complete within `header_timeout` of its first byte (first
//!    request: of the accept). Sending single bytes does not extend the deadline.
//! 2. Each piece of a body must arrive within `write_timeout`, and the whole body at
//!    1 KiB a second or more on average.
//! 3. If the client does not read for `write_timeout`, the connection is closed; a client that reads
//!    slowly gets its whole answer (but see 6). The kernel buffers little ([`UNSENT`]), so that reading is
//!    visible.
//! 4. At the limit the connection that has been idle longest is closed for a new one, otherwise the
//!    connection that has waited longest for a complete request. While all connections are busy, a
//!    new one is refused with a 503. Few refusals run at the same time: further connections wait in
//!    the backlog.
//! 5. A connection that ends before its answer is out is reset: without a length, its end would
//!    look like the answer's.
//! 6. Clients that read large answers slowly are broken off when others miss the memory ([`readers`]).
//! 7. A shutdown closes idle connections, lets begun answers finish, and ends after the last one.

mod deadlines;
mod readers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::{Mutex, MutexGuard};
use render::http::Holds;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use self::deadlines::{Answered, Arriving, Sent, Timed};
use self::readers::Readers;
use super::secure;
use settings::{Counter, Reading};

/// Most bytes of a request's head, and what hyper keeps of an answer before it is sent.
const BUFFER: usize = 128 * 1024;
/// Bytes of an answer that may wait in the kernel unsent.
const UNSENT: u32 = 128 * 1024;
/// The maximum number of concurrent refusals.
const REFUSALS: usize = 32;
/// How long a refusal may take.
const REFUSING: Duration = Duration::from_secs(1);
/// How long, and how often, the acceptor waits for a displaced connection to close.
const MAKING_ROOM: Duration = Duration::from_millis(50);
const TRIES: usize = 8;
/// The pause of the acceptor after the system refused a descriptor.
const REST: Duration = Duration::from_millis(100);

/// The limits on connections. A duration of zero disables its limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// For the head of a request.
    pub header: Duration,
    /// Between an answer and the next request.
    pub idle: Duration,
    /// For an answer or a body that does not move.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let options = render::options::Options::default();
        Self {
            connections: options.max_connections,
            header: options.header_timeout.0,
            idle: options.idle_timeout.0,
            write: options.write_timeout.0,
        }
    }
}

settings::counters! {
    /// What became of connections.
    pub struct Counters in "http" {
        /// Connections accepted. If this grows fast, clients connect for each request: let them
        /// keep the connection.
        accepted = "accepted";
        /// Connections refused with a 503 because render.max_connections were busy. If this grows,
        /// raise the limit, or find the client that holds so many.
        refused = "connections_refused";
        /// Connections closed to make room for a new one: idle, or with an unfinished head. If this
        /// grows, raise render.max_connections.
        displaced = "connections_displaced";
        /// Connections closed by render.header_timeout. If this grows, a client or proxy opens
        /// connections and sends nothing.
        slow_heads = "header_timeouts";
        /// Requests ended because their body arrived too slowly. If this grows, look at the network
        /// of the client, or raise render.write_timeout.
        slow_bodies = "body_timeouts";
        /// Connections closed by render.idle_timeout. For information only.
        idle = "idle_timeouts";
        /// Connections closed by render.write_timeout because the client did not read its answer.
        /// If this grows, find the client that hangs.
        unread = "write_timeouts";
        /// Answers broken off because their clients read slowly and other requests missed the
        /// memory that they held. If this grows, find the clients that read slowly, or raise
        /// render.max_memory.
        broken_off = "broken_off";
    }
}

/// All connections of all listeners. Cheap to clone.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    limits: Limits,
    counters: Counters,
    /// As many permits as there may be connections.
    room: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    readers: Arc<Readers>,
    /// By the order in which they came.
    open: Mutex<BTreeMap<u64, Arc<Watch>>>,
    /// The origin of all timestamps.
    born: Instant,
}

/// The phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The client has to send a request, or a request is arriving.
    Head,
    /// A request is being answered.
    Busy,
    /// An answer has been sent, and no further request has begun.
    Idle,
}

/// A connection as the acceptor sees it.
struct Watch {
    shared: Arc<Shared>,
    phase: AtomicU8,
    /// The milliseconds since `born` at which the phase began.
    since: AtomicU64,
    /// Whether the connection was asked to close for a new one.
    displaced: AtomicBool,
    close: Notify,
    /// Whether an answer is being sent.
    answering: AtomicBool,
    /// The answer is broken off.
    end: Arc<Notify>,
    /// An answer is out: the connection must be polled again, since hyper only reads on when
    /// something arrives, and what does not arrive has a deadline.
    rests: Notify,
}

impl Watch {
    fn enter(&self, phase: Phase) {
        let since = self.shared.born.elapsed().as_millis() as u64;
        self.since.store(since, Ordering::Relaxed);
        self.phase.store(phase as u8, Ordering::Release);
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Head,
            1 => Phase::Busy,
            _ => Phase::Idle,
        }
    }

    /// Until when something must have been read, and the counter for what has not been.
    fn deadline(&self) -> Option<(Instant, &Counter)> {
        let Shared {
            limits,
            counters,
            born,
            ..
        } = &*self.shared;
        let (patience, counter) = match self.phase() {
            Phase::Busy => return None,
            Phase::Head => (limits.header, &counters.slow_heads),
            Phase::Idle => (limits.idle, &counters.idle),
        };
        let since = *born + Duration::from_millis(self.since.load(Ordering::Relaxed));
        (!patience.is_zero()).then(|| (since + patience, counter))
    }
}

impl Connections {
    /// No connections yet.
    pub fn new(limits: Limits) -> Self {
        let room = limits.connections.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            limits,
            counters: Counters::default(),
            room: Arc::new(Semaphore::new(room)),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            readers: Arc::default(),
            open: Mutex::default(),
            born: Instant::now(),
        }))
    }

    /// The counters as readings.
    pub fn readings(&self) -> Vec<Reading> {
        let open = self.open().len() as f64;
        let help = "Connections open now. Compare with render.max_connections.";
        let level = Reading::level("http", "connections", help, open);
        let counts = self.0.counters.readings();
        std::iter::once(level).chain(counts).collect()
    }

    /// Breaks off answers that are read slowly, if all large ones together hold more than half of `limit` bytes.
    /// Whether memory is about to be given back.
    pub fn make_room(&self, limit: u64) -> bool {
        let Shared {
            readers, counters, ..
        } = &*self.0;
        readers.make_room(limit, &counters.broken_off)
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Watch>>> {
        self.0.open.lock()
    }

    /// Accepts on `listener` until `stopped` changes, answering with what `routes` gives for each
    /// request; returns when all connections have ended.
    pub async fn serve(
        self,
        listener: TcpListener,
        routes: impl Fn() -> Router + Clone + Send + Sync + 'static,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut tasks = JoinSet::new();
        let stop = stopped.clone();
        loop {
            let accepted = tokio::select! {
                // An error means that the other end is gone, which is a stop as well.
                _ = stopped.wait_for(|stop| *stop) => break,
                accepted = listener.accept() => accepted,
                Some(ended) = tasks.join_next() => {
                    if let Err(why) = ended {
                        error!("the task of an HTTP connection failed: {why}");
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, _)) => match self.room().await {
                    Some(permit) => {
                        let connection = self.clone().attend(stream, permit, routes.clone());
                        tasks.spawn(connection(stop.clone()));
                    }
                    None => self.refuse(stream, &mut tasks).await,
                },
                Err(why) => {
                    // One that was reset before it was accepted, or no descriptor is free.
                    if !matches!(
                        why.kind(),
                        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
                    ) {
                        warn!("HTTP: cannot accept a connection: {why}");
                        self.displace();
                        sleep(REST).await;
                    }
                }
            }
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
    }

    /// Room for a connection, made if need be; `None` while all are busy.
    async fn room(&self) -> Option<OwnedSemaphorePermit> {
        let room = || Arc::clone(&self.0.room);
        if let Ok(permit) = room().try_acquire_owned() {
            return Some(permit);
        }
        for _ in 0..TRIES {
            if !self.displace() {
                break;
            }
            if let Ok(Ok(permit)) = timeout(MAKING_ROOM, room().acquire_owned()).await {
                return Some(permit);
            }
        }
        room().try_acquire_owned().ok()
    }

    /// Closes the connection that has been idle, or waiting for a request, longest; false if all
    /// connections are busy.
    fn displace(&self) -> bool {
        let open = self.open();
        let candidates = open.values().filter_map(|watch| {
            let rank = match watch.phase() {
                _ if watch.displaced.load(Ordering::Relaxed) => return None,
                Phase::Busy => return None,
                Phase::Idle => 0,
                Phase::Head => 1,
            };
            Some(((rank, watch.since.load(Ordering::Relaxed)), watch))
        });
        let Some((_, watch)) = candidates.min_by_key(|(rank, _)| *rank) else {
            return false;
        };
        watch.displaced.store(true, Ordering::Relaxed);
        watch.close.notify_one();
        self.0.counters.displaced.add(1);
        true
    }

    /// Answers with a 503 and closes.
    async fn refuse(&self, mut stream: TcpStream, tasks: &mut JoinSet<()>) {
        self.0.counters.refused.add(1);
        let refusals = Arc::clone(&self.0.refusals).acquire_owned();
        let Ok(permit) = refusals.await else {
            return;
        };
        tasks.spawn(async move {
            let _permit = permit;
            let answer = async {
                stream.write_all(full().as_bytes()).await?;
                stream.shutdown().await?;
                // Closing over what was not read would take the answer away again.
                let mut rest = [0; 4096];
                while stream.read(&mut rest).await? > 0 {}
                Ok::<_, io::Error>(())
            };
            if let Ok(Err(why)) = timeout(REFUSING, answer).await {
                debug!("refusing an HTTP connection: {why}");
            }
        });
    }

    /// A connection from its first byte to its last.
    fn attend<R>(
        self,
        stream: TcpStream,
        permit: OwnedSemaphorePermit,
        routes: R,
    ) -> impl FnOnce(watch::Receiver<bool>) -> Pin<Box<dyn Future<Output = ()> + Send>>
    where
        R: Fn() -> Router + Send + Sync + 'static,
    {
        let number = self.0.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let watch = Arc::new(Watch {
            shared: Arc::clone(&self.0),
            phase: AtomicU8::new(Phase::Head as u8),
            since: AtomicU64::new(self.0.born.elapsed().as_millis() as u64),
            displaced: AtomicBool::new(false),
            answering: AtomicBool::new(false),
            end: Arc::default(),
            close: Notify::new(),
            rests: Notify::new(),
        });
        self.open().insert(number, Arc::clone(&watch));
        // Neither is needed for an answer: a system that refuses them is lived with.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        let listed = Listed {
            connections: self,
            number,
            _permit: permit,
        };
        move |stopped| Box::pin(run(stream, listed, watch, routes, stopped))
    }
}

/// Takes a connection out of the list however its task ends.
struct Listed {
    connections: Connections,
    number: u64,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.connections.open().remove(&self.number);
    }
}

async fn run(
    stream: TcpStream,
    _listed: Listed,
    watch: Arc<Watch>,
    routes: impl Fn() -> Router,
    mut stopped: watch::Receiver<bool>,
) {
    let io = TokioIo::new(Timed::new(stream, Arc::clone(&watch)));
    let service = service_fn(|request: Request<Incoming>| {
        watch.enter(Phase::Busy);
        let answered = Answered(Arc::clone(&watch));
        let is_head = *request.method() == Method::HEAD;
        let request = request.map(|body| Body::new(Arriving::new(body, Arc::clone(&watch))));
        let answer = TowerToHyperService::new(routes()).call(request);
        async move {
            let mut response = answer.await?;
            let held = response.extensions_mut().remove::<Holds>();
            Ok::<_, Infallible>(response.map(|body| Sent::new(body, held, answered, is_head)))
        }
    });
    let connection = http1::Builder::new()
        .max_buf_size(BUFFER)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut closing = false;
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break ended,
            _ = stopped.wait_for(|stop| *stop), if !closing => {}
            () = watch.close.notified(), if !closing => {}
            () = watch.rests.notified() => continue,
            () = watch.end.notified() => return,
        }
        closing = true;
        if watch.phase() == Phase::Head {
            // A request with an incomplete head has not been accepted.
            return;
        }
        connection.as_mut().graceful_shutdown();
    };
    if let Err(why) = ended {
        debug!("HTTP connection closed: {why}");
    }
}

/// The answer to a connection that there is no room for.
fn full() -> String {
    let sentence = "all connections are busy: see render.max_connections";
    let body = serde_json::json!({ "error": sentence }).to_string();
    let headers: String = secure::HEADERS
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
         connection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}
