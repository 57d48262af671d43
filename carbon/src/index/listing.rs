//! Which series are listed, and which have a file. Nothing here waits for the disk.

use super::log::Record;
use super::state::Index;
use crate::datapoint::SeriesId;
use crate::series;

impl Index {
    /// Lists those of the series that are not listed: they have datapoints now.
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
        let mut tagged = Vec::new();
        let mut tree = self.tree.write();
        let mut tags = self.tags.write();
        let mut flags = self.flags.write();
        for id in unlisted {
            if flags.listed.set(id.0) {
                let name = names.name(id);
                if series::is_tagged(name) {
                    tags.insert(id, name);
                    tagged.push(id);
                    // Kept, so that a series that was deleted and came back does not go again at the
                    // next start. If it cannot be written, the journal or the disk brings it back.
                    self.log.append(Record::Tagged, name.as_bytes());
                } else {
                    tree.insert(&names, id);
                }
            }
        }
        drop((tree, tags, flags));
        self.adopt(&names, &tagged);
    }

    /// The present id of the name of an unlinked `id`, which is linked again if the name has no other.
    fn relink(&self, id: SeriesId) -> SeriesId {
        let mut names = self.names.write();
        let before = names.is_unlinked(id);
        let linked = names.relink(id);
        if before && linked == id {
            self.limits().added(names.name(id));
        }
        linked
    }

    /// Records that the file of `id` exists.
    pub(crate) fn stored(&self, id: SeriesId) {
        let names = self.names();
        // The points had an unlinked id: the file belongs to the present id of the name.
        let id = match names.is_unlinked(id) {
            true => names.get(names.name(id).as_bytes()).unwrap_or(id),
            false => id,
        };
        let new = {
            let mut flags = self.flags.write();
            !flags.unhashed.contains(&id.0) && flags.stored.set(id.0)
        };
        if new {
            self.log.append(Record::Stored, names.name_bytes(id.0));
            if series::is_tagged(names.name(id)) {
                self.announce_hashed(names.name(id));
            }
        }
    }

    /// Records that the file of `id` does not exist.
    pub(crate) fn not_stored(&self, id: SeriesId) {
        let mut flags = self.flags.write();
        flags.stored.clear(id.0);
        flags.unhashed.remove(&id.0);
    }
}
