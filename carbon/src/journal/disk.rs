//! The disk of journal and checkpoints, as a trait: tests replace it to lose what was not synced.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::private;

/// A file that is appended to.
pub trait Segment: Debug + Send {
    /// Appends all of `bytes`. On an error the file keeps its length.
    ///
    /// # Errors
    /// The system refused.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Syncs everything that was appended, in a file that still exists.
    ///
    /// # Errors
    /// The system refused, and it is unknown what is on disk; or the file has been deleted.
    fn sync(&mut self) -> io::Result<()>;
}

/// The operations that journal and checkpoints need.
pub trait Disk: Debug + Send + Sync {
    /// Creates a file. Its directory entry is on disk when this returns.
    ///
    /// # Errors
    /// The system refused.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Segment>>;

    /// Deletes a file.
    ///
    /// # Errors
    /// The system refused.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Syncs everything below `root` with one `syncfs`.
    ///
    /// # Errors
    /// Something could not be written.
    fn sync_tree(&self, root: &Path) -> io::Result<()>;
}

/// The disk of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

#[derive(Debug)]
struct RealSegment {
    file: File,
    path: PathBuf,
    len: u64,
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Segment>> {
        let create = || private::open(path, OpenOptions::new().write(true).create_new(true));
        let file = match (create(), path.parent()) {
            // The directory was removed while it was in use.
            (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
                // Only this one is created again. Directories above it may be missing because a file
                // system is not mounted.
                fs::DirBuilder::new().mode(0o700).create(directory)?;
                create()?
            }
            (file, _) => file?,
        };
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Box::new(RealSegment {
            file,
            path: path.to_owned(),
            len: 0,
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_tree(&self, root: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(root)?)?)
    }
}

impl Segment for RealSegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        match self.file.write_all_at(bytes, self.len) {
            Ok(()) => {
                self.len += bytes.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Cut off the part that was written, which a reader would count as a torn end.
                if let Err(error) = self.file.set_len(self.len) {
                    tracing::warn!(path = %self.path.display(), %error, "a torn tail stays in the journal");
                }
                Err(error)
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.sync_data()?;
        if self.file.metadata()?.nlink() == 0 {
            let path = self.path.display();
            return Err(io::Error::other(format!("{path} has been deleted")));
        }
        Ok(())
    }
}
