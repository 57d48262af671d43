//! A store in a fresh directory, and a disk that loses what was not synced.

#![allow(dead_code, reason = "each test uses its part")]

pub(crate) mod golden;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use carbon::journal::disk::{Disk, RealDisk, Segment};
use carbon::options::{ByteSize, JournalOptions, Options, Span, SyncPolicy};
use carbon::schema::Schema;
use carbon::{Carbon, Datapoint, PointTime, SeriesId, Setup, Sink, Timestamp};
use whisper::Retention;

/// The time of the clock of the tests.
pub(crate) const NOW: u32 = 1_700_000_000;

/// Options with which files are written at once: most tests look at them.
pub(crate) fn options() -> Options {
    Options {
        persist_within: Span::seconds(1),
        ..Options::default()
    }
}

/// A setup whose journal commits only when asked, with a constant clock.
pub(crate) fn setup(disk: Arc<dyn Disk>) -> Setup {
    let journal = JournalOptions {
        sync: SyncPolicy::Every(Span::seconds(3_600)),
        max_size: ByteSize(1 << 30),
    };
    // Files of a few pages.
    let retentions = [(10, 360), (60, 1_000)].map(|(step, points)| Retention::new(step, points));
    Setup {
        schema: Schema::new(
            retentions.into_iter().flatten().collect(),
            Span::seconds(10),
        ),
        clock: Arc::new(|| Timestamp(NOW)),
        disk,
        ..Setup::new(options(), journal, Span::seconds(10))
    }
}

/// The store in `dir`, on the real disk.
pub(crate) fn reopen(dir: &Path) -> Carbon {
    Carbon::open(setup(Arc::new(RealDisk)), dir).unwrap()
}

/// A point of `series`, `n` steps of ten seconds ago, with a value of its own.
pub(crate) fn point(series: SeriesId, n: u32) -> Datapoint {
    Datapoint {
        series,
        at: PointTime::new(Timestamp(NOW - n * 10)).unwrap(),
        value: f64::from(series.0 * 10_000 + n),
    }
}

/// The values of `name` by time, of the last hour.
pub(crate) fn values(carbon: &Carbon, name: &str) -> BTreeMap<u32, f64> {
    let from = Timestamp(NOW - 3_600);
    let fetched = carbon.fetch(name, from, Timestamp(NOW), Timestamp(NOW));
    match fetched.unwrap() {
        None => BTreeMap::new(),
        Some(fetched) => fetched
            .points
            .points()
            .filter(|(_, value)| !whisper::is_absent(*value))
            .map(|(at, value)| (at.0, value))
            .collect(),
    }
}

/// Interns `n` names.
pub(crate) fn series(carbon: &Carbon, n: u32) -> Vec<SeriesId> {
    (0..n)
        .map(|n| carbon.intern(format!("test.m{n}").as_bytes()).unwrap())
        .collect()
}

/// Waits until `done`: looks again when the store has written something, and from time to time.
#[track_caller]
pub(crate) fn until(carbon: &Carbon, what: &str, mut done: impl FnMut() -> bool) {
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().unwrap();
    let begun = Instant::now();
    loop {
        let room = carbon.room();
        if done() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        let look = async { tokio::time::timeout(Duration::from_millis(20), room).await };
        let _ = runtime.block_on(look);
    }
}

/// A disk that remembers what was synced and can fail.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// How many bytes of each journal file are synced.
    synced: Arc<Mutex<BTreeMap<PathBuf, u64>>>,
    /// The whisper tree as of the last sync.
    tree: Mutex<BTreeMap<PathBuf, Vec<u8>>>,
    /// Writes fail.
    pub(crate) full: Arc<AtomicBool>,
    /// Syncs of the journal fail.
    pub(crate) broken: Arc<AtomicBool>,
    /// Syncs of the tree fail.
    pub(crate) stuck: AtomicBool,
}

