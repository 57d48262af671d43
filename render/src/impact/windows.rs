//! Statistics of one window of a series, absent values (NaN) left out.
//!
//! Sums run over the sorted values from the smallest on: windows that hold the same values have the same
//! level to the last bit, so that equal changes count as equal.

use std::ops::Range;

/// Buffers that the statistics share, so that a window allocates nothing.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Values as whole numbers in the same order: sorting those takes half the time.
    keys: Vec<i64>,
}

/// A whole number for `value`; of two values the smaller has the smaller one, and no finite value has the largest of
/// all.
fn key(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

/// The value of a key.
fn value_of(key: i64) -> f64 {
    f64::from_bits((key ^ (((key >> 63) as u64) >> 1) as i64) as u64)
}

/// Level and spread of a window.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// The mean of the middle half.
    pub(super) level: f64,
    /// Half the distance between the quartiles.
    pub(super) spread: f64,
}

impl Shape {
    /// Of the present values of a window of `length` points, sorted; each absent with fewer than half of the points.
    fn of(sorted: &[i64], length: usize) -> Self {
        let n = sorted.len();
        let spread = if 2 * n >= length && n > 0 {
            (value_of(sorted[(3 * n / 4).min(n - 1)]) - value_of(sorted[n / 4])) / 2.0
        } else {
            f64::NAN
        };
        Self {
            level: level(sorted, length),
            spread,
        }
    }
}

/// The mean of the middle half of the present values of a window of `length` points, sorted; absent with fewer than
/// half of the points.
fn level(sorted: &[i64], length: usize) -> f64 {
    if 2 * sorted.len() < length.max(2) {
        return f64::NAN;
    }
    middle(sorted)
}

impl Scratch {
    /// The present values of `window`.
    fn collect(&mut self, window: &[f64]) -> &mut [i64] {
        self.keys.clear();
        let present = window.iter().filter(|value| value.is_finite());
        self.keys.extend(present.map(|value| key(*value)));
        &mut self.keys
    }

    /// The present values of `window` in ascending order.
    fn sort(&mut self, window: &[f64]) -> &[i64] {
        let keys = self.collect(window);
        keys.sort_unstable();
        keys
    }

    /// The mean of the middle half of `window`; absent with fewer than half of its points.
    pub(super) fn level(&mut self, window: &[f64]) -> f64 {
        level(self.sort(window), window.len())
    }

    /// Level and spread of `window`; each absent with fewer than half of its points.
    pub(super) fn shape(&mut self, window: &[f64]) -> Shape {
        Shape::of(self.sort(window), window.len())
    }

    /// The quantile `q` (0 to 1) of `values`, between neighbours in proportion; NaN for none.
    pub(super) fn quantile(&mut self, values: &[f64], q: f64) -> f64 {
        let keys = self.collect(values);
        let Some(last) = keys.len().checked_sub(1) else {
            return f64::NAN;
        };
        let rank = (q * last as f64).max(0.0);
        let low = rank.floor() as usize;
        let (a, b) = neighbours(keys, low);
        a + (b - a) * (rank - low as f64)
    }

    /// The median of `values`; NaN for none.
    pub(super) fn median(&mut self, values: &[f64]) -> f64 {
        let keys = self.collect(values);
        let Some(last) = keys.len().checked_sub(1) else {
            return f64::NAN;
        };
        let (a, b) = neighbours(keys, last / 2);
        (a + if last % 2 == 0 { a } else { b }) / 2.0
    }
}

/// The value number `at` in ascending order, and the next one, or the same again if it is the last.
fn neighbours(keys: &mut [i64], at: usize) -> (f64, f64) {
    let (_, low, above) = keys.select_nth_unstable(at);
    let next = above.iter().copied().min().unwrap_or(*low);
    (value_of(*low), value_of(next))
}

/// The sum of the middle half of sorted values over its number.
fn middle(sorted: &[i64]) -> f64 {
    let n = sorted.len();
    let quarter = n / 4;
    let add = |sum: f64, key: &i64| sum + value_of(*key);
    let below = sorted[..quarter].iter().fold(0.0, add);
    let sum = sorted[quarter..n - quarter].iter().fold(below, add);
    (sum - below) / (n - 2 * quarter).max(1) as f64
}

/// The mean of `window`; absent with fewer than half of its points.
pub(super) fn mean(window: &[f64]) -> f64 {
    let (mut n, mut sum) = (0_usize, 0.0);
    for value in window.iter().filter(|value| value.is_finite()) {
        n += 1;
        sum += value;
    }
    if 2 * n >= window.len().max(2) {
        sum / n.max(1) as f64
    } else {
        f64::NAN
    }
}

/// How many values of a series are present up to each point, and their sums.
#[derive(Debug, Default)]
pub(super) struct Counts {
    present: Vec<u32>,
    sums: Vec<f64>,
}

