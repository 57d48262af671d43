//! One series: the scale that it is judged on, and how much it changed at the deploy and at each placebo.

use super::blocks::Blocks;
use super::params::{Params, Plan};
use super::windows::{Scratch, Shape, level, mean, presence, smaller};

/// What the values of a series are like, which decides the scale of its changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Whole numbers with a mean below 3 a point: 2·sqrt(mean).
    Sparse,
    /// Other whole numbers that scatter like counts: 2·sqrt(x + 3/8).
    Count,
    /// Positive and spread over more than a factor of 2: the logarithm.
    Log,
    /// All others, as they are.
    Plain,
}

/// The change of a series at the level `before` that is `change` on the scale of `kind`, in its own unit.
pub(super) fn in_its_unit(kind: Kind, before: f64, change: f64) -> f64 {
    match kind {
        Kind::Plain => change,
        Kind::Log => before * change.exp_m1(),
        Kind::Count => ((before + 0.375).sqrt() + change / 2.0).max(0.0).powi(2) - 0.375 - before,
        Kind::Sparse => (before.max(0.0).sqrt() + change / 2.0).max(0.0).powi(2) - before,
    }
}

/// The changes of one series.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) kind: Kind,
    /// The change on which all windows agree, studentised; the deploy's is the last.
    pub(super) change: Vec<f64>,
    /// The level after minus the level before.
    pub(super) effect: Vec<f64>,
    /// The change of the share of points that are present, 0 below a third.
    pub(super) presence: Vec<f64>,
    /// Changes of this size are trifles.
    pub(super) floor: f64,
    /// The level before the deploy, in the unit of the series.
    pub(super) before: f64,
    /// The level after the deploy.
    pub(super) after: f64,
    /// How many points are present.
    pub(super) present: usize,
}

/// Buffers for one series after another.
#[derive(Debug, Default)]
pub(super) struct Workspace {
    scratch: Scratch,
    scaled: Vec<f64>,
    values: Vec<f64>,
    /// What windows before and after are merged from.
    blocks: [Blocks; 2],
}

impl Workspace {
    /// The values on the scale of the series that was measured last; empty for sparse ones.
    pub(super) fn scaled(&self) -> &[f64] {
        &self.scaled
    }
}

/// The changes of the series `values`, one for each point of `plan.points`.
pub(super) fn measure(
    values: &mut [f64],
    plan: &Plan,
    params: &Params,
    work: &mut Workspace,
) -> Measured {
    let present = values.iter().filter(|value| value.is_finite()).count();
    let scale = Scale::of(values, plan.end, params.trifle, work);
    let Workspace {
        scratch,
        scaled,
        values: magnitudes,
        blocks,
    } = work;
    let series = Windows {
        values,
        plan,
        params,
    };
    let (kind, floor, change, effect) = match scale.kind {
        Kind::Sparse => {
            let (change, effect) = series.rates();
            (Kind::Sparse, 2.0 * series.counting_noise(), change, effect)
        }
        Kind::Count => {
            let spreads = series.spreads(scratch, blocks);
            // Whole numbers that scatter less than counts do: a gauge.
            if scratch.median(&spreads) < 0.3 * scale.rate.max(1e-9).sqrt() {
                let (change, effect) = series.levels(scratch, blocks, false);
                (
                    Kind::Plain,
                    scale.trifle(values, plan, magnitudes, scratch),
                    change,
                    effect,
                )
            } else {
                let (change, effect) = Windows {
                    values: scaled,
                    ..series
                }
                .levels(scratch, blocks, true);
                (Kind::Count, series.counting_noise(), change, effect)
            }
        }
        kind => {
            let floor = scale.trifle(values, plan, magnitudes, scratch);
            let (change, effect) = Windows {
                values: scaled,
                ..series
            }
            .levels(scratch, blocks, true);
            (kind, floor, change, effect)
        }
    };
    let deploy = plan.placebos();
    let mut level_of = |window: &[f64]| match kind {
        Kind::Sparse => mean(window),
        _ => scratch.level(window),
    };
    Measured {
        kind,
        present,
        presence: match present == plan.points.len() {
            true => vec![0.0; plan.at.len()],
            false => series.presences(),
        },
        before: level_of(series.before(deploy)),
        after: level_of(series.after(deploy)),
        change,
        effect,
        // Never 0, so that a series that never changes has a ratio.
        floor: floor + 1e-12,
    }
}

