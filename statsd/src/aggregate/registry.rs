//! The registry: all series by number, with their names and what they have.
//!
//! Names are one after the other in one buffer, so that a million of them cost their bytes and 32
//! more each, and two slots of the look-up table. What dropped names leave behind is compacted away
//! when it is more than half. A place in the buffer has 32 bits, so a name for which it has no room
//! is refused.

use std::hash::BuildHasher;
use std::io;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use memchr::memmem::Finder;

use super::samples::NO_SLOT;
use crate::index::Index;
use crate::kind::Kind;

/// No ids of lines yet.
pub(crate) const NO_IDS: u32 = u32::MAX;

/// One series: a name of one type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series {
    /// A counter's sum, a gauge's value, a timer's sum of weights.
    pub(crate) value: f64,
    /// What its type keeps beside the value.
    pub(crate) state: State,
    /// Where the ids of its lines start, [`NO_IDS`] if it has none yet.
    pub(crate) ids: u32,
    name: u32,
    name_len: u16,
    kind: Kind,
    flags: u8,
}

/// What a series has beside its value, by the needs of its type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum State {
    Nothing,
    /// Its samples are those of this slot.
    Samples(u32),
    /// Flushes that it lives on without samples.
    FlushesLeft(u32),
    /// Distinct members in the interval.
    Members(u32),
}

const TOUCHED: u8 = 1;
const LASTING: u8 = 2;
const LIVE: u8 = 4;
const IDLE_SHIFT: u32 = 3;

impl Series {
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// The slot of its samples, [`NO_SLOT`] if it has none.
    pub(crate) fn slot(&self) -> u32 {
        match self.state {
            State::Samples(slot) => slot,
            _ => NO_SLOT,
        }
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
    pub(crate) fn start_interval(&mut self) -> u8 {
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
pub(crate) struct Registry {
    all: Vec<Series>,
    bytes: Vec<u8>,
    /// Most bytes of all names together: what a place of 32 bits can tell apart.
    most_bytes: usize,
    dropped_bytes: usize,
    free: Vec<u32>,
    by_name: Index,
    hasher: RandomState,
}

impl Registry {
    /// Room for names of up to `most_bytes` together.
    ///
    /// # Errors
    /// There is no memory for the look-up table.
    pub(crate) fn new(most_bytes: u32) -> io::Result<Self> {
        Ok(Self {
            all: Vec::new(),
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
        self.all.len() - self.free.len()
    }

    /// The highest number that a series has, and one.
    pub(crate) fn end(&self) -> u32 {
        self.all.len() as u32
    }

    /// A series by its number.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> &Series {
        &self.all[number as usize]
    }

    /// A series by its number.
    #[inline]
    pub(crate) fn get_mut(&mut self, number: u32) -> &mut Series {
        &mut self.all[number as usize]
    }

    /// The series that are not dropped, in the order of their numbers.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, &Series)> {
        let numbered = (0_u32..).zip(&self.all);
        numbered.filter(|(_, series)| series.is_live())
    }

    /// The name of `series`, tags included.
    pub(crate) fn name(&self, series: &Series) -> &[u8] {
        let start = series.name as usize;
        &self.bytes[start..start + usize::from(series.name_len)]
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
        self.by_name.find(hash, |number| {
            let series = self.get(number);
            series.kind == kind && self.name(series) == name
        })
    }

    /// The number of the series, a new one if it was not there; and whether it is new. `hash` is
    /// that of its kind and name. `None` if there is no room for a new one.
    pub(crate) fn intern(
        &mut self,
        hash: u64,
        kind: Kind,
        name: &[u8],
        state: impl FnOnce() -> State,
    ) -> Option<(u32, bool)> {
        let slot = match self.look_up(hash, kind, name) {
            Ok(number) => return Some((number, false)),
            Err(slot) => slot,
        };
        // Compacting costs a pass over all names, so it waits until half of the bytes are unused.
        if self.dropped_bytes >= 1 << 16 && self.dropped_bytes * 2 >= self.bytes.len() {
            self.compact();
        }
        if self.bytes.len() + name.len() > self.most_bytes {
            self.compact();
        }
        let has_number = !self.free.is_empty() || self.all.len() < Index::MOST as usize;
        if self.bytes.len() + name.len() > self.most_bytes
            || !has_number
            || !self.by_name.has_room()
        {
            return None;
        }
        // A free number is used again; the receivers' maps no longer lead to it.
        let lasting = kind == Kind::Counter && is_lasting(name);
        let series = Series {
            value: 0.0,
            state: state(),
            ids: NO_IDS,
            name: self.bytes.len() as u32,
            name_len: name.len().min(usize::from(u16::MAX)) as u16,
            kind,
            flags: LIVE | if lasting { LASTING } else { 0 },
        };
        self.bytes
            .extend_from_slice(&name[..usize::from(series.name_len)]);
        let number = match self.free.pop() {
            Some(number) => {
                self.all[number as usize] = series;
                number
            }
            None => {
                self.all.push(series);
                (self.all.len() - 1) as u32
            }
        };
        self.by_name.put(slot, hash, number);
        Some((number, true))
    }

    /// Lets names be refused no longer if there is memory again.
    pub(crate) fn grow(&mut self) {
        self.by_name.grow();
    }

    /// Keeps a series even if idle ones are deleted.
    pub(crate) fn keep(&mut self, number: u32) {
        self.all[number as usize].flags |= LASTING;
    }

    /// Drops a series.
    pub(crate) fn remove(&mut self, number: u32) {
        let series = *self.get(number);
        if !series.is_live() {
            return;
        }
        let hash = self.hash(series.kind, self.name(&series));
        self.by_name.remove(hash, number);
        self.dropped_bytes += usize::from(series.name_len);
        self.all[number as usize].flags = 0;
        self.free.push(number);
    }

    /// Moves names together, over what dropped ones have left behind.
    fn compact(&mut self) {
        if self.dropped_bytes == 0 {
            return;
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.dropped_bytes);
        for series in &mut self.all {
            if series.is_live() {
                let start = series.name as usize;
                series.name = bytes.len() as u32;
                bytes.extend_from_slice(&self.bytes[start..start + usize::from(series.name_len)]);
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
        let mut names = Registry::new(u32::MAX).unwrap();
        let intern = |names: &mut Registry, kind, name: &[u8]| {
            names
                .intern(names.hash(kind, name), kind, name, || State::Nothing)
                .unwrap()
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
            assert_eq!(names.name(names.get(index)), number(index));
        }
        assert_eq!(names.find(Kind::Counter, &number(1)), None);
        assert_eq!(names.len(), 10_001);
    }

    /// Beyond the limit places would wrap, and series have each other's names.
    #[test]
    fn names_beyond_the_buffer_are_refused_until_others_go() {
        let mut names = Registry::new(100).unwrap();
        let intern = |names: &mut Registry, name: &[u8]| {
            let hash = names.hash(Kind::Counter, name);
            names.intern(hash, Kind::Counter, name, || State::Nothing)
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
            assert_eq!(names.name(names.get(found)), name(number));
        }
    }
}
