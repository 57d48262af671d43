//! Removes series that have had no point for `carbon.expire_after`.
//!
//! 1. A series is *idle* if its file was last changed, and its last point is, longer ago than that, and the
//!    cache has no points of it. Both ages count: another program or a copy changes a file without new
//!    points, and some file systems do not record the time of changes through a memory map. A file that
//!    cannot be read, or that is a link, is left alone.
//! 2. A file is checked again and deleted while its series is claimed (`Cache::claim`). Points that arrive
//!    meanwhile wait in the cache, and the persister creates the file again. Expiry does not block the
//!    persister in any other way, and does not wait for a pass of it, which may take minutes.
//! 3. Ages are measured by a [`SteadyClock`]. It follows the system's clock, but never runs faster than
//!    twice the real time, and is kept in a file across restarts. A system clock that is ten years ahead
//!    for an hour ages series by one hour more. Time during which the server did not run is caught up at
//!    the same rate: a series may stay longer than configured, but not shorter.
//! 4. A pass runs on a thread of its own and removes at most a quarter of all series and
//!    [`ALWAYS_REMOVED`] more, at [`REMOVES`] a second or at twice the rate at which series were created
//!    since the last pass. If more are idle, the next pass begins with the first of them that was left: the
//!    last of the tree go as well. A tree in which series come and go does not grow without end.
//! 5. After a pass, unused names and ids are freed (`index::grace`), and the log of the index is rewritten
//!    if many of its records are obsolete.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use whisper::Timestamp;
use whisper::map::Maps;

use crate::cache::Cache;
use crate::datapoint::SeriesId;
use crate::error::Error;
use crate::index::Index;
use crate::stats::Stats;
use crate::stop::Stop;

/// Files checked per second.
const LOOKS: f64 = 20_000.0;
/// Series removed per second, if no more are created.
pub(crate) const REMOVES: f64 = 2_000.0;
/// Series checked, and removed, between two pauses.
const LOOKED_AT_ONCE: usize = 256;
/// A pass may remove this many series, however few there are.
const ALWAYS_REMOVED: usize = 1_000;

/// A series that has had no point for a long time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Its name.
    pub name: String,
    /// When its file was last changed.
    pub changed: Timestamp,
    /// Bytes that its file takes on disk.
    pub size_bytes: u64,
}

/// The result of a pass over the series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Series that have a file.
    pub series: usize,
    /// Series that were idle for long enough.
    pub idle: usize,
    /// Series that were removed.
    pub removed: usize,
    /// Bytes on disk of the idle series.
    pub size_bytes: u64,
    /// The latest change of any file.
    pub newest: Timestamp,
    /// The first series that was idle and left, because a pass may not remove more.
    pub(crate) left: Option<SeriesId>,
}

/// The clock by which series age (3 above).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SteadyClock(f64);

impl SteadyClock {
    /// A clock that reads `at`.
    pub fn new(at: Timestamp) -> Self {
        Self(f64::from(at.0))
    }

    /// Moves towards the system's clock `wall` after `elapsed` of real time. Returns the time by which
    /// series age, which is never after `wall`.
    pub fn advance(&mut self, wall: Timestamp, elapsed: Duration) -> Timestamp {
        let most = self.0 + 2.0 * elapsed.as_secs_f64();
        self.0 = f64::from(wall.0).clamp(self.0, most);
        Timestamp((self.0 as u32).min(wall.0))
    }

    pub(crate) fn read(path: &Path) -> Option<Self> {
        let mut text = String::new();
        fs::File::open(path)
            .ok()?
            .take(32)
            .read_to_string(&mut text)
            .ok()?;
        let seconds: u32 = text.trim().parse().ok()?;
        Some(Self::new(Timestamp(seconds)))
    }

    pub(crate) fn write(self, path: &Path) -> io::Result<()> {
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        writeln!(fs::File::create_new(&new)?, "{}", self.0 as u32)?;
        fs::rename(&new, path)
    }
}

/// The parts of the store that a pass over the series works on.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// The directory of the files.
    pub(crate) root: &'a Path,
    pub(crate) index: &'a Index,
    pub(crate) cache: &'a Cache,
    pub(crate) maps: &'a Maps,
    pub(crate) stats: &'a Stats,
    pub(crate) stop: &'a Stop,
    /// Whether other programs lock files of the tree.
    pub(crate) flock: bool,
}

