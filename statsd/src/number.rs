//! Numbers as text: read exactly, printed as ECMAScript prints them.
//!
//! 1. Reading is correctly rounded. Up to 15 digits with at most 15 decimals take one division of
//!    two integers that a double holds exactly, which IEEE 754 rounds correctly; all else goes
//!    through the standard library.
//! 2. Only finite numbers come out. The grammar is the reference's (JavaScript's `Number()`)
//!    without `Infinity` and without blank text, which it takes for 0.
//! 3. Printing is ECMAScript's `Number::toString`: shortest digits that read back, plain from
//!    1e-6 to below 1e21.

const POWERS: [f64; 16] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
];

/// Reads what a metric's value may be: surrounding blanks, decimal notation with an optional
/// exponent, or `0x`, `0b` and `0o` integers.
pub(crate) fn read(text: &[u8]) -> Option<f64> {
    let text = trim(text);
    match short(text) {
        None => slow(text),
        number => number,
    }
}

/// Reads a decimal number without blanks and prefixes.
pub(crate) fn decimal(text: &[u8]) -> Option<f64> {
    match short(text) {
        None => general(text),
        number => number,
    }
}

/// Whether JavaScript takes `letter` for white space.
pub(crate) fn is_blank(letter: char) -> bool {
    (letter.is_whitespace() && letter != '\u{85}') || letter == '\u{feff}'
}

/// `text` without blanks around it, Unicode's included.
pub(crate) fn trim(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c);
    let start = text.iter().position(|byte| !blank(byte));
    let end = text.iter().rposition(|byte| !blank(byte));
    match (start, end) {
        (Some(start), Some(end)) if text[start].is_ascii() && text[end].is_ascii() => {
            &text[start..=end]
        }
        (Some(_), Some(_)) => trim_unicode(text),
        _ => &[],
    }
}

#[cold]
fn trim_unicode(text: &[u8]) -> &[u8] {
    match std::str::from_utf8(text) {
        Ok(text) => text.trim_matches(is_blank).as_bytes(),
        Err(_) => text,
    }
}

/// Digits with at most one dot among them, 15 digits at most.
#[inline]
pub(crate) fn short(text: &[u8]) -> Option<f64> {
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    let mut digits = 0_u64;
    let mut dot = None;
    for (at, byte) in text.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            digits = digits * 10 + u64::from(digit);
        } else if *byte == b'.' && dot.is_none() {
            dot = Some(at);
        } else {
            return None;
        }
    }
    match dot {
        None if text.len() < 16 => Some(digits as f64),
        Some(dot) if text.len() > 1 => Some(digits as f64 / POWERS[text.len() - 1 - dot]),
        _ => None,
    }
}

