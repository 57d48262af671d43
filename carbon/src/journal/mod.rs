//! The journal: what was taken and is not in a synced file yet.
//!
//! ```text
//! append ──► pending ──(commit: write, sync)──► segment ──(checkpoint)──► dropped
//!             memory         group commit         disk       its points are in synced files
//! ```
//!
//! 1. Points are counted in the order in which they are appended. All up to
//!    [`Journal::committed`] survive the death of the process and of the machine.
//! 2. A segment is dropped only after everything that was appended before the next one began is in
//!    files, and those files are synced ([`Journal::rotate`] begins the next one, and hands out the
//!    [`Rotation`] that [`Journal::drop_before`] takes).
//! 3. The journal is bounded: from `max_size` on nothing is appended until segments are dropped.
//! 4. When the disk does not take what is written, what is pending is kept and tried again; when
//!    that grows too long the journal *pauses*: points are taken without it and count as committed only
//!    after a checkpoint has them in synced files. [`Journal::wants_checkpoint`] says so.
//! 5. Locks are taken in the order segment, pending.

pub mod disk;
pub(crate) mod frame;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use whisper::{Point, Timestamp};

use self::disk::{Disk, Segment};
use self::frame::{Item, MAGIC, Reader, Writer};
use crate::clock::{self, Clocks, Era};
use crate::datapoint::{Datapoint, PointTime, SeriesId};
use crate::error::{Error, Result};
use crate::index::{Bits, Index};
use crate::options::{JournalOptions, SyncPolicy};
use crate::private;
use crate::stats::Stats;

/// Pending bytes from which on they are written before the commit is due.
const EARLY_WRITE: usize = 4 << 20;
/// Pending bytes that are kept while the disk refuses to take them.
const MAX_PENDING: usize = 32 << 20;
/// How often a receiver that waits for a commit looks whether it still should.
const LOOK: Duration = Duration::from_millis(100);
/// How long a refused write rests before it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// A checkpoint is wanted after this long, however little was appended.
const LONGEST_SEGMENT: Duration = Duration::from_secs(300);
/// Points per frame at most.
const MAX_FRAME_POINTS: usize = 1 << 16;

/// The journal.
#[derive(Debug)]
pub(crate) struct Journal {
    directory: PathBuf,
    disk: Arc<dyn Disk>,
    sync: SyncPolicy,
    max_size: u64,
    pending: Mutex<Pending>,
    /// Signalled when something is pending, and at the end.
    work: Condvar,
    /// Signalled when something was committed.
    done: Condvar,
    current: Mutex<Current>,
    committed: AtomicU64,
    /// Bytes in all segments, and pending.
    size: AtomicU64,
    /// Why nothing is committed now.
    trouble: Mutex<Option<String>>,
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// When the oldest of it was appended.
    since: Option<Instant>,
    /// Points appended since the start, with or without the journal.
    appended: u64,
    /// Series named in the current segment.
    named: Bits,
    /// The journal pauses: nothing is appended to it until the next rotation.
    paused: bool,
    stopping: bool,
}

/// The segment that is written.
#[derive(Debug)]
struct Current {
    number: u64,
    segment: Option<Box<dyn Segment>>,
    bytes: u64,
    begun: Instant,
    /// Segments that are still there, with their sizes; the current one is not among them.
    older: Vec<(u64, u64)>,
    /// What was taken from `pending` and is not written yet.
    unwritten: Vec<u8>,
    /// Points appended up to what is in `unwritten`.
    upto: u64,
    /// Something was written and not synced.
    written: bool,
    /// Points were taken that are in no segment: nothing counts as committed until a checkpoint
    /// has them in synced files.
    gap: bool,
}

/// The moment at which a new segment began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    number: u64,
    appended: u64,
}

/// What was read back at the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Points read.
    pub points: u64,
    /// Points of series whose name was in a damaged part.
    pub nameless: u64,
    /// Bytes of torn or damaged frames.
    pub unsound_bytes: u64,
    /// Segments read.
    pub segments: usize,
}

fn segment_path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:010}.journal"))
}

