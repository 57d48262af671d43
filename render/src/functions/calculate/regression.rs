//! A straight line through the points of a series, by least squares.

use whisper::present;

/// `value = offset + factor · timestamp`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Line {
    /// Change per second.
    pub factor: f64,
    /// The value at the epoch.
    pub offset: f64,
}

/// The line through the present values of a series that begins at `start`; `None` if fewer than
/// two of them are there.
pub(super) fn fit(values: &[f64], start: i64, step: i64) -> Option<Line> {
    // Indexes are summed exactly, values from left to right: Python's own arithmetic.
    let (mut n, mut sum_i, mut sum_ii) = (0_i128, 0_i128, 0_i128);
    let (mut sum_v, mut sum_iv) = (0.0, 0.0);
    for (i, value) in values.iter().enumerate() {
        let Some(value) = present(*value) else {
            continue;
        };
        let index = i as i128;
        n += 1;
        sum_i += index;
        sum_ii += index * index;
        sum_v += value;
        sum_iv += index as f64 * value;
    }
    let denominator = (n * sum_ii - sum_i * sum_i) as f64;
    if denominator == 0.0 {
        return None;
    }
    let factor = (n as f64 * sum_iv - sum_i as f64 * sum_v) / denominator / step as f64;
    let offset =
        (sum_ii as f64 * sum_v - sum_iv * sum_i as f64) / denominator - factor * start as f64;
    Some(Line { factor, offset })
}

impl Line {
    /// The line's values at `n` timestamps from `start` on.
    pub(super) fn values(self, start: i64, step: i64, n: usize) -> Vec<f64> {
        (0..n as i64)
            .map(|i| self.offset + (start + i * step) as f64 * self.factor)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whisper::ABSENT;

    #[test]
    fn points_on_a_line_give_that_line() {
        let line = fit(&[1.0, ABSENT, 5.0, 7.0], 100, 10).unwrap();
        assert!((line.factor - 0.2).abs() < 1e-12);
        let values = line.values(100, 10, 3);
        assert!(
            values
                .iter()
                .zip([1.0, 3.0, 5.0])
                .all(|(a, b)| (a - b).abs() < 1e-9)
        );
    }

    #[test]
    fn one_point_has_no_direction() {
        assert_eq!(fit(&[ABSENT, 3.0], 0, 10), None);
        assert_eq!(fit(&[], 0, 10), None);
    }
}
