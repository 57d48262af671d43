//! The reverse question: what happened here? The deploys that explain a change best.

use serde::Serialize;

use super::scope::{concerns, read_by, spread};
use super::stats::Stats;
use super::values::{Grid, Reach, StoredValues};
use crate::budget::Budget;
use crate::error::Error;
use crate::events::{Event, Store, TagQuery};
use crate::impact::{Candidate, Onset, Params, Values as _, explain, onset};
use crate::query;
use crate::source::Source;

/// Most series that are asked: of more, evenly distributed ones.
const MOST_SERIES: usize = 50;
/// Most deploys that are candidates.
const MOST_DEPLOYS: usize = 200;
/// How far from the change deploys are looked for, in seconds.
const AROUND: f64 = 86_400.0;

/// A change of a series, and what explains it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Happened {
    /// The series that changed most, compared with what it does by itself.
    pub series: String,
    /// How many series were looked at.
    pub looked_at: usize,
    /// When the series changed most sharply within half an hour of the time asked for, in Unix seconds.
    pub at: i64,
    /// The size of the change over the series' own largest usual change.
    pub ratio: f64,
    /// Comparable times at which it changed as much by itself.
    pub like: usize,
    /// Comparable times.
    #[serde(rename = "moments")]
    pub comparable: usize,
    /// Whether such a change is rare: at most one in a hundred.
    pub rare: bool,
    /// The deploys that explain it, best first.
    #[serde(skip)]
    pub deploys: Vec<Event>,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What the graph shows: names, patterns, functions of them.
    pub targets: &'a [String],
    /// When, in Unix seconds.
    pub at: i64,
    /// The clock.
    pub now: i64,
}

/// What happened to the series of `asked` around its time; `None` if they have too few points there, or did not
/// change. `deploys` says which events count.
///
/// # Errors
/// A target does not parse, the store or the events cannot be read, or `budget` is used up.
pub fn what_happened(
    source: &dyn Source,
    store: &Store,
    deploys: &TagQuery,
    asked: Asked<'_>,
    budget: &Budget,
) -> Result<Option<Happened>, Error> {
    let params = Params::default();
    for target in asked.targets {
        query::parse(target)?;
    }
    let names: Vec<String> = read_by(asked.targets, source, budget)?
        .into_iter()
        .collect();
    let names = spread(names, MOST_SERIES);
    let mut best: Option<(Happened, Grid)> = None;
    for name in &names {
        let Some((found, grid)) = change_of(source, name, asked, &params, budget)? else {
            continue;
        };
        let rare =
            found.comparable > 0 && found.like as f64 <= params.cap * found.comparable as f64;
        let happened = Happened {
            series: name.clone(),
            looked_at: names.len(),
            at: grid.base + found.at as i64 * grid.step,
            ratio: found.ratio,
            like: found.like,
            comparable: found.comparable,
            rare,
            deploys: Vec::new(),
        };
        let is_better = best
            .as_ref()
            .is_none_or(|(best, _)| (happened.rare, happened.ratio) > (best.rare, best.ratio));
        if is_better {
            best = Some((happened, grid));
        }
    }
    let Some((mut happened, grid)) = best else {
        return Ok(None);
    };
    let at = happened.at as f64;
    let events = store
        .query(deploys, at - AROUND, at + 3_600.0, MOST_DEPLOYS)
        .map_err(|error| Error::Failed(error.to_string()))?;
    let place = |at: f64| usize::try_from(grid.floor(at)).unwrap_or_default();
    let candidates: Vec<Candidate> = events
        .iter()
        .map(|event| Candidate {
            start: place(event.when),
            end: place(event.until.unwrap_or(event.when)),
            related: concerns(event, &happened.series),
        })
        .collect();
    let step = u32::try_from(grid.step).unwrap_or(u32::MAX);
    let explained = explain(&candidates, place(at), step);
    happened.deploys = explained.into_iter().map(|at| events[at].clone()).collect();
    Ok(Some(happened))
}

/// The sharpest change of the series `name`, and the grid of its points.
fn change_of(
    source: &dyn Source,
    name: &str,
    Asked { at, now, .. }: Asked<'_>,
    params: &Params,
    budget: &Budget,
) -> Result<Option<(Onset, Grid)>, Error> {
    let Some(reach) = Reach::of(source, name, now) else {
        return Ok(None);
    };
    let step = Grid::step_of(&[Some(reach)]);
    let back = ((params.history_days * 86_400.0) as i64 + 3_600) / step * step;
    let base = at.div_euclid(step) * step - back;
    let never = std::sync::atomic::AtomicBool::new(false);
    let stats = Stats::default();
    let values = StoredValues {
        source,
        names: vec![name.to_owned()],
        reaches: vec![Some(reach)],
        grid: Grid { base, step },
        now,
        cancelled: &never,
        stats: &stats,
    };
    let guess = usize::try_from((at - base) / step).unwrap_or_default();
    let end = guess + usize::try_from(7_200 / step).unwrap_or_default();
    let _held = budget.hold((end + 1) * 4 * size_of::<f64>())?;
    let mut points = Vec::new();
    values.read(0, 0..end, &mut points);
    // What is still to come is no change.
    let known = usize::try_from((now - base).div_euclid(step)).unwrap_or_default();
    points.truncate(known.min(end));
    let step = u32::try_from(step).unwrap_or(u32::MAX);
    // A series without points, or a constant one, has no change.
    let found = onset(&points, guess, step, params).filter(|found| found.size > 0.0);
    Ok(found.map(|found| (found, values.grid)))
}
