//! Full caches, full journals, full disks, damaged files, limits: no point is dropped, and no work stops
//! that could go on.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carbon::journal::disk::RealDisk;
use carbon::options::{ByteSize, JournalOptions, Options, Span, SyncPolicy};
use carbon::schema::Schema;
use carbon::{Access, Carbon, Setup, Sink, Timestamp};
use support::{FullCache, NOW, Recorder, point, reopen, series, setup, values};
use whisper::Retention;

#[test]
fn a_stop_writes_everything_and_empties_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let carbon = reopen(dir.path());
    let ids = series(&carbon, 50);
    for n in (1..20).rev() {
        carbon.submit(&ids.iter().map(|id| point(*id, n)).collect::<Vec<_>>());
    }
    let before = values(&carbon, "test.m7");
    assert_eq!(before.len(), 19);
    let mut left = usize::MAX;
    carbon.drain(|points| left = points).unwrap();
    assert_eq!(left, 0);
    drop(carbon);
    let carbon = reopen(dir.path());
    assert_eq!(carbon.stats().journal_replayed.get(), 0);
    assert!(carbon.cache().is_empty());
    assert_eq!(values(&carbon, "test.m7"), before);
    assert_eq!(carbon.index().find("test.*").unwrap().len(), 50);
}

#[test]
fn a_full_cache_holds_receivers_up_and_takes_no_more_memory() {
    let full = FullCache::new();
    let FullCache { carbon, points, .. } = &full;
    assert_eq!(carbon.try_submit(&points[100..]), 0);
    assert!(carbon.cache().used_bytes() <= carbon.cache().max_bytes());
    // Queries see the points that were taken.
    assert_eq!(values(carbon, "test.m99").len(), 1);
    assert!(values(carbon, "test.m100").is_empty());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| carbon.submit(&points[100..]));
        while carbon.stats().waits.get() == 0 {
            std::thread::yield_now();
        }
        assert!(!waiting.is_finished());
        full.make_room();
        waiting.join().unwrap();
    });
    carbon.drain(|_| {}).unwrap();
    assert_eq!(carbon.stats().committed.get(), 200);
    assert_eq!(values(carbon, "test.m199").len(), 1);
}

#[test]
fn a_full_journal_holds_receivers_up_until_files_are_synced() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Recorder::default());
    let setup = Setup {
        journal: JournalOptions {
            sync: SyncPolicy::Every(Span::millis(1)),
            max_size: ByteSize(4_096),
        },
        ..setup(disk.clone())
    };
    let carbon = Carbon::open(setup, dir.path()).unwrap();
    disk.stuck.store(true, Ordering::SeqCst);
    let ids = series(&carbon, 100);
    let mut taken = 0;
    for n in (0..200).rev() {
        let points: Vec<_> = ids.iter().map(|id| point(*id, n)).collect();
        match carbon.try_submit(&points) {
            0 => break,
            some => taken += some,
        }
    }
    assert!(taken > 0 && taken < 20_000, "{taken} taken");
    assert_eq!(carbon.try_submit(&[point(ids[0], 0)]), 0);
    disk.stuck.store(false, Ordering::SeqCst);
    carbon.submit(&[point(ids[0], 0)]);
    assert!(carbon.stats().journal_dropped.get() > 0);
    carbon.abandon();
}

#[test]
fn creations_are_put_off_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let with_limit = || Setup {
        options: Options {
            max_creates_per_minute: 1,
            ..support::options()
        },
        ..setup(Arc::new(RealDisk))
    };
    let carbon = Carbon::open(with_limit(), dir.path()).unwrap();
    let ids = series(&carbon, 10);
    carbon.submit(&ids.iter().map(|id| point(*id, 1)).collect::<Vec<_>>());
    carbon.persist();
    assert_eq!(carbon.stats().creates.get(), 1);
    assert!(carbon.stats().creates_delayed.get() >= 9);
    for n in 0..10 {
        assert_eq!(values(&carbon, &format!("test.m{n}")).len(), 1);
    }
    // Waiting points survive the deletion of their segment.
    carbon.checkpoint().unwrap();
    assert_eq!(carbon.committed(), 10);
    carbon.abandon();
    let carbon = Carbon::open(with_limit(), dir.path()).unwrap();
    for n in 0..10 {
        assert_eq!(values(&carbon, &format!("test.m{n}")).len(), 1);
    }
}

