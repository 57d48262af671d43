//! How the verdicts of this server fare: deploys that never happened are judged by its own data, at times at which
//! nothing was deployed. Each that is said to have changed something is a false alarm.

use std::collections::BTreeSet;

use serde::Serialize;

use super::judge::Judge;
use crate::events::Event;
use crate::impact::{Correction, Outcome, Report};

/// How many deploys that never happened are judged.
const PLACEBOS: usize = 24;
/// How far back they are, in seconds.
const BACK: f64 = 3.0 * 86_400.0;
/// Long enough after a deploy, and before the next one, for all looks.
const APART: f64 = 4_500.0;
/// How far back real deploys are counted, in seconds.
const REAL: f64 = 30.0 * 86_400.0;
const MAX_REAL: usize = 5_000;

/// The false alarms of this server, and what became of its verdicts.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Calibration {
    /// Deploys that never happened and could be judged.
    pub placebos: usize,
    /// Those of them with a verdict of worse, better or changed.
    pub accused: usize,
    /// Those of them with a verdict of worse.
    pub worse: usize,
    /// Those that had too little data for a verdict.
    pub without_data: usize,
    /// Series judged for each, on average.
    pub series: f64,
    /// Verdicts on the real deploys of the last 30 days, by verdict.
    pub verdicts: Vec<(&'static str, usize)>,
    /// The opinions of persons on them.
    pub corrections: Vec<(&'static str, usize)>,
    /// Whether all placebos have been judged.
    pub complete: bool,
    /// When it was begun, in Unix seconds.
    pub updated: f64,
}

/// A calibration in progress.
pub(super) struct Running {
    pub(super) so_far: Calibration,
    left: Vec<Event>,
}

impl Running {
    /// Chooses times and tags, at the clock `now`.
    pub(super) fn begin(judge: &Judge, now: f64) -> Self {
        let query = judge.events.clone().unwrap_or_default();
        let real = judge.store.query(&query, now - REAL, now, MAX_REAL);
        let real = real.unwrap_or_default();
        let count = |verdict: Outcome| {
            let has = |event: &&Event| {
                event
                    .impact
                    .as_ref()
                    .is_some_and(|one| one.verdict == verdict)
            };
            real.iter().filter(has).count()
        };
        let corrected = |correction: Correction| {
            let of = |event: &Event| event.impact.as_ref().and_then(|one| one.correction);
            real.iter()
                .filter(|event| of(event) == Some(correction))
                .count()
        };
        let tags: BTreeSet<Vec<String>> = real.iter().map(|event| event.tags.clone()).collect();
        let tags: Vec<Vec<String>> = match tags.is_empty() {
            true => vec![Vec::new()],
            false => tags.into_iter().collect(),
        };
        let last = now - APART;
        let every = (BACK - APART) / PLACEBOS as f64;
        let left = (0..PLACEBOS).map(|n| Event {
            when: ((last - n as f64 * every) / 60.0).floor() * 60.0,
            tags: tags[n % tags.len()].clone(),
            ..Event::default()
        });
        let quiet = |event: &Event| {
            real.iter().all(|other| {
                let end = Judge::end(other, now).unwrap_or(now);
                event.when + APART < other.when || event.when > end + APART
            })
        };
        Self {
            left: left.filter(quiet).collect(),
            so_far: Calibration {
                verdicts: Outcome::ALL.map(|one| (one.name(), count(one))).to_vec(),
                corrections: Correction::ALL
                    .map(|one| (one.name(), corrected(one)))
                    .to_vec(),
                updated: now,
                ..Calibration::default()
            },
        }
    }

    /// The next deploy to judge; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Event> {
        let next = self.left.pop();
        self.so_far.complete = next.is_none();
        next
    }

    /// Counts the verdict on one of them.
    pub(super) fn count(&mut self, report: &Report) {
        let so_far = &mut self.so_far;
        if report.verdict == Outcome::NotEnoughData {
            so_far.without_data += 1;
            return;
        }
        let n = so_far.placebos as f64;
        so_far.series = (so_far.series * n + report.tested as f64) / (n + 1.0);
        so_far.placebos += 1;
        so_far.accused += usize::from(report.verdict != Outcome::Unchanged);
        so_far.worse += usize::from(report.verdict == Outcome::Worse);
    }
}
