//! The registry: all series by number, with their names and what they have.
//!
//! 1. A name that a receiver has in its table stays there: the series says in which entry
//!    ([`crate::raw::entries`]). Longer names, and those of series that no receiver has announced, are one after the
//!    other in one buffer. What dropped names leave behind there is compacted away when it is more than
//!    half. A place in the buffer has 32 bits, so a name for which it has no room is refused, as is one for which there
//!    is no memory.
//! 2. A series is found by its name through a look-up table. With a single receiver, which announces each name
//!    once, the series that it announces are not in there: a new name is compared with the others alone, and the rare
//!    search for any name ([`Registry::search`]) is a pass over all series.
//! 3. So a million names cost 20 bytes each beside the receiver's table; with several receivers two slots of the
//!    look-up table more.

use std::hash::BuildHasher;
use std::io;
use std::ops::Deref;
use std::sync::LazyLock;

use foldhash::fast::RandomState;
use memchr::memmem::Finder;

use super::samples::NO_SLOT;
use crate::index::Index;
use crate::kind::Kind;
use crate::raw::entries::{NameChunk, Names, WORDS};
use crate::raw::memory::make_room;
use crate::token::INLINE;

/// Most series, so that their slots fit into a [`PackedState`].
const MOST_SERIES: usize = 1 << 30;
/// No ids of lines yet.
pub(crate) const NO_IDS: u32 = u32::MAX;

/// One series: a name of one type.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub(crate) struct Series {
    /// A counter's sum, a gauge's value, a timer's sum of weights.
    pub(crate) value: f64,
    state: PackedState,
    /// Its place in the buffer, or the entry that has it.
    name: u32,
    /// Of a name in an entry, the upper byte is the number of the receiver.
    name_len: u16,
    kind: Kind,
    flags: u8,
}

const _: () = assert!(size_of::<Series>() == 20);

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

/// A [`State`] in 32 bits: the variant in the upper two. Numbers that do not fit are as large as can be.
#[derive(Clone, Copy, Debug)]
struct PackedState(u32);

const STATE_BITS: u32 = 30;
const LARGEST_STATE: u32 = (1 << STATE_BITS) - 1;

impl From<State> for PackedState {
    fn from(state: State) -> Self {
        let (variant, number) = match state {
            State::Nothing => (0, 0),
            State::Samples(slot) => (1, slot),
            State::FlushesLeft(left) => (2, left),
            State::Members(count) => (3, count),
        };
        Self(variant << STATE_BITS | number.min(LARGEST_STATE))
    }
}

impl From<PackedState> for State {
    fn from(packed: PackedState) -> Self {
        let number = packed.0 & LARGEST_STATE;
        match packed.0 >> STATE_BITS {
            0 => Self::Nothing,
            1 if number == LARGEST_STATE => Self::Samples(NO_SLOT),
            1 => Self::Samples(number),
            2 => Self::FlushesLeft(number),
            _ => Self::Members(number),
        }
    }
}

const TOUCHED: u8 = 1;
const LASTING: u8 = 2;
const LIVE: u8 = 4;
const IDLE_SHIFT: u32 = 3;
const MOST_IDLE: u8 = 15;
/// The name is in an entry of a receiver.
const SHARED: u8 = 128;
/// Flags that no interval changes.
const KEPT: u8 = LASTING | LIVE | SHARED;

impl Series {
    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// What its type keeps beside the value.
    #[inline]
    pub(crate) fn state(&self) -> State {
        self.state.into()
    }

    #[inline]
    pub(crate) fn set_state(&mut self, state: State) {
        self.state = state.into();
    }

    /// The slot of its samples, [`NO_SLOT`] if it has none.
    #[inline]
    pub(crate) fn slot(&self) -> u32 {
        match self.state() {
            State::Samples(slot) => slot,
            _ => NO_SLOT,
        }
    }

    /// Whether it had samples in the interval.
    pub(crate) fn is_touched(&self) -> bool {
        self.flags & TOUCHED != 0
    }

    pub(crate) fn touch(&mut self) {
        self.flags = LIVE | TOUCHED | (self.flags & KEPT);
    }

    /// Whether it stays even if idle series are deleted.
    pub(crate) fn is_lasting(&self) -> bool {
        self.flags & LASTING != 0
    }

    pub(crate) fn is_live(&self) -> bool {
        self.flags & LIVE != 0
    }

