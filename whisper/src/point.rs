//! A point on disk, and how "nothing was written here" travels through columns of numbers.

use crate::archive::SLOT_SIZE;
use crate::units::Timestamp;

/// A timestamp and a value, as one slot of an archive holds them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// How much.
    pub value: f64,
}

impl Point {
    /// A point of `value` at `at` seconds since 1970.
    pub const fn new(at: u32, value: f64) -> Self {
        Self {
            at: Timestamp(at),
            value,
        }
    }

    /// The point as a slot holds it. Every NaN becomes the one NaN that Python writes, so that
    /// the NaN of an absent value never reaches a file.
    pub fn to_slot(self) -> [u8; SLOT_SIZE] {
        let value = if self.value.is_nan() {
            f64::NAN
        } else {
            self.value
        };
        let mut slot = [0; SLOT_SIZE];
        slot[..4].copy_from_slice(&self.at.0.to_be_bytes());
        slot[4..].copy_from_slice(&value.to_be_bytes());
        slot
    }

    /// The point in a slot.
    #[inline]
    pub fn from_slot(slot: &[u8; SLOT_SIZE]) -> Self {
        let [t0, t1, t2, t3, value @ ..] = *slot;
        let value = f64::from_be_bytes(value);
        let value = if value.is_nan() { f64::NAN } else { value };
        Self {
            at: Timestamp(u32::from_be_bytes([t0, t1, t2, t3])),
            value,
        }
    }
}

/// The slots that `bytes` consist of.
#[inline]
pub(crate) fn slots(bytes: &[u8]) -> impl ExactSizeIterator<Item = Point> + DoubleEndedIterator {
    let (slots, _) = bytes.as_chunks::<SLOT_SIZE>();
    slots.iter().map(Point::from_slot)
}

/// The value that stands for "no point here" in a column of values.
///
/// It is a NaN with a payload of its own, so that a NaN which was really stored stays
/// distinct (Graphite prints `nan` for the one and `None` for the other) while a column stays a
/// plain slice of `f64`. Ask with [`is_absent`]; never rely on arithmetic to carry the payload.
pub const ABSENT: f64 = f64::from_bits(0x7ff8_0000_0061_6273);

/// Whether `value` is the NaN of an absent point.
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

    #[test]
    fn a_slot_is_big_endian_and_holds_one_kind_of_nan() {
        let slot = Point::new(0x0102_0304, 1.0).to_slot();
        assert_eq!(slot, [1, 2, 3, 4, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Point::from_slot(&slot), Point::new(0x0102_0304, 1.0));
        assert_eq!(
            Point::new(1, ABSENT).to_slot()[4..],
            [0x7f, 0xf8, 0, 0, 0, 0, 0, 0]
        );
        let mut foreign = Point::new(1, 0.0).to_slot();
        foreign[4..].copy_from_slice(&ABSENT.to_be_bytes());
        assert!(!is_absent(Point::from_slot(&foreign).value));
    }
}
