//! The index: every series there is, by name, by pattern and by tag.
//!
//! 1. A name is interned when anybody speaks of it; it is *listed* (found by patterns or tags) when
//!    it has a datapoint, a file, or was registered. Listing is part of taking the datapoint.
//! 2. At the start the index is read from its log ([`log`]); without one the disk is walked. Either
//!    way the disk is walked once more in the background, and what it says differently is put
//!    right ([`Index::reconcile`]).
//! 3. A tagged series is found by its tags. Its file shows in the tree as graphite-web shows it,
//!    below `_tagged`: such paths are worked out when somebody asks for them, not stored.
//! 4. A series that expires leaves tree, tags and log at once ([`Index::expire`]); its name and id go
//!    when nothing has them any more ([`Index::reclaim`], [`grace`]).
//! 5. Receivers ask [`Index::admit`], which may refuse a name that is new ([`limits`]). What is on disk
//!    or in the journal is always taken ([`Index::intern`]).
//! 6. Locks are taken in the order names, tree, tags, flags, log; limits and holders are looked at
//!    while names are locked. None is held while the disk is walked.

mod bits;
mod compact;
mod glob;
mod grace;
mod intern;
pub(crate) mod limits;
mod listing;
mod log;
mod open;
mod reclaim;
mod reconcile;
mod search;
mod state;
mod tags;
mod tree;

pub(crate) use bits::Bits;
pub use grace::Pin;
pub use limits::Refused;
pub use reconcile::Reconciled;
pub use state::Index;
pub use tags::{TagValue, regex};
pub use tree::{Found, GoOn};

pub use crate::error::{PatternError, TagError};
