//! A destination: its buffer, and the worker that sends what is in its queue.
//!
//! 1. A receiver only appends to the [`Buffer`]. Connecting, sending, reading and writing the queue are the
//!    worker's, one thread for each destination: a slow destination holds up nothing else.
//! 2. The worker moves what arrives into the [`Queue`] before everything else, and never waits longer than
//!    a few milliseconds for the destination: its socket does not block.
//! 3. A connection that breaks is made again after a pause that doubles up to [`LONGEST_PAUSE`], with the
//!    name looked up again. What may not have arrived is sent again. The pause is short again only after a
//!    connection has lasted for [`LASTED`]: a destination may accept connections and close them at once.
//! 4. At the end the worker sends what waits until the deadline, then closes its side and waits for the
//!    destination to close the other: it has read everything then. The rest stays on disk.

use std::hash::BuildHasher;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use settings::Reading;
use socket2::SockRef;

use super::buffer::Buffer;
use super::member::Member;
use super::queue::{Lost, Queue, Taken};
use super::wire::{self, Protocol};

/// How long a connection attempt may take.
const CONNECT: Duration = Duration::from_secs(3);
/// The pause after the first failed attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After this time a connection counts as one that works.
const LASTED: Duration = Duration::from_secs(5);
/// How long points are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(20);
/// How long points are gathered while the destination is away.
const GATHER_AWAY: Duration = Duration::from_millis(250);
/// The pause while the destination does not read.
const FULL: Duration = Duration::from_millis(5);
/// How often the worker looks at an idle connection.
const LOOK: Duration = Duration::from_millis(500);
/// How long the kernel tries to send before the connection counts as broken.
const UNANSWERED: Duration = Duration::from_secs(15);
/// How long a destination may read nothing although something waits.
const STALLED: Duration = Duration::from_secs(30);

settings::counters! {
    /// What a destination counts.
    pub struct Counts in "relay" {
        /// Points taken for this destination. For information.
        taken = "taken";
        /// Points sent to this destination, repetitions included. If this stops growing while
        /// relay.taken grows, the destination is away or slow: see relay.waiting.
        sent = "sent";
        /// Points sent again because the connection broke before it was certain that they had arrived.
        /// If this grows all the time, the destination closes connections: see its log.
        again = "sentAgain";
        /// Points dropped, oldest first, because carbon.relay_queue_size was reached. If this grows, the
        /// destination has been away or slow for too long: fix it, or raise the limit.
        dropped = "dropped";
        /// Points dropped because the disk took nothing. If this grows, check the disk of the data
        /// directory.
        overflow = "overflow";
        /// Bytes of the queue that a crash or a disk has damaged. If this is not 0, the log has the file.
        damaged = "damagedBytes";
        /// Times that the queue could not be written or read. If this grows, check the disk of the data
        /// directory: the log has the reason.
        failures = "queueFailures";
        /// Connections made. If this grows all the time, the destination closes connections.
        connected = "connects";
        /// Attempts to connect that failed. If this grows, the destination is away.
        refused = "connectFailures";
    }
}

/// A destination, as receivers see it.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) member: Member,
    protocol: Protocol,
    buffer: Buffer,
    pub(super) counts: Counts,
    waiting: AtomicU64,
    queue_bytes: AtomicU64,
    is_up: AtomicBool,
    /// When to give up sending; set once the end has begun.
    deadline: Mutex<Option<Instant>>,
    /// Why the last attempt to connect failed.
    why: Mutex<String>,
}

impl Destination {
    pub(super) fn new(member: Member, protocol: Protocol) -> Self {
        Self {
            member,
            protocol,
            buffer: Buffer::default(),
            counts: Counts::default(),
            waiting: AtomicU64::new(0),
            queue_bytes: AtomicU64::new(0),
            // Until the first attempt: the first of several is preferred.
            is_up: AtomicBool::new(true),
            deadline: Mutex::new(None),
            why: Mutex::default(),
        }
    }

