//! The main job, whole: statsd → carbon → files → restart → render → events.

mod support;

use support::{Server, files, now};

/// The sums, the measured point, the event and its line are there.
fn check(server: &Server, sent_at: i64) {
    server.wait_for_sum("stats_counts.app.logins", 5.0);
    server.wait_for("app.measured", |values| values == [12.5]);
    let (_, at) = server.points("app.measured")[0];
    assert!((sent_at - 40..=sent_at - 30).contains(&at), "kept at {at}");

    let found = server.json("/metrics/find?query=stats.gauges.app.*");
    assert_eq!(found[0]["text"], "queue");

    let events = server.json("/events/get_data?tags=deploy&from=-5min");
    assert_eq!(events[0]["what"], "app 1.4.2");

    let url = "/render?target=stats_counts.app.logins&from=-5min&width=586&height=308";
    let svg = |more: &str| {
        let answer = server.get(&format!("{url}&format=svg{more}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.text().contains("<svg"));
        answer.text()
    };
    // A picture reaches up to the present second, in which the deploy was posted.
    server.wait_until("line", |_| svg("&events=deploy").contains("app 1.4.2"));
    assert!(!svg("").contains("app 1.4.2"));
    assert!(!svg("&events=config").contains("app 1.4.2"));

    let png = |more: &str| {
        let answer = server.get(&format!("{url}&format=png{more}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            answer
                .head
                .to_ascii_lowercase()
                .contains("content-type: image/png")
        );
        assert_eq!(&answer.body[..8], b"\x89PNG\r\n\x1a\n");
        answer.body
    };
    assert_ne!(png("&events=deploy"), png(""));
}

#[test]
fn what_python_statsd_sends_becomes_series_files_and_pictures_and_survives_a_restart() {
    let mut server = Server::start();
    let sent_at = now();
    server.statsd("app.logins:1|c\napp.logins:2|c\napp.logins:1|c|@0.5");
    server.statsd("app.login.total:12.50000000|ms\napp.login.total:27.50000000|ms");
    server.statsd("app.queue:40|g");
    server.statsd("app.queue:+2|g");
    server.statsd("app.users:ann|s\napp.users:bob|s\napp.users:ann|s");
    server.statsd("app.load:4|a\napp.load:8|a");
    server.statsd(format!("app.measured:12.5|r|{}.25", sent_at - 30));

    server.wait_for_sum("stats_counts.app.logins", 5.0);
    server.wait_for_sum("stats.timers.app.login.total.count", 2.0);
    server.wait_for_sum("stats.timers.app.login.total.sum", 40.0);
    server.wait_for("stats.gauges.app.queue", |values| {
        values.last() == Some(&42.0)
    });
    server.wait_for("stats.sets.app.users.count", |values| values.contains(&2.0));
    server.wait_for("stats.averages.app.load", |values| values == [6.0]);
    server.wait_for("app.measured", |values| values == [12.5]);

    let deploy = r#"{"what": "app 1.4.2", "tags": "deploy app", "data": "by ann"}"#;
    assert_eq!(server.post("/events/", deploy).status, 200);

    check(&server, sent_at);

    server.restart();
    check(&server, sent_at);
    let whisper = server.data().join("whisper");
    let kept = files(&whisper);
    for file in [
        "app/measured.wsp",
        "stats_counts/app/logins.wsp",
        "stats/gauges/app/queue.wsp",
    ] {
        assert!(
            kept.iter().any(|name| name == file),
            "{file} is not among {kept:?}"
        );
    }
    server.wait_for("stats.gauges.app.queue", |values| {
        values.last() == Some(&42.0)
    });
}

#[test]
fn carbon_lines_are_seen_at_once_and_kept() {
    let mut server = Server::start();
    let at = now() / 10 * 10 - 60;
    let lines: String = (0..30)
        .map(|n| format!("plain.value {n} {}\n", at - 10 * n))
        .collect();
    server.lines(&lines);
    server.wait_for_sum("plain.value", (0..30).sum::<i64>() as f64);
    server.restart();
    server.wait_for_sum("plain.value", (0..30).sum::<i64>() as f64);
}
