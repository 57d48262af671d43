//! Gaps: runs of absent values, and what is put into them.

use whisper::{ABSENT, is_absent};

use super::super::Args;
use super::buckets;
use crate::aggregate::{self, Aggregate};
use crate::context::Context;
use crate::error::Result;
use crate::python;
use crate::series::{Series, bytes_of, or_absent};

/// A run of absent values: where it begins, and where the next present value is (or the end).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Gap {
    start: usize,
    end: usize,
}

/// The gaps of `values`, oldest first.
fn gaps(values: &[f64]) -> Vec<Gap> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = values[at..].iter().position(|v| is_absent(*v)) {
        let start = at + start;
        let length = values[start..].iter().position(|v| !is_absent(*v));
        let end = length.map_or(values.len(), |length| start + length);
        found.push(Gap { start, end });
        at = end;
    }
    found
}

impl Gap {
    fn fits(self, limit: f64) -> bool {
        (self.end - self.start) as f64 <= limit
    }
}

/// Whether any value is absent.
pub(super) fn any(values: &[f64]) -> bool {
    values.iter().any(|v| is_absent(*v))
}

/// Fills each gap of up to `limit` values with the value before it.
pub(super) fn keep_last(values: &mut [f64], limit: f64) {
    for gap in gaps(values) {
        if gap.start > 0 && gap.fits(limit) {
            let last = values[gap.start - 1];
            values[gap.start..gap.end].fill(last);
        }
    }
}

/// Draws a straight line over each gap of up to `limit` values that has a value at both ends.
pub(super) fn interpolate(values: &mut [f64], limit: f64) {
    for Gap { start, end } in gaps(values) {
        let gap = Gap { start, end };
        if start == 0 || end == values.len() || !gap.fits(limit) {
            continue;
        }
        let (before, after) = (values[start - 1], values[end]);
        let steps = (end - start + 1) as f64;
        for (i, value) in values[start..end].iter_mut().enumerate() {
            *value = before + (i + 1) as f64 * (after - before) / steps;
        }
    }
}

/// The series at the step at which it seems to have been written: guessed from its first three
/// values (zeros do not count), if nothing but gaps lies between them. `None` if no coarser step
/// shows.
///
/// # Errors
/// As [`buckets::summarise`].
pub(super) fn compress(series: &Series) -> Result<Option<Series>> {
    let values = &series.values;
    let is_something = |i: usize| !is_absent(values[i]) && values[i] != 0.0;
    let (mut first, mut second) = (0, 0);
    for i in (0..values.len()).filter(|&i| is_something(i)) {
        if first > 0 {
            second = i;
            break;
        }
        first = i;
    }
    let Some(guess) = second.checked_sub(first).filter(|&guess| guess > 1) else {
        return Ok(None);
    };
    let third = second + guess;
    let shows = third + 2 <= values.len()
        && is_something(third)
        && is_absent(values[third - 1])
        && is_absent(values[third + 1]);
    if !shows {
        return Ok(None);
    }
    let step = guess as i64 * series.step;
    let start = series.time_of(first);
    let (values, _) = buckets::summarise(series, Aggregate::Last, step, start, series.end)?;
    let mut compressed = series.clone();
    compressed.start = start;
    compressed.end = start + step * (values.len() as i64 - 1);
    compressed.step = step;
    compressed.values = values;
    compressed.drawing = Default::default();
    Ok(Some(compressed))
}

/// The values moved by `steps`, later when positive; what is left behind is absent.
pub(super) fn delay(values: &[f64], steps: i64) -> Vec<f64> {
    let n = values.len();
    let by = usize::try_from(steps.unsigned_abs()).unwrap_or(n).min(n);
    let empty = std::iter::repeat_n(ABSENT, by);
    if steps < 0 {
        values[by..].iter().copied().chain(empty).collect()
    } else {
        empty.chain(values[..n - by].iter().copied()).collect()
    }
}

/// Fills gaps in place. An invalid limit only matters where there is a gap.
pub(super) fn fill(args: &mut Args<'_>, fill: fn(&mut [f64], f64)) -> Result<Vec<Series>> {
    let limit = args.number("limit");
    let mut all = args.series("seriesList")?;
    let gaps = all.iter().any(|series| any(&series.values));
    let limit = match limit {
        Err(error) if gaps => return Err(error),
        limit => limit.unwrap_or(f64::INFINITY),
    };
    for series in &mut all {
        series.rename(format!("{}({})", args.function().name, series.name));
        if any(&series.values) {
            fill(series.values.write()?, limit);
        }
    }
    Ok(all)
}

