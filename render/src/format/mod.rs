//! Series as bytes: a file per format, each with one function from series to a [`Document`].
//!
//! 1. A document is written piece by piece, whole into one [`Buffer`] or a chunk at a time, and
//!    the bytes are the same.
//! 2. How long a piece may get is known before it is written: nothing grows unasked.

pub mod buffer;
pub mod csv;
mod document;
pub mod dygraph;
pub mod json;
pub mod msgpack;
pub mod pickle;
pub mod raw;
pub mod rickshaw;

use whisper::is_absent;

pub use buffer::Buffer;
pub use document::{Document, Position};
pub(crate) use document::{Layout, text_room};

use crate::series::Series;

/// The first moments of `series`, as many as are shown: those not after its end.
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

/// Appends a value as JSON: `null` for none and for NaN, `1e9999` for infinity.
#[inline]
pub(crate) fn push_value(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        // Most values are small and have two decimals at the most: those digits are the shortest
        // that read back, since no two decimals of 15 digits are the same float.
        let hundredths = (value * 100.0).round();
        if hundredths / 100.0 == value && hundredths.abs() < 1e15 {
            push_hundredths(out, value.is_sign_negative(), hundredths.abs() as u64);
        } else {
            let mut buffer = ryu::Buffer::new();
            out.extend_from_slice(buffer.format_finite(value).as_bytes());
        }
    } else if is_absent(value) || value.is_nan() {
        out.extend_from_slice(b"null");
    } else if value > 0.0 {
        out.extend_from_slice(b"1e9999");
    } else {
        out.extend_from_slice(b"-1e9999");
    }
}

#[inline]
fn push_hundredths(out: &mut Vec<u8>, negative: bool, hundredths: u64) {
    if negative {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(hundredths / 100).as_bytes());
    let (tenth, hundredth) = (hundredths / 10 % 10, hundredths % 10);
    out.extend_from_slice(&[b'.', b'0' + tenth as u8]);
    if hundredth > 0 {
        out.push(b'0' + hundredth as u8);
    }
}

/// Appends a whole number.
#[inline]
pub(crate) fn push_whole(out: &mut Vec<u8>, number: i64) {
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(number).as_bytes());
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
