//! Aggregates of aggregation-rules.conf whose interval is open while the server ends, by SIGTERM and by
//! SIGKILL: points before and after the restart are in one value.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;

use support::{Server, now};

const RULES: &str = "all.sum (60) = sum web.*.hits\nall.avg (60) = avg web.*.hits\n\
                     all.p50 (60) = p50 web.*.hits\nall.max (60) = max web.*.hits\n";

/// A server with the rules, which stores aggregates only.
fn server(rules: &str, sync: &str) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("aggregation-rules.conf");
    fs::write(&path, rules).unwrap();
    let server = Server::with(&[
        ("carbon.aggregation_rules", &format!("{path:?}")),
        ("carbon.aggregation_forward_all", "false"),
        ("carbon.infer_step", "false"),
        ("journal.sync", sync),
        ("stats.self", "false"),
    ]);
    (directory, server)
}

/// Sends points of the interval that holds `at`, and waits until a restart would keep them.
fn send(server: &Server, at: i64, values: &[f64]) {
    let before = server.metric("plumbago_carbon_aggregator_datapoints_added_total");
    let line = |(n, value): (usize, &f64)| format!("web.h{n}.hits {value} {at}\n");
    server.lines(values.iter().enumerate().map(line).collect::<String>());
    // Each rule counts each point.
    let wanted = before + 4.0 * values.len() as f64;
    server.wait_until("the points are saved", |server| {
        server.metric("plumbago_carbon_aggregator_datapoints_saved_total") >= wanted
    });
}

/// The value of `target` in the interval that begins at `start`.
fn value(server: &Server, target: &str, start: i64) -> Option<f64> {
    let points = server.points(target);
    let in_interval = |(_, at): &&(f64, i64)| (start..start + 60).contains(at);
    points.iter().find(in_interval).map(|(value, _)| *value)
}

#[track_caller]
fn wait_for(server: &Server, start: i64, wanted: [f64; 4]) {
    let targets = ["all.sum", "all.avg", "all.p50", "all.max"];
    for (target, wanted) in targets.into_iter().zip(wanted) {
        server.wait_until(&format!("{target} is {wanted}"), |server| {
            value(server, target, start) == Some(wanted)
        });
    }
}

#[test]
fn an_interval_is_whole_across_sigterm_and_sigkill() {
    for sync in ["200ms", "always"] {
        let (_directory, mut server) = server(RULES, sync);
        // The interval is over: late points are gathered for seconds, and it stays open for minutes.
        let at = now() - 70;
        let start = at - at % 60;
        send(&server, at, &[1.0, 2.0, 30.0]);
        server.restart();
        wait_for(&server, start, [33.0, 11.0, 2.0, 30.0]);
        send(&server, at, &[7.0, 5.0]);
        server.kill();
        server.run();
        wait_for(&server, start, [45.0, 9.0, 5.0, 30.0]);
        send(&server, at, &[0.0]);
        wait_for(&server, start, [45.0, 7.5, 3.5, 30.0]);
        server.kill();
        server.run();
        wait_for(&server, start, [45.0, 7.5, 3.5, 30.0]);
        let status = server.stop();
        assert!(status.success(), "{}", server.log());
    }
}

#[test]
fn without_a_journal_a_shutdown_keeps_open_intervals() {
    let (_directory, mut server) = server(RULES, "off");
    let at = now() - 70;
    let start = at - at % 60;
    send(&server, at, &[1.0, 3.0]);
    server.restart();
    send(&server, at, &[5.0]);
    wait_for(&server, start, [9.0, 3.0, 3.0, 5.0]);
}

#[test]
fn outputs_of_a_rule_that_went_during_the_stop_are_stored_as_they_are() {
    let (directory, mut server) = server(RULES, "200ms");
    let at = now() - 70;
    let start = at - at % 60;
    send(&server, at, &[2.0, 4.0]);
    server.kill();
    let path = directory.path().join("aggregation-rules.conf");
    fs::write(path, "all.sum (60) = sum web.*.hits\n").unwrap();
    // A torn end costs no more than itself.
    let saved = server.data().join("aggregates");
    let mut bytes = fs::read(&saved).unwrap();
    bytes.extend(b"\x07\0\0\0torn");
    fs::write(&saved, bytes).unwrap();
    server.run();
    wait_for(&server, start, [6.0, 3.0, 3.0, 4.0]);
    assert!(
        server.log().contains("aggregates: 8 of "),
        "{}",
        server.log()
    );
    let before = server.metric("plumbago_carbon_aggregator_datapoints_added_total");
    server.lines(format!("web.h9.hits 10 {at}\n"));
    server.wait_until("the new point", |server| {
        server.metric("plumbago_carbon_aggregator_datapoints_added_total") > before
    });
    server.wait_until("the sum goes on", |server| {
        value(server, "all.sum", start) == Some(16.0)
    });
    assert_eq!(value(&server, "all.max", start), Some(4.0));
}
