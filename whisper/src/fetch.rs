//! Reading points: from which archive, and which slots are valid.
//!
//! The range is half open at its *start*: a point at an aligned `from` is not returned, the one at
//! `until` is, as in `whisper.fetch`. One archive answers, the finest that reaches back to `from`.

use crate::archive::{Archive, SLOT_SIZE};
use crate::error::{Error, Result};
use crate::header::Header;
use crate::point::{self, ABSENT};
use crate::storage::{Storage, read_slots};
use crate::units::{Step, Timestamp};

/// A stretch of one archive.
#[derive(Clone, Debug, PartialEq)]
pub struct Fetched {
    /// The time of the first value.
    pub start: Timestamp,
    /// One step after the time of the last value.
    pub end: Timestamp,
    /// Seconds from one value to the next.
    pub step: Step,
    /// One value per step, oldest first, [`ABSENT`] where nothing was written.
    pub values: Vec<f64>,
}

impl Fetched {
    /// The times and values, oldest first, absent ones included.
    pub fn points(&self) -> impl Iterator<Item = (Timestamp, f64)> {
        let step = self.step.seconds();
        let times = (0..).map(move |i: u32| Timestamp(self.start.0.wrapping_add(i * step)));
        times.zip(self.values.iter().copied())
    }
}

/// The steps of one archive that answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) archive: usize,
    pub(crate) from: i64,
    pub(crate) until: i64,
}

impl Range {
    /// The steps of the archive numbered `archive` in (`from`, `until`], at least one.
    pub(crate) fn of(header: &Header, archive: usize, from: i64, until: i64) -> Self {
        let step = i64::from(header.archives()[archive].step.seconds());
        let first = from - from.rem_euclid(step) + step;
        let mut end = until - until.rem_euclid(step) + step;
        if end == first {
            end += step;
        }
        Self {
            archive,
            from: first,
            until: end,
        }
    }
}

/// Picks the archive that answers and the range of its steps; `None` if the request lies in the
/// future or before all that the file can hold.
///
/// `step` names an archive; without, it is the finest that reaches back to `from`.
pub(crate) fn choose(
    header: &Header,
    now: Timestamp,
    from: Timestamp,
    until: Timestamp,
    step: Option<u32>,
) -> Result<Option<Range>> {
    if from > until {
        return Err(Error::Interval {
            from: from.0,
            until: until.0,
        });
    }
    let oldest = i64::from(now.0) - i64::from(header.max_retention());
    if from > now || i64::from(until.0) < oldest {
        return Ok(None);
    }
    let from = i64::from(from.0).max(oldest);
    let until = i64::from(until.0.min(now.0));
    let age = (i64::from(now.0) - from) as u64;
    let archives = header.archives();
    let chosen = match step {
        Some(step) => archives
            .iter()
            .position(|archive| archive.step.seconds() == step)
            .ok_or(Error::Granularity(step))?,
        None => archives
            .iter()
            .position(|archive| archive.retention() >= age)
            .unwrap_or(archives.len() - 1),
    };
    Ok(Some(Range::of(header, chosen, from, until)))
}

/// Reads a range. Steps further apart than the ring is long are absent.
pub(crate) fn read<S: Storage>(
    storage: &S,
    header: &Header,
    range: Range,
    buffer: &mut Vec<u8>,
) -> Result<Fetched> {
    let archive = &header.archives()[range.archive];
    let step = i64::from(archive.step.seconds());
    let n = ((range.until - range.from) / step).max(0) as usize;
    let mut values = Vec::with_capacity(n);
    let base = storage.base(header, range.archive)?;
    if base.0 == 0 {
        values.resize(n, ABSENT);
    } else if n > 0 {
        let in_ring = n.min(archive.points as usize);
        values.resize(n - in_ring, ABSENT);
        let first = range.from + (n - in_ring) as i64 * step;
        buffer.clear();
        buffer.reserve(in_ring * SLOT_SIZE);
        read_slots(
            storage,
            archive,
            archive.slot(base, first),
            in_ring as u32,
            buffer,
        )?;
        decode(buffer, archive, first, &mut values);
    }
    let clamp = |at: i64| Timestamp(at.clamp(0, i64::from(u32::MAX)) as u32);
    Ok(Fetched {
        start: clamp(range.from),
        end: clamp(range.until),
        step: archive.step,
        values,
    })
}

fn decode(bytes: &[u8], archive: &Archive, first: i64, values: &mut Vec<f64>) {
    let step = archive.step.seconds();
    // Times beyond 32 bits cannot be in a slot; wrapping ones cannot either, because a range
    // starts after 0 and no ring is longer than 2^32 seconds.
    let mut expected = first as u32;
    values.extend(point::slots(bytes).map(|point| {
        let value = if point.at.0 == expected {
            point.value
        } else {
            ABSENT
        };
        expected = expected.wrapping_add(step);
        value
    }));
}