/// The state of one file.
enum Look {
    /// It does not exist.
    Missing,
    /// It is left alone: not a regular file, or unreadable.
    Left,
    /// It was changed at this time, or has a recent point.
    Recent(Timestamp),
    Idle {
        changed: Timestamp,
        size_bytes: u64,
    },
}

/// Checks whether the file at `path` has been idle since `cutoff`. `wall` is the system's clock.
fn look(path: &Path, cutoff: Timestamp, wall: Timestamp) -> Look {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Look::Missing,
        _ => return Look::Left,
    };
    let changed = metadata.modified().ok();
    let changed = changed.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let changed = changed.map_or(0, |at| u32::try_from(at.as_secs()).unwrap_or(u32::MAX));
    let changed = Timestamp(changed);
    if changed >= cutoff {
        return Look::Recent(changed);
    }
    match has_points_since(path, cutoff, wall) {
        Ok(true) => Look::Recent(changed),
        Ok(false) => Look::Idle {
            changed,
            size_bytes: std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
        },
        Err(_) => Look::Left,
    }
}

/// Whether the file has a point after `cutoff`, in the finest archive that reaches back to it or in a finer
/// one.
fn has_points_since(path: &Path, cutoff: Timestamp, wall: Timestamp) -> whisper::Result<bool> {
    let file = whisper::File::open(path)?;
    for archive in file.header().archives() {
        let reach = before(wall, Duration::from_secs(archive.retention()));
        let from = cutoff.max(reach);
        if from < wall {
            let fetched = file.fetch_archive(wall, from, wall, archive.step.seconds())?;
            let mut values = fetched.iter().flat_map(|fetched| &fetched.values);
            if values.any(|value| !whisper::is_absent(*value)) {
                return Ok(true);
            }
        }
        if from == cutoff {
            break;
        }
    }
    Ok(false)
}

pub(crate) fn before(at: Timestamp, span: Duration) -> Timestamp {
    let span = u32::try_from(span.as_secs()).unwrap_or(u32::MAX);
    Timestamp(at.0.saturating_sub(span))
}

/// How fast a pass runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// Beside a running server: in portions with pauses, bounded, with this many removals a second, and
    /// beginning with the series `from` if it is still there.
    Slow {
        removes: f64,
        from: Option<SeriesId>,
    },
    /// As fast as possible.
    Fast,
}

/// Checks every series that has a file and removes those that have been idle since `cutoff` and for which
/// `agree` returns true.
pub(crate) fn pass(
    scope: &Scope<'_>,
    cutoff: Timestamp,
    wall: Timestamp,
    pace: Pace,
    agree: &mut dyn FnMut(&Idle) -> bool,
) -> Expired {
    let mut ids = scope.index.stored_series();
    let mut done = Expired {
        series: ids.len(),
        ..Expired::default()
    };
    // A wrong clock must not remove everything in one pass.
    let most = match pace {
        Pace::Slow { from, .. } => {
            let from = ids.iter().position(|id| Some(*id) == from);
            ids.rotate_left(from.unwrap_or(0));
            ids.len() / 4 + ALWAYS_REMOVED
        }
        Pace::Fast => usize::MAX,
    };
    let mut path = PathBuf::new();
    let mut going = Vec::new();
    for ids in ids.chunks(LOOKED_AT_ONCE) {
        if scope.stop.is_set() {
            return done;
        }
        let begun = Instant::now();
        // Check this portion without any lock.
        for id in ids.iter().filter(|id| !scope.cache.holds(**id)) {
            scope.index.path(*id, &mut path);
            match look(&path, cutoff, wall) {
                Look::Left => {}
                Look::Recent(changed) => done.newest = done.newest.max(changed),
                // Another program deleted it: the series is removed without counting as expired.
                Look::Missing => going.push(*id),
                Look::Idle {
                    changed,
                    size_bytes,
                } => {
                    let name = scope.index.name(*id);
                    let idle = Idle {
                        name,
                        changed,
                        size_bytes,
                    };
                    done.newest = done.newest.max(changed);
                    done.idle += 1;
                    done.size_bytes += size_bytes;
                    if done.removed + going.len() >= most {
                        done.left = done.left.or(Some(*id));
                    } else if agree(&idle) {
                        tracing::debug!(series = idle.name, ?changed, "expires");
                        going.push(*id);
                    }
                }
            }
        }
        // Check the idle ones again under a claim, and remove them.
        let expiring = going.len();
        done.removed += remove(scope, &mut going, cutoff, wall);
        // Leave the disk to others as long as the pace says.
        if let Pace::Slow { removes, .. } = pace {
            let due = ids.len() as f64 / LOOKS + expiring as f64 / removes;
            scope
                .stop
                .pause(Duration::from_secs_f64(due).saturating_sub(begun.elapsed()));
        }
    }
    if done.left.is_some() {
        tracing::warn!(
            idle = done.idle,
            removed = done.removed,
            "more series expire than one pass removes; the rest waits for the next"
        );
    }
    done
}

