//! `/explore`: search over all names, the tree, an editor of targets, and their graph.
//!
//! Without JavaScript the search is a form, its results are links, and the graph is a picture.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use maud::{Markup, html};
use serde_json::json;

use super::layout::{Layout, encode};
use super::panels::{PictureLinks, events_list};
use super::search::{Found, Names};
use super::unfurl;
use super::view::View;
use super::words::count;
use super::{Inner, Page, Panel, html_answer};
use crate::http::negotiate::negotiated;
use crate::http::params::InQuery;
use crate::http::{Answer, JSON, Params};
use crate::source::SourceError;

/// Names in an answer.
const SHOWN: usize = 200;
/// Targets that one page shows.
const MOST_TARGETS: usize = 50;
/// Events beside the graph.
const EVENTS: usize = 20;

/// `GET /explore`.
pub(super) async fn explore(
    State(page): State<Page>,
    headers: HeaderMap,
    InQuery(params): InQuery,
) -> Answer {
    let base = unfurl::base(&headers, &page);
    let names = first_names(&page, params.get("q").unwrap_or_default()).await;
    page.answer(move |page| {
        let written = document(page, &params, base.as_deref(), names);
        negotiated(&headers, html_answer(StatusCode::OK, written))
    })
    .await
}

/// `GET /page/search?q=WORDS`: the best names, as JSON.
pub(super) async fn search(
    State(page): State<Page>,
    headers: HeaderMap,
    InQuery(params): InQuery,
) -> Answer {
    let Inner { search, source, .. } = &*page.0;
    let names = match search.names(source, &page.budget()).await {
        Ok(names) => names,
        Err(SourceError::Budget(error)) => return page.refusal(&error),
        Err(SourceError::Refused(why) | SourceError::Failed(why)) => {
            return Answer::error(StatusCode::SERVICE_UNAVAILABLE, &why);
        }
    };
    page.answer(move |_| {
        let found = names.find(params.get("q").unwrap_or_default(), SHOWN);
        let body = json!({
            "names": found.names, "hits": found.hits, "more": found.more, "of": found.of,
            "fuzzy": found.is_fuzzy,
        });
        let answer = Answer::ok(JSON, body.to_string());
        negotiated(&headers, answer).with(header::CACHE_CONTROL, "no-cache")
    })
    .await
}

fn document(
    page: &Page,
    params: &Params,
    base: Option<&str>,
    listed: Result<Option<Arc<Names>>, SourceError>,
) -> String {
    let mut view = View::of(params);
    let query = params.get("q").unwrap_or_default();
    let targets = targets(params);
    let kept = targets
        .iter()
        .map(|target| ("target".to_owned(), target.clone()));
    view.extra = kept.collect();
    if !query.is_empty() {
        view.extra.push(("q".to_owned(), query.to_owned()));
    }
    let zone = view.zone(page);
    let now = super::live::now();
    let (start, end) = view.range("-1h", &zone, now as i64);
    // A deploy shows its verdict itself.
    let events = view.events.as_deref().unwrap_or("* -impact");
    let happened = page.around(events, start as f64, end as f64 + 1.0, EVENTS);
    let links = PictureLinks {
        from: view.from.as_deref().unwrap_or("-1h"),
        until: view.until.as_deref(),
        tz: view.tz.as_deref(),
        events,
        theme: view.theme,
        up: "",
    };
    let panel = panel(&targets);
    let found = listed.map(|listed| listed.map(|names| names.find(query, SHOWN)));
    let content = html! {
        div class="head" {
            h1 { "Explore" }
            (view.tools("-1h", &zone))
        }
        p id="zoomed" hidden { span {} button type="button" { "Back" } }
        div id="tags" role="group" aria-label="events on the graph, by tag" {}
        div class="explore board" data-from="-1h" {
            (names(query, &found))
            div class="work" {
                (links.figure(&panel, &panel.title, if targets.is_empty() { 0 } else { 1 }))
                (editor(&targets))
                (events_list(&happened, now, &zone, ""))
            }
        }
    };
    let first = targets.first().map(String::as_str);
    let picture = base
        .zip(first)
        .map(|(base, target)| picture_address(base, target, &view));
    let layout = Layout {
        title: "Explore",
        path: "explore",
        view: &view,
        up: "",
        refresh: 10,
        head: unfurl::tags(first.unwrap_or("Explore"), picture.as_deref()),
        content,
    };
    layout.document(page)
}

