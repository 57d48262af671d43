use super::*;
use crate::{Column, Consolidation, Drawing};

/// A series held in memory.
pub(crate) fn series(name: &str, start: i64, step: i64, values: &[f64]) -> Series {
    Series {
        name: name.to_owned(),
        path_expression: name.to_owned(),
        start,
        end: start + step * values.len() as i64,
        step,
        values: Column::from(values.to_vec()),
        consolidation: Consolidation::Average,
        x_files_factor: 0.0,
        tags: Default::default(),
        drawing: Drawing::default(),
    }
}
