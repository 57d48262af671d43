//! One series: the scale that it is judged on, and how much it changed at the deploy and at each placebo.
//!
//! All looks at a deploy are measured together: they share history, scale and most windows.

use std::ops::Range;

use super::blocks::{Anchors, Column};
use super::params::{Params, Plan};
use super::windows::{Counts, Scratch, mean, presence, smaller};

/// What the values of a series are like, which decides the scale of its changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Whole numbers with a mean below 3 a point: 2·sqrt(mean).
    Sparse,
    /// Other whole numbers that scatter like counts: 2·sqrt(x + 3/8).
    Count,
    /// Positive and spread over more than a factor of 2: the logarithm.
    Log,
    /// All others, as they are.
    #[default]
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

/// The changes of one series that one look sees.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    pub(super) kind: Kind,
    /// The change on which all windows agree, studentised; the deploy's is the last.
    pub(super) change: Vec<f64>,
    /// The level after minus the level before.
    pub(super) effect: Vec<f64>,
    /// The change of the share of points that are present, 0 below a third; empty for a series without gaps.
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
    /// The values, with 0 for absent ones where the scale wants it.
    values: Vec<f64>,
    magnitudes: Vec<f64>,
    counts: Counts,
    /// Windows of `values`, and of `scaled`.
    columns: [Column; 2],
}

impl Workspace {
    /// The values on the scale of the series that was measured last; empty for sparse ones.
    pub(super) fn scaled(&self) -> &[f64] {
        &self.scaled
    }
}

/// The changes of the series `values` that the looks of `plans` see, shortest look first; one change for each point of
/// the plan's `at`.
pub(super) fn measure(
    values: &[f64],
    plans: &[&Plan],
    params: &Params,
    work: &mut Workspace,
) -> Vec<Measured> {
    let is_whole = |value: &f64| !value.is_finite() || is_whole(*value);
    let whole = values
        .iter()
        .position(|value| !is_whole(value))
        .unwrap_or(values.len());
    // The scale depends on whether all values are whole numbers: looks that see a fraction have another one.
    let points = |plan: &&&Plan| plan.end + plan.after <= whole;
    let alike = plans.iter().take_while(points).count();
    let mut measured = Vec::with_capacity(plans.len());
    for plans in [&plans[..alike], &plans[alike..]] {
        let Some(last) = plans.last() else {
            continue;
        };
        let values = &values[..last.end + last.after];
        measure_alike(values, plans, params, work, &mut measured);
    }
    measured
}

/// Whether `value` is a whole number from 0 on.
fn is_whole(value: f64) -> bool {
    // Larger numbers have no fraction. The conversion is much faster than `fract`.
    const FRACTIONS: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;
    value >= 0.0 && (value >= FRACTIONS || value as i64 as f64 == value)
}

/// As [`measure`], for looks at which the series has the same scale.
fn measure_alike(
    values: &[f64],
    plans: &[&Plan],
    params: &Params,
    work: &mut Workspace,
    measured: &mut Vec<Measured>,
) {
    let mut own = std::mem::take(&mut work.values);
    own.clear();
    own.extend_from_slice(values);
    let absent = values.iter().filter(|value| !value.is_finite()).count();
    let scale = Scale::of(&mut own, plans[0].end, params.trifle, work);
    work.columns.iter_mut().for_each(Column::clear);
    if absent > 0 || scale.kind == Kind::Sparse {
        work.counts.count(&own);
    }
    for plan in plans {
        let series = Windows {
            values: &own,
            plan,
            params,
        };
        let (kind, floor, change, effect) = changes(series, &scale, work);
        let Workspace {
            scratch, counts, ..
        } = &mut *work;
        let deploy = plan.placebos();
        let mut level_of = |window: &[f64]| match kind {
            Kind::Sparse => mean(window),
            _ => scratch.level(window),
        };
        let length = plan.end + plan.after;
        let seen = values[..length].iter().filter(|value| value.is_finite());
        let present = if absent == 0 { length } else { seen.count() };
        measured.push(Measured {
            kind,
            present,
            presence: match absent == 0 {
                true => Vec::new(),
                false => series.presences(counts),
            },
            before: level_of(series.before(deploy)),
            after: level_of(series.after(deploy)),
            change,
            effect,
            // Never 0, so that a series that never changes has a ratio.
            floor: floor + 1e-12,
        });
    }
    work.values = own;
}

