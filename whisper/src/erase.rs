//! Erasing points.
//!
//! A slot is emptied by giving it the timestamp 0. Slot 0 cannot be: its timestamp is what locates
//! all others, for this process and for writers that remember it. It gets a timestamp one length of the ring
//! older instead, which readers take for absent as well.

use crate::archive::Archive;
use crate::error::Result;
use crate::file::File;
use crate::point::Point;
use crate::propagate::recompute;
use crate::units::Timestamp;

/// What [`erase`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Slots that were emptied, over all archives.
    pub emptied: usize,
    /// Coarser points that lay half in the range and were recomputed from the finer ones left.
    pub recomputed: usize,
}

/// Erases all points of `from`..=`until` from all archives.
///
/// A point of a coarser archive is erased if all its time lies in the range. One that sticks out
/// is recomputed from the finer points that are left, if these satisfy the factor, and stays as it
/// is if not.
///
/// # Errors
/// [`crate::Error::Truncated`]; [`crate::Error::Io`].
pub fn erase(file: &mut File, from: Timestamp, until: Timestamp) -> Result<Erased> {
    let mut erased = Erased::default();
    for index in 0..file.header().archives().len() {
        let archive = file.header().archives()[index];
        let step = i64::from(archive.step.seconds());
        let (first, last) = (i64::from(from.0), i64::from(until.0));
        let mut half = Vec::new();
        for (slot, point) in file.slots(index)?.into_iter().enumerate() {
            let start = i64::from(point.at.0);
            // The finest archive knows no more of a point's time than its start.
            let end = if index == 0 { start } else { start + step - 1 };
            if point.at.0 == 0 || end < first || last < start {
                continue;
            }
            if first <= start && end <= last {
                file.write_slot(index, slot as u32, empty(&archive, slot, point))?;
                erased.emptied += 1;
            } else {
                half.push(point.at);
            }
        }
        half.sort();
        erased.recomputed += file
            .with_bytes(|bytes, header, scratch| recompute(bytes, header, scratch, index, &half))?;
    }
    Ok(erased)
}

fn empty(archive: &Archive, slot: usize, point: Point) -> Point {
    if slot > 0 {
        return Point::new(0, 0.0);
    }
    let older = u64::from(point.at.0).checked_sub(archive.retention());
    // In the first ring length after 1970 there is no older timestamp: a later one is absent as well.
    let other = older
        .filter(|&at| at > 0)
        .unwrap_or(u64::from(point.at.0) + archive.retention());
    Point::new(other as u32, 0.0)
}
