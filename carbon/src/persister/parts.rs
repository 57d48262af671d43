//! What the persister needs of its store.

use std::sync::atomic::AtomicUsize;

use whisper::map::Maps;

use crate::cache::Cache;
use crate::index::Index;
use crate::journal::Journal;
use crate::options::WriteStrategy;
use crate::schema::Schema;
use crate::signal::Signal;
use crate::stats::Stats;
use crate::stop::Stop;

/// The parts of the store that a pass works on.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) cache: &'a Cache,
    pub(crate) journal: Option<&'a Journal>,
    pub(crate) index: &'a Index,
    pub(crate) maps: &'a Maps,
    pub(crate) schema: &'a Schema,
    pub(crate) stats: &'a Stats,
    /// Sent when a pass has made room.
    pub(crate) room: &'a Signal,
    /// Ends the wait for the budget of updates.
    pub(crate) stop: &'a Stop,
    /// How many new series wait for a second timestamp, as of the last pass.
    pub(crate) undecided: &'a AtomicUsize,
    pub(crate) write_strategy: WriteStrategy,
}

impl Parts<'_> {
    /// The cache, and the share of the journal that is used.
    pub(crate) fn room_used(&self) -> (&Cache, f64) {
        (self.cache, self.journal.map_or(0.0, Journal::share_used))
    }
}
