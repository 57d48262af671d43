//! What all clones of a store share.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock};
use whisper::map::Maps;

use super::setup::{Access, Clock, Guard};
use crate::cache::Cache;
use crate::clock::{Clocks, Steady};
use crate::conf::Files;
use crate::datapoint::{Observer, SeriesId};
use crate::index::Index;
use crate::journal::Journal;
use crate::journal::disk::Disk;
use crate::options::Options;
use crate::persister::{Parts, Persister};
use crate::room::Room;
use crate::schema::Schema;
use crate::stats::Stats;
use crate::stop::Stop;

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Which directory `root` was when it was opened.
    pub(crate) opened: Option<(u64, u64)>,
    pub(crate) guard: Option<Guard>,
    pub(crate) files: Files,
    pub(crate) disk: Arc<dyn Disk>,
    /// `None`: turned off, or nothing is written at all.
    pub(crate) journal: Option<Journal>,
    /// Held for reading from the journal into the cache, for writing while the journal rotates:
    /// what is in a finished segment is in the cache too.
    pub(crate) gate: RwLock<()>,
    pub(crate) options: Options,
    pub(crate) access: Access,
    pub(crate) clock: Clock,
    pub(crate) steady: Steady,
    pub(crate) room: Room,
    /// A shutdown was announced.
    pub(crate) closing: AtomicBool,
    pub(crate) behind: Mutex<Behind>,
    pub(crate) schema: Schema,
    pub(crate) index: Index,
    pub(crate) cache: Cache,
    pub(crate) maps: Maps,
    pub(crate) stats: Stats,
    pub(crate) persister: Mutex<Persister>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) observed: Mutex<Observed>,
    /// Ends the threads.
    pub(crate) stop: Stop,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    /// Damage that has been reported.
    pub(crate) left_out: Mutex<HashSet<String>>,
    /// What is wrong now, by the part that found it.
    pub(crate) trouble: Mutex<BTreeMap<&'static str, String>>,
}

/// What found no room while the store was shut down.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// Datapoints that only the journal has.
    pub(crate) journalled: usize,
    /// Datapoints that nothing has.
    pub(crate) lost: usize,
    pub(crate) series: HashSet<SeriesId>,
}

/// Which names the observer was told.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// All ids below.
    pub(crate) below: usize,
    /// So many of those that were given to other names since.
    pub(crate) reused: usize,
}

impl Inner {
    /// Has the threads end.
    pub(crate) fn stop_threads(&self) {
        self.stop.set();
        if let Some(journal) = &self.journal {
            journal.stop();
        }
    }

    /// The clocks that may be right now.
    pub(crate) fn clocks(&self) -> Clocks {
        match self.access {
            Access::Serve => self.steady.clocks((self.clock)()),
            Access::Frozen | Access::Inspect => Clocks::one((self.clock)()),
        }
    }

    /// The parts that the persister works on.
    pub(crate) fn parts(&self) -> Parts<'_> {
        Parts {
            cache: &self.cache,
            index: &self.index,
            maps: &self.maps,
            schema: &self.schema,
            stats: &self.stats,
            room: &self.room,
            write_strategy: self.options.write_strategy,
        }
    }
}
