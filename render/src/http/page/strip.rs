//! The strip on top of every page: how old the newest data is, and the newest deploy.
//!
//! What needs attention is loud: data that stopped, deploys that failed, that were rolled back, that turned
//! out worse, or that are under way. A newer deploy does not displace a harmful one: the last of them stays for some
//! hours. Ages are written by the server and counted on by `live.js`.

use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::deploy::{effect, verdict};
use super::live::{Arrivals, now};
use super::words::{ago, first_line, length, timestamp};
use super::{Page, View};
use crate::events::{Event, OPEN_AT_MOST, Status};
use crate::impact::{Correction, Outcome};

/// The events that count as deploys.
const DEPLOYS: &str = "deploy,deployment,release,rollback";
/// How far back the newest deploy is looked for, in seconds.
const FAR_BACK: f64 = 90.0 * 86_400.0;
/// Data older than this many seconds is stale. `live.js` has the same number.
const STALE: f64 = 60.0;
/// Deploys that are looked through for those under way.
const LOOKED_AT: usize = 50;
/// Deploys under way that are shown beside the newest one.
const UNDER_WAY: usize = 2;
/// How long the last harmful deploy is shown beside newer ones, in seconds.
const HARM_SHOWN: f64 = 6.0 * 3_600.0;

/// The strip of a page whose relative path to `/` is `up`.
pub(super) fn strip(page: &Page, view: &View, up: &str) -> Markup {
    let at = now();
    let deploys = page.events(DEPLOYS, at - FAR_BACK, at + 1.0, LOOKED_AT);
    let newest = deploys.last();
    let others = deploys.iter().rev().skip(1);
    let is_harmful_now = newest.is_some_and(is_harmful);
    // Beside a harmful one only those that may be the real cause.
    let harmful = others.clone().find(|event| match is_harmful_now {
        true => turned_out_worse(event) && event.status != Status::RolledBack,
        false => is_harmful(event),
    });
    let harmful = harmful.filter(|event| at - event.when < HARM_SHOWN);
    let words = match is_harmful_now {
        true => "Also harmful",
        false => "Last harmful deploy",
    };
    let is_shown = |event: &Event| harmful.is_some_and(|harmful| harmful.id == event.id);
    let under_way = others.filter(|event| is_under_way(event, at) && !is_shown(event));
    let zone = view.zone(page);
    html! {
        div class="strip" data-part="strip" role="status" aria-label="newest data and deploy" {
            (data(page.0.live.arrivals(), at))
            @match newest {
                Some(event) => (deploy(event, "Last deploy", at, &zone, up)),
                None => {
                    span class="item quiet" {
                        "No deploys yet. " a href={ (up) "start" } { "Post one" }
                    }
                }
            }
            @if let Some(event) = harmful { (deploy(event, words, at, &zone, up)) }
            @for event in under_way.take(UNDER_WAY) {
                (deploy(event, "Also", at, &zone, up))
            }
        }
    }
}

/// Whether an event is a deploy by its tags.
pub(super) fn is_deploy(event: &Event) -> bool {
    let is_one = |tag: &String| DEPLOYS.split(',').any(|deploy| deploy == tag);
    event.tags.iter().any(is_one)
}

fn is_under_way(event: &Event, at: f64) -> bool {
    event.status == Status::Started && event.until.is_none() && at - event.when < OPEN_AT_MOST
}

/// Whether a deploy failed, was rolled back, or was judged worse and nobody objected.
fn is_harmful(event: &Event) -> bool {
    matches!(event.status, Status::Failed | Status::RolledBack) || turned_out_worse(event)
}

fn turned_out_worse(event: &Event) -> bool {
    let refuted = [Some(Correction::Wrong), Some(Correction::Expected)];
    event.impact.as_ref().is_some_and(|report| {
        report.verdict == Outcome::Worse && !refuted.contains(&report.correction)
    })
}

fn data(arrivals: Arrivals, at: f64) -> Markup {
    let class = match arrivals.last {
        Some(last) if at - last <= STALE => "item data",
        Some(_) => "item data loud",
        None => "item data quiet",
    };
    html! {
        span class=(class) data-data="" {
            @match arrivals.last {
                Some(last) => { "Last data " (age(last, at, &TimeZone::UTC)) },
                None => { "No data received since the start " (age(arrivals.since, at, &TimeZone::UTC)) },
            }
        }
    }
}

/// A timestamp as its age, which open pages keep true.
pub(crate) fn age(when: f64, at: f64, zone: &TimeZone) -> Markup {
    html! {
        time data-ago=(format!("{when:.1}")) title=(timestamp(when, zone)) {
            (ago(at - when))
        }
    }
}

fn deploy(event: &Event, words: &str, at: f64, zone: &TimeZone, up: &str) -> Markup {
    let class = match event.status {
        Status::Failed => "item deploy loud failed",
        Status::RolledBack => "item deploy loud rolled_back",
        Status::Started => "item deploy loud started",
        Status::Succeeded | Status::Unstated if turned_out_worse(event) => {
            "item deploy loud failed"
        }
        Status::Succeeded | Status::Unstated => "item deploy",
    };
    html! {
        span class=(class) {
            (words) " " (age(event.when, at, zone)) ": "
            a href=(event_path(up, event.id)) { strong { (event.what) } }
            (status(event))
            (verdict(event))
            @let by = first_line(&event.data, 80);
            @if !by.is_empty() { span class="by" { (by) } }
            @if turned_out_worse(event) && let Some(effect) = effect(event) {
                @if !by.is_empty() { span class="by" { " · " } }
                span class="by" { (effect) }
            }
        }
    }
}

/// The page of an event.
pub(crate) fn event_path(up: &str, id: i64) -> String {
    format!("{up}events/{id}/")
}

/// How a change went, in a word and a colour; nothing for one without a status.
pub(crate) fn status(event: &Event) -> Markup {
    let (class, words) = match event.status {
        Status::Started => ("started", "under way"),
        Status::Succeeded => ("succeeded", "succeeded"),
        Status::Failed => ("failed", "failed"),
        Status::RolledBack => ("rolled_back", "rolled back"),
        Status::Unstated => ("", ""),
    };
    let ended = event.until.filter(|until| *until > event.when);
    let took = match words {
        "" => "took ",
        _ => ", took ",
    };
    let plain = event.status.is_unstated() && ended.is_none();
    html! {
        @if event.rollback_of.is_some() { span class="badge rollback" { "rollback" } }
        @if !plain {
            span class={ "badge " (class) } {
                (words)
                @if let Some(until) = ended { (took) (length(until - event.when)) }
            }
        }
    }
}
