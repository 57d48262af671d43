//! Reading ahead for queries of many series whose files are not in memory.
//!
//! A query reads one file after the other. While they are in the page cache that is as fast as it gets; from
//! a disk each read waits for the one before. When a query has waited for some files ([`SLOW`]), a few threads open
//! those that come next and ask the kernel for the bytes that will be fetched:
//!
//! 1. The next [`CHUNK`] files are asked for in the order in which their series were first seen, which is
//!    mostly the order in which they lie on the disk, up to two chunks before the query reads them.
//! 2. The threads only open, read the header and advise the kernel, so that as many reads are in flight as the disk
//!    takes. They change nothing: no file is mapped for being read, none loses its map, and what the fetch
//!    returns does not depend on them.
//! 3. There are [`READERS`] threads for a query and [`MOST_READERS`] for all together; a query that gets none
//!    reads as before. They end with the query.
//!
//! The figures that decided for threads and against io_uring, and for their number, are in
//! `benches/README.md`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use whisper::{File, Timestamp};

use super::carbon::Carbon;
use super::inner::Inner;

/// A fetch that takes longer waits for the disk.
const SLOW: Duration = Duration::from_micros(200);
/// After so many of them files are read ahead.
const SLOW_FETCHES: u32 = 4;
/// How many files are asked for at once, in the order of the disk.
const CHUNK: usize = 256;
/// Fewer files than that are not worth the threads.
const WORTHWHILE: usize = 16;
/// Threads for one query.
const READERS: usize = 16;
/// Threads for all queries.
const MOST_READERS: usize = 64;

/// Reads the files of `names` ahead, while they are fetched one after the other.
pub struct ReadAhead<'a> {
    inner: &'a Arc<Inner>,
    names: &'a [String],
    window: Window,
    /// When the fetch before was announced.
    at: Option<Instant>,
    slow: u32,
    /// All names before this one were asked for, or fetched.
    asked: usize,
    readers: Option<Readers>,
}

/// What is fetched of each file.
#[derive(Clone, Copy)]
struct Window {
    from: Timestamp,
    until: Timestamp,
    now: Timestamp,
}

impl Carbon {
    /// Prepares fetches of `names`, one after the other, with these arguments of [`Carbon::fetch`].
    pub fn read_ahead<'a>(
        &'a self,
        names: &'a [String],
        from: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> ReadAhead<'a> {
        ReadAhead {
            inner: &self.0,
            names,
            window: Window { from, until, now },
            at: None,
            slow: 0,
            asked: 0,
            readers: None,
        }
    }
}

impl ReadAhead<'_> {
    /// The series numbered `at` is fetched next.
    pub fn next(&mut self, at: usize) {
        let now = Instant::now();
        let waited = self
            .at
            .replace(now)
            .map_or(Duration::ZERO, |before| now - before);
        self.slow += u32::from(waited >= SLOW);
        if self.slow < SLOW_FETCHES {
            return;
        }
        self.asked = self.asked.max(at + 1);
        // The chunk in which the query is, and the next one.
        if self.asked < self.names.len() && self.asked <= at + CHUNK {
            self.ask();
        }
    }

    /// Asks for the next chunk.
    fn ask(&mut self) {
        let end = self.names.len().min(self.asked + CHUNK);
        let next = &self.names[self.asked..end];
        self.asked = end;
        if self.readers.is_none() {
            if next.len() < WORTHWHILE {
                return;
            }
            self.readers = Readers::start(self.inner, self.window);
        }
        let Some(readers) = &self.readers else {
            return;
        };
        let index = &self.inner.index;
        let _pin = index.pin();
        let known = next.iter().filter_map(|name| {
            let name = crate::series::canonical(name.as_bytes()).ok()?;
            index.names().get(name.as_bytes())
        });
        let mut known: Vec<_> = known.collect();
        known.sort_unstable();
        for id in known {
            let mut path = PathBuf::new();
            // A full queue means that the disk is the limit: the fetch itself reads the file.
            if index.path(id, &mut path) && readers.queue.try_send(path).is_err() {
                break;
            }
            self.inner.stats.read_ahead.add(1);
        }
    }
}

/// The threads of a query; they end when this is dropped.
struct Readers {
    queue: SyncSender<PathBuf>,
}

impl Readers {
    /// `None` if there are enough threads already.
    fn start(inner: &Arc<Inner>, window: Window) -> Option<Self> {
        let (queue, files) = sync_channel(2 * CHUNK);
        let files = Arc::new(Mutex::new(files));
        let mut started = 0;
        for _ in 0..READERS {
            let Some(place) = Place::take(inner) else {
                break;
            };
            let files = Arc::clone(&files);
            let reader = std::thread::Builder::new()
                .name("read-ahead".to_owned())
                .stack_size(128 << 10)
                .spawn(move || {
                    let _place = place;
                    read(&files, window);
                });
            started += usize::from(reader.is_ok());
        }
        (started > 0).then_some(Self { queue })
    }
}

