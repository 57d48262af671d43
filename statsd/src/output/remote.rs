//! A carbon elsewhere: one connection that is kept, a queue, and a thread that writes.
//!
//! 1. The queue is bounded in bytes. While the other side takes what is written, a flush waits for
//!    room, for a time that is given for all of its pieces together; when it is away, the oldest of what waits is dropped, and counted.
//! 2. A piece leaves the queue only when it has been written whole. After an error it is written
//!    again on the next connection: carbon may then see lines twice, which changes nothing there.
//! 3. Attempts to connect follow after 250 ms, 500 ms, … up to the longest wait.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::{info, warn};

use crate::death::Threads;
use crate::report::Shared;
use crate::stats::now_ms;

const FIRST_WAIT: Duration = Duration::from_millis(250);
const CONNECT: Duration = Duration::from_secs(5);
const WRITE: Duration = Duration::from_secs(30);
/// How long a write may wait before the thread looks whether the server stops.
const LOOK: Duration = Duration::from_millis(250);

/// One remote output.
#[derive(Debug)]
pub(crate) struct Remote {
    address: String,
    limit: usize,
    longest_wait: Duration,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    pieces: VecDeque<(Arc<[u8]>, u64)>,
    bytes: usize,
    is_connected: bool,
    /// Set when no more comes: until when the rest may be sent.
    closing: Option<Instant>,
}

impl Remote {
    pub(crate) fn new(address: String, limit: u64, longest_wait: Duration) -> Arc<Self> {
        Arc::new(Self {
            address,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            longest_wait: longest_wait.max(FIRST_WAIT),
            queue: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// Queues `bytes`, which hold `lines` lines. Waits for room while the other side is there, but
    /// no longer than `patience`, from which that time is taken. Returns how many lines had to be
    /// dropped.
    pub(crate) fn push(&self, bytes: Arc<[u8]>, lines: u64, patience: &mut Duration) -> u64 {
        let mut queue = self.lock();
        while queue.is_connected && queue.bytes > 0 && queue.bytes + bytes.len() > self.limit {
            if patience.is_zero() {
                break;
            }
            let start = Instant::now();
            self.changed.wait_for(&mut queue, *patience);
            *patience = patience.saturating_sub(start.elapsed());
        }
        let mut dropped = 0;
        while queue.bytes > 0 && queue.bytes + bytes.len() > self.limit {
            if let Some((oldest, lines)) = queue.pieces.pop_front() {
                queue.bytes -= oldest.len();
                dropped += lines;
            }
        }
        queue.bytes += bytes.len();
        queue.pieces.push_back((bytes, lines));
        drop(queue);
        self.changed.notify_all();
        dropped
    }

    /// What is queued, taken out.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn take_all(&self) -> Vec<u8> {
        let mut queue = self.lock();
        queue.bytes = 0;
        let pieces = std::mem::take(&mut queue.pieces);
        pieces
            .iter()
            .flat_map(|(bytes, _)| bytes.to_vec())
            .collect()
    }

    /// Announces that no more comes.
    pub(crate) fn close(&self, deadline: Instant) {
        self.lock().closing = Some(deadline);
        self.changed.notify_all();
    }

    /// Starts the thread that writes.
    pub(crate) fn start(
        self: &Arc<Self>,
        shared: Arc<Shared>,
        threads: &mut Threads,
    ) -> io::Result<()> {
        let remote = self.clone();
        threads.spawn("statsd-output", move || remote.run(&shared))
    }

    fn run(&self, shared: &Shared) {
        let mut stream: Option<TcpStream> = None;
        let mut wait = FIRST_WAIT;
        while let Some((piece, lines)) = self.next() {
            let result = match stream.take().filter(is_open) {
                Some(open) => Ok(open),
                None => self.connect(),
            }
            .and_then(|mut open| self.write(&mut open, &piece).map(|()| open));
            match result {
                Ok(open) => {
                    if wait != FIRST_WAIT {
                        info!("output {}: connected again", self.address);
                    }
                    wait = FIRST_WAIT;
                    stream = Some(open);
                    self.written(&piece);
                }
                Err(why) => {
                    let stats = &shared.stats;
                    stats.output_errors.fetch_add(1, Ordering::Relaxed);
                    stats
                        .last_output_error
                        .store(now_ms() / 1_000, Ordering::Relaxed);
                    if wait == FIRST_WAIT {
                        warn!("output {}: {why}; trying again", self.address);
                    }
                    if !self.pause(wait) {
                        stats.lines_dropped.fetch_add(lines, Ordering::Relaxed);
                        break;
                    }
                    wait = (wait * 2).min(self.longest_wait);
                }
            }
        }
        let lost: u64 = self.lock().pieces.iter().map(|(_, lines)| lines).sum();
        if lost > 0 {
            warn!("output {}: {lost} lines could not be sent", self.address);
        }
    }

    /// The oldest piece, which stays in the queue; `None` when there are no more to come.
    fn next(&self) -> Option<(Arc<[u8]>, u64)> {
        let mut queue = self.lock();
        loop {
            if let Some((bytes, lines)) = queue.pieces.front() {
                return Some((bytes.clone(), *lines));
            }
            if queue.closing.is_some() {
                return None;
            }
            self.changed.wait(&mut queue);
        }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(ErrorKind::NotFound, "no address for this name");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => {
                    stream.set_write_timeout(Some(LOOK))?;
                    stream.set_nodelay(true)?;
                    self.lock().is_connected = true;
                    return Ok(stream);
                }
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    /// Writes a piece whole, unless the other side takes nothing for [`WRITE`], or the time after the
    /// stop is over.
    fn write(&self, stream: &mut TcpStream, piece: &[u8]) -> io::Result<()> {
        let mut rest = piece;
        let mut last = Instant::now();
        while !rest.is_empty() {
            let now = Instant::now();
            let is_over = self.lock().closing.is_some_and(|deadline| now >= deadline);
            if is_over || now >= last + WRITE {
                return Err(ErrorKind::TimedOut.into());
            }
            match stream.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = &rest[written..];
                    last = Instant::now();
                }
                Err(why) => match why.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => {}
                    _ => return Err(why),
                },
            }
        }
        Ok(())
    }

