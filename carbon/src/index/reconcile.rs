//! Walks the disk and corrects the index.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::bits::Bits;
use super::log::Record;
use super::state::Index;
use super::{hashes, tagged};
use crate::datapoint::SeriesId;
use crate::error::Result;

/// Names of files that are listed together.
const LISTED_AT_ONCE: usize = 10_000;

/// The changes made by a walk over the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Files that the index did not know.
    pub added: usize,
    /// Series whose file no longer exists.
    pub removed: usize,
    /// Incomplete files of a killed process, which were deleted.
    pub leftovers: usize,
    /// Directories that could not be read. If there are any, no series is removed.
    pub unreadable: usize,
}

impl Reconciled {
    /// Counts a directory that cannot be read, and logs the first one.
    fn skip(&mut self, directory: &Path, error: &std::io::Error) {
        self.unreadable += 1;
        if self.unreadable == 1 {
            let directory = directory.display();
            tracing::warn!(
                "{directory} cannot be read, what is below it is not looked at: {error}"
            );
        }
    }
}

impl Index {
    /// Walks the disk and corrects the index. A series for which `busy` returns true has datapoints that
    /// are not in its file yet: it stays, with or without a file. `stop` is called for each directory. A
    /// walk that is stopped, or that cannot read a directory, removes no series. Links to directories are
    /// followed, each directory once.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn reconcile(
        &self,
        busy: impl Fn(SeriesId) -> bool,
        stop: impl Fn() -> bool,
    ) -> Result<Reconciled> {
        let _walk = self.no_walk();
        let mut report = Reconciled::default();
        let mut seen = Bits::default();
        let mut walk = Walk {
            hashes: self.hashes(),
            named: Vec::new(),
            unhashed: Vec::new(),
            nameless: 0,
            followed: HashSet::new(),
            todo: vec![(self.root.clone(), String::new())],
            found: Vec::new(),
        };
        while let Some((directory, prefix)) = walk.todo.pop() {
            if stop() {
                report.added += self.found_on_disk(&mut walk.found, &mut seen)?;
                return Ok(report);
            }
            walk.read(&directory, &prefix, &mut report);
            if walk.found.len() > LISTED_AT_ONCE {
                report.added += self.found_on_disk(&mut walk.found, &mut seen)?;
            }
        }
        report.added += self.found_on_disk(&mut walk.found, &mut seen)?;
        report.added += self.found_named(&walk.named);
        for name in &walk.unhashed {
            report.added += usize::from(self.found_unhashed(name));
        }
        // A series below a directory that cannot be read may have its file.
        if report.unreadable == 0 {
            report.removed = self.drop_unseen(&seen, busy);
        }
        self.nameless.store(walk.nameless, Ordering::Relaxed);
        self.sync()?;
        Ok(report)
    }

    /// Lists the series of the files that were found, and returns how many are new.
    pub(super) fn found_on_disk(&self, batch: &mut Vec<String>, seen: &mut Bits) -> Result<usize> {
        let _pin = self.pin();
        batch.sort_unstable();
        let mut ids = Vec::with_capacity(batch.len());
        {
            let mut names = self.names.write();
            for name in batch.drain(..) {
                if let Ok(id) = self.add(&mut names, name.as_bytes()) {
                    seen.set(id.0);
                    ids.push(id);
                }
            }
        }
        self.list(&ids);
        let mut new = 0;
        {
            let names = self.names();
            for id in ids {
                if self.flags.write().stored.set(id.0) {
                    new += 1;
                    self.log.append(Record::Stored, names.name_bytes(id.0));
                }
            }
        }
        self.write_log()?;
        Ok(new)
    }

    /// Takes series off the list whose file was not seen and does not exist, and returns how many.
    fn drop_unseen(&self, seen: &Bits, busy: impl Fn(SeriesId) -> bool) -> usize {
        let _pin = self.pin();
        let suspects: Vec<SeriesId> = {
            let tree = self.tree.read();
            let flags = self.flags.read();
            tree.series()
                .into_iter()
                .filter(|id| flags.stored.get(id.0) && !seen.get(id.0))
                .collect()
        };
        self.drop_missing(suspects, busy)
    }

    /// Records that tagged series have their hashed files, and returns how many were thought not to.
    pub(super) fn found_named(&self, ids: &[SeriesId]) -> usize {
        let names = self.names();
        let mut new = 0;
        for id in ids {
            if self.flags.write().stored.set(id.0) {
                new += 1;
                self.log.append(Record::Stored, names.name_bytes(id.0));
            }
        }
        new
    }
}

/// The state of a walk over the disk.
struct Walk {
    /// Known tagged series by the paths of their hashed files, which are not plain leaves.
    hashes: HashMap<String, SeriesId>,
    /// Those whose file was found.
    named: Vec<SeriesId>,
    /// Tagged series whose file holds their name.
    unhashed: Vec<String>,
    /// Hashed files whose series is not known.
    nameless: usize,
    /// Directories that links have led to, by device and inode.
    followed: HashSet<(u64, u64)>,
    /// Directories that are still to be read, each with the prefix of the names below it.
    todo: Vec<(PathBuf, String)>,
    /// Names of files that were found and are not listed yet.
    found: Vec<String>,
}

