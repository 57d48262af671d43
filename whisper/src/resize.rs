//! Another set of archives for an existing file.
//!
//! ## What becomes of the points?
//!
//! Each new archive is filled on its own, for every time from the old archive that says most about
//! it: one with the same step is copied as it is; a finer one whose step divides the new one is
//! aggregated, with the file's method and factor; only where none of these reaches, the points of
//! coarser ones are put at the start of their time. Nothing is propagated a second time. A resize
//! that keeps a step and does not shorten its archive loses nothing of it. Points of the future
//! are not taken along.
//!
//! ## How is it safe beside a running server?
//!
//! 1. The old file is locked, so that writers with file locks wait, and find the new one after.
//! 2. The new file is made beside it, with the old one's owner and mode, and renamed over it.
//! 3. The old file, which a server may have mapped, gets [`MOVED`] in the place of its aggregation
//!    code: a word that no header has, and that `map` looks at before each batch.
//! 4. What was written to the old file between the reading and the flag is carried over.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::aggregation::Aggregation;
use crate::archive::Archive;
use crate::create::{Allocation, Draft, Staged, temporary_name};
use crate::dump::Dump;
use crate::error::{Error, Result};
use crate::file::{File, Lock};
use crate::header::Header;
use crate::point::Point;
use crate::propagate::reaches;
use crate::retention::Retention;
use crate::units::Timestamp;

/// Stands in the place of the aggregation code in a file that another one has replaced.
pub const MOVED: u32 = u32::MAX;

/// How long a batch that was under way when the flag was set is given to end.
const GRACE: Duration = Duration::from_millis(20);

/// What the file shall be like.
#[derive(Clone, Debug, PartialEq)]
pub struct ResizeOptions {
    /// The new archives.
    pub retentions: Vec<Retention>,
    /// A new factor, if it is to change.
    pub x_files_factor: Option<f64>,
    /// A new method, if it is to change.
    pub aggregation: Option<Aggregation>,
    /// How the new archives get their disk space.
    pub allocation: Allocation,
    /// Where the result goes.
    pub target: Target,
}

/// Where the result of a resize goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// In the place of the old file, of which a copy is kept under the name.
    Replace {
        /// The copy's name; an older copy of that name is overwritten. `None` keeps none.
        backup: Option<PathBuf>,
    },
    /// To a new file; the old one stays as it is.
    New(PathBuf),
}

/// What a resize did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    /// The new file's size in bytes.
    pub size: u64,
    /// How many points each new archive holds.
    pub points: Vec<usize>,
    /// Points that were written to the old file meanwhile, and were carried over.
    pub carried: usize,
}

/// Gives a file other archives.
///
/// `now` is asked for the time when the points have been read: none of them came later.
///
/// # Errors
/// As [`File::open_mut`] and [`crate::create()`]. The old file is untouched then, but for an error
/// while carrying points over.
pub fn resize(
    path: &Path,
    now: impl FnOnce() -> Timestamp,
    options: &ResizeOptions,
) -> Result<Resized> {
    let ResizeOptions {
        retentions,
        x_files_factor,
        aggregation,
        allocation,
        target,
    } = options;
    let mut old = File::open_mut(path, Lock::Exclusive)?;
    let factor = x_files_factor.unwrap_or(f64::from(old.header().x_files_factor));
    let method = aggregation.unwrap_or(old.header().aggregation);
    let header = Header::new(retentions, factor, method)?;
    let dump = Dump::of(&old)?;
    let now = now();

    let destination = match target {
        Target::New(new) => new,
        Target::Replace { .. } => path,
    };
    let draft = Draft::new(header.clone(), *allocation);
    let staged = Staged::new(destination, &draft)?;
    let mut new = File::open_mut(staged.temporary(), Lock::None)?;
    let mut points = Vec::new();
    for (index, archive) in header.archives().iter().enumerate() {
        let filled = filled(&dump, &header, archive, now);
        new.write_only(index, &filled)?;
        points.push(filled.len());
    }
    let size = header.file_size();
    let Target::Replace { backup } = target else {
        let publish = staged.publish_new();
        publish.map_err(|e| Error::io(destination, "giving the new file its name", e))?;
        return Ok(Resized {
            size,
            points,
            carried: 0,
        });
    };

    let found = fs::metadata(path).map_err(|e| Error::io(path, "looking at it", e))?;
    fs::set_permissions(staged.temporary(), found.permissions())
        .and_then(|()| {
            std::os::unix::fs::fchown(&staged.file, Some(found.uid()), Some(found.gid()))
        })
        .map_err(|e| Error::io(path, "giving the new file its owner and mode", e))?;
    if let Some(backup) = backup {
        copy(path, backup, found.permissions())
            .map_err(|e| Error::io(backup, "keeping a copy of the old file", e))?;
    }
    staged
        .publish()
        .map_err(|e| Error::io(path, "putting the new file in its place", e))?;
    // Other names that the old file may have keep it; then only the clock tells a server.
    if old.links()? == 0 {
        old.write_word(0, MOVED)?;
    }
    let carried = carry(&old, &mut new, now, dump)?;
    Ok(Resized {
        size,
        points,
        carried,
    })
}

/// Copies `path` to a new file, which gets the name `backup` when it is complete: what had the name before, such
/// as a symbolic link, is replaced and not written through.
fn copy(path: &Path, backup: &Path, permissions: fs::Permissions) -> io::Result<()> {
    let temporary = temporary_name(backup);
    let mut options = fs::OpenOptions::new();
    let mut new = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    let copied = fs::File::open(path)
        .and_then(|mut old| io::copy(&mut old, &mut new))
        .and_then(|_| new.set_permissions(permissions))
        .and_then(|()| fs::rename(&temporary, backup));
    if copied.is_err() {
        // The error that is returned says more.
        let _ = fs::remove_file(&temporary);
    }
    copied
}

