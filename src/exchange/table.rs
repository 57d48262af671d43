//! The table of ClickHouse that several servers share: each writes its changes, and reads those of the others.
//!
//! If the last row that was read is not there any more, the table was emptied or recreated: each server writes what it
//! has and the table lacks. Rows that several of them write are the same.

use std::collections::HashMap;

use clickhouse::{Arrived, EventsTable, Place};
use render::events::{Mark, Revision, There};

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
            self.add(here, found.changes)?;
            position.given = found.last;
            if here.is_over() {
                return Ok(());
            }
        }
    }

    /// Takes the rows that arrived after the last one, and `late` seconds before it. Whether the last one is still there:
    /// if not, the table has lost rows.
    fn take(&self, here: &Here<'_>, position: &mut Position, late: i64) -> anyhow::Result<bool> {
        let before = position.last.clone();
        let mut has_last = before.is_empty();
        let begin = (position.taken - late).max(0);
        let mut place = Place::at(u32::try_from(begin)?);
        loop {
            let rows = self.after(here, place)?;
            let Some(last) = rows.last else {
                position.meet();
                return Ok(has_last);
            };
            // Or a newer one of the same event.
            has_last |= rows.revisions.iter().any(|row| row.mark.uid == before);
            if let Some(newest) = rows.revisions.last() {
                position.last.clone_from(&newest.mark.uid);
            }
            here.take(rows.revisions, true)?;
            position.taken = position.taken.max(i64::from(last.second()));
            place = last;
            if here.is_over() {
                // What has not been read yet is not missed.
                return Ok(true);
            }
        }
    }

    /// Reads the whole table and writes what it lacks. If `is_stale`, what was given to it and is not there any more is
    /// forgotten here first; an empty table says nothing of what was deleted.
    fn compare(
        &self,
        here: &Here<'_>,
        position: &mut Position,
        is_stale: bool,
    ) -> anyhow::Result<()> {
        let mut versions = HashMap::new();
        let mut place = Place::at(0);
        loop {
            let rows = self.after(here, place)?;
            let Some(last) = rows.last else { break };
            for Mark { uid, version, .. } in rows.revisions.iter().map(|row| &row.mark) {
                let known = versions.entry(uid.clone()).or_default();
                *known = (*version).max(*known);
                position.last.clone_from(uid);
            }
            here.take(rows.revisions, true)?;
            position.taken = i64::from(last.second());
            place = last;
        }
        if is_stale && !versions.is_empty() {
            let there = There {
                known: versions.keys().cloned().collect(),
                given: position.given,
                is_table: true,
                kept_from: 0.0,
            };
            here.forget_absent(&self.table.name(), there)?;
        }
        let lacks = |mark: &Mark| {
            versions
                .get(&mark.uid)
                .is_none_or(|has| *has < mark.version)
        };
        let mut after = 0;
        let mut n_written = 0;
        loop {
            let mut found = here.store.changes(after, AT_ONCE)?;
            if found.changes.is_empty() {
                break;
            }
            found.changes.retain(|change| lacks(&change.mark));
            n_written += found.changes.len();
            self.add(here, found.changes)?;
            after = found.last;
            (position.ours, position.given) = (found.store, found.last);
        }
        if n_written > 0 {
            let name = self.table.name();
            tracing::info!(
                "{name} lacked {n_written} changes of events that are here: written again"
            );
        }
        if versions.is_empty() {
            // What was written is read from the beginning.
            (position.taken, position.last) = (0, String::new());
        }
        Ok(())
    }

    fn after(&self, here: &Here<'_>, place: Place) -> anyhow::Result<Arrived> {
        let table = self.table.clone();
        here.ask(move |budget| table.after(&place, budget).map_err(anyhow::Error::msg))
    }

    fn add(&self, here: &Here<'_>, changes: Vec<Revision>) -> anyhow::Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let (table, n_changes) = (self.table.clone(), changes.len());
        here.ask(move |_| table.add(&changes).map_err(anyhow::Error::msg))?;
        here.counts.sent.add(n_changes as u64);
        Ok(())
    }
}

impl End for Shared {
    fn name(&self) -> String {
        self.table.name()
    }

    fn round(&mut self, here: &Here<'_>, position: &mut Position) -> anyhow::Result<()> {
        if position.is_stale() {
            self.compare(here, position, true)?;
            position.meet();
        }
        let is_wide = self.rounds.is_multiple_of(WIDE_EVERY);
        self.rounds += 1;
        // Whether or not its own changes get there, those of others are taken.
        let given = self.give(here, position);
        let has_last = self.take(here, position, if is_wide { VERY_LATE } else { LATE })?;
        given?;
        if !has_last {
            self.compare(here, position, false)?;
        }
        Ok(())
    }
}
