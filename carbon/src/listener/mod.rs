//! Carbon's receivers: sockets that the caller has bound, and a future that ends them.
//!
//! 1. All protocols over TCP share one implementation ([`tcp`]): the limit on connections, the idle
//!    timeout, back-pressure, and the end. A protocol is a [`Metrics`](crate::protocol::Metrics): it
//!    turns bytes into datapoints and knows no socket.
//! 2. A TCP connection is read only as fast as the store takes: while the cache or the journal is
//!    full it is not read at all, and the sender waits. A datagram that finds no room is dropped and
//!    counted.
//! 3. When the shutdown begins, what the kernel already holds is still read.
//! 4. A sender that never pauses leaves other tasks of the runtime their turn: after each batch of datagrams, and each
//!    read that filled the buffer.
//! 5. A sender whose input is refused is named in the log, at most once in ten seconds per listener.

mod body;
mod carbonlink;
mod complaints;
mod peers;
mod tcp;
mod udp;

use std::future::Future;
use std::sync::Arc;

pub use body::{Body, Outcome};
use parking_lot::Mutex;
use peers::Peers;
use tokio::net::{TcpListener, UdpSocket};

use crate::protocol::{line, pickle, protobuf};
use crate::store::Carbon;

/// Serves sockets that the caller has bound. Cheap to clone: clones share the limit on connections.
#[derive(Clone)]
pub struct Listeners {
    carbon: Carbon,
    peers: Arc<Mutex<Peers>>,
    /// What the connections of CarbonLink share.
    links: Arc<carbonlink::Shared>,
}

impl Listeners {
    /// Listeners that hand datapoints to `carbon`.
    pub fn new(carbon: &Carbon) -> Self {
        Self {
            carbon: carbon.clone(),
            peers: Arc::new(Mutex::new(Peers::new(carbon))),
            links: Arc::default(),
        }
    }

    /// Takes Graphite's lines over TCP until `shutdown`, then what had arrived by then.
    pub async fn line_tcp(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let run = |connection| tcp::take(connection, line::Stream::default());
        let Self { carbon, peers, .. } = self;
        tcp::accept(carbon, peers, "carbon.line_tcp", listener, shutdown, run).await;
    }

    /// As [`Listeners::line_tcp`], for points that the routes of another server have sent here: they are
    /// sent to no destination.
    pub async fn relay_line_tcp(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let run = |connection| tcp::take(connection, line::Stream::default());
        let Self { carbon, peers, .. } = self;
        let (carbon, key) = (carbon.behind_relay(), "carbon.relay_line_tcp");
        tcp::accept(carbon, peers, key, listener, shutdown, run).await;
    }

    /// Takes framed pickles over TCP until `shutdown`, then what had arrived by then.
    pub async fn pickle(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let Self { carbon, peers, .. } = self;
        let max = carbon.max_frame();
        let run = |connection| tcp::take(connection, pickle::Stream::new(max));
        tcp::accept(carbon, peers, "carbon.pickle", listener, shutdown, run).await;
    }

    /// Takes framed protobuf over TCP until `shutdown`, then what had arrived by then.
    pub async fn protobuf(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let Self { carbon, peers, .. } = self;
        let max = carbon.max_frame();
        let run = |connection| tcp::take(connection, protobuf::Stream::new(max));
        tcp::accept(carbon, peers, "carbon.protobuf", listener, shutdown, run).await;
    }

    /// Answers CarbonLink until `shutdown`.
    pub async fn carbonlink(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let Self {
            carbon,
            peers,
            links,
        } = self;
        let run = move |connection| carbonlink::answer(connection, Arc::clone(&links));
        tcp::accept(carbon, peers, "carbon.carbonlink", listener, shutdown, run).await;
    }

