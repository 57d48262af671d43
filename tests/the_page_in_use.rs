//! The page in a real browser: what people rely on while they look at it.

mod support;

#[path = "support/browser.rs"]
mod browser;

use browser::Browser;
use serde_json::json;
use support::Server;

/// The base of all URLs of a server.
fn at(server: &Server, path: &str) -> String {
    format!("http://{}{path}", server.address("render.http"))
}

/// The lines of a series with a value every ten seconds of the last ten minutes.
fn series(name: &str, value: impl Fn(i64) -> f64) -> String {
    let now = support::now();
    (0..60)
        .map(|n| format!("{name} {} {}\n", value(n), now - n * 10))
        .collect()
}

/// A server with the series of a small shop and of some machines.
fn shop() -> Server {
    let server = Server::with(&[("carbon.infer_step", "false")]);
    let mut lines = String::new();
    for name in ["logins", "pages", "errors.500", "errors.503"] {
        let by = if name.starts_with("errors") {
            0.1
        } else {
            10.0
        };
        let value = move |n: i64| by * (n % 7 + 1) as f64;
        lines += &series(&format!("stats.shop.{name}"), value);
        lines += &series(&format!("stats_counts.shop.{name}"), value);
    }
    for (service, errors) in [("web", 1.0), ("search", 20.0)] {
        for prefix in ["stats", "stats_counts"] {
            lines += &series(&format!("{prefix}.shop.{service}.requests"), |_| 100.0);
            lines += &series(&format!("{prefix}.shop.{service}.500"), |_| errors);
        }
    }
    for host in ["web1", "web2"] {
        lines += &series(&format!("collectd.{host}.load.load.shortterm"), |n| {
            // One value of the first host is absurd.
            if host == "web1" && n == 30 {
                1e300
            } else {
                (n % 5) as f64
            }
        });
        let states = [("idle", 180.0), ("user", 20.0), ("system", 0.0)];
        for (state, value) in states {
            lines += &series(&format!("servers.{host}.cpu.total.{state}"), |_| value);
        }
        lines += &series(&format!("collectd.{host}.memory.memory-used"), |_| {
            2.5 * 1024.0 * 1024.0 * 1024.0
        });
    }
    server.lines(lines);
    server.wait_until("the series", |server| {
        let found = server.json("/metrics/find?query=collectd.*");
        server.json("/received")["graphs"] == true
            && found.as_array().is_some_and(|all| all.len() == 2)
    });
    server
}

fn post(server: &Server, event: &serde_json::Value) {
    let posted = server.post("/events/", &event.to_string());
    assert_eq!(posted.status, 200, "{}", posted.text());
}

/// The panel with this heading, as an expression.
fn panel(heading: &str) -> String {
    format!(
        "[...document.querySelectorAll('figure')].find((one) => one.querySelector('h2').textContent.startsWith('{heading}'))"
    )
}

#[test]
fn a_click_on_a_legend_isolates_a_series_and_the_keyboard_does_it_too() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    browser.open(&at(&server, "/"));
    let errors = panel("HTTP errors by status");
    let lines = format!("{errors}.querySelectorAll('.area').length");
    browser.wait(&format!("{lines} === 4"));
    browser.eval(&format!("{errors}.id = 'errors'"));
    browser.click("#errors .legend li:nth-child(2) button");
    browser.wait(&format!("{lines} === 1"));
    assert_eq!(
        browser.text("document.querySelector('#errors [aria-pressed=true] span').textContent"),
        browser.text("document.querySelectorAll('#errors .legend span')[1].textContent")
    );
    browser.click("#errors .legend li:nth-child(2) button");
    browser.wait(&format!("{lines} === 4"));
    browser.eval("document.querySelector('#errors .legend button').focus()");
    browser.key("Enter");
    browser.wait(&format!("{lines} === 1"));
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn what_the_server_refuses_is_said_and_the_graphs_are_drawn() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    browser.open(&at(&server, "/?from=bogus&tz=Mars&theme=dark"));
    browser.wait("document.querySelectorAll('.picture > svg').length > 2");
    assert_eq!(
        browser.eval("document.querySelectorAll('main > .problem').length"),
        2
    );
    assert_eq!(browser.text("location.search"), "?theme=dark");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn one_absurd_value_does_not_flatten_a_built_in_panel() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    browser.open(&at(&server, "/dashboards/hosts"));
    let load = panel("Load, 1 minute: ten highest");
    browser.wait(&format!("{load}?.querySelector('.beyond path')"));
    let sentence = browser.text(&format!("{load}.querySelector('.beyond text').textContent"));
    assert_eq!(sentence, "1 value of 1e+300 is beyond the axis");
    let high = browser.eval(&format!("{load}.graph.axes[0].high"));
    assert!(high.as_f64().unwrap() <= 5.0, "{high}");
    // A panel has one unit, and the same prefixes on its axis and in its legend.
    let memory = panel("Memory in use");
    browser.wait(&format!("{memory}?.querySelector('.legend b')"));
    let value = browser.text(&format!("{memory}.querySelector('.legend b').textContent"));
    assert_eq!(value, "2.5 GiB");
    // Diamond's hundredths of all processors are a share of their sum.
    let processor = panel("Processor in use: ten busiest (Diamond)");
    browser.wait(&format!("{processor}?.querySelector('.legend b')"));
    let legend = browser.text(&format!("{processor}.querySelector('.legend').innerText"));
    assert_eq!(legend.matches("10 %").count(), 2, "{legend}");
    assert!(
        legend.contains("web1") && legend.contains("web2"),
        "{legend}"
    );
    let names = "[...document.querySelectorAll('figure')].filter((figure) => { \
        const names = [...figure.querySelectorAll('.legend span')].map((one) => one.textContent); \
        return new Set(names).size !== names.length }).length";
    assert_eq!(browser.eval(names), 0, "two legends are alike");
}

