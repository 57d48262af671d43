//! A file opened for one call: open, header, work, close.
//!
//! Each system call counts here. Opening reads the header and what follows it in one go; bases of
//! archives are read only when something is written to them or read from them; an update that
//! fills no coarser archive is `open`, `pread`, `lseek`, `pwrite`, `pread`, `close`.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{
    Advice, FlockOperation, Mode, OFlags, SeekFrom, fadvise, flock, fstat, open, seek, stat,
};
use rustix::io::{Errno, pread, pwrite};

use crate::aggregation::Aggregation;
use crate::archive::SLOT_SIZE;
use crate::error::{Error, Result};
use crate::fetch::{self, Fetched};
use crate::header::{Header, MAX_HEADER_SIZE, checked_factor};
use crate::pending::{self, Needed, Question};
use crate::point::{self, Point};
use crate::runs::write_runs;
use crate::scratch::Scratch;
use crate::storage::Storage;
use crate::units::Timestamp;
use crate::update::{self, Arrival, Updated};

/// The bytes read when a file is opened: any header, and slot 0 of the first archive behind it.
const FIRST_READ: usize = MAX_HEADER_SIZE + SLOT_SIZE;

/// How many bases are remembered; files with more archives read the others again.
const BASES: usize = 8;

/// Whether other programs are kept out while a file is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lock {
    /// No lock, as Python's whisper by default.
    #[default]
    None,
    /// `flock(LOCK_EX)`, as Python's `WHISPER_LOCK_WRITES` and go-carbon's `flock = true`. Waits.
    Exclusive,
    /// As `Exclusive`, but a lock that another program has is an error at once: [`Error::is_busy`].
    Try,
}

/// A whisper file opened for one call or a few.
#[derive(Debug)]
pub struct File {
    bytes: Bytes,
    header: Header,
    scratch: Scratch,
}

/// The open file as storage.
#[derive(Debug)]
pub(crate) struct Bytes {
    fd: OwnedFd,
    path: PathBuf,
    needed: u64,
    bases: [Cell<Option<Timestamp>>; BASES],
}