    /// Whether it goes by the same name and speaks the same protocol.
    pub(super) fn is(&self, member: &Member, protocol: Protocol) -> bool {
        self.protocol == protocol
            && self.member.port == member.port
            // Names of hosts have no case, and neither has the name of the directory.
            && self.member.host.to_lowercase() == member.host.to_lowercase()
    }

    /// Takes lines. They are dropped and counted if there is no room.
    pub(super) fn push(&self, lines: &[u8], points: u32) {
        let count = u64::from(points);
        match self.buffer.push(lines, points) {
            true => self.counts.taken.add(count),
            false => self.counts.overflow.add(count),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    /// Begins the end: what waits is sent until `deadline`.
    pub(super) fn stop(&self, deadline: Instant) {
        *self.deadline.lock() = Some(deadline);
        self.buffer.stop();
    }

    /// The name of its directory.
    fn directory(&self) -> String {
        let text = format!("{}_{:?}", self.member, self.protocol).to_lowercase();
        let plain = |c: char| match c {
            'a'..='z' | '0'..='9' | '.' | '-' | '_' => c.to_string(),
            other => format!("+{:x}", u32::from(other)),
        };
        text.chars().map(plain).collect()
    }

    /// Its counters and levels.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let mut all = self.counts.readings();
        let levels = [
            (
                "waiting",
                "Points that wait for this destination. If this grows without end, the destination is away or too slow.",
                self.waiting.load(Ordering::Relaxed),
            ),
            (
                "queueBytes",
                "Bytes on disk for this destination, with what was sent in the last seconds. Compare with carbon.relay_queue_size.",
                self.queue_bytes.load(Ordering::Relaxed),
            ),
            (
                "bufferBytes",
                "Bytes in memory that are not in the queue of this destination yet. If this does not stay small, the disk is too slow.",
                self.buffer.bytes() as u64,
            ),
            (
                "up",
                "1 while there is a connection to this destination, 0 while there is not.",
                u64::from(self.is_up()),
            ),
        ];
        let levels =
            levels.map(|(name, help, value)| Reading::level("relay", name, help, value as f64));
        all.extend(levels);
        let name = self.member.to_string();
        all.into_iter()
            .map(|reading| reading.labelled("destination", name.clone()))
            .collect()
    }

    /// What is wrong with it at present.
    pub(super) fn trouble(&self) -> Option<String> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        (!self.is_up()).then(|| {
            let (member, why) = (&self.member, self.why.lock());
            format!("{member} is away ({why}), {waiting} points wait for it")
        })
    }
}

/// The thread of a destination.
pub(super) struct Worker<'d> {
    destination: &'d Destination,
    queue: Queue,
    connection: Connection,
    /// What is being sent.
    current: Option<Current>,
    /// No attempt before this time.
    attempt_at: Instant,
    pause: Duration,
    /// Reported once, until a connection has lasted.
    is_away: bool,
    /// The queue could not be written last time: reported once, until it can be written again.
    is_unwritten: bool,
}

enum Connection {
    None,
    Attempt(Receiver<io::Result<TcpStream>>),
    Open {
        stream: TcpStream,
        since: Instant,
        /// When something was sent, or nothing waited.
        moved: Instant,
        looked: Instant,
    },
}

/// A chunk on the wire.
struct Current {
    taken: Taken,
    /// As the destination reads it, if not as lines.
    bytes: Option<Vec<u8>>,
    at: usize,
}

/// What a round of sending came to.
#[derive(PartialEq, Eq)]
enum Sending {
    /// Something was sent.
    Moved,
    /// Nothing waits.
    Nothing,
    /// The destination does not read, or there is no connection.
    Blocked,
}

impl<'d> Worker<'d> {
    /// Opens the queue below `directory`.
    pub(super) fn open(
        destination: &'d Destination,
        directory: &Path,
        max: u64,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let directory = directory.join(destination.directory());
        let opened = Queue::open(&directory, max);
        let (queue, lost) = opened.map_err(|error| (directory.clone(), error))?;
        if lost.bytes > 0 {
            destination.counts.damaged.add(lost.bytes);
            let path = directory.display();
            tracing::warn!("{path}: {} bytes are damaged and left out", lost.bytes);
        }
        if queue.waiting() > 0 {
            let (points, member) = (queue.waiting(), &destination.member);
            tracing::info!("{points} points of an earlier run wait for {member}");
        }
        Ok(Self {
            destination,
            queue,
            connection: Connection::None,
            current: None,
            attempt_at: Instant::now(),
            pause: FIRST_PAUSE,
            is_away: false,
            is_unwritten: false,
        })
    }

