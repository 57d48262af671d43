//! The format of a segment of the journal: frames, each a batch of points as it was taken.
//!
//! ```text
//! segment: "plumbago journal 2\n", frames
//! frame:   0xa5 'J' | u32 length of the body | u32 CRC-32 of the body | body
//! body:    u32 clock of the receiver | items
//! item:    u8 what | …
//!   bits 0-1  series: 0 the one after the last, 1 difference as varint, 2 a name follows
//!             (varint id, varint shared, varint length, bytes; no point), 3 a run (below)
//!   bit 2     time: 0 as the last, 1 difference as varint
//!   bits 3-4  value: 0 as the last, 1 integer as varint, 2 hundredths as varint, 3 eight bytes
//! ```
//!
//! A name shares its first bytes with the name before it in the frame. A run, varint n, is n further points
//! with the last time and value, of the series after the last one.
//!
//! 1. Numbers are little-endian; differences are signed, zigzag-coded. Each body starts from series
//!    -1, the clock, and value 0, so a frame depends on other frames only for names.
//! 2. A series is named once in a segment, before its first point.
//! 3. A frame that is incomplete, or whose checksum is wrong, is skipped. Reading continues at the next
//!    `0xa5 'J'` at which a valid frame begins.
//! 4. Format 1, which is still read, has no runs, and its names share nothing.

use super::envelope;
use crate::datapoint::{Datapoint, PointTime, SeriesId};
use whisper::Timestamp;

/// The first bytes of a segment.
pub(crate) const MAGIC: &[u8] = b"plumbago journal 2\n";
/// Those of a segment of format 1.
const MAGIC_1: &[u8] = b"plumbago journal 1\n";
/// Points per frame at most.
pub(super) const MAX_POINTS: usize = 1 << 16;

const NEXT: u8 = 0;
const SERIES: u8 = 1;
const NAME: u8 = 2;
const RUN: u8 = 3;
const TIME: u8 = 4;
const SAME: u8 = 0;
const INTEGER: u8 = 1 << 3;
const HUNDREDTHS: u8 = 2 << 3;
const BYTES: u8 = 3 << 3;

/// Integers of this size and smaller are stored as such.
const SMALL: f64 = (1_u64 << 40) as f64;

/// Writes one frame to the end of a buffer.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
    series: i64,
    time: u32,
    value: f64,
    /// Points of a run that is not written yet.
    run: u32,
    /// The last name.
    name: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(buffer: &'a mut Vec<u8>, clock: Timestamp) -> Self {
        let start = buffer.len();
        envelope::begin(buffer);
        buffer.extend_from_slice(&clock.0.to_le_bytes());
        Self {
            buffer,
            start,
            series: -1,
            time: clock.0,
            value: 0.0,
            run: 0,
            name: Vec::new(),
        }
    }

    pub(crate) fn name(&mut self, id: SeriesId, name: &[u8]) {
        self.end_run();
        let same = self.name.iter().zip(name).take_while(|(a, b)| a == b);
        let shared = same.count();
        self.buffer.push(NAME);
        varint(self.buffer, u64::from(id.0));
        varint(self.buffer, shared as u64);
        varint(self.buffer, (name.len() - shared) as u64);
        self.buffer.extend_from_slice(&name[shared..]);
        self.name.truncate(shared);
        self.name.extend_from_slice(&name[shared..]);
    }

    /// Writes the run: in the shorter of its two forms.
    fn end_run(&mut self) {
        match std::mem::take(&mut self.run) {
            run @ 0..=2 => self.buffer.extend(std::iter::repeat_n(NEXT, run as usize)),
            run => {
                self.buffer.push(RUN);
                varint(self.buffer, u64::from(run));
            }
        }
    }

    #[inline]
    pub(crate) fn point(&mut self, point: &Datapoint) {
        let Datapoint { series, at, value } = *point;
        let at = at.timestamp();
        let follows = i64::from(series.0) == self.series + 1 && at.0 == self.time;
        if follows && value.to_bits() == self.value.to_bits() {
            self.series += 1;
            self.run += 1;
            return;
        }
        self.end_run();
        // The item is assembled in a small array and copied once.
        let mut item = [0_u8; 32];
        let mut len = 1;
        let mut what = NEXT;
        let series = i64::from(series.0);
        if series != self.series + 1 {
            what |= SERIES;
            len = put_varint(&mut item, len, zigzag(series - self.series));
        }
        self.series = series;
        if at.0 != self.time {
            what |= TIME;
            len = put_varint(
                &mut item,
                len,
                zigzag(i64::from(at.0) - i64::from(self.time)),
            );
            self.time = at.0;
        }
        if value.to_bits() != self.value.to_bits() {
            self.value = value;
            let whole = value as i64;
            // Rounded to the nearest; checked for exactness below.
            let hundredths = (value * 100.0 + 0.5_f64.copysign(value)) as i64;
            if value.abs() <= SMALL && (whole as f64).to_bits() == value.to_bits() {
                what |= INTEGER;
                len = put_varint(&mut item, len, zigzag(whole));
            } else if value.abs() <= SMALL
                && (hundredths as f64 / 100.0).to_bits() == value.to_bits()
            {
                what |= HUNDREDTHS;
                len = put_varint(&mut item, len, zigzag(hundredths));
            } else {
                what |= BYTES;
                item[len..len + 8].copy_from_slice(&value.to_bits().to_le_bytes());
                len += 8;
            }
        }
        item[0] = what;
        // Copying a fixed size and truncating is faster than copying a variable size.
        let end = self.buffer.len() + len;
        self.buffer.extend_from_slice(&item);
        self.buffer.truncate(end);
    }

    pub(crate) fn finish(mut self) {
        self.end_run();
        envelope::seal(self.buffer, self.start);
    }
}

fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

#[inline]
fn put_varint(item: &mut [u8; 32], mut at: usize, mut number: u64) -> usize {
    while number >= 0x80 {
        item[at] = number as u8 | 0x80;
        number >>= 7;
        at += 1;
    }
    item[at] = number as u8;
    at + 1
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// An item of a frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Item<'a> {
    Name(SeriesId, &'a [u8]),
    Point(Datapoint),
}

/// A valid frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) clock: Timestamp,
    items: &'a [u8],
    is_format_1: bool,
}

/// Reads the frames of a segment.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    is_format_1: bool,
    /// Bytes so far that belong to no valid frame.
    pub(crate) unsound: usize,
}

impl<'a> Reader<'a> {
    /// A reader of a whole segment.
    pub(crate) fn new(segment: &'a [u8]) -> Self {
        let old = segment.strip_prefix(MAGIC_1);
        let rest = old.or_else(|| segment.strip_prefix(MAGIC));
        Self {
            rest: rest.unwrap_or_default(),
            is_format_1: old.is_some(),
            unsound: if rest.is_some() { 0 } else { segment.len() },
        }
    }

    /// Bytes that have not been read.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        while !self.rest.is_empty() {
            if let Some((frame, rest)) = frame(self.rest) {
                self.rest = rest;
                return Some(Frame {
                    is_format_1: self.is_format_1,
                    ..frame
                });
            }
            let skip = envelope::skip(self.rest);
            self.unsound += skip;
            self.rest = &self.rest[skip..];
        }
        None
    }
}

fn frame(bytes: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (body, rest) = envelope::open(bytes)?;
    let (clock, items) = body.split_first_chunk::<4>()?;
    let frame = Frame {
        clock: Timestamp(u32::from_le_bytes(*clock)),
        items,
        is_format_1: false,
    };
    Some((frame, rest))
}

impl Frame<'_> {
    /// Calls `each` for every item, up to the first one that is malformed despite the valid checksum.
    pub(crate) fn each(self, mut each: impl FnMut(Item<'_>)) {
        let mut items = Items {
            rest: self.items,
            series: -1,
            time: i64::from(self.clock.0),
            value: 0.0,
            name: Vec::new(),
            is_format_1: self.is_format_1,
        };
        let mut points = 0;
        while let Some((&what, rest)) = items.rest.split_first() {
            items.rest = rest;
            let read = match what & 3 {
                NAME => items.name().map(|id| {
                    each(Item::Name(id, &items.name));
                    0
                }),
                RUN if !self.is_format_1 => items.run(MAX_POINTS - points, &mut each),
                // No frame of ours has more.
                _ if points == MAX_POINTS => None,
                _ => items.point(what).map(|point| {
                    each(Item::Point(point));
                    1
                }),
            };
            match read {
                Some(read) => points += read,
                None => return,
            }
        }
    }
}

/// The items of a frame while they are read. `None` is a malformed one.
struct Items<'a> {
    rest: &'a [u8],
    series: i64,
    time: i64,
    value: f64,
    name: Vec<u8>,
    is_format_1: bool,
}

