//! Files that will be written next.
//!
//! A writer that goes through thousands of files finds hardly anything of the next one in the processor's
//! caches: neither what is known of it, nor its header, nor the slots that it writes. It would wait for memory as long
//! as it works. So the processor is told of them while the file before is written.

use std::ptr;

use crate::archive::SLOT_SIZE;
use crate::scratch::Scratch;
use crate::units::Timestamp;

use super::memory::prefetch;
use super::shard::{Entry, Shard};
use super::{Maps, PARTS};

/// The most bytes of an archive that are asked for: after these, the processor notices by itself what is next.
const MOST: usize = 512;

impl Maps {
    /// Says that the file `next` is going to be written, and after it the file `later`. This changes nothing but the
    /// time that it takes: nothing is waited for, and either may be any number.
    pub fn will_write(&self, next: Option<u32>, later: Option<u32>) {
        if let Some(key) = later {
            self.with_entry(key, |entry, _| prefetch(ptr::from_ref(entry).cast(), 1));
        }
        if let Some(key) = next {
            self.with_entry(key, Entry::prefetch);
        }
    }

    /// Shows `look` what is known of a mapped file, unless another thread works on its part.
    fn with_entry(&self, key: u32, look: impl FnOnce(&Entry, &Scratch)) {
        let shard = self.shards[key as usize % PARTS].try_lock();
        if let Some(Shard {
            index,
            entries,
            scratch,
            ..
        }) = shard.as_deref()
            && let Some(entry) = index.get(&key).and_then(|at| entries.get(*at))
        {
            look(entry, scratch);
        }
    }
}

impl Entry {
    /// Asks for what a write touches if its points have the times of `last`.
    fn prefetch(&self, last: &Scratch) {
        let header = &self.known.header;
        self.mapping.prefetch(0, header.size());
        let ([oldest, ..], [.., newest]) = (&last.aligned[..], &last.aligned[..]) else {
            return;
        };
        for (archive, base) in header.archives().iter().zip(&self.bases) {
            let [from, until] = [oldest, newest].map(|point| archive.step.floor(point.at).0);
            let slot = archive.slot(Timestamp(base.get()), i64::from(from));
            let slots = (until - from) / archive.step.seconds() + 1;
            let len = MOST.min((slots as usize).saturating_mul(SLOT_SIZE));
            self.mapping.prefetch(archive.byte(slot), len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::MapOptions;
    use crate::{CreateOptions, Point, Retention, create};
    use proptest::prelude::*;
    use std::fs;

    const NOW: u32 = 1_700_000_000;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_is_said_ahead_changes_no_file(
            batches in prop::collection::vec(
                (0_u32..40, prop::collection::vec(0_u32..2_000, 0..30), prop::option::of(0_u32..40), any::<u32>()),
                0..20,
            ),
        ) {
            let options = CreateOptions::new(vec![
                Retention::new(1, 60).unwrap(),
                Retention::new(10, 30).unwrap(),
                Retention::new(60, 30).unwrap(),
            ]);
            let root = tempfile::tempdir().unwrap();
            let [told, not_told] = ["told", "not_told"].map(|name| root.path().join(name));
            let stores = [&told, &not_told].map(|_| Maps::new(MapOptions::default()));
            for directory in [&told, &not_told] {
                fs::create_dir(directory).unwrap();
                (0..40).for_each(|key| create(&directory.join(key.to_string()), &options).unwrap());
            }
            for (key, ages, next, later) in batches {
                let points: Vec<Point> = ages.iter().map(|age| Point::new(NOW - age, f64::from(*age))).collect();
                for (directory, maps) in [&told, &not_told].into_iter().zip(&stores) {
                    maps.update_many(key, &directory.join(key.to_string()), Timestamp(NOW), &points).unwrap();
                }
                stores[0].will_write(next, Some(later));
                stores[0].will_write(Some(later), next);
            }
            for key in 0..40 {
                let [told, not_told] = [&told, &not_told].map(|dir| fs::read(dir.join(key.to_string())).unwrap());
                prop_assert_eq!(told, not_told);
            }
        }
    }
}
