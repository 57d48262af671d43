//! Python pickles, protocol 2, written by hand and never read.

use std::ops::Range;

use whisper::is_absent;

use super::{Document, Layout};
use crate::series::Series;

/// Series as graphite-web exchanges them: a list of dicts.
pub fn document(all: Vec<Series>) -> Document {
    Document::new(all, Dicts)
}

#[derive(Debug)]
struct Dicts;

impl Layout for Dicts {
    fn n_rows(&self, all: &[Series], part: usize) -> usize {
        all[part].values.len()
    }

    fn head_room(&self, all: &[Series], part: usize) -> usize {
        let series = &all[part];
        let after = series.path_expression.len() + series.consolidation_name().len();
        series.name.len().max(after) + 192
    }

    fn row_room(&self, _: &[Series], _: usize) -> usize {
        9
    }

    fn row_usual(&self, _: &[Series], _: usize) -> usize {
        9
    }

    fn row_least(&self, _: &[Series], _: usize) -> usize {
        1
    }

    fn begin(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(PROTOCOL);
        out.extend_from_slice(LIST);
    }

    fn head(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        let series = &all[part];
        out.extend_from_slice(DICT);
        text(out, "name");
        text(out, &series.name);
        for (key, number) in [
            ("start", series.start),
            ("end", series.end),
            ("step", series.step),
        ] {
            text(out, key);
            whole(out, number);
        }
        text(out, "values");
        out.extend_from_slice(LIST);
    }

    fn rows(
        &self,
        all: &[Series],
        part: usize,
        rows: Range<usize>,
        _: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        for &number in &all[part].values[rows] {
            value(out, number);
        }
        false
    }

    fn tail(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        let series = &all[part];
        out.push(END_OF_LIST);
        text(out, "pathExpression");
        text(out, &series.path_expression);
        text(out, "valuesPerPoint");
        whole(out, 1);
        text(out, "consolidationFunc");
        text(out, series.consolidation_name());
        text(out, "xFilesFactor");
        value(out, series.x_files_factor);
        out.push(END_OF_DICT);
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.push(END_OF_LIST);
        out.push(STOP);
    }
}

const PROTOCOL: &[u8] = b"\x80\x02";
const LIST: &[u8] = b"](";
const END_OF_LIST: u8 = b'e';
const DICT: &[u8] = b"}(";
const END_OF_DICT: u8 = b'u';
const STOP: u8 = b'.';

fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'X');
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn whole(out: &mut Vec<u8>, number: i64) {
    match i32::try_from(number) {
        Ok(small) => {
            out.push(b'J');
            out.extend_from_slice(&small.to_le_bytes());
        }
        Err(_) => {
            out.extend_from_slice(b"\x8a\x08");
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// A float, or `None` for an absent one.
fn value(out: &mut Vec<u8>, value: f64) {
    if is_absent(value) {
        out.push(b'N');
    } else {
        out.push(b'G');
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// A pickle being written.
pub(crate) struct Pickle(Vec<u8>);

impl Pickle {
    pub(crate) fn new(capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity + 16);
        out.extend_from_slice(PROTOCOL);
        Self(out)
    }

    pub(crate) fn list(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.extend_from_slice(LIST);
        items(self);
        self.0.push(END_OF_LIST);
    }

    pub(crate) fn tuple(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.push(b'(');
        items(self);
        self.0.push(b't');
    }

    /// Keys and values alternate.
    pub(crate) fn dict(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.extend_from_slice(DICT);
        items(self);
        self.0.push(END_OF_DICT);
    }

    pub(crate) fn text(&mut self, words: &str) {
        text(&mut self.0, words);
    }

    pub(crate) fn boolean(&mut self, value: bool) {
        self.0.push(if value { b'\x88' } else { b'\x89' });
    }

    pub(crate) fn value(&mut self, number: f64) {
        value(&mut self.0, number);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.push(STOP);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;
    use crate::format::tests::sample;

    #[test]
    fn the_bytes_are_those_of_protocol_two() {
        let bytes = document(sample()).whole(&Budget::unlimited()).unwrap();
        assert!(bytes.starts_with(b"\x80\x02](}(X\x04\0\0\0name"));
        assert!(bytes.ends_with(b"ue."));
        let value = [b"G".as_slice(), &2.5_f64.to_be_bytes()].concat();
        assert!(bytes.windows(9).any(|window| window == value));
    }
}
