//! One look at one deploy: which of its series changed, judged against their own placebos.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::measure::{Kind, Measured, Workspace, in_its_unit, measure};
use super::params::{Params, Plan, Question, alpha};
use super::score::{Scored, Tail, score};
use super::season::{deseason, times_of_day};
use super::windows::{Scratch, polarity};

/// What a series is to the deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// It belongs to the deploy's scope; otherwise it is a control.
    pub mine: bool,
    /// The index of its own scope's earlier deploys, if it has any.
    pub deploys: Option<usize>,
}

/// The values of the series.
pub trait Values: Sync {
    /// Appends the values of series `series` at `points` to `values`, NaN for absent ones.
    fn read(&self, series: usize, points: Range<usize>, values: &mut Vec<f64>);
}

/// The series and the earlier deploys of their scopes.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The role of each series.
    pub roles: &'a [Role],
    /// The starts of earlier deploys, by scope.
    pub deploys: &'a [Vec<usize>],
    /// The values of each series.
    pub values: &'a dyn Values,
    /// How many threads share the work.
    pub threads: usize,
}

/// What one look found out about one series of the deploy's scope.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The index of the series.
    pub series: usize,
    /// The deploy changed it.
    pub found: bool,
    /// 1 for a rise, -1 for a fall, 0 for neither.
    pub trend: f64,
    /// The size of the change over the series' own largest usual change.
    pub ratio: f64,
    /// Comparable times at which the series changed at least as much by itself.
    pub like: u32,
    /// Comparable times.
    pub comparable: u32,
    /// How rare such a change is: a smoothed frequency.
    pub rarity: f64,
    /// The level before, in the unit of the series.
    pub before: f64,
    /// The level after.
    pub after: f64,
    /// The change on the scale of `kind`, with its 90 % interval.
    pub effect: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
    /// The scale.
    pub kind: Kind,
    /// The series stopped (trend -1) or began (1) to report.
    pub presence: bool,
    /// It changed much, but so did the controls.
    pub vetoed: bool,
    /// The smallest change that would have been found, as a share of the level before.
    pub visible: Option<f64>,
    /// How many points of history and windows are present.
    pub present: usize,
    /// Its changes at the placebos, for telling which series move together.
    pub placebos: Vec<f64>,
}

/// The answer of one look.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// One for each series of the scope, in the order of the input.
    pub verdicts: Vec<Verdict>,
    /// The share of controls that moved with the deploy.
    pub share: f64,
    /// The start of the earlier deploy that this one cannot be distinguished from.
    pub joint: Option<usize>,
    /// The largest rarity of a finding; negative where nothing was found.
    pub threshold: f64,
    /// There are less than two days of history.
    pub short: bool,
}

/// The changes of one series, scored.
struct Scores {
    measured: Measured,
    change: Scored,
    presence: Scored,
}

/// Judges one look. `level` replaces the look's own share of false findings.
///
/// Semantics: plumbago's own method; a change counts only against the changes of the same series at
/// comparable times without a deploy. The answer depends on nothing but the arguments.
///
/// `None` where there is no window before the deploy, or no share of false findings for this look.
pub fn judge(
    question: &Question,
    input: Input<'_>,
    params: &Params,
    level: Option<f64>,
) -> Option<Judgement> {
    let plan = Plan::new(question, params)?;
    let level = level.or_else(|| alpha(question.look, plan.short))?;
    let all = measure_all(&plan, input, params);
    let placebos = plan.placebos();
    let (limits, share) = common_movement(&all, input.roles, placebos, params);
    let is_mine = |series: &usize| input.roles[*series].mine;
    let mine: Vec<usize> = (0..all.len()).filter(is_mine).collect();
    let family = |family: fn(&Scores) -> &Scored, limits| {
        let tail = pooled_tail(&mine, &all, family, placebos);
        let rarities = rarities(&mine, &all, family, &tail, placebos, params, limits);
        (tail, rarities)
    };
    let (tail, changes) = family(|series| &series.change, Some(&limits));
    let (_, presences) = family(|series| &series.presence, None);
    let bars = threshold(&changes, &presences, placebos, level);
    let threshold = bars.findings;
    let found = |rarity: f64| rarity <= threshold && rarity < 0.5;
    let mut scratch = Scratch::default();
    let mut seen = Visible {
        tail,
        placebos,
        params,
        bar: bars.alone,
        ratios: Vec::new(),
    };
    let verdicts = mine.iter().enumerate().map(|(at, index)| {
        let series = &all[*index];
        let (change, presence) = (changes[at][placebos], presences[at][placebos]);
        let gone = found(presence) && !found(change);
        let scored = if gone {
            &series.presence
        } else {
            &series.change
        };
        let last = if gone {
            &series.measured.presence
        } else {
            &series.measured.change
        };
        let last = last[placebos];
        let effect = series.measured.effect[placebos];
        let usual = &series.measured.effect[..placebos];
        Verdict {
            series: *index,
            found: found(change) || found(presence),
            trend: if last.is_nan() { 0.0 } else { polarity(last) },
            ratio: scored.ratio[placebos],
            like: scored.like[placebos],
            comparable: scored.placebos[placebos],
            rarity: change.min(presence),
            before: series.measured.before,
            after: series.measured.after,
            effect,
            low: effect - scratch.quantile(usual, 0.95),
            high: effect - scratch.quantile(usual, 0.05),
            kind: series.measured.kind,
            presence: gone,
            vetoed: series.change.ratio[placebos] <= limits[placebos]
                && !series.change.usual(placebos, params)
                && series.change.ratio[placebos] > 1.0,
            visible: seen.share(series),
            present: series.measured.present,
            placebos: series.measured.change[..placebos].to_vec(),
        }
    });
    Some(Judgement {
        verdicts: verdicts.collect(),
        share,
        joint: plan.joint,
        threshold,
        short: plan.short,
    })
}

