//! What answers and pictures really allocate, counted, against what they may reserve.
//!
//! The series are there before the counting begins: evaluation has tests of its own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/counting.rs"]
mod counting;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use render::budget::{Budget, Memory};
use render::draw::{Params, Window, draw};
use render::format::json::{self, Choice};
use render::format::{Buffer, Document, Position};
use render::format::{csv, dygraph, msgpack, pickle, raw, rickshaw};
use render::{Drawing, Error, Series};

/// One test at a time: the counters are everybody's.
static ALONE: Mutex<()> = Mutex::new(());

const MIB: usize = 1 << 20;

/// What is allocated beside the budget: fonts, bitmaps of glyphs, the state of the compression,
/// single small objects.
const SLACK: usize = 3 * MIB;

/// The result of `job` within a budget of `limit` bytes, after asserting what it allocated.
fn within<T>(
    name: &str,
    limit: usize,
    time: Duration,
    job: impl FnOnce(&Budget) -> Result<T, Error>,
) -> Result<T, Error> {
    let memory = Memory::new(limit as u64);
    let budget = Budget::new(Arc::clone(&memory), Some(Instant::now() + time));
    let before = counting::restart();
    let result = job(&budget);
    let peak = counting::most_beyond(before);
    assert!(
        peak <= limit + SLACK,
        "{name}: allocated {peak} bytes in a budget of {limit}"
    );
    result
}

fn is_refused<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Limit { key, .. }) if key == "render.max_memory")
}

/// Five years by ten minutes, as noisy as can be.
fn long(name: &str) -> Series {
    let values: Vec<f64> = (0..262_800_u64)
        .map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64)
        .collect();
    Series::new(name, 0, 262_800 * 600, 600, values.into())
}

/// The same series many times over, as repeated targets give it.
fn repeated(n: usize) -> Vec<Series> {
    vec![long("a"); n]
}

type Format = fn(Vec<Series>) -> Document;

const FORMATS: [(&str, Format); 7] = [
    ("csv", |all| csv::document(all, &TimeZone::UTC)),
    ("raw", raw::document),
    ("pickle", pickle::document),
    ("msgpack", msgpack::document),
    ("rickshaw", rickshaw::document),
    ("dygraph", dygraph::document),
    ("json", |all| {
        json::document(all, Choice::default(), &Budget::unlimited()).unwrap()
    }),
];

#[test]
fn an_answer_that_does_not_fit_is_refused_before_it_is_written() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, format) in FORMATS {
        let document = format(repeated(4_000));
        let result = within(name, 64 * MIB, Duration::from_secs(60), |budget| {
            document.whole(budget)
        });
        assert!(is_refused(result), "{name}");
    }
}

#[test]
fn an_answer_in_chunks_takes_the_memory_of_one() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, format) in FORMATS {
        let document = format(repeated(4));
        let written = within(name, MIB, Duration::from_secs(600), |budget| {
            let (mut at, mut written) = (Position::START, 0);
            while !at.is_end() {
                let mut chunk = Buffer::new(budget);
                document.write(&mut at, &mut chunk, 256 * 1024, || budget.check())?;
                written += chunk.len();
            }
            Ok(written)
        });
        // Some 9 bytes a value at the least.
        assert!(written.unwrap() > 9 * MIB, "{name}");
    }
}

#[test]
fn downsampling_is_within_the_budget() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let all = repeated(1_000);
    let choice = Choice {
        max_points: Some(131_000),
        ..Choice::default()
    };
    let result = within("downsampled", 64 * MIB, Duration::from_secs(60), |budget| {
        all[0].values.reserve_in(budget)?;
        json::document(all, choice, budget)
    });
    assert!(is_refused(result));
}

fn params(query: &str) -> Params {
    let pairs: Vec<(String, String)> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    Params::from_pairs(&pairs)
}

