//! Clocks that jump by hours and years, forward and back: points with correct timestamps are kept.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use carbon::journal::disk::RealDisk;
use carbon::options::Options;
use carbon::{Carbon, PointTime, SeriesId, Setup, Sink, Timestamp};
use support::{NOW, point, series, setup, values};

const HOUR: i64 = 3_600;
const YEARS: i64 = 10 * 365 * 24 * HOUR;
const JUMPS: [i64; 8] = [1, 300, 7 * HOUR, 24 * HOUR, YEARS, -300, -7 * HOUR, -YEARS];

/// A store whose clock is `jump` seconds wrong. `creates` per minute, 0 for any number.
fn open(dir: &Path, jump: &Arc<AtomicI64>, creates: u32) -> Carbon {
    let jump = Arc::clone(jump);
    let setup = Setup {
        options: Options {
            max_creates_per_minute: creates,
            ..support::options()
        },
        clock: Arc::new(move || {
            let wrong = i64::from(NOW) + jump.load(Ordering::SeqCst);
            Timestamp(u32::try_from(wrong).unwrap())
        }),
        ..setup(Arc::new(RealDisk))
    };
    Carbon::open(setup, dir).unwrap()
}

const SERIES: u32 = 20;

/// Ten points of each series, of the last hundred seconds.
fn submit(carbon: &Carbon, ids: &[SeriesId]) {
    for n in 0..10 {
        carbon.submit(&ids.iter().map(|id| point(*id, n)).collect::<Vec<_>>());
    }
}

#[track_caller]
fn check(carbon: &Carbon, jump: i64) {
    for n in 0..SERIES {
        let found = values(carbon, &format!("test.m{n}"));
        for step in 0..10 {
            let sent = point(SeriesId(n), step);
            assert_eq!(
                found.get(&sent.at.timestamp().0),
                Some(&sent.value),
                "jump of {jump} s, m{n}, {step} steps ago"
            );
        }
    }
}

#[test]
fn a_pass_during_a_jump_writes_points_where_they_belong() {
    for seconds in JUMPS {
        let dir = tempfile::tempdir().unwrap();
        let jump = Arc::default();
        let carbon = open(dir.path(), &jump, 1);
        let ids = series(&carbon, SERIES);
        submit(&carbon, &ids);
        jump.store(seconds, Ordering::SeqCst);
        // Points that arrive meanwhile have correct timestamps, or that of the wrong clock.
        submit(&carbon, &ids);
        let wrong = carbon.intern(b"wrong").unwrap();
        let mut stamped = point(wrong, 0);
        stamped.at = PointTime::of_clock(carbon.now());
        carbon.submit(&[stamped]);
        carbon.drain(|_| {}).unwrap();
        assert_eq!(carbon.stats().too_old.get(), 0, "jump of {seconds} s");
        assert!(carbon.cache().is_empty());
        jump.store(0, Ordering::SeqCst);
        check(&carbon, seconds);
    }
}

#[test]
fn a_crash_during_or_after_a_jump_loses_nothing() {
    for seconds in JUMPS {
        for (back_before, back_after) in [(true, true), (false, true), (false, false)] {
            let dir = tempfile::tempdir().unwrap();
            let jump = Arc::default();
            let carbon = open(dir.path(), &jump, 1);
            let ids = series(&carbon, SERIES);
            submit(&carbon, &ids);
            carbon.commit().unwrap();
            jump.store(seconds, Ordering::SeqCst);
            let mut stamped = point(carbon.intern(b"wrong").unwrap(), 0);
            stamped.at = PointTime::of_clock(carbon.now());
            carbon.submit(&[stamped]);
            // Waiting points are appended to a new segment at the time of the wrong clock.
            carbon.checkpoint().unwrap();
            if back_before {
                jump.store(0, Ordering::SeqCst);
                stamped.at = PointTime::of_clock(carbon.now());
                carbon.submit(&[stamped]);
            }
            carbon.commit().unwrap();
            carbon.abandon();
            if back_after {
                jump.store(0, Ordering::SeqCst);
            }
            let carbon = open(dir.path(), &jump, 0);
            // Points of the present clock may wait on.
            carbon.checkpoint().unwrap();
            assert!(carbon.cache().is_empty());
            assert_eq!(carbon.stats().too_old.get(), 0, "jump of {seconds} s");
            carbon.abandon();
            jump.store(0, Ordering::SeqCst);
            check(&open(dir.path(), &jump, 0), seconds);
        }
    }
}
