//! Several series to one, or pairs of them.

mod grouping;
mod pairs;
mod percent;

use super::{Args, Default, Function, Kind, Param, percentile};
use crate::aggregate::{self, Aggregate};
use crate::consolidate;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::python;
use crate::series::{Series, or_absent, path_expressions};
use whisper::present;

const SERIES: Param = Param::series("seriesList");

/// Any number of lists of series, all of them taken together.
const LISTS: &[Param] = &[Param::series("seriesLists").repeated()];

/// Two lists taken pair by pair.
const TWO_LISTS: &[Param] = &[
    Param::series("seriesListFirstPos"),
    Param::series("seriesListSecondPos"),
];

const WITH_WILDCARDS: &[Param] = &[
    SERIES,
    Param::new("position", Kind::Node).repeated().optional(),
];

const NODES: Param = Param::new("nodes", Kind::NodeOrTag).repeated().optional();

/// A function that is an aggregate by step of all its series.
const fn rows(aggregate: Aggregate) -> Function {
    Function {
        params: LISTS,
        fold: Some(aggregate),
        aggregator: true,
        call: |context, args| {
            let all = args.all_series()?;
            let word = args.function().aggregate_word();
            context.aggregate(all, Aggregate::named(word)?, word, None)
        },
        ..Function::PLAIN
    }
}

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "aggregate",
        params: &[
            SERIES,
            Param::aggregate("func"),
            Param::float("xFilesFactor").optional(),
        ],
        help: "An aggregate of all series at every point: `aggregate(x, \"sum\")` is \
               `sumSeries(x)`. A point needs the share `xFilesFactor` of the series.",
        example: "aggregate(web.*.hits, \"max\", 0.5)",
        call: |context, args| {
            let func = args.text("func")?;
            let word = func.strip_suffix("Series").unwrap_or(func).to_owned();
            let aggregate = Aggregate::named(&word)?;
            let x_files_factor = args.number_if_given("xFilesFactor")?;
            let all = args.series("seriesList")?;
            context.aggregate(all, aggregate, &word, x_files_factor)
        },
        ..Function::PLAIN
    },
    Function {
        name: "aggregateSeriesLists",
        params: &[
            Param::series("seriesListFirstPos"),
            Param::series("seriesListSecondPos"),
            Param::aggregate("func"),
            Param::float("xFilesFactor").optional(),
        ],
        help: "An aggregate of the first series of both lists, of the second of both, and so on.",
        example: "aggregateSeriesLists(web.*.hits, web.*.misses, \"sum\")",
        call: |context, args| {
            let func = args.text("func")?.to_owned();
            let x_files_factor = args.number_if_given("xFilesFactor")?;
            pairs::aggregated(context, args, &func, x_files_factor)
        },
        ..Function::PLAIN
    },
    Function {
        name: "aggregateWithWildcards",
        params: &[
            SERIES,
            Param::aggregate("func"),
            Param::new("position", Kind::Node).repeated().optional(),
        ],
        signature: Some("(seriesList, func, *positions)"),
        help: "Groups series by their names without the nodes at the given positions, and \
               aggregates each group.",
        example: "aggregateWithWildcards(web.*.*.hits, \"sum\", 1)",
        call: |context, args| {
            let func = args.text("func")?.to_owned();
            grouping::with_wildcards(context, args, &func)
        },
        ..Function::PLAIN
    },
    Function {
        name: "applyByNode",
        params: &[
            SERIES,
            Param::new("nodeNum", Kind::Node),
            Param::string("templateFunction"),
            Param::string("newName").optional(),
        ],
        help: "Evaluates a target for every distinct beginning of the names, up to node \
               `nodeNum`, with that beginning in place of `%`.",
        example: "applyByNode(web.*.hits, 1, \"divideSeries(%.misses, %.hits)\", \"%.ratio\")",
        call: grouping::apply_by_node,
        ..Function::PLAIN
    },
    Function {
        name: "asPercent",
        aliases: &["pct"],
        params: &[SERIES, Param::new("total", Kind::Any).optional(), NODES],
        help: "Each series as a percentage of a total: a number, one series, a list of as many, \
               or (without one) the sum of them all. With nodes both sides are grouped by those \
               and matched group by group.",
        example: "asPercent(web.*.errors, web.*.hits, 1)",
        aggregator: true,
        call: percent::as_percent,
        ..Function::PLAIN
    },
    Function {
        name: "averageSeries",
        aliases: &["avg"],
        help: "The mean of all series at every point.",
        example: "averageSeries(web.*.load)",
        ..rows(Aggregate::Average)
    },
    Function {
        name: "averageSeriesWithWildcards",
        params: WITH_WILDCARDS,
        help: "aggregateWithWildcards by the mean.",
        example: "averageSeriesWithWildcards(web.*.*.load, 1)",
        aggregator: true,
        call: |context, args| grouping::with_wildcards(context, args, "average"),
        ..Function::PLAIN
    },
    Function {
        name: "countSeries",
        params: &[Param::series("seriesLists").repeated().optional()],
        help: "How many series there are, whether they have values or not.",
        example: "countSeries(web.*.uptime)",
        aggregator: true,
        call: count_series,
        ..Function::PLAIN
    },
    Function {
        name: "diffSeries",
        help: "The first series minus all others.",
        example: "diffSeries(web.total.hits, web.a.hits, web.b.hits)",
        ..rows(Aggregate::Diff)
    },
    Function {
        name: "diffSeriesLists",
        params: TWO_LISTS,
        help: "The first series of the first list minus the first of the second, and so on.",
        example: "diffSeriesLists(web.*.accepted, web.*.done)",
        aggregator: true,
        call: |context, args| pairs::aggregated(context, args, "diff", None),
        ..Function::PLAIN
    },
    Function {
        name: "divideSeries",
        params: &[
            Param::series("dividendSeriesList"),
            Param::series("divisorSeries"),
        ],
        help: "Every series of the first list divided by the one of the second.",
        example: "divideSeries(web.*.hits, web.total.hits)",
        call: pairs::divide_by_one,
        ..Function::PLAIN
    },
    Function {
        name: "divideSeriesLists",
        params: &[
            Param::series("dividendSeriesList"),
            Param::series("divisorSeriesList"),
        ],
        help: "The first series of the first list divided by the first of the second, and so on.",
        example: "divideSeriesLists(web.*.errors, web.*.hits)",
        call: pairs::divide_lists,
        ..Function::PLAIN
    },
    Function {
        name: "group",
        params: &[Param::series("seriesLists").repeated().optional()],
        help: "Several lists of series as one.",
        example: "group(web.a.hits, web.b.hits)",
        call: |_, args| args.all_series(),
        ..Function::PLAIN
    },
    Function {
        name: "groupByNode",
        params: &[
            SERIES,
            Param::new("nodeNum", Kind::NodeOrTag),
            Param::new("callback", Kind::AggOrSeriesFunc).or(Default::Text("average")),
        ],
        help: "Groups series by a node of their names or by a tag, and calls a function or an \
               aggregate on each group, which is then named by that node.",
        example: "groupByNode(web.*.hits, 1, \"sum\")",
        call: |context, args| {
            let node = [args.node("nodeNum")];
            grouping::by_nodes(context, args, &node)
        },
        ..Function::PLAIN
    },
    Function {
        name: "groupByNodes",
        params: &[SERIES, Param::new("callback", Kind::AggOrSeriesFunc), NODES],
        help: "groupByNode by several nodes or tags together.",
        example: "groupByNodes(web.*.*.hits, \"sum\", 1, 2)",
        call: |context, args| {
            let nodes = args.nodes();
            grouping::by_nodes(context, args, &nodes)
        },
        ..Function::PLAIN
    },
    Function {
        name: "groupByTags",
        params: &[
            SERIES,
            Param::new("callback", Kind::AggOrSeriesFunc),
            Param::new("tags", Kind::Tag).repeated(),
        ],
        help: "Groups series by the values of tags, and calls a function or an aggregate on each \
               group, which keeps those tags.",
        example: "groupByTags(seriesByTag(\"name=disk.used\"), \"sum\", \"rack\")",
        call: grouping::by_tags,
        ..Function::PLAIN
    },
    Function {
        name: "mapSeries",
        aliases: &["map"],
        params: &[SERIES, Param::new("mapNodes", Kind::NodeOrTag).repeated()],
        help: "Groups series by nodes or tags into lists of series, for reduceSeries.",
        example: "reduceSeries(mapSeries(web.*.*, 1), \"asPercent\", 2, \"errors\", \"hits\")",
        lists: Some(grouping::map),
        ..Function::PLAIN
    },
    Function {
        name: "maxSeries",
        help: "The largest of all series at every point.",
        example: "maxSeries(web.*.load)",
        ..rows(Aggregate::Max)
    },
    Function {
        name: "minSeries",
        help: "The smallest of all series at every point.",
        example: "minSeries(web.*.free)",
        ..rows(Aggregate::Min)
    },
    Function {
        name: "multiplySeries",
        params: LISTS,
        help: "The product of all series at every point; none where one is absent.",
        example: "multiplySeries(web.a.hits, web.a.bytes_per_hit)",
        aggregator: true,
        call: |context, args| {
            let mut lists = args.repeated_series()?;
            if let [list] = &mut lists[..]
                && list.len() == 1
            {
                return Ok(std::mem::take(list));
            }
            let all = lists.into_iter().flatten().collect();
            context.aggregate(all, Aggregate::Multiply, "multiply", None)
        },
        ..Function::PLAIN
    },
    Function {
        name: "multiplySeriesLists",
        params: TWO_LISTS,
        help: "The first series of both lists multiplied, the second of both, and so on.",
        example: "multiplySeriesLists(web.*.hits, web.*.bytes_per_hit)",
        aggregator: true,
        call: |context, args| pairs::aggregated(context, args, "multiply", None),
        ..Function::PLAIN
    },
    Function {
        name: "multiplySeriesWithWildcards",
        params: WITH_WILDCARDS,
        help: "aggregateWithWildcards by the product.",
        example: "multiplySeriesWithWildcards(web.*.*.factor, 2)",
        aggregator: true,
        call: |context, args| grouping::with_wildcards(context, args, "multiply"),
        ..Function::PLAIN
    },
    Function {
        name: "percentileOfSeries",
        params: &[
            SERIES,
            Param::float("n"),
            Param::boolean("interpolate").or(Default::Boolean(false)),
        ],
        help: "The `n`th percentile of all series at every point.",
        example: "percentileOfSeries(web.*.latency, 95)",
        call: percentile_of_series,
        ..Function::PLAIN
    },
    Function {
        name: "powSeries",
        params: &[SERIES.repeated()],
        signature: Some("(*seriesLists)"),
        help: "The first series to the power of the second, that to the power of the third, and \
               so on.",
        example: "powSeries(web.a.base, web.a.exponent)",
        aggregator: true,
        call: pow_series,
        ..Function::PLAIN
    },
    Function {
        name: "rangeOfSeries",
        help: "The largest of all series minus the smallest, at every point.",
        example: "rangeOfSeries(web.*.load)",
        ..rows(Aggregate::Range)
    },
    Function {
        name: "reduceSeries",
        aliases: &["reduce"],
        params: &[
            Param::new("seriesLists", Kind::SeriesLists),
            Param::string("reduceFunction"),
            Param::new("reduceNode", Kind::Node),
            Param::string("reduceMatchers").repeated(),
        ],
        help: "Of each list that mapSeries made, calls a function on the series whose node \
               `reduceNode` is one of the matchers, in their order.",
        example: "reduceSeries(mapSeries(web.*.*, 1), \"asPercent\", 2, \"errors\", \"hits\")",
        call: grouping::reduce,
        ..Function::PLAIN
    },
    Function {
        name: "stddevSeries",
        help: "The standard deviation of all series at every point.",
        example: "stddevSeries(web.*.load)",
        ..rows(Aggregate::Stddev)
    },
    Function {
        name: "sumSeries",
        aliases: &["sum"],
        help: "The sum of all series at every point. Series of different steps are brought to \
               their common multiple first, by their consolidation functions.",
        example: "sumSeries(web.*.hits)",
        ..rows(Aggregate::Sum)
    },
    Function {
        name: "sumSeriesLists",
        params: TWO_LISTS,
        help: "The sum of the first series of both lists, of the second of both, and so on.",
        example: "sumSeriesLists(web.*.hits, web.*.misses)",
        aggregator: true,
        call: |context, args| pairs::aggregated(context, args, "sum", None),
        ..Function::PLAIN
    },
    Function {
        name: "sumSeriesWithWildcards",
        params: WITH_WILDCARDS,
        help: "aggregateWithWildcards by the sum.",
        example: "sumSeriesWithWildcards(web.*.*.hits, 1)",
        aggregator: true,
        call: |context, args| grouping::with_wildcards(context, args, "sum"),
        ..Function::PLAIN
    },
    Function {
        name: "weightedAverage",
        params: &[
            Param::series("seriesListAvg"),
            Param::series("seriesListWeight"),
            NODES,
        ],
        help: "The mean of the first list with the second as weights, matched by nodes or tags.",
        example: "weightedAverage(web.*.latency, web.*.hits, 1)",
        call: pairs::weighted_average,
        ..Function::PLAIN
    },
];

