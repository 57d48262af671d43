//! Lines and packets over a connection: however the bytes are cut, the same lines are handed on.

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{mpsc, watch};

use crate::listener::{Block, Peer};
use crate::report::Shared;
use crate::stream::{LONGEST, LONGEST_PACKET, connection};
use crate::token::MARGIN;

/// Pieces, each of which is there at once.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.0.pop_front() {
            let rest = piece.split_off(piece.len().min(buffer.remaining()));
            buffer.put_slice(&piece);
            if !rest.is_empty() {
                self.0.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The lines of a whole connection that are taken, and how many refusals are counted.
fn expected(bytes: &[u8]) -> (Vec<&[u8]>, u64) {
    if let [_, _, 0, 0, ..] = bytes {
        return packets(bytes);
    }
    let is_long = |line: &&[u8]| line.len() > LONGEST;
    let lines = || bytes.split(|byte| *byte == b'\n');
    let taken = lines().filter(|line| !line.is_empty() && !is_long(line));
    (taken.collect(), lines().filter(is_long).count() as u64)
}

/// As [`expected`], of packets with their lengths.
fn packets(mut bytes: &[u8]) -> (Vec<&[u8]>, u64) {
    let mut taken = Vec::new();
    while !bytes.is_empty() {
        let Some((length, rest)) = bytes.split_first_chunk() else {
            return (taken, 1);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > LONGEST_PACKET {
            return (taken, 1);
        }
        let is_whole = length <= rest.len();
        let (packet, after) = rest.split_at(length.min(rest.len()));
        let mut lines: Vec<&[u8]> = packet.split(|byte| *byte == b'\n').collect();
        if !is_whole {
            lines.pop();
        }
        taken.extend(lines.into_iter().filter(|line| !line.is_empty()));
        if !is_whole {
            return (taken, 1);
        }
        bytes = after;
    }
    (taken, 0)
}

/// Reads a connection that brings `pieces`.
///
/// # Panics
/// A line that is not too long is missing or changed, one that is too long is not, a packet is
/// divided at another place than its length says, or a refusal is not counted once.
pub fn stream(pieces: &[&[u8]]) {
    let bytes = pieces.concat();
    let (expected, refused) = expected(&bytes);

    let pieces = pieces.iter().filter(|piece| !piece.is_empty());
    let source = Pieces(pieces.map(|piece| piece.to_vec()).collect());
    let shared = Arc::new(Shared::default());
    let (blocks_in, mut blocks) = mpsc::channel(bytes.len().max(1));
    let (_stop, stopping) = watch::channel(false);
    let mut read = pin!(connection(
        source,
        None,
        blocks_in,
        shared.clone(),
        stopping,
        Peer::alone(),
    ));
    let mut context = Context::from_waker(Waker::noop());
    while read.as_mut().poll(&mut context).is_pending() {}

    let mut found = Vec::new();
    while let Ok(block) = blocks.try_recv() {
        if let Block::Lines(block, _) = block {
            let lines = &block[MARGIN..block.len() - MARGIN];
            found.extend(lines.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        }
    }
    found.retain(|line| !line.is_empty());
    let lengths = |lines: &[&[u8]]| lines.iter().map(|line| line.len()).collect::<Vec<_>>();
    let found: Vec<&[u8]> = found.iter().map(Vec::as_slice).collect();
    assert_eq!(lengths(&found), lengths(&expected));
    assert!(found == expected, "a line has changed");
    assert_eq!(shared.stats.bad_lines.load(Ordering::Relaxed), refused);
}
