//! Which series are shown.

use std::collections::HashSet;

use super::pattern::Pattern;
use super::sorting::{first, sorted, sorted_by};
use super::support::{kept, room_for};
use super::{Args, Default, Function, Param, percentile};
use crate::aggregate::{self, Aggregate};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::python;
use crate::query;
use crate::series::Series;
use whisper::{ABSENT, is_absent, present};

const SERIES: Param = Param::series("seriesList");

/// A list and a bound.
const WITH_BOUND: &[Param] = &[SERIES, Param::float("n")];

/// A list and how many of it.
const WITH_COUNT: &[Param] = &[SERIES, Param::integer("n")];

const WITH_COUNT_AND_FUNC: &[Param] = &[
    SERIES,
    Param::integer("n")
        .or(Default::Integer(1))
        .listed_required()
        .unlisted_default(),
    Param::aggregate("func").or(Default::Text("average")),
];

const WITH_PATTERN: &[Param] = &[SERIES, Param::string("pattern")];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "averageAbove",
        params: WITH_BOUND,
        help: "The series whose mean is above `n`.",
        example: "averageAbove(web.*.load, 4)",
        call: |_, args| compared(args, Aggregate::Average, Operator::Above),
        ..Function::PLAIN
    },
    Function {
        name: "averageBelow",
        params: WITH_BOUND,
        help: "The series whose mean is at most `n`, and those without values.",
        example: "averageBelow(web.*.free, 10)",
        call: |_, args| compared(args, Aggregate::Average, Operator::AtMost),
        ..Function::PLAIN
    },
    Function {
        name: "averageOutsidePercentile",
        params: WITH_BOUND,
        help: "The series whose mean does not lie between the `n`th percentile of all means and \
               its mirror image.",
        example: "averageOutsidePercentile(web.*.load, 95)",
        call: average_outside_percentile,
        ..Function::PLAIN
    },
    Function {
        name: "currentAbove",
        params: WITH_BOUND,
        help: "The series whose last value is above `n`.",
        example: "currentAbove(web.*.errors, 0)",
        call: |_, args| compared(args, Aggregate::Last, Operator::Above),
        ..Function::PLAIN
    },
    Function {
        name: "currentBelow",
        params: WITH_BOUND,
        help: "The series whose last value is at most `n`, and those without values.",
        example: "currentBelow(web.*.free, 10)",
        call: |_, args| compared(args, Aggregate::Last, Operator::AtMost),
        ..Function::PLAIN
    },
    Function {
        name: "exclude",
        params: WITH_PATTERN,
        help: "The series in whose names a regular expression does not match.",
        example: "exclude(web.*.hits, \"web[0-3]\")",
        call: |_, args| matching(args, false),
        ..Function::PLAIN
    },
    Function {
        name: "filterSeries",
        params: &[
            SERIES,
            Param::aggregate("func"),
            Param::string("operator").options(&["!=", "<", "<=", "=", ">", ">="]),
            Param::float("threshold"),
        ],
        help: "The series of which an aggregate compares with `threshold` as asked: = != > >= < \
               or <=.",
        example: "filterSeries(web.*.errors, \"max\", \">\", 0)",
        call: |_, args| {
            let aggregate = args.aggregate("func")?;
            let operator = args.value("operator").python_str();
            let operator = Operator::named(&operator)
                .ok_or_else(|| Error::refused(format!("Unsupported operator: {operator}")))?;
            let mut all = args.series("seriesList")?;
            if !all.is_empty() {
                let threshold = args.number("threshold")?;
                let _copy = room_for(aggregate, &all, args.budget())?;
                all = kept(all, args.budget(), |series| {
                    operator.holds(aggregate.of(&series.values), threshold)
                })?;
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "grep",
        params: WITH_PATTERN,
        help: "The series in whose names a regular expression matches.",
        example: "grep(web.*.hits, \"web[0-3]\")",
        call: |_, args| matching(args, true),
        ..Function::PLAIN
    },
    Function {
        name: "highest",
        params: WITH_COUNT_AND_FUNC,
        signature: Some("(seriesList, n=1, func='average')"),
        help: "The `n` series with the highest aggregate.",
        example: "highest(web.*.hits, 5, \"max\")",
        call: |_, args| {
            let aggregate = args.aggregate("func")?;
            extreme(args, aggregate, true)
        },
        ..Function::PLAIN
    },
    Function {
        name: "highestAverage",
        params: WITH_COUNT,
        help: "The `n` series with the highest mean.",
        example: "highestAverage(web.*.hits, 5)",
        call: |_, args| extreme(args, Aggregate::Average, true),
        ..Function::PLAIN
    },
    Function {
        name: "highestCurrent",
        params: WITH_COUNT,
        help: "The `n` series with the highest last value.",
        example: "highestCurrent(web.*.hits, 5)",
        call: |_, args| extreme(args, Aggregate::Last, true),
        ..Function::PLAIN
    },
    Function {
        name: "highestMax",
        params: WITH_COUNT,
        help: "The `n` series with the highest largest value.",
        example: "highestMax(web.*.hits, 5)",
        call: |_, args| extreme(args, Aggregate::Max, true),
        ..Function::PLAIN
    },
    Function {
        name: "limit",
        params: WITH_COUNT,
        help: "The first `n` series.",
        example: "limit(web.*.hits, 10)",
        call: |_, args| {
            let n = count(args)?;
            first(args.series("seriesList")?, n)
        },
        ..Function::PLAIN
    },
    Function {
        name: "lowest",
        params: WITH_COUNT_AND_FUNC,
        signature: Some("(seriesList, n=1, func='average')"),
        help: "The `n` series with the lowest aggregate.",
        example: "lowest(web.*.free, 5, \"min\")",
        call: |_, args| {
            let aggregate = args.aggregate("func")?;
            extreme(args, aggregate, false)
        },
        ..Function::PLAIN
    },
    Function {
        name: "lowestAverage",
        params: WITH_COUNT,
        help: "The `n` series with the lowest mean.",
        example: "lowestAverage(web.*.free, 5)",
        call: |_, args| extreme(args, Aggregate::Average, false),
        ..Function::PLAIN
    },
    Function {
        name: "lowestCurrent",
        params: WITH_COUNT,
        help: "The `n` series with the lowest last value.",
        example: "lowestCurrent(web.*.free, 5)",
        call: |_, args| extreme(args, Aggregate::Last, false),
        ..Function::PLAIN
    },
    Function {
        name: "maximumAbove",
        params: WITH_BOUND,
        help: "The series whose largest value is above `n`.",
        example: "maximumAbove(web.*.errors, 0)",
        call: |_, args| compared(args, Aggregate::Max, Operator::Above),
        ..Function::PLAIN
    },
    Function {
        name: "maximumBelow",
        params: WITH_BOUND,
        help: "The series whose largest value is at most `n`, and those without values.",
        example: "maximumBelow(web.*.hits, 10)",
        call: |_, args| compared(args, Aggregate::Max, Operator::AtMost),
        ..Function::PLAIN
    },
    Function {
        name: "minimumAbove",
        params: WITH_BOUND,
        help: "The series whose smallest value is above `n`.",
        example: "minimumAbove(web.*.load, 1)",
        call: |_, args| compared(args, Aggregate::Min, Operator::Above),
        ..Function::PLAIN
    },
    Function {
        name: "minimumBelow",
        params: WITH_BOUND,
        help: "The series whose smallest value is at most `n`, and those without values.",
        example: "minimumBelow(web.*.free, 10)",
        call: |_, args| compared(args, Aggregate::Min, Operator::AtMost),
        ..Function::PLAIN
    },
    Function {
        name: "mostDeviant",
        params: WITH_COUNT,
        help: "The `n` series that vary most.",
        example: "mostDeviant(web.*.latency, 5)",
        call: |_, args| {
            let n = count(args)?;
            let mut all = args.series("seriesList")?;
            all.retain(|series| !is_absent(Aggregate::Last.of(&series.values)));
            first(sorted_by(all, variance, true, args.budget())?, n)
        },
        ..Function::PLAIN
    },
    Function {
        name: "removeBetweenPercentile",
        params: WITH_BOUND,
        help: "The series that at some point do not lie between the `n`th percentile of all \
               series there and its mirror image.",
        example: "removeBetweenPercentile(web.*.latency, 95)",
        call: remove_between_percentile,
        ..Function::PLAIN
    },
    Function {
        name: "removeEmptySeries",
        params: &[SERIES, Param::float("xFilesFactor").optional()],
        help: "The series that have a value, or values for the share `xFilesFactor` of their \
               points.",
        example: "removeEmptySeries(web.*.errors, 0.5)",
        call: |_, args| {
            let share = args.number_if_given("xFilesFactor")?.unwrap_or(0.0);
            let all = args.series("seriesList")?;
            kept(all, args.budget(), |series| {
                let known = series.iter().flatten().count();
                aggregate::enough(known, series.values.len() as f64, share)
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "unique",
        params: &[Param::series("seriesLists").repeated()],
        help: "Of several series of one name the first.",
        example: "unique(web.*.hits, web.a.*)",
        call: |_, args| {
            let mut all = args.all_series()?;
            let mut seen = HashSet::new();
            let names = all.iter().map(|series| series.name.as_str());
            let new: Vec<bool> = names.map(|name| seen.insert(name)).collect();
            let mut new = new.into_iter();
            all.retain(|_| new.next().unwrap_or(true));
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "useSeriesAbove",
        params: &[
            SERIES,
            Param::float("value"),
            Param::string("search"),
            Param::string("replace"),
        ],
        help: "For every series that rises above `value` the one whose name a regular expression \
               and its replacement make of its name.",
        example: "useSeriesAbove(web.*.hits, 100, \"hits\", \"latency\")",
        call: use_series_above,
        ..Function::PLAIN
    },
];

/// How an aggregate compares with a bound.
#[derive(Clone, Copy, Debug)]
enum Operator {
    Equal,
    Unequal,
    Above,
    AtLeast,
    Below,
    AtMost,
}

impl Operator {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "=" => Self::Equal,
            "!=" => Self::Unequal,
            ">" => Self::Above,
            ">=" => Self::AtLeast,
            "<" => Self::Below,
            "<=" => Self::AtMost,
            _ => return None,
        })
    }

    /// A series without values lies below everything.
    fn holds(self, value: f64, bound: f64) -> bool {
        let Some(value) = present(value) else {
            return matches!(self, Self::Unequal | Self::Below | Self::AtMost);
        };
        match self {
            Self::Equal => value == bound,
            Self::Unequal => value != bound,
            Self::Above => value > bound,
            Self::AtLeast => value >= bound,
            Self::Below => value < bound,
            Self::AtMost => value <= bound,
        }
    }
}

fn compared(args: &mut Args<'_>, aggregate: Aggregate, operator: Operator) -> Result<Vec<Series>> {
    let mut all = args.series("seriesList")?;
    if !all.is_empty() {
        let bound = args.number("n")?;
        let _copy = room_for(aggregate, &all, args.budget())?;
        all = kept(all, args.budget(), |series| {
            operator.holds(aggregate.of(&series.values), bound)
        })?;
    }
    Ok(all)
}

fn matching(args: &mut Args<'_>, wanted: bool) -> Result<Vec<Series>> {
    let pattern = Pattern::new(args.text("pattern")?)?;
    let mut kept = Vec::new();
    for series in args.series("seriesList")? {
        if pattern.is_in(&series.name, args.budget())? == wanted {
            kept.push(series);
        }
    }
    Ok(kept)
}

fn extreme(args: &mut Args<'_>, aggregate: Aggregate, reverse: bool) -> Result<Vec<Series>> {
    let n = args.number("n")?.trunc();
    let all = args.series("seriesList")?;
    first(sorted(all, aggregate, reverse, args.budget())?, n)
}

/// How many series are kept: `none` for all of them, as Python's `all[:None]`.
fn count(args: &Args<'_>) -> Result<f64> {
    if args.given("n") {
        Ok(args.integer("n")? as f64)
    } else {
        Ok(f64::INFINITY)
    }
}

/// The mean of the squared distances from the mean.
fn variance(series: &Series) -> f64 {
    let mean = Aggregate::Average.of(&series.values);
    let (mut squares, mut known) = (0.0, 0);
    for value in series.iter().flatten() {
        squares += python::square(value - mean);
        known += 1;
    }
    squares / f64::from(known.max(1))
}

/// The percentiles that `n` means: itself and its mirror image, the lower one first.
fn mirrored(n: f64) -> (f64, f64) {
    let high = if n < 50.0 { 100.0 - n } else { n };
    (100.0 - high, high)
}

fn percentile_of(args: &Args<'_>, cells: &[f64], n: f64) -> Result<f64> {
    percentile::percentile(cells, n, false).map_err(|_| args.refusal("there is no such percentile"))
}

fn average_outside_percentile(_: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let (low, high) = mirrored(args.number("n")?);
    let all = args.series("seriesList")?;
    let mut pace = args.pace();
    let mut means = Vec::with_capacity(all.len());
    for series in &all {
        pace.check_after(series.values.len())?;
        means.push(Aggregate::Average.of(&series.values));
    }
    let (low, high) = (
        percentile_of(args, &means, low)?,
        percentile_of(args, &means, high)?,
    );
    let outside = |mean: &f64| !(low < *mean && *mean < high);
    let kept = all
        .into_iter()
        .zip(&means)
        .filter(|(_, mean)| outside(mean));
    Ok(kept.map(|(series, _)| series).collect())
}

fn remove_between_percentile(_: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let (low, high) = mirrored(args.number("n")?);
    let mut all = args.series("seriesList")?;
    // Rows end with the shortest series.
    let shortest = all
        .iter()
        .map(|series| series.values.len())
        .min()
        .unwrap_or(0);
    let columns: Vec<&[f64]> = all
        .iter()
        .map(|series| &series.values[..shortest])
        .collect();
    let budget = args.budget();
    let percentiles = |n: f64| {
        let mut beyond = None;
        let bounds = aggregate::each_row(&columns, budget, |cells| {
            percentile_of(args, cells, n).unwrap_or_else(|error| {
                beyond = Some(error);
                ABSENT
            })
        })?;
        beyond.map_or(Ok(bounds), Err)
    };
    let (low, high) = (percentiles(low)?, percentiles(high)?);
    all = kept(all, budget, |series| {
        let rows = series.values.iter().zip(low.iter().zip(&*high));
        let mut known = rows.filter(|(value, _)| !is_absent(**value));
        known.any(|(value, (low, high))| !(low < value && value < high))
    })?;
    Ok(all)
}

fn use_series_above(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let bound = args.number("value")?;
    let all = args.series("seriesList")?;
    if all.is_empty() {
        return Ok(all);
    }
    let pattern = Pattern::new(args.text("search")?)?;
    let replacement = pattern.replacement(args.text("replace")?)?;
    let mut names = String::new();
    for series in &all {
        args.budget().check()?;
        if Aggregate::Max.of(&series.values) > bound {
            let name = pattern.replace(&series.name, &replacement, args.budget())?;
            if !names.is_empty() {
                names.push(',');
            }
            names.push_str(&name);
        }
        if names.len() > query::MAX_LENGTH {
            let limit = query::MAX_LENGTH;
            let reason = format!("the names of the series have more than {limit} bytes");
            return Err(args.refusal(&reason));
        }
    }
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let target = format!("group({names})");
    let mut all = context.clone().evaluate_text(&target)?;
    all.retain(|series| !series.values.is_empty());
    Ok(all)
}
