//! A rule file that is read again when it changes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::problem::{Findings, Problem};
use super::read::{Missing, load};
use crate::stats::Stats;

/// How a file becomes a value, see [`super`].
pub type Parse<T> = Box<dyn Fn(&str, &mut Findings) -> T + Send + Sync>;

/// The value of a rule file, and what is needed to read it again.
///
/// ```
/// use carbon::conf::{Missing, Watched};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("allow.conf");
/// std::fs::write(&path, "^servers\\.\n").unwrap();
/// let allow = Watched::open("carbon.allow", &path, Missing::Empty, |text, _| {
///     text.lines().map(str::to_owned).collect::<Vec<_>>()
/// });
/// assert_eq!(*allow.unwrap().get(), ["^servers\\."]);
/// ```
pub struct Watched<T> {
    /// The key of plumbago.toml that names the file.
    key: &'static str,
    path: PathBuf,
    parse: Parse<T>,
    current: RwLock<Arc<T>>,
    /// How often `current` was replaced.
    generation: AtomicU64,
    /// What the file was like when it was read last; `None`: it could not be looked at.
    seen: Mutex<Option<Stamp>>,
}

/// What changes when a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            place: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

impl<T> Watched<T> {
    /// Reads `path`, which the key `key` of the configuration names, and logs its warnings.
    ///
    /// # Errors
    /// Everything that makes the file unusable, as [`load`].
    pub fn open(
        key: &'static str,
        path: &Path,
        missing: Missing,
        parse: impl Fn(&str, &mut Findings) -> T + Send + Sync + 'static,
    ) -> Result<Self, Vec<Problem>> {
        // Before the file is read: a change meanwhile is seen by the first look.
        let seen = Stamp::of(path);
        let loaded = load(path, missing, &parse)?;
        for warning in loaded.logged() {
            tracing::warn!("{key}: {warning}");
        }
        Ok(Self {
            key,
            path: path.to_owned(),
            parse: Box::new(parse),
            current: RwLock::new(Arc::new(loaded.value)),
            generation: AtomicU64::new(0),
            seen: Mutex::new(seen),
        })
    }

