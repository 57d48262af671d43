//! Expiry: which series are removed and which stay, and that an id which is assigned again never writes
//! into the wrong series.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use carbon::index::Pin;
use carbon::journal::disk::RealDisk;
use carbon::options::{Options, Span};
use carbon::{Carbon, Datapoint, Observer, PointTime, SeriesId, Setup, Sink, Timestamp};
use proptest::prelude::*;
use support::NOW;

const AFTER: Duration = Duration::from_secs(600);

/// A store whose clock the test sets.
struct Store {
    dir: tempfile::TempDir,
    clock: Arc<AtomicU32>,
    options: Options,
    observer: Option<Arc<dyn Observer>>,
}

impl Store {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(AtomicU32::new(NOW)),
            options: support::options(),
            observer: None,
        }
    }

    fn open(&self) -> Carbon {
        let clock = Arc::clone(&self.clock);
        let setup = Setup {
            clock: Arc::new(move || Timestamp(clock.load(Ordering::SeqCst))),
            options: self.options.clone(),
            observer: self.observer.clone(),
            ..support::setup(Arc::new(RealDisk))
        };
        Carbon::open(setup, self.dir.path()).unwrap()
    }

    fn now(&self) -> u32 {
        self.clock.load(Ordering::SeqCst)
    }

    fn pass_time(&self, seconds: u32) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("whisper")
    }

    fn file(&self, name: &str) -> PathBuf {
        let mut path = PathBuf::new();
        carbon::series::file_path(&self.root(), name, &mut path);
        path
    }

    /// Sets the time of the last change of the file of `name`.
    fn age(&self, name: &str, at: u32) {
        age(&self.file(name), at);
    }
}

fn age(path: &Path, at: u32) {
    let at = UNIX_EPOCH + Duration::from_secs(at.into());
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(at).unwrap();
}

fn submit(carbon: &Carbon, id: SeriesId, at: u32, value: f64) {
    let at = PointTime::new(Timestamp(at)).unwrap();
    carbon.submit(&[Datapoint {
        series: id,
        at,
        value,
    }]);
}

fn leaves(carbon: &Carbon) -> BTreeSet<String> {
    let plain = carbon.index().find("**").unwrap();
    let plain = plain.into_iter().filter(|found| found.leaf);
    let plain = plain.map(|found| found.path);
    let plain = plain.filter(|path| !path.starts_with("_tagged."));
    let tagged = carbon.index().find_tagged(&["name=~.+"]).unwrap();
    plain.chain(tagged).collect()
}

fn values(carbon: &Carbon, name: &str, now: u32) -> BTreeMap<u32, f64> {
    let fetched = carbon.fetch(name, Timestamp(now - 3_000), Timestamp(now), Timestamp(now));
    let fetched = fetched.unwrap();
    let points = fetched.iter().flat_map(|fetched| fetched.points.points());
    points
        .filter(|(_, value)| !whisper::is_absent(*value))
        .map(|(at, value)| (at.0, value))
        .collect()
}

fn empty_directories(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        let entries: Vec<_> = fs::read_dir(&directory)
            .unwrap()
            .map(Result::unwrap)
            .collect();
        if entries.is_empty() && directory != root {
            found.push(directory.clone());
        }
        let paths = entries.into_iter().map(|entry| entry.path());
        todo.extend(paths.filter(|path| path.is_dir()));
    }
    found
}

/// Damages a file and moves another away, to which a link leads; where it is now.
fn damage_and_link(store: &Store, changed: u32) -> PathBuf {
    fs::write(store.file("damaged.file"), b"no whisper file").unwrap();
    age(&store.file("damaged.file"), changed);
    let elsewhere = store.dir.path().join("elsewhere.wsp");
    fs::rename(store.file("linked.file"), &elsewhere).unwrap();
    symlink(&elsewhere, store.file("linked.file")).unwrap();
    elsewhere
}

