//! The vertical axes: the limits of the values, and the room for the labels.

use std::ops::Range;

use super::super::Error;
use super::super::curve::Curve;
use super::super::params::{AreaMode, AxisLimits, Params};
use super::super::sheet::Sheet;
use super::super::y_axis::YAxis;
use super::outliers::{beyond, without_outliers};
use super::{LABEL_GAP, pixels};
use crate::budget::Budget;
use crate::error::Result;

/// Values before stacking, their limits, and the axes that follow; the axes' labels take room, so
/// that fewer points fit, which may change the limits: repeated until nothing moves.
pub(in crate::draw) fn arrange(
    sheet: &mut Sheet,
    params: &Params,
    curves: &mut [Curve<'_>],
    two_axes: bool,
    times: &Range<i64>,
) -> Result<[Option<YAxis>; 2], Error> {
    let range = (times.end - times.start) as f64;
    // Room only ever shrinks, by the width of a label: three rounds usually suffice.
    for round in 0.. {
        let width = pixels(sheet, params);
        for curve in curves.iter_mut() {
            curve.consolidate((range, width), params.min_x_step, sheet.budget())?;
        }
        let (left, right) = if two_axes {
            (
                Some(axis(params, curves, &params.left, sheet.budget(), |c| {
                    !c.right
                })?),
                Some(axis(params, curves, &params.right, sheet.budget(), |c| {
                    c.right
                })?),
            )
        } else {
            (
                Some(axis(params, curves, &params.axis, sheet.budget(), |_| {
                    true
                })?),
                None,
            )
        };
        let before = (sheet.left, sheet.right);
        if !params.hide_axes && !params.hide_y_axis {
            let widest = |axis: &Option<YAxis>| {
                axis.iter()
                    .flat_map(|a| &a.labels)
                    .map(|(_, text)| params.font.width(text))
                    .fold(0.0, f64::max)
            };
            let at_right = !two_axes && params.y_axis_right;
            let (near, far) = if at_right {
                (0.0, widest(&left))
            } else {
                (widest(&left), widest(&right))
            };
            if near > 0.0 {
                let start = if params.vtitle.is_empty() {
                    params.margin
                } else {
                    params.margin + side_room(params, params.vtitle.len())
                };
                sheet.left = sheet.left.max((start + near + LABEL_GAP).ceil());
            }
            if far > 0.0 {
                let taken = if two_axes && !params.vtitle_right.is_empty() {
                    side_room(params, params.vtitle_right.len())
                } else {
                    0.0
                };
                let edge = f64::from(params.width) - params.margin - taken;
                sheet.right = sheet.right.min((edge - far - LABEL_GAP).floor());
            }
        }
        if before == (sheet.left, sheet.right) || round == 5 {
            return Ok([left, right]);
        }
    }
    Ok([None, None])
}

fn side_room(params: &Params, lines: usize) -> f64 {
    let font = params
        .font
        .sized(params.font.size + params.font.size.ln().max(0.0).floor());
    font.height() * lines as f64 + 4.0
}

fn axis(
    params: &Params,
    curves: &[Curve<'_>],
    limits: &AxisLimits,
    budget: &Budget,
    belongs: impl Fn(&Curve<'_>) -> bool,
) -> Result<YAxis, Error> {
    let shown: Vec<&Curve<'_>> = curves
        .iter()
        .filter(|c| belongs(c) && !c.infinite())
        .collect();
    let positive = params.log_base.is_some();
    let all = limits_of(&shown, params, positive, budget)?;
    let without = match params.clips_outliers && !positive {
        true => without_outliers(params, &shown, all, budget)?,
        false => None,
    };
    let data = without.unwrap_or(all);
    let made = match params.log_base {
        Some(base) => YAxis::logarithmic(data, limits, base, params.unit_system),
        None => YAxis::linear(data, limits, &params.divisors, params.unit_system),
    };
    let mut axis = made.map_err(|e| Error::Reversed {
        min: e.min,
        max: e.max,
    })?;
    if without.is_some() {
        axis.beyond = beyond(params, &shown, &axis, budget)?;
    }
    Ok(axis)
}

/// The least and the largest value that is drawn; 0 to 1 without values.
fn limits_of(
    curves: &[&Curve<'_>],
    params: &Params,
    positive: bool,
    budget: &Budget,
) -> Result<(f64, f64)> {
    let drawn = |v: f64| v.is_finite() && (!positive || v > 0.0);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for curve in curves {
        budget.check()?;
        for value in curve.values.iter().copied().filter(|v| drawn(*v)) {
            (low, high) = (low.min(value), high.max(value));
        }
    }
    if params.area_mode == AreaMode::Stacked {
        let n_values = curves.iter().map(|c| c.values.len()).max().unwrap_or(0);
        high = f64::NEG_INFINITY;
        for i in 0..n_values {
            budget.check()?;
            let stack = curves.iter().filter_map(|c| c.values.get(i).copied());
            high = high.max(stack.filter(|v| v.is_finite()).sum::<f64>());
        }
    }
    if low > high {
        return Ok(if positive { (1.0, 10.0) } else { (0.0, 1.0) });
    }
    let absent = || curves.iter().any(|c| c.values.iter().any(|v| v.is_nan()));
    if params.null_as_zero && !positive && (low > 0.0 || high < 0.0) && absent() {
        (low, high) = (low.min(0.0), high.max(0.0));
    }
    Ok((low, high))
}
