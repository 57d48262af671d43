//! `asPercent`: the total that each series is divided by.
//!
//! 1. Without nodes the total is the sum of all, a number, one series for all, or (with as many
//!    totals as series) one for each, both sides sorted by name.
//! 2. With nodes both sides are grouped by the key the nodes give; each series is divided by its
//!    group's total. A group that lacks one of the two sides gives series without values.
//! 3. A series without values, for a group that lacks a side, has the range and the step of
//!    whatever was last brought to one step, as Graphite has it; its own if nothing was.
//! 4. Outside pairs, values are brought to the common step of all series while start, end and
//!    step stay the series' own, as Graphite has it: of series of different steps the finer ones
//!    come out shorter than their range.

use super::super::{Args, Value};
use super::grouping::{Keyed, by_key};
use super::pairs::{combined, quotient, zip};
use crate::aggregate::{self, Aggregate};
use crate::consolidate;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::series::{Series, path_expressions};
use whisper::ABSENT;

fn percent(value: Option<f64>, total: Option<f64>) -> Option<f64> {
    Some(quotient(value, total)? * 100.0)
}

fn name_of(value: &str, total: &str) -> String {
    format!("asPercent({value},{total})")
}

pub(super) fn as_percent(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let nodes = args.nodes();
    if !args.given("seriesList") {
        return Ok(Vec::new());
    }
    let all = args.series("seriesList")?;
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let total = match args.value("total") {
        Value::Series(_) => Some(args.series("total")?),
        _ => None,
    };
    if !nodes.is_empty() {
        let totals = match total {
            Some(totals) => Some(by_key(totals, &nodes, args)?),
            None if args.given("total") => {
                return Err(Error::refused("total must be None or a seriesList"));
            }
            None => None,
        };
        let steps = all.iter().map(|series| series.step);
        let step = steps.fold(1, consolidate::common_step);
        return by_group(context, by_key(all, &nodes, args)?, totals, step);
    }
    match total {
        Some(totals) if totals.len() == all.len() => in_pairs(context, all, totals),
        Some(mut totals) => match (totals.pop(), totals.is_empty()) {
            (Some(total), true) => of_one(context, all, total),
            _ => Err(Error::refused(
                "asPercent second argument must be missing, a single digit, reference exactly 1 \
                 series or reference the same number of series as the first argument",
            )),
        },
        None if args.given("total") => {
            let number = args.number("total")?;
            let length = all[0].values.len();
            let shown = args.value("total").python_str();
            of_column(context, all, &[], &shown, Some((number, length)))
        }
        None => {
            let text = format!("sumSeries({})", path_expressions(&all));
            of_column(context, all, &[], &text, None)
        }
    }
}

/// Every series by its own total.
fn in_pairs(
    context: &Context<'_>,
    mut all: Vec<Series>,
    mut totals: Vec<Series>,
) -> Result<Vec<Series>> {
    all.sort_by(|a, b| a.name.cmp(&b.name));
    totals.sort_by(|a, b| a.name.cmp(&b.name));
    let pairs = all.iter().zip(&totals);
    pairs
        .map(|(series, total)| {
            let name = name_of(&series.name, &total.name);
            combined(context, name, series, total, percent)
        })
        .collect()
}

/// Every series by one.
fn of_one(context: &Context<'_>, all: Vec<Series>, total: Series) -> Result<Vec<Series>> {
    let name = total.name.clone();
    of_column(context, all, &[total], &name, None)
}

/// Every series by one column of totals: a number, the series in `total`, or else their own sum.
fn of_column(
    context: &Context<'_>,
    all: Vec<Series>,
    total: &[Series],
    total_name: &str,
    number: Option<(f64, usize)>,
) -> Result<Vec<Series>> {
    let n_series = all.len();
    let together = all.into_iter().chain(total.iter().cloned()).collect();
    let Some(together) = consolidate::normalise(together)? else {
        return Ok(Vec::new());
    };
    let columns = together.slices();
    let (columns, total) = columns.split_at(n_series);
    let totals = match (number, total) {
        (Some((number, length)), _) => context.column(length, || Ok(vec![number; length]))?,
        (None, [total]) => context.column(total.len(), || Ok(total.to_vec()))?,
        (None, _) => aggregate::rows(Aggregate::Sum, columns, 0.0, context.budget())?,
    };
    let pairs = together.series.iter().zip(columns);
    pairs
        .map(|(series, values)| {
            let name = name_of(&series.name, total_name);
            let shape = (series.start, series.end, series.step);
            let room = values.len().max(totals.len());
            let values = context.column(room, || Ok(zip(values, &totals, percent)))?;
            Ok(context.made(name, shape, values))
        })
        .collect()
}

/// Every series by the total of its group; without totals by the sum of its group.
fn by_group(
    context: &Context<'_>,
    groups: Keyed<Vec<Series>>,
    totals: Option<Keyed<Vec<Series>>>,
    common_step: i64,
) -> Result<Vec<Series>> {
    // Start, end and step of the last sum or pair.
    let mut last = None;
    let mut keys = groups.keys.clone();
    let mut sums: Keyed<Option<Series>> = Keyed::default();
    match totals {
        Some(totals) => {
            for (key, group) in totals.into_pairs() {
                if groups.get(&key).is_none() {
                    keys.push(key.clone());
                }
                *sums.at(key) = sum_of(context, &group, &mut last)?;
            }
        }
        None => {
            for (key, group) in groups.keys.iter().zip(&groups.values) {
                *sums.at(key.clone()) = sum_of(context, group, &mut last)?;
            }
        }
    }
    let mut results = Vec::new();
    for key in keys {
        let total = sums.get(&key).and_then(Option::as_ref);
        let Some(group) = groups.get(&key) else {
            if let Some(total) = total {
                let name = name_of("MISSING", &total.name);
                let length = total.values.len();
                results.push(without_values(context, total, length, last, name)?);
            }
            continue;
        };
        for series in group {
            results.push(match total {
                Some(total) => {
                    let name = name_of(&series.name, &total.name);
                    let result = combined(context, name, series, total, percent)?;
                    last = Some(shape_of(&result));
                    result
                }
                None => {
                    let per_point = usize::try_from(common_step / series.step).unwrap_or(1);
                    let length = series.values.len().div_ceil(per_point.max(1));
                    let name = name_of(&series.name, "MISSING");
                    without_values(context, series, length, last, name)?
                }
            });
        }
    }
    Ok(results)
}

type Shape = (i64, i64, i64);

fn shape_of(series: &Series) -> Shape {
    (series.start, series.end, series.step)
}

/// The only series of a group, or the sum of several.
fn sum_of(
    context: &Context<'_>,
    group: &[Series],
    last: &mut Option<Shape>,
) -> Result<Option<Series>> {
    if let [only] = group {
        return Ok(Some(only.clone()));
    }
    let Some(all) = consolidate::normalise(group.to_vec())? else {
        return Ok(None);
    };
    let values = aggregate::rows(Aggregate::Sum, &all.slices(), 0.0, context.budget())?;
    let name = format!("sumSeries({})", path_expressions(group));
    let sum = context.made(name, (all.start, all.end, all.step), values);
    *last = Some(shape_of(&sum));
    Ok(Some(sum))
}

fn without_values(
    context: &Context<'_>,
    like: &Series,
    length: usize,
    last: Option<Shape>,
    name: String,
) -> Result<Series> {
    let shape = last.unwrap_or_else(|| shape_of(like));
    let values = context.column(length, || Ok(vec![ABSENT; length]))?;
    Ok(context.made(name, shape, values))
}
