//! Files that stay mapped: a store of many files, of which those in use need no system call.
//!
//! 1. A file is named by a number of the caller's ([`Maps`] never asks what it means) and by its
//!    path, which is looked at only when the file is not mapped or is due for a check.
//! 2. What is mapped has been checked (header, length, space on disk) and stays mapped until it is
//!    forgotten, evicted, replaced or found damaged. An update of a mapped file makes no system
//!    call, unless [`MapOptions::flock`] is on.
//! 3. Whatever cannot be mapped, or is not worth it, goes the way of [`crate::file`]: open once per
//!    batch, `pread`, `pwrite`, close.
//! 4. The lock of a shard is held while one of its maps is worked on: in this process a file has
//!    one writer at a time, and its readers see whole points.
//!
//! ## How is a replaced file noticed without a system call?
//!
//! A tool that renames a new file into the place of a mapped one leaves the map on the old one.
//! There are three nets, from the cheapest to the surest:
//!
//! - *In the mapped bytes.* Each update compares the first sixteen bytes of the header with those
//!   it knows, a load from memory. Our own tools write a flag there, into the file they replaced
//!   ([`crate::resize()`]); changed methods and factors are seen the same way, and so is a file that
//!   somebody filled with zeroes.
//! - *By the clock of the caller.* The first batch for a file that is [`MapOptions::recheck`]
//!   seconds of `now` after the last check asks the system what its name leads to: one `stat` per
//!   file and period instead of one per batch. [`Maps::distrust`] makes that the next batch, for
//!   all files.
//! - *By the file lock.* With `flock` on, each batch takes the lock and then asks; nothing written
//!   under the same lock by others can be missed or overtaken.
//!
//! What went into the old file before that is not lost: [`Maps`] keeps the points of the last seconds
//! until the caller has had the names looked up ([`Maps::confirm_next`]), and writes those of a file
//! that lost its name once more (`recent.rs`).
//!
//! ## Which files are mapped?
//!
//! All, while there is room: for so many maps, and for so many bytes where the process may have only
//! so much address space, of which half is left to others. Then a file takes the place of another only if it was used twice
//! within the time that the other was not used at all: a round through more files than there is
//! room for leaves those that are mapped alone, instead of throwing out each one before it is
//! used again.

mod confirm;
mod create;
mod directories;
mod memory;
mod recent;
mod shard;

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::process::{Resource, getrlimit};

use crate::aggregation::Aggregation;
use crate::create::reserve;
use crate::error::{Error, Result};
use crate::fetch::{self, Fetched};
use crate::file::{File, Lock};
use crate::header::Header;
use crate::pending::{self, Question};
use crate::point::Point;
use crate::storage::Storage;
use crate::units::Timestamp;
use crate::update::{self, Arrival, Updated};

pub use confirm::Confirmed;
use directories::Directories;
use memory::Mapping;
use shard::{BASES, Entry, HeaderNow, Identity, Shard};

/// How many locks there are; a file belongs to that of its number's lowest bits.
const SHARDS: usize = 16;
/// Maps that the rest of the process may need: libraries, stacks, other databases.
const SPARE_MAPS: usize = 4096;
/// The bytes of the longest name that a file can have.
const LONGEST_NAME: usize = 255;
/// Events that wait to be taken at most; more are counted.
const MAX_EVENTS: usize = 1024;

/// How many files are mapped, and how closely they are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapOptions {
    /// Files mapped at once. Lowered to what `vm.max_map_count` and, with `flock`, the limit of
    /// open files leave; 0 maps none.
    pub max_maps: usize,
    /// Take whisper's file lock (`flock`) around each write.
    pub flock: bool,
    /// Seconds of `now` after which the name of a mapped file is looked up again; 0 looks it up
    /// before each batch.
    pub recheck: u32,
    /// Files with holes are given their blocks before they are mapped if they are no longer than
    /// this. In a longer one a hole is filled when it is written; should the disk be full then,
    /// that batch fails as it would without a map.
    pub reserve_up_to: u64,
}

impl Default for MapOptions {
    fn default() -> Self {
        Self {
            max_maps: 32_768,
            flock: false,
            recheck: 60,
            reserve_up_to: u64::MAX,
        }
    }
}

