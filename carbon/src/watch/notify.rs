//! What the kernel says about directories (inotify).

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::ops::Bound;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// How a watched directory is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the root of the tree.
    Root,
    /// Its name is in the directory above.
    Below,
    /// By a link, or it is a mount point: what is done to it elsewhere is not reported.
    Foreign,
}

/// Watched directories.
#[derive(Debug)]
pub(super) struct Watches {
    inotify: OwnedFd,
    /// The most watches; less once the kernel refused one.
    room: usize,
    paths: HashMap<i32, Arc<OsStr>>,
    ids: BTreeMap<Arc<OsStr>, i32>,
    /// Since when each is watched, as the caller counts, if its parent is, too: without the parent's watch, it is not
    /// known whether the path still leads to the directory.
    since: HashMap<Arc<OsStr>, u32, foldhash::fast::RandomState>,
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
            since: HashMap::default(),
        })
    }

    /// How many directories are watched.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether a directory is watched.
    pub(super) fn has(&self, directory: &Path) -> bool {
        self.ids.contains_key(directory.as_os_str())
    }

    /// Since when all changes of the directory at this path have been reported, as the caller of
    /// [`Watches::add`] counts.
    pub(super) fn since(&self, directory: &OsStr) -> Option<u32> {
        self.since.get(directory).copied()
    }

    /// Watches a directory, if there is room. Whether it is new among the watched ones. `now` is the present time
    /// as the caller counts, asked for when the watch is there.
    pub(super) fn add(
        &mut self,
        directory: &Path,
        place: Place,
        now: impl FnOnce() -> u32,
    ) -> bool {
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
                let directory: Arc<OsStr> = directory.as_os_str().into();
                if let Some(before) = self.paths.insert(id, Arc::clone(&directory)) {
                    self.ids.remove(&before);
                    self.distrust(&before);
                }
                self.ids.insert(Arc::clone(&directory), id);
                let is_reported = match place {
                    Place::Root => true,
                    Place::Below => {
                        let parent = Path::new(&*directory).parent();
                        parent.is_some_and(|parent| self.since.contains_key(parent.as_os_str()))
                    }
                    Place::Foreign => false,
                };
                if is_reported {
                    self.since.insert(directory, now());
                }
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

    /// A directory and all watched ones below it.
    fn below(&self, directory: &OsStr) -> Vec<Arc<OsStr>> {
        let mut start = directory.to_owned();
        start.push("/");
        let starts = |path: &&Arc<OsStr>| path.as_bytes().starts_with(start.as_bytes());
        let from = (Bound::Included(&*start), Bound::Unbounded);
        let all = self.ids.range::<OsStr, _>(from).map(|(path, _)| path);
        let own = std::iter::once(directory.into());
        own.chain(all.take_while(starts).cloned()).collect()
    }

    /// The path of a directory may lead elsewhere now, without a report.
    fn distrust(&mut self, directory: &OsStr) {
        for path in self.below(directory) {
            self.since.remove(&path);
        }
    }

    /// Stops watching a directory and all below it.
    fn forget(&mut self, directory: &Path) {
        for path in self.below(directory.as_os_str()) {
            self.since.remove(&path);
            if let Some(id) = self.ids.remove(&path) {
                self.paths.remove(&id);
                // The kernel has removed it already if the directory was deleted.
                let _ = inotify::remove_watch(&self.inotify, id);
            }
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
                let path = Path::new(&**directory).join(name);
                if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                    changes.push(Change::Came(path));
                } else {
                    changes.push(Change::Went(path));
                }
            } else if name.as_bytes().ends_with(b".wsp") && !name.as_bytes().starts_with(b".") {
                changes.push(Change::File(Path::new(&**directory).join(name)));
            }
        }
        for id in gone {
            if let Some(path) = self.paths.remove(&id)
                && self.ids.get(&path) == Some(&id)
            {
                self.ids.remove(&path);
                self.distrust(&path);
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
        assert!(watches.add(dir.path(), Place::Root, || 7));
        for directory in [&a, &a.join("c"), &a.join("c/d")] {
            assert!(watches.add(directory, Place::Below, || 7), "{directory:?}");
            assert!(!watches.add(directory, Place::Below, || 7), "{directory:?}");
        }
        assert!(
            !watches.add(&b, Place::Below, || 7),
            "there is room for four"
        );
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
        assert!(
            watches.add(&e, Place::Below, || 7) && watches.add(&e.join("d"), Place::Below, || 7)
        );
        std::fs::write(e.join("d/y.wsp"), "").unwrap();
        assert_eq!(watches.changes(), [Change::File(e.join("d/y.wsp"))]);
        std::fs::remove_dir_all(&e).unwrap();
        let changes = watches.changes();
        assert!(changes.contains(&Change::Went(e.clone())), "{changes:?}");
        assert_eq!(watches.len(), 2);
    }

    #[test]
    fn a_directory_is_reported_of_while_all_above_it_are_watched() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("a/b");
        std::fs::create_dir_all(&directory).unwrap();
        let since = |watches: &Watches, path: &Path| watches.since(path.as_os_str());
        let mut watches = Watches::new(10).unwrap();
        // Without the ones above.
        assert!(watches.add(&directory, Place::Below, || 1));
        assert_eq!(since(&watches, &directory), None);
        let mut watches = Watches::new(10).unwrap();
        watches.add(dir.path(), Place::Root, || 2);
        watches.add(&dir.path().join("a"), Place::Below, || 3);
        watches.add(&directory, Place::Below, || 4);
        assert_eq!(since(&watches, &directory), Some(4));
        // A directory above gets its watch at another path.
        std::os::unix::fs::symlink(dir.path().join("a"), dir.path().join("link")).unwrap();
        let link = dir.path().join("link");
        watches.add(&link, Place::Foreign, || 5);
        assert!(watches.has(&link) && watches.has(&directory));
        for path in [&link, &directory, &dir.path().join("a")] {
            assert_eq!(since(&watches, path), None, "{path:?}");
        }
        // A directory above moves away and back.
        let mut watches = Watches::new(10).unwrap();
        watches.add(dir.path(), Place::Root, || 6);
        watches.add(&dir.path().join("a"), Place::Below, || 6);
        watches.add(&directory, Place::Below, || 6);
        std::fs::rename(dir.path().join("a"), dir.path().join("c")).unwrap();
        std::fs::rename(dir.path().join("c"), dir.path().join("a")).unwrap();
        watches.changes();
        assert_eq!(since(&watches, &directory), None);
    }
}
