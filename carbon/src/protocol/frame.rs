//! A stream of frames: four bytes of length, most significant first, and as many bytes.
//!
//! 1. A frame over the limit ends the reading: what follows cannot be divided into frames any more.
//! 2. The buffer is as large as its sender made it: nothing while the sender pauses between frames,
//!    [`MIN_BUFFER`] at first, twice as much each time that it was full. A length alone reserves nothing.

use super::Flow;
use super::resolver::{Reject, Resolver};

/// The smallest buffer of a stream that sends.
const MIN_BUFFER: usize = 4 << 10;
/// The largest, unless a frame is larger.
const MAX_BUFFER: usize = 256 << 10;
/// Bytes of a frame's length.
const HEADER: usize = 4;

/// A frame is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {len} bytes")]
pub struct TooLong {
    /// The length that the frame announces.
    pub len: u32,
}

/// Cuts a byte stream into frames, received in any pieces.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    filled: usize,
    /// The last read left no space: the sender has more than the buffer holds.
    brimming: bool,
    max: usize,
}

impl Frames {
    /// Frames of up to `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            filled: 0,
            brimming: false,
            max,
        }
    }

    /// Where the next bytes go; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.brimming || self.filled == self.buffer.len() {
            let most = MAX_BUFFER.max(HEADER.saturating_add(self.max));
            let most = match self.announced() {
                Some(len) if len > MAX_BUFFER => most.min(len),
                _ => MAX_BUFFER,
            };
            let larger = (self.buffer.len() * 2).clamp(MIN_BUFFER, most);
            // A frame that is not whole may fill a buffer of the largest size.
            let larger = larger.max(self.filled + 1).max(self.buffer.len());
            let more = larger.saturating_sub(self.buffer.len());
            self.buffer.reserve_exact(more);
            self.buffer.resize(larger, 0);
            self.brimming = false;
        }
        &mut self.buffer[self.filled..]
    }

    /// How many bytes the first frame has with its length, if the length is there.
    fn announced(&self) -> Option<usize> {
        let header = self.buffer[..self.filled].first_chunk()?;
        Some(HEADER + u32::from_be_bytes(*header) as usize)
    }

    /// Gives back the memory that is not in use: the sender pauses.
    pub fn rest(&mut self) {
        self.buffer.truncate(self.filled);
        self.buffer.shrink_to_fit();
        self.brimming = false;
    }

    /// Bytes of memory that it has.
    pub fn size_bytes(&self) -> usize {
        self.buffer.capacity()
    }

    /// Bytes of a frame that is not whole.
    pub fn unread(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// `n` bytes were put into the space: calls `each` with each frame that is whole now.
    ///
    /// # Errors
    /// The next frame is longer than the limit. The frames before it have been passed on.
    pub fn advance(&mut self, n: usize, mut each: impl FnMut(&[u8])) -> Result<(), TooLong> {
        self.filled += n;
        self.brimming = self.filled == self.buffer.len();
        let mut rest = &self.buffer[..self.filled];
        let outcome = loop {
            let Some((header, after)) = rest.split_first_chunk() else {
                break Ok(());
            };
            let len = u32::from_be_bytes(*header);
            if len as usize > self.max {
                break Err(TooLong { len });
            }
            let Some((frame, after)) = after.split_at_checked(len as usize) else {
                break Ok(());
            };
            each(frame);
            rest = after;
        };
        let left = rest.len();
        self.buffer.copy_within(self.filled - left..self.filled, 0);
        self.filled = left;
        outcome
    }

    /// How a stream of metrics goes on after `outcome`; a frame over the limit is counted.
    pub(super) fn flow(&self, outcome: Result<(), TooLong>, resolver: &mut Resolver<'_>) -> Flow {
        match outcome {
            Ok(()) => Flow::Continue,
            Err(_) => {
                resolver.reject(Reject::FrameLength, self.unread());
                Flow::Close
            }
        }
    }

    /// Counts a frame that the end of the stream has cut.
    pub(super) fn end(&self, resolver: &mut Resolver<'_>) {
        if !self.unread().is_empty() {
            resolver.reject(Reject::Torn, self.unread());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_be_bytes()[..], body].concat()
    }

    /// Reads `bytes` in pieces of up to `piece` bytes; the frames, and how it ended.
    fn read(
        frames: &mut Frames,
        bytes: &[u8],
        pieces: &[usize],
    ) -> (Vec<Vec<u8>>, Result<(), TooLong>) {
        let mut found = Vec::new();
        let mut rest = bytes;
        for piece in pieces.iter().cycle() {
            let space = frames.space();
            assert!(!space.is_empty());
            let n = rest.len().min(*piece).min(space.len());
            space[..n].copy_from_slice(&rest[..n]);
            rest = &rest[n..];
            let outcome = frames.advance(n, |frame| found.push(frame.to_vec()));
            if rest.is_empty() || outcome.is_err() {
                return (found, outcome);
            }
        }
        unreachable!("the pieces repeat")
    }

    #[test]
    fn a_frame_over_the_limit_ends_the_reading() {
        let mut frames = Frames::new(10);
        let bytes = [frame(b"0123456789"), frame(b"0123456789a"), frame(b"b")].concat();
        let (found, outcome) = read(&mut frames, &bytes, &[1]);
        assert_eq!(found, [b"0123456789"]);
        assert_eq!(outcome, Err(TooLong { len: 11 }));
    }

    #[test]
    fn a_buffer_is_as_large_as_its_sender_made_it() {
        let mut frames = Frames::new(1 << 20);
        assert_eq!(frames.size_bytes(), 0);
        // A length alone reserves nothing.
        let (_, outcome) = read(&mut frames, &(1_u32 << 20).to_be_bytes(), &[4]);
        assert_eq!((outcome, frames.size_bytes()), (Ok(()), MIN_BUFFER));
        let (found, _) = read(&mut frames, &vec![b'x'; 1 << 20], &[usize::MAX]);
        assert_eq!((found.len(), found[0].len()), (1, 1 << 20));
        assert_eq!(frames.size_bytes(), (1 << 20) + HEADER);
        // The start of a frame survives the pause.
        let (_, _) = read(&mut frames, &frame(b"abc")[..6], &[6]);
        frames.rest();
        assert!(frames.size_bytes() < 100);
        let (found, _) = read(&mut frames, b"c", &[1]);
        assert_eq!(found, [b"abc"]);
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_same_frames(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20),
            pieces in prop::collection::vec(1_usize..700, 1..10),
        ) {
            let bytes: Vec<u8> = bodies.iter().flat_map(|body| frame(body)).collect();
            let (found, outcome) = read(&mut Frames::new(300), &bytes, &pieces);
            prop_assert_eq!(found, bodies);
            prop_assert_eq!(outcome, Ok(()));
        }
    }
}
