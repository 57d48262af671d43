//! The value axis: where it ends, where its labels stand and what they say, by Graphite's rules.
//!
//! An axis that would leave a third of the plot empty by those rules gets smaller steps
//! ([`Range::frugal_step`]).

use super::figures::short;
use super::params::{AxisLimits, AxisMax, DIVISORS, UnitSystem};

/// The share of the plot that an axis may leave empty.
const WASTE: f64 = 1.0 / 3.0;

/// Numbers of parts that are tried, in this order, when Graphite's leave too much empty.
const MORE_PARTS: [&[u32]; 2] = [&[4, 5, 6, 7, 8], &[4, 5, 6, 7, 8, 9, 10]];

/// Fractions of a step that count as nothing, so that rounding errors show nowhere.
const EPSILON: f64 = 1e-4;

/// The largest number that an axis reaches: sums and products of a few such numbers are finite.
const FARTHEST: f64 = 1e306;

/// The most plots that a value is away from the axis where it is drawn.
const OFF: f64 = 1e9;

/// An axis with its labels, smallest value first.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct YAxis {
    pub(super) bottom: f64,
    pub(super) top: f64,
    pub(super) labels: Vec<(f64, String)>,
    pub(super) log_base: Option<f64>,
    /// Values that lie beyond its ends on purpose.
    pub(super) beyond: Option<Beyond>,
}

/// Values that an axis leaves out so that the others can be seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Beyond {
    pub(super) count: usize,
    /// The one that is farthest from zero.
    pub(super) farthest: f64,
}

impl Beyond {
    /// What is said of them on the picture.
    pub(super) fn sentence(&self) -> String {
        let most = short(self.farthest);
        match self.count {
            1 => format!("1 value of {most} is beyond the axis"),
            n => format!("{n} values up to {most} are beyond the axis"),
        }
    }
}

/// Both ends are given, and the wrong way round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reversed {
    pub(super) min: f64,
    pub(super) max: f64,
}

