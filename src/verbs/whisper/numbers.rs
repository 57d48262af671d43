//! Values as Python's whisper tools print them; absent values have their own text.

use render::python;
use whisper::present;

/// `repr(value)`.
pub(super) fn repr(value: f64) -> String {
    python::float(value)
}

/// [`repr`] of a value that may be absent, which is `none`.
pub(super) fn repr_or(value: f64, none: &str) -> String {
    present(value).map_or_else(|| none.to_owned(), repr)
}

/// `json.dumps(value)`, with absent as `null`.
pub(super) fn json(value: f64) -> String {
    match present(value) {
        None => "null".to_owned(),
        Some(value) if value.is_nan() => "NaN".to_owned(),
        Some(f64::INFINITY) => "Infinity".to_owned(),
        Some(f64::NEG_INFINITY) => "-Infinity".to_owned(),
        Some(value) => repr(value),
    }
}

#[cfg(test)]
mod tests {
    use whisper::ABSENT;

    use super::*;

    #[test]
    fn numbers_print_as_in_python() {
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
        let general = python::general_to;
        assert_eq!(general(25.0, 35), "25");
        assert_eq!(general(48.174, 35), "48.173999999999999488409230252727866");
        assert_eq!(
            general(0.153_533_366_337_765_6, 35),
            "0.15353336633776559772002201498253271"
        );
        assert_eq!(general(f64::from(0.1_f32), 6), "0.1");
        assert_eq!(general(1_234_567.0, 6), "1.23457e+06");
        assert_eq!(general(999_999.5, 6), "1e+06");
        assert_eq!(python::fixed(1.0 / 3.0, 6), "0.333333");
    }
}
