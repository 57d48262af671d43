//! How the points of a finer archive become one point of a coarser one.

use std::fmt;

/// An aggregation method, with the code that a whisper header holds.
///
/// Codes 1 to 8 are read as Python's whisper 1.1.10 reads them (go-whisper gives 6 to 8 other
/// meanings).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Aggregation {
    /// The mean of the known points.
    #[default]
    Average = 1,
    /// Their sum.
    Sum = 2,
    /// The newest known point.
    Last = 3,
    /// The largest.
    Max = 4,
    /// The smallest.
    Min = 5,
    /// The sum of the known points divided by the number of slots, known or not.
    AvgZero = 6,
    /// The point of the largest magnitude, negative or not.
    AbsMax = 7,
    /// The point of the smallest magnitude, negative or not.
    AbsMin = 8,
}

impl Aggregation {
    /// All methods, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Average,
        Self::Sum,
        Self::Last,
        Self::Max,
        Self::Min,
        Self::AvgZero,
        Self::AbsMax,
        Self::AbsMin,
    ];

    /// The method of a header's code, `None` for a code that Python's whisper does not know.
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            1..=8 => Some(Self::ALL[code as usize - 1]),
            _ => None,
        }
    }

    /// The code that a header holds.
    pub const fn code(self) -> u32 {
        self as u32
    }

    /// The name that Graphite's tools and configuration use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Average => "average",
            Self::Sum => "sum",
            Self::Last => "last",
            Self::Max => "max",
            Self::Min => "min",
            Self::AvgZero => "avg_zero",
            Self::AbsMax => "absmax",
            Self::AbsMin => "absmin",
        }
    }

    /// The method of a name; exactly the eight names, as Python's whisper takes them.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }

    /// One value out of the `known` ones of `slots` neighbours, oldest first; `None` if none is
    /// known.
    ///
    /// Sums run from left to right in doubles, without compensation. Of equal extremes the
    /// earlier one wins, and a NaN is known like any other value, so that extremes with NaN
    /// among them depend on the order, as they do in Python.
    pub fn apply(self, known: &[f64], slots: u32) -> Option<f64> {
        let (&first, rest) = known.split_first()?;
        let sum = || known.iter().fold(0.0, |sum, value| sum + value);
        let best = |better: fn(f64, f64) -> bool| {
            rest.iter().fold(
                first,
                |best, &value| if better(value, best) { value } else { best },
            )
        };
        Some(match self {
            Self::Average => sum() / known.len() as f64,
            Self::Sum => sum(),
            Self::Last => rest.last().copied().unwrap_or(first),
            Self::Max => best(|value, best| value > best),
            Self::Min => best(|value, best| value < best),
            Self::AvgZero => sum() / f64::from(slots),
            Self::AbsMax => best(|value, best| value.abs() > best.abs()),
            Self::AbsMin => best(|value, best| value.abs() < best.abs()),
        })
    }
}

impl fmt::Display for Aggregation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back_to_the_method() {
        for method in Aggregation::ALL {
            assert_eq!(Aggregation::from_code(method.code()), Some(method));
            assert_eq!(Aggregation::parse(method.name()), Some(method));
        }
        assert_eq!(Aggregation::from_code(0), None);
        assert_eq!(Aggregation::from_code(9), None);
        assert_eq!(Aggregation::parse("avg"), None);
    }

    #[test]
    fn every_method_on_three_of_four() {
        let known = [3.0, -5.0, 2.0];
        let expected = [0.0, 0.0, 2.0, 3.0, -5.0, 0.0, -5.0, 2.0];
        for (method, expected) in Aggregation::ALL.into_iter().zip(expected) {
            assert_eq!(method.apply(&known, 4), Some(expected), "{method}");
            assert_eq!(method.apply(&[], 4), None);
        }
        assert_eq!(Aggregation::AvgZero.apply(&[8.0], 4), Some(2.0));
    }

    #[test]
    fn the_earlier_of_equal_extremes_wins() {
        assert_eq!(Aggregation::AbsMax.apply(&[-5.0, 5.0], 2), Some(-5.0));
        assert_eq!(Aggregation::AbsMin.apply(&[5.0, -5.0], 2), Some(5.0));
        assert!(
            Aggregation::Max
                .apply(&[f64::NAN, 1.0], 2)
                .is_some_and(f64::is_nan)
        );
        assert_eq!(Aggregation::Max.apply(&[1.0, f64::NAN], 2), Some(1.0));
    }

    #[test]
    fn a_sum_of_negative_zeros_is_pythons_zero() {
        assert_eq!(
            Aggregation::Sum.apply(&[-0.0], 1).map(f64::to_bits),
            Some(0)
        );
    }
}
