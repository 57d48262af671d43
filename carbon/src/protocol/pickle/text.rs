//! The arguments of opcodes that are text: escaped strings, and numbers of any length.

use super::value::Value;

/// The text of a STRING opcode: a quoted literal of Python 2 with its escapes, its bytes read as UTF-8.
/// `None` if it is not one.
pub(super) fn string(quoted: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    let inner = match quoted {
        [first @ (b'\'' | b'"'), inner @ .., last] if first == last => inner,
        _ => return None,
    };
    let mut rest = inner;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let [escape, after @ ..] = rest else {
            return None;
        };
        rest = after;
        match escape {
            b'\n' => {}
            b'\\' | b'\'' | b'"' => out.push(*escape),
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b't' => out.push(b'\t'),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b'v' => out.push(0x0b),
            b'a' => out.push(0x07),
            b'0'..=b'7' => {
                let mut code = u32::from(escape - b'0');
                for _ in 0..2 {
                    let [digit @ b'0'..=b'7', after @ ..] = rest else {
                        break;
                    };
                    code = code * 8 + u32::from(digit - b'0');
                    rest = after;
                }
                out.push(code as u8);
            }
            b'x' => {
                let (code, after) = hex(rest, 2)?;
                out.push(code as u8);
                rest = after;
            }
            other => out.extend([b'\\', *other]),
        }
    }
    std::str::from_utf8(&out[start..]).ok().map(drop)
}

/// The text of a UNICODE opcode: Latin-1 with `\uXXXX` and `\UXXXXXXXX`. Whether it can be UTF-8,
/// which half of a surrogate pair cannot; `None` if it is malformed.
pub(super) fn unicode(escaped: &[u8], out: &mut Vec<u8>) -> Option<bool> {
    let mut whole = true;
    let mut rest = escaped;
    let mut push = |code: u32| match char::from_u32(code) {
        Some(char) => {
            let mut buffer = [0; 4];
            out.extend_from_slice(char.encode_utf8(&mut buffer).as_bytes());
            Some(())
        }
        None => {
            whole = false;
            (code <= 0x10_ffff).then_some(())
        }
    };
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            push(u32::from(*byte))?;
            continue;
        }
        let [escape, after @ ..] = rest else {
            // Python reads a backslash at the end as an escape that is cut short.
            return None;
        };
        rest = after;
        let digits = match escape {
            b'u' => 4,
            b'U' => 8,
            other => {
                push(u32::from(b'\\'))?;
                push(u32::from(*other))?;
                continue;
            }
        };
        let (code, after) = hex(rest, digits)?;
        push(code)?;
        rest = after;
    }
    Some(whole)
}

/// A number of exactly `digits` hexadecimal digits, and what follows it.
fn hex(text: &[u8], digits: usize) -> Option<(u32, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let mut code = 0;
    for digit in number {
        code = code << 4 | char::from(*digit).to_digit(16)?;
    }
    Some((code, rest))
}

/// Whether `bytes` are UTF-8 but for halves of surrogate pairs, encoded as Python's `surrogatepass`
/// does.
pub(super) fn is_utf8_with_surrogates(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    loop {
        let Err(error) = std::str::from_utf8(rest) else {
            return true;
        };
        rest = match &rest[error.valid_up_to()..] {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, after @ ..] => after,
            _ => return false,
        };
    }
}

/// The argument of an INT opcode; `00` and `01` are booleans.
pub(super) fn integer_or_bool(line: &[u8]) -> Option<Value> {
    match line {
        b"00" => Some(Value::Bool(false)),
        b"01" => Some(Value::Bool(true)),
        _ => integer(line),
    }
}

/// A decimal integer of any length, blanks around it allowed.
pub(super) fn integer(line: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(line).ok()?.trim_ascii();
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match text.parse() {
        Ok(integer) => Some(Value::Int(integer)),
        // Too long for 64 bits: the nearest float.
        Err(_) => text.parse().ok().map(Value::Float),
    }
}

/// An index of the memo.
pub(super) fn index(line: &[u8]) -> Option<usize> {
    std::str::from_utf8(line).ok()?.trim_ascii().parse().ok()
}

