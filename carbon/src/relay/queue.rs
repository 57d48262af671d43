//! What waits for a destination: on disk, in order, and the newest part in memory as well.
//!
//! ```text
//! append ──► segment files ──► cursor: sent ──► confirmed: deleted
//!             (and memory)      ▲                │
//!                               └── rewind ◄─────┘ the connection broke
//! ```
//!
//! 1. A segment is "plumbago relay 1\n" and frames ([`envelope`]), each of which
//!    has a `u32` number of points and their lines. Damage costs the damaged frames only.
//! 2. A frame is written to its segment when it is appended, and survives the end of the process from then
//!    on. Nothing is synced: after a power failure the last seconds may be missing.
//! 3. A segment is deleted when all of it has been confirmed. The next start sends again what is in the
//!    segments that are left: each point arrives at least once, and points of a series in their order.
//! 4. When the segments are larger than the limit, the oldest one is dropped.
//! 5. When the disk refuses a frame, the frame waits in memory alone. At the end it is offered to the disk
//!    once more, behind the others.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::journal::envelope;
use crate::private;

const MAGIC: &[u8] = b"plumbago relay 1\n";
/// A segment of this size is followed by another one.
const SEGMENT: u64 = 4 << 20;
/// Bytes of frames that are in memory, too, so that a destination that keeps up costs no reading.
const MEMORY: usize = 8 << 20;
/// Bytes that were sent and may not have been read by the destination: the buffers of the kernel on both
/// sides, and what it has read and not yet stored.
const UNCONFIRMED: usize = 8 << 20;
/// How long it takes until what was sent is stored for certain.
const CONFIRMED_AFTER: Duration = Duration::from_secs(30);

/// Lines on their way, and how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Whole lines.
    pub(super) lines: Vec<u8>,
    /// How many.
    pub(super) points: u32,
}

/// A place in the segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    segment: u64,
    offset: u64,
}

/// A file of frames.
#[derive(Debug)]
struct Segment {
    number: u64,
    bytes: u64,
    /// Points beyond the cursor.
    points: u64,
}

#[derive(Debug)]
struct InMemory {
    chunk: Chunk,
    /// Where its frame begins and ends; `None`: the disk refused it.
    frame: Option<(Place, Place)>,
}

/// A frame that was sent.
#[derive(Debug)]
struct Sent {
    begin: Option<Place>,
    points: u32,
    bytes: usize,
    at: Instant,
}

/// What was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Points without room.
    pub(super) points: u64,
    /// Bytes that were damaged.
    pub(super) bytes: u64,
}

/// The queue of a destination.
#[derive(Debug)]
pub(super) struct Queue {
    directory: PathBuf,
    max: u64,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// The last segment, while it can take frames.
    open: Option<File>,
    next_number: u64,
    /// The first frame that has not been sent.
    cursor: Place,
    reading: Option<(u64, File)>,
    memory: VecDeque<InMemory>,
    memory_bytes: usize,
    sent: VecDeque<Sent>,
    sent_bytes: usize,
    frame: Vec<u8>,
}

