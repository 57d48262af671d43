//! The files of the store: opened as what they must be, and set aside when they are damaged.
//!
//! 1. `events.db`, `events.db-wal` and `events.db-shm` are plain files with mode 0600. A symbolic
//!    link, a directory or a FIFO in their place is refused, and none is followed or waited for.
//! 2. A database that SQLite calls damaged is renamed to `events.db.corrupt` (or `.corrupt-2`, …),
//!    its two companions with it, and a new one is begun: metrics do not wait for annotations.
//! 3. Small databases are checked whole at the start, large ones at their roots. Damage that shows
//!    later is an error for the request that met it.
//! 4. What is committed to a file that has lost its name would be gone with the process: after each
//!    commit the name is looked up ([`Place`]).

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::Error;

/// A database up to this size is read whole at the start.
const CHECKED_WHOLE: u64 = 32 << 20;
/// What belongs to a database beside the file itself.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];
/// How all connections are opened.
const FLAGS: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE
    .union(OpenFlags::SQLITE_OPEN_NO_MUTEX)
    .union(OpenFlags::SQLITE_OPEN_NOFOLLOW);

/// The file of a database, and what it was when it was opened.
pub(super) struct Place {
    path: PathBuf,
    identity: Option<(u64, u64)>,
}

impl Place {
    /// The file that has the name `path` now.
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            identity: identity(path),
        }
    }

    /// The name of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the name still leads to that file.
    pub(super) fn check(&self) -> Result<(), Error> {
        if identity(&self.path) == self.identity {
            return Ok(());
        }
        let why = "was removed or replaced while it was in use: nothing is kept until a restart";
        Err(file_error(&self.path, why))
    }
}

/// The identity of a file, independent of its name.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// `path` with every directory above the file resolved: SQLite follows no link, not even there.
pub(super) fn resolved(path: &Path) -> Result<PathBuf, Error> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(file_error(path, "not the path of a file"));
    };
    let directory = match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    };
    let real = fs::create_dir_all(directory).and_then(|()| directory.canonicalize());
    match real {
        Ok(directory) => Ok(directory.join(name)),
        Err(why) => Err(file_error(directory, why)),
    }
}

/// Opens the database at `path`, made if it is not there.
pub(super) fn open(path: &Path) -> Result<Connection, Error> {
    for file in [path.to_owned()].into_iter().chain(companions(path)) {
        keep_private(&file)?;
    }
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(_) => {}
        Err(why) if why.kind() == ErrorKind::AlreadyExists => {}
        Err(why) => return Err(file_error(path, why)),
    }
    connect(path).map_err(|source| Error::Failed {
        action: "opening the database",
        source,
    })
}

/// A further connection to the database at `path`.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, FLAGS)
}

/// What SQLite finds wrong with the database, if anything.
pub(super) fn check(db: &Connection, path: &Path) -> rusqlite::Result<Option<String>> {
    let size = fs::metadata(path).map_or(0, |meta| meta.len());
    if size <= CHECKED_WHOLE {
        let said: String = db.pragma_query_value(None, "quick_check", |record| record.get(0))?;
        return Ok((said != "ok").then_some(said));
    }
    let tables = db
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
        )?
        .query_map([], |record| record.get::<_, String>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for table in tables {
        let quoted = table.replace('"', "\"\"");
        let mut one = db.prepare(&format!("SELECT * FROM \"{quoted}\" LIMIT 1"))?;
        one.query([])?.next()?;
    }
    Ok(None)
}

/// Whether `error` says that the database is damaged.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// Whether `error` says that another connection holds the database.
pub(super) fn is_locked(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

/// Renames the database at `path` and its companions; returns its new name.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, Error> {
    let target = (1_u32..)
        .map(|n| match n {
            1 => with_suffix(path, ".corrupt"),
            n => with_suffix(path, &format!(".corrupt-{n}")),
        })
        .find(|target| fs::symlink_metadata(target).is_err());
    let target = target.unwrap_or_else(|| with_suffix(path, ".corrupt"));
    // The companions first: what is in them belongs to the old database and to no new one.
    for suffix in COMPANIONS {
        match fs::rename(with_suffix(path, suffix), with_suffix(&target, suffix)) {
            Err(why) if why.kind() != ErrorKind::NotFound => return Err(file_error(path, why)),
            _ => {}
        }
    }
    fs::rename(path, &target).map_err(|why| file_error(path, why))?;
    Ok(target)
}

fn companions(path: &Path) -> impl Iterator<Item = PathBuf> {
    COMPANIONS
        .map(|suffix| with_suffix(path, suffix))
        .into_iter()
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Sees to it that `path`, if there is anything, is a file that only its owner may read.
fn keep_private(path: &Path) -> Result<(), Error> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(why) if why.kind() == ErrorKind::NotFound => return Ok(()),
        Err(why) => return Err(file_error(path, why)),
    };
    if !meta.is_file() {
        return Err(file_error(path, "not a plain file"));
    }
    if meta.permissions().mode() & 0o077 != 0 {
        fs::set_permissions(path, Permissions::from_mode(0o600))
            .map_err(|why| file_error(path, why))?;
    }
    Ok(())
}

fn file_error(path: &Path, why: impl ToString) -> Error {
    Error::File {
        path: path.to_owned(),
        why: why.to_string(),
    }
}