#[test]
fn file_directories_index_and_tags_of_the_silent_go_and_nothing_else() {
    let store = Store::new();
    let carbon = store.open();
    let names = [
        "old.alone.deep.gone",
        "old.with.neighbour",
        "new.with.neighbour",
        "new.points",
        "new.file",
        "damaged.file",
        "linked.file",
        "m;host=a",
        "m;host=b;only=here",
    ];
    let before = NOW - 1_000;
    for name in names {
        let recent = name.starts_with("new.") && name != "new.file" || name == "m;host=a";
        let id = carbon.intern(name.as_bytes()).unwrap();
        submit(&carbon, id, if recent { NOW - 10 } else { before }, 1.0);
    }
    carbon.persist();
    for name in names {
        let changed = if name == "new.file" { NOW - 10 } else { before };
        store.age(name, changed);
    }
    let elsewhere = damage_and_link(&store, before);
    // A series with waiting points stays, however old its file is.
    let waits = carbon.intern(b"old.but.waits").unwrap();
    submit(&carbon, waits, before, 1.0);

    let mut seen = Vec::new();
    let found = carbon.idle_series(AFTER, |idle| seen.push(idle.name.clone()));
    seen.retain(|name| name != "old.but.waits");
    let mut expected = vec![
        "m;host=b;only=here",
        "old.alone.deep.gone",
        "old.with.neighbour",
    ];
    seen.sort();
    assert_eq!(seen, expected);
    assert_eq!((found.removed, leaves(&carbon).len()), (0, names.len() + 1));

    let mut seen = Vec::new();
    let done = carbon.expire(AFTER, |idle| {
        assert!(idle.size_bytes > 0 && idle.changed.0 == before, "{idle:?}");
        seen.push(idle.name.clone());
    });
    seen.sort();
    assert_eq!(seen, expected);
    assert_eq!(done.unwrap().removed, 3);
    expected.extend(["linked.file", "damaged.file"]);
    let mut left: BTreeSet<String> = names.map(str::to_owned).into();
    left.insert("old.but.waits".to_owned());
    left.retain(|name| !expected[..3].contains(&name.as_str()));
    assert_eq!(leaves(&carbon), left);
    for name in &left {
        if name != "old.but.waits" {
            assert!(store.file(name).exists(), "{name}");
        }
    }
    assert!(elsewhere.exists());
    assert!(!store.root().join("old").join("alone").exists());
    assert_eq!(empty_directories(&store.root()), Vec::<PathBuf>::new());
    let tags: Vec<String> = carbon.index().tags().into_iter().map(|tag| tag.1).collect();
    assert_eq!(tags, ["host", "name"]);
    assert_eq!(carbon.stats().expired.get(), 3);

    carbon.drain(|_| {}).unwrap();
    drop(carbon);
    is_so_after_a_restart_and_data_revives(&store, &left);
}

fn is_so_after_a_restart_and_data_revives(store: &Store, left: &BTreeSet<String>) {
    let carbon = store.open();
    assert_eq!(leaves(&carbon), *left);
    let id = carbon.intern(b"old.with.neighbour").unwrap();
    submit(&carbon, id, NOW, 7.0);
    carbon.persist();
    assert_eq!(
        values(&carbon, "old.with.neighbour", NOW),
        [(NOW, 7.0)].into()
    );
    assert!(store.file("old.with.neighbour").exists());
}

#[test]
fn a_held_id_revives_its_own_series() {
    let store = Store::new();
    let carbon = store.open();
    let held = carbon.intern(b"kept.by.a.holder").unwrap();
    submit(&carbon, held, NOW - 1_000, 1.0);
    carbon.persist();
    store.age("kept.by.a.holder", NOW - 1_000);
    assert_eq!(carbon.expire(AFTER, |_| {}).unwrap().removed, 1);
    for n in 0..4 {
        carbon.reclaim();
        let other = carbon.intern(format!("other.m{n}").as_bytes()).unwrap();
        assert_ne!(other, held);
    }
    assert!(leaves(&carbon).is_empty());
    submit(&carbon, held, NOW, 5.0);
    assert_eq!(leaves(&carbon), ["kept.by.a.holder".to_owned()].into());
    assert_eq!(
        values(&carbon, "kept.by.a.holder", NOW),
        [(NOW, 5.0)].into()
    );
    carbon.persist();
    assert_eq!(
        values(&carbon, "kept.by.a.holder", NOW),
        [(NOW, 5.0)].into()
    );
}

