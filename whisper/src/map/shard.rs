//! The maps of a part of the files, and which of them stay when there is no room for all.

use std::cell::Cell;
use std::fs;
use std::sync::Arc;

use crate::header::{Header, METADATA_SIZE};
use crate::scratch::Scratch;
use crate::units::Timestamp;

use super::identity::{Identity, Keyed};
use super::memory::Mapping;
use super::recent::{Recent, Unmapped};

/// How many maps are looked at to find one that was not used for long.
const SAMPLES: usize = 8;
/// How many bases of a mapped file are remembered; those of further archives are read again.
pub(super) const BASES: usize = 4;

/// The maps of a part of the files.
#[derive(Debug, Default)]
pub(super) struct Shard {
    /// How many maps there may be.
    pub(super) room: usize,
    /// How many bytes further maps may have.
    pub(super) bytes_left: u64,
    /// Goes up by one with each use of a file of this shard, mapped or not.
    pub(super) tick: u64,
    pub(super) entries: Vec<Entry>,
    /// Where in `entries` a file's map is.
    pub(super) index: Keyed<usize>,
    /// Where the search for a map that is not used begins.
    pub(super) hand: usize,
    /// When files without a map were last used: a young table, and the one it followed.
    pub(super) seen: [Keyed<u64>; 2],
    pub(super) headers: Vec<Arc<Known>>,
    /// Points that may have to be written again.
    pub(super) recent: Recent,
    pub(super) scratch: Scratch,
}

impl Shard {
    /// Where the map of `key` is; counts as a use.
    pub(super) fn find(&mut self, key: u32) -> Option<usize> {
        self.tick += 1;
        let at = *self.index.get(&key)?;
        self.entries[at].used = self.tick;
        Some(at)
    }

    /// What the mapped file `key` was when it was mapped.
    pub(super) fn identity(&self, key: u32) -> Option<Identity> {
        let at = *self.index.get(&key)?;
        Some(self.entries[at].identity)
    }

    /// The mapped files: all of them, or those with points in `recent`.
    pub(super) fn files(&self, all: bool) -> impl Iterator<Item = Named> {
        let wanted = move |entry: &&Entry| all || self.recent.has(entry.logged);
        let entries = self.entries.iter().filter(wanted);
        entries.map(|entry| Named {
            key: entry.key,
            identity: entry.identity,
            is_link: entry.is_link,
            seen: entry.seen,
        })
    }

    /// The look number `look` has seen `files` at their names.
    pub(super) fn seen_at(&mut self, look: u32, files: &[Named]) {
        for file in files {
            if let Some(at) = self.index.get(&file.key)
                && let Some(entry) = self.entries.get_mut(*at)
                && entry.identity == file.identity
            {
                entry.seen = look;
            }
        }
    }

    /// Whether a file that has no map should get one, for which room is made.
    pub(super) fn admits(&mut self, key: u32) -> bool {
        if self.room == 0 {
            return false;
        }
        if self.entries.len() < self.room {
            return true;
        }
        let [young, old] = &mut self.seen;
        let before = young
            .insert(key, self.tick)
            .or_else(|| old.get(&key).copied());
        if young.len() > 4 * self.room.max(256) {
            *old = std::mem::take(young);
        }
        let n = self.entries.len();
        let sampled = (0..SAMPLES.min(n)).map(|i| (self.hand + i) % n);
        let oldest = sampled.min_by_key(|&at| self.entries[at].used);
        self.hand = (self.hand + SAMPLES) % n;
        match (
            before,
            oldest.map(|at| (self.entries[at].key, self.entries[at].used)),
        ) {
            (Some(before), Some((victim, used))) if before > used => {
                if let Some(gone) = self.remove(victim) {
                    let Entry {
                        identity, logged, ..
                    } = gone;
                    self.recent.unmap(victim, Unmapped { identity, logged });
                }
                true
            }
            _ => false,
        }
    }

