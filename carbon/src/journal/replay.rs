//! Reads a journal back at the start.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use whisper::Timestamp;

use super::frame::{Item, Reader};
use super::segments::{segment_path, segments};
use crate::clock::{self, Clocks, Era};
use crate::datapoint::{Datapoint, SeriesId};
use crate::error::{Error, Result};
use crate::index::Index;
use crate::private;

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

    /// Reads the segments. `each` is called with the points of a frame, the clocks that decide how old they
    /// are, and the bytes read so far.
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
            // Ids in the segment are those of the process that wrote it.
            let mut ids: HashMap<u32, SeriesId, foldhash::fast::RandomState> = HashMap::default();
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
                // The eras were found in the same order of frames by `Replay::open`.
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
