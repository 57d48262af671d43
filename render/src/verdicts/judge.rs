//! One verdict: from an event to its report.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::options::Options;
use super::scope::{Chosen, Key, Names, Rules, Scope, Selector};
use super::stats::Stats;
use super::values::{Grid, Reach, StoredValues};
use crate::budget::{Budget, Memory};
use crate::error::Error;
use crate::events::{Error as StoreError, Event, OPEN_AT_MOST, Status, Store, TagQuery};
use crate::impact::{
    Input, Judgement, LOOKS, Params, Question, Report, Role, Subject, judge_looks, report,
};
use crate::source::Source;

const MINUTE: f64 = 60.0;
const DAY: f64 = 86_400.0;
/// How long after the end of a look its last points may still be on their way, in seconds, beside one step.
const LAG: f64 = 15.0;
/// Bytes of names that are held to choose from; with more, names are searched by pattern.
const MAX_NAMES: u64 = 64 << 20;
/// Most deploys of the history that are taken into account, the newest.
const MAX_DEPLOYS: usize = 2_000;
/// Bytes that the method keeps for one change of one series: its ratio at each look, in a list with room for twice as
/// many, and the change itself twice.
const PER_CHANGE: usize = 16 * LOOKS.len() + 16;
/// Series that are read to find out where the history begins.
const SAMPLED: usize = 32;

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The events cannot be read.
    #[error(transparent)]
    Events(#[from] StoreError),
    /// The series cannot be read, or memory is short.
    #[error(transparent)]
    Series(#[from] Error),
}

/// Judges deploys.
pub struct Judge {
    pub(super) store: Arc<Store>,
    source: Arc<dyn Source>,
    memory: Arc<Memory>,
    selector: Selector,
    /// The events that are judged; `None` for none.
    pub(super) events: Option<TagQuery>,
    threads: usize,
    params: Params,
    /// Counters.
    pub stats: Stats,
}

impl Judge {
    /// A judge of the deploys in `store` by the series in `source`.
    ///
    /// # Errors
    /// A sentence about the first option that makes no sense.
    pub fn new(
        options: &Options,
        store: Arc<Store>,
        source: Arc<dyn Source>,
        memory: Arc<Memory>,
    ) -> Result<Self, String> {
        let Options {
            events,
            rules,
            max_series,
            threads,
            // Used by the worker and its host.
            webhook: _,
            worse_tags: _,
        } = options;
        let events = match events.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|error| format!("impact.events: {error}"))?,
            ),
        };
        let threads = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => *threads,
        };
        Ok(Self {
            store,
            source,
            memory,
            selector: Selector {
                rules: Rules::new(rules)?,
                max_series: *max_series,
            },
            events,
            threads,
            params: Params::default(),
            stats: Stats::default(),
        })
    }

    /// When `event` ended, if it has.
    pub fn end(event: &Event, now: f64) -> Option<f64> {
        match (event.until, event.status) {
            (Some(until), _) => Some(until.max(event.when)),
            (None, Status::Started) if now < event.when + OPEN_AT_MOST => None,
            (None, _) => Some(event.when),
        }
    }

    /// When the look at `minutes` after the end of `event` can be taken.
    pub fn due(end: f64, minutes: u32) -> f64 {
        end + f64::from(minutes) * MINUTE + super::values::FINEST as f64 + LAG
    }

    /// The verdict on `event` at the clock `now`, from all looks that can be taken by then.
    ///
    /// # Errors
    /// The store or the events cannot be read, or memory is short.
    pub(super) fn judge(
        &self,
        event: &Event,
        now: f64,
        dashboards: Vec<String>,
        cancelled: &AtomicBool,
    ) -> Result<Report, Failure> {
        let end = Self::end(event, now).unwrap_or(event.when);
        let undone = self.undone(event)?;
        let last = undone.unwrap_or(f64::INFINITY);
        let in_time = |minutes: &u32| end + f64::from(*minutes) * MINUTE <= last;
        let looks = LOOKS.into_iter().filter(in_time);
        let next = looks
            .clone()
            .map(|minutes| Self::due(end, minutes))
            .find(|due| *due > now);
        let looks: Vec<u32> = looks
            .filter(|minutes| Self::due(end, *minutes) <= now)
            .collect();

        let budget = Budget::new(Arc::clone(&self.memory), None);
        let listing = Budget::new(Memory::new(MAX_NAMES), None);
        let names = Names::read(&*self.source, &listing, &budget, dashboards)?;
        let scope = self.selector.select(event, &names)?;
        let controls = self
            .selector
            .controls(&scope, &names, self.selector.max_series / 4)?;
        let earlier = self.earlier(event)?;
        let (keys, owners) = self.selector.keys(&earlier, &controls, &names)?;
        drop(names);

        let mut case = Case::new(self, event, end, scope, controls, now, cancelled);
        case.deploys(&earlier, &keys, &owners);
        let _held = case.hold(&budget)?;
        let judged = case.looks(&looks, self.threads, &self.params);
        let subjects: Vec<Subject<'_>> = case.scope.series.iter().map(subject).collect();
        let mut report = report(&judged, &subjects, next.is_none(), &self.params);
        report.left_out = case.scope.left_out;
        report.controls = case.values.names.len() - case.scope.series.len();
        report.updated = now;
        report.next = next;
        report.joint = case.joint(&judged, &earlier, &keys);
        if judged.is_empty() {
            report.sentence = case.why_not(undone, next);
        } else if undone.is_some() && next.is_none() {
            report.sentence += "; then it was rolled back";
        }
        report.followed = self.followed(event, &case.scope.key, end, &judged)?;
        if let (Some(next), true) = (report.followed.first(), report.changed > 0) {
            report.sentence += &format!("; event {next} followed within the last look");
        }
        if let Some(first) = report.joint.first() {
            report.sentence += &format!("; cannot be distinguished from event {first}");
        }
        Ok(report)
    }

    /// The ids of the deploys with something of `key` in common that came before the last of `looks` at `event`,
    /// which ended at `end`, was over.
    fn followed(
        &self,
        event: &Event,
        key: &Key,
        end: f64,
        looks: &[(u32, Judgement)],
    ) -> Result<Vec<i64>, Failure> {
        let (Some(query), Some((minutes, _))) = (&self.events, looks.last()) else {
            return Ok(Vec::new());
        };
        let until = end + f64::from(*minutes) * MINUTE;
        let later = self.store.query(query, event.when, until, MAX_DEPLOYS)?;
        let shares = |other: &&Event| other.id != event.id && self.selector.key(other).meets(key);
        Ok(later.iter().filter(shares).map(|other| other.id).collect())
    }

    /// When `event` was rolled back, if it was.
    fn undone(&self, event: &Event) -> Result<Option<f64>, Failure> {
        let every: TagQuery = "*".parse().unwrap_or_default();
        let later = self
            .store
            .query(&every, event.when, event.when + DAY, MAX_DEPLOYS)?;
        let undoes = later
            .iter()
            .filter(|other| other.rollback_of == Some(event.id));
        Ok(undoes.map(|other| other.when).reduce(f64::min))
    }

    /// The deploys of the history before `event`, oldest first.
    fn earlier(&self, event: &Event) -> Result<Vec<Event>, Failure> {
        let from = event.when - (self.params.history_days + 1.0) * DAY;
        let Some(query) = &self.events else {
            return Ok(Vec::new());
        };
        let mut events = self.store.query(query, from, event.when, MAX_DEPLOYS)?;
        events.retain(|other| other.id != event.id);
        Ok(events)
    }
}

