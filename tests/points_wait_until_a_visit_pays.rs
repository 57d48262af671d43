//! The server with its own `carbon.persist_within`: points are in cache and journal, queries see them at once,
//! and files get them later, when there is a reason to.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::{Server, files, now};
use whisper::Timestamp;

/// For a machine that is busy with other things.
const BUSY: Duration = Duration::from_secs(30);

/// Values by time.
type Points = BTreeMap<i64, f64>;

/// A server in which points wait for as long as its default says.
fn prepared(settings: &[(&str, &str)]) -> Server {
    let mut server = Server::prepared(&[("stats.self", "false")]);
    server.settings.remove("carbon.persist_within");
    let settings = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    server.settings.extend(settings);
    server
}

fn path(server: &Server, name: &str) -> PathBuf {
    let mut path = PathBuf::new();
    carbon::series::file_path(&server.data().join("whisper"), name, &mut path);
    path
}

/// The points of the last hours that the file of `name` has, as a program sees them that reads files.
fn in_file(server: &Server, name: &str) -> Points {
    let Ok(file) = whisper::File::open(&path(server, name)) else {
        return Points::new();
    };
    let now = Timestamp(now() as u32);
    let fetched = file.fetch(now, Timestamp(now.0 - 7_000), now).unwrap();
    let fetched = fetched.unwrap();
    let known = fetched.points().filter(|(_, value)| !value.is_nan());
    known.map(|(at, value)| (i64::from(at.0), value)).collect()
}

/// The points that queries see.
fn in_queries(server: &Server, name: &str) -> Points {
    let points = server.points(name).into_iter();
    points.map(|(value, at)| (at, value)).collect()
}

/// How many files there are of series, and bytes of the journal.
fn on_disk(server: &Server) -> (usize, u64) {
    let journal = fs::read_dir(server.data().join("journal")).unwrap();
    let bytes = journal.map(|entry| entry.unwrap().metadata().map_or(0, |found| found.len()));
    (files(&server.data().join("whisper")).len(), bytes.sum())
}

fn committed(server: &Server) -> f64 {
    server.metric("plumbago_carbon_journal_committed_points_total")
}

const SERIES: usize = 40;
const STEPS: i64 = 12;

/// Twelve points of each of forty series, ten seconds apart, and what they are.
fn send(server: &Server) -> BTreeMap<String, Points> {
    let first = now() / 10 * 10 - 10 * STEPS;
    let mut sent = BTreeMap::<String, Points>::new();
    let mut lines = String::new();
    for step in 0..STEPS {
        for n in 0..SERIES {
            let (name, at) = (format!("wait.m{n}"), first + 10 * step);
            let value = (n as i64 * 1_000 + step) as f64 / 4.0;
            writeln!(lines, "{name} {value} {at}").unwrap();
            sent.entry(name).or_default().insert(at, value);
        }
    }
    server.lines(lines);
    sent
}

fn assert_seen(server: &Server, sent: &BTreeMap<String, Points>) {
    for (name, points) in sent {
        assert_eq!(in_queries(server, name), *points, "{name}");
    }
}

#[test]
fn points_are_seen_at_once_survive_a_kill_and_are_in_files_after_a_stop() {
    let mut server = prepared(&[]);
    server.run();
    let sent = send(&server);
    let all = (SERIES as i64 * STEPS) as f64;
    server.wait_until("all points", |server| {
        server.metric("plumbago_carbon_metrics_received_total") == all
    });
    assert_seen(&server, &sent);
    server.wait_until("commit", |server| committed(server) >= all);
    // Twice: what was read back waits on in the same journal.
    for _ in 0..2 {
        let (files, journal) = on_disk(&server);
        assert_eq!(files, 0);
        assert!(journal > 100, "{journal} bytes");
        server.kill();
        server.run();
        assert_seen(&server, &sent);
    }
    assert_eq!(server.metric("plumbago_carbon_cache_size"), all);
    let status = server.stop();
    assert!(status.success(), "{status}:\n{}", server.log());
    let (files, journal) = on_disk(&server);
    assert_eq!(files, SERIES);
    assert!(journal < 100, "{journal} bytes");
    for (name, points) in &sent {
        assert_eq!(in_file(&server, name), *points, "{name}");
    }
    server.run();
    assert_seen(&server, &sent);
    assert_eq!(server.metric("plumbago_carbon_cache_size"), 0.0);
}

