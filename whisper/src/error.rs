//! What can go wrong with a whisper file, by what the caller would do about it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// The result of everything in this crate that touches a file.
pub type Result<T> = std::result::Result<T, Error>;

/// What the system says of a path at which there can be no file. `SPIPE`, `NXIO` and `NODEV` are
/// the answers of pipes, sockets and devices.
const HOPELESS: [Errno; 9] = [
    Errno::NAMETOOLONG,
    Errno::ISDIR,
    Errno::NOTDIR,
    Errno::INVAL,
    Errno::LOOP,
    Errno::EXIST,
    Errno::SPIPE,
    Errno::NXIO,
    Errno::NODEV,
];

/// What the system says when any other path would fare no better.
const OF_THE_SYSTEM: [Errno; 8] = [
    Errno::NOSPC,
    Errno::DQUOT,
    Errno::ROFS,
    Errno::MFILE,
    Errno::NFILE,
    Errno::NOMEM,
    Errno::IO,
    Errno::INTR,
];

/// Why a file or a request was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused. A missing file and a full disk are here too: see
    /// [`Error::is_missing`] and [`Error::is_disk_full`].
    #[error("{}: while {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The file's header cannot be that of a whisper file.
    #[error("{}: {damage}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The header is sound, but the file ends before its archives do.
    #[error("{}: the archives need {needed} bytes, but the file has only {len}", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The length that the header asks for.
        needed: u64,
        /// The length of the file, or as much of it as could be read.
        len: u64,
    },
    /// The file was damaged and has been renamed: its name is free.
    #[error("{}: damaged, set aside as {}", path.display(), aside.display())]
    SetAside {
        /// The file.
        path: PathBuf,
        /// Its new name.
        aside: PathBuf,
    },
    /// `create` found something under the name already.
    #[error("File {} already exists!", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The archives do not fit each other (the texts are those of Python's whisper).
    #[error(transparent)]
    Archives(#[from] ArchiveRule),
    /// A retention definition that cannot be read.
    #[error("invalid retention definition {text:?}: {reason}")]
    Retention {
        /// The definition.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An unknown aggregation method.
    #[error("Unrecognized aggregation method: {0}")]
    Method(String),
    /// A factor outside of 0 to 1.
    #[error("Invalid xFilesFactor {0}, not between 0 and 1")]
    XFilesFactor(f64),
    /// A factor that is no number.
    #[error("Invalid xFilesFactor {0}, not a float")]
    XFilesFactorText(String),
    /// `update` was given a point of the future, or one older than the file reaches back.
    #[error("Timestamp not covered by any archives in this database.")]
    NotCovered,
    /// A request whose start is after its end.
    #[error("Invalid time interval: from time '{from}' is after until time '{until}'")]
    Interval {
        /// The start asked for.
        from: u32,
        /// The end asked for.
        until: u32,
    },
    /// A request for an archive that the file does not have.
    #[error("Invalid granularity: {0}")]
    Granularity(u32),
    /// Two files that must have the same archives have not.
    #[error(
        "{} and {} archive configurations are unalike. Resize the input before {action}",
        from.display(),
        to.display()
    )]
    Unalike {
        /// The one file.
        from: PathBuf,
        /// The other.
        to: PathBuf,
        /// "merging", "diffing" or "filling".
        action: &'static str,
    },
    /// `merge` was given an end before its start.
    #[error("time_to must be >= time_from")]
    MergeInterval,
}

impl Error {
    /// Whether there is no such file (any more), so that one can be created.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::NotFound,
            Self::SetAside { .. } => true,
            _ => false,
        }
    }

    /// Whether the disk, or the owner's share of it, is full.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Whether another program has the lock of the file.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether no file can be read or written at this path, however often it is tried: the name is
    /// too long, something that is no file has it, or a part of the path is no directory.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::Exists { .. } => true,
            Self::Io { source, .. } => source
                .raw_os_error()
                .is_some_and(|code| HOPELESS.contains(&Errno::from_raw_os_error(code))),
            _ => false,
        }
    }

    /// Whether the path is at fault and not the system as a whole, which may be short of space,
    /// memory or descriptors, read-only, or have a broken disk.
    pub fn is_of_this_path(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                let of_the_system = source
                    .raw_os_error()
                    .is_none_or(|code| OF_THE_SYSTEM.contains(&Errno::from_raw_os_error(code)));
                !of_the_system
            }
            _ => true,
        }
    }

    /// Whether the file itself is at fault: its bytes are not those of a whole whisper file.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Truncated { .. })
    }

    pub(crate) fn exists(path: &Path) -> Self {
        Self::Exists {
            path: path.to_owned(),
        }
    }

    pub(crate) fn io(path: &Path, action: &'static str, source: impl Into<io::Error>) -> Self {
        Self::Io {
            path: path.to_owned(),
            action,
            source: source.into(),
        }
    }

    pub(crate) fn damaged(path: &Path, damage: Damage) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            damage,
        }
    }
}

