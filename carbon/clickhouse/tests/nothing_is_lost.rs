//! Points arrive in ClickHouse, each of them once, whatever the server does.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carbon::options::{JournalOptions, Options, Span, SyncPolicy};
use carbon::remote::Delivery;
use carbon::{Carbon, Datapoint, PointTime, Setup, Sink, Timestamp};
use clickhouse::{Client, Known, Stats, Writer};
use parking_lot::Mutex;
use settings::ByteSize;

use support::{Fake, Mood, PATIENCE};

const NOW: u32 = 1_700_000_000;

type Table = BTreeMap<(String, u32), f64>;

/// A store that sends to `fake`, with these sizes of cache and journal.
fn open(directory: &Path, fake: &Fake, cache: u64, journal: u64) -> Carbon {
    let options = clickhouse::Options {
        url: fake.url.clone(),
        compression: "none".to_owned(),
        batch_rows: 1_000,
        ..Default::default()
    };
    let client = Client::new(&options, Arc::new(Stats::default())).unwrap();
    let writer = Writer::new(&options, client, Arc::new(Known::default()));
    let carbon = Options {
        max_cache_size: ByteSize(cache),
        ..Options::default()
    };
    let journal = JournalOptions {
        sync: SyncPolicy::Every(Span::millis(10)),
        max_size: ByteSize(journal),
    };
    let mut setup = Setup::new(carbon, journal, Span::seconds(10));
    setup.clock = Arc::new(|| Timestamp(NOW));
    setup.delivery = Some(Delivery {
        remote: Arc::new(Mutex::new(writer)),
        rows: options.batch_rows as usize,
        within: Duration::from_millis(20),
    });
    Carbon::open(setup, directory).unwrap()
}

/// Submits so many points of as many series as `series`; adds them to `sent`.
fn submit(carbon: &Carbon, sent: &mut Table, series: u32, points: u32) {
    for number in 0..series {
        let name = format!("a.b{number}");
        let series = carbon.intern(name.as_bytes()).unwrap();
        let batch: Vec<Datapoint> = (0..points)
            .map(|n| Datapoint {
                series,
                at: PointTime::of_clock(Timestamp(NOW - 10 * n)),
                value: f64::from(number * 1_000 + n),
            })
            .collect();
        carbon.submit(&batch);
        sent.extend(batch.iter().map(|point| {
            let key = (name.clone(), point.at.timestamp().0);
            (key, point.value)
        }));
    }
}

fn arrived(fake: &Fake, sent: &Table) {
    fake.until("everything has arrived", |state| {
        (state.points.len() >= sent.len()).then_some(())
    });
    let table = fake.table();
    assert!(table == *sent, "{} of {}", table.len(), sent.len());
}

/// Waits until the store knows that everything arrived.
fn settled(carbon: &Carbon) {
    let end = Instant::now() + PATIENCE;
    while !carbon.cache().is_empty() || carbon.spilled_segments() > 0 {
        assert!(Instant::now() < end, "points still wait");
        std::thread::yield_now();
    }
}

#[test]
fn points_are_seen_at_once_and_their_names_are_written_once() {
    let (fake, directory) = (Fake::start(), tempfile::tempdir().unwrap());
    let carbon = open(directory.path(), &fake, 16 << 20, 16 << 20);
    let mut sent = Table::new();
    fake.change(|state| state.mood = Mood::Refuses);
    submit(&carbon, &mut sent, 3, 5);
    let values: Vec<f64> = carbon
        .unacknowledged("a.b1")
        .iter()
        .map(|p| p.value)
        .collect();
    assert_eq!(values, [1_000.0, 1_001.0, 1_002.0, 1_003.0, 1_004.0]);
    fake.until("a block was refused twice", |state| {
        (state.refused > 1).then_some(())
    });
    assert!(carbon.delivery_trouble().unwrap().contains("Memory limit"));
    assert_eq!(carbon.unacknowledged("a.b1").len(), 5);
    fake.change(|state| state.mood = Mood::Well);
    arrived(&fake, &sent);
    settled(&carbon);
    assert_eq!(carbon.delivery_trouble(), None);
    let mut more = Table::new();
    submit(&carbon, &mut more, 3, 6);
    arrived(&fake, &more);
    carbon.drain(|_| {}).unwrap();
    fake.until("names were written", |state| {
        let names = state
            .others
            .get("INSERT INTO graphite_index (Date, Level, Path, Version) FORMAT RowBinary")?;
        // Three names with their four rows each, and the branch `a.`.
        let found = names.windows(5).filter(|text| text == b"\x04a.b1").count();
        assert_eq!(found, 2, "for all days, and for its own");
        Some(())
    });
    assert_eq!(carbon.journal_bytes(), 19, "an empty segment");
}

