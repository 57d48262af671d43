//! Finding, checking and making maps; files that are damaged.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::create::reserve;
use crate::error::{Error, Result};
use crate::header::Header;
use crate::units::Timestamp;

use super::identity::Identity;
use super::memory::Mapping;
use super::shard::{BASES, Entry, HeaderNow, Shard};
use super::{ALL_EVERY, Event, Maps, PARTS};

/// The bytes of the longest name that a file can have.
const LONGEST_NAME: usize = 255;
/// A file was seen of late if that was no more looks ago: two rounds over all mapped files.
const OF_LATE: u32 = (2 * ALL_EVERY * PARTS) as u32;

impl Maps {
    /// Where the map of `key` is, ready to be written (and locked, with `flock`); `None` if the
    /// file is to be written without one.
    pub(super) fn mapped(
        &self,
        shard: &mut Shard,
        key: u32,
        path: &Path,
        now: Timestamp,
    ) -> Result<Option<usize>> {
        if let Some(at) = shard.find(key) {
            if self.trusted(&mut shard.entries[at], path, now, self.flock)? {
                return Ok(Some(at));
            }
            shard.displace(key);
        } else if !shard.admits(key) {
            return Ok(None);
        }
        match self.map(path, now, shard.bytes_left) {
            Ok(None) => {
                // From now on a file gets a map when another loses its own.
                shard.room = shard.entries.len();
                Ok(None)
            }
            Ok(Some(entry)) => {
                let entry = Entry {
                    key,
                    used: shard.tick,
                    ..entry
                };
                let at = shard.insert(entry);
                if self.flock && !self.trusted(&mut shard.entries[at], path, now, true)? {
                    shard.displace(key);
                    return Ok(None);
                }
                Ok(Some(at))
            }
            Err(error) if error.is_damage() => Err(self.set_aside(path, error)),
            Err(error) if error.is_missing() => Err(error),
            Err(reason) => {
                self.push(Event::NotMapped {
                    path: path.to_owned(),
                    reason,
                });
                Ok(None)
            }
        }
    }

    /// Whether a map is still that of the file at `path`; says so if it is not. With `locked`,
    /// takes the file lock first, and leaves it taken if the answer is yes.
    pub(super) fn trusted(
        &self,
        entry: &mut Entry,
        path: &Path,
        now: Timestamp,
        locked: bool,
    ) -> Result<bool> {
        if locked && let Some(file) = &entry.file {
            // Locks of this process are held: a neighbour must not keep them.
            flock(file, FlockOperation::NonBlockingLockExclusive)
                .map_err(|e| Error::io(path, "locking it", e))?;
        }
        match entry.mapping.watched(|| entry.header_now()) {
            Some(HeaderNow::Same) => {}
            Some(HeaderNow::Changed(header)) => entry.known = Arc::new(header.into()),
            Some(HeaderNow::Other) => {
                self.push(Event::Replaced {
                    path: path.to_owned(),
                });
                return Ok(false);
            }
            None => {
                self.push(Event::Lost {
                    path: path.to_owned(),
                });
                return Ok(false);
            }
        }
        let epoch = self.epoch.load(Ordering::Relaxed);
        let is_reported = locked || entry.epoch != epoch;
        let due = is_reported || now < entry.checked || now.0 - entry.checked.0 >= self.recheck;
        if !due {
            return Ok(true);
        }
        let same = !is_reported && self.was_seen(entry)
            || fs::metadata(path).is_ok_and(|found| entry.identity == Identity::of(&found));
        if !same {
            self.push(Event::Replaced {
                path: path.to_owned(),
            });
            return Ok(false);
        }
        entry.checked = now;
        entry.epoch = epoch;
        // A file that was overwritten in place may have other bases.
        entry.bases.iter().for_each(|base| base.set(0));
        Ok(true)
    }

    /// Whether a look has seen the file at its name of late. Each round of looks sees all mapped files.
    fn was_seen(&self, entry: &Entry) -> bool {
        entry.seen != 0 && self.looks().wrapping_sub(entry.seen) <= OF_LATE
    }

    /// Checks and maps a file; `None` if it is longer than `room`.
    fn map(&self, path: &Path, now: Timestamp, room: u64) -> Result<Option<Entry>> {
        let looks = self.looks();
        // A pipe that has the name is refused when it is read; opening it must not wait.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let open = |flags: OFlags| {
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true);
            options.custom_flags(flags.bits() as i32).open(path)
        };
        let opened = open(flags | OFlags::NOFOLLOW);
        let is_link = opened
            .as_ref()
            .is_err_and(|error| Errno::from_io_error(error) == Some(Errno::LOOP));
        let opened = if is_link { open(flags) } else { opened };
        let file = opened.map_err(|e| Error::io(path, "opening it", e))?;
        let header = Header::read_from(&file, path)?;
        let found = file
            .metadata()
            .map_err(|e| Error::io(path, "asking for its length", e))?;
        let needed = header.file_size();
        if found.len() < needed {
            return Err(Error::Truncated {
                path: path.to_owned(),
                needed,
                len: found.len(),
            });
        }
        if needed > room {
            return Ok(None);
        }
        if needed <= self.reserve_up_to && found.blocks() * 512 < needed {
            reserve(&file, needed).map_err(|e| Error::io(path, "reserving its holes", e))?;
        }
        let mapping = Mapping::new(&file, needed).map_err(|e| Error::io(path, "mapping it", e))?;
        Ok(Some(Entry {
            key: 0,
            used: 0,
            mapping,
            known: Arc::new(header.into()),
            bases: [const { Cell::new(0) }; BASES],
            identity: Identity::of(&found),
            checked: now,
            epoch: self.epoch.load(Ordering::Relaxed),
            logged: 0,
            seen: looks,
            is_link,
            file: self.flock.then_some(file),
        }))
    }

    /// Renames a damaged file, so that a new one can be made; other errors pass.
    pub(super) fn set_aside(&self, path: &Path, error: Error) -> Error {
        if !error.is_damage() {
            return error;
        }
        match set_aside(path) {
            Ok(aside) => {
                let (path, aside_again) = (path.to_owned(), aside.clone());
                let set_aside = Error::SetAside {
                    path: path.clone(),
                    aside: aside_again,
                };
                self.push(Event::SetAside {
                    path,
                    aside,
                    damage: error,
                });
                set_aside
            }
            Err(e) => Error::io(path, "setting the damaged file aside", e),
        }
    }
}

/// Renames a damaged file to `NAME.corrupt`, or `NAME.corrupt.N` with the first free number, and
/// gives back the new name. Nothing is overwritten.
///
/// # Errors
/// What the system says.
pub fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().as_bytes();
    // A long name is cut, so that it fits with its end.
    let kept = &name[..name.len().min(LONGEST_NAME - ".corrupt.4294967295".len())];
    let numbered = |n: u32| {
        let mut aside = kept.to_vec();
        aside.extend_from_slice(b".corrupt");
        if n > 0 {
            aside.extend_from_slice(format!(".{n}").as_bytes());
        }
        path.with_file_name(OsStr::from_bytes(&aside))
    };
    let free = |aside: &PathBuf| aside.symlink_metadata().is_err();
    let Some(aside) = (0..u32::MAX).map(numbered).find(free) else {
        return Err(std::io::ErrorKind::AlreadyExists.into());
    };
    fs::rename(path, &aside)?;
    Ok(aside)
}
