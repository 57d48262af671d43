//! From what one look knows of all series to its verdicts: one threshold for the whole scope.

use super::measure::{Kind, in_its_unit};
use super::params::{Params, Plan};
use super::score::{Pool, Scored, Tail};
use super::season::times_of_day;
use super::windows::polarity;

/// What a series is to the deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Role {
    /// It belongs to the deploy's scope; otherwise it is a control.
    pub mine: bool,
    /// The index of its own scope's earlier deploys, if it has any.
    pub deploys: Option<usize>,
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
    /// Its changes at the placebos, for telling which series move together; of the longest look only.
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

/// One look.
pub(super) struct Look<'a> {
    pub(super) plan: &'a Plan,
    /// Its share of false findings.
    level: f64,
    /// Placebos and deploy by their time of day.
    pub(super) times: Vec<Vec<usize>>,
    /// The placebos that are disturbed by the deploys of each scope.
    pub(super) disturbed: Vec<Vec<usize>>,
}

impl<'a> Look<'a> {
    pub(super) fn new(plan: &'a Plan, level: f64, deploys: &[Vec<usize>], params: &Params) -> Self {
        let disturbed = |deploys: &Vec<usize>| plan.disturbed(deploys, params);
        Self {
            plan,
            level,
            times: times_of_day(plan),
            disturbed: deploys.iter().map(disturbed).collect(),
        }
    }
}

/// What one look knows of several series.
#[derive(Default)]
pub(super) struct Measurements {
    /// Each with the number of the series.
    pub(super) series: Vec<(usize, Scores)>,
    /// The ratios of the changes of the series of the scope.
    pub(super) changes: Pool,
    /// The same of their presences.
    pub(super) presences: Pool,
}

/// What one look knows of one series; of a control, only its change.
#[derive(Default)]
pub(super) struct Scores {
    pub(super) kind: Kind,
    /// The level before.
    pub(super) before: f64,
    /// The level after.
    pub(super) after: f64,
    /// How many points are present.
    pub(super) present: usize,
    /// The changes at the deploy.
    pub(super) last_change: f64,
    pub(super) last_presence: f64,
    /// The difference of the levels at the deploy, and its interval.
    pub(super) effect: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) change: Scored,
    pub(super) presence: Scored,
    /// The changes at the placebos, in the longest look.
    pub(super) placebos: Vec<f64>,
}

/// The verdicts of `look`, by what is `measured`, on each thread some series.
pub(super) fn decide(
    look: &Look<'_>,
    measured: &[&Measurements],
    roles: &[Role],
    params: &Params,
) -> Judgement {
    let placebos = look.plan.placebos();
    let mut all: Vec<&(usize, Scores)> = measured.iter().flat_map(|some| &some.series).collect();
    all.sort_unstable_by_key(|(series, _)| *series);
    let (limits, share) = common_movement(&all, roles, placebos, params);
    let mine = all.iter().filter(|(series, _)| roles[*series].mine);
    let mine: Vec<&(usize, Scores)> = mine.copied().collect();
    let tail = |pool: fn(&Measurements) -> &Pool| {
        Tail::new(measured.iter().map(|some| pool(some)).collect())
    };
    let (of_changes, of_presences) = (tail(|some| &some.changes), tail(|some| &some.presences));
    let rarities = |family: fn(&Scores) -> &Scored, tail: &Tail<'_>, limits| {
        let families = mine.iter().map(|(_, series)| family(series));
        Rarities::new(families, tail, placebos, params, limits)
    };
    let changes = rarities(|series| &series.change, &of_changes, Some(&limits));
    let presences = rarities(|series| &series.presence, &of_presences, None);
    let bars = threshold([&changes, &presences], placebos, look.level);
    let threshold = bars.findings;
    let found = |rarity: f64| rarity <= threshold && rarity < 0.5;
    let seen = Visible {
        tail: of_changes,
        params,
        bar: bars.alone,
    };
    let verdicts = mine.iter().enumerate().map(|(at, (index, series))| {
        let (change, presence) = (changes.deploy[at], presences.deploy[at]);
        let gone = found(presence) && !found(change);
        let (scored, last) = if gone {
            (&series.presence, series.last_presence)
        } else {
            (&series.change, series.last_change)
        };
        Verdict {
            series: *index,
            found: found(change) || found(presence),
            trend: if last.is_nan() { 0.0 } else { polarity(last) },
            ratio: scored.ratio,
            like: scored.like,
            comparable: scored.placebos,
            rarity: change.min(presence),
            before: series.before,
            after: series.after,
            effect: series.effect,
            low: series.low,
            high: series.high,
            kind: series.kind,
            presence: gone,
            vetoed: series.change.ratio <= limits[placebos]
                && !series.change.usual(params)
                && series.change.ratio > 1.0,
            visible: seen.share(series),
            present: series.present,
            placebos: series.placebos.clone(),
        }
    });
    Judgement {
        verdicts: verdicts.collect(),
        share,
        joint: look.plan.joint,
        threshold,
        short: look.plan.short,
    }
}

