//! All series by number: their names, kinds and what they hold.
//!
//! Names lie one after the other in one buffer, so that a million of them cost their bytes and
//! 24 more each, and two slots of the look-up table. What dropped names leave behind is closed up
//! when it is more than half. A place in the buffer has 32 bits, so a name for which it has no room
//! is refused.

use std::hash::BuildHasher;
use std::io;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use memchr::memmem::Finder;

use crate::index::Index;
use crate::metric::Kind;

/// No series ids yet.
pub(crate) const NO_IDS: u32 = u32::MAX;

/// One series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    /// Counter: the interval's sum. Timer: its sum of weights. Gauge: the value.
    pub(crate) value: f64,
    at: u32,
    /// Timer and average: the slot of its samples. Gauge: flushes left to live. Set: members.
    pub(crate) extra: u32,
    /// Where its series ids start, [`NO_IDS`] if it has none yet.
    pub(crate) ids: u32,
    len: u16,
    kind: u8,
    flags: u8,
}

const TOUCHED: u8 = 1;
const LASTING: u8 = 2;
const LIVE: u8 = 4;
const IDLE_SHIFT: u32 = 3;

impl Row {
    pub(crate) fn kind(&self) -> Kind {
        Kind::from_code(self.kind).unwrap_or(Kind::Counter)
    }

    /// Whether it had samples in the interval.
    pub(crate) fn is_touched(&self) -> bool {
        self.flags & TOUCHED != 0
    }

    pub(crate) fn touch(&mut self) {
        self.flags = LIVE | TOUCHED | (self.flags & LASTING);
    }

    /// Whether it stays even if idle series are deleted.
    pub(crate) fn is_lasting(&self) -> bool {
        self.flags & LASTING != 0
    }

    pub(crate) fn is_live(&self) -> bool {
        self.flags & LIVE != 0
    }

    /// Starts the next interval; returns for how many intervals it has been idle, at most 31.
    pub(crate) fn rest(&mut self) -> u8 {
        let idle = if self.is_touched() {
            0
        } else {
            (self.flags >> IDLE_SHIFT).saturating_add(1).min(31)
        };
        self.flags = (self.flags & (LASTING | LIVE)) | idle << IDLE_SHIFT;
        idle
    }
}

/// The series, numbered.
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) rows: Vec<Row>,
    bytes: Vec<u8>,
    /// Most bytes of all names together: what a place of 32 bits can tell apart.
    most_bytes: usize,
    dropped_bytes: usize,
    free: Vec<u32>,
    by_name: Index,
    hasher: RandomState,
}

