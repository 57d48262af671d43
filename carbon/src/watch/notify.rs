//! What the kernel says about directories (inotify).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// Room for the changes of one read.
const BUFFER: usize = 64 << 10;

/// Something changed in a watched directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A file was created, replaced, renamed or deleted.
    File(PathBuf),
    /// A directory was created, or moved here.
    Came(PathBuf),
    /// A directory was deleted, or moved away.
    Went(PathBuf),
    /// Changes were lost because there were too many.
    Missed,
}

/// Watched directories.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: OwnedFd,
    /// The most watches; less once the kernel refused one.
    room: usize,
    paths: HashMap<i32, PathBuf>,
    ids: BTreeMap<PathBuf, i32>,
}

impl Watches {
    /// Room for `most` watches.
    ///
    /// # Errors
    /// The kernel refuses: there are no descriptors left, or too many users of inotify.
    pub(super) fn new(most: usize) -> std::io::Result<Self> {
        Ok(Self {
            inotify: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            room: most,
            paths: HashMap::new(),
            ids: BTreeMap::new(),
        })
    }

    /// How many directories are watched.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether a directory is watched.
    pub(super) fn has(&self, directory: &Path) -> bool {
        self.ids.contains_key(directory)
    }

    /// Watches a directory, if there is room. Whether it is new among the watched ones.
    pub(super) fn add(&mut self, directory: &Path) -> bool {
        if self.len() >= self.room || self.has(directory) {
            return false;
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        match inotify::add_watch(&self.inotify, directory, flags) {
            // A directory that is reached by two paths has one watch: the last path counts.
            Ok(id) => {
                if let Some(before) = self.paths.insert(id, directory.to_owned()) {
                    self.ids.remove(&before);
                }
                self.ids.insert(directory.to_owned(), id);
                true
            }
            Err(Errno::NOSPC | Errno::NOMEM) => {
                self.room = self.len();
                tracing::info!(
                    watched = self.room,
                    "the kernel has no room for further watches (fs.inotify.max_user_watches): the other directories are walked"
                );
                false
            }
            // Gone since, or not to be read.
            Err(_) => false,
        }
    }

    /// Stops watching a directory and all below it.
    fn forget(&mut self, directory: &Path) {
        let below = self.ids.range::<Path, _>((
            std::ops::Bound::Included(directory),
            std::ops::Bound::Unbounded,
        ));
        let gone: Vec<(PathBuf, i32)> = below
            .take_while(|(path, _)| path.starts_with(directory))
            .map(|(path, id)| (path.clone(), *id))
            .collect();
        for (path, id) in gone {
            self.ids.remove(&path);
            self.paths.remove(&id);
            // The kernel has removed it already if the directory was deleted.
            let _ = inotify::remove_watch(&self.inotify, id);
        }
    }

    /// Hands out what has changed since the last call.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        let mut gone = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        while let Ok(event) = reader.next() {
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                changes.push(Change::Missed);
                continue;
            }
            if flags.contains(ReadFlags::IGNORED) {
                gone.push(event.wd());
                continue;
            }
            let (Some(directory), Some(name)) = (self.paths.get(&event.wd()), event.file_name())
            else {
                continue;
            };
            let name = OsStr::from_bytes(name.to_bytes());
            if flags.contains(ReadFlags::ISDIR) {
                let path = directory.join(name);
                if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    changes.push(Change::Came(path));
                } else {
                    changes.push(Change::Went(path));
                }
            } else if name.as_bytes().ends_with(b".wsp") && !name.as_bytes().starts_with(b".") {
                changes.push(Change::File(directory.join(name)));
            }
        }
        for id in gone {
            if let Some(path) = self.paths.remove(&id)
                && self.ids.get(&path) == Some(&id)
            {
                self.ids.remove(&path);
            }
        }
        for change in &changes {
            if let Change::Went(path) | Change::Came(path) = change {
                // What comes back under the name is another directory.
                self.forget(path);
            }
        }
        changes.dedup();
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_name_files_and_directories_and_watches_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        for directory in [&a, &b, &a.join("c"), &a.join("c/d")] {
            std::fs::create_dir(directory).unwrap();
        }
        let mut watches = Watches::new(4).unwrap();
        for directory in [dir.path(), &a, &a.join("c"), &a.join("c/d")] {
            assert!(watches.add(directory), "{directory:?}");
            assert!(!watches.add(directory), "{directory:?}");
        }
        assert!(!watches.add(&b), "there is room for four");
        assert_eq!(watches.changes(), []);
        std::fs::write(a.join("x.wsp"), "").unwrap();
        std::fs::write(a.join(".x.wsp"), "").unwrap();
        std::fs::write(a.join("x.txt"), "").unwrap();
        std::fs::write(b.join("x.wsp"), "").unwrap();
        assert_eq!(watches.changes(), [Change::File(a.join("x.wsp"))]);
        std::fs::rename(a.join("x.txt"), a.join("x.wsp")).unwrap();
        std::fs::remove_file(a.join("x.wsp")).unwrap();
        assert_eq!(watches.changes(), [Change::File(a.join("x.wsp"))]);
        // A subtree that moves is no longer watched, and can be watched at its new place.
        std::fs::rename(a.join("c"), dir.path().join("e")).unwrap();
        let (c, e) = (a.join("c"), dir.path().join("e"));
        assert_eq!(
            watches.changes(),
            [Change::Went(c.clone()), Change::Came(e.clone())]
        );
        assert!(!watches.has(&c) && !watches.has(&c.join("d")));
        assert!(watches.add(&e) && watches.add(&e.join("d")));
        std::fs::write(e.join("d/y.wsp"), "").unwrap();
        assert_eq!(watches.changes(), [Change::File(e.join("d/y.wsp"))]);
        std::fs::remove_dir_all(&e).unwrap();
        let changes = watches.changes();
        assert!(changes.contains(&Change::Went(e.clone())), "{changes:?}");
        assert_eq!(watches.len(), 2);
    }
}