/// The targets that the address names.
fn targets(params: &Params) -> Vec<String> {
    let all = params.list("target").into_iter();
    all.filter(|target| !target.trim().is_empty())
        .take(MOST_TARGETS)
        .map(str::to_owned)
        .collect()
}

/// The graph of `targets`.
fn panel(targets: &[String]) -> Panel {
    // Values that come less often than the file's step are a line, too.
    let params = [("lineMode", "connected"), ("connectedLimit", "12")];
    let params = params.map(|(key, value)| (key.to_owned(), value.to_owned()));
    Panel {
        params: params.into(),
        ..Panel::of(targets.to_vec())
    }
}

/// The names that the page searches. Only a page that has a query waits for their list.
async fn first_names(page: &Page, query: &str) -> Result<Option<Arc<Names>>, SourceError> {
    let (Inner { search, source, .. }, budget) = (&*page.0, page.budget());
    match query.trim() {
        "" => search.names_soon(source, &budget).await,
        _ => search.names(source, &budget).await.map(Some),
    }
}

/// The search and what it found; nothing while the names are being listed.
fn names(query: &str, found: &Result<Option<Found>, SourceError>) -> Markup {
    html! {
        section class="names" aria-label="names" {
            form id="search" role="search" {
                label for="q" { "Search names: words, or a glob" }
                input id="q" name="q" type="search" value=(query) autocomplete="off"
                    placeholder="login web1, stats.*.errors.**" spellcheck="false";
                noscript { button { "Search" } }
            }
            @match found {
                Ok(None) => {
                    p id="hits" class="quiet" role="status" { "The names are being listed." }
                    ul id="names" {}
                },
                Ok(Some(found)) => {
                    p id="hits" class="quiet" role="status" {
                        (count(found.hits as u64, "name"))
                        @if found.more { " and more" }
                        " of " (count(found.of as u64, "name"))
                        @if found.is_fuzzy { ", by their letters in order" }
                    }
                    ul id="names" {
                        @for name in &found.names {
                            li { a href={ "explore?" (target_query(name, query)) } data-name=(name) { (name) } }
                        }
                    }
                },
                Err(_) => {
                    p id="hits" class="problem" { "The names cannot be listed." }
                    ul id="names" {}
                },
            }
        }
    }
}

/// The short address of the graph of `target` in the range of `view`.
fn picture_address(base: &str, target: &str, view: &View) -> String {
    let range = view
        .pairs()
        .filter(|(name, _)| ["from", "until", "tz"].contains(&name.as_str()));
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(range)
        .finish();
    format!("{base}graph/{}.png?{query}", encode(target))
}

fn target_query(name: &str, query: &str) -> String {
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    pairs.append_pair("target", name);
    if !query.is_empty() {
        pairs.append_pair("q", query);
    }
    pairs.finish()
}

fn editor(targets: &[String]) -> Markup {
    let rows = targets.len().clamp(2, 10);
    html! {
        form class="editor" id="editor" {
            label for="target" { "Targets, one a line: a name, a glob, or functions such as "
                code { "sumSeries(stats.*.errors.*)" } " or " code { "stats.a|scale(60)" } }
            div class="complete" {
                textarea id="target" name="target" rows=(rows) spellcheck="false" autocomplete="off"
                    aria-describedby="refused" aria-autocomplete="list" aria-controls="completions" {
                    (targets.join("\n"))
                }
                ul id="completions" role="listbox" aria-label="completions" hidden {}
            }
            pre id="refused" class="refused" role="alert" hidden {}
            p id="signature" class="quiet" {}
            noscript { button { "Show" } }
        }
        div class="share" id="share" hidden {
            span class="quiet" { "Copy:" }
            @for (kind, text) in SHARES { button type="button" data-copy=(kind) { (text) } }
            span id="copied" role="status" class="quiet" {}
        }
    }
}

/// What can be copied: the name that `explore.js` knows, and the text of the button.
const SHARES: &[(&str, &str)] = &[
    ("link", "Link to this range"),
    ("curl", "curl"),
    ("markdown", "Markdown image"),
    ("grafana", "Grafana target"),
    ("panel", "Dashboard panel"),
    ("csv", "CSV address"),
];
