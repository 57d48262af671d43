//! Events: how many are durably stored in a second, and how long a question takes among a million.
//!
//! ```text
//! cargo bench --bench events              # a million events, about a minute to fill
//! cargo bench --bench events -- 100000    # fewer
//! ```
//!
//! Data: deploys of 40 services in 3 environments over two years, one in ten with a band, one in
//! twenty a canary, every event with a version of its own; fixed, no randomness from outside.
//! References, in the same run and the same directory: for storing, a
//! plain file that gets the event's 256 bytes and an `fdatasync`, which is the least that "durable"
//! can cost; for questions, the same SQLite file asked without the tag index, as a table with a text column of tags would be. Times are medians.

#![allow(clippy::unwrap_used)]

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use render::events::{Draft, Event, GraphiteTags, Options, Store, TagQuery};
use render::http::events::{EventsState, routes};
use render::http::guard::{Guard, Options as AuthOptions};

/// Two years up to the clock of the questions.
const NOW: f64 = 1_700_000_000.0;
const YEARS: f64 = 2.0 * 365.0 * 86_400.0;

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'));
    let n_events = arguments.next().map_or(1_000_000, |n| n.parse().unwrap());
    // Beside the build, not in /tmp: that may be memory, where nothing is durable.
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    storing(directory.path());
    asking(directory.path(), n_events);
}