/// Measures and scores every series, on several threads.
fn measure_all(plan: &Plan, input: Input<'_>, params: &Params) -> Vec<Scores> {
    let times = times_of_day(plan);
    let disturbed: Vec<Vec<usize>> = input
        .deploys
        .iter()
        .map(|deploys| plan.disturbed(deploys, params))
        .collect();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut workspace = Workspace::default();
        let mut values = Vec::new();
        let mut done = Vec::new();
        loop {
            let series = next.fetch_add(1, Ordering::Relaxed);
            let Some(role) = input.roles.get(series) else {
                return done;
            };
            values.clear();
            input.values.read(series, plan.points.clone(), &mut values);
            values.resize(plan.points.len(), f64::NAN);
            let mut measured = measure(&mut values, plan, params, &mut workspace);
            for placebo in role.deploys.into_iter().flat_map(|scope| &disturbed[scope]) {
                measured.change[*placebo] = f64::NAN;
                measured.effect[*placebo] = f64::NAN;
                measured.presence[*placebo] = f64::NAN;
            }
            let mut scratch = Scratch::default();
            deseason(&mut measured.change, &times, &mut scratch);
            deseason(&mut measured.effect, &times, &mut scratch);
            let change = score(
                &measured.change,
                measured.floor,
                plan,
                params.scale_quantile,
            );
            let presence = score(&measured.presence, 0.5, plan, params.scale_quantile);
            done.push((
                series,
                Scores {
                    measured,
                    change,
                    presence,
                },
            ));
        }
    };
    let mut all: Vec<(usize, Scores)> = if input.threads > 1 {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..input.threads).map(|_| scope.spawn(work)).collect();
            let mut all = Vec::new();
            for worker in workers {
                match worker.join() {
                    Ok(done) => all.extend(done),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            all
        })
    } else {
        work()
    };
    all.sort_unstable_by_key(|(series, _)| *series);
    all.into_iter().map(|(_, series)| series).collect()
}

/// How far a series must move at each placebo, and at the deploy, because many controls move there too; and the share
/// of controls that moved at the deploy.
fn common_movement(
    all: &[Scores],
    roles: &[Role],
    placebos: usize,
    params: &Params,
) -> (Vec<f64>, f64) {
    let controls: Vec<&Scored> = all
        .iter()
        .zip(roles)
        .filter(|(_, role)| !role.mine)
        .map(|(series, _)| &series.change)
        .collect();
    let mut limits = vec![0.0; placebos + 1];
    if controls.len() < params.veto_controls {
        return (limits, 0.0);
    }
    let mut share = 0.0;
    for (index, limit) in limits.iter_mut().enumerate() {
        let (mut moved, mut largest, mut second) = (0_usize, 0.0_f64, 0.0_f64);
        for control in controls
            .iter()
            .filter(|control| !control.usual(index, params))
        {
            let ratio = control.ratio[index];
            moved += usize::from(ratio > 0.8);
            if ratio > largest {
                (largest, second) = (ratio, largest);
            } else {
                second = second.max(ratio);
            }
        }
        share = moved as f64 / controls.len() as f64;
        if share >= params.veto_share {
            *limit = params.veto_factor * second;
        }
    }
    // Of the deploy, which comes last.
    (limits, share)
}

