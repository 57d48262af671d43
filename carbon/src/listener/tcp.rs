//! TCP connections of all protocols: accepted up to a limit, read while the store has room, closed
//! when they are silent for too long.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use super::complaints::Complaints;
use super::peers::{BUSY, Peer, Peers, Room, Unread, micros};
use crate::datapoint::Datapoint;
use crate::protocol::{Buffer, Flow, Metrics};
use crate::store::Carbon;

/// How long the shutdown waits for the runtime to see what a socket holds.
pub(super) const LAST_LOOK: Duration = Duration::from_millis(10);
/// How long connections and sockets may go on with what has arrived already when the shutdown begins.
pub(super) const GRACE: Duration = Duration::from_secs(2);
/// How long connections that waited for room until then have to put their points into the journal.
const LAST_GRACE: Duration = Duration::from_secs(1);
/// How often a listener looks for silent connections.
const LOOK: Duration = Duration::from_secs(1);
/// How long the listener waits after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a client may take to read a part of an answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection and what its listener knows of it.
pub(super) struct Connection {
    pub(super) carbon: Carbon,
    pub(super) address: SocketAddr,
    pub(super) complaints: Arc<Complaints>,
    stream: TcpStream,
    peer: Arc<Peer>,
    peers: Arc<Mutex<Peers>>,
    /// Unread bytes of all connections.
    unread: Arc<Unread>,
    /// The start of the table of connections.
    start: Instant,
    stopped: watch::Receiver<bool>,
    /// The last read filled the buffer: there is more, and the next read would not wait.
    has_more: bool,
}

/// Accepts connections until `shutdown`, and has `run` serve each; then waits until they have ended,
/// which they do when they have read what had arrived by then.
pub(super) async fn accept<F: Future<Output = io::Result<()>> + Send + 'static>(
    carbon: Carbon,
    peers: Arc<Mutex<Peers>>,
    key: &'static str,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
    run: impl Fn(Connection) -> F,
) {
    let (stop, stopped) = watch::channel(false);
    let complaints = Arc::new(Complaints::new(key));
    let mut connections = JoinSet::new();
    let (start, unread) = {
        let peers = peers.lock();
        (peers.start, Arc::clone(&peers.unread))
    };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    if !admit(&carbon, &mut peers.lock()) {
                        continue;
                    }
                    let peer = Arc::new(Peer::new(start));
                    let connection = Connection {
                        carbon: carbon.clone(),
                        address,
                        complaints: complaints.clone(),
                        stream,
                        peer: peer.clone(),
                        peers: Arc::clone(&peers),
                        unread: Arc::clone(&unread),
                        start,
                        stopped: stopped.clone(),
                        has_more: false,
                    };
                    let task = serve(carbon.clone(), address, run(connection));
                    let id = connections.spawn(task).id();
                    peers.lock().known.insert(id, peer);
                }
                Err(error) => {
                    // Out of descriptors, most likely: others close in time.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE).await;
                }
            },
            Some(ended) = connections.join_next_with_id() => {
                peers.lock().ended(ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
            _ = looks.tick(), if !connections.is_empty() => {
                carbon.stats().connections_idle.add(peers.lock().look() as u64);
            }
        }
    }
    drop(listener);
    // The channel has no receiver any more only if all connections have ended.
    let _ = stop.send(true);
    for grace in [GRACE, LAST_GRACE] {
        let deadline = Instant::now() + grace;
        while let Ok(Some(ended)) = timeout_at(deadline, connections.join_next_with_id()).await {
            peers
                .lock()
                .ended(ended.map_or_else(|error| error.id(), |(id, ())| id));
        }
        if connections.is_empty() {
            return;
        }
        // What they have read must not be lost with them.
        carbon.wait_no_longer();
    }
}

/// Counts a new connection and makes room for it; whether there is room.
fn admit(carbon: &Carbon, peers: &mut Peers) -> bool {
    let stats = carbon.stats();
    stats.connections_opened.add(1);
    match peers.make_room() {
        Room::Free => true,
        Room::Made => {
            stats.connections_evicted.add(1);
            true
        }
        Room::Full => {
            stats.connections_refused.add(1);
            stats.connections_closed.add(1);
            false
        }
    }
}

