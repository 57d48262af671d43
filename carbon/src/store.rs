//! The store: cache and files read as one, and the way of a datapoint into both.
//!
//! 1. [`Carbon::submit`] sets room aside, journals, and puts into the cache, in this order; when it
//!    returns, queries see the points and patterns find their series.
//! 2. A query asks the cache first and the file second: what the persister moves meanwhile is seen
//!    twice, never not at all, and counts once.
//! 3. An answer over cache and file is what the file alone would answer after the cached points
//!    were written to it (`whisper::pending`), coarser archives included.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use whisper::map::{MapOptions, Maps};
use whisper::{Aggregation, Point, Question, Timestamp};

use crate::cache::Cache;
use crate::datapoint::{Datapoint, NameError, Observer, SeriesId, Sink};
use crate::error::{Error, Result};
use crate::expiry;
use crate::index::{Index, Reconciled};
use crate::journal::disk::{Disk, RealDisk};
use crate::journal::{self, Journal, Replayed};
use crate::options::{JournalOptions, Options, Span, Sync};
use crate::persister::{Kind, Pass, Persister};
use crate::schema::Schema;
use crate::stats::Stats;

/// What an opened store may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    #[default]
    Serve,
    /// Answer queries and keep registrations of tags; datapoints are counted and dropped, whisper
    /// files are not written.
    Frozen,
    /// Answer queries and change nothing on disk: for a look at a data directory that a server
    /// may be using.
    Inspect,
}

/// Where the store gets the time from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + std::marker::Sync>;

/// Everything that [`Carbon::open`] is told.
#[derive(Clone)]
pub struct Setup {
    /// `[carbon]`.
    pub options: Options,
    /// `[journal]`.
    pub journal: JournalOptions,
    /// What new files are like.
    pub schema: Schema,
    /// What may be changed.
    pub access: Access,
    /// The clock.
    pub clock: Clock,
    /// The disk below journal and checkpoints.
    pub disk: Arc<dyn Disk>,
    /// Told at the start how many bytes of the journal were read back, of how many.
    pub replaying: Progress,
    /// Looks at what is taken.
    pub observer: Option<Arc<dyn Observer>>,
}

/// Told how far something has come, of how much.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + std::marker::Sync>;

impl Setup {
    /// A setup for serving by the system's clock, with the built-in schema for statsd that flushes
    /// every `flush_interval`.
    pub fn new(options: Options, journal: JournalOptions, flush_interval: Span) -> Self {
        Self {
            options,
            journal,
            schema: Schema::built_in(flush_interval),
            access: Access::Serve,
            clock: Arc::new(system_clock),
            disk: Arc::new(RealDisk),
            replaying: Arc::new(|_, _| {}),
            observer: None,
        }
    }
}

fn system_clock() -> Timestamp {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(elapsed.map_or(0, |elapsed| elapsed.as_secs() as u32))
}

/// The points of a series over a range.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// Range, step and values.
    pub points: whisper::Fetched,
    /// How the file aggregates.
    pub aggregation: Aggregation,
}

/// The store. Cloning is cheap: all clones are the same store.
#[derive(Clone)]
pub struct Carbon(pub(crate) Arc<Inner>, #[expect(dead_code)] Arc<Handle>);

/// What all clones have in common: when the last goes, the persister's thread ends.
struct Handle(Arc<Inner>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.stop();
    }
}

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    /// The data directory.
    pub(crate) data: PathBuf,
    disk: Arc<dyn Disk>,
    /// `None`: turned off, or nothing is written at all.
    journal: Option<Journal>,
    /// Held for reading from the journal into the cache, for writing while the journal rotates:
    /// what is in a finished segment is in the cache too.
    gate: RwLock<()>,
    pub(crate) options: Options,
    pub(crate) access: Access,
    pub(crate) clock: Clock,
    pub(crate) schema: Schema,
    pub(crate) index: Index,
    pub(crate) cache: Cache,
    pub(crate) maps: Maps,
    pub(crate) stats: Stats,
    pub(crate) persister: Mutex<Persister>,
    observer: Option<Arc<dyn Observer>>,
    observed: Mutex<Observed>,
    /// Tells the persister's thread to come to an end.
    stop: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Damage that has been reported.
    left_out: Mutex<HashSet<String>>,
}

