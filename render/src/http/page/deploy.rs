//! `/deploy/ID`: what one deploy changed, and how to undo it.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use form_urlencoded::Serializer;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::layout::Layout;
use super::live::now;
use super::panels::PictureLinks;
use super::strip::{age, event_path, status};
use super::words::{length, timestamp};
use super::{Page, Panel, View, html_answer};
use crate::events::draft::is_web_link;
use crate::events::{Event, Status};
use crate::http::negotiate::negotiated;
use crate::http::params::InQuery;
use crate::http::{Answer, Params};
use crate::impact::{Outcome, Report, SeriesReport, State as Lasting, Worth};

/// Series that are shown as graphs.
const GRAPHS: usize = 12;
/// Targets of the picture for chats: series of different units do not fit on one axis.
const DRAWN: usize = 1;
/// Minutes before and after the deploy on its graphs.
const AROUND: f64 = 90.0 * 60.0;
/// How often graphs to which values are added are refreshed, in seconds.
const REFRESH: u64 = 10;
/// The deploys around one that are listed, on each side.
const NEIGHBOURS: f64 = 86_400.0;

/// The routes of these pages.
pub(super) fn routes() -> Router<Page> {
    Router::new()
        .route(
            "/deploy/{id}",
            get(|page, id, headers, query| deploy(page, id, headers, query, "../")),
        )
        .route(
            "/deploy/{id}/",
            get(|page, id, headers, query| deploy(page, id, headers, query, "../../")),
        )
}

async fn deploy(
    State(page): State<Page>,
    Path(id): Path<String>,
    headers: HeaderMap,
    InQuery(params): InQuery,
    up: &'static str,
) -> Answer {
    page.answer(move |page| {
        let (number, is_picture) = match id.strip_suffix(".png") {
            Some(number) => (number, true),
            None => (id.as_str(), false),
        };
        let event = number.parse().ok().and_then(|id| page.event(id));
        let answer = match event {
            Some(event) if is_picture => picture(page, &event),
            Some(event) => html_answer(StatusCode::OK, deploy_page(page, &event, &params, up)),
            None => html_answer(StatusCode::NOT_FOUND, unknown(page, &params, up)),
        };
        negotiated(&headers, answer)
    })
    .await
}

/// A redirection to the picture of what `event` changed most, for chats.
fn picture(page: &Page, event: &Event) -> Answer {
    let mut targets: Vec<&str> = event
        .impact
        .iter()
        .flat_map(|report| strongest(report))
        .collect();
    targets.truncate(DRAWN);
    let title = match &event.impact {
        Some(report) => format!("{}: {}", event.what, verdict_words(report.verdict)),
        None => event.what.clone(),
    };
    let query = graph_query(
        event,
        &targets,
        &[("title", &title), ("width", "800"), ("height", "400")],
    );
    let place = format!("{}/render?{query}", page.0.host.base_path());
    let moved = Answer {
        status: StatusCode::TEMPORARY_REDIRECT,
        ..Answer::text(StatusCode::OK, "")
    };
    moved.with(header::LOCATION, &place)
}

/// The strongest series of each group.
fn strongest(report: &Report) -> Vec<&str> {
    let mut last = None;
    let first_of_group = |one: &&SeriesReport| last.replace(one.group) != Some(one.group);
    report
        .series
        .iter()
        .filter(first_of_group)
        .map(|one| &*one.name)
        .collect()
}

/// The parameters of a graph of `targets` around `event`.
fn graph_query(event: &Event, targets: &[&str], further: &[(&str, &str)]) -> String {
    let mut query = Serializer::new(String::new());
    for target in targets {
        query.append_pair("target", target);
    }
    let (from, until) = range(event);
    query.append_pair("from", &from);
    query.append_pair("until", until.as_deref().unwrap_or("now"));
    query.append_pair("events", "deploy");
    for (name, value) in further {
        query.append_pair(name, value);
    }
    query.finish()
}

fn unknown(page: &Page, params: &Params, up: &str) -> String {
    let view = View::of(params);
    let layout = Layout {
        title: "Not found",
        path: "changes",
        view: &view,
        up,
        refresh: 0,
        head: html! {},
        content: html! {
            h1 { "There is no such event" }
            p { a href={ (up) "changes" } { "All changes" } }
        },
    };
    layout.document(page)
}

pub(super) const fn verdict_words(verdict: Outcome) -> &'static str {
    match verdict {
        Outcome::Worse => "worse",
        Outcome::Better => "better",
        Outcome::Changed => "changed",
        Outcome::Unchanged => "unchanged",
        Outcome::NotEnoughData => "not enough data",
    }
}

/// The verdict on a deploy as a badge, with its sentence as hover text, if there is one.
pub(super) fn verdict(event: &Event) -> Markup {
    html! {
        @if let Some(report) = &event.impact {
            span title=(report.sentence) { (badge(report)) }
        }
    }
}

