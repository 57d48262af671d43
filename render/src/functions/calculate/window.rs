//! Moving windows: one value per position from the `points` values that end there.
//!
//! 1. Answer `j` is made of `values[j ..= j + points - 1]` shifted by one, as Graphite does it:
//!    the first window of a column of `n` values ends at index `points` (exclusive end
//!    `points + 1`), so there are `n - points` answers.
//! 2. Work that is small is done naively, in Python's order of additions, so that the last digit
//!    is Python's too. Only windows so large that this would take seconds are folded in blocks
//!    (each value added twice, in another order) or ranked.

use whisper::{ABSENT, is_absent};

use crate::aggregate::Aggregate;
use crate::budget::Budget;
use crate::error::Result;
use crate::python;

/// How many values may be looked at one by one before the faster ways are taken.
const NAIVE_WORK: usize = 1 << 26;

/// How many values the functions of this module take for a column of `n_values`, their answers
/// and what they need in passing.
pub(super) fn room(n_values: usize) -> usize {
    n_values.saturating_mul(6).max(4_096)
}

/// Folds every window of `points` values of `values`.
///
/// A window is absent when it has no value or fewer than `x_files_factor` of its points.
/// `points` of zero or less is what Python's slices make of it: windows that are empty.
///
/// # Errors
/// As [`Budget::check`].
pub(super) fn moving(
    values: &[f64],
    points: i64,
    x_files_factor: f64,
    aggregate: Aggregate,
    budget: &Budget,
) -> Result<Vec<f64>> {
    let Some(size) = usize::try_from(points).ok().filter(|&size| size > 0) else {
        // range(points + 1, n + 1) has so many members, and no window reaches any factor.
        let answers = (values.len() as i64).saturating_sub(points).max(0);
        let most = values.len().saturating_mul(2).max(4_096);
        return Ok(vec![
            ABSENT;
            usize::try_from(answers).unwrap_or(most).min(most)
        ]);
    };
    if size >= values.len() {
        return Ok(Vec::new());
    }
    let answers = values.len() - size;
    let windows = &values[1..];
    let orderly = |v: &f64| !v.is_nan() || is_absent(*v);
    if answers.saturating_mul(size) > NAIVE_WORK
        && values.iter().all(orderly)
        && let Some(answers) = large(windows, size, x_files_factor, aggregate)
    {
        return Ok(answers);
    }
    let mut present = Vec::with_capacity(size);
    let mut pace = budget.pace();
    windows
        .windows(size)
        .map(|window| {
            pace.check_after(size)?;
            present.clear();
            present.extend(window.iter().copied().filter(|&v| !is_absent(v)));
            Ok(if enough(present.len(), size, x_files_factor) {
                aggregate.of(&present)
            } else {
                ABSENT
            })
        })
        .collect()
}

/// Whether `known` of `total` values make a point.
fn enough(known: usize, total: usize, x_files_factor: f64) -> bool {
    known > 0 && known as f64 / total as f64 >= x_files_factor
}

/// The same without looking at every value of every window; `None` for aggregations that are
/// neither associative nor a rank.
fn large(
    windows: &[f64],
    size: usize,
    x_files_factor: f64,
    aggregate: Aggregate,
) -> Option<Vec<f64>> {
    let known = counts(windows, size);
    let folded = |neutral: f64, fold: fn(f64, f64) -> f64| blocks(windows, size, neutral, fold);
    let sum = || folded(0.0, |a, b| a + b);
    let (min, max) = (
        || folded(f64::INFINITY, f64::min),
        || folded(f64::NEG_INFINITY, f64::max),
    );
    let mut answers = match aggregate {
        Aggregate::Sum => sum(),
        Aggregate::Average | Aggregate::AvgZero => sum()
            .iter()
            .zip(&known)
            .map(|(sum, &known)| sum / known as f64)
            .collect(),
        Aggregate::Min => min(),
        Aggregate::Max => max(),
        Aggregate::Range => max()
            .iter()
            .zip(min())
            .map(|(max, min)| max - min)
            .collect(),
        Aggregate::Count => known.iter().map(|&known| known as f64).collect(),
        Aggregate::Median => medians(windows, size),
        _ => return None,
    };
    for (answer, known) in answers.iter_mut().zip(known) {
        if !enough(known, size, x_files_factor) {
            *answer = ABSENT;
        }
    }
    Some(answers)
}

/// How many values each window has.
fn counts(windows: &[f64], size: usize) -> Vec<usize> {
    let mut known = windows[..size].iter().filter(|v| !is_absent(**v)).count();
    let mut counts = Vec::with_capacity(windows.len() + 1 - size);
    counts.push(known);
    for (gone, come) in windows.iter().zip(&windows[size..]) {
        known += usize::from(!is_absent(*come));
        known -= usize::from(!is_absent(*gone));
        counts.push(known);
    }
    counts
}

