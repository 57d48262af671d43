//! Any list of updates and fetches: the opened file, the mapped file and the naive twin agree.

#![no_main]

#[path = "../../whisper/tests/support/naive.rs"]
mod naive;

use libfuzzer_sys::fuzz_target;
use naive::Naive;
use whisper::{
    Aggregation, CreateOptions, File, Lock, MapOptions, Maps, Point, Retention, Timestamp, create,
};

/// The input, byte by byte; zeroes when it ends.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u32 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        u32::from(*first)
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.byte() % limit
    }
}

fn bits(values: &[f64]) -> Vec<u64> {
    let one_nan = |value: &f64| match value.is_nan() && !whisper::is_absent(*value) {
        true => f64::NAN.to_bits(),
        false => value.to_bits(),
    };
    values.iter().map(one_nan).collect()
}

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    let mut list = vec![(1 + input.below(20), 1 + input.below(40))];
    for _ in 0..input.below(4) {
        let (step, points) = list[list.len() - 1];
        let times = 2 + input.below(7);
        let last = list.len() - 1;
        list[last].1 = points.max(times);
        let reach = step * list[last].1;
        list.push((step * times, reach / (step * times) + 1 + input.below(20)));
    }
    let retentions: Vec<Retention> = list
        .iter()
        .map(|&(step, points)| Retention::new(step, points).unwrap())
        .collect();
    let factor = [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0][input.below(7) as usize];
    let aggregation = Aggregation::ALL[input.below(8) as usize];
    let options = CreateOptions {
        x_files_factor: factor,
        aggregation,
        ..CreateOptions::new(retentions.clone())
    };
    let dir = std::path::PathBuf::from("/dev/shm");
    let [opened, mapped] = ["opened", "mapped"]
        .map(|name| dir.join(format!("plumbago-fuzz-{name}-{}.wsp", std::process::id())));
    for path in [&opened, &mapped] {
        let _ = std::fs::remove_file(path);
        create(path, &options).unwrap();
    }
    let maps = Maps::new(MapOptions::default());
    let mut naive = Naive::new(retentions, factor as f32, aggregation);

    let mut now = 1_700_000_000;
    while !input.0.is_empty() {
        now += input.byte();
        let clock = Timestamp(now);
        let points: Vec<Point> = (0..input.below(24))
            .map(|_| {
                let age = match input.below(8) {
                    0 => -i64::from(input.byte()),
                    1 | 2 => i64::from(input.byte()) * 16,
                    _ => i64::from(input.below(64)),
                };
                let value = match input.byte() {
                    0 => f64::NAN,
                    1 => f64::INFINITY,
                    2 => -0.0,
                    3 => whisper::ABSENT,
                    byte => f64::from(byte) - 100.5,
                };
                Point::new((i64::from(now) - age) as u32, value)
            })
            .collect();
        File::open_mut(&opened, Lock::None)
            .unwrap()
            .update_many(clock, &points)
            .unwrap();
        maps.update_many(3, &mapped, clock, &points).unwrap();
        // A file holds one kind of NaN, which is never the NaN of an absent value.
        let stored: Vec<Point> = points
            .iter()
            .map(|point| match point.value.is_nan() {
                true => Point {
                    value: f64::NAN,
                    ..*point
                },
                false => *point,
            })
            .collect();
        naive.update_many(clock, &stored);
        assert_eq!(
            std::fs::read(&opened).unwrap(),
            std::fs::read(&mapped).unwrap()
        );

        let file = File::open(&opened).unwrap();
        let from = Timestamp(now - input.byte() * 16);
        for (archive, retention) in naive.retentions.iter().enumerate() {
            let found = file
                .fetch_archive(clock, from, clock, retention.step.seconds())
                .unwrap();
            let wanted = naive.fetch(archive, clock, from, clock);
            assert_eq!(found.map(|f| bits(&f.values)), wanted.map(|w| bits(&w)));
        }
        let found = maps.fetch(3, &mapped, clock, from, clock).unwrap();
        let wanted = naive.fetch(naive.choice(clock, from), clock, from, clock);
        assert_eq!(found.map(|f| bits(&f.values)), wanted.map(|w| bits(&w)));
    }
    assert!(maps.take_events().is_empty());
});