impl Counts {
    /// Takes over `values`.
    pub(super) fn count(&mut self, values: &[f64]) {
        self.present.clear();
        self.sums.clear();
        let (mut present, mut sum) = (0, 0.0);
        self.present.push(present);
        self.sums.push(sum);
        for value in values {
            if value.is_finite() {
                present += 1;
                sum += value;
            }
            self.present.push(present);
            self.sums.push(sum);
        }
    }

    /// How many values of `window` are present.
    pub(super) fn present(&self, window: Range<usize>) -> usize {
        (self.present[window.end] - self.present[window.start]) as usize
    }

    /// As [`mean`] of `values` in `window`, which are the values that were counted, whole numbers from 0 on.
    pub(super) fn mean(&self, values: &[f64], window: Range<usize>) -> f64 {
        // Sums of whole numbers are exact up to here, differences of them too.
        const EXACT: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
        if self.sums.last().is_none_or(|sum| *sum >= EXACT) {
            return mean(&values[window]);
        }
        let (n, length) = (self.present(window.clone()), window.len());
        let sum = self.sums[window.end] - self.sums[window.start];
        if 2 * n >= length.max(2) {
            sum / n.max(1) as f64
        } else {
            f64::NAN
        }
    }
}

/// The share of the points of `window` that are present.
pub(super) fn presence(window: &[f64]) -> f64 {
    let present = window.iter().filter(|value| value.is_finite()).count();
    present as f64 / window.len() as f64
}

/// -1, 0 or 1; NaN for NaN. Unlike [`f64::signum`], the answer for 0 is 0.
pub(super) fn polarity(value: f64) -> f64 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

/// The change on which `change` and `other` agree: 0 where their signs differ, else at most `kappa`
/// times `other`. An absent `other` has no vote.
pub(super) fn smaller(change: f64, other: f64, kappa: f64) -> f64 {
    if !other.is_finite() {
        return change;
    }
    if polarity(other) == polarity(change) {
        polarity(change) * change.abs().min(kappa * other.abs())
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: f64 = f64::NAN;

    #[test]
    fn levels_need_half_of_their_points() {
        let mut scratch = Scratch::default();
        assert_eq!(scratch.level(&[1.0, 2.0, 3.0, 100.0]), 2.5);
        assert_eq!(scratch.level(&[1.0, NONE, NONE, 3.0]), 2.0);
        assert!(scratch.level(&[1.0, NONE, NONE, NONE]).is_nan());
        assert_eq!(scratch.level(&[1.0]), 1.0);
        assert!(scratch.level(&[]).is_nan());
        let shape = scratch.shape(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!((shape.level, shape.spread), (3.5, 2.0));
    }

    #[test]
    fn keys_are_in_the_order_of_their_values() {
        let mut values = [3.5, -0.0, f64::MAX, -2.0, 0.0, f64::MIN, 1e-300, -1e-300];
        let mut keys: Vec<i64> = values.iter().map(|value| key(*value)).collect();
        values.sort_unstable_by(f64::total_cmp);
        keys.sort_unstable();
        let back: Vec<f64> = keys.into_iter().map(value_of).collect();
        assert!(
            back.iter()
                .zip(&values)
                .all(|(a, b)| a.to_bits() == b.to_bits())
        );
    }

    #[test]
    fn quantiles_lie_between_neighbours() {
        let mut scratch = Scratch::default();
        assert_eq!(scratch.quantile(&[3.0, NONE, 1.0, 2.0], 0.25), 1.5);
        assert_eq!(scratch.median(&[4.0, 1.0, NONE, 2.0, 3.0]), 2.5);
        assert!(scratch.quantile(&[], 0.5).is_nan() && scratch.median(&[NONE]).is_nan());
    }

    #[test]
    fn windows_vote_by_sign_and_size() {
        assert_eq!(smaller(3.0, 1.0, 1.5), 1.5);
        assert_eq!(smaller(-3.0, -4.0, 1.5), -3.0);
        assert_eq!(smaller(3.0, -1.0, 1.5), 0.0);
        assert_eq!(smaller(3.0, 0.0, 1.5), 0.0);
        assert_eq!(smaller(3.0, NONE, 1.5), 3.0);
        // A level that is absent while its neighbours are present is no change.
        assert_eq!(smaller(NONE, 1.0, 1.5), 0.0);
        assert!(smaller(NONE, NONE, 1.5).is_nan());
    }

    #[test]
    fn means_and_presence() {
        assert_eq!(mean(&[1.0, NONE, 3.0]), 2.0);
        assert!(mean(&[1.0, NONE, NONE]).is_nan());
        assert_eq!(presence(&[1.0, NONE, NONE, 4.0]), 0.5);
        assert_eq!((polarity(0.0), polarity(-2.0)), (0.0, -1.0));
    }
}
