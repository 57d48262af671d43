//! `name,YYYY-MM-DD HH:MM:SS,value` in the time zone of the request, lines ending in CR LF.

use std::fmt::Write as _;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use whisper::is_absent;

use crate::python;
use crate::series::{OddName, Series};

/// Series as CSV.
pub fn write(all: &[Series], zone: &TimeZone) -> Vec<u8> {
    let n_points: usize = all.iter().map(|series| series.values.len()).sum();
    let mut out = String::with_capacity(n_points * 48);
    for series in all {
        // No name is nothing, as no value is.
        let name = match series.odd_name() {
            Some(OddName::Nothing) => String::new(),
            _ => quoted(&series.name),
        };
        for (index, &value) in series.values.iter().enumerate() {
            out.push_str(&name);
            out.push(',');
            if let Ok(moment) = Timestamp::from_second(series.time_of(index)) {
                let moment = zone.to_datetime(moment);
                let (date, time) = (moment.date(), moment.time());
                let _ = write!(out, "{date} {time}");
            }
            out.push(',');
            if !is_absent(value) {
                python::push_float(&mut out, value);
            }
            out.push_str("\r\n");
        }
    }
    out.into_bytes()
}

/// In quotes where it must be.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tests::sample;

    #[test]
    fn lines_are_those_of_excel() {
        let text = String::from_utf8(write(&sample(), &TimeZone::UTC)).unwrap();
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
        let text = String::from_utf8(write(&[series], &TimeZone::UTC)).unwrap();
        assert_eq!(text, ",1970-01-01 00:00:00,1.0\r\n");
    }
}
