//! One server per data directory.
//!
//! The lock is a `flock` on `DATA/lock`: the kernel gives it back however the process ends, so a
//! crash leaves nothing to clean up. The file holds the process id for whoever is refused.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, anyhow};
use rustix::fs::{FlockOperation, flock};

/// Proof that the data directory is ours; given back when dropped.
#[derive(Debug)]
pub struct DataLock(#[expect(dead_code, reason = "held, not read: closing it unlocks")] File);

impl DataLock {
    /// Creates the directory if need be and locks it.
    ///
    /// # Errors
    /// A sentence with the directory, and the process that holds it when that is the reason.
    pub fn take(data: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(data).with_context(|| format!("data directory {}", data.display()))?;
        let path = data.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("data directory: {}", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            // Who holds it is a courtesy: an unreadable number must not hide the refusal.
            let _ = file.read_to_string(&mut pid);
            let shown = data.canonicalize().unwrap_or_else(|_| data.to_owned());
            return Err(anyhow!(
                "the data directory {} is in use by another plumbago{}",
                shown.display(),
                match pid.trim() {
                    "" => String::new(),
                    pid => format!(" (process {pid})"),
                }
            ));
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("data directory: {}", path.display()))?;
        Ok(Self(file))
    }
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
}
