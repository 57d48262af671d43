//! `[{"target": …, "datapoints": [{"x": seconds, "y": value}, …]}, …]`

use std::ops::Range;

use super::{Document, Layout, push_text, push_value, push_whole, text_room, with_commas};
use crate::series::Series;

/// Series as Rickshaw reads them.
pub fn document(all: Vec<Series>) -> Document {
    Document::new(all, Rickshaw)
}

#[derive(Debug)]
struct Rickshaw;

impl Layout for Rickshaw {
    fn n_rows(&self, all: &[Series], part: usize) -> usize {
        let series = &all[part];
        let steps = series.end.saturating_sub(series.start);
        let (whole, more) = (steps / series.step, steps % series.step);
        let before_end = usize::try_from(whole + i64::from(more > 0)).unwrap_or(0);
        series.values.len().min(before_end)
    }

    fn head_room(&self, all: &[Series], part: usize) -> usize {
        text_room(&all[part].name) + 64
    }

    fn row_room(&self, _: &[Series], _: usize) -> usize {
        64
    }

    fn row_usual(&self, _: &[Series], _: usize) -> usize {
        30
    }

    fn row_least(&self, _: &[Series], _: usize) -> usize {
        14
    }

    fn begin(&self, out: &mut Vec<u8>) {
        out.push(b'[');
    }

    fn head(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        if part > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"target\":");
        push_text(out, &all[part].name);
        out.extend_from_slice(b",\"datapoints\":[");
    }

    fn rows(
        &self,
        all: &[Series],
        part: usize,
        rows: Range<usize>,
        first: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        let series = &all[part];
        with_commas(rows, first, out, |index, out| {
            out.extend_from_slice(b"{\"x\":");
            push_whole(out, series.time_of(index));
            out.extend_from_slice(b",\"y\":");
            push_value(out, series.values[index]);
            out.push(b'}');
        })
    }

    fn tail(&self, _: &[Series], _: usize, out: &mut Vec<u8>) {
        out.extend_from_slice(b"]}");
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.push(b']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::{sample, text};

    #[test]
    fn points_are_objects() {
        let parsed: serde_json::Value = serde_json::from_str(&text(&document(sample()))).unwrap();
        assert_eq!(parsed[0]["target"], "a,\"b\"");
        assert_eq!(
            parsed[0]["datapoints"][1],
            serde_json::json!({"x": 120, "y": null})
        );
    }
}
