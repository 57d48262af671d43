//! The index: all series, by name, by pattern and by tag.
//!
//! 1. A name is interned when it is first used. A series is *listed* (patterns and tags find it) when it
//!    has a datapoint or a file, or was registered. Taking a datapoint lists its series.
//! 2. At the start the index is read from its log ([`log`]); without a log the disk is walked. In both
//!    cases the disk is walked once more in the background, and the index is corrected
//!    ([`Index::reconcile`]).
//! 3. A tagged series is found by its tags. Its file appears in the tree below `_tagged`, as in
//!    graphite-web: such paths are computed for each query, not stored.
//! 4. A series that expires leaves tree, tags and log at once ([`Index::expire`]). Its name and id are
//!    freed when no part of the program uses them ([`Index::reclaim`], [`grace`]).
//! 5. Receivers call [`Index::admit`], which may refuse a new name ([`limits`]). Names on disk or in the
//!    journal are always accepted ([`Index::intern`]).
//! 6. Locks are taken in the order names, tree, tags, flags, log; limits and holders are locked while
//!    names are. No thread holds one of them while it waits for the disk: records are added to the log
//!    in memory, and [`Index::write_log`] writes them. No search holds one for long while somebody waits
//!    to write ([`hold`]).

mod bits;
mod compact;
mod expression;
mod glob;
mod grace;
mod hashed;
mod hashes;
mod hold;
mod intern;
pub(crate) mod limits;
mod listing;
mod log;
mod open;
mod plain;
mod presence;
mod reclaim;
mod reconcile;
mod regex;
mod registration;
mod search;
mod sorted;
mod state;
mod tag_search;
mod tagged;
mod tags;
mod tree;

pub(crate) use bits::Bits;
pub use grace::Pin;
pub use limits::Refused;
pub use reconcile::Reconciled;
pub use regex::regex;
pub use state::Index;
pub use tag_search::TagValue;
pub use tagged::Imported;
pub use tree::{Found, GoOn};

pub use crate::error::{PatternError, TagError};
