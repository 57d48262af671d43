//! `name,start,end,step|value,None,value`, a line per series.

use std::io::Write as _;
use std::ops::Range;

use whisper::is_absent;

use super::{Document, Layout, with_commas};
use crate::python;
use crate::series::Series;

/// Series as Graphite's raw format.
pub fn document(all: Vec<Series>) -> Document {
    Document::new(all, Raw)
}

#[derive(Debug)]
struct Raw;

impl Layout for Raw {
    fn head_room(&self, all: &[Series], part: usize) -> usize {
        all[part].name.len() + 80
    }

    fn row_room(&self, _: &[Series], _: usize) -> usize {
        32
    }

    fn row_usual(&self, _: &[Series], _: usize) -> usize {
        12
    }

    fn row_least(&self, _: &[Series], _: usize) -> usize {
        3
    }

    fn head(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        let Series {
            name,
            start,
            end,
            step,
            ..
        } = &all[part];
        // Writing to a vector cannot fail.
        let _ = write!(out, "{name},{start},{end},{step}|");
    }

    fn rows(
        &self,
        all: &[Series],
        part: usize,
        rows: Range<usize>,
        first: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        let values = &all[part].values;
        let mut number = String::new();
        with_commas(rows, first, out, |index, out| {
            let value = values[index];
            if is_absent(value) {
                out.extend_from_slice(b"None");
            } else {
                number.clear();
                python::push_float(&mut number, value);
                out.extend_from_slice(number.as_bytes());
            }
        })
    }

    fn tail(&self, _: &[Series], _: usize, out: &mut Vec<u8>) {
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::{sample, text};

    #[test]
    fn values_are_pythons() {
        let text = text(&document(sample()));
        assert_eq!(text, "a,\"b\",60,240,60|1.0,None,2.5\n");
    }
}
