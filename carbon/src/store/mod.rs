//! The store: cache and files read as one, and the way of a datapoint into both.
//!
//! 1. [`Carbon::submit`] sets room aside, journals, and puts into the cache, in this order; when it
//!    returns, queries see the points and patterns find their series.
//! 2. A query asks the cache first and the file second: what the persister moves meanwhile is seen
//!    twice, never not at all, and counts once.
//! 3. A shutdown is announced ([`Carbon::shut_down`]) before receivers are stopped: from then on a
//!    full cache holds nobody up for longer than [`PATIENCE`]. What finds no room goes into the
//!    journal alone, which is then kept as it is for the next start.
//! 4. An answer over cache and file is what the file alone would answer after the cached points
//!    were written to it (`whisper::pending`), coarser archives included.
mod background;
mod carbon;
mod checkpoint;
mod expire;
mod fetch;
mod health;
mod inner;
mod names;
mod open;
mod patience;
mod readings;
mod replay;
mod setup;
mod shutdown;
mod submit;

pub use carbon::Carbon;
pub use fetch::Fetched;
pub use setup::{Access, Clock, Guard, Progress, Setup};
