//! Numbers as Python prints them, for output that must equal that of Python's tools.

use crate::point::present;

/// `repr(value)`: the shortest digits that read back, with an exponent from 1e16 on and below
/// 1e-4.
pub fn repr(value: f64) -> String {
    if !value.is_finite() {
        return special(value);
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = split(&scientific);
    if !(-4..16).contains(&exponent) {
        return format!("{digits}e{}", signed(exponent));
    }
    let fixed = format!("{value}");
    if fixed.contains('.') {
        fixed
    } else {
        fixed + ".0"
    }
}

/// [`repr`] of a value that may be absent, which is `none`.
pub fn repr_or(value: f64, none: &str) -> String {
    present(value).map_or_else(|| none.to_owned(), repr)
}

/// `"%.{precision}g" % value`.
pub fn general(value: f64, precision: usize) -> String {
    if !value.is_finite() {
        return special(value);
    }
    let precision = precision.max(1);
    let scientific = format!("{value:.*e}", precision - 1);
    let (digits, exponent) = split(&scientific);
    if (-4..precision as i32).contains(&exponent) {
        let decimals = (precision as i32 - 1 - exponent) as usize;
        return without_zeroes(&format!("{value:.decimals$}")).to_owned();
    }
    format!("{}e{}", without_zeroes(digits), signed(exponent))
}

/// `"%f" % value`.
pub fn fixed(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.6}")
    } else {
        special(value)
    }
}

/// `json.dumps(value)`, with absent as `null`.
pub fn json(value: f64) -> String {
    match present(value) {
        None => "null".to_owned(),
        Some(value) if value.is_nan() => "NaN".to_owned(),
        Some(f64::INFINITY) => "Infinity".to_owned(),
        Some(f64::NEG_INFINITY) => "-Infinity".to_owned(),
        Some(value) => repr(value),
    }
}

fn special(value: f64) -> String {
    let name = if value.is_nan() {
        "nan"
    } else if value > 0.0 {
        "inf"
    } else {
        "-inf"
    };
    name.to_owned()
}

/// The digits and the exponent of Rust's scientific form.
fn split(scientific: &str) -> (&str, i32) {
    let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    (digits, exponent.parse().unwrap_or(0))
}

/// An exponent with "+" or "-" and at least two digits.
fn signed(exponent: i32) -> String {
    format!(
        "{}{:02}",
        if exponent < 0 { '-' } else { '+' },
        exponent.abs()
    )
}

fn without_zeroes(number: &str) -> &str {
    if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::ABSENT;

    #[test]
    fn repr_is_pythons() {
        let cases = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (25.0, "25.0"),
            (0.1, "0.1"),
            (0.001925124017481572, "0.001925124017481572"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.25e100, "1.25e+100"),
            (f64::from(0.1_f32), "0.10000000149011612"),
            (f64::INFINITY, "inf"),
        ];
        for (value, expected) in cases {
            assert_eq!(repr(value), expected);
        }
        assert_eq!(repr_or(ABSENT, "None"), "None");
        assert_eq!(json(f64::NAN), "NaN");
    }

    #[test]
    fn general_is_pythons() {
        assert_eq!(general(25.0, 35), "25");
        assert_eq!(general(0.0, 35), "0");
        assert_eq!(general(48.174, 35), "48.173999999999999488409230252727866");
        assert_eq!(
            general(0.153_533_366_337_765_6, 35),
            "0.15353336633776559772002201498253271"
        );
        assert_eq!(general(f64::from(0.1_f32), 6), "0.1");
        assert_eq!(general(1e-5, 6), "1e-05");
        assert_eq!(general(1234567.0, 6), "1.23457e+06");
        assert_eq!(general(999999.5, 6), "1e+06");
        assert_eq!(fixed(1.0 / 3.0), "0.333333");
        assert_eq!(fixed(f64::NAN), "nan");
    }
}