/// The integer that the `len` digits below `end` make; `len` is 1 to 8 and the eight bytes below
/// `end` can be read. `None` if one of them is not a digit.
///
/// Eight digits are checked and summed as one word: pairs, then fours, then all.
#[inline(always)]
pub(crate) fn digits(word: [u8; 8], len: usize) -> Option<f64> {
    // The first digit is in the lowest byte; what lies before the number is shifted out and
    // leaves zeros of weight nothing.
    let word = u64::from_le_bytes(word);
    let keep = 64 - 8 * len as u32;
    let zeros = 0x3030_3030_3030_3030_u64;
    let digits = ((word ^ zeros) >> keep) << keep;
    // A byte above 9 sets its high nibble, itself or after adding 6.
    if (digits | digits.wrapping_add(0x0606_0606_0606_0606)) & 0xf0f0_f0f0_f0f0_f0f0 != 0 {
        return None;
    }
    let pairs = digits.wrapping_mul(10).wrapping_add(digits >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = pairs.wrapping_mul(100).wrapping_add(pairs >> 16) & 0x0000_ffff_0000_ffff;
    let all = fours.wrapping_mul(10_000).wrapping_add(fours >> 32) & 0xffff_ffff;
    Some(all as u32 as f64)
}

#[cold]
fn slow(text: &[u8]) -> Option<f64> {
    if let [b'0', kind, rest @ ..] = text {
        let radix = match kind {
            b'x' | b'X' => 16,
            b'b' | b'B' => 2,
            b'o' | b'O' => 8,
            _ => return general(text),
        };
        return whole(rest, radix);
    }
    general(text)
}

/// An integer of any length, correctly rounded; `radix` is a power of two.
fn whole(digits: &[u8], radix: u32) -> Option<f64> {
    if digits.is_empty() {
        return None;
    }
    let bits = radix.trailing_zeros();
    let (mut mantissa, mut beyond) = (0_u128, 0_i32);
    for digit in digits {
        let digit = char::from(*digit).to_digit(radix)?;
        if mantissa >> (128 - bits) == 0 {
            mantissa = mantissa << bits | u128::from(digit);
        } else {
            // A double keeps 53 bits: of what follows it only counts whether it is 0.
            mantissa |= u128::from(digit != 0);
            beyond = beyond.saturating_add(bits as i32);
        }
    }
    let number = mantissa as f64 * 2_f64.powi(beyond.min(1_024));
    number.is_finite().then_some(number)
}

#[cold]
fn general(text: &[u8]) -> Option<f64> {
    let plain = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E');
    if !text.iter().all(plain) {
        return None;
    }
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

/// Appends `number` as ECMAScript prints it.
pub(crate) fn print(number: f64, out: &mut Vec<u8>) {
    // Most values are small integers: counts, and times in whole milliseconds.
    if number.abs() < 4_294_967_296.0 && number == f64::from(number.abs() as u32) {
        let mut left = number as u32;
        let mut text = [0_u8; 10];
        let mut at = text.len();
        loop {
            at -= 1;
            text[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        out.extend_from_slice(&text[at..]);
    } else {
        out.extend_from_slice(ryu_js::Buffer::new().format(number).as_bytes());
    }
}

/// `number` as ECMAScript prints it.
pub(crate) fn text(number: f64) -> String {
    ryu_js::Buffer::new().format(number).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_grammar_is_the_references_but_finite_and_not_blank() {
        for (text, number) in [
            ("1", 1.0),
            ("-3", -3.0),
            ("+4", 4.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E-2", 0.01),
            (" 7\t", 7.0),
            ("0x10", 16.0),
            ("0b101", 5.0),
            ("0o17", 15.0),
            ("0b1111111111111111", 65_535.0),
            ("0x1fffffffffffffffff", 590_295_810_358_705_700_000.0),
            ("0x20000000000001", 9_007_199_254_740_992.0),
            ("0x20000000000003", 9_007_199_254_740_996.0),
            (
                "0x100000000000008000000000000000000000",
                1.393_796_574_908_164e42,
            ),
            (
                "0x100000000000008000000000000000000001",
                1.393_796_574_908_164_3e42,
            ),
            ("\u{a0}7", 7.0),
            ("7\u{2003}\r", 7.0),
            ("\u{feff}-1 ", -1.0),
            ("0.1", 0.1),
            ("123456789012345678", 123_456_789_012_345_680.0),
            ("0.000000000000001", 1e-15),
            ("99999999", 99_999_999.0),
        ] {
            assert_eq!(read(text.as_bytes()), Some(number), "{text}");
        }
        for text in [
            "",
            " ",
            ".",
            "1,5",
            "--5",
            "NaN",
            "nan",
            "inf",
            "Infinity",
            "-Infinity",
            "5ms",
            "1e",
            "e5",
            "1e400",
            "0x",
            "0x+1",
            "0b2",
            "0x_1",
            "7\u{85}",
            "-0x10",
            "1.2.3",
            "1 2",
            "\u{661}",
        ] {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn printing_is_ecmascripts() {
        for (number, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (1.0, "1"),
            (-1.0, "-1"),
            (4294967295.0, "4294967295"),
            (4294967296.0, "4294967296"),
            (0.1, "0.1"),
            (1e21, "1e+21"),
            (1e20, "100000000000000000000"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (9.00900900900901, "9.00900900900901"),
        ] {
            let mut out = Vec::new();
            print(number, &mut out);
            assert_eq!(out, expected.as_bytes());
            assert_eq!(text(number), expected);
        }
    }

    proptest! {
        #[test]
        fn fast_reading_equals_the_standard_library(text in "[0-9]{0,17}(\\.[0-9]{0,17})?") {
            let expected = text.parse::<f64>().ok();
            prop_assert_eq!(read(text.as_bytes()), expected);
            prop_assert_eq!(decimal(text.as_bytes()), expected);
        }

        #[test]
        fn words_of_digits_equal_the_standard_library(before in "[ -~]{8}", text in "[ -~]{1,8}") {
            let whole = format!("{before}{text}");
            let word = whole.as_bytes()[whole.len() - 8..].try_into().unwrap();
            let expected = text
                .bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| text.parse::<f64>().unwrap());
            prop_assert_eq!(digits(word, text.len()), expected);
        }

        #[test]
        fn digits_are_read(text in "[0-9]{1,8}") {
            let whole = format!("abcdefgh{text}");
            let word = whole.as_bytes()[whole.len() - 8..].try_into().unwrap();
            prop_assert_eq!(digits(word, text.len()), text.parse::<f64>().ok());
        }

        #[test]
        fn printed_numbers_read_back(number in any::<f64>()) {
            prop_assume!(number.is_finite());
            let mut out = Vec::new();
            print(number, &mut out);
            prop_assert_eq!(decimal(&out), Some(number));
        }
    }
}
