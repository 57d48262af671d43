//! Limits on names: how many all tables of a server hold together, and how many below each prefix.
//!
//! 1. Only the first sight of a name comes here; samples of names that are known do not.
//! 2. Below a prefix a name counts once, however many tables have it: names are distinguished by a
//!    hash of 64 bits with a secret of this process.
//! 3. Without a limit per prefix nothing is kept of names.

use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use std::hash::BuildHasher;

use crate::cell::MemberLimits;
use crate::kind::Kind;

/// What bounds the number and length of names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most entries of all tables together, aliases included.
    pub(crate) names: u64,
    /// Most names new in one interval.
    pub(crate) new_names: u64,
    pub(crate) names_per_prefix: u64,
    pub(crate) prefix_nodes: usize,
    pub(crate) members: MemberLimits,
    pub(crate) sanitize: bool,
}

/// What the tables of a server share. See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Population {
    /// Entries of all tables, aliases included.
    entries: AtomicU64,
    prefixes: Mutex<HashMap<Box<[u8]>, Prefix>>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Prefix {
    /// How many tables have each name.
    names: HashMap<u64, u32>,
    /// Whether the limit has been reported.
    is_reported: bool,
}

/// Whether a name may be taken up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    Granted,
    /// The limit is reached; `is_first` for the first name below the prefix to meet it.
    Refused {
        is_first: bool,
    },
}

impl Population {
    pub(crate) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    pub(crate) fn add(&self, entries: u64) {
        self.entries.fetch_add(entries, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, entries: u64) {
        self.entries.fetch_sub(entries, Ordering::Relaxed);
    }

    /// Asks for room for `name` below `prefix`, of which `limit` names may be.
    pub(crate) fn claim(&self, prefix: &[u8], kind: Kind, name: &[u8], limit: u64) -> Claim {
        let hash = self.hasher.hash_one((kind as u8, name));
        let mut prefixes = self.prefixes.lock();
        if !prefixes.contains_key(prefix) {
            prefixes.insert(prefix.into(), Prefix::default());
        }
        let Some(found) = prefixes.get_mut(prefix) else {
            return Claim::Granted;
        };
        let is_full = found.names.len() as u64 >= limit;
        match found.names.get_mut(&hash) {
            Some(tables) => *tables += 1,
            None if is_full => {
                let is_first = !std::mem::replace(&mut found.is_reported, true);
                return Claim::Refused { is_first };
            }
            None => {
                found.names.insert(hash, 1);
            }
        }
        Claim::Granted
    }

    /// Gives back what one table claimed.
    pub(crate) fn release(&self, prefix: &[u8], kind: Kind, name: &[u8]) {
        let hash = self.hasher.hash_one((kind as u8, name));
        let mut prefixes = self.prefixes.lock();
        let Some(found) = prefixes.get_mut(prefix) else {
            return;
        };
        if let Some(tables) = found.names.get_mut(&hash) {
            *tables -= 1;
            if *tables == 0 {
                found.names.remove(&hash);
            }
        }
        if found.names.is_empty() {
            prefixes.remove(prefix);
        }
    }
}

/// The first `nodes` nodes of `name`, tags left out.
pub(crate) fn prefix(name: &[u8], nodes: usize) -> &[u8] {
    let name = name.split(|byte| *byte == b';').next().unwrap_or(name);
    match memchr::memchr_iter(b'.', name).nth(nodes.max(1) - 1) {
        Some(end) => &name[..end],
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_once_and_come_back() {
        let population = Population::default();
        let claim = |name: &[u8]| population.claim(b"app", Kind::Counter, name, 2);
        assert_eq!(claim(b"app.a"), Claim::Granted);
        assert_eq!(claim(b"app.a"), Claim::Granted);
        assert_eq!(claim(b"app.b"), Claim::Granted);
        assert_eq!(claim(b"app.c"), Claim::Refused { is_first: true });
        assert_eq!(claim(b"app.d"), Claim::Refused { is_first: false });
        population.release(b"app", Kind::Counter, b"app.a");
        assert_eq!(claim(b"app.c"), Claim::Refused { is_first: false });
        population.release(b"app", Kind::Counter, b"app.a");
        assert_eq!(claim(b"app.c"), Claim::Granted);
        for name in [b"app.b", b"app.c"] {
            population.release(b"app", Kind::Counter, name);
        }
        assert!(population.prefixes.lock().is_empty());
    }
}
