//! Looks at the names of mapped files, and at what became of the points of those that lost theirs.
//!
//! 1. Looks are numbered. A file that was seen at its name carries the number of the look that saw it, one
//!    that was just mapped that of the last look that had begun before.
//! 2. A name is looked up with a system call, unless the caller knows that it has led to the same file since
//!    the look of that number ([`Name::Kept`]). It knows that from the kernel: a directory is watched since before
//!    that look began ([`Maps::looks`]), and no change of this name has been reported until after the present look began.
//! 3. A name that is a symbolic link is looked up each time: nothing is reported of what it leads to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use crate::point::Point;

use super::identity::Identity;
use super::shard::Named;
use super::{ALL_EVERY, Event, Maps, PARTS};

/// The shares of the room for points from which a part is crowded: see [`Maps::crowded`].
const MANY: f64 = 0.25;
const NEARLY_ALL: f64 = 0.75;

/// What a look at the names of files found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// Files looked at.
    pub files: usize,
    /// Files that have another name, or none, since they were mapped.
    pub displaced: usize,
}

/// A file whose name is to be confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The file.
    pub key: u32,
    /// The number of the look before which it was not seen at its name, or a smaller one.
    pub since: u32,
}

/// What is known of the name of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Nothing: it has to be looked up.
    Unknown,
    /// It has led to the same file from before the look [`Asked::since`] began until now.
    Kept,
}

impl Maps {
    /// How many looks at names have begun: the number of the last one.
    pub fn looks(&self) -> u32 {
        self.looks.load(Ordering::Acquire)
    }

    /// Looks whether the files of the next part that were written of late are still those at their names, and
    /// in each [`ALL_EVERY`]th round all mapped files. `name_of` writes the path of a file into its second
    /// argument, and says what it knows of the name; it is called after the look has begun.
    ///
    /// The map of a file that is not is gone afterwards, and the points that it may have swallowed are
    /// written again with the next batch for it ([`Maps::displaced`]). Of the others, points from
    /// before the last look are not kept any longer: call this from one thread, at the pace at which
    /// points may be given up.
    pub fn confirm_next(&self, name_of: impl FnMut(Asked, &mut PathBuf) -> Name) -> Confirmed {
        let (at, all) = self.next_part();
        self.confirm(at, all, true, name_of)
    }

    /// As [`Maps::confirm_next`], of the files of `part` that were written of late ([`Maps::crowded`]).
    ///
    /// # Panics
    /// `part` is not less than [`PARTS`].
    pub fn confirm_part(
        &self,
        part: usize,
        name_of: impl FnMut(Asked, &mut PathBuf) -> Name,
    ) -> Confirmed {
        self.confirm(part, false, true, name_of)
    }

    /// The next shard to be looked at, and whether at all of its files.
    fn next_part(&self) -> (usize, bool) {
        let n = self.next_shard.fetch_add(1, Ordering::Relaxed) as usize;
        (n % PARTS, (n / PARTS).is_multiple_of(ALL_EVERY))
    }

    /// Looks whether the files that were written of late are still those at their names, as
    /// [`Maps::confirm_next`] does, and goes on keeping their points.
    pub fn confirm_written(&self, mut path_of: impl FnMut(u32, &mut PathBuf)) -> Confirmed {
        let mut all = Confirmed::default();
        for shard in 0..PARTS {
            let Confirmed { files, displaced } =
                self.confirm(shard, false, false, |asked, path| {
                    path_of(asked.key, path);
                    Name::Unknown
                });
            all.files += files;
            all.displaced += displaced;
        }
        all
    }

    /// Looks whether the file `key` is still the one at its name `path`.
    pub fn confirm_one(&self, key: u32, path: &Path) -> Confirmed {
        let at = key as usize % PARTS;
        let known = {
            let shard = self.shards[at].lock();
            let mapped = shard.identity(key);
            mapped.or_else(|| {
                shard
                    .recent
                    .unmapped()
                    .find(|(own, _)| *own == key)
                    .map(|(_, file)| file)
            })
        };
        let Some(known) = known else {
            return Confirmed::default();
        };
        let displaced = is_other(path, known) && self.displace(at, key, known, path);
        Confirmed {
            files: 1,
            displaced: usize::from(displaced),
        }
    }

    /// The files that have points to be written again; an empty batch writes them.
    pub fn displaced(&self) -> Vec<u32> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            keys.extend(shard.lock().recent.displaced_keys());
        }
        keys
    }

    /// The points of `key` that are to be written again, in the order in which they were written.
    pub fn displaced_points(&self, key: u32) -> Vec<Point> {
        self.shard(key).recent.displaced(key).to_vec()
    }

    /// How many points are kept until their files have been looked at.
    pub fn unconfirmed(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().recent.len())
            .sum()
    }

    /// A part whose names are to be looked at before its turn, because it keeps many points. A part that
    /// `may_wait`, because a look now would cost more than one a little later, is one only when its room for
    /// points is nearly used up.
    pub fn crowded(&self, may_wait: impl Fn(usize) -> bool) -> Option<usize> {
        (0..PARTS).find(|part| {
            let shard = self.shards[*part].lock();
            let limit = if may_wait(*part) { NEARLY_ALL } else { MANY };
            shard.recent.used() > limit
        })
    }

    /// Looks at the files of a shard with points that are kept, or at `all`. With `rotate`, points from
    /// before the last look are given up.
    fn confirm(
        &self,
        at: usize,
        all: bool,
        rotate: bool,
        mut name_of: impl FnMut(Asked, &mut PathBuf) -> Name,
    ) -> Confirmed {
        let look = self.looks.fetch_add(1, Ordering::AcqRel).wrapping_add(1);
        let mut files: Vec<Named> = {
            let shard = self.shards[at].lock();
            let unmapped = shard.recent.unmapped();
            let unmapped = unmapped.map(|(key, identity)| Named {
                key,
                identity,
                is_link: true,
                seen: 0,
            });
            shard.files(all).chain(unmapped).collect()
        };
        // Without the lock: a directory may have to be read from the disk.
        let mut path = PathBuf::new();
        let looked_at = files.len();
        files.retain(|file| {
            let asked = Asked {
                key: file.key,
                since: file.seen,
            };
            let is_kept = name_of(asked, &mut path) == Name::Kept && !file.is_link;
            is_kept
                || !is_other(&path, file.identity)
                || !self.displace(at, file.key, file.identity, &path)
        });
        let mut shard = self.shards[at].lock();
        shard.seen_at(look, &files);
        if rotate {
            shard.recent.rotate();
        }
        Confirmed {
            files: looked_at,
            displaced: looked_at - files.len(),
        }
    }

    /// Gives up the map of `key`, unless it is that of another file than `known` by now; its points
    /// are to be written again.
    fn displace(&self, at: usize, key: u32, known: Identity, path: &Path) -> bool {
        let mut shard = self.shards[at].lock();
        let mapped = shard.identity(key);
        let is_same = match mapped {
            Some(identity) => identity == known,
            None => shard.recent.unmapped().any(|file| file == (key, known)),
        };
        if is_same {
            shard.displace(key);
            drop(shard);
            self.push(Event::Replaced {
                path: path.to_owned(),
            });
        }
        is_same
    }
}

/// Whether the name leads to another file, or to none. While the system does not say, the file is
/// taken for the same.
fn is_other(path: &Path, known: Identity) -> bool {
    match fs::metadata(path) {
        Ok(found) => Identity::of(&found) != known,
        Err(error) => matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
        ),
    }
}
