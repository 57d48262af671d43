//! The table of ClickHouse that several servers share: each writes its changes, and reads those of the others.

use clickhouse::{EventsTable, Place};

use super::{End, Here, Position};

/// Bytes of changes in an insert, about.
const AT_ONCE: usize = 1 << 20;
/// Rows that arrived so many seconds before the last one are read again: they may have become visible later.
const LATE: i64 = 10;
/// The same for every [`WIDE_EVERY`]th round, for replicas that are behind.
const VERY_LATE: i64 = 600;
const WIDE_EVERY: u32 = 20;

/// The table.
pub(super) struct Shared {
    table: EventsTable,
    rounds: u32,
}

impl Shared {
    /// The other end `table`.
    pub(super) fn new(table: EventsTable) -> Self {
        Self { table, rounds: 0 }
    }

    fn give(&self, here: &Here<'_>, position: &mut Position) -> anyhow::Result<()> {
        loop {
            let mut found = here.store.changes(position.given, AT_ONCE)?;
            if found.store != position.ours {
                position.ours = found.store;
                if position.given != 0 {
                    position.given = 0;
                    continue;
                }
            }
            if found.changes.is_empty() {
                return Ok(());
            }
            found.changes.retain(|change| !change.is_shared);
            if !found.changes.is_empty() {
                self.table.add(&found.changes).map_err(anyhow::Error::msg)?;
                here.counts.sent.add(found.changes.len() as u64);
            }
            position.given = found.last;
            if here.is_over() {
                return Ok(());
            }
        }
    }

    fn take(&self, here: &Here<'_>, position: &mut Position, late: i64) -> anyhow::Result<()> {
        let begin = (position.taken - late).max(0);
        let mut place = Place::at(u32::try_from(begin)?);
        loop {
            let rows = self.table.after(&place).map_err(anyhow::Error::msg)?;
            let Some(last) = rows.last else {
                return Ok(());
            };
            here.take(rows.revisions, true)?;
            position.taken = position.taken.max(i64::from(last.second()));
            place = last;
            if here.is_over() {
                return Ok(());
            }
        }
    }
}

impl End for Shared {
    fn name(&self) -> String {
        self.table.name()
    }

    fn round(&mut self, here: &Here<'_>, position: &mut Position) -> anyhow::Result<()> {
        let is_wide = self.rounds.is_multiple_of(WIDE_EVERY);
        self.rounds += 1;
        // Whether or not its own changes get there, those of others are taken.
        let given = self.give(here, position);
        self.take(here, position, if is_wide { VERY_LATE } else { LATE })?;
        given
    }
}