/// The segments in `directory`: numbers and sizes, oldest first.
fn segments(directory: &Path) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_suffix(".journal"))
            .and_then(|number| number.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.metadata()?.len()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What the segments of a directory hold, to be read back oldest first.
pub(crate) struct Replay {
    directory: PathBuf,
    /// Numbers and sizes.
    segments: Vec<(u64, u64)>,
    eras: Vec<Era>,
}

impl Replay {
    /// Looks through the segments in `directory` and finds out which of their clocks can be
    /// believed; `now` is the clock of the present. `progress` is told the bytes looked at, and those
    /// there are.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub(crate) fn open(
        directory: &Path,
        now: Timestamp,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let mut replay = Self {
            directory: directory.to_owned(),
            segments: Vec::new(),
            eras: Vec::new(),
        };
        let found = match segments(directory) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(replay),
            Err(error) => return Err(Error::io(directory, "listing the journal", error)),
        };
        let all = found.iter().map(|(_, size)| size).sum();
        let mut before = 0;
        for (number, size) in found {
            let Some(bytes) = replay.read(number)? else {
                continue;
            };
            let mut reader = Reader::new(&bytes);
            while let Some(frame) = reader.next() {
                clock::push(&mut replay.eras, frame.clock);
                progress(before + size.saturating_sub(reader.left() as u64), all);
            }
            replay.segments.push((number, size));
            before += size;
        }
        clock::judge(&mut replay.eras, now);
        Ok(replay)
    }

    /// The bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, size)| size).sum()
    }

    /// A segment; what is not a file, and has the name of one, is set aside.
    fn read(&self, number: u64) -> Result<Option<Vec<u8>>> {
        let path = segment_path(&self.directory, number);
        match private::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(why) if private::is_in_the_way(&why) => {
                let aside = private::set_aside(&path)
                    .map_err(|error| Error::io(&path, "setting it aside", error))?;
                let (path, aside) = (path.display(), aside.display());
                tracing::warn!(
                    "{path} is not a segment of the journal and was renamed to {aside}: {why}"
                );
                Ok(None)
            }
            Err(error) => Err(Error::io(&path, "reading the journal", error)),
        }
    }

    /// Reads it. `each` gets the points of a frame, the clocks they are judged by, and the bytes read
    /// so far.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub(crate) fn run(
        &self,
        index: &Index,
        mut each: impl FnMut(Clocks, &[Datapoint], u64),
    ) -> Result<Replayed> {
        let mut before = 0;
        let mut replayed = Replayed::default();
        let mut points = Vec::new();
        let mut eras = self.eras.iter();
        let mut era = eras.next();
        let mut frames = 0;
        for (number, size) in &self.segments {
            let Some(bytes) = self.read(*number)? else {
                continue;
            };
            let mut ids: HashMap<u32, SeriesId> = HashMap::new();
            let mut reader = Reader::new(&bytes);
            while let Some(frame) = reader.next() {
                points.clear();
                frame.each(|item| match item {
                    Item::Name(id, name) => {
                        if let Ok(own) = index.intern(name) {
                            ids.insert(id.0, own);
                        }
                    }
                    Item::Point(point) => match ids.get(&point.series.0) {
                        Some(series) => points.push(Datapoint {
                            series: *series,
                            ..point
                        }),
                        None => replayed.nameless += 1,
                    },
                });
                replayed.points += points.len() as u64;
                if era.is_some_and(|era| frames == era.frames) {
                    era = eras.next();
                    frames = 0;
                }
                frames += 1;
                let clocks = era.map_or(Clocks::one(frame.clock), |era| era.clocks(frame.clock));
                each(
                    clocks,
                    &points,
                    before + size.saturating_sub(reader.left() as u64),
                );
            }
            replayed.unsound_bytes += reader.unsound as u64;
            replayed.segments += 1;
            before += size;
        }
        Ok(replayed)
    }
}

