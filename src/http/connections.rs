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
//!    [`SLOWEST_BODY`] or more on average.
//! 3. If the client does not read for `write_timeout`, the connection is closed; a client that reads
//!    slowly gets its whole answer. The kernel buffers little ([`UNSENT`]), so that reading is
//!    visible.
//! 4. At the limit the connection that has been idle longest is closed for a new one, otherwise the
//!    connection that has waited longest for a complete request. While all connections are busy, a
//!    new one is refused with a 503. Few refusals run at the same time: further connections wait in
//!    the backlog.
//! 5. A shutdown closes idle connections, lets begun answers finish, and ends after the last one.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use parking_lot::{Mutex, MutexGuard};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tracing::{debug, error, warn};

use super::secure;
use settings::{Counter, Reading};

/// Most bytes of a request's head, and what hyper keeps of an answer before it is sent.
const BUFFER: usize = 128 * 1024;
/// Bytes of an answer that may wait in the kernel unsent.
const UNSENT: u32 = 128 * 1024;
/// Bytes a second below which a body is too slow, once its first patience is used up.
const SLOWEST_BODY: u64 = 1024;
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
    let io = TokioIo::new(Timed {
        stream,
        reading: Box::pin(sleep(Duration::ZERO)),
        writing: Box::pin(sleep(Duration::ZERO)),
        stalled: false,
        watch: Arc::clone(&watch),
    });
    let service = service_fn(|request: Request<Incoming>| {
        watch.enter(Phase::Busy);
        let answered = Answered(Arc::clone(&watch));
        let request = request.map(|body| Body::new(Arriving::new(body, Arc::clone(&watch))));
        let answer = TowerToHyperService::new(routes()).call(request);
        async move {
            let response = answer.await?;
            Ok::<_, Infallible>(response.map(|body| Sent {
                body,
                _answered: answered,
            }))
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

/// A stream with deadlines for reading and writing.
struct Timed {
    stream: TcpStream,
    reading: Pin<Box<Sleep>>,
    writing: Pin<Box<Sleep>>,
    /// Whether `writing` runs: the kernel took nothing the last time.
    stalled: bool,
    watch: Arc<Watch>,
}

impl Timed {
    fn wrote<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Shared {
            limits, counters, ..
        } = &*self.watch.shared;
        if outcome.is_ready() || limits.write.is_zero() {
            self.stalled = false;
            if self.watch.phase() == Phase::Idle {
                self.watch.rests.notify_one();
            }
            return outcome;
        }
        if !self.stalled {
            self.stalled = true;
            self.writing.as_mut().reset(Instant::now() + limits.write);
        }
        if self.writing.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        counters.unread.add(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if outcome.is_ready() {
            if buffer.filled().len() > before && self.watch.phase() == Phase::Idle {
                self.watch.enter(Phase::Head);
            }
            return outcome;
        }
        let Self { reading, watch, .. } = &mut *self;
        let Some((deadline, counter)) = watch.deadline() else {
            return Poll::Pending;
        };
        if reading.deadline() != deadline {
            reading.as_mut().reset(deadline);
        }
        if reading.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        counter.add(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.wrote(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A body on its way in.
struct Arriving {
    body: Incoming,
    patience: Pin<Box<Sleep>>,
    began: Instant,
    /// When the last piece came.
    last: Instant,
    n_bytes: u64,
    watch: Arc<Watch>,
}

impl Arriving {
    fn new(body: Incoming, watch: Arc<Watch>) -> Self {
        let now = Instant::now();
        Self {
            body,
            patience: Box::pin(sleep_until(now)),
            began: now,
            last: now,
            n_bytes: 0,
            watch,
        }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                this.n_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.last = Instant::now();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        let patience = this.watch.shared.limits.write;
        if patience.is_zero() {
            return Poll::Pending;
        }
        let owed = Duration::from_secs(this.n_bytes / SLOWEST_BODY);
        let deadline = (this.last + patience).min(this.began + patience + owed);
        if this.patience.deadline() != deadline {
            this.patience.as_mut().reset(deadline);
        }
        if this.patience.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.watch.shared.counters.slow_bodies.add(1);
        let why = io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly");
        Poll::Ready(Some(Err(axum::Error::new(why))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Held from the request to the end of its answer.
struct Answered(Arc<Watch>);

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
        self.0.rests.notify_one();
    }
}

/// The body of an answer on its way out.
struct Sent {
    body: Body,
    _answered: Answered,
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::routing::{get, post};

    use super::*;

    /// A server with `limits`, its address, and what stops it.
    async fn served(limits: Limits) -> (Connections, std::net::SocketAddr, watch::Sender<bool>) {
        let router = Router::new()
            .route("/", get(|| async { "here" }))
            .route("/wait", get(std::future::pending::<&str>))
            .route("/echo", post(|body: Bytes| async { body }))
            .route("/big", get(|| async { vec![7_u8; 64 << 20] }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::new(limits);
        let (stop, stopped) = watch::channel(false);
        let serving = connections.clone();
        tokio::spawn(serving.serve(listener, move || router.clone(), stopped));
        (connections, address, stop)
    }

    fn short() -> Limits {
        let long = Duration::from_secs(3600);
        Limits {
            connections: 8,
            header: long,
            idle: long,
            write: long,
        }
    }

    async fn connect(address: std::net::SocketAddr, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    /// All that comes until the server closes.
    async fn rest(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        // A reset is a close, too.
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    }

    /// One answer, the connection left open.
    async fn answer(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        while !text.ends_with("here") {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece).await.unwrap();
            assert_ne!(n, 0, "closed after {text:?}");
            text += std::str::from_utf8(&piece[..n]).unwrap();
        }
        text
    }

    fn reading(connections: &Connections, name: &str) -> f64 {
        let readings = connections.readings();
        let found = readings.iter().find(|reading| reading.name == name);
        found.unwrap().value
    }

    const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

    #[tokio::test]
    async fn a_head_that_never_ends_is_not_waited_for_however_it_drips() {
        let header = Duration::from_millis(300);
        let (connections, address, _stop) = served(Limits { header, ..short() }).await;
        let silent = connect(address, "").await;
        let half = connect(address, "GET / HTTP/1.1\r\nX-").await;
        let (mut dripping, mut writing) = connect(address, "GET /").await.into_split();
        let drip = tokio::spawn(async move {
            while writing.write_all(b"a").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
        });
        assert_eq!(rest(silent).await, "");
        assert_eq!(rest(half).await, "");
        let mut text = String::new();
        let _ = dripping.read_to_string(&mut text).await;
        drip.await.unwrap();
        assert_eq!(reading(&connections, "header_timeouts"), 3.0);
        // After an answer the next head has as long from its first byte.
        let mut kept = connect(address, GET).await;
        answer(&mut kept).await;
        kept.write_all(b"GET / HT").await.unwrap();
        assert_eq!(rest(kept).await, "");
        assert_eq!(reading(&connections, "header_timeouts"), 4.0);
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
        let idle = Duration::from_millis(100);
        let (connections, address, _stop) = served(Limits { idle, ..short() }).await;
        let busy = connect(address, "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut kept = connect(address, GET).await;
        answer(&mut kept).await;
        assert_eq!(rest(kept).await, "");
        assert_eq!(reading(&connections, "idle_timeouts"), 1.0);
        let gone = timeout(idle * 5, rest(busy)).await;
        assert!(gone.is_err(), "an answer that takes long is no idleness");
    }

    #[tokio::test]
    async fn an_answer_that_is_not_read_ends_the_connection_and_a_slow_reader_gets_it() {
        let write = Duration::from_millis(500);
        let (connections, address, _stop) = served(Limits { write, ..short() }).await;
        let ask = "GET /big HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let unread = connect(address, ask).await;
        let mut slow = connect(address, ask).await;
        let began = Instant::now();
        let mut n_bytes = 0;
        let mut piece = vec![0; 1 << 20];
        loop {
            let n = slow.read(&mut piece).await.unwrap();
            if n == 0 {
                break;
            }
            n_bytes += n;
            // Slowly enough that the whole takes longer than the timeout.
            let due = write * 2 * (n_bytes >> 20) as u32 / 64;
            sleep(due.saturating_sub(began.elapsed())).await;
        }
        assert!(n_bytes > 64 << 20, "{n_bytes}");
        assert!(began.elapsed() > write);
        while reading(&connections, "write_timeouts") == 0.0 {
            tokio::task::yield_now().await;
        }
        assert!(rest(unread).await.len() < 64 << 20);
        assert_eq!(reading(&connections, "write_timeouts"), 1.0);
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_ends_the_request() {
        let write = Duration::from_millis(100);
        let (connections, address, _stop) = served(Limits { write, ..short() }).await;
        let head = "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\n";
        let half = connect(address, &format!("{head}ab")).await;
        let text = rest(half).await;
        assert!(text.starts_with("HTTP/1.1 400"), "{text}");
        assert_eq!(reading(&connections, "body_timeouts"), 1.0);
        let mut whole = connect(address, &format!("{head}abc")).await;
        whole.write_all(b"de").await.unwrap();
        whole.shutdown().await.unwrap();
        assert!(rest(whole).await.ends_with("abcde"));
    }

    #[tokio::test]
    async fn at_the_cap_the_idle_make_room_then_the_unfinished_and_never_the_busy() {
        let (connections, address, _stop) = served(short()).await;
        let wait = "GET /wait HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let mut busy = Vec::new();
        for _ in 0..6 {
            busy.push(connect(address, wait).await);
        }
        let half = connect(address, "GET /").await;
        let mut idle = connect(address, GET).await;
        answer(&mut idle).await;
        assert_eq!(reading(&connections, "connections"), 8.0);

        busy.push(connect(address, wait).await);
        assert_eq!(rest(idle).await, "");
        busy.push(connect(address, wait).await);
        assert_eq!(rest(half).await, "");
        assert_eq!(reading(&connections, "connections_displaced"), 2.0);

        let refused = rest(connect(address, GET).await).await;
        assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
        assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
        assert!(refused.contains("render.max_connections"), "{refused}");
        assert_eq!(reading(&connections, "connections_refused"), 1.0);
        assert_eq!(reading(&connections, "connections"), 8.0);
        drop(busy);
        let mut again = connect(address, GET).await;
        // Those that left are noticed in their own time.
        while reading(&connections, "connections") > 1.0 {
            tokio::task::yield_now().await;
        }
        let text = answer(&mut again).await;
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    }

    #[tokio::test]
    async fn a_stop_closes_what_is_idle_and_lets_answers_finish() {
        let (connections, address, stop) = served(short()).await;
        let mut idle = connect(address, GET).await;
        answer(&mut idle).await;
        let half = connect(address, "GET /").await;
        let ask = "GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let reader = connect(address, ask).await;
        while reading(&connections, "connections") < 3.0 {
            tokio::task::yield_now().await;
        }
        // The answer has begun.
        reader.readable().await.unwrap();
        stop.send(true).unwrap();
        assert_eq!(rest(idle).await, "");
        assert_eq!(rest(half).await, "");
        assert!(rest(reader).await.len() > 64 << 20);
        assert!(TcpStream::connect(address).await.is_err());
        assert_eq!(reading(&connections, "connections"), 0.0);
    }
}