/// One of [`MOST_READERS`].
struct Place(Arc<Inner>);

impl Place {
    fn take(inner: &Arc<Inner>) -> Option<Self> {
        let readers = &inner.readers;
        let place = Self(Arc::clone(inner));
        (readers.fetch_add(1, Ordering::Relaxed) < MOST_READERS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A thread: asks for each file, until the query has ended.
fn read(files: &Mutex<Receiver<PathBuf>>, window: Window) {
    let Window { from, until, now } = window;
    loop {
        // The lock is held while nothing is to be done; the next thread gets the file after this one.
        let Ok(path) = files.lock().recv() else {
            return;
        };
        // What is wrong with a file is found, and counted, when it is fetched.
        let _ = File::open(&path).and_then(|file| file.read_ahead(now, from, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapoint::{Datapoint, PointTime, Sink};
    use crate::options::JournalOptions;
    use crate::options::Span;
    use crate::store::Setup;

    const FILES: usize = 3 * CHUNK;

    /// A store with files of one point each, and their names.
    fn store(data: &std::path::Path) -> (Carbon, Vec<String>) {
        let mut setup = Setup::new(
            Default::default(),
            JournalOptions::default(),
            Span::seconds(10),
        );
        setup.clock = Arc::new(|| Timestamp(1_000_000));
        let carbon = Carbon::open(setup, data).unwrap();
        // Not in the order of their names.
        let names = (0..FILES).map(|n| format!("a.b{:04}", n * 7 % FILES));
        let mut names: Vec<String> = names.collect();
        for (n, name) in names.iter().enumerate() {
            let series = carbon.intern(name.as_bytes()).unwrap();
            let at = PointTime::new(Timestamp(999_990)).unwrap();
            let value = n as f64;
            carbon.submit(&[Datapoint { series, at, value }]);
        }
        carbon.checkpoint().unwrap();
        names.sort();
        (carbon, names)
    }

    #[test]
    fn files_are_read_ahead_only_when_they_are_slow_and_answers_stay_the_same() {
        let data = tempfile::tempdir().unwrap();
        let (carbon, names) = store(data.path());
        let (from, until) = (Timestamp(999_900), Timestamp(1_000_000));
        let mapped = carbon.0.maps.mapped_files();
        let fetch = |name: &String| {
            let fetched = carbon.fetch(name, from, until, until).unwrap().unwrap();
            let points = fetched.points.points().filter(|(_, value)| !value.is_nan());
            points.collect::<Vec<_>>()
        };
        let plain: Vec<_> = names.iter().map(fetch).collect();
        assert!(plain.iter().all(|points| points.len() == 1));
        let mut ahead = carbon.read_ahead(&names, from, until, until);
        ahead.slow = SLOW_FETCHES;
        let mut read = Vec::new();
        for (at, name) in names.iter().enumerate() {
            ahead.next(at);
            read.push(fetch(name));
        }
        assert_eq!(read, plain);
        assert_eq!(ahead.asked, FILES);
        assert!(carbon.stats().read_ahead.get() > 0);
        assert_eq!(carbon.0.maps.mapped_files(), mapped);
        drop(ahead);
        let deadline = Instant::now() + Duration::from_secs(60);
        while carbon.0.readers.load(Ordering::Relaxed) > 0 {
            assert!(Instant::now() < deadline, "threads that do not end");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_threads_of_all_queries_are_limited() {
        let data = tempfile::tempdir().unwrap();
        let (carbon, names) = store(data.path());
        let until = Timestamp(1_000_000);
        let mut queries: Vec<_> = (0..8)
            .map(|_| carbon.read_ahead(&names, Timestamp(999_900), until, until))
            .collect();
        for query in &mut queries {
            query.slow = SLOW_FETCHES;
            query.next(0);
            let most = carbon.0.readers.load(Ordering::Relaxed);
            assert!(most <= MOST_READERS, "{most}");
        }
        assert!(queries[0].readers.is_some());
        assert!(queries[7].readers.is_none());
    }

    #[test]
    fn a_file_that_is_missing_or_damaged_is_left_to_the_fetch() {
        let data = tempfile::tempdir().unwrap();
        let (carbon, names) = store(data.path());
        let file = |name: &str| {
            let below = name.replace('.', "/");
            data.path()
                .join("whisper")
                .join(below)
                .with_extension("wsp")
        };
        std::fs::remove_file(file(&names[1])).unwrap();
        std::fs::write(file(&names[2]), "damage").unwrap();
        let until = Timestamp(1_000_000);
        let mut ahead = carbon.read_ahead(&names, Timestamp(999_900), until, until);
        ahead.slow = SLOW_FETCHES;
        ahead.next(0);
        let fetched = carbon.fetch(&names[3], Timestamp(999_900), until, until);
        assert!(fetched.unwrap().is_some());
    }
}
