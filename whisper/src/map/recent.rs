//! Points that went through maps of late, and may have to be written once more.
//!
//! Another program may rename a file over a mapped one, or delete it, between a batch and the next
//! look at the name. The points of that batch are then in a file that no name leads to. A shard
//! therefore keeps the points that went through its maps until each file has been seen at its name
//! after they were written, and writes them into the file that has the name now if it was not:
//!
//! ```text
//!   batch ──► young ──rotate──► old ──rotate──► dropped
//!               │                │
//!               └── replaced, deleted, cut ──► displaced ──next batch──► the new file
//! ```
//!
//! 1. `rotate` follows a look at the names of all files that have points here. So a point is dropped
//!    after two looks, and the older of the two came after it. It stays for the time between two
//!    looks at least, for tools that read a file, write a new one and rename that: what they did not
//!    see yet is written again.
//! 2. Writing a point again changes nothing, and points are kept in the order in which they were
//!    written: the last value of a time wins as it did before.
//! 3. There is room for [`MOST`] points in each of both. A batch that does not fit is checked by name
//!    at once, with a system call.

use std::collections::hash_map::Entry;

use crate::point::Point;
use crate::units::Timestamp;

use super::identity::{Identity, Keyed};

/// The most points of one generation of a shard: 2 MiB.
const MOST: usize = 1 << 17;
/// The memory that an empty generation keeps, in points.
const KEPT_EMPTY: usize = 1 << 12;

/// A point, and the file that it went into.
#[derive(Clone, Copy, Debug)]
struct Written {
    key: u32,
    at: u32,
    value: f64,
}

const _: () = assert!(size_of::<Written>() == 16);

impl Written {
    fn point(&self) -> Point {
        Point {
            at: Timestamp(self.at),
            value: self.value,
        }
    }
}

/// A file whose map was given up for another file, while it had points here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unmapped {
    pub(super) identity: Identity,
    /// The generation in which it was last written.
    pub(super) logged: u32,
}

/// The points of a shard.
#[derive(Debug)]
pub(super) struct Recent {
    young: Vec<Written>,
    old: Vec<Written>,
    /// The number of the young generation; the old one is the number before.
    generation: u32,
    unmapped: Keyed<Unmapped>,
    displaced: Keyed<Vec<Point>>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            young: Vec::new(),
            old: Vec::new(),
            // Maps that were never written have generation 0, which is older than any.
            generation: 2,
            unmapped: Keyed::default(),
            displaced: Keyed::default(),
        }
    }
}

impl Recent {
    /// Keeps `points` of the file `key`, unless there is no room.
    #[inline]
    pub(super) fn push(&mut self, key: u32, points: &[Point]) -> bool {
        if self.young.len() + points.len() > MOST {
            return false;
        }
        self.young.extend(points.iter().map(|point| Written {
            key,
            at: point.at.0,
            value: point.value,
        }));
        true
    }

    /// The generation that points pushed now belong to.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Whether a file that was last written in `logged` has points here.
    pub(super) fn has(&self, logged: u32) -> bool {
        logged + 1 >= self.generation
    }

    /// The share of the room for new points that is used.
    pub(super) fn used(&self) -> f64 {
        self.young.len() as f64 / MOST as f64
    }

    /// How many points are kept.
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// The map of `key` was given up for another file.
    pub(super) fn unmap(&mut self, key: u32, unmapped: Unmapped) {
        if self.has(unmapped.logged) {
            self.unmapped.insert(key, unmapped);
        }
    }

    /// The file `key` gets a map: what it was when it lost its last one, if it has points here.
    pub(super) fn map_again(&mut self, key: u32) -> Option<Unmapped> {
        if self.unmapped.is_empty() {
            return None;
        }
        self.unmapped.remove(&key)
    }

    /// The files without a map that have points here.
    pub(super) fn unmapped(&self) -> impl Iterator<Item = (u32, Identity)> {
        self.unmapped
            .iter()
            .map(|(key, file)| (*key, file.identity))
    }

    /// Drops the points of `key`.
    pub(super) fn forget(&mut self, key: u32) {
        self.take(key);
        self.unmapped.remove(&key);
        self.displaced.remove(&key);
    }

    /// The file that the points of `key` went into has lost its name, or a part of it was cut off.
    pub(super) fn displace(&mut self, key: u32) {
        let points = self.take(key);
        self.unmapped.remove(&key);
        self.displace_points(key, &points);
    }

    /// Points of `key` that are to be written again, and are not here.
    pub(super) fn displace_points(&mut self, key: u32, points: &[Point]) {
        if !points.is_empty() {
            self.displaced.entry(key).or_default().extend(points);
        }
    }

    fn take(&mut self, key: u32) -> Vec<Point> {
        let mut points = Vec::new();
        for generation in [&mut self.old, &mut self.young] {
            generation.retain(|written| {
                if written.key == key {
                    points.push(written.point());
                }
                written.key != key
            });
        }
        points
    }

    /// Whether `key` has points to be written again.
    pub(super) fn is_displaced(&self, key: u32) -> bool {
        !self.displaced.is_empty() && self.displaced.contains_key(&key)
    }

    /// The points of `key` that are to be written again.
    pub(super) fn displaced(&self, key: u32) -> &[Point] {
        self.displaced.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Gives out the points of `key` that are to be written again.
    #[inline]
    pub(super) fn take_displaced(&mut self, key: u32) -> Vec<Point> {
        if self.displaced.is_empty() {
            return Vec::new();
        }
        self.displaced.remove(&key).unwrap_or_default()
    }

    /// Takes back what [`Recent::take_displaced`] gave out: it could not be written.
    pub(super) fn put_back(&mut self, key: u32, points: Vec<Point>) {
        if points.is_empty() {
            return;
        }
        match self.displaced.entry(key) {
            Entry::Vacant(free) => {
                free.insert(points);
            }
            Entry::Occupied(mut since) => {
                let since = since.get_mut();
                let later = std::mem::replace(since, points);
                since.extend(later);
            }
        }
    }

    /// The files that have points to be written again.
    pub(super) fn displaced_keys(&self) -> impl Iterator<Item = u32> {
        self.displaced.keys().copied()
    }

    /// All files that have points here were seen at their names: the old points are safe.
    pub(super) fn rotate(&mut self) {
        self.old.clear();
        self.old.shrink_to(KEPT_EMPTY);
        std::mem::swap(&mut self.old, &mut self.young);
        self.generation += 1;
        let generation = self.generation;
        self.unmapped
            .retain(|_, file| file.logged + 1 >= generation);
    }
}
