//! New series whose step is inferred: what is created when, across restarts and limits. The clock is
//! the test's own; passes of the persister's thread are waited for by the counters.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use carbon::options::{ByteSize, JournalOptions, Options, Span, SyncPolicy};
use carbon::{Carbon, Datapoint, PointTime, Setup, Sink, Timestamp};
use support::{NOW, until};
use whisper::{Header, Retention};

fn open(data: &Path, options: Options) -> Carbon {
    open_with(data, options, JournalOptions::default().max_size)
}

fn open_with(data: &Path, options: Options, max_size: ByteSize) -> Carbon {
    let journal = JournalOptions {
        sync: SyncPolicy::Every(Span::millis(1)),
        max_size,
    };
    let begun = Instant::now();
    let setup = Setup {
        clock: Arc::new(move || Timestamp(NOW + begun.elapsed().as_secs() as u32)),
        ..Setup::new(options, journal, Span::seconds(10))
    };
    Carbon::open(setup, data).unwrap()
}

fn send(store: &impl Sink, name: &str, times: &[u32]) {
    let series = store.intern(name.as_bytes()).unwrap();
    let points: Vec<Datapoint> = times
        .iter()
        .map(|at| Datapoint {
            series,
            at: PointTime::new(Timestamp(*at)).unwrap(),
            value: f64::from(*at % 1_000),
        })
        .collect();
    store.submit(&points);
    store.release(&[series]);
}

/// The steps of the file of `name`, or nothing if it does not exist.
fn steps(data: &Path, name: &str) -> Vec<u32> {
    let path = data
        .join("whisper")
        .join(format!("{}.wsp", name.replace('.', "/")));
    let Ok(header) = Header::read(&path) else {
        return Vec::new();
    };
    let archives = header.archives().iter();
    archives.map(|archive| archive.step.seconds()).collect()
}

/// The step and the number of known values of what queries answer for the last ten minutes.
fn answer(store: &Carbon, name: &str) -> (u32, usize) {
    let now = Timestamp(NOW);
    let fetched = store.fetch(name, Timestamp(NOW - 600), now, now);
    let points = fetched.unwrap().unwrap().points;
    let known = points.values.iter();
    let known = known.filter(|value| !whisper::is_absent(**value));
    (points.step.seconds(), known.count())
}

#[test]
fn a_file_is_created_with_the_second_timestamp() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path(), support::options());
    let batch: Vec<u32> = (0..10).map(|n| NOW - 600 + n * 60).collect();
    send(&store, "batch", &batch);
    until(&store, "the file of batch", || {
        steps(data.path(), "batch") == [60, 600]
    });
    send(&store, "slow", &[NOW - 90]);
    until(&store, "series without a step", || store.undecided() == 1);
    assert_eq!(answer(&store, "slow"), (10, 1));
    // The same timestamp says nothing new.
    send(&store, "slow", &[NOW - 90]);
    send(&store, "fast", &[NOW - 90, NOW - 80]);
    until(&store, "the file of fast", || {
        steps(data.path(), "fast") == [10, 60, 600]
    });
    assert_eq!(steps(data.path(), "slow"), [0; 0]);
    send(&store, "slow", &[NOW - 30]);
    assert_eq!(answer(&store, "slow"), (60, 2));
    until(&store, "the file of slow", || {
        steps(data.path(), "slow") == [60, 600]
    });
    until(&store, "series without a step", || store.undecided() == 0);
    assert_eq!(answer(&store, "slow"), (60, 2));
    assert_eq!(store.stats().steps_assumed.get(), 0);
    // What the server itself writes does not wait.
    send(&store.every(Span::seconds(60)), "own", &[NOW - 90]);
    until(&store, "the file of own", || {
        steps(data.path(), "own") == [60, 600]
    });
}

#[test]
fn a_kill_keeps_the_wait_and_a_shutdown_ends_it() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path(), support::options());
    send(&store, "slow", &[NOW - 90]);
    send(&store, "once", &[NOW - 90]);
    until(&store, "series without a step", || store.undecided() == 2);
    store.commit().unwrap();
    store.abandon();
    let store = open(data.path(), support::options());
    until(&store, "series without a step", || store.undecided() == 2);
    assert_eq!(answer(&store, "once"), (10, 1));
    send(&store, "slow", &[NOW - 30]);
    until(&store, "the file of slow", || {
        steps(data.path(), "slow") == [60, 600]
    });
    store.drain(|_| {}).unwrap();
    assert_eq!(steps(data.path(), "once"), [10, 60, 600]);
    assert_eq!(store.stats().steps_assumed.get(), 1);
    drop(store);
    let store = open(data.path(), support::options());
    assert_eq!(store.stats().journal_replayed.get(), 0);
    assert_eq!(
        (answer(&store, "once"), answer(&store, "slow")),
        ((10, 1), (60, 2))
    );
}

