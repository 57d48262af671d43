//! How rare a change is among the changes that series show by themselves.

use super::params::{Params, Plan};
use super::windows::quantile_of_sorted;

/// The changes of one series compared with its own placebos. Index by placebo; the deploy is the last.
#[derive(Clone, Debug)]
pub(super) struct Scored {
    /// The size of the change over the series' own large change.
    pub(super) ratio: Vec<f64>,
    /// Placebos with a change at least as large.
    pub(super) like: Vec<u32>,
    /// Placebos compared with.
    pub(super) placebos: Vec<u32>,
    /// The change is known.
    pub(super) present: Vec<bool>,
    /// The series' own large change, by which the deploy's is divided.
    pub(super) scale: f64,
}

/// Scores `changes`. A placebo is compared with those of other parts of the history only: its
/// neighbours share its points.
pub(super) fn score(changes: &[f64], floor: f64, plan: &Plan, quantile: f64) -> Scored {
    let deploy = plan.placebos();
    let mut own: Vec<(f64, usize)> = changes[..deploy]
        .iter()
        .zip(&plan.part)
        .filter(|(change, _)| change.is_finite())
        .map(|(change, part)| (change.abs(), *part))
        .collect();
    own.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut scored = Scored {
        ratio: vec![0.0; deploy + 1],
        like: vec![0; deploy + 1],
        placebos: vec![0; deploy + 1],
        present: changes.iter().map(|change| change.is_finite()).collect(),
        scale: f64::NAN,
    };
    let mut others = Vec::with_capacity(own.len());
    // Placebos of one part follow each other.
    let mut start = 0;
    while start < deploy {
        let part = plan.part[start];
        let length = plan.part[start..]
            .iter()
            .take_while(|p| **p == part)
            .count();
        others.clear();
        let rest = own.iter().filter(|(_, other)| *other != part);
        others.extend(rest.map(|(change, _)| *change));
        let own = changes.iter().enumerate().skip(start).take(length);
        for (index, change) in own {
            scored.put(index, change.abs(), &others, floor, quantile);
        }
        start += length;
    }
    others.clear();
    others.extend(own.iter().map(|(change, _)| *change));
    let last = changes[deploy];
    let size = if last.is_finite() { last.abs() } else { 0.0 };
    scored.put(deploy, size, &others, floor, quantile);
    scored.scale = quantile_of_sorted(&others, quantile) + floor;
    scored
}

impl Scored {
    fn put(&mut self, index: usize, size: f64, others: &[f64], floor: f64, quantile: f64) {
        let ratio = size / (quantile_of_sorted(others, quantile) + floor);
        self.ratio[index] = if ratio.is_nan() { 0.0 } else { ratio };
        if size > 0.0 {
            let smaller = others.partition_point(|other| *other < size);
            self.like[index] = (others.len() - smaller) as u32;
        }
        self.placebos[index] = others.len() as u32;
    }

    /// The series did as much by itself too often for a finding at `index`.
    pub(super) fn usual(&self, index: usize, params: &Params) -> bool {
        f64::from(self.like[index]) > params.cap * f64::from(self.placebos[index])
    }
}

/// The probability that a ratio is at least so large, over all series: counted, and a power law
/// beyond the last 1/2000.
#[derive(Debug)]
pub(super) struct Tail {
    pool: Vec<f64>,
    from: f64,
    share: f64,
    exponent: f64,
}

impl Tail {
    pub(super) fn new(mut pool: Vec<f64>) -> Self {
        const LEAST: f64 = 1e-12;
        pool.sort_unstable_by(f64::total_cmp);
        let n = pool.len();
        let count = n.min((n / 2_000).max(20));
        let beyond = &pool[n - count..];
        let from = beyond.first().map_or(LEAST, |first| first.max(LEAST));
        let logs = beyond.iter().map(|ratio| (ratio.max(LEAST) / from).ln());
        let mean = logs.sum::<f64>() / count.max(1) as f64;
        Self {
            share: count as f64 / n.max(1) as f64,
            exponent: 1.0 / mean.max(1e-6),
            from,
            pool,
        }
    }

    pub(super) fn beyond(&self, ratio: f64) -> f64 {
        let n = self.pool.len();
        if n == 0 {
            return 1.0;
        }
        if ratio > self.from {
            return self.share * (ratio / self.from).powf(-self.exponent);
        }
        let smaller = self.pool.partition_point(|other| *other < ratio);
        ((n - smaller) as f64 / n as f64).max(1.0 / n as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_falls() {
        // A power law: the share beyond r is 1/r.
        let tail = Tail::new((1..=10_000).map(|n| 10_000.0 / f64::from(n)).collect());
        let mut last = 1.0;
        for ratio in [0.0, 1.0, 2.0, 10.0, 400.0, 600.0, 10_000.0, 1e6] {
            let share = tail.beyond(ratio);
            assert!(
                share > 0.0 && share <= last,
                "{ratio}: {share} after {last}"
            );
            last = share;
        }
        assert_eq!(Tail::new(Vec::new()).beyond(3.0), 1.0);
    }
}
