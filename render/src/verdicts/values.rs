//! Values of series on one grid of points, read from the store when they are needed.
//!
//! 1. Nothing is held: each look reads each series once, so that thousands of series need no memory
//!    beyond what the method keeps of them.
//! 2. All series are judged on one step, a minute unless they are kept less often. Finer values are combined
//!    as their file combines them; series with coarser ones are absent.
//! 3. The archive that reaches furthest back at that step is read, recent values too: a change of archives
//!    within the history would look like a change of the series.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use whisper::{Aggregation, Timestamp};

use super::stats::Stats;
use crate::impact::Values;
use crate::source::{FetchRange, Fetched, Source};

/// The finest step on which series are judged, in seconds.
pub(super) const FINEST: i64 = 60;
/// The coarsest step that leaves enough points within a look of half an hour.
const COARSEST: i64 = 360;
const DAY: i64 = 86_400;

/// How far back a series can be read at its step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// Seconds per point.
    pub(super) step: i64,
    /// The earliest time that it holds, in Unix seconds.
    pub(super) from: i64,
}

impl Reach {
    /// The archive to judge `name` by at the clock `now`; `None` where all are too coarse.
    pub(super) fn of(source: &dyn Source, name: &str, now: i64) -> Option<Self> {
        // A series without a file yet has no archives; its values come as they are.
        let Ok(Some(info)) = source.info(name) else {
            return Some(Self {
                step: FINEST,
                from: 0,
            });
        };
        let archives = info.retentions.iter().map(|retention| Self {
            step: i64::from(retention.step.seconds()),
            // The oldest point may be overwritten meanwhile.
            from: now - retention.seconds() as i64 + 2 * i64::from(retention.step.seconds()),
        });
        let usable: Vec<Self> = archives.filter(|one| one.step <= COARSEST).collect();
        let fine = usable.iter().filter(|one| one.step <= FINEST);
        let fine = fine.min_by_key(|one| one.from);
        let long = |one: &&Self| one.from <= now - 2 * DAY - DAY / 8;
        fine.filter(long)
            .or_else(|| usable.iter().find(long))
            .or(fine)
            .or_else(|| usable.iter().min_by_key(|one| one.from))
            .copied()
    }
}

/// The grid of one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// The time of the first point, a multiple of the step.
    pub(super) base: i64,
    /// Seconds per point.
    pub(super) step: i64,
}

impl Grid {
    /// The step for series of `reaches`: that of most of them, but not finer than [`FINEST`].
    pub(super) fn step_of(reaches: &[Option<Reach>]) -> i64 {
        let mut steps: Vec<i64> = reaches.iter().flatten().map(|reach| reach.step).collect();
        steps.sort_unstable();
        steps
            .get(steps.len() / 2)
            .map_or(FINEST, |step| (*step).max(FINEST))
    }

    /// The point that holds the time `at`.
    pub(super) fn floor(&self, at: f64) -> i64 {
        (at.floor() as i64 - self.base).div_euclid(self.step)
    }

    /// The first point that begins at or after the time `at`.
    pub(super) fn ceil(&self, at: f64) -> i64 {
        -(self.base - at.ceil() as i64).div_euclid(self.step)
    }
}

/// The series of one verdict.
pub(super) struct StoredValues<'a> {
    /// Where they come from.
    pub(super) source: &'a dyn Source,
    /// Their names.
    pub(super) names: Vec<String>,
    /// How far back each can be read.
    pub(super) reaches: Vec<Option<Reach>>,
    /// The grid.
    pub(super) grid: Grid,
    /// The clock.
    pub(super) now: i64,
    /// Set when nobody waits for the verdict any more: all further values are absent.
    pub(super) cancelled: &'a AtomicBool,
    /// Counts what cannot be read.
    pub(super) stats: &'a Stats,
}

impl StoredValues<'_> {
    fn fetch(&self, series: usize, points: &Range<usize>) -> Option<Fetched> {
        if self.cancelled.load(Ordering::Relaxed) {
            return None;
        }
        let reach = self.reaches[series]?;
        let Grid { base, step } = self.grid;
        if reach.step > step {
            return None;
        }
        let time = |point: usize| base + point as i64 * step;
        // The answer begins after `from`, and includes `until`.
        let from = (time(points.start) - 1).max(reach.from);
        let until = (time(points.end) - 1).min(self.now);
        let stamp = |at: i64| Timestamp(u32::try_from(at.max(0)).unwrap_or(u32::MAX));
        if from >= until {
            return None;
        }
        let name = &self.names[series];
        let range = FetchRange {
            from: stamp(from),
            until: stamp(until),
            now: stamp(self.now),
        };
        match self.source.fetch(name, range) {
            Ok(fetched) => fetched.filter(|fetched| fetched.step <= step),
            Err(error) => {
                self.stats.unread.add(1);
                tracing::debug!(%error, name, "a series cannot be judged");
                None
            }
        }
    }
}