#[test]
fn titles_have_figures_without_scripts_and_services_their_availability() {
    let server = shop();
    // A busy machine may have no time for all of them at once; those that it had are kept for a while.
    let figures = [
        "<h2>Availability (",
        " %)</h2>",
        "<h2>Logins per second (10)",
        "<h2>Availability by service",
    ];
    server.wait_until("headings with figures", |server| {
        let page = server.get("/").text();
        figures.iter().all(|text| page.contains(text))
    });
    let Some(browser) = Browser::start() else {
        return;
    };
    browser.open(&at(&server, "/"));
    let services = panel("Availability by service");
    browser.wait(&format!(
        "{services}?.querySelectorAll('.legend b').length === 2"
    ));
    let legend = browser.text(&format!("{services}.querySelector('.legend').innerText"));
    assert!(
        legend.contains("shop.web") && legend.contains("99 %"),
        "{legend}"
    );
    assert!(
        legend.contains("shop.search") && legend.contains("80 %"),
        "{legend}"
    );
}

#[test]
fn a_band_that_began_before_the_range_is_in_the_list() {
    let server = shop();
    let now = support::now();
    post(
        &server,
        &json!({"what": "disks moved", "tags": "maintenance", "when": now - 7_200, "until": now + 60}),
    );
    post(
        &server,
        &json!({"what": "long over", "tags": "maintenance", "when": now - 7_200, "until": now - 7_000}),
    );
    let page = server.get("/?from=-1h").text();
    assert!(page.contains("disks moved"), "{page}");
    assert!(!page.contains("long over"), "{page}");
    assert!(
        server
            .get("/explore?from=-1h")
            .text()
            .contains("disks moved")
    );
}

#[test]
fn names_tags_and_titles_of_strangers_are_text_everywhere() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    let hostile = "<svg onload=document.title='owned'>\"'&";
    let name = "evil.<b>bold&lt";
    server.lines(series(name, |n| n as f64));
    server.wait_until("the name", |server| {
        server
            .json("/metrics/find?query=evil.*")
            .as_array()
            .is_some_and(|all| all.len() == 1)
    });
    post(
        &server,
        &json!({"what": hostile, "tags": ["deploy", "<b>x</b>"], "data": hostile, "when": support::now() - 60}),
    );
    let dashboards = server.data().join("dashboards");
    std::fs::create_dir_all(&dashboards).unwrap();
    let text = format!(
        "title = '''{hostile}'''\nnote = '''{hostile}'''\n[[panels]]\ntitle = '''{hostile} ({{last}})'''\n\
         targets = [\"evil.*\"]\nunit = '''{hostile}'''\n"
    );
    std::fs::write(dashboards.join("evil.toml"), text).unwrap();
    server.wait_until("the dashboard", |server| {
        server.get("/dashboards/evil").status == 200
    });
    for path in [
        "/dashboards/evil",
        "/events/1/",
        "/events/",
        "/explore?q=evil&target=evil.*",
        "/dashboards/%3Cb%3Enone",
        "/?hide=%3Cb%3E&events=%3Cb%3E&var-x=%3Cb%3E&from=%3Cb%3E&tz=%3Cb%3E",
    ] {
        browser.open(&at(&server, path));
        browser.wait(
            "document.querySelector('.has-script') && document.querySelector('.strip .deploy')",
        );
        if path.contains("evil") {
            browser.wait("document.querySelector('.legend b')");
            // The card of the event, opened by the keyboard.
            browser.key("p");
            browser.wait("!document.querySelector('#card').hidden");
        }
        let found = browser.eval("document.querySelectorAll('main b:not(.legend b), main [onload], #card [onload], header [onload]').length");
        assert_eq!(found, 0, "{path}");
        assert_ne!(browser.text("document.title"), "owned", "{path}");
    }
    browser.open(&at(&server, "/dashboards/evil"));
    browser.wait("document.querySelector('.legend span')");
    let shown = browser.text("document.querySelector('.legend span').textContent");
    assert!(shown.contains("<b>bold"), "{shown}");
}

