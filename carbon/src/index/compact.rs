//! Rewrites the log of the index without its obsolete records.

use super::log::Record;
use super::state::Index;
use crate::datapoint::SeriesId;
use crate::error::Result;

/// Series whose records are copied to a new log while the index is locked for reading.
const COPIED_AT_ONCE: usize = 4_096;

impl Index {
    /// As [`Index::sync`], but rewrites the log if more than a quarter of it plus `slack` records are
    /// obsolete. Lookups and new names go on meanwhile: their records are written behind the others.
    ///
    /// # Errors
    /// The disk failed. The log stays as it was.
    pub(crate) fn compact(&self, slack: usize) -> Result<()> {
        let listed = self.len();
        if self.log.records() <= listed + listed / 4 + slack {
            return self.log.sync();
        }
        self.log.begin_copy();
        let copied = self.copy_log();
        if copied.is_err() {
            self.log.drop_copy();
        }
        copied
    }

    fn copy_log(&self) -> Result<()> {
        // In the order of the tree, neighbours share most of their names and records are short.
        let (mut plain, registered) = {
            let tree = self.tree.read();
            let tags = self.tags.read();
            (tree.series(), tags.all().clone())
        };
        plain.retain(|id| !registered.contains(id.0));
        let mut copy = self.log.copy()?;
        let ids: Vec<SeriesId> = plain
            .into_iter()
            .chain(registered.iter().map(SeriesId))
            .collect();
        for ids in ids.chunks(COPIED_AT_ONCE) {
            let names = self.names();
            let tags = self.tags.read();
            let flags = self.flags.read();
            for id in ids {
                // The records of series that were removed since are in the log's tail.
                let name = names.name(*id).as_bytes();
                if flags.stored.get(id.0) {
                    copy.append(Record::Stored, name)?;
                }
                if tags.contains(*id) {
                    copy.append(Record::Tagged, name)?;
                }
            }
        }
        copy.sync()?;
        self.log.replace(copy)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::search::paths;
    use super::*;

    #[test]
    fn what_changes_while_the_log_is_copied_is_in_the_copy() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("names");
        let index = Index::open(dir.path(), log.clone(), false).unwrap();
        let note = |name: &str| index.note_stored(name.as_bytes()).unwrap();
        note("a.one");
        note("b.two");
        index.log.begin_copy();
        note("c.three");
        index
            .expire(index.intern(b"a.one").unwrap(), |_| false)
            .unwrap();
        index.register("m;x=y").unwrap();
        index.copy_log().unwrap();
        note("d.four");
        index.sync().unwrap();
        drop(index);
        let index = Index::open(dir.path(), log, false).unwrap();
        assert_eq!(paths(&index, "*.*"), ["b.two", "c.three", "d.four"]);
        assert_eq!(index.find_tagged(&["x=y"]).unwrap(), ["m;x=y"]);
    }

    #[test]
    fn closing_rewrites_a_worn_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("names");
        let index = Index::open(dir.path(), log.clone(), false).unwrap();
        for round in 0..20 {
            index.register("m;a=1").unwrap();
            if round < 19 {
                index.unregister("m;a=1").unwrap();
            }
        }
        let id = index.intern(b"plain.name").unwrap();
        index.list(&[id]);
        index.stored(id);
        let worn = fs::metadata(&log).unwrap().len();
        index.compact(0).unwrap();
        assert!(fs::metadata(&log).unwrap().len() < worn);
        drop(index);
        let index = Index::open(dir.path(), log, false).unwrap();
        assert_eq!(paths(&index, "plain.*"), ["plain.name"]);
        assert_eq!(index.find_tagged(&["a=1"]).unwrap(), ["m;a=1"]);
    }
}