    /// Works until the end.
    pub(super) fn run(mut self) {
        let mut sending = Sending::Nothing;
        loop {
            let deadline = *self.destination.deadline.lock();
            let now = Instant::now();
            let (wait, gather) = match (&self.connection, &sending) {
                (Connection::Open { .. }, Sending::Moved) if !self.queue.is_sent() => {
                    (Duration::ZERO, Duration::ZERO)
                }
                (Connection::Open { .. }, Sending::Moved | Sending::Nothing) => (LOOK, GATHER),
                (Connection::Open { .. }, Sending::Blocked) => (FULL, FULL),
                _ => (GATHER_AWAY.min(self.until_attempt(now)), GATHER_AWAY),
            };
            // A stopped buffer does not wait.
            if deadline.is_some() && sending != Sending::Moved {
                std::thread::sleep(FULL);
            }
            self.fill(now + wait, gather);
            self.connect();
            sending = self.send();
            self.note();
            if let Some(deadline) = deadline {
                let is_done = self.current.is_none() && self.queue.is_sent();
                let is_away = self.is_away
                    && matches!(self.connection, Connection::None | Connection::Attempt(_));
                if is_done || is_away || Instant::now() >= deadline {
                    return self.finish(deadline);
                }
            }
        }
    }

    /// Moves what has arrived into the queue.
    fn fill(&mut self, until: Instant, gather: Duration) {
        let counts = &self.destination.counts;
        for chunk in self.destination.buffer.take(until, gather) {
            let (lost, error) = self.queue.append(chunk);
            counts.dropped.add(lost.points);
            let member = &self.destination.member;
            match error {
                Some(error) => {
                    counts.failures.add(1);
                    if !self.is_unwritten {
                        tracing::error!(%error, "the queue of {member} cannot be written: points wait in memory");
                    }
                    self.is_unwritten = true;
                }
                None if self.is_unwritten => {
                    tracing::info!("the queue of {member} can be written again");
                    self.is_unwritten = false;
                }
                None => {}
            }
        }
    }

    fn until_attempt(&self, now: Instant) -> Duration {
        match self.connection {
            Connection::Attempt(_) => GATHER,
            _ => self.attempt_at.saturating_duration_since(now).max(FULL),
        }
    }

    /// Begins an attempt to connect, or looks what became of it.
    fn connect(&mut self) {
        match &self.connection {
            Connection::Open { .. } => {}
            Connection::None if Instant::now() >= self.attempt_at => {
                let (send, receive) = channel();
                let address = self.destination.member.address();
                // Looking up a name may take many seconds.
                let attempt = std::thread::Builder::new().name("relay connect".to_owned());
                let started = attempt.spawn(move || {
                    let _ = send.send(connect(&address));
                });
                match started {
                    Ok(_) => self.connection = Connection::Attempt(receive),
                    Err(error) => self.failed(&error),
                }
            }
            Connection::None => {}
            Connection::Attempt(outcome) => match outcome.try_recv() {
                Ok(Ok(stream)) => self.connected(stream),
                Ok(Err(error)) => self.failed(&error),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.failed(&io::Error::other("it ended")),
            },
        }
    }

    fn connected(&mut self, stream: TcpStream) {
        self.destination.counts.connected.add(1);
        let now = Instant::now();
        self.connection = Connection::Open {
            stream,
            since: now,
            moved: now,
            looked: now,
        };
        self.destination.is_up.store(true, Ordering::Relaxed);
    }

