//! Lines over streams: TCP and Unix stream sockets.
//!
//! 1. Each read is cut at its last line feed; what is before goes on as one packet, the rest waits
//!    for more. What a closed connection leaves without a line feed counts as a line (the
//!    reference loses it).
//! 2. All connections feed one thread with one table, through a bounded channel: a sender that is
//!    too fast is slowed down by TCP.
//! 3. A line that does not end within [`LONGEST`] bytes is dropped and counted.
//! 4. There may be `max_connections` at once. A connection costs [`SMALLEST`] bytes until it sends
//!    more than that at a time.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tracing::warn;

use crate::death::Deaths;
use crate::metric::Reject;
use crate::receiver::Receiver;
use crate::report::Shared;
use crate::token::MARGIN;

/// The longest line, and the largest piece that is handed on.
pub(crate) const LONGEST: usize = 64 << 10;
/// What a read asks for at first, and again after reads that found little.
const SMALLEST: usize = 2 << 10;
const AGAIN: Duration = Duration::from_millis(100);

/// What the stream thread receives.
#[derive(Debug)]
pub(crate) enum Block {
    /// Whole lines, with a margin before and after.
    Lines(Vec<u8>, Option<IpAddr>),
    /// Look at what the aggregator wants.
    Wake,
}

/// The stream thread: takes blocks until the server stops.
pub(crate) fn run(mut receiver: Receiver, shared: &Shared, mut blocks: mpsc::Receiver<Block>) {
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
        if shared.is_stopping.load(Ordering::Acquire) {
            break;
        }
    }
    // What has been read by now still counts.
    while let Ok(block) = blocks.try_recv() {
        if let Block::Lines(bytes, from) = block {
            receiver.packet(&bytes, MARGIN..bytes.len() - MARGIN, from);
            receiver.apply(&bytes);
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
    permits: Arc<Semaphore>,
    /// Whether the lack of room has been logged since there was some.
    is_reported: AtomicBool,
    shared: Arc<Shared>,
    deaths: Deaths,
}

impl Gate {
    /// A gate for `most` connections at once, 0 being no limit.
    pub(crate) fn new(
        name: &'static str,
        most: u32,
        shared: Arc<Shared>,
        deaths: Deaths,
    ) -> Arc<Self> {
        let permits = match most {
            0 => Semaphore::MAX_PERMITS,
            most => (most as usize).min(Semaphore::MAX_PERMITS),
        };
        Arc::new(Self {
            name,
            permits: Arc::new(Semaphore::new(permits)),
            is_reported: AtomicBool::new(false),
            shared,
            deaths,
        })
    }

    /// Room for one connection; `None`, counted, if there is no room.
    fn enter(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            if self.permits.available_permits() > 0 {
                self.is_reported.store(false, Ordering::Relaxed);
            }
            return Some(permit);
        }
        let stats = &self.shared.stats;
        stats.connections_refused.fetch_add(1, Ordering::Relaxed);
        if !self.is_reported.swap(true, Ordering::Relaxed) {
            warn!(
                "{}: max_connections is reached; further connections are closed and counted",
                self.name
            );
        }
        None
    }

    /// As [`Gate::accept`], reporting a panic.
    pub(crate) async fn run<A: Accept, F>(
        self: Arc<Self>,
        listener: A,
        stop: watch::Receiver<bool>,
        serve: impl Fn(A::Stream, Option<IpAddr>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (deaths, name) = (self.deaths.clone(), self.name);
        let accepting = self.accept(listener, stop, serve);
        deaths.watch_task(name, accepting).await;
    }

    /// Accepts connections until `stop` changes, and runs `serve` for each as a task of its own.
    async fn accept<A: Accept, F>(
        self: Arc<Self>,
        listener: A,
        mut stop: watch::Receiver<bool>,
        serve: impl Fn(A::Stream, Option<IpAddr>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.changed() => return,
            };
            match accepted {
                Ok((stream, from)) => {
                    if let Some(permit) = self.enter() {
                        let served = serve(stream, from);
                        let served = self.deaths.clone().watch_task(self.name, served);
                        tokio::spawn(async move {
                            let _permit = permit;
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

/// Reads one connection to its end.
pub(crate) async fn connection(
    mut stream: impl AsyncRead + Unpin,
    from: Option<IpAddr>,
    blocks: mpsc::Sender<Block>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; MARGIN];
    let mut is_skipping = false;
    let mut room = SMALLEST;
    loop {
        // What is left of the last read stays in front, so that a line may come in pieces.
        let start = buffer.len();
        buffer.resize(start + room, 0);
        let read = tokio::select! {
            read = stream.read(&mut buffer[start..]) => read.unwrap_or(0),
            _ = stop.changed() => 0,
        };
        buffer.truncate(start + read);
        if read == 0 {
            break;
        }
        // Busy connections get larger reads, and give the room back when they are idle.
        if read == room {
            room = (2 * room).min(LONGEST);
        } else if read < room / 4 {
            room = (room / 2).max(SMALLEST);
        }
        // Without the end of a line there is nothing to hand on yet; a line that never ends is
        // dropped so that it cannot take all memory.
        let Some(feed) = memchr::memrchr(b'\n', &buffer[start..]) else {
            if buffer.len() > MARGIN + LONGEST && !is_skipping {
                shared
                    .stats
                    .bad_line(Reject::LongName, &buffer[MARGIN..], from);
                is_skipping = true;
            }
            if is_skipping {
                buffer.truncate(MARGIN);
            }
            continue;
        };
        let end = start + feed + 1;
        let rest = buffer[end..].to_vec();
        buffer.truncate(end);
        if is_skipping || end > MARGIN + LONGEST {
            // Only the first line can be too long: the others came in this read.
            let first = memchr::memchr(b'\n', &buffer[MARGIN..]).unwrap_or(0);
            if first > LONGEST {
                let line = &buffer[MARGIN..MARGIN + first];
                shared.stats.bad_line(Reject::LongName, line, from);
            }
            if is_skipping || first > LONGEST {
                buffer.drain(MARGIN..=MARGIN + first);
            }
            is_skipping = false;
        }
        if !send(&mut buffer, from, &blocks).await {
            return;
        }
        buffer.extend_from_slice(&rest);
    }
    if !is_skipping {
        send(&mut buffer, from, &blocks).await;
    }
}

/// Hands on the lines in `buffer` and leaves an empty one behind; returns false when the receiver
/// has ended.
async fn send(buffer: &mut Vec<u8>, from: Option<IpAddr>, blocks: &mpsc::Sender<Block>) -> bool {
    let mut lines = std::mem::replace(buffer, vec![0; MARGIN]);
    if lines.len() == MARGIN {
        return true;
    }
    lines.resize(lines.len() + MARGIN, 0);
    blocks.send(Block::Lines(lines, from)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that a connection hands on, and how many it refuses.
    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let shared = Arc::new(Shared::default());
        let (blocks_in, mut blocks) = mpsc::channel(16);
        let (_stop, stopping) = watch::channel(false);
        runtime.block_on(connection(bytes, None, blocks_in, shared.clone(), stopping));
        let mut lines = Vec::new();
        while let Ok(Block::Lines(block, _)) = blocks.try_recv() {
            let block = &block[MARGIN..block.len() - MARGIN];
            lines.extend(block.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        }
        lines.retain(|line| !line.is_empty());
        (lines, shared.stats.bad_lines.load(Ordering::Relaxed))
    }

    #[test]
    fn a_line_may_have_so_many_bytes_and_no_more() {
        for more in [0, 1, 2, LONGEST - 1, LONGEST, LONGEST + 1, 3 * LONGEST] {
            let long = vec![b'x'; LONGEST + more];
            let bytes = [b"a\n", &long[..], b"\nb\n", &long[..], b"\n\nc"].concat();
            let (lines, n_bad) = read(&bytes);
            let mut expected = vec![&b"a"[..], &long, b"b", &long, b"c"];
            if more > 0 {
                expected.retain(|line| line.len() == 1);
            }
            assert!(lines == expected, "{} bytes", long.len());
            assert_eq!(n_bad, if more > 0 { 2 } else { 0 }, "{} bytes", long.len());
        }
    }
}
