//! What others do to files while they are mapped: the process lives, says what happened, and good
//! files stay good.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use whisper::map::{Event, Name};
use whisper::resize::Target;
use whisper::{
    Aggregation, Allocation, CreateOptions, Error, File, Lock, MapOptions, Maps, Point,
    ResizeOptions, Retention, Timestamp, create, resize,
};

const START: u32 = 1_700_000_040;

fn options() -> CreateOptions {
    // Several pages long, so that there is something to cut off.
    let retentions = [(10, 720), (60, 1440)].map(|(step, n)| Retention::new(step, n).unwrap());
    CreateOptions {
        x_files_factor: 0.0,
        ..CreateOptions::new(retentions.into())
    }
}

/// A store with a file under test (1) and another (2) that must not suffer.
struct Live {
    _dir: tempfile::TempDir,
    maps: Maps,
    path: PathBuf,
    other: PathBuf,
    now: u32,
}

impl Live {
    fn new(map_options: MapOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.wsp"), dir.path().join("b.wsp"));
        let mut live = Self {
            _dir: dir,
            maps: Maps::new(map_options),
            path,
            other,
            now: START,
        };
        live.maps.create(&live.path, &options()).unwrap();
        live.maps.create(&live.other, &options()).unwrap();
        for _ in 0..30 {
            live.step().unwrap();
        }
        assert_eq!(
            live.maps.mapped_files(),
            if map_options.max_maps == 0 { 0 } else { 2 }
        );
        assert!(live.maps.take_events().is_empty());
        live
    }

    /// Ten seconds later, a point for each file. The other file's is always taken.
    fn step(&mut self) -> Result<(), Error> {
        self.now += 10;
        let (now, points) = (
            Timestamp(self.now),
            [Point::new(self.now, f64::from(self.now))],
        );
        self.maps.update_many(2, &self.other, now, &points).unwrap();
        self.maps.update_many(1, &self.path, now, &points).map(drop)
    }

    /// How many of the points up to now a file read for itself holds.
    fn known(&self, path: &Path) -> usize {
        let (now, from) = (Timestamp(self.now), Timestamp(START));
        let fetched = File::open(path)
            .unwrap()
            .fetch(now, from, now)
            .unwrap()
            .unwrap();
        let known = fetched
            .points()
            .filter(|(at, value)| *value == f64::from(at.0));
        known.count()
    }

    fn all(&self) -> usize {
        (self.now - START) as usize / 10
    }

    /// Both files have all their points: those that the one under test had swallowed were written
    /// again.
    fn goes_on(&mut self) {
        for _ in 0..5 {
            self.step().unwrap();
        }
        assert_eq!(self.known(&self.path), self.all());
        assert_eq!(self.known(&self.other), self.all());
    }

    /// As the owner does it: a new file, and the batch that was refused once more.
    fn create_again(&mut self) {
        self.maps.create(&self.path, &options()).unwrap();
        let point = [Point::new(self.now, f64::from(self.now))];
        let (now, path) = (Timestamp(self.now), &self.path);
        self.maps.update_many(1, path, now, &point).unwrap();
        self.goes_on();
    }
}

fn set_aside(events: &[Event]) -> &Path {
    let aside = events.iter().find_map(|event| match event {
        Event::SetAside { aside, .. } => Some(aside),
        _ => None,
    });
    aside.unwrap_or_else(|| panic!("{events:?}"))
}

#[test]
fn a_file_cut_within_its_header_is_set_aside() {
    let mut live = Live::new(MapOptions::default());
    fs::OpenOptions::new()
        .write(true)
        .open(&live.path)
        .unwrap()
        .set_len(0)
        .unwrap();
    let refused = live.step().unwrap_err();
    assert!(refused.is_missing(), "{refused}");
    let events = live.maps.take_events();
    assert!(matches!(events[0], Event::Lost { .. }), "{events:?}");
    assert_eq!(set_aside(&events).extension().unwrap(), "corrupt");
    live.create_again();
}

