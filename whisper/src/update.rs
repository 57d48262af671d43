//! Writing points: into which archive, over which slots.
//!
//! 1. A point goes to the finest archive that reaches back beyond its age, and from there into
//!    the coarser ones (`propagate`); never into a finer one.
//! 2. A batch is written as if point by point, oldest first: of several in one step the newest
//!    wins, of several with one timestamp the last one handed over.
//! 3. Archives are dealt with from the finest on, each with its coarser ones, so that what a batch
//!    says about an old time overrides what finer points made of it.
//! 4. Each archive gets one write per run of neighbouring slots, two where the ring closes.
//! 5. A batch that has waited is written as if each point had been written when it arrived: by the clock
//!    of its arrival, and in parts where a ring is shorter than the wait ([`Arrival`]).

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::header::Header;
use crate::point::Point;
use crate::propagate::propagate;
use crate::runs::write_runs;
use crate::scratch::Scratch;
use crate::storage::Storage;
use crate::units::Timestamp;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Updated {
    /// Points that were taken, those overridden by a later one in their step included.
    pub taken: usize,
    /// Points older than the longest archive reaches back.
    pub too_old: usize,
}

/// When the points of a batch arrived.
///
/// A point that waits for its file grows older meanwhile. It still belongs into the archive of the age that it
/// had, and the points of a coarser archive are made of all finer ones that were there.
///
/// A batch that did not wait has a single clock: `Arrival::from(now)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The clock when the first of them came.
    pub since: Timestamp,
    /// The clock when they are written.
    pub now: Timestamp,
}

impl From<Timestamp> for Arrival {
    fn from(now: Timestamp) -> Self {
        Self { since: now, now }
    }
}

/// How many seconds before [`Arrival::since`] a point may be measured to count as of that time. An
/// older one was late when it arrived, and its age is that of [`Arrival::now`].
const LATE: u32 = 60;

/// Writes one point, as `whisper.update` does: with an error if no archive is there for it.
pub(crate) fn update<S: Storage>(
    storage: &mut S,
    header: &Header,
    scratch: &mut Scratch,
    now: Timestamp,
    point: Point,
) -> Result<()> {
    let age = i64::from(now.0) - i64::from(point.at.0);
    if age < 0 || age >= i64::from(header.max_retention()) {
        return Err(Error::NotCovered);
    }
    update_many(storage, header, scratch, now.into(), &[point])?;
    Ok(())
}

/// Writes a batch, as `whisper.update_many` does: points of the future go to the finest archive,
/// points older than the longest are counted and forgotten.
pub(crate) fn update_many<S: Storage>(
    storage: &mut S,
    header: &Header,
    scratch: &mut Scratch,
    arrival: Arrival,
    points: &[Point],
) -> Result<Updated> {
    let mut sorted = std::mem::take(&mut scratch.sorted);
    let ordered = if points.is_sorted_by_key(|point| point.at) {
        points
    } else {
        sorted.clear();
        sorted.extend_from_slice(points);
        sorted.sort_by_key(|point| point.at);
        &sorted
    };
    let written = if arrival.since >= arrival.now {
        write_ordered(storage, header, scratch, arrival.now, ordered)
    } else {
        write_waited(storage, header, scratch, arrival, ordered)
    };
    scratch.sorted = sorted;
    written
}

/// Writes points, oldest first, that arrived one after the other since `arrival.since`.
fn write_waited<S: Storage>(
    storage: &mut S,
    header: &Header,
    scratch: &mut Scratch,
    Arrival { since, now }: Arrival,
    points: &[Point],
) -> Result<Updated> {
    let (Some(oldest), Some(newest)) = (points.first(), points.last()) else {
        return Ok(Updated::default());
    };
    let archives = header.archives();
    let age = i64::from(now.0) - i64::from(oldest.at.0);
    // Whether no slot is needed twice: by a point, and to make a coarser one.
    let fits = archives.iter().zip(&archives[1..]).all(|(finer, coarser)| {
        let start = coarser.step.floor(oldest.at);
        u64::from(newest.at.0 - start.0) < finer.retention()
    });
    if fits
        && archives
            .first()
            .is_none_or(|finest| age < finest.retention() as i64)
    {
        return write_ordered(storage, header, scratch, now, points);
    }
    let late = points.partition_point(|point| point.at.0.saturating_add(LATE) < since.0);
    let (late, live) = points.split_at(late);
    let mut all = write_ordered(storage, header, scratch, now, late)?;
    // The part of a ring that holds whole steps of the next archive, and no slot twice.
    let part = |(finer, coarser): (&Archive, &Archive)| {
        let step = u64::from(coarser.step.seconds());
        (finer.retention() / step * step).max(step)
    };
    let together = |a: &Point, b: &Point| {
        let mut pairs = archives.iter().zip(&archives[1..]);
        pairs.all(|pair| u64::from(a.at.0) / part(pair) == u64::from(b.at.0) / part(pair))
    };
    for live in live.chunk_by(|a, b| fits || together(a, b)) {
        let updated = write_ordered(storage, header, scratch, since, live)?;
        all.taken += updated.taken;
        all.too_old += updated.too_old;
    }
    Ok(all)
}

fn write_ordered<S: Storage>(
    storage: &mut S,
    header: &Header,
    scratch: &mut Scratch,
    now: Timestamp,
    points: &[Point],
) -> Result<Updated> {
    let age = |point: &Point| i64::from(now.0) - i64::from(point.at.0);
    let mut left = points;
    for (index, archive) in header.archives().iter().enumerate() {
        // Retention beyond the age, not equal to it: a point exactly as old as the archive is
        // long would land in the slot of the present.
        let covered = |point: &Point| age(point) < archive.retention() as i64;
        let older = match left {
            [] => break,
            [oldest, ..] if covered(oldest) => 0,
            _ => left.partition_point(|point| !covered(point)),
        };
        if older < left.len() {
            write_archive(storage, header, scratch, index, &left[older..])?;
        }
        left = &left[..older];
    }
    Ok(Updated {
        taken: points.len() - left.len(),
        too_old: left.len(),
    })
}

/// Writes `points`, oldest first, into the archive numbered `index` and on into the coarser ones.
pub(crate) fn write_archive<S: Storage>(
    storage: &mut S,
    header: &Header,
    scratch: &mut Scratch,
    index: usize,
    points: &[Point],
) -> Result<()> {
    let step = header.archives()[index].step;
    let mut aligned = std::mem::take(&mut scratch.aligned);
    aligned.clear();
    for point in points {
        let at = step.floor(point.at);
        match aligned.last_mut() {
            Some(last) if last.at == at => last.value = point.value,
            _ => aligned.push(Point {
                at,
                value: point.value,
            }),
        }
    }
    let written = write_runs(storage, header, index, &aligned, &mut scratch.bytes)
        .and_then(|()| propagate(storage, header, scratch, index, &aligned));
    scratch.aligned = aligned;
    written
}