    /// Starts the next interval; returns for how many intervals it has been idle, at most [`MOST_IDLE`].
    pub(crate) fn start_interval(&mut self) -> u8 {
        let idle = if self.is_touched() {
            0
        } else {
            (self.flags >> IDLE_SHIFT & MOST_IDLE)
                .saturating_add(1)
                .min(MOST_IDLE)
        };
        self.flags = (self.flags & KEPT) | idle << IDLE_SHIFT;
        idle
    }
}

/// The name of a series, tags included.
pub(crate) enum Name<'a> {
    Kept(&'a [u8]),
    Shared([[u8; 8]; WORDS], u8),
}

impl Deref for Name<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Kept(name) => name,
            Self::Shared(words, len) => &words.as_flattened()[..usize::from(*len)],
        }
    }
}

/// A name that is read when it is needed: most lines need none.
#[derive(Clone, Copy)]
pub(crate) struct NameOf<'a> {
    pub(crate) registry: &'a Registry,
    pub(crate) series: &'a Series,
}

impl<'a> NameOf<'a> {
    pub(crate) fn get(&self) -> Name<'a> {
        self.registry.name(self.series)
    }
}

/// Who announces a name: a receiver, and the entry that has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announced {
    pub(crate) receiver: usize,
    pub(crate) entry: u32,
}

/// The series, numbered.
#[derive(Debug)]
pub(crate) struct Registry {
    all: Vec<Series>,
    /// Where the ids of the lines of series start, as far as they have any: only the store of this process uses
    /// them.
    ids: Vec<u32>,
    /// By receiver.
    names: Vec<Names>,
    bytes: Vec<u8>,
    /// Most bytes of all names together: what a place of 32 bits can tell apart.
    most_bytes: usize,
    dropped_bytes: usize,
    free: Vec<u32>,
    by_name: Index,
    /// Series that are not in there.
    unindexed: usize,
    hasher: RandomState,
}

