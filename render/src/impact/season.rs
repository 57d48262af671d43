//! The change that a series shows at the same time on other days, taken away where that helps.

use std::collections::BTreeMap;

use super::params::Plan;
use super::windows::{Scratch, median_of_sorted};

/// The fewest placebos at one time of day, and the fewest of them that are present.
const SAME_TIME: usize = 4;
const PRESENT: usize = 3;

/// The indices of placebos and deploy by their time of day.
pub(super) fn times_of_day(plan: &Plan) -> Vec<Vec<usize>> {
    let mut times: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, at) in plan.at.iter().enumerate() {
        times.entry(at % plan.day.max(1)).or_default().push(index);
    }
    times.into_values().collect()
}

/// Subtracts from each change the median of the others at the same time of day, if that narrows the
/// placebos' changes by a tenth.
pub(super) fn deseason(changes: &mut Vec<f64>, times: &[Vec<usize>], scratch: &mut Scratch) {
    let deploy = changes.len() - 1;
    let mut left = vec![f64::NAN; changes.len()];
    let mut others: Vec<(f64, usize)> = Vec::new();
    let mut sorted = Vec::new();
    for indices in times {
        let placebos = indices.iter().filter(|index| **index < deploy);
        if placebos.clone().count() < SAME_TIME {
            continue;
        }
        others.clear();
        others.extend(placebos.map(|index| (changes[*index], *index)));
        others.retain(|(change, _)| change.is_finite());
        others.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        for index in indices {
            sorted.clear();
            let rest = others.iter().filter(|(_, other)| other != index);
            sorted.extend(rest.map(|(change, _)| *change));
            if sorted.len() >= PRESENT {
                left[*index] = changes[*index] - median_of_sorted(&sorted);
            }
        }
    }
    if !left[deploy].is_finite() {
        return;
    }
    let mut width = |changes: &[f64]| {
        let sizes: Vec<f64> = changes[..deploy]
            .iter()
            .map(|change| change.abs())
            .collect();
        scratch.quantile(&sizes, 0.9)
    };
    if width(&left) < 0.9 * width(changes) {
        *changes = left;
    }
}
