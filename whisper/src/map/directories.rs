//! The directories in which files are being created.
//!
//! Files that are created one after the other often have their directory in common: the lines of a timer, the
//! metrics of a host. A directory that is asked for again stays open, so that the path is walked once and not
//! twice for each file. It is trusted for one second of the caller's clock: another program may rename it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, open};

use crate::units::Timestamp;

/// How many directories are remembered.
const KEPT: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Directories {
    /// The clock by which all of `kept` were asked for.
    now: Timestamp,
    kept: Vec<Kept>,
    /// Which one is replaced next.
    next: usize,
}

#[derive(Debug)]
struct Kept {
    path: PathBuf,
    /// From the second time on.
    open: Option<Arc<OwnedFd>>,
}

impl Directories {
    /// The directory `path`, if it was asked for before and can be opened.
    pub(super) fn get(&mut self, path: &Path, now: Timestamp) -> Option<Arc<OwnedFd>> {
        if self.now != now {
            self.kept.clear();
            self.now = now;
        }
        let known = self.kept.iter_mut().find(|kept| kept.path == path);
        if let Some(kept) = known {
            if kept.open.is_none() {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                kept.open = open(path, flags, Mode::empty()).ok().map(Arc::new);
            }
            return kept.open.clone();
        }
        let path = path.to_owned();
        let new = Kept { path, open: None };
        if self.kept.len() < KEPT {
            self.kept.push(new);
        } else {
            self.kept[self.next % KEPT] = new;
            self.next = (self.next + 1) % KEPT;
        }
        None
    }

    /// Forgets a directory that is not there.
    pub(super) fn forget(&mut self, path: &Path) {
        self.kept.retain(|kept| kept.path != path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_in_use_are_open_for_a_second() {
        let root = tempfile::tempdir().unwrap();
        let mut directories = Directories::default();
        let (now, later) = (Timestamp(100), Timestamp(101));
        assert!(directories.get(root.path(), now).is_none());
        let open = directories.get(root.path(), now).unwrap();
        assert!(Arc::ptr_eq(
            &open,
            &directories.get(root.path(), now).unwrap()
        ));
        assert!(directories.get(root.path(), later).is_none());
        directories.get(root.path(), later).unwrap();
        directories.forget(root.path());
        assert!(directories.get(root.path(), later).is_none());
        // Those of other names take its place.
        for n in 0..KEPT {
            assert!(
                directories
                    .get(&root.path().join(n.to_string()), later)
                    .is_none()
            );
        }
        assert!(directories.get(root.path(), later).is_none());
        assert_eq!(directories.kept.len(), KEPT);
        // What is not there cannot be opened.
        let missing = root.path().join("missing");
        assert!(directories.get(&missing, later).is_none());
        assert!(directories.get(&missing, later).is_none());
    }
}
