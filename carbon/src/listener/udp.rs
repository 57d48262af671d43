//! Lines in datagrams.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::complaints::Complaints;
use super::tcp::{GRACE, LAST_LOOK};
use crate::datapoint::{Datapoint, Sink};
use crate::protocol::line;
use crate::store::Carbon;

/// Datagrams, and their bytes, taken before their datapoints are handed on and other tasks have their turn.
const DATAGRAMS: usize = 64;
const BYTES: usize = 256 << 10;
/// The receive buffer asked of the kernel; it holds the datagrams of a pause.
const RECEIVE_BUFFER: usize = 4 << 20;
/// How long the receiver waits after the socket failed.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves a socket of lines.
pub(super) async fn line_udp(
    carbon: Carbon,
    socket: UdpSocket,
    shutdown: impl Future<Output = ()>,
) {
    // A smaller buffer is taken as it is: the kernel counts what it drops.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
    let complaints = Complaints::new("carbon.line_udp");
    let mut buffer = vec![0; 64 << 10];
    let mut points = Vec::new();
    tokio::pin!(shutdown);
    // The end of the last look, once the shutdown has begun: senders may never pause.
    let mut deadline = None;
    loop {
        if let Some(deadline) = deadline {
            let look = timeout(LAST_LOOK, socket.readable()).await;
            if look.is_err() || Instant::now() >= deadline {
                return;
            }
        } else {
            tokio::select! {
                () = &mut shutdown => {
                    deadline = Some(Instant::now() + GRACE);
                    continue;
                }
                ready = socket.readable() => if let Err(error) = ready {
                    tracing::warn!(%error, "datagrams cannot be read");
                    sleep(PAUSE).await;
                },
            }
        }
        let pin = carbon.index().pin();
        let is_empty = receive(&carbon, &socket, &mut buffer, &mut points, &complaints);
        let taken = carbon.try_submit(&points);
        carbon.stats().overflow.add((points.len() - taken) as u64);
        points.clear();
        drop(pin);
        if !is_empty {
            // A socket that has more is readable at once: other tasks would never have their turn.
            yield_now().await;
        }
    }
}

/// Reads datagrams until the socket is empty, or enough for now. Whether it is empty.
fn receive(
    carbon: &Carbon,
    socket: &UdpSocket,
    buffer: &mut [u8],
    points: &mut Vec<Datapoint>,
    complaints: &Complaints,
) -> bool {
    let mut resolver = carbon.resolver(points);
    let mut left = BYTES;
    for _ in 0..DATAGRAMS {
        match socket.try_recv_from(buffer) {
            Ok((n, sender)) => {
                let datagram = &buffer[..n];
                let read = line::read(datagram, &mut resolver);
                // The last line of a datagram is whole without its end.
                line::read_one(&datagram[read..], &mut resolver);
                if let Some(refused) = resolver.refused() {
                    complaints.report(sender, &refused);
                }
                left = left.saturating_sub(n);
                if left == 0 {
                    return false;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) => {
                tracing::debug!(%error, "a datagram could not be read");
                return false;
            }
        }
    }
    false
}
