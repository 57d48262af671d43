//! Two files into one, and what tells them apart.
//!
//! Both work archive by archive on files whose archives are the same, as Python's whisper does.

use crate::error::{Error, Result};
use crate::fetch::{Fetched, Range};
use crate::file::File;
use crate::header::Header;
use crate::point::{Point, is_absent, present};
use crate::units::Timestamp;

/// Writes the points of `source` in `from`..=`until` over those of `target` (`whisper.merge`);
/// `None` is the beginning of time, and `now`; an `until` after `now` is `now`.
///
/// Finer archives come first: what they propagate in `target` is overwritten by the coarser points
/// of `source` itself.
///
/// # Errors
/// [`Error::Unalike`] if the archives differ; [`Error::MergeInterval`]; [`Error::Truncated`];
/// [`Error::Io`].
pub fn merge(
    source: &File,
    target: &mut File,
    now: Timestamp,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<()> {
    alike(source, target, "merging")?;
    let from = from.unwrap_or(Timestamp(0));
    let until = until.unwrap_or(now);
    if until < from {
        return Err(Error::MergeInterval);
    }
    // No ring holds as many steps as there may be in the future.
    let until = until.min(now);
    for index in by_retention(source.header()) {
        let oldest = oldest(source.header(), index, now);
        if i64::from(until.0) < oldest {
            continue;
        }
        let from = i64::from(from.0).max(oldest);
        let range = Range::of(source.header(), index, from, i64::from(until.0));
        let points = known_points(&source.read(range)?);
        if !points.is_empty() {
            target.write_archive(index, &points)?;
        }
    }
    Ok(())
}

/// What one archive of two files has in common and not.
#[derive(Clone, Debug, PartialEq)]
pub struct ArchiveDiff {
    /// The archive's number, by rising retention.
    pub archive: usize,
    /// The times at which the values differ, with the value of either file, [`crate::ABSENT`]
    /// where it has none.
    pub points: Vec<(Timestamp, f64, f64)>,
    /// How many times were compared.
    pub total: usize,
}

/// Compares two files archive by archive (`whisper.diff`): the coarser ones only where the finer
/// ones do not reach, and up to `now` at most. `ignore_empty` leaves out times at which either file has no value.
///
/// # Errors
/// [`Error::Unalike`] if the archives differ; [`Error::Truncated`]; [`Error::Io`].
pub fn diff(
    a: &File,
    b: &File,
    now: Timestamp,
    until: Option<Timestamp>,
    ignore_empty: bool,
) -> Result<Vec<ArchiveDiff>> {
    alike(a, b, "diffing")?;
    // A zero counts as "not given", as in Python's.
    let until = until.filter(|until| until.0 != 0).unwrap_or(now);
    let mut until = i64::from(until.min(now).0);
    let mut diffs = Vec::new();
    for (archive, index) in by_retention(a.header()).into_iter().enumerate() {
        let oldest = oldest(a.header(), index, now);
        let range = Range::of(a.header(), index, oldest, until);
        let (a, b) = (a.read(range)?, b.read(range)?);
        let compared = a
            .points()
            .zip(&b.values)
            .map(|((at, a), &b)| (at, a, b))
            .filter(|&(_, a, b)| match (is_absent(a), is_absent(b)) {
                (true, true) => false,
                (false, false) => true,
                _ => !ignore_empty,
            });
        let (mut points, mut total) = (Vec::new(), 0);
        for (at, a, b) in compared {
            total += 1;
            // A NaN differs from everything, itself included.
            if present(a) != present(b) {
                points.push((at, a, b));
            }
        }
        diffs.push(ArchiveDiff {
            archive,
            points,
            total,
        });
        until = until.min(oldest);
    }
    Ok(diffs)
}

pub(crate) fn alike(from: &File, to: &File, action: &'static str) -> Result<()> {
    if from.header().archives() == to.header().archives() {
        return Ok(());
    }
    Err(Error::Unalike {
        from: from.path().to_owned(),
        to: to.path().to_owned(),
        action,
    })
}

/// The archives' numbers by rising retention. That is their order in every file that whisper
/// would create today.
pub(crate) fn by_retention(header: &Header) -> Vec<usize> {
    let archives = header.archives();
    let mut numbers: Vec<usize> = (0..archives.len()).collect();
    numbers.sort_by_key(|&index| archives[index].retention());
    numbers
}

pub(crate) fn oldest(header: &Header, index: usize, now: Timestamp) -> i64 {
    i64::from(now.0) - header.archives()[index].retention() as i64
}

pub(crate) fn known_points(fetched: &Fetched) -> Vec<Point> {
    let known = fetched.points().filter(|(_, value)| !is_absent(*value));
    known.map(|(at, value)| Point { at, value }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::create::{Allocation, CreateOptions, create};
    use crate::file::Lock;
    use crate::retention::Retention;

    #[test]
    fn an_end_in_the_future_is_now() {
        let root = tempfile::tempdir().unwrap();
        let now = Timestamp(1_700_000_000);
        let points = [Point::new(now.0 - 5, 1.0), Point::new(now.0 + 5, 2.0)];
        let [mut a, mut b] = ["a.wsp", "b.wsp"].map(|name| {
            let path = root.path().join(name);
            let options = CreateOptions {
                allocation: Allocation::Sparse,
                ..CreateOptions::new(vec![Retention::new(1, 60).unwrap()])
            };
            create(&path, &options).unwrap();
            File::open_mut(&path, Lock::None).unwrap()
        });
        a.update_many(now, &points).unwrap();
        for until in [None, Some(Timestamp(u32::MAX))] {
            let diffs = diff(&a, &b, now, until, false).unwrap();
            assert_eq!(diffs[0].points.len(), 1, "{until:?}");
        }
        let end = Some(Timestamp(u32::MAX));
        merge(&a, &mut b, now, None, end).unwrap();
        let known: Vec<Point> = b.slots(0).unwrap();
        let known: Vec<f64> = known
            .iter()
            .filter(|p| p.at.0 != 0)
            .map(|p| p.value)
            .collect();
        assert_eq!(known, [1.0]);
        // A beginning in the future leaves nothing.
        merge(&a, &mut b, now, end, end).unwrap();
    }
}
