//! What is asked of ClickHouse, and what is made of its answers and failures.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use carbon::options::{JournalOptions, Options, Span};
use carbon::{Carbon, Setup, Timestamp};
use clickhouse::{Clickhouse, Client, Known, Stats};
use render::budget::{Budget, Memory};
use render::source::{Completion, FetchRange, Node, Source, SourceError, Tags};

use support::Fake;

const NOW: u32 = 1_700_000_000;

struct Asked {
    fake: Fake,
    store: Clickhouse,
    _directory: tempfile::TempDir,
}

fn asked() -> Asked {
    let fake = Fake::start();
    let (store, directory) = store(&fake.url);
    Asked {
        fake,
        store,
        _directory: directory,
    }
}

/// A store over the server at `url`, and the directory of what is not there yet.
fn store(url: &str) -> (Clickhouse, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let options = clickhouse::Options {
        url: url.to_owned(),
        ..Default::default()
    };
    let setup = Setup::new(
        Options::default(),
        JournalOptions::default(),
        Span::seconds(10),
    );
    let carbon = Carbon::open(setup, directory.path()).unwrap();
    let stats = Arc::new(Stats::default());
    let client = Client::new(&options, Arc::clone(&stats)).unwrap();
    let store = Clickhouse::new(&options, client, carbon, Arc::new(Known::default()), stats);
    (store, directory)
}

#[test]
fn a_question_waits_for_a_silent_server_within_its_own_time() {
    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (store, _directory) = store(&format!("http://{}", silent.local_addr().unwrap()));
    let deadline = Instant::now() + Duration::from_millis(50);
    let budget = Budget::new(Memory::new(0), Some(deadline));
    let refused = store.find("a.*", &budget).unwrap_err();
    assert!(matches!(refused, SourceError::Budget(_)), "{refused}");
}

#[test]
fn a_server_that_does_not_say_its_version_is_not_asked_by_each_request() {
    let closing = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closing.local_addr().unwrap());
    let n_asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_asked);
    std::thread::spawn(move || {
        for connection in closing.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            drop(connection);
        }
    });
    let (store, _directory) = store(&url);
    for _ in 0..100 {
        let refused = store.find("a.*", &Budget::unlimited()).unwrap_err();
        assert!(matches!(refused, SourceError::Failed(_)), "{refused}");
    }
    // It is asked again every second, and a client may try twice.
    let n_asked = n_asked.load(Ordering::Relaxed);
    assert!(n_asked < 50, "{n_asked}");
}

fn texts(texts: &[&str]) -> Vec<u8> {
    let rows = texts.iter();
    rows.flat_map(|text| [&[text.len() as u8][..], text.as_bytes()].concat())
        .collect()
}

/// A block in the format Native with a column of names.
fn block(names: &[&str]) -> Vec<u8> {
    let head = [&[1, names.len() as u8][..], &texts(&["Path", "String"])].concat();
    [head, texts(names)].concat()
}

/// Rules: averages of 10 s, from a day on of 60 s.
fn rules() -> Vec<u8> {
    let mut out = Vec::new();
    for (age, precision) in [(0_u64, 10_u64), (86_400, 60)] {
        out.extend(texts(&["", "avg"]));
        out.extend(
            [age, precision, 65_535]
                .iter()
                .flat_map(|n| n.to_le_bytes()),
        );
        out.push(1);
    }
    out
}

fn points(path: &str, points: &[(u32, f64)]) -> Vec<u8> {
    let mut out = texts(&[path]);
    let length = points.len() as u8;
    out.push(length);
    out.extend(points.iter().flat_map(|(at, _)| at.to_le_bytes()));
    out.push(length);
    out.extend(points.iter().flat_map(|(_, value)| value.to_le_bytes()));
    out.push(length);
    out.extend(points.iter().flat_map(|_| 1_u32.to_le_bytes()));
    out
}

#[test]
fn patterns_find_leaves_and_branches_and_are_asked_once() {
    let Asked { fake, store, .. } = asked();
    fake.change(|state| {
        // Of two parts.
        let answer = [block(&["a.b", "a.c"]), block(&["a.b", "a.b."])].concat();
        state.answers.push(("FROM graphite_index", Some(answer)));
    });
    for _ in 0..2 {
        let found = store.find("a.*", &Budget::unlimited()).unwrap();
        let node = |path: &str, leaf| Node {
            path: path.to_owned(),
            leaf,
        };
        assert_eq!(
            found,
            [node("a.b", false), node("a.b", true), node("a.c", true)]
        );
    }
    fake.until("it was asked", |state| {
        assert_eq!(state.asked.len(), 1, "{:?}", state.asked);
        Some(())
    });
}

