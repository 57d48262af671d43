//! The change that a series shows at the same time on other days, taken away where that helps.

use std::collections::BTreeMap;

use super::params::Plan;
use super::windows::Scratch;

/// The fewest placebos at one time of day, and the fewest of them that are present.
const SAME_TIME: usize = 4;
const PRESENT: usize = 3;

/// The indices of placebos and deploy by their time of day, the deploy's time first.
pub(super) fn times_of_day(plan: &Plan) -> Vec<Vec<usize>> {
    let day = plan.day.max(1);
    let mut times: BTreeMap<(bool, usize), Vec<usize>> = BTreeMap::new();
    for (index, at) in plan.at.iter().enumerate() {
        let is_other = at % day != plan.end % day;
        times.entry((is_other, at % day)).or_default().push(index);
    }
    times.into_values().collect()
}

/// Buffers of [`deseason`].
#[derive(Debug, Default)]
pub(super) struct Buffers {
    left: Vec<f64>,
    sorted: Vec<f64>,
    sizes: Vec<f64>,
    scratch: Scratch,
}

/// Subtracts from each change the median of the others at the same time of day, if that narrows the
/// placebos' changes by a tenth.
pub(super) fn deseason(changes: &mut [f64], times: &[Vec<usize>], buffers: &mut Buffers) {
    let Buffers {
        left,
        sorted,
        sizes,
        scratch,
    } = buffers;
    let deploy = changes.len() - 1;
    left.clear();
    left.resize(changes.len(), f64::NAN);
    for (n, indices) in times.iter().enumerate() {
        let placebos = indices.iter().filter(|index| **index < deploy);
        if placebos.clone().count() >= SAME_TIME {
            sorted.clear();
            sorted.extend(
                placebos
                    .map(|index| changes[*index])
                    .filter(|change| change.is_finite()),
            );
            sorted.sort_unstable_by(f64::total_cmp);
            for index in indices {
                let own = (*index < deploy).then_some(changes[*index]);
                let others = median_of_others(sorted, own.filter(|own| own.is_finite()));
                if let Some(others) = others {
                    left[*index] = changes[*index] - others;
                }
            }
        }
        // The deploy's own time is the first.
        if n == 0 && !left[deploy].is_finite() {
            return;
        }
    }
    let mut width = |changes: &[f64]| {
        sizes.clear();
        sizes.extend(changes[..deploy].iter().map(|change| change.abs()));
        scratch.quantile(sizes, 0.9)
    };
    if width(left) < 0.9 * width(changes) {
        changes.copy_from_slice(left);
    }
}

/// The median of `sorted` without `own`, which is one of them; `None` for too few.
fn median_of_others(sorted: &[f64], own: Option<f64>) -> Option<f64> {
    let place = own.and_then(|own| sorted.iter().position(|other| *other >= own));
    let place = place.unwrap_or(sorted.len());
    let n = sorted.len() - usize::from(own.is_some());
    let other = |at: usize| sorted[at + usize::from(at >= place)];
    (n >= PRESENT).then(|| (other((n - 1) / 2) + other(n / 2)) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_others_leaves_one_out() {
        let sorted = [1.0, 2.0, 2.0, 5.0];
        for (own, expected) in [
            (None, Some(2.0)),
            (Some(1.0), Some(2.0)),
            (Some(2.0), Some(2.0)),
            (Some(5.0), Some(2.0)),
        ] {
            assert_eq!(median_of_others(&sorted, own), expected);
        }
        assert_eq!(
            median_of_others(&[1.0, 3.0, 4.0, 9.0], Some(3.0)),
            Some(4.0)
        );
        assert_eq!(median_of_others(&[1.0, 3.0, 4.0], None), Some(3.0));
        assert_eq!(median_of_others(&[1.0, 3.0, 4.0], Some(3.0)), None);
    }
}