/// Runs a connection to its end and counts that.
async fn serve(carbon: Carbon, address: SocketAddr, run: impl Future<Output = io::Result<()>>) {
    let ended = run.await;
    carbon.stats().connections_closed.add(1);
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a connection broke");
    }
}

impl Connection {
    /// Waits for bytes and puts them into `buffer`; how many they are, 0 at the end of the
    /// connection. While the client is silent, the buffer may be asked to give back its memory. The
    /// connection counts as busy until the next call.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn read(&mut self, buffer: &mut impl Buffer) -> io::Result<usize> {
        if std::mem::take(&mut self.has_more) {
            // Other tasks would never have their turn.
            yield_now().await;
        }
        let peer = &*self.peer;
        if peer.read_at.load(Ordering::Relaxed) == BUSY {
            peer.read_at.store(micros(self.start), Ordering::Relaxed);
        }
        loop {
            let ending = *self.stopped.borrow() || peer.leaves.load(Ordering::Acquire);
            if ending {
                // The runtime has to look before it can say whether bytes are there.
                if timeout(LAST_LOOK, self.stream.readable()).await.is_err() {
                    return Ok(0);
                }
            } else {
                tokio::select! {
                    biased;
                    ready = self.stream.readable() => ready?,
                    _ = self.stopped.changed() => continue,
                    () = peer.wake.notified() => {
                        buffer.rest();
                        continue;
                    }
                }
            }
            let space = buffer.space();
            match self.stream.try_read(space) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
                Ok(0) => return Ok(0),
                Ok(n) => {
                    self.has_more = n == space.len();
                    peer.read_at.store(BUSY, Ordering::Relaxed);
                    peer.rests.store(false, Ordering::Relaxed);
                    return Ok(n);
                }
            }
        }
    }

    /// The connection keeps `bytes` of a line or a frame whose end has not come; whether it may. Beyond
    /// the limit, silent connections that keep some are asked to leave.
    pub(super) fn keeps(&self, bytes: usize) -> bool {
        if self.unread.set(&self.peer, bytes) {
            return true;
        }
        let stats = self.carbon.stats();
        let (closed, fits) = self.peers.lock().make_memory();
        stats
            .connections_unread
            .add(closed as u64 + u64::from(!fits));
        fits
    }

    /// Sends `bytes`.
    ///
    /// # Errors
    /// The connection broke, or the client does not read.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let ready = timeout(WRITE_TIMEOUT, self.stream.writable()).await;
            ready.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            match self.stream.try_write(rest) {
                Ok(n) => rest = &rest[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.unread.set(&self.peer, 0);
    }
}

/// A stream of metrics and the datapoints of its last read.
struct Reading<M> {
    metrics: M,
    points: Vec<Datapoint>,
}

impl<M: Metrics> Buffer for Reading<M> {
    fn space(&mut self) -> &mut [u8] {
        self.metrics.space()
    }

    fn rest(&mut self) {
        self.metrics.rest();
        self.points = Vec::new();
    }

    fn unread(&self) -> usize {
        self.metrics.unread()
    }
}

/// Takes the metrics of a connection, and reads only as fast as the store takes them.
///
/// # Errors
/// The connection broke.
pub(super) async fn take(mut connection: Connection, metrics: impl Metrics) -> io::Result<()> {
    let carbon = connection.carbon.clone();
    let mut reading = Reading {
        metrics,
        points: Vec::new(),
    };
    let ended = loop {
        let n = match connection.read(&mut reading).await {
            Ok(0) => break Ok(()),
            Ok(n) => n,
            Err(error) => break Err(error),
        };
        let Reading { metrics, points } = &mut reading;
        let pin = carbon.index().pin();
        let (flow, refused) = {
            let mut resolver = carbon.resolver(points);
            (metrics.advance(n, &mut resolver), resolver.refused())
        };
        if let Some(refused) = refused {
            connection.complaints.report(connection.address, &refused);
        }
        carbon.submit_async(points).await;
        points.clear();
        drop(pin);
        if flow == Flow::Close {
            return Ok(());
        }
        if !connection.keeps(reading.unread()) {
            break Ok(());
        }
    };
    let Reading { metrics, points } = &mut reading;
    metrics.end(&mut carbon.resolver(points));
    ended
}
