//! Lines of the common shape, ready to be looked up; and the hash that looks names up.
//!
//! A batch of lines is taken apart first and applied afterwards, so that the table's memory is
//! under way while other lines are still being read.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use crate::kind::Kind;
use crate::metric::Sample;

/// Bytes that must be readable before and after the bytes of a token's name.
pub(crate) const MARGIN: usize = 64;

/// Bytes of a name that are hashed and compared at once.
pub(crate) const INLINE: usize = 40;

/// One sample whose name is still in the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Token {
    pub(crate) hash: u64,
    pub(crate) value: f64,
    pub(crate) weight: f64,
    /// Where the name starts in its bytes.
    pub(crate) start: u32,
    /// How long it is.
    pub(crate) len: u16,
    pub(crate) kind: Kind,
    flags: u8,
}

/// The name is in the side buffer rather than in the received bytes.
const SIDE: u8 = 1;
/// [`Sample::is_relative`].
const RELATIVE: u8 = 2;

impl Token {
    /// The token of `sample`, whose name has these bytes and this hash.
    #[inline(always)]
    pub(crate) fn new(hash: u64, start: usize, len: usize, kind: Kind, sample: Sample) -> Self {
        Self {
            hash,
            value: sample.value,
            weight: sample.weight,
            start: start as u32,
            len: len as u16,
            kind,
            flags: if sample.is_relative { RELATIVE } else { 0 },
        }
    }

    /// The same with its name in the side buffer.
    pub(crate) fn aside(self) -> Self {
        Self {
            flags: self.flags | SIDE,
            ..self
        }
    }

    #[inline(always)]
    pub(crate) fn is_aside(&self) -> bool {
        self.flags & SIDE != 0
    }

    #[inline(always)]
    pub(crate) fn sample(&self) -> Sample {
        Sample {
            value: self.value,
            weight: self.weight,
            is_relative: self.flags & RELATIVE != 0,
        }
    }
}

/// A line that has no token of its own, between the tokens of others.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OddLine {
    /// How many tokens were made before it.
    pub(crate) after: usize,
    /// Where it is in the received bytes.
    pub(crate) line: Range<usize>,
}

/// The lines of a few packets in order: tokens, and what has to be parsed completely.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    pub(crate) common: Vec<Token>,
    pub(crate) odd: Vec<OddLine>,
}

/// All ones for the bytes of a name of that length, as words of its first [`INLINE`] bytes.
static KEEP: [[u64; 5]; INLINE + 1] = {
    let mut keep = [[0; 5]; INLINE + 1];
    let mut len = 0;
    while len <= INLINE {
        let mut byte = 0;
        while byte < len {
            keep[len][byte / 8] |= 0xff << (byte % 8 * 8);
            byte += 1;
        }
        len += 1;
    }
    keep
};

/// The first bytes of the name that starts at `start`, as words, zero beyond `len`.
///
/// At least [`INLINE`] bytes must follow `start` in `bytes`, or the name counts as zeros.
#[inline(always)]
pub(crate) fn words(bytes: &[u8], start: usize, len: usize) -> [u64; 5] {
    let keep = &KEEP[len.min(INLINE)];
    let Some(window) = bytes.get(start..start + INLINE) else {
        return [0; 5];
    };
    let (window, _) = window.as_chunks::<8>();
    [
        u64::from_le_bytes(window[0]) & keep[0],
        u64::from_le_bytes(window[1]) & keep[1],
        u64::from_le_bytes(window[2]) & keep[2],
        u64::from_le_bytes(window[3]) & keep[3],
        u64::from_le_bytes(window[4]) & keep[4],
    ]
}

/// The secrets of the hash, different in each process, so that no sender can choose names that
/// collide.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seeds([u64; 6]);

impl Seeds {
    pub(crate) fn random() -> Self {
        let state = RandomState::new();
        Self(std::array::from_fn(|index| state.hash_one(index) | 1))
    }

    /// The hash of `len` bytes from `start`, of which [`MARGIN`] more must be there.
    ///
    /// Three independent products over the first 40 bytes, which is all of most names; the rest
    /// of longer ones is chained.
    #[inline(always)]
    pub(crate) fn hash(&self, bytes: &[u8], start: usize, len: usize, kind: Kind) -> u64 {
        let Self(secret) = self;
        let word = words(bytes, start, len);
        let tail = (len as u64) << 8 | kind as u64;
        let hash = fold(word[0] ^ secret[0], word[1] ^ secret[1])
            ^ fold(word[2] ^ secret[2], word[3] ^ secret[3])
            ^ fold(word[4] ^ secret[4], tail ^ secret[5]);
        if len <= INLINE {
            hash
        } else {
            self.long(hash, bytes, start + INLINE, len - INLINE)
        }
    }

    #[inline(never)]
    fn long(&self, mut hash: u64, bytes: &[u8], mut start: usize, mut len: usize) -> u64 {
        let Self(secret) = self;
        while len > 0 {
            let word = words(bytes, start, len);
            hash = fold(hash ^ word[0], word[1] ^ secret[1])
                ^ fold(word[2] ^ secret[2], word[3] ^ secret[3])
                ^ fold(word[4] ^ secret[4], secret[5]);
            start += INLINE;
            len = len.saturating_sub(INLINE);
        }
        hash
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}