/// The sentence of a verdict without what its badge says already.
pub(super) fn without_badge(report: &Report) -> &str {
    let sentence = &*report.sentence;
    let sentence = sentence.strip_prefix("so far: ").unwrap_or(sentence);
    let rest = sentence.strip_prefix(verdict_words(report.verdict));
    rest.and_then(|rest| rest.strip_prefix(": "))
        .unwrap_or(sentence)
}

/// What a deploy did to the series that it changed most, in a few words.
pub(super) fn effect(event: &Event) -> Option<&str> {
    let sentence = without_badge(event.impact.as_ref()?);
    let end = sentence.find(", ").into_iter().chain(sentence.find("; "));
    Some(&sentence[..end.min().unwrap_or(sentence.len())])
}

/// The verdict as a badge.
fn badge(report: &Report) -> Markup {
    let class = match report.verdict {
        Outcome::Worse => "badge failed",
        Outcome::Better => "badge succeeded",
        _ => "badge",
    };
    html! {
        span class=(class) {
            (verdict_words(report.verdict))
            @if !report.complete { " so far" }
        }
    }
}

/// The page of `event`.
pub(super) fn deploy_page(page: &Page, event: &Event, params: &Params, up: &str) -> String {
    let view = View::of(params);
    let zone = view.zone(page);
    let content = html! {
        h1 { (event.what) " " (status(event)) @if let Some(report) = &event.impact { (badge(report)) } }
        div data-part="verdict" {
            @match &event.impact {
                Some(report) => p { strong { (without_badge(report)) } },
                None => p {
                    "There is no verdict yet. The first look is taken five minutes after the end of a deploy; "
                    "the tags in " code { "impact.events" } " say which events are judged."
                }
            }
        }
        @if let Some(report) = &event.impact {
            (graphs(event, report, &view, up))
            div data-part="figures" { (figures(report, &zone, up)) }
        }
        (facts(event, &zone, up))
        (opinion(event, up))
        (neighbours(page, event, &zone, up))
    };
    let layout = Layout {
        title: &event.what,
        path: "changes",
        view: &view,
        up,
        refresh: if range(event).1.is_none() { REFRESH } else { 0 },
        head: html! {},
        content,
    };
    layout.document(page)
}

/// A graph for each changed series, the strongest first, and a list of the others.
fn graphs(event: &Event, report: &Report, view: &View, up: &str) -> Markup {
    let shown = report.series.iter().take(GRAPHS);
    let others = report.series.iter().skip(GRAPHS);
    let (from, until) = range(event);
    let links = PictureLinks {
        from: &from,
        until: until.as_deref(),
        tz: view.tz.as_deref(),
        events: "deploy",
        theme: view.theme,
        up,
    };
    html! {
        p id="zoomed" hidden { span {} button type="button" { "Back" } }
        div class="board whole" data-from=(from) data-until=[until.as_deref()] {
            div class="panels" {
                @for one in shown {
                    (links.described(&Panel::of(vec![one.name.clone()]), &one.name, 1, &change(one)))
                }
            }
        }
        @if report.series.len() > GRAPHS {
            details {
                summary { (others.len()) " more series" }
                ul { @for one in others { li { (one.name) " " (change(one)) } } }
            }
        }
    }
}

/// The range of the graphs of `event`: until now while the time after it is not over.
fn range(event: &Event) -> (String, Option<String>) {
    let until = event.until.unwrap_or(event.when) + AROUND;
    let until = (until < now()).then(|| format!("{until:.0}"));
    (format!("{:.0}", event.when - AROUND), until)
}

/// What happened to one series, in words, without its name.
fn change(one: &SeriesReport) -> Markup {
    let class = match one.worth {
        Worth::Worse => "badge failed",
        Worth::Better => "badge succeeded",
        Worth::Unknown => "badge",
    };
    let words = match one.worth {
        Worth::Worse => "worse",
        Worth::Better => "better",
        Worth::Unknown => "changed",
    };
    let lasting = match one.state {
        Lasting::SoFar => ", so far",
        Lasting::Lasting => ", lasting",
        Lasting::Passing => ", for a few minutes only",
    };
    let sentence = one
        .sentence
        .strip_prefix(&*one.name)
        .unwrap_or(&one.sentence);
    html! { span class=(class) { (words) (lasting) } (sentence) }
}

/// What was looked at, and how sure the verdict is.
fn figures(report: &Report, zone: &TimeZone, up: &str) -> Markup {
    let quiet = report
        .tested
        .saturating_sub(report.changed + report.passing);
    let looks: Vec<String> = report
        .looks
        .iter()
        .map(|look| look.minutes.to_string())
        .collect();
    html! {
        p class="quiet" {
            (report.tested) " series judged, " (quiet) " of them without a change; "
            (report.without_data) " with too little data, " (report.left_out) " left out; compared with "
            (report.controls) " series of others, as much as which " (report.vetoed) " moved. "
            @if !looks.is_empty() { "Looks after " (looks.join(", ")) " minutes. " }
            "Each change was compared with the changes of the same series at " (report.comparable)
            " times without a deploy. "
            @if let Some(visible) = report.visible {
                "Half of the series would have shown a change of " (format!("{:.0} %", 100.0 * visible)) ". "
            }
            "Of innocent deploys at most 5 % are accused: "
            a href={ (up) "impact/calibration" } { "how that is measured" } ". "
            "Computed " (timestamp(report.updated, zone)) "."
        }
    }
}