/// Carries over what was written to the old file after it was read: at once, and again when a batch
/// that was under way has had the time to end.
fn carry(old: &File, new: &mut File, now: Timestamp, mut seen: Dump) -> Result<usize> {
    let mut carried = 0;
    for grace in [Duration::ZERO, GRACE] {
        std::thread::sleep(grace);
        let dump = Dump::of(old)?;
        let late = late_points(&seen, &dump, now);
        new.update_many(now, &late)?;
        carried += late.len();
        seen = dump;
    }
    Ok(carried)
}

/// The points that were sent between two looks at a file: those that changed in the finest
/// archive that reaches back to them. What changed in coarser ones follows from them.
fn late_points(before: &Dump, after: &Dump, now: Timestamp) -> Vec<Point> {
    let mut late = Vec::new();
    let mut finer_reach = i64::MAX;
    for (index, archive) in after.header.archives().iter().enumerate() {
        let both = before.archives[index].iter().zip(&after.archives[index]);
        let changed = both.filter(|(before, after)| {
            (before.at, before.value.to_bits()) != (after.at, after.value.to_bits())
        });
        let points = changed.map(|(_, after)| *after);
        late.extend(points.filter(|p| p.at.0 != 0 && i64::from(p.at.0) <= finer_reach));
        finer_reach = i64::from(now.0) - archive.retention() as i64;
    }
    late
}

/// What the archive `new` of `header` holds after a resize: ascending, on its steps.
fn filled(old: &Dump, header: &Header, new: &Archive, now: Timestamp) -> Vec<Point> {
    let step = new.step.seconds();
    let mut ring = Ring::new(new, now);
    let reach = |archive: &Archive| i64::from(now.0) - archive.retention() as i64;
    let sources = || old.header.archives().iter().zip(&old.archives);
    let serves = |archive: &Archive| step.is_multiple_of(archive.step.seconds());

    // The coarser first, each as far as finer ones do not reach; those that divide the step next,
    // so that the last to speak is the one whose step is nearest.
    let mut limit = sources()
        .filter(|(archive, _)| serves(archive))
        .map(|(a, _)| reach(a))
        .min();
    for (archive, slots) in sources().filter(|(archive, _)| !serves(archive)) {
        for point in known(archive, slots, now) {
            if limit.is_none_or(|limit| i64::from(point.at.0) <= limit) {
                ring.put(new.step.floor(point.at), point.value);
            }
        }
        limit = Some(limit.map_or(reach(archive), |limit| limit.min(reach(archive))));
    }
    for (archive, slots) in sources().filter(|(archive, _)| serves(archive)) {
        let points = known(archive, slots, now);
        let n = step / archive.step.seconds();
        for group in points.chunk_by(|a, b| new.step.floor(a.at) == new.step.floor(b.at)) {
            let values: Vec<f64> = group.iter().map(|point| point.value).collect();
            if (n == 1 || reaches(values.len(), n, header.x_files_factor))
                && let Some(value) = header.aggregation.apply(&values, n)
            {
                ring.put(new.step.floor(group[0].at), value);
            }
        }
    }
    ring.points()
}

/// The points of an archive that a reader would find at `now`, oldest first.
fn known(archive: &Archive, slots: &[Point], now: Timestamp) -> Vec<Point> {
    let oldest = i64::from(now.0) - archive.retention() as i64;
    let valid = |point: &&Point| {
        point.at.0 != 0
            && point.at <= now
            && i64::from(point.at.0) > oldest
            && archive.step.floor(point.at) == point.at
    };
    let mut points: Vec<Point> = slots.iter().filter(valid).copied().collect();
    points.sort_by_key(|point| point.at);
    points
}

/// The steps of a new archive up to now.
struct Ring {
    first: i64,
    step: i64,
    values: Vec<Option<f64>>,
}

impl Ring {
    fn new(archive: &Archive, now: Timestamp) -> Self {
        let step = i64::from(archive.step.seconds());
        let newest = i64::from(archive.step.floor(now).0);
        let first = newest - (i64::from(archive.points) - 1) * step;
        Self {
            first,
            step,
            values: vec![None; archive.points as usize],
        }
    }

    fn put(&mut self, at: Timestamp, value: f64) {
        let n = (i64::from(at.0) - self.first).div_euclid(self.step);
        if let Some(slot) = usize::try_from(n).ok().and_then(|n| self.values.get_mut(n)) {
            *slot = Some(value);
        }
    }

    fn points(&self) -> Vec<Point> {
        let at = |n: usize| self.first + n as i64 * self.step;
        let point = |(n, value): (usize, &Option<f64>)| Some(Point::new(at(n) as u32, (*value)?));
        self.values.iter().enumerate().filter_map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::{CreateOptions, create};
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn the_copy_of_the_old_file_takes_the_place_of_a_link() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.wsp");
        let backup = root.path().join("a.wsp.bak");
        let other = root.path().join("other");
        create(
            &path,
            &CreateOptions::new(vec![Retention::new(1, 60).unwrap()]),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let old = fs::read(&path).unwrap();
        fs::write(&other, "other").unwrap();
        symlink(&other, &backup).unwrap();
        let options = ResizeOptions {
            retentions: vec![Retention::new(1, 120).unwrap()],
            x_files_factor: None,
            aggregation: None,
            allocation: Allocation::Sparse,
            target: Target::Replace {
                backup: Some(backup.clone()),
            },
        };
        resize(&path, || Timestamp(1_700_000_000), &options).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"other");
        assert_eq!(fs::read(&backup).unwrap(), old);
        let found = backup.symlink_metadata().unwrap();
        assert!(found.is_file());
        assert_eq!(found.permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
    }
}
