//! Reads one connection of a stream socket, as lines or as DogStatsD's packets.
//!
//! 1. **Lines.** Each read is cut at its last line feed; what is before goes on as one block, the
//!    rest waits for more. What a client leaves without a line feed when it closes its connection
//!    counts as a line (statsd 0.10.2 loses it); where the connection broke, or the server stopped, it
//!    may be a part of a line, which is dropped and counted. A line that does not end within
//!    [`LONGEST`] bytes is dropped and counted, too.
//! 2. **Packets.** DogStatsD's clients write the length of each packet before it, as four bytes,
//!    lowest first (`unixstream://` in the Datadog agent and its clients). The end of a packet ends
//!    its last line. A length beyond [`LONGEST_PACKET`] cannot be skipped safely: it is counted and
//!    the connection closed, as the agent does. What a connection leaves of a packet that it does
//!    not complete is taken up to the last line feed; the rest is counted.
//! 3. The first four bytes of a connection decide, once: the third and the fourth of a length are
//!    zero, and no line of a metric has two zeroes there. How the bytes are cut into reads makes no
//!    difference.
//! 4. A connection costs [`SMALLEST`] bytes until it sends more than that at a time, and never more
//!    than a line or packet of the largest length and a read.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::listener::{Block, Peer};
use crate::metric::Reject;
use crate::report::Shared;
use crate::token::MARGIN;

/// The longest line, and the largest read.
pub(crate) const LONGEST: usize = 64 << 10;
/// The longest packet with a length before it; a datagram cannot have more bytes either.
pub(crate) const LONGEST_PACKET: usize = u16::MAX as usize;
/// What a read asks for at first, and again after reads that found little.
const SMALLEST: usize = 2 << 10;
/// How long a connection is read at the stop, if its sender does not pause.
const DRAIN: Duration = Duration::from_secs(1);
/// How long bytes that the kernel has may take to be noticed by the runtime, at the stop.
pub(crate) const NOTICED: Duration = Duration::from_millis(50);
/// The bytes of a packet's length.
const LENGTH: usize = 4;

/// How the bytes of a connection are divided.
#[derive(Clone, Copy)]
enum Framing {
    /// Too few bytes have come.
    Unknown,
    /// At line feeds; `is_skipping` until the end of a line that is too long.
    Lines { is_skipping: bool },
    /// By lengths.
    Packets,
}

/// A length that no packet has: what follows cannot be divided.
struct BadLength;

/// Reads one connection to its end. After `stop` changes, or once it is to make room for another, what
/// the kernel has of it is still read.
pub(crate) async fn connection(
    mut stream: impl AsyncRead + Unpin,
    from: Option<IpAddr>,
    blocks: mpsc::Sender<Block>,
    shared: Arc<Shared>,
    stop: watch::Receiver<bool>,
    peer: Arc<Peer>,
) {
    let until = None;
    let mut stop = Stop { stop, peer, until };
    let refuse = |reason, bytes: &[u8]| shared.stats.bad_line(reason, bytes, from);
    let mut buffer = vec![0; MARGIN];
    let mut framing = Framing::Unknown;
    let mut room = SMALLEST;
    // Whether the client has closed the connection: then it has sent all that it meant to.
    let is_complete = loop {
        // What is left of the last read stays in front, so that a line may come in pieces.
        let start = buffer.len();
        buffer.resize(start + room, 0);
        let read = stop.read(&mut stream, &mut buffer[start..]).await;
        buffer.truncate(start + read.unwrap_or(0));
        let read = match read {
            Some(0) => break true,
            None => break false,
            Some(read) => read,
        };
        // Busy connections get larger reads, and give the room back when they are idle.
        if read == room {
            room = (2 * room).min(LONGEST);
        } else if read < room / 4 {
            room = (room / 2).max(SMALLEST);
        }
        let mut new = start;
        if matches!(framing, Framing::Unknown) {
            framing = Framing::of(&buffer[MARGIN..]);
            new = MARGIN;
        }
        let mut is_over = false;
        let block = match &mut framing {
            Framing::Unknown => continue,
            Framing::Lines { is_skipping } => lines(&mut buffer, new, is_skipping, refuse),
            Framing::Packets => {
                let (block, rest) = packets(&mut buffer);
                if rest.is_err() {
                    refuse(Reject::Packet, &buffer[MARGIN..]);
                    is_over = true;
                }
                block
            }
        };
        if !send(block, from, &blocks).await || is_over {
            return;
        }
    };
    match framing {
        _ if buffer.len() == MARGIN => return,
        Framing::Lines { is_skipping: true } => return,
        Framing::Unknown | Framing::Lines { .. } if is_complete => {}
        Framing::Unknown | Framing::Lines { .. } => {
            refuse(Reject::Unfinished, &buffer[MARGIN..]);
            return;
        }
        Framing::Packets => {
            // The lines that ended are whole; the last one may be a part of another.
            let rest = buffer.split_off(MARGIN + LENGTH.min(buffer.len() - MARGIN));
            let end = memchr::memrchr(b'\n', &rest).map_or(0, |feed| feed + 1);
            refuse(Reject::Packet, &rest[end..]);
            buffer.truncate(MARGIN);
            buffer.extend_from_slice(&rest[..end]);
        }
    }
    send(buffer, from, &blocks).await;
}

