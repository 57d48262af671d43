//! The parts of the index, each behind its lock, and simple lookups in them.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use super::bits::Bits;
use super::grace::{Grace, Pin};
use super::hashes::Hashed;
use super::limits::{Limits, Refused};
use super::log::Log;
use super::tags::Tags;
use super::tree::Tree;
use crate::datapoint::SeriesId;
use crate::error::Result;
use crate::series::{self, Names};

#[derive(Debug, Default)]
pub(super) struct Flags {
    /// In the tree, or for tagged series in the tag index.
    pub(super) listed: Bits,
    /// Has a file at the path of its name.
    pub(super) stored: Bits,
    /// Tagged series whose file has the name of the series and not its hash.
    pub(super) unhashed: HashSet<u32>,
}

/// The index.
#[derive(Debug)]
pub struct Index {
    pub(super) root: PathBuf,
    pub(super) names: RwLock<Names>,
    pub(super) tree: RwLock<Tree>,
    pub(super) tags: RwLock<Tags>,
    pub(super) flags: RwLock<Flags>,
    pub(super) log: Log,
    pub(super) limits: Mutex<Limits>,
    /// How often each id was given out by [`Index::hold`] and not released.
    pub(super) held: Mutex<Vec<u32>>,
    pub(super) grace: Grace,
    /// Hashed files of tagged series whose name is not known.
    pub(super) nameless: AtomicUsize,
    /// Hashed files that have appeared while the server runs.
    pub(super) hashed: Mutex<Hashed>,
    /// Names that were unlinked and wait for the grace to be over.
    pub(super) unlinked: Mutex<Vec<SeriesId>>,
    /// Held while the disk is walked and while files are deleted: a file that the walk has seen exists
    /// until its series is listed.
    pub(super) walk: Mutex<()>,
    /// Nothing is received, as in a replay of recordings (`render.now`): a plain series counts as
    /// registered only if that was asked for, as in a graphite-web without carbon.
    pub(super) receives_nothing: bool,
}

impl Index {
    /// The names, for many lookups at once.
    pub fn names(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read()
    }

    /// Ids that are looked up from now on keep their names while the pin exists.
    pub fn pin(&self) -> Pin<'_> {
        self.grace.pin()
    }

    pub(super) fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock()
    }

    pub(super) fn held(&self) -> MutexGuard<'_, Vec<u32>> {
        self.held.lock()
    }

    /// Waits for the end of a walk over the disk, and prevents further ones while the guard exists.
    pub(crate) fn no_walk(&self) -> MutexGuard<'_, ()> {
        self.walk.lock()
    }

    /// Names that were refused because of limits.
    pub fn refused(&self) -> Refused {
        self.limits().refused()
    }

    /// The canonical name of `id`.
    pub fn name(&self, id: SeriesId) -> String {
        self.names().name(id).to_owned()
    }

    /// Writes the path of the file of `id` into `path`. Returns whether the file is known to exist.
    pub(crate) fn path(&self, id: SeriesId, path: &mut PathBuf) -> bool {
        let names = self.names();
        let name = names.name(id);
        let (stored, unhashed) = {
            let flags = self.flags.read();
            (flags.stored.get(id.0), flags.unhashed.contains(&id.0))
        };
        if unhashed {
            *path = series::unhashed_path(&self.root, name);
            return true;
        }
        series::file_path(&self.root, name, path);
        if stored || !series::is_tagged(name) {
            return stored;
        }
        let other = series::unhashed_path(&self.root, name);
        // Receivers lock the names: they must not wait for the disk.
        drop(names);
        if !path.exists() && other.exists() {
            self.flags.write().unhashed.insert(id.0);
            *path = other;
            return true;
        }
        false
    }

    /// The path of the file of the series `name`, which need not be known.
    pub(crate) fn path_of(&self, known: Option<SeriesId>, name: &str) -> PathBuf {
        let mut path = PathBuf::new();
        if let Some(id) = known {
            self.path(id, &mut path);
            return path;
        }
        series::file_path(&self.root, name, &mut path);
        if series::is_tagged(name) && !path.exists() {
            let other = series::unhashed_path(&self.root, name);
            if other.exists() {
                return other;
            }
        }
        path
    }

    /// Writes records of the log that wait in memory, once there are enough for a frame. Adding records
    /// never waits for the disk, so threads that may wait call this from time to time.
    ///
    /// # Errors
    /// The disk failed. Series with a file are found again when the disk is walked.
    pub(crate) fn write_log(&self) -> Result<()> {
        self.log.write_full()
    }

    /// Writes and syncs all records of the log.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sync(&self) -> Result<()> {
        self.log.sync()
    }

    /// How many series are listed.
    pub fn len(&self) -> usize {
        self.tree.read().len() + self.tags.read().all().len() as usize
    }

    /// Whether no series is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes allocated for names and tree.
    pub fn size_bytes(&self) -> usize {
        self.names().size_bytes() + self.tree.read().size_bytes()
    }
}
