//! Wider buckets: `summarize` puts whole points into them, `hitcount` divides each point over
//! the buckets that its time overlaps.

use whisper::{ABSENT, is_absent};

use super::super::{Args, Value};
use super::time;
use crate::aggregate::{Aggregate, enough};
use crate::attime;
use crate::context::{Context, Window};
use crate::error::{Error, Result};
use crate::series::{Column, Series};

/// More buckets than this are refused: an interval of a second over decades.
const MAX_BUCKETS: i64 = 5_000_000;

/// The longest bucket: about thirty million years.
const LONGEST: i64 = 1 << 50;

/// The value of each bucket of `interval` seconds from `from` to `until`, and the end of the
/// last. A bucket needs the series' share of the points it could hold.
///
/// # Errors
/// If the interval is not positive, or so small that there would be far too many buckets.
pub(super) fn summarise(
    series: &Series,
    aggregate: Aggregate,
    interval: i64,
    from: i64,
    until: i64,
) -> Result<(Column, i64)> {
    let n_buckets = count(until.saturating_sub(from), interval)?;
    let capacity = interval as f64 / series.step as f64;
    let of_range = (series.end - series.start + series.step - 1) / series.step;
    let n_points = usize::try_from(of_range)
        .unwrap_or(0)
        .min(series.values.len());
    let values = &series.values[..n_points];
    let mut next = 0;
    let buckets = (0..n_buckets).map(|bucket| {
        let start = from + bucket * interval;
        // Points older than the first bucket are passed over; the last of them that is not
        // younger than the bucket still belongs to it.
        let mut first = next;
        let mut present = 0;
        while next < n_points && series.time_of(next) < start + interval {
            if series.time_of(next) <= start {
                first = next;
            }
            if series.time_of(next) >= start && !is_absent(values[next]) {
                present += 1;
            }
            next += 1;
        }
        if enough(present, capacity, series.x_files_factor) {
            aggregate.of(&values[first..next])
        } else {
            ABSENT
        }
    });
    let room = usize::try_from(n_buckets).unwrap_or(usize::MAX);
    let values = series.values.beside(room, || Ok(buckets.collect()))?;
    Ok((values, from + n_buckets * interval))
}

/// The hits of each bucket, `value · seconds`, in buckets counted back from the end of the
/// series; and the start of the first.
///
/// # Errors
/// As [`summarise`].
pub(super) fn hits(series: &Series, interval: i64) -> Result<(Column, i64)> {
    let n_buckets = count(series.end - series.start, interval)?;
    let start = series.end - n_buckets * interval;
    let room = usize::try_from(n_buckets).unwrap_or(0);
    let values = series.values.beside(room, || {
        Ok(hits_of(series, interval, start, n_buckets, room))
    })?;
    Ok((values, start))
}

fn hits_of(series: &Series, interval: i64, start: i64, n_buckets: i64, room: usize) -> Vec<f64> {
    let mut hits = vec![ABSENT; room];
    let mut add = |bucket: i64, amount: f64| {
        if let Some(held) = usize::try_from(bucket).ok().and_then(|at| hits.get_mut(at)) {
            *held = if is_absent(*held) {
                amount
            } else {
                *held + amount
            };
        }
    };
    for (i, &value) in series.values.iter().enumerate() {
        if is_absent(value) {
            continue;
        }
        let since = series.time_of(i) - start;
        let (first, first_at) = (since.div_euclid(interval), since.rem_euclid(interval));
        if first >= n_buckets {
            // Made-up lines have a last value at their end, which lasts no time.
            continue;
        }
        let until = since + series.step;
        let (mut last, mut last_at) = (until.div_euclid(interval), until.rem_euclid(interval));
        if last >= n_buckets {
            (last, last_at) = (n_buckets - 1, interval);
        }
        if first == last {
            add(first, value * (last_at - first_at) as f64);
            continue;
        }
        add(first, value * (interval - first_at) as f64);
        for bucket in (first + 1).max(0)..last {
            add(bucket, value * interval as f64);
        }
        if last_at > 0 {
            add(last, value * last_at as f64);
        }
    }
    hits
}

/// An interval that buckets can have.
///
/// # Errors
/// If it is not positive, or absurdly long.
pub(super) fn length(interval: i64) -> Result<i64> {
    if (1..=LONGEST).contains(&interval) {
        Ok(interval)
    } else {
        Err(Error::refused(format!(
            "an interval of {interval} seconds is out of range for a bucket"
        )))
    }
}

/// How many buckets of `interval` seconds `range` seconds fill, the last perhaps not wholly.
fn count(range: i64, interval: i64) -> Result<i64> {
    let interval = length(interval)?;
    let n_buckets = range.max(0).saturating_add(interval - 1) / interval;
    if n_buckets > MAX_BUCKETS {
        return Err(Error::refused(format!(
            "an interval of {interval} seconds gives {n_buckets} points, more than {MAX_BUCKETS}"
        )));
    }
    Ok(n_buckets)
}

pub(super) fn hitcount(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let interval = args.interval("intervalString")?;
    let text = args.text("intervalString")?.to_owned();
    let align = args.flag("alignToInterval");
    let mut all = if align {
        let unit = match interval {
            86_400.. => attime::Unit::Days,
            3_600.. => attime::Unit::Hours,
            60.. => attime::Unit::Minutes,
            _ => attime::Unit::Seconds,
        };
        let from = time::floor(context, unit, 1);
        args.over(
            context,
            Window {
                from,
                ..context.window
            },
        )?
    } else {
        args.original(context)?
    };
    let note = if align { ", true" } else { "" };
    for series in &mut all {
        if align && interval > 0 {
            let n_full = (series.end - series.start).div_euclid(interval);
            series.end = series.start + n_full.saturating_add(1).saturating_mul(interval);
        }
        let (hits, start) = hits(series, interval)?;
        series.tag("hitcount", text.as_str());
        let name = format!("hitcount({}, \"{text}\"{note})", series.name);
        *series = series.derived(name, hits);
        series.start = start;
        series.step = interval;
    }
    Ok(all)
}