/// What ends a connection, beside its client.
struct Stop {
    stop: watch::Receiver<bool>,
    peer: Arc<Peer>,
    /// How long the connection is read at most, once the server stops or another needs its room.
    until: Option<Instant>,
}

impl Stop {
    /// Reads what comes next: no bytes at the end of the connection, `None` if it broke or has to end.
    async fn read(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut [u8],
    ) -> Option<usize> {
        self.peer.waits();
        let read = self.wait(stream, buffer).await;
        self.peer.works();
        read
    }

    async fn wait(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffer: &mut [u8],
    ) -> Option<usize> {
        let until = match self.until {
            Some(until) => until,
            None => tokio::select! {
                read = stream.read(buffer) => return read.ok(),
                () = self.peer.displaced() => *self.until.insert(Instant::now() + DRAIN),
                _ = self.stop.changed() => *self.until.insert(Instant::now() + DRAIN),
            },
        };
        if Instant::now() >= until {
            return None;
        }
        timeout(NOTICED, stream.read(buffer)).await.ok()?.ok()
    }
}

impl Framing {
    /// What the first bytes of a connection say.
    fn of(bytes: &[u8]) -> Self {
        let lines = Self::Lines { is_skipping: false };
        match bytes {
            [_, _, 0, 0, ..] => Self::Packets,
            [_, _, 0] | [_, _] | [_] | [] => Self::Unknown,
            _ => lines,
        }
    }
}

/// Takes the complete lines out of `buffer`, of which the bytes from `new` on have just come.
fn lines(
    buffer: &mut Vec<u8>,
    new: usize,
    is_skipping: &mut bool,
    refuse: impl Fn(Reject, &[u8]),
) -> Vec<u8> {
    // Without the end of a line there is nothing to hand on yet; a line that never ends is
    // dropped so that it cannot take all memory.
    let Some(feed) = memchr::memrchr(b'\n', &buffer[new..]) else {
        if buffer.len() > MARGIN + LONGEST && !*is_skipping {
            refuse(Reject::LongName, &buffer[MARGIN..]);
            *is_skipping = true;
        }
        if *is_skipping {
            buffer.truncate(MARGIN);
        }
        return Vec::new();
    };
    let end = new + feed + 1;
    let mut rest = Vec::with_capacity(MARGIN + buffer.len() - end);
    rest.resize(MARGIN, 0);
    rest.extend_from_slice(&buffer[end..]);
    buffer.truncate(end);
    let mut block = std::mem::replace(buffer, rest);
    if *is_skipping || end > MARGIN + LONGEST {
        // Only the first line can be too long: the others came in this read.
        let first = memchr::memchr(b'\n', &block[MARGIN..]).unwrap_or(0);
        if first > LONGEST {
            refuse(Reject::LongName, &block[MARGIN..MARGIN + first]);
        }
        if *is_skipping || first > LONGEST {
            block.drain(MARGIN..=MARGIN + first);
        }
        *is_skipping = false;
    }
    block
}

