//! Making a file: whole under its name, or not at all.
//!
//! A new file is written and allocated under a temporary name beside its place and then linked to
//! its name, which fails if something has that name already. A reader of the name sees a whole
//! file or none, and a failure (a full disk, a refused option) leaves nothing behind.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::aggregation::Aggregation;
use crate::error::{Error, Result};
use crate::header::Header;
use crate::layer::{Layer, Nothing};
use crate::point::Point;
use crate::retention::Retention;
use crate::scratch::Scratch;
use crate::update::{Arrival, Updated, update_many};

/// What a new file is like.
#[derive(Clone, Debug, PartialEq)]
pub struct CreateOptions {
    /// The archives, in any order.
    pub retentions: Vec<Retention>,
    /// The share of known points that it takes to make a coarser one, 0 to 1.
    pub x_files_factor: f64,
    /// How points are made coarser.
    pub aggregation: Aggregation,
    /// How the archives get their disk space.
    pub allocation: Allocation,
}

impl CreateOptions {
    /// Archives with Graphite's defaults: a factor of 0.5, averages, all space reserved.
    pub fn new(retentions: Vec<Retention>) -> Self {
        Self {
            retentions,
            x_files_factor: 0.5,
            aggregation: Aggregation::default(),
            allocation: Allocation::default(),
        }
    }
}

/// How a new file gets its disk space. The bytes read are the same in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocation {
    /// The blocks are reserved (`fallocate`); where the filesystem cannot do that, zeroes are
    /// written. The only kind that is ready to be mapped.
    #[default]
    Reserved,
    /// Zeroes are written.
    Zeroes,
    /// Nothing is reserved: the file is as long as it should be, and full of holes. A later write
    /// can fail for want of space.
    Sparse,
}

/// Creates the file `path`. Its directory must be there.
///
/// # Errors
/// [`Error::Archives`], [`Error::Exists`] and [`Error::XFilesFactor`], in this order, and
/// [`Error::Io`]. None of them leaves a file behind.
pub fn create(path: &Path, options: &CreateOptions) -> Result<()> {
    let header = header_of(path, options)?;
    Staged::create(path, &Draft::new(header, options.allocation))
}

/// The header of a new file at `path`.
pub(crate) fn header_of(path: &Path, options: &CreateOptions) -> Result<Header> {
    let CreateOptions {
        retentions,
        x_files_factor,
        aggregation,
        allocation: _,
    } = options;
    match Header::new(retentions, *x_files_factor, *aggregation) {
        Err(Error::XFilesFactor(_)) if path.symlink_metadata().is_ok() => Err(Error::exists(path)),
        header => header,
    }
}

/// A new file in memory: its header, and the points that it begins with.
#[derive(Debug)]
pub struct Draft {
    header: Header,
    allocation: Allocation,
    layer: Layer<'static, Nothing>,
    scratch: Scratch,
}

impl Draft {
    pub(crate) fn new(header: Header, allocation: Allocation) -> Self {
        Self {
            layer: Layer::new(None, &header),
            header,
            allocation,
            scratch: Scratch::default(),
        }
    }

    /// As [`crate::File::update_many`], into the new file.
    ///
    /// # Errors
    /// As [`crate::File::update_many`].
    pub fn update_many(
        &mut self,
        arrival: impl Into<Arrival>,
        points: &[Point],
    ) -> Result<Updated> {
        let arrival = arrival.into();
        update_many(
            &mut self.layer,
            &self.header,
            &mut self.scratch,
            arrival,
            points,
        )
    }

    /// Writes all of it to an empty file.
    pub(crate) fn fill(&self, mut file: &fs::File) -> io::Result<()> {
        let mut patches = self.layer.patches();
        let mut head = self.header.to_bytes();
        // The first points of the finest archive follow the header: one write for both.
        if let [(at, bytes), rest @ ..] = patches
            && *at == head.len() as u64
        {
            head.extend_from_slice(bytes);
            patches = rest;
        }
        file.write_all(&head)?;
        let len = self.header.file_size();
        match self.allocation {
            Allocation::Sparse => file.set_len(len)?,
            Allocation::Zeroes => write_zeroes(file, len - head.len() as u64)?,
            Allocation::Reserved => match reserve(file, len) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                    write_zeroes(file, len - head.len() as u64)?;
                }
                reserved => reserved?,
            },
        }
        for (at, bytes) in patches {
            file.write_all_at(bytes, *at)?;
        }
        Ok(())
    }
}

fn write_zeroes(mut file: &fs::File, mut left: u64) -> io::Result<()> {
    const ZEROES: [u8; 16 << 10] = [0; 16 << 10];
    while left > 0 {
        let n = left.min(ZEROES.len() as u64);
        file.write_all(&ZEROES[..n as usize])?;
        left -= n;
    }
    Ok(())
}

/// A file under a temporary name. Dropped before it is published, it is removed.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) file: fs::File,
    temporary: PathBuf,
    path: PathBuf,
    published: bool,
}

impl Staged {
    /// Writes `draft` to a file that gets the name `path`, unless something has that name already.
    pub(crate) fn create(path: &Path, draft: &Draft) -> Result<()> {
        match Self::new(path, draft)?.publish_new() {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(Error::exists(path)),
            Err(e) => Err(Error::io(path, "giving the new file its name", e)),
            Ok(()) => Ok(()),
        }
    }