impl Registry {
    /// Room for names of up to `most_bytes` together, beside those in the entries of `receivers`.
    ///
    /// # Errors
    /// There is no memory for the look-up table.
    pub(crate) fn new(most_bytes: u32, receivers: usize) -> io::Result<Self> {
        Ok(Self {
            all: Vec::new(),
            ids: Vec::new(),
            names: vec![Names::default(); receivers],
            bytes: Vec::new(),
            most_bytes: most_bytes as usize,
            dropped_bytes: 0,
            free: Vec::new(),
            by_name: Index::new()?,
            unindexed: 0,
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

    /// Where the ids of the lines of a series start, [`NO_IDS`] if it has none yet.
    #[inline]
    pub(crate) fn ids(&self, number: u32) -> u32 {
        self.ids.get(number as usize).copied().unwrap_or(NO_IDS)
    }

    /// Notes where they start; returns false if there is no memory for that.
    pub(crate) fn set_ids(&mut self, number: u32, ids: u32) -> bool {
        if self.ids.len() <= number as usize {
            let more = self.all.len() - self.ids.len();
            if !make_room(&mut self.ids, more) {
                return false;
            }
            self.ids.resize(self.all.len(), NO_IDS);
        }
        self.ids[number as usize] = ids;
        true
    }

    /// The series that are not dropped, in the order of their numbers.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, &Series)> {
        let numbered = (0_u32..).zip(&self.all);
        numbered.filter(|(_, series)| series.is_live())
    }

    /// Further entries of `receiver` have their names there.
    pub(crate) fn share(&mut self, receiver: usize, chunk: NameChunk) {
        if let Some(names) = self.names.get_mut(receiver) {
            names.push(chunk);
        }
    }

    /// The name of `series`, tags included.
    #[inline]
    pub(crate) fn name(&self, series: &Series) -> Name<'_> {
        if series.flags & SHARED == 0 {
            let start = series.name as usize;
            return Name::Kept(&self.bytes[start..start + usize::from(series.name_len)]);
        }
        let [len, receiver] = series.name_len.to_le_bytes();
        let names = self.names.get(usize::from(receiver));
        let words = names.and_then(|names| names.get(series.name));
        Name::Shared(words.unwrap_or_default().map(u64::to_le_bytes), len)
    }

    /// How the place and length of a name in an entry are kept; `None` if it is not in there whole.
    fn shared(&self, announced: Option<Announced>, name: &[u8]) -> Option<(u32, u16)> {
        let Announced { receiver, entry } = announced?;
        let fits = name.len() <= INLINE && receiver < self.names.len();
        let receiver = u8::try_from(receiver).ok().filter(|_| fits)?;
        self.names[usize::from(receiver)].get(entry)?;
        Some((entry, u16::from_le_bytes([name.len() as u8, receiver])))
    }

    /// What finds a series by its kind and name.
    pub(crate) fn hash(&self, kind: Kind, name: &[u8]) -> u64 {
        self.hasher.hash_one((kind as u8, name))
    }

    /// Asks for the memory where `hash` is looked for.
    pub(crate) fn prefetch(&self, hash: u64) {
        self.by_name.prefetch(hash);
    }

    /// The number of a series. With a single receiver a pass over all series.
    #[cfg(test)]
    pub(crate) fn find(&self, kind: Kind, name: &[u8]) -> Option<u32> {
        let found = self.look_up(self.hash(kind, name), kind, name).ok();
        found.or_else(|| self.search(kind, name))
    }

    /// The number of a series that is not in the look-up table: a pass over all.
    fn search(&self, kind: Kind, name: &[u8]) -> Option<u32> {
        if self.unindexed == 0 {
            return None;
        }
        let is = |series: &Series| series.kind == kind && *self.name(series) == *name;
        self.live()
            .find(|(_, series)| is(series))
            .map(|(number, _)| number)
    }

    fn look_up(&self, hash: u64, kind: Kind, name: &[u8]) -> Result<u32, usize> {
        self.by_name.find(hash, |number| {
            let series = self.get(number);
            series.kind == kind && *self.name(series) == *name
        })
    }

    /// The number of the series, a new one if it was not there; and whether it is new. `hash` is
    /// that of its kind and name. `None` if there is no room for a new one.
    pub(crate) fn intern(
        &mut self,
        hash: u64,
        kind: Kind,
        name: &[u8],
        announced: Option<Announced>,
        state: impl FnOnce() -> State,
    ) -> Option<(u32, bool)> {
        let slot = match self.look_up(hash, kind, name) {
            Ok(number) => return Some((number, false)),
            Err(slot) => slot,
        };
        // A single receiver announces each name once: nothing but this table can have it already.
        let is_indexed = self.names.len() != 1 || announced.is_none();
        if announced.is_none()
            && let Some(number) = self.search(kind, name)
        {
            return Some((number, false));
        }
        let has_number =
            !self.free.is_empty() || self.all.len() < MOST_SERIES && make_room(&mut self.all, 1);
        if !has_number || is_indexed && !self.by_name.has_room() {
            return None;
        }
        let shared = self.shared(announced, name);
        let (place, name_len) = match shared {
            Some(shared) => shared,
            None => self.keep_name(name)?,
        };
        // A free number is used again; the receivers' maps no longer lead to it.
        let lasting = kind == Kind::Counter && is_lasting(name);
        let series = Series {
            value: 0.0,
            state: state().into(),
            name: place,
            name_len,
            kind,
            flags: LIVE
                | if lasting { LASTING } else { 0 }
                | if shared.is_some() { SHARED } else { 0 },
        };
        let number = match self.free.pop() {
            Some(number) => {
                self.all[number as usize] = series;
                if self.ids(number) != NO_IDS {
                    self.set_ids(number, NO_IDS);
                }
                number
            }
            None => {
                self.all.push(series);
                (self.all.len() - 1) as u32
            }
        };
        if is_indexed {
            self.by_name.put(slot, hash, number);
        } else {
            self.unindexed += 1;
        }
        Some((number, true))
    }

    /// Appends a name to the buffer; returns its place and length. `None` if there is no room.
    fn keep_name(&mut self, name: &[u8]) -> Option<(u32, u16)> {
        // Compacting costs a pass over all names, so it waits until half of the bytes are unused.
        if self.dropped_bytes >= 1 << 16 && self.dropped_bytes * 2 >= self.bytes.len() {
            self.compact();
        }
        if self.bytes.len() + name.len() > self.most_bytes {
            self.compact();
        }
        if self.bytes.len() + name.len() > self.most_bytes
            || !make_room(&mut self.bytes, name.len())
        {
            return None;
        }
        let place = self.bytes.len() as u32;
        let len = name.len().min(usize::from(u16::MAX));
        self.bytes.extend_from_slice(&name[..len]);
        Some((place, len as u16))
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
        let hash = self.hash(series.kind, &self.name(&series));
        if !self.by_name.remove(hash, number) {
            self.unindexed -= 1;
        }
        if series.flags & SHARED == 0 {
            self.dropped_bytes += usize::from(series.name_len);
        }
        self.all[number as usize].flags = 0;
        self.free.push(number);
    }

    /// Moves names together, over what dropped ones have left behind.
    fn compact(&mut self) {
        if self.dropped_bytes == 0 {
            return;
        }
        let mut bytes = Vec::new();
        if !make_room(&mut bytes, self.bytes.len() - self.dropped_bytes) {
            return;
        }
        for series in &mut self.all {
            if series.is_live() && series.flags & SHARED == 0 {
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
    use crate::cell::Entry;
    use crate::raw::entries::Entries;

    #[test]
    fn names_come_and_go_and_keep_their_numbers() {
        let mut names = Registry::new(u32::MAX, 1).unwrap();
        let intern = |names: &mut Registry, kind, name: &[u8]| {
            names
                .intern(names.hash(kind, name), kind, name, None, || State::Nothing)
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
            assert_eq!(*names.name(names.get(index)), number(index));
        }
        assert_eq!(names.find(Kind::Counter, &number(1)), None);
        assert_eq!(names.len(), 10_001);
    }

    /// Beyond the limit places would wrap, and series have each other's names.
    #[test]
    fn names_beyond_the_buffer_are_refused_until_others_go() {
        let mut names = Registry::new(100, 2).unwrap();
        let intern = |names: &mut Registry, name: &[u8]| {
            let hash = names.hash(Kind::Counter, name);
            names.intern(hash, Kind::Counter, name, None, || State::Nothing)
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
            assert_eq!(*names.name(names.get(found)), name(number));
        }
    }

    #[test]
    fn names_of_receivers_stay_in_their_entries() {
        for receivers in [1, 2] {
            let mut table = Entries::new();
            let mut registry = Registry::new(100, receivers).unwrap();
            registry.share(0, table.grow().unwrap());
            let name = |number: u32| format!("some.name.{number:04}").into_bytes();
            let mut numbers = Vec::new();
            for entry in 0..1_000 {
                let name = name(entry);
                let mut words = [[0; 8]; WORDS];
                words.as_flattened_mut()[..name.len()].copy_from_slice(&name);
                table.put(entry, Entry::UNUSED, &words.map(u64::from_le_bytes));
                let announced = Some(Announced { receiver: 0, entry });
                let hash = registry.hash(Kind::Gauge, &name);
                let state = || State::FlushesLeft(entry);
                let (number, is_new) = registry
                    .intern(hash, Kind::Gauge, &name, announced, state)
                    .unwrap();
                assert!(is_new);
                numbers.push(number);
            }
            assert!(registry.bytes.is_empty());
            for (entry, number) in (0..).zip(&numbers) {
                assert_eq!(*registry.name(registry.get(*number)), name(entry));
                assert_eq!(registry.get(*number).state(), State::FlushesLeft(entry));
            }
            assert_eq!(registry.find(Kind::Gauge, &name(7)), Some(numbers[7]));
            assert_eq!(registry.find(Kind::Counter, &name(7)), None);
            // The aggregator itself, and another receiver, find them too.
            let hash = registry.hash(Kind::Gauge, &name(8));
            let again = registry.intern(hash, Kind::Gauge, &name(8), None, || State::Nothing);
            assert_eq!(again, Some((numbers[8], false)));
            for number in &numbers[..500] {
                registry.remove(*number);
            }
            assert_eq!(registry.find(Kind::Gauge, &name(7)), None);
            assert_eq!(registry.find(Kind::Gauge, &name(777)), Some(numbers[777]));
            assert_eq!(registry.len(), 500);
            assert_eq!(registry.unindexed, if receivers == 1 { 500 } else { 0 });
        }
    }

    #[test]
    fn a_state_reads_back() {
        for state in [
            State::Nothing,
            State::Samples(0),
            State::Samples(NO_SLOT),
            State::Samples(LARGEST_STATE - 1),
            State::FlushesLeft(12),
            State::Members(3),
        ] {
            assert_eq!(State::from(PackedState::from(state)), state);
        }
        let many = PackedState::from(State::FlushesLeft(u32::MAX));
        assert_eq!(State::from(many), State::FlushesLeft(LARGEST_STATE));
    }
}
