#![no_main]
//! The body of a frame of the file of open aggregates: read or refused without a panic; what was read is
//! saved, read back, and gives the same aggregates.

use std::sync::Arc;

use carbon::conf::load_text;
use carbon::rules::aggregate::saved::Saved;
use carbon::rules::aggregate::{self, Active, Aggregator, Emitted, Limits};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits = Limits {
    outputs: 1_000,
    intervals: 1_000,
    late: 5,
};
const RULES: &str = "a (10) = sum a\nb (60) = p50 b\nc (1) = max c\n";

fn rules() -> Vec<Arc<Active>> {
    let loaded = load_text("f".as_ref(), RULES, aggregate::parse);
    loaded.map(|loaded| loaded.value).unwrap_or_default()
}

/// Names, starts and bits of the values, in order.
fn shown(emitted: Vec<Emitted>) -> Vec<(String, i64, u64)> {
    let one = |one: Emitted| (one.output.name.to_string(), one.at, one.value.to_bits());
    let mut all: Vec<_> = emitted.into_iter().map(one).collect();
    all.sort();
    all
}

/// What an aggregator makes of `body`, and all that it saves.
fn restored(body: &[u8]) -> (bool, Vec<(String, i64, u64)>, Vec<u8>) {
    let mut saved = Saved::default();
    let whole = saved.apply(body);
    let aggregator = Aggregator::new(LIMITS);
    aggregator.restore(saved, &rules(), 1_000);
    let mut body = Vec::new();
    aggregator.save(true, &mut body);
    let mut emitted = Vec::new();
    aggregator.due(1_000, true, &mut emitted);
    (whole, shown(emitted), body)
}

fuzz_target!(|body: &[u8]| {
    let (_, first, body) = restored(body);
    let (whole, second, _) = restored(&body);
    assert!(whole);
    assert_eq!(first, second);
});
