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

/// The most points of one generation of a shard: 1 MiB, and up to 1.5 MiB for their times.
const MOST: usize = 1 << 17;
/// The memory that an empty generation keeps, in points.
const KEPT_EMPTY: usize = 1 << 12;

/// Points of a file, the same time apart.
#[derive(Clone, Copy, Debug)]
struct Run {
    key: u32,
    first: u32,
    step: u16,
    count: u16,
}

const _: () = assert!(size_of::<Run>() == 12);

impl Run {
    /// The run that `points` begin with; there is at least one.
    #[inline]
    fn of(key: u32, points: &[Point]) -> Self {
        let apart = |pair: &[Point]| pair[1].at.0.wrapping_sub(pair[0].at.0);
        let pairs = points.windows(2).take(usize::from(u16::MAX) - 1);
        let step = pairs.clone().next().map_or(0, apart);
        // Points that are further apart, or go back in time, are runs of their own.
        let step = u16::try_from(step).unwrap_or(0);
        let further = pairs.take_while(|pair| apart(pair) == u32::from(step));
        Self {
            key,
            first: points[0].at.0,
            step,
            count: 1 + further.count() as u16,
        }
    }

    fn points(self, values: &[f64]) -> impl Iterator<Item = Point> {
        values.iter().zip(0..).map(move |(value, n)| Point {
            at: Timestamp(self.first.wrapping_add(n * u32::from(self.step))),
            value: *value,
        })
    }
}

/// Points and the files that they went into, in the order in which they were written.
#[derive(Debug, Default)]
struct Generation {
    runs: Vec<Run>,
    /// Those of all runs.
    values: Vec<f64>,
}

impl Generation {
    #[inline]
    fn push(&mut self, key: u32, points: &[Point]) {
        let mut rest = points;
        while !rest.is_empty() {
            let run = Run::of(key, rest);
            self.runs.push(run);
            rest = &rest[usize::from(run.count)..];
        }
        self.values.extend(points.iter().map(|point| point.value));
    }

    /// Takes the points of `key` out, and appends them to `into`.
    fn take(&mut self, key: u32, into: &mut Vec<Point>) {
        let (mut from, mut kept) = (0, 0);
        let values = &mut self.values;
        self.runs.retain(|run| {
            let all = from..from + usize::from(run.count);
            from = all.end;
            if run.key == key {
                into.extend(run.points(&values[all]));
                return false;
            }
            values.copy_within(all, kept);
            kept += usize::from(run.count);
            true
        });
        values.truncate(kept);
    }

    /// Empties it, and keeps as much memory as it or the `other` one used, which is about what it will need. Memory
    /// that is given back with each look is zeroed by the kernel when it is asked for again.
    fn clear(&mut self, other: &Self) {
        let room = |own: usize, other: usize| own.max(other).max(KEPT_EMPTY);
        let runs = room(self.runs.len(), other.runs.len());
        let values = room(self.values.len(), other.values.len());
        self.runs.clear();
        self.values.clear();
        self.runs.shrink_to(runs);
        self.values.shrink_to(values);
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
    young: Generation,
    old: Generation,
    /// The number of the young generation; the old one is the number before.
    generation: u32,
    unmapped: Keyed<Unmapped>,
    displaced: Keyed<Vec<Point>>,
}

impl Default for Recent {
    fn default() -> Self {
        Self {
            young: Generation::default(),
            old: Generation::default(),
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
        if self.young.values.len() + points.len() > MOST {
            return false;
        }
        self.young.push(key, points);
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
        self.young.values.len() as f64 / MOST as f64
    }

    /// How many points are kept.
    pub(super) fn len(&self) -> usize {
        self.young.values.len() + self.old.values.len()
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
            generation.take(key, &mut points);
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
        self.old.clear(&self.young);
        std::mem::swap(&mut self.old, &mut self.young);
        self.generation += 1;
        let generation = self.generation;
        self.unmapped
            .retain(|_, file| file.logged + 1 >= generation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(points: &[Point]) -> Vec<(u32, u64)> {
        let bits = |point: &Point| (point.at.0, point.value.to_bits());
        points.iter().map(bits).collect()
    }

    proptest! {
        #[test]
        fn a_generation_gives_back_what_was_put_in(
            batches in prop::collection::vec(
                (0_u32..4, any::<u32>(), prop::collection::vec((0_usize..6, 0_u32..3), 0..9)),
                0..20,
            ),
        ) {
            const APART: [u32; 6] = [0, 1, 10, 65_535, 65_536, u32::MAX - 9];
            let mut generation = Generation::default();
            let mut plain = Vec::new();
            let mut value = 0.0;
            for (key, mut at, steps) in batches {
                let mut points = Vec::new();
                for (apart, repeats) in steps {
                    for _ in 0..=repeats {
                        at = at.wrapping_add(APART[apart]);
                        value += 0.5;
                        points.push(Point { at: Timestamp(at), value });
                    }
                }
                generation.push(key, &points);
                plain.extend(points.into_iter().map(|point| (key, point)));
            }
            for key in [2, 0, 3, 1] {
                let (own, others): (Vec<_>, Vec<_>) = plain.into_iter().partition(|(of, _)| *of == key);
                let own: Vec<Point> = own.into_iter().map(|(_, point)| point).collect();
                plain = others;
                let mut taken = Vec::new();
                generation.take(key, &mut taken);
                prop_assert_eq!(bits(&taken), bits(&own));
                prop_assert_eq!(generation.values.len(), plain.len());
            }
            prop_assert!(generation.runs.is_empty());
        }
    }

    #[test]
    fn a_long_run_is_divided() {
        let points: Vec<Point> = (0..140_000).map(|n| Point::new(n, f64::from(n))).collect();
        let mut generation = Generation::default();
        generation.push(7, &points);
        assert_eq!(generation.runs.len(), 3);
        let mut taken = Vec::new();
        generation.take(7, &mut taken);
        assert_eq!(bits(&taken), bits(&points));
    }

    #[test]
    fn memory_follows_what_is_kept() {
        let mut recent = Recent::default();
        let points: Vec<Point> = (0..50).map(|n| Point::new(n, 0.5)).collect();
        let fill =
            |recent: &mut Recent| (0..1_000).for_each(|key| assert!(recent.push(key, &points)));
        fill(&mut recent);
        recent.rotate();
        fill(&mut recent);
        recent.rotate();
        // The next points find room, and it is given back when fewer come.
        assert!(recent.young.values.capacity() >= 50_000);
        for _ in 0..3 {
            recent.rotate();
        }
        let generations = [&recent.young, &recent.old];
        assert!(
            generations
                .iter()
                .all(|kept| kept.values.capacity() < 50_000)
        );
        assert_eq!(recent.len(), 0);
    }
}
