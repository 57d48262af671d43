//! A point on disk, and how "nothing was written here" travels through columns of numbers.

use crate::units::Timestamp;

/// A timestamp and a value, as one slot of an archive holds them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// How much.
    pub value: f64,
}

/// The value that stands for "no point here" in a column of values.
///
/// It is a NaN with a payload of its own, so that a NaN which somebody really stored stays
/// distinct (Graphite prints `nan` for the one and `None` for the other) while a column stays a
/// plain slice of `f64`. Ask with [`is_absent`]; never rely on arithmetic to carry the payload.
pub const ABSENT: f64 = f64::from_bits(0x7ff8_0000_0061_6273);

/// Whether `value` is the mark of an absent point.
#[inline(always)]
pub const fn is_absent(value: f64) -> bool {
    value.to_bits() == ABSENT.to_bits()
}

/// The value as an option: `None` where it is absent.
#[inline(always)]
pub const fn present(value: f64) -> Option<f64> {
    if is_absent(value) { None } else { Some(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_is_a_nan_that_is_not_the_usual_nan() {
        assert!(ABSENT.is_nan());
        assert!(is_absent(ABSENT));
        assert!(!is_absent(f64::NAN));
        assert_eq!(present(1.5), Some(1.5));
        assert_eq!(present(ABSENT), None);
    }
}
