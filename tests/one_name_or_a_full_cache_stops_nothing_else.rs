//! Names that no file can have, and a cache that is full: the others are stored, and SIGTERM ends
//! the server.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fmt::Write;
use std::fs;
use std::time::{Duration, Instant};

use support::{Server, now};

/// The bytes of all segments of the journal.
fn journal_bytes(server: &Server) -> u64 {
    fs::read_dir(server.data().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

/// Stops it; how long that took.
fn timed_stop(server: &mut Server) -> Duration {
    let begun = Instant::now();
    let status = server.stop();
    assert!(status.success(), "{status}:\n{}", server.log());
    begun.elapsed()
}

#[test]
fn a_name_that_no_file_can_have_takes_no_room_from_others() {
    let mut server = Server::with(&[("carbon.max_cache_size", "256KiB")]);
    let at = now();
    // The longest names that there are have files.
    let (long, counted) = ("w".repeat(250), "s".repeat(245));
    server.lines(format!("{long} 1 {at}\n"));
    server.statsd(format!("{counted}:1|c"));
    server.wait_for(&long, |values| values == [1.0]);
    server.wait_for_sum(&format!("stats_counts.{counted}"), 1.0);
    // A file where a directory would have to be. More points than the cache has room for:
    fs::write(server.data().join("whisper/blocked"), "").unwrap();
    let mut lines = String::new();
    for n in 0..40_000 {
        writeln!(lines, "blocked.y {n} {}", at - n % 5_000).unwrap();
    }
    let mut sender = std::net::TcpStream::connect(server.address("carbon.line_tcp")).unwrap();
    std::io::Write::write_all(&mut sender, lines.as_bytes()).unwrap();
    server.lines(format!("innocent.line 2 {at}\n"));
    server.statsd("innocent.count:3|c");
    server.wait_for("innocent.line", |values| values == [2.0]);
    server.wait_for_sum("stats_counts.innocent.count", 3.0);
    drop(sender);
    server.wait_until("points dropped", |server| {
        server.metric("plumbago_carbon_points_unwritable_total") >= 40_000.0
    });
    assert!(server.log().contains("blocked.y"), "{}", server.log());
    let took = timed_stop(&mut server);
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(journal_bytes(&server) < 100, "the journal is empty");
    server.run();
    assert_eq!(
        server.metric("plumbago_carbon_journal_replayed_points_total"),
        0.0
    );
    server.wait_for("innocent.line", |values| values == [2.0]);
}

#[test]
fn a_name_whose_path_is_too_long_is_refused_by_name() {
    let mut server = Server::prepared(&[]);
    let root = server.dir.path().join("r".repeat(150));
    std::fs::create_dir(&root).unwrap();
    let root = root.display().to_string();
    server
        .settings
        .insert("carbon.whisper_dir".to_owned(), root);
    server.run();
    let name = format!(
        "{}.{}",
        vec!["n".repeat(200); 19].join("."),
        "end".repeat(50)
    );
    server.lines(format!("{name} 1 {}\nshort 1 {}\n", now(), now()));
    server.wait_for("short", |values| values == [1.0]);
    assert_eq!(server.metric("plumbago_carbon_rejects_name_total"), 1.0);
    server.wait_until("line in the log", |server| {
        server
            .log()
            .contains("the path of its file would be too long: nnnn")
    });
}

#[test]
fn sigterm_ends_a_server_whose_cache_is_full() {
    let mut server = Server::prepared(&[
        ("carbon.max_cache_size", "64KiB"),
        ("carbon.max_creates_per_minute", "1"),
        ("stats.self", "false"),
    ]);
    server.run();
    let at = now();
    // More series than there is room for wait for a file of their own.
    let mut lines = String::new();
    for n in 0..2_040 {
        writeln!(lines, "wait.m{n} {n} {at}").unwrap();
    }
    server.lines(&lines);
    server.wait_until("full cache", |server| {
        server.metric("plumbago_carbon_cache_bytes") > 60_000.0
    });
    for chunk in 0..10 {
        let packet: Vec<String> = (0..50).map(|n| format!("c{chunk}.m{n}:1|c")).collect();
        server.statsd(packet.join("\n"));
    }
    // The flush finds no room.
    server.wait_until("waiting flush", |server| {
        server.metric("plumbago_carbon_cache_waits_total") > 0.0
    });
    let took = timed_stop(&mut server);
    assert!(took < Duration::from_secs(30), "{took:?}");
    assert!(server.data().join("statsd-state").exists());
    server.settings.remove("carbon.max_creates_per_minute");
    server.run();
    for n in [0, 500, 2_039] {
        server.wait_for(&format!("wait.m{n}"), |values| values == [f64::from(n)]);
    }
    // Flushed before the stop, or in the interval that went on after it.
    for chunk in 0..10 {
        server.wait_for_sum(&format!("sumSeries(stats_counts.c{chunk}.*)"), 50.0);
    }
}

#[test]
fn sigterm_leaves_to_the_journal_what_the_timeout_cuts_off() {
    let mut server = Server::with(&[
        ("carbon.drain_timeout", "1ms"),
        ("carbon.infer_step", "false"),
        ("carbon.max_creates_per_minute", "1"),
        ("stats.self", "false"),
    ]);
    let at = now();
    let mut lines = String::new();
    for n in 0..1_000 {
        writeln!(lines, "late.m{n} {n} {at}").unwrap();
    }
    server.lines(&lines);
    server.wait_until("all lines", |server| {
        server.metric("plumbago_carbon_metrics_received_total") >= 1_000.0
    });
    timed_stop(&mut server);
    let log = server.log();
    assert!(
        log.contains("are not in their files (carbon.drain_timeout = 1ms has passed); the journal keeps them for the next start"),
        "{log}"
    );
    server.settings.remove("carbon.max_creates_per_minute");
    server.settings.remove("carbon.drain_timeout");
    server.run();
    for n in [0, 500, 999] {
        server.wait_for(&format!("late.m{n}"), |values| values == [f64::from(n)]);
    }
    timed_stop(&mut server);
    assert!(journal_bytes(&server) < 100, "the journal is empty");
}
