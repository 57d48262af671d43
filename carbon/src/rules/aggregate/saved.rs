//! The open intervals of aggregates as records, which a restart reads back.
//!
//! ```text
//! record: u8 kind | fields
//! O  number, length and bytes of the rule's text, length and bytes of the name: an output
//! I  number, start, touched, count, total, how many values, values: an interval as it is now; the
//!    values, which only percentiles keep, are those since the interval's last record
//! E  number, start: an interval that is not open any more
//! C  number, touched, how many ranges, first and last of each: the intervals that are closed
//! G  number: an output that is gone
//! ```
//!
//! Integers are variable-length, seven bits a byte, least first; those that may be negative alternate (0,
//! -1, 1, -2, …). Floats are eight bytes, little-endian. The last record about an interval is valid.

use std::collections::BTreeMap;

use super::buffer::Buffer;

/// The longest text or name of a record that is read back.
const MAX_TEXT: usize = 4 << 20;
/// Times that are read back are this far from 1970 at most, in seconds: far beyond all others, and sums of
/// them do not overflow.
const MAX_TIME: i64 = 1 << 50;
/// As for times: the largest count.
const MAX_COUNT: u64 = 1 << 40;

/// An output that was saved.
#[derive(Debug, Default)]
pub struct Restored {
    /// The text of the rule that made it.
    pub rule: String,
    /// Its name.
    pub name: String,
    /// Its intervals.
    pub buffer: Buffer,
}

/// Outputs by their number.
#[derive(Debug, Default)]
pub struct Saved(BTreeMap<u32, Restored>);

impl Saved {
    /// Applies the records of a frame; those from the first on that cannot be read are left out, and the
    /// result is false.
    pub fn apply(&mut self, body: &[u8]) -> bool {
        let mut reader = Reader(body);
        while !reader.0.is_empty() {
            if self.record(&mut reader).is_none() {
                return false;
            }
        }
        true
    }

    fn record(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let kind = reader.byte()?;
        let number = u32::try_from(reader.unsigned()?).ok()?;
        match kind {
            b'O' => {
                let (rule, name) = (reader.text()?, reader.text()?);
                let buffer = Buffer::default();
                self.0.insert(number, Restored { rule, name, buffer });
            }
            b'I' => {
                let (start, touched) = (reader.time()?, reader.time()?);
                let count = reader.unsigned().filter(|count| *count <= MAX_COUNT)?;
                let total = reader.float()?;
                let n = usize::try_from(reader.unsigned()?).ok()?;
                // Eight bytes each: no length reserves what is not there.
                let values = reader.0.get(..n.checked_mul(8)?)?.chunks_exact(8);
                let added =
                    values.filter_map(|bytes| Some(f64::from_le_bytes(bytes.try_into().ok()?)));
                let buffer = &mut self.0.get_mut(&number)?.buffer;
                buffer.set(start, touched, (count, total), added);
                reader.0 = &reader.0[n * 8..];
            }
            b'E' => {
                let start = reader.time()?;
                self.0.get_mut(&number)?.buffer.forget(start);
            }
            b'C' => {
                let touched = reader.time()?;
                let n = reader.unsigned()?;
                let mut ranges = Vec::new();
                for _ in 0..n {
                    ranges.push((reader.time()?, reader.time()?));
                }
                let buffer = &mut self.0.get_mut(&number)?.buffer;
                buffer.set_closed(touched, ranges);
            }
            b'G' => {
                self.0.remove(&number);
            }
            _ => return None,
        }
        Some(())
    }

    /// What was saved.
    pub fn outputs(self) -> impl Iterator<Item = Restored> {
        self.0.into_values()
    }
}

/// The bytes that have not been read.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.unsigned()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn time(&mut self) -> Option<i64> {
        self.signed()
            .filter(|time| (-MAX_TIME..=MAX_TIME).contains(time))
    }

    fn float(&mut self) -> Option<f64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(f64::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Option<String> {
        let len = usize::try_from(self.unsigned()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len.min(MAX_TEXT))?;
        self.0 = rest;
        (len <= MAX_TEXT).then(|| std::str::from_utf8(text).ok().map(str::to_owned))?
    }
}

#[cfg(test)]
mod tests {
    use super::super::method::Method;
    use super::super::method::Values;
    use super::super::writer::Writer;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn records_that_cannot_be_read_end_the_frame() {
        let mut body = Vec::new();
        let mut writer = Writer {
            body: &mut body,
            number: 300,
        };
        writer.output("o (10) = sum a", "o");
        let mut values = Values::default();
        values.add(Method::Percentile(0.5), -1.5);
        writer.interval(-70, 9, &values, 0);
        writer.closed(9, &[(-200, -100)]);
        for cut in 0..body.len() {
            let mut saved = Saved::default();
            saved.apply(&body[..cut]);
            assert!(saved.outputs().count() <= 1, "{cut}");
        }
        let mut saved = Saved::default();
        assert!(saved.apply(&body));
        // Of an output that is not known; of an unknown kind.
        assert!(!saved.apply(b"E\x01\x00"));
        assert!(!saved.apply(b"X\x01"));
        let one = saved.outputs().next().unwrap();
        assert_eq!((&*one.rule, &*one.name), ("o (10) = sum a", "o"));
        assert_eq!(one.buffer.len(), (1, 1));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            Saved::default().apply(&bytes);
        }

        #[test]
        fn integers_read_back(signed in any::<i64>(), unsigned in any::<u64>()) {
            let mut body = Vec::new();
            let mut writer = Writer { body: &mut body, number: 0 };
            writer.signed(signed);
            writer.unsigned(unsigned);
            let mut reader = Reader(&body);
            prop_assert_eq!(reader.signed(), Some(signed));
            prop_assert_eq!(reader.unsigned(), Some(unsigned));
            prop_assert!(reader.0.is_empty());
        }
    }
}
