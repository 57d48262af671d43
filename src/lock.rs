//! One server per data directory.
//!
//! 1. The lock is a `flock` on `DATA/lock`: the kernel gives it back however the process ends, so a
//!    crash leaves nothing to clean up. The file holds the process id for the one that is refused.
//! 2. The directory itself is locked too: with the file deleted, a second server is still refused.
//! 3. A lock holds what it was taken on. [`DataLock::check`] says when the paths lead elsewhere by
//!    now, because a file or the directory was removed or replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use carbon::private;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Proof that the data directory is ours; given back when dropped.
#[derive(Debug)]
pub struct DataLock {
    path: PathBuf,
    file: File,
    data: PathBuf,
    directory: File,
}

impl DataLock {
    /// Creates the directory if need be and locks it.
    ///
    /// # Errors
    /// A sentence with the directory, and the process that holds it when that is the reason.
    pub fn take(data: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(data).with_context(|| format!("data directory {}", data.display()))?;
        let path = data.join("lock");
        let failed = || format!("data directory: {}", path.display());
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true);
            let mut file = private::open(&path, &mut options).with_context(failed)?;
            if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
                return Err(in_use(data, &mut file));
            }
            let directory = File::open(data).with_context(failed)?;
            // Some network filesystems lock files only: then the file has to do.
            if flock(&directory, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK)
            {
                return Err(in_use(data, &mut file));
            }
            let lock = Self {
                path: path.clone(),
                file,
                data: data.to_owned(),
                directory,
            };
            // Another process may have put a new file in its place since it was opened.
            if lock.check().is_err() {
                continue;
            }
            lock.file.set_len(0).with_context(failed)?;
            writeln!(&lock.file, "{}", std::process::id()).with_context(failed)?;
            return Ok(lock);
        }
    }

    /// Whether the directory and the file in it are still those that were locked.
    ///
    /// # Errors
    /// A sentence that says which is not.
    pub fn check(&self) -> Result<(), String> {
        for (path, locked) in [(&self.data, &self.directory), (&self.path, &self.file)] {
            let identity = |found: fs::Metadata| (found.dev(), found.ino());
            let now = fs::metadata(path).map(identity).ok();
            if now.is_none() || now != locked.metadata().map(identity).ok() {
                let path = path.display();
                return Err(format!(
                    "{path} was removed or replaced: another server may be started on this data"
                ));
            }
        }
        Ok(())
    }
}

fn in_use(data: &Path, file: &mut File) -> anyhow::Error {
    let mut pid = String::new();
    // Who holds it is a courtesy: an unreadable number must not hide the refusal.
    let _ = file.read_to_string(&mut pid);
    let shown = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    anyhow!(
        "the data directory {} is in use by another plumbago{}",
        shown.display(),
        match pid.trim() {
            "" => String::new(),
            pid => format!(" (process {pid})"),
        }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_with_directory_and_process() {
        let data = tempfile::tempdir().unwrap();
        let first = DataLock::take(data.path()).unwrap();
        let refusal = DataLock::take(data.path()).unwrap_err().to_string();
        assert!(
            refusal.contains(&std::process::id().to_string()),
            "{refusal}"
        );
        assert!(
            refusal.contains(data.path().file_name().unwrap().to_str().unwrap()),
            "{refusal}"
        );
        drop(first);
        DataLock::take(data.path()).unwrap();
    }

    #[test]
    fn a_lock_file_that_is_gone_is_noticed_and_lets_no_second_one_in() {
        let data = tempfile::tempdir().unwrap();
        let first = DataLock::take(data.path()).unwrap();
        first.check().unwrap();
        fs::remove_file(data.path().join("lock")).unwrap();
        assert!(first.check().unwrap_err().contains("lock was removed"));
        let refusal = DataLock::take(data.path()).unwrap_err().to_string();
        assert!(refusal.contains("is in use by another"), "{refusal}");
        // The second has made a new file, which is not the one that is locked.
        assert!(first.check().is_err());
        drop(first);
        DataLock::take(data.path()).unwrap();
    }

    #[test]
    fn a_directory_that_was_replaced_is_noticed() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        let first = DataLock::take(&data).unwrap();
        fs::remove_dir_all(&data).unwrap();
        assert!(first.check().is_err());
        let _second = DataLock::take(&data).unwrap();
        assert!(first.check().is_err());
    }

    #[test]
    fn a_link_in_place_of_the_lock_is_not_written_through() {
        let data = tempfile::tempdir().unwrap();
        let target = data.path().join("target");
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, data.path().join("lock")).unwrap();
        let refusal = format!("{:#}", DataLock::take(data.path()).unwrap_err());
        assert!(refusal.contains("it is a symbolic link"), "{refusal}");
        assert_eq!(fs::read(&target).unwrap(), b"precious");
    }
}