/// Something that happened to a file and that should be reported.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A damaged file was renamed, so that a new one can take its place.
    SetAside {
        /// The file.
        path: PathBuf,
        /// Its new name.
        aside: PathBuf,
        /// What is wrong with it.
        damage: Error,
    },
    /// Another file had taken the name of a mapped one, or none had it any more; the map is gone.
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// Pages of a mapped file were lost (it was cut, or the disk failed); the map is gone, and
    /// the batch went to the file itself.
    Lost {
        /// The file.
        path: PathBuf,
    },
    /// A file is written without a map, because it could not be mapped.
    NotMapped {
        /// The file.
        path: PathBuf,
        /// What was refused.
        reason: Error,
    },
    /// This many events came while too many waited.
    Missed(u64),
}

/// Mapped files. Can be shared by threads.
#[derive(Debug)]
pub struct Maps {
    shards: Box<[Mutex<Shard>]>,
    flock: bool,
    recheck: u32,
    reserve_up_to: u64,
    /// Raised by `distrust`: maps checked under an earlier one are due.
    epoch: AtomicU32,
    /// Whose files `confirm_next` looks at next.
    next_shard: AtomicU32,
    events: Mutex<Vec<Event>>,
    missed: AtomicU64,
    directories: Mutex<Directories>,
    /// The file system has no files without a name.
    names_new_files: AtomicBool,
}

impl Maps {
    /// A store without any file mapped yet.
    pub fn new(options: MapOptions) -> Self {
        let MapOptions {
            max_maps,
            flock,
            recheck,
            reserve_up_to,
        } = options;
        let max_maps = max_maps.min(most_maps(flock));
        let max_bytes = most_bytes(getrlimit(Resource::As).current);
        let shard = |n| Shard {
            room: (max_maps + n) / SHARDS,
            bytes_left: max_bytes / SHARDS as u64,
            ..Shard::default()
        };
        Self {
            shards: (0..SHARDS).map(|n| Mutex::new(shard(n))).collect(),
            flock,
            recheck,
            reserve_up_to,
            epoch: AtomicU32::new(0),
            next_shard: AtomicU32::new(0),
            events: Mutex::default(),
            missed: AtomicU64::new(0),
            directories: Mutex::default(),
            names_new_files: AtomicBool::new(false),
        }
    }

    /// Writes a batch to the file that the caller calls `key` and that lies at `path`, as
    /// [`File::update_many`] does. Points of it that a displaced file swallowed go first
    /// ([`Maps::displaced`]); otherwise an empty batch touches nothing. The answer counts `points`
    /// alone.
    ///
    /// # Errors
    /// [`Error::Io`]. A file that is not there and one that was damaged and has been set aside
    /// ([`Error::SetAside`]) are both missing ([`Error::is_missing`]): the caller creates a new
    /// one and comes again.
    pub fn update_many(
        &self,
        key: u32,
        path: &Path,
        arrival: impl Into<Arrival>,
        points: &[Point],
    ) -> Result<Updated> {
        let arrival = arrival.into();
        let mut shard = self.shard(key);
        if points.is_empty() && !shard.recent.is_displaced(key) {
            return Ok(Updated::default());
        }
        let at = self.mapped(&mut shard, key, path, arrival.now)?;
        let mut kept = shard.recent.take_displaced(key);
        let written = self.write(&mut shard, at, path, arrival, &mut kept, (key, points));
        if written.is_err() {
            shard.recent.put_back(key, kept);
        }
        written
    }

