//! Numbers as clients print them, read as Python's `float()` reads ASCII text.

use whisper::Timestamp;

use super::resolver::At;
use crate::datapoint::PointTime;

/// The finite number that `text` is: decimal, with an optional plus or minus, fraction and exponent, and with
/// single underscores between digits (`1_000`), as Python takes them. `None` for all other text, NaN
/// and infinities included.
#[inline]
pub fn finite(text: &[u8]) -> Option<f64> {
    match short(text) {
        Some(value) => Some(value),
        None => general(text),
    }
}

/// The timestamp that `text` is: seconds, -1 or `N` for the time of receipt.
#[inline]
pub fn timestamp(text: &[u8]) -> Option<At> {
    if text.len() <= 10 && !text.is_empty() && text.iter().all(u8::is_ascii_digit) {
        let seconds = text
            .iter()
            .fold(0_u64, |n, digit| n * 10 + u64::from(digit - b'0'));
        let seconds = Timestamp(u32::try_from(seconds).ok()?);
        return PointTime::new(seconds).map(At::Time);
    }
    if text == b"N" {
        return Some(At::Now);
    }
    At::seconds(finite(text)?)
}

/// A number of up to fifteen digits without an exponent.
#[inline]
fn short(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    // Up to fifteen digits are exact in a double, and so is their division by a power of ten.
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    let mut mantissa = 0_u64;
    let mut point = None;
    for (at, byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => mantissa = mantissa * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(at),
            _ => return None,
        }
    }
    let count = digits.len() - usize::from(point.is_some());
    if !(1..=15).contains(&count) {
        return None;
    }
    let fraction = point.map_or(0, |at| digits.len() - 1 - at);
    let value = mantissa as f64 / POWERS[fraction];
    Some(if negative { -value } else { value })
}

#[cold]
fn general(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let value: f64 = match text.contains('_') {
        false => text.parse().ok()?,
        true => without_underscores(text)?.parse().ok()?,
    };
    value.is_finite().then_some(value)
}

/// `text` without its underscores, each of which must stand between two digits.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |at: Option<usize>| {
        let byte = at.and_then(|at| bytes.get(at));
        byte.is_some_and(u8::is_ascii_digit)
    };
    let mut underscores = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'_');
    underscores
        .all(|(at, _)| digit(at.checked_sub(1)) && digit(Some(at + 1)))
        .then(|| text.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn underscores_stand_between_digits() {
        for (text, value) in [
            ("1_000", Some(1_000.0)),
            ("1_0.0_1", Some(10.01)),
            ("-1_0e1_0", Some(-1e11)),
            ("1__0", None),
            ("_1", None),
            ("1_", None),
            ("1_.0", None),
            ("1._0", None),
            ("1e_5", None),
            ("_", None),
        ] {
            assert_eq!(finite(text.as_bytes()), value, "{text}");
        }
        assert_eq!(timestamp(b"1_700_000_000"), At::seconds(1_700_000_000.0));
    }

    proptest! {
        #[test]
        fn numbers_are_those_of_the_library(
            text in "[+-]?[0-9]{0,18}(\\.[0-9]{0,18})?(e[+-]?[0-9]{1,2})?",
        ) {
            let expected = text.parse::<f64>().ok().filter(|value| value.is_finite());
            prop_assert_eq!(finite(text.as_bytes()), expected);
        }
    }
}
