//! Tests of chains.

use super::*;
use proptest::prelude::*;

fn read(chain: &Chain, chunks: &Chunks) -> Vec<(u32, u64)> {
    let mut points = Vec::new();
    chain.read(chunks, &mut points);
    points.iter().map(|p| (p.at.0, p.value.to_bits())).collect()
}

/// Chunks of a chain with `values`, ten seconds apart.
fn chunks_of(values: impl IntoIterator<Item = f64>) -> usize {
    let mut chunks = Chunks::default();
    let mut chain = EMPTY;
    let values: Vec<f64> = values.into_iter().collect();
    for (n, value) in values.iter().enumerate() {
        chain.push(&mut chunks, 1_000 + 10 * n as u32, *value);
    }
    let expected = values.iter().enumerate();
    let expected: Vec<_> = expected
        .map(|(n, value)| (1_000 + 10 * n as u32, value.to_bits()))
        .collect();
    assert_eq!(read(&chain, &chunks), expected);
    let used = chunks.in_use();
    chunks.free(&chain);
    assert_eq!(chunks.in_use(), 0);
    used
}

#[test]
fn counters_and_gauges_take_few_bytes() {
    assert_eq!(chunks_of([0.0; 120]), 0, "an idle counter");
    assert_eq!(chunks_of([0.1; 1_000]), 1, "eight tokens of a run");
    let small = |n: u32| f64::from(n * 37 % 61);
    assert_eq!(chunks_of((0..31).map(small)), 3, "2 bytes a point");
    let rate = |n: u32| f64::from(n * 37 % 61) / 10.0;
    assert_eq!(chunks_of((0..31).map(rate)), 4, "3 bytes a point");
    let sawtooth = |n: u32| f64::from(n % 5) * 0.25;
    assert_eq!(chunks_of((0..31).map(sawtooth)), 3, "quarters");
}

#[test]
fn freed_chunks_are_used_again() {
    let mut chunks = Chunks::default();
    let mut chain = EMPTY;
    for round in 1..20_u32 {
        for n in 0..500 {
            chain.push(&mut chunks, n, f64::from(n).sqrt());
        }
        assert!(chunks.bump < 500, "round {round}");
        chunks.free(&chain);
        chain.count = 0;
    }
    assert_eq!(chunks.in_use(), 0);
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-300_i32..300).prop_map(f64::from),
        4 => (-90_000_i32..90_000).prop_map(|n| f64::from(n) / 1_000.0),
        2 => any::<f64>(),
        2 => any::<f32>().prop_map(f64::from),
        1 => any::<u64>().prop_map(f64::from_bits),
        2 => prop::sample::select(vec![
            0.0, -0.0, 0.1, 1e15, -1e15, SMALL, SMALL + 0.5, SMALL - 0.001, 1e300, f64::MAX, f64::MIN_POSITIVE,
        ]),
    ]
}

proptest! {
    #[test]
    fn every_point_comes_back_bit_by_bit(
        points in prop::collection::vec(
            (prop_oneof![6 => Just(10_u32), 2 => 0..300_u32, 1 => any::<u32>()], value(), 1..300_usize),
            0..60,
        ),
        first in any::<u32>(),
    ) {
        let mut chunks = Chunks::default();
        let mut chain = EMPTY;
        let mut expected = Vec::new();
        let mut at = first;
        for (difference, value, repeats) in points {
            // Mostly single points, sometimes a run that is longer than a token can say.
            for _ in 0..repeats.saturating_sub(280).max(1) * 12 - 11 {
                at = at.wrapping_add(difference);
                let before = chunks.in_use();
                chain.push(&mut chunks, at, value);
                prop_assert!(chunks.in_use() - before <= MOST_PER_POINT);
                expected.push((at, value.to_bits()));
            }
        }
        prop_assert_eq!(read(&chain, &chunks), expected);
    }

    #[test]
    fn a_part_is_read_as_if_all_were(
        step in 1..100_u32,
        values in prop::collection::vec((value(), 1..40_usize), 1..40),
        odd in prop::option::weighted(0.2, (0..200_usize, 0..1_000_u32)),
        [from, until] in [900..9_000_u32, 900..9_000_u32],
        [oldest, newest] in [900..2_000_u32, 500..20_000_u32],
    ) {
        let (mut chunks, mut chain) = (Chunks::default(), EMPTY);
        let mut expected = Vec::new();
        for (value, repeats) in values {
            for _ in 0..repeats {
                let n = expected.len();
                let at = match odd {
                    Some((odd, at)) if odd == n => 1_000 + at,
                    _ => 1_000 + step * n as u32,
                };
                chain.push(&mut chunks, at, value);
                expected.push((at, value.to_bits()));
            }
        }
        let needed = Needed {
            from: Timestamp(from),
            until: Timestamp(until),
            oldest: Timestamp(oldest),
            newest: Timestamp(newest),
        };
        let all_between = expected.iter().all(|(at, _)| (oldest..=newest).contains(at));
        if chain.is_between(&needed) {
            prop_assert!(all_between);
            let mut points = Vec::new();
            chain.read_between(&chunks, needed.from, needed.until, &mut points);
            let points: Vec<_> = points.iter().map(|p| (p.at.0, p.value.to_bits())).collect();
            expected.retain(|(at, _)| (from..until).contains(at));
            prop_assert_eq!(points, expected);
        } else {
            prop_assert!(!all_between || odd.is_some());
        }
    }
}
