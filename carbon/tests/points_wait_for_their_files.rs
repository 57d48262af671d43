//! Points wait in cache and journal until a visit of their file pays: queries do not see the
//! difference, a crash loses nothing, and files are up to date within the time.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carbon::journal::disk::{Disk, RealDisk};
use carbon::options::{Options, Span};
use carbon::{Carbon, Setup, Sink, Timestamp};
use support::{NOW, Recorder, chance, point, series, setup, until, values};

/// Nothing takes this long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn open(dir: &Path, disk: Arc<dyn Disk>, within: Span) -> Carbon {
    let setup = Setup {
        options: Options {
            persist_within: within,
            infer_step: false,
            ..Options::default()
        },
        ..setup(disk)
    };
    Carbon::open(setup, dir).unwrap()
}

fn minutes(n: u64) -> Span {
    Span::seconds(60 * n)
}

/// The files of the store.
fn files(dir: &Path) -> usize {
    fs::read_dir(dir.join("whisper/test")).map_or(0, Iterator::count)
}

fn segments(dir: &Path) -> usize {
    fs::read_dir(dir.join("journal")).unwrap().count()
}

/// The values of the file of `test.m0`.
fn in_file(dir: &Path) -> Vec<f64> {
    let Ok(file) = whisper::File::open(&dir.join("whisper/test/m0.wsp")) else {
        return Vec::new();
    };
    let now = Timestamp(NOW);
    let fetched = file.fetch(now, Timestamp(NOW - 3_600), now).unwrap();
    let values = fetched.unwrap().values;
    values
        .into_iter()
        .filter(|value| !whisper::is_absent(*value))
        .collect()
}

#[track_caller]
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_start_reads_the_journal_into_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let carbon = open(dir.path(), Arc::new(RealDisk), minutes(60));
    let ids = series(&carbon, 20);
    for n in (0..30).rev() {
        let points: Vec<_> = ids.iter().map(|id| point(*id, n)).collect();
        carbon.submit(&points);
    }
    carbon.commit().unwrap();
    let before = values(&carbon, "test.m7");
    assert_eq!(before.len(), 30);
    carbon.abandon();
    assert_eq!(files(dir.path()), 0);
    for _ in 0..2 {
        let carbon = open(dir.path(), Arc::new(RealDisk), minutes(60));
        assert_eq!(carbon.stats().journal_replayed.get(), 600);
        assert_eq!(carbon.cache().len(), 600);
        assert_eq!(values(&carbon, "test.m7"), before);
        assert_eq!(files(dir.path()), 0);
        carbon.abandon();
    }
    let carbon = open(dir.path(), Arc::new(RealDisk), minutes(60));
    carbon.drain(|_| {}).unwrap();
    assert!(carbon.cache().is_empty());
    assert_eq!(files(dir.path()), 20);
    assert_eq!(segments(dir.path()), 1);
    assert_eq!(values(&carbon, "test.m7"), before);
}

#[test]
fn a_file_has_its_points_within_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let within = Duration::from_secs(2);
    let carbon = open(dir.path(), Arc::new(RealDisk), Span(within));
    let ids = series(&carbon, 1);
    let begun = Instant::now();
    carbon.submit(&[point(ids[0], 3)]);
    assert_eq!(values(&carbon, "test.m0").len(), 1);
    wait_until("the first point is in its file", || {
        in_file(dir.path()).len() == 1
    });
    let waited = begun.elapsed();
    carbon.submit(&[point(ids[0], 2), point(ids[0], 1)]);
    wait_until("all points are in their file", || {
        in_file(dir.path()).len() == 3
    });
    wait_until("two visits", || carbon.stats().updates.get() == 2);
    // Half a minute is for a busy machine.
    assert!(waited < within + PATIENCE / 2, "{waited:?}");
}

#[test]
fn a_series_with_many_points_does_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let carbon = open(dir.path(), Arc::new(RealDisk), minutes(60));
    let ids = series(&carbon, 2);
    let many: Vec<_> = (1..300).rev().map(|n| point(ids[0], n)).collect();
    carbon.submit(&[point(ids[1], 1)]);
    carbon.submit(&many);
    wait_until("the points are in their file", || {
        in_file(dir.path()).len() == 299
    });
    assert_eq!(carbon.cache().len(), 1);
}

