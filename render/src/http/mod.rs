//! HTTP: Graphite's own API, and ours beside it.

pub mod events;
pub mod guard;
pub mod page;