    fn written(&self, piece: &Arc<[u8]>) {
        let mut queue = self.lock();
        // It may have been dropped meanwhile to make room.
        if queue
            .pieces
            .front()
            .is_some_and(|(first, _)| Arc::ptr_eq(first, piece))
        {
            queue.pieces.pop_front();
            queue.bytes -= piece.len();
        }
        drop(queue);
        self.changed.notify_all();
    }

    /// Waits before the next attempt; returns false if there is no time for one.
    fn pause(&self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        let mut queue = self.lock();
        queue.is_connected = false;
        self.changed.notify_all();
        loop {
            let now = Instant::now();
            if queue.closing.is_some_and(|deadline| now >= deadline) {
                return false;
            }
            let end = queue.closing.map_or(until, |deadline| until.min(deadline));
            if now >= end {
                return true;
            }
            self.changed.wait_for(&mut queue, end - now);
        }
    }
}

/// Whether the other side has not closed the connection: carbon never sends anything.
fn is_open(stream: &TcpStream) -> bool {
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    let mut byte = [0];
    let open = match (&mut &*stream).read(&mut byte) {
        Ok(0) => false,
        Ok(_) => true,
        Err(why) => why.kind() == ErrorKind::WouldBlock,
    };
    open && stream.set_nonblocking(false).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pieces_of_a_flush_share_its_patience() {
        let remote = Remote::new("nowhere:1".to_owned(), 10, Duration::ZERO);
        remote.lock().is_connected = true;
        let given = Duration::from_millis(50);
        let mut patience = given;
        let start = Instant::now();
        let mut dropped = 0;
        for _ in 0..1_000 {
            dropped += remote.push(Arc::from(&b"a 1 2\nb 1 2\n"[..]), 2, &mut patience);
        }
        assert_eq!(dropped, 2 * 999);
        assert!(patience.is_zero());
        assert!(start.elapsed() >= given);
        assert!(start.elapsed() < 500 * given);
    }
}
