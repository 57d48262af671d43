//! Removes series: from tree, tags and log first, and frees their names and ids afterwards.

use std::collections::HashSet;

use super::log::Record;
use super::state::{Flags, Index};
use super::tags::Tags;
use crate::datapoint::SeriesId;
use crate::error::Result;
use crate::series::{self, Names};

/// Names that are checked, unlinked or freed under one lock of the names.
const RECLAIMED_AT_ONCE: usize = 1_024;

impl Index {
    /// The listed series that have a file.
    pub(crate) fn stored_series(&self) -> Vec<SeriesId> {
        let names = self.names();
        let tree = self.tree.read();
        let tags = self.tags.read();
        let flags = self.flags.read();
        let mut ids = tree.series();
        let tagged = tags.all().iter().map(SeriesId);
        ids.extend(tagged.filter(|id| series::is_tagged(names.name(*id))));
        ids.retain(|id| flags.stored.get(id.0) || flags.unhashed.contains(&id.0));
        ids
    }

    /// Removes a series, whose file was deleted because it expired, from tree, tags and log. If it has
    /// points again (`busy`), it is listed again.
    ///
    /// # Errors
    /// The log cannot be written. The series is removed all the same, and the next walk confirms it.
    pub(crate) fn expire(&self, id: SeriesId, busy: impl Fn(SeriesId) -> bool) -> Result<()> {
        {
            let names = self.names();
            let name = names.name(id);
            let mut tree = self.tree.write();
            let mut tags = self.tags.write();
            let mut flags = self.flags.write();
            flags.stored.clear(id.0);
            flags.unhashed.remove(&id.0);
            let was_listed = flags.listed.get(id.0);
            flags.listed.clear(id.0);
            if was_listed && !series::is_tagged(name) {
                tree.remove(&names, id);
            }
            if tags.expire(id, name) {
                self.log.append(Record::Untagged, name.as_bytes());
            }
            self.log.append(Record::Gone, name.as_bytes());
        }
        // A point that arrived before the series was taken off the list found it listed.
        if busy(id) {
            self.list(&[id]);
        }
        self.write_log()
    }

    /// Frees names and ids that no part of the program uses, and returns how many. Names that have become
    /// unused since the last call are unlinked now and freed by a later call. `busy` returns whether the
    /// cache has points of a series, including those that the persister has taken. `freed` is called with
    /// ids before they may be assigned to other names; `forget_reused` shortens the list of ids that were
    /// assigned again, after everything that needs the list has read it.
    pub(crate) fn reclaim(
        &self,
        busy: impl Fn(SeriesId) -> bool,
        mut freed: impl FnMut(&[SeriesId]),
        forget_reused: impl FnOnce(&mut Vec<u32>),
    ) -> usize {
        let mut count = 0;
        // Names that an earlier call unlinked, if their grace is over.
        let mut waiting = self.unlinked.lock();
        if !waiting.is_empty() {
            if !self.grace.is_over() {
                return 0;
            }
            let mut still = Vec::new();
            for ids in waiting.chunks(RECLAIMED_AT_ONCE) {
                let mut going: Vec<SeriesId> = Vec::with_capacity(ids.len());
                for id in ids.iter().filter(|id| self.names().is_unlinked(**id)) {
                    if busy(*id) {
                        still.push(*id);
                    } else {
                        going.push(*id);
                    }
                }
                // No names are locked here, because the journal locks names while it is locked
                // itself. No lookup can return these ids meanwhile.
                freed(&going);
                let mut names = self.names.write();
                let mut flags = self.flags.write();
                for id in &going {
                    flags.stored.clear(id.0);
                    flags.listed.clear(id.0);
                    flags.unhashed.remove(&id.0);
                    names.free(*id);
                }
                count += going.len();
            }
            *waiting = still;
            let mut names = self.names.write();
            forget_reused(names.reused());
            names.give_back();
        }
        // Names that are unused now, for a later call.
        self.unlink_unused(&mut waiting);
        if !waiting.is_empty() {
            self.grace.advance();
        }
        count
    }

