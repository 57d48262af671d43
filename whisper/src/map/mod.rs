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
//!   file and period instead of one per batch, and none where [`Maps::confirm_next`] does that. [`Maps::distrust`] makes that the next batch, for
//!   all files.
//! - *By the file lock.* With `flock` on, each batch takes the lock and then asks; nothing written
//!   under the same lock by others can be missed or overtaken.
//!
//! What went into the old file before that is not lost: [`Maps`] keeps the points of the last seconds
//! until the caller has had the names looked up ([`Maps::confirm_next`]), and writes those of a file
//! that lost its name once more (`recent.rs`). A caller whom the kernel tells of changes in a directory need not
//! have the names in it looked up again and again ([`Name::Kept`]).
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
mod expected;
mod identity;
mod mapped;
mod memory;
mod recent;
mod shard;
mod trust;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Resource, getrlimit};

use crate::aggregation::Aggregation;
use crate::error::{Error, Result};
use crate::fetch::{self, Fetched};
use crate::file::{File, Lock};
use crate::pending::{self, Needed, Question};
use crate::point::Point;
use crate::units::Timestamp;
use crate::update::{self, Arrival, Updated};

pub use confirm::{Asked, Confirmed, Name};
pub use trust::set_aside;

use directories::Directories;
use identity::Identity;
use mapped::Mapped;
use shard::{Entry, Shard};

/// The parts that files are divided into: each has a lock, and a file belongs to that of its number modulo
/// this.
pub const PARTS: usize = 16;
/// Of so many rounds over the shards, one looks at all mapped files. A file without points of late loses
/// nothing when it is replaced, and its next use looks at its name, too ([`MapOptions::recheck`]).
///
/// [`MapOptions::recheck`]: super::MapOptions::recheck
const ALL_EVERY: usize = 12;
/// Maps that the rest of the process may need: libraries, stacks, other databases.
const SPARE_MAPS: usize = 4096;
/// Events that wait to be taken at most; more are counted.
const MAX_EVENTS: usize = 1024;

/// How many files are mapped, and how closely they are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapOptions {
    /// Files mapped at once. Lowered to what `vm.max_map_count` and, with `flock`, the limit of
    /// open files leave; 0 maps none.
    pub max_maps: usize,
    /// Take whisper's file lock (`flock`) around each write. A batch for a file that another program has
    /// locked is refused at once ([`Error::is_busy`]).
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
    /// How many looks at names have begun.
    looks: AtomicU32,
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
            room: (max_maps + n) / PARTS,
            bytes_left: max_bytes / PARTS as u64,
            ..Shard::default()
        };
        Self {
            shards: (0..PARTS).map(|n| Mutex::new(shard(n))).collect(),
            flock,
            recheck,
            reserve_up_to,
            epoch: AtomicU32::new(0),
            next_shard: AtomicU32::new(0),
            looks: AtomicU32::new(0),
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
        let lock = if self.flock { Lock::Try } else { Lock::None };
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

    /// Answers `question` as if the points had been written that `waiting` returns, as [`File::fetch_pending`] does,
    /// and says how the file aggregates. Reads from the map if there is one, whole points in any case. `waiting` is
    /// called once more if the map turns out to be lost. With `None` all points are needed.
    ///
    /// # Errors
    /// As [`File::open`] and [`File::fetch`].
    pub fn fetch_pending(
        &self,
        key: u32,
        path: &Path,
        question: Question,
        now: Timestamp,
        mut waiting: impl FnMut(Option<Needed>) -> (Arrival, Vec<Point>),
    ) -> Result<(Option<Fetched>, Aggregation, f32)> {
        let mut shard = self.shard(key);
        if let Some(at) = shard.find(key) {
            if self.trusted(&mut shard.entries[at], path, now, false)? {
                let Entry {
                    mapping,
                    known,
                    bases,
                    ..
                } = &shard.entries[at];
                let header = &known.header;
                let bytes = Mapped { mapping, bases };
                let answer = mapping.watched(|| {
                    pending::fetch_over(&bytes, header, question, now, |needed| {
                        waiting(Some(needed))
                    })
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
        let again = shard.recent.displaced(key).to_vec();
        drop(shard);
        let file = File::open(path)?;
        let answer = file.fetch_pending(question, now, |needed| {
            let (arrival, points) = waiting(again.is_empty().then_some(needed));
            (arrival, [&again[..], &points].concat())
        })?;
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
        self.shards[key as usize % PARTS].lock()
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
