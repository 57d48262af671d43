//! The looks at one deploy: which of its series changed, judged against their own placebos.
//!
//! Each series is read once for all looks, and kept only as far as the threshold of the whole scope needs it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::decide::{Judgement, Look, Measurements, Role, Scores, decide};
use super::measure::{Measured, Workspace, measure};
use super::params::{Params, Plan, Question, alpha};
use super::score::{self, Comparison};
use super::season::{self, deseason};
use super::windows::Scratch;

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
    judge_plans(&[(question.look, plan, level)], input, params)
        .pop()
        .map(|(_, judgement)| judgement)
}

/// Judges several looks at the deploy of `question`, whose own look does not count: `looks` are their minutes, ascending.
/// Looks that cannot be judged are left out. The same as [`judge()`] for each, in less time.
pub fn judge_looks(
    question: &Question,
    looks: &[u32],
    input: Input<'_>,
    params: &Params,
) -> Vec<(u32, Judgement)> {
    let plan = |look: &u32| {
        let question = Question {
            look: *look,
            ..question.clone()
        };
        let plan = Plan::new(&question, params)?;
        let level = alpha(*look, plan.short)?;
        Some((*look, plan, level))
    };
    let plans: Vec<(u32, Plan, f64)> = looks.iter().filter_map(plan).collect();
    judge_plans(&plans, input, params)
}

fn judge_plans(
    plans: &[(u32, Plan, f64)],
    input: Input<'_>,
    params: &Params,
) -> Vec<(u32, Judgement)> {
    let looks: Vec<Look<'_>> = plans
        .iter()
        .map(|(_, plan, level)| Look::new(plan, *level, input.deploys, params))
        .collect();
    if looks.is_empty() {
        return Vec::new();
    }
    let next = AtomicUsize::new(0);
    let measured: Vec<Vec<Measurements>> = on_threads(input.threads, || {
        let mut worker = Worker::new(&looks, input, params);
        while worker.series(next.fetch_add(1, Ordering::Relaxed)) {}
        worker.done()
    });
    let next = AtomicUsize::new(0);
    let judged = on_threads(input.threads.min(looks.len()), || {
        let mut judged = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(look) = looks.get(at) else {
                return judged;
            };
            let of_look: Vec<&Measurements> = measured.iter().map(|looks| &looks[at]).collect();
            judged.push((plans[at].0, decide(look, &of_look, input.roles, params)));
        }
    });
    let mut judged: Vec<(u32, Judgement)> = judged.into_iter().flatten().collect();
    judged.sort_unstable_by_key(|(look, _)| *look);
    judged
}

/// What `work` returns on each of so many threads.
fn on_threads<T: Send>(threads: usize, work: impl Fn() -> T + Sync) -> Vec<T> {
    if threads <= 1 {
        return vec![work()];
    }
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(&work)).collect();
        let done = workers.into_iter().map(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.collect()
    })
}

/// Measures and scores one series after another, for all looks.
struct Worker<'a> {
    looks: &'a [Look<'a>],
    plans: Vec<&'a Plan>,
    input: Input<'a>,
    params: &'a Params,
    measured: Vec<Measurements>,
    values: Vec<f64>,
    workspace: Workspace,
    season: season::Buffers,
    score: score::Buffers,
    scratch: Scratch,
}

impl<'a> Worker<'a> {
    fn new(looks: &'a [Look<'a>], input: Input<'a>, params: &'a Params) -> Self {
        Self {
            looks,
            plans: looks.iter().map(|look| look.plan).collect(),
            input,
            params,
            measured: looks.iter().map(|_| Measurements::default()).collect(),
            values: Vec::new(),
            workspace: Workspace::default(),
            season: season::Buffers::default(),
            score: score::Buffers::default(),
            scratch: Scratch::default(),
        }
    }

    /// Takes over series number `series`; false if there is none.
    fn series(&mut self, series: usize) -> bool {
        let (Some(role), Some(longest)) = (self.input.roles.get(series), self.plans.last()) else {
            return false;
        };
        let points = longest.points.clone();
        self.values.clear();
        let length = points.len();
        self.input.values.read(series, points, &mut self.values);
        self.values.resize(length, f64::NAN);
        let measured = measure(&self.values, &self.plans, self.params, &mut self.workspace);
        for (at, one) in measured.into_iter().enumerate() {
            let scores = self.score(at, role, one);
            self.measured[at].series.push((series, scores));
        }
        true
    }

    /// Scores what the look number `at` sees.
    fn score(&mut self, at: usize, role: &Role, measured: Measured) -> Scores {
        let Look {
            plan,
            ref times,
            ref disturbed,
            ..
        } = self.looks[at];
        let Measured {
            kind,
            mut change,
            mut effect,
            mut presence,
            floor,
            before,
            after,
            present,
        } = measured;
        let disturbed: &[usize] = role.deploys.map_or(&[], |scope| &disturbed[scope]);
        for placebo in disturbed {
            change[*placebo] = f64::NAN;
            effect[*placebo] = f64::NAN;
            if let Some(presence) = presence.get_mut(*placebo) {
                *presence = f64::NAN;
            }
        }
        let comparison = Comparison {
            plan,
            params: self.params,
            floor,
        };
        deseason(&mut change, times, &mut self.season);
        if !role.mine {
            // What a control did by itself is all that counts.
            return Scores {
                change: comparison.score(&change, None, &mut self.score),
                ..Scores::default()
            };
        }
        deseason(&mut effect, times, &mut self.season);
        let deploy = plan.placebos();
        let Measurements {
            changes, presences, ..
        } = &mut self.measured[at];
        let of_presence = Comparison {
            floor: 0.5,
            ..comparison
        };
        let (last_change, last_effect) = (change[deploy], effect[deploy]);
        let usual = &effect[..deploy];
        Scores {
            kind,
            before,
            after,
            present,
            last_change,
            last_presence: presence.last().copied().unwrap_or_default(),
            effect: last_effect,
            low: last_effect - self.scratch.quantile(usual, 0.95),
            high: last_effect - self.scratch.quantile(usual, 0.05),
            change: comparison.score(&change, Some(changes), &mut self.score),
            presence: match presence.is_empty() {
                true => of_presence.unchanged(deploy - disturbed.len(), presences),
                false => of_presence.score(&presence, Some(presences), &mut self.score),
            },
            placebos: if at + 1 == self.looks.len() {
                change.truncate(deploy);
                change
            } else {
                Vec::new()
            },
        }
    }

    /// What each look knows of the series.
    fn done(mut self) -> Vec<Measurements> {
        for of_look in &mut self.measured {
            of_look.changes.sort();
            of_look.presences.sort();
        }
        self.measured
    }
}