    /// Writes `kept` and `points`, through the map at `at` if there is one.
    fn write(
        &self,
        shard: &mut Shard,
        at: Option<usize>,
        path: &Path,
        arrival: Arrival,
        kept: &mut Vec<Point>,
        (key, points): (u32, &[Point]),
    ) -> Result<Updated> {
        if let Some(at) = at {
            let Shard {
                entries, scratch, ..
            } = &mut *shard;
            let Entry {
                mapping,
                known,
                bases,
                file,
                ..
            } = &entries[at];
            let header = &known.header;
            let mut bytes = Mapped { mapping, bases };
            let written = mapping.watched(|| {
                if !kept.is_empty() {
                    update::update_many(&mut bytes, header, scratch, arrival, kept)?;
                }
                update::update_many(&mut bytes, header, scratch, arrival, points)
            });
            if let Some(file) = file {
                // Nothing to be done if this fails: closing the file unlocks it too.
                let _ = flock(file, FlockOperation::Unlock);
            }
            if let Some(written) = written {
                let updated = written?;
                self.keep(shard, at, path, &[kept, points]);
                return Ok(updated);
            }
            // Points before these may be on the lost pages, too.
            shard.displace(key);
            kept.extend(shard.recent.take_displaced(key));
            self.push(Event::Lost {
                path: path.to_owned(),
            });
        }
        let lock = if self.flock {
            Lock::Exclusive
        } else {
            Lock::None
        };
        let mut file = File::open_mut(path, lock).map_err(|error| self.set_aside(path, error))?;
        if !kept.is_empty() {
            file.update_many(arrival, kept)?;
        }
        file.update_many(arrival, points)
    }

    /// Keeps what has just been written through a map until its file is looked at. If there is no
    /// room, that is now.
    fn keep(&self, shard: &mut Shard, at: usize, path: &Path, batches: &[&[Point]]) {
        let recent = &mut shard.recent;
        let entry = &mut shard.entries[at];
        entry.logged = recent.generation();
        for points in batches {
            if recent.push(entry.key, points) {
                continue;
            }
            let key = entry.key;
            if fs::metadata(path).is_ok_and(|found| entry.identity == Identity::of(&found)) {
                continue;
            }
            shard.displace(key);
            for points in batches {
                shard.recent.displace_points(key, points);
            }
            self.push(Event::Replaced {
                path: path.to_owned(),
            });
            return;
        }
    }

    /// Reads (`from`, `until`] as [`File::fetch`] does, from the map if there is one. A file is
    /// not mapped for being read, and not set aside for being damaged.
    ///
    /// # Errors
    /// As [`File::open`] and [`File::fetch`].
    pub fn fetch(
        &self,
        key: u32,
        path: &Path,
        now: Timestamp,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Fetched>> {
        let mut shard = self.shard(key);
        if let Some(at) = shard.find(key) {
            if self.trusted(&mut shard.entries[at], path, now, false)? {
                let Shard {
                    entries, scratch, ..
                } = &mut *shard;
                let Entry {
                    mapping,
                    known,
                    bases,
                    ..
                } = &entries[at];
                let header = &known.header;
                let Some(range) = fetch::choose(header, now, from, until, None)? else {
                    return Ok(None);
                };
                let bytes = Mapped { mapping, bases };
                let buffer = &mut scratch.fetched;
                if let Some(read) = mapping.watched(|| fetch::read(&bytes, header, range, buffer)) {
                    return read.map(Some);
                }
                self.push(Event::Lost {
                    path: path.to_owned(),
                });
            }
            shard.displace(key);
        }
        drop(shard);
        File::open(path)?.fetch(now, from, until)
    }

    /// Answers `question` as if `points` had been written, and says how the file aggregates. Reads from the map if there is one, whole points in any case.
    ///
    /// # Errors
    /// As [`File::open`] and [`File::fetch`].
    pub fn fetch_pending(
        &self,
        key: u32,
        path: &Path,
        question: Question,
        arrival: impl Into<Arrival>,
        points: &[Point],
    ) -> Result<(Option<Fetched>, Aggregation, f32)> {
        let arrival = arrival.into();
        let mut shard = self.shard(key);
        if let Some(at) = shard.find(key) {
            if self.trusted(&mut shard.entries[at], path, arrival.now, false)? {
                let Entry {
                    mapping,
                    known,
                    bases,
                    ..
                } = &shard.entries[at];
                let header = &known.header;
                let bytes = Mapped { mapping, bases };
                let answer = mapping.watched(|| {
                    pending::fetch_over(Some(&bytes), header, question, arrival, points)
                });
                if let Some(answer) = answer {
                    return Ok((answer?, header.aggregation, header.x_files_factor));
                }
                self.push(Event::Lost {
                    path: path.to_owned(),
                });
            }
            shard.displace(key);
        }
        // What is to be written again comes before what waits.
        let again = shard.recent.displaced(key);
        let joined = (!again.is_empty()).then(|| [again, points].concat());
        drop(shard);
        let points = joined.as_deref().unwrap_or(points);
        let file = File::open(path)?;
        let answer = file.fetch_pending(question, arrival, points)?;
        let header = file.header();
        Ok((answer, header.aggregation, header.x_files_factor))
    }

    /// Unmaps a file, before it is deleted or renamed by the owner of the store.
    pub fn forget(&self, key: u32) {
        self.shard(key).forget(key);
    }

    /// Has the name of each mapped file looked up before its next batch.
    pub fn distrust(&self) {
        self.epoch.fetch_add(1, Ordering::Relaxed);
    }

    /// How many files are mapped.
    pub fn mapped_files(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().index.len())
            .sum()
    }

