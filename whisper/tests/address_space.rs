//! Files mapped by a process whose address space is limited.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use whisper::{Allocation, CreateOptions, MapOptions, Maps, Point, Retention, Timestamp};

const START: u32 = 1_700_000_040;
const FILES: u32 = 200;
/// The address space of the process.
const LIMIT: u64 = 1 << 30;

#[test]
fn maps_leave_half_of_a_limited_address_space() {
    let before = getrlimit(Resource::As);
    let current = Some(LIMIT);
    setrlimit(Resource::As, Rlimit { current, ..before }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let maps = Maps::new(MapOptions {
        reserve_up_to: 0,
        ..MapOptions::default()
    });
    let options = CreateOptions {
        allocation: Allocation::Sparse,
        // 12 MB: all of them have 2.4 GB.
        ..CreateOptions::new([Retention::new(1, 1_000_000).unwrap()].into())
    };
    let path = |n: u32| dir.path().join(format!("{n}.wsp"));
    for n in 0..FILES {
        maps.create(&path(n), &options).unwrap();
    }
    for now in [START, START + 1] {
        for n in 0..FILES {
            let point = Point::new(now, f64::from(n));
            maps.update_many(n, &path(n), Timestamp(now), &[point])
                .unwrap();
        }
        let mapped = maps.mapped_files() as u64 * 12_000_028;
        assert!((LIMIT / 4..=LIMIT / 2).contains(&mapped), "{mapped} bytes");
    }
    // The others are no news: they are written without a map.
    let events = maps.take_events();
    assert!(events.is_empty(), "{events:?}");
    for n in 0..FILES {
        let now = Timestamp(START + 1);
        let found = maps.fetch(n, &path(n), now, Timestamp(START - 1), now);
        let values = found.unwrap().unwrap().values;
        assert_eq!(values, [f64::from(n); 2]);
    }
    // What is not used any more makes room for what is.
    for now in START + 2..START + 40 {
        for n in FILES - 16..FILES {
            maps.update_many(n, &path(n), Timestamp(now), &[Point::new(now, 1.0)])
                .unwrap();
        }
    }
    let mapped = maps.mapped_files() as u64 * 12_000_028;
    assert!((LIMIT / 4..=LIMIT / 2).contains(&mapped), "{mapped} bytes");
}
