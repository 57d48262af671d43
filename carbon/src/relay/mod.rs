//! The relay: sends points to other machines as carbon-relay and carbon-c-relay do.
//!
//! ```text
//! points that were taken ──► live: the way of a series ──► buffer ──► queue ──► connection
//!                            once, by its name             memory     disk      destination
//! ```
//!
//! 1. Routes see what is about to be stored: names and values after lists, rewriting and aggregation, from
//!    every receiver, from StatsD and from the server's own series.
//! 2. Points that arrive at `carbon.relay_line_tcp` come from a relay and are not sent on: two servers with
//!    routes to each other do not make a loop.
//! 3. Without routes there is no [`Relay`](live::Relay), and a point costs nothing more.
//!
//! docs/relay.md has the operator's view.

mod buffer;
mod destination;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod hash;
pub(crate) mod live;
pub mod member;
pub mod options;
pub mod placement;
mod queue;
pub mod ring;
mod route;
pub mod rules;
mod wire;

pub use options::check;
pub use route::{Keep, Route};
pub use wire::Protocol;
