//! The list of events as a page, and one event on its own. All texts of clients are escaped, and
//! only `http` and `https` links become links.

use axum::http::{StatusCode, header};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::events::draft::is_web_link;
use crate::events::{Event, Status};
use crate::http::Answer;
use crate::http::html::{CONTENT_TYPE, finish};

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --faint: #8889; }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .35rem .8rem .35rem 0; border-top: 1px solid var(--line); }
th { font-weight: 600; }
time, .faint { white-space: nowrap; opacity: .75; font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; font: inherit; opacity: .85; }
.tag { border: 1px solid var(--faint); border-radius: .6rem; padding: 0 .5rem; margin-right: .3rem; white-space: nowrap; text-decoration: none; color: inherit; }
.failed, .rolled_back, .worse strong { color: #d33; }
.better strong { color: #2a2; }
.verdict { margin: .2rem 0; overflow-wrap: anywhere; }
input { font: inherit; padding: .2rem .5rem; width: min(28rem, 60vw); }
";

/// Nothing on a page runs, and nothing is loaded from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'";

/// A whole page around `content`.
fn page(content: Markup) -> String {
    finish(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width";
                title { "Events" }
                style { (PreEscaped(STYLE)) }
            }
            body { (content) }
        }
    })
}

/// A page as an answer.
pub(super) fn secured(status: StatusCode, page: String) -> Answer {
    with_policy(Answer {
        status,
        ..Answer::ok(CONTENT_TYPE, page)
    })
}

/// A page with its policy.
pub(super) fn with_policy(page: Answer) -> Answer {
    page.with(header::CONTENT_SECURITY_POLICY, POLICY)
        .with(header::REFERRER_POLICY, "no-referrer")
}

/// The newest `limit` events, newest first; links begin with `base`.
pub(super) fn list(base: &str, events: &[Event], expression: &str, limit: usize) -> String {
    page(html! {
        h1 { "Events" }
        form action={ (base) "/events/" } {
            label {
                "Tags "
                input name="tags" value=(expression)
                    placeholder="deploy web, deploy,config, deploy -canary, service:web*";
            }
        }
        @if events.is_empty() {
            p { "No events yet. Post one:" }
            pre {
                "curl -d '{\"what\": \"deploy web 1.4\", \"tags\": \"deploy web\"}' \
                 http://THIS-SERVER" (base) "/events/"
            }
        } @else {
            table {
                tr { th { "When (UTC)" } th { "What" } th { "Tags" } th {} }
                @for event in events.iter().rev() {
                    tr {
                        td { (time(event.when)) }
                        td { (what(event)) (verdict(event)) (data(event)) }
                        td { (tags(base, event)) }
                        td { (reference(base, event.id)) }
                    }
                }
            }
            @if events.len() == limit {
                p class="faint" {
                    "The newest " (limit) "; " code { "from" } ", " code { "until" } " and "
                    code { "limit" } " show others."
                }
            }
        }
    })
}

/// One event; links begin with `base`.
pub(super) fn event(base: &str, event: &Event) -> String {
    page(html! {
        h1 { (what(event)) }
        table {
            tr { th { "When" } td { (time(event.when)) } }
            @if let Some(until) = event.until {
                tr {
                    th { "Until" }
                    td { (time(until)) " (" ((until - event.when).round()) " s)" }
                }
            }
            tr { th { "Tags" } td { (tags(base, event)) } }
            @if let Some(undone) = event.rollback_of {
                tr { th { "Undoes" } td { (reference(base, undone)) } }
            }
        }
        (verdict(event))
        (data(event))
        p { a href={ (base) "/events/" } { "All events" } }
    })
}

/// The sentence of graphite-web.
pub(super) fn not_found() -> String {
    page(html! {
        h1 { "Not Found" }
        p { "There is no such event." }
    })
}

/// A timestamp as `2023-11-14T22:13:20Z`, with milliseconds if it has any.
pub(super) fn iso(when: f64) -> String {
    let micros = (when * 1e6).round() as i64;
    let Ok(at) = jiff::Timestamp::from_microsecond(micros) else {
        return when.to_string();
    };
    let digits = if micros % 1_000_000 == 0 { 0 } else { 3 };
    format!("{at:.digits$}")
}

fn time(when: f64) -> Markup {
    let iso = iso(when.floor());
    let text = iso.trim_end_matches('Z').replace('T', " ");
    html! { time datetime=(iso) { (text) } }
}

/// A link to an event.
fn reference(base: &str, id: i64) -> Markup {
    html! { a href={ (base) "/events/" (id) "/" } { "#" (id) } }
}

fn what(event: &Event) -> Markup {
    html! {
        @match event.link.as_deref().filter(|link| is_web_link(link)) {
            Some(link) => a href=(link) rel="noreferrer" { (event.what) },
            None => (event.what),
        }
        @if ![Status::Unstated, Status::Succeeded].contains(&event.status) {
            @let name = event.status.name();
            " " span class=(name) { "(" (name.replace('_', " ")) ")" }
        }
    }
}

/// What the event changed, as a sentence.
fn verdict(event: &Event) -> Markup {
    html! {
        @if let Some(impact) = &event.impact {
            @let name = impact.verdict.name();
            p class={ "verdict " (name) } {
                strong { (name.replace('_', " ")) }
                @if !impact.sentence.starts_with(&name.replace('_', " ")) { ": " (impact.sentence) }
            }
        }
    }
}

fn data(event: &Event) -> Markup {
    html! {
        @if !event.data.is_empty() { pre { (event.data) } }
    }
}

fn tags(base: &str, event: &Event) -> Markup {
    html! {
        @for tag in &event.tags {
            @let query: String = form_urlencoded::byte_serialize(tag.as_bytes()).collect();
            a class="tag" href={ (base) "/events/?tags=" (query) } { (tag) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_as_in_graphite() {
        assert_eq!(iso(1_700_000_000.0), "2023-11-14T22:13:20Z");
        assert_eq!(iso(1_630_880_002.75), "2021-09-05T22:13:22.750Z");
        assert_eq!(iso(-1.0), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn texts_of_clients_are_escaped() {
        let hostile = "<script>alert('1')</script>\"";
        let event = Event {
            what: hostile.to_owned(),
            data: hostile.to_owned(),
            tags: vec![hostile.replace(' ', "")],
            link: Some("javascript:alert(1)".to_owned()),
            ..Event::default()
        };
        for html in [
            list("", std::slice::from_ref(&event), hostile, 5),
            super::event("", &event),
        ] {
            assert!(!html.contains("<script"), "{html}");
            assert!(!html.contains("javascript:"), "{html}");
        }
    }
}
