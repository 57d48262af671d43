//! One server per data directory.
//!
//! 1. The lock is a `flock` on `DATA/lock`. The kernel releases it when the process ends, so a crash
//!    leaves nothing to clean up. The file holds the process id for the error of a second server.
//! 2. The directory itself is locked too: if the file is deleted, a second server is still refused.
//! 3. A lock applies to the inode it was taken on. [`DataLock::check`] fails if the paths no longer
//!    lead to the locked inodes because the file or the directory was removed or replaced.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use carbon::private;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// Proof of the exclusive lock on the data directory; released when dropped.
#[derive(Debug)]
pub struct DataLock {
    path: PathBuf,
    file: File,
    data: PathBuf,
    directory: File,
}

impl DataLock {
    /// Creates the directory if it is missing and locks it.
    ///
    /// # Errors
    /// The directory cannot be created or locked; if it is in use, the error names the process.
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
            // Some network filesystems cannot lock directories: then the lock on the file suffices.
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
    /// A sentence that names the removed or replaced path.
    pub fn check(&self) -> Result<(), String> {
        for (path, locked) in [(&self.data, &self.directory), (&self.path, &self.file)] {
            if !private::is_at(locked, path) {
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
    // The process id is optional: an unreadable file must not hide the refusal.
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
