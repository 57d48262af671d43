//! What the files beside a new one are like.
//!
//! A tree that carbon wrote says by its files which retentions its operator chose. A new series
//! follows the files of its directory; a file with built-in retentions does not count, because its
//! own sender chose its step ([`super::infer`]).
//!
//! A look costs a few headers per directory and minute: directories are remembered, [`MAX_KEPT`] of
//! them at most, and of a large directory only the first files are read.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use whisper::{Header, Retention};

use super::built_in::is_built_in;

/// How many headers of a directory are read.
const MAX_HEADERS: usize = 8;
/// How many names of a directory are looked at.
const MAX_NAMES: usize = 256;
/// How many directories are remembered.
const MAX_KEPT: usize = 4_096;
/// How long a directory is remembered.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// What the files of one directory say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branch {
    /// The retentions that files have, those of most files first, each with one of the files.
    pub found: Vec<Sibling>,
}

/// Retentions of files in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sibling {
    /// The archives, finest first.
    pub retentions: Vec<Retention>,
    /// How many of the files that were looked at have them.
    pub files: usize,
    /// The first of them.
    pub example: PathBuf,
}

impl Sibling {
    /// The seconds per point of the finest archive.
    pub fn finest(&self) -> u32 {
        self.retentions
            .first()
            .map_or(0, |finest| finest.step.seconds())
    }
}

impl Branch {
    /// Looks at the files of `directory`. A directory that cannot be read, and files that are no
    /// whisper files, say nothing.
    pub fn read(directory: &Path) -> Self {
        Self::read_without(directory, None)
    }

    /// As [`Branch::read`], as if the file named `except` were not there.
    fn read_without(directory: &Path, except: Option<&OsStr>) -> Self {
        let mut branch = Self::default();
        let Ok(entries) = std::fs::read_dir(directory) else {
            return branch;
        };
        let mut paths: Vec<PathBuf> = entries
            .take(MAX_NAMES)
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "wsp"))
            .filter(|path| except.is_none() || path.file_name() != except)
            .collect();
        // The same answer for the same files.
        paths.sort_unstable();
        let headers = paths
            .into_iter()
            .filter_map(|path| Header::read(&path).ok().map(|header| (path, header)));
        for (path, header) in headers.take(MAX_HEADERS) {
            branch.add(path, header.retentions());
        }
        branch
            .found
            .sort_by_key(|sibling| std::cmp::Reverse(sibling.files));
        branch
    }

    fn add(&mut self, example: PathBuf, retentions: Vec<Retention>) {
        let known = self
            .found
            .iter_mut()
            .find(|sibling| sibling.retentions == retentions);
        match known {
            Some(sibling) => sibling.files += 1,
            None => self.found.push(Sibling {
                retentions,
                files: 1,
                example,
            }),
        }
    }

    /// Those that an operator chose, most common first.
    pub fn chosen(&self) -> impl Iterator<Item = &Sibling> {
        let chosen = |sibling: &&Sibling| !is_built_in(&sibling.retentions);
        self.found.iter().filter(chosen)
    }
}

/// Branches that were looked at lately.
#[derive(Debug, Default)]
pub(super) struct Branches {
    kept: Mutex<HashMap<PathBuf, (Instant, Branch)>>,
    /// The name of a file that does not count.
    except: Option<OsString>,
}

impl Branches {
    /// Branches without the file of which `path` is the path.
    pub(super) fn without(path: &Path) -> Self {
        Self {
            except: path.file_name().map(OsStr::to_owned),
            ..Self::default()
        }
    }

    /// What the files of `directory` say.
    pub(super) fn of(&self, directory: &Path) -> Branch {
        let lock = || self.kept.lock();
        if let Some((at, branch)) = lock().get(directory)
            && at.elapsed() < KEPT_FOR
        {
            return branch.clone();
        }
        let branch = Branch::read_without(directory, self.except.as_deref());
        let mut kept = lock();
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (at, _)| at.elapsed() < KEPT_FOR);
        }
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.insert(directory.to_owned(), (Instant::now(), branch.clone()));
        branch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::built_in::built_in;
    use whisper::CreateOptions;

    fn create(directory: &Path, name: &str, retentions: Vec<Retention>) {
        let path = directory.join(format!("{name}.wsp"));
        whisper::create(&path, &CreateOptions::new(retentions)).unwrap();
    }

    fn list(text: &str) -> Vec<Retention> {
        Retention::parse_carbon_list(text).unwrap()
    }

    #[test]
    fn the_most_common_retentions_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(Branch::read(path), Branch::default());
        assert_eq!(Branch::read(&path.join("none")), Branch::default());
        std::fs::write(path.join("0.wsp"), "no file of whisper").unwrap();
        create(path, "a", list("10s:1h"));
        create(path, "b", list("60s:1d"));
        create(path, "c", list("60s:1d"));
        create(path, "d", built_in(60));
        let branch = Branch::read(path);
        let files: Vec<usize> = branch.found.iter().map(|sibling| sibling.files).collect();
        assert_eq!(files, [2, 1, 1]);
        let chosen: Vec<u32> = branch.chosen().map(Sibling::finest).collect();
        assert_eq!(chosen, [60, 10]);
        assert_eq!(branch.found[0].example, path.join("b.wsp"));
    }

    #[test]
    fn branches_are_remembered_in_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let branches = Branches::default();
        assert_eq!(branches.of(directory.path()).found.len(), 0);
        create(directory.path(), "a", list("10s:1h"));
        assert_eq!(branches.of(directory.path()).found.len(), 0);
        for n in 0..MAX_KEPT + 10 {
            branches.of(&directory.path().join(n.to_string()));
        }
        assert!(branches.kept.lock().len() <= MAX_KEPT);
    }
}
