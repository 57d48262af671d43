//! `kill -9` at random times under load: after the restart all committed points exist, and no point
//! exists that was not sent.
//!
//! The process that is killed is this test's own program, started again as `child`. It prints how many
//! points are committed; the parent kills it after a random number of such lines and checks the store.
//! `CARBON_KILLS=100` kills more often than the twelve times of an ordinary run.
//!
//! In a third of the lives points wait for minutes, in a third for two seconds, and in a third hardly at all.
//!
//! In every other life the clock of the child jumps, by a second to ten years, forward and back, and
//! may be wrong when it is killed.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use carbon::options::{ByteSize, JournalOptions, Options, Span, SyncPolicy};
use carbon::schema::Schema;
use carbon::{Carbon, Datapoint, PointTime, Setup, Sink, Timestamp};
use support::{NOW, chance};
use whisper::Retention;

const SERIES: u64 = 20;
/// Points of one life before its timestamps are used again.
const ROUND: u64 = SERIES * 100;

/// By how much the clock of the process is wrong.
static WRONG: AtomicI64 = AtomicI64::new(0);

/// How long points wait for their files, in seconds.
const WAITS: [u64; 3] = [300, 2, 1];

fn open(data: &Path, life: u64) -> Carbon {
    let options = Options {
        persist_within: Span::seconds(WAITS[life as usize % WAITS.len()]),
        ..Options::default()
    };
    let journal = JournalOptions {
        sync: SyncPolicy::Every(Span::millis(2)),
        // Small, so that segments are created and deleted often.
        max_size: ByteSize(128 << 10),
    };
    let retentions = vec![
        Retention::new(10, 1_000).unwrap(),
        Retention::new(60, 500).unwrap(),
    ];
    let setup = Setup {
        schema: Schema::new(retentions, Span::seconds(10)),
        clock: Arc::new(|| {
            let wrong = i64::from(NOW) + WRONG.load(Ordering::Relaxed);
            Timestamp(u32::try_from(wrong).unwrap())
        }),
        ..Setup::new(options, journal, Span::seconds(10))
    };
    Carbon::open(setup, data).unwrap()
}

/// Seconds by which the clock jumps.
const JUMPS: [i64; 13] = [
    1,
    -1,
    61,
    -61,
    3_600,
    -3_600,
    7 * 3_600,
    -7 * 3_600,
    86_400,
    -86_400,
    30 * 86_400,
    10 * 365 * 86_400,
    -10 * 365 * 86_400,
];

/// The `k`th point of a life, which its value identifies.
fn point(carbon: &Carbon, life: u64, k: u64) -> Datapoint {
    let slot = k % ROUND;
    Datapoint {
        series: carbon.intern(name(life, slot).as_bytes()).unwrap(),
        at: PointTime::new(Timestamp(NOW - 1_000 + (slot / SERIES) as u32 * 10)).unwrap(),
        value: k as f64 + 0.123,
    }
}

fn name(life: u64, slot: u64) -> String {
    format!("life{life}.m{}", slot % SERIES)
}

/// Not a test of its own: the process that is killed.
#[test]
fn child() {
    let Ok(data) = std::env::var("CARBON_CHILD") else {
        return;
    };
    let life: u64 = std::env::var("CARBON_LIFE").unwrap().parse().unwrap();
    let carbon = open(Path::new(&data), life);
    let mut out = std::io::stdout();
    let mut k = 0;
    let mut said = 0;
    let mut chance = chance(life);
    let jumps = std::env::var("CARBON_JUMPS").is_ok();
    loop {
        if jumps && chance(20) == 0 {
            let wrong = JUMPS[chance(JUMPS.len())];
            WRONG.store(wrong, Ordering::Relaxed);
        } else if chance(20) == 0 {
            WRONG.store(0, Ordering::Relaxed);
        }
        let batch: Vec<_> = (k..k + 7).map(|k| point(&carbon, life, k)).collect();
        carbon.submit(&batch);
        k += 7;
        if carbon.committed() > said {
            said = carbon.committed();
            // The pipe is closed: the parent has ended, and so does the child.
            if writeln!(out, "committed {said}").is_err() {
                return;
            }
        }
    }
}

#[test]
fn nothing_committed_is_missing_and_nothing_is_made_up() {
    let kills: u64 = std::env::var("CARBON_KILLS").map_or(12, |kills| kills.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut chance = chance(42);
    let mut promised = BTreeMap::new();
    let mut points = 0;
    for life in 0..kills {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["child", "--exact", "--nocapture"])
            .env("CARBON_CHILD", dir.path())
            .env("CARBON_LIFE", life.to_string())
            .stdout(Stdio::piped());
        if life % 2 == 1 {
            command.env("CARBON_JUMPS", "1");
        }
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let wanted = 1 + chance(60);
        let mut committed = 0;
        let numbers = lines.map_while(Result::ok).filter_map(|line| {
            let (_, number) = line.split_once("committed ")?;
            number.parse::<u64>().ok()
        });
        for (n, number) in numbers.enumerate() {
            committed = number;
            if n + 1 >= wanted {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(committed > 0, "life {life} committed nothing");
        promised.insert(life, committed);
        points += committed;

        let carbon = open(dir.path(), life + 1);
        for (life, committed) in &promised {
            check(&carbon, *life, *committed);
        }
        carbon.abandon();
    }
    println!("{kills} kills, {points} committed points, none missing");
}

/// Each slot has the last committed value, or one that was sent later.
fn check(carbon: &Carbon, life: u64, committed: u64) {
    for series in 0..SERIES {
        let name = name(life, series);
        let (from, until) = (Timestamp(NOW - 1_001), Timestamp(NOW));
        let Some(fetched) = carbon.fetch(&name, from, until, Timestamp(NOW)).unwrap() else {
            assert!(committed <= series, "{name} is not there");
            continue;
        };
        let values: BTreeMap<u32, f64> = fetched
            .points
            .points()
            .map(|(at, value)| (at.0, value))
            .collect();
        for step in 0..ROUND / SERIES {
            let slot = step * SERIES + series;
            let at = NOW - 1_000 + step as u32 * 10;
            let value = values[&at];
            let last = (committed > slot).then(|| {
                let rounds = (committed - 1 - slot) / ROUND;
                slot + rounds * ROUND
            });
            if whisper::is_absent(value) {
                assert_eq!(last, None, "{name} at {at} is missing");
                continue;
            }
            let k = (value - 0.123).round() as u64;
            assert_eq!(k % ROUND, slot, "{name} at {at} was never sent");
            assert!(
                last.is_none_or(|last| k >= last),
                "{name} at {at} is an old one"
            );
        }
    }
}
