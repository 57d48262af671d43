//! One series from another, value by value or step by step.

mod buckets;
mod counter;
mod gaps;
mod time;

use whisper::is_absent;

use super::wall_clock::as_wall_clock;
use super::{Args, Default, Function, Kind, Param};
use crate::aggregate::Aggregate;
use crate::error::Result;
use crate::python;
use crate::series::{Series, or_absent};

const SERIES: Param = Param::series("seriesList");

const INTERVAL: Param =
    Param::new("intervalString", Kind::Interval).suggestions(&["\"10min\"", "\"1h\"", "\"1d\""]);

const LIMIT: Param = Param::new("limit", Kind::IntOrInf).or(Default::Float(f64::INFINITY));

const COUNTER: &[Param] = &[
    SERIES,
    Param::float("maxValue").optional(),
    Param::float("minValue").optional(),
];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "absolute",
        params: &[SERIES],
        help: "The distance of every value from zero.",
        example: "absolute(derivative(web.a.queue))",
        call: |_, args| args.each_series(None, "1", |value| Some(value?.abs())),
        ..Function::PLAIN
    },
    Function {
        name: "add",
        params: &[SERIES, Param::float("constant")],
        help: "Adds `constant` to every value. The name shows only its whole part; `offset` \
               shows all of it.",
        example: "add(web.a.hits, 10)",
        call: |_, args| {
            let constant = args.number("constant")?;
            let detail = whole(args, "constant")?;
            let tag = args.value("constant").python_str();
            args.each_series(Some(&detail), &tag, |value| Some(value? + constant))
        },
        ..Function::PLAIN
    },
    Function {
        name: "compressPeriodicGaps",
        params: &[SERIES],
        help: "Brings a series that was written at a coarser step than it is stored at to that \
               step, guessed from its first three values.",
        example: "compressPeriodicGaps(web.a.backup_size)",
        call: |_, args| {
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                series.rename(format!("compressPeriodicGaps({})", series.name));
                if let Some(compressed) = gaps::compress(series)? {
                    *series = compressed;
                }
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "delay",
        params: &[SERIES, Param::integer("steps")],
        help: "Moves the values `steps` points later, or earlier if it is negative. The window \
               stays: what would come into view from outside is absent.",
        example: "divideSeries(web.a.done, delay(web.a.accepted, 3))",
        call: |_, args| {
            let steps = args.integer("steps")?;
            let steps_text = steps.to_string();
            derive(args, "delay", &steps_text, Some(&steps_text), |series| {
                gaps::delay(&series.values, steps)
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "derivative",
        params: &[SERIES],
        help: "The change from point to point; none where either is absent.",
        example: "derivative(web.a.bytes)",
        call: |_, args| {
            derive(args, "derivative", "1", None, |series| {
                counter::differences(&series.values)
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "exp",
        params: &[SERIES],
        help: "e to the power of every value.",
        example: "exp(web.a.log_size)",
        call: |_, args| {
            args.each_series(None, "e", |value| {
                let value = value?;
                let result = value.exp();
                // Python fails on values that are too large: they are absent.
                (result.is_finite() || !value.is_finite()).then_some(result)
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "hitcount",
        params: &[
            SERIES,
            INTERVAL,
            Param::boolean("alignToInterval").or(Default::Boolean(false)),
        ],
        help: "How often something happened per interval, from values per second: each value \
               counts for the seconds that it overlaps. Intervals are counted back from the \
               end, or from the day, hour or minute before the start if `alignToInterval`.",
        example: "hitcount(web.a.requests_per_second, \"1h\")",
        lazy: true,
        call: buckets::hitcount,
        ..Function::PLAIN
    },
    Function {
        name: "integral",
        params: &[SERIES],
        help: "The sum of all values so far.",
        example: "integral(web.a.sales)",
        call: |_, args| {
            derive(args, "integral", "1", None, |series| {
                let mut sum = 0.0;
                let sums = series.iter().map(|value| {
                    sum += value?;
                    Some(sum)
                });
                sums.map(or_absent).collect()
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "integralByInterval",
        params: &[SERIES, Param::string("intervalUnit")],
        help: "The sum of the values so far, begun again at every interval counted from the \
               start of the window.",
        example: "integralByInterval(web.a.sales, \"1d\")",
        call: |context, args| {
            let unit = args.text("intervalUnit")?.to_owned();
            let interval = args.interval("intervalUnit")?.saturating_abs();
            if interval == 0 {
                return Err(args.refusal("intervalUnit must not be zero seconds"));
            }
            let from = as_wall_clock(context).from;
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                series.tag("integralByInterval", unit.as_str());
                let of = |at: i64| at.saturating_sub(from).div_euclid(interval);
                let mut sum = 0.0;
                let sums = series.iter().enumerate().map(|(i, value)| {
                    let at = series.time_of(i);
                    if of(at) != of(at - series.step) {
                        sum = 0.0;
                    }
                    sum += value.unwrap_or(0.0);
                    Some(sum)
                });
                let sums = || Ok(sums.map(or_absent).collect());
                let sums = series.values.beside(series.values.len(), sums)?;
                let name = format!("integralByInterval({},'{unit}')", series.name);
                *series = series.derived(name, sums);
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "interpolate",
        params: &[SERIES, LIMIT],
        help: "Draws a straight line over gaps of up to `limit` points.",
        example: "interpolate(web.a.temperature, 10)",
        call: |_, args| gaps::fill(args, gaps::interpolate),
        ..Function::PLAIN
    },
    Function {
        name: "invert",
        params: &[SERIES],
        help: "One divided by every value; none where it is zero.",
        example: "invert(web.a.seconds_per_request)",
        call: |_, args| args.each_series(None, "1", |value| python::power(value?, -1.0)),
        ..Function::PLAIN
    },
    Function {
        name: "isNonNull",
        params: &[SERIES],
        help: "1 where there is a value, else 0: the sum is the number of series that \
               report.",
        example: "sumSeries(isNonNull(web.*.uptime))",
        call: |_, args| {
            args.each_series(None, "1", |value| {
                Some(f64::from(u8::from(value.is_some())))
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "keepLastValue",
        params: &[SERIES, LIMIT],
        help: "Fills gaps of up to `limit` points with the value before them.",
        example: "keepLastValue(web.a.version, 5)",
        call: |_, args| gaps::fill(args, gaps::keep_last),
        ..Function::PLAIN
    },
    Function {
        name: "log",
        params: &[SERIES, Param::integer("base").or(Default::Integer(10))],
        help: "The logarithm of every value to a base; none at or below zero.",
        example: "log(web.a.bytes, 2)",
        call: |_, args| {
            let base = args.number("base")?;
            let shown = args.value("base").python_str();
            let mut all = args.series("seriesList")?;
            let fits = base > 0.0 && base != 1.0;
            if !fits
                && all
                    .iter()
                    .any(|s| s.iter().flatten().any(|value| value > 0.0))
            {
                return Err(args.refusal(&format!("there is no logarithm to the base {shown}")));
            }
            for series in &mut all {
                let logarithm =
                    |value: f64| (value > 0.0 || value.is_nan()).then(|| value.ln() / base.ln());
                let values = series
                    .iter()
                    .map(|value| or_absent(value.and_then(logarithm)));
                let values = || Ok(values.collect());
                let values = series.values.beside(series.values.len(), values)?;
                series.tag("log", shown.as_str());
                *series = series.derived(format!("log({}, {shown})", series.name), values);
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "logit",
        params: &[SERIES],
        help: "The logarithm of value / (1 - value); none unless it lies between 0 and 1.",
        example: "logit(web.a.error_rate)",
        call: |_, args| {
            args.each_series(None, "logit", |value| {
                let value = value?;
                let odds = value / (1.0 - value);
                (value != 1.0 && (odds > 0.0 || odds.is_nan())).then(|| odds.ln())
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "minMax",
        params: &[SERIES],
        help: "Scales the values to the range from 0 for the smallest to 1 for the largest.",
        example: "minMax(web.a.hits)",
        call: |_, args| {
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                series.rename(format!("minMax({})", series.name));
                let min = Aggregate::Min.of(&series.values);
                let range = Aggregate::Max.of(&series.values) - min;
                series.map(|value| {
                    Some(if range == 0.0 {
                        0.0
                    } else {
                        (value? - min) / range
                    })
                    .filter(|_| value.is_some())
                })?;
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "nonNegativeDerivative",
        params: COUNTER,
        help: "The growth of a counter from point to point. A fall is a wrap if `maxValue` says \
               where (or a reset to `minValue`), else nothing is known.",
        example: "nonNegativeDerivative(web.a.requests_total)",
        call: |_, args| {
            let range = counter::range(args)?;
            derive(args, "nonNegativeDerivative", "1", None, |series| {
                counter::growth(&series.values, range)
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "offset",
        params: &[SERIES, Param::float("factor")],
        help: "Adds `factor` to every value.",
        example: "offset(web.a.temperature, -273.15)",
        call: |_, args| {
            let factor = args.number("factor")?;
            let tag = args.value("factor").python_str();
            args.each_series(Some(&python::general(factor)), &tag, |value| {
                Some(value? + factor)
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "offsetToZero",
        params: &[SERIES],
        help: "Takes the smallest value off all, so that the series begins at zero.",
        example: "offsetToZero(web.a.requests_total)",
        call: |_, args| {
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                let min = Aggregate::Min.of(&series.values);
                let tag = if is_absent(min) {
                    "None".to_owned()
                } else {
                    python::float(min)
                };
                series.tag("offsetToZero", tag);
                series.rename(format!("offsetToZero({})", series.name));
                series.map(|value| Some(value? - min))?;
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "perSecond",
        params: COUNTER,
        help: "The growth of a counter per second: nonNegativeDerivative divided by the step.",
        example: "perSecond(web.a.requests_total)",
        call: |_, args| {
            let range = counter::range(args)?;
            derive(args, "perSecond", "1", None, |series| {
                let step = series.step as f64;
                let mut growth = counter::growth(&series.values, range);
                for value in growth.iter_mut().filter(|value| !is_absent(**value)) {
                    *value = python::round(*value / step, 6);
                }
                growth
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "pow",
        params: &[SERIES, Param::float("factor")],
        help: "Every value to the power of `factor`; none where that is no number.",
        example: "pow(web.a.side, 2)",
        call: |_, args| {
            let factor = args.number("factor")?;
            let tag = args.value("factor").python_str();
            args.each_series(Some(&python::general(factor)), &tag, |value| {
                python::power(value?, factor)
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "round",
        params: &[SERIES, Param::integer("precision").or(Default::Integer(0))],
        help: "Rounds every value to `precision` decimals (tens, hundreds, … if negative); what \
               lies in the middle goes to the even digit.",
        example: "round(web.a.load, 2)",
        signature: Some("(seriesList, precision=None)"),
        call: |_, args| {
            let precision = if args.given("precision") {
                args.integer("precision")?
            } else {
                0
            };
            let detail = args
                .written("precision")
                .then(|| python::general(precision as f64));
            args.each_series(detail.as_deref(), &precision.to_string(), |value| {
                Some(python::round(value?, precision))
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "scale",
        params: &[SERIES, Param::float("factor")],
        help: "Multiplies every value by `factor`; absent values stay absent.",
        example: "scale(web.*.hits, 0.1)",
        call: |_, args| {
            let factor = args.number("factor")?;
            let tag = args.value("factor").python_str();
            args.each_series(Some(&python::general(factor)), &tag, |value| {
                Some(value? * factor)
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "scaleToSeconds",
        params: &[SERIES, Param::float("seconds")],
        help: "Values per step as values per so many seconds, whatever the step.",
        example: "scaleToSeconds(web.a.hits, 60)",
        call: |_, args| {
            let seconds = args.number("seconds")?;
            let detail = whole(args, "seconds")?;
            let tag = args.value("seconds").python_str();
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                series.tag("scaleToSeconds", tag.as_str());
                series.rename(format!("scaleToSeconds({},{detail})", series.name));
                let factor = seconds / series.step as f64;
                series.map(|value| Some(python::round(value? * factor, 6)))?;
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "sigmoid",
        params: &[SERIES],
        help: "1 / (1 + e to the power of minus the value): all numbers squeezed between 0 and 1.",
        example: "sigmoid(web.a.score)",
        call: |_, args| {
            args.each_series(None, "sigmoid", |value| Some(1.0 / (1.0 + (-value?).exp())))
        },
        ..Function::PLAIN
    },
    Function {
        name: "sinFunction",
        aliases: &["sin"],
        params: &[
            Param::string("name"),
            Param::integer("amplitude").or(Default::Integer(1)),
            time::STEP,
        ],
        help: "The sine of the time, for trying things out.",
        example: "sinFunction(\"wave\", 2)",
        call: time::sine,
        ..Function::PLAIN
    },
    Function {
        name: "smartSummarize",
        params: &[
            SERIES,
            INTERVAL,
            Param::aggregate("func").or(Default::Text("sum")),
            Param::string("alignTo")
                .optional()
                .options(&[
                    "years", "months", "weeks", "days", "hours", "minutes", "seconds",
                ])
                .odd_options(&["false", "null", "true"]),
        ],
        help: "Like summarize, but intervals begin with the series; with `alignTo` the series \
               begins at that unit of time (`weeks3`: on Wednesday).",
        example: "smartSummarize(web.a.hits, \"1h\", \"sum\", \"days\")",
        lazy: true,
        call: buckets::smart_summarize,
        ..Function::PLAIN
    },
    Function {
        name: "squareRoot",
        params: &[SERIES],
        help: "The square root of every value; none below zero.",
        example: "squareRoot(web.a.variance)",
        call: |_, args| args.each_series(None, "1", |value| python::power(value?, 0.5)),
        ..Function::PLAIN
    },
    Function {
        name: "summarize",
        params: &[
            SERIES,
            INTERVAL,
            Param::aggregate("func").or(Default::Text("sum")),
            Param::boolean("alignToFrom").or(Default::Boolean(false)),
        ],
        help: "One point per interval, an aggregate of the points in it. Intervals begin at whole \
               multiples of their length, or with the series if `alignToFrom`.",
        example: "summarize(web.a.hits, \"1h\", \"max\")",
        call: buckets::summarize,
        ..Function::PLAIN
    },
    Function {
        name: "timeFunction",
        aliases: &["time"],
        params: &[Param::string("name"), time::STEP],
        help: "The time itself, in seconds since 1970.",
        example: "timeFunction(\"clock\", 60)",
        call: time::clock,
        ..Function::PLAIN
    },
    Function {
        name: "timeShift",
        params: &[
            SERIES,
            Param::new("timeShift", Kind::Interval).suggestions(time::SHIFTS),
            Param::boolean("resetEnd").or(Default::Boolean(true)),
            Param::boolean("alignDst")
                .or(Default::Boolean(false))
                .also("alignDST"),
        ],
        signature: Some("(seriesList, timeShift, resetEnd=True, alignDST=False)"),
        help: "Shifts the series in time: shows data of `timeShift` ago as current. Without \"+\" or \"-\", the shift is into the past.",
        example: "timeShift(web.a.hits, \"1d\")",
        lazy: true,
        call: time::shift,
        ..Function::PLAIN
    },
    Function {
        name: "timeSlice",
        params: &[
            SERIES,
            Param::new("startSliceAt", Kind::Date),
            Param::new("endSliceAt", Kind::Date).or(Default::Text("now")),
        ],
        help: "Keeps the values between two times and drops all others.",
        example: "timeSlice(web.a.hits, \"noon\", \"teatime\")",
        call: time::slice,
        ..Function::PLAIN
    },
    Function {
        name: "timeStack",
        params: &[
            SERIES,
            Param::new("timeShiftUnit", Kind::Interval)
                .or(Default::Text("1d"))
                .suggestions(time::SHIFTS),
            Param::integer("timeShiftStart").or(Default::Integer(0)),
            Param::integer("timeShiftEnd").or(Default::Integer(7)),
        ],
        help: "The series as it was so many units ago, once for each number from \
               `timeShiftStart` up to but not including `timeShiftEnd`.",
        example: "timeStack(web.a.hits, \"1d\", 0, 7)",
        lazy: true,
        call: time::stack,
        ..Function::PLAIN
    },
    Function {
        name: "transformNull",
        params: &[
            SERIES,
            Param::float("default").or(Default::Integer(0)),
            Param::series("referenceSeries").optional(),
        ],
        help: "Puts `default` where there is no value; with `referenceSeries` only where at least \
               one of those has one.",
        example: "transformNull(web.*.errors, -1)",
        call: gaps::transform_null,
        ..Function::PLAIN
    },
];

/// Makes a new series of every old one: tagged with the function's name, named
/// `FUNCTION(name)` or `FUNCTION(name,detail)`.
fn derive(
    args: &mut Args<'_>,
    function: &str,
    tag: &str,
    detail: Option<&str>,
    values: impl Fn(&Series) -> Vec<f64>,
) -> Result<Vec<Series>> {
    let mut all = args.series("seriesList")?;
    for series in &mut all {
        let name = match detail {
            Some(detail) => format!("{function}({},{detail})", series.name),
            None => format!("{function}({})", series.name),
        };
        series.tag(function, tag);
        let values = || Ok(values(series));
        let values = series.values.beside(series.values.len(), values)?;
        *series = series.derived(name, values);
    }
    Ok(all)
}

/// A number as `%d` prints it: its whole part.
fn whole(args: &Args<'_>, param: &str) -> Result<String> {
    let number = args.number(param)?;
    if number.is_finite() {
        Ok(format!("{:.0}", number.trunc() + 0.0))
    } else {
        Err(args.refusal(&format!("{param} must be finite")))
    }
}
