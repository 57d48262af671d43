//! Reads the index back at the start.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use parking_lot::{Mutex, RwLock};

use super::grace::Grace;
use super::limits::Limits;
use super::log::{Log, Record};
use super::state::{Flags, Index};
use super::tags::Tags;
use super::tree::Tree;
use crate::datapoint::SeriesId;
use crate::error::Result;
use crate::options::Options;
use crate::series::{self, Names};

impl Index {
    /// The index of the whisper files below `root`, with the log `log`. Without a log the tree is walked
    /// before this returns. New series are not limited.
    ///
    /// # Errors
    /// The log can be neither read nor written.
    pub fn open(root: &Path, log: PathBuf, read_only: bool) -> Result<Self> {
        Self::open_limited(root, log, read_only, &Options::default())
    }

    /// As [`Index::open`], with the limits on series in `options`.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn open_limited(
        root: &Path,
        log: PathBuf,
        read_only: bool,
        options: &Options,
    ) -> Result<Self> {
        let mut restored = Restored {
            names: Names::below(root),
            tree: Tree::default(),
            tags: Tags::default(),
            flags: Flags::default(),
            gone: Vec::new(),
        };
        let log = Log::open(log, read_only, |record, name| restored.take(record, name))?;
        let Restored {
            names,
            tree,
            tags,
            flags,
            ..
        } = restored.finish();
        let existed = log.existed;
        let mut limits = Limits::new(options);
        for id in 0..names.end() as u32 {
            limits.added(names.name(SeriesId(id)));
        }
        let index = Self {
            root: root.to_owned(),
            names: RwLock::new(names),
            tree: RwLock::new(tree),
            tags: RwLock::new(tags),
            flags: RwLock::new(flags),
            log,
            limits: Mutex::new(limits),
            held: Mutex::default(),
            grace: Grace::default(),
            nameless: AtomicUsize::new(0),
            hashed: Mutex::default(),
            unlinked: Mutex::default(),
            walk: Mutex::default(),
            receives_nothing: read_only,
        };
        if !existed {
            index.reconcile(|_| false, || false)?;
        }
        Ok(index)
    }
}

/// The index as the records of the log describe it.
struct Restored {
    names: Names,
    tree: Tree,
    tags: Tags,
    flags: Flags,
    /// Series whose file did not exist at some time.
    gone: Vec<SeriesId>,
}

impl Restored {
    fn take(&mut self, record: Record, name: &[u8]) {
        let Ok(id) = self.names.restore(name) else {
            return;
        };
        let name = self.names.name(id);
        let tagged = series::is_tagged(name);
        match record {
            Record::Stored => {
                self.flags.stored.set(id.0);
                if self.flags.listed.set(id.0) {
                    if tagged {
                        self.tags.insert(id, name);
                    } else {
                        self.tree.insert(&self.names, id);
                    }
                }
            }
            Record::Tagged => {
                self.tags.insert(id, name);
                if tagged {
                    self.flags.listed.set(id.0);
                }
            }
            Record::Untagged => {
                self.tags.remove(id, name);
                if tagged {
                    self.flags.listed.clear(id.0);
                }
            }
            Record::Gone => {
                self.flags.stored.clear(id.0);
                self.gone.push(id);
            }
        }
    }

    /// Takes series off the list whose file does not exist after the last record.
    fn finish(mut self) -> Self {
        for id in std::mem::take(&mut self.gone) {
            if !self.flags.stored.get(id.0) && self.flags.listed.get(id.0) {
                self.flags.listed.clear(id.0);
                let name = self.names.name(id);
                if series::is_tagged(name) {
                    self.tags.remove(id, name);
                } else {
                    self.tree.remove(&self.names, id);
                }
            }
        }
        self
    }
}
