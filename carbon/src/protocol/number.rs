//! Numbers as clients print them, read as Python's `float()` reads text.

use whisper::Timestamp;

use super::resolver::At;
use crate::datapoint::PointTime;

/// The longest text that is read as a number. Every double, written out to its last digit, has less than
/// 1,100 characters; a frame may refer to one long text many times.
pub(super) const MAX_TEXT: usize = 2_000;

/// The finite number that `text` is: decimal, with an optional plus or minus, fraction and exponent, with
/// single underscores between digits (`1_000`), with spaces around it, in the digits of any script, as
/// Python takes them. `None` for all other text, NaN and infinities and text of more
/// than [`MAX_TEXT`] bytes included.
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

/// The timestamp that ten digits are, which all are from 2001 to 2106.
#[inline]
pub(super) fn ten_digits(text: [u8; 10]) -> Option<At> {
    let [first @ .., tens, ones] = text;
    let first = u64::from_le_bytes(first);
    // Of a digit the upper half is 3, and it is still 3 with 6 added to the lower half. A sum that carries into
    // the next byte has another upper half itself.
    const UPPER: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    const DIGITS: u64 = 0x3030_3030_3030_3030;
    let sum = first.wrapping_add(0x0606_0606_0606_0606);
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    if first & UPPER != DIGITS || sum & UPPER != DIGITS || tens > 9 || ones > 9 {
        return None;
    }
    // Neighbours are joined: digits to numbers below 100, these to numbers below 10,000, and these.
    let pairs = (first & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(10 << 8 | 1) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(100 << 16 | 1) >> 16;
    let eight = (fours & 0x0000_ffff_0000_ffff).wrapping_mul(10_000 << 32 | 1) >> 32;
    let seconds = eight * 100 + u64::from(tens) * 10 + u64::from(ones);
    PointTime::new(Timestamp(u32::try_from(seconds).ok()?)).map(At::Time)
}

/// A number of up to fifteen digits without an exponent.
#[inline]
pub(super) fn short(text: &[u8]) -> Option<f64> {
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
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            mantissa = mantissa * 10 + u64::from(digit);
        } else if *byte == b'.' && point.is_none() {
            point = Some(at);
        } else {
            return None;
        }
    }
    let count = digits.len() - usize::from(point.is_some());
    if !(1..=15).contains(&count) {
        return None;
    }
    let value = match point {
        None => mantissa as f64,
        Some(at) => mantissa as f64 / POWERS[digits.len() - 1 - at],
    };
    Some(if negative { -value } else { value })
}

#[cold]
fn general(text: &[u8]) -> Option<f64> {
    if text.len() > MAX_TEXT {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?.trim_matches(is_space);
    let ascii = in_ascii_digits(text);
    let text = ascii.as_deref().unwrap_or(text);
    let value: f64 = match text.contains('_') {
        false => text.parse().ok()?,
        true => without_underscores(text)?.parse().ok()?,
    };
    value.is_finite().then_some(value)
}

/// Whether `c` is a space to Python's `str.strip()`.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The zeros of all scripts whose digits are decimal (Unicode 14, as CPython 3.11 has it) but ASCII's,
/// in order; each is followed by its other nine digits.
const ZEROS: [u32; 65] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
    0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50,
    0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650,
    0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50,
    0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// `text` with ASCII's digits in place of those of other scripts; `None` if it is ASCII.
fn in_ascii_digits(text: &str) -> Option<String> {
    let digit = |c: char| {
        let code = u32::from(c);
        let below = ZEROS.partition_point(|zero| *zero <= code).checked_sub(1);
        let value = below.map(|at| code - ZEROS[at]).filter(|value| *value < 10);
        value.and_then(|value| char::from_digit(value, 10))
    };
    let ascii = |c: char| digit(c).unwrap_or(c);
    (!text.is_ascii()).then(|| text.chars().map(ascii).collect())
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

    #[test]
    fn no_text_of_any_length_is_a_number() {
        let with_spaces = |bytes: usize| format!("{}1", " ".repeat(bytes - 1)).into_bytes();
        assert_eq!(finite(&with_spaces(MAX_TEXT)), Some(1.0));
        assert_eq!(finite(&with_spaces(MAX_TEXT + 1)), None);
        let smallest = format!("{:.1074}", f64::from_bits(1));
        assert_eq!(finite(smallest.as_bytes()), Some(f64::from_bits(1)));
        let most_digits = format!("-{:.1074}", f64::from_bits((1 << 52) - 1));
        assert!(most_digits.len() < 1_100);
        assert!(finite(most_digits.as_bytes()).is_some());
    }

    #[test]
    fn digits_of_all_scripts_are_digits_and_spaces_around_are_left_out() {
        for (text, value) in [
            ("\u{661}\u{662}", Some(12.0)),
            ("-\u{ff11}.\u{1d7d7}e\u{0968}", Some(-190.0)),
            ("1\u{669}_\u{1fbf9}", Some(199.0)),
            ("\u{a0}1.5\u{2003}\x1f", Some(1.5)),
            (" 12.5 ", Some(12.5)),
            ("\u{65f}", None),
            ("\u{66a}", None),
            ("\u{b2}", None),
            ("\u{4e00}", None),
            ("1 2", None),
            ("\u{2003}", None),
        ] {
            assert_eq!(finite(text.as_bytes()), value, "{text:?}");
        }
        assert!(ZEROS.is_sorted());
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
