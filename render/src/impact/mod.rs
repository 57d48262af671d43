//! Impact: did a deploy change anything?
//!
//! A change after a deploy means little by itself: metrics change all the time. Here it is compared with
//! the changes that the same series shows at comparable times when nothing was deployed, its placebos:
//! some 600 in a week. No distribution is assumed, so autocorrelation, seasons, heavy tails and bursts
//! are judged by what they really do.
//!
//! 1. [`judge()`] answers one look at one deploy: it measures each series on a scale that fits it, takes the
//!    season away, scores each change against the series' own placebos, and sets one threshold for the
//!    whole scope, at which the placebos would have been called at a known rate.
//! 2. Nothing here does I/O or reads a clock: values and times in, verdicts out. The caller bounds series
//!    and threads.
//! 3. A verdict needs 50 placebos, about half a day of history. Without them nothing is found.
//! 4. Adding a constant to plain series, or shifting all times, changes no verdict.

mod blocks;
mod decide;
mod finding;
mod follow;
mod judge;
mod measure;
mod network;
mod onset;
mod params;
mod report;
mod score;
mod season;
mod windows;

pub use decide::{Judgement, Role, Verdict};
pub use finding::{Direction, Finding, Least, Subject, direction, group, words, worth};
pub use follow::{CONFIRMS, Followed, follow, group_followed, report};
pub use judge::{Input, Values, judge, judge_looks};
pub use measure::Kind;
pub use onset::{Candidate, Onset, explain, onset};
pub use params::{LOOKS, Params, Question, alpha};
pub use report::{Correction, LookReport, Outcome, Report, SeriesReport, State, Worth};