#[test]
fn a_file_cut_below_what_is_written_is_set_aside() {
    let mut live = Live::new(MapOptions {
        recheck: 1_000_000,
        ..MapOptions::default()
    });
    // The header stays, the points and the coarser archive go.
    fs::OpenOptions::new()
        .write(true)
        .open(&live.path)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let refused = (0..200).find_map(|_| live.step().err()).unwrap();
    assert!(refused.is_missing(), "{refused}");
    set_aside(&live.maps.take_events());
    live.create_again();
}

#[test]
fn a_cut_file_does_not_hurt_readers() {
    let live = Live::new(MapOptions::default());
    fs::OpenOptions::new()
        .write(true)
        .open(&live.path)
        .unwrap()
        .set_len(4096)
        .unwrap();
    let (now, from) = (Timestamp(live.now), Timestamp(live.now - 20_000));
    let refused = live.maps.fetch(1, &live.path, now, from, now).unwrap_err();
    assert!(matches!(refused, Error::Truncated { .. }), "{refused}");
    assert!(matches!(live.maps.take_events()[..], [Event::Lost { .. }]));
    // Reading sets nothing aside.
    assert!(live.path.exists());
}

#[test]
fn a_zeroed_file_is_set_aside() {
    let mut live = Live::new(MapOptions::default());
    let len = fs::metadata(&live.path).unwrap().len();
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().write(true).open(&live.path).unwrap();
    file.write_all_at(&vec![0; len as usize], 0).unwrap();
    assert!(live.step().unwrap_err().is_missing());
    let events = live.maps.take_events();
    assert_eq!(fs::read(set_aside(&events)).unwrap(), vec![0; len as usize]);
    live.create_again();
}

#[test]
fn a_corrupt_header_is_set_aside_and_nothing_is_overwritten() {
    let mut live = Live::new(MapOptions::default());
    for n in 0..3 {
        let mut bytes = fs::read(&live.path).unwrap();
        bytes[..4].copy_from_slice(&[0xff, 0, 0, n]);
        // As an editor does it: emptied, then written.
        fs::write(&live.path, &bytes).unwrap();
        assert!(live.step().unwrap_err().is_missing());
        let events = live.maps.take_events();
        assert_eq!(fs::read(set_aside(&events)).unwrap(), bytes);
        live.maps.create(&live.path, &options()).unwrap();
        live.step().unwrap();
    }
    let names = fs::read_dir(live.path.parent().unwrap()).unwrap();
    assert_eq!(names.count(), 2 + 3);
}

#[test]
fn a_replaced_file_is_noticed_within_the_period_or_at_once() {
    for (options, noticed_after) in [
        (
            MapOptions {
                recheck: 0,
                ..MapOptions::default()
            },
            1,
        ),
        (
            MapOptions {
                recheck: 60,
                ..MapOptions::default()
            },
            6,
        ),
        (
            MapOptions {
                flock: true,
                ..MapOptions::default()
            },
            1,
        ),
    ] {
        let mut live = Live::new(options);
        let new = live.path.with_extension("new");
        create(&new, &self::options()).unwrap();
        fs::rename(&new, &live.path).unwrap();
        for _ in 0..noticed_after + 1 {
            live.step().unwrap();
        }
        let events = live.maps.take_events();
        assert!(matches!(events[..], [Event::Replaced { .. }]), "{events:?}");
        assert!(live.known(&live.path) >= 1);
        live.goes_on();
    }
}

#[test]
fn a_name_that_looks_have_seen_is_not_looked_up_again() {
    let mut live = Live::new(MapOptions {
        recheck: 0,
        ..MapOptions::default()
    });
    // All mapped files are looked at in the first round.
    for _ in 0..16 {
        live.maps.confirm_next(|asked, path| {
            *path = [&live.path, &live.other][asked.key as usize - 1].clone();
            Name::Unknown
        });
    }
    let new = live.path.with_extension("new");
    create(&new, &options()).unwrap();
    fs::rename(&new, &live.path).unwrap();
    live.step().unwrap();
    assert!(live.maps.take_events().is_empty());
    live.maps.distrust();
    live.step().unwrap();
    let events = live.maps.take_events();
    assert!(matches!(events[..], [Event::Replaced { .. }]), "{events:?}");
}

