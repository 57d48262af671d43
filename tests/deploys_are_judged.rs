//! From points on a socket to the verdict on a deploy: what was changed is found, what was not is not.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::Value;
use support::{Server, now, run};

const MINUTE: i64 = 60;
const DAYS: i64 = 3;

/// Numbers that scatter evenly from 0 to 1, the same in each run.
fn scatter(series: u64, at: i64) -> f64 {
    let mut z = (at as u64 ^ (series << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

/// The series of two services, and others.
fn names() -> Vec<String> {
    let of = |service: &str| -> Vec<String> {
        let stats = [
            "counters.S.errors",
            "counters.S.requests",
            "timers.S.mean",
            "timers.S.upper_90",
            "gauges.S.queue",
        ];
        stats
            .iter()
            .map(|name| format!("stats.{}", name.replace('S', service)))
            .collect()
    };
    let mut names = of("shop");
    names.extend(of("blog"));
    names.extend((0..20).map(|n| format!("servers.db{n}.load")));
    names
}

/// The value of series number `n` at `at` seconds relative to the end, if the deploy of the shop was at `deploy`. It
/// does not depend on the clock: all runs judge the same data.
fn value(n: usize, name: &str, at: i64, deploy: i64) -> f64 {
    let noise = scatter(n as u64, at) + scatter(n as u64 + 1_000, at);
    let season = (at as f64 / 86_400.0 * std::f64::consts::TAU).sin();
    let hurt = at >= deploy
        && matches!(
            name,
            "stats.counters.shop.errors" | "stats.timers.shop.upper_90"
        );
    let level = (100.0 + 20.0 * season) * if hurt { 3.0 } else { 1.0 };
    level + 10.0 * noise
}

/// All points of the last days, oldest first.
fn lines(end: i64, deploy: i64) -> String {
    let names = names();
    let mut lines = String::new();
    let start = end - DAYS * 86_400;
    for at in (start..end).step_by(MINUTE as usize) {
        for (n, name) in names.iter().enumerate() {
            lines += &format!(
                "{name} {:.3} {at}\n",
                value(n, name, at - end, deploy.saturating_sub(end))
            );
        }
    }
    lines
}

/// A server that keeps minutes, with the data of a deploy of the shop at `deploy`.
fn server(end: i64, deploy: i64, settings: &[(&str, &str)]) -> Server {
    let mut server = Server::prepared(&[("carbon.infer_step", "false"), ("stats.self", "false")]);
    let schemas = server.dir.path().join("schemas.conf");
    std::fs::write(&schemas, "[all]\npattern = .*\nretentions = 60s:8d\n").unwrap();
    let schemas = schemas.display().to_string();
    server.settings.insert("carbon.schemas".to_owned(), schemas);
    for (key, value) in settings {
        server
            .settings
            .insert((*key).to_owned(), (*value).to_owned());
    }
    server.run();
    server.lines(lines(end, deploy));
    let sent = names().len() as i64 * DAYS * 1_440;
    server.wait_until("points", |server| {
        let metrics = server.get("/metrics").text();
        let mut lines = metrics.lines();
        let received = lines.find_map(|line| line.strip_prefix("plumbago_carbon_metrics_received"));
        let received =
            received.and_then(|line| line.split_whitespace().last()?.parse::<f64>().ok());
        received.is_some_and(|received| received as i64 >= sent)
    });
    server
}

fn post(server: &Server, what: &str, tags: &str, when: i64) -> i64 {
    let body = format!(r#"{{"what": "{what}", "tags": "{tags}", "when": {when}}}"#);
    let accept = "Accept: application/json\r\nContent-Type: application/json\r\n";
    let answer = server.http("POST", "/events/", accept, body.as_bytes());
    let event: Value = serde_json::from_slice(&answer.body).unwrap();
    event["id"].as_i64().unwrap()
}

fn verdict(server: &Server, id: i64) -> Value {
    let path = format!("/impact?event={id}");
    server.wait_until("verdict", |server| server.json(&path)["impact"].is_object());
    server.json(&path)["impact"].clone()
}

/// The exit code of a verb against the server, and what it prints.
fn verb(server: &Server, arguments: &[&str]) -> (i32, String) {
    let url = format!("http://{}", server.address("render.http"));
    let output = run(&[arguments, &["--url", &url]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code().unwrap(), text)
}

/// Takes one request and returns its body.
fn receive(listener: TcpListener) -> String {
    let (stream, _) = listener.accept().unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (&stream)
        .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        .unwrap();
    String::from_utf8(body).unwrap()
}

#[test]
fn a_deploy_that_made_something_worse_is_told_from_one_that_did_not() {
    let hook = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", hook.local_addr().unwrap());
    let hooked = std::thread::spawn(move || receive(hook));

    let end = now() / MINUTE * MINUTE;
    let deploy = end - 40 * MINUTE;
    let mut server = server(end, deploy, &[("impact.webhook", &url)]);
    let blog = post(&server, "blog 7", "deploy service:blog", end - 100 * MINUTE);
    let shop = post(&server, "shop 2", "deploy service:shop", deploy);

    two_series_of_five_are_worse(&verdict(&server, shop));
    let quiet = verdict(&server, blog);
    assert_eq!(quiet["verdict"], "unchanged", "{quiet}");
    assert_eq!(quiet["complete"], true);
    assert!(quiet["visible"].as_f64().unwrap() < 1.0, "{quiet}");

    let body: Value = serde_json::from_str(&hooked.join().unwrap()).unwrap();
    people_and_programs_see_it(&server, shop, &body);
    pages_have_it(&server, shop);
    the_change_leads_back_to_the_deploy(&server, end, deploy);
    the_line_has_its_symbol(&server);
    it_is_said_how_reliable_that_is(&server);
    exit_codes_say_it(&server, shop, blog);
    a_correction_and_the_verdict_survive_a_restart(&mut server, shop);
}

/// The verdict on the deploy of the shop.
fn two_series_of_five_are_worse(worse: &Value) {
    assert_eq!(worse["verdict"], "worse", "{worse}");
    assert_eq!(worse["complete"], false);
    assert_eq!(
        (&worse["tested"], &worse["changed"]),
        (&Value::from(5), &Value::from(2)),
        "{worse}"
    );
    assert_eq!(worse["controls"], 25);
    let series = worse["series"].as_array().unwrap();
    for one in series {
        let name = one["name"].as_str().unwrap();
        assert!(
            name.contains("errors") || name.contains("upper_90"),
            "{one}"
        );
        assert_eq!(
            (&one["worth"], &one["state"]),
            (&"worse".into(), &"lasting".into()),
            "{one}"
        );
        let (before, after) = (
            one["before"].as_f64().unwrap(),
            one["after"].as_f64().unwrap(),
        );
        assert!((2.5..3.2).contains(&(after / before)), "{one}");
    }
}

/// `body` is what the webhook got about the deploy `shop`.
fn people_and_programs_see_it(server: &Server, shop: i64, body: &Value) {
    assert_eq!(body["event"]["id"], shop);
    assert!(
        body["text"]
            .as_str()
            .unwrap()
            .starts_with("worse: shop 2: "),
        "{body}"
    );
    server.wait_until("event about it", |server| {
        let found = server.json("/events/get_data?tags=impact");
        found[0]["what"] == "worse: shop 2"
    });
    let meta = server.json(
        "/render?target=stats.counters.shop.errors&from=-2h&format=json&meta=1&events=deploy",
    );
    let events = meta["events"].as_array().unwrap();
    assert!(
        events
            .iter()
            .any(|event| event["impact"]["verdict"] == "worse"),
        "{meta}"
    );
    // Graphite's own request has Graphite's keys, unless verdicts are asked for.
    let judged = |path: &str| {
        let events = server.json(path);
        let events = events.as_array().unwrap();
        assert!(!events.is_empty());
        events.iter().any(|event| event["impact"].is_object())
    };
    assert!(!judged("/events/get_data?tags=deploy"));
    assert!(judged("/events/get_data?tags=deploy&meta=1"));
    let svg = server
        .get("/render?target=stats.counters.shop.errors&from=-2h&format=svg&events=deploy")
        .text();
    assert!(
        svg.contains("worse: ") && svg.contains("comparable times"),
        "{svg}"
    );
    let list = server.get("/events/").text();
    assert!(list.contains("nothing changed among 5 series"), "{list}");
}

/// The deploy's page, its picture for chats, and the list of all.
fn pages_have_it(server: &Server, shop: i64) {
    let page = server.get(&format!("/deploy/{shop}"));
    let text = page.text();
    assert_eq!(page.status, 200);
    assert!(
        text.contains("shop 2") && text.contains("comparable times"),
        "{text}"
    );
    assert!(
        text.contains("5 series judged, 3 of them without a change"),
        "{text}"
    );
    let picture = server.get(&format!("/deploy/{shop}.png"));
    assert_eq!(picture.status, 307, "{}", picture.head);
    let place = picture.head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .starts_with("location: ")
            .then(|| line[10..].to_owned())
    });
    let drawn = server.get(place.unwrap().trim());
    assert_eq!((drawn.status, &drawn.body[1..4]), (200, &b"PNG"[..]));
    assert_eq!(server.get("/deploy/999").status, 404);
    assert_eq!(server.get("/deploy/x.png").status, 404);
    let changes = server.get("/changes?by=size").text();
    let place = |text: &str| changes.find(text).unwrap_or(usize::MAX);
    assert!(place(">shop 2<") < place(">blog 7<"), "{changes}");
}

/// The reverse question, for people and for programs.
fn the_change_leads_back_to_the_deploy(server: &Server, end: i64, deploy: i64) {
    let asked = format!(
        "/changes?target=stats.timers.shop.upper_90&at={}",
        deploy + 300
    );
    let happened = server.get(&asked).text();
    let answer = happened
        .find("changed most at")
        .map(|at| &happened[at..])
        .unwrap();
    let answer = &answer[..answer.find("from ").unwrap_or(answer.len())];
    assert!(
        answer.contains("shop 2") && !answer.contains("blog 7"),
        "{answer}"
    );
    assert!(
        server
            .get("/changes?target=none&at=-1h")
            .text()
            .contains("No series of ")
    );
    // The same of a whole graph, for programs: the series that changed most, and the deploy that explains it.
    let asked = |at: i64| {
        let target = "alias(sumSeries(stats.timers.*.*),%20'x')&target=servers.*.load";
        server.json(&format!("/impact/happened?target={target}&at={at}"))["happened"].clone()
    };
    let there = asked(deploy + 300);
    assert_eq!(there["series"], "stats.timers.shop.upper_90", "{there}");
    assert_eq!(
        (&there["rare"], &there["looked_at"]),
        (&true.into(), &24.into()),
        "{there}"
    );
    assert_eq!(there["deploys"][0]["what"], "shop 2", "{there}");
    let elsewhere = asked(end - 300 * MINUTE);
    let none = elsewhere["deploys"].as_array().is_none_or(Vec::is_empty);
    assert!(none, "{elsewhere}");
    assert_eq!(server.get("/impact/happened?at=-1h").status, 400);
    let refused = server.get("/impact/happened?target=)(");
    assert_eq!(refused.status, 400);
    assert!(
        refused.text().contains("does not begin a path"),
        "{}",
        refused.text()
    );
    let page = server.get("/changes?target=)(&at=-1h").text();
    assert!(page.contains("does not begin a path"), "{page}");
}

fn the_line_has_its_symbol(server: &Server) {
    let drawn = server
        .json("/render?target=stats.counters.shop.errors&from=-2h&format=graph&events=deploy");
    let shown = drawn["shown"].as_array().unwrap();
    let marked = shown.iter().filter(|one| one["verdict"] == "worse");
    assert_eq!(marked.count(), 1, "{drawn}");
}

fn it_is_said_how_reliable_that_is(server: &Server) {
    let read = || {
        let page = server.http("GET", "/impact/calibration", "Accept: text/html\r\n", b"");
        page.text()
    };
    assert!(read().contains("How reliable are the verdicts?"));
    server.wait_until("calibration", |_| {
        read().contains("deploys that never happened were accused")
    });
    assert!(
        read().contains("5 series were tested for each"),
        "{}",
        read()
    );
    let figures = server.json("/stats/deploys?from=-1d");
    assert_eq!(
        (
            &figures["all"]["deploys"],
            &figures["groups"]["service:shop"]["worse"]
        ),
        (&2.into(), &1.0.into()),
        "{figures}"
    );
}

fn exit_codes_say_it(server: &Server, shop: i64, blog: i64) {
    assert_eq!(verb(server, &["impact", &shop.to_string()]).0, 1);
    assert_eq!(
        verb(server, &["check", "--since-deploy", "deploy service:shop"]).0,
        1
    );
    let (code, text) = verb(server, &["impact", &blog.to_string()]);
    assert_eq!(code, 0);
    assert!(text.contains("nothing changed among 5 series"), "{text}");
    assert_eq!(
        verb(server, &["check", "--since-deploy", "deploy service:none"]).0,
        3
    );
    // A deploy of this very second is found, and has no verdict yet.
    let posted = verb(
        server,
        &["event", "post", "other 4", "--tag", "deploy service:other"],
    );
    assert_eq!(posted.0, 0);
    let (code, text) = verb(server, &["check", "--since-deploy", "deploy service:other"]);
    assert_eq!(code, 3);
    assert!(text.contains("other 4"), "{text}");
    let early = post(server, "shop 3", "deploy service:shop", now());
    assert_eq!(verb(server, &["impact", &early.to_string()]).0, 3);
    let (code, json) = verb(server, &["impact", &shop.to_string(), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, &json["impact"]["verdict"]),
        (1, &Value::from("worse"))
    );
}

/// A person disagrees, the server starts again: both stay.
fn a_correction_and_the_verdict_survive_a_restart(server: &mut Server, shop: i64) {
    let path = format!("/impact?event={shop}&correction=expected");
    assert_eq!(server.post(&path, "").status, 200);
    assert_eq!(
        server
            .post(&format!("/impact?event={shop}&correction=maybe"), "")
            .status,
        400
    );
    assert_eq!(
        server.post("/impact?event=999&correction=right", "").status,
        404
    );
    assert_eq!(server.get("/impact?event=x").status, 400);
    server.restart();
    let kept = verdict(server, shop);
    assert_eq!(
        (&kept["verdict"], &kept["correction"]),
        (&"worse".into(), &"expected".into())
    );
    let metrics = server.get("/metrics").text();
    assert!(
        metrics.contains("plumbago_impact_failed_total 0"),
        "{metrics}"
    );
}

#[test]
fn late_data_counts_when_the_verdict_is_asked_for_again() {
    let end = now() / MINUTE * MINUTE;
    let deploy = end - 90 * MINUTE;
    // Before the late data: the world in which nothing happened.
    let server = server(end, i64::MAX, &[]);
    let id = post(&server, "shop 2", "deploy service:shop", deploy);
    assert_eq!(verdict(&server, id)["verdict"], "unchanged");
    let mut late = String::new();
    for at in (deploy..end).step_by(MINUTE as usize) {
        late += &format!("stats.counters.shop.errors 900 {at}\n");
    }
    server.lines(late);
    server.wait_until("late data", |server| {
        let path = "/render?target=stats.counters.shop.errors&from=-10min&format=json";
        server.json(path)[0]["datapoints"][2][0] == 900.0
    });
    let asked = server.post(&format!("/impact?event={id}"), "");
    assert_eq!(asked.status, 202, "{}", asked.text());
    let path = format!("/impact?event={id}");
    server.wait_until("new verdict", |server| {
        server.json(&path)["impact"]["verdict"] == "worse"
    });
}
