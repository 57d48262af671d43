//! Queries: what a whole request costs, from the URI to the bytes of the answer, without sockets.
//!
//! ```text
//! cargo bench --profile quick --bench render            # a thousand series
//! cargo bench --profile quick --bench render -- 100     # fewer
//! cargo bench --profile quick --bench render -- cold 10000 /var/tmp         # files that are not in memory
//! cargo bench --profile quick --bench render -- cold 10000 /var/tmp drop    # nor are their names
//! ```
//!
//! Data: whisper files of 1,440 points (10 s over 4 hours) with fixed values, opened by the store
//! as a server does. The reference for each case, in the same run and alternating with it, is reading
//! the same files one by one with `whisper::File` and nothing else: what any answer has to do at
//! least, without keeping files mapped. For the writer of JSON it is serde_json writing the same
//! numbers. Times are processor time of all threads (the machine may be busy), medians of the
//! rounds. *cold*: the wall time of fetching all series of a wide glob whose pages are not in the page cache
//! (`POSIX_FADV_DONTNEED`; with `drop` the whole machine's caches are dropped), with read-ahead and, as the
//! reference, without. Last, the memory that a sum over 100,000 series takes, points made up as they are asked for.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use carbon::{Access, Carbon, Setup};
use render::budget::Budget;
use render::format::json::{self, Choice};
use render::http::guard::{self, Guard};
use render::http::{App, router};
use render::{
    FetchRange, Fetched, Node, Options, Query, Series, Source, SourceError, Window, events, query,
};
use tower::ServiceExt;
use whisper::{Aggregation, CreateOptions, File, Lock, Point, Retention, Timestamp};

const NOW: i64 = 1_700_000_000;
const N_POINTS: i64 = 1_440;
const ROUNDS: usize = 5;

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'));
    let words: Vec<String> = arguments.by_ref().collect();
    if words.first().is_some_and(|word| word == "cold") {
        return cold(&words[1..]);
    }
    let mut arguments = words.into_iter();
    let n_series = arguments.next().map_or(1_000, |n| n.parse().unwrap());
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fill(data.path(), n_series);
    requests(data.path(), n_series);
    writer();
    memory();
}

fn name(n: usize) -> String {
    format!("web/host{n:04}/cpu.wsp")
}

fn fill(data: &Path, n_series: usize) {
    let options = CreateOptions::new(vec![Retention::new(10, 2_160).unwrap()]);
    for n in 0..n_series {
        let path = data.join("whisper").join(name(n));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        whisper::create(&path, &options).unwrap();
        let points: Vec<Point> = (0..N_POINTS)
            .map(|i| Point {
                at: Timestamp((NOW - 10 * (N_POINTS - 1 - i)) as u32),
                value: ((n as i64 * 7919 + i * 31) % 10_007) as f64 / 100.0,
            })
            .collect();
        let mut file = File::open_mut(&path, Lock::None).unwrap();
        file.update_many(Timestamp(NOW as u32), &points).unwrap();
    }
}

fn store(data: &Path) -> Arc<Carbon> {
    let mut setup = Setup::new(
        Default::default(),
        Default::default(),
        settings::Span::seconds(10),
    );
    setup.access = Access::Frozen;
    setup.clock = Arc::new(|| Timestamp(NOW as u32));
    let store = Arc::new(Carbon::open(setup, data).unwrap());
    store.reconcile().unwrap();
    store
}

fn serve(data: &Path) -> Router {
    let store = store(data);
    let events = events::Store::open(&data.join("events.db"), &Default::default()).unwrap();
    let options = Options {
        now: NOW,
        concurrency: 1,
        ..Options::default()
    };
    let app = App::new(&options, store.clone(), store, events).unwrap();
    router(app, &Arc::new(Guard::new(&guard::Options::default(), true)))
}