impl Values for StoredValues<'_> {
    fn read(&self, series: usize, points: Range<usize>, values: &mut Vec<f64>) {
        let begun = values.len();
        values.resize(begun + points.len(), f64::NAN);
        let Some(fetched) = self.fetch(series, &points) else {
            return;
        };
        let values = &mut values[begun..];
        let Grid { base, step } = self.grid;
        let first = base + points.start as i64 * step;
        if fetched.step == step && (fetched.start - first) % step == 0 {
            let ahead = (fetched.start - first) / step;
            for (n, value) in fetched.values.iter().enumerate() {
                let at = usize::try_from(n as i64 + ahead).ok();
                if let Some(place) = at.and_then(|at| values.get_mut(at)) {
                    *place = *value;
                }
            }
            return;
        }
        combine(&fetched, first, step, values);
    }
}

/// Combines the finer values of `fetched` into `values`, of which the first begins at `first`.
fn combine(fetched: &Fetched, first: i64, step: i64, values: &mut [f64]) {
    let point = |n: usize| (fetched.start + n as i64 * fetched.step - first).div_euclid(step);
    let mut n = 0;
    while n < fetched.values.len() {
        let at = point(n);
        let mut end = n + 1;
        while end < fetched.values.len() && point(end) == at {
            end += 1;
        }
        let place = usize::try_from(at).ok().and_then(|at| values.get_mut(at));
        if let Some(place) = place {
            *place = combined(fetched.aggregation, &fetched.values[n..end]);
        }
        n = end;
    }
}

fn combined(aggregation: Aggregation, values: &[f64]) -> f64 {
    let mut present = values
        .iter()
        .copied()
        .filter(|value| value.is_finite())
        .peekable();
    if present.peek().is_none() {
        return f64::NAN;
    }
    match aggregation {
        Aggregation::Sum => present.sum(),
        Aggregation::Last => present.last().unwrap_or(f64::NAN),
        Aggregation::Max => present.fold(f64::NAN, f64::max),
        Aggregation::Min => present.fold(f64::NAN, f64::min),
        _ => {
            let (sum, n) = present.fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
            sum / f64::from(n)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn values<'a>(
        source: &'a Memory,
        names: &[&str],
        grid: Grid,
        stats: &'a Stats,
        never: &'a AtomicBool,
    ) -> StoredValues<'a> {
        StoredValues {
            source,
            names: names.iter().map(|&name| name.to_owned()).collect(),
            reaches: vec![Some(Reach { step: 60, from: 0 }); names.len()],
            grid,
            now: 100_000,
            cancelled: never,
            stats,
        }
    }

    #[test]
    fn values_lie_on_the_grid_whatever_their_step() {
        let mut source = Memory::default();
        source.insert("fine", 30, (0..40).map(f64::from).collect());
        source.insert("same", 60, (0..20).map(f64::from).collect());
        source.insert("coarse", 300, (0..4).map(f64::from).collect());
        let (stats, never) = (Stats::default(), AtomicBool::new(false));
        let grid = Grid {
            base: 120,
            step: 60,
        };
        let stored = values(
            &source,
            &["fine", "same", "coarse", "absent"],
            grid,
            &stats,
            &never,
        );
        let read = |series: usize, points: Range<usize>| {
            let mut values = Vec::new();
            stored.read(series, points, &mut values);
            values
        };
        assert_eq!(read(0, 0..3), [3.5, 5.5, 7.5]);
        assert_eq!(read(1, 1..4), [2.0, 3.0, 4.0]);
        assert!(read(2, 0..4).iter().all(|value| value.is_nan()));
        assert!(read(3, 0..4).iter().all(|value| value.is_nan()));
        // Beyond the last value there is nothing.
        assert_eq!(read(1, 18..21)[0], 19.0);
        assert!(read(1, 18..21)[1].is_nan());
        never.store(true, Ordering::Relaxed);
        assert!(read(1, 1..4).iter().all(|value| value.is_nan()));
    }

    #[test]
    fn times_and_points() {
        let grid = Grid {
            base: 120,
            step: 60,
        };
        assert_eq!(
            (grid.floor(120.0), grid.floor(179.9), grid.floor(180.0)),
            (0, 0, 1)
        );
        assert_eq!(
            (grid.ceil(120.0), grid.ceil(120.5), grid.ceil(180.0)),
            (0, 1, 1)
        );
        assert_eq!(grid.floor(119.0), -1);
    }

    #[test]
    fn finer_values_combine_as_their_file_does() {
        let values = [1.0, f64::NAN, 3.0];
        for (aggregation, expected) in [
            (Aggregation::Average, 2.0),
            (Aggregation::Sum, 4.0),
            (Aggregation::Last, 3.0),
            (Aggregation::Max, 3.0),
            (Aggregation::Min, 1.0),
        ] {
            assert_eq!(combined(aggregation, &values), expected);
        }
        assert!(combined(Aggregation::Sum, &[f64::NAN]).is_nan());
    }
}
