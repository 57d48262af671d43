//! From hashes to numbers: the look-up table of what is numbered elsewhere.
//!
//! ```text
//! [ tag:32 | 1 + number:32 ] × 8 …      a cache line; the tag is the hash's upper half
//! ```
//!
//! The tag's leading bits name the line where probing starts. Since the place follows from the
//! tag, the index grows, and closes up after a removal, without looking at what it leads to. At
//! most half of the slots are in use, so that few lines are full.
//!
//! A look-up in a batch is made twice: [`Index::guess`], without branches, to have the memory of what it
//! leads to fetched, and later the comparison with that. Only what the guess missed is searched for.

use std::io;

use crate::raw::memory::{LARGE, Zeros, make_room, prefetch};

const EMPTY: u64 = 0;
/// Slots of a cache line.
const LINE: usize = 8;
const SMALLEST_BITS: u32 = 10;

/// Hashes to numbers below [`Index::MOST`].
#[derive(Debug)]
pub(crate) struct Index {
    /// Their number is a power of two.
    slots: Zeros<u64>,
    bits: u32,
    used: usize,
}

impl Index {
    /// Numbers are below this.
    pub(crate) const MOST: u32 = u32::MAX;

    /// An empty index.
    ///
    /// # Errors
    /// There is no memory for its first slots.
    pub(crate) fn new() -> io::Result<Self> {
        Self::with_bits(SMALLEST_BITS)
    }

    fn with_bits(bits: u32) -> io::Result<Self> {
        let len = 1 << bits;
        Ok(Self {
            slots: Zeros::new(len, len * size_of::<u64>() >= LARGE)?,
            bits,
            used: 0,
        })
    }

    /// Whether there is room for another number: always, unless the index could not grow.
    pub(crate) fn has_room(&self) -> bool {
        self.used < self.slots.len() / 8 * 7
    }

    /// How many numbers it holds.
    pub(crate) fn len(&self) -> usize {
        self.used
    }

    #[inline(always)]
    fn mask(&self) -> usize {
        self.slots.len() - 1
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        (hash >> (64 - self.bits)) as usize & !(LINE - 1)
    }

    /// The number under `hash` for which `is` holds, or the slot where it would go.
    #[inline(always)]
    pub(crate) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> Result<u32, usize> {
        let tag = (hash >> 32) as u32;
        let mask = self.mask();
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at & mask];
            if slot == EMPTY {
                return Err(at & mask);
            }
            if (slot >> 32) as u32 == tag && is(number(slot)) {
                return Ok(number(slot));
            }
            at += 1;
        }
    }

    /// Asks for the memory of the slot where `hash` is looked for.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(slot) = self.slots.get(self.home(hash)) {
            prefetch(slot);
        }
    }

    /// The number under the tag of `hash`, which is the right one for nearly all that are there;
    /// [`Index::MOST`] if none is near.
    #[inline(always)]
    pub(crate) fn guess(&self, hash: u64) -> u32 {
        let home = self.home(hash);
        let Some(line) = self.slots.get(home..home + LINE) else {
            return Self::MOST;
        };
        let mut found = EMPTY;
        for slot in line {
            // Two of the same tag give a wrong guess.
            found |= if slot >> 32 == hash >> 32 {
                *slot
            } else {
                EMPTY
            };
        }
        number(found)
    }

    /// Adds `number` at the slot that [`Index::find`] named. [`Index::has_room`] must hold.
    ///
    /// Without memory to grow into, the index fills its lines beyond the half.
    #[inline]
    pub(crate) fn put(&mut self, slot: usize, hash: u64, number: u32) {
        self.slots[slot] = packed(hash, number);
        self.used += 1;
        self.grow();
    }

    /// Grows if there was no memory for that when it was due. Called now and then: as long as the
    /// index is full, [`Index::put`] is not.
    pub(crate) fn grow(&mut self) {
        if self.used * 2 > self.slots.len()
            && let Ok(mut larger) = Self::with_bits(self.bits + 1)
        {
            larger.take_over(&self.slots);
            *self = larger;
        }
    }

    fn empty_slot(&self, hash: u64) -> usize {
        let mask = self.mask();
        let mut at = self.home(hash);
        while self.slots[at] != EMPTY {
            at = (at + 1) & mask;
        }
        at
    }

    fn take_over(&mut self, slots: &[u64]) {
        for slot in slots.iter().filter(|slot| **slot != EMPTY) {
            let at = self.empty_slot(*slot);
            self.slots[at] = *slot;
            self.used += 1;
        }
    }

    /// Takes `number` out, and moves up what had to go further because of it. Whether it was there.
    pub(crate) fn remove(&mut self, hash: u64, number: u32) -> bool {
        let mask = self.mask();
        let wanted = packed(hash, number);
        let mut hole = self.home(hash);
        while self.slots[hole] != wanted {
            if self.slots[hole] == EMPTY {
                return false;
            }
            hole = (hole + 1) & mask;
        }
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let slot = self.slots[at];
            if slot == EMPTY {
                break;
            }
            // It may move back to the hole if that is not before its home.
            let from_home = at.wrapping_sub(self.home(slot)) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole] = EMPTY;
        self.used -= 1;
        true
    }

    /// Keeps the numbers for which `keep` holds; returns how many went. `None` if there is no memory for that: then
    /// all stay.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) -> Option<usize> {
        let before = self.used;
        let mut kept: Vec<u64> = Vec::new();
        if !make_room(&mut kept, self.used) {
            return None;
        }
        let used = self.slots.iter().filter(|slot| **slot != EMPTY);
        kept.extend(used.filter(|slot| keep(number(**slot))));
        self.slots.fill(EMPTY);
        self.used = 0;
        self.take_over(&kept);
        Some(before - self.used)
    }
}

