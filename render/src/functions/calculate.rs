//! One series from another that takes its surroundings into account.

use super::{Args, Default, Function, Kind, Param, Value};
use crate::aggregate::{Aggregate, enough};
use crate::error::{Error, Result};
use crate::eval::{Context, Window};
use crate::series::Series;
use whisper::{ABSENT, is_absent};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "movingAverage",
        params: &[
            Param::series("seriesList"),
            WINDOW_SIZE,
            Param::float("xFilesFactor").optional(),
        ],
        help: "The mean of the last `windowSize` points, or of the last `windowSize` of time, at \
               every point.",
        example: "movingAverage(web.a.hits, \"5min\")",
        lazy: true,
        call: |context, args| moving(context, args, "average"),
        ..Function::PLAIN
    },
    Function {
        name: "movingWindow",
        params: &[
            Param::series("seriesList"),
            WINDOW_SIZE,
            Param::aggregate("func").or(Default::Text("average")),
            Param::float("xFilesFactor").optional(),
        ],
        help: "An aggregate of the last `windowSize` points, or of the last `windowSize` of time, \
               at every point.",
        example: "movingWindow(web.a.hits, 10, \"max\")",
        lazy: true,
        call: |context, args| {
            let func = args.text("func")?.to_owned();
            moving(context, args, &func)
        },
        ..Function::PLAIN
    },
];

const WINDOW_SIZE: Param = Param::new("windowSize", Kind::IntOrInterval).suggestions(&[
    "5",
    "7",
    "10",
    "\"1min\"",
    "\"5min\"",
    "\"10min\"",
    "\"30min\"",
    "\"1hour\"",
]);

/// The argument is evaluated anew from one window earlier, so that the first point shown has a
/// full window behind it.
fn moving(context: &mut Context<'_>, args: &mut Args<'_>, func: &str) -> Result<Vec<Series>> {
    let aggregate = Aggregate::named(func)?;
    let x_files_factor = args.number_if_given("xFilesFactor")?;
    let size = args.value("windowSize").clone();
    let original = args.original(context)?;
    let Some(coarsest) = original.iter().map(|series| series.step).max() else {
        return Ok(Vec::new());
    };
    drop(original);
    let preview = match &size {
        Value::Text(_) => args.interval("windowSize")?.abs(),
        _ => coarsest.saturating_mul(args.number("windowSize")? as i64),
    };
    let window = Window {
        from: context.window.from.saturating_sub(preview),
        ..context.window
    };
    let word = format!("moving{}", capitalised(func));
    let mut all = args.over(context, window)?;
    for series in &mut all {
        let n_points = match &size {
            Value::Text(_) => preview / series.step,
            _ => args.number("windowSize")? as i64,
        };
        let Ok(n_points) = usize::try_from(n_points) else {
            return Err(Error::refused(format!(
                "{word}(): windowSize must not be negative"
            )));
        };
        let name = match &size {
            Value::Text(text) => format!("{word}({},\"{text}\")", series.name),
            other => format!("{word}({},{})", series.name, other.spelled()),
        };
        let threshold = x_files_factor.unwrap_or(series.x_files_factor);
        let values: Vec<f64> = (n_points + 1..=series.values.len())
            .map(|end| {
                let window = &series.values[end - n_points..end];
                let present = window.iter().filter(|&&value| !is_absent(value)).count();
                if enough(present, n_points as f64, threshold) {
                    aggregate.of(window)
                } else {
                    ABSENT
                }
            })
            .collect();
        series.tag(&word, size.spelled());
        let mut moved = series.derived(name, values.into());
        moved.start += preview;
        *series = moved;
    }
    Ok(all)
}

/// Python's `capitalize`.
fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string());
    first.unwrap_or_default() + &chars.as_str().to_lowercase()
}
