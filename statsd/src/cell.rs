//! What a receiver has of a name: its entry, and the lists beside the entries.
//!
//! ```text
//! entry  [ two cells | link len kind flags | name, first 40 bytes ]   one cache line
//! ```
//!
//! An entry has a cell for intervals of either parity. A type changes the cell of the running
//! interval through [`Cell`]; the other one waits to be swept.

use hashbrown::HashSet;

use crate::kind::Kind;

/// Written to in the interval of that parity: bit 0 and 1.
pub(crate) const TOUCHED: [u8; 2] = [1, 2];
/// Set (not only added to) in the interval of that parity.
pub(crate) const ABSOLUTE: [u8; 2] = [4, 8];
/// Another way to write a name: it links to the entry of the canonical name.
pub(crate) const ALIAS: u8 = 16;
/// Not known to the aggregator any more; revived by its next sample.
pub(crate) const FORGOTTEN: u8 = 32;

/// What a table has of one name of one type, beside the name.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Entry {
    /// By the parity of the interval. The first one of an alias has its age.
    pub(crate) cells: [f64; 2],
    /// The canonical entry of an alias.
    pub(crate) link: u32,
    pub(crate) len: u16,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
}

impl Entry {
    /// What unused memory holds: all zeros.
    pub(crate) const UNUSED: Self = Self {
        cells: [0.0; 2],
        link: 0,
        len: 0,
        kind: Kind::Counter,
        flags: 0,
    };
}

/// What one name has in an interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Value {
    pub(crate) entry: u32,
    /// The value replaces what the aggregator has; otherwise it is added.
    pub(crate) is_absolute: bool,
    /// A counter's sum, a gauge's value or difference, a timer's sum of weights.
    pub(crate) value: f64,
}

/// Single values in the order in which they arrived.
#[derive(Clone, Debug, Default)]
pub(crate) struct SampleList {
    pub(crate) entries: Vec<u32>,
    pub(crate) values: Vec<f64>,
}

impl SampleList {
    #[inline(always)]
    fn push(&mut self, entry: u32, value: f64) {
        self.entries.push(entry);
        self.values.push(value);
    }
}

/// What a receiver keeps of the members of sets in one interval.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MemberLimits {
    /// Most distinct members.
    pub(crate) count: usize,
    /// Most bytes of all of them together.
    pub(crate) bytes: usize,
    /// Bytes of the longest one.
    pub(crate) longest: usize,
}

/// Distinct members of sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemberList {
    seen: HashSet<(u32, Box<[u8]>)>,
    /// Of the members, their texts alone.
    bytes: usize,
    /// Members beyond the limits.
    pub(crate) refused: u64,
}

impl MemberList {
    pub(crate) fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    pub(crate) fn into_iter(self) -> impl Iterator<Item = (u32, Box<[u8]>)> {
        self.seen.into_iter()
    }

    fn insert(&mut self, entry: u32, member: &[u8], limits: &MemberLimits) {
        if member.len() > limits.longest {
            self.refused += 1;
            return;
        }
        let bytes = self.bytes + member.len();
        let key = (entry, member.into());
        if self.seen.len() < limits.count && bytes <= limits.bytes {
            if self.seen.insert(key) {
                self.bytes = bytes;
            }
        } else if !self.seen.contains(&key) {
            self.refused += 1;
        }
    }
}

/// How often entries had samples.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hits(Vec<u32>);

impl Hits {
    #[cold]
    pub(crate) fn count(&mut self, entry: u32) {
        let at = entry as usize;
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        self.0[at] = self.0[at].saturating_add(1);
    }

    /// The counts that are not 0, by entry; all are 0 afterwards.
    pub(crate) fn take(&mut self) -> Vec<(u32, u32)> {
        let counts = (0_u32..).zip(self.0.drain(..));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

/// How cells that carry on are kept over intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carry {
    /// This is the only table: its cells have the running value.
    Running,
    /// There are others: each reports what changed in the interval.
    Differences,
}

impl Carry {
    /// How cells are kept with that many receivers.
    pub(crate) fn for_receivers(receivers: usize) -> Self {
        if receivers == 1 {
            Self::Running
        } else {
            Self::Differences
        }
    }
}

/// The cell that takes a sample, and the lists beside it.
pub(crate) struct Cell<'a> {
    pub(crate) entry: &'a mut Entry,
    /// The entry's number.
    pub(crate) number: u32,
    /// The parity of the running interval.
    pub(crate) parity: usize,
    pub(crate) carry: Carry,
    pub(crate) samples: &'a mut SampleList,
    pub(crate) members: &'a mut MemberList,
    pub(crate) member_limits: &'a MemberLimits,
    /// The sample's text, if its type takes text.
    pub(crate) text: &'a [u8],
}

impl Cell<'_> {
    /// Adds `amount` to the interval's number.
    #[inline(always)]
    pub(crate) fn add(&mut self, amount: f64) {
        self.entry.cells[self.parity & 1] += amount;
    }

    /// Replaces the interval's number, and says so in the report.
    #[inline(always)]
    pub(crate) fn set(&mut self, value: f64) {
        self.entry.cells[self.parity & 1] = value;
        self.entry.flags |= ABSOLUTE[self.parity & 1];
    }

    /// Starts the interval with the number of the one before, which may not have been swept yet.
    /// Only the first sample of the interval finds anything to do.
    #[inline(always)]
    pub(crate) fn carry_on(&mut self) {
        let parity = self.parity & 1;
        let touched = self.entry.flags & (TOUCHED[0] | TOUCHED[1]);
        if self.carry == Carry::Running && touched == TOUCHED[1 - parity] {
            self.entry.cells[parity] = self.entry.cells[1 - parity];
        }
    }

    /// Keeps a single value for the aggregator.
    #[inline(always)]
    pub(crate) fn keep(&mut self, value: f64) {
        self.samples.push(self.number, value);
    }

    /// Notes that the interval has a sample.
    #[inline(always)]
    pub(crate) fn touch(&mut self) {
        self.entry.flags |= TOUCHED[self.parity & 1];
    }

    /// Keeps the sample's text, once.
    pub(crate) fn keep_member(&mut self) {
        self.members
            .insert(self.number, self.text, self.member_limits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_beyond_the_limits_are_refused() {
        let limits = MemberLimits {
            count: 4,
            bytes: 10,
            longest: 5,
        };
        let kept = |members: &[&str]| {
            let mut list = MemberList::default();
            for member in members {
                list.insert(0, member.as_bytes(), &limits);
            }
            (list.seen.len(), list.refused)
        };
        assert_eq!(kept(&["a", "b", "a", "c", "d", "e", "a", "b"]), (4, 1));
        // Known ones take no more room, and shorter ones may still fit.
        assert_eq!(kept(&["aaaa", "bbbb", "cccc", "bbbb", "dd", "e"]), (3, 2));
        assert_eq!(kept(&["aaaaa", "aaaaaa", "aaaaaaaaaaaaa", "b"]), (2, 2));
    }
}
