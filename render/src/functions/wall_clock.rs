//! The request's window and clock, as the functions about time read them.

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use super::{Args, Value};
use crate::attime;
use crate::context::{Context, Window};
use crate::error::Result;
use crate::series::Column;

/// How far `zone` is from UTC at a Unix timestamp.
pub(super) fn offset_at(at: i64, zone: &TimeZone) -> Offset {
    Timestamp::from_second(at).map_or(Offset::UTC, |at| zone.to_offset(at))
}

/// The window in what its wall clock shows, read as if that were UTC: some functions do so.
/// (Graphite reads it in the server's own zone, which is UTC in a fresh installation, with
/// `mktime`, which takes an hour off while the request's zone has daylight saving time.)
pub(super) fn as_wall_clock(context: &Context<'_>) -> Window {
    Window {
        from: on_wall_clock(context, context.window.from),
        until: on_wall_clock(context, context.window.until),
    }
}

/// One timestamp of [`as_wall_clock`]. A strict query keeps the timestamp as it is.
pub(super) fn on_wall_clock(context: &Context<'_>, at: i64) -> i64 {
    if context.query.strict {
        return at;
    }
    let zone = &context.query.time_zone;
    let hour = if attime::is_dst(at, zone) { 3600 } else { 0 };
    at.saturating_add(i64::from(offset_at(at, zone).seconds()) - hour)
}

/// The timestamp that an argument names: read in UTC by the request's clock.
pub(super) fn timestamp(context: &Context<'_>, args: &Args<'_>, param: &str) -> Result<i64> {
    let text = match args.value(param) {
        Value::Integer(number) => number.to_string(),
        _ => args.text(param)?.to_owned(),
    };
    attime::parse(&text, &TimeZone::UTC, context.query.now)
        .map_err(|error| args.refusal(&format!("{param}: {error}")))
}

/// A value for each step of the window, its end left out. The step is in microseconds; decimals of
/// a timestamp are cut off.
///
/// # Errors
/// If there would be more points than the query may hold.
pub(super) fn at_each_step(
    context: &Context<'_>,
    step: i64,
    mut value: impl FnMut(i64) -> f64,
) -> Result<Column> {
    let Window { from, until } = context.window;
    let (step, length) = (
        i128::from(step.max(1)),
        i128::from(until) - i128::from(from),
    );
    let length = length.max(0) * 1_000_000;
    let n_points = usize::try_from((length + step - 1) / step).unwrap_or(usize::MAX);
    context.query.count_points(n_points)?;
    context.column(n_points, || {
        let mut values = Vec::with_capacity(n_points);
        let mut pace = context.budget().pace();
        for n in 0..n_points {
            pace.check()?;
            let at = from.saturating_add((n as i128 * step / 1_000_000) as i64);
            values.push(value(at));
        }
        Ok(values)
    })
}