/// What makes bytes not a whisper header.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Fewer bytes than the header needs.
    #[error("the header needs {needed} bytes, but the file has only {len}")]
    Short {
        /// The bytes that the header needs, as far as it could be read.
        needed: u64,
        /// The bytes there are.
        len: u64,
    },
    /// An aggregation code other than 1 to 8.
    #[error("unknown aggregation code {0}")]
    Method(u32),
    /// A factor outside of 0 to 1, or not a number.
    #[error("xFilesFactor {0} is not between 0 and 1")]
    XFilesFactor(f32),
    /// No archive, or more than anybody has.
    #[error("{0} archives")]
    ArchiveCount(u32),
    /// An archive that does not start where the one before it ends.
    #[error("archive {index} starts at byte {offset} instead of {expected}")]
    Offset {
        /// Which archive.
        index: usize,
        /// Where it says that it starts.
        offset: u32,
        /// Where it should.
        expected: u64,
    },
    /// An archive of no seconds per point.
    #[error("archive {0} has zero seconds per point")]
    ZeroStep(usize),
    /// An archive of no points.
    #[error("archive {0} has no points")]
    ZeroPoints(usize),
    /// A step that is not a larger multiple of the one before it.
    #[error("archive {index} has {step} seconds per point after {finer}")]
    Steps {
        /// Which archive.
        index: usize,
        /// Its step.
        step: u32,
        /// The step of the archive before.
        finer: u32,
    },
    /// A file that would be larger than its 32-bit offsets can say.
    #[error("the archives would need {0} bytes")]
    TooLarge(u64),
    /// A retention that is not that of the longest archive.
    #[error("maximal retention {found} instead of {expected}")]
    MaxRetention {
        /// What the header says.
        found: u32,
        /// What the archives say.
        expected: u64,
    },
}

/// Which rule a list of archives breaks. The texts are those of Python's whisper, which reach
/// users through its tools; `NotPositive` and `TooLarge` are ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveRule {
    /// No archive.
    #[error("You must specify at least one archive configuration!")]
    None,
    /// Two archives with one step.
    #[error(
        "A Whisper database may not be configured having two archives with the same precision \
         (archive{}: ({}, {}), archive{}: ({}, {}))",
        index, this.0, this.1, index + 1, next.0, next.1
    )]
    SamePrecision {
        /// The finer archive's number.
        index: usize,
        /// Its step and points.
        this: (u32, u32),
        /// Those of the next.
        next: (u32, u32),
    },
    /// A step that the next one is no multiple of.
    #[error(
        "Higher precision archives' precision must evenly divide all lower precision archives' \
         precision (archive{}: {this}, archive{}: {next})",
        index, index + 1
    )]
    Indivisible {
        /// The finer archive's number.
        index: usize,
        /// Its step.
        this: u32,
        /// The next archive's.
        next: u32,
    },
    /// A coarser archive that does not reach back further.
    #[error(
        "Lower precision archives must cover larger time intervals than higher precision \
         archives (archive{}: {this} seconds, archive{}: {next} seconds)",
        index, index + 1
    )]
    Shorter {
        /// The finer archive's number.
        index: usize,
        /// Its retention in seconds.
        this: u64,
        /// The next archive's.
        next: u64,
    },
    /// An archive that cannot hold one point's worth of the next.
    #[error(
        "Each archive must have at least enough points to consolidate to the next archive \
         (archive{} consolidates {needed} of archive{index}'s points but it has only {points} \
         total points)",
        index + 1
    )]
    TooFewPoints {
        /// The finer archive's number.
        index: usize,
        /// How many of its points make one of the next.
        needed: u32,
        /// How many it has.
        points: u32,
    },
    /// An archive without points.
    #[error("archive{0} must have at least one point")]
    NotPositive(usize),
    /// A file above 4 GiB, or a retention above 2^32 seconds.
    #[error("the archives are too large for the file format")]
    TooLarge,
}