/// How far a series must move at each placebo, and at the deploy, because many controls move there too; and the share
/// of controls that moved at the deploy.
fn common_movement(
    all: &[&(usize, Scores)],
    roles: &[Role],
    placebos: usize,
    params: &Params,
) -> (Vec<f64>, f64) {
    let is_control = |one: &&&(usize, Scores)| !roles[one.0].mine;
    let controls = || all.iter().filter(is_control);
    let n = controls().count();
    let mut limits = vec![0.0; placebos + 1];
    if n < params.veto_controls {
        return (limits, 0.0);
    }
    // How many controls moved, and how far the two that moved furthest.
    let mut moved = vec![(0_usize, 0.0_f64, 0.0_f64); placebos + 1];
    for rare in controls().flat_map(|(_, control)| &control.change.rare) {
        let (moved, largest, second) = &mut moved[rare.index];
        *moved += usize::from(rare.ratio > 0.8);
        *second = second.max(rare.ratio.min(*largest));
        *largest = largest.max(rare.ratio);
    }
    let share = |moved: usize| moved as f64 / n as f64;
    for (limit, (moved, _, second)) in limits.iter_mut().zip(&moved) {
        if share(*moved) >= params.veto_share {
            *limit = params.veto_factor * second;
        }
    }
    (
        limits,
        moved.last().map_or(0.0, |(moved, ..)| share(*moved)),
    )
}

/// How rare changes are, by one family of them.
struct Rarities {
    /// At the deploy, of each series; 1 for what cannot be a finding.
    deploy: Vec<f64>,
    /// At the placebos, of what could be a finding.
    placebos: Vec<f64>,
}

impl Rarities {
    fn new<'a>(
        series: impl Iterator<Item = &'a Scored>,
        tail: &Tail<'_>,
        placebos: usize,
        params: &Params,
        limits: Option<&Vec<f64>>,
    ) -> Self {
        let mut rarities = Self {
            deploy: Vec::new(),
            placebos: Vec::new(),
        };
        for scored in series {
            let mut of_deploy = 1.0;
            for rare in &scored.rare {
                let is_deploy = rare.index == placebos;
                let enough = !is_deploy || rare.placebos as usize >= params.min_placebos;
                let far = limits.is_none_or(|limits| rare.ratio > limits[rare.index]);
                if !enough || !far {
                    continue;
                }
                let rarity = (f64::from(rare.like) + params.prior * tail.beyond(rare.ratio))
                    / (f64::from(rare.placebos) + params.prior);
                if is_deploy {
                    of_deploy = rarity;
                } else {
                    rarities.placebos.push(rarity);
                }
            }
            rarities.deploy.push(of_deploy);
        }
        rarities
    }
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
fn threshold(families: [&Rarities; 2], placebos: usize, level: f64) -> Bars {
    let mut bars = Bars {
        findings: -1.0,
        alone: -1.0,
    };
    if placebos == 0 {
        return bars;
    }
    // Rarities of 1 never decide.
    let rare = |rarity: &&f64| **rarity < 0.5;
    let sorted = |of: fn(&Rarities) -> &Vec<f64>| {
        let mut all: Vec<f64> = families
            .into_iter()
            .flat_map(of)
            .filter(rare)
            .copied()
            .collect();
        all.sort_unstable_by(f64::total_cmp);
        all
    };
    let (deploy, usual) = (sorted(|one| &one.deploy), sorted(|one| &one.placebos));
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
    tail: Tail<'a>,
    params: &'a Params,
    /// A change must be rarer.
    bar: f64,
}

impl Visible<'_> {
    /// The smallest change of `series` that would be found, as a share of its level before.
    fn share(&self, series: &Scores) -> Option<f64> {
        let Self { tail, params, bar } = self;
        let scored = &series.change;
        let ratios = &scored.largest;
        let n = f64::from(scored.placebos);
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
        let before = series.before;
        let change = in_its_unit(series.kind, before, high * scored.scale);
        let share = change / before.abs();
        share.is_finite().then_some(share)
    }
}