/// Takes the complete packets out of `buffer`, each ended by a line feed. After an error, `buffer`
/// starts with the bad length.
fn packets(buffer: &mut Vec<u8>) -> (Vec<u8>, Result<(), BadLength>) {
    let mut block = vec![0; MARGIN];
    let mut at = MARGIN;
    let mut result = Ok(());
    while let Some((length, rest)) = buffer[at..].split_first_chunk::<LENGTH>() {
        let length = u32::from_le_bytes(*length) as usize;
        if length > LONGEST_PACKET {
            result = Err(BadLength);
            break;
        }
        let Some(packet) = rest.get(..length) else {
            break;
        };
        block.extend_from_slice(packet);
        if !matches!(packet, [] | [.., b'\n']) {
            block.push(b'\n');
        }
        at += LENGTH + length;
    }
    buffer.drain(MARGIN..at);
    (block, result)
}

/// Hands on the lines in `block`, if there are any; returns false when the receiver has ended.
async fn send(mut block: Vec<u8>, from: Option<IpAddr>, blocks: &mpsc::Sender<Block>) -> bool {
    if block.len() <= MARGIN {
        return true;
    }
    block.resize(block.len() + MARGIN, 0);
    blocks.send(Block::Lines(block, from)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};
    use tokio::io::{AsyncWriteExt as _, ReadBuf};

    /// The lines that a connection hands on, and the reasons for which bytes are refused.
    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Vec<(&'static str, u64)>) {
        read_from(bytes, false)
    }

    /// As [`read`], of any stream, of a server that stops or does not.
    fn read_from(
        stream: impl AsyncRead + Unpin,
        is_stopping: bool,
    ) -> (Vec<Vec<u8>>, Vec<(&'static str, u64)>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let shared = Arc::new(Shared::default());
        let (blocks_in, mut blocks) = mpsc::channel(16);
        let (stop, stopping) = watch::channel(false);
        if is_stopping {
            stop.send(true).unwrap();
        }
        let peer = Peer::alone();
        let read = connection(stream, None, blocks_in, shared.clone(), stopping, peer);
        runtime.block_on(read);
        let mut lines = Vec::new();
        while let Ok(Block::Lines(block, _)) = blocks.try_recv() {
            let block = &block[MARGIN..block.len() - MARGIN];
            lines.extend(block.split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        }
        lines.retain(|line| !line.is_empty());
        (lines, shared.stats.bad_lines_by_reason())
    }

    fn framed(packets: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for packet in packets {
            bytes.extend_from_slice(&(packet.len() as u32).to_le_bytes());
            bytes.extend_from_slice(packet);
        }
        bytes
    }

    #[test]
    fn a_line_may_have_so_many_bytes_and_no_more() {
        for more in [0, 1, 2, LONGEST - 1, LONGEST, LONGEST + 1, 3 * LONGEST] {
            let long = vec![b'x'; LONGEST + more];
            let bytes = [b"a\n", &long[..], b"\nb\n", &long[..], b"\n\nc"].concat();
            let (lines, bad) = read(&bytes);
            let mut expected = vec![&b"a"[..], &long, b"b", &long, b"c"];
            if more > 0 {
                expected.retain(|line| line.len() == 1);
            }
            assert!(lines == expected, "{} bytes", long.len());
            let expected = [("long_name", 2)];
            assert_eq!(
                bad,
                expected[..usize::from(more > 0)],
                "{} bytes",
                long.len()
            );
        }
    }

    #[test]
    fn the_last_line_of_a_connection_needs_no_line_feed() {
        assert_eq!(read(b"a:1|c"), (vec![b"a:1|c".to_vec()], vec![]));
        for bytes in [&b"x"[..], b"xy", b"xy\0", b"xyz"] {
            assert_eq!(read(bytes), (vec![bytes.to_vec()], vec![]));
        }
        assert_eq!(read(b""), (vec![], vec![]));
    }

    /// A connection that was reset by its client.
    struct Reset;

    impl AsyncRead for Reset {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    #[test]
    fn a_line_that_is_cut_off_does_not_count() {
        for cut in [&b"a"[..], b"a:1", b"a:1|c|#env:pro"] {
            let bytes = [b"b:1|c\n", cut].concat();
            let sent = || {
                let (mut client, server) = tokio::io::duplex(bytes.len());
                let sent = pin!(client.write_all(&bytes));
                let sent = sent.poll(&mut Context::from_waker(Waker::noop()));
                assert!(sent.is_ready());
                (client, server)
            };
            let dropped = (vec![b"b:1|c".to_vec()], vec![("unfinished", 1)]);
            assert_eq!(read_from(bytes.chain(Reset), false), dropped);
            let (_client, server) = sent();
            assert_eq!(read_from(server, true), dropped);
            // If the client has closed before the server stops, the line is whole.
            let (client, server) = sent();
            drop(client);
            let whole = (vec![b"b:1|c".to_vec(), cut.to_vec()], vec![]);
            assert_eq!(read_from(server, true), whole);
        }
        assert_eq!(read_from(b"b:1|c\n".chain(Reset), false).1, []);
        assert_eq!(read_from(Reset, false), (vec![], vec![]));
    }

    #[test]
    fn packets_are_read_by_their_length() {
        let full = [&[b'n'; LONGEST_PACKET - 4][..], b":1|c"].concat();
        let all: &[&[u8]] = &[b"a:1|c", b"", b"b:1|c\nc:2|c\n", &full, b"\nd:1|c"];
        let (lines, bad) = read(&framed(all));
        let expected = [&b"a:1|c"[..], b"b:1|c", b"c:2|c", &full, b"d:1|c"];
        assert!(lines == expected);
        assert_eq!(bad, []);
        // The first packet may be the one that decides, of any length.
        for length in [0, 1, 9, 10, 11, 255, 256, 2_560, LONGEST_PACKET] {
            let packet = vec![b'x'; length];
            let (lines, bad) = read(&framed(&[&packet, b"y"]));
            assert_eq!(lines.len(), 1 + usize::from(length > 0), "{length}");
            assert_eq!(bad, []);
        }
    }

    #[test]
    fn a_bad_length_ends_the_connection_and_nothing_before_it() {
        let bad = [("malformed_packet", 1)];
        for length in [LONGEST_PACKET as u32 + 1, u32::MAX] {
            let mut bytes = framed(&[b"a:1|c", b"b:1|c"]);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(b"c:1|c\nd:1|c\n");
            let (lines, found) = read(&bytes);
            assert_eq!(lines, [b"a:1|c", b"b:1|c"]);
            assert_eq!(found, bad);
        }
        // A client that goes away within a packet: its whole lines count.
        let whole = framed(&[b"a:1|c", b"b:1|c\nc:1|c\nd:1|c"]);
        for cut in 1..=15 {
            let (lines, found) = read(&whole[..whole.len() - cut]);
            let expected: &[&[u8]] = match cut {
                1..=5 => &[b"a:1|c", b"b:1|c", b"c:1|c"],
                6..=11 => &[b"a:1|c", b"b:1|c"],
                _ => &[b"a:1|c"],
            };
            assert_eq!(lines, expected, "{cut}");
            assert_eq!(found, bad);
        }
        assert_eq!(read(&whole[..10]), (vec![b"a:1|c".to_vec()], bad.to_vec()));
    }
}
