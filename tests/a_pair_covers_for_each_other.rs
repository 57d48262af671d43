//! Two servers with routes to each other: one is killed during load and comes back, and both have every
//! point, by the queue or by `plumbago fill`; queries merge what either has; events are exchanged.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::{Server, now, plumbago, reserved};

/// Two servers that send each other every point, and their events.
fn pair(limit: &str) -> [Server; 2] {
    let [relay_a, relay_b, http_a, http_b] = reserved();
    let one = |relay: &str, other: &str, http: &str, other_http: &str| {
        let peers = format!("http://{other_http}");
        let mut server = Server::prepared(&[
            ("stats.self", "false"),
            ("carbon.relay_line_tcp", relay),
            ("carbon.relay_queue_size", limit),
            ("render.http", http),
            ("render.peers", &peers),
            ("render.peer_timeout", "5s"),
        ]);
        let path = server.dir.path().join("plumbago.toml");
        fs::write(
            &path,
            format!("[[carbon.routes]]\ndestinations = [{other:?}]\n"),
        )
        .unwrap();
        server.config = Some(path);
        server.run();
        server
    };
    [
        one(&relay_a, &relay_b, &http_a, &http_b),
        one(&relay_b, &relay_a, &http_b, &http_a),
    ]
}

const SERIES: usize = 300;

/// The values that `server` itself has of each series, without its peer.
fn own_values(server: &Server, from: i64, until: i64) -> Vec<usize> {
    let count = |name: usize| {
        let path = format!(
            "/render/?format=carbonapi_v2_pb&target=load.m{name}&from={}&until={until}",
            from - 1
        );
        let answer = server.get(&path);
        // A message per series: what is absent is in a list of booleans, so values are counted as such.
        if answer.status != 200 {
            return 0;
        }
        use prost::Message;
        let answer = render::protobuf::v2::MultiFetchResponse::decode(&answer.body[..]).unwrap();
        let series = &answer.metrics[0];
        series.is_absent.iter().filter(|absent| !**absent).count()
    };
    (0..SERIES).map(count).collect()
}

/// Sends a point of each series for one second after the other, in `from..until`, to both servers in turn, and
/// to the other one alone when `victim` is not there.
fn load(
    servers: &[String; 2],
    (from, until): (i64, i64),
    sent: &[AtomicUsize; 2],
    victim: usize,
    is_there: &AtomicBool,
) {
    for at in from..until {
        let lines: String = (0..SERIES)
            .map(|n| format!("load.m{n} {} {at}\n", at - from))
            .collect();
        // Senders of the server that is killed go over to the other one.
        let is_there = at % 2 == 0 && is_there.load(Ordering::SeqCst);
        let to = if is_there { victim } else { 1 - victim };
        let mut stream = TcpStream::connect(&servers[to]).unwrap();
        stream.write_all(lines.as_bytes()).unwrap();
        sent[to].fetch_add(1, Ordering::SeqCst);
    }
}

fn schemas(servers: &mut [Server; 2]) {
    for server in servers {
        let path = server.dir.path().join("schemas.conf");
        fs::write(&path, "[all]\npattern = .*\nretentions = 1s:1h\n").unwrap();
        server
            .settings
            .insert("carbon.schemas".to_owned(), path.display().to_string());
        server.restart();
    }
}

/// Sends load, kills the server `victim` in its midst and starts it again.
fn kill_during_load(servers: &mut [Server; 2], victim: usize) -> (i64, i64) {
    let seconds = 120;
    let (from, until) = (now() - seconds, now());
    let addresses = [0, 1].map(|n: usize| servers[n].address("carbon.line_tcp").to_owned());
    let (sent, is_there) = (
        Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]),
        Arc::new(AtomicBool::new(true)),
    );
    let loader = {
        let (sent, is_there) = (Arc::clone(&sent), Arc::clone(&is_there));
        std::thread::spawn(move || load(&addresses, (from, until), &sent, victim, &is_there))
    };
    let all = || {
        sent.iter()
            .map(|sent| sent.load(Ordering::SeqCst))
            .sum::<usize>()
    };
    let other = 1 - victim;
    servers[other].wait_until("load", |_| all() >= 40);
    // Its senders see that it goes: what they have begun to send has arrived, is committed, and is in the
    // queue for the other one, which is there within 0.25 s.
    is_there.store(false, Ordering::SeqCst);
    let before = all();
    let enough = (before + 2).min(seconds as usize);
    servers[other].wait_until("load", |_| all() >= enough);
    let arrived = (sent[victim].load(Ordering::SeqCst) * SERIES) as f64;
    servers[victim].wait_until("journal and queue", |server| {
        let text = server.get("/metrics").text();
        let metric = |name: &str| -> f64 {
            let mut lines = text.lines().filter(|line| line.starts_with(name));
            let value = lines.next().and_then(|line| line.rsplit(' ').next());
            value.and_then(|value| value.parse().ok()).unwrap_or(-1.0)
        };
        metric("plumbago_relay_taken_total") == arrived
            && metric("plumbago_relay_buffer_bytes") == 0.0
            && metric("plumbago_relay_sent_total") + metric("plumbago_relay_waiting") >= arrived
            && metric("plumbago_carbon_journal_committed_points")
                >= metric("plumbago_carbon_metrics_received_total")
    });
    servers[victim].kill();
    loader.join().unwrap();
    servers[victim].run();
    (from, until)
}

