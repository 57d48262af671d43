//! Sockets that take lines. The sockets are bound by whoever calls, the end is a future.
//!
//! A TCP connection is read only as fast as the store takes: while the cache or the journal is
//! full it is not read at all, and the sender feels it. A datagram that finds no room is dropped
//! and counted. When the end comes, what the kernel already holds is still read.
//!
//! Connections are bounded in number (`carbon.max_connections`, per listener). At the bound, the
//! connection that has been silent longest makes room for a new one; only while all of them are
//! sending is a new one refused. A silent connection gives back its buffers, and is closed after
//! `carbon.idle_timeout`. The listener keeps the time of each connection's last read in a table of
//! its own and looks through it once a second: a connection has no timer.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout, timeout_at};

use crate::datapoint::{Datapoint, Sink};
use crate::protocol::line::{self, Stream};
use crate::store::Carbon;

/// How long a receiver waits before it looks again whether there is room.
const PAUSE: Duration = Duration::from_millis(5);
/// How often it looks whether what it handed over is committed, when it has to wait for that.
const COMMIT_PAUSE: Duration = Duration::from_millis(1);
/// How long connections may go on with what has arrived already when the end comes.
const GRACE: Duration = Duration::from_secs(2);
/// How long the end waits for the runtime to see what a socket holds.
const LAST_LOOK: Duration = Duration::from_millis(10);
/// How often a listener looks for silent connections.
const LOOK: Duration = Duration::from_secs(1);
/// A connection that is silent for this long gives back its buffers.
const REST_AFTER: Duration = Duration::from_secs(5);
/// A connection that is silent for this long may be closed to make room.
const SILENT: Duration = Duration::from_secs(1);
/// Connections that have been asked to make room and have not ended yet, beside the bound.
const MAX_LEAVING: usize = 64;
/// The log tells of the bound this often at most.
const LOG_PAUSE: Duration = Duration::from_secs(60);
/// The last read of a connection that is handing on what it has read.
const BUSY: u64 = u64::MAX;
/// Datagrams taken before their datapoints are handed on.
const DATAGRAMS: usize = 64;
/// The receive buffer asked of the kernel; it holds the datagrams of a pause.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What a listener knows of a connection.
#[derive(Debug)]
struct Peer {
    /// When it was read last, in milliseconds since the listener's start; [`BUSY`] meanwhile.
    read_at: AtomicU64,
    /// It has given back its buffers since.
    rests: AtomicBool,
    /// It is to end.
    leaves: AtomicBool,
    /// Tells it to look at these.
    wake: Notify,
}

/// The connections of a listener.
struct Peers {
    start: Instant,
    known: HashMap<Id, Arc<Peer>>,
    /// How many of them leave.
    leaving: usize,
    max: usize,
    idle_timeout: Duration,
    complained: Option<Instant>,
}

/// Whether a new connection is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// A silent connection was asked to leave.
    Made,
    Full,
}