#[test]
fn targets_with_literal_nodes_at_their_end_take_the_reversed_rows() {
    let Asked { fake, store, .. } = asked();
    fake.change(|state| {
        let reversed = block(&["load.cpu.h1.web", "load.cpu.h2.db"]);
        state.answers.push(("Level = 30004", Some(reversed)));
        state.answers.push(("Level > 30000", Some(vec![0; 4])));
        state.answers.push((
            "Level = 20004",
            Some(block(&["web.h1.cpu.load", "web.h1.cpu.user"])),
        ));
    });
    let find = |pattern: &str| store.find_series(pattern, &Budget::unlimited()).unwrap();
    assert_eq!(find("*.*.cpu.load"), ["db.h2.cpu.load", "web.h1.cpu.load"]);
    assert_eq!(find("web.h1.*.*"), ["web.h1.cpu.load", "web.h1.cpu.user"]);
    fake.until("it was asked", |state| {
        let asked: Vec<&str> = state.asked.iter().map(String::as_str).collect();
        let [has, reversed, direct] = asked[..] else {
            panic!("{asked:?}")
        };
        assert!(
            has.contains("Level > 30000") && has.contains("LIMIT 1"),
            "{has}"
        );
        assert!(
            reversed.contains("Level = 30004 AND Path LIKE 'load.cpu.%'"),
            "{reversed}"
        );
        assert!(
            direct.contains("Level = 20004 AND Path LIKE 'web.h1.%'"),
            "{direct}"
        );
        Some(())
    });
}

#[test]
fn tables_without_reversed_rows_are_asked_by_depth() {
    let Asked { fake, store, .. } = asked();
    fake.change(|state| {
        state.answers.push(("Level > 30000", Some(Vec::new())));
        state
            .answers
            .push(("Level = 20004", Some(block(&["web.h1.cpu.load"]))));
    });
    for _ in 0..2 {
        let found = store
            .find_series("*.*.cpu.load", &Budget::unlimited())
            .unwrap();
        assert_eq!(found, ["web.h1.cpu.load"]);
    }
    fake.until("whether there are any was asked once", |state| {
        let asked = state
            .asked
            .iter()
            .filter(|sql| sql.contains("Level > 30000"));
        assert_eq!(asked.count(), 1, "{:?}", state.asked);
        assert!(state.asked.iter().all(|sql| !sql.contains("Level = 3000")));
        Some(())
    });
}

#[test]
fn series_are_fetched_together_and_rolled_up_by_age() {
    let Asked { fake, store, .. } = asked();
    let answer = [
        points("a.b", &[(NOW - 30, 1.0), (NOW - 25, 3.0), (NOW - 20, 7.0)]),
        points("a.c", &[(NOW - 20, 5.0)]),
    ];
    fake.change(|state| {
        state.answers.push(("graphite_retentions", Some(rules())));
        let alone = ("Path IN ('a.b')", Some(answer[0].clone()));
        let all = ("FROM graphite ", Some(answer.concat()));
        state.answers.extend([alone, all]);
    });
    let names = ["a.b".to_owned(), "a.c".to_owned(), "a.d".to_owned()];
    let (from, until) = (Timestamp(NOW - 40), Timestamp(NOW - 10));
    let range = |from, until| FetchRange {
        from,
        until,
        now: Timestamp(NOW),
    };
    let budget = Budget::unlimited();
    let mut next = store.announce(&names, range(from, until), &budget);
    let fetch = |name| store.fetch(name, range(from, until)).unwrap().unwrap();
    next(0);
    let first = fetch("a.b");
    assert_eq!(
        (first.start, first.end, first.step),
        (i64::from(NOW) - 30, i64::from(NOW), 10)
    );
    assert_eq!(first.values[..2], [2.0, 7.0]);
    next(1);
    assert_eq!(fetch("a.c").values[1], 5.0);
    next(2);
    assert!(fetch("a.d").values.iter().all(|value| value.is_nan()));
    drop(next);
    fake.until("one query for all", |state| {
        let of_points = state
            .asked
            .iter()
            .filter(|sql| sql.contains("FROM graphite "));
        let of_points: Vec<_> = of_points.collect();
        assert_eq!(of_points.len(), 1);
        assert!(
            of_points[0].contains("Path IN ('a.b','a.c','a.d')"),
            "{}",
            of_points[0]
        );
        Some(())
    });
    let old = Timestamp(NOW - 90_000);
    assert_eq!(
        store.fetch("a.b", range(old, until)).unwrap().unwrap().step,
        60
    );
    let future = Timestamp(NOW + 1);
    assert!(store.fetch("a.b", range(future, future)).unwrap().is_none());
}

