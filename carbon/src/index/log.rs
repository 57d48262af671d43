//! The log of the index, which keeps it across restarts: a file that is only appended to.
//!
//! ```text
//! "plumbago names 1\n"
//! frame: u32 length of the body | u32 CRC-32 of the body | body
//! body:  records, each: u8 kind | u16 bytes shared with the name before | u16 length | bytes
//! ```
//!
//! 1. Numbers are little-endian. The first record of a frame shares nothing.
//! 2. A frame that is incomplete or whose checksum is wrong ends the file: it is cut there. Lost names of
//!    files are found again by walking the disk; registrations over HTTP are synced before they are
//!    answered.
//! 3. The last record about a name is valid. A file with many obsolete records is rewritten under another
//!    name and renamed (`Copy`). Records that are added meanwhile go into both files.
//! 4. Records are added in memory ([`Log::append`]), by receivers as well. [`Log::write_full`] and
//!    [`Log::sync`] write them, on threads that may wait for the disk. A receiver's record is synced before
//!    the segment of the journal is deleted that has the point which caused it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::frame::{frame, write_frame};
use crate::private;

const MAGIC: &[u8] = b"plumbago names 1\n";

/// Records are collected to frames of about this size.
const FRAME: usize = 256 << 10;

/// A fact about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// It has a file.
    Stored = b'S' as isize,
    /// It is in the tag index.
    Tagged = b'T' as isize,
    /// It was removed from the tag index.
    Untagged = b'U' as isize,
    /// Its file no longer exists.
    Gone = b'G' as isize,
}

impl Record {
    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            b'S' => Self::Stored,
            b'T' => Self::Tagged,
            b'U' => Self::Untagged,
            b'G' => Self::Gone,
            _ => return None,
        })
    }
}

/// The open log.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// No records are kept.
    read_only: bool,
    /// Whether there was a file when it was opened.
    pub(crate) existed: bool,
    queue: Mutex<Queue>,
    /// Locked before the queue, and during writes and syncs.
    file: Mutex<LogFile>,
}

/// Records that are not written yet.
#[derive(Debug, Default)]
struct Queue {
    /// Bodies of frames that are full, oldest first.
    full: Vec<Vec<u8>>,
    /// The body of the next frame.
    body: Vec<u8>,
    /// The name in its last record.
    last: Vec<u8>,
    /// Records in the file and here, obsolete ones among them.
    records: usize,
    /// What was appended since a copy was begun.
    tail: Option<Vec<(Record, Box<[u8]>)>>,
}

impl Queue {
    /// Empties it: all bodies, oldest first.
    fn take_all(&mut self) -> Vec<Vec<u8>> {
        self.last.clear();
        let mut bodies = std::mem::take(&mut self.full);
        if !self.body.is_empty() {
            bodies.push(std::mem::take(&mut self.body));
        }
        bodies
    }
}

#[derive(Debug)]
struct LogFile {
    /// `None`: the log is read-only.
    file: Option<File>,
    /// The length of its complete frames.
    len: u64,
    /// Something was written and not synced.
    unsynced: bool,
}

impl LogFile {
    fn write(&mut self, path: &Path, bodies: &[Vec<u8>]) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        for body in bodies {
            self.unsynced = true;
            match write_frame(file, body) {
                Ok(len) => self.len += len,
                Err(error) => {
                    // A torn frame would hide those that come behind it.
                    if let Err(error) = file.set_len(self.len) {
                        let path = path.display();
                        tracing::warn!(%path, %error, "a torn frame stays in the index");
                    }
                    return Err(Error::io(path, "writing the index", error));
                }
            }
        }
        Ok(())
    }
}

/// The file that will replace the log's.
#[derive(Debug)]
pub(crate) struct Copy {
    path: PathBuf,
    /// `None`: the log is read-only, and so is its copy.
    file: Option<File>,
    body: Vec<u8>,
    last: Vec<u8>,
    records: usize,
    /// Bytes written.
    len: u64,
}

