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

/// A server with two graphs.
fn with_a_graph() -> Server {
    let server = Server::with(&[("carbon.infer_step", "false")]);
    let now = support::now();
    let mut lines = String::new();
    for name in ["logins", "checkouts"] {
        for n in 0..60 {
            let (value, at) = (n % 7, now - n * 10);
            lines +=
                &format!("stats_counts.shop.{name} {value} {at}\nstats.shop.{name} {value} {at}\n");
        }
    }
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
    assert!(server.stop().success());
    // The server ended the stream: it did not wait for it in vain.
    let log = server.log();
    assert!(
        log.contains("stopped") && !log.contains("still open"),
        "{log}"
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

#[test]
fn the_explorer_finds_names_edits_targets_and_shows_errors() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = with_a_graph();
    let now = support::now();
    server.lines(format!(
        "hosts.web1.load 3 {now}\nhosts.web2.load 4 {now}\n"
    ));
    server.wait_until("names", |server| {
        server
            .json("/metrics/find?query=hosts.*")
            .as_array()
            .is_some_and(|all| all.len() == 2)
    });
    browser.open(&at(&server, "/explore"));
    browser.wait("document.querySelector('[data-branch=hosts]')");
    browser.click("[data-branch=hosts]");
    browser.wait("document.querySelector('[data-branch=\"hosts.web1\"]')");
    browser.click("#q");
    browser.type_text("web2 load");
    browser.wait("document.querySelectorAll('#names [data-name]').length === 1 && document.querySelector('#hits').textContent.startsWith('1 of')");
    browser.click("#names [data-name]");
    browser.wait("document.querySelector('.explore .picture > svg') && location.search.includes('target=hosts.web2.load')");

    // The editor completes functions and names, and points at what is wrong.
    browser.eval(
        "(() => { const box = document.querySelector('#target'); box.value = ''; box.focus() })()",
    );
    browser.type_text("sumSe");
    browser.wait("document.querySelector('#completions li')?.dataset.insert === 'sumSeries('");
    browser.key("Tab");
    browser.type_text("hosts.web1");
    browser.wait("[...document.querySelectorAll('#completions li')].some((entry) => entry.dataset.insert === 'hosts.web1.load')");
    browser.wait("document.querySelector('#signature').textContent.startsWith('sumSeries(')");
    browser.key("Tab");
    browser.wait("document.querySelector('#refused').hidden === false");
    let refused = browser.text("document.querySelector('#refused').textContent");
    assert!(
        refused.starts_with("sumSeries(hosts.web1.load\n") && refused.contains('^'),
        "{refused}"
    );
    browser.type_text(")");
    browser.wait("document.querySelector('#refused').hidden && document.querySelector('.legend span')?.textContent === 'sumSeries(hosts.web1.load)'");
    assert_eq!(
        browser.complaints().len(),
        1,
        "the refused target is one failed request"
    );
}

#[test]
fn events_are_posted_edited_rolled_back_and_deleted_on_their_page() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = with_a_graph();
    browser.open(&at(&server, "/events/"));
    browser.wait("document.querySelector('.has-script')");
    browser.click(".post summary");
    browser.click("#post [name=what]");
    browser.type_text("web <i>1.4.2</i>");
    browser.click("#post button");
    browser
        .wait("document.querySelector('.events li .what a')?.textContent === 'web <i>1.4.2</i>'");
    let shown = browser.text("document.querySelector('.events li').innerText");
    assert!(!shown.contains("succeeded"), "no status was given: {shown}");

    browser.eval("window.prompt = () => 'web 1.4.1'");
    browser.click("[data-act=rollback]");
    browser.wait("document.querySelectorAll('.events li').length === 2");
    browser.wait("document.querySelector('.events li:last-child .badge.rolled_back')");
    let cure = browser.text("document.querySelector('.events li').innerText");
    assert!(
        cure.contains("web 1.4.1") && cure.contains("rollback"),
        "{cure}"
    );

    browser.click(".events li [data-act=edit]");
    browser.wait("document.querySelector('#post [name=what]').value === 'web 1.4.1'");
    browser.click("#post [name=data]");
    browser.type_text("ann: back");
    browser.click("#post button");
    browser.wait("document.querySelector('.events li .data')?.textContent === 'ann: back'");

    browser.eval("window.confirm = () => true");
    browser.click(".events li [data-act=delete]");
    browser.wait("document.querySelectorAll('.events li').length === 1");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn without_scripts_there_are_pictures_and_with_hostile_names_only_text() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = with_a_graph();
    let hostile =
        "<script>document.title='owned'</script><img src=x onerror=document.title='owned'>";
    let now = support::now();
    let event = serde_json::json!({"what": hostile, "tags": ["deploy", "<b>x</b>"], "data": hostile, "link": "javascript:alert(1)", "status": "failed", "when": now - 60});
    let posted = server.post("/events/", &event.to_string());
    let refused = posted.status == 400;
    let event = serde_json::json!({"what": hostile, "tags": ["deploy", "<b>x</b>"], "data": hostile, "status": "failed", "when": now - 60});
    assert!(refused && server.post("/events/", &event.to_string()).status == 200);
    for path in [
        "/",
        "/events/",
        "/events/1/",
        "/explore?target=alias(stats.shop.logins,'<img src=x onerror=alert(1)>')&q=<script>",
    ] {
        browser.open(&at(&server, path));
        browser.wait("document.querySelector('.has-script')");
        browser.wait("document.querySelector('.strip .deploy')");
        assert_eq!(
            browser.eval(
                "document.querySelectorAll('main script, main img:not(noscript img)').length"
            ),
            0,
            "{path}"
        );
        assert!(
            browser.text("document.title").ends_with("· plumbago"),
            "{path}"
        );
    }
    assert_eq!(browser.complaints(), [""; 0]);

    browser.scripts(false);
    for path in ["/", "/explore?target=stats.shop.logins"] {
        browser.open(&at(&server, path));
        browser.wait("[...document.images].some((image) => image.naturalWidth > 100)");
    }
    assert!(
        browser
            .text("document.querySelector('.strip').innerText")
            .contains("Last deploy")
    );
}