/// Files that are not in memory: `words` are their number, a directory, and whether to drop all caches.
fn cold(words: &[String]) {
    let n_files: usize = words[0].parse().unwrap();
    let data = tempfile::tempdir_in(&words[1]).unwrap();
    let drops = words.get(2).is_some_and(|word| word == "drop");
    fill(data.path(), n_files);
    let store = store(data.path());
    let names: Vec<String> = (0..n_files)
        .map(|n| name(n).replace('/', ".").replace(".wsp", ""))
        .collect();
    let now = Timestamp(NOW as u32);
    let range = FetchRange {
        from: Timestamp((NOW - 14_400) as u32),
        until: now,
        now,
    };
    let budget = Budget::unlimited();
    println!("fetches of {n_files} series that are not in memory, wall and CPU time");
    for _ in 0..ROUNDS {
        for ahead in [true, false] {
            rustix::fs::sync();
            if drops {
                std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
            } else {
                forget_pages(data.path(), n_files);
            }
            let (begun, cpu) = (std::time::Instant::now(), processor_time());
            let mut next: Box<dyn FnMut(usize)> = match ahead {
                true => Source::announce(&*store, &names, range, &budget),
                false => Box::new(|_| {}),
            };
            for (at, name) in names.iter().enumerate() {
                next(at);
                let fetched = Source::fetch(&*store, name, range).unwrap().unwrap();
                assert_eq!(fetched.values.len() as i64, N_POINTS);
            }
            drop(next);
            println!(
                "  {:<14} {:>8.1} ms wall {:>8.1} ms CPU",
                if ahead { "read ahead" } else { "one by one" },
                begun.elapsed().as_secs_f64() * 1e3,
                processor_time().saturating_sub(cpu).as_secs_f64() * 1e3,
            );
        }
    }
    println!(
        "  {} files read ahead",
        store
            .stats()
            .readings()
            .iter()
            .find(|one| one.name == "filesReadAhead")
            .unwrap()
            .value
    );
}