#[test]
fn pages_of_other_sites_cannot_write() {
    let server = shop();
    let body = br#"{"what": "x", "tags": "deploy"}"#;
    let headers = "Content-Type: text/plain\r\nOrigin: http://evil.example\r\n";
    let refused = server.http("POST", "/events/", headers, body);
    assert_eq!(refused.status, 403, "{}", refused.text());
    let Some(browser) = Browser::start() else {
        return;
    };
    browser.open("data:text/html,elsewhere");
    let send = format!(
        "fetch('{}', {{method: 'POST', mode: 'no-cors', body: '{{\"what\": \"x\", \"tags\": \"deploy\"}}'}}).then(() => 'sent', () => 'failed')",
        at(&server, "/events/")
    );
    browser.eval(&send);
    let events = server.json("/events/get_data?tags=deploy");
    assert_eq!(events, json!([]));
}

#[test]
fn dark_and_light_follow_the_system_and_the_switch() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    let is_dark = "(() => { const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number); return r + g + b < 200 })()";
    let ground = "new URL(performance.getEntriesByType('resource').findLast((one) => one.name.includes('bgcolor')).name).searchParams.get('bgcolor')";
    browser.prefer_dark(true);
    browser.open(&at(&server, "/"));
    browser.wait("document.querySelector('.picture > svg')");
    assert_eq!(browser.eval(is_dark), true);
    assert_eq!(browser.text(ground), "181e25");
    browser.click("[data-theme-link=light]");
    browser.wait("document.documentElement.dataset.theme === 'light' && document.querySelector('.picture > svg')");
    assert_eq!(browser.eval(is_dark), false);
    assert_eq!(browser.text(ground), "ffffff");
    browser.prefer_dark(false);
    browser.open(&at(&server, "/?theme=dark"));
    browser.wait("document.querySelector('.picture > svg')");
    assert_eq!(browser.eval(is_dark), true);
}

#[test]
fn a_page_is_small_and_a_refresh_brings_only_what_is_new() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    browser.open(&at(&server, "/"));
    browser.wait("document.body.dataset.drawn");
    let before = "performance.getEntriesByType('navigation')[0].transferSize + performance.getEntriesByType('resource') \
        .filter((one) => !one.name.includes('/render?')).reduce((sum, one) => sum + one.transferSize, 0)";
    let size = browser.eval(before).as_f64().unwrap();
    assert!(
        (1.0..150.0 * 1024.0).contains(&size),
        "{size} bytes before pictures"
    );
    let part =
        "performance.getEntriesByType('resource').find((one) => one.name.includes('layout='))";
    browser.wait(part);
    let bytes = browser.eval(&format!("{part}.encodedBodySize"));
    assert!((1.0..700.0).contains(&bytes.as_f64().unwrap()), "{bytes}");
    // And it is a whole graph again.
    browser.wait("document.querySelectorAll('.picture > svg .line path').length > 2");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn on_a_phone_the_newest_events_are_above_the_graphs() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    post(
        &server,
        &json!({"what": "web 2.0", "tags": "deploy web", "data": "ann: new front page", "when": support::now() - 60}),
    );
    browser.phone();
    browser.open(&at(&server, "/"));
    browser.wait("document.querySelector('.picture > svg')");
    let shown = browser.text("document.querySelector('section.events').innerText");
    assert!(
        shown.contains("web 2.0") && shown.contains("ann: new front page"),
        "{shown}"
    );
    let bottom = "document.querySelector('section.events').getBoundingClientRect().bottom";
    let top = "document.querySelector('.panels').getBoundingClientRect().top";
    assert_eq!(
        browser.eval(&format!("{bottom} <= {top} && {top} < 844")),
        true
    );
}