/// The kind of a series and what its floor needs.
pub(super) struct Scale {
    pub(super) kind: Kind,
    /// The mean of the history.
    rate: f64,
    trifle: f64,
}

impl Scale {
    /// Finds the kind, writes the scaled values into the workspace, and fills absent values of a mostly
    /// absent count with 0.
    pub(super) fn of(values: &mut [f64], end: usize, trifle: f64, work: &mut Workspace) -> Self {
        let whole = values
            .iter()
            .all(|value| !value.is_finite() || (*value >= 0.0 && value.fract() == 0.0));
        if whole && presence(&values[..end]) < 0.5 {
            for value in values.iter_mut().filter(|value| !value.is_finite()) {
                *value = 0.0;
            }
        }
        let history = &values[..end];
        let present = history.iter().filter(|value| value.is_finite());
        let (n, sum) = present.fold((0_usize, 0.0), |(n, sum), value| (n + 1, sum + value));
        let rate = if n == 0 { 0.0 } else { sum / n as f64 };
        let kind = if whole && rate < 3.0 {
            Kind::Sparse
        } else if whole {
            Kind::Count
        } else {
            Kind::Plain
        };
        let mut scale = Self { kind, rate, trifle };
        work.scaled.clear();
        match kind {
            Kind::Sparse => {}
            Kind::Count => work
                .scaled
                .extend(values.iter().map(|x| 2.0 * (x + 0.375).sqrt())),
            Kind::Plain | Kind::Log => {
                let lowest = history.iter().copied().fold(f64::NAN, f64::min);
                let mut quantile = |q| work.scratch.quantile(history, q);
                if lowest > 0.0 && quantile(0.98) > 2.0 * quantile(0.02) {
                    scale.kind = Kind::Log;
                    let least = lowest / 2.0;
                    let log = |x: &f64| if x.is_nan() { *x } else { x.max(least).ln() };
                    work.scaled.extend(values.iter().map(log));
                } else {
                    work.scaled.extend_from_slice(values);
                }
            }
        }
        scale
    }

    /// The size of a trifle: a share of the level of the last day.
    fn trifle(
        &self,
        values: &[f64],
        plan: &Plan,
        magnitudes: &mut Vec<f64>,
        scratch: &mut Scratch,
    ) -> f64 {
        if self.kind == Kind::Log {
            return self.trifle;
        }
        let day = &values[plan.end.saturating_sub(plan.day)..plan.end];
        magnitudes.clear();
        magnitudes.extend(day.iter().map(|value| value.abs()));
        let level = scratch.median(magnitudes);
        self.trifle * if level.is_nan() { 0.0 } else { level }
    }
}

/// The windows of a series around each placebo and the deploy.
#[derive(Clone, Copy)]
struct Windows<'a> {
    values: &'a [f64],
    plan: &'a Plan,
    params: &'a Params,
}

