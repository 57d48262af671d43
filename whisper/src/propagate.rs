//! Filling coarser archives from finer ones.
//!
//! Once per batch and archive, not once per point: the steps of the coarser archive that the batch
//! touched are found, the finer slots below neighbouring ones are read in one go, and what comes
//! out is written as runs. The finer archive has been written by then, so what is read is the
//! batch merged with what was there before. A coarser point that the file has already is not written.

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
/// How far, of itself, an average of equal values may be from them.
const ROUNDING: f64 = 1e-12;

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
        if !is_there(storage, header, work, lower)? {
            write_runs(storage, header, lower, &work.results, &mut bytes)?;
        }
    }
    Ok(())
}

/// Whether the archive numbered `lower` has the only point of `work.results` already: that is not written
/// again, because it would make its page dirty for nothing. Looked up only where it is likely, which is while
/// the finer points that it is made of are all the same.
fn is_there<S: Storage>(
    storage: &S,
    header: &Header,
    work: &Propagation,
    lower: usize,
) -> Result<bool> {
    let ([point], [first, others @ ..]) = (&work.results[..], &work.known[..]) else {
        return Ok(false);
    };
    // An average of the same values may be off by a rounding.
    let is_same = (point.value - first).abs() <= first.abs() * ROUNDING;
    if others.is_empty() || !is_same || others.iter().any(|other| other != first) {
        return Ok(false);
    }
    let archive = &header.archives()[lower];
    let base = storage.base(header, lower)?;
    if base.0 == 0 {
        return Ok(false);
    }
    let slot = archive.slot(base, i64::from(point.at.0));
    storage.holds(archive.byte(slot), &point.to_slot())
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
    use crate::aggregation::Aggregation;
    use crate::retention::Retention;
    use crate::update::{Arrival, update_many};
    use proptest::prelude::*;

    /// A file in memory that counts writes by archive, and may say that it does not know what it holds.
    struct Counted<'a> {
        header: &'a Header,
        bytes: Vec<u8>,
        knows: bool,
        writes: Vec<usize>,
    }

    impl<'a> Counted<'a> {
        fn new(header: &'a Header, knows: bool) -> Self {
            Self {
                bytes: vec![0; header.file_size() as usize],
                writes: vec![0; header.archives().len()],
                header,
                knows,
            }
        }

        /// Writes a batch. How often it wrote to each archive.
        fn update(&mut self, points: &[Point]) -> Vec<usize> {
            self.writes.fill(0);
            let header = self.header;
            let now = points.iter().map(|point| point.at).max().unwrap();
            update_many(
                self,
                header,
                &mut Scratch::default(),
                Arrival::from(now),
                points,
            )
            .unwrap();
            self.writes.clone()
        }
    }

    impl Storage for Counted<'_> {
        fn read(&self, offset: u64, len: usize, into: &mut Vec<u8>) -> Result<()> {
            into.extend_from_slice(&self.bytes[offset as usize..][..len]);
            Ok(())
        }

        fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
            let archives = self.header.archives();
            self.writes[archives.partition_point(|archive| archive.end() <= offset)] += 1;
            self.bytes[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn holds(&self, offset: u64, slot: &[u8; SLOT_SIZE]) -> Result<bool> {
            Ok(self.knows && self.bytes[offset as usize..].starts_with(slot))
        }

        fn base(&self, header: &Header, index: usize) -> Result<Timestamp> {
            let word = &self.bytes[header.archives()[index].offset as usize..][..4];
            Ok(Timestamp(u32::from_be_bytes(word.try_into().unwrap())))
        }

        fn based(&mut self, _: usize, _: Timestamp) {}
    }

    fn header(aggregation: Aggregation) -> Header {
        let retentions = [(1, 60), (10, 30), (60, 30)];
        let retentions = retentions.map(|(step, points)| Retention::new(step, points).unwrap());
        Header::new(&retentions, 0.0, aggregation).unwrap()
    }

    const START: u32 = 1_700_000_040;

    fn points(seconds: std::ops::Range<u32>, value: f64) -> Vec<Point> {
        seconds.map(|n| Point::new(START + n, value)).collect()
    }

    #[test]
    fn a_coarser_point_that_is_there_is_not_written_again() {
        for (aggregation, value, last) in [
            (Aggregation::Average, 5.0, 0),
            (Aggregation::Max, 5.0, 0),
            (Aggregation::Sum, 0.0, 0),
            // That changes with each of its points.
            (Aggregation::Sum, 5.0, 1),
        ] {
            let header = header(aggregation);
            let mut file = Counted::new(&header, true);
            assert_eq!(file.update(&points(0..20, value)), [1, 1, 1]);
            assert_eq!(file.update(&points(20..40, value)), [1, 1, last]);
            // Another step of the coarsest archive, and another value in it.
            assert_eq!(file.update(&points(60..80, value)), [1, 1, 1]);
            assert_eq!(file.update(&points(80..100, value + 1.0)), [1, 1, 1]);
        }
    }

    proptest! {
        #[test]
        fn what_is_not_written_again_changes_no_byte(
            aggregation in prop::sample::select(&Aggregation::ALL[..]),
            batches in prop::collection::vec((1_u32..40, 1_u32..30, 0_usize..12), 1..20),
        ) {
            let header = header(aggregation);
            let (mut knowing, mut writing) = (Counted::new(&header, true), Counted::new(&header, false));
            let mut second = 0;
            for (pause, length, value) in batches {
                second += pause;
                // Mostly the same value, and one whose average is rounded.
                let value = [0.1, -0.0, 0.0, 7.0].get(value).copied().unwrap_or(0.1);
                let batch = points(second..second + length, value);
                knowing.update(&batch);
                writing.update(&batch);
                prop_assert_eq!(&knowing.bytes, &writing.bytes);
            }
        }
    }

    #[test]
    fn one_of_ten_reaches_a_tenth() {
        assert!(reaches(1, 10, 0.1));
        assert!(reaches(1, 5, 0.2));
        assert!(reaches(7, 10, 0.7));
        assert!(!reaches(6, 10, 0.7));
        assert!(reaches(1, 60, 0.0));
    }
}
