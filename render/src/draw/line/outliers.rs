//! Which few values an axis may leave out so that all others can be seen (`yOutliers=clip`).
//!
//! A value is an outlier if the next smaller one is at most a tenth of it, and if there are few like
//! it. The newest values of a series may be the start of something: they are left out only if they
//! are absurd. Values beside zeros are never left out: they are what the graph is looked at for.

use super::super::curve::Curve;
use super::super::params::{AreaMode, AxisMax, Params};
use super::super::y_axis::{Beyond, YAxis};
use crate::budget::Budget;
use crate::error::Result;

/// Of so many values, one may be an outlier; always one.
const ONE_OF: usize = 200;
/// An outlier is as many times the largest of the others.
const TIMES: f64 = 10.0;
/// So many newest values of a series are outliers only if they are [`ABSURD`].
const RECENT: usize = 3;
const ABSURD: f64 = 1e4;

/// A value, and whether it is one of the newest.
type Value = (f64, bool);

/// The limits of the drawn values without outliers; `None` if there are none.
pub(super) fn without_outliers(
    params: &Params,
    curves: &[&Curve<'_>],
    (low, high): (f64, f64),
    budget: &Budget,
) -> Result<Option<(f64, f64)>> {
    let n_values: usize = curves.iter().map(|curve| curve.values.len()).sum();
    let _list = budget.hold(2 * n_values * size_of::<Value>())?;
    let mut values = drawn(params, curves);
    budget.check()?;
    let most = (values.len() / ONE_OF).max(1);
    let top = kept(&mut values, most).unwrap_or(high);
    for value in &mut values {
        value.0 = -value.0;
    }
    let bottom = kept(&mut values, most).map_or(low, |kept| -kept);
    let is_cut = (top < high || bottom > low) && bottom <= top;
    Ok(is_cut.then_some((bottom, top)))
}

/// The values that are drawn; sums on a stack.
fn drawn(params: &Params, curves: &[&Curve<'_>]) -> Vec<Value> {
    let mut values = Vec::new();
    let newest = |curve: &[f64]| {
        let known = curve.iter().rposition(|value| value.is_finite());
        known.map_or(0, |last| (last + 1).saturating_sub(RECENT))
    };
    if params.area_mode == AreaMode::Stacked {
        let n_values = curves.iter().map(|c| c.values.len()).max().unwrap_or(0);
        let recent = curves.iter().map(|c| newest(&c.values)).max().unwrap_or(0);
        for i in 0..n_values {
            let stack = curves.iter().filter_map(|c| c.values.get(i).copied());
            let sum = stack.filter(|value| value.is_finite()).sum();
            values.push((sum, i >= recent));
        }
        return values;
    }
    for curve in curves {
        let recent = newest(&curve.values);
        let finite = curve.values.iter().enumerate();
        let finite = finite.filter(|(_, value)| value.is_finite());
        values.extend(finite.map(|(i, value)| (*value, i >= recent)));
    }
    values
}

/// The largest value below at most `most` outliers, if there are any.
fn kept(values: &mut [Value], most: usize) -> Option<f64> {
    let descending = |a: &Value, b: &Value| b.0.total_cmp(&a.0);
    if values.len() > most + 1 {
        values.select_nth_unstable_by(most, descending);
    }
    let n_largest = values.len().min(most + 1);
    let largest = &mut values[..n_largest];
    largest.sort_unstable_by(descending);
    (1..n_largest).rev().find_map(|i| {
        let rest = largest[i].0;
        let is_out =
            |(value, is_recent): &Value| *value >= rest * if *is_recent { ABSURD } else { TIMES };
        (rest > 0.0 && largest[..i].iter().all(is_out)).then_some(rest)
    })
}

/// What of the drawn values is beyond the automatic ends of `axis`.
pub(super) fn beyond(
    params: &Params,
    curves: &[&Curve<'_>],
    axis: &YAxis,
    budget: &Budget,
) -> Result<Option<Beyond>> {
    let n_values: usize = curves.iter().map(|curve| curve.values.len()).sum();
    let _list = budget.hold(2 * n_values * size_of::<Value>())?;
    let (bottom, top) = axis.ends();
    let is_above = |value: f64| value > top && params.axis.max == AxisMax::Auto;
    let is_below = |value: f64| value < bottom && params.axis.min.is_none();
    let values = drawn(params, curves);
    let outside = values.iter().map(|(value, _)| *value);
    let outside = outside.filter(|value| is_above(*value) || is_below(*value));
    let count_and_farthest = |(count, farthest): (usize, f64), value: f64| {
        let is_farther = value.abs() > farthest.abs();
        (count + 1, if is_farther { value } else { farthest })
    };
    let (count, farthest) = outside.fold((0, 0.0), count_and_farthest);
    Ok((count > 0).then_some(Beyond { count, farthest }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn top(values: &[f64]) -> Option<f64> {
        let recent = values.len().saturating_sub(RECENT);
        let mut values: Vec<Value> = values
            .iter()
            .enumerate()
            .map(|(i, value)| (*value, i >= recent))
            .collect();
        let most = (values.len() / ONE_OF).max(1);
        kept(&mut values, most)
    }

    #[test]
    fn a_single_spike_is_an_outlier_and_a_change_is_not() {
        let calm = [2.0, 3.0, 2.5, 2.0, 3.0, 2.0, 2.0, 2.5, 3.0, 2.0];
        let with = |at: usize, value: f64| {
            let mut values = calm.to_vec();
            values[at] = value;
            top(&values)
        };
        assert_eq!(top(&calm), None);
        assert_eq!(with(4, 1e300), Some(3.0));
        assert_eq!(with(4, 40.0), Some(3.0));
        assert_eq!(with(4, 20.0), None, "not far enough");
        // What has just begun is shown.
        assert_eq!(with(9, 40.0), None);
        assert_eq!(with(9, 1e300), Some(3.0));
        let mut two = calm.to_vec();
        (two[3], two[4]) = (50.0, 60.0);
        assert_eq!(top(&two), None, "more than one of ten values");
        let errors = [0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(top(&errors), None, "what the graph is looked at for");
        assert_eq!(top(&[]), None);
        assert_eq!(top(&[7.0]), None);
    }
}