fn subject(chosen: &Chosen) -> Subject<'_> {
    Subject {
        name: &chosen.name,
        direction: chosen.direction,
        least: chosen.least,
    }
}

/// One deploy with its series, on their grid.
struct Case<'a> {
    scope: Scope,
    values: StoredValues<'a>,
    roles: Vec<Role>,
    /// The starts of earlier deploys by scope; the deploy's own scope first.
    deploys: Vec<Vec<usize>>,
    /// The first point after the deploy.
    end: i64,
    /// Points between its start and its end.
    gap: usize,
}

impl<'a> Case<'a> {
    fn new(
        judge: &'a Judge,
        event: &Event,
        end: f64,
        scope: Scope,
        controls: Vec<String>,
        now: f64,
        cancelled: &'a AtomicBool,
    ) -> Self {
        let now = now as i64;
        let mine = scope.series.len();
        let names = scope
            .series
            .iter()
            .map(|one| one.name.clone())
            .chain(controls);
        let names: Vec<String> = names.collect();
        let reach = |name: &String| Reach::of(&*judge.source, name, now);
        let reaches: Vec<Option<Reach>> = names.iter().map(reach).collect();
        let step = Grid::step_of(&reaches[..mine]);
        let history = (judge.params.history_days * DAY) as i64;
        let base = (end as i64 - history).div_euclid(step) * step;
        let mut values = StoredValues {
            source: &*judge.source,
            names,
            reaches,
            grid: Grid { base, step },
            now,
            cancelled,
            stats: &judge.stats,
        };
        // The history begins where the first series does: how dense the comparable times are depends on it.
        values.grid.base = base + step * values.first_present(mine, end);
        let grid = values.grid;
        let (start, end) = (grid.floor(event.when), grid.ceil(end));
        let role = |mine| Role {
            mine,
            deploys: mine.then_some(0),
        };
        Self {
            roles: (0..values.names.len()).map(|at| role(at < mine)).collect(),
            scope,
            values,
            deploys: vec![Vec::new()],
            end,
            gap: usize::try_from(end - start).unwrap_or_default(),
        }
    }

