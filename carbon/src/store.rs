//! The store: cache and files read as one, and the way of a datapoint into both.
//!
//! 1. [`Carbon::submit`] sets room aside, journals, and puts into the cache, in this order; when it
//!    returns, queries see the points and patterns find their series.
//! 2. A query asks the cache first and the file second: what the persister moves meanwhile is seen
//!    twice, never not at all, and counts once.
//! 3. A shutdown is announced ([`Carbon::shut_down`]) before receivers are stopped: from then on a
//!    full cache holds nobody up for longer than [`PATIENCE`]. What finds no room goes into the
//!    journal alone, which is then kept as it is for the next start.
//! 4. An answer over cache and file is what the file alone would answer after the cached points
//!    were written to it (`whisper::pending`), coarser archives included.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use whisper::map::{MapOptions, Maps};
use whisper::{Aggregation, Point, Question, Timestamp};

use crate::alarm::{Alarm, OnDeath};
use crate::cache::Cache;
use crate::clock::{Clocks, Steady};
use crate::conf::Files;
use crate::datapoint::{Datapoint, NameError, Observer, SeriesId, Sink};
use crate::error::{Error, Result};
use crate::expiry;
use crate::index::{Index, Reconciled};
use crate::journal::disk::{Disk, RealDisk};
use crate::journal::{self, Journal, Replay, Replayed};
use crate::options::{JournalOptions, Options, Span, Sync};
use crate::persister::{Kind, Pass, Persister};
use crate::private;
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
    /// Told at the start, often, how much of the journal has been read back and written to files,
    /// of how much.
    pub replaying: Progress,
    /// Asked about once a second whether the data directory is still the caller's own; what it
    /// answers is part of [`Carbon::health`].
    pub guard: Option<Guard>,
    /// Looks at what is taken.
    pub observer: Option<Arc<dyn Observer>>,
    /// Told the name of a thread of the store that has ended by a panic.
    pub on_death: OnDeath,
    /// Rule files beside those that `options` name: read again on changes and by
    /// [`Carbon::reload`].
    pub files: Files,
}

/// Says what is wrong with what it guards.
pub type Guard = Arc<dyn Fn() -> std::result::Result<(), String> + Send + std::marker::Sync>;

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
            guard: None,
            observer: None,
            on_death: crate::alarm::silent(),
            files: Files::default(),
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
    /// Which directory `root` was when it was opened.
    opened: Option<(u64, u64)>,
    guard: Option<Guard>,
    files: Files,
    disk: Arc<dyn Disk>,
    /// `None`: turned off, or nothing is written at all.
    journal: Option<Journal>,
    /// Held for reading from the journal into the cache, for writing while the journal rotates:
    /// what is in a finished segment is in the cache too.
    gate: RwLock<()>,
    pub(crate) options: Options,
    pub(crate) access: Access,
    pub(crate) clock: Clock,
    steady: Steady,
    pub(crate) room: Room,
    /// A shutdown was announced.
    closing: AtomicBool,
    behind: Mutex<Behind>,
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
    /// What is wrong now, by the part that found it.
    trouble: Mutex<BTreeMap<&'static str, String>>,
}

/// Where receivers wait until the cache or the journal has room.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// How many wait: mostly none, and then telling costs a load.
    waiting: AtomicUsize,
    lock: Mutex<()>,
    made: Condvar,
}

