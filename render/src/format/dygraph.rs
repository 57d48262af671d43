//! `{"labels": ["Time", …], "data": [[milliseconds, value, …], …]}`: rows by the timestamps of the
//! first series.

use std::ops::Range;

use super::{Document, Layout, push_text, push_value, push_whole, text_room, with_commas};
use crate::series::Series;
use whisper::ABSENT;

/// Series as Dygraphs reads them. A series shorter than the first is absent at the end.
pub fn document(all: Vec<Series>) -> Document {
    Document::new(all, Dygraph)
}

/// A part without rows for each label, then one with all rows.
#[derive(Debug)]
struct Dygraph;

impl Layout for Dygraph {
    fn n_parts(&self, all: &[Series]) -> usize {
        all.len() + 1
    }

    fn n_rows(&self, all: &[Series], part: usize) -> usize {
        match all.first() {
            Some(first) if part == all.len() => {
                let steps = first.end.saturating_sub(first.start);
                let (whole, more) = (steps / first.step, steps % first.step);
                usize::try_from(whole + i64::from(more > 0)).unwrap_or(0)
            }
            _ => 0,
        }
    }

    fn head_room(&self, all: &[Series], part: usize) -> usize {
        all.get(part).map_or(0, |series| text_room(&series.name)) + 16
    }

    fn row_room(&self, all: &[Series], _: usize) -> usize {
        28 * all.len() + 28
    }

    fn row_usual(&self, all: &[Series], _: usize) -> usize {
        9 * all.len() + 17
    }

    fn row_least(&self, all: &[Series], _: usize) -> usize {
        4 * all.len() + 3
    }

    fn begin(&self, out: &mut Vec<u8>) {
        out.push(b'{');
    }

    fn head(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        if all.is_empty() {
            return;
        }
        if part == 0 {
            out.extend_from_slice(b"\"labels\":[\"Time\"");
        }
        match all.get(part) {
            Some(series) => {
                out.push(b',');
                push_text(out, &series.name);
            }
            None => out.extend_from_slice(b"],\"data\":["),
        }
    }

    fn rows(
        &self,
        all: &[Series],
        _: usize,
        rows: Range<usize>,
        first: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        with_commas(rows, first, out, |index, out| {
            out.push(b'[');
            let at = all.first().map_or(0, |series| series.time_of(index));
            push_whole(out, at.saturating_mul(1000));
            for series in all {
                out.push(b',');
                push_value(out, series.values.get(index).copied().unwrap_or(ABSENT));
            }
            out.push(b']');
        })
    }

    fn tail(&self, all: &[Series], part: usize, out: &mut Vec<u8>) {
        if part == all.len() && !all.is_empty() {
            out.push(b']');
        }
    }

    fn end(&self, out: &mut Vec<u8>) {
        out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::{sample, text};

    #[test]
    fn rows_follow_the_first_series() {
        let mut all = sample();
        all.push(Series::new("short", 60, 120, 60, vec![7.0].into()));
        let parsed: serde_json::Value = serde_json::from_str(&text(&document(all))).unwrap();
        assert_eq!(
            parsed["labels"],
            serde_json::json!(["Time", "a,\"b\"", "short"])
        );
        let rows =
            serde_json::json!([[60000, 1.0, 7.0], [120000, null, null], [180000, 2.5, null]]);
        assert_eq!(parsed["data"], rows);
        assert_eq!(text(&document(Vec::new())), "{}");
    }
}
