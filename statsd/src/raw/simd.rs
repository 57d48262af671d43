//! Lines to tokens: the separators of 64 bytes at a time, then a line at a time.
//!
//! 1. A line is common when its separators are `:` `|`, or `:` `|` `|` with a sample rate after
//!    the second bar, its value is a plain number and its type one of `c m g ms h d a`. It becomes
//!    a token here. All others are handed to [`Lines::odd`], in order.
//! 2. With AVX2 (asked for at run time) the three masks take six comparisons; elsewhere a loop
//!    over the bytes makes the same masks. What is done with the masks is one code.
//! 3. `bytes` has [`MARGIN`] readable bytes beyond the packet's end, so blocks may reach over it.
//! 4. The unsafe code is the loads of one block, whose size its type proves, and the calls of
//!    functions that need AVX2, behind its detection.

use std::ops::Range;

use crate::metric::Op;
use crate::number;
use crate::parse;
use crate::table::Table;
use crate::token::{MARGIN, Seeds, Token};

/// Who takes lines as they are read.
pub(crate) trait Lines {
    /// A common line.
    fn token(&mut self, token: Token);
    /// A line that is not empty and not common.
    fn odd(&mut self, bytes: &[u8], line: Range<usize>);
}

/// Which instructions are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
}

impl Path {
    /// The fastest one here.
    pub(crate) fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt")
        {
            return Self::Avx2;
        }
        Self::Scalar
    }

    /// Reads the lines of `bytes[packet]` into `lines`; returns how many were not empty.
    ///
    /// Before and after the packet `bytes` has [`MARGIN`] bytes.
    #[inline]
    pub(crate) fn tokenise(
        self,
        bytes: &[u8],
        packet: Range<usize>,
        seeds: &Seeds,
        longest: usize,
        lines: &mut impl Lines,
    ) -> u64 {
        assert!(
            packet.start >= MARGIN
                && packet.end + MARGIN <= bytes.len()
                && bytes.len() < u32::MAX as usize,
            "a packet has a margin around it"
        );
        match self {
            Self::Scalar => read(scalar_masks, bytes, packet, seeds, longest, lines),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` makes this variant only where the processor has the instructions.
            Self::Avx2 => unsafe { avx2::tokenise(bytes, packet, seeds, longest, lines) },
        }
    }

    /// [`Table::apply`] with these instructions.
    #[inline]
    pub(crate) fn apply(self, table: &mut Table, tokens: &[Token], received: &[u8], side: &[u8]) {
        match self {
            Self::Scalar => table.apply(tokens, received, side),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { avx2::apply(table, tokens, received, side) },
        }
    }
}

/// Where the separators of a block are, one bit a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Masks {
    feed: u64,
    colon: u64,
    bar: u64,
}

fn scalar_masks(block: &[u8; 64]) -> Masks {
    let mut masks = Masks {
        feed: 0,
        colon: 0,
        bar: 0,
    };
    for (at, byte) in block.iter().enumerate() {
        masks.feed |= u64::from(*byte == b'\n') << at;
        masks.colon |= u64::from(*byte == b':') << at;
        masks.bar |= u64::from(*byte == b'|') << at;
    }
    masks
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::*;
    use std::arch::x86_64::{
        __m256i, _mm256_cmpeq_epi8, _mm256_loadu_si256, _mm256_movemask_epi8, _mm256_set1_epi8,
    };

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub(super) fn tokenise(
        bytes: &[u8],
        packet: Range<usize>,
        seeds: &Seeds,
        longest: usize,
        lines: &mut impl Lines,
    ) -> u64 {
        read(|block| masks(block), bytes, packet, seeds, longest, lines)
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub(super) fn apply(table: &mut Table, tokens: &[Token], received: &[u8], side: &[u8]) {
        table.apply(tokens, received, side);
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    #[inline]
    pub(super) fn masks(block: &[u8; 64]) -> Masks {
        let start = block.as_ptr();
        // SAFETY: both loads, of 32 bytes each, lie in the 64 bytes of the block; they need no
        // alignment.
        let (low, high) = unsafe {
            (
                _mm256_loadu_si256(start.cast::<__m256i>()),
                _mm256_loadu_si256(start.add(32).cast::<__m256i>()),
            )
        };
        Masks {
            feed: equal(low, high, b'\n'),
            colon: equal(low, high, b':'),
            bar: equal(low, high, b'|'),
        }
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    #[inline]
    fn equal(low: __m256i, high: __m256i, byte: u8) -> u64 {
        let byte = _mm256_set1_epi8(byte as i8);
        let low = _mm256_movemask_epi8(_mm256_cmpeq_epi8(low, byte)) as u32;
        let high = _mm256_movemask_epi8(_mm256_cmpeq_epi8(high, byte)) as u32;
        u64::from(low) | u64::from(high) << 32
    }
}

/// The separators of the line being read, up to four.
#[derive(Clone, Copy)]
struct Separators {
    at: [u32; 4],
    count: u32,
    /// One bit each, the last one lowest: 1 for a bar, 0 for a colon.
    bars: u32,
}

const NO_SEPARATORS: Separators = Separators {
    at: [0; 4],
    count: 0,
    bars: 0,
};

#[inline(always)]
fn read(
    masks: impl Fn(&[u8; 64]) -> Masks,
    bytes: &[u8],
    packet: Range<usize>,
    seeds: &Seeds,
    longest: usize,
    lines: &mut impl Lines,
) -> u64 {
    let mut count = 0;
    let mut start = packet.start;
    let mut found = NO_SEPARATORS;
    let mut offset = packet.start;
    while offset < packet.end {
        let Some(block) = bytes[offset..].first_chunk::<64>() else {
            break;
        };
        let Masks { feed, colon, bar } = masks(block);
        let left = packet.end - offset;
        let valid = if left >= 64 {
            u64::MAX
        } else {
            (1 << left) - 1
        };
        let mut all = (feed | colon | bar) & valid;
        while all != 0 {
            let bit = all.trailing_zeros();
            let at = offset + bit as usize;
            all &= all - 1;
            if feed >> bit & 1 != 0 {
                if at > start {
                    count += 1;
                    line(bytes, start..at, &found, seeds, longest, lines);
                }
                start = at + 1;
                found = NO_SEPARATORS;
            } else {
                found.at[(found.count & 3) as usize] = at as u32;
                found.count += 1;
                found.bars = found.bars << 1 | (bar >> bit & 1) as u32;
            }
        }
        offset += 64;
    }
    if start < packet.end {
        count += 1;
        line(bytes, start..packet.end, &found, seeds, longest, lines);
    }
    count
}

#[inline(always)]
fn line(
    bytes: &[u8],
    line: Range<usize>,
    found: &Separators,
    seeds: &Seeds,
    longest: usize,
    lines: &mut impl Lines,
) {
    match common(bytes, &line, found, seeds, longest) {
        Some(token) => lines.token(token),
        None => lines.odd(bytes, line),
    }
}

#[inline(always)]
fn common(
    bytes: &[u8],
    line: &Range<usize>,
    found: &Separators,
    seeds: &Seeds,
    longest: usize,
) -> Option<Token> {
    let colon = found.at[0] as usize;
    let bar = found.at[1] as usize;
    let (end, rate) = match (found.count, found.bars) {
        (2, 0b01) => (line.end, None),
        (3, 0b011) => (found.at[2] as usize, Some(found.at[2] as usize + 1)),
        _ => return None,
    };
    let len = colon - line.start;
    if len == 0 || len > longest {
        return None;
    }
    let letters = bytes.get(bar + 1..bar + 3)?;
    let mut op = match (end - bar - 1, letters[0], letters[1]) {
        (1, b'c' | b'm', _) => Op::Count,
        (2, b'm', b's') | (1, b'h' | b'd', _) => Op::Time,
        (1, b'g', _) => Op::Set,
        (1, b'a', _) => Op::Average,
        _ => return None,
    };
    let digits = bar - colon - 1;
    let word = *bytes.get(bar - 8..bar)?.first_chunk::<8>()?;
    let plain = if digits.wrapping_sub(1) < 8 {
        number::digits(word, digits)
    } else {
        None
    };
    let mut value = match plain {
        Some(value) => value,
        None => signed(&bytes[colon + 1..bar], &mut op)?,
    };
    let mut weight = 1.0;
    if let Some(rate) = rate {
        weight = rated(&bytes[rate..line.end])?;
        if op == Op::Count {
            value *= weight;
            if !value.is_finite() {
                return None;
            }
        }
    }
    Some(Token {
        hash: seeds.hash(bytes, line.start, len, op),
        value,
        weight,
        start: line.start as u32,
        len: len as u16,
        op,
        side: false,
    })
}

/// A number with a sign, a dot, an exponent or many digits.
#[inline(never)]
fn signed(text: &[u8], op: &mut Op) -> Option<f64> {
    let value = match text {
        [b'-', rest @ ..] => match number::short(rest) {
            Some(value) => -value,
            None => number::read(text)?,
        },
        _ => number::read(text)?,
    };
    match op {
        Op::Time if value < 0.0 => None,
        // The sum turns -0 into 0, so that values sort by their bits.
        Op::Time => Some(value + 0.0),
        Op::Set if matches!(text[0], b'+' | b'-') => {
            *op = Op::Add;
            Some(value)
        }
        _ => Some(value),
    }
}

/// The weight that `@RATE` gives.
#[inline(never)]
fn rated(text: &[u8]) -> Option<f64> {
    let [b'@', rate @ ..] = text else {
        return None;
    };
    parse::sample_rate(rate).ok().map(|rate| 1.0 / rate)
}