#[test]
fn distrust_looks_every_name_up() {
    let mut live = Live::new(MapOptions {
        recheck: 1_000_000,
        ..MapOptions::default()
    });
    let new = live.path.with_extension("new");
    create(&new, &options()).unwrap();
    fs::rename(&new, &live.path).unwrap();
    live.step().unwrap();
    assert_eq!(live.known(&live.path), 0);
    live.maps.distrust();
    live.step().unwrap();
    assert_eq!(live.known(&live.path), live.all());
}

#[test]
fn a_deleted_file_is_missing() {
    let mut live = Live::new(MapOptions {
        recheck: 0,
        ..MapOptions::default()
    });
    fs::remove_file(&live.path).unwrap();
    assert!(live.step().unwrap_err().is_missing());
    assert!(matches!(
        live.maps.take_events()[..],
        [Event::Replaced { .. }]
    ));
    live.create_again();
    // Deleted by the owner of the store, who says so.
    live.maps.forget(1);
    fs::remove_file(&live.path).unwrap();
    assert!(live.step().unwrap_err().is_missing());
    assert!(live.maps.take_events().is_empty());
}

#[test]
fn new_methods_and_factors_are_seen_at_once() {
    let mut live = Live::new(MapOptions {
        recheck: 1_000_000,
        ..MapOptions::default()
    });
    let mut file = File::open_mut(&live.path, Lock::None).unwrap();
    file.set(Some(Aggregation::Max), Some(0.0)).unwrap();
    live.now += 60 - live.now % 60;
    live.step().unwrap();
    live.step().unwrap();
    let (now, minute) = (Timestamp(live.now), live.now - live.now % 60);
    let from = Timestamp(minute - 60);
    let fetched = file.fetch_archive(now, from, now, 60).unwrap().unwrap();
    assert_eq!(fetched.values.last(), Some(&f64::from(live.now)));
    assert!(live.maps.take_events().is_empty());
}

#[test]
fn a_resize_beside_a_live_store_loses_nothing() {
    let mut live = Live::new(MapOptions {
        recheck: 1_000_000,
        ..MapOptions::default()
    });
    let before = fs::metadata(&live.path).unwrap();
    let resized = ResizeOptions {
        retentions: [(10, 2000), (60, 3000)]
            .map(|(s, n)| Retention::new(s, n).unwrap())
            .into(),
        x_files_factor: None,
        aggregation: None,
        allocation: Allocation::Reserved,
        target: Target::Replace {
            backup: Some(live.path.with_extension("bak")),
        },
    };
    std::thread::scope(|scope| {
        let path = live.path.clone();
        let now = Timestamp(live.now + 500 * 10);
        let resizing = scope.spawn(move || resize(&path, || now, &resized).unwrap());
        for _ in 0..500 {
            live.step().unwrap();
        }
        resizing.join().unwrap();
    });
    live.step().unwrap();
    assert_eq!(live.known(&live.path), live.all());
    let after = fs::metadata(&live.path).unwrap();
    assert_eq!(
        (before.uid(), before.gid(), before.mode()),
        (after.uid(), after.gid(), after.mode())
    );
    assert_ne!(before.ino(), after.ino());
    assert_eq!(
        File::open(&live.path).unwrap().header().archives()[0].points,
        2000
    );
    assert!(File::open(&live.path.with_extension("bak")).is_ok());
    live.goes_on();
}

#[test]
fn sparse_files_of_others_are_filled_before_they_are_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse.wsp");
    create(
        &path,
        &CreateOptions {
            allocation: Allocation::Sparse,
            ..options()
        },
    )
    .unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 < 26_000);
    let maps = Maps::new(MapOptions::default());
    maps.update_many(1, &path, Timestamp(START), &[Point::new(START, 1.0)])
        .unwrap();
    assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 25_960);
    assert_eq!(maps.mapped_files(), 1);
}