/// The kind that a look takes a series for, the size of its trifles, and its changes: studentised, and those of the
/// level. A series of `scale` has its scaled values, its columns and, if sparse, its counts in the workspace.
fn changes(
    series: Windows<'_>,
    scale: &Scale,
    work: &mut Workspace,
) -> (Kind, f64, Vec<f64>, Vec<f64>) {
    let Workspace {
        scratch,
        scaled,
        magnitudes,
        counts,
        columns: [raw, column],
        ..
    } = work;
    let on_scale = Windows {
        values: scaled,
        ..series
    };
    match scale.kind {
        Kind::Sparse => {
            let (change, effect) = series.rates(counts);
            (Kind::Sparse, 2.0 * series.counting_noise(), change, effect)
        }
        Kind::Count => {
            let spreads = series.spreads(raw);
            // Whole numbers that scatter less than counts do: a gauge.
            if scratch.median(&spreads) < 0.3 * scale.rate.max(1e-9).sqrt() {
                let (change, effect) = series.levels(raw, scratch, false);
                let floor = scale.trifle(series.values, series.plan, magnitudes, scratch);
                (Kind::Plain, floor, change, effect)
            } else {
                let (change, effect) = on_scale.levels(column, scratch, true);
                (Kind::Count, series.counting_noise(), change, effect)
            }
        }
        kind => {
            let floor = scale.trifle(series.values, series.plan, magnitudes, scratch);
            let (change, effect) = on_scale.levels(column, scratch, true);
            (kind, floor, change, effect)
        }
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
            .all(|value| !value.is_finite() || is_whole(*value));
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
                let highest = history.iter().copied().fold(f64::NAN, f64::max);
                let mut quantile = |q| work.scratch.quantile(history, q);
                // Without such a distance between the extremes, there is none between quantiles.
                let is_wide = lowest > 0.0 && highest > 2.0 * lowest;
                if is_wide && quantile(0.98) > 2.0 * quantile(0.02) {
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

/// Parts of the windows after and before, in points.
struct Parts {
    /// The first points after.
    first: usize,
    /// The last points before.
    last: usize,
    /// The last third of the points after.
    late: usize,
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

    /// The parts of each window.
    fn parts(&self) -> Parts {
        let Plan {
            near,
            after,
            before,
            ..
        } = *self.plan;
        let first = near.min(after);
        Parts {
            first,
            last: first.min(before),
            late: (after / 3).max(2).min(after),
        }
    }

    /// The windows of `length` points that begin `back` points before placebos and deploy.
    fn find(&self, column: &mut Column, back: isize, length: usize) -> usize {
        let Plan {
            end,
            gap,
            before,
            stride,
            ..
        } = *self.plan;
        // All looks have the same ones, so that they share what is known of them.
        let anchors = Anchors {
            end,
            stride,
            count: (end - before - gap) / stride + 1,
        };
        column.find(self.values, anchors, back, length)
    }

    /// Changes of the level, and the plain differences of the two levels.
    fn levels(
        &self,
        column: &mut Column,
        scratch: &mut Scratch,
        studentise: bool,
    ) -> (Vec<f64>, Vec<f64>) {
        let kappa = self.params.kappa;
        let Plan {
            gap, before, after, ..
        } = *self.plan;
        let Parts { first, last, late } = self.parts();
        let found = [
            self.find(column, (gap + before) as isize, before),
            self.find(column, 0, after),
            self.find(column, 0, first),
            self.find(column, (gap + last) as isize, last),
            self.find(column, late as isize - after as isize, late),
        ];
        let [base, reached, first, last, late] = found.map(|found| column.get(found));
        let anchors = self.anchors();
        let mut effects = Vec::with_capacity(self.plan.at.len());
        let change = |n: usize| {
            let base = base.level[n];
            let effect = reached.level[n] - base;
            let near = first.level[n] - last.level[n];
            effects.push(effect);
            smaller(smaller(effect, near, kappa), late.level[n] - base, kappa)
        };
        let mut changes: Vec<f64> = anchors.clone().map(change).collect();
        if studentise {
            // A change in a restless hour is less surprising than the same change in a quiet one.
            let spreads: Vec<f64> = anchors.map(|n| base.spread[n]).collect();
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

    /// The spread of the values before each placebo.
    fn spreads(&self, column: &mut Column) -> Vec<f64> {
        let Plan { gap, before, .. } = *self.plan;
        let base = self.find(column, (gap + before) as isize, before);
        let base = column.get(base);
        let placebos = self.anchors().take(self.plan.placebos());
        placebos.map(|n| base.spread[n]).collect()
    }

    /// The anchors of the placebos, and of the deploy.
    fn anchors(&self) -> impl Iterator<Item = usize> + Clone + use<'a> {
        let Plan {
            end,
            stride,
            ref at,
            ..
        } = *self.plan;
        at.iter().map(move |at| (end - at) / stride)
    }

    /// Changes of the rate of rare counts, judged by the halves of the window after.
    fn rates(&self, counts: &Counts) -> (Vec<f64>, Vec<f64>) {
        let kappa = self.params.kappa;
        let Plan {
            gap, before, after, ..
        } = *self.plan;
        let rate = |window: Range<usize>| {
            let mean = counts.mean(self.values, window);
            if mean.is_nan() {
                mean
            } else {
                2.0 * mean.max(0.0).sqrt()
            }
        };
        let change = |at: &usize| {
            let at = *at;
            let base = rate(at - gap - before..at - gap);
            let effect = rate(at..at + after) - base;
            let first = rate(at..at + after.div_ceil(2)) - base;
            let second = rate(at + after / 2..at + after) - base;
            (
                smaller(smaller(effect, first, kappa), second, kappa),
                effect,
            )
        };
        self.plan.at.iter().map(change).unzip()
    }

    /// Changes of the share of points that are present; 0 below a third.
    fn presences(&self, counts: &Counts) -> Vec<f64> {
        let kappa = self.params.kappa;
        let Plan {
            gap, before, after, ..
        } = *self.plan;
        let Parts { first, last, late } = self.parts();
        let share = |start: usize, length: usize| {
            counts.present(start..start + length) as f64 / length as f64
        };
        let change = |at: &usize| {
            let at = *at;
            let base = share(at - gap - before, before);
            let near = share(at, first) - share(at - gap - last, last);
            let change = smaller(share(at, after) - base, near, kappa);
            let change = smaller(change, share(at + after - late, late) - base, kappa);
            if change.abs() < 1.0 / 3.0 {
                0.0
            } else {
                change
            }
        };
        self.plan.at.iter().map(change).collect()
    }

    /// What counting itself scatters between the two windows, on the scale of square roots.
    fn counting_noise(&self) -> f64 {
        (1.0 / self.plan.after as f64 + 1.0 / self.plan.before as f64).sqrt()
    }
}