#[test]
fn the_explorer_finds_by_letters_and_its_copies_work_elsewhere() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    browser.open(&at(&server, "/explore?target=stats.shop.logins"));
    browser.wait("document.querySelector('.explore .picture > svg')");
    browser.click("#q");
    browser.type_text("shlgns");
    browser.wait("document.querySelector('#hits').textContent.includes('by their letters') && [...document.querySelectorAll('#names a')].some((one) => one.textContent === 'stats.shop.logins')");
    browser.eval("Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (text) => { window.taken = text } } })");
    let copied = |kind: &str| {
        browser.eval("window.taken = undefined");
        browser.click(&format!("[data-copy={kind}]"));
        browser.wait("window.taken !== undefined");
        browser.text("window.taken")
    };
    let link = copied("link");
    let is_absolute = link.contains("from=1") && link.contains("&until=1");
    assert!(
        is_absolute && link.contains("target=stats.shop.logins"),
        "{link}"
    );
    assert_eq!(copied("grafana"), "stats.shop.logins");
    let toml = copied("panel");
    assert!(toml.contains("targets = [\"stats.shop.logins\"]"), "{toml}");
    let path = |text: &str| {
        let from = text.find("/render?").unwrap();
        let end = text[from..]
            .find(['\'', ')'])
            .map_or(text.len(), |end| from + end);
        text[from..end].to_owned()
    };
    for (kind, begins) in [
        ("curl", "curl '"),
        ("markdown", "![graph]("),
        ("csv", "http://"),
    ] {
        let text = copied(kind);
        assert!(text.starts_with(begins), "{text}");
        assert_eq!(server.get(&path(&text)).status, 200, "{text}");
    }
    let links =
        "[...document.querySelectorAll('figure .links a')].map((one) => one.textContent).join()";
    assert_eq!(browser.text(links), "SVG,PNG,JSON,CSV");
}

/// Presses `key` until `done` holds, at most `most` times.
fn press_until(browser: &Browser, key: &str, most: usize, done: &str) {
    for _ in 0..most {
        if browser.eval(done) == true {
            return;
        }
        browser.key(key);
    }
    assert_eq!(browser.eval(done), true, "{key} does not lead to {done}");
}

/// Presses `key` on `/` and returns the range that it leads to.
fn moved(browser: &Browser, key: &str) -> (i64, i64) {
    let before = browser.text("location.search");
    browser.key(key);
    browser.wait(&format!("location.search !== '{before}'"));
    // The next key starts from the graph of this range.
    let query = "new URLSearchParams(location.search)";
    browser.wait(&format!(
        "document.querySelector('figure').graph.from === Number({query}.get('from'))"
    ));
    let range = browser.eval(&format!(
        "['from', 'until'].map((name) => Number({query}.get(name)))"
    ));
    serde_json::from_value(range).expect("two numbers")
}