fn storing(directory: &Path) {
    println!("events/store, durable (on disk before the answer), events a second");
    let reference = per_second(300, 1, |thread, n| {
        let mut file = std::fs::File::create(directory.join(format!("plain{thread}"))).unwrap();
        for _ in 0..n {
            file.write_all(&[b'x'; 256]).unwrap();
            file.sync_data().unwrap();
        }
    });
    let report = |name: &str, rate: f64| {
        println!(
            "  {name:<44} {rate:>9.0}/s   {:>5.2} x the reference",
            rate / reference
        )
    };
    report("reference: 256 bytes and fdatasync, one sender", reference);
    let store = Store::open(&directory.join("posts.db"), &Options::default()).unwrap();
    for n_threads in [1, 8, 64] {
        let rate = per_second(1000, n_threads, |thread, n| {
            for i in 0..n {
                store.insert(draft(thread * n + i)).unwrap();
            }
        });
        report(&format!("Store::insert, {n_threads} at a time"), rate);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .unwrap();
    let url = format!("http://{}/events/", listener.local_addr().unwrap());
    let router = routes(EventsState {
        store: Arc::clone(&store),
        guard: Arc::new(Guard::new(&AuthOptions::default(), true)),
        time_zone: jiff::tz::TimeZone::UTC,
        clock: None,
        room: Default::default(),
        base_path: Default::default(),
        page: None,
    });
    runtime.spawn(async move { axum::serve(listener, router).await });
    for n_threads in [1, 8] {
        let rate = per_second(500, n_threads, |_, n| {
            let agent = ureq::Agent::new_with_defaults();
            for i in 0..n {
                let body = format!(
                    "{{\"what\": \"web 1.{i}\", \"tags\": \"deploy web\", \"data\": \"by bench\"}}"
                );
                assert_eq!(agent.post(&url).send(body).unwrap().status(), 200);
            }
        });
        report(&format!("POST /events/, {n_threads} at a time"), rate);
    }
}

/// Runs `work(thread, n)` on each of `n_threads` threads, `n_total` in all, and answers the rate.
fn per_second(n_total: usize, n_threads: usize, work: impl Fn(usize, usize) + Sync) -> f64 {
    let began = Instant::now();
    let n = n_total / n_threads;
    std::thread::scope(|scope| {
        for thread in 0..n_threads {
            let work = &work;
            scope.spawn(move || work(thread, n));
        }
    });
    (n * n_threads) as f64 / began.elapsed().as_secs_f64()
}

fn draft(i: usize) -> Draft {
    Draft {
        data: Some("by bench".to_owned()),
        ..Draft::new(format!("web 1.{i}"), &["deploy", "service:web", "env:prod"])
    }
}

fn event(i: usize, n_events: usize) -> Event {
    let spread = i.wrapping_mul(2_654_435_761) >> 7;
    let service = spread % 40;
    let environment = ["prod", "staging", "test"][spread / 40 % 3];
    let mut tags = vec![
        "deploy".to_owned(),
        format!("service:s{service}"),
        format!("env:{environment}"),
        format!("version:1.{i}"),
    ];
    if i.is_multiple_of(20) {
        tags.push("canary".to_owned());
    }
    if i.is_multiple_of(100_000) {
        tags.push("rare".to_owned());
    }
    if i % 50 == 3 {
        tags[0] = "config".to_owned();
    }
    let when = (NOW - YEARS + YEARS * i as f64 / n_events as f64).floor();
    Event {
        what: format!("s{service} 1.{i}"),
        data: "by bench\nhttps://ci.example.com/runs/12345".to_owned(),
        tags,
        when,
        until: i
            .is_multiple_of(10)
            .then_some(when + 30.0 + (spread % 600) as f64),
        ..Event::default()
    }
}

/// A store with `n_events` events.
fn filled(path: &Path, n_events: usize) -> Arc<Store> {
    let store = Store::open(path, &Options::default()).unwrap();
    let began = Instant::now();
    let mut next = 0;
    while next < n_events {
        let end = (next + 20_000).min(n_events);
        store
            .import((next..end).map(|i| event(i, n_events)).collect())
            .unwrap();
        next = end;
    }
    let size = std::fs::metadata(path).unwrap().len() >> 20;
    println!(
        "\nevents/query among {n_events} events ({size} MiB, filled in {:.0} s), median of 51",
        began.elapsed().as_secs_f64()
    );
    store
}

fn asking(directory: &Path, n_events: usize) {
    let path = directory.join("million.db");
    let store = filled(&path, n_events);
    let scan = rusqlite::Connection::open(&path).unwrap();
    let (day, hour) = (86_400.0, 3600.0);
    for (expr, back) in [
        ("deploy", day),
        ("deploy service:s7", 7.0 * day),
        ("deploy service:s7 -canary", 30.0 * day),
        ("service:s1*", day),
        ("canary,config", day),
        ("rare", YEARS),
        ("deploy rare", YEARS),
        ("config canary", YEARS),
        ("*", hour),
    ] {
        let query: TagQuery = expr.parse().unwrap();
        let from = NOW - back;
        let mut n_found = 0;
        let ours = median(51, || {
            n_found = store.query(&query, from, NOW, 100_000).unwrap().len()
        });
        let like: Vec<String> = query.any.iter().map(like).collect();
        let sql = format!(
            "SELECT id, what, data, tags, at FROM events NOT INDEXED WHERE at BETWEEN {from} AND {NOW} AND ({}) ORDER BY at",
            like.join(" OR ")
        );
        let plain = median(3, || {
            let mut statement = scan.prepare(&sql).unwrap();
            let rows = statement
                .query_map([], |record| record.get::<_, String>(1))
                .unwrap();
            assert_eq!(rows.count(), n_found, "{sql}");
        });
        report(
            &format!("{expr}  ({:.0} d)", back / day),
            n_found,
            ours,
            plain,
        );
    }
    let query: TagQuery = "deploy".parse().unwrap();
    let mut n_found = 0;
    let overlay = median(51, || {
        n_found = store.overlay(&query, NOW - day, NOW, NOW).unwrap().len()
    });
    println!(
        "  {:<36} {n_found:>6} found   {overlay:>9.2?}",
        "overlay of a day: deploy, with bands"
    );
    let old = median(51, || {
        n_found = store
            .overlay(&query, NOW - YEARS / 2.0, NOW - YEARS / 2.0 + hour, NOW)
            .unwrap()
            .len()
    });
    println!(
        "  {:<36} {n_found:>6} found   {old:>9.2?}",
        "overlay of an hour a year ago"
    );
    let tags = GraphiteTags::from_query(Some("deploy service:s7 nosuch"), None);
    let lazy = median(51, || {
        n_found = store.graphite(&tags, NOW - 7.0 * day, NOW).unwrap().len()
    });
    println!(
        "  {:<36} {n_found:>6} found   {lazy:>9.2?}",
        "get_data: deploy service:s7 nosuch"
    );
}

fn report(name: &str, n_found: usize, ours: Duration, reference: Duration) {
    let ratio = reference.as_secs_f64() / ours.as_secs_f64();
    println!(
        "  {name:<36} {n_found:>6} found   {ours:>9.2?}   without the index {reference:>8.1?}   {ratio:>7.1}x"
    );
}

/// A clause as a condition on the text of the tags.
fn like(clause: &render::events::expr::Clause) -> String {
    use render::events::expr::Term;
    let one = |term: &Term| match term {
        Term::Every => "1".to_owned(),
        Term::Tag(tag) => format!("instr(' ' || tags || ' ', ' {tag} ') > 0"),
        Term::Prefix(prefix) => format!("instr(' ' || tags, ' {prefix}') > 0"),
    };
    let all = clause.all.iter().map(one);
    let none = clause.none.iter().map(|term| format!("NOT {}", one(term)));
    all.chain(none).collect::<Vec<_>>().join(" AND ")
}

fn median(n: usize, mut work: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..n)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[n / 2]
}
