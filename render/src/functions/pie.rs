//! The one value that stands for a series in a pie.

use serde_json::{Value as Json, json};

use crate::aggregate::Aggregate;

/// A way to make one value of a series.
#[derive(Clone, Copy, Debug)]
pub struct PieFunction {
    /// What `pieMode` calls it.
    pub name: &'static str,
    /// What it does.
    pub help: &'static str,
    /// The aggregate that does it.
    pub aggregate: Aggregate,
}

/// All of them, by name.
pub const PIE: &[PieFunction] = &[
    PieFunction {
        name: "average",
        help: "The mean of a series.",
        aggregate: Aggregate::Average,
    },
    PieFunction {
        name: "maximum",
        help: "The largest value of a series.",
        aggregate: Aggregate::Max,
    },
    PieFunction {
        name: "minimum",
        help: "The smallest value of a series.",
        aggregate: Aggregate::Min,
    },
];

impl PieFunction {
    /// The function called `name`.
    pub fn named(name: &str) -> Option<&'static Self> {
        PIE.iter().find(|function| function.name == name)
    }

    /// As `/functions?type=pie` shows it.
    pub fn describe(&self) -> Json {
        json!({
            "name": self.name,
            "function": format!("{}(series)", self.name),
            "description": self.help,
            "module": "graphite.render.functions",
            "group": "Pie",
            "params": [{"name": "series", "type": "series", "required": true}],
        })
    }
}
