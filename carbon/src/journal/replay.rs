//! Reads a journal back at the start.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;

use whisper::Timestamp;

use super::frame::{Item, Reader};
use super::segments::{segment_path, segments};
use crate::clock::{self, Clocks, Era};
use crate::datapoint::{Datapoint, SeriesId};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::private;

/// Points after which a batch is passed on. A frame is never divided.
const BATCH: usize = 1 << 14;
/// Batches that are read ahead.
const AHEAD: usize = 4;

/// The result of reading a journal back.
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

/// The segments of a directory, to be read back oldest first.
pub(crate) struct Replay {
    directory: PathBuf,
    /// Numbers and sizes.
    segments: Vec<(u64, u64)>,
    eras: Vec<Era>,
}

/// The content of the segment `number` in `directory`, which a running journal has finished.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read_segment(directory: &Path, number: u64) -> io::Result<Vec<u8>> {
    private::read(&segment_path(directory, number))
}

impl Replay {
    /// Reads the clocks of the segments in `directory` and decides which of them are right; `now` is the
    /// present clock. `progress` is called with the bytes read and the bytes of all segments.
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

    /// The content of a segment. A directory, link or device that has its name is set aside.
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

    /// Reads the segments. `each` is called with points in the order in which they were taken, the clocks that
    /// decide how old they are, and the bytes read so far. The next points are read on a thread of its own
    /// meanwhile.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub(crate) fn run(
        &self,
        index: &Index,
        mut each: impl FnMut(Clocks, &[Datapoint], u64),
    ) -> Result<Replayed> {
        thread::scope(|scope| {
            let (send, batches) = mpsc::sync_channel(AHEAD);
            let (give_back, empty) = mpsc::sync_channel(AHEAD);
            let output = Output {
                batches: send,
                empty,
                next: None,
            };
            let reader = thread::Builder::new()
                .name("replay".to_owned())
                .spawn_scoped(scope, move || self.read_all(index, output))
                .map_err(|error| Error::io(&self.directory, "starting a thread", error))?;
            for Batch {
                clocks,
                mut points,
                read,
            } in batches
            {
                each(clocks, &points, read);
                points.clear();
                // The reader may have ended.
                let _ = give_back.try_send(points);
            }
            match reader.join() {
                Ok(replayed) => replayed,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Reads the segments into `output`.
    fn read_all(&self, index: &Index, mut output: Output) -> Result<Replayed> {
        let mut before = 0;
        let mut replayed = Replayed::default();
        let mut eras = self.eras.iter();
        let mut era = eras.next();
        let mut frames = 0;
        for (number, size) in &self.segments {
            let Some(bytes) = self.read(*number)? else {
                continue;
            };
            // Ids in the segment are those of the process that wrote it.
            let mut ids = Ids::default();
            let mut reader = Reader::new(&bytes);
            while let Some(frame) = reader.next() {
                // The eras were found in the same order of frames by `Replay::open`.
                if era.is_some_and(|era| frames == era.frames) {
                    era = eras.next();
                    frames = 0;
                }
                frames += 1;
                let clocks = era.map_or(Clocks::one(frame.clock), |era| era.clocks(frame.clock));
                let points = output.points(clocks);
                let already = points.len();
                frame.each(|item| match item {
                    Item::Name(id, name) => {
                        if let Some(own) = own_id(index, id, name) {
                            ids.insert(id, own);
                        }
                    }
                    Item::Point(point) => match ids.get(point.series) {
                        Some(series) => points.push(Datapoint { series, ..point }),
                        None => replayed.nameless += 1,
                    },
                });
                replayed.points += (points.len() - already) as u64;
                output.has_read(before + size.saturating_sub(reader.left() as u64));
            }
            replayed.unsound_bytes += reader.unsound as u64;
            replayed.segments += 1;
            before += size;
        }
        output.send();
        Ok(replayed)
    }
}

/// The id of `name`, which had the id `then` in the process that wrote the segment: mostly the same one, as both
/// have read the same list of names.
fn own_id(index: &Index, then: SeriesId, name: &[u8]) -> Option<SeriesId> {
    if index.names().is(then, name) {
        return Some(then);
    }
    index.intern(name).ok()
}

/// The ids of a segment, and those that their names have in this process.
///
/// Each flush has nearly the same series in nearly the same order. So a search begins after the last one that was
/// found, in the order in which they were named, and rarely hashes.
#[derive(Default)]
struct Ids {
    named: Vec<(SeriesId, SeriesId)>,
    /// Where in `named` an id is.
    places: HashMap<u32, u32, foldhash::fast::RandomState>,
    next: usize,
}

impl Ids {
    fn insert(&mut self, then: SeriesId, own: SeriesId) {
        match self.places.entry(then.0) {
            // The id was reused: its points from here on are those of this name.
            Entry::Occupied(place) => self.named[*place.get() as usize].1 = own,
            Entry::Vacant(place) => {
                // There are at most as many names as ids.
                place.insert(self.named.len() as u32);
                self.named.push((then, own));
            }
        }
    }

    #[inline]
    fn get(&mut self, then: SeriesId) -> Option<SeriesId> {
        let found = match self.named.get(self.next) {
            Some((next, own)) if *next == then => *own,
            _ => {
                self.next = *self.places.get(&then.0)? as usize;
                self.named[self.next].1
            }
        };
        self.next += 1;
        Some(found)
    }
}

/// Points of one or several frames.
struct Batch {
    clocks: Clocks,
    points: Vec<Datapoint>,
    /// Bytes of the journal up to here.
    read: u64,
}

/// Where the reader puts points.
struct Output {
    batches: SyncSender<Batch>,
    /// Vectors to be used again.
    empty: Receiver<Vec<Datapoint>>,
    /// What has not been sent yet.
    next: Option<Batch>,
}

impl Output {
    /// Where points go to which `clocks` apply.
    fn points(&mut self, clocks: Clocks) -> &mut Vec<Datapoint> {
        let goes_on = |next: &Batch| next.clocks == clocks && next.points.len() < BATCH;
        if !self.next.as_ref().is_some_and(goes_on) {
            self.send();
        }
        let next = self.next.get_or_insert_with(|| Batch {
            clocks,
            points: self.empty.try_recv().unwrap_or_default(),
            read: 0,
        });
        &mut next.points
    }

    fn has_read(&mut self, bytes: u64) {
        if let Some(next) = &mut self.next {
            next.read = bytes;
        }
    }

    fn send(&mut self) {
        if let Some(batch) = self.next.take() {
            // It fails only if the receiver is unwinding.
            let _ = self.batches.send(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapoint::PointTime;
    use crate::journal::frame::{MAGIC, Writer};

    const CLOCK: u32 = 1_700_000_000;

    fn point(series: u32, value: f64) -> Datapoint {
        Datapoint {
            series: SeriesId(series),
            at: PointTime::new(Timestamp(CLOCK)).unwrap(),
            value,
        }
    }

    /// Items of a frame.
    enum Part<'a> {
        Name(u32, &'a str),
        Point(u32, f64),
    }
    use Part::{Name, Point};

    fn write(directory: &Path, number: u64, frames: &[(u32, &[Part<'_>])]) {
        let mut bytes = MAGIC.to_vec();
        for (clock, parts) in frames {
            let mut writer = Writer::new(&mut bytes, Timestamp(*clock));
            for part in *parts {
                match part {
                    Name(id, name) => writer.name(SeriesId(*id), name.as_bytes()),
                    Point(id, value) => writer.point(&point(*id, *value)),
                }
            }
            writer.finish();
        }
        std::fs::write(segment_path(directory, number), bytes).unwrap();
    }

    /// What replaying brings.
    #[derive(Default)]
    struct Seen {
        /// The values in order, with the names of their series.
        points: Vec<(String, f64)>,
        /// The clock and the number of points of each call.
        calls: Vec<(u32, usize)>,
    }

    fn replay(directory: &Path, index: &Index) -> (Replayed, Seen) {
        let mut seen = Seen::default();
        let replay = Replay::open(directory, Timestamp(CLOCK), |_, _| {}).unwrap();
        let mut last = 0;
        let replayed = replay.run(index, |clocks, batch, read| {
            assert!(read >= last && read <= replay.bytes());
            last = read;
            seen.calls.push((clocks.earliest().0, batch.len()));
            let names = index.names();
            for point in batch {
                let name = names.name(point.series).to_owned();
                seen.points.push((name, point.value));
            }
        });
        assert_eq!(last, replay.bytes());
        (replayed.unwrap(), seen)
    }

    #[test]
    fn points_belong_to_the_name_that_their_id_had_then() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("tree"), dir.path().join("names"), false).unwrap();
        // Ids of this process that are none of the other one's, and one that is another name's.
        for name in ["x", "c", "b"] {
            index.intern(name.as_bytes()).unwrap();
        }
        let first: &[Part<'_>] = &[Name(0, "a"), Point(0, 1.0), Name(1, "b"), Point(1, 2.0)];
        // The id 0 was given to another series within the segment.
        let second: &[Part<'_>] = &[Point(0, 3.0), Name(0, "c"), Point(0, 4.0), Point(1, 5.0)];
        let third: &[Part<'_>] = &[Point(1, 6.0), Point(0, 7.0), Point(0, 8.0), Point(9, 9.0)];
        write(
            dir.path(),
            1,
            &[(CLOCK, first), (CLOCK, second), (CLOCK, third)],
        );
        // Names do not carry over: each segment has the names of its own points.
        write(
            dir.path(),
            2,
            &[(CLOCK, &[Point(1, 10.0), Name(1, "a"), Point(1, 11.0)])],
        );
        let (replayed, seen) = replay(dir.path(), &index);
        let points = seen.points.iter().map(|(name, n)| (name.as_str(), *n));
        let points: Vec<_> = points.collect();
        let expected = [
            ("a", 1.0),
            ("b", 2.0),
            ("a", 3.0),
            ("c", 4.0),
            ("b", 5.0),
            ("b", 6.0),
            ("c", 7.0),
            ("c", 8.0),
            ("a", 11.0),
        ];
        assert_eq!(points, expected);
        let expected = Replayed {
            points: 9,
            nameless: 2,
            unsound_bytes: 0,
            segments: 2,
        };
        assert_eq!(replayed, expected);
    }

    #[test]
    fn frames_of_one_clock_are_passed_on_together() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("tree"), dir.path().join("names"), false).unwrap();
        let named: &[Part<'_>] = &[Name(0, "a"), Point(0, 1.0)];
        let many: Vec<Part<'_>> = (0..BATCH).map(|n| Point(0, n as f64)).collect();
        write(
            dir.path(),
            1,
            &[
                (CLOCK - 20, named),
                (CLOCK - 20, &[Point(0, 2.0)]),
                (CLOCK - 10, &many),
                (CLOCK - 10, &[Point(0, 3.0)]),
            ],
        );
        let (_, Seen { points, calls }) = replay(dir.path(), &index);
        assert_eq!(points.len(), BATCH + 3);
        let expected = [(CLOCK - 20, 2), (CLOCK - 10, BATCH), (CLOCK - 10, 1)];
        assert_eq!(calls, expected);
    }
}
