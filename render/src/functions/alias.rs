//! Names: what a series is called in answers and legends.

use super::{Function, Kind, Param, node_key};

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "alias",
        params: &[Param::series("seriesList"), Param::string("newName")],
        help: "Shows every series under `newName`.",
        example: "alias(sumSeries(web.*.hits), \"Hits\")",
        call: |_, args| {
            let name = args.text("newName")?.to_owned();
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                series.name.clone_from(&name);
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
    Function {
        name: "aliasByNode",
        params: &[
            Param::series("seriesList"),
            Param::new("nodes", Kind::NodeOrTag).repeated(),
        ],
        help: "Shows every series under the chosen nodes of its name or values of its tags, \
               joined with dots. Nodes count from 0, negative ones from the end.",
        example: "aliasByNode(web.*.hits, 1)",
        call: |_, args| {
            let nodes = args.nodes();
            let mut all = args.series("seriesList")?;
            for series in &mut all {
                series.name = node_key(series, &nodes)?;
            }
            Ok(all)
        },
        ..Function::PLAIN
    },
];