    /// The value in effect.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.read())
    }

    /// Grows whenever the value is replaced.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file, which looked like `stamp`; whether it is in effect.
    fn read(&self, stamp: Option<Stamp>, seen: &mut Option<Stamp>) -> Outcome {
        // A file that has gone is reported, and what it said stays in effect.
        let loaded = load(&self.path, Missing::Refused, &self.parse);
        if Stamp::of(&self.path) != stamp {
            // Another program is writing it: the next look sees it whole.
            return Outcome::Unchanged;
        }
        *seen = stamp;
        let Self { key, .. } = self;
        match loaded {
            Ok(loaded) => {
                for warning in loaded.logged() {
                    tracing::warn!("{key}: {warning}");
                }
                *self.current.write() = Arc::new(loaded.value);
                self.generation.fetch_add(1, Ordering::AcqRel);
                tracing::info!(file = %self.path.display(), "{key}: read again");
                Outcome::Replaced
            }
            Err(problems) => {
                for problem in problems {
                    tracing::error!("{key}: {problem}");
                }
                tracing::error!("{key}: not read again, the rules read before stay in effect");
                Outcome::Refused
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Unchanged,
    Replaced,
    Refused,
}

impl Outcome {
    fn count(self, stats: &Stats) {
        match self {
            Self::Unchanged => {}
            Self::Replaced => stats.rules_reloaded.add(1),
            Self::Refused => stats.rules_refused.add(1),
        }
    }
}

/// A rule file of any kind.
pub trait Watch: Send + Sync {
    /// Reads the file again if it has changed.
    fn look(&self, stats: &Stats);

    /// Reads the file again.
    fn reload(&self, stats: &Stats);
}

impl<T: Send + Sync> Watch for Watched<T> {
    fn look(&self, stats: &Stats) {
        let stamp = Stamp::of(&self.path);
        let mut seen = self.seen.lock();
        if stamp != *seen {
            self.read(stamp, &mut seen).count(stats);
        }
    }

    fn reload(&self, stats: &Stats) {
        let mut seen = self.seen.lock();
        self.read(Stamp::of(&self.path), &mut seen).count(stats);
    }
}

impl<T> std::fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched")
            .field("key", &self.key)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// All rule files of a store.
#[derive(Clone, Default)]
pub struct Files(Vec<Arc<dyn Watch>>);

impl Files {
    /// Adds a file.
    pub fn add(&mut self, file: Arc<dyn Watch>) {
        self.0.push(file);
    }

    /// Reads those again that have changed.
    pub fn look(&self, stats: &Stats) {
        for file in &self.0 {
            file.look(stats);
        }
    }

    /// Reads all of them again.
    pub fn reload(&self, stats: &Stats) {
        for file in &self.0 {
            file.reload(stats);
        }
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Files({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str, findings: &mut Findings) -> u32 {
        text.trim().parse().unwrap_or_else(|_| {
            findings.refuse(1, "", format!("{text:?} is not a number"), "\"1\"");
            0
        })
    }

    struct Rig {
        directory: tempfile::TempDir,
        path: PathBuf,
        stats: Stats,
    }

    impl Rig {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            Self {
                path: directory.path().join("rules"),
                directory,
                stats: Stats::default(),
            }
        }

        /// Replaces the file as editors do, which changes the inode.
        fn write(&self, text: &str) {
            let new = self.directory.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &self.path).unwrap();
        }

        fn open(&self) -> Result<Watched<u32>, Vec<Problem>> {
            Watched::open("carbon.rules", &self.path, Missing::Refused, number)
        }

        fn counts(&self) -> (u64, u64) {
            (
                self.stats.rules_reloaded.get(),
                self.stats.rules_refused.get(),
            )
        }
    }

    #[test]
    fn a_bad_file_refuses_the_start() {
        let rig = Rig::new();
        assert_eq!(
            rig.open().unwrap_err()[0].message,
            "the file does not exist"
        );
        rig.write("x");
        assert_eq!(rig.open().unwrap_err()[0].message, "\"x\" is not a number");
    }

    #[test]
    fn changes_are_seen_and_bad_ones_keep_the_old_value() {
        let rig = Rig::new();
        rig.write("1");
        let watched = rig.open().unwrap();
        watched.look(&rig.stats);
        assert_eq!((*watched.get(), rig.counts()), (1, (0, 0)));
        rig.write("2");
        assert_eq!(*watched.get(), 1);
        watched.look(&rig.stats);
        assert_eq!((*watched.get(), rig.counts()), (2, (1, 0)));
        rig.write("x");
        watched.look(&rig.stats);
        watched.look(&rig.stats);
        assert_eq!((*watched.get(), rig.counts()), (2, (1, 1)));
        fs::remove_file(&rig.path).unwrap();
        watched.look(&rig.stats);
        watched.look(&rig.stats);
        assert_eq!((*watched.get(), rig.counts()), (2, (1, 2)));
        rig.write("3");
        watched.look(&rig.stats);
        assert_eq!((*watched.get(), rig.counts()), (3, (2, 2)));
    }

    #[test]
    fn a_reload_reads_a_file_that_has_not_changed() {
        let rig = Rig::new();
        rig.write("1");
        let watched: Arc<Watched<u32>> = Arc::new(rig.open().unwrap());
        let mut files = Files::default();
        files.add(watched.clone());
        files.look(&rig.stats);
        files.reload(&rig.stats);
        assert_eq!((*watched.get(), rig.counts()), (1, (1, 0)));
        rig.write("x");
        files.reload(&rig.stats);
        files.look(&rig.stats);
        assert_eq!((*watched.get(), rig.counts()), (1, (1, 1)));
    }
}
