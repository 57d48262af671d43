//! The page in a real browser, without a pointer.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

#[path = "support/browser.rs"]
mod browser;
#[path = "support/shop.rs"]
mod shop;

use browser::Browser;
use serde_json::json;
use shop::{at, post, shop};

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

/// The first dashboard is drawn, with an event, and its script runs.
const READY: &str = "document.querySelector('.picture .event') && document.querySelector('.has-script') \
    && document.querySelector('figure').graph";

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
    browser.open(&at(&server, "/"));
    browser.wait(READY);
    the_list_is_the_one_that_is_tested(&browser);
    keys_lead_from_event_to_event(&browser);
    keys_move_the_crosshair(&browser);
    keys_change_the_range(&browser);
    a_key_refreshes(&browser);
    keys_change_the_looks(&browser);
    keys_lead_to_other_pages(&browser);
    assert_eq!(browser.complaints(), [""; 0]);
}

fn the_list_is_the_one_that_is_tested(browser: &Browser) {
    browser.key("?");
    browser.wait("document.querySelector('dialog').open");
    let listed = browser.text(
        "[...document.querySelectorAll('dialog kbd')].map((one) => one.textContent).join(' ')",
    );
    // Each of them is pressed below: a new key needs a new step.
    assert_eq!(listed, "/ e d v n p ← → , . h + - b r t w Esc ?");
    browser.key("Escape");
    browser.wait("!document.querySelector('dialog').open");
}

/// One after the other; their card closes.
fn keys_lead_from_event_to_event(browser: &Browser) {
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
}

fn keys_move_the_crosshair(browser: &Browser) {
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
}

/// Nearer, earlier, later, farther, and back.
fn keys_change_the_range(browser: &Browser) {
    let near = moved(browser, "+");
    assert!((1700..=1900).contains(&(near.1 - near.0)), "{near:?}");
    let earlier = moved(browser, "ArrowLeft");
    assert!(
        earlier.0 < near.0 && earlier.1 - earlier.0 == near.1 - near.0,
        "{earlier:?}"
    );
    let later = moved(browser, "ArrowRight");
    assert!(later.0 > earlier.0, "{later:?}");
    let far = moved(browser, "-");
    assert_eq!(far.1 - far.0, 2 * (later.1 - later.0));
    assert_eq!(moved(browser, "b"), later);
}

fn a_key_refreshes(browser: &Browser) {
    let asked = "performance.getEntriesByType('resource').filter((one) => one.name.includes('/render?')).length";
    browser.eval("performance.clearResourceTimings()");
    browser.key("r");
    browser.wait(&format!("{asked} > 0"));
}

/// Light, dark, and as the system has it; the wall display.
fn keys_change_the_looks(browser: &Browser) {
    let theme = "document.documentElement.dataset.theme";
    for (name, value) in [
        ("light", "'light'"),
        ("dark", "'dark'"),
        ("system", "undefined"),
    ] {
        browser.key("t");
        browser.wait(&format!("{theme} === {value} && {READY}"));
        assert!(browser.complaints().is_empty(), "{name}");
    }
    for (wall, header) in [("'1'", "'none'"), ("undefined", "'flex'")] {
        browser.key("w");
        browser.wait(&format!(
            "document.documentElement.dataset.wall === {wall} && {READY} \
             && getComputedStyle(document.querySelector('header')).display === {header}"
        ));
    }
}

/// What happened at the crosshair? And the pages of the menu.
fn keys_lead_to_other_pages(browser: &Browser) {
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
