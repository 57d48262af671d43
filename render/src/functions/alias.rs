//! Names: what a series is called in answers and legends.

use std::collections::HashSet;

use super::pattern::{Pattern, with_number};
use super::support::{nodes_between, room_for};
use super::units::System;
use super::{Args, Function, Kind, Param, Value, node_key};
use crate::aggregate::{self, Aggregate};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::python;
use crate::series::Series;
use whisper::{is_absent, present};

const SERIES: Param = Param::series("seriesList");

const POSITIONS: &[Param] = &[SERIES, Param::integer("pos").repeated().optional()];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "alias",
        params: &[SERIES, Param::string("newName")],
        help: "Shows every series under `newName`.",
        example: "alias(sumSeries(web.*.hits), \"Hits\")",
        call: |_, args| {
            let name = args.value("newName").python_str();
            let odd = args.odd_name("newName");
            let mut all = renamed(args, |_| Ok(name.clone()))?;
            for series in &mut all {
                series.odd_name = odd;
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "aliasByMetric",
        params: &[SERIES],
        help: "Shows every series under the last node of its name.",
        example: "aliasByMetric(web.a.hits)",
        call: |_, args| renamed(args, |series| Ok(nodes_between(&series.name, -1, 0))),
        ..Function::PLAIN
    },
    Function {
        name: "aliasByNode",
        params: &[SERIES, Param::new("nodes", Kind::NodeOrTag).repeated()],
        help: "Shows every series under the chosen nodes of its name or values of its tags, \
               joined with dots. Nodes count from 0, negative ones from the end.",
        example: "aliasByNode(web.*.hits, 1)",
        call: by_nodes,
        ..Function::PLAIN
    },
    Function {
        name: "aliasByTags",
        params: &[SERIES, Param::new("tags", Kind::NodeOrTag).repeated()],
        help: "Shows every series under the values of its tags, joined with dots.",
        example: "aliasByTags(seriesByTag(\"name=disk.used\"), \"server\", \"name\")",
        call: by_nodes,
        ..Function::PLAIN
    },
    Function {
        name: "aliasQuery",
        params: &[
            SERIES,
            Param::string("search"),
            Param::string("replace"),
            Param::string("newName"),
        ],
        help: "Makes another target of every name with a regular expression and its replacement, \
               and shows the series under `newName` with the last value of that target in it, \
               printf style.",
        example: "aliasQuery(web.*.hits, \"hits\", \"workers\", \"%d workers\")",
        call: by_query,
        ..Function::PLAIN
    },
    Function {
        name: "aliasSub",
        params: &[SERIES, Param::string("search"), Param::string("replace")],
        help: "Replaces what a regular expression matches in the names; `\\1` and `\\g<name>` \
               stand for groups.",
        example: "aliasSub(web.*.hits, \"^web\\.(.*)\\.hits$\", \"\\1\")",
        call: |_, args| {
            let pattern = Pattern::new(&args.value("search").python_str())?;
            let replacement = pattern.replacement(&args.value("replace").python_str())?;
            let budget = args.budget();
            renamed(args, |series| {
                pattern.replace(&series.name, &replacement, budget)
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "legendValue",
        params: &[
            SERIES,
            Param::string("valuesTypes")
                .repeated()
                .optional()
                .options(LEGEND),
        ],
        signature: Some("(seriesList, *valueTypes)"),
        help: "Adds aggregates of each series to its name; in columns with prefixes if the last \
               one is a system of units, `si` or `binary`.",
        example: "legendValue(web.a.hits, \"last\", \"max\", \"si\")",
        call: legend_value,
        ..Function::PLAIN
    },
    Function {
        name: "lower",
        params: POSITIONS,
        help: "Names in small letters, or only the letters at some positions.",
        example: "lower(WEB.a.hits)",
        call: |_, args| {
            recased(
                args,
                |c| c.to_lowercase().collect(),
                |name| name.to_lowercase(),
            )
        },
        ..Function::PLAIN
    },
    Function {
        name: "upper",
        params: POSITIONS,
        help: "Names in capitals, or only the letters at some positions.",
        example: "upper(web.a.hits, 0)",
        call: |_, args| {
            recased(
                args,
                |c| c.to_uppercase().collect(),
                |name| name.to_uppercase(),
            )
        },
        ..Function::PLAIN
    },
];

/// What `legendValue` takes, as `/functions` lists it.
const LEGEND: &[&str] = &[
    "average",
    "avg",
    "avg_zero",
    "count",
    "current",
    "diff",
    "last",
    "max",
    "median",
    "min",
    "multiply",
    "range",
    "rangeOf",
    "stddev",
    "sum",
    "total",
    "averageSeries",
    "avgSeries",
    "avg_zeroSeries",
    "countSeries",
    "currentSeries",
    "diffSeries",
    "lastSeries",
    "maxSeries",
    "medianSeries",
    "minSeries",
    "multiplySeries",
    "rangeSeries",
    "rangeOfSeries",
    "stddevSeries",
    "sumSeries",
    "totalSeries",
    "si",
    "binary",
];

fn renamed(args: &mut Args<'_>, name: impl Fn(&Series) -> Result<String>) -> Result<Vec<Series>> {
    let mut all = args.series("seriesList")?;
    let mut pace = args.pace();
    for series in &mut all {
        // Names may be long, and what becomes of them takes its time.
        pace.check_after(series.name.len())?;
        let name = name(series)?;
        pace.check_after(name.len())?;
        args.hold(name.len().saturating_sub(series.name.len()))?;
        series.name = name;
    }
    Ok(all)
}

fn by_nodes(_: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let nodes = args.nodes();
    renamed(args, |series| node_key(series, &nodes))
}

fn by_query(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let pattern = Pattern::new(args.text("search")?)?;
    let replacement = pattern.replacement(args.text("replace")?)?;
    let new_name = args.text("newName")?.to_owned();
    let mut context = context.clone();
    let mut all = args.series("seriesList")?;
    for series in &mut all {
        let target = pattern.replace(&series.name, &replacement, context.budget())?;
        let found = context.evaluate_text(&target)?;
        let Some(first) = found.first() else {
            return Err(Error::refused(format!(
                "No series found with query: {target}"
            )));
        };
        let Some(last) = present(Aggregate::Last.of(&first.values)) else {
            return Err(Error::refused(format!(
                "Cannot get last value of series: {}",
                first.name
            )));
        };
        series.name = with_number(&new_name, last)?;
    }
    Ok(all)
}

/// What `legendValue` adds to a name beside its word, at most: all digits of a number.
const WIDEST_VALUE: usize = 400;

fn legend_value(_: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let mut words: Vec<String> = args.repeated().iter().map(Value::python_str).collect();
    let system = match words.last().map(String::as_str) {
        Some(name @ ("si" | "binary")) => System::named(name),
        _ => None,
    };
    if system.is_some() {
        words.pop();
    }
    let mut all = args.series("seriesList")?;
    for word in &words {
        let aggregate = aggregate::NAMES.iter().find(|(name, _)| name == word);
        let _copy = aggregate
            .map(|(_, aggregate)| room_for(*aggregate, &all, args.budget()))
            .transpose()?;
        for series in &mut all {
            args.budget().check()?;
            args.hold(word.len() + WIDEST_VALUE)?;
            let value = aggregate.map(|(_, aggregate)| aggregate.of(&series.values));
            let whole = matches!(aggregate, Some((_, Aggregate::Count)));
            let shown = match (value, system) {
                (None, _) => "(?)".to_owned(),
                (Some(value), _) if is_absent(value) => "None".to_owned(),
                (Some(value), Some(system)) => {
                    let (value, prefix) = system.scaled(value);
                    format!("{}{prefix}", python::fixed(value, 2))
                }
                (Some(value), None) if whole => python::fixed(value, 0),
                (Some(value), None) => python::float(value),
            };
            series.name = match system {
                Some(_) => format!("{:<20}{word:<5}{shown:<10}", series.name),
                None => format!("{} ({word}: {shown})", series.name),
            };
        }
    }
    Ok(all)
}

/// Letters changed one by one at the given positions, or all together when there are none.
fn recased(
    args: &mut Args<'_>,
    letter: fn(char) -> String,
    whole: fn(&str) -> String,
) -> Result<Vec<Series>> {
    let positions = args.repeated().iter().map(|value| match value {
        Value::Integer(position) => Ok(*position),
        other => Err(args.refusal(&format!("{:?} is not a position", other.python_str()))),
    });
    let positions = positions.collect::<Result<Vec<i64>>>()?;
    renamed(args, |series| {
        if positions.is_empty() {
            return Ok(whole(&series.name));
        }
        let n_letters = series.name.chars().count() as i64;
        let from_start = positions.iter().map(|&position| match position {
            0.. => position,
            _ => position.saturating_add(n_letters),
        });
        let places: HashSet<i64> = from_start.collect();
        let mut name = String::with_capacity(series.name.len());
        for (place, c) in series.name.chars().enumerate() {
            if places.contains(&(place as i64)) {
                name.push_str(&letter(c));
            } else {
                name.push(c);
            }
        }
        Ok(name)
    })
}