impl Names {
    /// Room for names of up to `most_bytes` together.
    ///
    /// # Errors
    /// There is no memory for the look-up table.
    pub(crate) fn new(most_bytes: u32) -> io::Result<Self> {
        Ok(Self {
            rows: Vec::new(),
            bytes: Vec::new(),
            most_bytes: most_bytes as usize,
            dropped_bytes: 0,
            free: Vec::new(),
            by_name: Index::new()?,
            hasher: RandomState::default(),
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() - self.free.len()
    }

    /// The name of `row`, tags included.
    pub(crate) fn name(&self, row: &Row) -> &[u8] {
        let start = row.at as usize;
        &self.bytes[start..start + usize::from(row.len)]
    }

    /// What finds a series by its kind and name.
    pub(crate) fn hash(&self, kind: Kind, name: &[u8]) -> u64 {
        self.hasher.hash_one((kind as u8, name))
    }

    /// Asks for the memory where `hash` is looked for.
    pub(crate) fn prefetch(&self, hash: u64) {
        self.by_name.prefetch(hash);
    }

    pub(crate) fn find(&self, kind: Kind, name: &[u8]) -> Option<u32> {
        self.look_up(self.hash(kind, name), kind, name).ok()
    }

    fn look_up(&self, hash: u64, kind: Kind, name: &[u8]) -> Result<u32, usize> {
        self.by_name.find(hash, |at| {
            let row = &self.rows[at as usize];
            row.kind == kind as u8 && self.name(row) == name
        })
    }

    /// The number of the series, a new one if it was not there; and whether it is new. `hash` is
    /// that of its kind and name. `None` if there is no room for a new one.
    pub(crate) fn intern(&mut self, hash: u64, kind: Kind, name: &[u8]) -> Option<(u32, bool)> {
        let slot = match self.look_up(hash, kind, name) {
            Ok(at) => return Some((at, false)),
            Err(slot) => slot,
        };
        if self.dropped_bytes >= 1 << 16 && self.dropped_bytes * 2 >= self.bytes.len() {
            self.close_up();
        }
        if self.bytes.len() + name.len() > self.most_bytes {
            self.close_up();
        }
        let has_number = !self.free.is_empty() || self.rows.len() < Index::MOST as usize;
        if self.bytes.len() + name.len() > self.most_bytes
            || !has_number
            || !self.by_name.has_room()
        {
            return None;
        }
        let lasting = kind == Kind::Counter && is_lasting(name);
        let row = Row {
            value: 0.0,
            at: self.bytes.len() as u32,
            extra: 0,
            ids: NO_IDS,
            len: name.len().min(usize::from(u16::MAX)) as u16,
            kind: kind as u8,
            flags: LIVE | if lasting { LASTING } else { 0 },
        };
        self.bytes.extend_from_slice(&name[..usize::from(row.len)]);
        let at = match self.free.pop() {
            Some(at) => {
                self.rows[at as usize] = row;
                at
            }
            None => {
                self.rows.push(row);
                (self.rows.len() - 1) as u32
            }
        };
        self.by_name.put(slot, hash, at);
        Some((at, true))
    }

    /// Lets names be refused no longer if there is memory again.
    pub(crate) fn grow(&mut self) {
        self.by_name.grow();
    }

    /// Marks a series as one that stays.
    pub(crate) fn keep(&mut self, at: u32) {
        self.rows[at as usize].flags |= LASTING;
    }

    /// Drops the series numbered `at`.
    pub(crate) fn remove(&mut self, at: u32) {
        let row = self.rows[at as usize];
        if !row.is_live() {
            return;
        }
        let hash = self.hash(row.kind(), self.name(&row));
        self.by_name.remove(hash, at);
        self.dropped_bytes += usize::from(row.len);
        self.rows[at as usize].flags = 0;
        self.free.push(at);
    }

    /// Closes up what dropped names have left behind.
    fn close_up(&mut self) {
        if self.dropped_bytes == 0 {
            return;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.dropped_bytes);
        for row in &mut self.rows {
            if row.is_live() {
                let start = row.at as usize;
                row.at = bytes.len() as u32;
                bytes.extend_from_slice(&self.bytes[start..start + usize::from(row.len)]);
            }
        }
        self.bytes = bytes;
        self.dropped_bytes = 0;
    }
}

/// Whether a counter of this name stays even if idle ones are deleted, as in the reference.
fn is_lasting(name: &[u8]) -> bool {
    static LASTING: LazyLock<[Finder; 3]> = LazyLock::new(|| {
        ["packets_received", "metrics_received", "bad_lines_seen"].map(Finder::new)
    });
    memchr::memchr(b'_', name).is_some() && LASTING.iter().any(|part| part.find(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_and_go_and_keep_their_numbers() {
        let mut names = Names::new(u32::MAX).unwrap();
        let intern = |names: &mut Names, kind, name: &[u8]| {
            names.intern(names.hash(kind, name), kind, name).unwrap()
        };
        let number = |index: u32| format!("some.rather.long.name.{index:08}").into_bytes();
        for index in 0..20_000 {
            assert_eq!(
                intern(&mut names, Kind::Counter, &number(index)),
                (index, true)
            );
        }
        assert_eq!(intern(&mut names, Kind::Counter, &number(7)), (7, false));
        assert_eq!(intern(&mut names, Kind::Gauge, &number(7)), (20_000, true));
        for index in (0..20_000).filter(|index| index % 4 != 0) {
            names.remove(index);
        }
        assert_eq!(names.len(), 5_001);
        for index in 20_000..25_000 {
            intern(&mut names, Kind::Counter, &number(index));
        }
        for index in (0..20_000).step_by(4) {
            assert_eq!(names.find(Kind::Counter, &number(index)), Some(index));
            let row = names.rows[index as usize];
            assert_eq!(names.name(&row), number(index));
        }
        assert_eq!(names.find(Kind::Counter, &number(1)), None);
        assert_eq!(names.len(), 10_001);
    }

    /// Beyond the limit places would wrap, and series have each other's names.
    #[test]
    fn names_beyond_the_buffer_are_refused_until_others_go() {
        let mut names = Names::new(100).unwrap();
        let intern = |names: &mut Names, name: &[u8]| {
            let hash = names.hash(Kind::Counter, name);
            names.intern(hash, Kind::Counter, name)
        };
        let name = |number: usize| format!("name{number:06}").into_bytes();
        for number in 0..10 {
            assert_eq!(
                intern(&mut names, &name(number)),
                Some((number as u32, true))
            );
        }
        assert_eq!(intern(&mut names, &name(10)), None);
        assert_eq!(intern(&mut names, &name(3)), Some((3, false)));
        names.remove(4);
        assert_eq!(intern(&mut names, &name(10)), Some((4, true)));
        assert_eq!(intern(&mut names, &name(11)), None);
        for number in [0, 1, 2, 3, 5, 6, 7, 8, 9, 10] {
            let found = names.find(Kind::Counter, &name(number)).unwrap();
            let row = names.rows[found as usize];
            assert_eq!(names.name(&row), name(number));
        }
    }
}
