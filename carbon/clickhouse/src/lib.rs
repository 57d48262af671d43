//! ClickHouse as the store, in the tables of carbon-clickhouse and graphite-clickhouse.
//!
//! ```text
//! cache + journal (carbon) ──► writer ──► rows ──► packed ──► client ──► INSERT … FORMAT RowBinary
//! render ──► source ──► find, tags, points ──► client ──► SELECT … FORMAT Native, RowBinary ──► incoming, wire
//! ```
//!
//! 1. Points are sent in blocks ([`Writer`]); a block is sent again until ClickHouse has acknowledged it. What is sent
//!    twice is the same row twice, of which the engine keeps the one with the later `Timestamp`.
//! 2. Statements keep to what ClickHouse 18.16 and today's servers both accept. Settings that only one of them knows
//!    are sent to that one ([`Client`]).
//! 3. Answers of ClickHouse are read from the points that are there and those that are not acknowledged yet
//!    ([`Clickhouse`]).
//! 4. Events are in the event store of each server; changes are copied to a table and from it ([`EventsTable`]).
//! 5. Every text that a client has sent goes into a statement through [`sql::text`] only.
//!
//! ```
//! use clickhouse::{Options, schema, sql};
//!
//! // What `plumbago clickhouse schema` prints, without a server.
//! let options = Options::default();
//! let tables = schema::tables(&options);
//! assert!(tables[0].statement.starts_with("CREATE TABLE IF NOT EXISTS "));
//! assert_eq!(sql::text("it's"), r"'it\'s'");
//! ```

mod addresses;
mod cache;
mod client;
mod events;
mod find;
mod incoming;
mod known;
mod names;
mod options;
mod packed;
mod points;
mod rollup;
mod rows;
pub mod schema;
mod source;
pub mod sql;
mod stats;
mod tagged;
mod tags;
mod wire;
mod writer;

pub use client::{Client, Failure};
pub use events::{Arrived, EventsTable, Place};
pub use known::Known;
pub use options::Options;
pub use rollup::{Function, Rollup};
pub use source::Clickhouse;
pub use stats::Stats;
pub use writer::Writer;
