//! Sockets that take lines. The sockets are bound by whoever calls, the end is a future.
//!
//! A TCP connection is read only as fast as the store takes: while the cache or the journal is
//! full it is not read at all, and the sender feels it. A datagram that finds no room is dropped
//! and counted. When the end comes, what the kernel already holds is still read.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::datapoint::{Datapoint, Sink};
use crate::protocol::line::{Reader, Stream};
use crate::store::Carbon;

/// How long a receiver waits before it looks again whether there is room.
const PAUSE: Duration = Duration::from_millis(5);
/// How often it looks whether what it handed over is committed, when it has to wait for that.
const COMMIT_PAUSE: Duration = Duration::from_millis(1);
/// How long connections may go on with what has arrived already when the end comes.
const GRACE: Duration = Duration::from_secs(2);
/// How long the end waits for the runtime to see what a socket holds.
const LAST_LOOK: Duration = Duration::from_millis(10);
/// Datagrams taken before their datapoints are handed on.
const DATAGRAMS: usize = 64;
/// The receive buffer asked of the kernel; it holds the datagrams of a pause.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Takes lines over TCP until `shutdown`, then what had arrived by then.
pub async fn line_tcp(carbon: Carbon, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(connection(carbon.clone(), stream, peer, stopped.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: others close in time.
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(PAUSE * 20).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    // Nobody listens any more only if all connections have ended.
    let _ = stop.send(true);
    let deadline = Instant::now() + GRACE;
    while let Ok(Some(_)) = timeout_at(deadline, connections.join_next()).await {}
}

async fn connection(
    carbon: Carbon,
    stream: TcpStream,
    peer: SocketAddr,
    mut stopped: watch::Receiver<bool>,
) {
    carbon.stats().connections_opened.add(1);
    let mut lines = Stream::default();
    let mut points = Vec::new();
    let ended = loop {
        let ending = *stopped.borrow();
        if ending {
            // The runtime has to look before it can say whether anything is there.
            if timeout(LAST_LOOK, stream.readable()).await.is_err() {
                break Ok(());
            }
        } else {
            tokio::select! {
                ready = stream.readable() => if let Err(error) = ready { break Err(error); },
                _ = stopped.changed() => continue,
            }
        }
        match stream.try_read(lines.space()) {
            Ok(0) => break Ok(()),
            Ok(n) => {
                lines.advance(n, carbon.index(), carbon.stats(), carbon.now(), &mut points);
                hand_on(&carbon, &mut points).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => break Err(error),
        }
    };
    lines.end(carbon.stats());
    carbon.stats().connections_closed.add(1);
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection broke");
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
        receive(&carbon, &socket, &mut buffer, &mut points);
        let taken = carbon.try_submit(&points);
        carbon.stats().overflow.add((points.len() - taken) as u64);
        points.clear();
    }
}

/// Reads datagrams until there are none, or enough for now.
fn receive(carbon: &Carbon, socket: &UdpSocket, buffer: &mut [u8], points: &mut Vec<Datapoint>) {
    let now = carbon.now();
    let mut reader = Reader::new(carbon.index(), carbon.stats());
    for _ in 0..DATAGRAMS {
        match socket.try_recv(buffer) {
            Ok(n) => {
                let datagram = &buffer[..n];
                let read = reader.read(datagram, now, points);
                // The last line of a datagram is whole without its end.
                reader.line(&datagram[read..], now, points);
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
    use crate::options::{JournalOptions, Options, Span, Sync};
    use crate::store::Setup;
    use tokio::io::AsyncWriteExt;
    use tokio::sync::oneshot;

    fn carbon(dir: &std::path::Path) -> Carbon {
        let journal = JournalOptions {
            sync: Sync::Off,
            ..JournalOptions::default()
        };
        let setup = Setup::new(Options::default(), journal, Span::seconds(10));
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
