//! The page in a real browser: what people rely on while they look at it.

mod support;

#[path = "support/browser.rs"]
mod browser;
#[path = "support/shop.rs"]
mod shop;

use browser::Browser;
use serde_json::json;
use shop::{at, post, series, shop};

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
fn a_panel_without_series_names_its_pattern_within_its_width() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    browser.phone();
    let pattern = "nothing.{of,this}.kind.is.sent.to.this.server.by.any.host";
    let target = format!("alias(sumSeries({pattern}),'x')");
    browser.open(&at(&server, &format!("/explore?target={target}")));
    browser.wait("document.querySelectorAll('.picture .empty').length === 2");
    let words = browser.text("document.querySelectorAll('.picture .empty')[1].textContent");
    let (head, tail) = words.split_once('…').unwrap();
    assert!(
        pattern.starts_with(head) && pattern.ends_with(tail),
        "{words}"
    );
    let is_inside = "[...document.querySelectorAll('.picture .empty')].every((one) => { \
        const [own, all] = [one, one.ownerSVGElement].map((box) => box.getBoundingClientRect()); \
        return own.left >= all.left && own.right <= all.right; })";
    assert_eq!(browser.eval(is_inside), true);
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
fn on_a_phone_the_form_for_any_range_is_on_the_screen() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = shop();
    browser.phone();
    for path in ["/", "/explore"] {
        browser.open(&at(&server, path));
        browser.eval("document.querySelector('.custom').open = true");
        let form = "document.querySelector('.custom form').getBoundingClientRect()";
        assert_eq!(
            browser.eval(&format!("{form}.left >= 0 && {form}.right <= 390")),
            true,
            "{path}: {}",
            browser.text(&format!("JSON.stringify({form})"))
        );
    }
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