    pub(super) fn insert(&mut self, mut entry: Entry) -> usize {
        // Most files have one of a few headers; those in use then share cache lines too.
        match self.headers.iter().find(|known| **known == entry.known) {
            Some(known) => entry.known = known.clone(),
            None if self.headers.len() < 16 => self.headers.push(entry.known.clone()),
            None => {}
        }
        for seen in &mut self.seen {
            seen.remove(&entry.key);
        }
        match self.recent.map_again(entry.key) {
            Some(before) if before.identity == entry.identity => entry.logged = before.logged,
            Some(_) => self.recent.displace(entry.key),
            None => {}
        }
        self.bytes_left -= entry.mapping.len();
        let at = self.entries.len();
        self.index.insert(entry.key, at);
        self.entries.push(entry);
        at
    }

    /// Gives up the map of a file that its owner deletes or renames, and the points that are kept.
    pub(super) fn forget(&mut self, key: u32) {
        let gone = self.remove(key);
        let is_logged = gone.is_none_or(|gone| self.recent.has(gone.logged));
        if is_logged {
            self.recent.forget(key);
        }
    }

    /// Gives up the map of a file that is not the one at its name any more, or was cut: points that
    /// it may have swallowed are to be written again.
    pub(super) fn displace(&mut self, key: u32) {
        self.remove(key);
        self.recent.displace(key);
    }

    fn remove(&mut self, key: u32) -> Option<Entry> {
        let at = self.index.remove(&key)?;
        let gone = self.entries.swap_remove(at);
        self.bytes_left += gone.mapping.len();
        if let Some(moved) = self.entries.get(at) {
            self.index.insert(moved.key, at);
        }
        Some(gone)
    }
}

/// A file, and what is known of its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) key: u32,
    pub(super) identity: Identity,
    /// The name is a symbolic link.
    pub(super) is_link: bool,
    /// The number of the look that saw the file at its name.
    pub(super) seen: u32,
}

/// A mapped file. What each update needs comes first, on one line of the processor's cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Entry {
    pub(super) mapping: Mapping,
    pub(super) known: Arc<Known>,
    /// The intervals in slot 0 of the first archives, 0 where it is not known or empty.
    pub(super) bases: [Cell<u32>; BASES],
    /// The shard's tick of its last use.
    pub(super) used: u64,
    pub(super) key: u32,
    /// When its name was last looked up.
    pub(super) checked: Timestamp,
    pub(super) epoch: u32,
    /// The generation of `recent` that it was last written in.
    pub(super) logged: u32,
    /// The number of the look that last saw it at its name, or 0: none ever did.
    pub(super) seen: u32,
    /// The name is a symbolic link.
    pub(super) is_link: bool,
    pub(super) identity: Identity,
    /// What the lock is taken on; only with `flock`.
    pub(super) file: Option<fs::File>,
}

/// A header, and its first words as a map shows them.
#[derive(Debug, PartialEq)]
pub(super) struct Known {
    pub(super) header: Header,
    head: [u32; HEAD],
}

const HEAD: usize = METADATA_SIZE / 4;

impl From<Header> for Known {
    fn from(header: Header) -> Self {
        let bytes = header.to_bytes();
        let word = |n: usize| u32::from_be_bytes(bytes.as_chunks::<4>().0[n]);
        Self {
            head: std::array::from_fn(word),
            header,
        }
    }
}

impl Entry {
    /// Compares the mapped header with the one that is known.
    pub(super) fn header_now(&self) -> HeaderNow {
        let head: [u32; HEAD] = std::array::from_fn(|n| self.mapping.word(n as u64 * 4));
        if head == self.known.head {
            return HeaderNow::Same;
        }
        let mut bytes = Vec::new();
        self.mapping.read(0, self.known.header.size(), &mut bytes);
        match Header::parse(&bytes) {
            Ok(header) if header.archives() == self.known.header.archives() => {
                HeaderNow::Changed(header)
            }
            _ => HeaderNow::Other,
        }
    }
}

/// What the header of a mapped file is now.
pub(super) enum HeaderNow {
    Same,
    /// Somebody set another method or factor.
    Changed(Header),
    /// This is not the file that it was.
    Other,
}