    /// Takes Graphite's lines in datagrams until `shutdown`, then what had arrived by then. Datapoints
    /// that find no room in the store are dropped and counted.
    pub async fn line_udp(self, socket: UdpSocket, shutdown: impl Future<Output = ()>) {
        udp::line_udp(self.carbon, socket, shutdown).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{ByteSize, JournalOptions, Options, Span, SyncPolicy};
    use crate::store::Setup;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;

    fn carbon(dir: &std::path::Path) -> Carbon {
        limited(dir, Options::default())
    }

    pub(super) fn limited(dir: &std::path::Path, options: Options) -> Carbon {
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
        let server = tokio::spawn(Listeners::new(&carbon).line_tcp(listener, async {
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
        let server = tokio::spawn(Listeners::new(&carbon).line_tcp(listener, async {
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
    async fn half_frames_of_many_connections_have_a_common_limit() {
        const HALF: usize = 100 << 10;
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            max_frame_size: ByteSize(256 << 10),
            max_unread_size: ByteSize(1 << 20),
            ..Options::default()
        };
        let carbon = limited(dir.path(), options);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(Listeners::new(&carbon).pickle(listener, async {
            let _ = stopped.await;
        }));
        let mut half = (200_u32 << 10).to_be_bytes().to_vec();
        half.resize(HALF, b'(');
        let mut clients = Vec::new();
        for _ in 0..40 {
            let mut client = TcpStream::connect(address).await.unwrap();
            // A connection that is over the limit may be closed while it sends.
            let _ = client.write_all(&half).await;
            clients.push(client);
        }
        // Ten halves fit.
        while carbon.stats().connections_unread.get() < 30 {
            tokio::task::yield_now().await;
        }
        // A sender of whole frames is not among those that are closed.
        let at = carbon.now().0;
        let mut client = TcpStream::connect(address).await.unwrap();
        let item = format!("(lp0\n(S'a.b'\n(I{at}\nI5\ntta.");
        for _ in 0..100 {
            let len = item.len() as u32;
            client.write_all(&len.to_be_bytes()).await.unwrap();
            client.write_all(item.as_bytes()).await.unwrap();
        }
        while carbon.stats().received.get() < 100 {
            tokio::task::yield_now().await;
        }
        drop(clients);
        stop.send(()).unwrap();
        server.await.unwrap();
        let stats = carbon.stats();
        assert_eq!(stats.connections_closed.get(), 41);
        assert_eq!(stats.received.get(), 100);
    }

    /// What `send` sends, by a thread that goes on until others have had their turn, or for very long. Whether they
    /// have while it sent. The runtime has one thread.
    async fn others_have_their_turn(
        carbon: &Carbon,
        mut send: impl FnMut(&[u8]) -> bool + Send + 'static,
    ) -> bool {
        // A read takes longer than a write: there is always more.
        let lines: String = (0..1_500)
            .map(|n| format!("{n}.a.name.of.a.series 1.5 -1\n"))
            .collect();
        let (turn, had) = std::sync::mpsc::channel();
        let sender = std::thread::spawn(move || {
            let begun = std::time::Instant::now();
            while begun.elapsed().as_secs() < 20 && send(lines.as_bytes()) {
                if had.try_recv().is_ok() {
                    return true;
                }
            }
            false
        });
        for _ in 0..10 {
            let before = carbon.stats().received.get();
            while carbon.stats().received.get() == before && !sender.is_finished() {
                tokio::task::yield_now().await;
            }
        }
        let _ = turn.send(());
        // It may wait for what it has written to be read.
        while !sender.is_finished() {
            tokio::task::yield_now().await;
        }
        sender.join().unwrap()
    }

    #[tokio::test]
    async fn datagrams_without_end_leave_others_their_turn() {
        let dir = tempfile::tempdir().unwrap();
        let carbon = carbon(dir.path());
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(socket.local_addr().unwrap()).unwrap();
        let server = tokio::spawn(Listeners::new(&carbon).line_udp(socket, std::future::pending()));
        // Of what the kernel drops there is more.
        let send = move |lines: &[u8]| client.send(lines).is_ok();
        assert!(others_have_their_turn(&carbon, send).await);
        server.abort();
    }

    #[tokio::test]
    async fn a_connection_without_end_leaves_others_their_turn() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let carbon = carbon(dir.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let end = std::future::pending();
        let server = tokio::spawn(Listeners::new(&carbon).line_tcp(listener, end));
        let send = move |lines: &[u8]| client.write_all(lines).is_ok();
        assert!(others_have_their_turn(&carbon, send).await);
        server.abort();
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
        Listeners::new(&carbon).line_udp(socket, async {}).await;
        assert_eq!(carbon.stats().received.get(), 3);
        assert_eq!(carbon.stats().rejected_fields.get(), 1);
    }
}
