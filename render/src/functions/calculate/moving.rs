//! Moving windows and exponential averages: how far the window reaches back (a number of points, or
//! an interval such as `"5min"`), and the series evaluated from that much earlier.

use whisper::is_absent;

use super::super::{Args, Value};
use super::window;
use crate::aggregate::Aggregate;
use crate::context::{Context, Window};
use crate::error::{Error, Result};
use crate::series::Series;

/// How much earlier a function looks, and how many points of a series that is.
enum Reach<'a> {
    /// So many seconds, and the text that said so.
    Time(i64, &'a str),
    /// So many points, of the coarsest step that there is.
    Points(i64, i64),
}

impl Reach<'_> {
    fn seconds(&self) -> i64 {
        match *self {
            Self::Time(seconds, _) => seconds,
            Self::Points(points, step) => points.saturating_mul(step),
        }
    }

    fn points(&self, step: i64) -> i64 {
        match *self {
            Self::Time(seconds, _) => seconds.div_euclid(step),
            Self::Points(points, _) => points,
        }
    }
}

/// The argument evaluated again from one window earlier, so that the first point shown has a full
/// window behind it. `values` makes each new series from the old one and the points of a window,
/// named after `word`. `None` for a query that finds no series.
fn widened(
    context: &mut Context<'_>,
    args: &mut Args<'_>,
    word: &str,
    values: impl Fn(&Series, i64) -> Result<Vec<f64>>,
    weigh: &mut dyn FnMut(&Reach<'_>),
) -> Result<Vec<Series>> {
    let original = args.original(context)?;
    let Some(coarsest) = original.iter().map(|series| series.step).max() else {
        return Ok(Vec::new());
    };
    drop(original);
    let size = args.value("windowSize").clone();
    let reach = match &size {
        Value::Text(text) => Reach::Time(args.interval("windowSize")?.saturating_abs(), text),
        // Python's int() cuts decimals off.
        _ => Reach::Points(args.number("windowSize")? as i64, coarsest),
    };
    weigh(&reach);
    let preview = reach.seconds();
    let from = context.window.from.saturating_sub(preview);
    let mut all = args.over(
        context,
        Window {
            from,
            ..context.window
        },
    )?;
    for series in &mut all {
        let name = match reach {
            Reach::Time(_, text) => format!("{word}({},\"{text}\")", series.name),
            Reach::Points(..) => format!("{word}({},{})", series.name, size.python_str()),
        };
        series.tag(word, size.python_str());
        let points = reach.points(series.step);
        let room = window::room(series.values.len());
        let made = series.values.beside(room, || values(series, points))?;
        *series = series.derived(name, made);
        series.start = series.start.saturating_add(preview);
    }
    Ok(all)
}

pub(super) fn moving(
    context: &mut Context<'_>,
    args: &mut Args<'_>,
    func: &str,
) -> Result<Vec<Series>> {
    let aggregate = Aggregate::named(func);
    // A factor that is not a number fails only where a window has something to weigh against it.
    let x_files_factor = match args.value("xFilesFactor") {
        Value::Text(text) => {
            Err(args.refusal(&format!("xFilesFactor must be a number, not {text:?}")))
        }
        _ => Ok(args.number_if_given("xFilesFactor")?),
    };
    let word = format!("moving{}", capitalised(func));
    let aggregate = match aggregate {
        Err(_) if args.original(context)?.is_empty() => return Ok(Vec::new()),
        aggregate => aggregate?,
    };
    let budget = context.budget();
    let values = |series: &Series, points| {
        let threshold = match &x_files_factor {
            Ok(factor) => factor.unwrap_or(series.x_files_factor),
            Err(_) if points <= 0 || series.values.iter().all(|&value| is_absent(value)) => 0.0,
            Err(refusal) => return Err(Error::refused(refusal.to_string())),
        };
        window::moving(&series.values, points, threshold, aggregate, budget)
    };
    widened(context, args, &word, values, &mut |_| {})
}

/// Python's `capitalize`.
fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + &chars.as_str().to_lowercase()
}

pub(super) fn exponential(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let weight = std::cell::Cell::new(1.0);
    let values = |series: &Series, points: i64| {
        Ok(window::exponential(&series.values, points, weight.get()))
    };
    widened(
        context,
        args,
        "exponentialMovingAverage",
        values,
        &mut |reach| {
            let length = match *reach {
                Reach::Time(seconds, _) => seconds,
                Reach::Points(points, _) => points,
            };
            weight.set(2.0 / (length as f64 + 1.0));
        },
    )
}