/// Folds each window from two halves: what is left of the block it starts in, and what it has
/// reached of the next one. Nothing is ever taken out again, so infinities do no harm.
fn blocks(windows: &[f64], size: usize, neutral: f64, fold: fn(f64, f64) -> f64) -> Vec<f64> {
    let value = |v: &f64| if is_absent(*v) { neutral } else { *v };
    let mut to_end: Vec<f64> = windows.iter().map(value).collect();
    let mut from_start = to_end.clone();
    for block in to_end.chunks_mut(size) {
        for i in (0..block.len().saturating_sub(1)).rev() {
            block[i] = fold(block[i], block[i + 1]);
        }
    }
    for block in from_start.chunks_mut(size) {
        for i in 1..block.len() {
            block[i] = fold(block[i - 1], block[i]);
        }
    }
    (0..=windows.len() - size)
        .map(|at| {
            if at % size == 0 {
                to_end[at]
            } else {
                fold(to_end[at], from_start[at + size - 1])
            }
        })
        .collect()
}

/// The median of each window, by a tree that counts how many values of each rank are inside.
fn medians(windows: &[f64], size: usize) -> Vec<f64> {
    let mut sorted: Vec<f64> = windows.iter().copied().filter(|v| !is_absent(*v)).collect();
    python::sort(&mut sorted);
    sorted.dedup();
    let rank = |value: f64| sorted.partition_point(|known| *known < value);
    let mut tree = Ranks::new(sorted.len());
    let median = |tree: &Ranks| match tree.inside {
        0 => ABSENT,
        inside if inside % 2 == 1 => sorted[tree.nth(inside / 2)],
        inside => (sorted[tree.nth(inside / 2 - 1)] + sorted[tree.nth(inside / 2)]) / 2.0,
    };
    let mut answers = Vec::with_capacity(windows.len() + 1 - size);
    for (at, &come) in windows.iter().enumerate() {
        if !is_absent(come) {
            tree.add(rank(come), 1);
        }
        if at + 1 >= size {
            answers.push(median(&tree));
            let gone = windows[at + 1 - size];
            if !is_absent(gone) {
                tree.add(rank(gone), -1);
            }
        }
    }
    answers
}

/// A Fenwick tree of counts by rank.
struct Ranks {
    counts: Vec<i64>,
    inside: usize,
}

impl Ranks {
    fn new(ranks: usize) -> Self {
        Self {
            counts: vec![0; ranks + 1],
            inside: 0,
        }
    }

    fn add(&mut self, rank: usize, by: i64) {
        self.inside = self.inside.saturating_add_signed(by as isize);
        let mut at = rank + 1;
        while at < self.counts.len() {
            self.counts[at] += by;
            at += at & at.wrapping_neg();
        }
    }

    /// The rank of the `n`th smallest value inside, counted from zero.
    fn nth(&self, n: usize) -> usize {
        let mut left = n as i64;
        let mut at = 0;
        let mut jump = self.counts.len().next_power_of_two();
        while jump > 0 {
            let next = at + jump;
            if next < self.counts.len() && self.counts[next] <= left {
                left -= self.counts[next];
                at = next;
            }
            jump /= 2;
        }
        at
    }
}

/// Graphite's moving deviation: over the last `points` values, once `tolerance` of them are there,
/// from a running sum and a running sum of squares.
pub(super) fn deviation(values: &[f64], points: usize, tolerance: f64) -> Vec<f64> {
    if points == 0 {
        // No window ever holds a value.
        return vec![ABSENT; values.len()];
    }
    let (mut valid, mut sum, mut squares) = (0_usize, 0.0, 0.0);
    values
        .iter()
        .enumerate()
        .map(|(at, &value)| {
            let dropped = at.checked_sub(points).map_or(ABSENT, |at| values[at]);
            if !is_absent(dropped) {
                valid -= 1;
                sum -= dropped;
                squares -= python::square(dropped);
            }
            if !is_absent(value) {
                valid += 1;
                sum += value;
                squares += python::square(value);
            }
            if valid == 0 || (valid as f64 / points as f64) < tolerance {
                return ABSENT;
            }
            let variance = valid as f64 * squares - python::square(sum);
            if variance < 0.0 {
                // Rounding can take a constant series below zero.
                ABSENT
            } else {
                variance.sqrt() / valid as f64
            }
        })
        .collect()
}