#[test]
fn updates_per_second_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup {
        options: Options {
            max_updates_per_second: 50,
            ..support::options()
        },
        ..setup(Arc::new(RealDisk))
    };
    let carbon = Carbon::open(setup, dir.path()).unwrap();
    let ids = series(&carbon, 80);
    let started = std::time::Instant::now();
    carbon.submit(&ids.iter().map(|id| point(*id, 1)).collect::<Vec<_>>());
    while carbon.stats().updates.get() < 80 {
        std::thread::yield_now();
    }
    // The fifty of the first second may be written at once.
    assert!(started.elapsed().as_millis() >= 580);
}

#[test]
fn a_damaged_file_is_set_aside_and_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("whisper/test/m0.wsp");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    for damage in [&b""[..], b"no whisper file at all, this one"] {
        let _ = fs::remove_file(&file);
        fs::write(&file, damage).unwrap();
        let carbon = reopen(dir.path());
        let ids = series(&carbon, 1);
        carbon.submit(&[point(ids[0], 1)]);
        carbon.drain(|_| {}).unwrap();
        assert_eq!(values(&carbon, "test.m0").len(), 1);
        assert_eq!(carbon.stats().set_aside.get(), 1);
    }
    let aside = fs::read_dir(file.parent().unwrap())
        .unwrap()
        .filter(|entry| {
            let name = entry.as_ref().unwrap().file_name();
            name.to_str().unwrap().contains(".corrupt")
        });
    assert_eq!(aside.count(), 2);
}

#[test]
fn a_damaged_file_is_left_out_of_answers() {
    let dir = tempfile::tempdir().unwrap();
    let carbon = reopen(dir.path());
    let ids = series(&carbon, 2);
    carbon.submit(&[point(ids[0], 1), point(ids[1], 1)]);
    carbon.persist();
    carbon.drain(|_| {}).unwrap();
    drop(carbon);
    fs::write(dir.path().join("whisper/test/m0.wsp"), "cut off").unwrap();
    let carbon = reopen(dir.path());
    let ids = series(&carbon, 2);
    assert!(values(&carbon, "test.m0").is_empty());
    assert_eq!(values(&carbon, "test.m1").len(), 1);
    assert_eq!(carbon.stats().left_out.get(), 1);
    carbon.submit(&[point(ids[0], 2)]);
    assert_eq!(
        values(&carbon, "test.m0").len(),
        1,
        "what waits is answered"
    );
}

#[test]
fn a_file_that_is_gone_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let carbon = reopen(dir.path());
    let ids = series(&carbon, 1);
    carbon.submit(&[point(ids[0], 2)]);
    carbon.persist();
    carbon.drain(|_| {}).unwrap();
    drop(carbon);
    fs::remove_file(dir.path().join("whisper/test/m0.wsp")).unwrap();
    let carbon = reopen(dir.path());
    let ids = series(&carbon, 1);
    carbon.submit(&[point(ids[0], 1)]);
    carbon.drain(|_| {}).unwrap();
    assert_eq!(values(&carbon, "test.m0").len(), 1);
}