impl Items<'_> {
    /// Reads a name into `self.name`.
    fn name(&mut self) -> Option<SeriesId> {
        let mut size = || usize::try_from(take_varint(&mut self.rest)?).ok();
        let id = SeriesId(u32::try_from(size()?).ok()?);
        let shared = if self.is_format_1 { 0 } else { size()? };
        let len = size()?;
        let (name, more) = self.rest.split_at_checked(len)?;
        self.name.get(..shared)?;
        self.name.truncate(shared);
        self.name.extend_from_slice(name);
        self.rest = more;
        Some(id)
    }

    /// Reads a run of `most` points at most, and returns how many it has.
    fn run(&mut self, most: usize, each: &mut impl FnMut(Item<'_>)) -> Option<usize> {
        let count = usize::try_from(take_varint(&mut self.rest)?).ok()?;
        if count > most {
            return None;
        }
        for _ in 0..count {
            self.series = self.series.checked_add(1)?;
            each(Item::Point(self.last()?));
        }
        Some(count)
    }

    fn point(&mut self, what: u8) -> Option<Datapoint> {
        let rest = &mut self.rest;
        self.series = self.series.checked_add(match what & 3 {
            SERIES => unzigzag(take_varint(rest)?),
            _ => 1,
        })?;
        if what & TIME != 0 {
            self.time = self.time.checked_add(unzigzag(take_varint(rest)?))?;
        }
        match what & BYTES {
            SAME => {}
            INTEGER => self.value = unzigzag(take_varint(rest)?) as f64,
            HUNDREDTHS => self.value = unzigzag(take_varint(rest)?) as f64 / 100.0,
            _ => {
                let (bytes, more) = rest.split_first_chunk::<8>()?;
                *rest = more;
                self.value = f64::from_bits(u64::from_le_bytes(*bytes));
            }
        }
        self.last()
    }

    /// A point of the last series, time and value.
    fn last(&self) -> Option<Datapoint> {
        Some(Datapoint {
            series: SeriesId(u32::try_from(self.series).ok()?),
            at: PointTime::new(Timestamp(u32::try_from(self.time).ok()?))?,
            value: self.value,
        })
    }
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, more) = rest.split_first()?;
        *rest = more;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLOCK: Timestamp = Timestamp(1_700_000_000);

    fn point(series: u32, at: u32, value: f64) -> Datapoint {
        Datapoint {
            series: SeriesId(series),
            at: PointTime::new(Timestamp(at)).unwrap(),
            value,
        }
    }

    /// Three frames, and where each ends.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let mut bytes = MAGIC.to_vec();
        let mut ends = Vec::new();
        for n in 0..3_u32 {
            let mut writer = Writer::new(&mut bytes, CLOCK);
            writer.name(SeriesId(n), b"some.name");
            writer.point(&point(n, CLOCK.0 - 10, f64::from(n) / 3.0));
            writer.point(&point(n + 1, CLOCK.0, 42.5));
            writer.finish();
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn points(bytes: &[u8]) -> Vec<Datapoint> {
        let mut points = Vec::new();
        for frame in Reader::new(bytes) {
            frame.each(|item| match item {
                Item::Point(point) => points.push(point),
                Item::Name(_, name) => assert_eq!(name, b"some.name"),
            });
        }
        points
    }

    #[test]
    fn cut_at_every_byte_the_whole_frames_are_read() {
        let (bytes, ends) = segment();
        let all = points(&bytes);
        assert_eq!(all.len(), 6);
        for cut in 0..bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            assert_eq!(points(&bytes[..cut]), all[..2 * whole], "cut at {cut}");
        }
    }

    #[test]
    fn any_byte_of_a_frame_wrong_costs_that_frame_alone() {
        let (bytes, ends) = segment();
        let all = points(&bytes);
        for at in MAGIC.len()..bytes.len() {
            for flip in [1, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                let hit = ends.iter().filter(|end| **end <= at).count();
                let mut expected = all.clone();
                expected.drain(2 * hit..2 * hit + 2);
                assert_eq!(points(&damaged), expected, "byte {at}");
            }
        }
    }

    #[test]
    fn series_that_repeat_a_value_take_next_to_nothing() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, CLOCK);
        let all: Vec<_> = (0..10_000).map(|id| point(id, CLOCK.0, 0.0)).collect();
        all.iter().for_each(|point| writer.point(point));
        writer.finish();
        assert!(bytes.len() < 32, "{} bytes", bytes.len());
        assert_eq!(points(&[MAGIC, &bytes].concat()), all);
    }

    #[test]
    fn names_share_their_beginning_with_the_one_before() {
        let names = ["a.b.c", "a.b.count", "a.b", "x", "x"];
        let mut bytes = MAGIC.to_vec();
        let mut writer = Writer::new(&mut bytes, CLOCK);
        for (id, name) in names.iter().enumerate() {
            writer.name(SeriesId(id as u32), name.as_bytes());
        }
        writer.finish();
        let mut read = Vec::new();
        for frame in Reader::new(&bytes) {
            frame.each(|item| match item {
                Item::Name(_, name) => read.push(String::from_utf8(name.to_vec()).unwrap()),
                Item::Point(_) => {}
            });
        }
        assert_eq!(read, names);
    }

    #[test]
    fn segments_of_format_1_are_read() {
        let mut bytes = MAGIC_1.to_vec();
        let body = [
            &CLOCK.0.to_le_bytes()[..],
            &[NAME, 5, 9],
            b"some.name",
            // The series 5, a step later, the value 7; the next series, and the one after it with code 3,
            // which format 1 did not write.
            &[SERIES | TIME | INTEGER, 12, 20, 14, NEXT, 3],
        ]
        .concat();
        bytes.extend_from_slice(b"\xa5J");
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        let expected = [5, 6, 7].map(|id| point(id, CLOCK.0 + 10, 7.0));
        assert_eq!(points(&bytes), expected);
    }

    #[test]
    fn a_run_is_no_longer_than_a_frame_may_be() {
        let mut bytes = MAGIC.to_vec();
        let mut writer = Writer::new(&mut bytes, CLOCK);
        writer.point(&point(0, CLOCK.0, 1.0));
        writer.buffer.push(RUN);
        varint(writer.buffer, MAX_POINTS as u64);
        writer.finish();
        assert_eq!(points(&bytes), [point(0, CLOCK.0, 1.0)]);
    }

    #[test]
    fn a_frame_has_no_more_points_than_it_may() {
        let full = |then: &[u8]| {
            let mut bytes = MAGIC.to_vec();
            let mut writer = Writer::new(&mut bytes, CLOCK);
            writer.point(&point(0, CLOCK.0, 1.0));
            writer.buffer.push(RUN);
            varint(writer.buffer, MAX_POINTS as u64 - 1);
            writer.buffer.extend_from_slice(then);
            writer.finish();
            points(&bytes).len()
        };
        for then in [&[][..], &[NEXT], &[NEXT, NEXT], &[RUN, 1], &[RUN, 0, NEXT]] {
            assert_eq!(full(then), MAX_POINTS, "{then:?}");
        }
    }

    #[test]
    fn differences_that_overflow_end_the_frame() {
        for what in [SERIES, TIME] {
            let mut bytes = MAGIC.to_vec();
            let mut writer = Writer::new(&mut bytes, CLOCK);
            writer.point(&point(0, CLOCK.0, 1.0));
            for difference in [i64::MAX, i64::MAX] {
                writer.buffer.push(what);
                varint(writer.buffer, zigzag(difference));
            }
            writer.finish();
            assert_eq!(points(&bytes), [point(0, CLOCK.0, 1.0)]);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(points_in in prop::collection::vec(
            (any::<u32>(), any::<u32>(), prop_oneof![
                any::<f64>(),
                (-100_000_i64..100_000).prop_map(|n| n as f64),
                (-100_000_i64..100_000).prop_map(|n| n as f64 / 100.0),
                Just(-0.0),
                Just(1e300),
            ]),
            0..50,
        )) {
            let points_in: Vec<_> = points_in.iter().map(|(s, t, v)| point(*s, *t, *v)).collect();
            let mut bytes = MAGIC.to_vec();
            let mut writer = Writer::new(&mut bytes, CLOCK);
            for point in &points_in { writer.point(point); }
            writer.finish();
            let read = points(&bytes);
            prop_assert_eq!(read.len(), points_in.len());
            for (a, b) in read.iter().zip(&points_in) {
                prop_assert_eq!((a.series, a.at, a.value.to_bits()), (b.series, b.at, b.value.to_bits()));
            }
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), sound in any::<bool>()) {
            let mut segment = MAGIC.to_vec();
            if sound {
                // A frame whose checksum is right and whose items are anything.
                let start = segment.len();
                let writer = Writer { buffer: &mut segment, start, series: 0, time: 0, value: 0.0, run: 0, name: Vec::new() };
                writer.buffer.extend_from_slice(b"\xa5J");
                writer.buffer.extend_from_slice(&[0; 12]);
                writer.buffer.extend_from_slice(&bytes);
                writer.finish();
            } else {
                segment.extend_from_slice(&bytes);
            }
            for frame in Reader::new(&segment) { frame.each(|_| {}); }
        }
    }
}
