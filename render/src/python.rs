//! Numbers as Python prints them: series names, tags, the raw format and the output of whisper's tools
//! are compared as text.

use std::fmt::Write as _;

/// `str(value)` of a float: the shortest digits that read back, `1e+16` and `1e-05` beyond the
/// plain range, always with a point or an exponent.
pub fn float(value: f64) -> String {
    let mut text = String::with_capacity(24);
    push_float(&mut text, value);
    text
}

/// Appends [`float`] to `out`.
pub fn push_float(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("nan");
        return;
    }
    if value.is_infinite() {
        out.push_str(if value > 0.0 { "inf" } else { "-inf" });
        return;
    }
    let size = value.abs();
    if size == 0.0 || (1e-4..1e16).contains(&size) {
        let mut buffer = ryu::Buffer::new();
        let text = buffer.format_finite(value);
        // Ryu turns to exponents earlier than Python does.
        if text.contains('e') {
            let _ = write!(out, "{value:?}");
        } else {
            out.push_str(text);
        }
        return;
    }
    let text = format!("{value:e}");
    push_exponent(out, &text);
}

/// `%g`: six significant digits, trailing zeros dropped.
pub fn general(value: f64) -> String {
    general_to(value, 6)
}

/// `%.3g` and the like: so many significant digits (at least one), trailing zeros dropped.
pub fn general_to(value: f64, digits: usize) -> String {
    let digits = digits.max(1);
    if !value.is_finite() {
        return float(value);
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{value:.0$e}", digits - 1);
    let (shown, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if exponent >= -4 && exponent < digits as i64 {
        let decimals = usize::try_from(digits as i64 - 1 - exponent).unwrap_or(0);
        trimmed(&format!("{value:.decimals$}"))
    } else {
        let mut out = String::new();
        push_exponent(&mut out, &format!("{}e{exponent}", trimmed(shown)));
        out
    }
}

/// `%.2e` and the like.
pub fn scientific(value: f64, decimals: usize) -> String {
    if !value.is_finite() {
        return float(value);
    }
    let mut out = String::new();
    push_exponent(&mut out, &format!("{value:.decimals$e}"));
    out
}

/// `%.2f` and the like.
pub fn fixed(value: f64, decimals: usize) -> String {
    if value.is_finite() {
        format!("{value:.decimals$}")
    } else {
        float(value)
    }
}

/// Rust's `1e-5` as Python prints it, `1e-05`.
fn push_exponent(out: &mut String, text: &str) {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let plus_minus = if exponent < 0 { '-' } else { '+' };
    let _ = write!(out, "{digits}e{plus_minus}{:02}", exponent.abs());
}

/// `str(value)` of a truth value.
pub fn boolean(value: bool) -> &'static str {
    if value { "True" } else { "False" }
}

/// `math.pow(base, exponent)`; nothing where Python raises: no number (a root of a negative
/// one), or one too large.
pub fn power(base: f64, exponent: f64) -> Option<f64> {
    let result = base.powf(exponent);
    let sound = result.is_finite() || !base.is_finite() || !exponent.is_finite();
    sound.then_some(result)
}

/// `value ** 2`, which is not always `value * value`: Python asks the C library's `pow`, and that
/// is off by a last digit once in a thousand times.
pub fn square(value: f64) -> f64 {
    // A constant exponent would become a multiplication.
    value.powf(std::hint::black_box(2.0))
}

/// Shorter lists are sorted by Python with one insertion sort: [`sort_run`].
pub const RUN: usize = 64;

/// `list.sort()` of fewer than [`RUN`] items, step by step: the run that the list begins with,
/// and each later item put in by halving. It matters for items that are neither above nor below
/// others, such as NaNs: they stand where Python leaves them.
pub fn sort_run<T>(list: &mut [T], below: impl Fn(&T, &T) -> bool) {
    let n = list.len();
    let mut run = n.min(2);
    if n > 1 && below(&list[1], &list[0]) {
        while run < n && below(&list[run], &list[run - 1]) {
            run += 1;
        }
        list[..run].reverse();
    } else {
        while run < n && !below(&list[run], &list[run - 1]) {
            run += 1;
        }
    }
    for next in run..n {
        let (mut left, mut right) = (0, next);
        while left < right {
            let middle = left + (right - left) / 2;
            if below(&list[next], &list[middle]) {
                right = middle;
            } else {
                left = middle + 1;
            }
        }
        list[left..=next].rotate_right(1);
    }
}

/// `sorted(values)`. From [`RUN`] values on NaNs go last.
pub fn sort(values: &mut [f64]) {
    if !values.iter().any(|value| value.is_nan()) {
        // Equal values are alike, but for -0 and 0, and zeros keep their order.
        values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    } else if values.len() < RUN {
        sort_run(values, |a, b| a < b);
    } else {
        values.sort_by(|a, b| {
            a.partial_cmp(b)
                .unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
        });
    }
}

/// `round(value, digits)`: to so many decimals (tens, hundreds, … if negative), correct for the
/// very number that `value` holds, to the even digit where it lies exactly in the middle.
pub fn round(value: f64, digits: i64) -> f64 {
    if !value.is_finite() || value == 0.0 {
        return value;
    }
    match digits {
        // Doubles have no more digits than that on either side of the point.
        324.. => value,
        ..=-309 => 0.0 * value,
        0.. => round_decimals(value, digits as usize),
        _ => round_tens(value, digits.unsigned_abs() as usize),
    }
}

fn round_decimals(value: f64, digits: usize) -> f64 {
    const EXACT: f64 = (1_u64 << 52) as f64;
    if digits <= 15 {
        // The nearest double to a quotient of two exact whole numbers is what printing and
        // reading back would give, as long as it is clear which way to round.
        let scale = 10_f64.powi(digits as i32);
        let scaled = value * scale;
        if scaled.abs() < EXACT / 1024.0 {
            let distance = (scaled - scaled.trunc()).abs();
            if (distance - 0.5).abs() > 1e-3 {
                return (scaled.round() / scale).copysign(value);
            }
        }
    }
    format!("{value:.digits$}").parse().unwrap_or(value)
}

fn round_tens(value: f64, zeros: usize) -> f64 {
    let whole = format!("{:.0}", value.abs().trunc());
    let Some(cut) = whole.len().checked_sub(zeros) else {
        return 0.0 * value;
    };
    let (kept, dropped) = whole.split_at(cut);
    let half = format!("5{}", "0".repeat(zeros.saturating_sub(1)));
    let more = value.fract() != 0.0;
    let odd = kept
        .bytes()
        .last()
        .is_some_and(|digit| (digit - b'0') % 2 == 1);
    let up = match dropped.cmp(half.as_str()) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => more || odd,
        std::cmp::Ordering::Greater => true,
    };
    let mut digits: Vec<u8> = std::iter::once(b'0').chain(kept.bytes()).collect();
    if up {
        for digit in digits.iter_mut().rev() {
            if *digit == b'9' {
                *digit = b'0';
            } else {
                *digit += 1;
                break;
            }
        }
    }
    let digits: String = digits.into_iter().map(char::from).collect();
    let rounded: f64 = format!("{digits}{}", "0".repeat(zeros))
        .parse()
        .unwrap_or(0.0);
    rounded.copysign(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_spelled_as_python_does() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (5.0, "5.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e16, "1.5e+16"),
            (123456789012345680.0, "1.2345678901234568e+17"),
            (1e-4, "0.0001"),
            (0.00012345, "0.00012345"),
            (1e-5, "1e-05"),
            (1.25e-7, "1.25e-07"),
            (f64::NAN, "nan"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (1e300, "1e+300"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn general_is_percent_g() {
        for (value, text) in [
            (2.0, "2"),
            (0.5, "0.5"),
            (1234567.0, "1.23457e+06"),
            (100000.0, "100000"),
            (999999.5, "1e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (7.654321987, "7.65432"),
            (-2.5, "-2.5"),
            (f64::INFINITY, "inf"),
            (0.0, "0"),
        ] {
            assert_eq!(general(value), text);
        }
    }

    #[test]
    fn rounding_goes_to_the_even_digit_of_the_exact_number() {
        for (value, digits, rounded) in [
            (0.5, 0, 0.0),
            (1.5, 0, 2.0),
            (-2.5, 0, -2.0),
            (2.675, 2, 2.67),
            (1.005, 2, 1.0),
            (0.125, 2, 0.12),
            (41.465, 1, 41.5),
            (1e22, 2, 1e22),
            (123456.789, -2, 123500.0),
            (25.0, -1, 20.0),
            (35.0, -1, 40.0),
            (25.1, -1, 30.0),
            (50.0, -2, 0.0),
            (51.0, -2, 100.0),
            (99.0, -1, 100.0),
            (4.0, -3, 0.0),
            (1.23e20, -19, 1.2e20),
            (5e-324, 400, 5e-324),
            (5e-324, i64::MAX, 5e-324),
            (7.0, i64::MIN, 0.0),
            (f64::INFINITY, 1, f64::INFINITY),
            (0.0000005, 6, 0.0),
            (0.0000015, 6, 0.000002),
            (1234567.1234565, 6, 1234567.123457),
        ] {
            assert_eq!(round(value, digits), rounded, "{value} {digits}");
        }
        assert!(round(f64::NAN, 2).is_nan());
        assert!(round(-0.4, 0).is_sign_negative());
    }

    #[test]
    fn powers_that_are_no_numbers_are_nothing() {
        assert_eq!(power(2.0, 3.0), Some(8.0));
        assert_eq!(power(-8.0, 1.0 / 3.0), None);
        assert_eq!(power(0.0, -1.0), None);
        assert_eq!(power(1e300, 2.0), None);
        assert_eq!(power(f64::INFINITY, 2.0), Some(f64::INFINITY));
    }

    #[test]
    fn squares_are_the_c_librarys() {
        assert_eq!(square(89.731), 8051.652360999999);
        assert_eq!(square(f64::NEG_INFINITY), f64::INFINITY);
    }

    #[test]
    fn nans_are_sorted_to_where_python_leaves_them() {
        let inf = f64::INFINITY;
        let mut values = [3.5, 1.0, inf, 2.0, f64::NAN, -inf].repeat(2);
        sort(&mut values);
        let shown: Vec<String> = values.iter().map(|&value| float(value)).collect();
        assert_eq!(
            shown.join(" "),
            "-inf -inf 1.0 1.0 2.0 2.0 3.5 inf nan 3.5 inf nan"
        );
        let mut falling = [5.0, 4.0, f64::NAN, 3.0, 2.0, 1.0];
        sort(&mut falling);
        assert_eq!(falling[..5], [1.0, 2.0, 3.0, 4.0, 5.0]);
        let mut first = [2.0, f64::NAN, 1.0];
        sort(&mut first);
        assert_eq!([first[0], first[2]], [2.0, 1.0]);
    }

    proptest::proptest! {
        /// The quick way gives what printing and reading back gives.
        #[test]
        fn rounding_equals_printing(value in proptest::num::f64::NORMAL, digits in 0_usize..12) {
            let printed: f64 = format!("{value:.digits$}").parse().unwrap();
            proptest::prop_assert_eq!(round(value, digits as i64), printed);
        }

        #[test]
        fn rounding_of_small_numbers_equals_printing(
            thousandths in -100_000_000_i64..100_000_000,
            digits in 0_usize..7,
        ) {
            let value = thousandths as f64 / 1000.0;
            let printed: f64 = format!("{value:.digits$}").parse().unwrap();
            proptest::prop_assert_eq!(round(value, digits as i64), printed);
        }
    }
}