#[test]
fn while_the_disk_refuses_the_journal_points_are_taken_and_promised_later() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Recorder::default());
    let carbon = Carbon::open(setup(disk.clone()), dir.path()).unwrap();
    let ids = series(&carbon, 3);
    carbon.submit(&[point(ids[0], 3)]);
    carbon.commit().unwrap();
    disk.full.store(true, Ordering::SeqCst);
    carbon.submit(&[point(ids[1], 2)]);
    assert!(carbon.commit().is_err());
    assert_eq!(carbon.committed(), 1);
    assert_eq!(values(&carbon, "test.m1").len(), 1);
    disk.full.store(false, Ordering::SeqCst);
    carbon.commit().unwrap();
    assert_eq!(carbon.committed(), 2);
    // Opened on a full disk it starts, takes points, and writes them to their files.
    carbon.abandon();
    disk.full.store(true, Ordering::SeqCst);
    let carbon = Carbon::open(setup(disk.clone()), dir.path()).unwrap();
    let ids = series(&carbon, 3);
    carbon.submit(&[point(ids[2], 1)]);
    carbon.persist();
    assert_eq!(carbon.committed(), 0);
    assert_eq!(values(&carbon, "test.m2").len(), 1);
    disk.full.store(false, Ordering::SeqCst);
    while carbon.committed() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(values(&carbon, "test.m0").len(), 1);
    assert_eq!(values(&carbon, "test.m1").len(), 1);
}

/// A filesystem of a few megabytes; `None` where mounting is not allowed.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(dir)),
            other => {
                println!("skipped: no filesystem can be mounted here ({other:?})");
                None
            }
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn on_a_disk_that_fills_up_and_is_freed_nothing_is_lost() {
    let Some(small) = Small::mount("4m") else {
        return;
    };
    let data = small.0.path();
    let retentions = vec![Retention::new(10, 3_000).unwrap()];
    let small_files = || Setup {
        schema: Schema::new(retentions.clone(), Span::seconds(10)),
        journal: JournalOptions {
            sync: SyncPolicy::Every(Span::millis(5)),
            ..JournalOptions::default()
        },
        ..setup(Arc::new(RealDisk))
    };
    let ballast = data.join("ballast");
    fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let carbon = Carbon::open(small_files(), data).unwrap();
    // 36 KB each: some find room, most do not.
    let ids = series(&carbon, 80);
    carbon.submit(&ids.iter().map(|id| point(*id, 2)).collect::<Vec<_>>());
    while carbon.stats().creates_refused.get() == 0 {
        std::thread::yield_now();
    }
    let created = carbon.stats().creates.get();
    assert!(created > 0 && created < 80, "{created} created");
    // Series with a file are written; others are answered from the cache.
    carbon.submit(&ids.iter().map(|id| point(*id, 1)).collect::<Vec<_>>());
    while carbon.stats().committed.get() < 2 * created {
        std::thread::yield_now();
    }
    for n in 0..80 {
        assert_eq!(values(&carbon, &format!("test.m{n}")).len(), 2);
    }
    // No partial files remain.
    let leftovers = fs::read_dir(data.join("whisper/test")).unwrap();
    assert_eq!(leftovers.count() as u64, created);
    fs::remove_file(&ballast).unwrap();
    while carbon.stats().committed.get() < 160 {
        std::thread::yield_now();
    }
    carbon.checkpoint().unwrap();
    assert_eq!(carbon.committed(), 160);
    carbon.abandon();
    let carbon = Carbon::open(small_files(), data).unwrap();
    for n in 0..80 {
        assert_eq!(values(&carbon, &format!("test.m{n}")).len(), 2);
    }
    carbon.drain(|_| {}).unwrap();
}

#[test]
fn a_frozen_store_writes_no_file_and_keeps_registrations() {
    let dir = tempfile::tempdir().unwrap();
    let frozen = || Setup {
        access: Access::Frozen,
        ..setup(Arc::new(RealDisk))
    };
    let carbon = Carbon::open(frozen(), dir.path()).unwrap();
    let ids = series(&carbon, 1);
    carbon.submit(&[point(ids[0], 1)]);
    carbon.index().register("m;a=1").unwrap();
    carbon.drain(|_| {}).unwrap();
    assert_eq!(carbon.stats().read_only.get(), 1);
    drop(carbon);
    let carbon = Carbon::open(frozen(), dir.path()).unwrap();
    assert_eq!(carbon.index().find_tagged(&["a=1"]).unwrap(), ["m;a=1"]);
    assert!(carbon.index().find("test.*").unwrap().is_empty());
    let from = Timestamp(NOW - 60);
    let answer = carbon.fetch("test.m0", from, Timestamp(NOW), Timestamp(NOW));
    assert_eq!(answer.unwrap(), None);
}