impl Log {
    /// Reads the file, which need not exist, calls `each` for every record, and opens it for appending
    /// (unless `read_only`). A torn end is cut off.
    pub(crate) fn open(
        path: PathBuf,
        read_only: bool,
        mut each: impl FnMut(Record, &[u8]),
    ) -> Result<Self> {
        let (bytes, existed) = match private::read(&path) {
            Ok(bytes) => (bytes, true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (Vec::new(), false),
            Err(why) if private::is_in_the_way(&why) => {
                if !read_only {
                    set_aside(&path, &why)?;
                }
                (Vec::new(), false)
            }
            Err(error) => return Err(Error::io(&path, "reading the index", error)),
        };
        // Read complete frames up to the first that is not.
        let mut records = 0;
        let mut sound = 0;
        if bytes.starts_with(MAGIC) {
            sound = MAGIC.len();
            while let Some(body) = frame(&bytes[sound..]) {
                sound += 8 + body.len();
                decode(body, |record, name| {
                    records += 1;
                    each(record, name);
                });
            }
        }
        if sound < bytes.len() {
            tracing::warn!(
                "{}: {} of {} bytes are torn or damaged and were dropped; names of files are found again by walking the disk, registrations of tagged series without data are lost",
                path.display(),
                bytes.len() - sound,
                bytes.len()
            );
        }
        // Cut the rest off: frames that are appended behind it would never be read.
        let file = if read_only {
            None
        } else {
            let open = || {
                let mut file = private::open(&path, OpenOptions::new().create(true).append(true))?;
                file.set_len(sound as u64)?;
                if sound == 0 {
                    file.write_all(MAGIC)?;
                }
                Ok(file)
            };
            Some(open().map_err(|error| Error::io(&path, "opening the index", error))?)
        };
        let queue = Queue {
            records,
            ..Queue::default()
        };
        let file = LogFile {
            file,
            len: sound.max(MAGIC.len()) as u64,
            unsynced: false,
        };
        Ok(Self {
            path,
            read_only,
            existed,
            queue: Mutex::new(queue),
            file: Mutex::new(file),
        })
    }

    /// Adds a record, which is on disk after the next [`Log::sync`]. Never waits for the disk.
    pub(crate) fn append(&self, record: Record, name: &[u8]) {
        if self.read_only {
            return;
        }
        let queue = &mut *self.queue.lock();
        queue.records += 1;
        if let Some(tail) = &mut queue.tail {
            tail.push((record, name.into()));
        }
        encode(&mut queue.body, &mut queue.last, record, name);
        if queue.body.len() >= FRAME {
            queue.full.push(std::mem::take(&mut queue.body));
            queue.last.clear();
        }
    }

    /// The number of records in the file and in memory, including obsolete ones.
    pub(crate) fn records(&self) -> usize {
        self.queue.lock().records
    }

    /// Writes the frames that are full, so that they take no more memory.
    ///
    /// # Errors
    /// The disk failed. Records that could not be written are lost.
    pub(crate) fn write_full(&self) -> Result<()> {
        if self.queue.lock().full.is_empty() {
            return Ok(());
        }
        let mut file = self.file.lock();
        let full = std::mem::take(&mut self.queue.lock().full);
        file.write(&self.path, &full)
    }

    /// Writes and syncs all records that were added so far.
    ///
    /// # Errors
    /// The disk failed. Records that could not be written are lost.
    pub(crate) fn sync(&self) -> Result<()> {
        let mut file = self.file.lock();
        let bodies = self.queue.lock().take_all();
        file.write(&self.path, &bodies)?;
        if let LogFile {
            file: Some(open),
            unsynced: unsynced @ true,
            ..
        } = &mut *file
        {
            open.sync_data()
                .map_err(|error| Error::io(&self.path, "syncing the index", error))?;
            *unsynced = false;
        }
        Ok(())
    }

    /// Keeps records that are added from now on for the copy that is about to be made.
    pub(crate) fn begin_copy(&self) {
        self.queue.lock().tail = Some(Vec::new());
    }

    /// Creates the file that will replace this one.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn copy(&self) -> Result<Copy> {
        let path = self.path.with_extension("new");
        let create = || {
            // Never write into the rest of a failed copy or through a link.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = private::open(&path, OpenOptions::new().write(true).create_new(true))?;
            file.write_all(MAGIC)?;
            Ok(file)
        };
        let file = match self.read_only {
            true => None,
            false => Some(create().map_err(|error| rewrite_error(&path, error))?),
        };
        Ok(Copy {
            path,
            file,
            body: Vec::new(),
            last: Vec::new(),
            records: 0,
            len: MAGIC.len() as u64,
        })
    }