pub(super) fn transform_null(
    context: &mut Context<'_>,
    args: &mut Args<'_>,
) -> Result<Vec<Series>> {
    let default = args.number("default")?;
    let tag = args.value("default").python_str();
    let reference = if args.given("referenceSeries") {
        args.series("referenceSeries")?
    } else {
        Vec::new()
    };
    let columns: Vec<&[f64]> = reference.iter().map(|series| &*series.values).collect();
    let known = aggregate::rows(Aggregate::Count, &columns, 0.0, context.budget())?;
    let note = if reference.is_empty() {
        ""
    } else {
        ",referenceSeries"
    };
    let mut all = args.series("seriesList")?;
    for series in &mut all {
        series.tag("transformNull", tag.as_str());
        if !reference.is_empty() {
            series.tag("referenceSeries", "1");
        }
        let default_text = python::general(default);
        series.rename(format!(
            "transformNull({},{default_text}{note})",
            series.name
        ));
        if known.is_empty() {
            series.map(|value| value.or(Some(default)))?;
            continue;
        }
        // As many more as the reference is longer.
        let _room = context.budget().hold(bytes_of(known.len()))?;
        let values = series.values.write()?;
        // Of a reference that goes on for longer the last points count, as in Graphite.
        let length = values.len();
        let longest = length.max(known.len());
        values.resize(longest, whisper::ABSENT);
        for (i, value) in values.iter_mut().enumerate() {
            if is_absent(*value) {
                let stands = known.get(i).is_some_and(|known| !is_absent(*known));
                *value = or_absent(stands.then_some(default));
            }
        }
        values.drain(..longest - length);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const __: f64 = ABSENT;

    fn shown(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().map(|&v| whisper::present(v)).collect()
    }

    #[test]
    fn a_gap_is_kept_or_not_as_a_whole() {
        let mut values = [__, 1.0, __, 2.0, __, __, 3.0, __];
        keep_last(&mut values, 1.0);
        assert_eq!(
            shown(&values),
            shown(&[__, 1.0, 1.0, 2.0, __, __, 3.0, 3.0])
        );
        keep_last(&mut values, f64::INFINITY);
        assert_eq!(
            shown(&values),
            shown(&[__, 1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0])
        );
        keep_last(&mut [], 1.0);
    }

    #[test]
    fn lines_need_both_ends() {
        let mut values = [__, 1.0, __, __, 4.0, __];
        interpolate(&mut values, 1.0);
        assert_eq!(shown(&values), shown(&[__, 1.0, __, __, 4.0, __]));
        interpolate(&mut values, f64::INFINITY);
        assert_eq!(shown(&values), shown(&[__, 1.0, 2.0, 3.0, 4.0, __]));
    }

    #[test]
    fn the_written_step_shows_in_three_values() {
        let values = vec![__, 1.0, __, __, 2.0, __, __, 3.0, __, __];
        let series = Series::new("a", 0, 100, 10, values.into());
        let compressed = compress(&series).unwrap().unwrap();
        assert_eq!(
            (compressed.start, compressed.end, compressed.step),
            (10, 70, 30)
        );
        assert_eq!(shown(&compressed.values), shown(&[1.0, 2.0, 3.0]));
        let dense = Series::new("a", 0, 30, 10, vec![1.0, 2.0, 3.0].into());
        assert!(compress(&dense).unwrap().is_none());
    }

    #[test]
    fn a_delay_beyond_the_series_leaves_nothing() {
        let values = [1.0, 2.0, 3.0];
        assert_eq!(shown(&delay(&values, 1)), shown(&[__, 1.0, 2.0]));
        assert_eq!(shown(&delay(&values, -1)), shown(&[2.0, 3.0, __]));
        assert_eq!(shown(&delay(&values, 0)), shown(&values));
        assert_eq!(shown(&delay(&values, i64::MIN)), shown(&[__; 3]));
        assert_eq!(shown(&delay(&values, i64::MAX)), shown(&[__; 3]));
    }
}