#[test]
fn what_no_file_can_hold_is_dropped_and_its_neighbours_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let setup = || Setup {
        options: Options {
            max_cache_size: ByteSize(32 * 100),
            ..support::options()
        },
        ..setup(Arc::new(RealDisk))
    };
    let tree = dir.path().join("whisper");
    fs::create_dir_all(tree.join("directory.wsp")).unwrap();
    symlink("link.wsp", tree.join("link.wsp")).unwrap();
    symlink("round", tree.join("round")).unwrap();
    fs::write(tree.join("file"), "").unwrap();
    let carbon = Carbon::open(setup(), dir.path()).unwrap();
    let innocent = series(&carbon, 1)[0];
    let bad = ["directory", "link", "round.x", "file.x"];
    let mut sent = 0;
    for name in bad {
        let id = carbon.intern(name.as_bytes()).unwrap();
        // More than the cache has room for.
        for n in 1..300 {
            let points: Vec<_> = (0..5).map(|k| point(id, n + k)).collect();
            carbon.submit(&points);
            sent += 5;
        }
    }
    carbon.submit(&[point(innocent, 1)]);
    let mut left = usize::MAX;
    carbon.drain(|points| left = points).unwrap();
    assert_eq!(left, 0);
    assert_eq!(carbon.stats().unwritable.get(), sent);
    assert_eq!(values(&carbon, "test.m0").len(), 1);
    for name in bad {
        assert!(values(&carbon, name).is_empty(), "{name} is left out");
    }
    drop(carbon);
    let carbon = Carbon::open(setup(), dir.path()).unwrap();
    assert_eq!(carbon.stats().journal_replayed.get(), 0);
}

/// A file may be a link to a disk that is not mounted at present, which is no reason to drop its points.
#[test]
fn points_of_a_file_behind_a_link_that_leads_nowhere_wait() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, away) = (dir.path().join("disk"), dir.path().join("away"));
    let tree = dir.path().join("whisper/test");
    fs::create_dir_all(&disk).unwrap();
    let carbon = reopen(dir.path());
    let ids = series(&carbon, 3);
    for (n, id) in ids.iter().enumerate().take(2) {
        carbon.submit(&[point(*id, 9)]);
        carbon.persist();
        let (file, target) = (format!("m{n}.wsp"), disk.join(format!("m{n}.wsp")));
        fs::rename(tree.join(&file), &target).unwrap();
        symlink(&target, tree.join(&file)).unwrap();
    }
    // One of the two files is in use when the disk goes.
    carbon.submit(&[point(ids[0], 8)]);
    carbon.persist();
    assert_eq!(values(&carbon, "test.m0").len(), 2);
    fs::rename(&disk, &away).unwrap();
    for n in (1..8).rev() {
        carbon.submit(&ids.iter().map(|id| point(*id, n)).collect::<Vec<_>>());
        carbon.persist();
    }
    assert!(tree.join("m2.wsp").exists(), "its neighbour is written");
    assert_eq!(values(&carbon, "test.m1").len(), 7);
    // The journal gives up its segments, and keeps what waits.
    carbon.checkpoint().unwrap();
    assert!(!carbon.cache().is_empty());
    carbon.abandon();
    let carbon = reopen(dir.path());
    assert!(!carbon.cache().is_empty());
    fs::rename(&away, &disk).unwrap();
    carbon.drain(|_| {}).unwrap();
    assert!(carbon.cache().is_empty());
    assert_eq!(values(&carbon, "test.m0").len(), 9);
    assert_eq!(values(&carbon, "test.m1").len(), 8);
    assert_eq!(carbon.stats().unwritable.get(), 0);
    assert_eq!(carbon.stats().given_up.get(), 0);
}