#[test]
fn the_first_gets_what_it_missed_from_the_queue_of_the_second() {
    one_that_was_killed_gets_what_it_missed(0);
}

#[test]
fn the_second_gets_what_it_missed_from_the_queue_of_the_first() {
    one_that_was_killed_gets_what_it_missed(1);
}

fn one_that_was_killed_gets_what_it_missed(victim: usize) {
    let mut servers = pair("1GiB");
    schemas(&mut servers);
    let (from, until) = kill_during_load(&mut servers, victim);
    let whole = vec![(until - from) as usize; SERIES];
    for server in &servers {
        server.wait_until("every point", |server| {
            own_values(server, from, until) == whole
        });
    }
}

#[test]
fn a_gap_is_filled_from_the_other_one_and_known_values_stay() {
    let mut servers = pair("1GiB");
    schemas(&mut servers);
    // The other one has points that were never sent to this one.
    let (from, until) = (now() - 300, now() - 60);
    let points = (from..until).flat_map(|at| (0..SERIES).map(move |n| (n, 7, at)));
    relayed(&servers[1], points);
    relayed(&servers[0], (0..SERIES).map(|n| (n, 1, from + 5)));
    let whole = vec![(until - from) as usize; SERIES];
    servers[1].wait_until("its points", |server| {
        own_values(server, from, until) == whole
    });
    servers[0].wait_until("known points", |server| {
        own_values(server, from, until) == vec![1; SERIES]
    });

    // A query of the first merges what both have, what it knows itself first.
    let merged = servers[0].points("load.m7");
    let value = |at: i64| {
        merged
            .iter()
            .find(|(_, time)| *time == at)
            .map(|(value, _)| *value)
    };
    assert_eq!((value(from + 5), value(from + 6)), (Some(1.0), Some(7.0)));
    let found = servers[0].json("/metrics/find?query=load.*");
    assert_eq!(found.as_array().unwrap().len(), SERIES);

    let missing = SERIES * (whole[0] - 1);
    let dry = fill(&servers, &["--dry-run"]);
    assert!(
        dry.contains(&format!("{missing} values of {SERIES} series missing")),
        "{dry}"
    );
    an_interrupted_run_goes_on(&servers, from, until);
    let begun = Instant::now();
    let filled = fill(&servers, &["--rate", "30000"]);
    assert!(filled.contains("series filled"), "{filled}");
    // Two of the series were filled before.
    let sent = missing - 2 * (whole[0] - 1);
    let at_least = Duration::from_secs_f64(sent as f64 / 30_000.0);
    assert!(
        begun.elapsed() >= at_least,
        "{sent} values in {:?}",
        begun.elapsed()
    );
    servers[0].wait_until("every point", |server| {
        own_values(server, from, until) == whole
    });
    // Known values are as they were.
    let kept = servers[0].points("load.m9");
    assert!(kept.contains(&(1.0, from + 5)) && kept.contains(&(7.0, from + 6)));
    assert!(fill(&servers, &[]).starts_with("0 values of 0 series filled"));

    // With the other one gone, answers are still there, in a bounded time.
    let gone = url(&servers[1]);
    servers[1].kill();
    assert_eq!(servers[0].points("load.m9").len(), whole[0]);
    let failed = format!("plumbago_peers_failed_total{{peer={gone:?}}}");
    assert!(servers[0].metric(&failed) >= 1.0);
}

