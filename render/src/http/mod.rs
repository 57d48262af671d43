//! HTTP.
pub mod page;
