//! Points as destinations read them.

use serde::{Deserialize, Serialize};

use crate::protocol::pickle::write;

/// What a destination speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A line a point, for carbon's LINE_RECEIVER_PORT.
    #[default]
    Line,
    /// Framed pickles of up to 500 points, for carbon's PICKLE_RECEIVER_PORT.
    Pickle,
}

/// Points in a pickle, as in carbon's relay (MAX_DATAPOINTS_PER_MESSAGE).
const POINTS: usize = 500;
/// Integers of this size and smaller are exact, and are written without a fraction.
const EXACT: f64 = (1_u64 << 53) as f64;

/// Appends `name value timestamp` and a line feed. `value` is finite.
#[inline]
pub(super) fn line(out: &mut Vec<u8>, name: &str, value: f64, timestamp: u32) {
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    if value.abs() <= EXACT && value.trunc() == value && (value != 0.0 || value.is_sign_positive())
    {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    }
    out.push(b' ');
    out.extend_from_slice(itoa::Buffer::new().format(timestamp).as_bytes());
    out.push(b'\n');
}

/// The lines of [`line()`] as framed pickles.
pub(super) fn pickles(lines: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(lines.len() * 3 / 2);
    let mut points = lines
        .split(|byte| *byte == b'\n')
        .filter_map(read)
        .peekable();
    while points.peek().is_some() {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        write::start(&mut out);
        out.extend_from_slice(b"](");
        for (name, value, timestamp) in points.by_ref().take(POINTS) {
            write::text(&mut out, name);
            write::integer(&mut out, timestamp);
            out.push(b'G');
            out.extend_from_slice(&value.to_be_bytes());
            // Two pairs: (name, (timestamp, value)).
            out.extend_from_slice(b"\x86\x86");
        }
        out.push(b'e');
        write::stop(&mut out);
        let len = (out.len() - start - 4) as u32;
        out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    }
    out
}

/// Name, value and timestamp of a line.
fn read(line: &[u8]) -> Option<(&str, f64, u32)> {
    let line = std::str::from_utf8(line).ok()?;
    let (rest, timestamp) = line.rsplit_once(' ')?;
    let (name, value) = rest.rsplit_once(' ')?;
    Some((name, value.parse().ok()?, timestamp.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lines_read_back(name in "[a-z .;=ä]{1,20}", value in any::<f64>(), whole in any::<i32>(), at in 1_u32..) {
            prop_assume!(value.is_finite());
            for value in [value, f64::from(whole), f64::from(whole) / 100.0, -0.0] {
                let mut out = Vec::new();
                line(&mut out, &name, value, at);
                let (got, read_value, read_at) = read(out.strip_suffix(b"\n").unwrap()).unwrap();
                prop_assert_eq!(got, &name);
                prop_assert_eq!(read_value.to_bits(), value.to_bits());
                prop_assert_eq!(read_at, at);
            }
        }
    }

    #[test]
    fn values_are_short() {
        let shown = |value| {
            let mut out = Vec::new();
            line(&mut out, "a", value, 7);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(shown(1.0), "a 1 7\n");
        assert_eq!(shown(0.1), "a 0.1 7\n");
        assert_eq!(shown(-3.0), "a -3 7\n");
        assert_eq!(shown(1e300), "a 1e300 7\n");
    }
}
