//! The state that all clones of a store share.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use whisper::map::Maps;

use super::deliveries::Deliveries;
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
use crate::relay::live::Relay;
use crate::rules::Rules;
use crate::schema::Schema;
use crate::signal::Signal;
use crate::stats::Stats;
use crate::stop::Stop;

/// The longest time that points wait for a pass.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(1);

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    /// The data directory.
    pub(crate) data: PathBuf,
    /// The directory that `root` was when the store was opened; `None` if it was not there.
    pub(crate) opened: Option<File>,
    pub(crate) guard: Option<Guard>,
    pub(crate) files: Files,
    pub(crate) disk: Arc<dyn Disk>,
    /// `None`: disabled, or the store is read-only.
    pub(crate) journal: Option<Journal>,
    /// Locked for reading while points are appended to the journal and inserted into the cache, for writing
    /// when a segment ends: points of a finished segment are in the cache too.
    pub(crate) gate: RwLock<()>,
    pub(crate) options: Options,
    pub(crate) access: Access,
    pub(crate) clock: Clock,
    pub(crate) steady: Steady,
    /// Sent when there may be room in the cache and the journal again, and at the shutdown.
    pub(crate) room: Signal,
    /// Sent when the empty cache gets points (while points may not wait, when a series does), when room is
    /// short, when the journal pauses, and at the end: wakes the persister.
    pub(crate) work: Arc<Signal>,
    /// When the shutdown was announced.
    pub(crate) closing: OnceLock<Instant>,
    pub(crate) behind: Mutex<Behind>,
    pub(crate) schema: Schema,
    /// `None`: no rule file is configured.
    pub(crate) rules: Option<Arc<Rules>>,
    /// `None`: no route is configured.
    pub(crate) relay: Option<Relay>,
    pub(crate) index: Index,
    pub(crate) cache: Cache,
    pub(crate) maps: Maps,
    pub(crate) stats: Stats,
    pub(crate) persister: Mutex<Persister>,
    /// New series that wait for a second timestamp, as of the last pass.
    pub(crate) undecided: AtomicUsize,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) observed: Mutex<Observed>,
    /// Ends the threads.
    pub(crate) stop: Stop,
    pub(crate) threads: Mutex<Vec<JoinHandle<()>>>,
    /// Damaged files that have been logged.
    pub(crate) left_out: Mutex<HashSet<String>>,
    /// Threads that read files ahead for queries.
    pub(crate) readers: AtomicUsize,
    /// Present problems, by the part that found them.
    pub(crate) trouble: Mutex<BTreeMap<&'static str, String>>,
    /// `None`: the points go into whisper files.
    pub(crate) remote: Option<Deliveries>,
}

/// Points without room during the shutdown.
#[derive(Debug, Default)]
pub(crate) struct Behind {
    /// Datapoints that are only in the journal.
    pub(crate) journalled: usize,
    /// Datapoints that are lost.
    pub(crate) lost: usize,
    pub(crate) series: HashSet<SeriesId>,
    /// [`super::carbon::Carbon::wait_no_longer`] was called.
    pub(crate) is_time_up: bool,
}

/// The names of which the observer has been informed.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// All ids below this one.
    pub(crate) below: usize,
    /// This many of the ids that were assigned again.
    pub(crate) reused: usize,
}

impl Inner {
    /// Asks the threads to end.
    pub(crate) fn stop_threads(&self) {
        self.stop.set();
        self.work.send();
        if let Some(relay) = &self.relay {
            relay.stop();
        }
        if let Some(journal) = &self.journal {
            journal.stop();
        }
    }

    /// How long points may wait for their files, if longer than a pass takes to begin. Without a journal only
    /// the files keep them, and they do not wait.
    pub(crate) fn may_wait(&self) -> Option<Duration> {
        if let Some(remote) = &self.remote {
            return Some(remote.within());
        }
        let within = self.options.persist_within.0;
        (self.journal.is_some() && within > LONGEST_WAIT).then_some(within)
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
            journal: self.journal.as_ref(),
            index: &self.index,
            maps: &self.maps,
            schema: &self.schema,
            stats: &self.stats,
            room: &self.room,
            stop: &self.stop,
            undecided: &self.undecided,
            write_strategy: self.options.write_strategy,
        }
    }
}
