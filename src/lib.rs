//! plumbago: StatsD, Carbon, Whisper and Graphite's render API in one program, with a vertical
//! line at every deploy.
//!
//! This crate is the wiring. [`config`] is what the operator says, [`bound`] the sockets,
//! [`server`] the walk from start to stop, and [`verbs`] everything else the command line can do.
//! The work itself is in the crates below: `render`, `statsd`, `carbon`, `whisper`.
//!
//! ```text
//! datagrams ──► statsd ──┐                  ┌──► whisper files
//! lines, pickles ────────┴─► carbon ────────┤
//! queries, pages ◄── render ◄───────────────┘
//! ```
//!
//! ```
//! use plumbago::Config;
//!
//! // What a server without a configuration file listens on.
//! let config = Config::default();
//! assert_eq!(config.statsd.udp, ["127.0.0.1:8125"]);
//! assert_eq!(config.carbon.line_tcp, ["127.0.0.1:2003"]);
//! ```

pub mod bound;
pub mod client;
pub mod config;
pub mod demo;
pub mod deploys;
pub mod events;
pub mod exchange;
pub mod http;
pub mod impact;
pub mod lock;
pub mod log;
pub mod memory;
pub mod notify;
pub mod peers;
pub mod random;
pub mod receivers;
pub mod report;
pub mod server;
pub mod store;
pub mod supervise;
pub mod terminal;
pub mod verbs;

pub use config::Config;