impl Peer {
    fn new(start: Instant) -> Self {
        Self {
            read_at: AtomicU64::new(millis(start)),
            rests: AtomicBool::new(false),
            leaves: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    fn leave(&self) {
        self.leaves.store(true, Ordering::Release);
        self.wake.notify_one();
    }
}

/// Milliseconds since `start`.
fn millis(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(BUSY - 1)
}

impl Peers {
    fn new(carbon: &Carbon) -> Self {
        let options = &carbon.0.options;
        let max = match options.max_connections {
            0 => usize::MAX,
            max => max as usize,
        };
        Self {
            start: Instant::now(),
            known: HashMap::new(),
            leaving: 0,
            max,
            idle_timeout: options.idle_timeout.0,
            complained: None,
        }
    }

    /// The connections that stay, each with how long it has been silent; zero for a busy one.
    fn silent(&self) -> impl Iterator<Item = (&Arc<Peer>, Duration)> {
        let now = millis(self.start);
        let staying = self.known.values();
        let staying = staying.filter(|peer| !peer.leaves.load(Ordering::Relaxed));
        staying.map(move |peer| {
            let at = peer.read_at.load(Ordering::Relaxed);
            (peer, Duration::from_millis(now.saturating_sub(at)))
        })
    }

    /// Sees to it that there is room for one more.
    fn make_room(&mut self) -> Room {
        if self.known.len() - self.leaving < self.max {
            return Room::Free;
        }
        let oldest = self.silent().max_by_key(|(_, silent)| *silent);
        let room = match oldest {
            Some((peer, silent)) if silent >= SILENT && self.leaving < MAX_LEAVING => {
                peer.leave();
                Room::Made
            }
            _ => Room::Full,
        };
        self.leaving += usize::from(room == Room::Made);
        let told = self.complained;
        if told.is_none_or(|told| told.elapsed() >= LOG_PAUSE) {
            self.complained = Some(Instant::now());
            tracing::warn!(
                connections = self.known.len(),
                "carbon.max_connections is reached: silent connections make room, others are refused"
            );
        }
        room
    }

    fn ended(&mut self, id: Id) {
        if let Some(peer) = self.known.remove(&id) {
            self.leaving -= usize::from(peer.leaves.load(Ordering::Relaxed));
        }
    }

    /// Has silent connections rest or leave; how many leave now.
    fn look(&mut self) -> usize {
        let mut leaving = 0;
        for (peer, silent) in self.silent() {
            if !self.idle_timeout.is_zero() && silent >= self.idle_timeout {
                peer.leave();
                leaving += 1;
            } else if silent >= REST_AFTER && !peer.rests.swap(true, Ordering::Relaxed) {
                peer.wake.notify_one();
            }
        }
        self.leaving += leaving;
        leaving
    }
}

/// Takes lines over TCP until `shutdown`, then what had arrived by then.
pub async fn line_tcp(carbon: Carbon, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut peers = Peers::new(&carbon);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    carbon.stats().connections_opened.add(1);
                    match peers.make_room() {
                        Room::Free => {}
                        Room::Made => carbon.stats().connections_evicted.add(1),
                        Room::Full => {
                            carbon.stats().connections_refused.add(1);
                            carbon.stats().connections_closed.add(1);
                            continue;
                        }
                    }
                    let peer = Arc::new(Peer::new(peers.start));
                    let connection = Connection {
                        carbon: carbon.clone(),
                        stream,
                        address,
                        peer: peer.clone(),
                        start: peers.start,
                        stopped: stopped.clone(),
                    };
                    let id = connections.spawn(connection.run()).id();
                    peers.known.insert(id, peer);
                }
                Err(error) => {
                    // Out of descriptors, most likely: others close in time.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE * 20).await;
                }
            },
            Some(ended) = connections.join_next_with_id() => {
                peers.ended(ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
            _ = looks.tick(), if !peers.known.is_empty() => {
                carbon.stats().connections_idle.add(peers.look() as u64);
            }
        }
    }
    drop(listener);
    // Nobody listens any more only if all connections have ended.
    let _ = stop.send(true);
    let deadline = Instant::now() + GRACE;
    while let Ok(Some(_)) = timeout_at(deadline, connections.join_next()).await {}
}

/// A connection and what its listener knows of it.
struct Connection {
    carbon: Carbon,
    stream: TcpStream,
    address: SocketAddr,
    peer: Arc<Peer>,
    /// The start of the listener.
    start: Instant,
    stopped: watch::Receiver<bool>,
}

