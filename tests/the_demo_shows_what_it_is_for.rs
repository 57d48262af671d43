//! `serve --demo`: a first look with a week of data, deploys on it, and traffic that goes on.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::Server;

/// The harmful deploy is worse, its rollback better, and the harmless one changed nothing.
fn deploys_are_judged(server: &Server) {
    let impact_of = |what: &str| {
        let events = server.json("/events/get_data?tags=deploy&from=-8d&meta=1");
        let mut events = events.as_array().unwrap().iter();
        let event = events.find(|event| event["what"] == what).unwrap();
        event["impact"].clone()
    };
    let verdict = |what: &str| {
        server.wait_until(what, |_| impact_of(what).is_object());
        impact_of(what)
    };
    let worse = verdict("checkout 3.0");
    assert_eq!(worse["verdict"], "worse", "{worse}");
    let first = worse["series"][0]["name"].as_str().unwrap();
    assert!(
        first.contains("errors") || first.contains("checkout"),
        "{worse}"
    );
    let back = verdict("checkout back to 2.9");
    assert_eq!(back["verdict"], "better", "{back}");
    let quiet = verdict("web 2.3");
    assert_eq!(quiet["verdict"], "unchanged", "{quiet}");
}

#[test]
fn the_demo_has_a_past_a_present_and_deploys() {
    let mut server = Server::prepared(&[("statsd.flush_interval", "10s")]);
    server.extra.push("--demo".to_owned());
    server.run();

    let page = server.get("/").text();
    for word in [
        "made-up web shop",
        "Logins per second",
        "Checkouts per second",
        "HTTP errors by status, per second",
        "checkout 3.0",
        "checkout back to 2.9",
    ] {
        assert!(page.contains(word), "{word}: {page}");
    }
    assert_eq!(server.get("/dashboards/past-week").status, 200);

    // A week back, at a minute a point; the last hours, at ten seconds.
    let week = server.json("/render?format=json&from=-6d&until=-5d&target=stats.shop.logins");
    let points = week[0]["datapoints"].as_array().unwrap();
    assert!(points.len() >= 1_439 && points.iter().all(|point| point[0].is_number()));
    let hour =
        server.json("/render?format=json&from=-1h&until=-1min&target=stats_counts.shop.checkouts");
    let points = hour[0]["datapoints"].as_array().unwrap();
    assert!(points.len() >= 353 && points.iter().all(|point| point[0].is_number()));

    // The harmful deploy of the last hour is to be seen in the numbers.
    let mean = |from: &str, until: &str| {
        let url = format!(
            "/render?format=json&from={from}&until={until}&target=stats.timers.shop.response.checkout.mean"
        );
        let series = server.json(&url);
        let points = series[0]["datapoints"].as_array().unwrap().clone();
        let values: Vec<f64> = points
            .iter()
            .filter_map(|point| point[0].as_f64())
            .collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    assert!(mean("-41min", "-23min") > 1.4 * mean("-56min", "-43min"));
    assert!(mean("-41min", "-23min") > 1.4 * mean("-20min", "-2min"));

    deploys_are_judged(&server);

    // The shop is open: what it sends arrives through the socket.
    server.wait_until("a visitor", |server| {
        server.json("/received")["text"] != "0 metrics"
    });

    // A restart fills in the same week again and posts nothing twice.
    let events = |server: &Server| {
        server
            .json("/events/get_data?from=-8d")
            .as_array()
            .unwrap()
            .len()
    };
    let before = events(&server);
    server.restart();
    assert_eq!(events(&server), before);
}