impl Journal {
    /// Begins a new segment in `directory`, behind those that are there.
    ///
    /// # Errors
    /// The directory cannot be listed. That no segment can be made is no error: the journal
    /// begins paused.
    pub(crate) fn open(
        directory: &Path,
        disk: Arc<dyn Disk>,
        options: &JournalOptions,
    ) -> Result<Self> {
        let older = segments(directory)
            .map_err(|error| Error::io(directory, "listing the journal", error))?;
        let number = older.last().map_or(1, |(number, _)| number + 1);
        let size = older.iter().map(|(_, size)| size).sum();
        let current = Current {
            number,
            segment: None,
            bytes: 0,
            begun: Instant::now(),
            older,
            unwritten: Vec::new(),
            upto: 0,
            written: false,
            gap: false,
        };
        let journal = Self {
            directory: directory.to_owned(),
            disk,
            sync: options.sync,
            max_size: options.max_size.0.max(1),
            pending: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            current: Mutex::new(current),
            committed: AtomicU64::new(0),
            size: AtomicU64::new(size),
            trouble: Mutex::default(),
        };
        {
            let mut current = journal.current.lock();
            if let Err(error) = journal.begin(&mut current) {
                tracing::error!(%error, "the journal cannot be written: points are safe only once their files are synced");
                current.gap = true;
                journal.pending.lock().paused = true;
                *journal.trouble.lock() = Some(error.to_string());
            }
        }
        Ok(journal)
    }

