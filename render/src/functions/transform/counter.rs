//! Counters: the growth between one value and the next, and what a wrap or reset is worth.

use whisper::{ABSENT, present};

use super::super::Args;
use crate::error::Result;

/// The values a counter can have, as far as they are known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    /// Where it wraps.
    pub max: Option<f64>,
    /// Where it begins again.
    pub min: Option<f64>,
}

/// `value - previous`; absent where either is.
pub(super) fn differences(values: &[f64]) -> Vec<f64> {
    let mut previous = None;
    let mut next = |value: &f64| {
        let value = present(*value);
        let before = std::mem::replace(&mut previous, value);
        match (before, value) {
            (Some(before), Some(value)) => value - before,
            _ => ABSENT,
        }
    };
    values.iter().map(&mut next).collect()
}

/// The growth of a counter. A value outside `range` is dropped together with what came before
/// it; a fall is a wrap when the range says how far it can go, else nothing is known.
pub(super) fn growth(values: &[f64], range: Range) -> Vec<f64> {
    let mut previous = None;
    let mut next = |value: &f64| {
        let value = present(*value);
        let outside = |value: f64| {
            range.max.is_some_and(|max| value > max) || range.min.is_some_and(|min| value < min)
        };
        if value.is_some_and(outside) {
            previous = None;
            return ABSENT;
        }
        let (Some(before), Some(value)) = (std::mem::replace(&mut previous, value), value) else {
            return ABSENT;
        };
        if value >= before {
            return value - before;
        }
        match (range.max, range.min) {
            (Some(max), min) => max + 1.0 + value - before - min.unwrap_or(0.0),
            (None, Some(min)) => value - min,
            (None, None) => ABSENT,
        }
    };
    values.iter().map(&mut next).collect()
}

/// The range of the counter that the arguments give.
pub(super) fn range(args: &Args<'_>) -> Result<Range> {
    Ok(Range {
        max: args.number_if_given("maxValue")?,
        min: args.number_if_given("minValue")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const __: f64 = ABSENT;

    fn shown(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().map(|&v| present(v)).collect()
    }

    #[test]
    fn a_difference_needs_two_values() {
        let values = [1.0, 3.0, __, 4.0, 2.0];
        assert_eq!(
            shown(&differences(&values)),
            shown(&[__, 2.0, __, __, -2.0])
        );
    }

    #[test]
    fn a_fall_is_worth_what_the_range_says() {
        let values = [250.0, 254.0, 2.0, __, 5.0, 300.0, 7.0];
        let growth = |max, min| shown(&growth(&values, Range { max, min }));
        assert_eq!(growth(None, None), shown(&[__, 4.0, __, __, __, 295.0, __]));
        assert_eq!(
            growth(Some(255.0), None),
            shown(&[__, 4.0, 4.0, __, __, __, __])
        );
        assert_eq!(
            growth(Some(255.0), Some(1.0)),
            shown(&[__, 4.0, 3.0, __, __, __, __])
        );
        assert_eq!(
            growth(None, Some(1.0)),
            shown(&[__, 4.0, 1.0, __, __, 295.0, 6.0])
        );
    }
}
