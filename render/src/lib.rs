//! Graphite's render API: targets, functions, formats, drawing, events and HTTP.

pub mod events;
pub mod series;
pub mod source;

pub use series::{Column, Consolidation, Drawing, Series};
pub use source::{Fetched, Node, Source, SourceError, TagValue, Tags};
