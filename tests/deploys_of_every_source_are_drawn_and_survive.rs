//! A deploy sent by HTTP, datagram, command line, webhook and as a metric is on the graph, and
//! still there after the server was killed.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use support::{Server, plumbago};

const RULES: &str = r##"
[[events.rules]]
metric = "deploys.*.*"
what = "metric {1} to {2}"
event_tags = "deploy {1} env:{2}"

[[events.rules]]
tags = "env:production"
color = "#ff00aa"
"##;

fn graph(server: &Server) -> String {
    let url =
        "/render?target=constantLine(5)&from=-15min&until=%2B1min&format=svg&width=1600&height=800";
    let answer = server.get(&format!("{url}&events=deploy"));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.head.contains("no-store") || answer.head.contains("no-cache"),
        "{}",
        answer.head
    );
    answer.text()
}

/// Waits until the graph has every word of `words` on it.
fn wait_for(server: &Server, words: &[&str]) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let svg = graph(server);
        let missing: Vec<_> = words.iter().filter(|word| !svg.contains(**word)).collect();
        if missing.is_empty() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{missing:?} missing in {svg}\n{}",
            server.log()
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn deploys_of_every_source_are_drawn_and_survive_kill_9() {
    let mut server = Server::prepared(&[]);
    let config = server.dir.path().join("plumbago.toml");
    fs::write(&config, RULES).unwrap();
    server.config = Some(config);
    server.run();
    let now = support::now();
    let url = format!("http://{}", server.address("render.http"));

    let minutes_ago = |minutes: i64| now - 60 * minutes;
    let posted = format!(
        r#"{{"what": "by curl", "tags": "deploy", "when": {}}}"#,
        minutes_ago(12)
    );
    assert_eq!(server.post("/events/", &posted).status, 200);
    assert!(graph(&server).contains("by curl"), "at once");

    let wrapped = plumbago()
        .args([
            "event", "wrap", "--tag", "deploy", "--what", "by wrap", "--url", &url, "--", "true",
        ])
        .status();
    assert!(wrapped.unwrap().success());
    assert!(graph(&server).contains("by wrap"), "at once");

    let at = jiff::Timestamp::from_second(minutes_ago(6)).unwrap();
    let webhook = format!(
        r#"{{"deployment": {{"id": 1, "ref": "hook", "environment": "eu", "created_at": "{at}"}},
            "repository": {{"full_name": "shop/web"}}}}"#
    );
    let headers = "X-GitHub-Event: deployment\r\nContent-Type: application/json\r\n";
    assert_eq!(
        server
            .http("POST", "/webhooks/github", headers, webhook.as_bytes())
            .status,
        201
    );
    assert!(graph(&server).contains("deploy web hook to eu"), "at once");

    server.statsd(format!(
        "_e{{11,2}}:by datagram|hi|d:{}|#deploy",
        minutes_ago(9)
    ));
    server.lines(format!("deploys.web.production 1 {}\n", minutes_ago(3)));
    let all = [
        "by curl",
        "by wrap",
        "deploy web hook to eu",
        "by datagram",
        "metric web to production",
    ];
    wait_for(&server, &all);
    // Sent again, the metric's value makes no second event; a value of 0 makes no event.
    server.lines(format!(
        "deploys.web.production 1 {}\ndeploys.web.staging 0 {now}\ndeploys.last.one 2 {now}\n",
        minutes_ago(3)
    ));
    wait_for(&server, &["metric last to one"]);
    let events = server.json("/events/get_data?tags=deploy&from=-1h&until=%2B1h");
    let events = without_verdicts(events);
    assert_eq!(events.as_array().unwrap().len(), 6, "{events}");
    assert!(
        graph(&server).to_ascii_lowercase().contains("#ff00aa"),
        "coloured by rule"
    );

    server.kill();
    server.run();
    wait_for(&server, &all);
    let again = server.json("/events/get_data?tags=deploy&from=-1h&until=%2B1h");
    assert_eq!(without_verdicts(again), events);
}

/// The events without what is computed in the background since they were stored.
fn without_verdicts(mut events: serde_json::Value) -> serde_json::Value {
    for event in events.as_array_mut().unwrap() {
        event.as_object_mut().unwrap().remove("impact");
    }
    events
}
