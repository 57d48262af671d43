//! The store: takes datapoints into cache, journal and files, and answers queries from cache and file.
//!
//! 1. [`Sink::submit`](crate::Sink::submit) reserves room, appends to the journal and inserts into the
//!    cache, in this order. When it returns, queries see the points and patterns find their series.
//! 2. A query reads the cache first and the file second: it may see a point that the persister moves
//!    meanwhile twice, never not at all, and counts it once.
//! 3. A shutdown is announced ([`Carbon::shut_down`]) before receivers are stopped. From then on a full cache
//!    blocks no receiver for longer than [`PATIENCE`](patience::PATIENCE). Points without room go into the
//!    journal alone, which is then kept for the next start.
//! 4. An answer from cache and file is the answer of the file alone after the cached points were written to
//!    it (`whisper::pending`), coarser archives included.
mod ahead;
mod background;
mod carbon;
mod checkpoint;
mod deliver;
mod deliveries;
mod expire;
mod fetch;
mod health;
mod inner;
mod names;
mod open;
mod patience;
mod readings;
mod replay;
mod rounds;
mod ruled;
mod setup;
mod shutdown;
mod submit;

pub use ahead::ReadAhead;
pub use carbon::Carbon;
pub use fetch::{Fetched, Info};
pub(crate) use inner::Inner;
pub use setup::{Access, Clock, Guard, Progress, Setup};
