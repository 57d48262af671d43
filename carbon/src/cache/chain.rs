//! The waiting points of a series, in a few bytes each.
//!
//! ```text
//! chain: the newest point as it is, and the usual step
//! code:  tokens in chunks, oldest first, read from the end back
//! token: value | time | control
//!   control, bit 7 set:  bits 0-6: so many points before this one have its value, each one step earlier
//!   bits 0-1  value of the point before: 0 the same, 1 an integer, 2 thousandths, 3 bits
//!   bits 2-3  its time: 0 one step earlier, 1 one step and a signed byte, 2 four bytes of difference,
//!             3 as 0, and the bits of the value have their last zeros cut off instead of the first
//!   bits 4-6  bytes of the value, less one (not with value 0)
//! ```
//!
//! 1. Each token leads from a point to the one that arrived before it. So a point is added without reading
//!    the code, and reading begins with the newest.
//! 2. Every value and every order of timestamps comes back as it was, bit by bit: a difference is coded as
//!    an integer or as thousandths only if that is exact.
//! 3. A point that repeats value and step is counted in the chain and takes no bytes ([`Chain::run`]).
//! 4. The step of a chain is the distance of its first two points. No token is older than it.
//! 5. While each point is a step later than the one before, the time of each is known without the code. Of such a
//!    chain a part is read without decoding what is older than it, and nothing if no point is asked for.

use whisper::{Needed, Point, Timestamp};

/// Bytes of code in a chunk: with the link they are 32.
const CODE: usize = 28;
/// Bytes per chunk.
pub(super) const CHUNK_BYTES: usize = 32;
/// The most chunks that a further point takes: a token has 13 bytes at most, and a run one.
pub(super) const MOST_PER_POINT: usize = 1;
/// Chunks allocated together.
const SLAB: usize = 1 << 11;
const NONE: u32 = u32::MAX;

const RUN: u8 = 0x80;
const LONGEST_RUN: u8 = 0x7f;
const INTEGER: u8 = 1;
const THOUSANDTHS: u8 = 2;
const BITS: u8 = 3;
const VALUE: u8 = 3;
const NEAR: u8 = 1 << 2;
const FAR: u8 = 2 << 2;
const TIME: u8 = 3 << 2;
/// In place of [`TIME`]: one step earlier, and the value is coded from its last byte.
const CUT: u8 = 3 << 2;

/// Integers and thousandths are coded up to here: their products and differences are exact.
const SMALL: f64 = (1_u64 << 40) as f64;

#[derive(Clone, Copy, Debug)]
struct Chunk {
    code: [u8; CODE],
    older: u32,
}

const _: () = assert!(size_of::<Chunk>() == CHUNK_BYTES);

const EMPTY_CHUNK: Chunk = Chunk {
    code: [0; CODE],
    older: NONE,
};

/// The chunks of all chains of a shard.
#[derive(Debug)]
pub(super) struct Chunks {
    slabs: Vec<Box<[Chunk; SLAB]>>,
    /// Chunks allocated so far, those in the free list included.
    bump: u32,
    /// The first chunk of the free list, linked as chains are.
    free: u32,
    n_free: u32,
    /// The most chunks in use since none was.
    peak: u32,
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            slabs: Vec::new(),
            bump: 0,
            free: NONE,
            n_free: 0,
            peak: 0,
        }
    }
}

impl Chunks {
    /// How many chunks are in use.
    pub(super) fn in_use(&self) -> usize {
        (self.bump - self.n_free) as usize
    }

    fn get(&self, n: u32) -> &Chunk {
        &self.slabs[n as usize / SLAB][n as usize % SLAB]
    }

    fn get_mut(&mut self, n: u32) -> &mut Chunk {
        &mut self.slabs[n as usize / SLAB][n as usize % SLAB]
    }

