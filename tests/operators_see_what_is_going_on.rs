//! Health, readiness, counters, the page, signals: what operators look at.

mod support;

use std::fs;

use rustix::process::Signal;
use support::Server;

#[test]
fn health_readiness_and_counters() {
    let server = Server::start();
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/readyz").status, 200);
    server.statsd("a.b:1|c\nnonsense");
    server.wait_for_sum("stats_counts.a.b", 1.0);
    let metrics = server.get("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(
        metrics.head.contains("text/plain; version=0.0.4"),
        "{}",
        metrics.head
    );
    let head = server.http("HEAD", "/metrics", "", b"");
    assert_eq!((head.status, head.text().as_str()), (200, ""));
    let text = metrics.text();
    let mut names = 0;
    for line in text.lines() {
        if let Some((_, help)) = line.strip_prefix("# HELP ").and_then(|h| h.split_once(' ')) {
            // What is counted, and what to do about it.
            let sentences = help.matches(". ").count() + usize::from(help.ends_with('.'));
            assert!(sentences >= 2, "{line}");
        }
        if line.starts_with('#') {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with("plumbago_"), "{line}");
        value.parse::<f64>().unwrap();
        names += 1;
    }
    assert!(names > 10, "{text}");
    let found = server.json("/metrics?query=stats_counts.a.*");
    assert_eq!(found[0]["text"], "b");
}

#[test]
fn our_own_counters_are_series_under_the_names_of_the_programs_replaced() {
    let server = Server::start();
    server.statsd("a:1|c");
    server.wait_for("stats_counts.statsd.packets_received", |values| {
        !values.is_empty()
    });
    let agents = server.json("/metrics/find?query=carbon.agents.*");
    assert_eq!(agents.as_array().unwrap().len(), 1);
}

#[test]
fn the_page_waits_for_data_and_then_shows_it() {
    let server = Server::start();
    let start = server.get("/");
    assert_eq!(start.status, 200);
    let udp = server.address("statsd.udp").replace(':', " ");
    assert!(
        start.text().contains(&format!("nc -u -w1 {udp}")),
        "{}",
        start.text()
    );
    assert!(
        start.text().contains("received: <strong>0 metrics"),
        "{}",
        start.text()
    );
    server.statsd("shop.logins:3|c\nshop.errors.500:1|c\nshop.time:12|ms");
    server.wait_for_sum("stats_counts.shop.logins", 3.0);
    let counted = server.json("/received");
    assert_eq!(counted["text"], "3 metrics");
    assert_eq!(counted["graphs"], true);
    let page = server.get("/").text();
    assert!(
        page.contains("End-User (1 hour)") && page.contains("Logins per second"),
        "{page}"
    );
    for picture in page
        .split("src=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
    {
        if picture.starts_with("render?") {
            let answer = server.get(&format!("/{}", picture.replace("&amp;", "&")));
            assert_eq!(answer.status, 200, "{picture}: {}", answer.text());
            assert_eq!(&answer.body[1..4], b"PNG");
        }
    }
}

#[test]
fn a_hangup_reads_configuration_and_dashboards_again() {
    let mut server = Server::prepared(&[]);
    let file = server.dir.path().join("plumbago.toml");
    fs::write(&file, "[log]\nlevel = \"warn\"\n").unwrap();
    server.config = Some(file.clone());
    server.run();
    assert!(!server.log().contains("listens on"), "{}", server.log());
    fs::create_dir_all(server.data().join("dashboards")).unwrap();
    let dashboard = "title = \"Mine\"\n[[panels]]\ntitle = \"P\"\ntargets = [\"a\"]\n";
    fs::write(server.data().join("dashboards/mine.toml"), dashboard).unwrap();
    fs::write(&file, "[log]\nlevel = \"info\"\n").unwrap();
    server.signal(Signal::HUP);
    server.wait_until("reading", |server| {
        server.log().contains("configuration reloaded")
    });
    assert_eq!(server.get("/dashboards/mine").status, 200);
}
