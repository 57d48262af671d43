//! Packets on their way, unchanged, to other StatsD servers.
//!
//! A receiving thread copies its packets into a bounded channel; a thread sends them on. What does
//! not fit into the channel, or is refused by the network, is dropped and counted: the other
//! server must not slow this one down.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;
use tracing::warn;

use crate::death::Threads;
use crate::options::RepeaterProtocol;
use crate::report::Shared;

const CONNECT: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(1);

/// Some packets, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Packets {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Packets {
    pub(crate) fn push(&mut self, packet: &[u8]) {
        self.bytes.extend_from_slice(packet);
        self.ends.push(self.bytes.len());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let packet = &self.bytes[start..*end];
            start = *end;
            packet
        })
    }
}

/// One server that packets are repeated to.
struct Target {
    name: String,
    protocol: RepeaterProtocol,
    connection: Connection,
    next_attempt: Instant,
}

enum Connection {
    None,
    Udp(UdpSocket, SocketAddr),
    Tcp(TcpStream),
}

/// Starts the thread that repeats what comes through `packets` until all senders are gone.
pub(crate) fn start(
    targets: &[String],
    protocol: RepeaterProtocol,
    packets: Receiver<Packets>,
    shared: Arc<Shared>,
    threads: &mut Threads,
) -> io::Result<()> {
    let mut targets: Vec<_> = targets
        .iter()
        .map(|name| Target {
            name: name.clone(),
            protocol,
            connection: Connection::None,
            next_attempt: Instant::now(),
        })
        .collect();
    threads.spawn("statsd-repeater", move || {
        for packets in packets {
            for target in &mut targets {
                let dropped = target.send(&packets);
                shared
                    .stats
                    .repeater_dropped
                    .fetch_add(dropped, Ordering::Relaxed);
            }
        }
    })
}

impl Target {
    /// Sends `packets`; returns how many were dropped.
    fn send(&mut self, packets: &Packets) -> u64 {
        if matches!(self.connection, Connection::None) {
            if Instant::now() < self.next_attempt {
                return packets.len() as u64;
            }
            match self.connect() {
                Ok(connection) => self.connection = connection,
                Err(why) => {
                    warn!("repeater {}: {why}", self.name);
                    self.next_attempt = Instant::now() + RETRY;
                    return packets.len() as u64;
                }
            }
        }
        match &mut self.connection {
            Connection::None => packets.len() as u64,
            Connection::Udp(socket, address) => packets
                .iter()
                .map(|packet| u64::from(socket.send_to(packet, *address).is_err()))
                .sum(),
            Connection::Tcp(stream) => {
                let mut text = Vec::with_capacity(packets.bytes.len() + packets.len());
                for packet in packets.iter() {
                    text.extend_from_slice(packet);
                    text.push(b'\n');
                }
                if let Err(why) = stream.write_all(&text) {
                    warn!("repeater {}: {why}", self.name);
                    self.connection = Connection::None;
                    self.next_attempt = Instant::now() + RETRY;
                    return packets.len() as u64;
                }
                0
            }
        }
    }

    fn connect(&self) -> io::Result<Connection> {
        let name = if self
            .name
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok() && !self.name.ends_with(']'))
        {
            self.name.clone()
        } else {
            format!("{}:8125", self.name)
        };
        let mut last = io::Error::new(
            io::ErrorKind::NotFound,
            "no address of the wanted family for this name",
        );
        for address in name.to_socket_addrs()? {
            let any = match (self.protocol, address) {
                (RepeaterProtocol::Udp4, SocketAddr::V4(_)) => "0.0.0.0:0",
                (RepeaterProtocol::Udp6, SocketAddr::V6(_)) => "[::]:0",
                (RepeaterProtocol::Tcp, _) => match TcpStream::connect_timeout(&address, CONNECT) {
                    Ok(stream) => {
                        stream.set_write_timeout(Some(CONNECT))?;
                        return Ok(Connection::Tcp(stream));
                    }
                    Err(why) => {
                        last = why;
                        continue;
                    }
                },
                _ => continue,
            };
            return Ok(Connection::Udp(UdpSocket::bind(any)?, address));
        }
        Err(last)
    }
}