impl Room {
    /// Tells those who wait that there may be room.
    pub(crate) fn tell(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            drop(self.lock.lock());
            self.made.notify_all();
        }
    }

    /// Waits until there may be room.
    fn wait(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.made.wait_for(&mut self.lock.lock(), LOOK);
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What found no room while the store was shut down.
#[derive(Debug, Default)]
struct Behind {
    /// Datapoints that only the journal has.
    journalled: usize,
    /// Datapoints that nothing has.
    lost: usize,
    series: HashSet<SeriesId>,
}

/// How long a shutdown waits for room, and for files that are not written, without any progress.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a receiver waits for room before it looks again whether it still should.
const LOOK: Duration = Duration::from_millis(100);
/// How often it is looked whether data directory and lock are still there.
const GUARD_EVERY: Duration = Duration::from_secs(1);
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
            guard,
            observer,
            on_death,
            files,
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
            let making = |directory: &Path| {
                let directory = directory.to_owned();
                move |error| Error::io(&directory, "creating the directory", error)
            };
            std::fs::create_dir_all(&root).map_err(making(&root))?;
            let index = data.join("index");
            private::create_dir(&index).map_err(making(&index))?;
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
                private::create_dir(&journal_directory).map_err(|error| {
                    Error::io(&journal_directory, "creating the directory", error)
                })?;
                let disk = Arc::clone(&disk);
                Some(Journal::open(&journal_directory, disk, &journal_options)?)
            }
            _ => None,
        };
        let inner = Arc::new(Inner {
            opened: identity(&root),
            guard,
            files,
            steady: Steady::default(),
            room: Room::default(),
            closing: AtomicBool::new(false),
            behind: Mutex::default(),
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
            trouble: Mutex::default(),
        });
        if access == Access::Serve {
            inner.replay(&journal_directory, &*replaying)?;
        }
        let carbon = Self(Arc::clone(&inner), Arc::new(Handle(Arc::clone(&inner))));
        if access == Access::Serve {
            let spawn = |name: &str, work: fn(&Inner)| {
                let inner = Arc::clone(&inner);
                let alarm = Alarm::new(name, &on_death);
                std::thread::Builder::new()
                    .name(name.to_owned())
                    .spawn(move || {
                        let _alarm = alarm;
                        work(&inner);
                    })
                    .map_err(|error| Error::io(data, "starting a thread", error))
            };
            let mut threads = inner.threads.lock();
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

    /// Announces the shutdown: from now on receivers wait for room only while there is progress.
    /// To be called before they are stopped, because a full cache may hold them up.
    pub fn shut_down(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.room.tell();
    }

    /// Ends the threads, writes what the cache holds to the files, syncs them and empties the
    /// journal. Calls `progress` with the points that are left, from time to time and at the end.
    /// What cannot be written stays in the journal, and the log says how much it is and why.
    ///
    /// Datapoints that come later wait in the cache for ever: stop the receivers first.
    ///
    /// # Errors
    /// Datapoints are neither in synced files nor in the journal.
    pub fn drain(&self, mut progress: impl FnMut(usize)) -> Result<()> {
        let inner = &*self.0;
        self.shut_down();
        inner.stop();
        for thread in std::mem::take(&mut *inner.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had ended before");
            }
        }
        if inner.access != Access::Serve {
            return Ok(());
        }
        let clocks = inner.clocks();
        let mut persister = inner.persister.lock();
        let mut said = Instant::now();
        let mut patience = Patience::new();
        persister.pass(inner, &clocks, Kind::Drain, |pass| {
            if said.elapsed() > LONGEST_WAIT {
                said = Instant::now();
                progress(inner.cache.len());
            }
            patience.lasts(pass.written + pass.dropped)
        });
        progress(inner.cache.len());
        if let Err(error) = inner.index.compact(0) {
            // What it lacks is found again by walking the disk; registrations were synced.
            tracing::warn!(%error, "the index could not be written");
        }
        let kept = inner.put_down(&mut persister, &clocks);
        inner.say_what_is_left(&persister, &kept);
        kept
    }

    /// Writes what waits in the cache to the files now.
    pub fn persist(&self) -> Pass {
        let clocks = self.0.clocks();
        self.0
            .persister
            .lock()
            .pass(&self.0, &clocks, Kind::Whole, |_| true)
    }

    /// Writes what waits to the files, syncs them, and drops what the journal held of it.
    ///
    /// # Errors
    /// Something could not be synced; the journal keeps what it has.
    pub fn checkpoint(&self) -> Result<()> {
        let clocks = self.0.clocks();
        self.0
            .checkpoint(&mut self.0.persister.lock(), &clocks, Kind::Whole)
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
        for thread in std::mem::take(&mut *self.0.threads.lock()) {
            // One that panicked has ended, too.
            let _ = thread.join();
        }
    }

    /// Reads all rule files again. A file that cannot be used leaves its old rules in effect; the log
    /// has everything that is wrong with it.
    pub fn reload(&self) {
        self.0.files.reload(&self.0.stats);
    }

    /// How many datapoints, in the order in which they were taken, a crash can no longer lose.
    /// Without a journal nothing is promised: 0.
    pub fn committed(&self) -> u64 {
        self.0.journal.as_ref().map_or(0, Journal::committed)
    }

    /// Whether what is taken now can be kept: the journal is written, and the directories are those
    /// that were opened. A readiness check may ask as often as it likes.
    ///
    /// # Errors
    /// A sentence for each thing that is wrong.
    pub fn health(&self) -> std::result::Result<(), String> {
        self.0.look_around();
        let trouble = self.0.trouble.lock();
        if trouble.is_empty() {
            return Ok(());
        }
        let sentences: Vec<&str> = trouble.values().map(String::as_str).collect();
        Err(sentences.join("; "))
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
    /// range lies between `now` and what the file reaches back to. A file that is damaged or cannot
    /// be read is left out, counted and logged: the cache is all there is then.
    ///
    /// # Errors
    /// The range ends before it begins.
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
        let answer =
            inner
                .maps
                .fetch_pending(key, &path, question, inner.clocks().earliest(), &waiting);
        match answer {
            Ok((points, aggregation)) => Ok(points.map(|points| Fetched {
                points,
                aggregation,
            })),
            Err(error) if error.is_missing() => {
                self.fetch_unwritten(&canonical, question, &waiting)
            }
            Err(error) if is_unreadable(&error) => {
                self.leave_out(&error);
                self.fetch_unwritten(&canonical, question, &waiting)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Counts that a query goes on without a file, and says so once for each.
    fn leave_out(&self, damage: &whisper::Error) {
        const REMEMBERED: usize = 1_024;
        let inner = &*self.0;
        inner.stats.left_out.add(1);
        let damage = damage.to_string();
        let mut known = inner.left_out.lock();
        if known.len() < REMEMBERED && known.insert(damage.clone()) {
            tracing::warn!(%damage, "a file is left out of answers");
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
        let points =
            whisper::fetch_unwritten(&options, question, self.0.clocks().earliest(), waiting)?;
        Ok(points.map(|points| Fetched {
            points,
            aggregation: options.aggregation,
        }))
    }

    /// From when to when the series called `name` may hold points: its retention before `now`, up
    /// to the last change of its file, or to `now` while points wait in the cache. `None` if there
    /// is no such series, or its file is damaged or cannot be read.
    ///
    /// # Errors
    /// The header cannot be understood.
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
            Err(error) if error.is_missing() || is_unreadable(&error) => {
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
    /// wait for. Points of the time 0, which no file can hold, are counted as rejected.
    fn take(&self, points: &[Datapoint]) -> (usize, u64) {
        // Without a branch per point: there are none but by mistake.
        let sound = points.iter().fold(true, |sound, p| sound & (p.at.0 != 0));
        if sound {
            return self.take_sound(points);
        }
        let kept: Vec<Datapoint> = points.iter().filter(|p| p.at.0 != 0).copied().collect();
        let (taken, ticket) = self.take_sound(&kept);
        // The place of the first point that found no room.
        let mut sound = points.iter().enumerate().filter(|(_, p)| p.at.0 != 0);
        let end = sound.nth(taken).map_or(points.len(), |(at, _)| at);
        self.0.stats.rejected_timestamp.add((end - taken) as u64);
        (end, ticket)
    }

    fn take_sound(&self, points: &[Datapoint]) -> (usize, u64) {
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
            let _gate = inner.gate.read();
            if let Some(journal) = &inner.journal {
                ticket = journal.append(&inner.index, inner.clocks().earliest(), points);
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
        let mut observed = self.observed.lock();
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
        // What the persister has in hand is in the cache until it is done with it.
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
                let mut observed = self.observed.lock();
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

    /// Notes that the part `what` is well, or what is wrong with it; logs each change once.
    fn note(&self, what: &'static str, state: std::result::Result<(), String>) {
        let mut trouble = self.trouble.lock();
        match state {
            Ok(()) => {
                if trouble.remove(what).is_some() {
                    tracing::info!("{what}: well again");
                }
            }
            Err(why) => {
                if trouble.get(what) != Some(&why) {
                    tracing::error!("{what}: {why}");
                    trouble.insert(what, why);
                }
            }
        }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        for thread in self.threads.lock().iter() {
            thread.thread().unpark();
        }
        if let Some(journal) = &self.journal {
            journal.stop();
        }
    }

    /// The clocks that may be right now.
    fn clocks(&self) -> Clocks {
        match self.access {
            Access::Serve => self.steady.clocks((self.clock)()),
            Access::Frozen | Access::Inspect => Clocks::one((self.clock)()),
        }
    }

    /// Looks whether what lies on the disk is still what was opened.
    fn look_around(&self) {
        if self.access != Access::Serve {
            return;
        }
        self.note("data directory", self.same_root());
        if let Some(guard) = &self.guard {
            self.note("lock", guard());
        }
        let trouble = self.journal.as_ref().and_then(Journal::trouble);
        let state = trouble.map_or(Ok(()), |why| {
            Err(format!("what is taken cannot be written down: {why}"))
        });
        self.note("journal", state);
    }

    /// Whether the directory of the files is the one that was opened.
    fn same_root(&self) -> std::result::Result<(), String> {
        if self.opened.is_some() && identity(&self.root) == self.opened {
            return Ok(());
        }
        let root = self.root.display();
        Err(format!(
            "{root} was removed or replaced while it was in use"
        ))
    }

    /// Journals `points`, for which there is no room in the cache and no time to wait for it.
    fn leave_behind(&self, points: &[Datapoint]) {
        let _gate = self.gate.read();
        let clock = self.clocks().earliest();
        let journalled = self
            .journal
            .as_ref()
            .is_some_and(|journal| journal.leave_behind(&self.index, clock, points));
        let mut behind = self.behind.lock();
        if journalled {
            behind.journalled += points.len();
        } else {
            behind.lost += points.len();
        }
        behind
            .series
            .extend(points.iter().map(|point| point.series));
    }

    /// The last step of a shutdown: the journal is emptied, or kept whole if only it has some of
    /// the points.
    fn put_down(&self, persister: &mut Persister, clocks: &Clocks) -> Result<()> {
        let behind = self.behind.lock().journalled;
        let (Some(journal), true) = (&self.journal, behind > 0) else {
            let emptied = self.checkpoint(persister, clocks, Kind::Drain);
            let committed = |journal: &Journal| journal.committed() >= journal.appended();
            return match emptied {
                // The segments could not be dropped, but they hold everything.
                Err(error) if self.journal.as_ref().is_some_and(committed) => {
                    tracing::warn!(%error, "the journal is not empty; the next start reads it back");
                    Ok(())
                }
                emptied => emptied,
            };
        };
        let committed = journal.commit(&self.stats);
        committed.map_err(|error| Error::io(&self.root, "committing the journal", error))
    }

    /// Says what is not in its files at the end, and why.
    fn say_what_is_left(&self, persister: &Persister, kept: &Result<()>) {
        let behind = self.behind.lock();
        let mut series = behind.series.clone();
        let mut waiting = Vec::new();
        self.cache.sweep(&mut waiting);
        series.extend(waiting.iter().map(|waiting| waiting.series));
        let points = self.cache.len() + behind.journalled;
        let why = persister.why.as_deref().unwrap_or("the cache was full");
        if points > 0 {
            let series = series.len();
            match (kept, &self.journal) {
                (Ok(()), Some(_)) => tracing::warn!(
                    "{points} datapoints of {series} series are not in their files ({why}); the journal keeps them for the next start"
                ),
                _ => tracing::error!(
                    "{points} datapoints of {series} series are lost but for what the journal has of them ({why})"
                ),
            }
        }
        if behind.lost > 0 {
            let lost = behind.lost;
            tracing::error!("{lost} datapoints found no room while stopping and are lost ({why})");
        }
    }

    /// Reads the journal back: into the cache, and from there into the files by the clocks at which
    /// the points were taken, so that they go where they went or would have gone then.
    fn replay(&self, directory: &Path, progress: &dyn Fn(u64, u64)) -> Result<()> {
        let now = (self.clock)();
        // Half is reading, in two rounds; half is writing.
        let replay = Replay::open(directory, now, |bytes, all| progress(bytes, 4 * all))?;
        let bytes = replay.bytes();
        let mut writing = Writing {
            store: self,
            persister: self.persister.lock(),
            clocks: Clocks::one(now),
            read: 0,
            written: 0,
            progress: &|done| progress(bytes + done, 4 * bytes),
        };
        let mut left = 0;
        let replayed = replay.run(&self.index, |clocks, points, read| {
            if !writing.clocks.leads_to(&clocks) {
                writing.write();
            }
            writing.clocks = clocks;
            let mut rest = points;
            while !rest.is_empty() {
                let room = self.cache.reserve(rest.len());
                if room == 0 {
                    let pass = writing.write();
                    if pass.points == 0 && pass.dropped == 0 {
                        left += rest.len();
                        break;
                    }
                    continue;
                }
                let mut woken = Vec::new();
                self.cache.insert(&rest[..room], &mut woken);
                self.index.list(&woken);
                rest = &rest[room..];
            }
            writing.read(read);
        })?;
        if replayed == Replayed::default() {
            return Ok(());
        }
        writing.write();
        let Writing {
            mut persister,
            clocks,
            ..
        } = writing;
        self.stats.journal_replayed.add(replayed.points);
        let Replayed {
            points,
            nameless,
            unsound_bytes,
            segments,
        } = replayed;
        if unsound_bytes > 0 || nameless > 0 {
            tracing::warn!(
                points,
                segments,
                nameless,
                unsound_bytes,
                "the journal was read back, but for a torn or damaged part of {unsound_bytes} bytes and {nameless} points without a name"
            );
        } else if points > 0 {
            tracing::info!(points, segments, "journal read back");
        }
        if left > 0 {
            // Not a point of these segments may go before all of them have been read.
            self.stats.errors.add(1);
            let why = format!(
                "{left} datapoints of the journal found no room and stay in it until the next start ({})",
                persister.why.as_deref().unwrap_or("the cache is full")
            );
            self.note("start", Err(why));
            if let Some(journal) = &self.journal {
                journal.keep_older();
            }
            return Ok(());
        }
        if let Err(error) = self.checkpoint(&mut persister, &clocks, Kind::Drain) {
            tracing::error!(%error, "what was read back could not be synced; the journal keeps it");
        }
        progress(4 * bytes, 4 * bytes);
        if self.journal.is_none() && self.cache.is_empty() {
            // Turned off since: what it held is in its files.
            let removed = std::fs::remove_dir_all(directory);
            removed.map_err(|error| Error::io(directory, "removing the old journal", error))?;
        }
        Ok(())
    }

    /// Begins a new segment, writes everything that waits, syncs the files, and drops the segments
    /// before. What cannot be written now is carried over into the new segment.
    fn checkpoint(&self, persister: &mut Persister, clocks: &Clocks, kind: Kind) -> Result<()> {
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
            let _gate = self.gate.write();
            if self.behind.lock().journalled > 0 {
                // Only these segments have them: none may go before the next start.
                let why = "it has points that found no room while stopping";
                return Err(rotating(std::io::Error::other(why)));
            }
            journal.rotate(&self.stats).map_err(rotating)?
        };
        if journal.trouble().is_some() {
            // Its segment may have been deleted, and files with it: each is looked up again.
            self.maps.distrust();
        }
        let mut patience = Patience::new();
        persister.pass(self, clocks, kind, |pass| {
            kind != Kind::Drain || patience.lasts(pass.written + pass.dropped)
        });
        self.disk.sync_tree(&self.root).map_err(sync)?;
        // Points that went into files that have been deleted are not safe.
        self.same_root()
            .map_err(|why| sync(std::io::Error::other(why)))?;
        self.index.sync()?;
        let left = std::mem::take(&mut persister.left);
        if !left.is_empty() {
            self.carry_over(journal, clocks.earliest(), &left);
            let kept = journal.commit(&self.stats);
            kept.map_err(|error| Error::io(&self.root, "carrying points over", error))?;
        }
        let dropped = journal.drop_before(rotation, &self.stats);
        self.room.tell();
        dropped.map_err(|error| Error::io(&self.root, "dropping a segment of the journal", error))
    }

    /// Journals again what series hold that could not be written. Nobody appends meanwhile, so
    /// that what is newer stays behind it.
    fn carry_over(&self, journal: &Journal, now: Timestamp, series: &[SeriesId]) {
        let mut points = Vec::new();
        for series in series.chunks(1_024) {
            let _gate = self.gate.write();
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

/// How long a shutdown goes on without progress.
struct Patience {
    done: usize,
    since: Instant,
}

impl Patience {
    fn new() -> Self {
        Self {
            done: 0,
            since: Instant::now(),
        }
    }

    /// Whether it goes on: `done` has changed, or did so not long ago.
    fn lasts(&mut self, done: usize) -> bool {
        if done != self.done {
            *self = Self {
                done,
                since: Instant::now(),
            };
        }
        self.since.elapsed() < PATIENCE
    }
}

/// Writes what was read back from the journal, and says how far that has come.
struct Writing<'a> {
    store: &'a Inner,
    persister: MutexGuard<'a, Persister>,
    /// What the points in the cache are judged by.
    clocks: Clocks,
    /// Bytes of the journal that were read.
    read: u64,
    /// Of those, the bytes whose points were written.
    written: u64,
    /// Told the sum: a byte counts once when it is read, and twice when its points are written.
    progress: &'a dyn Fn(u64),
}

impl Writing<'_> {
    fn read(&mut self, bytes: u64) {
        self.read = bytes;
        (self.progress)(self.read + 2 * self.written);
    }

    /// Writes what is in the cache.
    fn write(&mut self) -> Pass {
        let (read, written) = (self.read, self.written);
        let series = self.store.cache.waiting().max(1) as u64;
        let pass = self
            .persister
            .pass(self.store, &self.clocks, Kind::Drain, |pass| {
                let done = (pass.written + pass.waiting + pass.dropped) as u64;
                let written = written + (read - written) * done.min(series) / series;
                (self.progress)(read + 2 * written);
                true
            });
        self.written = read;
        pass
    }
}

/// What can be done about a file that cannot be read: nothing but leave it out.
fn is_unreadable(error: &whisper::Error) -> bool {
    error.is_damage() || matches!(error, whisper::Error::Io { .. })
}

/// What a directory is, whatever it is called.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
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
            unreadable,
        }) => tracing::info!(
            added,
            removed,
            leftovers,
            unreadable,
            "index reconciled with the files on disk"
        ),
        Err(error) => tracing::warn!(%error, "cannot read the whisper tree to refresh the index"),
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
    let mut guarded = Instant::now();
    while !inner.stop.load(Ordering::Acquire) {
        std::thread::sleep(TICK);
        let clocks = inner.clocks();
        if guarded.elapsed() >= GUARD_EVERY {
            guarded = Instant::now();
            inner.look_around();
            inner.files.look(&inner.stats);
        }
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
            match inner.checkpoint(&mut inner.persister.lock(), &clocks, Kind::Whole) {
                Ok(()) => {
                    inner.note("checkpoint", Ok(()));
                    since = Instant::now();
                    continue;
                }
                Err(error) => {
                    inner.note("checkpoint", Err(error.to_string()));
                    rest_until = Instant::now() + LONGEST_WAIT;
                }
            }
        }
        if due && Instant::now() >= pass_after {
            let rested = rest_until <= Instant::now();
            let pass = inner
                .persister
                .lock()
                .pass(inner, &clocks, Kind::Ordinary, |pass| {
                    let interrupted = rested && pass.written > 0 && pass.written % 1_024 == 0;
                    let ends =
                        inner.stop.load(Ordering::Acquire) || interrupted && wants_checkpoint();
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
        let inner = &*self.0;
        let is_closing = || inner.closing.load(Ordering::Acquire);
        let mut rest = points;
        // Since when nothing has been taken while the store is shut down.
        let mut stuck: Option<Instant> = None;
        loop {
            let (taken, ticket) = self.take(rest);
            rest = &rest[taken..];
            if let Some(journal) = &inner.journal
                && taken > 0
                && journal.is_synchronous()
            {
                let begun = Instant::now();
                journal.wait(ticket, || is_closing() && begun.elapsed() >= PATIENCE);
            }
            if rest.is_empty() {
                return;
            }
            if is_closing() {
                // Once something was left behind the wait is over for all.
                let since = *match taken {
                    0 => stuck.get_or_insert_with(Instant::now),
                    _ => stuck.insert(Instant::now()),
                };
                let left = !inner.behind.lock().series.is_empty();
                if left || since.elapsed() >= PATIENCE {
                    return inner.leave_behind(rest);
                }
            }
            inner.stats.waits.add(1);
            inner.room.wait();
        }
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        self.take(points).0
    }
}
