//! Packets on their way, unchanged, to other StatsD servers.
//!
//! 1. A receiving thread shares its packets among the queues of all targets; each target has a thread
//!    that sends them on. A target that is away, or slow, holds up no other and no receiver.
//! 2. A queue is bounded in bytes ([`LIMIT`]). What does not fit, or is refused by the network, is
//!    dropped and counted, for each target.
//! 3. A target must take a piece of a stream within [`WRITE`]; [`LAST`] after the stop what is left is
//!    dropped.
//! 4. Names are looked up on threads of their own, since the system may take its time: again each
//!    [`EVERY`], soon after an error, and before each connection.

use std::io::{self, ErrorKind, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use settings::Counter;
use tracing::{info, warn};

use crate::death::Threads;
use crate::options::RepeaterProtocol;
use crate::report::Shared;

/// Bytes that wait for a target.
const LIMIT: usize = 32 << 20;
/// What a batch of packets takes beside them.
const BATCH: usize = 128;
/// How long an attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long after a failed attempt the next one follows.
const RETRY: Duration = Duration::from_secs(1);
/// How long a target may take for a piece of a stream.
const WRITE: Duration = Duration::from_secs(2);
/// Bytes that are written to a stream together, if no packet has more.
const PIECE: usize = 64 << 10;
/// How long a write may wait before the thread looks whether the server stops.
const LOOK: Duration = Duration::from_millis(250);
/// How long a target may go on after the stop.
const LAST: Duration = Duration::from_secs(2);
/// How often the name of a target of datagrams is looked up.
const EVERY: Duration = Duration::from_secs(60);
/// How soon that is after an error.
const AFTER_ERROR: Duration = Duration::from_secs(5);
/// How long packets wait for the first address of a target.
const LOOKUP: Duration = Duration::from_secs(10);
/// The log has the dropped packets of a target this often at most.
const LOGGED: Duration = Duration::from_secs(60);

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

    fn len(&self) -> u64 {
        self.ends.len() as u64
    }

    /// The memory that they take.
    fn size(&self) -> usize {
        BATCH + self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
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

/// The queues of all targets. The threads end when the last copy is gone.
#[derive(Clone)]
pub(crate) struct Repeater(Arc<[Queue]>);

impl Repeater {
    /// Starts the threads of `targets`.
    ///
    /// # Errors
    /// The system starts no more threads.
    pub(crate) fn start(
        targets: &[String],
        protocol: RepeaterProtocol,
        shared: &Arc<Shared>,
        threads: &mut Threads,
    ) -> io::Result<Self> {
        let mut queues = Vec::new();
        for name in targets {
            let dropped = shared.stats.repeater_target(name);
            let (queue, waiting) = Queue::new(LIMIT, dropped, shared.clone());
            let counts = queue.counts.clone();
            let target = Target::new(name, protocol, counts, Arc::new(resolve), EVERY);
            threads.spawn("statsd-repeater", move || target.run(waiting))?;
            queues.push(queue);
        }
        Ok(Self(queues.into()))
    }

    /// Queues `packets` for every target.
    pub(crate) fn repeat(&self, packets: Packets) {
        let packets = Arc::new(packets);
        for queue in &*self.0 {
            queue.push(&packets);
        }
    }
}

/// What waits for a target.
struct Queue {
    packets: Sender<Arc<Packets>>,
    limit: usize,
    counts: Arc<Counts>,
}

/// What a queue and its thread count.
struct Counts {
    /// Bytes in the queue, and in the batch that is being sent.
    waiting: AtomicUsize,
    /// Packets that this target did not get.
    dropped: Arc<Counter>,
    shared: Arc<Shared>,
}

impl Counts {
    fn count_dropped(&self, packets: u64) {
        self.dropped.add(packets);
        self.shared.stats.repeater_dropped.add(packets);
    }
}

impl Queue {
    fn new(
        limit: usize,
        dropped: Arc<Counter>,
        shared: Arc<Shared>,
    ) -> (Self, Receiver<Arc<Packets>>) {
        let (packets, waiting) = channel::unbounded();
        let counts = Counts {
            waiting: AtomicUsize::new(0),
            dropped,
            shared,
        };
        let queue = Self {
            packets,
            limit,
            counts: Arc::new(counts),
        };
        (queue, waiting)
    }

    fn push(&self, packets: &Arc<Packets>) {
        let (counts, size) = (&self.counts, packets.size());
        let before = counts.waiting.fetch_add(size, Ordering::Relaxed);
        // A batch always fits into an empty queue.
        let fits = before == 0 || before + size <= self.limit;
        if !fits || self.packets.send(packets.clone()).is_err() {
            counts.waiting.fetch_sub(size, Ordering::Relaxed);
            counts.count_dropped(packets.len());
        }
    }
}

/// One server that packets are repeated to.
struct Target {
    name: String,
    protocol: RepeaterProtocol,
    connection: Connection,
    next_attempt: Instant,
    lookup: Lookup,
    counts: Arc<Counts>,
    /// Until when packets are sent, once the server stops.
    until: Option<Instant>,
    /// When the log had dropped packets last, and how many there were.
    logged: Option<(Instant, u64)>,
}

enum Connection {
    None,
    Udp(UdpSocket, SocketAddr),
    Tcp(TcpStream),
}

impl Target {
    fn new(
        name: &str,
        protocol: RepeaterProtocol,
        counts: Arc<Counts>,
        resolve: Resolve,
        every: Duration,
    ) -> Self {
        let has_port = name
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok() && !name.ends_with(']'));
        let address = match has_port {
            true => name.to_owned(),
            false => format!("{name}:8125"),
        };
        Self {
            name: name.to_owned(),
            protocol,
            connection: Connection::None,
            next_attempt: Instant::now(),
            lookup: Lookup::new(address, resolve, every),
            counts,
            until: None,
            logged: None,
        }
    }

    /// Sends what comes through `packets` until all senders are gone.
    fn run(mut self, packets: Receiver<Arc<Packets>>) {
        for packets in packets {
            let sent = self.send(&packets);
            self.counts.count_dropped(packets.len() - sent);
            let size = packets.size();
            self.counts.waiting.fetch_sub(size, Ordering::Relaxed);
            self.log_dropped(LOGGED);
        }
        self.log_dropped(Duration::ZERO);
    }

    /// Logs what was dropped since the last time, unless that was less than `pause` ago.
    fn log_dropped(&mut self, pause: Duration) {
        let dropped = self.counts.dropped.get();
        let (at, before) = self.logged.unzip();
        let before = before.unwrap_or(0);
        if dropped > before && at.is_none_or(|at| at.elapsed() >= pause) {
            warn!(
                "repeater {}: {} packets are dropped",
                self.name,
                dropped - before
            );
            self.logged = Some((Instant::now(), dropped));
        }
    }

    /// Whether the time after the stop is over.
    fn is_over(&mut self) -> bool {
        if !self.counts.shared.is_stopping.load(Ordering::Acquire) {
            return false;
        }
        let now = Instant::now();
        now >= *self.until.get_or_insert(now + LAST)
    }

    /// Sends `packets`; returns how many of them were sent.
    fn send(&mut self, packets: &Packets) -> u64 {
        if self.is_over() {
            return 0;
        }
        if matches!(self.connection, Connection::None) {
            if Instant::now() < self.next_attempt {
                return 0;
            }
            match self.connect() {
                Ok(connection) => self.connection = connection,
                Err(why) => {
                    self.failed(&why);
                    return 0;
                }
            }
        }
        match std::mem::replace(&mut self.connection, Connection::None) {
            Connection::None => 0,
            Connection::Udp(socket, mut address) => {
                self.look_up_again(&mut address);
                let sent = self.send_datagrams(&socket, address, packets);
                self.connection = Connection::Udp(socket, address);
                sent
            }
            Connection::Tcp(mut stream) => {
                let (sent, result) = self.write_packets(&mut stream, packets);
                match result {
                    Ok(()) => self.connection = Connection::Tcp(stream),
                    Err(why) => self.failed(&why),
                }
                sent
            }
        }
    }

    fn failed(&mut self, why: &io::Error) {
        warn!("repeater {}: {why}", self.name);
        self.next_attempt = Instant::now() + RETRY;
    }

    fn send_datagrams(
        &mut self,
        socket: &UdpSocket,
        address: SocketAddr,
        packets: &Packets,
    ) -> u64 {
        let mut sent = 0;
        for packet in packets.iter() {
            if self.is_over() {
                break;
            }
            match socket.send_to(packet, address) {
                Ok(_) => sent += 1,
                Err(_) => self.lookup.is_due_within(AFTER_ERROR),
            }
        }
        sent
    }

    /// Writes each packet with a line feed after it. Returns how many were written, and the error that
    /// kept the others back: a part of them may have been sent.
    fn write_packets(
        &mut self,
        stream: &mut TcpStream,
        packets: &Packets,
    ) -> (u64, io::Result<()>) {
        let mut piece = Vec::with_capacity(PIECE.min(packets.bytes.len() + packets.ends.len()));
        let (mut sent, mut in_piece) = (0, 0);
        let mut rest = packets.iter().peekable();
        while let Some(packet) = rest.next() {
            piece.extend_from_slice(packet);
            piece.push(b'\n');
            in_piece += 1;
            let is_full = rest
                .peek()
                .is_none_or(|next| piece.len() + next.len() >= PIECE);
            if is_full {
                if let Err(why) = self.write(stream, &piece) {
                    return (sent, Err(why));
                }
                sent += in_piece;
                in_piece = 0;
                piece.clear();
            }
        }
        (sent, Ok(()))
    }

    /// Writes a piece whole.
    fn write(&mut self, stream: &mut TcpStream, piece: &[u8]) -> io::Result<()> {
        let until = Instant::now() + WRITE;
        let mut rest = piece;
        while !rest.is_empty() {
            match stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(why) => match why.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(why),
                },
            }
            if !rest.is_empty() && (Instant::now() >= until || self.is_over()) {
                return Err(ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    fn connect(&mut self) -> io::Result<Connection> {
        let mut last = io::Error::new(
            ErrorKind::NotFound,
            "no address of the wanted family for this name",
        );
        for address in self.addresses()? {
            if self.protocol == RepeaterProtocol::Tcp {
                if self.is_over() {
                    break;
                }
                match TcpStream::connect_timeout(&address, CONNECT) {
                    Ok(stream) => {
                        stream.set_write_timeout(Some(LOOK))?;
                        return Ok(Connection::Tcp(stream));
                    }
                    Err(why) => last = why,
                }
            } else if self.is_wanted(&address) {
                let any = match address {
                    SocketAddr::V4(_) => "0.0.0.0:0",
                    SocketAddr::V6(_) => "[::]:0",
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_write_timeout(Some(LOOK))?;
                return Ok(Connection::Udp(socket, address));
            }
        }
        Err(last)
    }

    /// Whether an address has the family of the protocol.
    fn is_wanted(&self, address: &SocketAddr) -> bool {
        match self.protocol {
            RepeaterProtocol::Udp4 => address.is_ipv4(),
            RepeaterProtocol::Udp6 => address.is_ipv6(),
            RepeaterProtocol::Tcp => true,
        }
    }

    /// The addresses of the target, waited for.
    fn addresses(&mut self) -> io::Result<Vec<SocketAddr>> {
        let until = Instant::now() + LOOKUP;
        self.lookup.start();
        loop {
            if let Some(found) = self.lookup.found(LOOK) {
                return found;
            }
            if Instant::now() >= until || self.is_over() {
                let why = "the name is still being looked up";
                return Err(io::Error::new(ErrorKind::TimedOut, why));
            }
        }
    }

    /// Follows the name of a target of datagrams to another address.
    fn look_up_again(&mut self, address: &mut SocketAddr) {
        if self.lookup.is_due() {
            self.lookup.start();
        }
        // What cannot be found now may be where it was.
        let Some(Ok(found)) = self.lookup.found(Duration::ZERO) else {
            return;
        };
        let mut found = found.into_iter().filter(|found| self.is_wanted(found));
        if let Some(first) = found.next()
            && first != *address
            && !found.any(|other| other == *address)
        {
            info!("repeater {}: {first} instead of {address}", self.name);
            *address = first;
        }
    }
}

/// Looks up a name.
type Resolve = Arc<dyn Fn(&str) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

fn resolve(name: &str) -> io::Result<Vec<SocketAddr>> {
    Ok(name.to_socket_addrs()?.collect())
}

/// The addresses of a name, each time looked up on a thread that nothing waits for at the stop.
struct Lookup {
    name: String,
    /// What the name is, if it is an address.
    literal: Option<SocketAddr>,
    resolve: Resolve,
    every: Duration,
    running: Option<Receiver<io::Result<Vec<SocketAddr>>>>,
    next: Instant,
}

impl Lookup {
    fn new(name: String, resolve: Resolve, every: Duration) -> Self {
        Self {
            literal: name.parse().ok(),
            name,
            resolve,
            every,
            running: None,
            next: Instant::now(),
        }
    }

    /// Starts a lookup, unless one is running.
    fn start(&mut self) {
        if self.running.is_some() {
            return;
        }
        self.next = Instant::now() + self.every;
        let (sender, running) = channel::bounded(1);
        self.running = Some(running);
        if let Some(literal) = self.literal {
            let _ = sender.send(Ok(vec![literal]));
            return;
        }
        let (name, resolve) = (self.name.clone(), self.resolve.clone());
        let failed = sender.clone();
        let started = thread::Builder::new()
            .name("statsd-resolve".to_owned())
            .spawn(move || {
                let _ = sender.send(resolve(&name));
            });
        if let Err(why) = started {
            let _ = failed.send(Err(why));
        }
    }

    /// What the lookup has found, waited for; `None` while it is running, or if there is none.
    fn found(&mut self, wait: Duration) -> Option<io::Result<Vec<SocketAddr>>> {
        let running = self.running.as_ref()?;
        let found = match running.recv_timeout(wait) {
            Ok(found) => found,
            Err(RecvTimeoutError::Timeout) => return None,
            Err(RecvTimeoutError::Disconnected) => {
                Err(io::Error::other("the name could not be looked up"))
            }
        };
        self.running = None;
        Some(found)
    }

    fn is_due(&self) -> bool {
        self.literal.is_none() && Instant::now() >= self.next
    }

    fn is_due_within(&mut self, time: Duration) {
        self.next = self.next.min(Instant::now() + time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    fn packets(text: &[u8]) -> Arc<Packets> {
        let mut packets = Packets::default();
        packets.push(text);
        Arc::new(packets)
    }

    fn queue(limit: usize) -> (Queue, Receiver<Arc<Packets>>) {
        Queue::new(limit, Arc::default(), Arc::default())
    }

    #[test]
    fn a_queue_is_bounded_in_bytes() {
        let packet = packets(&[b'x'; 1_000]);
        let (queue, waiting) = queue(10 * packet.size());
        for _ in 0..12 {
            queue.push(&packet);
        }
        let counts = queue.counts.clone();
        assert_eq!(waiting.len(), 10);
        assert_eq!(counts.dropped.get(), 2);
        assert_eq!(counts.shared.stats.repeater_dropped.get(), 2);
        // What has been taken makes room.
        drop(queue);
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let name = receiver.local_addr().unwrap().to_string();
        let (protocol, resolve) = (RepeaterProtocol::Udp4, Arc::new(resolve));
        let target = Target::new(&name, protocol, counts.clone(), resolve, EVERY);
        target.run(waiting);
        assert_eq!(counts.waiting.load(Ordering::Relaxed), 0);
        // Larger than all that may wait: it does if nothing else does.
        let (queue, waiting) = self::queue(10);
        queue.push(&packet);
        queue.push(&packet);
        assert_eq!((waiting.len(), queue.counts.dropped.get()), (1, 1));
    }

    #[test]
    fn a_target_is_followed_to_its_new_address() {
        let receivers = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let [first, second] = [0, 1].map(|at: usize| receivers[at].local_addr().unwrap());
        let known = Arc::new(Mutex::new(vec![first]));
        let asked = known.clone();
        let resolve: Resolve = Arc::new(move |_| Ok(asked.lock().clone()));
        let (queue, _) = queue(LIMIT);
        let protocol = RepeaterProtocol::Udp4;
        let mut target = Target::new("a.b", protocol, queue.counts, resolve, Duration::ZERO);
        let mut buffer = [0; 16];
        assert_eq!(target.send(&packets(b"1")), 1);
        assert_eq!(receivers[0].recv(&mut buffer).unwrap(), 1);
        // One of several addresses is kept.
        *known.lock() = vec![second, first];
        for _ in 0..100 {
            assert_eq!(target.send(&packets(b"2")), 1);
            assert_eq!(receivers[0].recv(&mut buffer).unwrap(), 1);
        }
        *known.lock() = vec![second];
        receivers[1].set_nonblocking(true).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while receivers[1].recv(&mut buffer).is_err() {
            assert!(Instant::now() < until, "the new address gets nothing");
            assert_eq!(target.send(&packets(b"3")), 1);
        }
    }

    /// A resolver that does not answer keeps no thread from ending.
    #[test]
    fn a_lookup_holds_up_no_stop() {
        let (_held, hold) = channel::bounded::<()>(0);
        let resolve: Resolve = Arc::new(move |_| {
            let _ = hold.recv();
            Ok(Vec::new())
        });
        let (queue, waiting) = queue(LIMIT);
        let counts = queue.counts.clone();
        let protocol = RepeaterProtocol::Udp4;
        let target = Target::new("a.b", protocol, counts.clone(), resolve, EVERY);
        for _ in 0..10 {
            queue.push(&packets(b"1"));
        }
        drop(queue);
        counts.shared.is_stopping.store(true, Ordering::Release);
        target.run(waiting);
        assert_eq!(counts.dropped.get(), 10);
    }
}