impl File {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Damaged`]. A file that ends early is noticed by what reads
    /// beyond its end.
    pub fn open(path: &Path) -> Result<Self> {
        Self::with(path, OFlags::RDONLY, Lock::None)
    }

    /// Opens a file for reading and writing.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`], and [`Error::Truncated`] if the file ends before its
    /// archives do.
    pub fn open_mut(path: &Path, lock: Lock) -> Result<Self> {
        let file = Self::with(path, OFlags::RDWR, lock)?;
        // Half the price of `fstat`, and all that is asked for.
        let len = seek(&file.bytes.fd, SeekFrom::End(0))
            .map_err(|e| file.bytes.io("asking for its length", e))?;
        if len < file.bytes.needed {
            return Err(file.bytes.truncated(len));
        }
        Ok(file)
    }

    fn with(path: &Path, flags: OFlags, lock: Lock) -> Result<Self> {
        // A pipe that has the name is refused when it is read; opening it must not wait.
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let open =
            || open(path, flags, Mode::empty()).map_err(|e| Error::io(path, "opening it", e));
        let fd = match lock {
            Lock::None => open()?,
            Lock::Exclusive | Lock::Try => loop {
                let fd = open()?;
                let operation = match lock {
                    Lock::Try => FlockOperation::NonBlockingLockExclusive,
                    _ => FlockOperation::LockExclusive,
                };
                retry(|| flock(&fd, operation)).map_err(|e| Error::io(path, "locking it", e))?;
                // The previous holder of the lock may have put another file in its place.
                let opened = fstat(&fd).map_err(|e| Error::io(path, "looking at it", e))?;
                match stat(path) {
                    Ok(named) if (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino) => {
                        break fd;
                    }
                    Ok(_) => {}
                    Err(e) => return Err(Error::io(path, "looking for it", e)),
                }
            },
        };
        let mut first = [0; FIRST_READ];
        let n = retry(|| pread(&fd, &mut first, 0))
            .map_err(|e| Error::io(path, "reading its header", e))?;
        let header = Header::parse(&first[..n]).map_err(|damage| Error::damaged(path, damage))?;
        let bytes = Bytes {
            fd,
            path: path.to_owned(),
            needed: header.file_size(),
            bases: [const { Cell::new(None) }; BASES],
        };
        for (base, archive) in bytes.bases.iter().zip(header.archives()) {
            let at = archive.offset as usize;
            if let Some(word) = first[..n]
                .get(at..at + 4)
                .and_then(|word| word.try_into().ok())
            {
                base.set(Some(Timestamp(u32::from_be_bytes(word))));
            }
        }
        Ok(Self {
            bytes,
            header,
            scratch: Scratch::default(),
        })
    }

    /// What the file's first bytes say.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The name it was opened under.
    pub fn path(&self) -> &Path {
        &self.bytes.path
    }

    /// Writes one point (`whisper.update`).
    ///
    /// # Errors
    /// [`Error::NotCovered`] for a point after `now`, or as old as the file reaches back or older;
    /// [`Error::Io`].
    pub fn update(&mut self, now: Timestamp, point: Point) -> Result<()> {
        update::update(&mut self.bytes, &self.header, &mut self.scratch, now, point)
    }

    /// Writes a batch (`whisper.update_many`), in any order. Points after the clock are taken; points
    /// older than the file reaches back are counted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn update_many(
        &mut self,
        arrival: impl Into<Arrival>,
        points: &[Point],
    ) -> Result<Updated> {
        let arrival = arrival.into();
        update::update_many(
            &mut self.bytes,
            &self.header,
            &mut self.scratch,
            arrival,
            points,
        )
    }

    /// Writes `points`, oldest first, into one archive and the coarser ones, of any age.
    pub(crate) fn write_archive(&mut self, archive: usize, points: &[Point]) -> Result<()> {
        update::write_archive(
            &mut self.bytes,
            &self.header,
            &mut self.scratch,
            archive,
            points,
        )
    }

    /// Reads (`from`, `until`] from the finest archive that reaches back to `from`
    /// (`whisper.fetch`). `None` if all of it lies after `now`, or before what the file can hold.
    ///
    /// # Errors
    /// [`Error::Interval`] if `from` is after `until`; [`Error::Truncated`]; [`Error::Io`].
    pub fn fetch(
        &self,
        now: Timestamp,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<Option<Fetched>> {
        self.fetch_with(now, from, until, None)
    }

    /// As [`File::fetch`], from the archive of `step` seconds per point. A range longer than that
    /// archive begins with absent values.
    ///
    /// # Errors
    /// As [`File::fetch`], and [`Error::Granularity`] if there is no such archive.
    pub fn fetch_archive(
        &self,
        now: Timestamp,
        from: Timestamp,
        until: Timestamp,
        step: u32,
    ) -> Result<Option<Fetched>> {
        self.fetch_with(now, from, until, Some(step))
    }

    fn fetch_with(
        &self,
        now: Timestamp,
        from: Timestamp,
        until: Timestamp,
        step: Option<u32>,
    ) -> Result<Option<Fetched>> {
        match fetch::choose(&self.header, now, from, until, step)? {
            Some(range) => self.read(range).map(Some),
            None => Ok(None),
        }
    }

    /// As [`File::fetch`], as if the points had been written that `waiting` returns: for programs that hold points
    /// back from the file and must answer for them. `waiting` may leave out what is not [`Needed`]; it is called
    /// before anything but the header is read. `now` is the clock by which the points would be written.
    ///
    /// # Errors
    /// As [`File::fetch`].
    pub fn fetch_pending(
        &self,
        question: Question,
        now: Timestamp,
        waiting: impl FnOnce(Needed) -> (Arrival, Vec<Point>),
    ) -> Result<Option<Fetched>> {
        pending::fetch_over(&self.bytes, &self.header, question, now, waiting)
    }

    pub(crate) fn read(&self, range: fetch::Range) -> Result<Fetched> {
        fetch::read(&self.bytes, &self.header, range, &mut Vec::new())
    }

    /// The slots of the archive numbered `archive`, in the order of the file, empty ones included.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::Io`].
    pub fn slots(&self, archive: usize) -> Result<Vec<Point>> {
        let archive = &self.header.archives()[archive];
        let mut bytes = Vec::new();
        self.bytes
            .read(archive.byte(0), archive.size() as usize, &mut bytes)?;
        Ok(point::slots(&bytes).collect())
    }

    pub(crate) fn write_slot(&mut self, archive: usize, slot: u32, point: Point) -> Result<()> {
        let archive = &self.header.archives()[archive];
        self.bytes.write(archive.byte(slot), &point.to_slot())
    }

    /// Writes `points`, multiples of the step and ascending, into one archive and no other.
    pub(crate) fn write_only(&mut self, archive: usize, points: &[Point]) -> Result<()> {
        let bytes = &mut Vec::new();
        write_runs(&mut self.bytes, &self.header, archive, points, bytes)
    }

    /// Asks the system to read what [`File::fetch`] with the same arguments will read, and does not wait
    /// for it.
    ///
    /// # Errors
    /// As [`File::fetch`].
    pub fn read_ahead(&self, now: Timestamp, from: Timestamp, until: Timestamp) -> Result<()> {
        if let Some(range) = fetch::choose(&self.header, now, from, until, None)? {
            fetch::read(&Ahead(&self.bytes), &self.header, range, &mut Vec::new())?;
        }
        Ok(())
    }

    /// How many names the file has.
    pub(crate) fn links(&self) -> Result<u64> {
        let found = fstat(&self.bytes.fd).map_err(|e| self.bytes.io("counting its names", e))?;
        Ok(found.st_nlink as u64)
    }

    /// Replaces four bytes of the header.
    pub(crate) fn write_word(&mut self, offset: u64, word: u32) -> Result<()> {
        self.bytes.write(offset, &word.to_be_bytes())
    }

    pub(crate) fn with_bytes<T>(
        &mut self,
        work: impl FnOnce(&mut Bytes, &Header, &mut Scratch) -> T,
    ) -> T {
        work(&mut self.bytes, &self.header, &mut self.scratch)
    }

    /// Replaces method and factor in the header; history is left as it is. Gives back the old
    /// ones.
    ///
    /// # Errors
    /// [`Error::XFilesFactor`] for a factor outside of 0 to 1; [`Error::Io`].
    pub fn set(
        &mut self,
        aggregation: Option<Aggregation>,
        x_files_factor: Option<f64>,
    ) -> Result<(Aggregation, f32)> {
        let old = (self.header.aggregation, self.header.x_files_factor);
        let factor = x_files_factor.map(checked_factor).transpose()?;
        self.header.aggregation = aggregation.unwrap_or(old.0);
        self.header.x_files_factor = factor.unwrap_or(old.1);
        self.bytes.write(0, &self.header.to_bytes())?;
        Ok(old)
    }
}

