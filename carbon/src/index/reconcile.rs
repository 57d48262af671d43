//! Walks the disk, and puts right what the index has wrong.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::bits::Bits;
use super::log::Record;
use super::state::Index;
use crate::datapoint::SeriesId;
use crate::error::Result;
use crate::series;

/// What a walk over the disk changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Files that the index did not know.
    pub added: usize,
    /// Series whose file is gone.
    pub removed: usize,
    /// Files that a killed process left half made, now deleted.
    pub leftovers: usize,
    /// Directories that could not be read. Nothing counts as removed then.
    pub unreadable: usize,
}

impl Reconciled {
    /// Notes a directory that cannot be read; the log has the first of them.
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
    /// Walks the disk and puts right what the index has wrong. `busy` says whether a series has
    /// datapoints that are not in its file yet: it stays, file or not. `stop` is asked at each
    /// directory; a walk that is stopped, or cannot read a directory, only adds. Links to
    /// directories are followed, each directory once.
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
        // Tagged series whose hashed file is known are not plain leaves too.
        let claimed: HashSet<String> = {
            let names = self.names();
            let tags = self.tags.read();
            let flags = self.flags.read();
            tags.all()
                .iter()
                .filter(|id| flags.stored.get(*id))
                .map(|id| names.name(SeriesId(id)))
                .filter(|name| series::is_tagged(name))
                .map(series::tree_path)
                .collect()
        };
        let mut seen = Bits::default();
        let mut followed: HashSet<(u64, u64)> = HashSet::new();
        let mut todo = vec![(self.root.clone(), String::new())];
        let mut batch = Vec::new();
        while let Some((directory, prefix)) = todo.pop() {
            if stop() {
                report.added += self.found_on_disk(&mut batch, &mut seen)?;
                return Ok(report);
            }
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                // Deleted since, or not there yet.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => {
                    report.skip(&directory, &error);
                    continue;
                }
            };
            for entry in entries {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) => {
                        report.skip(&directory, &error);
                        break;
                    }
                };
                let file_name = entry.file_name();
                let Some(file_name) = file_name.to_str() else {
                    continue;
                };
                let Ok(kind) = entry.file_type() else {
                    continue;
                };
                // A link counts as what it leads to, as in graphite-web.
                let (is_dir, is_file) = if kind.is_symlink() {
                    let target = fs::metadata(entry.path());
                    target.map_or((false, false), |m| {
                        // A link may lead to a directory above it: once is enough.
                        let is_new = m.is_dir() && followed.insert((m.dev(), m.ino()));
                        (is_new, m.is_file())
                    })
                } else {
                    (kind.is_dir(), kind.is_file())
                };
                if whisper::create::is_temporary_name(file_name) {
                    report.leftovers += usize::from(remove_leftover(&entry.path()));
                } else if file_name.starts_with('.') || file_name.contains('.') && is_dir {
                    // A dot would be read as a separator: such a name leads nowhere.
                } else if is_dir {
                    todo.push((entry.path(), format!("{prefix}{file_name}.")));
                } else if is_file && let Some(stem) = file_name.strip_suffix(".wsp") {
                    let name = format!("{prefix}{stem}");
                    if !stem.contains('.') && !claimed.contains(&name) {
                        batch.push(name);
                    }
                }
            }
            if batch.len() > 10_000 {
                report.added += self.found_on_disk(&mut batch, &mut seen)?;
            }
        }
        report.added += self.found_on_disk(&mut batch, &mut seen)?;
        if report.unreadable == 0 {
            report.removed = self.drop_unseen(&seen, busy)?;
        }
        self.sync()?;
        Ok(report)
    }

    /// Lists the series of files that were found; how many are new.
    fn found_on_disk(&self, batch: &mut Vec<String>, seen: &mut Bits) -> Result<usize> {
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
        let names = self.names();
        for id in ids {
            if self.flags.write().stored.set(id.0) {
                new += 1;
                self.log().append(Record::Stored, names.name_bytes(id.0))?;
            }
        }
        Ok(new)
    }

    /// Unlists series that were thought to have a file and have none; how many.
    fn drop_unseen(&self, seen: &Bits, busy: impl Fn(SeriesId) -> bool) -> Result<usize> {
        let _pin = self.pin();
        let suspects: Vec<SeriesId> = {
            let tree = self.tree.read();
            let flags = self.flags.read();
            tree.series()
                .into_iter()
                .filter(|id| flags.stored.get(id.0) && !seen.get(id.0))
                .collect()
        };
        let mut removed = 0;
        for id in suspects {
            let mut path = PathBuf::new();
            self.path(id, &mut path);
            // It may have been created since the walk passed by.
            if !matches!(path.try_exists(), Ok(false)) || busy(id) {
                continue;
            }
            let names = self.names();
            let mut tree = self.tree.write();
            let mut flags = self.flags.write();
            flags.stored.clear(id.0);
            flags.listed.clear(id.0);
            tree.remove(&names, id);
            removed += 1;
            self.log().append(Record::Gone, names.name_bytes(id.0))?;
        }
        Ok(removed)
    }
}

/// Deletes a half-made file, unless it may still be in the making. Whether it did.
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
