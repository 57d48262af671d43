//! A thread of the server panics: the process logs its name, drains, and exits with 1; the next
//! start has what was committed. The panic comes from outside: a preloaded library has the system's
//! clock fail once in that thread.

#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Server, now};

/// Compiles the library that is preloaded.
fn failing_clock(directory: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/failing_clock.c");
    let library = directory.join("failing_clock.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    let compiled = Command::new(compiler)
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    assert!(compiled.unwrap().success());
    library
}

/// The clocks, by the number that the kernel has for them.
const WALL: &str = "0";
const MONOTONIC: &str = "1";

/// Has the thread that the kernel calls `thread` panic when it reads `clock`. The server, which has
/// ended, and its log.
fn after_a_panic_of(thread: &str, clock: &str) -> (Server, String) {
    let mut server = Server::prepared(&[("stats.self", "false"), ("journal.sync", "10ms")]);
    let library = failing_clock(server.dir.path());
    let trigger = server.dir.path().join("now");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    server.environment = vec![
        ("LD_PRELOAD".to_owned(), path(&library)),
        ("FAILING_THREAD".to_owned(), thread.to_owned()),
        ("FAILING_CLOCK".to_owned(), clock.to_owned()),
        ("FAILING_FROM".to_owned(), path(&trigger)),
    ];
    server.run();
    server.lines(format!("before 1 {}\n", now()));
    server.wait_for("before", |values| values == [1.0]);
    server.wait_until("commit", |server| {
        let text = server.get("/metrics").text();
        text.contains("plumbago_carbon_journal_committed_points_total 1\n")
    });
    fs::write(&trigger, "").unwrap();
    let begun = Instant::now();
    // Some threads read the clock only when there is work.
    while server.ended().is_none() && begun.elapsed() < Duration::from_secs(45) {
        server.statsd("work:1|c");
        server.statsd("_e{1,1}:a|b");
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let status = server.end();
    let log = server.log();
    assert_eq!(status.code(), Some(1), "{thread}: {status}\n{log}");
    (server, log)
}

fn the_process_ends_with(worker: &str, clock: &str) {
    let thread = &worker[..worker.len().min(15)];
    let (mut server, log) = after_a_panic_of(thread, clock);
    let said = format!("{worker} ended by a panic: the process shuts down");
    assert!(log.contains(&said), "{thread}:\n{log}");
    server.environment.clear();
    server.run();
    server.wait_for("before", |values| values == [1.0]);
    assert!(server.stop().success(), "{}", server.log());
}

#[test]
fn a_dead_persister_ends_the_process() {
    the_process_ends_with("persister", WALL);
}

#[test]
fn a_dead_journal_ends_the_process() {
    the_process_ends_with("journal", MONOTONIC);
}

#[test]
fn a_dead_receiver_ends_the_process() {
    the_process_ends_with("statsd-receive", MONOTONIC);
}

#[test]
fn a_dead_aggregator_ends_the_process() {
    the_process_ends_with("statsd-aggregate", WALL);
}

#[test]
fn a_dead_event_store_ends_the_process() {
    the_process_ends_with("events", MONOTONIC);
}