impl Bytes {
    fn io(&self, action: &'static str, e: Errno) -> Error {
        Error::io(&self.path, action, e)
    }

    fn truncated(&self, len: u64) -> Error {
        Error::Truncated {
            path: self.path.clone(),
            needed: self.needed,
            len,
        }
    }
}

/// The bytes of a file that are wanted later: asked for where they would be read, and zeros until then.
struct Ahead<'a>(&'a Bytes);

impl Storage for Ahead<'_> {
    fn read(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
        let bytes = NonZeroU64::new(len as u64);
        fadvise(&self.0.fd, offset, bytes, Advice::WillNeed)
            .map_err(|e| self.0.io("asking for points ahead", e))?;
        into.resize(into.len() + len, 0);
        Ok(())
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn holds(&self, _: u64, _: &[u8; SLOT_SIZE]) -> Result<bool> {
        Ok(false)
    }

    fn base(&self, header: &Header, index: usize) -> Result<Timestamp> {
        self.0.base(header, index)
    }

    fn based(&mut self, _: usize, _: Timestamp) {}
}

impl Storage for Bytes {
    fn read(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
        let end = into.len() + len;
        into.reserve_exact(len);
        // `spare_capacity` may be larger than what was asked for: read what is missing, cut off
        // what is too much.
        while into.len() < end {
            let at = offset + (len - (end - into.len())) as u64;
            let n = retry(|| pread(&self.fd, spare_capacity(into), at))
                .map_err(|e| self.io("reading points", e))?;
            if n == 0 {
                return Err(self.truncated(at));
            }
        }
        into.truncate(end);
        Ok(())
    }

    fn write(&mut self, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let n = retry(|| pwrite(&self.fd, bytes, offset))
                .and_then(|n| if n == 0 { Err(Errno::NOSPC) } else { Ok(n) })
                .map_err(|e| self.io("writing points", e))?;
            bytes = &bytes[n..];
            offset += n as u64;
        }
        Ok(())
    }

    fn holds(&self, offset: u64, slot: &[u8; SLOT_SIZE]) -> Result<bool> {
        let mut bytes = [0; SLOT_SIZE];
        let n = retry(|| pread(&self.fd, &mut bytes, offset))
            .map_err(|e| self.io("reading a point", e))?;
        Ok(n == bytes.len() && bytes == *slot)
    }

    fn base(&self, header: &Header, index: usize) -> Result<Timestamp> {
        if let Some(base) = self.bases.get(index).and_then(Cell::get) {
            return Ok(base);
        }
        let mut word = [0; 4];
        let offset = u64::from(header.archives()[index].offset);
        let n = retry(|| pread(&self.fd, &mut word, offset))
            .map_err(|e| self.io("reading a base", e))?;
        if n < word.len() {
            return Err(self.truncated(offset + n as u64));
        }
        let base = Timestamp(u32::from_be_bytes(word));
        if let Some(cell) = self.bases.get(index) {
            cell.set(Some(base));
        }
        Ok(base)
    }

    fn based(&mut self, index: usize, base: Timestamp) {
        if let Some(cell) = self.bases.get_mut(index) {
            *cell = Cell::new(Some(base));
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            outcome => return outcome,
        }
    }
}
