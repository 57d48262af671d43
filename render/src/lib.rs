//! Graphite's render API: targets, functions, formats, drawing, events and HTTP.
//!
//! One target evaluated against a source held in memory:
//!
//! ```
//! use render::{Query, Window, memory::Memory, query};
//!
//! let mut source = Memory::default();
//! source.insert("web.a.hits", 60, vec![1.0, 2.0]);
//! source.insert("web.b.hits", 60, vec![10.0, 20.0]);
//!
//! let hits = query::parse("scale(sumSeries(web.*.hits), 0.5)")?.expression;
//! let query = Query::new(&source, 120);
//! let series = query.evaluate(&[hits], Window { from: 0, until: 120 }, 0.0)?;
//! assert_eq!(series[0].name, "scale(sumSeries(web.*.hits),0.5)");
//! assert_eq!(series[0].values[..], [5.5, 11.0]);
//! # Ok::<(), render::Error>(())
//! ```

pub mod aggregate;
pub mod attime;
pub mod budget;
pub mod consolidate;
pub mod context;
pub mod draw;
pub mod error;
mod eval;
pub mod events;
mod fetch;
pub mod format;
pub mod functions;
pub mod http;
pub mod impact;
pub mod memory;
pub mod options;
pub mod paths;
pub mod protobuf;
pub mod python;
pub mod query;
pub mod series;
pub mod source;
pub mod stats;
pub mod stored;
mod value;
pub mod verdicts;

pub use context::{Context, Limits, Query, Window};
pub use error::{Error, Result};
pub use options::Options;
pub use paths::Paths;
pub use series::{Column, Consolidation, Drawing, Series};
pub use source::{
    Completion, FetchRange, Fetched, Info, Node, Source, SourceError, TagValue, Tags,
};
