//! What the index remembers across restarts: a file that is only ever appended to.
//!
//! ```text
//! "plumbago names 1\n"
//! frame: u32 length of the body | u32 CRC-32 of the body | body
//! body:  records, each: u8 kind | u16 bytes shared with the name before | u16 length | bytes
//! ```
//!
//! 1. Numbers are little-endian. The first record of a frame shares nothing.
//! 2. A frame that ends early or whose checksum is wrong ends the file: it is cut there. What is
//!    lost so is found again by looking at the disk; what must not be lost (registrations over
//!    HTTP) is synced before it is answered.
//! 3. The last record about a name holds. A file with many obsolete records is rewritten under another
//!    name and renamed (`Copy`). Records that come meanwhile go into both files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::private;

const MAGIC: &[u8] = b"plumbago names 1\n";

/// Names are collected to frames of about this size.
const FRAME: usize = 256 << 10;

/// What is known about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// It has a file.
    Stored = b'S' as isize,
    /// It is in the tag index.
    Tagged = b'T' as isize,
    /// It was taken out of the tag index.
    Untagged = b'U' as isize,
    /// Its file is gone.
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

/// The open file.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    /// `None`: read-only, nothing is kept.
    file: Option<File>,
    body: Vec<u8>,
    last: Vec<u8>,
    unsynced: bool,
    /// Records in the file, those that a later one has made void among them.
    pub(crate) records: usize,
    /// Whether there was a file when it was opened.
    pub(crate) existed: bool,
    /// What was appended since a copy was begun.
    tail: Option<Vec<(Record, Box<[u8]>)>>,
}

/// The file that is to take the log's place.
#[derive(Debug)]
pub(crate) struct Copy {
    path: PathBuf,
    /// `None`: the log is read-only, and so is its copy.
    file: Option<File>,
    body: Vec<u8>,
    last: Vec<u8>,
    records: usize,
}

impl Log {
    /// Reads the file, which may be missing, and calls `each` for every record; then stands ready
    /// to append (not when `read_only`). A tail that is torn is cut off.
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
        Ok(Self {
            path,
            file,
            body: Vec::new(),
            last: Vec::new(),
            unsynced: false,
            records,
            existed,
            tail: None,
        })
    }

    /// Remembers a record; it is on disk after [`Log::sync`].
    ///
    /// # Errors
    /// A full buffer could not be written.
    pub(crate) fn append(&mut self, record: Record, name: &[u8]) -> Result<()> {
        if self.file.is_none() {
            return Ok(());
        }
        self.records += 1;
        if let Some(tail) = &mut self.tail {
            tail.push((record, name.into()));
        }
        encode(&mut self.body, &mut self.last, record, name);
        if self.body.len() >= FRAME {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(file) = &mut self.file
            && !self.body.is_empty()
        {
            let written = write_frame(file, &self.body);
            self.body.clear();
            self.last.clear();
            self.unsynced = true;
            written.map_err(|error| Error::io(&self.path, "writing the index", error))?;
        }
        Ok(())
    }

    /// Has everything remembered on disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        if let Some(file) = &self.file
            && self.unsynced
        {
            file.sync_data()
                .map_err(|error| Error::io(&self.path, "syncing the index", error))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Has everything appended from now on written behind the copy that is about to be made.
    pub(crate) fn begin_copy(&mut self) {
        self.tail = Some(Vec::new());
    }

    /// Begins the file that is to take this one's place.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn copy(&self) -> Result<Copy> {
        let path = self.path.with_extension("new");
        let create = || {
            // What a failed copy left, or a link to somewhere else, is not written into.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = private::open(&path, OpenOptions::new().write(true).create_new(true))?;
            file.write_all(MAGIC)?;
            Ok(file)
        };
        let file = match self.file {
            None => None,
            Some(_) => Some(create().map_err(|error| rewrite_error(&path, error))?),
        };
        Ok(Copy {
            path,
            file,
            body: Vec::new(),
            last: Vec::new(),
            records: 0,
        })
    }

    /// Goes on as it was: the copy failed.
    pub(crate) fn drop_copy(&mut self) {
        self.tail = None;
    }

    /// Puts `copy`, and behind it what was appended meanwhile, in the place of this file.
    ///
    /// # Errors
    /// The disk; this file stays in its place then.
    pub(crate) fn replace(&mut self, mut copy: Copy) -> Result<()> {
        for (record, name) in self.tail.take().unwrap_or_default() {
            copy.append(record, &name)?;
        }
        copy.sync()?;
        if copy.file.is_none() {
            return Ok(());
        }
        fs::rename(&copy.path, &self.path).map_err(|error| rewrite_error(&self.path, error))?;
        self.file = copy.file;
        self.body.clear();
        self.last.clear();
        self.unsynced = false;
        self.records = copy.records;
        sync_directory(&self.path).map_err(|error| rewrite_error(&self.path, error))
    }
}