#[test]
fn an_accessibility_checker_finds_nothing_serious() {
    let Some(axe) = std::env::var_os("PLUMBAGO_AXE") else {
        eprintln!("skipped: PLUMBAGO_AXE does not name axe-core's axe.min.js");
        return;
    };
    let Some(browser) = Browser::start() else {
        return;
    };
    let axe = std::fs::read_to_string(axe).unwrap();
    let server = with_a_graph();
    for status in ["failed", "started", "succeeded", "rolled_back"] {
        let event = format!(
            r#"{{"what": "web 2", "tags": "deploy web", "data": "ann: x", "status": "{status}", "when": {}}}"#,
            support::now() - 100
        );
        assert_eq!(server.post("/events/", &event).status, 200);
    }
    for dark in [false, true] {
        browser.prefer_dark(dark);
        for path in [
            "/",
            "/explore?target=stats.shop.logins&q=shop",
            "/events/",
            "/events/1/",
            "/deploy/1",
            "/changes",
            "/impact/calibration",
            "/start",
            "/dashboards/none",
        ] {
            browser.open(&at(&server, path));
            browser.wait("document.querySelector('.has-script')");
            if path.len() < 2 || path.starts_with("/explore") {
                browser.wait("document.querySelector('.picture > svg') && document.querySelector('.legend li')");
            }
            browser.call("Page.setBypassCSP", serde_json::json!({"enabled": true}));
            browser.eval(&format!("{axe}; 1"));
            let found = browser.text(
                "axe.run().then((run) => run.violations.filter((one) => ['serious', 'critical'].includes(one.impact)) \
                 .map((one) => `${one.id}: ${one.nodes[0].html}`).join('\\n'))",
            );
            assert_eq!(found, "", "{path}, dark: {dark}");
        }
    }
}

