//! Files that another program renames over mapped ones, or deletes: no point is lost, whenever that
//! happens and however it is noticed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use whisper::map::{Confirmed, Name};
use whisper::{
    CreateOptions, File, MapOptions, Maps, Point, Retention, Timestamp, Updated, create,
};

const START: u32 = 1_700_000_000;

fn options() -> CreateOptions {
    let retention = Retention::new(1, 200_000).unwrap();
    CreateOptions {
        x_files_factor: 0.0,
        ..CreateOptions::new([retention].into())
    }
}

/// A store of files `0.wsp`, `1.wsp`, …, each with a point a second.
struct Store {
    dir: tempfile::TempDir,
    maps: Maps,
    now: u32,
    /// The number of the last look before the directory was watched, if it is.
    watched: Cell<Option<u32>>,
    /// Files that the watch has reported.
    changed: RefCell<Vec<u32>>,
}

impl Store {
    fn new(files: u32, map_options: MapOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Self {
            dir,
            maps: Maps::new(MapOptions {
                // Nothing is noticed by itself.
                recheck: u32::MAX,
                ..map_options
            }),
            now: START,
            watched: Cell::default(),
            changed: RefCell::default(),
        };
        for file in 0..files {
            create(&store.path(file), &options()).unwrap();
        }
        store
    }

    fn path(&self, file: u32) -> PathBuf {
        self.dir.path().join(format!("{file}.wsp"))
    }

    fn point(&self) -> Point {
        Point::new(self.now, f64::from(self.now))
    }

    /// The next point, for `file`; the file is created if it is not there.
    fn step(&mut self, file: u32) -> Updated {
        self.now += 1;
        self.write(file, &[self.point()])
    }

    fn write(&self, file: u32, points: &[Point]) -> Updated {
        let (path, now) = (self.path(file), Timestamp(self.now));
        match self.maps.update_many(file, &path, now, points) {
            Err(error) if error.is_missing() => {
                create(&path, &options()).unwrap();
                self.maps.update_many(file, &path, now, points).unwrap()
            }
            written => written.unwrap(),
        }
    }

    /// A round of looks at all names.
    fn confirm(&self) -> Confirmed {
        let mut all = Confirmed::default();
        for _ in 0..16 {
            let Confirmed { files, displaced } = self.maps.confirm_next(|asked, path| {
                for file in self.changed.take() {
                    self.maps.confirm_one(file, &self.path(file));
                }
                *path = self.path(asked.key);
                match self.watched.get() {
                    Some(since) if since < asked.since => Name::Kept,
                    _ => Name::Unknown,
                }
            });
            all.files += files;
            all.displaced += displaced;
        }
        all
    }

    /// Writes what is to be written again.
    fn write_displaced(&self) {
        for file in self.maps.displaced() {
            assert_eq!(self.write(file, &[]), Updated::default());
        }
        assert_eq!(self.maps.displaced(), []);
    }

    /// As a tool does it: a copy with all that it has read takes the name.
    fn replace(&self, file: u32, content: &[u8]) {
        let new = self.dir.path().join("new");
        fs::write(&new, content).unwrap();
        fs::rename(&new, self.path(file)).unwrap();
        self.tell(file);
    }

    fn delete(&self, file: u32) {
        let _ = fs::remove_file(self.path(file));
        self.tell(file);
    }

    /// The watch, if there is one, tells of a change.
    fn tell(&self, file: u32) {
        if self.watched.get().is_some() {
            self.changed.borrow_mut().push(file);
        }
    }

    fn watch(&self) {
        self.watched.set(Some(self.maps.looks()));
    }

    fn replace_with_copy(&self, file: u32) {
        if let Ok(content) = fs::read(self.path(file)) {
            self.replace(file, &content);
        }
    }

    /// The points that the file at the name has.
    fn stored(&self, file: u32) -> BTreeSet<u32> {
        stored(&self.path(file), self.now)
    }
}

fn stored(path: &Path, now: u32) -> BTreeSet<u32> {
    let (from, now) = (Timestamp(START), Timestamp(now));
    let fetched = File::open(path).unwrap().fetch(now, from, now).unwrap();
    let fetched = fetched.unwrap();
    let points = fetched
        .points()
        .filter(|(at, value)| *value == f64::from(at.0));
    points.map(|(at, _)| at.0).collect()
}

const BOTH: [bool; 2] = [false, true];