/// Who, when, where to read more, and how to undo it.
fn facts(event: &Event, zone: &TimeZone, up: &str) -> Markup {
    let undo = format!(
        "plumbago event wrap --what {} --tag {} --rollback-of {} -- YOUR-ROLLBACK-COMMAND",
        quoted(&format!("rollback of {}", event.what)),
        quoted(&format!("{} rollback", event.tags.join(" "))),
        event.id
    );
    html! {
        table {
            tr { th { "When" } td { (timestamp(event.when, zone)) } }
            @if let Some(until) = event.until {
                tr { th { "Duration" } td { (length(until - event.when)) } }
            }
            tr { th { "Tags" } td { (event.tags.join(" ")) } }
            @if !event.data.is_empty() { tr { th { "Data" } td { (event.data) } } }
            @if let Some(link) = event.link.as_deref().filter(|link| is_web_link(link)) {
                tr { th { "Link" } td { a href=(link) rel="noreferrer" { (link) } } }
            }
            @if let Some(undone) = event.rollback_of {
                tr { th { "Undoes" } td { a href={ (up) "deploy/" (undone) } { "#" (undone) } } }
            } @else if event.status != Status::RolledBack {
                tr {
                    th { "Roll back" }
                    td {
                        @if let Some(link) = rollback_link(&event.data) {
                            a class="button" href=(link) rel="noopener noreferrer" { "Roll back" } " or "
                        }
                        code { (undo) }
                    }
                }
            }
            tr { th { "Event" } td { a href=(event_path(up, event.id)) { "#" (event.id) } } }
        }
    }
}

/// Where a deploy is rolled back by hand: the line `rollback: https://…` of its data.
fn rollback_link(data: &str) -> Option<&str> {
    let mut lines = data.lines();
    let link = lines.find_map(|line| line.trim().strip_prefix("rollback:"))?;
    Some(link.trim()).filter(|link| is_web_link(link))
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Buttons for a person's opinion of the verdict.
fn opinion(event: &Event, up: &str) -> Markup {
    let judged = event.impact.as_ref();
    let Some(report) = judged.filter(|report| report.verdict != Outcome::NotEnoughData) else {
        return html! {};
    };
    let choices = [
        ("right", "right"),
        ("wrong", "wrong"),
        ("expected", "intended"),
        ("none", "no opinion"),
    ];
    html! {
        div class="opinion" {
            @match report.correction {
                Some(correction) => { "A person said: " strong { (correction.name()) } ". " }
                None => "Was this verdict right? ",
            }
            @for (name, words) in choices {
                form class="inline" method="post" action={ (up) "impact?event=" (event.id) "&correction=" (name) } {
                    button { (words) }
                }
            }
        }
    }
}

/// The deploys of the days before and after.
fn neighbours(page: &Page, event: &Event, zone: &TimeZone, up: &str) -> Markup {
    let (from, until) = (event.when - NEIGHBOURS, event.when + NEIGHBOURS);
    let mut others = page.events("deploy", from, until, 50);
    others.retain(|other| other.id != event.id);
    html! {
        @if !others.is_empty() {
            h2 { "Deploys around it" }
            (table(&others, zone, up))
        }
    }
}

/// Events with their verdicts.
pub(super) fn table(events: &[Event], zone: &TimeZone, up: &str) -> Markup {
    let at = now();
    html! {
        table class="changes" {
            thead { tr { th { "When" } th { "What" } th { "Verdict" } } }
            @for event in events {
                tr {
                    td { (timestamp(event.when, zone)) " (" (age(event.when, at, zone)) ")" }
                    td { a href={ (up) "deploy/" (event.id) } { (event.what) } " " (status(event)) }
                    td {
                        @if let Some(report) = &event.impact { (badge(report)) " " (without_badge(report)) }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_one_word() {
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }

    #[test]
    fn a_rollback_is_a_link_to_the_web_only() {
        let of = |data| rollback_link(data);
        assert_eq!(of("by ann\nrollback: https://ci/7"), Some("https://ci/7"));
        assert_eq!(of("rollback: javascript:alert(1)"), None);
        assert_eq!(of("no rollback"), None);
    }

    #[test]
    fn each_group_has_one_series_in_the_picture() {
        let one = |name: &str, group| SeriesReport {
            name: name.to_owned(),
            group,
            ..SeriesReport::default()
        };
        let report = Report {
            series: vec![one("a", 0), one("b", 0), one("c", 1)],
            ..Report::default()
        };
        assert_eq!(strongest(&report), ["a", "c"]);
    }
}