/// An integer of any length in two's complement, least byte first.
pub(super) fn long(bytes: &[u8]) -> Value {
    let Some(last) = bytes.last() else {
        return Value::Int(0);
    };
    let fill = if *last >= 0x80 { 0xff } else { 0 };
    // Bytes that only repeat the highest bit say nothing.
    let used = bytes.iter().rposition(|byte| *byte != fill);
    let len = used.map_or(1, |at| at + 1);
    let padded = |from: usize| {
        let mut wide = [fill; 16];
        let taken = &bytes[from..len];
        wide[..taken.len()].copy_from_slice(taken);
        i128::from_le_bytes(wide)
    };
    if len <= 15 {
        let number = padded(0);
        return match i64::try_from(number) {
            Ok(integer) => Value::Int(integer),
            Err(_) => Value::Float(number as f64),
        };
    }
    // The upper 15 bytes hold more than a float does. A lowest bit that stands for all bytes below
    // makes the cast round as if it had seen them.
    let below = len - 15;
    let sticky = bytes[..below].iter().any(|byte| *byte != 0);
    let number = (padded(below) | i128::from(sticky)) as f64;
    let scale = i32::try_from(below * 8).unwrap_or(i32::MAX);
    Value::Float(number * 2_f64.powi(scale))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_of_python_2() {
        let read = |quoted: &str| {
            let mut out = b"before".to_vec();
            string(quoted.as_bytes(), &mut out).map(|()| out.split_off(6))
        };
        for (quoted, expected) in [
            ("'a.b'", Some(&b"a.b"[..])),
            ("\"it's\"", Some(b"it's")),
            (r"'a\tb\x41\101\0'", Some(b"a\tbAA\0")),
            (r"'\xc3\xa4'", Some("ä".as_bytes())),
            (r"'\q\''", Some(br"\q'")),
            (r"'\xff'", None),
            (r"'\xz1'", None),
            (r"'\x1'", None),
            ("'a\\'", None),
            ("'a", None),
            ("'", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(read(quoted).as_deref(), expected, "{quoted}");
        }
    }

    #[test]
    fn escaped_unicode() {
        let read = |escaped: &[u8]| {
            let mut out = Vec::new();
            unicode(escaped, &mut out).map(|whole| (whole, String::from_utf8(out).unwrap()))
        };
        assert_eq!(read(b"k\xe4se.\\u65e5"), Some((true, "käse.日".to_owned())));
        assert_eq!(
            read(b"\\U0001f600\\x\\\\"),
            Some((true, "😀\\x\\\\".to_owned()))
        );
        assert_eq!(read(b"a\\ud800b"), Some((false, "ab".to_owned())));
        assert_eq!(read(b"\\u12"), None);
        assert_eq!(read(b"\\u12g4"), None);
        assert_eq!(read(b"\\U00110000"), None);
        assert_eq!(read(b"\\"), None);
    }

    #[test]
    fn surrogates_are_not_garbage() {
        assert!(is_utf8_with_surrogates(b"a\xed\xb2\x80b"));
        assert!(is_utf8_with_surrogates("ä".as_bytes()));
        assert!(!is_utf8_with_surrogates(b"\xff"));
        assert!(!is_utf8_with_surrogates(b"\xed\xb2\x80\xed\xb2"));
    }

    #[test]
    fn integers_of_any_length() {
        assert_eq!(integer(b" -5 "), Some(Value::Int(-5)));
        let long_text = "9".repeat(30);
        assert_eq!(integer(long_text.as_bytes()), Some(Value::Float(1e30)));
        let infinite = "9".repeat(400);
        assert_eq!(
            integer(infinite.as_bytes()),
            Some(Value::Float(f64::INFINITY))
        );
        for text in ["", "-", "0x10", "1_0", "1.0", "abc", "- 1"] {
            assert_eq!(integer(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(integer_or_bool(b"01"), Some(Value::Bool(true)));
        assert_eq!(integer_or_bool(b"1"), Some(Value::Int(1)));
        assert_eq!(long(b""), Value::Int(0));
        assert_eq!(long(b"\xff"), Value::Int(-1));
        assert_eq!(long(b"\x00\x01"), Value::Int(256));
        assert_eq!(long(&[0xff; 300]), Value::Int(-1));
        let mut huge = vec![0; 200];
        huge.push(1);
        assert_eq!(long(&huge), Value::Float(f64::INFINITY));
        huge.push(0x80);
        assert_eq!(long(&huge), Value::Float(f64::NEG_INFINITY));
    }

    proptest! {
        #[test]
        fn long_integers_round_as_their_decimals(
            number in any::<i128>(),
            zeros in 0_usize..20,
            low in any::<u8>(),
        ) {
            // number * 256^(zeros + 1) + low, compared by way of its decimal digits.
            let mut bytes = vec![low];
            bytes.resize(1 + zeros, 0);
            bytes.extend(number.to_le_bytes());
            let digits = decimal(&bytes);
            let expected: f64 = digits.parse().unwrap();
            match long(&bytes) {
                Value::Int(integer) => prop_assert_eq!(integer.to_string(), digits),
                Value::Float(float) => prop_assert_eq!(float, expected),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    /// The decimal digits of two's complement, by long division.
    fn decimal(bytes: &[u8]) -> String {
        let negative = *bytes.last().unwrap() >= 0x80;
        let mut magnitude = bytes.to_vec();
        if negative {
            let mut carry = true;
            for byte in &mut magnitude {
                let (sum, over) = (!*byte).overflowing_add(u8::from(carry));
                (*byte, carry) = (sum, over);
            }
        }
        let mut digits = Vec::new();
        while magnitude.iter().any(|byte| *byte != 0) {
            let mut remainder = 0_u32;
            for byte in magnitude.iter_mut().rev() {
                let part = remainder << 8 | u32::from(*byte);
                *byte = (part / 10) as u8;
                remainder = part % 10;
            }
            digits.push(char::from(b'0' + remainder as u8));
        }
        if digits.is_empty() {
            return "0".to_owned();
        }
        if negative {
            digits.push('-');
        }
        digits.iter().rev().collect()
    }
}