#[test]
fn a_kill_during_the_stop_loses_nothing() {
    let mut server = prepared(&[]);
    server.run();
    let sent = send(&server);
    let all = (SERIES as i64 * STEPS) as f64;
    server.wait_until("commit", |server| committed(server) >= all);
    server.signal(Signal::TERM);
    while on_disk(&server).0 == 0 {
        // It may have ended meanwhile.
        if server.ended().is_some() {
            break;
        }
    }
    server.kill();
    server.run();
    assert_seen(&server, &sent);
}

#[test]
fn a_program_that_reads_files_sees_points_within_the_time() {
    let within = Duration::from_secs(3);
    let mut server = prepared(&[("carbon.persist_within", "3s")]);
    server.run();
    let mut connection = TcpStream::connect(server.address("carbon.line_tcp")).unwrap();
    let mut at = now() - 3_000;
    let mut sent = 0.0;
    // When each point was sent that was not in the file yet.
    let mut waiting = VecDeque::new();
    let visits = |server: &Server| server.metric("plumbago_carbon_update_operations_total");
    while visits(&server) < 4.0 || !waiting.is_empty() {
        if visits(&server) < 4.0 {
            at += 1;
            sent += 1.0;
            std::io::Write::write_all(&mut connection, format!("a.b {at} {at}\n").as_bytes())
                .unwrap();
            waiting.push_back((at, Instant::now()));
            server.wait_until("point in cache or file", |server| {
                server.metric("plumbago_carbon_metrics_received_total") >= sent
            });
        }
        let stored = in_file(&server, "a.b");
        waiting.retain(|(at, _)| !stored.contains_key(at));
        if let Some((at, since)) = waiting.front() {
            assert!(
                since.elapsed() < within + BUSY,
                "{at}: {:?}",
                since.elapsed()
            );
        }
    }
    assert_eq!(in_file(&server, "a.b").len(), sent as usize);
    // They did wait for each other.
    assert!(sent > 4.0 * visits(&server), "{sent} points");
}

#[test]
fn a_journal_that_fills_up_has_the_files_written() {
    let mut server = prepared(&[("journal.max_size", "1MiB")]);
    server.run();
    let sent = send(&server);
    let mut all = (SERIES as i64 * STEPS) as f64;
    server.wait_until("commit", |server| committed(server) >= all);
    assert_eq!(on_disk(&server).0, 0, "there is room in the journal");
    // Values that do not become small: some twelve bytes a point.
    let dropped = |server: &Server| server.metric("plumbago_carbon_journal_segments_dropped_total");
    let mut seed = 1_u64;
    let first = now() - 6_000;
    let mut last = Points::new();
    for step in 0.. {
        if dropped(&server) > 0.0 {
            break;
        }
        assert!(step < 60, "{}", server.log());
        let mut lines = String::new();
        for n in 0..2_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let value = (seed >> 11) as f64 / 1e7;
            let at = first + 10 * step;
            writeln!(lines, "much.m{n} {value} {at}").unwrap();
            if n == 7 {
                last.insert(at, value);
            }
        }
        server.lines(lines);
        all += 2_000.0;
        server.wait_until("commit", |server| committed(server) >= all);
        // A batch that has begun is taken.
        let (_, journal) = on_disk(&server);
        assert!(journal < (1 << 20) + (64 << 10), "{journal} bytes");
    }
    // What waited is in the files now, long before its time.
    server.wait_until("files", |server| on_disk(server).0 == SERIES + 2_000);
    for (name, points) in &sent {
        assert_eq!(in_file(&server, name), *points, "{name}");
    }
    assert_seen(&server, &sent);
    server.kill();
    server.run();
    assert_seen(&server, &sent);
    let range = format!("from={}&until={}", first - 10, now());
    let answer = server.json(&format!("/render?format=json&target=much.m7&{range}"));
    let points = answer[0]["datapoints"].as_array().unwrap().iter();
    let known = points.filter_map(|point| Some((point[1].as_i64()?, point[0].as_f64()?)));
    assert_eq!(known.collect::<Points>(), last);
}