/// Python's `values[:end]`, where a negative end counts from the back.
pub(super) fn head(values: &[f64], end: i64) -> &[f64] {
    let end = if end < 0 {
        end.saturating_add(values.len() as i64).max(0)
    } else {
        end
    };
    &values[..usize::try_from(end).unwrap_or(usize::MAX).min(values.len())]
}

/// Graphite's exponential moving average: the mean of the first `points` values, and from there
/// on each present value with `weight`; rounded to six decimals.
pub(super) fn exponential(values: &[f64], points: i64, weight: f64) -> Vec<f64> {
    let seed = Aggregate::Average.of(head(values, points));
    let mut average = if is_absent(seed) { 0.0 } else { seed };
    let mut averages = vec![python::round(average, 6)];
    // Points below zero are counted from the end, and the values there taken twice.
    let before = usize::try_from(points.saturating_neg())
        .unwrap_or(0)
        .min(values.len());
    let wrapped = &values[values.len() - before..];
    let from = usize::try_from(points).unwrap_or(0).min(values.len());
    for &value in wrapped.iter().chain(&values[from..]) {
        if is_absent(value) {
            averages.push(ABSENT);
            continue;
        }
        average = weight * value + (1.0 - weight) * average;
        averages.push(python::round(average, 6));
    }
    averages
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn moving(values: &[f64], points: i64, x_files_factor: f64, by: Aggregate) -> Vec<f64> {
        super::moving(values, points, x_files_factor, by, &Budget::unlimited()).unwrap()
    }

    fn shown(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().map(|&v| whisper::present(v)).collect()
    }

    #[test]
    fn the_first_window_ends_one_point_after_its_size() {
        let values = [1.0, 2.0, ABSENT, 4.0, 5.0];
        let moved = moving(&values, 2, 0.0, Aggregate::Sum);
        assert_eq!(shown(&moved), [Some(2.0), Some(4.0), Some(9.0)]);
        let moved = moving(&values, 2, 0.6, Aggregate::Sum);
        assert_eq!(shown(&moved), [None, None, Some(9.0)]);
    }

    #[test]
    fn odd_sizes_are_survived() {
        let values = [1.0, 2.0];
        assert_eq!(shown(&moving(&values, 0, 0.0, Aggregate::Sum)), [None; 2]);
        assert_eq!(shown(&moving(&values, -1, 0.0, Aggregate::Sum)), [None; 3]);
        assert_eq!(
            shown(&moving(&values, -50, 0.0, Aggregate::Sum)),
            [None; 52]
        );
        assert_eq!(moving(&values, i64::MIN, 0.0, Aggregate::Sum).len(), 4_096);
        assert!(moving(&values, i64::MAX, 0.0, Aggregate::Sum).is_empty());
        assert!(moving(&[], 5, 0.0, Aggregate::Sum).is_empty());
        assert_eq!(exponential(&values, i64::MIN, 0.5).len(), 5);
        assert_eq!(exponential(&[], i64::MAX, 0.5), [0.0]);
    }

    #[test]
    fn newer_values_weigh_more() {
        let averages = exponential(&[1.0, 3.0, 4.0, ABSENT, 8.0], 2, 0.5);
        assert_eq!(shown(&averages), [Some(2.0), Some(3.0), None, Some(5.5)]);
    }

    #[test]
    fn a_deviation_needs_its_share_of_points() {
        let deviations = deviation(&[1.0, 3.0, ABSENT, 5.0], 2, 1.0);
        assert_eq!(shown(&deviations), [None, Some(1.0), None, None]);
        let deviations = deviation(&[1.0, 3.0], 100, 0.0);
        assert_eq!(shown(&deviations), [Some(0.0), Some(1.0)]);
    }

    proptest! {
        /// The ways for large windows give what looking at every value gives.
        #[test]
        fn large_windows_equal_small_ones(
            values in prop::collection::vec(
                prop_oneof![Just(ABSENT), -9.0..9.0_f64, Just(2.0)],
                3..60,
            ),
            size in 1_usize..20,
            xff in 0.0..1.0_f64,
        ) {
            prop_assume!(size < values.len());
            for aggregate in [
                Aggregate::Sum, Aggregate::Average, Aggregate::AvgZero, Aggregate::Min,
                Aggregate::Max, Aggregate::Range, Aggregate::Count, Aggregate::Median,
            ] {
                let naive = moving(&values, size as i64, xff, aggregate);
                let fast = large(&values[1..], size, xff, aggregate).unwrap();
                prop_assert_eq!(naive.len(), fast.len());
                for (a, b) in naive.iter().zip(&fast) {
                    let equal = is_absent(*a) && is_absent(*b) || (a - b).abs() < 1e-9;
                    prop_assert!(equal, "{:?}: {} {}", aggregate, a, b);
                }
            }
        }
    }
}
