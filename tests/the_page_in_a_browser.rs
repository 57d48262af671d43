//! The page in a real browser: what people see and do there.

mod support;

#[path = "support/browser.rs"]
mod browser;

use std::time::{Duration, Instant};

use browser::Browser;
use rustix::process::Signal;
use support::Server;

/// The base of all URLs of a server.
fn at(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address("render.http"))
}

/// A server with one graph.
fn with_a_graph() -> Server {
    let server = Server::with(&[("carbon.infer_step", "false")]);
    let now = support::now();
    let lines: String = (0..60)
        .map(|n| {
            format!(
                "stats_counts.shop.logins {} {}\nstats.shop.logins {} {}\n",
                n % 7,
                now - n * 10,
                n % 7,
                now - n * 10
            )
        })
        .collect();
    server.lines(lines);
    server.wait_until("graphs", |server| {
        server.json("/received")["graphs"] == true
    });
    server
}

#[test]
fn a_stopped_server_is_unmistakable_and_a_resumed_one_is_well_again() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = with_a_graph();
    browser.open(&at(&server, "/"));
    browser.wait("/^Last data \\d+ s ago|^Last data just now/.test(document.querySelector('[data-data]').textContent)");
    assert_eq!(
        browser.eval("document.querySelector('#stale').hidden"),
        true
    );

    server.signal(Signal::STOP);
    let stopped = Instant::now();
    browser.wait_within(
        Duration::from_secs(15),
        "!document.querySelector('#stale').hidden && document.body.classList.contains('is-stale')",
    );
    assert!(
        stopped.elapsed() > Duration::from_secs(5),
        "it cries at once"
    );
    let banner = browser.text("document.querySelector('#stale').textContent");
    assert!(banner.starts_with("The server does not answer"), "{banner}");

    server.signal(Signal::CONT);
    browser.wait("document.querySelector('#stale').hidden");
    assert_eq!(
        browser.eval("document.body.classList.contains('is-stale')"),
        false
    );
}

#[test]
fn a_new_event_is_on_the_page_within_a_second_and_ages_are_true() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = with_a_graph();
    browser.open(&at(&server, "/"));
    browser.wait("/^Last data/.test(document.querySelector('[data-data]').textContent)");
    assert!(
        browser
            .text("document.querySelector('.strip').innerText")
            .contains("No deploys yet")
    );

    let posted = server.post(
        "/events/",
        r#"{"what": "web 1.4.2", "tags": "deploy web", "data": "ann: footer", "status": "failed"}"#,
    );
    assert_eq!(posted.status, 200);
    browser.wait_within(
        Duration::from_secs(1),
        "document.querySelector('.strip .deploy')",
    );
    let strip = browser.text("document.querySelector('.strip').innerText");
    for word in ["Last deploy", "web 1.4.2", "failed", "ann: footer"] {
        assert!(strip.contains(word), "{word}: {strip}");
    }
    assert_eq!(
        browser.eval("document.querySelectorAll('.events li').length"),
        1
    );
    // Ages go on without a reload.
    browser.wait("document.querySelector('.events time').textContent === '3 s ago'");
    assert_eq!(
        browser.complaints(),
        [""; 0],
        "errors or violations of the policy"
    );
}

#[test]
fn live_updates_are_bounded_and_end_with_the_server() {
    let mut server = Server::start();
    let state = server.json("/page/live?once=1");
    assert_eq!(state["data"], serde_json::Value::Null);
    let streams: Vec<_> = (0..200).map(|_| server.stream("/page/live")).collect();
    let refused = server.get("/page/live");
    assert_eq!(refused.status, 503, "{}", refused.text());
    let metrics = server.get("/metrics").text();
    assert!(
        metrics.contains("plumbago_page_live_refused_total 1\n"),
        "{metrics}"
    );
    assert!(metrics.contains("plumbago_page_live 200\n"));
    drop(streams);
    server.wait_until("room again", |server| {
        let metrics = server.get("/metrics").text();
        metrics.contains("plumbago_page_live 0\n")
    });
    let _open = server.stream("/page/live");
    let began = Instant::now();
    assert!(server.stop().success());
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
}

/// The middle of the plot of the first graph, and its width.
fn plot(browser: &Browser) -> (f64, f64, f64) {
    let (_, y) = browser.place(".picture");
    let (left, width) = browser.across(".picture .major");
    (left + width / 2.0, y, width)
}