/// Sends points (series, value, time) that `server` passes on to nobody.
fn relayed(server: &Server, points: impl Iterator<Item = (usize, u32, i64)>) {
    let lines: String = points
        .map(|(n, value, at)| format!("load.m{n} {value} {at}\n"))
        .collect();
    TcpStream::connect(server.address("carbon.relay_line_tcp"))
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
}

fn url(server: &Server) -> String {
    format!("http://{}", server.address("render.http"))
}

/// The file in which `plumbago fill` keeps its position.
fn position(servers: &[Server]) -> PathBuf {
    servers[0].dir.path().join("fill.json")
}

/// Fills the first server from the second; what the verb prints.
fn fill(servers: &[Server], extra: &[&str]) -> String {
    let (here, there) = (url(&servers[0]), url(&servers[1]));
    let to = servers[0].address("carbon.relay_line_tcp");
    let output = plumbago()
        .args(["fill", "--from", &there, "--url", &here])
        .args(["--to", to, "--since", "10m"])
        .args(["--state", &position(servers).display().to_string()])
        .args(extra)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A run goes on behind the last name that was done.
fn an_interrupted_run_goes_on(servers: &[Server], from: i64, until: i64) {
    let begun = serde_json::json!({
        "from": url(&servers[1]), "url": url(&servers[0]), "patterns": [], "since": from - 10, "until": until,
        "done": "load.m97",
    });
    fs::write(position(servers), begun.to_string()).unwrap();
    let rest = fill(servers, &[]);
    assert!(rest.contains("2 of 300 series are left"), "{rest}");
    assert!(!position(servers).exists());
}

#[test]
fn changes_and_deletions_of_events_reach_the_other_one() {
    let servers = pair("1GiB");
    let events = |server: &Server| {
        let all = server.json("/events/get_data");
        let all = all.as_array().unwrap().iter();
        let mut events: Vec<(String, String, i64)> = all
            .map(|event| {
                let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
                (text("what"), text("status"), event["id"].as_i64().unwrap())
            })
            .collect();
        events.sort();
        events
    };
    // Ids differ.
    servers[1].post("/events/", r#"{"what": "own", "tags": "x"}"#);
    servers[0].post("/events/", r#"{"what": "gone", "tags": "deploy"}"#);
    let start = r#"{"what": "deploy", "tags": "deploy", "key": "k", "status": "started"}"#;
    servers[0].post("/events/", start);
    servers[1].wait_until("events", |server| events(server).len() == 3);
    let of = |what: &str| {
        let all = events(&servers[1]);
        all.iter().find(|event| event.0 == what).unwrap().2
    };
    let path = |what: &str| format!("/events/{}/", of(what));
    let changed = servers[1].http("PATCH", &path("own"), "", br#"{"what": "changed"}"#);
    assert_eq!(changed.status, 200);
    let removed = servers[1].http("DELETE", &path("gone"), "", b"");
    assert_eq!(removed.status, 204);
    // Its end is posted at the other one, under its key.
    servers[1].post(
        "/events/",
        r#"{"what": "deploy", "key": "k", "status": "failed"}"#,
    );
    servers[0].wait_until("changes", |server| {
        let all = events(server);
        let all: Vec<_> = all
            .iter()
            .map(|(what, status, _)| (what.as_str(), status.as_str()))
            .collect();
        all == [("changed", ""), ("deploy", "failed")]
    });
}

#[test]
fn events_appear_at_the_other_one_once_and_after_a_gap() {
    let mut servers = pair("1GiB");
    let events = |server: &Server| {
        let all = server.json("/events/get_data");
        let all = all.as_array().unwrap().iter();
        let mut what: Vec<String> = all
            .map(|event| event["what"].as_str().unwrap().to_owned())
            .collect();
        what.sort();
        what
    };
    servers[0].post("/events/", r#"{"what": "deploy 1", "tags": "deploy"}"#);
    servers[1].wait_until("event", |server| events(server) == ["deploy 1"]);
    servers[1].kill();
    servers[0].post(
        "/events/",
        r#"{"what": "deploy 2", "tags": "deploy", "key": "k"}"#,
    );
    servers[1].run();
    servers[1].post("/events/", r#"{"what": "deploy 3", "tags": "deploy"}"#);
    for server in &servers {
        server.wait_until("events", |server| {
            events(server) == ["deploy 1", "deploy 2", "deploy 3"]
        });
    }
}
