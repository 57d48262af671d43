//! What several fuzz targets have in common.

pub mod bytes;
pub mod pattern;
pub mod rule_list;
