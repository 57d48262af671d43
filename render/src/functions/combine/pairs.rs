//! Lists taken pair by pair, and one list against one series.

use std::collections::BTreeSet;

use super::super::{Args, Value, node_key};
use super::grouping::Keyed;
use crate::aggregate::Aggregate;
use crate::consolidate;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::series::{Series, or_absent};
use whisper::{ABSENT, present};

/// Two series step by step, the shorter one absent in the last steps.
pub(super) fn zip(
    a: &[f64],
    b: &[f64],
    function: impl Fn(Option<f64>, Option<f64>) -> Option<f64>,
) -> Vec<f64> {
    let at = |column: &[f64], i: usize| column.get(i).copied().and_then(present);
    let rows = 0..a.len().max(b.len());
    rows.map(|i| or_absent(function(at(a, i), at(b, i))))
        .collect()
}

/// `a / b`, none if either is or `b` is zero.
pub(super) fn quotient(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    let b = b.filter(|&b| b != 0.0)?;
    Some(a? / b)
}

/// Both series at their common step, step by step.
///
/// # Errors
/// As [`consolidate::at_step`].
pub(super) fn combined(
    context: &Context<'_>,
    name: String,
    a: &Series,
    b: &Series,
    function: impl Fn(Option<f64>, Option<f64>) -> Option<f64>,
) -> Result<Series> {
    let step = consolidate::common_step(a.step, b.step);
    let start = a.start.min(b.start);
    let end = a.end.max(b.end);
    let end = end - (end - start) % step;
    let (a, b) = (
        consolidate::at_step(a, step)?,
        consolidate::at_step(b, step)?,
    );
    let values = context.column(a.len().max(b.len()), || Ok(zip(&a, &b, function)))?;
    Ok(context.made(name, (start, end, step), values))
}

/// `aggregateSeriesLists` and those with its aggregate in their names.
pub(super) fn aggregated(
    context: &mut Context<'_>,
    args: &mut Args<'_>,
    func: &str,
    x_files_factor: Option<f64>,
) -> Result<Vec<Series>> {
    let first = args.series("seriesListFirstPos")?;
    let second = args.series("seriesListSecondPos")?;
    if first.len() != second.len() {
        return Err(Error::refused(
            "seriesListFirstPos and seriesListSecondPos argument must have equal length",
        ));
    }
    let mut results = Vec::with_capacity(first.len());
    for (a, b) in first.into_iter().zip(second) {
        let word = func.strip_suffix("Series").unwrap_or(func);
        let name = format!("{word}Series({},{})", a.name, b.name);
        let aggregate = Aggregate::named(word)?;
        for mut result in context.aggregate(vec![a, b], aggregate, word, x_files_factor)? {
            result.name.clone_from(&name);
            results.push(result);
        }
    }
    Ok(results)
}

pub(super) fn divide_by_one(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let mut dividends = args.series("dividendSeriesList")?;
    let divisors = args.series("divisorSeries")?;
    let [divisor] = &divisors[..] else {
        if !divisors.is_empty() {
            return Err(Error::refused(format!(
                "divideSeries second argument must reference exactly 1 series (got {})",
                divisors.len()
            )));
        }
        for series in &mut dividends {
            series.rename(format!("divideSeries({},MISSING)", series.name));
            let length = series.values.len();
            series.values = context.column(length, || Ok(vec![ABSENT; length]))?;
        }
        return Ok(dividends);
    };
    let quotients = dividends.iter().map(|dividend| {
        let name = format!("divideSeries({},{})", dividend.name, divisor.name);
        combined(context, name, dividend, divisor, quotient)
    });
    quotients.collect()
}

pub(super) fn divide_lists(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let dividends = args.series("dividendSeriesList")?;
    let divisors = args.series("divisorSeriesList")?;
    if dividends.len() != divisors.len() {
        return Err(Error::refused(
            "dividendSeriesList and divisorSeriesList argument must have equal length",
        ));
    }
    let quotients = dividends.iter().zip(&divisors).map(|(dividend, divisor)| {
        let name = format!("divideSeries({},{})", dividend.name, divisor.name);
        combined(context, name, dividend, divisor, quotient)
    });
    quotients.collect()
}

pub(super) fn weighted_average(
    context: &mut Context<'_>,
    args: &mut Args<'_>,
) -> Result<Vec<Series>> {
    let averages = args.series("seriesListAvg")?;
    let weights = args.series("seriesListWeight")?;
    if averages.len() != weights.len() {
        return Err(Error::refused(format!(
            "weightedAverage must receive the same number of series for seriesListAvg and \
             seriesListWeight but received respectively {} and {}",
            averages.len(),
            weights.len()
        )));
    }
    let nodes = args.nodes();
    // Of several series with one key the last counts, on either side.
    let mut matched: Keyed<[Option<&Series>; 2]> = Keyed::default();
    for (average, weight) in averages.iter().zip(&weights) {
        for (side, series) in [average, weight].into_iter().enumerate() {
            args.budget().check()?;
            let key = node_key(series, &nodes)?;
            args.hold(2 * key.len())?;
            matched.at(key)[side] = Some(series);
        }
    }
    let product = |sides: &[Option<&Series>; 2]| {
        let [Some(average), Some(weight)] = *sides else {
            return Ok(None);
        };
        let room = average.values.len().max(weight.values.len());
        let values = || Ok(zip(&average.values, &weight.values, |a, b| Some(a? * b?)));
        let values = context.column(room, values)?;
        let name = format!("product({},{})", weight.name, average.name);
        let shape = (average.start, average.end, average.step);
        Ok(Some(context.made(name, shape, values)))
    };
    let products = matched.values.iter().map(product);
    let products = products.filter_map(Result::transpose);
    let products = products.collect::<Result<Vec<Series>>>()?;
    let name = format!(
        "weightedAverage({}, {}, {})",
        distinct_expressions(&averages),
        distinct_expressions(&weights),
        args.repeated()
            .iter()
            .map(Value::python_str)
            .collect::<Vec<_>>()
            .join(",")
    );
    let sum = |series| context.aggregate(series, Aggregate::Sum, "sum", None);
    let (products, weights) = (sum(products)?, sum(weights)?);
    let ([products], [weights]) = (&products[..], &weights[..]) else {
        return Ok(Vec::new());
    };
    let room = products.values.len().max(weights.values.len());
    let values = || Ok(zip(&products.values, &weights.values, quotient));
    let values = context.column(room, values)?;
    let shape = (products.start, products.end, products.step);
    Ok(vec![context.made(name, shape, values)])
}

/// The distinct path expressions of `series`, sorted, joined by commas.
fn distinct_expressions(series: &[Series]) -> String {
    let distinct: BTreeSet<&str> = series.iter().map(|s| s.path_expression.as_str()).collect();
    distinct.into_iter().collect::<Vec<_>>().join(",")
}
