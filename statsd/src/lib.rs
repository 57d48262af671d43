//! StatsD: parse, aggregate and flush, from a socket into a carbon sink.
//!
//! # The grammar
//!
//! ```text
//! packet  = line *( LF line )
//! line    = name ":" values *( ":" values ) | event | check
//! values  = value *( ":" value ) "|" type *( "|" field )
//! type    = "c" | "m"                  counter     aggregate/counter.rs
//!         | "ms" | "h" | "d"           timer       aggregate/timer.rs
//!         | "g"                        gauge       aggregate/gauge.rs
//!         | "s"                        set         aggregate/set.rs
//!         | "a"                        average     aggregate/average.rs
//!         | "r" | "kv"                 raw value   aggregate/raw.rs
//! field   = "@" rate | "#" tags | "T" seconds | "c:" id | "e:" data | "card:" level
//! event   = "_e{" length "," length "}:" title "|" text *( "|" field )
//! check   = "_sc|" name "|" status *( "|" field )
//! ```
//!
//! # The path of a datagram
//!
//! ```text
//! web.hits:1|c\nweb.time:320|ms|@0.1
//!   raw::socket  recvmmsg, coalesced datagrams taken apart
//!   raw::simd    separators of 64 bytes at a time: two common lines, two tokens
//!   parse        lines of any other form
//!   table        names hashed, cache lines prefetched, cells added to
//!   receiver     at the end of the interval the cells are swept and reported
//!   aggregate    added up over receivers; samples of timers sorted
//!   output       stats.web.hits 0.1, stats_counts.web.hits 1, stats.timers.web.time.count 10, …
//!                as (series id, time, value) into the sink, or as text to carbons elsewhere
//! ```
//!
//! Everything between a datagram's arrival and the flush belongs to one thread per socket, which
//! shares nothing and allocates nothing per line. Where to look for what:
//!
//! - a type, its letters, its lines, its saved state: `aggregate/<type>.rs`, listed in `kind.rs`
//! - which characters a name keeps, and notations of tags: `sanitize.rs`
//! - events and service checks: `events.rs`
//! - limits on names: `population.rs`; on connections: `listener.rs`
//! - answers of the management interface: `admin.rs`
//! - threads, start and stop: `server/`
//!
//! # Example
//!
//! ```
//! use std::net::UdpSocket;
//! use std::sync::atomic::Ordering;
//! use std::sync::{Arc, Mutex};
//!
//! use carbon::{Datapoint, NameError, SeriesId, Sink};
//! use statsd::{Event, EventSink, Options, Server, Sockets};
//!
//! /// Remembers names, and the values of each flush.
//! #[derive(Default)]
//! struct Memory {
//!     names: Mutex<Vec<String>>,
//!     points: Mutex<Vec<Datapoint>>,
//! }
//!
//! impl Sink for Memory {
//!     fn intern(&self, name: &[u8]) -> Result<SeriesId, NameError> {
//!         let mut names = self.names.lock().unwrap();
//!         names.push(String::from_utf8_lossy(name).into_owned());
//!         Ok(SeriesId(names.len() as u32 - 1))
//!     }
//!
//!     fn submit(&self, points: &[Datapoint]) {
//!         self.points.lock().unwrap().extend_from_slice(points);
//!     }
//!
//!     fn try_submit(&self, points: &[Datapoint]) -> usize {
//!         self.submit(points);
//!         points.len()
//!     }
//! }
//!
//! impl EventSink for Memory {
//!     fn event(&self, event: Event) {
//!         println!("{}", event.what);
//!     }
//! }
//!
//! let socket = UdpSocket::bind("127.0.0.1:0")?;
//! let address = socket.local_addr()?;
//! let memory = Arc::new(Memory::default());
//! let server = Server::start(
//!     Options { admin: Vec::new(), ..Options::default() },
//!     Sockets { udp: vec![socket], ..Sockets::default() },
//!     memory.clone(),
//!     memory.clone(),
//!     None,
//!     Arc::new(|thread| eprintln!("{thread} has died")),
//! )?;
//!
//! let client = UdpSocket::bind("127.0.0.1:0")?;
//! client.send_to(b"web.hits:1|c\nweb.hits:2|c|@0.5", address)?;
//! while server.stats().metrics.load(Ordering::Relaxed) < 2 {
//!     std::thread::yield_now();
//! }
//! server.flush_now();
//!
//! let names = memory.names.lock().unwrap();
//! let points = memory.points.lock().unwrap();
//! let count = points.iter().find(|point| names[point.series.0 as usize] == "stats_counts.web.hits");
//! assert_eq!(count.map(|point| point.value), Some(5.0));
//! # drop((names, points));
//! server.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod token;

pub use admin::is_http_request;
pub use death::OnDeath;
pub use error::Error;
pub use events::{Event, EventSink};
pub use options::{KEYS, Options};
pub use server::{Server, Sockets};
pub use stats::Stats;
