//! What the rules made of names that were received before.
//!
//! 1. A lookup is one hash of the raw bytes. Most names are stored under themselves and feed nothing:
//!    such an entry is 16 bytes, and the index has its text.
//! 2. The ids in here are not held. An entry is used only if its id has the name that it had, which is
//!    compared; the caller has a pin.
//! 3. The table is bounded ([`MAX_NAMES`], [`MAX_JUDGED`], [`MAX_BYTES`]): when it is full it is emptied,
//!    and names are judged again as they come. The bounds are no options: they change no result, only how
//!    often a name is judged, and they bound memory (64 MB of plain names, some 350 MB of others) against
//!    clients that send ever new names, which a list may refuse, so that no other limit counts them.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::Refusal;
use super::aggregate::Output;
use crate::datapoint::SeriesId;
use crate::series::Names;

/// Most names.
const MAX_NAMES: usize = 1 << 22;
/// Most names of those that are not simply stored.
const MAX_JUDGED: usize = 1 << 20;
/// Most bytes of text of those, in all.
const MAX_BYTES: usize = 256 << 20;
/// In `judged`: the name is stored as it is.
const PLAIN: u32 = u32::MAX;
/// In `series`: no id is known.
const UNKNOWN: u32 = u32::MAX;

/// A name that is refused, changed, or feeds aggregates.
#[derive(Debug)]
pub(super) struct Judged {
    /// The name as it was received.
    pub(super) raw: Box<[u8]>,
    /// What becomes of its points, apart from aggregates.
    pub(super) fate: Fate,
    /// The aggregates that it feeds.
    pub(super) outputs: Box<[Arc<Output>]>,
    /// How many more it would feed if their rules had room for them.
    pub(super) without_room: u64,
}

impl Judged {
    /// Bytes of its texts and of its list of aggregates.
    fn size_bytes(&self) -> usize {
        let stored = match &self.fate {
            Fate::Stored(name) => name.len(),
            Fate::Refused(_) | Fate::Fed => 0,
        };
        self.raw.len() + stored + size_of_val(&*self.outputs)
    }
}

/// What becomes of a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A list refuses it.
    Refused(Refusal),
    /// It only feeds aggregates.
    Fed,
    /// It is stored under this name.
    Stored(Box<str>),
}

/// A known name.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// It is stored under itself, and feeds nothing.
    Plain(SeriesId),
    /// Anything else; with the id of the series, if that is known.
    Judged(&'a Arc<Judged>, Option<SeriesId>),
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    series: u32,
    judged: u32,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    hasher: RandomState,
    table: HashTable<Entry>,
    judged: Vec<Arc<Judged>>,
    /// The sizes of all in `judged`.
    bytes: usize,
    /// Which rules they come from.
    generation: u64,
}

impl Verdicts {
    /// Forgets all: they come from the rules of `generation` from now on.
    pub(super) fn begin(&mut self, generation: u64) {
        *self = Self {
            generation,
            ..Self::default()
        };
    }

