//! Committed points survive the loss of everything that was not synced.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carbon::options::{JournalOptions, Span, SyncPolicy};
use carbon::{Carbon, Setup, Sink};
use support::{Recorder, chance, point, series, setup, values};

/// Ends a store as a crash does, without a drain.
fn crash(carbon: Carbon) {
    carbon.abandon();
}

/// The points that each series must have, and those that it may have.
type Expected = BTreeMap<String, BTreeMap<u32, f64>>;

#[test]
fn after_any_of_many_power_losses_committed_points_are_there_and_none_is_made_up() {
    for seed in 0..60 {
        let mut chance = chance(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut promised = Expected::new();
        let mut sent = Expected::new();
        let mut next = 0;
        for _life in 0..4 {
            let disk = Arc::new(Recorder::holding(dir.path()));
            let mut setup = setup(disk.clone());
            // In every other run points wait for minutes.
            setup.options.persist_within = Span::seconds(1 + seed % 2 * 300);
            let carbon = Carbon::open(setup, dir.path()).unwrap();
            for (name, points) in &promised {
                let found = values(&carbon, name);
                for (at, value) in points {
                    assert_eq!(found.get(at), Some(value), "seed {seed}: {name} at {at}");
                }
                for (at, value) in &found {
                    assert_eq!(
                        sent[name].get(at),
                        Some(value),
                        "seed {seed}: {name} at {at}"
                    );
                }
            }
            let ids = series(&carbon, 5);
            let mut order = Vec::new();
            for _ in 0..chance(12) {
                match chance(5) {
                    0 => carbon.commit().unwrap(),
                    1 => drop(carbon.persist()),
                    2 => carbon.checkpoint().unwrap(),
                    _ => {
                        let id = ids[chance(ids.len())];
                        let n = next % 300;
                        next += 1;
                        carbon.submit(&[point(id, n)]);
                        order.push(point(id, n));
                    }
                }
            }
            for (n, point) in order.iter().enumerate() {
                let name = carbon.index().name(point.series);
                let into = |all: &mut Expected| {
                    all.entry(name.clone())
                        .or_default()
                        .insert(point.at.timestamp().0, point.value);
                };
                into(&mut sent);
                if (n as u64) < carbon.committed() {
                    into(&mut promised);
                }
            }
            crash(carbon);
            disk.power_loss(dir.path(), &mut chance);
        }
    }
}

#[test]
fn nothing_is_promised_that_a_failed_sync_may_have_lost() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Recorder::default());
    let carbon = Carbon::open(setup(disk.clone()), dir.path()).unwrap();
    let ids = series(&carbon, 1);
    disk.broken.store(true, Ordering::SeqCst);
    carbon.submit(&[point(ids[0], 1)]);
    assert!(carbon.commit().is_err());
    // Only a checkpoint can make the points safe now: a later sync that succeeds proves nothing.
    disk.broken.store(false, Ordering::SeqCst);
    assert!(carbon.commit().is_err());
    assert_eq!(carbon.committed(), 0);
    carbon.checkpoint().unwrap();
    assert_eq!(carbon.committed(), 1);
    carbon.submit(&[point(ids[0], 2)]);
    carbon.commit().unwrap();
    assert_eq!(carbon.committed(), 2);
    crash(carbon);
    disk.power_loss(dir.path(), chance(7));
    let carbon = Carbon::open(setup(Arc::new(Recorder::default())), dir.path()).unwrap();
    assert_eq!(values(&carbon, "test.m0").len(), 2);
}

#[test]
fn replayed_twice_is_replayed_once() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Recorder::default());
    let carbon = Carbon::open(setup(disk), dir.path()).unwrap();
    let ids = series(&carbon, 3);
    for n in 0..100 {
        carbon.submit(&ids.iter().map(|id| point(*id, 200 - n)).collect::<Vec<_>>());
    }
    carbon.commit().unwrap();
    let before = values(&carbon, "test.m1");
    crash(carbon);
    // A copy of the journal is read back again over the files that it made.
    let journal = dir.path().join("journal");
    let aside = dir.path().join("aside");
    copy(&journal, &aside);
    for _ in 0..2 {
        let carbon = Carbon::open(setup(Arc::new(Recorder::default())), dir.path()).unwrap();
        assert_eq!(carbon.stats().journal_replayed.get(), 300);
        assert_eq!(values(&carbon, "test.m1"), before);
        crash(carbon);
        fs::remove_dir_all(&journal).unwrap();
        copy(&aside, &journal);
    }
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn the_journal_cut_anywhere_gives_back_a_beginning() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Recorder::default());
    let carbon = Carbon::open(setup(disk), dir.path()).unwrap();
    let ids = series(&carbon, 1);
    for n in (1..8).rev() {
        carbon.submit(&[point(ids[0], n)]);
    }
    carbon.commit().unwrap();
    crash(carbon);
    let journal = dir.path().join("journal");
    let segment = fs::read_dir(&journal)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let whole = fs::read(&segment).unwrap();
    let mut most = 0;
    for cut in (0..=whole.len()).rev() {
        fs::remove_dir_all(&journal).unwrap();
        // Without the files as well: all points come from the journal.
        let _ = fs::remove_dir_all(dir.path().join("whisper"));
        fs::create_dir_all(&journal).unwrap();
        fs::write(&segment, &whole[..cut]).unwrap();
        let carbon = Carbon::open(setup(Arc::new(Recorder::default())), dir.path()).unwrap();
        let found: Vec<u32> = values(&carbon, "test.m0").into_keys().collect();
        let expected: Vec<u32> = (1..8)
            .rev()
            .map(|n| point(ids[0], n).at.timestamp().0)
            .collect();
        assert!(expected.starts_with(&found), "cut at {cut}");
        most = most.max(found.len());
        crash(carbon);
    }
    assert_eq!(most, 7);
}

#[test]
fn always_means_committed_when_submit_returns() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Recorder::default());
    let journal = JournalOptions {
        sync: SyncPolicy::Always,
        ..JournalOptions::default()
    };
    let setup = Setup {
        journal,
        ..setup(disk)
    };
    let carbon = Carbon::open(setup, dir.path()).unwrap();
    let ids = series(&carbon, 2);
    for n in 1..20_u32 {
        carbon.submit(&[point(ids[0], n), point(ids[1], n)]);
        assert_eq!(carbon.committed(), u64::from(2 * n));
    }
}

#[test]
fn a_duration_commits_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let journal = JournalOptions {
        sync: SyncPolicy::Every(Span::millis(1)),
        ..JournalOptions::default()
    };
    let setup = Setup {
        journal,
        ..setup(Arc::new(Recorder::default()))
    };
    let carbon = Carbon::open(setup, dir.path()).unwrap();
    let ids = series(&carbon, 1);
    carbon.submit(&[point(ids[0], 1)]);
    while carbon.committed() == 0 {
        std::thread::yield_now();
    }
}