#[test]
fn a_graph_has_a_short_address_that_chats_unfurl() {
    let server = with_a_graph();
    let event = format!(
        r#"{{"what": "web 2.0", "tags": "deploy web", "when": {}}}"#,
        support::now() - 300
    );
    assert_eq!(server.post("/events/", &event).status, 200);
    let picture = server.get("/graph/stats.shop.logins.png");
    assert_eq!(picture.status, 200);
    assert!(picture.body.starts_with(b"\x89PNG"));
    let head = picture.head.to_ascii_lowercase();
    assert!(head.contains("cache-control: max-age=30\r\n"), "{head}");
    assert!(!head.contains("no-cache"), "{head}");
    let text = server.get("/graph/scale(stats.shop.logins,2).txt").text();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    assert!(
        first.starts_with("scale(stats.shop.logins,2): last ") && first.contains("max 12"),
        "{text}"
    );
    let second = lines.next().unwrap_or_default();
    assert!(
        second.starts_with("  since web 2.0 (5 min ago): ") && second.contains("before"),
        "{text}"
    );
    let fresh = format!(
        r#"{{"what": "web 2.1", "tags": "deploy web", "when": {}}}"#,
        support::now() - 20
    );
    assert_eq!(server.post("/events/", &fresh).status, 200);
    let text = server.get("/graph/stats.shop.logins.txt").text();
    assert!(
        text.contains("  since web 2.1 (2") && text.contains(" s ago): "),
        "{text}"
    );
    for (path, status) in [
        ("/graph/stats.shop.logins.gif", 404),
        ("/graph/.png", 404),
        ("/graph/sumSeries(.txt", 400),
    ] {
        assert_eq!(server.get(path).status, status, "{path}");
    }
    let page = server
        .get("/explore?target=stats.shop.logins&from=-2h")
        .text();
    let address = server.address("render.http");
    let image = format!(
        "<meta property=\"og:image\" content=\"http://{address}/graph/stats.shop.logins.png?from=-2h\">"
    );
    assert!(page.contains(&image), "{image}");
}

#[test]
fn a_dashboard_is_read_again_when_its_file_changes_and_shows_its_errors() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = with_a_graph();
    let dashboards = server.data().join("dashboards");
    std::fs::create_dir_all(&dashboards).unwrap();
    let text = r#"
title = "Shop"
[[variables]]
name = "what"
values = "stats.shop.*"
default = "logins"
[[panels]]
title = "Now $what ({max:0})"
targets = ["stats.shop.$what"]
unit = "/s"
good = "down"
warn = 1
compare = "1h"
"#;
    std::fs::write(dashboards.join("shop.toml"), text).unwrap();
    server.wait_until("the dashboard", |server| {
        server.get("/dashboards/shop").status == 200
    });
    browser.open(&at(&server, "/dashboards/shop?var-what=checkouts"));
    browser.wait("document.querySelector('figure h2').textContent === 'Now checkouts (6)'");
    browser.wait("document.querySelectorAll('.legend li').length >= 1");
    let values = browser.text(
        "[...document.querySelectorAll('select option')].map((one) => one.textContent).join()",
    );
    assert_eq!(values, "checkouts,logins");
    // The open page follows the file.
    let wrong = text.replace("stats.shop.$what\"", "skale(stats.shop.$what)\"");
    std::fs::write(dashboards.join("shop.toml"), wrong).unwrap();
    browser.wait("document.querySelector('main > .problem')?.textContent.includes('unknown function: skale')");
    let problem = browser.text("document.querySelector('main > .problem').textContent");
    assert!(problem.contains("shop.toml:9: panels.targets"), "{problem}");
    std::fs::write(dashboards.join("shop.toml"), "title = \n").unwrap();
    browser.wait("document.querySelector('h1').textContent === 'This dashboard has an error'");
    std::fs::write(dashboards.join("shop.toml"), text).unwrap();
    browser.wait("document.querySelector('h1').textContent === 'Shop'");
}
