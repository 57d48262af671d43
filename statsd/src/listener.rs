//! Stream sockets, TCP and Unix: accepting connections, and the thread that their lines go to.
//!
//! 1. All connections feed one thread with one table, through a bounded channel: a sender that is
//!    too fast is slowed down by TCP.
//! 2. There may be `max_connections` at once; silent ones make room for new ones (`peers.rs`).
//! 3. A connection whose client has gone without a word ends by TCP's own probes ([`PROBE`]).
//!
//! `stream.rs` reads a connection.

mod peers;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::warn;

pub(crate) use self::peers::Peer;
use self::peers::{Peers, Room};
use crate::death::Deaths;
use crate::receiver::Receiver;
use crate::report::Shared;
use crate::stream::NOTICED;
use crate::token::MARGIN;

/// A client that has been silent for this long is asked whether it is there, by the kernel.
const PROBE: Duration = Duration::from_secs(300);
/// How often it is asked then, until it answers.
const PROBE_AGAIN: Duration = Duration::from_secs(30);
const AGAIN: Duration = Duration::from_millis(100);
/// The most connections that are accepted at the stop: the kernel's usual limit of a queue.
const BACKLOG: usize = 4_096;

/// What the stream thread receives.
#[derive(Debug)]
pub(crate) enum Block {
    /// Whole lines, with a margin before and after.
    Lines(Vec<u8>, Option<IpAddr>),
    /// Look at what the aggregator wants.
    Wake,
}

/// The stream thread: takes blocks until the server has stopped accepting connections and the last
/// connection has ended.
pub(crate) fn run(mut receiver: Receiver, mut blocks: mpsc::Receiver<Block>) {
    while let Some(block) = blocks.blocking_recv() {
        if let Block::Lines(bytes, from) = block {
            receiver.handle_commands();
            receiver.packet(&bytes, MARGIN..bytes.len() - MARGIN, from);
            receiver.apply(&bytes);
        }
        receiver.step();
        while receiver.is_sweeping() {
            receiver.step();
        }
    }
    receiver.end();
}

/// A socket that connections come from.
pub(crate) trait Accept: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, with the address of its other end if that has one.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, Option<IpAddr>)>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<IpAddr>)> {
        let (stream, from) = Self::accept(self).await?;
        let probes = TcpKeepalive::new()
            .with_time(PROBE)
            .with_interval(PROBE_AGAIN);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&probes);
        Ok((stream, Some(from.ip().to_canonical())))
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<IpAddr>)> {
        let (stream, _) = Self::accept(self).await?;
        Ok((stream, None))
    }
}

/// How many connections some listeners have room for together.
pub(crate) struct Gate {
    /// What the log calls the connections, and their tasks.
    name: &'static str,
    peers: Mutex<Peers>,
    /// Whether the lack of room has been logged since there was some.
    is_reported: AtomicBool,
    shared: Arc<Shared>,
    deaths: Deaths,
}

/// The room that one connection takes.
struct Place {
    gate: Arc<Gate>,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.peers.lock().ended(self.id);
    }
}

impl Gate {
    /// A gate for `most` connections at once, 0 being no limit.
    pub(crate) fn new(
        name: &'static str,
        most: u32,
        shared: Arc<Shared>,
        deaths: Deaths,
    ) -> Arc<Self> {
        let most = match most {
            0 => usize::MAX,
            most => most as usize,
        };
        Arc::new(Self {
            name,
            peers: Mutex::new(Peers::new(most)),
            is_reported: AtomicBool::new(false),
            shared,
            deaths,
        })
    }

    /// Room for one connection; `None`, counted, if there is no room.
    fn enter(self: &Arc<Self>) -> Option<(Place, Arc<Peer>)> {
        let mut peers = self.peers.lock();
        let room = peers.make_room();
        let stats = &self.shared.stats;
        match room {
            Room::Free => {}
            Room::Made => stats.connections_displaced.add(1),
            Room::Full => stats.connections_refused.add(1),
        }
        if room != Room::Free && !self.is_reported.swap(true, Ordering::Relaxed) {
            warn!(
                "{}: max_connections is reached: silent connections make room, others are refused",
                self.name
            );
        }
        if room == Room::Full {
            return None;
        }
        let (id, peer) = peers.add();
        if peers.has_room() {
            self.is_reported.store(false, Ordering::Relaxed);
        }
        let gate = self.clone();
        Some((Place { gate, id }, peer))
    }

    /// As [`Gate::accept`], reporting a panic.
    pub(crate) async fn run<A: Accept, F>(
        self: Arc<Self>,
        listener: A,
        stop: watch::Receiver<bool>,
        serve: impl Fn(A::Stream, Option<IpAddr>, Arc<Peer>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (deaths, name) = (self.deaths.clone(), self.name);
        let accepting = self.accept(listener, stop, serve);
        deaths.watch_task(name, accepting).await;
    }

    /// Accepts connections until `stop` changes, then those that wait already, and runs `serve` for
    /// each as a task of its own.
    async fn accept<A: Accept, F>(
        self: Arc<Self>,
        listener: A,
        mut stop: watch::Receiver<bool>,
        serve: impl Fn(A::Stream, Option<IpAddr>, Arc<Peer>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        // How many may wait already, once the server stops.
        let mut left = None;
        loop {
            let accepted = match &mut left {
                None => tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = stop.changed() => {
                        left = Some(BACKLOG);
                        continue;
                    }
                },
                Some(0) => return,
                Some(left) => match timeout(NOTICED, listener.accept()).await {
                    Ok(accepted) => {
                        *left -= 1;
                        accepted
                    }
                    Err(_) => return,
                },
            };
            match accepted {
                Ok((stream, from)) => {
                    if let Some((place, peer)) = self.enter() {
                        let served = serve(stream, from, peer);
                        let served = self.deaths.clone().watch_task(self.name, served);
                        tokio::spawn(async move {
                            let _place = place;
                            served.await;
                        });
                    }
                }
                Err(why) => {
                    warn!("{}: connection not accepted: {why}", self.name);
                    // Most likely there are no descriptors left: trying at once would only burn the
                    // processor.
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcp_connections_are_probed() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap());
            let (client, accepted) = tokio::join!(client, Accept::accept(&listener));
            let (stream, from) = accepted.unwrap();
            assert_eq!(from, Some(client.unwrap().local_addr().unwrap().ip()));
            let socket = SockRef::from(&stream);
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), PROBE);
        });
    }
}