/// Which names the observer was told.
#[derive(Debug, Default)]
struct Observed {
    /// All ids below.
    below: usize,
    /// So many of those that were given to other names since.
    reused: usize,
}

/// How often the persister looks whether a pass is due.
const TICK: Duration = Duration::from_millis(20);
/// The longest that points wait for a pass.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

impl Carbon {
    /// Opens the store in the data directory `data`, which the caller holds the lock of.
    ///
    /// # Errors
    /// A directory or file of the store cannot be made, read or written.
    pub fn open(setup: Setup, data: &Path) -> Result<Self> {
        let Setup {
            options,
            journal: journal_options,
            schema,
            access,
            clock,
            disk,
            replaying,
            observer,
        } = setup;
        if let Some(warning) = schema.warning() {
            tracing::warn!("{warning}");
        }
        let root = match options.whisper_dir.as_str() {
            "" => data.join("whisper"),
            tree => PathBuf::from(tree),
        };
        let names = data.join("index").join("names");
        if access != Access::Inspect {
            for directory in [&root, &data.join("index")] {
                std::fs::create_dir_all(directory)
                    .map_err(|error| Error::io(directory, "creating the directory", error))?;
            }
        }
        let index = Index::open_limited(&root, names, access == Access::Inspect, &options)?;
        let cache = Cache::new(usize::try_from(options.max_cache_size.0).unwrap_or(usize::MAX));
        let persister = Persister::new(
            options.max_updates_per_second,
            options.max_creates_per_minute,
        );
        let maps = Maps::new(MapOptions {
            flock: options.flock,
            reserve_up_to: crate::schema::RESERVE_UP_TO,
            ..MapOptions::default()
        });
        let journal_directory = data.join("journal");
        let journal = match (access, journal_options.sync) {
            (Access::Serve, Sync::Always | Sync::Every(_)) => {
                std::fs::create_dir_all(&journal_directory).map_err(|error| {
                    Error::io(&journal_directory, "creating the directory", error)
                })?;
                let disk = Arc::clone(&disk);
                Some(Journal::open(&journal_directory, disk, &journal_options)?)
            }
            _ => None,
        };
        let inner = Arc::new(Inner {
            root,
            data: data.to_owned(),
            disk,
            journal,
            gate: RwLock::default(),
            options,
            access,
            clock,
            schema,
            index,
            cache,
            maps,
            stats: Stats::default(),
            persister: Mutex::new(persister),
            observer,
            observed: Mutex::default(),
            stop: AtomicBool::new(false),
            threads: Mutex::default(),
            left_out: Mutex::default(),
        });
        if access == Access::Serve {
            inner.replay(&journal_directory, &*replaying)?;
        }
        let carbon = Self(Arc::clone(&inner), Arc::new(Handle(Arc::clone(&inner))));
        if access == Access::Serve {
            let spawn = |name: &str, work: fn(&Inner)| {
                let inner = Arc::clone(&inner);
                std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || work(&inner))
                    .map_err(|error| Error::io(data, "starting a thread", error))
            };
            let mut threads = lock(&inner.threads);
            threads.push(spawn("persister", persist)?);
            threads.push(spawn("index", verify)?);
            if !inner.options.expire_after.0.is_zero() {
                threads.push(spawn("expiry", expiry::run)?);
            }
            if inner.journal.is_some() {
                threads.push(spawn("journal", |inner| {
                    if let Some(journal) = &inner.journal {
                        journal.run(&inner.stats);
                    }
                })?);
            }
        }
        Ok(carbon)
    }

    /// Ends the threads, writes what the cache holds to the files, syncs them and empties the
    /// journal. Calls `progress` with the points that are left, from time to time and at the end.
    /// What cannot be written stays in the journal and is reported as left.
    ///
    /// Datapoints that come later wait in the cache for ever: stop the receivers first.
    ///
    /// # Errors
    /// The index cannot be written, or the files cannot be synced.
    pub fn drain(&self, mut progress: impl FnMut(usize)) -> Result<()> {
        let inner = &*self.0;
        inner.stop();
        for thread in std::mem::take(&mut *lock(&inner.threads)) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had ended before");
            }
        }
        if inner.access != Access::Serve {
            return Ok(());
        }
        let mut persister = lock(&inner.persister);
        let mut said = Instant::now();
        persister.pass(inner, self.now(), Kind::Drain, |_| {
            if said.elapsed() > LONGEST_WAIT {
                said = Instant::now();
                progress(inner.cache.len());
            }
            true
        });
        progress(inner.cache.len());
        inner.index.compact(0)?;
        inner.checkpoint(&mut persister, self.now(), Kind::Drain)
    }

    /// Writes what waits in the cache to the files now.
    pub fn persist(&self) -> Pass {
        let now = self.now();
        lock(&self.0.persister).pass(&self.0, now, Kind::Whole, |_| true)
    }

    /// Writes what waits to the files, syncs them, and drops what the journal held of it.
    ///
    /// # Errors
    /// Something could not be synced; the journal keeps what it has.
    pub fn checkpoint(&self) -> Result<()> {
        let now = self.now();
        self.0
            .checkpoint(&mut lock(&self.0.persister), now, Kind::Whole)
    }

    /// Has everything that was taken so far in the journal, on disk, now.
    ///
    /// # Errors
    /// The disk refused, or the journal pauses because it did before.
    pub fn commit(&self) -> Result<()> {
        match &self.0.journal {
            None => Ok(()),
            Some(journal) => journal
                .commit(&self.0.stats)
                .map_err(|error| Error::io(&self.0.root, "committing the journal", error)),
        }
    }

    /// Ends the threads and writes nothing more: what a crash leaves, for tests.
    #[doc(hidden)]
    pub fn abandon(self) {
        self.0.stop();
        for thread in std::mem::take(&mut *lock(&self.0.threads)) {
            // One that panicked has ended, too.
            let _ = thread.join();
        }
    }

    /// How many datapoints, in the order in which they were taken, a crash can no longer lose.
    /// Without a journal nothing is promised: 0.
    pub fn committed(&self) -> u64 {
        self.0.journal.as_ref().map_or(0, Journal::committed)
    }

    /// Bytes in the journal.
    pub fn journal_bytes(&self) -> u64 {
        self.0.journal.as_ref().map_or(0, Journal::size_bytes)
    }

    /// Whether receivers have to wait until what they handed over is committed, and it is not:
    /// until [`Carbon::committed`] reaches the number.
    pub(crate) fn must_wait_for(&self) -> Option<u64> {
        let journal = self.0.journal.as_ref()?;
        let appended = journal.appended();
        (journal.is_synchronous() && journal.committed() < appended).then_some(appended)
    }

    /// The index: patterns, tags, registrations.
    pub fn index(&self) -> &Index {
        &self.0.index
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// The cache, to ask how full it is.
    pub fn cache(&self) -> &Cache {
        &self.0.cache
    }

    /// The store's clock.
    pub fn now(&self) -> Timestamp {
        (self.0.clock)()
    }

    /// The points of the series called `name` in `(from, until]`, file and cache as one, archive
    /// and range chosen by the clock `now`. `None` if there is no such series, or nothing of the
    /// range lies between `now` and what the file reaches back to. A damaged file is left out,
    /// counted and logged: the cache is all there is then.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn fetch(
        &self,
        name: &str,
        from: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Fetched>> {
        let inner = &*self.0;
        let Ok(canonical) = crate::series::canonical(name.as_bytes()) else {
            return Ok(None);
        };
        let _pin = inner.index.pin();
        let known = inner.index.names().get(canonical.as_bytes());
        let mut waiting = Vec::new();
        if let Some(id) = known {
            inner.cache.read(id, &mut waiting);
            inner.stats.queries.add(1);
        }
        let question = Question { now, from, until };
        let path = inner.index.path_of(known, &canonical);
        // A series without an id has no map: any key that was never handed out will do.
        let key = known.map_or(u32::MAX, |id| id.0);
        let answer = inner
            .maps
            .fetch_pending(key, &path, question, self.now(), &waiting);
        match answer {
            Ok((points, aggregation)) => Ok(points.map(|points| Fetched {
                points,
                aggregation,
            })),
            Err(error) if error.is_missing() => {
                self.fetch_unwritten(&canonical, question, &waiting)
            }
            Err(error) if error.is_damage() => {
                self.leave_out(&error);
                self.fetch_unwritten(&canonical, question, &waiting)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts that a query goes on without a damaged file, and says so once for each.
    fn leave_out(&self, damage: &whisper::Error) {
        const REMEMBERED: usize = 1_024;
        let inner = &*self.0;
        inner.stats.left_out.add(1);
        let damage = damage.to_string();
        let mut known = lock(&inner.left_out);
        if known.len() < REMEMBERED && known.insert(damage.clone()) {
            tracing::warn!(%damage, "a damaged file is left out of answers");
        }
    }

    /// The answer for a series whose file is still to be created.
    fn fetch_unwritten(
        &self,
        name: &str,
        question: Question,
        waiting: &[Point],
    ) -> Result<Option<Fetched>> {
        if waiting.is_empty() {
            return Ok(None);
        }
        let options = self.0.schema.create_options(name);
        let points = whisper::fetch_unwritten(&options, question, self.now(), waiting)?;
        Ok(points.map(|points| Fetched {
            points,
            aggregation: options.aggregation,
        }))
    }

    /// From when to when the series called `name` may hold points: its retention before `now`, up
    /// to the last change of its file, or to `now` while points wait in the cache. `None` if there
    /// is no such series, or its file is damaged.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn reach(&self, name: &str, now: Timestamp) -> Result<Option<(Timestamp, Timestamp)>> {
        let inner = &*self.0;
        let Ok(canonical) = crate::series::canonical(name.as_bytes()) else {
            return Ok(None);
        };
        let _pin = inner.index.pin();
        let known = inner.index.names().get(canonical.as_bytes());
        let waits = known.is_some_and(|id| inner.cache.holds(id));
        let path = inner.index.path_of(known, &canonical);
        let since = |retention: u32| Timestamp(now.0.saturating_sub(retention));
        match whisper::Header::read(&path) {
            Ok(header) => {
                let start = since(header.max_retention());
                let changed = std::fs::metadata(&path).and_then(|meta| meta.modified());
                let changed = changed
                    .ok()
                    .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
                let end = match changed {
                    Some(changed) if !waits => Timestamp(changed.as_secs() as u32),
                    _ => now,
                };
                Ok(Some((start, end.max(start))))
            }
            Err(error) if error.is_missing() || error.is_damage() => {
                Ok(waits.then(|| (since(inner.schema.longest_retention()), now)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Walks the disk and puts right what the index has wrong.
    ///
    /// # Errors
    /// As [`Index::reconcile`].
    pub fn reconcile(&self) -> Result<Reconciled> {
        self.0
            .index
            .reconcile(|id| self.0.cache.holds(id), || false)
    }

    /// Takes up to all of `points`, from the front: how many there was room for, and the ticket to
    /// wait for.
    fn take(&self, points: &[Datapoint]) -> (usize, u64) {
        let inner = &*self.0;
        if inner.access != Access::Serve {
            inner.stats.read_only.add(points.len() as u64);
            return (points.len(), 0);
        }
        if inner.journal.as_ref().is_some_and(Journal::is_full) {
            return (0, 0);
        }
        let taken = inner.cache.reserve(points.len());
        if taken == 0 {
            return (0, 0);
        }
        let points = &points[..taken];
        let mut woken = Vec::new();
        let mut ticket = 0;
        {
            let _gate = inner.gate.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(journal) = &inner.journal {
                ticket = journal.append(&inner.index, self.now(), points);
            }
            inner.cache.insert(points, &mut woken);
        }
        inner.index.list(&woken);
        inner.stats.received.add(taken as u64);
        if let Some(observer) = &inner.observer {
            inner.introduce(&**observer);
            observer.taken(points);
        }
        (taken, ticket)
    }
}

impl Inner {
    /// Tells the observer the names that are new since the last time.
    fn introduce(&self, observer: &dyn Observer) {
        let names = self.index.names();
        let mut observed = lock(&self.observed);
        let new = (observed.below..names.end()).map(|id| id as u32);
        let reused = names.reused_ids().iter().skip(observed.reused).copied();
        for series in new.chain(reused).map(SeriesId) {
            let name = names.name(series);
            // Empty: freed again before anybody was told.
            if !name.is_empty() {
                observer.named(series, name);
            }
        }
        observed.below = names.end();
        observed.reused = names.reused_ids().len();
    }

    /// Gives back the names and ids of series that are gone; how many.
    pub(crate) fn reclaim(&self) -> usize {
        // The persister has no series in hand while it is locked.
        let _persister = lock(&self.persister);
        let busy = |id| self.cache.holds(id);
        let freed = |ids: &[SeriesId]| {
            for id in ids {
                self.maps.forget(id.0);
                if let Some(observer) = &self.observer {
                    observer.forgotten(*id);
                }
            }
            if let Some(journal) = &self.journal {
                journal.forget(ids);
            }
        };
        let settle = |reused: &mut Vec<u32>| match &self.observer {
            None => reused.clear(),
            Some(_) => {
                let mut observed = lock(&self.observed);
                reused.drain(..observed.reused);
                observed.reused = 0;
            }
        };
        let count = self.index.reclaim(busy, freed, settle);
        self.stats.names_freed.add(count as u64);
        count
    }

    /// Sleeps until `span` has passed or the store stops.
    pub(crate) fn pause(&self, span: Duration) {
        let until = Instant::now() + span;
        while !self.is_stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left);
        }
    }

    /// Whether the threads are to end.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        for thread in lock(&self.threads).iter() {
            thread.thread().unpark();
        }
        if let Some(journal) = &self.journal {
            journal.stop();
        }
    }

    /// Reads the journal back: into the cache, and from there into the files by the clock at which
    /// the points were taken, so that they go where they went or would have gone then.
    fn replay(&self, directory: &Path, progress: &dyn Fn(u64, u64)) -> Result<()> {
        let mut persister = lock(&self.persister);
        let mut clock = Timestamp(0);
        let each = |at: Timestamp, points: &[Datapoint]| {
            clock = clock.max(at);
            let mut rest = points;
            while !rest.is_empty() {
                let room = self.cache.reserve(rest.len());
                if room == 0 {
                    let pass = persister.pass(self, clock, Kind::Drain, |_| true);
                    if pass.points == 0 {
                        // No file can be written and the cache is full: the segments stay.
                        tracing::error!(
                            points = rest.len(),
                            "the journal cannot be read back whole"
                        );
                        self.stats.errors.add(1);
                        return;
                    }
                    continue;
                }
                let mut woken = Vec::new();
                self.cache.insert(&rest[..room], &mut woken);
                self.index.list(&woken);
                rest = &rest[room..];
            }
        };
        let replayed = journal::replay(directory, &self.index, each, progress)?;
        if replayed == Replayed::default() {
            return Ok(());
        }
        self.stats.journal_replayed.add(replayed.points);
        let Replayed {
            points,
            nameless,
            unsound_bytes,
            segments,
        } = replayed;
        if points > 0 || unsound_bytes > 0 {
            tracing::info!(
                points,
                segments,
                nameless,
                unsound_bytes,
                "journal read back"
            );
        }
        persister.pass(self, clock, Kind::Drain, |_| true);
        if let Err(error) = self.checkpoint(&mut persister, clock, Kind::Drain) {
            tracing::error!(%error, "what was read back could not be synced; the journal keeps it");
        }
        if self.journal.is_none() && self.cache.is_empty() {
            // Turned off since: what it held is in its files.
            let removed = std::fs::remove_dir_all(directory);
            removed.map_err(|error| Error::io(directory, "removing the old journal", error))?;
        }
        Ok(())
    }

    /// Begins a new segment, writes everything that waits, syncs the files, and drops the segments
    /// before. What cannot be written now is carried over into the new segment.
    fn checkpoint(&self, persister: &mut Persister, now: Timestamp, kind: Kind) -> Result<()> {
        let sync = |error| Error::io(&self.root, "syncing the files", error);
        let Some(journal) = &self.journal else {
            self.index.sync()?;
            return self.disk.sync_tree(&self.root).map_err(sync);
        };
        let rotating = |error| Error::io(&self.root, "beginning a segment of the journal", error);
        let rotation = {
            // Most of what is pending is written before everybody has to wait. If that fails, so
            // does what comes next, and says so.
            let _ = journal.commit(&self.stats);
            let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            journal.rotate(&self.stats).map_err(rotating)?
        };
        persister.pass(self, now, kind, |_| true);
        self.disk.sync_tree(&self.root).map_err(sync)?;
        self.index.sync()?;
        let left = std::mem::take(&mut persister.left);
        if !left.is_empty() {
            self.carry_over(journal, now, &left);
            let kept = journal.commit(&self.stats);
            kept.map_err(|error| Error::io(&self.root, "carrying points over", error))?;
        }
        journal
            .drop_before(rotation, &self.stats)
            .map_err(|error| Error::io(&self.root, "dropping a segment of the journal", error))
    }

    /// Journals again what series hold that could not be written. Nobody appends meanwhile, so
    /// that what is newer stays behind it.
    fn carry_over(&self, journal: &Journal, now: Timestamp, series: &[SeriesId]) {
        let mut points = Vec::new();
        for series in series.chunks(1_024) {
            let _gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
            let mut batch = Vec::new();
            for id in series {
                points.clear();
                self.cache.read(*id, &mut points);
                batch.extend(journal::datapoints(*id, &points));
            }
            journal.carry_over(&self.index, now, &batch);
        }
    }
}

/// Looks once whether disk and index agree.
fn verify(inner: &Inner) {
    let stop = &inner.stop;
    let busy = |id| inner.cache.holds(id);
    match inner.index.reconcile(busy, || stop.load(Ordering::Acquire)) {
        Ok(report) if report == Reconciled::default() => {}
        Ok(Reconciled {
            added,
            removed,
            leftovers,
        }) => tracing::info!(added, removed, leftovers, "the index was put right"),
        Err(error) => tracing::warn!(%error, "the disk could not be compared with the index"),
    }
}

/// The persister's thread: a pass when arrivals pause, or when points have waited long enough.
fn persist(inner: &Inner) {
    let mut seen = 0;
    let mut since = Instant::now();
    // No checkpoint before this: one has failed.
    let mut rest_until = Instant::now();
    // No pass before this: nothing could be written.
    let mut pass_after = Instant::now();
    while !inner.stop.load(Ordering::Acquire) {
        std::thread::sleep(TICK);
        let now = (inner.clock)();
        let received = inner.stats.received.get();
        let due = if inner.cache.is_empty() {
            since = Instant::now();
            false
        } else {
            received == seen || since.elapsed() >= LONGEST_WAIT
        };
        seen = received;
        let wants_checkpoint = || {
            inner
                .journal
                .as_ref()
                .is_some_and(Journal::wants_checkpoint)
        };
        let rested = Instant::now() >= rest_until;
        if rested && wants_checkpoint() {
            match inner.checkpoint(&mut lock(&inner.persister), now, Kind::Whole) {
                Ok(()) => {
                    since = Instant::now();
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "the journal cannot be shortened");
                    rest_until = Instant::now() + LONGEST_WAIT;
                }
            }
        }
        if due && Instant::now() >= pass_after {
            let rested = rest_until <= Instant::now();
            let pass = lock(&inner.persister).pass(inner, now, Kind::Ordinary, |pass| {
                let interrupted = rested && pass.written > 0 && pass.written % 1_024 == 0;
                let ends = inner.stop.load(Ordering::Acquire) || interrupted && wants_checkpoint();
                !ends
            });
            // What could not be written is not tried again at once.
            if pass.written == 0 {
                pass_after = Instant::now() + TICK * 10;
            }
            since = Instant::now();
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink for Carbon {
    fn intern(&self, name: &[u8]) -> std::result::Result<SeriesId, NameError> {
        let interned = self.0.index.hold(name);
        if let Err(reason @ NameError::Limit(_)) = interned {
            self.0.stats.count_refusal(reason);
        }
        interned
    }

    fn release(&self, ids: &[SeriesId]) {
        self.0.index.release(ids);
    }

    fn submit(&self, points: &[Datapoint]) {
        let mut rest = points;
        loop {
            let (taken, ticket) = self.take(rest);
            rest = &rest[taken..];
            if let Some(journal) = &self.0.journal
                && taken > 0
                && journal.is_synchronous()
            {
                journal.wait(ticket);
            }
            if rest.is_empty() {
                return;
            }
            self.0.stats.waits.add(1);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        self.take(points).0
    }
}