    /// What happened since the last call.
    pub fn take_events(&self) -> Vec<Event> {
        let mut events = std::mem::take(&mut *self.events.lock());
        match self.missed.swap(0, Ordering::Relaxed) {
            0 => {}
            missed => events.push(Event::Missed(missed)),
        }
        events
    }

    // Not poisoned by a panic elsewhere, which leaves at worst a batch half written that a later one
    // completes.
    fn shard(&self, key: u32) -> MutexGuard<'_, Shard> {
        self.shards[key as usize % SHARDS].lock()
    }

    fn push(&self, event: Event) {
        let mut events = self.events.lock();
        if events.len() < MAX_EVENTS {
            events.push(event);
        } else {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Finding, checking and making maps.
impl Maps {
    /// Where the map of `key` is, ready to be written (and locked, with `flock`); `None` if the
    /// file is to be written without one.
    fn mapped(
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
    fn trusted(
        &self,
        entry: &mut Entry,
        path: &Path,
        now: Timestamp,
        locked: bool,
    ) -> Result<bool> {
        if locked && let Some(file) = &entry.file {
            flock(file, FlockOperation::LockExclusive)
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
        let due = locked
            || entry.epoch != epoch
            || now < entry.checked
            || now.0 - entry.checked.0 >= self.recheck;
        if !due {
            return Ok(true);
        }
        let same = fs::metadata(path).is_ok_and(|found| entry.identity == Identity::of(&found));
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

    /// Checks and maps a file; `None` if it is longer than `room`.
    fn map(&self, path: &Path, now: Timestamp, room: u64) -> Result<Option<Entry>> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            // A pipe that has the name is refused when it is read; opening it must not wait.
            .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
            .open(path)
            .map_err(|e| Error::io(path, "opening it", e))?;
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
            file: self.flock.then_some(file),
        }))
    }

    /// Renames a damaged file, so that a new one can be made; other errors pass.
    fn set_aside(&self, path: &Path, error: Error) -> Error {
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

/// A map as storage. Copies cannot fail; whether their bytes were there is the watcher's question.
struct Mapped<'a> {
    mapping: &'a Mapping,
    bases: &'a [Cell<u32>; BASES],
}

impl Storage for Mapped<'_> {
    fn read(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
        self.mapping.read(offset, len, into);
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.mapping.write(offset, bytes);
        Ok(())
    }

    fn base(&self, header: &Header, index: usize) -> Result<Timestamp> {
        let known = self.bases.get(index).map_or(0, Cell::get);
        if known != 0 {
            return Ok(Timestamp(known));
        }
        let base = self
            .mapping
            .word(u64::from(header.archives()[index].offset));
        if let Some(cell) = self.bases.get(index) {
            cell.set(base);
        }
        Ok(Timestamp(base))
    }

    fn based(&mut self, index: usize, base: Timestamp) {
        if let Some(cell) = self.bases.get(index) {
            cell.set(base.0);
        }
    }
}

/// How many maps the system leaves room for.
fn most_maps(flock: bool) -> usize {
    let maps = fs::read_to_string("/proc/sys/vm/max_map_count");
    let maps = maps
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(65_530_usize);
    let maps = maps.saturating_sub(SPARE_MAPS);
    if !flock {
        return maps;
    }
    // Each map keeps its file open for the lock. Half of what may be open is left to sockets.
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX) / 2;
    maps.min(usize::try_from(files).unwrap_or(usize::MAX))
}

/// How many bytes may be mapped in an address space that is limited to `limit` bytes.
fn most_bytes(limit: Option<u64>) -> u64 {
    limit.map_or(u64::MAX, |limit| limit / 2)
}