impl Connection {
    async fn run(self) {
        let Self {
            carbon,
            stream,
            address,
            peer,
            start,
            mut stopped,
        } = self;
        let mut lines = Stream::default();
        let mut points = Vec::new();
        let ended = loop {
            let ending = *stopped.borrow() || peer.leaves.load(Ordering::Acquire);
            if ending {
                // The runtime has to look before it can say whether anything is there.
                if timeout(LAST_LOOK, stream.readable()).await.is_err() {
                    break Ok(());
                }
            } else {
                tokio::select! {
                    biased;
                    ready = stream.readable() => if let Err(error) = ready { break Err(error); },
                    _ = stopped.changed() => continue,
                    () = peer.wake.notified() => {
                        lines.rest();
                        points = Vec::new();
                        continue;
                    }
                }
            }
            match stream.try_read(lines.space()) {
                Ok(0) => break Ok(()),
                Ok(n) => {
                    peer.read_at.store(BUSY, Ordering::Relaxed);
                    peer.rests.store(false, Ordering::Relaxed);
                    let pin = carbon.index().pin();
                    lines.advance(n, &mut carbon.resolver(&mut points));
                    hand_on(&carbon, &mut points).await;
                    drop(pin);
                    peer.read_at.store(millis(start), Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => break Err(error),
            }
        };
        lines.end(&mut carbon.resolver(&mut points));
        carbon.stats().connections_closed.add(1);
        if let Err(error) = ended {
            tracing::debug!(%address, %error, "a connection broke");
        }
    }
}

/// Submits `points`, waiting while there is no room.
async fn hand_on(carbon: &Carbon, points: &mut Vec<Datapoint>) {
    let mut rest = points.as_slice();
    while !rest.is_empty() {
        let taken = carbon.try_submit(rest);
        rest = &rest[taken..];
        if !rest.is_empty() {
            carbon.stats().waits.add(1);
            sleep(PAUSE).await;
        }
    }
    points.clear();
    if let Some(ticket) = carbon.must_wait_for() {
        while carbon.committed() < ticket {
            sleep(COMMIT_PAUSE).await;
        }
    }
}

/// Takes lines in datagrams until `shutdown`, then what had arrived by then.
pub async fn line_udp(carbon: Carbon, socket: UdpSocket, shutdown: impl Future<Output = ()>) {
    // A smaller buffer is taken as it is: the kernel counts what it drops.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    let mut buffer = vec![0; 64 << 10];
    let mut points = Vec::new();
    tokio::pin!(shutdown);
    let mut ending = false;
    loop {
        if ending {
            if timeout(LAST_LOOK, socket.readable()).await.is_err() {
                return;
            }
        } else {
            tokio::select! {
                () = &mut shutdown => {
                    ending = true;
                    continue;
                }
                ready = socket.readable() => if let Err(error) = ready {
                    tracing::warn!(%error, "datagrams cannot be read");
                    sleep(PAUSE * 20).await;
                },
            }
        }
        let _pin = carbon.index().pin();
        receive(&carbon, &socket, &mut buffer, &mut points);
        let taken = carbon.try_submit(&points);
        carbon.stats().overflow.add((points.len() - taken) as u64);
        points.clear();
    }
}

/// Reads datagrams until there are none, or enough for now.
fn receive(carbon: &Carbon, socket: &UdpSocket, buffer: &mut [u8], points: &mut Vec<Datapoint>) {
    let mut resolver = carbon.resolver(points);
    for _ in 0..DATAGRAMS {
        match socket.try_recv(buffer) {
            Ok(n) => {
                let datagram = &buffer[..n];
                let read = line::read(datagram, &mut resolver);
                // The last line of a datagram is whole without its end.
                line::read_one(&datagram[read..], &mut resolver);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => {
                tracing::debug!(%error, "a datagram could not be read");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{JournalOptions, Options, Span, SyncPolicy};
    use crate::store::Setup;
    use tokio::io::AsyncWriteExt;
    use tokio::sync::oneshot;

    fn carbon(dir: &std::path::Path) -> Carbon {
        limited(dir, Options::default())
    }

    fn limited(dir: &std::path::Path, options: Options) -> Carbon {
        let journal = JournalOptions {
            sync: SyncPolicy::Off,
            ..JournalOptions::default()
        };
        let setup = Setup::new(options, journal, Span::seconds(10));
        Carbon::open(setup, dir).unwrap()
    }

    #[tokio::test]
    async fn what_had_arrived_when_the_end_came_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let carbon = carbon(dir.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(line_tcp(carbon.clone(), listener, async {
            let _ = stopped.await;
        }));
        let mut client = TcpStream::connect(address).await.unwrap();
        let at = carbon.now().0;
        let lines: String = (0..2_000).map(|n| format!("a.m{n} {n} {at}\n")).collect();
        client.write_all(lines.as_bytes()).await.unwrap();
        client.write_all(b"bad\ncut.off 1").await.unwrap();
        // The connection must have been accepted before the end comes.
        while carbon.stats().connections_opened.get() == 0 {
            tokio::task::yield_now().await;
        }
        stop.send(()).unwrap();
        server.await.unwrap();
        assert_eq!(carbon.stats().received.get(), 2_000);
        assert_eq!(carbon.stats().rejected_fields.get(), 1);
        assert_eq!(carbon.stats().rejected_torn.get(), 1);
        assert_eq!(carbon.index().find("a.*").unwrap().len(), 2_000);
    }

    fn silent(peers: &mut Peers, silent: Duration) -> Arc<Peer> {
        let peer = Arc::new(Peer::new(peers.start));
        let at = peers.start.elapsed() - silent;
        peer.read_at.store(at.as_millis() as u64, Ordering::Relaxed);
        let id = tokio::spawn(async {}).id();
        peers.known.insert(id, peer.clone());
        peer
    }

    #[tokio::test]
    async fn the_longest_silent_makes_room_and_senders_stay() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            max_connections: 3,
            ..Options::default()
        };
        let mut peers = Peers::new(&limited(dir.path(), options));
        peers.start -= Duration::from_secs(100);
        let old = silent(&mut peers, Duration::from_secs(50));
        let oldest = silent(&mut peers, Duration::from_secs(60));
        assert_eq!(peers.make_room(), Room::Free);
        let busy = silent(&mut peers, Duration::ZERO);
        busy.read_at.store(BUSY, Ordering::Relaxed);
        let leaves = |peer: &Peer| peer.leaves.load(Ordering::Relaxed);
        assert_eq!(peers.make_room(), Room::Made);
        assert!(leaves(&oldest) && !leaves(&old) && !leaves(&busy));
        // The newcomer, which sends.
        silent(&mut peers, Duration::ZERO);
        assert_eq!(peers.make_room(), Room::Made);
        assert!(leaves(&old) && !leaves(&busy));
        silent(&mut peers, Duration::ZERO);
        assert_eq!(peers.make_room(), Room::Full);
        let ids: Vec<Id> = peers.known.keys().copied().collect();
        for id in ids {
            peers.ended(id);
        }
        assert_eq!((peers.leaving, peers.make_room()), (0, Room::Free));
    }

    #[tokio::test]
    async fn the_silent_rest_once_and_leave_after_the_timeout() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            idle_timeout: Span::seconds(60),
            ..Options::default()
        };
        let mut peers = Peers::new(&limited(dir.path(), options));
        peers.start -= Duration::from_secs(100);
        let rests = silent(&mut peers, Duration::from_secs(50));
        let leaves = silent(&mut peers, Duration::from_secs(61));
        let sends = silent(&mut peers, Duration::ZERO);
        assert_eq!(peers.look(), 1);
        let state = |peer: &Peer| {
            let leaves = peer.leaves.load(Ordering::Relaxed);
            (peer.rests.load(Ordering::Relaxed), leaves)
        };
        assert_eq!(state(&rests), (true, false));
        assert_eq!(state(&leaves), (false, true));
        assert_eq!(state(&sends), (false, false));
        // Woken once, and not again until it has sent.
        rests.wake.notified().await;
        assert_eq!(peers.look(), 0);
        assert!(
            timeout(Duration::ZERO, rests.wake.notified())
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn a_silent_connection_is_closed_after_what_it_sent_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            idle_timeout: Span::millis(100),
            ..Options::default()
        };
        let carbon = limited(dir.path(), options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(line_tcp(carbon.clone(), listener, async {
            let _ = stopped.await;
        }));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"a 1 N\nhalf").await.unwrap();
        // Ends when the server closes.
        client.readable().await.unwrap();
        assert_eq!(client.try_read(&mut [0; 8]).unwrap(), 0);
        stop.send(()).unwrap();
        server.await.unwrap();
        let stats = carbon.stats();
        assert_eq!((stats.received.get(), stats.rejected_torn.get()), (1, 1));
        assert_eq!(stats.connections_idle.get(), 1);
        assert_eq!(stats.connections_closed.get(), 1);
    }

    #[tokio::test]
    async fn datagrams_need_no_last_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let carbon = carbon(dir.path());
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(b"a 1 N\nb 2 N", address).await.unwrap();
        client.send_to(b"bad\nc 3 N\n", address).await.unwrap();
        // The end is there at once: both datagrams are in the socket already.
        line_udp(carbon.clone(), socket, async {}).await;
        assert_eq!(carbon.stats().received.get(), 3);
        assert_eq!(carbon.stats().rejected_fields.get(), 1);
    }
}
