//! `name,YYYY-MM-DD HH:MM:SS,value` in the time zone of the request, lines ending in CR LF.

use std::borrow::Cow;
use std::io::Write as _;
use std::ops::Range;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use whisper::is_absent;

use super::{Document, Layout};
use crate::python;
use crate::series::{OddName, Series};

/// Series as CSV.
pub fn document(all: Vec<Series>, zone: &TimeZone) -> Document {
    Document::new(all, Csv { zone: zone.clone() })
}

#[derive(Debug)]
struct Csv {
    zone: TimeZone,
}

impl Layout for Csv {
    fn head_room(&self, _: &[Series], _: usize) -> usize {
        0
    }

    fn row_room(&self, all: &[Series], part: usize) -> usize {
        2 * all[part].name.len() + 96
    }

    fn row_usual(&self, all: &[Series], part: usize) -> usize {
        all[part].name.len() + 32
    }

    fn row_least(&self, all: &[Series], part: usize) -> usize {
        shown_name(&all[part]).len() + 4
    }

    fn rows(
        &self,
        all: &[Series],
        part: usize,
        rows: Range<usize>,
        _: bool,
        out: &mut Vec<u8>,
    ) -> bool {
        let series = &all[part];
        let name = quoted(shown_name(series));
        let mut number = String::new();
        for index in rows {
            let value = series.values[index];
            out.extend_from_slice(name.as_bytes());
            out.push(b',');
            if let Ok(at) = Timestamp::from_second(series.time_of(index)) {
                let local = self.zone.to_datetime(at);
                let (date, time) = (local.date(), local.time());
                // Writing to a vector cannot fail.
                let _ = write!(out, "{date} {time}");
            }
            out.push(b',');
            if !is_absent(value) {
                number.clear();
                python::push_float(&mut number, value);
                out.extend_from_slice(number.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
        false
    }
}

/// No name is nothing, as no value is.
fn shown_name(series: &Series) -> &str {
    match series.odd_name() {
        Some(OddName::Nothing) => "",
        _ => &series.name,
    }
}

/// In quotes where it must be.
fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\"")).into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::{sample, text};

    #[test]
    fn lines_are_those_of_excel() {
        let text = text(&document(sample(), &TimeZone::UTC));
        assert_eq!(
            text,
            "\"a,\"\"b\"\"\",1970-01-01 00:01:00,1.0\r\n\
             \"a,\"\"b\"\"\",1970-01-01 00:02:00,\r\n\
             \"a,\"\"b\"\"\",1970-01-01 00:03:00,2.5\r\n"
        );
    }

    #[test]
    fn a_line_without_a_label_has_no_name() {
        let mut series = Series::new("None", 0, 60, 60, vec![1.0].into());
        series.odd_name = Some(OddName::Nothing);
        let text = text(&document(vec![series], &TimeZone::UTC));
        assert_eq!(text, ",1970-01-01 00:00:00,1.0\r\n");
    }
}
