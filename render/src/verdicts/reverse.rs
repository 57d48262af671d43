//! The reverse question: what happened here? The deploys that explain a change of one series best.

use serde::Serialize;

use super::scope::concerns;
use super::stats::Stats;
use super::values::{Grid, Reach, StoredValues};
use crate::budget::Budget;
use crate::error::Error;
use crate::events::{Event, Store, TagQuery};
use crate::impact::{Candidate, Params, Values as _, explain, onset};
use crate::source::Source;

/// A change of a series, and what explains it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Happened {
    /// When the series changed most sharply within half an hour of the time asked for, in Unix seconds.
    pub at: i64,
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

/// What happened to the series `name` around `at`, at the clock `now`; `None` if it has too few points there, or
/// did not change.
/// `deploys` says which events count.
///
/// # Errors
/// The store or the events cannot be read, or `budget` is used up.
pub fn what_happened(
    source: &dyn Source,
    store: &Store,
    deploys: &TagQuery,
    name: &str,
    at: i64,
    now: i64,
    budget: &Budget,
) -> Result<Option<Happened>, Error> {
    const MOST: usize = 200;
    /// How far from the change deploys are looked for, in seconds.
    const AROUND: f64 = 86_400.0;
    let params = Params::default();
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
    let step_u32 = u32::try_from(step).unwrap_or(u32::MAX);
    let found = onset(&points, guess, step_u32, &params);
    // A series without points, or a constant one, has no change.
    let Some(found) = found.filter(|found| found.size > 0.0) else {
        return Ok(None);
    };
    let changed = base + found.at as i64 * step;
    let events = store
        .query(
            deploys,
            changed as f64 - AROUND,
            changed as f64 + 3_600.0,
            MOST,
        )
        .map_err(|error| Error::Failed(error.to_string()))?;
    let place = |at: f64| usize::try_from(values.grid.floor(at)).unwrap_or_default();
    let candidates: Vec<Candidate> = events
        .iter()
        .map(|event| Candidate {
            start: place(event.when),
            end: place(event.until.unwrap_or(event.when)),
            related: concerns(event, name),
        })
        .collect();
    let explained = explain(&candidates, found.at, step_u32);
    let rare = found.comparable > 0 && found.like as f64 <= params.cap * found.comparable as f64;
    Ok(Some(Happened {
        at: changed,
        like: found.like,
        comparable: found.comparable,
        rare,
        deploys: explained.into_iter().map(|at| events[at].clone()).collect(),
    }))
}