/// Powers of the unit, largest first.
const fn units(system: UnitSystem) -> &'static [(&'static str, f64)] {
    const KIBI: f64 = 1024.0;
    const DAY: f64 = 86_400.0;
    match system {
        UnitSystem::Si => &[("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)],
        UnitSystem::Binary => &[
            ("Pi", KIBI * KIBI * KIBI * KIBI * KIBI),
            ("Ti", KIBI * KIBI * KIBI * KIBI),
            ("Gi", KIBI * KIBI * KIBI),
            ("Mi", KIBI * KIBI),
            ("Ki", KIBI),
        ],
        UnitSystem::Sec => &[
            ("Y", DAY * 365.0),
            ("M", DAY * 30.0),
            ("D", DAY),
            ("H", 3600.0),
            ("m", 60.0),
        ],
        UnitSystem::Msec => &[
            ("Y", DAY * 365.0 * 1000.0),
            ("M", DAY * 30.0 * 1000.0),
            ("D", DAY * 1000.0),
            ("H", 3_600_000.0),
            ("m", 60_000.0),
            ("s", 1000.0),
        ],
        UnitSystem::None => &[],
    }
}

/// What limits an end: the data, or the request.
struct Range {
    min: f64,
    max: f64,
    min_fixed: bool,
    max_fixed: bool,
    /// `yMax=max`: the end is the largest value itself, but gives way like data does.
    extremum: bool,
    limit: Option<f64>,
}

impl Range {
    fn new((min, max): (f64, f64), limits: &AxisLimits) -> Result<Self, Reversed> {
        let mut range = Self {
            min,
            max,
            min_fixed: false,
            max_fixed: false,
            extremum: false,
            limit: None,
        };
        if let Some(min) = limits.min {
            range.min = min;
            range.min_fixed = true;
        }
        match limits.max {
            AxisMax::Auto => {}
            AxisMax::Extremum => range.extremum = true,
            AxisMax::At(max) => {
                range.max = max;
                range.max_fixed = true;
            }
        }
        match limits.limit {
            Some(limit) if limit < range.max => {
                range.max = limit;
                range.max_fixed = true;
            }
            limit => range.limit = limit,
        }
        let near = |end: f64| end.clamp(-FARTHEST, FARTHEST);
        (range.min, range.max) = (near(range.min), near(range.max));
        range.reconcile()?;
        Ok(range)
    }

    fn reconcile(&mut self) -> Result<(), Reversed> {
        if self.min < self.max {
            return Ok(());
        }
        let delta = |x: f64| if x.abs() < 1e-9 { 1.0 } else { 0.1 * x.abs() };
        match (self.min_fixed, self.max_fixed) {
            (true, true) => {
                return Err(Reversed {
                    min: self.min,
                    max: self.max,
                });
            }
            (true, false) => self.max = self.min + delta(self.min),
            (false, true) => self.min = self.max - delta(self.max),
            (false, false) => {
                let delta = delta(self.min.abs().max(self.max.abs()));
                let middle = (self.min + self.max) / 2.0;
                (self.min, self.max) = (middle - delta, middle + delta);
            }
        }
        Ok(())
    }

    /// The step among 1, 2, 5 × 10^k (or the powers of 2) that covers the range in one of the
    /// given numbers of parts with the least waste.
    fn step(&self, divisors: &[u32], binary: bool) -> f64 {
        let (Some(&most), Some(&fewest)) = (divisors.iter().max(), divisors.iter().min()) else {
            return self.max - self.min;
        };
        let span = self.max - self.min;
        let least = span / f64::from(most);
        if !least.is_normal() {
            return 1.0;
        }
        let (base, mantissas): (f64, &[f64]) = if binary {
            (2.0, &[1.0])
        } else {
            (10.0, &[1.0, 2.0, 5.0])
        };
        let mut exponent = ((least.ln() / base.ln()) - EPSILON).floor();
        let mut best: Option<(f64, f64)> = None;
        // Each round multiplies the step; the range is finite, so this ends by itself. The bound
        // is for ranges at the very end of what a number can hold.
        for _ in 0..64 {
            for mantissa in mantissas {
                let step = mantissa * base.powf(exponent);
                if step < least * (1.0 - EPSILON) {
                    continue;
                }
                if let Some((waste, step_found)) = best
                    && step * f64::from(fewest) >= 2.0 * waste + span
                {
                    return step_found;
                }
                let bottom = step * (self.min / step + EPSILON).floor();
                for divisor in divisors {
                    let top = bottom + step * f64::from(*divisor);
                    if top < self.max - EPSILON * step {
                        continue;
                    }
                    let waste = (top - self.max).max(self.min - bottom);
                    if best.is_none_or(|(least, _)| waste < least) {
                        best = Some((waste, step));
                    }
                }
            }
            exponent += 1.0;
        }
        best.map_or(span, |(_, step)| step)
    }

    /// As [`Range::step`], with more parts if the axis would be empty for more than [`WASTE`] of its
    /// length.
    fn frugal_step(&self, divisors: &[u32], binary: bool) -> f64 {
        let mut step = self.step(divisors, binary);
        for divisors in MORE_PARTS {
            if self.waste(step) <= WASTE {
                break;
            }
            let other = self.step(divisors, binary);
            if self.waste(other) < self.waste(step) {
                step = other;
            }
        }
        step
    }

    /// The share of an axis in steps of `step` on which there is no value.
    fn waste(&self, step: f64) -> f64 {
        let (bottom, top) = self.ends(step);
        match top - bottom {
            length if length > 0.0 && length.is_finite() => 1.0 - (self.max - self.min) / length,
            _ => 0.0,
        }
    }

    /// The ends of an axis in steps of `step`.
    fn ends(&self, step: f64) -> (f64, f64) {
        let bottom = if self.min_fixed {
            self.min
        } else {
            multiple(step, self.min, |steps| (steps + EPSILON).floor())
        };
        let top = if self.max_fixed || self.extremum {
            self.max
        } else {
            let top = multiple(step, self.max, |steps| (steps - EPSILON).ceil());
            match self.limit {
                Some(limit) if top > limit + EPSILON * step => limit,
                _ => top,
            }
        };
        (bottom, top)
    }
}

/// The multiple of `step` next to `value`, of as many steps as `whole` makes of their number; `value` itself if
/// these are too many to be counted.
fn multiple(step: f64, value: f64, whole: impl Fn(f64) -> f64) -> f64 {
    match value / step {
        steps if steps.is_finite() => step * whole(steps),
        _ => value,
    }
}

impl YAxis {
    /// An axis for values from `data.0` to `data.1` (finite).
    ///
    /// # Errors
    /// [`Reversed`] if the request fixes both ends and the lower is not below the upper.
    pub(super) fn linear(
        data: (f64, f64),
        limits: &AxisLimits,
        divisors: &[u32],
        system: UnitSystem,
    ) -> Result<Self, Reversed> {
        let range = Range::new(data, limits)?;
        let binary = system == UnitSystem::Binary;
        let mut step = limits
            .step
            .filter(|s| *s > 0.0)
            .map(|s| s.min(FARTHEST))
            .unwrap_or_else(|| match divisors == DIVISORS {
                true => range.frugal_step(divisors, binary),
                false => range.step(divisors, binary),
            });
        let (bottom, mut top) = range.ends(step);
        if top <= bottom {
            // More than nothing, however large they are.
            top = bottom + (bottom.abs() * 1e-9).max(1.0);
        }
        let span = top - bottom;
        if span > 1000.0 * step {
            step = range.step(&[4, 5, 6], binary);
        }
        let start = multiple(step, bottom, |steps| (steps - EPSILON).ceil());
        let labels = (0..=1000)
            .map(|i| start + f64::from(i) * step)
            .take_while(|v| *v <= top + EPSILON * step)
            // What is left of zero after the arithmetic is zero.
            .map(|v| if v.abs() < step * 1e-9 { 0.0 } else { v })
            .map(|v| (v, label(v, Some(step), span, system)))
            .collect();
        Ok(Self {
            bottom,
            top,
            labels,
            log_base: None,
            beyond: None,
        })
    }

    /// An axis in powers of `base` (above 1) for values of which the least positive is `data.0`.
    ///
    /// # Errors
    /// As [`YAxis::linear`].
    pub(super) fn logarithmic(
        data: (f64, f64),
        limits: &AxisLimits,
        base: f64,
        system: UnitSystem,
    ) -> Result<Self, Reversed> {
        let positive = AxisLimits {
            min: limits.min.filter(|m| *m > 0.0),
            ..*limits
        };
        let range = Range::new(data, &positive)?;
        let log = |v: f64| v.ln() / base.ln();
        let low = (log(range.min.max(f64::MIN_POSITIVE)) + 1e-9).floor();
        let mut high = (log(range.max.max(f64::MIN_POSITIVE)) - 1e-9).ceil();
        if high <= low {
            high = low + 1.0;
        }
        let power = |p: f64| base.powf(p).clamp(f64::MIN_POSITIVE, f64::MAX);
        let (bottom, top) = (power(low), power(high));
        let powers = (high - low).round().max(1.0);
        // A tiny base over a wide range has more powers than the axis has pixels.
        let stride = (powers / 50.0).ceil().max(1.0);
        let labels = (0..=50)
            .map(|i| low + f64::from(i) * stride)
            .take_while(|p| *p <= high + EPSILON)
            .map(power)
            .map(|v| (v, label(v, None, top - bottom, system)))
            .collect();
        Ok(Self {
            bottom,
            top,
            labels,
            log_base: Some(base),
            beyond: None,
        })
    }

    /// The values at the ends of the plot. Graphite scales from the lowest to the highest label;
    /// without at least two of them that says nothing.
    pub(super) fn ends(&self) -> (f64, f64) {
        match (self.labels.first(), self.labels.last()) {
            (Some((low, _)), Some((high, _))) if high > low => (*low, *high),
            _ => (self.bottom, self.top),
        }
    }

    /// Where `value` is between the ends of the plot, 0 at the bottom, 1 at the top. `None` on a
    /// logarithmic axis for what has no logarithm.
    pub(super) fn share(&self, value: f64) -> Option<f64> {
        let (low, high) = self.ends();
        match self.log_base {
            Some(_) if value <= 0.0 => None,
            Some(_) => Some((value.ln() - low.ln()) / (high.ln() - low.ln())),
            // How far beyond the ends does not matter from there on.
            None => Some(((value - low) / (high - low)).clamp(-OFF, OFF)),
        }
    }
}

/// A value in the largest unit that is not above it (nor above the step between labels).
fn in_units(value: f64, step: Option<f64>, system: UnitSystem) -> (f64, &'static str) {
    let unit = units(system)
        .iter()
        .find(|(_, size)| value.abs() >= *size && step.is_none_or(|s| s >= *size));
    let (value, prefix) = match unit {
        Some((prefix, size)) => (value / size, *prefix),
        None => (value, ""),
    };
    if value - value.floor() < 1e-11 && value > 1.0 {
        (value.floor(), prefix)
    } else {
        (value, prefix)
    }
}

/// From here on labels are in exponent form. (Graphite writes all digits, which leave no room for a
/// plot.)
const EXPONENT: f64 = 1e20;

fn label(value: f64, step: Option<f64>, span: f64, system: UnitSystem) -> String {
    if value.abs() >= EXPONENT || span >= EXPONENT {
        return general(value);
    }
    let (value, prefix) = in_units(value, step, system);
    let (span, _) = in_units(span, step, system);
    let number = if value < 0.1 {
        general(value)
    } else if value < 1.0 {
        format!("{value:.2}")
    } else if span > 3.0 || !prefix.is_empty() {
        format!("{value:.1}")
    } else if span > 0.1 {
        format!("{value:.2}")
    } else {
        general(value)
    };
    if prefix.is_empty() {
        number
    } else {
        format!("{number} {prefix}")
    }
}

/// C's `%g`: six significant digits, no trailing zeros, exponents outside of 1e-5 to 1e6.
pub(super) fn general(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if !value.is_finite() {
        return value.to_string();
    }
    let scientific = format!("{value:.5e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| -> String {
        if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        } else {
            text.to_owned()
        }
    };
    if (-4..6).contains(&exponent) {
        let decimals = usize::try_from(5 - exponent).unwrap_or(0);
        trim(&format!("{value:.decimals$}"))
    } else {
        let plus_minus = if exponent < 0 { '-' } else { '+' };
        format!("{}e{plus_minus}{:02}", trim(mantissa), exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(data: (f64, f64), limits: AxisLimits, system: UnitSystem) -> Vec<String> {
        let axis = YAxis::linear(data, &limits, &[4, 5, 6], system).unwrap();
        axis.labels.into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn labels_are_those_that_graphite_writes() {
        let none = AxisLimits::default();
        // Measured on graphite-web.
        assert_eq!(
            texts((0.0, 3970.0), none, UnitSystem::Si),
            ["0", "1.0 k", "2.0 k", "3.0 k", "4.0 k"]
        );
        // From its pictures: three sines, a second axis, requests.
        assert_eq!(
            texts((17.3, 53.1), none, UnitSystem::Si),
            ["10.0", "20.0", "30.0", "40.0", "50.0", "60.0"]
        );
        assert_eq!(
            texts((16.9, 43.1), none, UnitSystem::Si),
            ["15.0", "20.0", "25.0", "30.0", "35.0", "40.0", "45.0"]
        );
        assert_eq!(
            texts((1008.0, 1985.0), none, UnitSystem::Si),
            ["1000.0", "1200.0", "1400.0", "1600.0", "1800.0", "2000.0"]
        );
        assert_eq!(
            texts((0.0, 6.0), none, UnitSystem::Si),
            ["0", "1.0", "2.0", "3.0", "4.0", "5.0", "6.0"]
        );
    }

    #[test]
    fn a_third_of_the_plot_is_never_empty() {
        let none = AxisLimits::default();
        assert_eq!(
            texts((-3.0, 105.0), none, UnitSystem::Si),
            ["-20", "0", "20.0", "40.0", "60.0", "80.0", "100.0", "120.0"]
        );
        // The parts that a request asks for are kept.
        let asked = YAxis::linear((-3.0, 105.0), &none, &[4], UnitSystem::Si).unwrap();
        assert_eq!((asked.bottom, asked.top), (-50.0, 150.0));
    }

    proptest! {
        #[test]
        fn most_of_an_axis_has_values(low in -1e6..1e6f64, length in 1e-3..1e9f64) {
            let data = (low, low + length);
            let axis = YAxis::linear(data, &AxisLimits::default(), DIVISORS, UnitSystem::Si).unwrap();
            prop_assert!(axis.labels.len() <= 11);
            let empty = 1.0 - length / (axis.top - axis.bottom);
            prop_assert!(empty <= WASTE + 1e-3, "{axis:?}");
        }
    }

    #[test]
    fn huge_values_are_in_exponent_form() {
        let labels = texts((0.0, 3e100), AxisLimits::default(), UnitSystem::Si);
        assert_eq!(labels[1..3], ["5e+99", "1e+100"]);
        assert_eq!(labels[0], "0");
        for high in [1e21, 1e150, 1e300] {
            for label in texts((-high, high), AxisLimits::default(), UnitSystem::Si) {
                assert!(label.len() < 12, "{label}");
            }
        }
    }

    #[test]
    fn fixed_ends_and_steps_are_kept() {
        let limits = AxisLimits {
            min: Some(0.0),
            max: AxisMax::At(100.0),
            limit: None,
            step: Some(20.0),
        };
        assert_eq!(
            texts((16.0, 58.0), limits, UnitSystem::None),
            ["0", "20.0", "40.0", "60.0", "80.0", "100.0"]
        );
        let reversed = AxisLimits {
            min: Some(5.0),
            max: AxisMax::At(1.0),
            ..AxisLimits::default()
        };
        assert_eq!(
            YAxis::linear((0.0, 1.0), &reversed, &[4], UnitSystem::Si),
            Err(Reversed { min: 5.0, max: 1.0 })
        );
    }

    #[test]
    fn flat_lines_get_room() {
        let axis = YAxis::linear(
            (7.0, 7.0),
            &AxisLimits::default(),
            &[4, 5, 6],
            UnitSystem::Si,
        )
        .unwrap();
        assert!(axis.bottom < 7.0 && axis.top > 7.0);
    }

    #[test]
    fn powers_are_labelled_on_a_logarithmic_axis() {
        let none = AxisLimits::default();
        let axis = YAxis::logarithmic((3.0, 4e6), &none, 10.0, UnitSystem::Si).unwrap();
        let values: Vec<f64> = axis.labels.iter().map(|l| l.0).collect();
        assert_eq!(values.len(), 8);
        assert!((axis.share(1e3).unwrap() - 3.0 / 7.0).abs() < 1e-9);
        assert_eq!(axis.share(0.0), None);
    }

    #[test]
    fn general_is_c_percent_g() {
        for (value, text) in [
            (0.0, "0"),
            (-50.0, "-50"),
            (0.05, "0.05"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.23457e+06"),
            (-2.5e-10, "-2.5e-10"),
            (1.0, "1"),
        ] {
            assert_eq!(general(value), text);
        }
    }

    proptest! {
        #[test]
        fn any_range_gets_a_sane_axis(a in -1e12..1e12f64, b in -1e12..1e12f64, step in proptest::option::of(-10.0..1e6)) {
            let (low, high) = (a.min(b), a.max(b));
            let limits = AxisLimits { step, ..AxisLimits::default() };
            let axis = YAxis::linear((low, high), &limits, &[4, 5, 6], UnitSystem::Si).unwrap();
            prop_assert!(axis.top > axis.bottom);
            prop_assert!(axis.labels.len() <= 1001);
            let (bottom, top) = axis.ends();
            prop_assert!(top > bottom);
            if step.is_none() {
                prop_assert!(axis.labels.len() >= 2);
                let slack = (high - low).abs().max(1e-9) * 1e-3;
                prop_assert!(bottom <= low + slack && top >= high - slack);
            }
        }

        #[test]
        fn wild_ranges_have_ends(
            a in wild(),
            b in wild(),
            min in prop::option::of(wild()),
            max in prop::option::of(wild()),
            limit in prop::option::of(wild()),
            step in prop::option::of(wild()),
            base in prop::option::of(1.0000001..f64::MAX),
        ) {
            let limits = AxisLimits { min, max: max.map_or(AxisMax::Auto, AxisMax::At), limit, step };
            let data = (a.min(b), a.max(b));
            let axis = match base {
                Some(base) => YAxis::logarithmic((data.0.abs(), data.1.abs()), &limits, base, UnitSystem::Si),
                None => YAxis::linear(data, &limits, &[4, 5, 6], UnitSystem::Binary),
            };
            let Ok(axis) = axis else {
                return Ok(());
            };
            prop_assert!(axis.labels.len() <= 1001);
            let (low, high) = axis.ends();
            prop_assert!(low.is_finite() && high.is_finite() && low < high, "{low} {high}");
            for value in [low, high, data.1.abs().max(f64::MIN_POSITIVE)] {
                prop_assert!(axis.share(value).is_some_and(f64::is_finite), "{low} {high}");
            }
        }
    }

    /// Any finite number, often a very large, small or round one.
    fn wild() -> impl Strategy<Value = f64> {
        let finite = any::<f64>().prop_filter("finite", |value| value.is_finite());
        let odd = prop::sample::select(vec![
            0.0,
            1.0,
            -1.0,
            f64::MAX,
            f64::MIN,
            f64::MIN_POSITIVE,
            5e-324,
            1e300,
            -1e300,
            1e-300,
        ]);
        prop_oneof![finite, odd, -1e6..1e6]
    }
}
