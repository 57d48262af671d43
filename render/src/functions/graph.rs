//! Looks: what a series says about how it is drawn.

use std::cell::RefCell;
use std::rc::Rc;

use super::support::DEFAULT_STACK;
use super::wall_clock::{as_wall_clock, on_wall_clock};
use super::{Args, Default, Function, Kind, Param};
use crate::attime;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::python;
use crate::series::{Series, Stack, bytes_of, or_absent};
use whisper::is_absent;

const SERIES: Param = Param::series("seriesList");

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "alpha",
        params: &[SERIES, Param::float("alpha")],
        help: "Draws every series with this opacity, from 0 to 1.",
        example: "alpha(web.a.hits, 0.5)",
        call: |_, args| {
            let alpha = args.number("alpha")?;
            each(args, |series| series.drawing.alpha = Some(alpha))
        },
        ..Function::PLAIN
    },
    Function {
        name: "areaBetween",
        params: &[SERIES],
        help: "Fills the area between exactly two series.",
        example: "areaBetween(web.a.{lowest,highest})",
        call: area_between,
        ..Function::PLAIN
    },
    Function {
        name: "color",
        params: &[SERIES, Param::string("theColor")],
        help: "Draws every series in this colour: a name, or RRGGBB with or without `#`.",
        example: "color(web.a.hits, \"red\")",
        call: |_, args| {
            let color = args.value("theColor").python_str();
            each(args, |series| series.drawing.color = Some(color.clone()))
        },
        ..Function::PLAIN
    },
    Function {
        name: "dashed",
        params: &[SERIES, Param::integer("dashLength").or(Default::Integer(5))],
        help: "Draws every series as a line of dashes so many pixels long.",
        example: "dashed(web.a.hits, 3)",
        call: |_, args| {
            let length = args.number("dashLength")?;
            let (tag, shown) = (
                args.value("dashLength").python_str(),
                python::general(length),
            );
            each(args, |series| {
                series.tag("dashed", tag.as_str());
                series.name = format!("dashed({}, {shown})", series.name);
                series.drawing.dashed = Some(length);
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "drawAsInfinite",
        params: &[SERIES],
        help: "Draws a line over the full height wherever the value is above zero: for events.",
        example: "drawAsInfinite(deploys.*)",
        call: |_, args| {
            each(args, |series| {
                series.drawing.infinite = true;
                series.tag("drawAsInfinite", "1");
                series.name = format!("drawAsInfinite({})", series.name);
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "lineWidth",
        params: &[SERIES, Param::float("width")],
        help: "Draws every series with a line of this width in pixels.",
        example: "lineWidth(web.a.hits, 2)",
        call: |_, args| {
            let width = args.number("width")?;
            each(args, |series| series.drawing.line_width = Some(width))
        },
        ..Function::PLAIN
    },
    Function {
        name: "secondYAxis",
        params: &[SERIES],
        help: "Draws every series against the axis on the right.",
        example: "secondYAxis(web.a.latency)",
        call: |_, args| {
            each(args, |series| {
                series.drawing.second_y_axis = true;
                series.tag("secondYAxis", "1");
                series.name = format!("secondYAxis({})", series.name);
            })
        },
        ..Function::PLAIN
    },
    Function {
        name: "stacked",
        params: &[SERIES, Param::string("stack").optional().also("stackName")],
        help: "Draws every series on top of the ones before it in the same stack.",
        example: "stacked(web.*.hits)",
        signature: Some("(seriesLists, stackName='__DEFAULT__')"),
        effects: true,
        call: stacked,
        ..Function::PLAIN
    },
    Function {
        name: "threshold",
        params: &[
            Param::float("value"),
            Param::string("label").optional(),
            Param::string("color").optional(),
        ],
        help: "A line at `value` over the whole window, with a label and a colour.",
        example: "threshold(100, \"limit\", \"red\")",
        call: |context, args| {
            let value = or_absent(args.number_if_given("value")?);
            let mut line = context.line(value, &args.value("value").python_str());
            if args.flag("label") {
                line.name = args.value("label").python_str();
            }
            if args.flag("color") {
                line.drawing.color = Some(args.value("color").python_str());
            }
            Ok(vec![line])
        },
        ..Function::PLAIN
    },
    Function {
        name: "verticalLine",
        params: &[
            Param::new("ts", Kind::Date),
            Param::string("label").optional(),
            Param::string("color").optional(),
        ],
        help: "A line over the full height at one time of the window, with a label and a \
               colour.",
        example: "verticalLine(\"-1h\", \"deploy\", \"blue\")",
        effects: true,
        call: vertical_line,
        ..Function::PLAIN
    },
];

fn each(args: &mut Args<'_>, mut change: impl FnMut(&mut Series)) -> Result<Vec<Series>> {
    let mut all = args.series("seriesList")?;
    all.iter_mut().for_each(&mut change);
    Ok(all)
}

/// The lower series is not shown; the upper one, stacked on it, fills what lies between.
fn area_between(_: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let mut all = args.series("seriesList")?;
    let [lower, upper] = &mut all[..] else {
        return Err(args.refusal("seriesList must be exactly two series"));
    };
    lower.drawing.invisible = true;
    upper.tag("areaBetween", "1");
    lower.tags.clone_from(&upper.tags);
    let name = format!("areaBetween({})", upper.path_expression);
    for series in [lower, upper] {
        series.drawing.stack = Some(Stack(DEFAULT_STACK.to_owned()));
        series.name.clone_from(&name);
    }
    Ok(all)
}

fn stacked(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let (stack, named) = if args.written("stack") {
        let stack = args.value("stack").python_str();
        let named = stack != DEFAULT_STACK;
        (stack, named)
    } else {
        (DEFAULT_STACK.to_owned(), false)
    };
    let stacks = context
        .stacks
        .get_or_insert_with(|| Rc::new(RefCell::default()));
    let mut stacks = stacks.borrow_mut();
    let totals = stacks.entry(stack.clone()).or_default();
    let mut all = args.series("seriesList")?;
    for series in &mut all {
        let length = series.values.len();
        if totals.len() < length {
            // Kept until the request ends: what later calls stack upon.
            let more = bytes_of(length - totals.len());
            context.query.limits.budget.reserve(more)?;
            totals.reserve_exact(length - totals.len());
            totals.resize(length, 0.0);
        }
        let values = series.values.beside(length, || {
            let mut values = series.values.to_vec();
            for (value, total) in values.iter_mut().zip(totals.iter_mut()) {
                if !is_absent(*value) {
                    *total += *value;
                    *value = *total;
                }
            }
            Ok(values)
        })?;
        let name = if named {
            series.name.clone()
        } else {
            series.tag("stacked", DEFAULT_STACK);
            format!("stacked({})", series.name)
        };
        *series = series.derived(name, values);
        series.drawing.stack = Some(Stack(stack.clone()));
    }
    Ok(all)
}

fn vertical_line(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let text = args.value("ts").python_str();
    let query = context.query;
    let at = attime::parse(&text, &query.time_zone, query.now)
        .map_err(|error| args.refusal(&error.to_string()))?;
    let (at, window) = (on_wall_clock(context, at), as_wall_clock(context));
    let end = if at < window.from {
        "before start"
    } else if at > window.until {
        "after end"
    } else {
        let label = args.value("label").python_str();
        let mut line = context.made(label, (at, at, 1), vec![1.0, 1.0].into());
        line.odd_name = args.odd_name("label");
        line.drawing.infinite = true;
        if args.flag("color") {
            line.drawing.color = Some(args.value("color").python_str());
        }
        return Ok(vec![line]);
    };
    Err(Error::refused(format!(
        "verticalLine(): timestamp {at} exists {end} of range"
    )))
}
