//! An archive: a ring of points, one per step.
//!
//! 1. Slot 0 is the base: a timestamp's slot is its distance from the base in steps, modulo the
//!    ring. A base of 0 means that nothing was ever written.
//! 2. Whatever slot 0 holds later is whole turns away from the first base, so that any interval
//!    that was ever read from it locates slots as well as the present one: a base may be
//!    remembered for as long as the file is the same.
//! 3. A slot holds the timestamp it was written for. A reader that finds another timestamp sees
//!    "absent".
//! 4. Writing changes one slot and moves none: what a racing reader can get wrong is that one
//!    point.

use crate::retention::Retention;
use crate::units::{Step, Timestamp};

/// The bytes of a slot: a timestamp of four, a value of eight, both big-endian.
pub const SLOT_SIZE: usize = 12;

/// Where a ring lies in its file, and what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Archive {
    /// The byte at which slot 0 starts.
    pub offset: u32,
    /// Seconds per point.
    pub step: Step,
    /// How many slots there are.
    pub points: u32,
}

impl Archive {
    /// How far back it reaches, in seconds.
    pub const fn retention(&self) -> u64 {
        self.step.seconds() as u64 * self.points as u64
    }

    /// Its size in bytes.
    pub const fn size(&self) -> u64 {
        self.points as u64 * SLOT_SIZE as u64
    }

    /// The byte after its last slot.
    pub const fn end(&self) -> u64 {
        self.offset as u64 + self.size()
    }

    /// The byte at which `slot` starts.
    pub(crate) const fn byte(&self, slot: u32) -> u64 {
        self.offset as u64 + slot as u64 * SLOT_SIZE as u64
    }

    /// The slot of `interval` (a multiple of the step), given the interval in slot 0.
    pub(crate) fn slot(&self, base: Timestamp, interval: i64) -> u32 {
        let distance = interval - i64::from(base.0);
        let step = i64::from(self.step.seconds());
        // Writers of the present stay within one length of the ring of the base most of the time.
        let turns = distance.div_euclid(step);
        let points = i64::from(self.points);
        (if (0..points).contains(&turns) {
            turns
        } else {
            turns.rem_euclid(points)
        }) as u32
    }
}

impl From<&Archive> for Retention {
    fn from(archive: &Archive) -> Self {
        Self {
            step: archive.step,
            points: archive.points,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_wrap_in_both_directions() {
        let ring = Archive {
            offset: 28,
            step: Step::new(10).unwrap(),
            points: 6,
        };
        let base = Timestamp(1000);
        assert_eq!(ring.slot(base, 1000), 0);
        assert_eq!(ring.slot(base, 1050), 5);
        assert_eq!(ring.slot(base, 1060), 0);
        assert_eq!(ring.slot(base, 990), 5);
        // A base a whole ring away locates the same slots.
        assert_eq!(ring.slot(Timestamp(1060), 1050), 5);
        assert_eq!(ring.byte(5), 28 + 60);
        assert_eq!(ring.end(), 28 + 72);
    }
}
