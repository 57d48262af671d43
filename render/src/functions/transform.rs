//! One series from another, value by value or step by step.

use super::{Default, Function, Kind, Param};
use crate::aggregate::{Aggregate, enough};
use crate::attime;
use crate::error::Error;
use crate::eval::Window;
use crate::python;
use crate::series::{Column, Series};
use whisper::{ABSENT, is_absent};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "derivative",
        params: &[Param::series("seriesList")],
        help: "The change from point to point; none where either is absent.",
        example: "derivative(web.a.bytes)",
        call: |_, args| {
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                let mut previous = None;
                let values: Column = series
                    .iter()
                    .map(|value| {
                        let change = previous.zip(value).map(|(a, b): (f64, f64)| b - a);
                        previous = value;
                        change
                    })
                    .collect();
                series.tag("derivative", "1");
                *series = series.derived(format!("derivative({})", series.name), values);
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "scale",
        params: &[Param::series("seriesList"), Param::float("factor")],
        help: "Multiplies every value by `factor`; absent values stay absent.",
        example: "scale(web.*.hits, 0.1)",
        call: |_, args| {
            let factor = args.number("factor")?;
            let tag = args.value("factor").spelled();
            args.each_series(Some(&python::general(factor)), &tag, |value| {
                Some(value? * factor)
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "summarize",
        params: &[
            Param::series("seriesList"),
            Param::new("intervalString", Kind::Interval).suggestions(&[
                "\"10min\"",
                "\"1h\"",
                "\"1d\"",
            ]),
            Param::aggregate("func").or(Default::Text("sum")),
            Param::boolean("alignToFrom").or(Default::Boolean(false)),
        ],
        help: "One point per interval, an aggregate of the points in it. Intervals begin at whole \
               multiples of their length, or with the series if `alignToFrom`.",
        example: "summarize(web.a.hits, \"1h\", \"max\")",
        call: |_, args| {
            let interval = args.interval("intervalString")?;
            if interval <= 0 {
                return Err(Error::refused(
                    "summarize(): intervalString must be above 0",
                ));
            }
            let text = args.text("intervalString")?.to_owned();
            let func = args.text("func")?.to_owned();
            let aggregate = args.aggregate("func")?;
            let from_start = args.flag("alignToFrom");
            let note = if from_start { ", true" } else { "" };
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                let (start, end) = if from_start {
                    (series.start, series.end)
                } else {
                    let floor = |at: i64| at - at.rem_euclid(interval);
                    (floor(series.start), floor(series.end) + interval)
                };
                let (values, reached) = buckets(series, aggregate, interval, start, end);
                series.tag("summarize", text.as_str());
                series.tag("summarizeFunction", func.as_str());
                let name = format!("summarize({}, \"{text}\", \"{func}\"{note})", series.name);
                let mut summary = series.derived(name, values.into());
                summary.start = start;
                summary.end = if from_start { reached } else { end };
                summary.step = interval;
                *series = summary;
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "timeShift",
        params: &[
            Param::series("seriesList"),
            Param::new("timeShift", Kind::Interval).suggestions(&[
                "\"1h\"", "\"6h\"", "\"12h\"", "\"1d\"", "\"2d\"", "\"7d\"", "\"14d\"", "\"30d\"",
            ]),
            Param::boolean("resetEnd").or(Default::Boolean(true)),
            Param::boolean("alignDst")
                .or(Default::Boolean(false))
                .also("alignDST"),
        ],
        help: "Shows what was a while ago (no sign means back in time) as if it were now.",
        example: "timeShift(web.a.hits, \"1d\")",
        lazy: true,
        call: |context, args| {
            let mut text = args.text("timeShift")?.to_owned();
            if text.starts_with(|c: char| c.is_ascii_digit()) {
                text.insert(0, '-');
            }
            let refuse = |error| Error::refused(format!("timeShift(): {error}"));
            let shift = attime::offset(&text).map_err(refuse)?;
            let (reset_end, align) = (args.flag("resetEnd"), args.flag("alignDst"));
            let original = args.original(context)?;
            let Some(first) = original.first() else {
                return Ok(Vec::new());
            };
            let (start, end) = (first.start, first.end);
            let mut window = Window {
                from: context.window.from.saturating_add(shift),
                until: context.window.until.saturating_add(shift),
            };
            if align {
                let zone = &context.query.time_zone;
                let dst = |at| attime::is_dst(at, zone);
                let asked = (dst(context.window.from), dst(context.window.until));
                let shifted = (dst(window.from), dst(window.until));
                let hour = match (asked, shifted) {
                    ((true, true), (false, false)) => 3600,
                    ((false, false), (true, true)) => -3600,
                    _ => 0,
                };
                window.from += hour;
                window.until += hour;
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
        },
        ..Function::PLAIN
    },
];

/// The values of `series` by interval from `start` to `end`, and where the last interval ends.
/// An interval holds the points whose moments lie in it; one with too few of them is absent.
fn buckets(
    series: &Series,
    aggregate: Aggregate,
    interval: i64,
    start: i64,
    end: i64,
) -> (Vec<f64>, i64) {
    let in_range = usize::try_from((series.end - series.start + series.step - 1) / series.step);
    let n_points = series.values.len().min(in_range.unwrap_or(0));
    let full = interval as f64 / series.step as f64;
    let mut values = Vec::new();
    let mut bucket = start;
    let mut next = 0;
    while bucket < end {
        // A point from before the first bucket starts the slice that is aggregated.
        let mut first = next;
        let mut present = 0;
        while next < n_points && series.time_of(next) < bucket + interval {
            let at = series.time_of(next);
            if at <= bucket {
                first = next;
            }
            if at >= bucket && !is_absent(series.values[next]) {
                present += 1;
            }
            next += 1;
        }
        values.push(if enough(present, full, series.x_files_factor) {
            aggregate.of(&series.values[first..next])
        } else {
            ABSENT
        });
        bucket += interval;
    }
    (values, bucket)
}
