//! The aggregator against a twin that keeps all points.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    outputs: 1_000,
    intervals: 100_000,
    late: 5,
};

fn rules(text: &str) -> Vec<Arc<Active>> {
    crate::conf::load_text("f".as_ref(), text, parse)
        .unwrap()
        .value
}

fn emitted(aggregator: &Aggregator, now: i64) -> Vec<(String, i64, f64)> {
    let mut emitted = Vec::new();
    aggregator.due(now, false, &mut emitted);
    let mut all: Vec<_> = emitted
        .into_iter()
        .map(|one| (one.output.name.to_string(), one.at, one.value))
        .collect();
    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
    all
}

/// The method over all values, by its definition.
fn naive(method: Method, values: &[f64]) -> f64 {
    let sum = values.iter().sum::<f64>();
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match method {
        Method::Sum => sum,
        Method::Avg => sum / values.len() as f64,
        Method::Min => sorted[0],
        Method::Max => sorted[sorted.len() - 1],
        Method::Count => values.len() as f64,
        Method::Percentile(share) => {
            let rank = share * (sorted.len() - 1) as f64;
            let below = sorted[rank as usize];
            let above = sorted[(rank as usize + 1).min(sorted.len() - 1)];
            below + (above - below) * rank.fract()
        }
    }
}

proptest! {
    /// Whatever the order and the delay within five intervals: the last value for each interval is the
    /// method over all of its points, and comes an interval after the last point at the latest.
    #[test]
    fn the_last_value_of_an_interval_is_that_of_all_its_points(
        method in 0..method::METHODS.len(),
        frequency in 1..40_i64,
        points in prop::collection::vec((0..3_i64, -30..5_i64, -100..100_i64, 0..3_u8), 1..200),
    ) {
        let (name, method) = method::METHODS[method];
        let rules = rules(&format!("o.<h> ({frequency}) = {name} in.<h>.*\n"));
        let aggregator = Aggregator::new(LIMITS);
        let mut twin: BTreeMap<(String, i64), Vec<f64>> = BTreeMap::new();
        let mut last: BTreeMap<(String, i64), f64> = BTreeMap::new();
        let mut now = 1_000_000;
        let step = |now: i64, last: &mut BTreeMap<(String, i64), f64>| {
            for (name, at, value) in emitted(&aggregator, now) {
                last.insert((name, at), value);
            }
        };
        for (pause, delay, value, host) in points {
            for _ in 0..pause {
                now += 1;
                step(now, &mut last);
            }
            // At most four intervals late.
            let at = now + delay.max(-4 * frequency);
            let name = format!("in.h{host}.x");
            let output = rules[0].rule.output(&name, &mut crate::rules::Faults::default()).unwrap();
            let value = value as f64 / 8.0;
            let out = aggregator.output(&rules[0], &output).unwrap();
            prop_assert_eq!(out.add(at, value, now, aggregator.limits()), Added::Taken);
            twin.entry((output, at - at.rem_euclid(frequency))).or_default().push(value);
        }
        for _ in 0..frequency + 5 {
            now += 1;
            step(now, &mut last);
        }
        prop_assert_eq!(last.len(), twin.len());
        for (key, values) in twin {
            let expected = naive(method, &values);
            prop_assert!((last[&key] - expected).abs() < 1e-9, "{:?} {} {}", key, last[&key], expected);
        }
        // Later everything is closed, and all room is given back.
        step(now + 50 * frequency + 10_000, &mut last);
        prop_assert_eq!(rules[0].intervals.load(Ordering::Relaxed), 0);
        prop_assert_eq!(aggregator.len().1, 0);
    }
}

#[test]
fn rules_that_stay_keep_their_intervals() {
    let old = rules("a (10) = sum in.a\nb (10) = sum in.b\n");
    let aggregator = Aggregator::new(LIMITS);
    for (rule, name) in old.iter().zip(["a", "b"]) {
        let output = aggregator.output(rule, name).unwrap();
        output.add(101, 2.0, 101, aggregator.limits());
    }
    let new = rules("c (10) = sum in.c\n  a (10) = sum in.a\n");
    let (active, left, gone) = aggregator.replace(&old, &new);
    assert!(Arc::ptr_eq(&active[0], &new[0]) && Arc::ptr_eq(&active[1], &old[0]));
    assert_eq!(
        (left.len(), &*left[0].output.name, left[0].value),
        (1, "b", 2.0)
    );
    assert_eq!((gone.len(), &*gone[0].name), (1, "b"));
    let output = aggregator.output(&active[1], "a").unwrap();
    output.add(102, 3.0, 102, aggregator.limits());
    assert_eq!(emitted(&aggregator, 110), [("a".to_owned(), 100, 5.0)]);
}

#[test]
fn a_rule_has_bounds_of_its_own() {
    let rules = rules("a.<x> (10) = sum in.<x>\nb (10) = sum in.b\n");
    let aggregator = Aggregator::new(Limits {
        outputs: 2,
        intervals: 3,
        late: 5,
    });
    let first = aggregator.output(&rules[0], "a.1").unwrap();
    let second = aggregator.output(&rules[0], "a.2").unwrap();
    assert_eq!(aggregator.output(&rules[0], "a.3").err(), Some(Full));
    assert_eq!(rules[0].outputs(), 2);
    assert!(rules[0].is_news() && !rules[0].is_news());
    let limits = aggregator.limits();
    let add = |output: &Output, at| output.add(at, 1.0, 100, limits);
    assert_eq!(add(&first, 100), Added::Taken);
    assert_eq!(add(&first, 90), Added::Taken);
    assert_eq!(add(&second, 100), Added::Taken);
    assert_eq!(add(&second, 90), Added::Full);
    assert_eq!(add(&second, 100), Added::Taken);
    assert_eq!(
        add(&aggregator.output(&rules[1], "b").unwrap(), 90),
        Added::Taken
    );
    // What nothing refers to goes after a while, and makes room.
    emitted(&aggregator, 10_000);
    drop(first);
    assert!(aggregator.sweep(1_000).is_empty());
    let swept = aggregator.sweep(10_000);
    assert_eq!(swept.len(), 2);
    assert_eq!((rules[0].outputs(), rules[1].outputs()), (1, 0));
    assert!(aggregator.output(&rules[0], "a.3").is_ok());
    drop(second);
}

#[test]
fn two_rules_for_one_series_share_it() {
    let rules = rules("o (10) = sum in.a\no (10) = sum in.b\n");
    let aggregator = Aggregator::new(LIMITS);
    for rule in &rules {
        let output = aggregator.output(rule, "o").unwrap();
        output.add(101, 2.0, 101, aggregator.limits());
    }
    assert_eq!(emitted(&aggregator, 110), [("o".to_owned(), 100, 4.0)]);
}
