//! Sorting networks: many short windows of equal length are sorted at once, without a branch that depends on a value.
//!
//! The windows lie side by side in lanes, and each step compares the same two places of all of them, which compilers
//! turn into vector instructions. Sorting each window by itself takes five times as long.

/// Windows that are sorted at once.
pub(super) const LANES: usize = 8;
/// Stands for absent values, which come after all others.
pub(super) const ABSENT: f64 = f64::INFINITY;
/// Values of the same place in each window.
pub(super) type Row = [f64; LANES];

/// The places to compare, in this order: the smaller value goes to the first of the two.
#[derive(Clone, Debug, Default)]
pub(super) struct Network(Vec<(usize, usize)>);

impl Network {
    /// Sorts `length` values: Batcher's merge exchange (Knuth, volume 3, 5.2.2, algorithm M).
    pub(super) fn sorting(length: usize) -> Self {
        let mut pairs = Vec::new();
        let top = length.next_power_of_two() / 2;
        let mut p = top;
        while p > 0 {
            let (mut q, mut r, mut d) = (top, 0, p);
            loop {
                let at = 0..length.saturating_sub(d);
                pairs.extend(at.filter(|at| at & p == r).map(|at| (at, at + d)));
                if q == p {
                    break;
                }
                (d, q, r) = (q - p, q / 2, p);
            }
            p /= 2;
        }
        Self(pairs)
    }

    /// Merges two sorted runs of `half` values, a power of two, of which one follows the other: Batcher's
    /// odd-even merge.
    pub(super) fn merging(half: usize) -> Self {
        let mut pairs = Vec::new();
        let length = 2 * half;
        let mut distance = half;
        while distance > 0 {
            // Of the largest distance, the halves' places face each other; of smaller ones, those in between.
            if distance == half {
                pairs.extend((0..half).map(|at| (at, at + half)));
            } else {
                let groups = (distance..length - distance).step_by(2 * distance);
                pairs.extend(
                    groups.flat_map(|from| (from..from + distance).map(|at| (at, at + distance))),
                );
            }
            distance /= 2;
        }
        Self(pairs)
    }

    /// Sorts, or merges, the values of each lane of `rows`. No value may be NaN.
    pub(super) fn run(&self, rows: &mut [Row]) {
        for (a, b) in &self.0 {
            let (first, second) = (rows[*a], rows[*b]);
            for lane in 0..LANES {
                let (x, y) = (first[lane], second[lane]);
                rows[*a][lane] = if x < y { x } else { y };
                rows[*b][lane] = if x > y { x } else { y };
            }
        }
    }
}

/// Puts the present ones of `values` into a lane, one for each of `rows`, and returns how many they are.
pub(super) fn load(values: &[f64], rows: &mut [Row], lane: usize) -> usize {
    let mut absent = 0;
    for (row, value) in rows.iter_mut().zip(values) {
        let is_absent = !value.is_finite();
        row[lane] = if is_absent { ABSENT } else { *value };
        absent += usize::from(is_absent);
    }
    rows.len() - absent
}

/// The level of each lane of sorted `rows`, of which so many values are `present`.
pub(super) fn levels(rows: &[Row], present: &[usize; LANES]) -> Row {
    let length = rows.len();
    if present.iter().all(|present| *present == length) && length > 0 {
        let quarter = length / 4;
        let mut sum = [0.0; LANES];
        let mut add = |rows: &[Row]| {
            for row in rows {
                for (sum, value) in sum.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            sum
        };
        let below = add(&rows[..quarter]);
        let mut level = add(&rows[quarter..length - quarter]);
        let n = (length - 2 * quarter).max(1) as f64;
        for (level, below) in level.iter_mut().zip(&below) {
            *level = (*level - below) / n;
        }
        return level;
    }
    std::array::from_fn(|lane| {
        let n = present[lane];
        if 2 * n < length.max(2) {
            return f64::NAN;
        }
        let quarter = n / 4;
        let add = |sum: f64, row: &Row| sum + row[lane];
        let below = rows[..quarter].iter().fold(0.0, add);
        let sum = rows[quarter..n - quarter].iter().fold(below, add);
        (sum - below) / (n - 2 * quarter).max(1) as f64
    })
}

/// Half the distance between the quartiles of each lane.
pub(super) fn spreads(rows: &[Row], present: &[usize; LANES]) -> Row {
    std::array::from_fn(|lane| {
        let n = present[lane];
        if 2 * n < rows.len() || n == 0 {
            return f64::NAN;
        }
        (rows[(3 * n / 4).min(n - 1)][lane] - rows[n / 4][lane]) / 2.0
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::impact::windows::Scratch;

    fn sorted(mut values: Vec<f64>) -> Vec<f64> {
        values.sort_by(f64::total_cmp);
        values
    }

    proptest! {
        #[test]
        fn networks_sort_and_merge(values in prop::collection::vec(-9..9_i32, 1..70), half in 0..6_u32) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let mut rows: Vec<Row> = values.iter().map(|value| [*value; LANES]).collect();
            Network::sorting(rows.len()).run(&mut rows);
            let lane: Vec<f64> = rows.iter().map(|row| row[LANES - 1]).collect();
            prop_assert_eq!(lane, sorted(values.clone()));

            let half = 1 << half;
            let mut runs = values.chunks(half).map(|run| sorted(run.to_vec()));
            let (mut a, mut b) = (runs.next().unwrap_or_default(), runs.next().unwrap_or_default());
            a.resize(half, ABSENT);
            b.resize(half, ABSENT);
            let both = [a, b].concat();
            let mut rows: Vec<Row> = both.iter().map(|value| [*value; LANES]).collect();
            Network::merging(half).run(&mut rows);
            let lane: Vec<f64> = rows.iter().map(|row| row[0]).collect();
            prop_assert_eq!(lane, sorted(both));
        }

        #[test]
        fn lanes_have_the_level_of_their_window(
            values in prop::collection::vec(prop_oneof![4 => -9.0..9.0_f64, 1 => Just(f64::NAN)], 1..64),
        ) {
            let mut rows = vec![[0.0; LANES]; values.len()];
            let mut present = [0; LANES];
            // Every other lane has all values.
            let whole: Vec<f64> = values.iter().map(|value| if value.is_nan() { 1.0 } else { *value }).collect();
            for (lane, present) in present.iter_mut().enumerate() {
                *present = load(if lane % 2 == 0 { &values } else { &whole }, &mut rows, lane);
            }
            Network::sorting(values.len()).run(&mut rows);
            let (levels, spreads) = (levels(&rows, &present), spreads(&rows, &present));
            for (lane, window) in [&values, &whole].into_iter().enumerate() {
                let shape = Scratch::default().shape(window);
                prop_assert_eq!(levels[lane].to_bits(), shape.level.to_bits());
                prop_assert_eq!(spreads[lane].to_bits(), shape.spread.to_bits());
            }
        }
    }
}
