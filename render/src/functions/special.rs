//! Series from nothing, from tags, and what fits no other family.

use super::{Function, Param};
use crate::error::Error;
use crate::python;
use crate::series::{Consolidation, Series};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "consolidateBy",
        params: &[
            Param::series("seriesList"),
            Param::string("consolidationFunc").options(&[
                "sum", "average", "avg", "avg_zero", "min", "max", "first", "last",
            ]),
        ],
        help: "Sets how the series is thinned when it has more points than are asked for: sum, \
               average, avg_zero, min, max, first or last.",
        example: "consolidateBy(web.a.hits, \"max\")",
        call: |_, args| {
            let name = args.text("consolidationFunc")?.to_owned();
            let consolidation = Consolidation::named(&name).ok_or_else(|| {
                Error::refused(format!("Invalid consolidation function: {name:?}"))
            })?;
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                series.consolidation = consolidation;
                series.tag("consolidateBy", name.as_str());
                series.rename(format!("consolidateBy({},\"{name}\")", series.name));
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "constantLine",
        params: &[Param::float("value")],
        help: "A line at `value` over the whole window.",
        example: "constantLine(123.456)",
        call: |context, args| {
            let value = args.number("value")?;
            let (start, end) = (context.window.from, context.window.until);
            let step = (end - start) / 2;
            let name = python::float(value);
            let mut line = Series::new(name.as_str(), start, end, step, vec![value; 3].into());
            line.path_expression = format!("constantLine({name})");
            line.x_files_factor = context.x_files_factor;
            Ok(vec![line])
        },
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
];
