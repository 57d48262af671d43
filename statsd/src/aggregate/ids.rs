//! The ids that outputs keep for the lines of series.
//!
//! A series has as many ids, one after the other, as it has lines at most. Those of dropped series
//! are given to new ones with as many lines.

use hashbrown::HashMap;

use super::registry::NO_IDS;
use crate::output::UNKNOWN;
use crate::raw::memory::make_room;

/// Ids of lines. See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct LineIds {
    all: Vec<u32>,
    /// Where unused ids start, by how many there are.
    free: HashMap<usize, Vec<u32>>,
    /// Those of dropped series, for the outputs to take back at the next flush.
    pub(super) released: Vec<u32>,
}

impl LineIds {
    /// Ids for `width` lines; returns where they start. [`NO_IDS`] if all numbers are used up, or there is no memory
    /// for more: then the names of the lines are looked up at each flush.
    pub(crate) fn take(&mut self, width: usize) -> u32 {
        if let Some(start) = self.free.get_mut(&width).and_then(Vec::pop) {
            return start;
        }
        let start = self.all.len();
        if start + width > NO_IDS as usize || !make_room(&mut self.all, width) {
            return NO_IDS;
        }
        self.all.resize(start + width, UNKNOWN);
        start as u32
    }

    /// The ids from `start` on; none for [`NO_IDS`].
    #[inline]
    pub(crate) fn of(&mut self, start: u32) -> &mut [u32] {
        self.all.get_mut(start as usize..).unwrap_or_default()
    }

    /// Takes back the `width` ids from `start` on.
    pub(crate) fn give_back(&mut self, start: u32, width: usize) {
        let begin = start as usize;
        if let Some(ids) = self.all.get_mut(begin..begin + width) {
            self.released.extend_from_slice(ids);
            ids.fill(UNKNOWN);
            self.free.entry(width).or_default().push(start);
        }
    }
}
