//! Numbers as Python spells them: series names, tags and the raw format are compared as text.

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
    if !value.is_finite() {
        return float(value);
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{value:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(5 - exponent).unwrap_or(0);
        trimmed(&format!("{value:.decimals$}"))
    } else {
        let mut out = String::new();
        push_exponent(&mut out, &format!("{}e{exponent}", trimmed(digits)));
        out
    }
}

/// Rust's `1e-5` in Python's spelling, `1e-05`.
fn push_exponent(out: &mut String, text: &str) {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    let _ = write!(out, "{digits}e{sign}{:02}", exponent.abs());
}

/// `str(value)` of a truth value.
pub fn boolean(value: bool) -> &'static str {
    if value { "True" } else { "False" }
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
}
