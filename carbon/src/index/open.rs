//! Reads the index back at the start.

use std::path::{Path, PathBuf};

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
    /// The index of the whisper files below `root`, kept in the file `log`. Without that file the
    /// tree is walked before this returns. Nothing is limited.
    ///
    /// # Errors
    /// The log can be neither read nor written.
    pub fn open(root: &Path, log: PathBuf, read_only: bool) -> Result<Self> {
        Self::open_limited(root, log, read_only, &Options::default())
    }

    /// As [`Index::open`], with the limits on series that `options` names.
    ///
    /// # Errors
    /// As [`Index::open`].
    pub fn open_limited(
        root: &Path,
        log: PathBuf,
        read_only: bool,
        options: &Options,
    ) -> Result<Self> {
        let mut names = Names::below(root);
        let mut tree = Tree::default();
        let mut tags = Tags::default();
        let mut flags = Flags::default();
        let mut gone = Vec::new();
        let log = Log::open(log, read_only, |record, name| {
            let Ok(id) = names.restore(name) else {
                return;
            };
            let name = names.name(id);
            let tagged = series::is_tagged(name);
            match record {
                Record::Stored => {
                    flags.stored.set(id.0);
                    if flags.listed.set(id.0) {
                        if tagged {
                            tags.insert(id, name);
                        } else {
                            tree.insert(&names, id);
                        }
                    }
                }
                Record::Tagged => {
                    tags.insert(id, name);
                    if tagged {
                        flags.listed.set(id.0);
                    }
                }
                Record::Untagged => {
                    tags.remove(id, name);
                    if tagged {
                        flags.listed.clear(id.0);
                    }
                }
                Record::Gone => {
                    flags.stored.clear(id.0);
                    gone.push(id);
                }
            }
        })?;
        for id in gone {
            if !flags.stored.get(id.0) && flags.listed.get(id.0) {
                flags.listed.clear(id.0);
                if series::is_tagged(names.name(id)) {
                    tags.remove(id, names.name(id));
                } else {
                    tree.remove(&names, id);
                }
            }
        }
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
            log: Mutex::new(log),
            limits: Mutex::new(limits),
            held: Mutex::default(),
            grace: Grace::default(),
            unlinked: Mutex::default(),
            walk: Mutex::default(),
        };
        if !existed {
            index.reconcile(|_| false, || false)?;
        }
        Ok(index)
    }
}