#[test]
fn points_after_a_replacement_are_in_the_new_file() {
    for flock in BOTH {
        let mut store = Store::new(
            20,
            MapOptions {
                flock,
                ..MapOptions::default()
            },
        );
        for _ in 0..10 {
            for file in 0..20 {
                store.step(file);
            }
        }
        for file in 0..10 {
            store.replace_with_copy(file);
        }
        for _ in 0..10 {
            for file in 0..20 {
                store.step(file);
            }
        }
        // With the lock each batch has looked at the name.
        let found = store.confirm();
        assert_eq!(
            (found.files, found.displaced),
            (20, if flock { 0 } else { 10 })
        );
        store.write_displaced();
        for file in 0..20 {
            assert_eq!(store.stored(file).len(), 20, "{file}");
        }
        assert_eq!(store.confirm().displaced, 0);
    }
}

#[test]
fn a_deleted_file_comes_back_with_what_it_swallowed() {
    let mut store = Store::new(1, MapOptions::default());
    for _ in 0..5 {
        store.step(0);
    }
    fs::remove_file(store.path(0)).unwrap();
    let deleted_at = store.now;
    for _ in 0..5 {
        store.step(0);
    }
    assert!(!store.path(0).exists());
    assert_eq!(store.confirm().displaced, 1);
    assert_eq!(store.maps.displaced(), [0]);
    let refused = store
        .maps
        .update_many(0, &store.path(0), Timestamp(store.now), &[]);
    assert!(refused.unwrap_err().is_missing());
    assert_eq!(store.maps.displaced(), [0]);
    store.write_displaced();
    let stored = store.stored(0);
    assert!((deleted_at + 1..=store.now).all(|at| stored.contains(&at)));
    // Nothing comes back that its owner has deleted.
    store.step(0);
    store.maps.forget(0);
    fs::remove_file(store.path(0)).unwrap();
    store.confirm();
    assert_eq!(store.maps.displaced(), []);
}

#[test]
fn what_a_tool_did_not_see_between_reading_and_renaming_is_written_again() {
    let mut store = Store::new(1, MapOptions::default());
    store.step(0);
    let read = fs::read(store.path(0)).unwrap();
    store.step(0);
    store.confirm();
    store.step(0);
    store.replace(0, &read);
    assert_eq!(store.confirm().displaced, 1);
    store.write_displaced();
    assert_eq!(store.stored(0).len(), 3);
}

#[test]
fn points_are_kept_for_two_looks_and_no_longer() {
    let mut store = Store::new(1, MapOptions::default());
    store.step(0);
    assert_eq!(store.maps.unconfirmed(), 1);
    store.confirm();
    assert_eq!(store.maps.unconfirmed(), 1);
    store.step(0);
    store.confirm();
    assert_eq!(store.maps.unconfirmed(), 1);
    store.confirm();
    assert_eq!(store.maps.unconfirmed(), 0);
    // A look before a checkpoint gives up nothing.
    store.step(0);
    for _ in 0..3 {
        let found = store
            .maps
            .confirm_written(|file, path| *path = store.path(file));
        assert_eq!(
            found,
            Confirmed {
                files: 1,
                displaced: 0
            }
        );
    }
    assert_eq!(store.maps.unconfirmed(), 1);
}

#[test]
fn a_file_that_lost_its_map_to_another_is_looked_at_too() {
    // One map for each shard: two files of a shard take it from each other.
    let mut store = Store::new(
        64,
        MapOptions {
            max_maps: 16,
            ..MapOptions::default()
        },
    );
    store.step(0);
    store.step(0);
    assert_eq!(store.maps.mapped_files(), 1);
    // Used twice while the other is not used at all, a file takes the other's map.
    store.step(16);
    store.step(16);
    store.step(16);
    store.replace_with_copy(0);
    fs::remove_file(store.path(0)).unwrap();
    assert_eq!(store.confirm().displaced, 1);
    store.write_displaced();
    assert_eq!(store.stored(0).len(), 2);
    assert_eq!(store.stored(16).len(), 3);
}

#[test]
fn without_room_each_batch_looks_at_the_name() {
    let mut store = Store::new(1, MapOptions::default());
    let thousand = |store: &mut Store| {
        let next = |_| {
            store.now += 1;
            store.point()
        };
        let points: Vec<Point> = (0..1_000).map(next).collect();
        store.write(0, &points);
    };
    let crowded = |store: &Store, may_wait: bool| store.maps.crowded(|_| may_wait);
    for written in 1..=140 {
        thousand(&mut store);
        assert_eq!(crowded(&store, false).is_some(), written > 32, "{written}");
        // A part may wait until three quarters of its room are used up.
        assert_eq!(crowded(&store, true).is_some(), written > 98, "{written}");
    }
    assert_eq!(crowded(&store, false), Some(0));
    assert!(store.maps.unconfirmed() <= 1 << 17);
    store.replace_with_copy(0);
    // Noticed with this batch, which goes into the new file with the next.
    thousand(&mut store);
    assert_eq!(store.maps.displaced(), [0]);
    store.step(0);
    assert_eq!(store.maps.displaced(), []);
    assert_eq!(store.stored(0).len(), 141_001);
}

