//! Numbers as JSON and the other text formats print them.

use whisper::is_absent;

/// Appends a value as JSON: `null` for none and for NaN, `1e9999` for infinity.
#[inline]
pub(crate) fn push_value(out: &mut Vec<u8>, value: f64) {
    if value.is_finite() {
        // Most values are small and have two decimals at the most: those digits are the shortest
        // that read back, since no two decimals of 15 digits are the same float.
        let hundredths = (value.abs() * 100.0 + 0.5) as u64;
        if hundredths as f64 / 100.0 == value.abs() && hundredths < 1_000_000_000_000_000 {
            push_hundredths(out, value.is_sign_negative(), hundredths);
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

/// The digits of all numbers below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

/// Numbers below this and their decimals fit into [`SHORT_TEXT`]. They are written in place, digits at places that are
/// known beforehand: less work than to make a text and copy as much of it as there is.
const SHORT: u64 = 100_000_000;
const SHORT_TEXT: usize = 16;

#[inline]
fn push_hundredths(out: &mut Vec<u8>, negative: bool, hundredths: u64) {
    let (whole, cents) = (hundredths / 100, (hundredths % 100) as usize);
    let decimals = if cents.is_multiple_of(10) { 1 } else { 2 };
    if whole >= SHORT {
        if negative {
            out.push(b'-');
        }
        push_whole(out, whole.cast_signed());
        out.push(b'.');
        out.extend_from_slice(&PAIRS[cents][..decimals]);
        return;
    }
    let begin = out.len();
    out.extend_from_slice(&[b'-'; SHORT_TEXT]);
    let Some(text) = out.last_chunk_mut::<SHORT_TEXT>() else {
        return;
    };
    let mut rest = whole as u32;
    let digits = rest.checked_ilog10().unwrap_or(0) as usize + 1;
    let point = usize::from(negative) + digits;
    text[point] = b'.';
    text[point + 1..point + 3].copy_from_slice(&PAIRS[cents]);
    let mut at = point;
    while rest >= 10 {
        at -= 2;
        text[at..at + 2].copy_from_slice(&PAIRS[(rest % 100) as usize]);
        rest /= 100;
    }
    if digits % 2 == 1 {
        text[at - 1] = b'0' + rest as u8;
    }
    out.truncate(begin + point + 1 + decimals);
}

/// Timestamps one after the other: most differ from the one before in their last digits only.
pub(crate) struct Timestamps {
    /// What is before the last four digits, and what it stands for.
    text: [u8; SHORT_TEXT],
    length: usize,
    leading: i64,
}

impl Timestamps {
    pub(crate) fn new() -> Self {
        Self {
            text: [0; SHORT_TEXT],
            length: 0,
            leading: 0,
        }
    }

    /// Appends a timestamp.
    #[inline]
    pub(crate) fn push(&mut self, out: &mut Vec<u8>, at: i64) {
        let leading = at / 10_000;
        if !(1..SHORT as i64).contains(&leading) {
            return push_whole(out, at);
        }
        if leading != self.leading {
            let mut buffer = itoa::Buffer::new();
            let digits = buffer.format(leading).as_bytes();
            self.text[..digits.len()].copy_from_slice(digits);
            (self.length, self.leading) = (digits.len(), leading);
        }
        let last = (at % 10_000) as usize;
        let ([a, b], [c, d]) = (PAIRS[last / 100], PAIRS[last % 100]);
        let end = out.len() + self.length + 4;
        out.extend_from_slice(&self.text);
        out[end - 4..end].copy_from_slice(&[a, b, c, d]);
        out.truncate(end);
    }
}

/// Appends a whole number.
#[inline]
pub(crate) fn push_whole(out: &mut Vec<u8>, number: i64) {
    let mut buffer = itoa::Buffer::new();
    out.extend_from_slice(buffer.format(number).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = b"x".to_vec();
        push(&mut out);
        String::from_utf8(out).unwrap()[1..].to_owned()
    }

    #[test]
    fn values_are_the_shortest_that_read_back() {
        for (value, expected) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.05, "0.05"),
            (0.29, "0.29"),
            (-1.5, "-1.5"),
            (99.99, "99.99"),
            (100.0, "100.0"),
            (99_999_999.99, "99999999.99"),
            (-99_999_999.99, "-99999999.99"),
            (100_000_000.0, "100000000.0"),
            (123_456_789_012.5, "123456789012.5"),
            (1e13, "10000000000000.0"),
            (1e17, "1e17"),
            (0.125, "0.125"),
            (1e-9, "1e-9"),
            (f64::INFINITY, "1e9999"),
            (f64::NAN, "null"),
        ] {
            assert_eq!(text(|out| push_value(out, value)), expected);
        }
    }

    #[test]
    fn timestamps_are_whole_numbers() {
        let mut timestamps = Timestamps::new();
        for at in [
            -60,
            0,
            1,
            9_999,
            10_000,
            1_699_999_990,
            1_700_000_000,
            1_700_009_999,
            60,
            i64::MAX,
            i64::MIN,
        ] {
            assert_eq!(text(|out| timestamps.push(out, at)), at.to_string());
        }
    }

    proptest! {
        #[test]
        fn two_decimals_read_back(hundredths in -2_000_000_000_000_i64..2_000_000_000_000) {
            let value = hundredths as f64 / 100.0;
            let printed = text(|out| push_value(out, value));
            prop_assert_eq!(printed.parse::<f64>().unwrap().to_bits(), value.to_bits());
            let decimals = printed.split('.').nth(1).unwrap();
            prop_assert!(decimals.len() == 1 || decimals.len() == 2 && !decimals.ends_with('0'), "{}", printed);
        }
    }
}
