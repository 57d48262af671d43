//! `serve --demo`: a first look with a week of data, deploys on it, and traffic that goes on.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use serde_json::{Value, json};
use support::{Server, now, run};

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
    // A deploy of days ago is judged, but no event says so.
    assert_eq!(verdict("web 2.1")["verdict"], "worse");
    let told = |server: &Server| server.json("/events/get_data?tags=impact&from=-8d");
    let names = |found: &Value| {
        let events = found.as_array().unwrap().iter();
        let names: Vec<String> = events.map(|event| event["what"].to_string()).collect();
        names.join(", ")
    };
    assert_eq!(names(&told(server)), "\"worse: checkout 3.0\"");
    let page = server.get("/").text();
    let strip = page.split("<header").next().unwrap();
    for word in [
        "Last harmful deploy",
        "checkout 3.0",
        "bob: new payment provider",
        " rose from ",
    ] {
        assert!(strip.contains(word), "{word}: {strip}");
    }
    assert!(!page.contains("worse: checkout 3.0"), "{page}");
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

const MINUTE: i64 = 60;

/// The new verdict on the event `id`, when it says `expected`.
fn verdict(server: &Server, id: i64, expected: &str) -> Value {
    let path = format!("/impact?event={id}");
    assert_eq!(server.post(&path, "").status, 202);
    server.wait_until(expected, |server| {
        server.json(&path)["impact"]["verdict"] == expected
    });
    server.json(&path)["impact"].clone()
}

/// Posts a deploy of the checkout and returns its id.
fn deploy(server: &Server, mut event: Value) -> i64 {
    event["tags"] = format!("deploy checkout {}", event["tags"].as_str().unwrap()).into();
    let accept = "Accept: application/json\r\nContent-Type: application/json\r\n";
    let answer = server.http("POST", "/events/", accept, event.to_string().as_bytes());
    let event: Value = serde_json::from_slice(&answer.body).unwrap();
    event["id"].as_i64().unwrap()
}

/// The exit code of `plumbago impact` on the event `id`, and what it prints.
fn impact(server: &Server, id: i64) -> (Option<i32>, String) {
    let url = format!("http://{}", server.address("render.http"));
    let output = run(&["impact", &id.to_string(), "--url", &url]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text)
}

#[test]
fn a_deploy_that_breaks_the_shop_is_worse_and_its_rollback_better() {
    // Opened so long ago that no deploy of its own is near.
    let opened = now() - 55 * MINUTE;
    let mut server = Server::prepared(&[("statsd.flush_interval", "10s")]);
    server.extra.push("--demo".to_owned());
    std::fs::create_dir(server.data()).unwrap();
    std::fs::write(server.data().join("demo"), format!("{opened}\n")).unwrap();
    server.run();

    let broke = now() - 34 * MINUTE;
    let broken = json!({"what": "checkout 9", "tags": "demo:broken", "when": broke});
    let broken = deploy(&server, broken);
    // From now on visitors meet errors: what they send comes through the socket.
    let errors = "/render?format=json&from=-5min&target=maxSeries(stats_counts.shop.errors.503)";
    let sum = |server: &Server| -> f64 {
        let points = server.json(errors)[0]["datapoints"].clone();
        let values = points.as_array().unwrap().iter();
        values.filter_map(|point| point[0].as_f64()).sum()
    };
    let before = sum(&server);
    server.wait_until("errors", |server| sum(server) > before + 10.0);

    // Time passes: what the shop has done since the deploy is generated at the start.
    server.restart();
    let worse = verdict(&server, broken, "worse");
    let first = &worse["series"][0];
    let name = first["name"].as_str().unwrap();
    assert!(
        name.contains("errors") || name.contains("checkout"),
        "{worse}"
    );
    assert_eq!(first["worth"], "worse", "{worse}");
    let sentence = worse["sentence"].as_str().unwrap();
    let page = server.get(&format!("/deploy/{broken}")).text();
    assert!(
        page.contains("checkout 9") && page.contains(name) && page.contains("comparable times"),
        "{page}"
    );
    let (code, text) = impact(&server, broken);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(sentence), "{text}");

    let undone = json!({
        "what": "checkout back to 8", "tags": "rollback", "when": now() - 12 * MINUTE, "rollback_of": broken,
    });
    let undone = deploy(&server, undone);
    server.restart();
    let better = verdict(&server, undone, "better");
    assert_eq!(impact(&server, undone).0, Some(0), "{better}");
    // What it rolled back stays worse, and was worse only until then.
    verdict(&server, broken, "worse");
    server.wait_until("a verdict on what was rolled back", |server| {
        let judged = server.json(&format!("/impact?event={broken}"))["impact"].clone();
        judged["verdict"] == "worse"
            && judged["sentence"]
                .as_str()
                .unwrap()
                .ends_with("then it was rolled back")
    });
}