    /// Makes the file of the current segment.
    fn begin(&self, current: &mut Current) -> io::Result<()> {
        let path = segment_path(&self.directory, current.number);
        let mut segment = self.disk.create(&path)?;
        if let Err(error) = segment.append(MAGIC) {
            // An empty file says nothing; the number is used again.
            let _ = self.disk.remove(&path);
            return Err(error);
        }
        current.segment = Some(segment);
        current.bytes = MAGIC.len() as u64;
        current.begun = Instant::now();
        current.written = false;
        self.size.fetch_add(MAGIC.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Whether nothing is appended until segments are dropped.
    pub(crate) fn is_full(&self) -> bool {
        self.size.load(Ordering::Relaxed) >= self.max_size
    }

    /// Appends `points` as taken at `clock`; the number that [`Journal::committed`] reaches when they
    /// are committed.
    pub(crate) fn append(&self, index: &Index, clock: Timestamp, points: &[Datapoint]) -> u64 {
        let mut pending = self.pending.lock();
        pending.appended += points.len() as u64;
        if !pending.paused {
            self.encode(&mut pending, index, clock, points);
            let wake = pending.since.is_none() || pending.bytes.len() >= EARLY_WRITE;
            pending.since.get_or_insert_with(Instant::now);
            if wake {
                self.work.notify_one();
            }
        }
        pending.appended
    }

    /// Appends points that were appended before and must outlive their segment. They are not
    /// counted again.
    pub(crate) fn carry_over(&self, index: &Index, clock: Timestamp, points: &[Datapoint]) {
        let mut pending = self.pending.lock();
        if !pending.paused {
            self.encode(&mut pending, index, clock, points);
        }
    }

    /// These ids may stand for other names from now on: a name is written again before their next
    /// points.
    pub(crate) fn forget(&self, ids: &[SeriesId]) {
        let mut pending = self.pending.lock();
        for id in ids {
            pending.named.clear(id.0);
        }
    }

    fn encode(&self, pending: &mut Pending, index: &Index, clock: Timestamp, points: &[Datapoint]) {
        let Pending { bytes, named, .. } = pending;
        let before = bytes.len();
        for points in points.chunks(MAX_FRAME_POINTS) {
            let mut writer = Writer::new(bytes, clock);
            let mut names = None;
            for point in points {
                if !named.get(point.series.0) {
                    named.set(point.series.0);
                    let names = names.get_or_insert_with(|| index.names());
                    writer.name(point.series, names.name(point.series).as_bytes());
                }
                writer.point(point);
            }
            writer.finish();
        }
        let added = (bytes.len() - before) as u64;
        self.size.fetch_add(added, Ordering::Relaxed);
    }

    /// How many points, in the order in which they were appended, a crash can no longer lose.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// How many points were appended.
    pub(crate) fn appended(&self) -> u64 {
        self.pending.lock().appended
    }

    /// Whether receivers wait for the commit of what they hand over.
    pub(crate) fn is_synchronous(&self) -> bool {
        self.sync == SyncPolicy::Always
    }

    /// Waits until `ticket` points are committed, or `give_up`, asked from time to time, says so.
    pub(crate) fn wait(&self, ticket: u64, give_up: impl Fn() -> bool) {
        let mut pending = self.pending.lock();
        while self.committed() < ticket && !pending.stopping && !give_up() {
            self.done.wait_for(&mut pending, LOOK);
        }
    }

    /// Appends points that find no room in the cache, so that the next start has them. Whether
    /// the journal takes them: not while it pauses.
    pub(crate) fn leave_behind(
        &self,
        index: &Index,
        clock: Timestamp,
        points: &[Datapoint],
    ) -> bool {
        let mut pending = self.pending.lock();
        if !pending.paused {
            self.encode(&mut pending, index, clock, points);
        }
        !pending.paused
    }

    /// Leaves the segments that were there at the start alone until the next start, because they
    /// could not be read back whole.
    pub(crate) fn keep_older(&self) {
        let older = std::mem::take(&mut self.current.lock().older);
        let bytes = older.iter().map(|(_, bytes)| bytes).sum();
        self.size.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What keeps it from being written now, if anything.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }

    /// The committing thread: until [`Journal::stop`], writes and syncs what is pending when it is
    /// due.
    pub(crate) fn run(&self, stats: &Stats) {
        let mut complained: Option<Instant> = None;
        loop {
            let mut pending = self.pending.lock();
            loop {
                if pending.stopping {
                    return;
                }
                let left = match (pending.since, self.sync) {
                    (None, _) => Duration::from_secs(3_600),
                    (Some(_), _) if pending.bytes.len() >= EARLY_WRITE => Duration::ZERO,
                    (Some(since), SyncPolicy::Every(span)) => {
                        span.0.saturating_sub(since.elapsed())
                    }
                    (Some(_), _) => Duration::ZERO,
                };
                if left.is_zero() {
                    break;
                }
                self.work.wait_for(&mut pending, left);
            }
            drop(pending);
            if let Err(error) = self.commit(stats) {
                stats.journal_errors.add(1);
                if complained.is_none_or(|at| at.elapsed() > RETRY * 20) {
                    complained = Some(Instant::now());
                    tracing::error!(%error, "the journal could not be written");
                }
                let mut pending = self.pending.lock();
                if !pending.stopping {
                    // Woken early only by the end.
                    self.work.wait_for(&mut pending, RETRY);
                }
            }
        }
    }

    /// Ends the committing thread.
    pub(crate) fn stop(&self) {
        self.pending.lock().stopping = true;
        self.work.notify_all();
        self.done.notify_all();
    }

    /// Writes and syncs what is pending.
    ///
    /// # Errors
    /// The disk refused; it is kept for the next time.
    pub(crate) fn commit(&self, stats: &Stats) -> io::Result<()> {
        let mut current = self.current.lock();
        let committed = self.commit_with(&mut current, stats);
        match &committed {
            Ok(()) if !current.gap => *self.trouble.lock() = None,
            // That it pauses was noted, with its cause, when it began to.
            Err(error) if !current.gap || self.trouble.lock().is_none() => {
                *self.trouble.lock() = Some(error.to_string());
            }
            _ => {}
        }
        committed
    }

    fn commit_with(&self, current: &mut Current, stats: &Stats) -> io::Result<()> {
        {
            let mut pending = self.pending.lock();
            if pending.paused {
                return Err(io::Error::other("the journal pauses"));
            }
            if current.unwritten.is_empty() {
                std::mem::swap(&mut current.unwritten, &mut pending.bytes);
            } else {
                current.unwritten.append(&mut pending.bytes);
            }
            current.upto = pending.appended;
            pending.since = None;
        }
        let Some(segment) = &mut current.segment else {
            self.pause(current);
            return Err(io::Error::other("the journal has no segment"));
        };
        if !current.unwritten.is_empty() {
            if let Err(error) = segment.append(&current.unwritten) {
                if current.unwritten.len() > MAX_PENDING {
                    self.pause(current);
                } else {
                    // It must be tried again although nothing new comes.
                    self.pending.lock().since.get_or_insert_with(Instant::now);
                }
                return Err(error);
            }
            let bytes = current.unwritten.len() as u64;
            current.bytes += bytes;
            stats.journal_bytes.add(bytes);
            current.unwritten.clear();
            current.unwritten.shrink_to(EARLY_WRITE);
            current.written = true;
        }
        if current.written {
            if let Err(error) = segment.sync() {
                // After a failed sync the kernel may say that all is well and have lost it: what
                // this segment holds is not believed any more.
                *self.trouble.lock() = Some(error.to_string());
                self.pause(current);
                return Err(error);
            }
            stats.journal_commits.add(1);
            current.written = false;
        }
        if !current.gap {
            self.advance(current.upto, stats);
        }
        Ok(())
    }

    /// Goes on without the journal until the next rotation. What is dropped here is in the cache,
    /// and counts as committed when a checkpoint has it.
    fn pause(&self, current: &mut Current) {
        let mut pending = self.pending.lock();
        let dropped = current.unwritten.len() + pending.bytes.len();
        self.size.fetch_sub(dropped as u64, Ordering::Relaxed);
        current.unwritten = Vec::new();
        pending.bytes = Vec::new();
        pending.since = None;
        pending.paused = true;
        current.gap = true;
    }

    fn advance(&self, upto: u64, stats: &Stats) {
        let before = self.committed.fetch_max(upto, Ordering::AcqRel);
        if upto > before {
            stats.journal_committed.add(upto - before);
        }
        // Whoever waits holds this lock between its look and its wait.
        drop(self.pending.lock());
        self.done.notify_all();
    }

    /// Whether files should be synced so that segments can be dropped: a quarter of the journal
    /// is used, or a long time has passed, or the journal pauses.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        if self.pending.lock().paused {
            return true;
        }
        let used = self.size.load(Ordering::Relaxed);
        let current = self.current.lock();
        used >= self.max_size / 4
            || (current.begun.elapsed() >= LONGEST_SEGMENT
                && (current.bytes > MAGIC.len() as u64 || !current.older.is_empty()))
    }

