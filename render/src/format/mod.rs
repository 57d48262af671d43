//! Series as bytes: a file per format, each with one function from series to a [`Document`], and
//! an entry in [`FORMATS`].
//!
//! 1. A document is written piece by piece, whole into one [`Buffer`] or a chunk at a time, and
//!    the bytes are the same.
//! 2. How long a piece may get is known before it is written: nothing grows unasked.

pub mod buffer;
pub(crate) mod carbonapi;
pub mod csv;
mod document;
pub mod dygraph;
pub mod json;
pub mod msgpack;
mod number;
pub mod pickle;
pub mod raw;
pub mod rickshaw;

use std::fmt;

use jiff::tz::TimeZone;

pub use buffer::Buffer;
pub use document::{Document, Position};
pub(crate) use document::{Layout, text_room, with_commas};

use crate::budget::Budget;
use crate::error::Result;
use crate::series::Series;

pub(crate) use number::{Timestamps, push_value, push_whole};

/// A format of series; pictures are drawn instead.
pub struct Format {
    /// As in `format=`.
    pub name: &'static str,
    /// The content type of an answer.
    pub content_type: &'static str,
    /// Whether it is JSON: `jsonp=` is followed, and a refusal is JSON too.
    pub is_json: bool,
    /// Lays series out.
    pub document: fn(Vec<Series>, &Wanted<'_>, &Budget) -> Result<Document>,
}

/// What a request says about the contents of the document.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// For JSON: how many points, and which.
    pub choice: json::Choice,
    /// For dates in text.
    pub zone: &'a TimeZone,
}

/// Every format of series, by name.
pub static FORMATS: &[Format] = &[
    Format {
        name: "csv",
        content_type: "text/csv",
        is_json: false,
        document: |series, wanted, _| Ok(csv::document(series, wanted.zone)),
    },
    Format {
        name: "dygraph",
        content_type: "application/json",
        is_json: true,
        document: |series, _, _| Ok(dygraph::document(series)),
    },
    Format {
        name: "json",
        content_type: "application/json",
        is_json: true,
        document: |series, wanted, budget| json::document(series, wanted.choice, budget),
    },
    Format {
        name: "msgpack",
        content_type: "application/x-msgpack",
        is_json: false,
        document: |series, _, _| Ok(msgpack::document(series)),
    },
    Format {
        name: "pickle",
        content_type: "application/pickle",
        is_json: false,
        document: |series, _, _| Ok(pickle::document(series)),
    },
    Format {
        name: "raw",
        content_type: "text/plain",
        is_json: false,
        document: |series, _, _| Ok(raw::document(series)),
    },
    Format {
        name: "rickshaw",
        content_type: "application/json",
        is_json: true,
        document: |series, _, _| Ok(rickshaw::document(series)),
    },
];

/// The format of series called `name`.
pub fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The first timestamps of `series`, as many as are shown: those not after its end.
pub(crate) fn shown(series: &Series) -> usize {
    if series.end < series.start {
        return 0;
    }
    let n = (series.end - series.start) / series.step + 1;
    series
        .values
        .len()
        .min(usize::try_from(n).unwrap_or(usize::MAX))
}

/// Appends text as a JSON string.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => {
                out.extend_from_slice(&text.as_bytes()[plain..at]);
                out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
                plain = at + 1;
                continue;
            }
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[plain..at]);
        out.extend_from_slice(escape);
        plain = at + 1;
    }
    out.extend_from_slice(&text.as_bytes()[plain..]);
    out.push(b'"');
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::budget::Budget;
    use proptest::prelude::*;
    use whisper::ABSENT;

    /// Three points, the second absent, in a series with a name that wants quoting.
    pub(crate) fn sample() -> Vec<Series> {
        let values = vec![1.0, ABSENT, 2.5];
        vec![Series::new("a,\"b\"", 60, 240, 60, values.into())]
    }

    /// A document of a few series, whole.
    pub(crate) fn text(document: &Document) -> String {
        let whole = document.whole(&Budget::unlimited()).unwrap();
        String::from_utf8(whole.to_vec()).unwrap()
    }

    proptest! {
        #[test]
        fn text_is_json(text in any::<String>()) {
            let mut out = Vec::new();
            push_text(&mut out, &text);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn values_read_back(value in prop_oneof![
            any::<f64>(),
            (-1_000_000..1_000_000_i32).prop_map(|n| f64::from(n) / 100.0),
            -1e6..1e6_f64,
        ]) {
            let mut out = Vec::new();
            push_value(&mut out, value);
            if value.is_finite() {
                let text = String::from_utf8(out).unwrap();
                prop_assert_eq!(text.parse::<f64>().unwrap(), value);
                prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), value.to_bits());
            }
        }
    }
}
