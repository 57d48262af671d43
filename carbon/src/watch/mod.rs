//! What other programs do to the files while the server runs.
//!
//! ```text
//!   inotify: a file or directory changed ─┐
//!   a paced walk: a directory is read ────┼─► index: series that came or went
//!   a look at the names of mapped files ──┴─► maps: points of files that lost their names
//! ```
//!
//! 1. Directories are watched in the order of the walk, up to `carbon.max_watches` and what the
//!    kernel allows; those with hashed files come last. A directory is read after it is watched, so
//!    that nothing between is missed.
//! 2. While there are directories without a watch, all are walked, `carbon.walk_rate` of them a second. New
//!    directories, of which the kernel tells, are read at once, up to [`MOST_NEW`] in a tick.
//! 3. The names of the mapped files that were written of late are looked at every [`ROUND`], those of all mapped
//!    files every twelfth ([`whisper::Maps::confirm_next`]), those of a part whose points take much room before its
//!    turn ([`Watcher::crowded`]), and those of all files that were written before a segment of the journal goes.
//! 4. In the first two, a name takes no system call if the kernel tells of each change: its directory and all above
//!    it have been watched since before the last look, what the kernel tells has been read, nothing of that was
//!    lost ([`Watcher::is_reported`]), and no link, mount or foreign file system is involved ([`mounts`]). Hashed files are
//!    looked up: a change does not say whose file it was.

mod mounts;
mod notify;

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use whisper::map::{Asked, Confirmed, Name, PARTS};

use crate::datapoint::SeriesId;
use crate::index::Reconciled;
use crate::store::Inner;
use mounts::Mounts;
use notify::{Change, Place, Watches};

/// How often changes are asked for.
const TICK: Duration = Duration::from_millis(100);
/// In what time the names of all mapped files that were written of late are looked at.
const ROUND: Duration = Duration::from_secs(5);
/// The kernel tells of a change some microseconds after it has taken effect. Points from this long ago went
/// into a file whose change has been reported.
const REPORTED: Duration = Duration::from_millis(500);
/// New directories that are read in a tick, whatever the rate of the walk.
const MOST_NEW: usize = 500;
/// Changes that are handled one by one in a tick; with more, the tree is walked.
const MOST_CHANGES: usize = 20_000;

/// The thread that watches: until the store stops.
pub(crate) fn run(inner: &Inner) {
    let mut watcher = Watcher::new(inner);
    let mut confirmed = Instant::now();
    let mut looked = Instant::now();
    let mut named = Instant::now();
    let mut pause = ROUND;
    while !inner.stop.is_set() {
        inner.stop.pause(TICK);
        watcher.changes();
        watcher.read_new();
        watcher.walk(looked.elapsed());
        let watched = watcher.watches.as_ref().map_or(0, Watches::len);
        inner.stats.watched.set(watched as u64);
        looked = Instant::now();
        if named.elapsed() >= pause && inner.index.has_hashed_waiting() {
            named = Instant::now();
            name_hashed(inner);
            // It looks at all tagged series.
            pause = ROUND.max(named.elapsed() * 50);
            named = Instant::now();
        }
        loop {
            let crowded = watcher.crowded();
            if crowded.is_none() && confirmed.elapsed() < ROUND / PARTS as u32 {
                break;
            }
            confirmed = Instant::now();
            if watcher.confirm(crowded).displaced > 0 {
                inner.work.send();
            }
        }
    }
}

/// Counts hashed files that have appeared and belong to no known series.
fn name_hashed(inner: &Inner) {
    match inner.index.name_hashed() {
        Ok(0) => {}
        Ok(_) => warn_of_nameless(inner),
        Err(error) => tracing::warn!(%error, "the index could not be written"),
    }
}

/// Logs how many hashed files have no known series.
pub(crate) fn warn_of_nameless(inner: &Inner) {
    let nameless = inner.index.nameless();
    if nameless > 0 {
        tracing::warn!(
            "{nameless} tagged files whose names are not known yet: tag expressions do not find them; import the names from the old graphite-web with `plumbago tags import URL` (docs/migration.md)"
        );
    }
}

