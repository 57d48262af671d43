//! Titles with their figures as the server writes them: for readers without scripts, and for the
//! time before a script has drawn the graph.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use parking_lot::Mutex;

use super::Panel;
use crate::budget::{Budget, Memory};
use crate::context::{Limits, Query, Window};
use crate::draw::{with_figures, without_figures};
use crate::query;
use crate::source::Source;

/// How long a title is kept.
const KEPT: Duration = Duration::from_secs(10);
/// Titles that are kept.
const MOST: usize = 500;
/// The time that all titles of a page may take; the others have no figures.
const TIME: Duration = Duration::from_millis(200);
/// The values that one title may read.
const POINTS: usize = 1_000_000;

/// The titles of the last seconds.
#[derive(Default)]
pub(super) struct Titles(Mutex<BTreeMap<String, (Instant, String)>>);

impl Titles {
    /// The titles of `panels` over `from..until`, in Unix seconds. It may read the disk, and reserves in `memory`.
    pub(super) fn of<'p>(
        &self,
        source: &dyn Source,
        panels: impl Iterator<Item = &'p Panel>,
        (from, until): (i64, i64),
        zone: &TimeZone,
        memory: &Arc<Memory>,
    ) -> Vec<String> {
        let deadline = Instant::now() + TIME;
        let step = KEPT.as_secs() as i64;
        let title = |panel: &Panel| {
            if with_figures(&panel.title, &[]) == panel.title {
                return panel.title.clone();
            }
            let (first, last) = (from / step, until / step);
            let key = format!("{} {:?} {first} {last}", panel.title, panel.targets);
            if let Some((_, known)) = self.0.lock().get(&key) {
                return known.clone();
            }
            let Some(title) = evaluated(source, panel, (from, until), zone, (memory, deadline))
            else {
                return without_figures(&panel.title);
            };
            let mut kept = self.0.lock();
            kept.retain(|_, (at, _)| at.elapsed() < KEPT);
            if kept.len() < MOST {
                kept.insert(key, (Instant::now(), title.clone()));
            }
            title
        };
        panels.map(title).collect()
    }
}

/// The title with the figures of the first series that the targets give; `None` if there is none, or
/// no time.
fn evaluated(
    source: &dyn Source,
    panel: &Panel,
    (from, until): (i64, i64),
    zone: &TimeZone,
    (memory, deadline): (&Arc<Memory>, Instant),
) -> Option<String> {
    let mut query = Query::new(source, until);
    query.time_zone = zone.clone();
    query.limits = Limits {
        max_series: super::panels::SERIES_PER_PANEL,
        max_points: POINTS,
        budget: Budget::new(Arc::clone(memory), Some(deadline)),
    };
    let window = Window { from, until };
    for target in &panel.targets {
        query.limits.budget.check().ok()?;
        let expression = query::parse(target).ok()?.expression;
        let series = query.evaluate(&[expression], window, 0.0).ok()?;
        if !series.is_empty() {
            return Some(with_figures(&panel.title, &series));
        }
    }
    None
}