#[test]
fn a_block_that_was_kept_but_not_acknowledged_is_sent_again_as_it_was() {
    let (fake, directory) = (Fake::start(), tempfile::tempdir().unwrap());
    let carbon = open(directory.path(), &fake, 16 << 20, 16 << 20);
    let mut sent = Table::new();
    fake.change(|state| state.mood = Mood::Cuts);
    submit(&carbon, &mut sent, 50, 50);
    fake.until("three attempts", |state| (state.refused >= 3).then_some(()));
    fake.change(|state| state.mood = Mood::Away);
    fake.change(|state| state.mood = Mood::Well);
    arrived(&fake, &sent);
    settled(&carbon);
    fake.until("rows are alike", |state| {
        let alike = |rows: &Vec<_>| rows.iter().all(|row| *row == rows[0]);
        assert!(state.points.values().all(alike));
        assert!(state.points.values().any(|rows| rows.len() > 1));
        Some(())
    });
    carbon.drain(|_| {}).unwrap();
}

#[test]
fn an_outage_fills_the_journal_and_not_the_memory() {
    let (fake, directory) = (Fake::start(), tempfile::tempdir().unwrap());
    let carbon = open(directory.path(), &fake, 64 << 10, 64 << 20);
    let mut sent = Table::new();
    fake.change(|state| state.mood = Mood::Away);
    submit(&carbon, &mut sent, 200, 500);
    assert!(carbon.cache().used_bytes() <= 64 << 10);
    assert_eq!(carbon.stats().waits.get(), 0, "senders were held back");
    assert!(carbon.stats().spilled.get() > 50_000);
    fake.change(|state| state.mood = Mood::Well);
    arrived(&fake, &sent);
    settled(&carbon);
    carbon.drain(|_| {}).unwrap();
    assert_eq!(carbon.journal_bytes(), 19);
}

#[test]
fn senders_are_held_back_when_the_journal_is_full() {
    let (fake, directory) = (Fake::start(), tempfile::tempdir().unwrap());
    let carbon = open(directory.path(), &fake, 64 << 10, 1 << 20);
    fake.change(|state| state.mood = Mood::Away);
    let series = carbon.intern(b"a.b").unwrap();
    let mut taken = 0_u32;
    // Times and values that the journal cannot make small.
    let point = |n: u32| Datapoint {
        series,
        at: PointTime::of_clock(Timestamp(
            NOW.wrapping_sub(n.wrapping_mul(7_919) % 80_000_000),
        )),
        value: f64::from(n).sqrt(),
    };
    while carbon.try_submit(&[point(taken)]) == 1 {
        taken += 1;
        assert!(taken < 1_000_000, "the journal has no end");
    }
    assert!(carbon.journal_bytes() < 2 << 20);
    fake.change(|state| state.mood = Mood::Well);
    carbon.submit(&[point(taken)]);
    let times: std::collections::BTreeSet<u32> =
        (0..=taken).map(|n| point(n).at.timestamp().0).collect();
    fake.until("everything has arrived", |state| {
        (state.points.len() == times.len()).then_some(())
    });
    carbon.drain(|_| {}).unwrap();
}

#[test]
fn a_crash_loses_nothing_that_was_committed() {
    let (fake, directory) = (Fake::start(), tempfile::tempdir().unwrap());
    let mut sent = Table::new();
    for round in 0..3 {
        let carbon = open(directory.path(), &fake, 64 << 10, 16 << 20);
        fake.change(|state| {
            state.mood = if round == 1 {
                Mood::Cuts
            } else {
                Mood::Refuses
            };
        });
        submit(&carbon, &mut sent, 20, 100 + 100 * round);
        carbon.commit().unwrap();
        carbon.abandon();
    }
    fake.change(|state| state.mood = Mood::Well);
    let carbon = open(directory.path(), &fake, 64 << 10, 16 << 20);
    arrived(&fake, &sent);
    settled(&carbon);
    carbon.drain(|_| {}).unwrap();
    assert_eq!(carbon.journal_bytes(), 19);
}

#[test]
fn a_shutdown_leaves_in_the_journal_what_is_not_acknowledged() {
    let (fake, directory) = (Fake::start(), tempfile::tempdir().unwrap());
    let mut sent = Table::new();
    let carbon = open(directory.path(), &fake, 16 << 20, 16 << 20);
    fake.change(|state| state.mood = Mood::Away);
    submit(&carbon, &mut sent, 10, 10);
    carbon.drain(|_| {}).unwrap();
    drop(carbon);
    fake.change(|state| state.mood = Mood::Well);
    let carbon = open(directory.path(), &fake, 16 << 20, 16 << 20);
    arrived(&fake, &sent);
    carbon.drain(|_| {}).unwrap();
}

#[test]
fn the_last_value_of_a_timestamp_wins_across_blocks() {
    let (fake, directory) = (Fake::start(), tempfile::tempdir().unwrap());
    let carbon = open(directory.path(), &fake, 16 << 20, 16 << 20);
    let series = carbon.intern(b"a.b").unwrap();
    for value in 0..5 {
        let value = f64::from(value);
        let at = PointTime::of_clock(Timestamp(NOW));
        carbon.submit(&[Datapoint { series, at, value }]);
        let found =
            |rows: &Vec<support::Row>| rows.last().is_some_and(|row| row.0 == value.to_bits());
        fake.until("it is there", |state| {
            let key = ("a.b".to_owned(), NOW);
            state
                .points
                .get(&key)
                .filter(|rows| found(rows))
                .map(|_| ())
        });
    }
    assert_eq!(fake.table()[&("a.b".to_owned(), NOW)], 4.0);
    carbon.drain(|_| {}).unwrap();
}
