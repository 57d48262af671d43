//! The journal: datapoints that were taken and are not in a synced file yet.
//!
//! ```text
//! append ──► pending ──(commit: write, sync)──► segment ──(checkpoint)──► dropped
//!             memory         group commit         disk       its points are in synced files
//! ```
//!
//! 1. Points are counted in the order in which they are appended. All points up to
//!    [`Journal::committed`] survive a crash of the process and of the machine.
//! 2. A segment is deleted only after everything that was appended before the next one began is in synced
//!    files ([`Journal::rotate`] begins the next segment and returns the
//!    [`Rotation`] for [`Journal::drop_before`]).
//! 3. The journal is bounded: at `max_size`, nothing is appended until segments are deleted.
//! 4. If the disk refuses a write, pending bytes are kept and written again later. If they grow too many,
//!    the journal *pauses*: points are taken without it and count as committed only after a checkpoint has
//!    written them to synced files. [`Journal::wants_checkpoint`] asks for one.
//! 5. Locks are taken in the order segment, the store's gate, pending. The segment is locked during writes
//!    and syncs. Appending takes only the other two, so receivers never wait for the disk.

mod append;
mod commit;
pub mod disk;
pub(crate) mod envelope;
pub(crate) mod frame;
mod replay;
mod rotation;
mod segments;
mod state;

pub(crate) use append::datapoints;
pub use replay::Replayed;
pub(crate) use replay::{Replay, read_segment};
pub(crate) use rotation::Rotation;
pub(crate) use state::Journal;