/// A part of a tree is often a link to another disk. What its files had swallowed when it went must not keep the
/// journal from giving up segments: it would grow until nothing is taken any more.
#[test]
fn files_that_are_away_do_not_hold_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, away) = (dir.path().join("whisper/test"), dir.path().join("away"));
    let carbon = reopen(dir.path());
    let ids = series(&carbon, 1);
    let other = carbon.intern(b"other").unwrap();
    for n in [9, 8, 7] {
        carbon.submit(&[point(ids[0], n)]);
        carbon.persist();
    }
    fs::rename(&tree, &away).unwrap();
    symlink("nowhere", &tree).unwrap();
    carbon.submit(&[point(ids[0], 6), point(other, 6)]);
    carbon.persist();
    carbon.checkpoint().unwrap();
    assert_eq!(carbon.committed(), 5);
    carbon.abandon();
    fs::remove_file(&tree).unwrap();
    fs::rename(&away, &tree).unwrap();
    let carbon = reopen(dir.path());
    carbon.drain(|_| {}).unwrap();
    assert_eq!(values(&carbon, "test.m0").len(), 4);
    assert_eq!(values(&carbon, "other").len(), 1);
}

#[test]
fn what_was_not_created_is_not_counted_as_a_creation() {
    let dir = tempfile::tempdir().unwrap();
    let setup = Setup {
        options: Options {
            max_creates_per_minute: 1,
            ..support::options()
        },
        ..setup(Arc::new(RealDisk))
    };
    let tree = dir.path().join("whisper/test");
    fs::create_dir_all(tree.join("m0.wsp")).unwrap();
    symlink("nowhere", tree.join("m1.wsp")).unwrap();
    let carbon = Carbon::open(setup, dir.path()).unwrap();
    let ids = series(&carbon, 3);
    carbon.submit(&ids.iter().map(|id| point(*id, 1)).collect::<Vec<_>>());
    carbon.persist();
    assert!(tree.join("m2.wsp").exists());
}

#[test]
fn the_longest_names_have_files() {
    let dir = tempfile::tempdir().unwrap();
    let carbon = reopen(dir.path());
    let names = ["n".repeat(251), format!("a.{}.b", "m".repeat(245))];
    for name in &names {
        let id = carbon.intern(name.as_bytes()).unwrap();
        carbon.submit(&[point(id, 1)]);
    }
    carbon.drain(|_| {}).unwrap();
    assert_eq!(carbon.stats().unwritable.get(), 0);
    for name in &names {
        assert_eq!(values(&carbon, name).len(), 1);
    }
    // A damaged file is set aside under a shortened name.
    let file = dir.path().join(format!("whisper/{}.wsp", names[0]));
    drop(carbon);
    fs::write(&file, "damaged").unwrap();
    let carbon = reopen(dir.path());
    let id = carbon.intern(names[0].as_bytes()).unwrap();
    carbon.submit(&[point(id, 2)]);
    carbon.drain(|_| {}).unwrap();
    assert_eq!(carbon.stats().set_aside.get(), 1);
    assert_eq!(values(&carbon, &names[0]).len(), 1);
}

#[test]
fn a_journal_that_is_deleted_is_noticed_and_nothing_false_is_promised() {
    let dir = tempfile::tempdir().unwrap();
    let carbon = reopen(dir.path());
    let ids = series(&carbon, 3);
    carbon.submit(&[point(ids[0], 1)]);
    carbon.commit().unwrap();
    carbon.health().unwrap();
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    carbon.submit(&[point(ids[1], 1)]);
    assert!(carbon.commit().is_err());
    assert_eq!(carbon.committed(), 1);
    // The checkpoint syncs the files, which have all points, and begins a new segment.
    carbon.checkpoint().unwrap();
    assert_eq!(carbon.committed(), 2);
    carbon.health().unwrap();
    carbon.submit(&[point(ids[2], 1)]);
    carbon.commit().unwrap();
    assert_eq!(carbon.committed(), 3);
    carbon.abandon();
    let carbon = reopen(dir.path());
    for n in 0..3 {
        assert_eq!(values(&carbon, &format!("test.m{n}")).len(), 1);
    }
    // With the files deleted as well, no point is safe.
    let committed = carbon.committed();
    // The store may make a file while its directory is emptied.
    while fs::remove_dir_all(dir.path()).is_err() && dir.path().exists() {}
    let ids = series(&carbon, 3);
    carbon.submit(&[point(ids[0], 2)]);
    // The store may have noticed before this commit, and begun a segment, which takes points but promises
    // nothing.
    assert!(carbon.commit().is_err() || carbon.health().is_err());
    assert_eq!(carbon.committed(), committed);
    assert!(carbon.checkpoint().is_err());
    carbon.persist();
    assert!(carbon.checkpoint().is_err(), "though new files were made");
    assert_eq!(carbon.committed(), committed);
    let trouble = carbon.health().unwrap_err();
    assert!(trouble.contains("was removed or replaced"), "{trouble}");
}