#[test]
fn graphs_answer_the_pointer() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = with_a_graph();
    let event = r#"{"what": "web 2.0", "tags": "deploy web", "data": "ann: <b>new</b> front page", "when": "-25min", "status": "failed", "duration": 60}"#;
    let event = event.replace("\"-25min\"", &(support::now() - 1500).to_string());
    assert_eq!(server.post("/events/", &event).status, 200);
    let note = format!(
        r#"{{"what": "a note", "tags": "note", "when": {}}}"#,
        support::now() - 60
    );
    assert_eq!(server.post("/events/", &note).status, 200);
    browser.open(&at(&server, "/?from=-50min"));
    browser.wait("document.querySelectorAll('.picture .event').length >= 2 && document.querySelector('#tags input')");
    let n_graphs = browser.eval("document.querySelectorAll('.picture > svg').length");
    assert!(n_graphs.as_u64() > Some(1));

    // The crosshair is on all graphs, with the values in the legend and the time below.
    let (middle, y, width) = plot(&browser);
    let newest = browser.text("document.querySelector('.legend b').textContent");
    browser.mouse("mouseMoved", (middle + width * 0.33, y));
    browser.wait(
        "[...document.querySelectorAll('.cross-hair')].every((line) => line.style.display === '')",
    );
    browser.wait("/UTC$/.test(document.querySelector('.clock').textContent)");
    // The card of the deploy in the middle: what, who, when, how it went.
    browser.mouse("mouseMoved", (middle, y));
    browser.wait("!document.querySelector('#card').hidden");
    let card = browser.text("document.querySelector('#card').innerText");
    for word in [
        "web 2.0",
        "failed",
        "ann: <b>new</b> front page",
        "took 60 s",
        "before",
    ] {
        assert!(card.contains(word), "{word}: {card}");
    }
    browser.mouse("mouseMoved", (5.0, 5.0));
    browser
        .wait("document.querySelector('#card').hidden && document.querySelector('.clock').hidden");
    assert_eq!(
        browser.text("document.querySelector('.legend b').textContent"),
        newest
    );

    // A tag is hidden, and comes back.
    let lines = "document.querySelector('.picture').querySelectorAll('.event').length";
    assert_eq!(browser.eval(lines), 2);
    browser.click("#tags input[name=note]");
    browser.wait(&format!(
        "{lines} === 1 && location.search.includes('hide=note')"
    ));
    browser.click("#tags input[name=note]");
    browser.wait(&format!("{lines} === 2"));

    // A drag zooms all graphs; the browser's "back" leads back.
    browser.drag((middle - width * 0.1, y), (middle + width * 0.1, y));
    browser.wait(
        "/from=\\d+&until=\\d+/.test(location.search) && !document.querySelector('#zoomed').hidden",
    );
    browser.wait("document.querySelectorAll('.picture > svg').length > 1");
    let span = browser.eval("(() => { const q = new URLSearchParams(location.search); return q.get('until') - q.get('from') })()");
    assert!((570.0..640.0).contains(&span.as_f64().unwrap()), "{span}");
    browser.click("#zoomed button");
    browser.wait("location.search === '?from=-50min' && document.querySelector('#zoomed').hidden");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn a_tap_is_as_good_as_a_pointer_and_a_phone_shows_it_all() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = with_a_graph();
    let event = format!(
        r#"{{"what": "web 2.0", "tags": "deploy web", "when": {}}}"#,
        support::now() - 1500
    );
    assert_eq!(server.post("/events/", &event).status, 200);
    browser.phone();
    browser.open(&at(&server, "/?from=-50min"));
    browser.wait("document.querySelector('.picture .event')");
    let (middle, y, _) = plot(&browser);
    browser.tap((middle, y));
    browser.wait("!document.querySelector('#card').hidden");
    assert!(
        browser
            .text("document.querySelector('#card').innerText")
            .contains("web 2.0")
    );
    // Nothing is wider than the screen, and no letter on a graph smaller than 11 pixels.
    assert_eq!(browser.eval("document.documentElement.scrollWidth"), 390);
    let scaled = "(() => { const svg = document.querySelector('.picture > svg'); \
        return svg.getBoundingClientRect().width / svg.viewBox.baseVal.width })()";
    assert!(browser.eval(scaled).as_f64().unwrap() > 0.99);
    let smallest = "Math.min(...[...document.querySelectorAll('svg text')].map((t) => parseFloat(getComputedStyle(t).fontSize)))";
    assert!(browser.eval(smallest).as_f64().unwrap() >= 11.0);
}
