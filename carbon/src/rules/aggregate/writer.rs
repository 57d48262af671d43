//! Writes the records of open intervals; `saved.rs` has their form and reads them.

use super::method::Values;

/// Appends the records of one output.
#[derive(Debug)]
pub(super) struct Writer<'b> {
    pub(super) body: &'b mut Vec<u8>,
    pub(super) number: u32,
}

impl Writer<'_> {
    fn begin(&mut self, kind: u8) {
        self.body.push(kind);
        self.unsigned(u64::from(self.number));
    }

    pub(super) fn unsigned(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.body.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.body.push(value as u8);
    }

    pub(super) fn signed(&mut self, value: i64) {
        self.unsigned((value << 1 ^ value >> 63) as u64);
    }

    fn text(&mut self, text: &str) {
        self.unsigned(text.len() as u64);
        self.body.extend_from_slice(text.as_bytes());
    }

    pub(super) fn output(&mut self, rule: &str, name: &str) {
        self.begin(b'O');
        self.text(rule);
        self.text(name);
    }

    /// An interval; of its kept values those from number `from` on.
    pub(super) fn interval(&mut self, start: i64, touched: i64, values: &Values, from: usize) {
        self.begin(b'I');
        self.signed(start);
        self.signed(touched);
        let (count, total, kept) = values.parts();
        self.unsigned(count);
        self.body.extend_from_slice(&total.to_le_bytes());
        let added = kept.get(from..).unwrap_or(&[]);
        self.unsigned(added.len() as u64);
        for value in added {
            self.body.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn ended(&mut self, start: i64) {
        self.begin(b'E');
        self.signed(start);
    }

    pub(super) fn closed(&mut self, touched: i64, ranges: &[(i64, i64)]) {
        self.begin(b'C');
        self.signed(touched);
        self.unsigned(ranges.len() as u64);
        for (first, last) in ranges {
            self.signed(*first);
            self.signed(*last);
        }
    }

    pub(super) fn gone(&mut self) {
        self.begin(b'G');
    }
}