/// Empties `ids`, removes the series that are still idle, and returns how many these are.
fn remove(scope: &Scope<'_>, ids: &mut Vec<SeriesId>, cutoff: Timestamp, wall: Timestamp) -> usize {
    if ids.is_empty() {
        return 0;
    }
    // No walk of the disk lists a file that is being deleted, and no other series is claimed.
    let _walk = scope.index.no_walk();
    let mut path = PathBuf::new();
    let mut removed = 0;
    for id in ids.drain(..) {
        if scope.stop.is_set() {
            break;
        }
        // The persister does not write to the file meanwhile.
        let Some(_claim) = scope.cache.claim(id) else {
            continue;
        };
        scope.index.path(id, &mut path);
        match look(&path, cutoff, wall) {
            Look::Missing => {}
            Look::Left | Look::Recent(_) => continue,
            Look::Idle { .. } => {
                if let Err(error) = delete(&path, scope.flock) {
                    let errors = scope.stats.expire_errors.get();
                    scope.stats.expire_errors.add(1);
                    if errors == 0 {
                        let error = Error::io(&path, "removing an expired series", error);
                        tracing::error!(%error, "further ones are counted in expireErrors");
                    }
                    continue;
                }
                removed += 1;
            }
        }
        scope.maps.forget(id.0);
        if let Err(error) = scope.index.expire(id, |id| scope.cache.holds(id)) {
            tracing::warn!(%error, "the index could not be written");
        }
        remove_empty(scope.root, &path);
    }
    scope.stats.expired.add(removed as u64);
    removed
}

/// Deletes a file, unless `locking` and another program has locked it.
fn delete(path: &Path, locking: bool) -> io::Result<()> {
    let held = if locking {
        let file = fs::File::open(path)?;
        file.try_lock()?;
        Some(file)
    } else {
        None
    };
    let removed = fs::remove_file(path);
    drop(held);
    removed
}

