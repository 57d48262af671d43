//! `/changes`: all deploys of a range by what they changed, and the reverse: what happened to a graph at a time.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::deploy::table;
use super::layout::Layout;
use super::live::now;
use super::words::{count, timestamp};
use super::{Page, View, html_answer};
use crate::attime;
use crate::events::Event;
use crate::http::negotiate::negotiated;
use crate::http::params::InQuery;
use crate::http::{Answer, Params};
use crate::impact::Outcome;

/// Events on the page.
const LISTED: usize = 500;
/// Targets that are asked for at once.
const MOST_TARGETS: usize = 50;

/// The routes of this page.
pub(super) fn routes() -> Router<Page> {
    Router::new()
        .route(
            "/changes",
            get(|page, headers, query| changes(page, headers, query, "")),
        )
        .route(
            "/changes/",
            get(|page, headers, query| changes(page, headers, query, "../")),
        )
}

async fn changes(
    State(page): State<Page>,
    headers: HeaderMap,
    InQuery(params): InQuery,
    up: &'static str,
) -> Answer {
    page.answer(move |page| {
        let written = html_answer(StatusCode::OK, changes_page(page, &params, up));
        negotiated(&headers, written)
    })
    .await
}

/// How much an event moved, for the order of the list.
fn weight(event: &Event) -> (u8, usize) {
    event.impact.as_ref().map_or((0, 0), |report| {
        let rank = match report.verdict {
            Outcome::Worse => 4,
            Outcome::Changed => 3,
            Outcome::Better => 2,
            Outcome::Unchanged => 1,
            Outcome::NotEnoughData => 0,
        };
        (rank, report.changed)
    })
}

fn changes_page(page: &Page, params: &Params, up: &str) -> String {
    let view = View::of(params);
    let zone = view.zone(page);
    let (from, until) = view.range("-7d", &zone, now() as i64);
    let expression = view.events.as_deref().unwrap_or("deploy");
    let mut events = page.events(expression, from as f64, until as f64, LISTED);
    // The newest first, or what moved most.
    events.reverse();
    let by_size = params.get("by") == Some("size");
    if by_size {
        events.sort_by_key(|event| std::cmp::Reverse(weight(event)));
    }
    let order = if by_size { "time" } else { "size" };
    let content = html! {
        h1 { "What changed" }
        (question(page, params, &zone, up))
        p {
            @if events.is_empty() { "No events" } @else { (count(events.len() as u64, "event")) }
            " from " (timestamp(from as f64, &zone)) " to " (timestamp(until as f64, &zone)) ". "
            @if events.is_empty() {
                a href={ (up) "start" } { "Post one" }
            } @else {
                a href={ (up) "changes?by=" (order) } {
                    @if by_size { "Order by time" } @else { "Order by what moved most" }
                }
            }
        }
        div data-part="changes" { @if !events.is_empty() { (table(&events, &zone, up)) } }
    };
    let layout = Layout {
        title: "Changes",
        path: "changes",
        view: &view,
        up,
        refresh: 0,
        head: html! {},
        content,
    };
    layout.document(page)
}

/// The targets that `params` ask for.
pub(in crate::http) fn targets(params: &Params) -> Vec<String> {
    let all = params.pairs().iter();
    let targets = all.filter(|(name, value)| name == "target" && !value.is_empty());
    targets
        .map(|(_, value)| value.clone())
        .take(MOST_TARGETS)
        .collect()
}

/// "What happened here?": a form, and the answer if it was filled in.
fn question(page: &Page, params: &Params, zone: &TimeZone, up: &str) -> Markup {
    let targets = targets(params);
    let shown = match &targets[..] {
        [one] => one,
        _ => "",
    };
    let at = params.get("at").unwrap_or_default();
    let time = attime::parse(if at.is_empty() { "now" } else { at }, zone, now() as i64);
    html! {
        form class="search" action={ (up) "changes" } method="get" {
            label { "What happened to the series" input name="target" value=(shown) placeholder="stats.web.errors, stats.web.**"; }
            label { "Around" input name="at" value=(at) placeholder="-2h, 14:30, 1767225600"; }
            button { "Ask" }
        }
        @if !targets.is_empty() {
            @match time {
                Err(why) => p class="problem" role="alert" { (why) },
                Ok(time) => (answer(page, &targets, time, zone, up)),
            }
        }
    }
}

fn answer(page: &Page, targets: &[String], time: i64, zone: &TimeZone, up: &str) -> Markup {
    let happened = page.happened(targets, time, &page.budget());
    html! {
        @match happened {
            Err(why) => p class="problem" role="alert" { (why) },
            Ok(None) => p {
                "No series of " code { (targets.join(", ")) } " changed around "
                (timestamp(time as f64, zone)) ", or it has too few points there."
            },
            Ok(Some(happened)) => {
                p {
                    code { (happened.series) } " changed most"
                    @if happened.looked_at > 1 { ", of " (happened.looked_at) " series," }
                    " at " strong { (timestamp(happened.at as f64, zone)) } "; "
                    "a change as large at " (happened.like) " of " (happened.comparable) " comparable times. "
                    @if !happened.rare { "It does so by itself: no deploy is needed to explain it. " }
                    @if happened.deploys.is_empty() { "No deploy explains it." }
                }
                @if !happened.deploys.is_empty() { (table(&happened.deploys, zone, up)) }
            }
        }
    }
}