#[test]
fn a_passer_by_with_an_old_id_writes_into_its_own_series() {
    let store = Store::new();
    let carbon = store.open();
    let pin = carbon.index().pin();
    let id = carbon.index().admit(b"passed.by").unwrap();
    submit(&carbon, id, NOW - 1_000, 1.0);
    carbon.persist();
    store.age("passed.by", NOW - 1_000);
    assert_eq!(carbon.expire(AFTER, |_| {}).unwrap().removed, 1);
    // It is unlinked, but not freed while the pin exists.
    for _ in 0..4 {
        assert_eq!(carbon.reclaim(), 0);
    }
    // The name has another id now, and the old one is used once more.
    let again = carbon.intern(b"passed.by").unwrap();
    assert_ne!(again, id);
    submit(&carbon, id, NOW - 10, 3.0);
    submit(&carbon, again, NOW, 4.0);
    drop(pin);
    carbon.persist();
    let expected = [(NOW - 10, 3.0), (NOW, 4.0)].into();
    assert_eq!(values(&carbon, "passed.by", NOW), expected);
    assert_eq!(leaves(&carbon), ["passed.by".to_owned()].into());
    // The file was created under the old id, and is known under the new one.
    assert_eq!(carbon.idle_series(AFTER, |_| {}).series, 1);
    // Now the id is freed, and its series stays complete.
    assert_eq!(carbon.reclaim(), 1);
    let other = carbon.intern(b"other").unwrap();
    assert_eq!(other, id);
    submit(&carbon, other, NOW, 9.0);
    carbon.persist();
    assert_eq!(values(&carbon, "other", NOW), [(NOW, 9.0)].into());
    assert_eq!(values(&carbon, "passed.by", NOW), expected);
}

#[test]
fn after_a_crash_points_under_a_reused_id_are_those_of_its_new_name() {
    let store = Store::new();
    let carbon = store.open();
    let old = carbon.intern(b"old.name").unwrap();
    submit(&carbon, old, NOW - 1_000, 1.0);
    carbon.release(&[old]);
    carbon.persist();
    store.age("old.name", NOW - 1_000);
    carbon.expire(AFTER, |_| {}).unwrap();
    carbon.reclaim();
    assert_eq!(carbon.reclaim(), 1);
    let new = carbon.intern(b"new.name").unwrap();
    assert_eq!(new, old);
    submit(&carbon, new, NOW, 2.0);
    carbon.commit().unwrap();
    carbon.abandon();
    let carbon = store.open();
    assert_eq!(values(&carbon, "new.name", NOW), [(NOW, 2.0)].into());
    // The journal still had its points. It expires again when it is due.
    assert_eq!(
        values(&carbon, "old.name", NOW),
        [(NOW - 1_000, 1.0)].into()
    );
}

#[test]
fn the_log_of_what_expired_is_written_anew_at_the_end() {
    let store = Store::new();
    let carbon = store.open();
    let log = store.dir.path().join("index").join("names");
    for round in 0..5 {
        for n in 0..20 {
            let name = format!("some.service.m{n}.{round}");
            let pin = carbon.index().pin();
            let id = carbon.index().admit(name.as_bytes()).unwrap();
            submit(&carbon, id, store.now(), 1.0);
            drop(pin);
            carbon.persist();
            store.age(&name, store.now());
        }
        store.pass_time(700);
        assert_eq!(carbon.expire(AFTER, |_| {}).unwrap().removed, 20);
        carbon.reclaim();
        assert_eq!(carbon.reclaim(), 20);
    }
    let worn = fs::metadata(&log).unwrap().len();
    carbon.drain(|_| {}).unwrap();
    let kept = fs::metadata(&log).unwrap().len();
    assert!(worn > 1_000 && kept < 100, "{worn} {kept}");
}

#[test]
fn an_observer_is_told_whose_an_id_is() {
    #[derive(Default)]
    struct Recorder(std::sync::Mutex<Vec<String>>);
    impl Observer for Recorder {
        fn named(&self, series: SeriesId, name: &str) {
            self.0
                .lock()
                .unwrap()
                .push(format!("{} is {name}", series.0));
        }
        fn forgotten(&self, series: SeriesId) {
            self.0.lock().unwrap().push(format!("{} is free", series.0));
        }
        fn taken(&self, _: &[Datapoint]) {}
    }
    let recorder = Arc::new(Recorder::default());
    let mut store = Store::new();
    store.observer = Some(recorder.clone());
    let carbon = store.open();
    for name in ["a", "b", "a"] {
        let id = carbon.intern(name.as_bytes()).unwrap();
        submit(&carbon, id, NOW - 1_000, 1.0);
        carbon.release(&[id]);
        carbon.persist();
        store.age(name, NOW - 1_000);
        carbon.expire(AFTER, |_| {}).unwrap();
        carbon.reclaim();
        carbon.reclaim();
    }
    let recorder = recorder.0.lock().unwrap();
    let expected = [
        "0 is a",
        "0 is free",
        "0 is b",
        "0 is free",
        "0 is a",
        "0 is free",
    ];
    assert_eq!(*recorder, expected);
}

