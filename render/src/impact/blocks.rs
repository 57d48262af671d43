//! Sorted windows that overlap: each is merged from sorted blocks that it shares with others.
//!
//! Placebos lie a fixed number of points apart, and the windows around them are mostly whole multiples of that: an
//! hour before and half an hour after, every quarter of an hour. A block is sorted once and merged with its
//! neighbour once; the window before is one merge more. Sorting each window by itself takes three times as long.

use super::windows::key;

/// Stands for absent values, which come after all others.
const ABSENT: i64 = i64::MAX;
/// Shorter blocks are not worth it.
const SHORTEST: usize = 8;

/// The blocks of one series.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Points of a block; 0 for none.
    size: usize,
    /// The first point of the first block.
    offset: usize,
    /// The sorted values of each block.
    single: Vec<i64>,
    /// Those of each block and the next one together.
    pairs: Vec<i64>,
    merged: Vec<i64>,
}

impl Blocks {
    /// Whether windows of `length` points can be merged from blocks of `size`.
    pub(super) fn suit(size: usize, length: usize) -> bool {
        size >= SHORTEST && (length == 2 * size || length == 4 * size)
    }

    /// Takes over `values` as blocks of `size` points, of which one begins at `start`.
    pub(super) fn fill(&mut self, values: &[f64], size: usize, start: usize) {
        let Self {
            size: own_size,
            offset,
            single,
            pairs,
            merged: _,
        } = self;
        (*own_size, *offset) = (size, start % size);
        let keys = |value: &f64| {
            if value.is_finite() {
                key(*value)
            } else {
                ABSENT
            }
        };
        single.clear();
        single.extend(values[*offset..].iter().map(keys));
        single.truncate(single.len() / size * size);
        for block in single.chunks_exact_mut(size) {
            block.sort_unstable();
        }
        let blocks = single.len() / size;
        pairs.clear();
        pairs.resize(2 * size * blocks.saturating_sub(1), ABSENT);
        for (n, pair) in pairs.chunks_exact_mut(2 * size).enumerate() {
            let (a, b) = single[n * size..(n + 2) * size].split_at(size);
            merge(a, b, pair);
        }
    }

    /// The present values of the window of `length` points from `start` on, in ascending order; `None` if it is not
    /// made of whole blocks.
    pub(super) fn window(&mut self, start: usize, length: usize) -> Option<&[i64]> {
        let Self {
            size,
            offset,
            pairs,
            merged,
            single: _,
        } = self;
        let size = *size;
        let place = start.checked_sub(*offset)?;
        if !Self::suit(size, length) || !place.is_multiple_of(size) {
            return None;
        }
        let pair = |block: usize| pairs.get(2 * size * block..2 * size * (block + 1));
        let first = place / size;
        let keys = if length == 2 * size {
            pair(first)?
        } else {
            let (a, b) = (pair(first)?, pair(first + 2)?);
            merged.resize(length, ABSENT);
            merge(a, b, merged);
            &merged[..]
        };
        let present = match keys.last() {
            Some(&ABSENT) => keys.partition_point(|key| *key != ABSENT),
            _ => keys.len(),
        };
        Some(&keys[..present])
    }
}

/// Merges two sorted runs of equal length, from both ends at once: no step depends on which run is used up.
fn merge(a: &[i64], b: &[i64], merged: &mut [i64]) {
    let n = a.len().min(b.len());
    let (a, b, merged) = (&a[..n], &b[..n], &mut merged[..2 * n]);
    let (low, high) = merged.split_at_mut(n);
    let (mut i, mut j) = (0, 0);
    let (mut p, mut q) = (n, n);
    for (low, high) in low.iter_mut().zip(high.iter_mut().rev()) {
        let (x, y) = (a[i], b[j]);
        let is_first = x <= y;
        *low = if is_first { x } else { y };
        i += usize::from(is_first);
        j += usize::from(!is_first);
        let (x, y) = (a[p - 1], b[q - 1]);
        let is_last = y >= x;
        *high = if is_last { y } else { x };
        q -= usize::from(is_last);
        p -= usize::from(!is_last);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merged_windows_are_sorted_windows(
            values in prop::collection::vec(prop_oneof![3 => -9.0..9.0_f64, 1 => Just(f64::NAN), 1 => Just(1.0)], 40..300),
            size in SHORTEST..20,
            start in 0_usize..40,
        ) {
            let mut blocks = Blocks::default();
            blocks.fill(&values, size, start);
            for length in [size, 2 * size, 3 * size, 4 * size] {
                for at in 0..values.len() {
                    let aligned = at >= start % size && (at - start % size).is_multiple_of(size);
                    let whole = at + length <= values.len();
                    let ours = blocks.window(at, length);
                    prop_assert_eq!(ours.is_some(), aligned && whole && Blocks::suit(size, length));
                    if let Some(ours) = ours {
                        let window = values[at..at + length].iter();
                        let mut keys: Vec<i64> = window.filter(|value| value.is_finite()).map(|value| key(*value)).collect();
                        keys.sort_unstable();
                        prop_assert_eq!(ours, &keys[..]);
                    }
                }
            }
        }
    }
}
