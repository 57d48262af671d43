//! The store: cache and files read as one, and the way of a datapoint into both.
//!
//! 1. [`Carbon::submit`] sets room aside, journals, and puts into the cache, in this order; when it
//!    returns, queries see the points and patterns find their series.
//! 2. A query asks the cache first and the file second: what the persister moves meanwhile is seen
//!    twice, never not at all, and counts once.
//! 3. An answer over cache and file is what the file alone would answer after the cached points
//!    were written to it (`whisper::pending`), coarser archives included.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use whisper::map::{MapOptions, Maps};
use whisper::{Aggregation, Point, Question, Timestamp};

use crate::cache::Cache;
use crate::datapoint::{Datapoint, NameError, SeriesId, Sink};
use crate::error::{Error, Result};
use crate::index::{Index, Reconciled};
use crate::options::{JournalOptions, Options, Span};
use crate::persister::{Pass, Persister};
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
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Everything that [`Carbon::open`] is told.
#[derive(Clone)]
pub struct Setup {
    /// `[carbon]`.
    pub options: Options,
    /// `[journal]`.
    pub journal: JournalOptions,
    /// How often statsd flushes: no new file is coarser.
    pub flush_interval: Span,
    /// What may be changed.
    pub access: Access,
    /// The clock.
    pub clock: Clock,
}

impl Setup {
    /// A setup for serving by the system's clock.
    pub fn new(options: Options, journal: JournalOptions, flush_interval: Span) -> Self {
        Self {
            options,
            journal,
            flush_interval,
            access: Access::Serve,
            clock: Arc::new(system_clock),
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
        self.0.stop.store(true, Ordering::Release);
    }
}

pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) access: Access,
    pub(crate) clock: Clock,
    pub(crate) schema: Schema,
    pub(crate) index: Index,
    pub(crate) cache: Cache,
    pub(crate) maps: Maps,
    pub(crate) stats: Stats,
    pub(crate) persister: Mutex<Persister>,
    /// Tells the persister's thread to come to an end.
    stop: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
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
            journal: _,
            flush_interval,
            access,
            clock,
        } = setup;
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
        let index = Index::open(&root, names, access == Access::Inspect)?;
        let cache = Cache::new(usize::try_from(options.max_cache_size.0).unwrap_or(usize::MAX));
        let persister = Persister::new(
            options.max_updates_per_second,
            options.max_creates_per_minute,
        );
        let maps = Maps::new(MapOptions {
            flock: options.flock,
            ..MapOptions::default()
        });
        let inner = Arc::new(Inner {
            options,
            access,
            clock,
            schema: Schema::built_in(flush_interval),
            index,
            cache,
            maps,
            stats: Stats::default(),
            persister: Mutex::new(persister),
            stop: AtomicBool::new(false),
            thread: Mutex::default(),
        });
        let handle = Arc::new(Handle(Arc::clone(&inner)));
        let carbon = Self(Arc::clone(&inner), handle);
        if access == Access::Serve {
            let thread = std::thread::Builder::new()
                .name("persister".to_owned())
                .spawn(move || persist(&inner))
                .map_err(|error| Error::io(data, "starting the persister", error))?;
            *lock(&carbon.0.thread) = Some(thread);
        }
        Ok(carbon)
    }

    /// Stops the persister's thread, writes what the cache holds to the files, and syncs. Calls
    /// `progress` with the points that are left, from time to time and at the end. What cannot be
    /// written is reported as left, and logged.
    ///
    /// Datapoints that come later wait in the cache for ever: stop the receivers first.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn drain(&self, mut progress: impl FnMut(usize)) -> Result<()> {
        let inner = &*self.0;
        inner.stop.store(true, Ordering::Release);
        if let Some(thread) = lock(&inner.thread).take()
            && thread.join().is_err()
        {
            tracing::error!("the persister had ended before");
        }
        if inner.access != Access::Serve {
            return Ok(());
        }
        let mut persister = lock(&inner.persister);
        let mut said = Instant::now();
        persister.pass(inner, self.now(), true, |_| {
            if said.elapsed() > LONGEST_WAIT {
                said = Instant::now();
                progress(inner.cache.len());
            }
            true
        });
        progress(inner.cache.len());
        inner.index.close()
    }

    /// Writes what waits in the cache to the files now.
    pub fn persist(&self) -> Pass {
        let now = self.now();
        lock(&self.0.persister).pass(&self.0, now, false, |_| true)
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
    /// range lies between `now` and what the file reaches back to.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
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
            Err(error) => Err(error.into()),
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
    /// is no such series.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn reach(&self, name: &str, now: Timestamp) -> Result<Option<(Timestamp, Timestamp)>> {
        let inner = &*self.0;
        let Ok(canonical) = crate::series::canonical(name.as_bytes()) else {
            return Ok(None);
        };
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
            Err(error) if error.is_missing() => {
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
        self.0.index.reconcile(|id| self.0.cache.holds(id))
    }

    /// Takes up to all of `points`, from the front: how many there was room for.
    fn take(&self, points: &[Datapoint]) -> usize {
        let inner = &*self.0;
        if inner.access != Access::Serve {
            inner.stats.read_only.add(points.len() as u64);
            return points.len();
        }
        let taken = inner.cache.reserve(points.len());
        if taken > 0 {
            let mut woken = Vec::new();
            inner.cache.insert(&points[..taken], &mut woken);
            inner.index.list(&woken);
            inner.stats.received.add(taken as u64);
        }
        taken
    }
}

/// The persister's thread: a pass when arrivals pause, or when points have waited long enough.
fn persist(inner: &Inner) {
    let mut seen = 0;
    let mut since = Instant::now();
    while !inner.stop.load(Ordering::Acquire) {
        std::thread::sleep(TICK);
        let received = inner.stats.received.get();
        if inner.cache.is_empty() {
            since = Instant::now();
        } else if received == seen || since.elapsed() >= LONGEST_WAIT {
            let stop = &inner.stop;
            let pass = lock(&inner.persister).pass(inner, (inner.clock)(), false, |_| {
                !stop.load(Ordering::Acquire)
            });
            // What could not be written is not tried again at once.
            if pass.written == 0 {
                std::thread::sleep(TICK * 10);
            }
            since = Instant::now();
        }
        seen = received;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sink for Carbon {
    fn intern(&self, name: &[u8]) -> std::result::Result<SeriesId, NameError> {
        self.0.index.intern(name)
    }

    fn submit(&self, points: &[Datapoint]) {
        let mut rest = points;
        loop {
            let taken = self.take(rest);
            rest = &rest[taken..];
            if rest.is_empty() {
                return;
            }
            self.0.stats.waits.add(1);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        self.take(points)
    }
}
