//! The entries of a table: one cache line each, of which other threads may read the name.
//!
//! A name is compared by the receiver with every sample, and read by the aggregator now and then. So that a million
//! names are in memory once, the aggregator reads them where the receiver has them:
//!
//! 1. [`Entries`] belongs to the thread of a table. What that thread changes with each sample ([`Entry`]) is reached
//!    only through it.
//! 2. Names are atomic words, read and written without any order. [`Names`] reads those that the receiver has
//!    announced, through a channel, which makes them visible; the receiver overwrites a name only after the
//!    aggregator has let go of it. A mistake there would give a wrong name, and nothing worse.

use std::cell::UnsafeCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::memory::{LARGE, Zero, Zeros, prefetch};
use crate::cell::Entry;

/// Words of a name.
pub(crate) const WORDS: usize = 5;
/// Entries of a chunk fill a large page.
pub(crate) const CHUNK_BITS: u32 = 15;
pub(crate) const CHUNK: usize = 1 << CHUNK_BITS;

const _: () = assert!(
    CHUNK * size_of::<Slot>() == LARGE,
    "a chunk is a large page"
);

/// An entry and its name.
#[repr(C, align(64))]
struct Slot {
    entry: UnsafeCell<Entry>,
    name: [AtomicU64; WORDS],
}

// SAFETY: it consists of numbers, and of a type whose first variant is 0.
unsafe impl Zero for Slot {}

// SAFETY: names are atomic, and only `Entries` reaches `entry`: it is not `Clone`, and takes itself exclusively
// for what it changes.
unsafe impl Sync for Slot {}

impl Slot {
    fn words(&self) -> [u64; WORDS] {
        std::array::from_fn(|at| self.name[at].load(Relaxed))
    }
}

/// The entries of one table.
pub(crate) struct Entries {
    chunks: Vec<Arc<Zeros<Slot>>>,
}

/// A part of the names of one table.
#[derive(Clone)]
pub(crate) struct NameChunk(Arc<Zeros<Slot>>);

impl Entries {
    pub(crate) fn new() -> Self {
        Self { chunks: Vec::new() }
    }

    /// How many there is room for.
    pub(crate) fn room(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// Makes room for [`CHUNK`] more; returns their names, for other threads.
    ///
    /// # Errors
    /// There is no memory.
    pub(crate) fn grow(&mut self) -> io::Result<NameChunk> {
        // Few names take only the pages that they need.
        let large = !self.chunks.is_empty();
        let chunk = Arc::new(Zeros::new(CHUNK, large)?);
        self.chunks.push(Arc::clone(&chunk));
        Ok(NameChunk(chunk))
    }

    #[inline(always)]
    fn slot(&self, at: u32) -> &Slot {
        &self.chunks[(at >> CHUNK_BITS) as usize][at as usize & (CHUNK - 1)]
    }

    /// The entry numbered `at`.
    #[inline(always)]
    pub(crate) fn get(&self, at: u32) -> &Entry {
        // SAFETY: entries are changed only through an exclusive `Entries`, of which there is one.
        unsafe { &*self.slot(at).entry.get() }
    }

    /// The entry numbered `at`.
    #[inline(always)]
    pub(crate) fn get_mut(&mut self, at: u32) -> &mut Entry {
        // SAFETY: as above, and the borrow is exclusive. No reference of another thread covers the entry: theirs
        // lead through `Slot`, whose `UnsafeCell` they leave alone.
        unsafe { &mut *self.slot(at).entry.get() }
    }

    /// Calls `work` with the entries from `from` until before `end`, which is no more than [`Entries::room`], and
    /// their numbers.
    #[inline]
    pub(crate) fn each_mut(&mut self, from: u32, end: u32, mut work: impl FnMut(u32, &mut Entry)) {
        let mut at = from;
        while at < end {
            let chunk = &self.chunks[(at >> CHUNK_BITS) as usize];
            let first = at as usize & (CHUNK - 1);
            let count = (CHUNK - first).min((end - at) as usize);
            for slot in &chunk[first..first + count] {
                // SAFETY: as in `get_mut`: the borrow of `self` is exclusive, and `work` has one entry at a time.
                work(at, unsafe { &mut *slot.entry.get() });
                at += 1;
            }
        }
    }

    /// The words of a name.
    #[inline(always)]
    pub(crate) fn name(&self, at: u32) -> [u64; WORDS] {
        self.slot(at).words()
    }

    /// Whether the first `N` words of the name are these.
    #[inline(always)]
    pub(crate) fn begins<const N: usize>(&self, at: u32, words: &[u64; WORDS]) -> bool {
        let name = &self.slot(at).name;
        let differing = (0..N).fold(0, |differing, at| {
            differing | (name[at].load(Relaxed) ^ words[at])
        });
        differing == 0
    }

    /// Replaces an entry and its name.
    pub(crate) fn put(&mut self, at: u32, entry: Entry, name: &[u64; WORDS]) {
        *self.get_mut(at) = entry;
        for (word, new) in self.slot(at).name.iter().zip(name) {
            word.store(*new, Relaxed);
        }
    }

    /// Replaces the last word of a name.
    pub(crate) fn set_last_word(&mut self, at: u32, word: u64) {
        self.slot(at).name[WORDS - 1].store(word, Relaxed);
    }

    /// Asks for the memory of an entry.
    #[inline(always)]
    pub(crate) fn prefetch(&self, at: u32) {
        prefetch(self.slot(at));
    }
}

/// The names of one table, for another thread.
#[derive(Clone, Default)]
pub(crate) struct Names(Vec<NameChunk>);

impl Names {
    /// Adds the next chunk.
    pub(crate) fn push(&mut self, chunk: NameChunk) {
        self.0.push(chunk);
    }

