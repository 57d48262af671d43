//! Looks: what a series says about how it is drawn.

use super::{Function, Param};

pub(super) const FUNCTIONS: &[Function] = &[Function {
    name: "color",
    params: &[Param::series("seriesList"), Param::string("theColor")],
    help: "Draws every series in this colour: a name, or RRGGBB with or without `#`.",
    example: "color(web.a.hits, \"red\")",
    call: |_, args| {
        let color = args.text("theColor")?.to_owned();
        let mut all = args.series("seriesList")?;
        for series in &mut all {
            series.drawing.color = Some(color.clone());
        }
        Ok(all)
    },
    ..Function::PLAIN
}];