impl<'a> Windows<'a> {
    fn after(&self, at: usize) -> &'a [f64] {
        let start = self.plan.at[at];
        &self.values[start..start + self.plan.after]
    }

    fn before(&self, at: usize) -> &'a [f64] {
        let end = self.plan.at[at] - self.plan.gap;
        &self.values[end - self.plan.before..end]
    }

    /// The first points after and the last points before, and the last third of the points after.
    fn parts(&self, after: &'a [f64], before: &'a [f64]) -> (&'a [f64], &'a [f64], &'a [f64]) {
        let near = self.plan.near.min(after.len());
        let late = (after.len() / 3).max(2).min(after.len());
        (
            &after[..near],
            &before[before.len() - near.min(before.len())..],
            &after[after.len() - late..],
        )
    }

    /// Prepares `blocks` for windows before and after; false where they do not suit.
    fn divide(&self, blocks: &mut [Blocks; 2]) -> [bool; 2] {
        let Plan {
            stride,
            end,
            gap,
            before,
            after,
            ..
        } = *self.plan;
        let suit = [before, after].map(|length| Blocks::suit(stride, length));
        for (at, start) in [end - gap, end].into_iter().enumerate() {
            if suit[at] {
                blocks[at].fill(self.values, stride, start);
            }
        }
        suit
    }

    /// Level and spread of each window before, the deploy's last.
    fn shapes(&self, scratch: &mut Scratch, blocks: Option<&mut Blocks>) -> Vec<Shape> {
        let length = self.plan.before;
        let mut blocks = blocks;
        let mut of = |at: usize| {
            let start = self.plan.at[at] - self.plan.gap - length;
            let sorted = blocks
                .as_mut()
                .and_then(|blocks| blocks.window(start, length));
            match sorted {
                Some(sorted) => Shape::of(sorted, length),
                None => scratch.shape(self.before(at)),
            }
        };
        (0..self.plan.at.len()).map(&mut of).collect()
    }

    /// The spread of the values before each placebo.
    fn spreads(&self, scratch: &mut Scratch, blocks: &mut [Blocks; 2]) -> Vec<f64> {
        let [suits, _] = self.divide(blocks);
        let shapes = self.shapes(scratch, suits.then_some(&mut blocks[0]));
        let placebos = &shapes[..self.plan.placebos()];
        placebos.iter().map(|shape| shape.spread).collect()
    }

    /// Changes of the level, and the plain differences of the two levels.
    fn levels(
        &self,
        scratch: &mut Scratch,
        blocks: &mut [Blocks; 2],
        studentise: bool,
    ) -> (Vec<f64>, Vec<f64>) {
        let kappa = self.params.kappa;
        let [suits_before, suits_after] = self.divide(blocks);
        let [before, after] = blocks;
        let shapes = self.shapes(scratch, suits_before.then_some(before));
        let length = self.plan.after;
        let mut effects = Vec::with_capacity(self.plan.at.len());
        let mut changes: Vec<f64> = (0..self.plan.at.len())
            .map(|at| {
                let sorted = match suits_after {
                    true => after.window(self.plan.at[at], length),
                    false => None,
                };
                let after = self.after(at);
                let (first, last, late) = self.parts(after, self.before(at));
                let base = shapes[at].level;
                let reached = match sorted {
                    Some(sorted) => level(sorted, length),
                    None => scratch.level(after),
                };
                let effect = reached - base;
                let near = scratch.level(first) - scratch.level(last);
                let late = scratch.level(late) - base;
                effects.push(effect);
                smaller(smaller(effect, near, kappa), late, kappa)
            })
            .collect();
        if studentise {
            // A change in a restless hour is less surprising than the same change in a quiet one.
            let spreads: Vec<f64> = shapes.iter().map(|shape| shape.spread).collect();
            let usual = scratch.median(&spreads[..self.plan.placebos()]);
            for (change, spread) in changes.iter_mut().zip(&spreads) {
                let restless = if usual > 0.0 {
                    spread / usual
                } else {
                    f64::NAN
                };
                let restless = if restless.is_nan() { 1.0 } else { restless };
                *change /= 0.5 + 0.5 * restless.clamp(0.3, 4.0);
            }
        }
        (changes, effects)
    }

    /// Changes of the rate of rare counts, judged by the halves of the window after.
    fn rates(&self) -> (Vec<f64>, Vec<f64>) {
        let kappa = self.params.kappa;
        let rate = |window: &[f64]| {
            let mean = mean(window);
            if mean.is_nan() {
                mean
            } else {
                2.0 * mean.max(0.0).sqrt()
            }
        };
        (0..self.plan.at.len())
            .map(|at| {
                let (after, base) = (self.after(at), rate(self.before(at)));
                let effect = rate(after) - base;
                let first = rate(&after[..after.len().div_ceil(2)]) - base;
                let second = rate(&after[after.len() / 2..]) - base;
                (
                    smaller(smaller(effect, first, kappa), second, kappa),
                    effect,
                )
            })
            .unzip()
    }

    /// Changes of the share of points that are present; 0 below a third.
    fn presences(&self) -> Vec<f64> {
        let kappa = self.params.kappa;
        (0..self.plan.at.len())
            .map(|at| {
                let (after, before) = (self.after(at), self.before(at));
                let (first, last, late) = self.parts(after, before);
                let base = presence(before);
                let change = presence(after) - base;
                let near = presence(first) - presence(last);
                let change = smaller(change, near, kappa);
                let change = smaller(change, presence(late) - base, kappa);
                if change.abs() < 1.0 / 3.0 {
                    0.0
                } else {
                    change
                }
            })
            .collect()
    }

    /// What counting itself scatters between the two windows, on the scale of square roots.
    fn counting_noise(&self) -> f64 {
        (1.0 / self.plan.after as f64 + 1.0 / self.plan.before as f64).sqrt()
    }
}