    /// Begins the next segment. The caller sees to it that nobody appends meanwhile.
    ///
    /// # Errors
    /// The disk refused to take what is pending (the segment goes on), or a new segment (the
    /// journal pauses).
    pub(crate) fn rotate(&self, stats: &Stats) -> io::Result<Rotation> {
        let mut current = self.current.lock();
        let paused = self.pending.lock().paused;
        if !paused {
            self.commit_with(&mut current, stats)?;
        }
        if current.segment.take().is_some() {
            let finished = (current.number, current.bytes);
            current.older.push(finished);
            current.number += 1;
        }
        current.bytes = 0;
        let begun = self.begin(&mut current);
        let mut pending = self.pending.lock();
        pending.named = Bits::default();
        pending.paused = begun.is_err();
        current.gap |= begun.is_err();
        begun?;
        current.upto = pending.appended;
        Ok(Rotation {
            number: current.number,
            appended: pending.appended,
        })
    }

    /// Everything appended before `rotation` is in synced files or was carried over and committed:
    /// counts it as committed, and drops the segments before it.
    ///
    /// # Errors
    /// A segment could not be deleted; it will be the next time.
    pub(crate) fn drop_before(&self, rotation: Rotation, stats: &Stats) -> io::Result<()> {
        let mut current = self.current.lock();
        self.advance(rotation.appended, stats);
        current.gap &= current.number != rotation.number || self.pending.lock().paused;
        if !current.gap {
            *self.trouble.lock() = None;
        }
        while let Some((number, bytes)) = current.older.first().copied() {
            if number >= rotation.number {
                break;
            }
            match self.disk.remove(&segment_path(&self.directory, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            current.older.remove(0);
            self.size.fetch_sub(bytes, Ordering::Relaxed);
            stats.journal_dropped.add(1);
        }
        Ok(())
    }

    /// Bytes in all segments, and pending.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }
}

/// The points of `series` as datapoints.
pub(crate) fn datapoints(series: SeriesId, points: &[Point]) -> impl Iterator<Item = Datapoint> {
    points.iter().filter_map(move |point| {
        Some(Datapoint {
            series,
            at: PointTime::new(point.at)?,
            value: point.value,
        })
    })
}
