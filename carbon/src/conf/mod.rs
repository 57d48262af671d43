//! Rule files: Graphite's configuration files, read with line numbers, watched while the server runs.
//!
//! 1. A parser is a function from text and [`Findings`] to a value. It does no I/O, never stops at
//!    the first fault, and puts each fault into the findings: [`Findings::refuse`] for what makes
//!    the whole file unusable, [`Findings::ignore`] for a line that has no effect (in carbon neither),
//!    [`Findings::warn`] for what else an operator should know.
//! 2. A file with a refusal is never used in part. At the start it refuses the start; later the
//!    value of the last good file stays in effect, and every fault is logged with file, line and key.
//! 3. [`Watched`] holds the value. It is read again when the file changes on disk (a thread of the
//!    store looks every second) and on [`crate::Carbon::reload`] (SIGHUP).
//! 4. Readers take the value whole ([`Watched::get`]): a reader sees the old rules or the new ones,
//!    never a mixture.
//!
//! ```
//! use carbon::conf::{Findings, load_text};
//!
//! // A file of numbers, one a line.
//! fn parse(text: &str, findings: &mut Findings) -> Vec<u32> {
//!     let mut numbers = Vec::new();
//!     for (line, text) in carbon::conf::lines(text) {
//!         match text.trim().parse() {
//!             Ok(number) => numbers.push(number),
//!             Err(_) => findings.refuse(line, "", format!("{text:?} is not a number"), "\"12\""),
//!         }
//!     }
//!     numbers
//! }
//!
//! let loaded = load_text("numbers.conf".as_ref(), "1\n2\nx\n", parse);
//! assert_eq!(
//!     loaded.unwrap_err()[0].to_string(),
//!     "numbers.conf:3: \"x\" is not a number, write \"12\"",
//! );
//! ```

pub mod ini;
mod problem;
mod read;
mod watched;

pub use problem::{Findings, Problem};
pub use read::{Lines, Loaded, MAX_BYTES, Missing, lines, load, load_text, text, text_or_pipe};
pub use watched::{Files, Parse, Watch, Watched};