    /// Gives up the copy: it failed.
    pub(crate) fn drop_copy(&self) {
        self.queue.lock().tail = None;
    }

    /// Replaces this file by `copy` and the records that were added since it was begun.
    ///
    /// # Errors
    /// The disk failed. This file stays in its place.
    pub(crate) fn replace(&self, mut copy: Copy) -> Result<()> {
        let mut file = self.file.lock();
        // The records that wait are in the copy or in the tail.
        let (tail, waiting, records) = {
            let mut queue = self.queue.lock();
            let tail = queue.tail.take().unwrap_or_default();
            (tail, queue.take_all(), std::mem::take(&mut queue.records))
        };
        let finished = copy.finish(&tail).and_then(|()| self.rename(&copy));
        let mut queue = self.queue.lock();
        if let Err(error) = finished {
            queue.full.splice(0..0, waiting);
            queue.records += records;
            return Err(error);
        }
        queue.records += copy.records;
        drop(queue);
        if copy.file.is_none() {
            return Ok(());
        }
        *file = LogFile {
            file: copy.file,
            len: copy.len,
            unsynced: false,
        };
        private::sync_directory(&self.path).map_err(|error| rewrite_error(&self.path, error))
    }

    fn rename(&self, copy: &Copy) -> Result<()> {
        match copy.file {
            None => Ok(()),
            Some(_) => {
                fs::rename(&copy.path, &self.path).map_err(|error| rewrite_error(&self.path, error))
            }
        }
    }
}

fn rewrite_error(path: &Path, error: io::Error) -> Error {
    Error::io(path, "rewriting the index", error)
}

impl Copy {
    /// Adds the records of `tail`, and syncs the file.
    fn finish(&mut self, tail: &[(Record, Box<[u8]>)]) -> Result<()> {
        for (record, name) in tail {
            self.append(*record, name)?;
        }
        self.sync()
    }

    /// Appends a record.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn append(&mut self, record: Record, name: &[u8]) -> Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        encode(&mut self.body, &mut self.last, record, name);
        self.records += 1;
        if self.body.len() >= FRAME {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(file) = &mut self.file {
            let written = write_frame(file, &self.body);
            self.len += written.map_err(|error| rewrite_error(&self.path, error))?;
        }
        self.body.clear();
        self.last.clear();
        Ok(())
    }

    /// Writes and syncs all records.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        if let Some(file) = &self.file {
            file.sync_data()
                .map_err(|error| rewrite_error(&self.path, error))?;
        }
        Ok(())
    }
}

/// Renames a directory, link or device that has the name of the log.
fn set_aside(path: &Path, why: &io::Error) -> Result<()> {
    let aside =
        private::set_aside(path).map_err(|error| Error::io(path, "setting it aside", error))?;
    let (path, aside) = (path.display(), aside.display());
    tracing::warn!(
        "{path} is not an index and was renamed to {aside}, the disk is walked instead: {why}"
    );
    Ok(())
}

fn encode(body: &mut Vec<u8>, last: &mut Vec<u8>, record: Record, name: &[u8]) {
    let shared = last.iter().zip(name).take_while(|(a, b)| a == b).count();
    let rest = &name[shared..];
    body.push(record as isize as u8);
    body.extend_from_slice(&(shared as u16).to_le_bytes());
    body.extend_from_slice(&(rest.len() as u16).to_le_bytes());
    body.extend_from_slice(rest);
    last.truncate(shared);
    last.extend_from_slice(rest);
}

