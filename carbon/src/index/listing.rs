//! Which series are listed, have a file, or are registered by their tags.

use super::log::Record;
use super::state::Index;
use crate::datapoint::SeriesId;
use crate::error::{Error, Result};
use crate::series;

impl Index {
    /// Lists the series that are not listed: they have datapoints now.
    pub(crate) fn list(&self, ids: &[SeriesId]) {
        let mut unlisted: Vec<SeriesId> = {
            let flags = self.flags.read();
            ids.iter()
                .filter(|id| !flags.listed.get(id.0))
                .copied()
                .collect()
        };
        if unlisted.is_empty() {
            return;
        }
        let mut names = self.names();
        while let Some(at) = unlisted.iter().position(|id| names.is_unlinked(*id)) {
            drop(names);
            unlisted[at] = self.relink(unlisted[at]);
            names = self.names();
        }
        let mut tree = self.tree.write();
        let mut tags = self.tags.write();
        let mut flags = self.flags.write();
        for id in unlisted {
            if flags.listed.set(id.0) {
                let name = names.name(id);
                if series::is_tagged(name) {
                    tags.insert(id, name);
                    // Kept, so that what was deleted and came back does not go again at the next
                    // start. What cannot be written is found again through journal and disk.
                    if let Err(error) = self.log().append(Record::Tagged, name.as_bytes()) {
                        tracing::warn!(%error, "the index could not be written");
                    }
                } else {
                    tree.insert(&names, id);
                }
            }
        }
    }

    /// The id that the name of an unlinked `id` has, `id` itself if it has none.
    fn relink(&self, id: SeriesId) -> SeriesId {
        let mut names = self.names.write();
        let before = names.is_unlinked(id);
        let linked = names.relink(id);
        if before && linked == id {
            self.limits().added(names.name(id));
        }
        linked
    }

    /// The file of `id` is there.
    pub(crate) fn stored(&self, id: SeriesId) -> Result<()> {
        let names = self.names();
        // Written under an id that is unlinked: the file is that of the id its name has now.
        let id = match names.is_unlinked(id) {
            true => names.get(names.name(id).as_bytes()).unwrap_or(id),
            false => id,
        };
        let new = {
            let mut flags = self.flags.write();
            !flags.unhashed.contains(&id.0) && flags.stored.set(id.0)
        };
        if new {
            self.log().append(Record::Stored, names.name_bytes(id.0))?;
        }
        Ok(())
    }

    /// Lists the series called `name` as one that has a file.
    ///
    /// # Errors
    /// No series can be called so, or the disk.
    pub fn note_stored(&self, name: &[u8]) -> Result<()> {
        let _pin = self.pin();
        let id = self.intern(name).map_err(|reason| Error::Name {
            name: String::from_utf8_lossy(name).into_owned(),
            reason,
        })?;
        self.list(&[id]);
        self.stored(id)
    }

    /// The file of `id` is not there, whatever was thought.
    pub(crate) fn not_stored(&self, id: SeriesId) {
        let mut flags = self.flags.write();
        flags.stored.clear(id.0);
        flags.unhashed.remove(&id.0);
    }

    /// Puts a series into the tag index; its canonical name. On disk when this returns, unless
    /// the index is read-only.
    ///
    /// # Errors
    /// A malformed name, or the disk.
    pub fn register(&self, path: &str) -> Result<String> {
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
        let name = names.name(id);
        let new = {
            let mut tags = self.tags.write();
            let new = !tags.contains(id);
            if new {
                tags.insert(id, name);
                if series::is_tagged(name) {
                    self.flags.write().listed.set(id.0);
                }
            }
            new
        };
        if new {
            let mut log = self.log();
            log.append(Record::Tagged, name.as_bytes())?;
            log.sync()?;
        }
        Ok(name.to_owned())
    }

    /// Takes a series out of the tag index; new data or a registration brings it back.
    ///
    /// # Errors
    /// The disk.
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
            let removed = tags.remove(id, names.name(id));
            if removed && series::is_tagged(names.name(id)) {
                self.flags.write().listed.clear(id.0);
            }
            removed
        };
        if removed {
            let mut log = self.log();
            log.append(Record::Untagged, names.name_bytes(id.0))?;
            log.sync()?;
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