/// Drops the pages of all files from the page cache.
fn forget_pages(data: &Path, n_files: usize) {
    for n in 0..n_files {
        let file = std::fs::File::open(data.join("whisper").join(name(n))).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

/// Processor time of all threads so far.
fn processor_time() -> Duration {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let spent = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(spent.sum())
}

/// The processor time of one of `times` runs: the kernel counts in ticks, so it takes many.
fn timed(times: u32, mut job: impl FnMut()) -> Duration {
    let before = processor_time();
    for _ in 0..times {
        job();
    }
    processor_time().saturating_sub(before) / times
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn report(name: &str, ours: Duration, reference: Duration) {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!(
        "  {name:<34} ours {:>8.3} ms   reference {:>8.3} ms   {:>5.2}x",
        ms(ours),
        ms(reference),
        ms(reference) / ms(ours)
    );
}

fn requests(data: &Path, n_series: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let router = serve(data);
    let ask = |target: &str| {
        let uri = format!("/render?format=json&from=-4h&target={target}");
        let request = Request::get(uri).body(Body::empty()).unwrap();
        runtime.block_on(async {
            let response = router.clone().oneshot(request).await.unwrap();
            assert!(response.status().is_success());
            to_bytes(response.into_body(), usize::MAX)
                .await
                .unwrap()
                .len()
        })
    };
    let read = |n_files: usize| {
        let (now, from) = (Timestamp(NOW as u32), Timestamp((NOW - 14_400) as u32));
        for n in 0..n_files {
            let file = File::open(&data.join("whisper").join(name(n))).unwrap();
            let fetched = file.fetch(now, from, now).unwrap().unwrap();
            assert_eq!(fetched.values.len() as i64, N_POINTS);
        }
    };
    println!("render/request, JSON, 1,440 points a series; reference: reading the files");
    let hundred = n_series.min(100);
    for (target, n_files) in [
        ("web.host0001.cpu", 1),
        ("web.host00*.cpu", hundred),
        ("web.*.cpu", n_series),
        ("sumSeries(web.host00*.cpu)", hundred),
        ("sumSeries(web.*.cpu)", n_series),
        ("movingAverage(web.host00*.cpu,%225min%22)", hundred),
        ("highestMax(web.*.cpu,5)", n_series),
    ] {
        ask(target);
        let (mut ours, mut reference) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let times = 2_000 / u32::try_from(n_files).unwrap() + 1;
            ours.push(timed(times, || assert!(ask(target) > 2)));
            reference.push(timed(times, || read(n_files)));
        }
        let shown = target.replace("%22", "\"");
        report(
            &format!("{shown} ({n_files})"),
            median(&mut ours),
            median(&mut reference),
        );
    }
}

fn writer() {
    let series: Vec<Series> = (0..100)
        .map(|n| {
            let values: Vec<f64> = (0..N_POINTS)
                .map(|i| ((n * 7919 + i * 31) % 10_007) as f64 / 100.0)
                .collect();
            Series::new(format!("s{n}"), 0, 10 * N_POINTS, 10, values.into())
        })
        .collect();
    let budget = Budget::unlimited();
    let (mut ours, mut reference) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(timed(10, || {
            let document = json::document(series.clone(), Choice::default(), &budget);
            drop(document.unwrap().whole(&budget).unwrap());
        }));
        reference.push(timed(10, || {
            let points: Vec<Vec<(f64, i64)>> = series
                .iter()
                .map(|series| {
                    let values = series.values.iter().enumerate();
                    values
                        .map(|(i, &value)| (value, series.time_of(i)))
                        .collect()
                })
                .collect();
            drop(serde_json::to_vec(&points).unwrap());
        }));
    }
    println!("render/json, 100 series of 1,440 points; reference: serde_json");
    report("write", median(&mut ours), median(&mut reference));
}

/// A hundred thousand series that are nowhere.
struct MadeUp;

impl Source for MadeUp {
    fn find(&self, _: &str, _: &Budget) -> Result<Vec<Node>, SourceError> {
        let nodes = (0..100_000).map(|n| Node {
            path: format!("web.host{n:06}.cpu"),
            leaf: true,
        });
        Ok(nodes.collect())
    }

    fn find_tagged(&self, _: &[&str], _: &Budget) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn fetch(&self, name: &str, _: FetchRange) -> Result<Option<Fetched>, SourceError> {
        Ok(Some(Fetched {
            start: 10,
            end: 10 * N_POINTS + 10,
            step: 10,
            values: vec![name.len() as f64; N_POINTS as usize],
            aggregation: Aggregation::Average,
            x_files_factor: 0.5,
        }))
    }
}

/// Anonymous memory in use, in KiB.
fn anonymous() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn memory() {
    let rest = anonymous();
    let done = AtomicBool::new(false);
    let mut peak = rest;
    let mut spent = Duration::ZERO;
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(anonymous());
                std::thread::sleep(Duration::from_millis(2));
            }
            peak
        });
        spent = timed(1, || {
            let sum = query::parse("sumSeries(web.*.cpu)").unwrap().expression;
            let window = Window {
                from: 0,
                until: 10 * N_POINTS,
            };
            let series = Query::new(&MadeUp, window.until).evaluate(&[sum], window, 0.0);
            assert_eq!(series.unwrap()[0].values[7], 1_800_000.0);
        });
        done.store(true, Ordering::Relaxed);
        peak = watch.join().unwrap();
    });
    println!("render/memory, sumSeries over 100,000 series of 1,440 points");
    println!(
        "  {:.1} MiB above rest at the most, {:.0} ms; held together they would take {:.0} MiB",
        peak.saturating_sub(rest) as f64 / 1024.0,
        spent.as_secs_f64() * 1e3,
        100_000.0 * N_POINTS as f64 * 8.0 / 1_048_576.0
    );
}
