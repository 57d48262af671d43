//! The list of events as a page, and one event on its own. Nothing that a sender wrote gets into
//! the markup unescaped, and only `http` and `https` links become links.

use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::events::draft::is_web_link;
use crate::events::{Event, Status};

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
.failed, .rolled_back { color: #d33; }
input { font: inherit; padding: .2rem .5rem; width: min(28rem, 60vw); }
";

/// The content type of a page.
pub(super) const KIND: &str = "text/html; charset=utf-8";
/// Nothing on a page runs, and nothing is loaded from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'self'; base-uri 'none'";

/// A whole page around `body`.
pub(super) fn page(body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Events</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// A page on its way to a browser, with its policy.
pub(super) fn secured(page: impl IntoResponse) -> Response {
    let headers = [
        (header::CONTENT_TYPE, KIND),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, page).into_response()
}

/// The newest `limit` events, newest first.
pub(super) fn list(events: &[Event], expression: &str, limit: usize) -> String {
    let mut html = format!(
        "<h1>Events</h1>\n<form action=\"/events/\"><label>Tags <input name=\"tags\" value=\"{}\" \
         placeholder=\"deploy web, deploy,config, deploy -canary, service:web*\"></label></form>\n",
        escape(expression)
    );
    if events.is_empty() {
        html += "<p>No events yet. Post one:</p>\n<pre>curl -d '{\"what\": \"deploy web 1.4\", \"tags\": \"deploy web\"}' http://THIS-SERVER/events/</pre>\n";
        return html;
    }
    html += "<table>\n<tr><th>When (UTC)<th>What<th>Tags<th></tr>\n";
    for event in events.iter().rev() {
        html += &format!(
            "<tr><td>{}<td>{}{}<td>{}<td><a href=\"/events/{}/\">#{}</a></tr>\n",
            moment(event.when),
            what(event),
            text(event),
            tags(event),
            event.id,
            event.id
        );
    }
    html += "</table>\n";
    if events.len() == limit {
        html += &format!(
            "<p class=\"faint\">The newest {limit}; <code>from</code>, <code>until</code> and <code>limit</code> show others.</p>\n"
        );
    }
    html
}

/// One event.
pub(super) fn event(event: &Event) -> String {
    let mut html = format!(
        "<h1>{}</h1>\n<table>\n<tr><th>When<td>{}</tr>\n",
        what(event),
        moment(event.when)
    );
    if let Some(until) = event.until {
        html += &format!(
            "<tr><th>Until<td>{} ({} s)</tr>\n",
            moment(until),
            (until - event.when).round()
        );
    }
    html += &format!("<tr><th>Tags<td>{}</tr>\n", tags(event));
    if let Some(undone) = event.rollback_of {
        html += &format!("<tr><th>Undoes<td><a href=\"/events/{undone}/\">#{undone}</a></tr>\n");
    }
    html += &format!(
        "</table>\n{}\n<p><a href=\"/events/\">All events</a></p>\n",
        text(event)
    );
    html
}

/// What graphite-web says, too.
pub(super) fn not_found() -> String {
    "<h1>Not Found</h1><p>There is no such event.</p>\n".to_owned()
}

/// A moment as `2023-11-14T22:13:20Z`, with milliseconds if it has some.
pub(super) fn iso(when: f64) -> String {
    let micros = (when * 1e6).round() as i64;
    let Ok(at) = jiff::Timestamp::from_microsecond(micros) else {
        return when.to_string();
    };
    let digits = if micros % 1_000_000 == 0 { 0 } else { 3 };
    format!("{at:.digits$}")
}

fn moment(when: f64) -> String {
    let iso = iso(when.floor());
    let text = iso.trim_end_matches('Z').replace('T', " ");
    format!("<time datetime=\"{iso}\">{text}</time>")
}

fn what(event: &Event) -> String {
    let what = match &event.link {
        Some(link) if is_web_link(link) => format!(
            "<a href=\"{}\" rel=\"noreferrer\">{}</a>",
            escape(link),
            escape(&event.what)
        ),
        _ => escape(&event.what),
    };
    match event.status {
        Status::Succeeded => what,
        status => format!(
            "{what} <span class=\"{}\">({})</span>",
            status.name(),
            status.name().replace('_', " ")
        ),
    }
}

fn text(event: &Event) -> String {
    match event.data.as_str() {
        "" => String::new(),
        data => format!("<pre>{}</pre>", escape(data)),
    }
}

fn tags(event: &Event) -> String {
    let tag = |tag: &String| {
        let query: String = form_urlencoded::byte_serialize(tag.as_bytes()).collect();
        format!(
            "<a class=\"tag\" href=\"/events/?tags={query}\">{}</a>",
            escape(tag)
        )
    };
    event.tags.iter().map(tag).collect()
}

fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_print_as_graphite_prints_them() {
        assert_eq!(iso(1_700_000_000.0), "2023-11-14T22:13:20Z");
        assert_eq!(iso(1_630_880_002.75), "2021-09-05T22:13:22.750Z");
        assert_eq!(iso(-1.0), "1969-12-31T23:59:59Z");
    }

    #[test]
    fn what_senders_write_stays_text() {
        let hostile = "<script>alert('1')</script>\"";
        let event = Event {
            what: hostile.to_owned(),
            data: hostile.to_owned(),
            tags: vec![hostile.replace(' ', "")],
            link: Some("javascript:alert(1)".to_owned()),
            ..Event::default()
        };
        for html in [
            list(std::slice::from_ref(&event), hostile, 5),
            super::event(&event),
        ] {
            assert!(!html.contains("<script"), "{html}");
            assert!(!html.contains("javascript:"), "{html}");
        }
    }
}