/// Deletes the directories above `path` and below `root` that are empty.
fn remove_empty(root: &Path, path: &Path) {
    let parents = path.ancestors().skip(1);
    for parent in parents.take_while(|parent| *parent != root && parent.starts_with(root)) {
        // Most likely it is not empty; then the directories above it are not either.
        if fs::remove_dir(parent).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    use proptest::prelude::*;
    use whisper::map::MapOptions;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// However many series come at the beginning of the tree, those at its end go.
    #[test]
    fn a_bounded_pass_goes_on_where_the_last_one_ended() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("whisper");
        fs::create_dir_all(&root).unwrap();
        let index = Index::open(&root, dir.path().join("names"), false).unwrap();
        let retentions = vec![whisper::Retention::new(10, 6).unwrap()];
        let options = whisper::CreateOptions {
            allocation: whisper::Allocation::Sparse,
            ..whisper::CreateOptions::new(retentions)
        };
        let make = |directory: &str, series: Range<usize>| {
            fs::create_dir_all(root.join(directory)).unwrap();
            for at in series {
                let name = format!("{directory}.m{at}");
                whisper::create(&root.join(format!("{directory}/m{at}.wsp")), &options).unwrap();
                let id = index.admit(name.as_bytes()).unwrap();
                index.list(&[id]);
                index.stored(id);
            }
        };
        const N: usize = ALWAYS_REMOVED;
        make("a", 0..N);
        make("z", 0..N);
        let (cache, maps) = (Cache::new(1 << 20), Maps::new(MapOptions::default()));
        let (stats, stop) = (Stats::default(), Stop::default());
        let scope = Scope {
            root: &root,
            index: &index,
            cache: &cache,
            maps: &maps,
            stats: &stats,
            stop: &stop,
            flock: false,
        };
        // Seen from there all of them are idle.
        let made = UNIX_EPOCH.elapsed().unwrap().as_secs() as u32;
        let (cutoff, wall) = (Timestamp(made + 3_600), Timestamp(made + 7_200));
        let expire = |from| {
            let pace = Pace::Slow {
                removes: f64::INFINITY,
                from,
            };
            // One stays, so that its directory stays in its place.
            pass(&scope, cutoff, wall, pace, &mut |idle| idle.name != "a.m0")
        };
        let first = expire(None);
        assert_eq!(first.removed, N / 2 + N);
        make("a", N..2 * N);
        let name = |id: &SeriesId| index.name(*id);
        let series: Vec<String> = index.stored_series().iter().map(name).collect();
        assert!(series[..=N].iter().all(|name| name.starts_with("a.")));
        assert_eq!(series.len() - N - 1, N / 2 - 1);
        let second = expire(first.left);
        assert_eq!(second.removed, N + N * 3 / 8);
        let left = index.find("*.*").unwrap();
        assert_eq!(left.len(), N / 8);
        assert!(left.iter().all(|found| found.path.starts_with("a.")));
    }

    #[test]
    fn a_clock_that_jumps_ages_series_by_as_much_as_it_was_wrong() {
        let now = 1_700_000_000;
        let mut clock = SteadyClock::new(Timestamp(now));
        let year = 365 * 86_400;
        assert_eq!(
            clock.advance(Timestamp(now + 10), HOUR / 360),
            Timestamp(now + 10)
        );
        // Ten years ahead for an hour: one hour more.
        let ahead = Timestamp(now + 10 + 10 * year);
        assert_eq!(clock.advance(ahead, HOUR), Timestamp(now + 10 + 7_200));
        // Right again, it is waited for.
        let right = now + 10 + 3_600;
        assert_eq!(
            clock.advance(Timestamp(right), Duration::ZERO),
            Timestamp(right)
        );
        let at = clock.advance(Timestamp(right + 3_600), HOUR);
        assert_eq!(
            (at, clock.0 as u32),
            (Timestamp(right + 3_600), right + 3_600)
        );
        // Back for an hour, and right again: nothing is lost.
        assert_eq!(clock.advance(Timestamp(1_000), HOUR), Timestamp(1_000));
        let at = clock.advance(Timestamp(right + 10_800), HOUR);
        assert_eq!(at, Timestamp(right + 10_800));
    }

    #[test]
    fn the_clock_outlives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("expiry-clock");
        assert_eq!(SteadyClock::read(&path), None);
        for at in [7, 1_700_000_000] {
            let clock = SteadyClock::new(Timestamp(at));
            clock.write(&path).unwrap();
            assert_eq!(SteadyClock::read(&path), Some(clock));
        }
        for damage in ["", "x", "-1", "99999999999999999999999999999999999999"] {
            fs::write(&path, damage).unwrap();
            assert_eq!(SteadyClock::read(&path), None, "{damage:?}");
        }
    }

    proptest! {
        /// However the system's clock moves, series age by twice the real time at most.
        #[test]
        fn never_faster_than_twice_the_real_time(
            steps in prop::collection::vec((any::<u32>(), 0_u64..100_000), 1..50),
        ) {
            let start = 1_700_000_000_u32;
            let mut clock = SteadyClock::new(Timestamp(start));
            let mut elapsed = 0;
            for (wall, seconds) in steps {
                elapsed += seconds;
                let at = clock.advance(Timestamp(wall), Duration::from_secs(seconds));
                prop_assert!(at.0 <= wall);
                prop_assert!(u64::from(at.0) <= u64::from(start) + 2 * elapsed);
            }
        }
    }
}