    /// Makes room for further chunks. Not inlined: the stack that it needs would be touched with each point.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        self.slabs.push(Box::new([EMPTY_CHUNK; SLAB]));
    }

    /// A chunk that follows `older`.
    fn allocate(&mut self, older: u32) -> u32 {
        let chunk = if self.free == NONE {
            if self.bump as usize == self.slabs.len() * SLAB {
                self.grow();
            }
            self.bump += 1;
            self.bump - 1
        } else {
            let chunk = self.free;
            self.free = self.get(chunk).older;
            self.n_free -= 1;
            chunk
        };
        self.peak = self.peak.max(self.bump - self.n_free);
        self.get_mut(chunk).older = older;
        chunk
    }

    /// Frees the chunks of `chain`. If no chunk is in use any more, chunks are used in order again, and no
    /// more memory is kept than was needed since the last such time.
    pub(super) fn free(&mut self, chain: &Chain) {
        let mut chunk = chain.last;
        while chunk != NONE {
            let free = self.free;
            let older = std::mem::replace(&mut self.get_mut(chunk).older, free);
            self.free = chunk;
            self.n_free += 1;
            chunk = older;
        }
        if self.in_use() == 0 {
            self.free = NONE;
            self.n_free = 0;
            self.bump = 0;
            self.slabs.truncate((self.peak as usize).div_ceil(SLAB));
            self.peak = 0;
        }
    }
}

/// The points of a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    /// The newest point, if there is one.
    value: f64,
    time: u32,
    /// How many points there are.
    pub(super) count: u32,
    /// The last chunk of the code.
    last: u32,
    /// Seconds between points that need no time in the code.
    step: u16,
    /// Points before the newest that have its value, each a step earlier, and are not in the code.
    run: u8,
    /// Bytes in the last chunk; [`UNEVEN`]; the [`Kind`] of `value` in the two uppermost bits.
    tail: u8,
}

const _: () = assert!(size_of::<Chain>() == 24);

/// Of [`Chain::tail`]: a point is not a step later than the one before it.
const UNEVEN: u8 = 1 << 5;
const _: () = assert!(CODE < UNEVEN as usize);

/// A chain without points.
pub(super) const EMPTY: Chain = Chain {
    value: 0.0,
    time: 0,
    count: 0,
    last: NONE,
    step: 0,
    run: 0,
    tail: 0,
};

/// How a value can be coded exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Integer,
    Thousandths,
    Bits,
}

impl Kind {
    fn of(value: f64) -> Self {
        if value.abs() > SMALL {
            return Self::Bits;
        }
        // Compared as bits: -0 is no integer.
        if ((value as i64) as f64).to_bits() == value.to_bits() {
            return Self::Integer;
        }
        match (thousandths(value) as f64 / 1_000.0).to_bits() == value.to_bits() {
            true => Self::Thousandths,
            false => Self::Bits,
        }
    }
}

