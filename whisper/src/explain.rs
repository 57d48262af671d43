//! Why a value is there or not.
//!
//! The answer to "the point was sent, where is it?" is nearly always one of three: another archive
//! answered than the one it is in, its slot was never written or has been overwritten since, or
//! too few of the finer points were known to make a coarser one.

use crate::error::Result;
use crate::fetch::{Range, choose};
use crate::file::File;
use crate::point::{Point, is_absent};
use crate::propagate::reaches;
use crate::units::Timestamp;

/// The answer to a request, and the reasons for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The archive that answers: the finest that reaches back to the start of the request.
    pub archive: usize,
    /// The oldest time that each archive reaches back to.
    pub reach: Vec<i64>,
    /// One entry per value, oldest first.
    pub rows: Vec<Entry>,
}

/// One value of the answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry {
    /// Its time.
    pub at: Timestamp,
    /// What its slot holds.
    pub slot: Slot,
    /// What the next finer archive knows of its time at present.
    pub below: Option<Below>,
}

/// What is found in a slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slot {
    /// The value that was asked for.
    Value(f64),
    /// Nothing was ever written there.
    Empty,
    /// A point of another time, from an earlier round of the ring.
    Other(Timestamp),
    /// The request reaches further than the ring is long.
    Beyond,
}

/// How full the finer points of one coarser point are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Below {
    /// How many are known now.
    pub known: u32,
    /// How many there are.
    pub slots: u32,
    /// Whether the known ones satisfy the factor.
    pub enough: bool,
    /// Whether the finer archive still reaches back to all of them.
    pub in_reach: bool,
}

/// Explains what [`File::fetch`] answers; `None` where it has no answer.
///
/// # Errors
/// As [`File::fetch`].
pub fn explain(
    file: &File,
    now: Timestamp,
    from: Timestamp,
    until: Timestamp,
) -> Result<Option<Explanation>> {
    let header = file.header();
    let Some(range) = choose(header, now, from, until, None)? else {
        return Ok(None);
    };
    let reach: Vec<i64> = header
        .archives()
        .iter()
        .map(|archive| i64::from(now.0) - archive.retention() as i64)
        .collect();
    let archive = header.archives()[range.archive];
    let slots = file.slots(range.archive)?;
    let base = slots.first().map_or(Timestamp(0), |point| point.at);
    let finer = match range.archive {
        0 => None,
        index => Some((index - 1, header.archives()[index - 1])),
    };
    let step = i64::from(archive.step.seconds());
    let mut rows = Vec::new();
    for at in (range.from..range.until).step_by(step as usize) {
        let found = slots[archive.slot(base, at) as usize];
        let slot = match found {
            _ if range.until - at > archive.retention() as i64 => Slot::Beyond,
            Point {
                at: Timestamp(0), ..
            } => Slot::Empty,
            Point { at: found, value } if i64::from(found.0) == at => Slot::Value(value),
            Point { at: other, .. } => Slot::Other(other),
        };
        let below = match finer {
            None => None,
            Some((index, finer)) => {
                let range = Range {
                    archive: index,
                    from: at,
                    until: at + step,
                };
                let values = file.read(range)?.values;
                let known = values.iter().filter(|value| !is_absent(**value)).count();
                let slots = (step / i64::from(finer.step.seconds())) as u32;
                Some(Below {
                    known: known as u32,
                    slots,
                    enough: known > 0 && reaches(known, slots, header.x_files_factor),
                    in_reach: at > reach[index],
                })
            }
        };
        let at = Timestamp(at.clamp(0, i64::from(u32::MAX)) as u32);
        rows.push(Entry { at, slot, below });
    }
    Ok(Some(Explanation {
        archive: range.archive,
        reach,
        rows,
    }))
}
