//! The constants of the method, and the points of time that follow from them for one question.

use std::ops::Range;

/// The constants of the method. Their defaults were measured on data with known truth.
#[derive(Clone, Debug, PartialEq)]
pub struct Params {
    /// Length of the window before the deploy, in minutes.
    pub before_minutes: f64,
    /// Length of the windows right before and after the deploy in which the change must show, in minutes.
    pub near_minutes: f64,
    /// Distance between placebos in minutes.
    pub stride_minutes: f64,
    /// The same with less than two days of history.
    pub short_stride_minutes: f64,
    /// Length of the history in days.
    pub history_days: f64,
    /// A short window may show a change this many times weaker than the long one.
    pub kappa: f64,
    /// The weight of the pooled tail, in placebos.
    pub prior: f64,
    /// The quantile of a series' own changes that counts as large.
    pub scale_quantile: f64,
    /// The largest share of its placebos at which a series may have changed as much by itself.
    pub cap: f64,
    /// The fewest placebos for a verdict.
    pub min_placebos: usize,
    /// The share of its level below which a change is a trifle.
    pub trifle: f64,
    /// The share of controls that must move for a common movement.
    pub veto_share: f64,
    /// How many times further than the second largest control a series must move then.
    pub veto_factor: f64,
    /// The fewest controls that can show a common movement.
    pub veto_controls: usize,
    /// How long after an earlier deploy the window before begins, in minutes.
    pub recovery_minutes: f64,
    /// Two deploys of a scope closer than this are judged together, in minutes.
    pub joint_minutes: f64,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            before_minutes: 60.0,
            near_minutes: 10.0,
            stride_minutes: 15.0,
            short_stride_minutes: 2.0,
            history_days: 7.0,
            kappa: 1.5,
            prior: 10.0,
            scale_quantile: 0.98,
            cap: 0.01,
            min_placebos: 50,
            trifle: 0.02,
            veto_share: 0.08,
            veto_factor: 1.5,
            veto_controls: 20,
            recovery_minutes: 5.0,
            joint_minutes: 15.0,
        }
    }
}

/// The looks at a deploy, in minutes after its end.
pub const LOOKS: [u32; 4] = [5, 10, 30, 60];

/// The share of false findings that the look at `minutes` may have: all looks together share one error.
/// `short`: there are less than two days of history; `None` where such a look cannot be judged.
pub fn alpha(minutes: u32, short: bool) -> Option<f64> {
    match (minutes, short) {
        (10 | 30, true) => Some(0.0125),
        (_, true) => None,
        (5 | 10, false) => Some(0.005),
        (30, false) => Some(0.025),
        (_, false) => Some(0.01),
    }
}

/// A deploy and the look at it. Times are indices of points.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Seconds per point.
    pub step: u32,
    /// The first point after the deploy's end.
    pub end: usize,
    /// How many points lie between the deploy's start and its end; they belong to neither side.
    pub gap: usize,
    /// Minutes after the end that are looked at.
    pub look: u32,
    /// The starts of earlier deploys of the same scope, ascending.
    pub earlier: Vec<usize>,
}

/// The windows and placebos of a [`Question`], relative to the first point of its history.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The points of the series that are needed: history and the window after.
    pub(super) points: Range<usize>,
    /// The deploy's end within them.
    pub(super) end: usize,
    /// Length of the window after.
    pub(super) after: usize,
    /// Length of the window before.
    pub(super) before: usize,
    pub(super) gap: usize,
    pub(super) near: usize,
    pub(super) day: usize,
    /// Points from one placebo to the next.
    pub(super) stride: usize,
    /// The placebos, latest first, and the deploy's end as the last.
    pub(super) at: Vec<usize>,
    /// The part of the history that each placebo is in: placebos of one part are not compared.
    pub(super) part: Vec<usize>,
    /// Less than two days of history.
    pub(super) short: bool,
    /// The start of the deploy, or of the earlier one that it is judged together with.
    pub(super) start: usize,
    /// The start of the earlier deploy that this one cannot be distinguished from.
    pub(super) joint: Option<usize>,
    /// A tenth of an hour more than the windows: deploys closer to a placebo disturb it.
    pub(super) margin: usize,
}

impl Plan {
    /// `None` where there is no whole window before the deploy.
    pub(super) fn new(question: &Question, params: &Params) -> Option<Self> {
        let Question {
            step,
            end,
            gap,
            look,
            ref earlier,
        } = *question;
        let per_minute = 60.0 / f64::from(step.max(1));
        let points = |minutes: f64| ((minutes * per_minute).round_ties_even() as usize).max(1);
        let after = points(f64::from(look));
        let mut before = points(params.before_minutes).max(12);
        let near = points(params.near_minutes).max(2);
        let day = (24.0 * 60.0 * per_minute).round_ties_even() as usize;
        let mut start = end.checked_sub(gap)?;
        let mut previous: Vec<usize> = earlier.iter().copied().filter(|at| *at < start).collect();
        let mut joint = None;
        while let Some(last) = previous.last().copied()
            && start - last < points(params.joint_minutes)
            && end - last < points(60.0)
        {
            previous.pop();
            start = last;
            joint = Some(last);
        }
        let gap = end - start;
        if let Some(last) = previous.last() {
            let recovery = points(params.recovery_minutes);
            if start - last < before + recovery {
                before = (start - last)
                    .checked_sub(recovery)
                    .filter(|left| *left > 1)?;
            }
        }
        let first = end.saturating_sub((params.history_days * day as f64) as usize);
        let relative = end - first;
        if relative < before + gap {
            return None;
        }
        let short = relative < 2 * day;
        let stride = points(if short {
            params.short_stride_minutes
        } else {
            params.stride_minutes
        });
        let mut at: Vec<usize> = (1..=relative / stride)
            .map(|n| relative - stride * n)
            .filter(|at| *at >= before + gap && at + after + gap <= relative)
            .collect();
        let length = if short {
            points(60.0)
        } else {
            (day / 2).max(1)
        };
        let part = at.iter().map(|at| at / length).collect();
        at.push(relative);
        Some(Self {
            points: first..end + after,
            end: relative,
            after,
            before,
            gap,
            near,
            day,
            stride,
            at,
            part,
            short,
            start,
            joint,
            margin: points(10.0),
        })
    }

    /// How many placebos there are.
    pub(super) fn placebos(&self) -> usize {
        self.part.len()
    }

    /// The placebos that earlier deploys at `times` disturb, unless too few others would be left.
    pub(super) fn disturbed(&self, times: &[usize], params: &Params) -> Vec<usize> {
        let first = self.points.start as i64;
        let times: Vec<i64> = times
            .iter()
            .filter(|time| **time < self.start && Some(**time) != self.joint)
            .map(|time| *time as i64 - first)
            .collect();
        let reach = (self.gap + self.before + self.margin) as i64;
        let hit: Vec<usize> = (0..self.placebos())
            .filter(|placebo| {
                let at = self.at[*placebo] as i64;
                let near = |time: &i64| *time > at - reach && *time < at + self.after as i64;
                times.iter().any(near)
            })
            .collect();
        if self.placebos() - hit.len() >= params.min_placebos {
            hit
        } else {
            Vec::new()
        }
    }
}
