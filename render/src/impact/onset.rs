//! The reverse question: when did a series change, and which deploys explain it?

use super::measure::{Kind, Scale, Workspace};
use super::params::Params;
use super::windows::{Scratch, mean, smaller};

/// A deploy as a possible cause. Times are indices of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its start.
    pub start: usize,
    /// Its end; its start if it took no time.
    pub end: usize,
    /// It is of the same service as the series.
    pub related: bool,
}

/// Where a series changed most sharply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Onset {
    /// The first point after the change.
    pub at: usize,
    /// The size of the change, on the scale of the series.
    pub size: f64,
    /// Comparable times at which the series changed as much by itself.
    pub like: usize,
    /// Comparable times.
    pub comparable: usize,
    /// The size over the series' own largest usual change.
    pub ratio: f64,
}

/// The point within half an hour of `guess` at which `values` changed most sharply. `values` may begin up to
/// the history of `params` before; `None` where there are too few points around the guess.
pub fn onset(values: &[f64], guess: usize, step: u32, params: &Params) -> Option<Onset> {
    let per_minute = 60.0 / f64::from(step.max(1));
    let points = |minutes: f64| ((minutes * per_minute).round_ties_even() as usize).max(1);
    let within = points(30.0);
    let near = points(params.near_minutes).max(2);
    let length = points(30.0).max(6);
    let history = (params.history_days * 24.0 * 60.0 * per_minute) as usize;
    let first = guess.saturating_sub(within + history);
    let last = values.len().min(guess + within + length);
    let mut values = values.get(first..last)?.to_vec();
    let guess = guess - first;
    let known = guess.saturating_sub(within).max(1).min(values.len());
    let mut work = Workspace::default();
    let kind = Scale::of(&mut values, known, params.trifle, &mut work).kind;
    let values = if kind == Kind::Sparse {
        &values
    } else {
        work.scaled()
    };
    let mut search = Search {
        values,
        kind,
        length,
        near,
        kappa: params.kappa,
        scratch: Scratch::default(),
    };
    let candidates = length.max(guess.saturating_sub(within))
        ..(guess + within + 1).min((values.len() + 1).saturating_sub(length));
    let sizes: Vec<(usize, f64)> = candidates.map(|at| (at, search.change(at))).collect();
    let known = |change: f64| if change.is_finite() { change } else { 0.0 };
    let (_, largest) = *sizes
        .iter()
        .rev()
        .max_by(|a, b| known(a.1).total_cmp(&known(b.1)))?;
    let largest = known(largest);
    let best: Vec<usize> = sizes
        .iter()
        .filter(|(_, size)| known(*size) >= 0.999 * largest)
        .map(|(at, _)| *at)
        .collect();
    let middle = *best.get(best.len() / 2)?;
    let until = guess.saturating_sub(within + length).max(length);
    let placebos: Vec<f64> = (length..until)
        .step_by(points(params.stride_minutes))
        .map(|at| search.change(at))
        .collect();
    let usual = search.scratch.quantile(&placebos, params.scale_quantile);
    Some(Onset {
        at: first + search.sharpen(middle),
        size: largest,
        ratio: largest / if usual > 0.0 { usual } else { 1e-12 },
        like: placebos.iter().filter(|size| **size >= largest).count(),
        comparable: placebos.len(),
    })
}

struct Search<'a> {
    values: &'a [f64],
    kind: Kind,
    length: usize,
    near: usize,
    kappa: f64,
    scratch: Scratch,
}

impl Search<'_> {
    fn level(&mut self, window: &[f64]) -> f64 {
        match self.kind {
            Kind::Sparse => mean(window),
            _ => self.scratch.level(window),
        }
    }

    /// The size of the change at `at`.
    fn change(&mut self, at: usize) -> f64 {
        let after = &self.values[at..at + self.length];
        let before = &self.values[at - self.length..at];
        let change = self.level(after) - self.level(before);
        let near = self.near.min(self.length);
        let nearby = self.level(&after[..near]) - self.level(&before[self.length - near..]);
        smaller(change, nearby, self.kappa).abs()
    }

    /// The split near `at` with the smallest absolute error of two medians.
    fn sharpen(&mut self, at: usize) -> usize {
        let reach = 3 * self.near;
        let Some(start) = at
            .checked_sub(reach)
            .filter(|_| at + reach <= self.values.len())
        else {
            return at;
        };
        let around = &self.values[start..at + reach];
        if around.iter().filter(|value| value.is_finite()).count() <= reach {
            return at;
        }
        let splits = (at - self.near.min(at)).max(self.length)
            ..=(at + self.near).min(self.values.len() - self.length);
        let mut best = (f64::INFINITY, at);
        for split in splits {
            let (before, after) = around.split_at(split - start);
            let error = self.error(before) + self.error(after);
            // Of splits that are equal but for rounding, the first.
            let error = (error * 1e9).round_ties_even();
            if error < best.0 {
                best = (error, split);
            }
        }
        best.1
    }

    fn error(&mut self, values: &[f64]) -> f64 {
        let median = self.scratch.median(values);
        let present = values.iter().filter(|value| value.is_finite());
        present.map(|value| (value - median).abs()).sum()
    }
}

/// The deploys that may explain a change that began at `at`, the likeliest first: those of the same service, then
/// the nearest. A deploy explains changes from 3 minutes before its start to 20 minutes after its end.
pub fn explain(candidates: &[Candidate], at: usize, step: u32) -> Vec<usize> {
    let minutes = |points: f64| points * f64::from(step) / 60.0;
    let since = |candidate: &Candidate| minutes(at as f64 - candidate.end as f64);
    let mut causes: Vec<usize> = (0..candidates.len())
        .filter(|index| {
            let candidate = &candidates[*index];
            let lasted = minutes(candidate.end as f64 - candidate.start as f64);
            (-3.0 - lasted..=20.0).contains(&since(candidate))
        })
        .collect();
    causes.sort_by(|a, b| {
        let (a, b) = (&candidates[*a], &candidates[*b]);
        let nearest = since(a).abs().total_cmp(&since(b).abs());
        b.related.cmp(&a.related).then(nearest)
    });
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_found_to_the_point() {
        let mut values = vec![0.0; 3_000];
        for (at, value) in values.iter_mut().enumerate() {
            *value = (at * 7 % 11) as f64 / 100.0 + if at >= 2_500 { 5.0 } else { 0.5 };
        }
        let onset = onset(&values, 2_510, 60, &Params::default()).unwrap();
        assert_eq!((onset.at, onset.like), (2_500, 0));
        assert!(onset.comparable > 100);
    }

    #[test]
    fn related_deploys_come_first_and_distant_ones_never() {
        let deploy = |start, end, related| Candidate {
            start,
            end,
            related,
        };
        let deploys = [
            deploy(100, 100, false),
            deploy(90, 95, true),
            deploy(70, 79, true),
            deploy(104, 110, true),
            deploy(101, 102, true),
        ];
        assert_eq!(explain(&deploys, 100, 60), [4, 1, 0]);
        assert_eq!(explain(&[], 100, 60), [0; 0]);
    }
}