impl Queue {
    /// The queue in `directory`, with what an earlier run left there. What was damaged is in the result.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(super) fn open(directory: &Path, max: u64) -> io::Result<(Self, Lost)> {
        private::create_dir(directory)?;
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".queue"));
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        let mut queue = Self {
            directory: directory.to_owned(),
            max,
            segments: VecDeque::new(),
            open: None,
            next_number: numbers.last().map_or(1, |last| last + 1),
            cursor: Place {
                segment: 0,
                offset: 0,
            },
            reading: None,
            memory: VecDeque::new(),
            memory_bytes: 0,
            sent: VecDeque::new(),
            sent_bytes: 0,
            frame: Vec::new(),
        };
        let mut lost = Lost::default();
        for number in numbers {
            let path = queue.path(number);
            let mut bytes = Vec::new();
            private::open(&path, OpenOptions::new().read(true))?.read_to_end(&mut bytes)?;
            if !bytes.starts_with(MAGIC) {
                lost.bytes += bytes.len() as u64;
                private::set_aside(&path)?;
                continue;
            }
            let mut points = 0;
            lost.bytes += each_frame(&bytes, |_, frame_points, _| {
                points += u64::from(frame_points)
            });
            queue.segments.push_back(Segment {
                number,
                bytes: bytes.len() as u64,
                points,
            });
        }
        queue.cursor = queue.first_place();
        queue.delete_confirmed();
        Ok((queue, lost))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:012}.queue"))
    }

    /// The first frame of all segments.
    fn first_place(&self) -> Place {
        Place {
            segment: self
                .segments
                .front()
                .map_or(self.next_number, |first| first.number),
            offset: MAGIC.len() as u64,
        }
    }

    /// Appends a chunk. Returns what had to go to make room, and why the chunk is not on disk, if it is
    /// not.
    pub(super) fn append(&mut self, chunk: Chunk) -> (Lost, Option<io::Error>) {
        let written = self.write(&chunk);
        let (frame, error) = match written {
            Ok(frame) => (Some(frame), None),
            Err(error) => {
                // A part of the frame may be there: nothing is appended to it.
                self.open = None;
                (None, Some(error))
            }
        };
        self.memory_bytes += chunk.lines.len();
        self.memory.push_back(InMemory { chunk, frame });
        let mut lost = Lost::default();
        while self.memory_bytes > MEMORY {
            let Some(oldest) = self.memory.pop_front() else {
                break;
            };
            self.memory_bytes -= oldest.chunk.lines.len();
            if oldest.frame.is_none() {
                lost.points += u64::from(oldest.chunk.points);
            }
        }
        while self.bytes() > self.max && self.segments.len() > 1 {
            lost.points += self.drop_oldest();
        }
        (lost, error)
    }

    fn write(&mut self, chunk: &Chunk) -> io::Result<(Place, Place)> {
        self.frame.clear();
        envelope::begin(&mut self.frame);
        self.frame.extend_from_slice(&chunk.points.to_le_bytes());
        self.frame.extend_from_slice(&chunk.lines);
        envelope::seal(&mut self.frame, 0);
        if self.open.is_none()
            || self
                .segments
                .back()
                .is_none_or(|last| last.bytes >= SEGMENT)
        {
            self.begin_segment(|file| file.write_all(MAGIC))?;
        }
        let (Some(file), Some(last)) = (&mut self.open, self.segments.back_mut()) else {
            return Err(io::Error::other("there is no segment"));
        };
        file.write_all(&self.frame)?;
        let place = |offset| Place {
            segment: last.number,
            offset,
        };
        let (begin, end) = (
            place(last.bytes),
            place(last.bytes + self.frame.len() as u64),
        );
        last.bytes = end.offset;
        last.points += u64::from(chunk.points);
        Ok((begin, end))
    }

    /// Makes a new segment, which `begin` writes the beginning of.
    fn begin_segment(&mut self, begin: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let path = self.path(self.next_number);
        let mut file = private::open(&path, OpenOptions::new().write(true).create_new(true))?;
        if let Err(error) = begin(&mut file) {
            // A full disk takes the name of a file and not its bytes: the name must be free for the next
            // attempt.
            if std::fs::remove_file(&path).is_err() {
                self.next_number += 1;
                self.cursor = self.cursor.max(self.first_place());
            }
            return Err(error);
        }
        self.open = Some(file);
        self.segments.push_back(Segment {
            number: self.next_number,
            bytes: MAGIC.len() as u64,
            points: 0,
        });
        self.next_number += 1;
        Ok(())
    }

    /// Puts a chunk that could not be sent back to the front.
    pub(super) fn put_back(&mut self, taken: Taken) {
        let Taken { chunk, frame } = taken;
        self.memory_bytes += chunk.lines.len();
        self.memory.push_front(InMemory { chunk, frame });
    }

    /// Writes what is only in memory, behind everything else. Returns how many points are still only in
    /// memory, and why.
    pub(super) fn save(&mut self) -> (u64, Option<io::Error>) {
        let (mut left, mut why) = (0, None);
        let mut memory = std::mem::take(&mut self.memory);
        for entry in memory.iter_mut().filter(|entry| entry.frame.is_none()) {
            match self.write(&entry.chunk) {
                Ok(frame) => entry.frame = Some(frame),
                Err(error) => {
                    self.open = None;
                    left += u64::from(entry.chunk.points);
                    why = Some(error);
                }
            }
        }
        self.memory = memory;
        (left, why)
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Points that have not been sent.
    pub(super) fn waiting(&self) -> u64 {
        let only_here = self.memory.iter().filter(|entry| entry.frame.is_none());
        let on_disk: u64 = self.segments.iter().map(|segment| segment.points).sum();
        on_disk
            + only_here
                .map(|entry| u64::from(entry.chunk.points))
                .sum::<u64>()
    }

    /// Whether nothing waits to be sent.
    pub(super) fn is_sent(&self) -> bool {
        self.memory.is_empty() && self.cursor >= self.end()
    }

    /// Behind the last frame.
    fn end(&self) -> Place {
        self.segments
            .back()
            .map_or(self.first_place(), |last| Place {
                segment: last.number,
                offset: last.bytes,
            })
    }

    /// Deletes the oldest segment and returns how many points of it had not been sent.
    fn drop_oldest(&mut self) -> u64 {
        let Some(oldest) = self.segments.pop_front() else {
            return 0;
        };
        self.remove(oldest.number);
        self.cursor = self.cursor.max(self.first_place());
        let first = self.cursor;
        self.sent
            .retain(|sent| sent.begin.is_none_or(|begin| begin >= first));
        self.sent_bytes = self.sent.iter().map(|sent| sent.bytes).sum();
        while let Some(entry) = self.memory.front()
            && entry.frame.is_some_and(|(begin, _)| begin < first)
        {
            self.memory_bytes -= entry.chunk.lines.len();
            self.memory.pop_front();
        }
        oldest.points
    }

    fn remove(&mut self, number: u64) {
        if self
            .reading
            .as_ref()
            .is_some_and(|(reading, _)| *reading == number)
        {
            self.reading = None;
        }
        let path = self.path(number);
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "a sent part of a queue cannot be deleted");
        }
    }

    /// The next chunk that is to be sent. It counts as sent once [`Queue::sent`] is called.
    ///
    /// # Errors
    /// The disk cannot be read. The segment is left out from then on.
    pub(super) fn next(&mut self, lost: &mut Lost) -> io::Result<Option<Taken>> {
        self.skip_end();
        let first = self.memory.front().map(|entry| entry.frame);
        let in_memory = match first {
            Some(Some((begin, _))) => begin <= self.cursor,
            Some(None) => self.cursor >= self.end_before_memory(),
            None => false,
        };
        if in_memory {
            return Ok(self.memory.pop_front().map(|entry| {
                self.memory_bytes -= entry.chunk.lines.len();
                Taken {
                    chunk: entry.chunk,
                    frame: entry.frame,
                }
            }));
        }
        self.read(lost)
    }

    /// At the end of a segment, moves the cursor to the beginning of the next one.
    fn skip_end(&mut self) {
        let at = self.cursor;
        let has_frames = |segment: &&Segment| {
            segment.number > at.segment || segment.number == at.segment && at.offset < segment.bytes
        };
        let next = self.segments.iter().find(has_frames);
        if let Some(next) = next
            && next.number != at.segment
        {
            self.cursor = Place {
                segment: next.number,
                offset: MAGIC.len() as u64,
            };
        }
    }

    /// Behind the last frame on disk that is not in memory as well.
    fn end_before_memory(&self) -> Place {
        let on_disk = self.memory.iter().find_map(|entry| entry.frame);
        on_disk.map_or(self.end(), |(begin, _)| begin)
    }

    /// Reads the frame at the cursor.
    fn read(&mut self, lost: &mut Lost) -> io::Result<Option<Taken>> {
        loop {
            let end = self.end();
            if self.cursor >= end {
                return Ok(None);
            }
            let size = self
                .segments
                .iter()
                .find(|segment| segment.number == self.cursor.segment);
            let size = size.map_or(0, |segment| segment.bytes);
            if self.cursor.offset >= size {
                let before = self.cursor;
                self.skip_end();
                if self.cursor == before {
                    return Ok(None);
                }
                continue;
            }
            match self.read_frame(size) {
                Ok(Some(taken)) => return Ok(Some(taken)),
                // Damaged to its end.
                Ok(None) => lost.bytes += self.leave_out(size),
                Err(error) => {
                    lost.bytes += self.leave_out(size);
                    return Err(error);
                }
            }
        }
    }

    /// Moves the cursor to the end of its segment; the number of bytes in between.
    fn leave_out(&mut self, size: u64) -> u64 {
        let left = size - self.cursor.offset;
        self.cursor.offset = size;
        let number = self.cursor.segment;
        if let Some(segment) = self
            .segments
            .iter_mut()
            .find(|segment| segment.number == number)
        {
            segment.points = 0;
        }
        left
    }

    /// The next valid frame at or behind the cursor in its segment of `size` bytes.
    fn read_frame(&mut self, size: u64) -> io::Result<Option<Taken>> {
        let number = self.cursor.segment;
        let file = match self.reading.take() {
            Some((reading, file)) if reading == number => file,
            _ => private::open(&self.path(number), OpenOptions::new().read(true))?,
        };
        let mut head = [0; envelope::HEAD];
        let left = (size - self.cursor.offset) as usize;
        let mut bytes = Vec::new();
        if left >= head.len() {
            file.read_exact_at(&mut head, self.cursor.offset)?;
            let [_, _, a, b, c, d, ..] = head;
            let len = envelope::HEAD + u32::from_le_bytes([a, b, c, d]) as usize;
            bytes.resize(len.min(left), 0);
            file.read_exact_at(&mut bytes, self.cursor.offset)?;
        }
        if envelope::open(&bytes).is_none() {
            bytes.resize(left, 0);
            file.read_exact_at(&mut bytes, self.cursor.offset)?;
        }
        self.reading = Some((number, file));
        let (mut at, mut found) = (self.cursor.offset, None);
        let mut rest = &bytes[..];
        while found.is_none() && !rest.is_empty() {
            match envelope::open(rest) {
                Some((body, after)) => {
                    let len = (rest.len() - after.len()) as u64;
                    found = Some((body, at, at + len));
                }
                None => {
                    let skip = envelope::skip(rest);
                    at += skip as u64;
                    rest = &rest[skip..];
                }
            }
        }
        let place = |offset| Place {
            segment: number,
            offset,
        };
        Ok(found.and_then(|(body, begin, end)| {
            let (points, lines) = body.split_first_chunk::<4>()?;
            Some(Taken {
                chunk: Chunk {
                    lines: lines.to_vec(),
                    points: u32::from_le_bytes(*points),
                },
                frame: Some((place(begin), place(end))),
            })
        }))
    }

    /// The chunk has been sent at the time `now`.
    pub(super) fn sent(&mut self, taken: &Taken, now: Instant) {
        let Taken { chunk, frame } = taken;
        if let Some((begin, end)) = *frame {
            self.cursor = end;
            self.add_points(begin.segment, -i64::from(chunk.points));
        }
        self.sent_bytes += chunk.lines.len();
        self.sent.push_back(Sent {
            begin: frame.map(|(begin, _)| begin),
            points: chunk.points,
            bytes: chunk.lines.len(),
            at: now,
        });
        self.confirm_old(now);
    }

    fn add_points(&mut self, number: u64, points: i64) {
        if let Some(segment) = self
            .segments
            .iter_mut()
            .find(|segment| segment.number == number)
        {
            segment.points = segment.points.saturating_add_signed(points);
        }
    }

    /// Confirms what the destination must have stored by `now`.
    pub(super) fn confirm_old(&mut self, now: Instant) {
        let mut confirmed = false;
        while let Some(oldest) = self.sent.front()
            && (self.sent_bytes > UNCONFIRMED
                || now.saturating_duration_since(oldest.at) > CONFIRMED_AFTER)
        {
            self.sent_bytes -= oldest.bytes;
            self.sent.pop_front();
            confirmed = true;
        }
        if confirmed {
            self.delete_confirmed();
        }
    }

    /// The destination has read everything that was sent.
    pub(super) fn confirm_all(&mut self) {
        self.sent.clear();
        self.sent_bytes = 0;
        self.delete_confirmed();
    }

    /// Deletes the segments before everything that may have to be sent again.
    fn delete_confirmed(&mut self) {
        let unconfirmed = self.sent.iter().find_map(|sent| sent.begin);
        let needed = unconfirmed.map_or(self.cursor, |begin| begin.min(self.cursor));
        while let Some(oldest) = self.segments.front() {
            let all_sent = oldest.number == needed.segment && needed.offset >= oldest.bytes;
            if oldest.number >= needed.segment && !all_sent {
                return;
            }
            let number = oldest.number;
            self.segments.pop_front();
            if self.segments.is_empty() {
                self.open = None;
            }
            self.remove(number);
            if all_sent {
                self.cursor = self.first_place();
            }
        }
    }

    /// The connection broke: what may not have arrived is sent again. How many points that is.
    pub(super) fn rewind(&mut self) -> u64 {
        let mut again = 0;
        let first = self.sent.iter().find_map(|sent| sent.begin);
        for sent in std::mem::take(&mut self.sent) {
            if let Some(begin) = sent.begin {
                self.add_points(begin.segment, i64::from(sent.points));
                again += u64::from(sent.points);
            }
        }
        self.sent_bytes = 0;
        if let Some(first) = first {
            self.cursor = self.cursor.min(first);
        }
        again
    }
}

/// A chunk that is being sent.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) chunk: Chunk,
    frame: Option<(Place, Place)>,
}

impl Taken {
    /// Whether the disk does not have it.
    pub(super) fn is_only_in_memory(&self) -> bool {
        self.frame.is_none()
    }
}

/// Calls `each` with offset, points and lines of the valid frames of a segment; the number of bytes that
/// belong to none.
pub(super) fn each_frame(bytes: &[u8], mut each: impl FnMut(usize, u32, &[u8])) -> u64 {
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return bytes.len() as u64;
    };
    let mut unsound = 0;
    while !rest.is_empty() {
        let at = bytes.len() - rest.len();
        match envelope::open(rest) {
            Some((body, after)) => {
                if let Some((points, lines)) = body.split_first_chunk::<4>() {
                    each(at, u32::from_le_bytes(*points), lines);
                }
                rest = after;
            }
            None => {
                let skip = envelope::skip(rest);
                unsound += skip as u64;
                rest = &rest[skip..];
            }
        }
    }
    unsound
}

#[cfg(test)]
mod tests;