pub(super) fn summarize(_: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let interval = args.interval("intervalString")?;
    let text = args.text("intervalString")?.to_owned();
    let func = args.text("func")?.to_owned();
    let aligned = args.flag("alignToFrom");
    let note = if aligned { ", true" } else { "" };
    let mut all = args.series("seriesList")?;
    for series in &mut all {
        let aggregate = Aggregate::named(&func)?;
        let interval = length(interval)?;
        let (start, end) = if aligned {
            (series.start, series.end)
        } else {
            let floor = |at: i64| at - at.rem_euclid(interval);
            (floor(series.start), floor(series.end) + interval)
        };
        let (values, reached) = summarise(series, aggregate, interval, start, end)?;
        series.tag("summarize", text.as_str());
        series.tag("summarizeFunction", func.as_str());
        let name = format!("summarize({}, \"{text}\", \"{func}\"{note})", series.name);
        *series = series.derived(name, values);
        series.start = start;
        series.end = if aligned { reached } else { end };
        series.step = interval;
    }
    Ok(all)
}

pub(super) fn smart_summarize(
    context: &mut Context<'_>,
    args: &mut Args<'_>,
) -> Result<Vec<Series>> {
    let interval = args.interval("intervalString")?;
    let text = args.text("intervalString")?.to_owned();
    let func = args.text("func")?.to_owned();
    // Truth values stood for something once, and mean nothing now.
    let align = !matches!(args.value("alignTo"), Value::None | Value::Boolean(_));
    let mut all = if align {
        let word = args.text("alignTo")?;
        let refuse = |error| args.refusal(&format!("alignTo: {error}"));
        let (unit, _) = attime::unit(word).map_err(refuse)?;
        let weekday = match word.chars().next_back() {
            Some(digit) if unit == attime::Unit::Weeks && !digit.is_alphabetic() => {
                let day = digit.to_digit(10).and_then(|day| i8::try_from(day).ok());
                day.ok_or_else(|| args.refusal("alignTo: weeks begin on day 1 (Monday) to 7"))?
            }
            _ => 1,
        };
        let from = time::floor(context, unit, weekday);
        args.over(
            context,
            Window {
                from,
                ..context.window
            },
        )?
    } else {
        args.original(context)?
    };
    for series in &mut all {
        let aggregate = Aggregate::named(&func)?;
        let (start, end) = (series.start, series.end);
        let (values, reached) = summarise(series, aggregate, interval, start, end)?;
        series.tag("smartSummarize", text.as_str());
        series.tag("smartSummarizeFunction", func.as_str());
        let name = format!("smartSummarize({}, \"{text}\", \"{func}\")", series.name);
        *series = series.derived(name, values);
        series.end = reached;
        series.step = interval;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(start: i64, step: i64, values: &[f64]) -> Series {
        let end = start + step * values.len() as i64;
        Series::new("a", start, end, step, values.to_vec().into())
    }

    fn shown(values: &[f64]) -> Vec<Option<f64>> {
        values.iter().map(|&v| whisper::present(v)).collect()
    }

    #[test]
    fn points_go_whole_into_buckets() {
        let series = series(100, 10, &[1.0, 2.0, ABSENT, 4.0, 5.0]);
        let (values, end) = summarise(&series, Aggregate::Sum, 20, 100, 150).unwrap();
        assert_eq!(shown(&values), [Some(3.0), Some(4.0), Some(5.0)]);
        assert_eq!(end, 160);
    }

    #[test]
    fn buckets_shorter_than_a_step_are_mostly_empty() {
        let series = series(100, 10, &[1.0, 2.0]);
        let (values, _) = summarise(&series, Aggregate::Sum, 5, 100, 120).unwrap();
        assert_eq!(shown(&values), [Some(1.0), None, Some(2.0), None]);
    }

    #[test]
    fn too_few_points_make_no_bucket() {
        let mut series = series(100, 10, &[1.0, ABSENT, ABSENT, 4.0, 5.0, 6.0]);
        series.x_files_factor = 0.5;
        let (values, _) = summarise(&series, Aggregate::Sum, 30, 100, 160).unwrap();
        assert_eq!(shown(&values), [None, Some(15.0)]);
    }

    #[test]
    fn hits_are_divided_by_the_seconds_they_overlap() {
        let series = series(100, 10, &[1.0, ABSENT, 3.0]);
        let (values, start) = hits(&series, 15).unwrap();
        assert_eq!(start, 100);
        assert_eq!(shown(&values), [Some(10.0), Some(30.0)]);
        let (values, start) = hits(&series, 20).unwrap();
        assert_eq!(start, 90);
        assert_eq!(shown(&values), [Some(10.0), Some(30.0)]);
    }

    #[test]
    fn hits_of_a_long_step_fill_many_buckets() {
        let (values, _) = hits(&series(0, 60, &[2.0]), 20).unwrap();
        assert_eq!(shown(&values), [Some(40.0); 3]);
    }

    #[test]
    fn odd_intervals_are_refused() {
        let series = series(100, 10, &[1.0]);
        for interval in [0, -60, i64::MIN, i64::MAX] {
            assert!(hits(&series, interval).is_err());
            assert!(summarise(&series, Aggregate::Sum, interval, 100, 110).is_err());
        }
        assert!(summarise(&series, Aggregate::Sum, 1, 0, i64::MAX).is_err());
    }
}
