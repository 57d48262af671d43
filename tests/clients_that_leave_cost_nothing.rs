//! Clients that go away in the middle: their work ends long before its timeout, and what they sent
//! does not stay in memory.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use support::{Server, now};

/// A timeout that no test waits for.
const TIMEOUT: &str = "600s";

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {text}"))
        .parse()
        .unwrap()
}

/// A server with series of five years.
fn filled() -> Server {
    let server = Server::with(&[("stats.self", "false"), ("render.timeout", TIMEOUT)]);
    let now = now();
    let mut lines = String::new();
    for series in 0..20 {
        for point in 1..500 {
            writeln!(lines, "old.s{series} {point} {}", now - point * 300_000).unwrap();
        }
    }
    for name in 0..5_000 {
        writeln!(lines, "wide.h{}.m{name} 1 {now}", name % 50).unwrap();
    }
    server.lines(&lines);
    server.wait_until("all lines", |server| {
        metric(server, "plumbago_carbon_metrics_received_total") >= 14_980.0
    });
    server
}

/// Processor time of the threads that compute answers, in ticks.
fn computed(server: &Server) -> u64 {
    let tasks = format!("/proc/{}/task", server.pid().as_raw_nonzero());
    let mut ticks = 0;
    for task in fs::read_dir(tasks).unwrap() {
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
        let Some((_, fields)) = stat
            .split_once("(render")
            .and_then(|s| s.1.split_once(") "))
        else {
            continue;
        };
        let fields: Vec<u64> = fields
            .split(' ')
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        ticks += fields[11] + fields[12];
    }
    ticks
}

/// Waits until the threads that compute have worked for `ticks` since `before`.
fn wait_for_work(server: &Server, before: u64, ticks: u64) {
    server.wait_until("work", |server| computed(server) >= before + ticks);
}

/// Waits until the threads that compute rest: no tick in half a second.
fn wait_for_rest(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut last = (computed(server), Instant::now());
    while last.1.elapsed() < Duration::from_millis(500) {
        let ticks = computed(server);
        if ticks != last.0 {
            last = (ticks, Instant::now());
        }
        assert!(Instant::now() < deadline, "the work goes on");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn work_ends_when_its_client_goes() {
    let server = filled();
    let address = server.address("render.http").to_owned();
    let median = format!(
        "{}old.*{}",
        "movingMedian(".repeat(10),
        ",10000)".repeat(10)
    );
    let requests = [
        "/render?from=-5y&width=4000&height=4000&target=dashed(old.*,0.0001)".to_owned(),
        format!("/render?from=-2y&format=json&target={median}"),
    ];
    for request in requests {
        let before = computed(&server);
        let clients: Vec<TcpStream> = (0..2)
            .map(|_| {
                let mut client = TcpStream::connect(&address).unwrap();
                write!(client, "GET {request} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
                client
            })
            .collect();
        wait_for_work(&server, before, 10);
        for client in &clients {
            client.set_nonblocking(true).unwrap();
            let answered = (&*client).read(&mut [0; 64]);
            assert!(answered.is_err(), "{request}: done before the client goes");
        }
        // A small request has its own thread.
        server.wait_for("wide.h1.m1", |values| values == [1.0]);
        drop(clients);
        wait_for_rest(&server);
    }
}

#[test]
fn aborted_requests_leave_nothing_in_memory() {
    let server = filled();
    let address = server.address("render.http").to_owned();
    let anonymous_mib = || -> usize {
        let pid = server.pid().as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.unwrap().trim_end_matches("kB").trim();
        kib.parse::<usize>().unwrap() >> 10
    };
    // All threads for large requests are busy meanwhile, so that these wait.
    let before = computed(&server);
    let busy: Vec<TcpStream> = (0..4)
        .map(|n| {
            let mut client = TcpStream::connect(&address).unwrap();
            let request =
                format!("from=-5y&width=4000&height=4000&target=dashed(old.*,0.0001)&n={n}");
            write!(
                client,
                "GET /render?{request} HTTP/1.1\r\nHost: {address}\r\n\r\n"
            )
            .unwrap();
            client
        })
        .collect();
    wait_for_work(&server, before, 10);
    let base = anonymous_mib();
    for round in 0..3 {
        let aborted: Vec<TcpStream> = (0..200)
            .map(|n| {
                let title = "x".repeat(200_000);
                let body = format!("target=old.*&from=-5y&title={round}.{n}.{title}");
                let mut client = TcpStream::connect(&address).unwrap();
                write!(
                    client,
                    "POST /render HTTP/1.1\r\nHost: {address}\r\n\
                     Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
                client
            })
            .collect();
        drop(aborted);
    }
    drop(busy);
    wait_for_rest(&server);
    server.wait_until("memory given back", |_| anonymous_mib() < base + 40);
    assert_eq!(metric(&server, "plumbago_http_panics_total"), 0.0);
    assert!(server.get("/healthz").status == 200);
}
