//! Values that are dropped from their series for being too large or too small.

use super::support::room_for_copy;
use super::{Args, Function, Param, percentile};
use crate::error::Result;
use crate::python;
use crate::series::Series;

const PARAMS: &[Param] = &[Param::series("seriesList"), Param::float("n")];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "removeAbovePercentile",
        params: PARAMS,
        help: "Drops the values above the series' own `n`th percentile.",
        example: "removeAbovePercentile(web.a.latency, 99)",
        call: |_, args| beyond_percentile(args, |value, bound| value > bound),
        ..Function::PLAIN
    },
    Function {
        name: "removeAboveValue",
        params: PARAMS,
        help: "Drops the values above `n`.",
        example: "removeAboveValue(web.a.latency, 60)",
        call: |_, args| beyond_value(args, |value, bound| value > bound),
        ..Function::PLAIN
    },
    Function {
        name: "removeBelowPercentile",
        params: PARAMS,
        help: "Drops the values below the series' own `n`th percentile.",
        example: "removeBelowPercentile(web.a.free, 1)",
        call: |_, args| beyond_percentile(args, |value, bound| value < bound),
        ..Function::PLAIN
    },
    Function {
        name: "removeBelowValue",
        params: PARAMS,
        help: "Drops the values below `n`.",
        example: "removeBelowValue(web.a.temperature, 0)",
        call: |_, args| beyond_value(args, |value, bound| value < bound),
        ..Function::PLAIN
    },
];

/// Renames `series` as all of these functions do.
fn rename(series: &mut Series, args: &Args<'_>, n: f64) {
    let (function, n) = (args.function().name, python::general(n));
    series.rename(format!("{function}({}, {n})", series.name));
}

fn drop_where(series: &mut Series, bound: f64, drops: fn(f64, f64) -> bool) -> Result<()> {
    series.map(|value| value.filter(|&value| !drops(value, bound)))
}

fn beyond_value(args: &mut Args<'_>, drops: fn(f64, f64) -> bool) -> Result<Vec<Series>> {
    let n = args.number("n")?;
    let mut all = args.series("seriesList")?;
    for series in &mut all {
        rename(series, args, n);
        drop_where(series, n, drops)?;
    }
    Ok(all)
}

fn beyond_percentile(args: &mut Args<'_>, drops: fn(f64, f64) -> bool) -> Result<Vec<Series>> {
    let n = args.number("n")?;
    let tag = args.value("n").python_str();
    let mut all = args.series("seriesList")?;
    if n == 0.0 && !all.is_empty() {
        return Err(args.refusal("n must not be 0"));
    }
    let _copy = room_for_copy(&all, args.budget())?;
    for series in &mut all {
        rename(series, args, n);
        args.budget().check()?;
        let Ok(bound) = percentile::percentile(&series.values, n, false) else {
            continue;
        };
        if !whisper::is_absent(bound) {
            // The bound is found by nPercentile, which adds its tag.
            series.tag("nPercentile", tag.as_str());
            drop_where(series, bound, drops)?;
        }
    }
    Ok(all)
}