impl Walk {
    /// Reads one directory, whose entries have names that begin with `prefix`.
    fn read(&mut self, directory: &Path, prefix: &str, report: &mut Reconciled) {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            // It was deleted meanwhile, or does not exist yet.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => return report.skip(directory, &error),
        };
        for entry in entries {
            match entry {
                Ok(entry) => self.entry(&entry, prefix, report),
                Err(error) => return report.skip(directory, &error),
            }
        }
    }

    fn entry(&mut self, entry: &DirEntry, prefix: &str, report: &mut Reconciled) {
        let file_name = entry.file_name();
        let (Some(file_name), Ok(kind)) = (file_name.to_str(), entry.file_type()) else {
            return;
        };
        // A link counts as its target, as in graphite-web.
        let (is_dir, is_file) = if kind.is_symlink() {
            let target = fs::metadata(entry.path());
            target.map_or((false, false), |m| {
                // A link may lead to a directory above it: each target is read once.
                let is_new = m.is_dir() && self.followed.insert((m.dev(), m.ino()));
                (is_new, m.is_file())
            })
        } else {
            (kind.is_dir(), kind.is_file())
        };
        if whisper::create::is_temporary_name(file_name) {
            report.leftovers += usize::from(remove_leftover(&entry.path()));
        } else if file_name.starts_with('.') || file_name.contains('.') && is_dir {
            // The dot would separate nodes: no series name leads here.
        } else if is_dir {
            self.todo
                .push((entry.path(), format!("{prefix}{file_name}.")));
        } else if is_file && let Some(stem) = file_name.strip_suffix(".wsp") {
            let name = format!("{prefix}{stem}");
            if let Some(id) = self.hashes.get(&name) {
                self.named.push(*id);
            } else if let Some(tagged) = tagged::unhashed(prefix, stem) {
                self.unhashed.push(tagged);
            } else if !stem.contains('.') {
                self.nameless += usize::from(hashes::is_hashed(prefix, stem));
                self.found.push(name);
            }
        }
    }
}

/// Deletes an incomplete file, unless a process may still be writing it. Whether it was deleted.
fn remove_leftover(path: &Path) -> bool {
    let old = fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .ok()
        .and_then(|modified| modified.elapsed().ok())
        .is_some_and(|age| age.as_secs() > 60);
    old && fs::remove_file(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::search::paths;
    use super::*;

    fn touch(root: &Path, file: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }

    #[test]
    fn a_tree_is_walked_once_and_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("whisper");
        let log = dir.path().join("names");
        touch(&root, "a/b.wsp");
        touch(&root, "a/b/c.wsp");
        touch(&root, "a/not-whisper.txt");
        touch(&root, ".hidden/x.wsp");
        touch(&root, "_tagged/123/456/m_DOT_n;a=b.wsp");
        let index = Index::open(&root, log.clone(), false).unwrap();
        assert_eq!(paths(&index, "*"), ["_tagged", "a"]);
        assert_eq!(paths(&index, "a.*"), ["a.b", "a.b"]);
        assert_eq!(
            paths(&index, "_tagged.*.*.*"),
            ["_tagged.123.456.m_DOT_n;a=b"]
        );
        drop(index);
        fs::remove_file(root.join("a/b/c.wsp")).unwrap();
        touch(&root, "a/d.wsp");
        let index = Index::open(&root, log.clone(), false).unwrap();
        assert_eq!(paths(&index, "a.*"), ["a.b", "a.b"]);
        let report = index.reconcile(|_| false, || false).unwrap();
        assert_eq!((report.added, report.removed), (1, 1));
        assert_eq!(paths(&index, "a.*"), ["a.b", "a.d"]);
        drop(index);
        let index = Index::open(&root, log, false).unwrap();
        assert_eq!(paths(&index, "a.*"), ["a.b", "a.d"]);
    }

    #[test]
    fn links_to_directories_are_followed_once_and_what_cannot_be_read_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("whisper");
        touch(&root, "a/b.wsp");
        touch(&dir.path().join("elsewhere"), "c.wsp");
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, root.join("a").join(name)).unwrap();
        };
        for loops in ["l", "k"] {
            link(&root, loops);
        }
        link(&dir.path().join("elsewhere"), "other");
        // A path that grows until the system takes it no more.
        let mut deep = root.join("a");
        while deep.as_os_str().len() < 3_900 {
            deep.push("d".repeat(180));
        }
        fs::create_dir_all(&deep).unwrap();
        link(&root.join("a").join("d".repeat(180)), "twice");
        let index = Index::open(&root, dir.path().join("names"), false).unwrap();
        assert_eq!(paths(&index, "a.other.c"), ["a.other.c"]);
        assert_eq!(paths(&index, "a.b"), ["a.b"]);
        let found = index.len();
        assert!((2..=6).contains(&found), "{found} series");
        // What was there before the directory became unreadable stays.
        fs::remove_dir_all(root.join("a")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("names"), root.join("a")).unwrap();
        index.reconcile(|_| false, || false).unwrap();
    }
}