    /// What is known of `raw`.
    #[inline]
    pub(super) fn find(&self, raw: &[u8], names: &Names) -> Option<Found<'_>> {
        let hash = self.hasher.hash_one(raw);
        let is_it = |entry: &Entry| {
            entry.hash == hash
                && match self.judged.get(entry.judged as usize) {
                    None => names.is(SeriesId(entry.series), raw),
                    Some(judged) => *judged.raw == *raw,
                }
        };
        let entry = self.table.find(hash, is_it)?;
        let Some(judged) = self.judged.get(entry.judged as usize) else {
            return Some(Found::Plain(SeriesId(entry.series)));
        };
        let series = SeriesId(entry.series);
        let is_known = match &judged.fate {
            Fate::Stored(name) => names.is(series, name.as_bytes()),
            Fate::Refused(_) | Fate::Fed => false,
        };
        Some(Found::Judged(judged, is_known.then_some(series)))
    }

    /// Remembers that `raw` is stored under itself.
    pub(super) fn plain(&mut self, generation: u64, raw: &[u8], series: SeriesId) {
        self.put(generation, raw, PLAIN, series.0);
    }

    /// Remembers a verdict; `series` is the id under which it is stored.
    pub(super) fn judge(&mut self, generation: u64, judged: Arc<Judged>, series: Option<SeriesId>) {
        let bytes = judged.size_bytes();
        if self.judged.len() >= MAX_JUDGED || self.bytes + bytes > MAX_BYTES {
            self.begin(self.generation);
        }
        let Ok(number) = u32::try_from(self.judged.len()) else {
            return;
        };
        let series = series.map_or(UNKNOWN, |id| id.0);
        if self.put(generation, &judged.raw, number, series) {
            self.judged.push(judged);
            self.bytes += bytes;
        }
    }

    /// Whether it is new.
    fn put(&mut self, generation: u64, raw: &[u8], judged: u32, series: u32) -> bool {
        if generation != self.generation {
            return false;
        }
        let hash = self.hasher.hash_one(raw);
        let all = &self.judged;
        let known = |entry: &Entry| {
            let judged = all.get(entry.judged as usize);
            entry.hash == hash && judged.is_some_and(|judged| *judged.raw == *raw)
        };
        if let Some(entry) = self.table.find_mut(hash, known) {
            entry.series = series;
            return false;
        }
        // The text of a plain name is in the index, whose lock may not be taken here: if two receivers
        // learn it at once, it has two equal entries.
        if self.table.len() >= MAX_NAMES {
            self.begin(generation);
            if judged != PLAIN {
                return self.put(generation, raw, 0, series);
            }
        }
        let entry = Entry {
            hash: self.hasher.hash_one(raw),
            series,
            judged,
        };
        self.table
            .insert_unique(entry.hash, entry, |entry| entry.hash);
        true
    }

    /// How many names are known.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(raw: &str, name: &str) -> Arc<Judged> {
        Arc::new(Judged {
            raw: raw.as_bytes().into(),
            fate: Fate::Stored(name.into()),
            outputs: Box::default(),
            without_room: 0,
        })
    }

    #[test]
    fn entries_whose_id_has_another_name_are_not_used() {
        let mut names = Names::default();
        let (a, _) = names.intern(b"a").unwrap();
        let (b, _) = names.intern(b"b").unwrap();
        let mut verdicts = Verdicts::default();
        verdicts.plain(0, b"a", a);
        verdicts.judge(0, judged("x", "b"), Some(b));
        let plain = |verdicts: &Verdicts, names: &Names| matches!(verdicts.find(b"a", names), Some(Found::Plain(id)) if id == a);
        let series = |verdicts: &Verdicts, names: &Names| match verdicts.find(b"x", names) {
            Some(Found::Judged(_, series)) => series,
            other => panic!("{other:?}"),
        };
        assert!(plain(&verdicts, &names));
        assert_eq!(series(&verdicts, &names), Some(b));
        for id in [a, b] {
            names.unlink(id);
            names.free(id);
        }
        assert!(verdicts.find(b"a", &names).is_none());
        assert_eq!(series(&verdicts, &names), None);
        let (c, _) = names.intern(b"c").unwrap();
        let (again, _) = names.intern(b"b").unwrap();
        assert!(c == a || c == b);
        assert!(!plain(&verdicts, &names));
        verdicts.judge(0, judged("x", "b"), Some(again));
        assert_eq!(series(&verdicts, &names), Some(again));
        assert_eq!(verdicts.len(), 2);
    }

    #[test]
    fn long_names_have_less_room_than_many() {
        let mut verdicts = Verdicts::default();
        // One text in the place of many: what counts is its length.
        let long = "x".repeat(MAX_BYTES / 8);
        for number in 0..9 {
            assert!(verdicts.bytes <= MAX_BYTES);
            verdicts.judge(0, judged(&number.to_string(), &long), None);
        }
        assert_eq!(verdicts.len(), 2, "emptied once");
    }

    #[test]
    fn verdicts_of_older_rules_are_not_kept() {
        let names = Names::default();
        let mut verdicts = Verdicts::default();
        verdicts.judge(0, judged("x", "b"), None);
        verdicts.begin(1);
        assert!(verdicts.find(b"x", &names).is_none());
        verdicts.judge(0, judged("x", "b"), None);
        assert_eq!(verdicts.len(), 0);
    }
}