    /// Unlinks names of series that are not listed and have neither a file nor a holder.
    fn unlink_unused(&self, unlinked: &mut Vec<SeriesId>) {
        let end = self.names().end() as u32;
        let mut from = 0;
        while from < end {
            let until = end.min(from.saturating_add(RECLAIMED_AT_ONCE as u32 * 16));
            let candidates: Vec<SeriesId> = {
                let names = self.names();
                let tags = self.tags.read();
                let flags = self.flags.read();
                let held = self.held();
                (from..until)
                    .map(SeriesId)
                    .filter(|id| is_unused(*id, &names, &tags, &flags, &held))
                    .collect()
            };
            for ids in candidates.chunks(RECLAIMED_AT_ONCE) {
                let mut names = self.names.write();
                let tags = self.tags.read();
                let flags = self.flags.read();
                let held = self.held();
                let mut limits = self.limits();
                for id in ids {
                    if is_unused(*id, &names, &tags, &flags, &held) {
                        limits.removed(names.name(*id));
                        names.unlink(*id);
                        unlinked.push(*id);
                    }
                }
            }
            from = until;
        }
        if !unlinked.is_empty() {
            let mut names = self.names.write();
            let gone: HashSet<SeriesId> = unlinked.iter().copied().collect();
            names.forget_aliases(|id| gone.contains(&id));
        }
    }
}

/// Whether the index itself has no use for the name of `id`.
fn is_unused(id: SeriesId, names: &Names, tags: &Tags, flags: &Flags, held: &[u32]) -> bool {
    !flags.listed.get(id.0)
        && !flags.stored.get(id.0)
        && !tags.contains(id)
        && held.get(id.0 as usize).is_none_or(|count| *count == 0)
        && names.is_linked(id)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn names_that_come_and_go_take_no_more_memory_each_time() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("names");
        let index = Index::open(dir.path(), log.clone(), false).unwrap();
        let mut sizes = Vec::new();
        let mut ends = Vec::new();
        let mut going: Vec<SeriesId> = Vec::new();
        for round in 0..8 {
            let mut next = Vec::new();
            // 20,000 series, of which every tenth stays for good; one in four is tagged, and one
            // in two has an alias.
            for n in 0..20_000 {
                let stays = n % 10 == 0;
                let age = if stays { 0 } else { round };
                let dots = [".", ".."][n % 2];
                let tag = match n % 4 {
                    3 => format!(";tag=value{age}"),
                    _ => String::new(),
                };
                let name = format!("{}{dots}m{n}.{age}{tag}", "long".repeat(25));
                let id = index.admit(name.as_bytes()).unwrap();
                index.list(&[id]);
                index.stored(id);
                if !stays {
                    next.push(id);
                }
            }
            for id in going.drain(..) {
                index.expire(id, |_| false).unwrap();
            }
            going = next;
            for _ in 0..2 {
                index.reclaim(|_| false, |_| {}, Vec::clear);
            }
            index.compact(1_000).unwrap();
            assert_eq!(index.len(), 20_000);
            sizes.push(index.size_bytes());
            ends.push((index.names().end(), fs::metadata(&log).unwrap().len()));
        }
        assert!(sizes[7] <= sizes[2] + sizes[2] / 10, "{sizes:?}");
        assert_eq!(ends[7].0, ends[2].0, "{ends:?}");
        assert!(ends[7].1 < ends[2].1 * 2, "{ends:?}");
        let pattern = format!("{}.*.*", "long".repeat(25));
        let found = index.find(&pattern).unwrap();
        assert_eq!(found.len(), 15_000);
        let tagged = index.find_tagged(&["tag=~value.*"]).unwrap();
        assert_eq!(tagged.len(), 5_000);
        // The value of those that stay, if any does, and that of the last round.
        assert!(index.values("tag").unwrap().1.len() <= 2);
        drop(index);
        let index = Index::open(dir.path(), log, false).unwrap();
        assert_eq!(index.find(&pattern).unwrap(), found);
        assert_eq!(index.find_tagged(&["tag=~value.*"]).unwrap(), tagged);
    }
}
