//! Functions about time itself: shifting, slicing, and series that show the clock.

use jiff::tz::TimeZone;

use super::super::wall_clock::{as_wall_clock, at_each_step, offset_at, timestamp};
use super::super::{Args, Default, Param};
use crate::attime;
use crate::context::{Context, Window};
use crate::error::Result;
use crate::series::Series;

/// The step of series that are made up.
pub(super) const STEP: Param = Param::integer("step").or(Default::Integer(60));

/// Shifts that editors offer.
pub(super) const SHIFTS: &[&str] = &[
    "\"1h\"", "\"6h\"", "\"12h\"", "\"1d\"", "\"2d\"", "\"7d\"", "\"14d\"", "\"30d\"",
];

/// More copies than this are not stacked.
const MAX_COPIES: i64 = 1_000;

/// The start of the window brought back to a whole unit, by the clock of the request's zone as
/// it stands at that start: a change of clocks in between is not seen, as in Graphite.
pub(super) fn floor(context: &Context<'_>, unit: attime::Unit, weekday: i8) -> i64 {
    let from = context.window.from;
    let zone = TimeZone::fixed(offset_at(from, &context.query.time_zone));
    attime::floor(from, unit, weekday, &zone)
}

/// An interval; without "+" or "-" it reaches into the past.
fn backwards(args: &Args<'_>, param: &str) -> Result<(String, i64)> {
    let mut text = args.text(param)?.to_owned();
    if text.is_empty() {
        return Err(args.refusal(&format!("{param} must not be empty")));
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        text.insert(0, '-');
    }
    let seconds = attime::offset(&text).map_err(|error| args.refusal(&error.to_string()))?;
    Ok((text, seconds))
}

fn shifted(window: Window, by: i64) -> Window {
    Window {
        from: window.from.saturating_add(by),
        until: window.until.saturating_add(by),
    }
}

pub(super) fn shift(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let (text, by) = backwards(args, "timeShift")?;
    let (reset_end, align) = (args.flag("resetEnd"), args.flag("alignDst"));
    let original = args.original(context)?;
    let Some(first) = original.first() else {
        return Ok(Vec::new());
    };
    let (start, end) = (first.start, first.end);
    let mut window = shifted(context.window, by);
    if align {
        let zone = &context.query.time_zone;
        let summer = |window: Window| {
            let (from, until) = (window.from, window.until);
            (attime::is_dst(from, zone), attime::is_dst(until, zone))
        };
        // Only when one lies wholly in summer time and the other wholly out of it.
        let hour = match (summer(context.window), summer(window)) {
            ((true, true), (false, false)) => 3600,
            ((false, false), (true, true)) => -3600,
            _ => 0,
        };
        window = shifted(window, hour);
    }
    let mut all = args.over(context, window)?;
    for series in &mut all {
        series.tag("timeShift", text.as_str());
        series.name = format!("timeShift({}, \"{text}\")", series.name);
        series.end = if reset_end {
            end
        } else {
            series.end - series.start + start
        };
        series.start = start;
    }
    Ok(all)
}

pub(super) fn stack(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let (unit, by) = backwards(args, "timeShiftUnit")?;
    let (first, last) = (args.cut("timeShiftStart")?, args.cut("timeShiftEnd")?);
    let original = args.original(context)?;
    let Some(shape) = original.first() else {
        return Ok(Vec::new());
    };
    if last.saturating_sub(first) > MAX_COPIES {
        return Err(args.refusal(&format!("more than {MAX_COPIES} copies are not stacked")));
    }
    let mut stacked = Vec::new();
    for copy in first..last {
        let window = shifted(context.window, by.saturating_mul(copy));
        for mut series in args.over(context, window)? {
            series.tag("timeShiftUnit", unit.as_str());
            series.tag("timeShift", copy.to_string());
            series.rename(format!("timeShift({}, {unit}, {copy})", series.name));
            series.start = shape.start;
            series.end = shape.end;
            stacked.push(series);
        }
    }
    Ok(stacked)
}

pub(super) fn slice(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let from = timestamp(context, args, "startSliceAt")?;
    let until = timestamp(context, args, "endSliceAt")?;
    // The clock starts with the window, not with the series.
    let start = as_wall_clock(context).from;
    let mut all = args.series("seriesList")?;
    for series in &mut all {
        series.tag("timeSliceStart", from.to_string());
        series.tag("timeSliceEnd", until.to_string());
        series.name = format!("timeSlice({}, {from}, {until})", series.name);
        let mut at = start;
        let step = series.step;
        series.map(|value| {
            let inside = (from..=until).contains(&at);
            at += step;
            value.filter(|_| inside)
        })?;
    }
    Ok(all)
}

pub(super) fn clock(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let step = args.step("step")?;
    let shown = as_wall_clock(context);
    let ahead = shown.from - context.window.from;
    let values = at_each_step(context, step, |at| (at + ahead) as f64)?;
    let name = args.value("name").python_str();
    let mut series = context.made(name, (shown.from, shown.until, step / 1_000_000), values);
    series.odd_name = args.odd_name("name");
    Ok(vec![series])
}

pub(super) fn sine(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let step = args.step("step")?;
    let amplitude = args.number("amplitude")?;
    let ahead = as_wall_clock(context).from - context.window.from;
    let values = at_each_step(context, step, |at| ((at + ahead) as f64).sin() * amplitude)?;
    let Window { from, until } = context.window;
    let name = args.value("name").python_str();
    let mut series = context.made(name, (from, until, step / 1_000_000), values);
    series.odd_name = args.odd_name("name");
    Ok(vec![series])
}
