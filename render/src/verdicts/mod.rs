//! The verdicts on deploys: computed in the background, kept with their events.
//!
//! 1. [`crate::impact`] has the method, and neither clock nor I/O. Here the events, series and times for it are
//!    found: [`scope`] chooses series, [`values`] reads them, [`worker`] decides when.
//! 2. One deploy at a time is judged, by one worker, whose caller gives it the lowest priority. Each look reads
//!    what the store has by then, so that late data counts as soon as the next look is taken.
//! 3. A verdict depends only on the store, the events and the time: computed again, it is the same again.

mod calibration;
pub(crate) mod delivery;
mod judge;
pub mod options;
mod reverse;
mod rule;
pub mod scope;
mod stats;
mod values;
mod worker;

pub use calibration::Calibration;
pub use delivery::{Delivery, Durations, Figures, delivery, series};
pub use judge::Judge;
pub use options::Options;
pub use reverse::{Asked, Happened, what_happened};
pub use stats::Stats;
pub use worker::{Handle, Host, Worker, finding_key};