#[test]
fn a_running_store_expires_by_itself_and_not_by_a_clock_that_jumps() {
    let mut store = Store::new();
    store.options.expire_after = Span::seconds(10_000);
    let carbon = store.open();
    for name in ["old.one", "young.one"] {
        let id = carbon.intern(name.as_bytes()).unwrap();
        submit(&carbon, id, NOW, 1.0);
    }
    carbon.drain(|_| {}).unwrap();
    drop(carbon);
    store.age("old.one", NOW - 20_000);
    store.age("young.one", NOW - 5_000);
    // The clock is ten years ahead at the start already: the time from before the restart counts.
    store.pass_time(10 * 365 * 86_400);
    let carbon = store.open();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while carbon.stats().expired.get() == 0 {
        assert!(std::time::Instant::now() < deadline);
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(leaves(&carbon), ["young.one".to_owned()].into());
    assert!(store.file("young.one").exists() && !store.file("old.one").exists());
    carbon.drain(|_| {}).unwrap();
    assert!(store.file("young.one").exists());
}

#[test]
fn expiry_does_not_wait_for_a_pass_of_the_persister() {
    let mut store = Store::new();
    let carbon = store.open();
    let id = carbon.intern(b"old.one").unwrap();
    submit(&carbon, id, NOW - 1_000, 1.0);
    carbon.release(&[id]);
    carbon.drain(|_| {}).unwrap();
    drop(carbon);
    store.age("old.one", NOW - 1_000);
    // A pass over these takes a minute.
    store.options.max_updates_per_second = 1;
    let carbon = store.open();
    for n in 0..60 {
        let id = carbon.intern(format!("new.n{n}").as_bytes()).unwrap();
        submit(&carbon, id, NOW, 1.0);
    }
    while carbon.stats().updates.get() == 0 {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(carbon.expire(AFTER, |_| {}).unwrap().removed, 1);
    let freed: usize = (0..2).map(|_| carbon.reclaim()).sum();
    assert_eq!(freed, 1);
    assert!(carbon.stats().updates.get() < 50);
    assert!(!store.file("old.one").exists());
    carbon.abandon();
}

#[test]
fn a_point_that_arrives_while_its_file_is_deleted_is_kept() {
    let store = Store::new();
    let carbon = store.open();
    let mut removed = 0;
    for round in 0..200 {
        let name = format!("back.n{round}");
        let id = carbon.intern(name.as_bytes()).unwrap();
        submit(&carbon, id, NOW - 1_000, 0.0);
        carbon.persist();
        store.age(&name, NOW - 1_000);
        let barrier = std::sync::Barrier::new(2);
        removed += std::thread::scope(|scope| {
            let expiring = scope.spawn(|| {
                barrier.wait();
                carbon.expire(AFTER, |_| {}).unwrap().removed
            });
            barrier.wait();
            // Every other time the point arrives just after the deletion.
            while round % 2 == 1 && store.file(&name).exists() {
                std::hint::spin_loop();
            }
            submit(&carbon, id, NOW - 10, 7.0);
            carbon.persist();
            expiring.join().unwrap()
        });
        assert_eq!(values(&carbon, &name, NOW).get(&(NOW - 10)), Some(&7.0));
        assert!(leaves(&carbon).contains(&name));
    }
    assert!(removed >= 100);
}

#[derive(Clone, Debug)]
enum Step {
    /// A line of this name.
    Line(usize),
    /// The statsd side interns, uses or releases an id.
    Hold(usize),
    Use(usize),
    Release(usize),
    /// A connection looks a name up and submits its points some time later.
    LookUp(usize),
    HandOn,
    Wait(u32),
    Expire,
    Reclaim,
    Checkpoint,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..8).prop_map(Step::Line),
        2 => (0_usize..8).prop_map(Step::Hold),
        3 => (0_usize..8).prop_map(Step::Use),
        2 => (0_usize..8).prop_map(Step::Release),
        3 => (0_usize..8).prop_map(Step::LookUp),
        3 => Just(Step::HandOn),
        4 => (1_u32..40).prop_map(|n| Step::Wait(n * 10)),
        5 => Just(Step::Expire),
        6 => Just(Step::Reclaim),
        1 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
    ]
}

