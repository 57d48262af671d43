//! Lines over streams: TCP and Unix stream sockets.
//!
//! 1. Each read is cut at its last line feed; what is before goes on as one packet, the rest waits
//!    for more. What a closed connection leaves without a line feed counts as a line (the
//!    reference loses it).
//! 2. All connections feed one thread with one table, through a bounded channel: a sender that is
//!    too fast is slowed down by TCP.
//! 3. A line that does not end within [`LONGEST`] bytes is dropped and counted.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tracing::warn;

use crate::metric::Reject;
use crate::receive::{Intake, Shared};
use crate::token::MARGIN;

/// The longest line, and the largest piece that is handed on.
pub(crate) const LONGEST: usize = 64 << 10;
const AGAIN: Duration = Duration::from_millis(100);

/// What the stream thread is told.
#[derive(Debug)]
pub(crate) enum Block {
    /// Whole lines, with a margin before and after.
    Lines(Vec<u8>, Option<IpAddr>),
    /// Look at what the aggregator wants.
    Wake,
}

/// The stream thread: takes blocks until it is told to stop.
pub(crate) fn run(mut intake: Intake, shared: &Shared, mut blocks: mpsc::Receiver<Block>) {
    while let Some(block) = blocks.blocking_recv() {
        if let Block::Lines(bytes, from) = block {
            intake.obey_all();
            intake.packet(&bytes, MARGIN..bytes.len() - MARGIN, from);
            intake.settle(&bytes);
        }
        intake.step();
        while intake.is_sweeping() {
            intake.step();
        }
        if shared.stop.load(Ordering::Acquire) {
            break;
        }
    }
    // What has been read by now still counts.
    while let Ok(block) = blocks.try_recv() {
        if let Block::Lines(bytes, from) = block {
            intake.packet(&bytes, MARGIN..bytes.len() - MARGIN, from);
            intake.settle(&bytes);
        }
    }
    intake.end();
}

/// Accepts TCP connections until `stop` changes.
pub(crate) async fn tcp(
    listener: TcpListener,
    blocks: mpsc::Sender<Block>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok((stream, from)) => {
                let (blocks, shared, stop) = (blocks.clone(), shared.clone(), stop.clone());
                let from = from.ip().to_canonical();
                tokio::spawn(connection(stream, Some(from), blocks, shared, stop));
            }
            Err(why) => refused(&why).await,
        }
    }
}

/// Accepts connections on a Unix socket until `stop` changes.
pub(crate) async fn unix(
    listener: UnixListener,
    blocks: mpsc::Sender<Block>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (blocks, shared, stop) = (blocks.clone(), shared.clone(), stop.clone());
                tokio::spawn(connection(stream, None, blocks, shared, stop));
            }
            Err(why) => refused(&why).await,
        }
    }
}

async fn refused(why: &io::Error) {
    warn!("statsd connection not accepted: {why}");
    // Out of descriptors, most likely: trying at once would only burn the processor.
    tokio::time::sleep(AGAIN).await;
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
    loop {
        let start = buffer.len();
        buffer.resize(start + LONGEST, 0);
        let read = tokio::select! {
            read = stream.read(&mut buffer[start..]) => read.unwrap_or(0),
            _ = stop.changed() => 0,
        };
        buffer.truncate(start + read);
        if read == 0 {
            break;
        }
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

/// Hands on the lines in `buffer` and leaves an empty one behind; returns false when nobody takes
/// them any more.
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