#[test]
fn what_is_no_segment_of_the_journal_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let carbon = reopen(dir.path());
    let ids = series(&carbon, 1);
    carbon.submit(&[point(ids[0], 1)]);
    carbon.commit().unwrap();
    carbon.abandon();
    let journal = dir.path().join("journal");
    fs::create_dir(journal.join("0000000900.journal")).unwrap();
    let target = dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, journal.join("0000000901.journal")).unwrap();
    let made = Command::new("mkfifo")
        .arg(journal.join("0000000902.journal"))
        .status();
    assert!(made.unwrap().success());
    let carbon = reopen(dir.path());
    assert_eq!(values(&carbon, "test.m0").len(), 1);
    carbon.drain(|_| {}).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    for n in 900..903 {
        let aside = journal.join(format!("0000000{n}.journal.corrupt"));
        assert!(aside.symlink_metadata().is_ok(), "{n}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_left_out_of_answers() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("whisper/test");
    fs::create_dir_all(tree.join("m0.wsp")).unwrap();
    let made = Command::new("mkfifo").arg(tree.join("m1.wsp")).status();
    assert!(made.unwrap().success());
    let carbon = reopen(dir.path());
    for name in ["test.m0", "test.m1"] {
        assert!(values(&carbon, name).is_empty(), "{name}");
    }
    assert_eq!(carbon.stats().left_out.get(), 2);
    assert_eq!(carbon.reach("test.m0", Timestamp(NOW)).unwrap(), None);
}

#[test]
fn progress_is_told_while_the_journal_is_read_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let waits = Setup {
        options: Options {
            max_creates_per_minute: 1,
            ..support::options()
        },
        ..setup(Arc::new(RealDisk))
    };
    let carbon = Carbon::open(waits, dir.path()).unwrap();
    let ids = series(&carbon, 300);
    for n in (1..6).rev() {
        carbon.submit(&ids.iter().map(|id| point(*id, n)).collect::<Vec<_>>());
    }
    carbon.commit().unwrap();
    carbon.abandon();
    let reported = Arc::new(std::sync::Mutex::new(Vec::new()));
    let setup = Setup {
        replaying: {
            let reported = Arc::clone(&reported);
            Arc::new(move |done, all| reported.lock().unwrap().push((done, all)))
        },
        // After so long, what the journal has does not wait on in the cache.
        clock: Arc::new(|| Timestamp(NOW + 2 * 3_600)),
        ..setup(Arc::new(RealDisk))
    };
    let carbon = Carbon::open(setup, dir.path()).unwrap();
    assert!(carbon.stats().journal_replayed.get() >= 1_500);
    let reported = reported.lock().unwrap();
    assert!(reported.is_sorted_by_key(|(done, _)| *done), "{reported:?}");
    assert!(
        reported
            .iter()
            .all(|(done, all)| done <= all && all == &reported[0].1)
    );
    assert!(
        reported.len() > 300,
        "a series is a step: {}",
        reported.len()
    );
    let (done, all) = reported[reported.len() - 1];
    assert_eq!(done, all);
}