    /// Once a connection has lasted, the destination is there.
    fn settle(&mut self) {
        let Connection::Open { since, .. } = self.connection else {
            return;
        };
        if since.elapsed() < LASTED {
            return;
        }
        self.pause = FIRST_PAUSE;
        if self.is_away {
            self.is_away = false;
            let (member, waiting) = (&self.destination.member, self.queue.waiting());
            tracing::info!("{member} is there again; {waiting} points wait for it");
        }
    }

    /// An attempt failed, or a connection broke.
    fn failed(&mut self, error: &io::Error) {
        let Destination { member, counts, .. } = self.destination;
        if matches!(self.connection, Connection::Open { .. }) {
            let again = self.queue.rewind();
            counts.again.add(again);
        } else {
            counts.refused.add(1);
        }
        if let Some(current) = self.current.take()
            && current.taken.is_only_in_memory()
        {
            self.current = Some(Current { at: 0, ..current });
        }
        self.connection = Connection::None;
        self.destination.is_up.store(false, Ordering::Relaxed);
        *self.destination.why.lock() = error.to_string();
        if !self.is_away {
            self.is_away = true;
            tracing::warn!(%error, "{member} is away; points wait for it");
        }
        let random = std::hash::RandomState::new().hash_one(0);
        // Between half of the pause and all of it, so that many relays do not come at once.
        let jitter = 0.5 + (random % 1_000) as f64 / 2_000.0;
        self.attempt_at = Instant::now() + self.pause.mul_f64(jitter);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }

    /// Sends as much as the connection takes at once.
    fn send(&mut self) -> Sending {
        let Connection::Open { .. } = self.connection else {
            return Sending::Blocked;
        };
        if let Err(error) = self.look() {
            self.failed(&error);
            return Sending::Blocked;
        }
        self.settle();
        match self.send_chunk() {
            Ok(sending) => sending,
            Err(error) => {
                self.failed(&error);
                Sending::Blocked
            }
        }
    }

