//! The vocabulary of the configuration, shared by every crate that has options.
//!
//! A value goes from text to an option in three steps:
//!
//! 1. `document` (feature `toml`) turns a file into a tree of [`Node`]s, each with its line.
//! 2. [`read()`] turns the tree into a crate's options. Every value that does not fit is reported
//!    with the form that is accepted, all of them at once; the rest keep their defaults.
//! 3. The crate's own `check`, which [`options!`] makes, looks at the meaning and adds
//!    [`Problems`]: an address without a port, a size of 0.
//!
//! [`options!`] declares an option in one place, [`counters!`] a number that a crate reports
//! about itself.
//!
//! ```
//! use settings::{Problems, Span};
//!
//! let interval: Span = "1h30m".parse()?;
//! assert_eq!(interval, Span::seconds(5400));
//! let refused = "10".parse::<Span>().unwrap_err();
//! assert_eq!(refused.to_string(), "\"10\" is not a duration, write \"10s\"");
//!
//! let mut problems = Problems::default();
//! problems.refuse(("udp", 0), "\"foo\" is not an address", "\"127.0.0.1:8125\"");
//! assert_eq!(
//!     problems.iter().next().map(|problem| problem.message.as_str()),
//!     Some("\"foo\" is not an address, write \"127.0.0.1:8125\""),
//! );
//! # Ok::<(), settings::UnitError>(())
//! ```

mod counters;
#[cfg(feature = "toml")]
pub mod document;
mod node;
pub mod options;
mod problem;
mod read;
mod units;

pub use counters::{Counter, Reading};
pub use node::{Kind, Node, Path, Place, Step, Table};
pub use options::Key;
pub use problem::{Complaint, Problem, Problems, is_address, nearest};
pub use read::read;
#[doc(hidden)]
pub use serde;
pub use units::{ByteSize, Span, UnitError};