fn count_series(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    if args.repeated().is_empty() {
        let mut line = context.line(0.0, "0");
        line.path_expression = "countSeries()".to_owned();
        return Ok(vec![line]);
    }
    let Some(all) = consolidate::normalise(args.all_series()?)? else {
        return Ok(Vec::new());
    };
    let longest = all.columns.iter().map(|column| column.len()).max();
    let (length, count) = (longest.unwrap_or(0), all.series.len() as f64);
    let values = context.column(length, || Ok(vec![count; length]))?;
    let name = format!("countSeries({})", path_expressions(&all.series));
    Ok(vec![context.made(
        name,
        (all.start, all.end, all.step),
        values,
    )])
}

fn percentile_of_series(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let n = args.number("n")?;
    if n <= 0.0 {
        return Err(Error::refused(
            "The requested percent is required to be greater than 0",
        ));
    }
    let interpolate = args.flag("interpolate");
    let Some(all) = consolidate::normalise(args.series("seriesList")?)? else {
        return Ok(Vec::new());
    };
    let mut beyond = false;
    let values = aggregate::each_row(&all.slices(), context.budget(), |cells| {
        percentile::percentile(cells, n, interpolate).unwrap_or_else(|_| {
            beyond = true;
            whisper::ABSENT
        })
    })?;
    if beyond {
        return Err(args.refusal("there is no such percentile"));
    }
    let first = all
        .series
        .first()
        .map_or("", |series| &series.path_expression);
    let name = format!("percentileOfSeries({first},{})", python::general(n));
    Ok(vec![context.made(
        name,
        (all.start, all.end, all.step),
        values,
    )])
}

fn pow_series(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let Some(all) = consolidate::normalise(args.all_series()?)? else {
        return Ok(Vec::new());
    };
    let values = aggregate::each_row(&all.slices(), context.budget(), |cells| {
        let mut cells = cells.iter().map(|&value| present(value));
        let first = cells.next().flatten();
        or_absent(cells.fold(first, |base, exponent| python::power(base?, exponent?)))
    })?;
    let names: Vec<&str> = all
        .series
        .iter()
        .map(|series| series.name.as_str())
        .collect();
    let name = format!("powSeries({})", names.join(","));
    Ok(vec![context.made(
        name,
        (all.start, all.end, all.step),
        values,
    )])
}
