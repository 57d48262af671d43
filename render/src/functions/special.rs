//! Series from nothing, from tags, from events, and what fits no other family.

use super::support::nodes_between;
use super::units::System;
use super::wall_clock::at_each_step;
use super::{Args, Default, Function, Kind, Param, Value};
use crate::aggregate::Aggregate;
use crate::context::{Context, Window};
use crate::error::{Error, Result};
use crate::events::GraphiteTags;
use crate::python;
use crate::series::{Consolidation, Series, or_absent};
use whisper::{is_absent, present};

const X_FILES_FACTOR: &[Param] = &[Param::series("seriesList"), Param::float("xFilesFactor")];

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "cactiStyle",
        params: &[
            Param::series("seriesList"),
            Param::string("system")
                .optional()
                .options(&["si", "binary"]),
            Param::string("units").optional(),
        ],
        help: "Names in columns with the last, largest and smallest value, with prefixes of a \
               system (si, binary) and a unit.",
        example: "cactiStyle(web.*.traffic, \"si\", \"b\")",
        call: cacti_style,
        ..Function::PLAIN
    },
    Function {
        name: "changed",
        params: &[Param::series("seriesList")],
        help: "1 where the value differs from the last one before it, 0 elsewhere.",
        example: "changed(web.a.version)",
        call: |_, args| {
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                series.rename(format!("changed({})", series.name));
                let mut last = None;
                series.map(|value| {
                    let changed =
                        matches!((last, value), (Some(last), Some(value)) if last != value);
                    last = value.or(last);
                    Some(f64::from(u8::from(changed)))
                })?;
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "consolidateBy",
        params: &[
            Param::series("seriesList"),
            Param::string("consolidationFunc").options(&[
                "sum", "average", "avg", "avg_zero", "min", "max", "first", "last",
            ]),
        ],
        help: "Sets how the series is downsampled when it has more points than are asked for: sum, \
               average, avg_zero, min, max, first or last.",
        example: "consolidateBy(web.a.hits, \"max\")",
        call: |_, args| {
            let name = args.text("consolidationFunc")?.to_owned();
            consolidated_by(args, &name)
        },
        ..Function::PLAIN
    },
    Function {
        name: "constantLine",
        params: &[Param::float("value")],
        help: "A line at `value` over the whole window.",
        example: "constantLine(123.456)",
        call: |context, args| {
            let value = or_absent(args.number_if_given("value")?);
            let shown = args.value("value").python_str();
            Ok(vec![context.line(value, &shown)])
        },
        ..Function::PLAIN
    },
    Function {
        name: "cumulative",
        params: &[Param::series("seriesList")],
        help: "consolidateBy the sum: for counts per step.",
        example: "cumulative(web.a.hits)",
        call: |_, args| consolidated_by(args, "sum"),
        ..Function::PLAIN
    },
    Function {
        name: "events",
        params: &[Param::string("tags").repeated()],
        help: "How many events that carry all of the tags there were in each second; `\"*\"` \
               counts every event. Best drawn with drawAsInfinite.",
        example: "drawAsInfinite(events(\"deploy\", \"web\"))",
        call: events,
        ..Function::PLAIN
    },
    Function {
        name: "fallbackSeries",
        params: &[Param::series("seriesList"), Param::series("fallback")],
        help: "The second list if the first has no series. A series without values counts.",
        example: "fallbackSeries(web.a.errors, constantLine(0))",
        call: |_, args| {
            let all = args.series("seriesList")?;
            if all.is_empty() {
                args.series("fallback")
            } else {
                Ok(all)
            }
        },
        ..Function::PLAIN
    },
    Function {
        name: "randomWalkFunction",
        aliases: &["randomWalk"],
        params: &[
            Param::string("name"),
            Param::integer("step").or(Default::Integer(60)),
        ],
        help: "A series that goes up or down by up to a half at every step, for trying things \
               out. It depends on the name and the window alone.",
        example: "randomWalkFunction(\"noise\", 60)",
        call: random_walk,
        ..Function::PLAIN
    },
    Function {
        name: "seriesByTag",
        params: &[Param::string("tagExpressions").repeated()],
        help: "The series whose tags satisfy every expression: `tag=value`, `tag!=value`, \
               `tag=~regex`, `tag!=~regex`. At least one must demand a value.",
        example: "seriesByTag(\"name=disk.used\", \"server=~web.*\")",
        // Evaluation fetches it by its text; only a callback comes here.
        call: |_, _| Err(Error::refused("seriesByTag() cannot be a callback")),
        ..Function::PLAIN
    },
    Function {
        name: "setXFilesFactor",
        aliases: &["xFilesFactor"],
        params: X_FILES_FACTOR,
        help: "Sets the share of known points that a downsampled or combined point needs, for these \
               series and for all that the request evaluates after them.",
        example: "sumSeries(setXFilesFactor(web.*.hits, 0.5))",
        effects: true,
        call: |context, args| {
            // `none` is Graphite's default. Text is kept, and fails there where it is needed; the
            // default serves here.
            let x_files_factor = match args.value("xFilesFactor") {
                Value::Text(_) => 0.0,
                _ => args.number_if_given("xFilesFactor")?.unwrap_or(0.0),
            };
            let tag = args.value("xFilesFactor").python_str();
            context.x_files_factor = x_files_factor;
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                series.x_files_factor = x_files_factor;
                series.tag("xFilesFactor", tag.as_str());
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "substr",
        params: &[
            Param::series("seriesList"),
            Param::new("start", Kind::Node).or(Default::Integer(0)),
            Param::new("stop", Kind::Node).or(Default::Integer(0)),
        ],
        help: "Shows every series under the nodes of its innermost name from `start` up to but \
               not including `stop` (0: to the end; negative ones count from there).",
        example: "substr(web.*.hits, 1, 2)",
        call: |_, args| {
            let (start, stop) = (args.cut("start")?, args.cut("stop")?);
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                series.name = nodes_between(&series.name, start, stop);
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
];

fn consolidated_by(args: &mut Args<'_>, name: &str) -> Result<Vec<Series>> {
    let consolidation = Consolidation::named(name).unwrap_or(Consolidation::Unknown);
    let mut all = args.series("seriesList")?;
    for series in &mut all {
        series.consolidation = consolidation;
        series.tag("consolidateBy", name);
        series.rename(format!("consolidateBy({},\"{name}\")", series.name));
    }
    Ok(all)
}

/// `text` with blanks behind it up to a width in characters.
fn padded(text: &str, width: usize) -> String {
    text.to_owned() + &" ".repeat(width.saturating_sub(text.chars().count()))
}

/// Names in columns wide enough for the longest of each.
fn cacti_style(_: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let text = |param: &str| {
        let text = args.given(param).then(|| args.value(param).python_str());
        text.filter(|text| !text.is_empty())
    };
    let units = text("units");
    let system = match text("system") {
        Some(name) => Some(System::named(&name).ok_or_else(|| {
            args.refusal(&format!("{name:?} is not a unit system: si or binary"))
        })?),
        None => None,
    };
    let shown = |value: f64| match (system, &units) {
        (Some(system), Some(units)) => {
            let (value, prefix) = system.scaled(value);
            format!("{} {prefix}{units}", python::fixed(value, 2))
        }
        (Some(system), None) => {
            let (value, prefix) = system.scaled(value);
            format!("{}{prefix}", python::fixed(value, 2))
        }
        (None, Some(units)) => format!("{} {units}", python::fixed(value, 2)),
        (None, None) => python::fixed(value, 2),
    };
    let mut all = args.series("seriesList")?;
    let width = |text: &str| text.chars().count();
    let names = all
        .iter()
        .map(|series| width(&series.name))
        .max()
        .unwrap_or(0);
    let columns = [
        ("Current", Aggregate::Last),
        ("Max", Aggregate::Max),
        ("Min", Aggregate::Min),
    ];
    // The width is that of whole numbers; nothing and zero are as wide as a 3.
    let columns = columns.map(|(title, aggregate)| {
        let whole = |series: &Series| {
            let value = present(aggregate.of(&series.values)).filter(|&value| value != 0.0);
            width(&shown(value.map_or(3.0, |value| value.trunc() + 0.0)))
        };
        let widest = all.iter().map(whole).max().unwrap_or(0);
        (title, aggregate, widest + 3)
    });
    for series in &mut all {
        args.budget().check()?;
        let widths = columns.map(|(_, _, width)| width);
        args.hold(names + widths.iter().sum::<usize>())?;
        let mut name = padded(&series.name, names) + " ";
        for (title, aggregate, width) in columns {
            let value = aggregate.of(&series.values);
            let value = if is_absent(value) {
                "nan".to_owned()
            } else {
                shown(value)
            };
            name += &format!("{title}:{} ", padded(&value, width));
        }
        series.name = name;
    }
    Ok(all)
}

fn events(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let tags = args.repeated_text()?;
    let name = format!("events(\"{}\")", tags.join("\", \""));
    let Window { from, until } = context.window;
    let n_seconds = usize::try_from(until.saturating_sub(from)).unwrap_or(0);
    context.query.count_points(n_seconds)?;
    let values = context.column(n_seconds, || match context.query.events {
        Some(store) => store
            .count_per_second(&GraphiteTags::from_arguments(&tags), from, until)
            .map_err(|error| args.refusal(&error.to_string())),
        None => Ok(vec![whisper::ABSENT; n_seconds]),
    })?;
    let mut series = context.made(name, (from, until, 1), values);
    series.consolidation = Consolidation::Sum;
    Ok(vec![series])
}

fn random_walk(context: &mut Context<'_>, args: &mut Args<'_>) -> Result<Vec<Series>> {
    let step = args.step("step")?;
    let name = args.value("name").python_str();
    // Numbers by Marsaglia's xorshift, begun from the name: random enough to look at, the same
    // for the same question.
    let mut state = name.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    state = state.wrapping_add(context.window.from.unsigned_abs()) | 1;
    let mut current = 0.0;
    let values = at_each_step(context, step, |_| {
        let here = current;
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        current += (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5;
        here
    })?;
    let Window { from, until } = context.window;
    let mut series = context.made(name, (from, until, step / 1_000_000), values);
    series.odd_name = args.odd_name("name");
    Ok(vec![series])
}
