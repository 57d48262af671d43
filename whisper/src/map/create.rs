//! Creating files by the thousand.
//!
//! 1. A file is created with its first points in it. Whatever a write after the creation would read, it would
//!    find zeros, so the points are written in memory ([`Draft`]) and reach the file with its header: it is
//!    not opened, mapped and read again.
//! 2. Where the file system can, the file has no name until it is whole (`O_TMPFILE`): a kill leaves nothing
//!    behind, and programs that watch the directory hear of one change. Elsewhere it has a temporary
//!    name ([`mod@crate::create`]).
//! 3. The directory is made when it is missing. One that is used again stays open (`directories.rs`).

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;

use crate::create::{CreateOptions, Draft, Staged, header_of};
use crate::error::{Error, Result};
use crate::units::Timestamp;

use super::Maps;

impl Maps {
    /// Creates a file, and its directory if that is not there. It is mapped when it is used.
    ///
    /// # Errors
    /// As [`create()`](crate::create()).
    pub fn create(&self, path: &Path, options: &CreateOptions) -> Result<()> {
        let draft = Draft::new(header_of(path, options)?, options.allocation);
        self.publish(path, &draft, Timestamp(0))
    }

    /// As [`Maps::create`], for the file that the caller calls `key`, with the points in it that `write` writes to
    /// its [`Draft`]. Points that a displaced file swallowed go first ([`Maps::displaced`]). `now` is the clock of
    /// the caller. Returns what `write` returns.
    ///
    /// # Errors
    /// As [`create()`](crate::create()), and those of `write`.
    pub fn create_with<T>(
        &self,
        key: u32,
        path: &Path,
        options: &CreateOptions,
        now: Timestamp,
        write: impl FnOnce(&mut Draft) -> Result<T>,
    ) -> Result<T> {
        let mut draft = Draft::new(header_of(path, options)?, options.allocation);
        let kept = self.shard(key).recent.take_displaced(key);
        let created = draft.update_many(now, &kept).and_then(|_| {
            let written = write(&mut draft)?;
            self.publish(path, &draft, now)?;
            Ok(written)
        });
        if created.is_err() {
            self.shard(key).recent.put_back(key, kept);
        }
        created
    }

    /// Gives `draft` the name `path`.
    fn publish(&self, path: &Path, draft: &Draft, now: Timestamp) -> Result<()> {
        // Before anything is prepared: a name that is taken may be tried again and again.
        if let Ok(taken) = fs::symlink_metadata(path) {
            let is_away = taken.is_symlink() && leads_nowhere(path);
            return Err(if is_away {
                not_followed(path)
            } else {
                Error::exists(path)
            });
        }
        let directory = path.parent().unwrap_or(Path::new("."));
        if !self.names_new_files.load(Ordering::Relaxed) {
            let kept = self.directories.lock().get(directory, now);
            let mut created = create_unnamed(path, kept.as_deref(), draft);
            // A directory that was removed while it was open refuses the file in many ways.
            if kept.is_some() && created.is_err() && created != Err(Errno::EXIST) {
                self.directories.lock().forget(directory);
                created = create_unnamed(path, None, draft);
            }
            match created {
                Ok(()) => return Ok(()),
                Err(Errno::EXIST) => return Err(Error::exists(path)),
                Err(Errno::NOENT) => {}
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {
                    self.names_new_files.store(true, Ordering::Relaxed);
                }
                Err(error) => return Err(Error::io(path, "creating it", error)),
            }
        }
        match Staged::create(path, draft) {
            Err(error) if error.is_missing() => {
                self.directories.lock().forget(directory);
                fs::create_dir_all(directory).map_err(|e| not_made(directory, e))?;
                Staged::create(path, draft)
            }
            created => created,
        }
    }
}

/// Why `directory` could not be made.
fn not_made(directory: &Path, error: io::Error) -> Error {
    let is_away = |path: &&Path| path.is_symlink() && leads_nowhere(path);
    match directory.ancestors().find(is_away) {
        Some(link) if error.kind() == io::ErrorKind::AlreadyExists => not_followed(link),
        _ => Error::io(directory, "making the directory", error),
    }
}