    /// Takes over the earlier deploys: their keys, and the key of each control.
    fn deploys(&mut self, earlier: &[Event], keys: &[Key], owners: &[Option<usize>]) {
        let grid = self.values.grid;
        let start = |event: &Event| usize::try_from(grid.floor(event.when)).ok();
        let of = |meets: &dyn Fn(&Key) -> bool| -> Vec<usize> {
            let those = earlier.iter().zip(keys).filter(|(_, key)| meets(key));
            those.filter_map(|(event, _)| start(event)).collect()
        };
        self.deploys = vec![of(&|key| key.meets(&self.scope.key))];
        let mut places: Vec<(usize, usize)> = Vec::new();
        let mine = self.scope.series.len();
        for (role, owner) in self.roles[mine..].iter_mut().zip(owners) {
            let Some(owner) = *owner else {
                continue;
            };
            let known = places.iter().find(|(key, _)| *key == owner);
            let place = match known {
                Some((_, place)) => *place,
                None => {
                    self.deploys.push(of(&|key| key.meets(&keys[owner])));
                    places.push((owner, self.deploys.len() - 1));
                    self.deploys.len() - 1
                }
            };
            role.deploys = Some(place);
        }
    }

    /// Reserves the memory that the method needs.
    fn hold(&self, budget: &Budget) -> Result<crate::budget::Reservation, Error> {
        let points = usize::try_from(self.end).unwrap_or_default();
        let short = (self.end * self.values.grid.step) < 2 * DAY as i64;
        let stride = if short { 2 } else { 15 };
        let changes = points / (stride * 60 / self.values.grid.step as usize).max(1) + 1;
        budget.hold(self.roles.len() * (changes * PER_CHANGE + 4_096))
    }

    /// The looks at `minutes` that have enough points.
    fn looks(&self, minutes: &[u32], threads: usize, params: &Params) -> Vec<(u32, Judgement)> {
        const FEWEST: i64 = 5;
        let Ok(end) = usize::try_from(self.end) else {
            return Vec::new();
        };
        let input = Input {
            roles: &self.roles,
            deploys: &self.deploys,
            values: &self.values,
            threads,
        };
        let step = self.values.grid.step;
        let enough = |look: &&u32| i64::from(**look) * 60 / step >= FEWEST;
        let minutes: Vec<u32> = minutes.iter().filter(enough).copied().collect();
        let (Ok(seconds), Some(look), false) = (
            u32::try_from(step),
            minutes.first().copied(),
            self.scope.series.is_empty(),
        ) else {
            return Vec::new();
        };
        let question = Question {
            step: seconds,
            end,
            gap: self.gap,
            look,
            earlier: self.deploys[0].clone(),
        };
        judge_looks(&question, &minutes, input, params)
    }

    /// The ids of the earlier deploys that cannot be distinguished from this one.
    fn joint(&self, looks: &[(u32, Judgement)], earlier: &[Event], keys: &[Key]) -> Vec<i64> {
        let joint = looks
            .iter()
            .rev()
            .find_map(|(_, judgement)| judgement.joint);
        let Some(from) = joint else {
            return Vec::new();
        };
        let grid = self.values.grid;
        let joined = earlier.iter().zip(keys).filter(|(event, key)| {
            let at = usize::try_from(grid.floor(event.when)).ok();
            key.meets(&self.scope.key) && at.is_some_and(|at| at >= from)
        });
        joined.map(|(event, _)| event.id).collect()
    }

    /// Why no look was taken.
    fn why_not(&self, undone: Option<f64>, next: Option<f64>) -> String {
        let why = if self.scope.series.is_empty() {
            "no series belongs to this event: see impact.rules"
        } else if undone.is_some() && next.is_none() {
            "it was rolled back before it could be judged"
        } else if next.is_some() {
            "too early to say"
        } else {
            "the series have too little history before it, or too few points after it"
        };
        format!("not enough data: {why}")
    }
}

impl StoredValues<'_> {
    /// The first point within the history that some of the first `mine` series have.
    fn first_present(&self, mine: usize, end: f64) -> i64 {
        use crate::impact::Values as _;

        let end = usize::try_from(self.grid.floor(end)).unwrap_or_default();
        let mut first = end;
        let mut values = Vec::new();
        let sampled = mine.min(SAMPLED);
        for n in 0..sampled {
            values.clear();
            self.read(n * mine / sampled, 0..first, &mut values);
            first = values
                .iter()
                .position(|value| value.is_finite())
                .unwrap_or(first);
        }
        first as i64
    }
}