#[test]
fn a_watch_counts_from_the_first_look_after_it_began() {
    let mut store = Store::new(2, MapOptions::default());
    for file in 0..2 {
        store.step(file);
    }
    // Replaced before the watch: it tells of nothing, and the first look finds it.
    store.replace_with_copy(0);
    store.watch();
    assert_eq!(store.confirm().displaced, 1);
    store.write_displaced();
    store.confirm();
    // From now on names are not looked up: a change of which the watch does not tell is not seen.
    let hidden = store.watched.take();
    store.replace_with_copy(1);
    store.watched.set(hidden);
    assert_eq!(store.confirm().displaced, 0);
    // One that it tells of is.
    store.step(1);
    store.replace_with_copy(1);
    store.step(1);
    store.confirm();
    assert_eq!(store.maps.displaced(), [1]);
    store.write_displaced();
    assert_eq!(store.stored(1).len(), 3);
}

#[test]
fn what_a_link_leads_to_is_looked_up_whatever_a_watch_says() {
    let mut store = Store::new(1, MapOptions::default());
    let elsewhere = store.dir.path().join("elsewhere.wsp");
    fs::rename(store.path(0), &elsewhere).unwrap();
    symlink(&elsewhere, store.path(0)).unwrap();
    store.watch();
    store.step(0);
    for _ in 0..3 {
        assert_eq!(store.confirm().displaced, 0);
        store.step(0);
    }
    let new = store.dir.path().join("new");
    fs::copy(&elsewhere, &new).unwrap();
    fs::rename(&new, &elsewhere).unwrap();
    store.step(0);
    assert_eq!(store.confirm().displaced, 1);
    store.write_displaced();
    assert_eq!(store.stored(0).len(), 5);
}

#[derive(Clone, Debug)]
enum Step {
    Write(u32),
    Replace(u32),
    Delete(u32),
    Confirm,
    ConfirmOne(u32),
    Fetch(u32),
    WriteDisplaced,
    Watch,
    Unwatch,
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..3_u32;
    prop_oneof![
        8 => file.clone().prop_map(Step::Write),
        2 => file.clone().prop_map(Step::Replace),
        1 => file.clone().prop_map(Step::Delete),
        2 => Just(Step::Confirm),
        1 => file.clone().prop_map(Step::ConfirmOne),
        1 => file.prop_map(Step::Fetch),
        2 => Just(Step::WriteDisplaced),
        1 => Just(Step::Watch),
        1 => Just(Step::Unwatch),
    ]
}

proptest! {
    #[test]
    fn no_point_is_lost(
        steps in prop::collection::vec(step(), 1..80),
        flock in any::<bool>(),
        max_maps in prop::sample::select(vec![0_usize, 16, 100]),
    ) {
        let mut store = Store::new(3, MapOptions { flock, max_maps, ..MapOptions::default() });
        // What each file has to hold: a deletion takes what was there before it.
        let mut expected = [const { BTreeSet::new() }; 3];
        for step in steps {
            match step {
                Step::Write(file) => {
                    store.step(file);
                    expected[file as usize].insert(store.now);
                }
                Step::Replace(file) => store.replace_with_copy(file),
                Step::Delete(file) => {
                    store.delete(file);
                    expected[file as usize].clear();
                }
                Step::Confirm => {
                    store.confirm();
                }
                Step::ConfirmOne(file) => {
                    store.maps.confirm_one(file, &store.path(file));
                }
                Step::Fetch(file) => {
                    let (now, from) = (Timestamp(store.now), Timestamp(START));
                    let _ = store.maps.fetch(file, &store.path(file), now, from, now);
                }
                Step::WriteDisplaced => store.write_displaced(),
                Step::Watch => store.watch(),
                Step::Unwatch => {
                    store.watched.set(None);
                    store.changed.take();
                }
            }
        }
        store.maps.confirm_written(|file, path| *path = store.path(file));
        store.write_displaced();
        for file in 0..3 {
            let expected = &expected[file as usize];
            if expected.is_empty() {
                continue;
            }
            let missing: Vec<_> = expected.difference(&store.stored(file)).copied().collect();
            prop_assert_eq!(missing, Vec::<u32>::new(), "file {}", file);
        }
    }
}
