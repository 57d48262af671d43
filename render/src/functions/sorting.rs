//! Order.

use super::support::{kept, room_for};
use super::{Default, Function, Param};
use crate::aggregate::Aggregate;
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::python;
use crate::series::Series;
use whisper::present;

const SERIES: Param = Param::series("seriesList");

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "sortBy",
        params: &[
            SERIES,
            Param::aggregate("func").or(Default::Text("average")),
            Param::boolean("reverse").or(Default::Boolean(false)),
        ],
        help: "Sorts by an aggregate of each series, the smallest first unless `reverse`.",
        example: "sortBy(web.*.hits, \"max\", true)",
        call: |_, args| {
            let aggregate = args.aggregate("func")?;
            let reverse = args.flag("reverse");
            let all = args.series("seriesList")?;
            sorted(all, aggregate, reverse, args.budget())
        },
        ..Function::PLAIN
    },
    Function {
        name: "sortByMaxima",
        params: &[SERIES],
        help: "Sorts by the largest value, the largest first.",
        example: "sortByMaxima(web.*.hits)",
        call: |_, args| {
            let all = args.series("seriesList")?;
            sorted(all, Aggregate::Max, true, args.budget())
        },
        ..Function::PLAIN
    },
    Function {
        name: "sortByMinima",
        params: &[SERIES],
        help: "Sorts by the smallest value, the smallest first, and drops series that never rise \
               above zero.",
        example: "sortByMinima(web.*.free)",
        call: |_, args| {
            let all = kept(args.series("seriesList")?, args.budget(), |series| {
                present(Aggregate::Max.of(&series.values)).is_some_and(|max| max > 0.0)
            })?;
            sorted(all, Aggregate::Min, false, args.budget())
        },
        ..Function::PLAIN
    },
    Function {
        name: "sortByName",
        params: &[
            SERIES,
            Param::boolean("natural").or(Default::Boolean(false)),
            Param::boolean("reverse").or(Default::Boolean(false)),
        ],
        help: "Sorts by name; `natural` counts runs of digits as numbers.",
        example: "sortByName(web.*.hits, true)",
        call: |_, args| {
            let (natural, reverse) = (args.flag("natural"), args.flag("reverse"));
            let all = args.series("seriesList")?;
            let key = |series: &Series| {
                if natural {
                    padded(&series.name)
                } else {
                    series.name.clone()
                }
            };
            // Padded, a digit may become ten.
            let lengths = all.iter().map(|series| series.name.len());
            args.hold(lengths.sum::<usize>() * if natural { 6 } else { 1 })?;
            by_key(all, key, String::cmp, reverse, args.budget())
        },
        ..Function::PLAIN
    },
    Function {
        name: "sortByTotal",
        params: &[SERIES],
        help: "Sorts by the sum of all values, the largest first.",
        example: "sortByTotal(web.*.hits)",
        call: |_, args| {
            let all = args.series("seriesList")?;
            sorted(all, Aggregate::Sum, true, args.budget())
        },
        ..Function::PLAIN
    },
];

/// `all` by an aggregate of each; those that have none count as the smallest.
///
/// # Errors
/// As [`Budget::check`].
pub(super) fn sorted(
    all: Vec<Series>,
    aggregate: Aggregate,
    reverse: bool,
    budget: &Budget,
) -> Result<Vec<Series>> {
    let _copy = room_for(aggregate, &all, budget)?;
    sorted_by(all, |series| aggregate.of(&series.values), reverse, budget)
}

/// `all` by a number of each; those that have none count as the smallest.
///
/// # Errors
/// As [`Budget::check`].
pub(super) fn sorted_by(
    all: Vec<Series>,
    number: impl Fn(&Series) -> f64,
    reverse: bool,
    budget: &Budget,
) -> Result<Vec<Series>> {
    let number = |series: &Series| match present(number(series)) {
        // No zero is below another one.
        Some(number) => number + 0.0,
        None => f64::NEG_INFINITY,
    };
    budget.check()?;
    if all.len() < python::RUN && all.iter().any(|series| number(series).is_nan()) {
        let keyed = all.into_iter().map(|s| (number(&s), s)).collect();
        return Ok(with_nan(keyed, reverse));
    }
    by_key(all, number, f64::total_cmp, reverse, budget)
}