#[test]
fn segments_are_deleted_when_their_points_are_in_synced_files() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Recorder::default());
    let mut setup = setup(disk.clone());
    setup.options.persist_within = Span::millis(1_200);
    setup.options.infer_siblings = false;
    let carbon = Carbon::open(setup, dir.path()).unwrap();
    let ids = series(&carbon, 6);
    let mut n = 0;
    let mut promised = BTreeMap::new();
    // This one may wait for a second timestamp all the time.
    let once = point(ids[5], 1);
    carbon.submit(&[once]);
    promised.insert((once.series, once.at), once.value);
    let mut send = || {
        n += 1;
        let sent: Vec<_> = ids[..5].iter().map(|id| point(*id, n % 300)).collect();
        carbon.submit(&sent);
        carbon.commit().unwrap();
        promised.extend(sent.iter().map(|p| ((p.series, p.at), p.value)));
    };
    let stats = carbon.stats();
    while stats.journal_dropped.get() < 3 {
        // Some points before a visit of their files, and some that are left when it ends.
        let visits = stats.updates.get();
        (0..7).for_each(|_| send());
        until(&carbon, "a visit", || {
            stats.updates.get() > visits || stats.journal_dropped.get() >= 3
        });
    }
    send();
    carbon.abandon();
    disk.power_loss(dir.path(), chance(3));
    let carbon = open(dir.path(), Arc::new(RealDisk), minutes(60));
    for ((series, at), value) in promised {
        let found = values(&carbon, &format!("test.m{}", series.0));
        assert_eq!(found.get(&at.timestamp().0), Some(&value));
    }
}

#[test]
fn a_full_cache_is_written_before_anything_waits_for_long() {
    let dir = tempfile::tempdir().unwrap();
    let mut setup = setup(Arc::new(RealDisk));
    setup.options.infer_step = false;
    setup.options.max_cache_size = carbon::options::ByteSize(64 << 10);
    let carbon = Carbon::open(setup, dir.path()).unwrap();
    let ids = series(&carbon, 1_500);
    for n in (1..20).rev() {
        let points: Vec<_> = ids.iter().map(|id| point(*id, n)).collect();
        carbon.submit(&points);
    }
    for n in [0, 700, 1_499] {
        assert_eq!(values(&carbon, &format!("test.m{n}")).len(), 19);
    }
}

/// Values by timestamp, by series.
type Twin = BTreeMap<u32, BTreeMap<u32, f64>>;

#[test]
fn cache_and_file_answer_as_a_map_does() {
    for seed in 0..40 {
        let mut chance = chance(seed);
        let dir = tempfile::tempdir().unwrap();
        let within = [minutes(60), Span::millis(1_100), Span::seconds(0)][seed as usize % 3];
        let start = || open(dir.path(), Arc::new(RealDisk), within);
        let mut carbon = start();
        let mut twin = Twin::new();
        for step in 0..60 {
            match chance(10) {
                0 => drop(carbon.persist()),
                1 => carbon.checkpoint().unwrap(),
                2 => {
                    carbon.commit().unwrap();
                    carbon.abandon();
                    carbon = start();
                }
                3 => {
                    carbon.drain(|_| {}).unwrap();
                    carbon.abandon();
                    carbon = start();
                }
                _ => {
                    let ids = series(&carbon, 4);
                    let points: Vec<_> = (0..chance(12))
                        .map(|_| {
                            let id = ids[chance(4)];
                            let mut point = point(id, chance(40) as u32);
                            point.value = chance(7) as f64 / 3.0;
                            point
                        })
                        .collect();
                    carbon.submit(&points);
                    for point in points {
                        let name = carbon.index().name(point.series);
                        let n: u32 = name.trim_start_matches("test.m").parse().unwrap();
                        let values = twin.entry(n).or_default();
                        values.insert(point.at.timestamp().0, point.value);
                    }
                }
            }
            for (n, expected) in &twin {
                let found = values(&carbon, &format!("test.m{n}"));
                assert_eq!(&found, expected, "seed {seed}, step {step}, m{n}");
            }
        }
    }
}