fn decode(mut body: &[u8], mut each: impl FnMut(Record, &[u8])) {
    let mut name = Vec::new();
    while let Some((&[kind, s0, s1, l0, l1], rest)) = body.split_first_chunk::<5>() {
        let shared = u16::from_le_bytes([s0, s1]) as usize;
        let len = u16::from_le_bytes([l0, l1]) as usize;
        let (Some(record), Some(suffix)) = (Record::from_code(kind), rest.get(..len)) else {
            return;
        };
        name.truncate(shared);
        name.extend_from_slice(suffix);
        each(record, &name);
        body = &rest[len..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Vec<(Record, String)> {
        let mut records = Vec::new();
        Log::open(path.to_owned(), true, |record, name| {
            records.push((record, String::from_utf8(name.to_vec()).unwrap()));
        })
        .unwrap();
        records
    }

    #[test]
    fn records_read_back_and_a_torn_tail_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        let log = Log::open(path.clone(), false, |_, _| panic!()).unwrap();
        log.append(Record::Stored, b"a.b.c");
        log.append(Record::Tagged, b"a.b;x=y");
        log.sync().unwrap();
        log.append(Record::Gone, b"a.b.c");
        log.sync().unwrap();
        let expected = [
            (Record::Stored, "a.b.c".to_owned()),
            (Record::Tagged, "a.b;x=y".to_owned()),
            (Record::Gone, "a.b.c".to_owned()),
        ];
        assert_eq!(read(&path), expected);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let records = read(&path);
            assert!(expected.starts_with(&records), "cut at {cut}");
            // Appending goes on where the sound part ends.
            let log = Log::open(path.clone(), false, |_, _| {}).unwrap();
            log.append(Record::Stored, b"later");
            log.sync().unwrap();
            let mut longer = records;
            longer.push((Record::Stored, "later".to_owned()));
            assert_eq!(read(&path), longer, "cut at {cut}");
        }
    }

    #[test]
    fn a_link_in_its_place_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("names"), dir.path().join("target"));
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        std::os::unix::fs::symlink(&target, dir.path().join("names.new")).unwrap();
        let log = Log::open(path.clone(), false, |_, _| panic!()).unwrap();
        assert!(!log.existed);
        log.append(Record::Stored, b"a");
        log.sync().unwrap();
        log.begin_copy();
        let mut copy = log.copy().unwrap();
        copy.append(Record::Stored, b"a").unwrap();
        log.replace(copy).unwrap();
        assert_eq!(read(&path), [(Record::Stored, "a".to_owned())]);
        assert_eq!(fs::read(&target).unwrap(), b"precious");
        assert!(dir.path().join("names.corrupt").is_symlink());
    }

    #[test]
    fn a_rewritten_log_has_the_same_records() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        let log = Log::open(path.clone(), false, |_, _| {}).unwrap();
        let names: Vec<String> = (0..50_000).map(|n| format!("host{}.m{n}", n % 7)).collect();
        for name in &names {
            log.append(Record::Stored, name.as_bytes());
            log.append(Record::Stored, name.as_bytes());
        }
        log.sync().unwrap();
        let before = fs::metadata(&path).unwrap().len();
        log.begin_copy();
        let mut copy = log.copy().unwrap();
        for name in &names {
            copy.append(Record::Stored, name.as_bytes()).unwrap();
        }
        // What comes while the copy is made is behind it; the old file has it, too.
        log.append(Record::Tagged, b"x;y=z");
        log.sync().unwrap();
        let last = |path: &Path| super::tests::read(path).pop();
        assert_eq!(last(&path), Some((Record::Tagged, "x;y=z".into())));
        log.replace(copy).unwrap();
        log.append(Record::Gone, b"host0.m0");
        log.sync().unwrap();
        assert!(fs::metadata(&path).unwrap().len() < before);
        let read = read(&path);
        assert_eq!(read.len(), names.len() + 2);
        assert_eq!(read[names.len()], (Record::Tagged, "x;y=z".into()));
        assert_eq!(read[names.len() + 1], (Record::Gone, "host0.m0".into()));
    }
}