#[test]
fn what_the_server_says_reaches_the_client() {
    let Asked { fake, store, .. } = asked();
    let failed = store.find("a.*", &Budget::unlimited()).unwrap_err();
    assert!(
        matches!(&failed, SourceError::Failed(why) if why.contains("doesn't exist")),
        "{failed}"
    );
    fake.change(|state| {
        state
            .answers
            .push(("FROM graphite_index", Some(vec![5, b'a'])))
    });
    let failed = store.find("a.*", &Budget::unlimited()).unwrap_err();
    assert!(failed.to_string().contains("cut off"), "{failed}");
    let refused = store
        .find_tagged(&["a!=b"], &Budget::unlimited())
        .unwrap_err();
    assert!(matches!(refused, SourceError::Refused(_)));
}

#[test]
fn an_answer_that_ends_with_a_failure_is_none() {
    let Asked { fake, store, .. } = asked();
    let mut answer = points("a.b", &[(NOW - 30, 1.0), (NOW - 25, 3.0)]);
    answer.extend(b"Code: 241, e.displayText() = DB::Exception: Memory limit exceeded");
    fake.change(|state| {
        state.answers.push(("graphite_retentions", Some(rules())));
        state.answers.push(("FROM graphite ", Some(answer)));
    });
    let range = FetchRange {
        from: Timestamp(NOW - 40),
        until: Timestamp(NOW - 10),
        now: Timestamp(NOW),
    };
    let failed = store.fetch("a.b", range).unwrap_err();
    assert!(
        matches!(&failed, SourceError::Failed(why) if why.contains("Memory limit exceeded")),
        "{failed}"
    );
}

#[test]
fn a_query_is_ended_when_its_client_has_gone() {
    let Asked { fake, store, .. } = asked();
    fake.change(|state| state.answers.push(("FROM graphite_index", None)));
    let budget = Budget::unlimited();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| store.find("a.*", &budget));
        fake.until("it is asked", |state| {
            state
                .asked
                .iter()
                .any(|sql| sql.contains("graphite_index"))
                .then_some(())
        });
        budget.cancel();
        assert!(matches!(waits.join().unwrap(), Err(SourceError::Budget(_))));
    });
    fake.until("it was killed", |state| {
        state
            .asked
            .iter()
            .any(|sql| sql.starts_with("KILL QUERY WHERE query_id = 'plumbago-"))
            .then_some(())
    });
    assert_eq!(store.stats().killed.get(), 1);
}

#[test]
fn tags_and_values_are_those_of_the_table() {
    let Asked { fake, store, .. } = asked();
    let counted = |rows: &[(&str, u64)]| -> Vec<u8> {
        let rows = rows.iter();
        rows.flat_map(|(text, n)| [texts(&[text]), n.to_le_bytes().to_vec()].concat())
            .collect()
    };
    fake.change(|state| {
        state.answers.push((
            "AS tag,",
            Some(counted(&[("host", 2), ("__name__", 3), ("dc", 1)])),
        ));
        state
            .answers
            .push(("uniqExact(Path)", Some(counted(&[("b", 2), ("a", 1)]))));
        state.answers.push((
            "SELECT Path FROM graphite_tagged",
            Some(block(&["m?dc=x&host=a+b"])),
        ));
    });
    let budget = Budget::unlimited();
    let tags = store.tags(&budget).unwrap();
    assert_eq!(
        tags,
        [
            (1, "dc".to_owned()),
            (2, "host".to_owned()),
            (3, "name".to_owned())
        ]
    );
    let (_, values) = Tags::values(&store, "host", &budget).unwrap().unwrap();
    let values: Vec<_> = values
        .iter()
        .map(|value| (value.value.as_str(), value.count))
        .collect();
    assert_eq!(values, [("a", 1), ("b", 2)]);
    let complete = store
        .complete_tags(
            &Completion {
                expressions: &["host=a"],
                prefix: "",
                limit: 10,
            },
            &budget,
        )
        .unwrap();
    assert_eq!(complete, ["dc", "name"]);
    assert_eq!(
        store.find_tagged(&["name=m"], &budget).unwrap(),
        ["m;dc=x;host=a b"]
    );
    assert!(store.unregister("m;a=b").is_err());
}