#[test]
fn a_round_over_more_files_than_there_is_room_for_keeps_its_maps() {
    let dir = tempfile::tempdir().unwrap();
    let maps = Maps::new(MapOptions {
        max_maps: 32,
        ..MapOptions::default()
    });
    let path = |n: u32| dir.path().join(format!("{n}.wsp"));
    for n in 0..320 {
        maps.create(&path(n), &options()).unwrap();
    }
    let mut now = START;
    for _ in 0..4 {
        now += 10;
        for n in 0..320 {
            maps.update_many(n, &path(n), Timestamp(now), &[Point::new(now, 1.0)])
                .unwrap();
        }
        assert_eq!(maps.mapped_files(), 32);
    }
    // When only some go on, they get the maps of those that do not.
    for _ in 0..20 {
        now += 10;
        for n in 300..320 {
            maps.update_many(n, &path(n), Timestamp(now), &[Point::new(now, 1.0)])
                .unwrap();
        }
    }
    for n in 300..320 {
        let (now, from) = (Timestamp(now), Timestamp(START));
        let fetched = maps.fetch(n, &path(n), now, from, now).unwrap().unwrap();
        assert_eq!(
            fetched.values.iter().filter(|value| **value == 1.0).count(),
            24
        );
    }
    assert!(maps.take_events().is_empty());
}

#[test]
fn a_full_tmpfs_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mount) = Mounted::new(&["-t", "tmpfs", "-o", "size=256k", "tmpfs"], dir.path()) else {
        return;
    };
    fills_up(dir.path());
    drop(mount);
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    fs::File::create(&image).unwrap().set_len(2 << 20).unwrap();
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-m", "0"])
        .arg(&image)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        println!("skipped: there is no mkfs.ext4");
        return;
    }
    let inside = dir.path().join("mounted");
    fs::create_dir(&inside).unwrap();
    let Some(mount) = Mounted::new(&["-o", "loop", image.to_str().unwrap()], &inside) else {
        return;
    };
    fills_up(&inside);
    drop(mount);
}

/// Creates until no more fits, goes on writing to what is there, makes room, and creates again.
fn fills_up(dir: &Path) {
    let maps = Maps::new(MapOptions::default());
    let path = |n: u32| dir.join(format!("{n}.wsp"));
    // A file full of holes, which there will be no room to fill.
    create(
        &path(1000),
        &CreateOptions {
            allocation: Allocation::Sparse,
            ..options()
        },
    )
    .unwrap();
    let write =
        |n: u32, at: u32| maps.update_many(n, &path(n), Timestamp(at), &[Point::new(at, 1.0)]);
    let mut n = 0;
    let refused = loop {
        match maps.create(&path(n), &options()) {
            Ok(()) => write(n, START).map(drop).unwrap(),
            Err(refused) => break refused,
        }
        n += 1;
    };
    assert!(n > 2 && refused.is_disk_full(), "after {n}: {refused}");
    // The refused create left nothing, not even under its temporary name.
    let names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert!(
        names
            .iter()
            .all(|name| !name.to_string_lossy().ends_with(".new")),
        "{names:?}"
    );
    for round in 1..200 {
        for n in 0..n {
            write(n, START + round * 10).unwrap();
        }
    }
    // The last blocks go to somebody else; then the holes cannot be filled, and that is an error
    // of a write, not a signal.
    let mut greedy = fs::File::create(dir.join("greedy")).unwrap();
    while std::io::Write::write(&mut greedy, &[1; 512]).is_ok_and(|n| n > 0) {}
    match write(1000, START) {
        Err(refused) => assert!(refused.is_disk_full(), "{refused}"),
        Ok(_) => assert_eq!(maps.take_events().len(), 1),
    }
    drop(greedy);
    fs::remove_file(dir.join("greedy")).unwrap();
    maps.forget(0);
    fs::remove_file(path(0)).unwrap();
    maps.create(&path(0), &options()).unwrap();
    for n in 0..n {
        write(n, START + 2000).unwrap();
        let (now, from) = (Timestamp(START + 2000), Timestamp(START - 10));
        let fetched = File::open(&path(n))
            .unwrap()
            .fetch(now, from, now)
            .unwrap()
            .unwrap();
        let known = fetched.values.iter().filter(|value| **value == 1.0).count();
        assert_eq!(known, if n == 0 { 1 } else { 201 });
    }
}

/// A mounted filesystem.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts, or says why not: it takes root and a kernel that knows the filesystem.
    fn new(args: &[&str], at: &Path) -> Option<Self> {
        let output = Command::new("mount").args(args).arg(at).output();
        match output {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            Ok(output) => {
                println!(
                    "skipped: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                None
            }
            Err(e) => {
                println!("skipped: mount: {e}");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}