/// A watcher of the tree.
struct Watcher<'a> {
    inner: &'a Inner,
    watches: Option<Watches>,
    /// Directories still to be read in this round; the last is next.
    todo: Vec<PathBuf>,
    /// New directories that the kernel has reported.
    new: VecDeque<PathBuf>,
    /// Links to directories that were followed in this round.
    followed: HashSet<(u64, u64)>,
    /// Directories without a watch that this round has read.
    unwatched: usize,
    /// The round began because changes were missed, or there was none before: all directories are
    /// compared.
    compares_all: bool,
    /// The round at the start, which the index makes, too.
    is_first: bool,
    /// Directories that may be read now.
    budget: f64,
    /// Links to directories.
    links: HashSet<PathBuf>,
    mounts: Mounts,
    /// Watches tell of what has happened since the look of this number.
    told_since: u32,
    /// When the names of the files in each part were last looked at.
    looked: [Instant; PARTS],
}

impl<'a> Watcher<'a> {
    fn new(inner: &'a Inner) -> Self {
        Self {
            inner,
            watches: Self::watches(inner),
            todo: vec![inner.root.clone()],
            new: VecDeque::new(),
            followed: HashSet::new(),
            unwatched: 0,
            compares_all: true,
            is_first: true,
            budget: 0.0,
            links: HashSet::new(),
            mounts: Mounts::of(&inner.root),
            told_since: 0,
            looked: [Instant::now(); PARTS],
        }
    }

    /// No watches yet; `None` if there can be none.
    fn watches(inner: &Inner) -> Option<Watches> {
        let most = inner.options.max_watches as usize;
        let watches = (most > 0).then(|| Watches::new(most))?;
        let watches = watches.inspect_err(|error| {
            tracing::warn!(%error, "directories cannot be watched: they are walked");
        });
        watches.ok()
    }

    /// Sets all watches up again: directories may have moved since.
    fn begin_again(&mut self) {
        self.watches = None;
        self.watches = Self::watches(self.inner);
        self.links.clear();
        self.walk_all();
    }

    /// Handles what the kernel says.
    fn changes(&mut self) {
        let Some(watches) = &mut self.watches else {
            return;
        };
        let changes = watches.changes();
        let is_flood = changes.len() > MOST_CHANGES;
        let mut is_missed = false;
        for change in changes {
            match change {
                Change::Came(directory) => self.new.push_back(directory),
                Change::Went(directory) => self.gone(&directory),
                Change::File(path) if !is_flood => self.file(&path),
                Change::File(_) => {}
                Change::Missed => is_missed = true,
            }
        }
        if is_missed {
            self.begin_again();
        } else if is_flood {
            // What was reported is not looked at.
            self.told_since = self.inner.maps.looks();
            self.walk_all();
        }
    }

    /// Has all directories read and compared.
    fn walk_all(&mut self) {
        self.compares_all = true;
        self.followed.clear();
        self.new.clear();
        self.todo.clear();
        self.todo.push(self.inner.root.clone());
    }

    /// Reads new directories, and those in them.
    fn read_new(&mut self) {
        let old = std::mem::take(&mut self.todo);
        for _ in 0..MOST_NEW {
            let Some(directory) = self.todo.pop().or_else(|| self.new.pop_front()) else {
                break;
            };
            self.read(&directory);
        }
        let left = std::mem::replace(&mut self.todo, old);
        self.new.extend(left);
    }

