//! Fewer points: downsampling one series, and bringing several to one step.

use whisper::{ABSENT, is_absent};

use crate::aggregate::Aggregate;
use crate::error::{Error, Result};
use crate::series::{Column, Consolidation, Series};

impl Consolidation {
    /// The one value of a group of `size` slots, of which `group` may hold fewer at the end of
    /// a series. Too few present values give none.
    fn of(self, group: &[f64], size: usize, x_files_factor: f64) -> f64 {
        let present = group.iter().filter(|&&value| !is_absent(value)).count();
        if present == 0 || (present as f64 / size as f64) < x_files_factor {
            return ABSENT;
        }
        match self {
            Self::Average | Self::Avg => Aggregate::Average.of(group),
            Self::AvgZero => Aggregate::AvgZero.of(group),
            Self::Sum => Aggregate::Sum.of(group),
            Self::Min => Aggregate::Min.of(group),
            Self::Max => Aggregate::Max.of(group),
            Self::First => group
                .iter()
                .copied()
                .find(|&value| !is_absent(value))
                .unwrap_or(ABSENT),
            Self::Last => Aggregate::Last.of(group),
            Self::Unknown => ABSENT,
        }
    }
}

/// Values in groups of `size` from the first on, each group one value.
pub fn consolidate(
    values: &[f64],
    size: usize,
    consolidation: Consolidation,
    x_files_factor: f64,
) -> Vec<f64> {
    values
        .chunks(size.max(1))
        .map(|group| consolidation.of(group, size.max(1), x_files_factor))
        .collect()
}

/// Thins every series to at most `max_points` over the range of all of them, as graphite-web does
/// for JSON: a series that is too fine gets a step that is a whole multiple of its own, and begins
/// at a multiple of that, so that a graph which is fetched again does not jitter. The points before
/// are lost.
///
/// # Errors
/// If a series is to be downsampled by an unknown function, and as [`Column::reserved`].
pub fn downsample(all: &mut [Series], max_points: u64) -> Result<()> {
    let start = all.iter().map(|s| s.start).min();
    let end = all.iter().map(|s| s.end).max();
    let (Some(start), Some(end)) = (start, end) else {
        return Ok(());
    };
    for series in all {
        let n_points = (end - start) as f64 / series.step as f64;
        let mut lost = 0;
        let size = match max_points {
            // A limit of nothing is no limit.
            0 => continue,
            1 => series.values.len(),
            limit if (limit as f64) < n_points => {
                let size = (n_points / limit as f64).ceil();
                let step = (size as i64).saturating_mul(series.step);
                let shift = step + series.start % series.step - series.start % step;
                series.start += shift;
                lost = usize::try_from(shift / series.step - 1).unwrap_or(0);
                lost = lost.min(series.values.len());
                size as usize
            }
            _ => continue,
        };
        if size == 0 {
            continue;
        }
        if series.consolidation == Consolidation::Unknown {
            let name = &series.name;
            return Err(Error::refused(format!(
                "Invalid consolidation function: {name}"
            )));
        }
        let (by, threshold) = (series.consolidation, series.x_files_factor);
        // Others may share the column: it is read and left as it is.
        let kept = &series.values[lost..];
        let n_groups = kept.len().div_ceil(size);
        let downsampled = || Ok(consolidate(kept, size, by, threshold));
        series.values = series.values.beside(n_groups, downsampled)?;
        series.step = series
            .step
            .saturating_mul(i64::try_from(size).unwrap_or(i64::MAX));
    }
    Ok(())
}

/// Several series brought to the least common multiple of their steps, as graphite-web does:
/// each is consolidated from its own first value on, and rows are read by index, so a series
/// that begins later lies too far left by the difference. Within one request over one schema
/// all begin together.
#[derive(Debug)]
pub struct Normalised {
    /// The series, untouched.
    pub series: Vec<Series>,
    /// Their values at the common step, in the same order, of unequal length perhaps.
    pub columns: Vec<Column>,
    /// The earliest start.
    pub start: i64,
    /// The latest end, cut to whole steps from the start.
    pub end: i64,
    /// The common step.
    pub step: i64,
}

impl Normalised {
    /// The columns as slices, for [`crate::aggregate::rows`].
    pub fn slices(&self) -> Vec<&[f64]> {
        self.columns.iter().map(|column| &**column).collect()
    }
}

/// Brings `series` to one step; `None` if there are none.
///
/// # Errors
/// As [`at_step`].
pub fn normalise(series: Vec<Series>) -> Result<Option<Normalised>> {
    let step = series.iter().map(|s| s.step).reduce(common_step);
    let start = series.iter().map(|s| s.start).min();
    let end = series.iter().map(|s| s.end).max();
    let (Some(step), Some(start), Some(end)) = (step, start, end) else {
        return Ok(None);
    };
    let columns = series.iter().map(|s| at_step(s, step));
    let columns = columns.collect::<Result<_>>()?;
    Ok(Some(Normalised {
        series,
        columns,
        start,
        end: end - (end - start) % step,
        step,
    }))
}

/// The values of `series` consolidated to `step`, a multiple of its own.
///
/// # Errors
/// As [`Column::reserved`].
pub fn at_step(series: &Series, step: i64) -> Result<Column> {
    match usize::try_from(step / series.step) {
        Ok(size) if size > 1 => {
            let Series {
                values,
                consolidation,
                x_files_factor,
                ..
            } = series;
            let n_groups = values.len().div_ceil(size);
            values.beside(n_groups, || {
                Ok(consolidate(values, size, *consolidation, *x_files_factor))
            })
        }
        _ => Ok(series.values.clone()),
    }
}

/// The longest common step: some thirty million years. Steps that would meet later never do.
const LONGEST_STEP: i64 = 1 << 50;

/// The least common multiple of two steps.
pub fn common_step(a: i64, b: i64) -> i64 {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b).min(LONGEST_STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_group_is_judged_as_if_it_were_full() {
        let values = [1.0, ABSENT, 3.0, ABSENT, 5.0];
        let downsample = |by, xff| {
            let values = consolidate(&values, 2, by, xff);
            values
                .iter()
                .map(|&v| whisper::present(v))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            downsample(Consolidation::Average, 0.0),
            [Some(1.0), Some(3.0), Some(5.0)]
        );
        assert_eq!(
            downsample(Consolidation::Avg, 0.0),
            downsample(Consolidation::Average, 0.0)
        );
        assert_eq!(
            downsample(Consolidation::AvgZero, 0.0),
            [Some(0.5), Some(1.5), Some(5.0)]
        );
        assert_eq!(downsample(Consolidation::First, 0.6), [None, None, None]);
    }

    #[test]
    fn steps_meet_at_their_least_common_multiple() {
        assert_eq!(common_step(10, 60), 60);
        assert_eq!(common_step(7, 10), 70);
        let a = Series::new("a", 0, 60, 10, vec![1.0; 6].into());
        let b = Series::new("b", 0, 60, 20, vec![2.0; 3].into());
        let both = normalise(vec![a, b]).unwrap().unwrap();
        assert_eq!((both.start, both.end, both.step), (0, 60, 20));
        assert_eq!(both.slices(), [&[1.0; 3][..], &[2.0; 3][..]]);
        assert!(normalise(Vec::new()).unwrap().is_none());
    }
}
