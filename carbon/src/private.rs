//! Opens the server's own files: lock, journal, index, saved state.
//!
//! 1. They are opened without following a symbolic link in the last part of the path, so that a
//!    link put in their place leads to no other file.
//! 2. Opening never blocks: a pipe, a device or a directory in their place is an error.
//! 3. They are created with mode 0600, their directories with 0700.
//! 4. A file or directory that is kept open is told from one that has taken its place ([`is_at`]).

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

/// Opens the regular file `path` with `options`.
///
/// # Errors
/// The system's, or [`io::ErrorKind::InvalidInput`] if `path` is not a regular file: see
/// [`is_in_the_way`].
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = options
        .custom_flags(flags.bits() as i32)
        .mode(0o600)
        .open(path);
    let file = opened.map_err(|error| {
        let what = match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::LOOP) => "it is a symbolic link",
            Some(Errno::ISDIR) => "it is a directory",
            Some(Errno::NXIO) => "it is a pipe or a socket",
            _ => return error,
        };
        io::Error::new(io::ErrorKind::InvalidInput, what)
    })?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    let what = "it is not a regular file";
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// Whether [`open`] found something that is not a regular file.
pub fn is_in_the_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidInput && error.raw_os_error().is_none()
}

/// Whether `path` leads to the file or directory that is open as `file`. While it is open no other can get
/// its inode, so that this is certain.
pub fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: Metadata| (found.dev(), found.ino());
    let now = std::fs::metadata(path).map(identity).ok();
    now.is_some() && now == file.metadata().map(identity).ok()
}

/// Renames `path` to `NAME.corrupt`, or to the next free name, and returns the new path.
///
/// # Errors
/// The system refused.
pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
    whisper::map::set_aside(path)
}

/// The content of the regular file `path`.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path, OpenOptions::new().read(true))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Creates the directory `path` and those above it, readable by this user only. Existing directories stay
/// as they are.
///
/// # Errors
/// The system refused.
pub fn create_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            DirBuilder::new().mode(0o700).create(path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        made => made,
    }
}

/// Syncs the directory of `path`, so that the new file survives a crash.
///
/// # Errors
/// The system refused.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_a_regular_file_is_opened_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("target"), "precious").unwrap();
        symlink(at("target"), at("link")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let pipe = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), pipe, mode, 0).unwrap();
        for name in ["link", "directory", "socket", "pipe"] {
            let mut writing = OpenOptions::new();
            writing.write(true).create(true).truncate(true);
            for error in [
                read(&at(name)).unwrap_err(),
                open(&at(name), &mut writing).unwrap_err(),
            ] {
                assert!(is_in_the_way(&error), "{name}: {error}");
            }
        }
        assert_eq!(fs::read(at("target")).unwrap(), b"precious");
        assert!(!is_in_the_way(&read(&at("missing")).unwrap_err()));
    }

    #[test]
    fn what_is_made_is_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/private");
        create_dir(&inner).unwrap();
        create_dir(&inner).unwrap();
        let path = inner.join("file");
        open(&path, OpenOptions::new().write(true).create(true)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&inner), mode(&path)), (0o700, 0o600));
    }

    #[test]
    fn a_new_directory_of_the_same_name_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("whisper");
        std::fs::create_dir(&path).unwrap();
        let opened = File::open(&path).unwrap();
        assert!(is_at(&opened, &path));
        // Several times, because a file system usually gives the new directory the inode of the old one.
        for _ in 0..20 {
            std::fs::remove_dir(&path).unwrap();
            assert!(!is_at(&opened, &path));
            std::fs::create_dir(&path).unwrap();
            assert!(!is_at(&opened, &path));
        }
    }
}
