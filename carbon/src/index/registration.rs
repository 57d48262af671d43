//! Series that are added and removed by clients and tools: registrations by tags, files.

use super::log::Record;
use super::state::Index;
use crate::error::{Error, Result};
use crate::series;

impl Index {
    /// Lists the series called `name` as one that has a file.
    ///
    /// # Errors
    /// No series can have the name, or the disk failed.
    pub fn note_stored(&self, name: &[u8]) -> Result<()> {
        let _pin = self.pin();
        let id = self.intern(name).map_err(|reason| Error::Name {
            name: String::from_utf8_lossy(name).into_owned(),
            reason,
        })?;
        self.list(&[id]);
        self.stored(id);
        self.write_log()
    }

    /// Adds a series to the tag index and returns its canonical name. The registration is on disk when
    /// this returns, unless the index is read-only.
    ///
    /// # Errors
    /// The name is malformed or over a limit, or the disk failed.
    pub fn register(&self, path: &str) -> Result<String> {
        let (name, new) = self.register_unsynced(path)?;
        if new {
            self.log.sync()?;
        }
        Ok(name)
    }

    /// As [`Index::register`], without the sync; and whether the series is new.
    pub(super) fn register_unsynced(&self, path: &str) -> Result<(String, bool)> {
        let _pin = self.pin();
        let refuse = |reason| Error::Name {
            name: path.to_owned(),
            reason,
        };
        let (names, id) = loop {
            let id = self.admit(path.as_bytes()).map_err(refuse)?;
            let names = self.names();
            if !names.is_unlinked(id) {
                break (names, id);
            }
        };
        let name = names.name(id).to_owned();
        let new = {
            let mut tags = self.tags.write();
            let new = !tags.contains(id);
            if new {
                tags.insert(id, &name);
                if series::is_tagged(&name) {
                    self.flags.write().listed.set(id.0);
                }
                self.log.append(Record::Tagged, name.as_bytes());
            }
            new
        };
        if new {
            self.adopt(&names, &[id]);
        }
        Ok((name, new))
    }

    /// Removes a series from the tag index. A new datapoint or registration adds it again.
    ///
    /// # Errors
    /// The disk failed.
    pub fn unregister(&self, path: &str) -> Result<()> {
        let names = self.names();
        let Ok(canonical) = series::canonical(path.as_bytes()) else {
            return Ok(());
        };
        let Some(id) = names.get(canonical.as_bytes()) else {
            return Ok(());
        };
        let removed = {
            let mut tags = self.tags.write();
            let name = names.name(id);
            let removed = tags.remove(id, name);
            if removed {
                if series::is_tagged(name) {
                    self.flags.write().listed.clear(id.0);
                }
                self.log.append(Record::Untagged, name.as_bytes());
            }
            removed
        };
        // Receivers lock the names: they must not wait for the disk.
        drop(names);
        if removed {
            self.log.sync()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::search::paths;
    use super::*;

    #[test]
    fn registrations_and_deletions_are_kept_and_data_revives() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("names");
        let open = || Index::open(dir.path(), log.clone(), false).unwrap();
        let index = open();
        assert_eq!(index.register("m;b=2;a=1").unwrap(), "m;a=1;b=2");
        assert_eq!(index.register("plain").unwrap(), "plain");
        assert!(index.register("x;").is_err());
        drop(index);
        let index = open();
        assert_eq!(
            index.find_tagged(&["name=~.+"]).unwrap(),
            ["m;a=1;b=2", "plain"]
        );
        index.unregister("m;a=1;b=2").unwrap();
        index.unregister("never.seen").unwrap();
        drop(index);
        let index = open();
        assert_eq!(index.find_tagged(&["name=~.+"]).unwrap(), ["plain"]);
        let id = index.intern(b"m;a=1;b=2").unwrap();
        index.list(&[id]);
        assert_eq!(index.find_tagged(&["a=1"]).unwrap(), ["m;a=1;b=2"]);
        assert_eq!(paths(&index, "m;b=2;a=1"), ["m;a=1;b=2"]);
        assert!(paths(&index, "no;b=2").is_empty());
    }
}
