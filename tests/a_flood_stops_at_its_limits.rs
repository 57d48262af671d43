//! Limits on series and on connections of carbon lines: what is over them is refused and counted,
//! and nothing else is hurt.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::Server;

/// The value of a metric of `/metrics`, 0 if it is not there.
fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.strip_prefix(' '));
    value.map_or(0.0, |value| value.parse().unwrap())
}

fn names(server: &Server, pattern: &str) -> Vec<String> {
    let found = server.json(&format!("/metrics/find?query={pattern}"));
    let found = found.as_array().unwrap().iter();
    let found = found.map(|one| one["id"].as_str().unwrap().to_owned());
    let mut found: Vec<String> = found.collect();
    found.sort();
    found
}

#[test]
fn series_over_a_limit_are_refused_by_prefix_and_known_ones_are_not() {
    let server = Server::with(&[
        ("stats.self", "false"),
        ("carbon.max_series_per_prefix", "3"),
        ("carbon.max_series", "6"),
    ]);
    let flood: String = (0..10).map(|n| format!("noisy.app.m{n} 1 N\n")).collect();
    server.lines(flood);
    server.wait_until("refusals", |server| {
        metric(
            server,
            "plumbago_carbon_rejects_max_series_per_prefix_total",
        ) >= 7.0
    });
    // Its neighbours, and what is known, go on; the rest meets the limit on series in all.
    server.lines("quiet.app.a 2 N\nnoisy.app.m1 3 N\nquiet.app.b 2 N\nalone 2 N\nlast 9 N\n");
    server.wait_until("refusal", |server| {
        metric(server, "plumbago_carbon_rejects_max_series_total") >= 1.0
    });
    assert_eq!(names(&server, "noisy.app.*").len(), 3);
    assert_eq!(names(&server, "quiet.app.*").len(), 2);
    assert_eq!(names(&server, "*"), ["alone", "noisy", "quiet"]);
    server.wait_for("noisy.app.m1", |values| values.last() == Some(&3.0));
    let refused = |which| {
        let name = format!("plumbago_carbon_rejects_prefix_total{{prefix=\"{which}\"}}");
        metric(&server, &name)
    };
    assert_eq!((refused("noisy.app"), refused("last")), (7.0, 1.0));
    let log = server.log();
    assert_eq!(
        log.matches("carbon.max_series_per_prefix is reached")
            .count(),
        1,
        "{log}"
    );
    assert!(log.contains("noisy.app"), "{log}");
    // Registering over HTTP meets it, too.
    let answer = server.http("POST", "/tags/tagSeries?path=m;a=b", "", b"");
    assert!(answer.status >= 400 && answer.text().contains("carbon.max_series"));
    // After a restart all that is known is taken, at the limit or over it.
    let mut server = server;
    let over = ("carbon.max_series".to_owned(), "2".to_owned());
    server.settings.extend([over]);
    server.restart();
    server.lines("quiet.app.b 5 N\nnew.app.a 1 N\n");
    server.wait_for("quiet.app.b", |values| values.last() == Some(&5.0));
    server.wait_until("refusal", |server| {
        metric(server, "plumbago_carbon_rejects_max_series_total") >= 1.0
    });
    assert!(names(&server, "new.app.*").is_empty());
}

#[test]
fn new_series_in_a_minute_are_limited_for_statsd_as_for_lines() {
    let server = Server::with(&[
        ("stats.self", "false"),
        ("statsd.flush_counts", "false"),
        ("carbon.max_new_series_per_minute", "30"),
    ]);
    let flood: String = (0..100).map(|n| format!("app.m{n}:1|c\n")).collect();
    server.statsd(flood);
    // Refusals are counted while the flush still gathers points.
    server.wait_until("refusals and series", |server| {
        metric(server, "plumbago_carbon_rejects_max_new_series_total") >= 60.0
            && names(server, "stats.app.*").len() >= 30
    });
    let first = names(&server, "stats.app.*").len();
    assert!((30..60).contains(&first), "{first}");
    // What was refused is offered again at later flushes: with time there is room.
    server.wait_until("further series", |server| {
        names(server, "stats.app.*").len() > first
    });
}

