//! Lines to tokens: the separators of 64 bytes at a time, then a line at a time.
//!
//! 1. A line is common when its separators are `:` `|`, or `:` `|` `|` with a sample rate after
//!    the second bar, its value is a plain number and its type takes numbers. It becomes a token
//!    here. Of all others the place is noted, in order, for [`parse`].
//! 2. With AVX2 (asked for at run time) the three masks take six comparisons; elsewhere a loop
//!    over the bytes makes the same masks. What is done with the masks is one code.
//! 3. `bytes` has [`MARGIN`] readable bytes beyond the packet's end, so blocks may reach over it.
//! 4. The unsafe code is the loads of one block, whose size its type proves, and the calls of
//!    functions that need AVX2, behind its detection.

use std::ops::Range;

use crate::aggregate::kinds::Letters;
use crate::metric::{Number, Sample};
use crate::number;
use crate::parse;
use crate::token::{MARGIN, OddLine, Seeds, Token, Tokens};

/// How lines are read.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) seeds: Seeds,
    pub(crate) letters: Letters,
    /// Bytes of the longest name.
    pub(crate) longest: usize,
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

    /// Appends the lines of `bytes[packet]` to `tokens`; returns how many were not empty.
    ///
    /// Before and after the packet `bytes` has [`MARGIN`] bytes.
    #[inline]
    pub(crate) fn tokenise(
        self,
        bytes: &[u8],
        packet: Range<usize>,
        reading: &Reading,
        tokens: &mut Tokens,
    ) -> u64 {
        assert!(
            packet.start >= MARGIN
                && packet.end + MARGIN <= bytes.len()
                && bytes.len() < u32::MAX as usize,
            "a packet has a margin around it"
        );
        match self {
            Self::Scalar => read(scalar_masks, bytes, packet, reading, tokens),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `detect` makes this variant only where the processor has the instructions.
            Self::Avx2 => unsafe { avx2::tokenise(bytes, packet, reading, tokens) },
        }
    }

    /// Calls `run`, compiled with these instructions as far as it is inlined.
    #[inline]
    pub(crate) fn run<T>(self, run: impl FnOnce() -> T) -> T {
        match self {
            Self::Scalar => run(),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Self::Avx2 => unsafe { avx2::run(run) },
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
        reading: &Reading,
        tokens: &mut Tokens,
    ) -> u64 {
        read(|block| masks(block), bytes, packet, reading, tokens)
    }

    #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
    pub(super) fn run<T>(run: impl FnOnce() -> T) -> T {
        run()
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
    reading: &Reading,
    tokens: &mut Tokens,
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
        // Separators one after the other: a line feed ends the line, the others are remembered.
        let mut all = (feed | colon | bar) & valid;
        while all != 0 {
            let bit = all.trailing_zeros();
            let at = offset + bit as usize;
            all &= all - 1;
            if feed >> bit & 1 != 0 {
                if at > start {
                    count += 1;
                    line(bytes, start..at, &found, reading, tokens);
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
        line(bytes, start..packet.end, &found, reading, tokens);
    }
    count
}

#[inline(always)]
fn line(
    bytes: &[u8],
    line: Range<usize>,
    found: &Separators,
    reading: &Reading,
    tokens: &mut Tokens,
) {
    match common(bytes, &line, found, reading) {
        Some(token) => tokens.common.push(token),
        None => note_odd(tokens, line),
    }
}

#[inline(never)]
fn note_odd(tokens: &mut Tokens, line: Range<usize>) {
    let after = tokens.common.len();
    tokens.odd.push(OddLine { after, line });
}

#[inline(always)]
fn common(
    bytes: &[u8],
    line: &Range<usize>,
    found: &Separators,
    reading: &Reading,
) -> Option<Token> {
    let colon = found.at[0] as usize;
    let bar = found.at[1] as usize;
    // Two separators are `name:value|type`, three have a field, which must be a rate.
    let (end, rate) = match (found.count, found.bars) {
        (2, 0b01) => (line.end, None),
        (3, 0b011) => (found.at[2] as usize, Some(found.at[2] as usize + 1)),
        _ => return None,
    };
    let len = colon - line.start;
    if len == 0 || len > reading.longest {
        return None;
    }
    // The margin lets all of these reads reach over the packet's ends.
    let letters = *bytes.get(bar + 1..bar + 3)?.first_chunk::<2>()?;
    let kind = reading.letters.of_numbers(letters, end - bar - 1)?;
    let digits = bar - colon - 1;
    let word = *bytes.get(bar - 8..bar)?.first_chunk::<8>()?;
    let plain = if digits.wrapping_sub(1) < 8 {
        number::digits(word, digits)
    } else {
        None
    };
    let sample = match (plain, rate) {
        // Every type takes a few digits as they are.
        (Some(value), None) => Sample {
            value,
            weight: 1.0,
            is_relative: false,
        },
        _ => {
            let weight = match rate {
                Some(rate) => weight(&bytes[rate..line.end])?,
                None => 1.0,
            };
            let number = match plain {
                Some(value) => Number {
                    value,
                    is_signed: false,
                    weight,
                },
                None => written(&bytes[colon + 1..bar], weight)?,
            };
            kind.sample(number).ok()?
        }
    };
    let hash = reading.seeds.hash(bytes, line.start, len, kind);
    Some(Token::new(hash, line.start, len, kind, sample))
}

/// A number with plus or minus, a dot, an exponent or many digits.
#[inline(never)]
fn written(text: &[u8], weight: f64) -> Option<Number> {
    let value = match text {
        [b'-', rest @ ..] => match number::short(rest) {
            Some(value) => -value,
            None => number::read(text)?,
        },
        _ => number::read(text)?,
    };
    Some(Number {
        value,
        is_signed: matches!(text[0], b'+' | b'-'),
        weight,
    })
}

/// The weight that `@RATE` gives.
#[inline(never)]
fn weight(text: &[u8]) -> Option<f64> {
    let [b'@', rate @ ..] = text else {
        return None;
    };
    parse::sample_rate(rate).ok().map(|rate| 1.0 / rate)
}