/// What Python's sort makes of keys among which there is a NaN.
fn with_nan(mut keyed: Vec<(f64, Series)>, reverse: bool) -> Vec<Series> {
    // Equal keys keep their order in both directions: turned around before and after.
    if reverse {
        keyed.reverse();
    }
    python::sort_run(&mut keyed, |a, b| a.0 < b.0);
    if reverse {
        keyed.reverse();
    }
    keyed.into_iter().map(|(_, series)| series).collect()
}

/// Sorts by a key; what is equal keeps its order, in both directions.
fn by_key<K>(
    all: Vec<Series>,
    key: impl Fn(&Series) -> K,
    compare: fn(&K, &K) -> std::cmp::Ordering,
    reverse: bool,
    budget: &Budget,
) -> Result<Vec<Series>> {
    let mut keyed: Vec<(K, Series)> = Vec::with_capacity(all.len());
    let mut pace = budget.pace();
    for series in all {
        pace.check_after(series.values.len())?;
        keyed.push((key(&series), series));
    }
    keyed.sort_by(|a, b| {
        let order = compare(&a.0, &b.0);
        if reverse { order.reverse() } else { order }
    });
    Ok(keyed.into_iter().map(|(_, series)| series).collect())
}

/// The first `n`, or with a negative `n` all but the last so many.
///
/// # Errors
/// If `n` is no number.
pub(super) fn first(mut all: Vec<Series>, n: f64) -> Result<Vec<Series>> {
    if n.is_nan() {
        return Err(Error::refused("a count must be a number, not NaN"));
    }
    let length = all.len() as f64;
    let kept = if n < 0.0 { length + n.ceil() } else { n };
    all.truncate(kept.clamp(0.0, length) as usize);
    Ok(all)
}

/// Runs of digits padded to ten with zeros.
fn padded(name: &str) -> String {
    let mut key = String::with_capacity(name.len() + 10);
    let mut rest = name;
    while !rest.is_empty() {
        let plain = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        key.push_str(&rest[..plain]);
        rest = &rest[plain..];
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        if digits > 0 {
            let number = rest[..digits].trim_start_matches('0');
            key.push_str(&format!("{number:0>10}"));
            rest = &rest[digits..];
        }
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(keys: &[f64], reverse: bool) -> Vec<String> {
        let series =
            |(i, &key): (usize, &f64)| Series::new(i.to_string(), 0, 10, 10, vec![key].into());
        let all = keys.iter().enumerate().map(series).collect();
        let sorted = sorted(all, Aggregate::Max, reverse, &Budget::unlimited()).unwrap();
        sorted.into_iter().map(|series| series.name).collect()
    }

    #[test]
    fn equal_series_keep_their_order_in_both_directions() {
        assert_eq!(
            order(&[2.0, 1.0, -0.0, 2.0, 0.0], false),
            ["2", "4", "1", "0", "3"]
        );
        assert_eq!(
            order(&[2.0, 1.0, -0.0, 2.0, 0.0], true),
            ["0", "3", "1", "2", "4"]
        );
        assert_eq!(order(&[1.0, whisper::ABSENT], false), ["1", "0"]);
    }

    #[test]
    fn a_nan_stands_where_python_leaves_it() {
        // sorted(range(4), key=[3, nan, 1, 2].__getitem__) and with reverse=True.
        assert_eq!(
            order(&[3.0, f64::NAN, 1.0, 2.0], false),
            ["0", "1", "2", "3"]
        );
        assert_eq!(
            order(&[3.0, f64::NAN, 1.0, 2.0], true),
            ["0", "1", "3", "2"]
        );
    }

    #[test]
    fn counts_cut_as_python_slices() {
        let some = |n: f64| {
            let all = ["a", "b", "c"].map(|name| Series::new(name, 0, 10, 10, vec![1.0].into()));
            first(all.into(), n).map_or(99, |kept| kept.len())
        };
        assert_eq!([2.0, 0.0, -1.0, -9.0, 9.0].map(some), [2, 0, 2, 0, 3]);
        assert_eq!(
            [f64::NAN, f64::INFINITY, f64::NEG_INFINITY].map(some),
            [99, 3, 0]
        );
    }
}