#[inline(always)]
fn packed(hash: u64, number: u32) -> u64 {
    hash >> 32 << 32 | (u64::from(number) + 1)
}

#[inline(always)]
fn number(slot: u64) -> u32 {
    (slot as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    /// Hashes of which many share their place, and some their tag.
    fn hash(number: u32) -> u64 {
        u64::from(number % 97) << 58 | u64::from(number / 3) << 32
    }

    fn add(index: &mut Index, hash: u64, number: u32) {
        let slot = index.find(hash, |_| false).unwrap_err();
        index.put(slot, hash, number);
    }

    fn found(index: &Index, number: u32) -> bool {
        index.find(hash(number), |other| other == number) == Ok(number)
    }

    #[test]
    fn it_is_a_map() {
        let mut index = Index::new().unwrap();
        let mut twin = HashMap::new();
        let mut state = 1_u64;
        for _ in 0..60_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let number = (state >> 40) as u32 % 1_500;
            match (state >> 33) % 5 {
                0 | 1 if !twin.contains_key(&number) => {
                    add(&mut index, hash(number), number);
                    twin.insert(number, ());
                }
                2 => {
                    index.remove(hash(number), number);
                    twin.remove(&number);
                }
                3 if (state >> 36).is_multiple_of(512) => {
                    let gone = index.retain(|number| number % 7 != 0).unwrap();
                    let before = twin.len();
                    twin.retain(|number, ()| number % 7 != 0);
                    assert_eq!(gone, before - twin.len());
                }
                _ => assert_eq!(found(&index, number), twin.contains_key(&number)),
            }
            assert_eq!(index.len(), twin.len());
        }
        for number in 0..1_500 {
            assert_eq!(
                found(&index, number),
                twin.contains_key(&number),
                "{number}"
            );
        }
    }

    #[test]
    fn it_grows() {
        let mut index = Index::new().unwrap();
        for number in 0..20_000 {
            add(
                &mut index,
                u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                number,
            );
        }
        let mut missed = 0;
        for number in 0..20_000 {
            let hash = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            assert_eq!(index.find(hash, |other| other == number), Ok(number));
            missed += u32::from(index.guess(hash) != number);
        }
        assert!(missed < 1_000, "{missed} of 20,000 guesses were wrong");
        assert_eq!(index.len(), 20_000);
    }
}
