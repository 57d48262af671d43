//! Hashed files of tagged series that appear while the server runs.
//!
//! 1. A file that belongs to no known series is counted ([`Index::nameless`]) and listed by its hash, as
//!    the walk at the start does. A file of a known series is recorded as that of the series.
//! 2. A series cannot be computed from its hash, and the hashes of all tagged series would take more
//!    memory than their names. So hashes of new files wait (`waiting`), and
//!    [`Index::name_hashed`] computes the hash of each tagged series once for many of them.
//! 3. Files that the server itself creates do not wait: [`Index::stored`] announces them, or removes them
//!    from those that wait.

use std::sync::atomic::Ordering;

use super::bits::Bits;
use super::hashes::{HASH, hash_of, hash_of_series, is_hashed, tree_path_of};
use super::state::Index;
use crate::datapoint::SeriesId;
use crate::error::Result;
use crate::series;

/// Most hashes that wait. Files beyond are counted at the next start.
const MOST_WAITING: usize = 1 << 18;
/// Most announced files whose appearance was not seen, as in directories without a watch.
const MOST_OWN: usize = 1 << 16;
/// Names that are looked at while receivers wait for new ones.
const AT_ONCE: usize = 1_024;

impl Index {
    /// The server has created the file of the tagged series `name`.
    pub(super) fn announce_hashed(&self, name: &str) {
        let Some(hash) = hash_of_series(name) else {
            return;
        };
        let mut hashed = self.hashed.lock();
        if !hashed.waiting.remove(&hash) {
            if hashed.own.len() >= MOST_OWN {
                hashed.own.clear();
            }
            hashed.own.insert(hash);
        }
    }

    /// The hashed file `stem`.wsp is in the directory of `prefix`.
    pub(super) fn hashed_came(&self, prefix: &str, stem: &str) {
        if !is_hashed(prefix, stem) || self.is_stored_leaf(&[prefix, stem].concat()) {
            return;
        }
        let Some(hash) = hash_of(stem) else {
            return;
        };
        let mut hashed = self.hashed.lock();
        if !hashed.own.remove(&hash) && hashed.waiting.len() < MOST_WAITING {
            hashed.waiting.insert(hash);
        }
    }

    /// Whether a file of that path in the tree of names is listed.
    fn is_stored_leaf(&self, path: &str) -> bool {
        let id = self.names().get(path.as_bytes());
        id.is_some_and(|id| self.flags.read().stored.get(id.0))
    }

    /// Whether there are hashed files that [`Index::name_hashed`] has not looked at.
    pub(crate) fn has_hashed_waiting(&self) -> bool {
        !self.hashed.lock().waiting.is_empty()
    }

    /// Finds the series of the hashed files that have appeared. Files without a known series are listed by
    /// their hashes; returns how many these are.
    ///
    /// # Errors
    /// The log cannot be written.
    pub(crate) fn name_hashed(&self) -> Result<usize> {
        let _walk = self.no_walk();
        let mut waiting = std::mem::take(&mut self.hashed.lock().waiting);
        let _pin = self.pin();
        let ids: Vec<u32> = self.tags.read().all().iter().collect();
        let mut known = Vec::new();
        for ids in ids.chunks(AT_ONCE) {
            let names = self.names();
            for id in ids {
                let name = names.name(SeriesId(*id));
                if series::is_tagged(name)
                    && hash_of_series(name).is_some_and(|hash| waiting.remove(&hash))
                {
                    known.push(SeriesId(*id));
                }
            }
        }
        self.found_named(&known);
        let is_there = |path: &String| self.root.join(path.replace('.', "/") + ".wsp").exists();
        let paths = waiting.iter().map(tree_path_of);
        let mut found: Vec<String> = paths.filter(is_there).collect();
        let new = self.found_on_disk(&mut found, &mut Bits::default())?;
        self.nameless.fetch_add(new, Ordering::Relaxed);
        Ok(new)
    }

    /// The listed file of that path in the tree of names is gone.
    pub(super) fn leaf_went(&self, path: &str) {
        let prefix = path.len().saturating_sub(HASH);
        let split = path.is_char_boundary(prefix).then(|| path.split_at(prefix));
        if split.is_some_and(|(prefix, stem)| is_hashed(prefix, stem)) {
            self.one_less_nameless();
        }
    }

    /// A hashed file is no longer without a name.
    pub(super) fn one_less_nameless(&self) {
        let less = |count: usize| Some(count.saturating_sub(1));
        let _ = self
            .nameless
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_of_unknown_series_are_counted_and_those_of_known_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("whisper");
        let index = Index::open(&root, dir.path().join("names"), false).unwrap();
        let came = |name: &str| {
            let path = series::tree_path(name);
            let file = root.join(path.replace('.', "/") + ".wsp");
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, b"").unwrap();
            let (prefix, stem) = path.split_at(path.len() - HASH);
            index.file_changed(prefix, stem, |_| false).unwrap();
            file
        };
        // Announced before it is seen, after it is seen, and not at all, as a file of another program.
        for (name, after) in [("own;a=1", false), ("own;a=2", true)] {
            let id = index.admit(name.as_bytes()).unwrap();
            if after {
                came(name);
                assert!(index.has_hashed_waiting());
            }
            index.stored(id);
            if !after {
                came(name);
            }
            assert!(!index.has_hashed_waiting(), "{name}");
        }
        let copied = index.admit(b"copied;a=1").unwrap();
        index.list(&[copied]);
        came("copied;a=1");
        let foreign = came("foreign;a=1");
        came("foreign;a=2");
        assert_eq!(index.name_hashed().unwrap(), 2);
        assert_eq!(index.nameless(), 2);
        assert!(index.path(copied, &mut std::path::PathBuf::new()));
        assert!(!index.has_hashed_waiting());
        // Seen again, deleted, named.
        came("foreign;a=2");
        assert!(!index.has_hashed_waiting());
        fs::remove_file(&foreign).unwrap();
        let path = series::tree_path("foreign;a=1");
        let (prefix, stem) = path.split_at(path.len() - HASH);
        index.file_changed(prefix, stem, |_| false).unwrap();
        assert_eq!(index.nameless(), 1);
        index.import(&["foreign;a=2".to_owned()]).unwrap();
        assert_eq!(index.nameless(), 0);
    }
}