    /// Writes `draft` beside `path`.
    pub(crate) fn new(path: &Path, draft: &Draft) -> Result<Self> {
        let open = || -> io::Result<_> {
            let temporary = temporary_name(path);
            let file = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&temporary)?;
            Ok((file, temporary))
        };
        let (file, temporary) = match open() {
            // Another process has drawn the same number.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => open(),
            opened => opened,
        }
        .map_err(|e| Error::io(path, "creating it under a temporary name", e))?;
        let staged = Self {
            file,
            temporary,
            path: path.to_owned(),
            published: false,
        };
        draft
            .fill(&staged.file)
            .map_err(|e| Error::io(path, "allocating its archives", e))?;
        Ok(staged)
    }

    /// The name it has until it is complete.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Gives the file its name, in place of any file that has it.
    pub(crate) fn publish(mut self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path)?;
        self.published = true;
        Ok(())
    }

    /// Gives the file its name, unless something has that name already.
    pub(crate) fn publish_new(mut self) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let renamed = renameat_with(
            CWD,
            &self.temporary,
            CWD,
            &self.path,
            RenameFlags::NOREPLACE,
        );
        match renamed {
            // Some filesystems cannot rename without replacing; all of them can link.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                fs::hard_link(&self.temporary, &self.path)
            }
            renamed => {
                self.published = renamed.is_ok();
                Ok(renamed?)
            }
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // Nobody is left to tell; `verify` finds what stays behind.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Reserves the blocks of the first `len` bytes, and makes the file that long.
pub(crate) fn reserve(file: &fs::File, len: u64) -> rustix::io::Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len)
}

/// The start and the end of the names of files that are being made.
const TEMPORARY: (&str, &str) = (".", ".new");
/// Hexadecimal digits between them.
const DIGITS: usize = 16;
/// The bytes of a temporary file's name. It does not depend on the file's own name: where that
/// fits, the temporary one does.
pub const TEMPORARY_LEN: usize = TEMPORARY.0.len() + DIGITS + TEMPORARY.1.len();

/// A name beside `path` that no other process uses: hidden, and not ending in `.wsp`.
pub(crate) fn temporary_name(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    static RANDOM: OnceLock<RandomState> = OnceLock::new();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let unique = (std::process::id(), number, path);
    let hash = RANDOM.get_or_init(RandomState::new).hash_one(unique);
    path.with_file_name(format!("{}{hash:016x}{}", TEMPORARY.0, TEMPORARY.1))
}

/// Whether `name` is that of a file that was being made when its process was killed.
pub fn is_temporary_name(name: &str) -> bool {
    let Some(inner) = name
        .strip_prefix(TEMPORARY.0)
        .and_then(|rest| rest.strip_suffix(TEMPORARY.1))
    else {
        return false;
    };
    inner.len() == DIGITS
        && inner
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> CreateOptions {
        CreateOptions::new(vec![
            Retention::new(10, 6).unwrap(),
            Retention::new(60, 5).unwrap(),
        ])
    }

    fn names(dir: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string();
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| name(e).unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn all_allocations_have_the_same_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let kinds = [Allocation::Reserved, Allocation::Zeroes, Allocation::Sparse];
        let bytes = kinds.map(|allocation| {
            let path = dir.path().join(format!("{allocation:?}"));
            create(
                &path,
                &CreateOptions {
                    allocation,
                    ..options()
                },
            )
            .unwrap();
            fs::read(path).unwrap()
        });
        assert_eq!(bytes[0].len(), 40 + 12 * 11);
        assert!(bytes.iter().all(|file| *file == bytes[0]));
        assert_eq!(names(dir.path()).len(), 3);
    }

    #[test]
    fn a_refusal_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.wsp");
        let refused = CreateOptions {
            x_files_factor: 1.5,
            ..options()
        };
        assert!(matches!(
            create(&path, &refused),
            Err(Error::XFilesFactor(_))
        ));
        assert!(names(dir.path()).is_empty());
        create(&path, &options()).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(matches!(
            create(&path, &options()),
            Err(Error::Exists { .. })
        ));
        assert!(matches!(create(&path, &refused), Err(Error::Exists { .. })));
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(names(dir.path()), ["a.wsp"]);
        let missing = create(&dir.path().join("no/a.wsp"), &options()).unwrap_err();
        assert!(missing.is_missing());
    }

    #[test]
    fn temporary_names_are_known_again() {
        let name = temporary_name(Path::new("/x/a.wsp"));
        let name = name.file_name().unwrap().to_str().unwrap();
        assert!(is_temporary_name(name), "{name}");
        assert_eq!(name.len(), TEMPORARY_LEN);
        for other in ["a.wsp", ".a.wsp.new", ".0123456789abcde.new", ".é.new"] {
            assert!(!is_temporary_name(other), "{other}");
        }
    }

    #[test]
    fn the_longest_file_name_can_be_created() {
        let dir = tempfile::tempdir().unwrap();
        let file = format!("{}.wsp", "n".repeat(251));
        create(&dir.path().join(&file), &options()).unwrap();
        assert_eq!(names(dir.path()), [file]);
        let longer = format!("{}.wsp", "n".repeat(252));
        let error = create(&dir.path().join(longer), &options()).unwrap_err();
        assert!(error.is_hopeless(), "{error}");
        assert_eq!(names(dir.path()).len(), 1);
    }
}