/// Whether what the symbolic link at `path` leads to is missing.
fn leads_nowhere(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The error of a symbolic link that leads nowhere, be it in place of the file or of a directory: what it leads to may
/// come back, such as a disk that is not mounted at present.
fn not_followed(link: &Path) -> Error {
    Error::io(link, "following the symbolic link", Errno::NOENT)
}

/// Creates the file at `path`, whose directory is open as `directory` if it is open, without any other name.
/// [`Errno::OPNOTSUPP`] and its like if that is not possible here.
fn create_unnamed(
    path: &Path,
    directory: Option<&OwnedFd>,
    draft: &Draft,
) -> rustix::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL);
    };
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o666);
    let file = match directory {
        Some(directory) => openat(directory, ".", flags, mode)?,
        None => openat(CWD, parent, flags, mode)?,
    };
    let file = fs::File::from(file);
    draft
        .fill(&file)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let link = |from: &Path, flags| match directory {
        Some(directory) if flags == AtFlags::EMPTY_PATH => {
            linkat(&file, from, directory, name, flags)
        }
        Some(directory) => linkat(CWD, from, directory, name, flags),
        None if flags == AtFlags::EMPTY_PATH => linkat(&file, from, CWD, path, flags),
        None => linkat(CWD, from, CWD, path, flags),
    };
    match link(Path::new(""), AtFlags::EMPTY_PATH) {
        // Before Linux 6.10 only a process with CAP_DAC_READ_SEARCH may do that.
        Err(Errno::NOENT) => {
            use std::os::fd::AsRawFd;
            let of_process = format!("/proc/self/fd/{}", file.as_raw_fd());
            match link(Path::new(&of_process), AtFlags::SYMLINK_FOLLOW) {
                // No /proc.
                Err(Errno::NOENT) => Err(Errno::OPNOTSUPP),
                linked => linked,
            }
        }
        linked => linked,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::MapOptions;
    use crate::{Aggregation, Allocation, File, Lock, Point, Retention, create};
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp(1_700_000_000);

    fn options(allocation: Allocation, aggregation: Aggregation) -> CreateOptions {
        CreateOptions {
            allocation,
            aggregation,
            ..CreateOptions::new(vec![
                Retention::new(1, 60).unwrap(),
                Retention::new(10, 30).unwrap(),
                Retention::new(60, 30).unwrap(),
            ])
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn a_file_created_with_points_has_the_bytes_of_one_that_got_them_later(
            batches in prop::collection::vec(prop::collection::vec((0_u32..2_000, -9..9), 0..60), 0..3),
            allocation in prop::sample::select(vec![Allocation::Reserved, Allocation::Zeroes, Allocation::Sparse]),
            sum in any::<bool>(),
            named in any::<bool>(),
        ) {
            let method = if sum { Aggregation::Sum } else { Aggregation::Average };
            let options = options(allocation, method);
            let root = tempfile::tempdir().unwrap();
            let (path, twin) = (root.path().join("a/b.wsp"), root.path().join("twin.wsp"));
            let points = |batch: &[(u32, i32)]| -> Vec<Point> {
                let point = |(age, value): &(u32, i32)| Point {
                    at: Timestamp(NOW.0 + 100 - age),
                    value: f64::from(*value),
                };
                batch.iter().map(point).collect()
            };
            let maps = Maps::new(MapOptions::default());
            maps.names_new_files.store(named, Ordering::Relaxed);
            let write = |draft: &mut Draft| -> Result<Vec<_>> {
                batches.iter().map(|batch| draft.update_many(NOW, &points(batch))).collect()
            };
            let written = maps.create_with(1, &path, &options, NOW, write).unwrap();
            create(&twin, &options).unwrap();
            let mut file = File::open_mut(&twin, Lock::None).unwrap();
            for (batch, written) in batches.iter().zip(written) {
                prop_assert_eq!(file.update_many(NOW, &points(batch)).unwrap(), written);
            }
            prop_assert_eq!(fs::read(&path).unwrap(), fs::read(&twin).unwrap());
            prop_assert_eq!(names(&root.path().join("a")), ["b.wsp"]);
        }
    }

    #[test]
    fn existing_files_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.wsp");
        let link = root.path().join("link.wsp");
        std::os::unix::fs::symlink("a.wsp", &link).unwrap();
        let options = options(Allocation::Sparse, Aggregation::Sum);
        for named in [false, true] {
            let maps = Maps::new(MapOptions::default());
            maps.names_new_files.store(named, Ordering::Relaxed);
            fs::write(&path, "another").unwrap();
            for taken in [&path, &link] {
                let error = maps.create(taken, &options).unwrap_err();
                assert!(matches!(error, Error::Exists { .. }), "{error}");
            }
            assert_eq!(fs::read(&path).unwrap(), b"another");
        }
        assert_eq!(names(root.path()), ["a.wsp", "link.wsp"]);
    }

    #[test]
    fn a_file_behind_a_link_that_leads_nowhere_may_be_created_later() {
        let root = tempfile::tempdir().unwrap();
        let away = root.path().join("away");
        let link = root.path().join("link.wsp");
        std::os::unix::fs::symlink(&away, root.path().join("disk")).unwrap();
        std::os::unix::fs::symlink(away.join("link.wsp"), &link).unwrap();
        std::os::unix::fs::symlink("round", root.path().join("round")).unwrap();
        std::os::unix::fs::symlink("round.wsp", root.path().join("round.wsp")).unwrap();
        let options = options(Allocation::Sparse, Aggregation::Sum);
        for named in [false, true] {
            let maps = Maps::new(MapOptions::default());
            maps.names_new_files.store(named, Ordering::Relaxed);
            for path in ["disk/a.wsp", "disk/b/c.wsp"] {
                let path = root.path().join(path);
                let error = maps.create(&path, &options).unwrap_err();
                assert!(!error.is_hopeless(), "{error}");
                assert!(error.is_of_this_path(), "{error}");
                fs::create_dir(&away).unwrap();
                maps.create(&path, &options).unwrap();
                fs::remove_dir_all(&away).unwrap();
            }
            // The name of the file is a link: nothing is created at its end, which is not ours.
            let error = maps.create(&link, &options).unwrap_err();
            assert!(error.to_string().contains("link.wsp"), "{error}");
            assert!(!error.is_hopeless(), "{error}");
            assert!(error.is_of_this_path(), "{error}");
            for round in ["round/a.wsp", "round.wsp"] {
                let error = maps.create(&root.path().join(round), &options).unwrap_err();
                assert!(error.is_hopeless(), "{error}");
            }
        }
    }

    #[test]
    fn a_directory_that_was_removed_while_it_was_open_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a");
        let options = options(Allocation::Sparse, Aggregation::Sum);
        let maps = Maps::new(MapOptions::default());
        for name in ["1.wsp", "2.wsp", "3.wsp"] {
            maps.create_with(1, &directory.join(name), &options, NOW, |_| Ok(()))
                .unwrap();
        }
        fs::remove_dir_all(&directory).unwrap();
        maps.create_with(1, &directory.join("4.wsp"), &options, NOW, |_| Ok(()))
            .unwrap();
        assert_eq!(names(&directory), ["4.wsp"]);
    }

    #[test]
    fn what_cannot_be_written_leaves_no_file() {
        let root = tempfile::tempdir().unwrap();
        let maps = Maps::new(MapOptions::default());
        let options = options(Allocation::Sparse, Aggregation::Sum);
        let refused = |_: &mut Draft| -> Result<()> { Err(Error::NotCovered) };
        let path = root.path().join("a.wsp");
        assert!(maps.create_with(1, &path, &options, NOW, refused).is_err());
        let longer = root.path().join(format!("{}.wsp", "n".repeat(252)));
        let error = maps.create(&longer, &options).unwrap_err();
        assert!(error.is_hopeless(), "{error}");
        assert!(names(root.path()).is_empty());
    }
}