    fn send_chunk(&mut self) -> io::Result<Sending> {
        if self.current.is_none() {
            self.current = self.next();
        }
        let Connection::Open { stream, moved, .. } = &mut self.connection else {
            return Ok(Sending::Blocked);
        };
        let now = Instant::now();
        let Some(current) = &mut self.current else {
            *moved = now;
            self.queue.confirm_old(now);
            return Ok(Sending::Nothing);
        };
        let bytes = current.bytes.as_ref().unwrap_or(&current.taken.chunk.lines);
        while current.at < bytes.len() {
            match stream.write(&bytes[current.at..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    current.at += n;
                    *moved = now;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if now.duration_since(*moved) > STALLED {
                        return Err(io::Error::other("it has read nothing for 30 s"));
                    }
                    return Ok(Sending::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(done) = self.current.take() {
            let points = u64::from(done.taken.chunk.points);
            self.destination.counts.sent.add(points);
            self.queue.sent(&done.taken, now);
        }
        Ok(Sending::Moved)
    }

    /// The next chunk, as the destination reads it.
    fn next(&mut self) -> Option<Current> {
        let Destination {
            member,
            counts,
            protocol,
            ..
        } = self.destination;
        let mut lost = Lost::default();
        let next = self.queue.next(&mut lost);
        counts.damaged.add(lost.bytes);
        let taken = next.unwrap_or_else(|error| {
            counts.failures.add(1);
            tracing::error!(%error, "a part of the queue of {member} cannot be read and is left out");
            None
        })?;
        let bytes = match protocol {
            Protocol::Line => None,
            Protocol::Pickle => Some(wire::pickles(&taken.chunk.lines)),
        };
        Some(Current {
            taken,
            bytes,
            at: 0,
        })
    }

    /// Whether the destination has closed the connection: it sends nothing.
    fn look(&mut self) -> io::Result<()> {
        let Connection::Open { stream, looked, .. } = &mut self.connection else {
            return Ok(());
        };
        if looked.elapsed() < FULL {
            return Ok(());
        }
        *looked = Instant::now();
        match stream.read(&mut [0; 256]) {
            Ok(0) => Err(io::Error::other("it has closed the connection")),
            Ok(_) => Ok(()),
            Err(error) if is_later(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Publishes the levels.
    fn note(&self) {
        let in_hand = self
            .current
            .as_ref()
            .filter(|current| current.taken.is_only_in_memory());
        let in_hand = in_hand.map_or(0, |current| u64::from(current.taken.chunk.points));
        let waiting = self.queue.waiting() + in_hand;
        self.destination.waiting.store(waiting, Ordering::Relaxed);
        self.destination
            .queue_bytes
            .store(self.queue.bytes(), Ordering::Relaxed);
    }

    /// The end: closes the connection, and learns whether everything has been read.
    fn finish(mut self, deadline: Instant) {
        self.fill(Instant::now(), Duration::ZERO);
        let all_sent = self.current.is_none() && self.queue.is_sent();
        if let Connection::Open { stream, .. } = &mut self.connection {
            let patience = deadline.saturating_duration_since(Instant::now());
            let patience = patience.clamp(Duration::from_millis(50), Duration::from_secs(2));
            let closed = stream
                .set_nonblocking(false)
                .and_then(|()| stream.set_read_timeout(Some(patience)))
                .and_then(|()| stream.shutdown(Shutdown::Write));
            let has_read_all = closed.is_ok() && matches!(stream.read(&mut [0; 256]), Ok(0));
            if has_read_all && all_sent {
                self.queue.confirm_all();
            }
        }
        if let Some(current) = self.current.take()
            && current.taken.is_only_in_memory()
        {
            self.queue.put_back(current.taken);
        }
        let (lost, why) = self.queue.save();
        let left = self.queue.waiting() - lost;
        self.note();
        let Destination { member, counts, .. } = self.destination;
        if left > 0 {
            tracing::info!("{left} points for {member} wait on disk for the next start");
        }
        if let Some(error) = why {
            counts.overflow.add(lost);
            tracing::error!(%error, "{lost} points for {member} are lost: its queue cannot be written");
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

/// Connects to `address`, whose name is looked up now.
fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                // Without these the kernel would find out about a machine that is gone after many minutes.
                let socket = SockRef::from(&stream);
                let _ = socket.set_tcp_user_timeout(Some(UNANSWERED));
                let probes = socket2::TcpKeepalive::new().with_time(UNANSWERED);
                let _ = socket.set_tcp_keepalive(&probes);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_that_closes_each_connection_is_left_alone_for_longer_and_longer() {
        let dir = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let destination = Destination::new(address.to_string().parse().unwrap(), Protocol::Line);
        destination.push(b"a.b 1 1\n", 1);
        let mut worker = Worker::open(&destination, dir.path(), 1 << 20).unwrap();
        let round = |worker: &mut Worker<'_>| {
            worker.fill(Instant::now() + FULL, FULL);
            worker.connect();
            worker.send();
        };
        for broken in 1..=4 {
            while !matches!(worker.connection, Connection::Open { .. }) {
                round(&mut worker);
            }
            drop(listener.accept().unwrap());
            while matches!(worker.connection, Connection::Open { .. }) {
                round(&mut worker);
            }
            assert_eq!(worker.pause, FIRST_PAUSE * (1 << broken));
            assert!(worker.is_away);
        }
        while !matches!(worker.connection, Connection::Open { .. }) {
            round(&mut worker);
        }
        let Connection::Open { since, .. } = &mut worker.connection else {
            panic!("it was open");
        };
        *since -= LASTED;
        worker.settle();
        assert_eq!((worker.pause, worker.is_away), (FIRST_PAUSE, false));
    }

    #[test]
    fn names_of_hosts_have_no_case() {
        let [lower, upper, other] = ["host:2003", "HOST:2003", "host:2004"].map(|text| {
            let member: Member = text.parse().unwrap();
            Destination::new(member, Protocol::Line)
        });
        assert!(lower.is(&upper.member, Protocol::Line));
        assert_eq!(lower.directory(), upper.directory());
        assert!(!lower.is(&other.member, Protocol::Line));
        assert!(!lower.is(&upper.member, Protocol::Pickle));
    }
}