    /// Reads as many directories as there is time for after `elapsed`.
    fn walk(&mut self, elapsed: Duration) {
        let rate = f64::from(self.inner.options.walk_rate);
        self.budget = (self.budget + elapsed.as_secs_f64() * rate).min(rate);
        while self.budget >= 1.0 && !self.inner.stop.is_set() {
            let Some(directory) = self.todo.pop() else {
                self.is_first = false;
                if self.unwatched == 0 {
                    self.compares_all = false;
                    return;
                }
                // Another round for those without a watch.
                self.compares_all = false;
                self.unwatched = 0;
                self.followed.clear();
                self.todo.push(self.inner.root.clone());
                return;
            };
            self.budget -= 1.0;
            self.read(&directory);
        }
    }

    /// Watches a directory if there is room, and compares it with the index unless it was watched
    /// already.
    fn read(&mut self, directory: &Path) {
        let place = self.place(directory);
        let (was_watched, is_watched) = match &mut self.watches {
            None => (false, false),
            Some(watches) => {
                let was_watched = watches.has(directory);
                let looks = || self.inner.maps.looks();
                (
                    was_watched,
                    was_watched || watches.add(directory, place, looks),
                )
            }
        };
        self.unwatched += usize::from(!is_watched);
        let Some(prefix) = self.prefix(directory) else {
            return;
        };
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                if error.kind() == ErrorKind::NotFound {
                    self.gone(directory);
                }
                return;
            }
        };
        let mut stems = Vec::new();
        let mut below = Vec::new();
        for entry in entries {
            let Ok(entry) = entry else {
                return;
            };
            let name = entry.file_name();
            let (Some(name), Ok(kind)) = (name.to_str(), entry.file_type()) else {
                continue;
            };
            let (is_dir, is_file) = if kind.is_symlink() {
                fs::metadata(entry.path()).map_or((false, false), |found| {
                    let is_new = found.is_dir() && self.followed.insert((found.dev(), found.ino()));
                    if is_new {
                        self.links.insert(entry.path());
                    }
                    (is_new, found.is_file())
                })
            } else {
                (kind.is_dir(), kind.is_file())
            };
            if name.starts_with('.') {
            } else if is_dir && !name.contains('.') {
                below.push(entry.path());
            } else if is_file && let Some(stem) = name.strip_suffix(".wsp") {
                stems.push(stem.to_owned());
            }
        }
        // The last is next: directories of tagged series come after all others.
        below.sort_unstable_by_key(|path| !path.ends_with("_tagged"));
        let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
        let directories: Vec<String> = below.iter().filter_map(name).collect();
        self.todo.extend(below);
        if !was_watched || self.compares_all {
            let busy = |id| self.inner.cache.holds(id);
            let index = &self.inner.index;
            // Directories without a watch are compared in each round.
            let hashed = !self.is_first && (is_watched || self.compares_all);
            let names = (&stems[..], &directories[..]);
            self.say(index.compare_directory(&prefix, names, hashed, busy));
        }
    }

    /// How a directory is reached.
    fn place(&self, directory: &Path) -> Place {
        let below = directory.strip_prefix(&self.inner.root);
        match below {
            Ok(below) if below == Path::new("") => match self.mounts.report_changes() {
                true => Place::Root,
                false => Place::Foreign,
            },
            // Hashed files are below this one.
            Ok(below) if below != Path::new("_tagged") && !self.mounts.is_mounted(below) => {
                match self.links.contains(directory) {
                    true => Place::Foreign,
                    false => Place::Below,
                }
            }
            _ => Place::Foreign,
        }
    }

    /// A part that keeps many points until its names are looked at. Half a second after the last look a name
    /// takes no system call ([`REPORTED`]), and neither do those in new directories once these are watched, so a
    /// part waits for that as long as it has room.
    fn crowded(&self) -> Option<usize> {
        let is_behind = !self.new.is_empty();
        let may_wait = |part: usize| is_behind || self.looked[part].elapsed() < REPORTED;
        self.inner.maps.crowded(may_wait)
    }

    /// Looks at the names of mapped files: of the part `crowded`, else of the next one.
    fn confirm(&mut self, crowded: Option<usize>) -> Confirmed {
        let inner = self.inner;
        let mut is_reported = None;
        let mut directory = (OsString::new(), None);
        let mut part = None;
        let name_of = |Asked { key, since }: Asked, path: &mut PathBuf| {
            part = Some(key as usize % PARTS);
            let is_reported =
                *is_reported.get_or_insert_with(|| self.is_reported(key as usize % PARTS));
            inner.index.path(SeriesId(key), path);
            let watches = self.watches.as_ref().filter(|_| is_reported);
            let (Some(watches), Some(parent)) = (watches, parent(path)) else {
                return Name::Unknown;
            };
            if directory.0 != parent {
                directory = (parent.to_owned(), watches.since(parent));
            }
            match directory.1 {
                Some(watched) if watched.max(self.told_since) < since => Name::Kept,
                _ => Name::Unknown,
            }
        };
        let confirmed = match crowded {
            Some(part) => inner.maps.confirm_part(part, name_of),
            None => inner.maps.confirm_next(name_of),
        };
        if let Some(part) = part {
            self.looked[part] = Instant::now();
        }
        confirmed
    }

    /// Whether everything has been reported that could have happened to the files of this part, and is known now. Called
    /// when a look at them has begun.
    fn is_reported(&mut self, part: usize) -> bool {
        self.changes();
        let mounts = Mounts::of(&self.inner.root);
        if mounts != self.mounts {
            self.mounts = mounts;
            self.begin_again();
        }
        // What the look before found to be old is given up after this one.
        self.looked[part].elapsed() >= REPORTED && self.inner.same_root().is_ok()
    }

    /// A directory is not there any more.
    fn gone(&self, directory: &Path) {
        if let Some(prefix) = self.prefix(directory) {
            let busy = |id| self.inner.cache.holds(id);
            self.say(self.inner.index.directory_gone(&prefix, busy));
        }
    }

    /// A file came, went, or is another one now.
    fn file(&mut self, path: &Path) {
        let name = path.file_stem().and_then(|stem| stem.to_str());
        let prefix = path.parent().and_then(|directory| self.prefix(directory));
        let (Some(stem), Some(prefix)) = (name, prefix) else {
            return;
        };
        let busy = |id| self.inner.cache.holds(id);
        match self.inner.index.file_changed(&prefix, stem, busy) {
            Ok((report, id)) => {
                if let Some(id) = id {
                    let mut path = PathBuf::new();
                    self.inner.index.path(id, &mut path);
                    if self.inner.maps.confirm_one(id.0, &path).displaced > 0 {
                        self.inner.work.send();
                    }
                }
                self.say(Ok(report));
            }
            Err(error) => {
                // It has not been looked at.
                self.told_since = self.inner.maps.looks();
                self.say(Err(error));
            }
        }
    }

    /// The first nodes of the series in a directory, with the dot after each; `None` if no series
    /// can have its file there.
    fn prefix(&self, directory: &Path) -> Option<String> {
        let below = directory.strip_prefix(&self.inner.root).ok()?;
        let mut prefix = String::new();
        for node in below {
            let node = node.to_str().filter(|node| !node.contains('.'))?;
            prefix.push_str(node);
            prefix.push('.');
        }
        Some(prefix)
    }

    /// Counts what was found, and logs it at level debug.
    fn say(&self, found: crate::error::Result<Reconciled>) {
        match found {
            Ok(Reconciled {
                added: 0,
                removed: 0,
                ..
            }) => {}
            Ok(Reconciled { added, removed, .. }) => {
                self.inner.stats.found.add(added as u64);
                self.inner.stats.vanished.add(removed as u64);
                tracing::debug!(added, removed, "files of other programs");
            }
            Err(error) => tracing::warn!(%error, "the index could not be written"),
        }
    }
}

/// The directory of a file, without its last slash.
fn parent(path: &Path) -> Option<&OsStr> {
    let bytes = path.as_os_str().as_bytes();
    let end = memchr::memrchr(b'/', bytes)?;
    Some(OsStr::from_bytes(&bytes[..end]))
}