/// Whether the server has closed the connection.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    match stream.read(&mut [0; 1]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    }
}

#[test]
fn the_connection_that_was_silent_longest_makes_room() {
    let server = Server::with(&[("stats.self", "false"), ("carbon.max_connections", "3")]);
    let connect = || TcpStream::connect(server.address("carbon.line_tcp")).unwrap();
    let received = |n: f64| {
        server.wait_until("line", |server| {
            metric(server, "plumbago_carbon_metrics_received_total") >= n
        });
    };
    let mut first = connect();
    first.write_all(b"first 1 N\n").unwrap();
    received(1.0);
    let mut second = connect();
    second.write_all(b"second 1 N\n").unwrap();
    received(2.0);
    let mut third = connect();
    third.write_all(b"third 1 N\nhalf").unwrap();
    received(3.0);
    // The first is not the one that has been silent longest any more.
    first.write_all(b"first 2 N\n").unwrap();
    received(4.0);
    // Refused while all have just been sending, taken once one has been silent for a second.
    let newcomer = std::cell::RefCell::new(connect());
    server.wait_until("room", |_| {
        let mut newcomer = newcomer.borrow_mut();
        if is_closed(&newcomer) {
            *newcomer = connect();
        }
        is_closed(&second)
    });
    let mut newcomer = newcomer.into_inner();
    newcomer.write_all(b"fourth 1 N\n").unwrap();
    received(5.0);
    first.write_all(b"first 3 N\n").unwrap();
    third.write_all(b" 1 N\n").unwrap();
    received(7.0);
    assert_eq!(
        metric(&server, "plumbago_carbon_connections_evicted_total"),
        1.0
    );
    assert!(server.log().contains("carbon.max_connections is reached"));
}

#[test]
fn a_silent_connection_is_closed_after_the_timeout() {
    let server = Server::with(&[("carbon.idle_timeout", "200ms")]);
    let mut silent = TcpStream::connect(server.address("carbon.line_tcp")).unwrap();
    silent.write_all(b"a.b 1 N\n").unwrap();
    // Ends when the server closes.
    assert_eq!(silent.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert_eq!(
        metric(&server, "plumbago_carbon_connections_idle_total"),
        1.0
    );
    server.wait_for("a.b", |values| values == [1.0]);
}

#[test]
fn two_thousand_idle_connections_cost_little_memory_again_and_again() {
    const CONNECTIONS: usize = 2_000;
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limits.maximum,
        maximum: limits.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let server = Server::with(&[("stats.self", "false")]);
    let anonymous_kib = || -> usize {
        let pid = server.pid().as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        line.unwrap().trim_end_matches("kB").trim().parse().unwrap()
    };
    // The buffers and threads of an ordinary sender are there already.
    server.lines("warm.up 1 N\n".repeat(20_000));
    server.wait_until("lines", |server| {
        metric(server, "plumbago_carbon_metrics_received_total") >= 20_000.0
    });
    let before = anonymous_kib();
    for round in 1..=3 {
        let mut connections: Vec<TcpStream> = (0..CONNECTIONS)
            .map(|_| TcpStream::connect(server.address("carbon.line_tcp")).unwrap())
            .collect();
        for connection in &mut connections {
            connection.write_all(b"a.b 1 N\nhalf").unwrap();
        }
        let lines = (20_000 + round * CONNECTIONS) as f64;
        server.wait_until("lines", |server| {
            metric(server, "plumbago_carbon_metrics_received_total") >= lines
        });
        let cost = anonymous_kib().saturating_sub(before);
        assert!(cost < 20 << 10, "round {round}: {cost} KiB");
        drop(connections);
        let closed = (1 + round * CONNECTIONS) as f64;
        server.wait_until("end of the connections", |server| {
            metric(server, "plumbago_carbon_connections_closed_total") >= closed
        });
    }
}
