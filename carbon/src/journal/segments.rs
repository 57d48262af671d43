//! The files of a journal: their names, and when they are deleted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::rotation::Rotation;
use super::state::Journal;
use crate::stats::Stats;

pub(super) fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.journal"))
}

/// The segments in `directory`: numbers and sizes, oldest first.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".journal"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

impl Journal {
    /// Counts everything that was appended before `rotation` as committed, and deletes the segments before
    /// it. The caller has written these points to synced files, or appended them again and committed that.
    ///
    /// # Errors
    /// A segment could not be deleted. The next call tries again.
    pub(crate) fn drop_before(&self, rotation: Rotation, stats: &Stats) -> io::Result<()> {
        let mut current = self.current.lock();
        self.advance(rotation.appended, stats);
        current.gap &= current.number != rotation.number || self.pending.lock().paused;
        if !current.gap {
            *self.trouble.lock() = None;
        }
        while let Some((number, bytes)) = current.older.first().copied() {
            if number >= rotation.number {
                break;
            }
            match self.disk.remove(&segment_path(&self.directory, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            current.older.remove(0);
            self.size.fetch_sub(bytes, Ordering::Relaxed);
            stats.journal_dropped.add(1);
        }
        Ok(())
    }
}