/// The rarity of each change of the series `mine`; 1 for those that cannot be findings.
fn rarities(
    mine: &[usize],
    all: &[Scores],
    family: impl Fn(&Scores) -> &Scored,
    tail: &Tail,
    placebos: usize,
    params: &Params,
    limits: Option<&Vec<f64>>,
) -> Vec<Vec<f64>> {
    let of = |scored: &Scored, index: usize| {
        let ratio = scored.ratio[index];
        let enough = index < placebos || scored.placebos[index] as usize >= params.min_placebos;
        let far = limits.is_none_or(|limits| ratio > limits[index]);
        if scored.present[index] && ratio > 0.0 && !scored.usual(index, params) && enough && far {
            (f64::from(scored.like[index]) + params.prior * tail.beyond(ratio))
                / (f64::from(scored.placebos[index]) + params.prior)
        } else {
            1.0
        }
    };
    mine.iter()
        .map(|series| {
            let scored = family(&all[*series]);
            (0..=placebos).map(|index| of(scored, index)).collect()
        })
        .collect()
}

/// The tail of the ratios at the placebos of all series `mine`.
fn pooled_tail(
    mine: &[usize],
    all: &[Scores],
    family: impl Fn(&Scores) -> &Scored,
    placebos: usize,
) -> Tail {
    let pool = mine.iter().flat_map(|series| {
        let scored = family(&all[*series]);
        let known = scored.present[..placebos].iter().zip(&scored.ratio);
        known
            .filter(|(present, _)| **present)
            .map(|(_, ratio)| *ratio)
    });
    Tail::new(pool.collect())
}

/// Rarities that decide.
#[derive(Clone, Copy, Debug)]
struct Bars {
    /// The largest rarity of a finding; -1 for none.
    findings: f64,
    /// A single change that is rarer than this would be a finding.
    alone: f64,
}

/// The largest rarity at which the findings that it would make at the placebos, per placebo, are at most
/// the share `level` of the findings that it makes at the deploy; and the same for a deploy with one finding.
fn threshold(changes: &[Vec<f64>], presences: &[Vec<f64>], placebos: usize, level: f64) -> Bars {
    let mut bars = Bars {
        findings: -1.0,
        alone: -1.0,
    };
    if placebos == 0 {
        return bars;
    }
    let all = || changes.iter().chain(presences);
    let mut deploy: Vec<f64> = all().map(|rarities| rarities[placebos]).collect();
    // Rarities of 1 never decide.
    let rare = |rarity: &f64| *rarity < 0.5;
    let mut usual: Vec<f64> = all()
        .flat_map(|rarities| &rarities[..placebos])
        .copied()
        .filter(rare)
        .collect();
    deploy.retain(rare);
    deploy.sort_unstable_by(f64::total_cmp);
    usual.sort_unstable_by(f64::total_cmp);
    for (n, rarity) in deploy.iter().enumerate() {
        let usual = usual.partition_point(|other| other <= rarity);
        let false_ones = (usual + 1) as f64 / placebos as f64;
        if false_ones <= level * (n + 1) as f64 {
            bars.findings = *rarity;
        }
    }
    let allowed = (level * placebos as f64).floor() as usize;
    if let Some(allowed) = allowed.checked_sub(1) {
        bars.alone = usual.get(allowed).copied().unwrap_or(0.5);
    }
    bars
}

/// The smallest changes that would be found.
struct Visible<'a> {
    tail: Tail,
    placebos: usize,
    params: &'a Params,
    /// A change must be rarer.
    bar: f64,
    ratios: Vec<f64>,
}

impl Visible<'_> {
    /// The smallest change of `series` that would be found, as a share of its level before.
    fn share(&mut self, series: &Scores) -> Option<f64> {
        let Self {
            tail,
            placebos,
            params,
            bar,
            ratios,
        } = self;
        let scored = &series.change;
        ratios.clear();
        let known = scored.present[..*placebos].iter().zip(&scored.ratio);
        let known = known.filter(|(present, _)| **present);
        ratios.extend(known.map(|(_, ratio)| *ratio));
        let n = ratios.len() as f64;
        // More of the series' own changes than these must not be as large.
        let most = ((params.cap * n) as usize + 1).min(ratios.len());
        if let Some(at) = ratios.len().checked_sub(most).filter(|at| *at > 0) {
            ratios.select_nth_unstable_by(at, f64::total_cmp);
            ratios.drain(..at);
        }
        ratios.sort_unstable_by(f64::total_cmp);
        let found = |ratio: f64| {
            let like = (ratios.len() - ratios.partition_point(|other| *other < ratio)) as f64;
            like <= params.cap * n
                && (like + params.prior * tail.beyond(ratio)) / (n + params.prior) < *bar
        };
        let (mut low, mut high) = (1e-3_f64, 1e4_f64);
        if !found(high) {
            return None;
        }
        // To a hundredth, on the scale of logarithms.
        while high > 1.01 * low {
            let middle = (low * high).sqrt();
            if found(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        let before = series.measured.before;
        let change = in_its_unit(series.measured.kind, before, high * scored.scale);
        let share = change / before.abs();
        share.is_finite().then_some(share)
    }
}