fn rewrite_error(path: &Path, error: io::Error) -> Error {
    Error::io(path, "rewriting the index", error)
}

impl Copy {
    /// Appends a record.
    ///
    /// # Errors
    /// The disk.
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
            write_frame(file, &self.body).map_err(|error| rewrite_error(&self.path, error))?;
        }
        self.body.clear();
        self.last.clear();
        Ok(())
    }

    /// Has it on disk.
    ///
    /// # Errors
    /// The disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.flush()?;
        if let Some(file) = &self.file {
            file.sync_data()
                .map_err(|error| rewrite_error(&self.path, error))?;
        }
        Ok(())
    }
}

/// Renames what is no file and has the name of the index.
fn set_aside(path: &Path, why: &io::Error) -> Result<()> {
    let aside =
        private::set_aside(path).map_err(|error| Error::io(path, "setting it aside", error))?;
    let (path, aside) = (path.display(), aside.display());
    tracing::warn!(
        "{path} is not an index and was renamed to {aside}, the disk is walked instead: {why}"
    );
    Ok(())
}

/// Syncs the directory that holds `path`, so that a new name in it survives.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
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

fn write_frame(file: &mut File, body: &[u8]) -> io::Result<()> {
    if body.is_empty() {
        return Ok(());
    }
    let mut frame = Vec::with_capacity(body.len() + 8);
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(body).to_le_bytes());
    frame.extend_from_slice(body);
    file.write_all(&frame)
}

/// The body of the frame that `bytes` begins with, if it is whole.
fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    let [a, b, c, d, e, f, g, h] = *head;
    let body = rest.get(..u32::from_le_bytes([a, b, c, d]) as usize)?;
    (crc32fast::hash(body) == u32::from_le_bytes([e, f, g, h])).then_some(body)
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
        let mut log = Log::open(path.clone(), false, |_, _| panic!()).unwrap();
        log.append(Record::Stored, b"a.b.c").unwrap();
        log.append(Record::Tagged, b"a.b;x=y").unwrap();
        log.sync().unwrap();
        log.append(Record::Gone, b"a.b.c").unwrap();
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
            let mut log = Log::open(path.clone(), false, |_, _| {}).unwrap();
            log.append(Record::Stored, b"later").unwrap();
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
        let mut log = Log::open(path.clone(), false, |_, _| panic!()).unwrap();
        assert!(!log.existed);
        log.append(Record::Stored, b"a").unwrap();
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
    fn written_anew_it_holds_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names");
        let mut log = Log::open(path.clone(), false, |_, _| {}).unwrap();
        let names: Vec<String> = (0..50_000).map(|n| format!("host{}.m{n}", n % 7)).collect();
        for name in &names {
            log.append(Record::Stored, name.as_bytes()).unwrap();
            log.append(Record::Stored, name.as_bytes()).unwrap();
        }
        log.sync().unwrap();
        let before = fs::metadata(&path).unwrap().len();
        log.begin_copy();
        let mut copy = log.copy().unwrap();
        for name in &names {
            copy.append(Record::Stored, name.as_bytes()).unwrap();
        }
        // What comes while the copy is made is behind it; the old file has it, too.
        log.append(Record::Tagged, b"x;y=z").unwrap();
        log.sync().unwrap();
        let last = |path: &Path| super::tests::read(path).pop();
        assert_eq!(last(&path), Some((Record::Tagged, "x;y=z".into())));
        log.replace(copy).unwrap();
        log.append(Record::Gone, b"host0.m0").unwrap();
        log.sync().unwrap();
        assert!(fs::metadata(&path).unwrap().len() < before);
        let read = read(&path);
        assert_eq!(read.len(), names.len() + 2);
        assert_eq!(read[names.len()], (Record::Tagged, "x;y=z".into()));
        assert_eq!(read[names.len() + 1], (Record::Gone, "host0.m0".into()));
    }
}
