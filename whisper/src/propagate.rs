//! Filling coarser archives from finer ones.
//!
//! Once per batch and archive, not once per point: the steps of the coarser archive that the batch
//! touched are found, the finer slots below neighbouring ones are read in one go, and what comes
//! out is written as runs. The finer archive has been written by then, so what is read is the
//! batch merged with what was there before.

use crate::archive::{Archive, SLOT_SIZE};
use crate::error::Result;
use crate::header::Header;
use crate::point::{self, Point};
use crate::runs::write_runs;
use crate::scratch::{Propagation, Scratch};
use crate::storage::{Storage, read_slots};
use crate::units::Timestamp;

/// Steps of the coarser archive that lie this many finer slots apart are still read together:
/// reading 64 slots more costs less than another system call.
const BRIDGED_SLOTS: u64 = 64;

/// Makes coarser points of `aligned`, just written into the archive numbered `index`, in all
/// coarser archives: each from the next finer one, until one takes nothing.
pub(crate) fn propagate<S: Storage>(
    storage: &mut S,
    header: &Header,
    scratch: &mut Scratch,
    index: usize,
    aligned: &[Point],
) -> Result<()> {
    let archives = header.archives();
    let mut bytes = Vec::new();
    for (lower, higher) in (index + 1..archives.len()).zip(index..) {
        let work = &mut scratch.propagation;
        let step = archives[lower].step;
        work.intervals.clear();
        work.intervals
            .extend(aligned.iter().map(|point| step.floor(point.at)));
        work.intervals.dedup();
        aggregate(storage, header, work, higher, lower)?;
        if work.results.is_empty() {
            break;
        }
        write_runs(storage, header, lower, &work.results, &mut bytes)?;
    }
    Ok(())
}

/// Makes the points of `intervals` in the archive numbered `lower` from the next finer one, as
/// far as that satisfies the factor. Gives back how many it made.
pub(crate) fn recompute<S: Storage>(
    storage: &mut S,
    header: &Header,
    scratch: &mut Scratch,
    lower: usize,
    intervals: &[Timestamp],
) -> Result<usize> {
    let Some(higher) = lower.checked_sub(1) else {
        return Ok(0);
    };
    let work = &mut scratch.propagation;
    work.intervals.clear();
    work.intervals.extend_from_slice(intervals);
    aggregate(storage, header, work, higher, lower)?;
    write_runs(storage, header, lower, &work.results, &mut Vec::new())?;
    Ok(work.results.len())
}

/// Fills `work.results` with the points of `lower` that `work.intervals` come to.
fn aggregate<S: Storage>(
    storage: &S,
    header: &Header,
    work: &mut Propagation,
    higher: usize,
    lower: usize,
) -> Result<()> {
    let (finer, step) = (
        &header.archives()[higher],
        header.archives()[lower].step.seconds(),
    );
    let base = storage.base(header, higher)?;
    let bridge = u64::from(step) + BRIDGED_SLOTS * u64::from(finer.step.seconds());
    let mut left = &work.intervals[..];
    work.results.clear();
    while let Some(&first) = left.first() {
        // What is read at once must fit the ring, or it would be read twice.
        let fits = |at: Timestamp| u64::from(at.0 - first.0) + u64::from(step) <= finer.retention();
        let apart = |pair: &[Timestamp]| u64::from(pair[1].0 - pair[0].0) > bridge;
        let n = 1 + left
            .windows(2)
            .take_while(|pair| !apart(pair) && fits(pair[1]))
            .count();
        let (together, rest) = left.split_at(n);
        left = rest;

        let span = u64::from(together[n - 1].0 - first.0) + u64::from(step);
        // Less than a ring of slots, or those of one step if that is longer than the ring.
        let n_slots = (span / u64::from(finer.step.seconds())).min(u64::from(finer.points)) as u32;
        let skipped = (span / u64::from(finer.step.seconds())) as u32 - n_slots;
        let start = i64::from(first.0) + i64::from(skipped) * i64::from(finer.step.seconds());
        work.read.clear();
        read_slots(
            storage,
            finer,
            finer.slot(base, start),
            n_slots,
            &mut work.read,
        )?;
        for &interval in together {
            let bytes = step_bytes(&work.read, finer, start, interval, step);
            known_values(
                bytes,
                finer,
                start.max(i64::from(interval.0)),
                &mut work.known,
            );
            let slots = step / finer.step.seconds();
            if reaches(work.known.len(), slots, header.x_files_factor)
                && let Some(value) = header.aggregation.apply(&work.known, slots)
            {
                work.results.push(Point {
                    at: interval,
                    value,
                });
            }
        }
    }
    Ok(())
}

/// The part of `read`, which starts with the slot of `start`, that belongs to the step of
/// `interval`.
fn step_bytes<'a>(
    read: &'a [u8],
    finer: &Archive,
    start: i64,
    interval: Timestamp,
    step: u32,
) -> &'a [u8] {
    let slot = |at: i64| (at - start).max(0) as usize / finer.step.seconds() as usize * SLOT_SIZE;
    let from = i64::from(interval.0);
    &read[slot(from)..slot(from + i64::from(step)).min(read.len())]
}

/// The values of those slots that hold the timestamps they should, the first of which is `at`.
fn known_values(bytes: &[u8], finer: &Archive, mut at: i64, known: &mut Vec<f64>) {
    known.clear();
    for point in point::slots(bytes) {
        if i64::from(point.at.0) == at {
            known.push(point.value);
        }
        at += i64::from(finer.step.seconds());
    }
}

/// Whether `known` of `slots` satisfy the factor.
///
/// Compared as 32-bit floats, in which the factor is stored: 1 of 10 reaches a factor of 0.1. As
/// doubles it would not, because 0.1 is stored as 0.10000000149.
pub(crate) fn reaches(known: usize, slots: u32, x_files_factor: f32) -> bool {
    known as f32 / slots as f32 >= x_files_factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_ten_reaches_a_tenth() {
        assert!(reaches(1, 10, 0.1));
        assert!(reaches(1, 5, 0.2));
        assert!(reaches(7, 10, 0.7));
        assert!(!reaches(6, 10, 0.7));
        assert!(reaches(1, 60, 0.0));
    }
}