#[derive(Debug)]
struct Recorded {
    file: fs::File,
    path: PathBuf,
    len: u64,
    synced: Arc<Mutex<BTreeMap<PathBuf, u64>>>,
    full: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

fn refuse(flag: &AtomicBool, kind: io::ErrorKind) -> io::Result<()> {
    if flag.load(Ordering::SeqCst) {
        return Err(kind.into());
    }
    Ok(())
}

impl Disk for Recorder {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Segment>> {
        refuse(&self.full, io::ErrorKind::StorageFull)?;
        self.synced.lock().unwrap().insert(path.to_owned(), 0);
        Ok(Box::new(Recorded {
            file: fs::File::create_new(path)?,
            path: path.to_owned(),
            len: 0,
            synced: Arc::clone(&self.synced),
            full: Arc::clone(&self.full),
            broken: Arc::clone(&self.broken),
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.synced.lock().unwrap().remove(path);
        fs::remove_file(path)
    }

    fn sync_tree(&self, root: &Path) -> io::Result<()> {
        refuse(&self.stuck, io::ErrorKind::Other)?;
        *self.tree.lock().unwrap() = files(root);
        Ok(())
    }
}

impl Segment for Recorded {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        refuse(&self.full, io::ErrorKind::StorageFull)?;
        use std::os::unix::fs::FileExt;
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        refuse(&self.broken, io::ErrorKind::Other)?;
        let mut synced = self.synced.lock().unwrap();
        synced.insert(self.path.clone(), self.len);
        Ok(())
    }
}

/// All files below `root` with their contents.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

impl Recorder {
    /// A disk on which everything that is in `data` is synced: what a power loss has left.
    pub(crate) fn holding(data: &Path) -> Self {
        Self {
            tree: Mutex::new(files(&data.join("whisper"))),
            ..Self::default()
        }
    }

    /// The power fails: bytes that were not synced are lost, all or in part, as `chance` (a number below
    /// its argument) decides. The store must have ended.
    pub(crate) fn power_loss(&self, data: &Path, mut chance: impl FnMut(usize) -> usize) {
        for (path, synced) in self.synced.lock().unwrap().iter() {
            let bytes = fs::read(path).unwrap();
            let unsynced = bytes.len() - *synced as usize;
            let kept = *synced as usize + chance(unsynced + 1);
            let mut torn = bytes[..kept].to_vec();
            // The length may have reached the disk before the bytes.
            torn.resize(torn.len() + chance(2) * chance(unsynced + 1), 0);
            fs::write(path, torn).unwrap();
        }
        let tree = self.tree.lock().unwrap();
        for (path, now) in files(&data.join("whisper")) {
            match tree.get(&path) {
                // Never synced: unchanged, empty, truncated, or missing.
                None => match chance(4) {
                    0 => {}
                    1 => fs::write(&path, b"").unwrap(),
                    2 => fs::write(&path, &now[..chance(now.len())]).unwrap(),
                    _ => fs::remove_file(&path).unwrap(),
                },
                // Each page has its old bytes or its new ones.
                Some(old) => {
                    let mut mixed = now.clone();
                    for (page, old) in mixed.chunks_mut(4_096).zip(old.chunks(4_096)) {
                        if chance(2) == 0 {
                            page[..old.len()].copy_from_slice(old);
                        }
                    }
                    fs::write(&path, mixed).unwrap();
                }
            }
        }
        // The index may have lost any part of its end.
        let names = data.join("index").join("names");
        if let Ok(bytes) = fs::read(&names) {
            fs::write(&names, &bytes[..chance(bytes.len() + 1)]).unwrap();
        }
    }
}

/// Pseudo-random numbers, the same in each run.
pub(crate) fn chance(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    }
}

/// A store with room for 100 datapoints whose persister writes nothing until [`FullCache::make_room`].
pub(crate) struct FullCache {
    pub(crate) carbon: Carbon,
    /// Points of 200 series, of which the store has taken the first hundred.
    pub(crate) points: Vec<Datapoint>,
    held: Arc<(Mutex<bool>, Condvar)>,
    pub(crate) dir: tempfile::TempDir,
}

impl FullCache {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let held = Arc::new((Mutex::new(true), Condvar::new()));
        let hold = Arc::clone(&held);
        // The persister reads the clock before it writes: that is where it is held. An obstacle among the
        // files would not do, because a full cache gives up what only its own file refuses.
        let clock = move || {
            if std::thread::current().name() == Some("persister") {
                let (is_held, released) = &*hold;
                let is_held = is_held.lock().unwrap();
                drop(released.wait_while(is_held, |is_held| *is_held).unwrap());
            }
            Timestamp(NOW)
        };
        let setup = Setup {
            options: Options {
                max_cache_size: ByteSize(32 * 100),
                ..options()
            },
            clock: Arc::new(clock),
            ..setup(Arc::new(RealDisk))
        };
        let carbon = Carbon::open(setup, dir.path()).unwrap();
        let ids = series(&carbon, 200);
        let points: Vec<_> = ids.iter().map(|id| point(*id, 1)).collect();
        assert_eq!(carbon.try_submit(&points), 100);
        Self {
            carbon,
            points,
            held,
            dir,
        }
    }

    /// Lets the persister write.
    pub(crate) fn make_room(&self) {
        let (is_held, released) = &*self.held;
        *is_held.lock().unwrap() = false;
        released.notify_all();
    }
}

impl Drop for FullCache {
    fn drop(&mut self) {
        // The end of a store waits for its threads.
        self.make_room();
    }
}