#[test]
fn every_key_of_the_list_does_what_the_list_says() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    for (what, ago) in [("web 2.0", 300), ("web 2.1", 120)] {
        let when = support::now() - ago;
        post(
            &server,
            &json!({"what": what, "tags": "deploy web", "when": when}),
        );
    }
    let ready = "document.querySelector('.picture .event') && document.querySelector('.has-script') \
        && document.querySelector('figure').graph";
    browser.open(&at(&server, "/"));
    browser.wait(ready);

    browser.key("?");
    browser.wait("document.querySelector('dialog').open");
    let listed = browser.text(
        "[...document.querySelectorAll('dialog kbd')].map((one) => one.textContent).join(' ')",
    );
    // Each of them is pressed below: a new key needs a new step.
    assert_eq!(listed, "/ e d v n p ← → , . h + - b r t w Esc ?");
    browser.key("Escape");
    browser.wait("!document.querySelector('dialog').open");

    // Events, one after the other; their card closes.
    let card = "document.querySelector('#card')";
    for (key, what) in [("n", "web 2.0"), ("n", "web 2.1"), ("p", "web 2.0")] {
        browser.key(key);
        browser.wait(&format!(
            "!{card}.hidden && {card}.innerText.includes('{what}')"
        ));
    }
    browser.key("Escape");
    browser.wait(&format!(
        "{card}.hidden && document.querySelector('.clock').hidden"
    ));

    // The crosshair.
    let hair = "Number(/-?[\\d.]+/.exec(document.querySelector('.cross-hair').style.transform)?.[0] ?? 9e9)";
    browser.key(",");
    browser.wait(&format!(
        "!document.querySelector('.clock').hidden && {hair} < 9e9"
    ));
    let first = browser.eval(hair).as_f64().unwrap();
    browser.key(",");
    browser.wait(&format!("{hair} < {first}"));
    let second = browser.eval(hair).as_f64().unwrap();
    browser.key(".");
    browser.wait(&format!("{hair} > {second}"));
    browser.key("Escape");

    // The range: nearer, earlier, later, farther, and back.
    let near = moved(&browser, "+");
    assert!((1700..=1900).contains(&(near.1 - near.0)), "{near:?}");
    let earlier = moved(&browser, "ArrowLeft");
    assert!(
        earlier.0 < near.0 && earlier.1 - earlier.0 == near.1 - near.0,
        "{earlier:?}"
    );
    let later = moved(&browser, "ArrowRight");
    assert!(later.0 > earlier.0, "{later:?}");
    let far = moved(&browser, "-");
    assert_eq!(far.1 - far.0, 2 * (later.1 - later.0));
    assert_eq!(moved(&browser, "b"), later);

    // Refresh.
    let asked = "performance.getEntriesByType('resource').filter((one) => one.name.includes('/render?')).length";
    browser.eval("performance.clearResourceTimings()");
    browser.key("r");
    browser.wait(&format!("{asked} > 0"));

    // Colours: light, dark, and as the system has them.
    let theme = "document.documentElement.dataset.theme";
    for (name, value) in [
        ("light", "'light'"),
        ("dark", "'dark'"),
        ("system", "undefined"),
    ] {
        browser.key("t");
        browser.wait(&format!("{theme} === {value} && {ready}"));
        assert!(browser.complaints().is_empty(), "{name}");
    }

    // The wall display.
    for (wall, header) in [("'1'", "'none'"), ("undefined", "'flex'")] {
        browser.key("w");
        browser.wait(&format!(
            "document.documentElement.dataset.wall === {wall} && {ready} \
             && getComputedStyle(document.querySelector('header')).display === {header}"
        ));
    }

    // What happened at the crosshair?
    browser.key("n");
    browser.key("h");
    browser.wait(
        "location.pathname === '/changes' && /at=\\d+&target=/.test(location.search) \
         && document.querySelector('.has-script')",
    );

    // The other pages.
    for (key, path) in [("e", "/explore"), ("v", "/events/"), ("d", "/")] {
        browser.key(key);
        browser.wait(&format!(
            "location.pathname === '{path}' && document.querySelector('.has-script')"
        ));
    }
    browser.key("/");
    browser.wait("location.pathname === '/explore' && document.querySelector('.has-script')");
    browser.key("/");
    browser.wait("document.activeElement.id === 'q'");
    // In a field, keys are text.
    browser.key("e");
    assert_eq!(browser.text("document.activeElement.value"), "e");
    assert_eq!(browser.complaints(), [""; 0]);
}

#[test]
fn names_are_opened_and_events_are_posted_without_a_pointer() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    browser.open(&at(&server, "/explore"));
    browser
        .wait("document.querySelector('.has-script') && document.querySelector('#names button')");
    browser.key("/");
    browser.type_text("shop.logins");
    browser.wait("document.querySelector('#names a')?.textContent === 'stats.shop.logins'");
    press_until(
        &browser,
        "Tab",
        5,
        "document.activeElement.dataset.name === 'stats.shop.logins'",
    );
    browser.wait("document.querySelector('.explore .picture > svg')");
    browser.key("Enter");
    browser.wait("document.querySelector('#target').value === 'stats.shop.logins'");

    browser.open(&at(&server, "/events/"));
    browser.wait("document.querySelector('.has-script')");
    let focused = |selector: &str| format!("document.activeElement.matches('{selector}')");
    press_until(&browser, "Tab", 60, &focused(".post summary"));
    browser.key("Enter");
    press_until(&browser, "Tab", 5, &focused("#post [name=what]"));
    browser.type_text("web 3.0");
    press_until(&browser, "Tab", 20, &focused("#post button"));
    browser.key("Enter");
    browser.wait("document.querySelector('main').innerText.includes('web 3.0')");
    assert_eq!(browser.complaints(), [""; 0]);
}