/// Has the store and its twin expire what had no point for long at `now`.
fn expire(store: &Store, carbon: &Carbon, twin: &mut Twin, now: u32) {
    carbon.persist();
    for (name, points) in &*twin {
        store.age(name, *points.keys().last().unwrap());
    }
    carbon.expire(AFTER, |_| {}).unwrap();
    let cutoff = now - AFTER.as_secs() as u32;
    twin.retain(|_, points| *points.keys().last().unwrap() >= cutoff);
}

/// The points of each name.
type Twin = BTreeMap<&'static str, BTreeMap<u32, f64>>;

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// The naive twin is a map from names to points that drops old ones.
    #[test]
    fn as_a_map_of_names(steps in prop::collection::vec(step(), 1..60)) {
        const NAMES: [&str; 8] = ["a", "a.b", "a.b.c", "a.b.d", "x.y.z", "x.y", "m;t=1", "m;t=2"];
        let store = Store::new();
        // Leaked, so that pins may outlive a step. Its threads are ended.
        let open = || -> &'static Carbon { Box::leak(Box::new(store.open())) };
        let mut carbon = open();
        let mut pin: Option<Pin<'static>> = None;
        let mut twin = Twin::new();
        let mut held: BTreeMap<&str, Vec<SeriesId>> = BTreeMap::new();
        let mut in_hand: Vec<(SeriesId, &str)> = Vec::new();
        let mut value = 0.0;
        for step in steps {
            let now = store.now();
            let mut put = |id: SeriesId, name: &'static str| {
                value += 1.0;
                submit(carbon, id, now, value);
                twin.entry(name).or_default().insert(now, value);
            };
            match step {
                Step::Line(n) => {
                    let _pin = carbon.index().pin();
                    put(carbon.index().admit(NAMES[n].as_bytes()).unwrap(), NAMES[n]);
                }
                Step::Hold(n) => {
                    let id = carbon.intern(NAMES[n].as_bytes()).unwrap();
                    held.entry(NAMES[n]).or_default().push(id);
                }
                Step::Use(n) => {
                    if let Some(id) = held.get(NAMES[n]).and_then(|ids| ids.last()) {
                        put(*id, NAMES[n]);
                    }
                }
                Step::Release(n) => {
                    if let Some(id) = held.get_mut(NAMES[n]).and_then(Vec::pop) {
                        carbon.release(&[id]);
                    }
                }
                // Points with one name and timestamp that two connections submit later have no order.
                Step::LookUp(n) if in_hand.iter().any(|(_, name)| *name == NAMES[n]) => {}
                Step::LookUp(n) => {
                    pin.get_or_insert_with(|| carbon.index().pin());
                    in_hand.push((carbon.index().admit(NAMES[n].as_bytes()).unwrap(), NAMES[n]));
                }
                Step::HandOn => {
                    for (id, name) in in_hand.drain(..) {
                        put(id, name);
                    }
                    pin = None;
                }
                Step::Wait(seconds) => store.pass_time(seconds),
                Step::Expire => {
                    expire(&store, carbon, &mut twin, now);
                    prop_assert_eq!(empty_directories(&store.root()), Vec::<PathBuf>::new());
                }
                Step::Reclaim => { carbon.reclaim(); }
                Step::Checkpoint => carbon.checkpoint().unwrap(),
                Step::Restart => {
                    in_hand.clear();
                    held.clear();
                    pin = None;
                    carbon.drain(|_| {}).unwrap();
                    carbon = open();
                }
            }
            let names: BTreeSet<String> = twin.keys().map(|name| (*name).to_owned()).collect();
            prop_assert_eq!(leaves(carbon), names);
            let now = store.now();
            carbon.persist();
            for name in NAMES {
                let mut points = twin.get(name).cloned().unwrap_or_default();
                points.retain(|at, _| *at > now - 3_000);
                prop_assert_eq!(values(carbon, name, now), points, "{}", name);
            }
        }
        drop(pin);
        carbon.drain(|_| {}).unwrap();
    }
}