#[test]
fn a_restart_does_not_end_the_wait() {
    let data = tempfile::tempdir().unwrap();
    let store = open(data.path(), support::options());
    send(&store, "once", &[NOW - 90]);
    until(&store, "series without a step", || store.undecided() == 1);
    for _ in 0..3 {
        store.commit().unwrap();
        store.clone().abandon();
        let next = open(data.path(), support::options());
        until(&next, "series without a step", || next.undecided() == 1);
        assert_eq!(answer(&next, "once"), (10, 1));
        next.abandon();
    }
    assert_eq!(steps(data.path(), "once"), [0; 0]);
}

#[test]
fn a_limit_on_creations_is_spent_on_decided_series_only() {
    let data = tempfile::tempdir().unwrap();
    let options = Options {
        max_creates_per_minute: 2,
        ..support::options()
    };
    let store = open(data.path(), options);
    for n in 0..20 {
        send(&store, &format!("once.n{n}"), &[NOW - 90]);
    }
    until(&store, "series without a step", || store.undecided() == 20);
    assert_eq!(store.stats().creates_delayed.get(), 0);
    send(&store, "slow", &[NOW - 90, NOW - 30]);
    until(&store, "the file of slow", || {
        steps(data.path(), "slow") == [60, 600]
    });
    store.drain(|_| {}).unwrap();
    assert_eq!(store.stats().creates.get(), 21);
}

#[test]
fn a_flood_of_names_does_not_wait_beyond_half_of_the_cache() {
    let data = tempfile::tempdir().unwrap();
    let options = Options {
        max_cache_size: ByteSize(64 << 10),
        ..support::options()
    };
    let store = open(data.path(), options);
    // 1,024 chunks of the cache, of which 512 may be held by series that wait.
    for n in 0..1_500 {
        send(&store, &format!("flood.n{n}"), &[NOW - 90]);
    }
    until(&store, "series without a step", || {
        store.stats().steps_assumed.get() > 0 && store.undecided() <= 512
    });
    send(&store, "slow", &[NOW - 90, NOW - 30]);
    until(&store, "the file of slow", || {
        steps(data.path(), "slow") == [60, 600]
    });
    store.drain(|_| {}).unwrap();
    assert_eq!(store.stats().creates.get(), 1_501);
    assert_eq!(steps(data.path(), "flood.n0"), [10, 60, 600]);
}

#[test]
fn series_with_one_timestamp_do_not_fill_the_journal() {
    let data = tempfile::tempdir().unwrap();
    let store = open_with(data.path(), support::options(), ByteSize(32 << 10));
    // More than the journal has room for: of one series, and of many with few points each.
    for _ in 0..200 {
        send(&store, "one", &[NOW - 90; 200]);
    }
    for n in 0..300 {
        send(&store, &format!("few.n{n}"), &[NOW - 90; 100]);
    }
    assert_eq!(store.stats().received.get(), 200 * 200 + 300 * 100);
    assert_eq!(steps(data.path(), "one"), [10, 60, 600]);
}

#[test]
fn files_of_the_same_directory_are_followed_at_once() {
    let data = tempfile::tempdir().unwrap();
    let branch = data.path().join("whisper/servers/web01");
    std::fs::create_dir_all(&branch).unwrap();
    let old = Retention::parse_carbon_list("60s:90d").unwrap();
    whisper::create(&branch.join("load.wsp"), &whisper::CreateOptions::new(old)).unwrap();
    let store = open(data.path(), support::options());
    send(&store, "servers.web01.users", &[NOW - 90]);
    until(&store, "the file of servers.web01.users", || {
        steps(data.path(), "servers.web01.users") == [60]
    });
    let without = Options {
        infer_siblings: false,
        infer_step: false,
        ..support::options()
    };
    store.drain(|_| {}).unwrap();
    drop(store);
    let store = open(data.path(), without);
    send(&store, "servers.web01.other", &[NOW - 90]);
    until(&store, "the file of servers.web01.other", || {
        steps(data.path(), "servers.web01.other") == [10, 60, 600]
    });
}
