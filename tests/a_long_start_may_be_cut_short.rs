//! A journal that takes long to read back: what is said meanwhile, and a stop in the middle of it.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Server, files, now, reserved};
use whisper::Timestamp;

const SERIES: usize = 4_000;
const STEPS: usize = 20;

/// The percentage in what is said during a start; nothing after it.
fn percent(server: &mut Server, path: &str) -> Option<u32> {
    loop {
        if let Some(status) = server.ended() {
            panic!("ended with {status}:\n{}", server.log());
        }
        let Some((status, said)) = server.try_get(path) else {
            continue;
        };
        if status != 503 {
            return None;
        }
        let number = said.trim_end().strip_prefix("starting: ");
        let number = number.and_then(|rest| rest.strip_suffix(" % of the journal read"));
        match number {
            Some(number) => return Some(number.parse().unwrap()),
            None => assert_eq!(said, "starting\n"),
        }
    }
}

/// The point of a series at a step.
fn value(series: usize, step: usize) -> usize {
    series + 7 * step + 1
}

/// The points that are in files.
fn stored(server: &Server) -> usize {
    let directory = server.data().join("whisper/j");
    let now = Timestamp(now() as u32);
    let known = |name: &String| {
        let file = whisper::File::open(&directory.join(name)).unwrap();
        let fetched = file.fetch(now, Timestamp(now.0 - 3_000), now).unwrap();
        let values = fetched.unwrap().values;
        values.iter().filter(|value| !value.is_nan()).count()
    };
    let files = files(&directory);
    let files = files.iter().filter(|name| name.ends_with(".wsp"));
    files.map(known).sum()
}

#[test]
fn a_stop_while_the_journal_is_read_back_is_soon_and_loses_nothing() {
    let [address] = reserved();
    let mut server = Server::prepared(&[
        ("render.http", &address),
        ("stats.self", "false"),
        // A file for nearly no series: the journal alone has the points.
        ("carbon.max_creates_per_minute", "1"),
    ]);
    server.run();
    let first = now() / 10 * 10 - 10 * STEPS as i64;
    let mut sender = TcpStream::connect(server.address("carbon.line_tcp")).unwrap();
    for step in 0..STEPS {
        let mut lines = String::new();
        for n in 0..SERIES {
            writeln!(
                lines,
                "j.m{n} {} {}",
                value(n, step),
                first + 10 * step as i64
            )
            .unwrap();
        }
        sender.write_all(lines.as_bytes()).unwrap();
    }
    drop(sender);
    server.wait_until("commit", |server| {
        let name = "plumbago_carbon_journal_committed_points_total ";
        let text = server.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.is_some_and(|value| value.parse::<f64>().unwrap() >= (SERIES * STEPS) as f64)
    });
    server.kill();
    server.settings.remove("carbon.max_creates_per_minute");
    // The points do not fit into the cache: they go into the files while they are read.
    let cache = ("carbon.max_cache_size".to_owned(), "64KiB".to_owned());
    server.settings.extend([cache]);

    // Stopped when a part of the points is in files, again and again.
    let mut stored_before = stored(&server);
    for least in [30, 55] {
        server.launch();
        while percent(&mut server, "/readyz").expect("the stop comes before the end") < least {}
        let alive = percent(&mut server, "/healthz").expect("both say so");
        assert!((least..=100).contains(&alive), "{alive} %");
        let (status, body) = server.try_get("/render?target=j.m1&format=json").unwrap();
        assert_eq!(status, 503, "{body}");
        server.signal(Signal::TERM);
        let begun = Instant::now();
        let status = server.end();
        assert!(status.success(), "{status}:\n{}", server.log());
        assert!(begun.elapsed() < Duration::from_secs(5));
        let stored_now = stored(&server);
        assert!(
            stored_before < stored_now && stored_now < SERIES * STEPS,
            "{stored_before}, then {stored_now} of {} points",
            SERIES * STEPS
        );
        stored_before = stored_now;
    }
    assert!(server.log().contains("stopped during the start"));

    server.run();
    assert_eq!(
        server.try_get("/healthz").unwrap(),
        (200, "alive\n".to_owned())
    );
    // What was still in the cache when the server became ready gets its files within a second or two.
    server.wait_until("files", |server| stored(server) == SERIES * STEPS);
    let (from, until) = (first - 10, first + 10 * STEPS as i64);
    let path = format!("/render?format=json&from={from}&until={until}&target=sumSeries(j.*)");
    let answer = server.json(&path);
    let points = answer[0]["datapoints"].as_array().unwrap();
    for step in 0..STEPS {
        let at = first + 10 * step as i64;
        let point = points.iter().find(|point| point[1] == at);
        let of_all = (0..SERIES).map(|n| value(n, step)).sum::<usize>();
        assert_eq!(point.unwrap()[0].as_f64(), Some(of_all as f64), "at {at}");
    }
}