/// The nearest number of thousandths.
fn thousandths(value: f64) -> i64 {
    (value * 1_000.0 + 0.5_f64.copysign(value)) as i64
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

/// The bytes that `number` has without leading zeros, at least one.
#[inline]
fn bytes_of(number: u64) -> usize {
    8 - (number | 1).leading_zeros() as usize / 8
}

impl Chain {
    fn filled(&self) -> usize {
        usize::from(self.tail & (UNEVEN - 1))
    }

    fn kind(&self) -> Kind {
        match self.tail >> 6 {
            0 => Kind::Integer,
            1 => Kind::Thousandths,
            _ => Kind::Bits,
        }
    }

    fn set_tail(&mut self, filled: usize, kind: Kind) {
        self.tail = filled as u8 | self.tail & UNEVEN | (kind as u8) << 6;
    }

    /// Adds a point.
    #[inline]
    pub(super) fn push(&mut self, chunks: &mut Chunks, at: u32, value: f64) {
        if self.count == 0 {
            // The step of earlier points stays: it is that of the next ones, too.
            (self.last, self.run, self.tail) = (NONE, 0, 0);
            self.set_tail(0, Kind::of(value));
        } else {
            let difference = at.wrapping_sub(self.time);
            if self.count == 1 {
                self.step = u16::try_from(difference).unwrap_or(self.step);
            }
            let repeats = value.to_bits() == self.value.to_bits();
            if repeats && difference == u32::from(self.step) {
                if self.run == LONGEST_RUN {
                    self.end_run(chunks);
                }
                self.run += 1;
            } else {
                self.end_run(chunks);
                self.push_token(chunks, difference, value);
            }
        }
        (self.time, self.value) = (at, value);
        self.count += 1;
    }

    fn end_run(&mut self, chunks: &mut Chunks) {
        if self.run > 0 {
            self.append(chunks, u64::from(RUN | self.run), 1, self.kind());
            self.run = 0;
        }
    }

    /// Appends the token that leads from a new point, with `value` and `difference` seconds later, to the
    /// newest one.
    fn push_token(&mut self, chunks: &mut Chunks, difference: u32, value: f64) {
        let mut control = 0;
        let (mut number, mut len) = (0, 0);
        let off = difference.wrapping_sub(u32::from(self.step)) as i32;
        let kind = Kind::of(value);
        if value.to_bits() != self.value.to_bits() {
            number = match (kind, self.kind()) {
                (Kind::Integer, Kind::Integer) => {
                    control = INTEGER;
                    zigzag(value as i64 - self.value as i64)
                }
                (Kind::Bits, _) | (_, Kind::Bits) => {
                    control = BITS;
                    let bits = value.to_bits() ^ self.value.to_bits();
                    if off == 0 && bits.trailing_zeros() > bits.leading_zeros() {
                        control |= CUT;
                        bits.swap_bytes()
                    } else {
                        bits
                    }
                }
                _ => {
                    control = THOUSANDTHS;
                    zigzag(thousandths(value) - thousandths(self.value))
                }
            };
            len = bytes_of(number);
            control |= (len as u8 - 1) << 4;
        }
        let mut time = (0, 0);
        if off != 0 {
            self.tail |= UNEVEN;
            time = match i8::try_from(off) {
                Ok(off) => {
                    control |= NEAR;
                    (u64::from(off as u8), 1)
                }
                Err(_) => {
                    control |= FAR;
                    (u64::from(difference), 4)
                }
            };
        }
        let (time, time_len) = time;
        let size = len + time_len + 1;
        if size <= 8 {
            let token = number | time << (8 * len) | u64::from(control) << (8 * (size - 1));
            self.append(chunks, token, size, kind);
        } else {
            let end = u128::from(time) | u128::from(control) << (8 * time_len);
            let token = u128::from(number) | end << (8 * len);
            self.append_slowly(chunks, token, size, kind);
        }
    }

    /// Appends a token of `len` bytes, at most eight, to the code; `kind` is that of the newest value.
    #[inline]
    fn append(&mut self, chunks: &mut Chunks, token: u64, len: usize, kind: Kind) {
        let filled = self.filled();
        // A fixed size is copied faster; the bytes beyond are not used yet.
        if self.last != NONE && filled + 8 <= CODE {
            let code = &mut chunks.get_mut(self.last).code;
            code[filled..filled + 8].copy_from_slice(&token.to_le_bytes());
            self.set_tail(filled + len, kind);
        } else {
            self.append_slowly(chunks, u128::from(token), len, kind);
        }
    }

    fn append_slowly(&mut self, chunks: &mut Chunks, token: u128, len: usize, kind: Kind) {
        let mut filled = self.filled();
        let bytes = token.to_le_bytes();
        let mut rest = &bytes[..len];
        while !rest.is_empty() {
            if self.last == NONE || filled == CODE {
                self.last = chunks.allocate(self.last);
                filled = 0;
            }
            let free = &mut chunks.get_mut(self.last).code[filled..];
            let (now, later) = rest.split_at(rest.len().min(free.len()));
            for (place, byte) in free.iter_mut().zip(now) {
                *place = *byte;
            }
            filled += now.len();
            rest = later;
        }
        self.set_tail(filled, kind);
    }

    /// Whether it is known that [`Needed::from`] and [`Needed::until`] hold for these points.
    pub(super) fn is_between(&self, needed: &Needed) -> bool {
        let oldest = i64::from(self.time) - i64::from(self.step) * (i64::from(self.count) - 1);
        let is_even = self.tail & UNEVEN == 0 && (self.step > 0 || self.count == 1);
        self.count == 0
            || is_even && oldest >= i64::from(needed.oldest.0) && self.time <= needed.newest.0
    }

    /// As [`Chain::read`], the points from `from` until before `until`, of a chain that is known to be even
    /// ([`Chain::is_between`]).
    pub(super) fn read_between(
        &self,
        chunks: &Chunks,
        from: Timestamp,
        until: Timestamp,
        into: &mut Vec<Point>,
    ) {
        let step = i64::from(self.step).max(1);
        // How many points are not before a time.
        let since = |time: Timestamp| {
            let later = i64::from(self.time) - i64::from(time.0);
            (later.div_euclid(step) + 1).clamp(0, i64::from(self.count)) as usize
        };
        let (wanted, beyond) = (since(from), since(until));
        if wanted > beyond {
            self.read_last(chunks, wanted, into);
            into.truncate(into.len() - beyond);
        }
    }

    /// Appends the points to `into`, in the order in which they were added.
    pub(super) fn read(&self, chunks: &Chunks, into: &mut Vec<Point>) {
        self.read_last(chunks, self.count as usize, into);
    }

    /// As [`Chain::read`], the newest `wanted` ones.
    fn read_last(&self, chunks: &Chunks, wanted: usize, into: &mut Vec<Point>) {
        if wanted == 0 {
            // The chunks of a chain without points have been freed.
            return;
        }
        let (mut at, mut value) = (self.time, self.value);
        let point = |at: u32, value: f64| Point {
            at: Timestamp(at),
            value,
        };
        let start = into.len();
        into.resize(start + wanted, point(at, value));
        // From the newest back.
        let mut places = into[start..].iter_mut().rev().skip(1);
        let step = u32::from(self.step);
        let mut code = Code {
            chunks,
            chunk: match self.last {
                NONE => &EMPTY_CHUNK,
                last => chunks.get(last),
            },
            filled: self.filled(),
        };
        let mut run = self.run;
        // The thousandths of `value`, if the last token was about these.
        let mut scaled = None;
        loop {
            for place in places.by_ref().take(usize::from(run)) {
                at = at.wrapping_sub(step);
                *place = point(at, value);
            }
            let Some(place) = places.next() else {
                return;
            };
            let control = code.pop();
            if control & RUN != 0 {
                // The first of the run is this place.
                at = at.wrapping_sub(step);
                *place = point(at, value);
                run = (control & LONGEST_RUN) - 1;
                continue;
            }
            run = 0;
            at = at.wrapping_sub(match control & TIME {
                NEAR => step.wrapping_add_signed(i32::from(code.pop() as i8)),
                FAR => code.number(4) as u32,
                _ => step,
            });
            if control & VALUE == THOUSANDTHS {
                let difference = unzigzag(code.number((control >> 4) + 1));
                let older = scaled.unwrap_or_else(|| thousandths(value)) - difference;
                scaled = Some(older);
                value = older as f64 / 1_000.0;
            } else if control & VALUE != 0 {
                let number = code.number((control >> 4) + 1);
                value = older(value, control, number);
                scaled = None;
            }
            *place = point(at, value);
        }
    }
}

/// The value before `value`, to which `number` leads as an integer or as bits.
#[inline]
fn older(value: f64, control: u8, number: u64) -> f64 {
    match control & VALUE {
        INTEGER => (value as i64 - unzigzag(number)) as f64,
        _ if control & TIME == CUT => f64::from_bits(value.to_bits() ^ number.swap_bytes()),
        _ => f64::from_bits(value.to_bits() ^ number),
    }
}

/// Reads code from the end back.
struct Code<'a> {
    chunks: &'a Chunks,
    chunk: &'a Chunk,
    filled: usize,
}

impl Code<'_> {
    #[inline]
    fn pop(&mut self) -> u8 {
        if self.filled == 0 {
            self.chunk = self.chunks.get(self.chunk.older);
            self.filled = CODE;
        }
        self.filled -= 1;
        self.chunk.code[self.filled]
    }

    /// A number of `len` bytes, 1 to 8.
    #[inline]
    fn number(&mut self, len: u8) -> u64 {
        // Mostly eight bytes that end with it are in the same chunk.
        if let Some((_, bytes)) = self.chunk.code[..self.filled].split_last_chunk() {
            self.filled -= usize::from(len);
            return u64::from_le_bytes(*bytes) >> (64 - 8 * u32::from(len));
        }
        (0..len).fold(0, |number, _| number << 8 | u64::from(self.pop()))
    }
}

#[cfg(test)]
mod tests;