    /// The words of the name of entry `at`.
    #[inline]
    pub(crate) fn get(&self, at: u32) -> Option<[u64; WORDS]> {
        let chunk = self.0.get((at >> CHUNK_BITS) as usize)?;
        Some(chunk.0[at as usize & (CHUNK - 1)].words())
    }
}

impl std::fmt::Debug for NameChunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NameChunk").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_while_entries_change() {
        let mut entries = Entries::new();
        let mut names = Names::default();
        names.push(entries.grow().unwrap());
        assert_eq!(entries.room(), CHUNK);
        assert_eq!(names.get(CHUNK as u32), None);
        let name = |at: u32| -> [u64; WORDS] {
            std::array::from_fn(|word| u64::from(at) * 7 + word as u64)
        };
        for at in 0..CHUNK as u32 {
            entries.put(
                at,
                Entry {
                    len: 3,
                    ..Entry::UNUSED
                },
                &name(at),
            );
        }
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for at in 0..CHUNK as u32 {
                    assert_eq!(names.get(at), Some(name(at)));
                }
            });
            for at in 0..CHUNK as u32 {
                entries.get_mut(at).cells[0] += f64::from(at);
            }
        });
        assert_eq!(entries.get(9).cells, [9.0, 0.0]);
        names.push(entries.grow().unwrap());
        let mut seen = Vec::new();
        entries.each_mut(CHUNK as u32 - 2, CHUNK as u32 + 2, |at, entry| {
            seen.push((at, entry.cells[0]));
        });
        let last = CHUNK as f64 - 1.0;
        let numbers = (CHUNK as u32 - 2)..(CHUNK as u32 + 2);
        let expected = numbers.zip([last - 1.0, last, 0.0, 0.0]);
        assert!(seen.into_iter().eq(expected));
        assert!(entries.begins::<WORDS>(9, &name(9)));
        entries.set_last_word(9, 1);
        assert!(entries.begins::<4>(9, &name(9)));
        assert!(!entries.begins::<WORDS>(9, &name(9)));
        drop(entries);
        assert_eq!(names.get(8), Some(name(8)));
    }
}
