//! StatsD: parse, aggregate and flush, from a socket into a carbon sink.
//!
//! ```text
//! name:VALUE|TYPE[|@RATE][|#TAGS]        types: c m  ms h d  g  s  a  r  kv
//!
//! datagram      web.hits:1|c\nweb.time:320|ms|@0.1
//!   raw::socket recvmmsg, coalesced datagrams taken apart
//!   raw::simd   separators of 64 bytes at a time: two common lines, two tokens
//!   table       names hashed, cache lines prefetched, cells added to
//!   receive     at the end of the interval the cells are swept and reported
//!   aggregate   summed over threads; timers sorted
//!   output      stats.web.hits 0.1, stats_counts.web.hits 1, stats.timers.web.time.count 10, …
//!               as (series id, time, value) into the sink, or as text to carbons elsewhere
//! ```
//!
//! Everything between a datagram's arrival and the flush belongs to one thread per socket, which
//! shares nothing and allocates nothing per line. See [`Server`].

mod admin;
mod aggregate;
mod cell;
mod death;
mod error;
mod events;
#[cfg(fuzzing)]
pub mod fuzzing;
mod index;
mod inspect;
mod kind;
mod listener;
mod metric;
mod naming;
mod number;
pub mod options;
mod output;
mod pacer;
mod parse;
mod population;
mod raw;
mod receiver;
mod repeater;
mod report;
mod sanitize;
mod server;
mod state;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod token;

pub use death::OnDeath;
pub use error::Error;
pub use events::{Event, EventSink};
pub use options::{KEYS, Options};
pub use server::{Server, Sockets};
pub use stats::Stats;