fn drawn(n: usize, points: usize, drawing: &Drawing) -> Vec<Series> {
    (0..n)
        .map(|i| {
            let mut series = long(&format!("series.{i}"));
            series.values.make_mut().truncate(points);
            series.end = series.start + 600 * points as i64;
            series.drawing = drawing.clone();
            series
        })
        .collect()
}

/// The pictures that took minutes, or memory without end: what they do, series, parameters.
fn pictures() -> Vec<(&'static str, Vec<Series>, String)> {
    let plain = Drawing::default();
    let dashed = Drawing {
        dashed: Some(0.001),
        ..plain.clone()
    };
    let long_dashes = Drawing {
        dashed: Some(1.0),
        ..plain.clone()
    };
    let wide = Drawing {
        line_width: Some(4000.0),
        ..plain.clone()
    };
    let glass = Drawing {
        line_width: Some(3000.0),
        alpha: Some(0.01),
        ..plain.clone()
    };
    let large = "width=4096&height=4096&hideLegend=false";
    let mut named = drawn(300, 60, &plain);
    for series in &mut named {
        series.name = "x".repeat(50_000);
    }
    vec![
        (
            "dashes smaller than a pixel",
            drawn(6, 262_800, &dashed),
            large.to_owned(),
        ),
        (
            "dashes of a pixel",
            drawn(6, 262_800, &long_dashes),
            large.to_owned(),
        ),
        ("wide lines", drawn(50, 4_000, &wide), large.to_owned()),
        ("wide glass", drawn(50, 4_000, &glass), large.to_owned()),
        (
            "every point",
            drawn(6, 262_800, &plain),
            format!("{large}&minXStep=0.0000001"),
        ),
        (
            "every point, wide",
            drawn(6, 262_800, &wide),
            format!("{large}&minXStep=0.0000001"),
        ),
        (
            "stacked",
            drawn(300, 4_000, &plain),
            format!("{large}&areaMode=stacked"),
        ),
        (
            "large letters",
            drawn(1, 60, &plain),
            "width=500&height=500&pixelRatio=8&fontSize=500".to_owned(),
        ),
        ("long names", named, "hideLegend=false".to_owned()),
        (
            "a long title",
            drawn(1, 60, &plain),
            format!("title={}", "x\\n".repeat(300_000)),
        ),
        (
            "long times",
            drawn(1, 60, &plain),
            format!("xFormat={}", "%A ".repeat(100_000)),
        ),
    ]
}

#[test]
fn pictures_are_within_the_budget_and_the_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let window = Window::utc(0, 3600);
    for (name, series, query) in pictures() {
        let params = params(&query);
        // The larger budget is enough for the pixels of the largest picture.
        for (limit, time) in [(64 * MIB, 1.0), (256 * MIB, 1.0), (256 * MIB, 0.1)] {
            let time = Duration::from_secs_f64(time);
            for png in [true, false] {
                let started = Instant::now();
                let result = within(name, limit, time, |budget| {
                    let scene = draw(&params, &series, &window, &[], budget)?;
                    if png { scene.png() } else { scene.svg() }
                });
                let late = started.elapsed().saturating_sub(time);
                // Without optimisation steps take many times as long as they should.
                let step = Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 200 });
                assert!(late < step, "{name}: {late:?} after its time");
                let fine = match &result {
                    Ok(_) => true,
                    Err(error) => {
                        matches!(error, Error::Timeout)
                            || matches!(error, Error::Limit { key, .. } if *key == "render.max_memory")
                    }
                };
                assert!(fine, "{name}: {result:?}");
                if std::env::var_os("PLUMBAGO_SHOW").is_some() {
                    let shown = result.map(|bytes| bytes.len()).map_err(|e| e.to_string());
                    println!(
                        "{name}, {} MiB, {time:?}, png {png}: {:?} {shown:?}",
                        limit / MIB,
                        started.elapsed()
                    );
                }
            }
        }
    }
}
