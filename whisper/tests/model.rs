//! Properties of files and maps, against a naive twin that forgets nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/naive.rs"]
mod naive;

use naive::Naive;
use proptest::prelude::*;
use whisper::{
    Aggregation, Arrival, CreateOptions, File, Lock, MapOptions, Maps, Point, Retention, Timestamp,
    create,
};

const START: u32 = 1_700_000_000;

/// Archives that a file may have: each step a multiple of the one before, each longer.
fn retentions() -> impl Strategy<Value = Vec<Retention>> {
    let first = (1_u32..20, 1_u32..30);
    let more = prop::collection::vec((2_u32..7, 0_u32..20), 0..3);
    (first, more).prop_map(|((step, points), more)| {
        let mut all = vec![(step, points)];
        for (times, extra) in more {
            let (step, points) = all[all.len() - 1];
            // Enough points below to make one above, and a longer reach above.
            let last = all.len() - 1;
            all[last].1 = points.max(times);
            let reach = step * all[last].1;
            all.push((step * times, reach / (step * times) + 1 + extra));
        }
        all.into_iter()
            .map(|(step, points)| Retention::new(step, points).unwrap())
            .collect()
    })
}

/// A clock that goes on by so many seconds, and the points written then: by their age, which may
/// be negative for the future, and their value.
type Batch = (u32, Vec<(i32, f64)>);

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let value = prop_oneof![
        4 => (-1000_i32..1000).prop_map(f64::from),
        1 => any::<f64>().prop_filter("one kind of NaN", |value| !value.is_nan()),
    ];
    let age = prop_oneof![5 => 0_i32..60, 3 => 0_i32..2000, 1 => -100_i32..0];
    prop::collection::vec(
        (0_u32..200, prop::collection::vec((age, value), 0..30)),
        1..12,
    )
}

fn method() -> impl Strategy<Value = Aggregation> {
    prop::sample::select(&Aggregation::ALL[..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]

    #[test]
    fn points_that_waited_are_written_as_if_they_had_not(
        retentions in retentions(),
        method in method(),
        factor in 0..3_u32,
        points in prop::collection::vec((1_u32..40, -9_i32..9), 1..120),
        waits in prop::collection::vec((1_usize..60, 0_u32..100), 1..12),
    ) {
        let options = CreateOptions {
            aggregation: method,
            x_files_factor: f64::from(factor) / 4.0,
            ..CreateOptions::new(retentions)
        };
        let dir = tempfile::tempdir().unwrap();
        let [at_once, later] = ["a.wsp", "b.wsp"].map(|name| dir.path().join(name));
        for path in [&at_once, &later] {
            create(path, &options).unwrap();
        }
        let mut at = START;
        let points: Vec<Point> = points
            .iter()
            .map(|(distance, value)| {
                at += distance;
                Point::new(at, f64::from(*value))
            })
            .collect();
        let mut file = File::open_mut(&at_once, Lock::None).unwrap();
        for point in &points {
            file.update_many(point.at, std::slice::from_ref(point)).unwrap();
        }
        drop(file);
        let mut rest = &points[..];
        let mut waits = waits.iter().cycle();
        while let Some((count, longer)) = waits.next().filter(|_| !rest.is_empty()) {
            let (waited, further) = rest.split_at(rest.len().min(*count));
            rest = further;
            let arrival = Arrival {
                since: waited[0].at,
                now: Timestamp(waited[waited.len() - 1].at.0 + longer),
            };
            let mut file = File::open_mut(&later, Lock::None).unwrap();
            let updated = file.update_many(arrival, waited).unwrap();
            prop_assert_eq!((updated.taken, updated.too_old), (waited.len(), 0));
        }
        prop_assert_eq!(std::fs::read(&at_once).unwrap(), std::fs::read(&later).unwrap());
    }

    #[test]
    fn files_and_maps_answer_like_the_naive_twin(
        retentions in retentions(),
        factor in prop::sample::select(&[0.0, 0.1, 0.2, 0.5, 1.0][..]),
        aggregation in method(),
        batches in batches(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let options = CreateOptions {
            x_files_factor: factor,
            aggregation,
            ..CreateOptions::new(retentions.clone())
        };
        let (opened, mapped) = (dir.path().join("opened"), dir.path().join("mapped"));
        create(&opened, &options).unwrap();
        create(&mapped, &options).unwrap();
        let maps = Maps::new(MapOptions::default());
        let mut naive = Naive::new(retentions, factor as f32, aggregation);

        let mut now = START;
        for (pause, points) in batches {
            now += pause;
            let at = |age: i32| (i64::from(now) - i64::from(age)) as u32;
            let points: Vec<Point> =
                points.iter().map(|&(age, value)| Point::new(at(age), value)).collect();
            let clock = Timestamp(now);
            File::open_mut(&opened, Lock::None).unwrap().update_many(clock, &points).unwrap();
            maps.update_many(7, &mapped, clock, &points).unwrap();
            naive.update_many(clock, &points);
            prop_assert_eq!(std::fs::read(&opened).unwrap(), std::fs::read(&mapped).unwrap());

            let file = File::open(&opened).unwrap();
            for back in [0, 1, 59, 400, 5000] {
                let from = Timestamp(now - back);
                for (archive, retention) in naive.retentions.iter().enumerate() {
                    let step = retention.step.seconds();
                    let found = file.fetch_archive(clock, from, clock, step).unwrap();
                    let found = found.map(|found| bits(&found.values));
                    let wanted = naive.fetch(archive, clock, from, clock);
                    prop_assert_eq!(found, wanted.map(|wanted| bits(&wanted)));
                }
                let found = maps.fetch(7, &mapped, clock, from, clock).unwrap();
                let wanted = naive.fetch(naive.choice(clock, from), clock, from, clock);
                prop_assert_eq!(found.map(|f| bits(&f.values)), wanted.map(|w| bits(&w)));
            }
        }
        prop_assert!(maps.take_events().is_empty());
    }

    #[test]
    fn any_split_of_a_batch_by_time_is_the_batch(
        retentions in retentions(),
        mut points in prop::collection::vec((0_u32..3000, -100_i32..100), 1..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        // Every coarser point is the last one below it: then it cannot matter what was there when.
        let options = CreateOptions {
            x_files_factor: 0.0,
            aggregation: Aggregation::Last,
            ..CreateOptions::new(retentions)
        };
        points.sort_by_key(|point| std::cmp::Reverse(point.0));
        let now = Timestamp(START);
        let points: Vec<Point> =
            points.iter().map(|&(age, value)| Point::new(START - age, f64::from(value))).collect();
        let (old, new) = points.split_at(cut.index(points.len()));
        let fetched = [vec![old, new], vec![&points]].map(|parts| {
            let path = dir.path().join(parts.len().to_string());
            create(&path, &options).unwrap();
            let mut file = File::open_mut(&path, Lock::None).unwrap();
            for part in parts {
                file.update_many(now, part).unwrap();
            }
            // The finest archive, and only that: older points come to coarser ones by their age
            // at either time, and may be overwritten by what finer ones propagate later.
            let step = options.retentions[0].step.seconds();
            file.fetch_archive(now, Timestamp(START - 3000), now, step).unwrap()
        });
        let [split, whole] = fetched.map(|f| f.map(|f| bits(&f.values)));
        prop_assert_eq!(split, whole);
    }
}

fn bits(values: &[f64]) -> Vec<u64> {
    values
        .iter()
        .map(|value| {
            if value.is_nan() && !whisper::is_absent(*value) {
                f64::NAN.to_bits()
            } else {
                value.to_bits()
            }
        })
        .collect()
}
