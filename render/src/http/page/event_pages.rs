//! The pages of events: the list with its search and its form, and one event.

use axum::http::StatusCode;
use maud::{Markup, html};

use super::deploy::verdict;
use super::layout::Layout;
use super::live::now;
use super::strip::{age, event_path, is_deploy, status};
use super::view::View;
use super::words::{length, timestamp};
use super::{Page, html_answer};
use crate::events::draft::is_web_link;
use crate::events::{Event, Status};
use crate::http::{Answer, Params};

/// The list of `events`, newest last, that `params` selected; `limit` is the most that it holds.
pub(crate) fn list(page: &Page, params: &Params, events: &[Event], limit: usize) -> Answer {
    let mut view = View::of(params);
    let tags = params.get("tags").unwrap_or_default();
    // The search stays when the colours change.
    let searched = params
        .pairs()
        .iter()
        .filter(|(key, _)| ["tags", "limit"].contains(&key.as_str()));
    view.extra = searched.cloned().collect();
    let zone = view.zone(page);
    let at = now();
    let content = html! {
        h1 { "Events" }
        form class="search" method="get" role="search" {
            label { "Tags"
                input name="tags" value=(tags) size="30"
                    placeholder="deploy web; deploy,config; deploy -canary; service:web*"; }
            label { "From" input name="from" value=(view.from.as_deref().unwrap_or("")) placeholder="-7d" size="14"; }
            label { "Until" input name="until" value=(view.until.as_deref().unwrap_or("")) placeholder="now" size="14"; }
            @for (name, value) in view.pairs().filter(|(name, _)| ["tz", "theme"].contains(&name.as_str())) {
                input type="hidden" name=(name) value=(value);
            }
            button { "Search" }
        }
        (form())
        section class="events" data-part="events" aria-label="events" {
            @if events.is_empty() {
                p class="quiet" { "No events match. " a href="../start" { "How to post one" } "." }
            } @else {
                ol {
                    @for event in events.iter().rev() {
                        li data-event=(event.id) {
                            div class="what" {
                                a href=(event_path("../", event.id)) { (event.what) }
                                (status(event))
                                (verdict(event))
                                (link(event))
                            }
                            @if !event.data.is_empty() { div class="by data" { (event.data) } }
                            div class="quiet" {
                                (age(event.when, at, &zone)) " · " (timestamp(event.when, &zone)) " · #" (event.id) " "
                                (tag_links(event, "../"))
                            }
                            (actions(event))
                        }
                    }
                }
                @if events.len() == limit {
                    p class="quiet" {
                        "The newest " (limit) ". " code { "From" } " and " code { "Until" } " show others."
                    }
                }
            }
        }
    };
    let layout = Layout {
        title: "Events",
        path: "events/",
        view: &view,
        up: "../",
        refresh: 60,
        head: html! {},
        content,
    };
    html_answer(StatusCode::OK, layout.document(page))
}

/// One event with those that it rolls back and that roll it back.
pub(crate) fn one(page: &Page, params: &Params, event: &Event, undone_by: &[Event]) -> Answer {
    let view = View::of(params);
    let zone = view.zone(page);
    let at = now();
    let content = html! {
        h1 { (event.what) " " (status(event)) (verdict(event)) }
        section data-part="event" aria-label="event" {
            table {
                tr { th { "When" } td { (timestamp(event.when, &zone)) " (" (age(event.when, at, &zone)) ")" } }
                @if let Some(until) = event.until {
                    tr { th { "Until" } td { (timestamp(until, &zone)) " (" (length(until - event.when)) ")" } }
                }
                @if !event.data.is_empty() { tr { th { "Data" } td class="data" { (event.data) } } }
                tr { th { "Tags" } td { (tag_links(event, "../../")) } }
                @if event.link.is_some() { tr { th { "Link" } td { (link(event)) } } }
                @if let Some(undone) = event.rollback_of {
                    tr { th { "Rolls back" } td { a href=(event_path("../../", undone)) { "#" (undone) } } }
                }
                @for other in undone_by {
                    tr { th { "Rolled back by" } td { a href=(event_path("../../", other.id)) { (other.what) } } }
                }
            }
            (actions(event))
        }
        (form())
        p {
            @let around = format!("from={}&until={}", event.when as i64 - 3600, (event.when as i64 + 3600).min(at as i64 + 1));
            a href={ "../../?" (around) } { "Graphs around it" } " · "
            a href={ "../../deploy/" (event.id) } { "What it changed" } " · "
            a href="../" { "All events" }
        }
    };
    let layout = Layout {
        title: &event.what,
        path: "events/",
        view: &view,
        up: "../../",
        refresh: 60,
        head: html! {},
        content,
    };
    html_answer(StatusCode::OK, layout.document(page))
}

/// The answer to an unknown event.
pub(crate) fn missing(page: &Page) -> Answer {
    let layout = Layout {
        title: "Not Found",
        path: "events/",
        view: &View::default(),
        up: "../../",
        refresh: 0,
        head: html! {},
        content: html! {
            h1 { "Not Found" }
            p { "There is no such event. " a href="../" { "All events" } }
        },
    };
    html_answer(StatusCode::NOT_FOUND, layout.document(page))
}

fn link(event: &Event) -> Markup {
    html! {
        @if let Some(url) = event.link.as_deref().filter(|link| is_web_link(link)) {
            " " a class="out" rel="noopener noreferrer" href=(url) { "link" }
        }
    }
}

fn tag_links(event: &Event, up: &str) -> Markup {
    html! {
        @for tag in &event.tags {
            @let query: String = form_urlencoded::byte_serialize(tag.as_bytes()).collect();
            a class="tag" href={ (up) "events/?tags=" (query) } { (tag) }
        }
    }
}

/// Buttons that need the script.
fn actions(event: &Event) -> Markup {
    let is_open = event.status == Status::Started && event.until.is_none();
    html! {
        div class="actions needs-script" {
            button type="button" data-act="edit" data-id=(event.id) { "Edit" }
            @if is_open { button type="button" data-act="end" data-id=(event.id) { "End" } }
            @if is_deploy(event) && event.rollback_of.is_none() && event.status != Status::RolledBack {
                button type="button" data-act="rollback" data-id=(event.id) { "Roll back" }
            }
            button type="button" data-act="delete" data-id=(event.id) { "Delete" }
        }
    }
}

/// The form for a new event, and for changing one.
fn form() -> Markup {
    html! {
        details class="post needs-script" {
            summary { "Post an event" }
            form id="post" {
                label { "What" input name="what" required maxlength="500" placeholder="web 1.4.2"; }
                label { "Tags" input name="tags" value="deploy" placeholder="deploy web"; }
                label { "Data: who, why, which revision" textarea name="data" rows="2" {} }
                label { "Status"
                    select name="status" {
                        option value="" { "none" }
                        @for status in Status::GIVEN { option value=(status.name()) { (status.name().replace('_', " ")) } }
                    }
                }
                label { "When (UTC)" input name="when" placeholder="now"; }
                label { "Until (UTC)" input name="until"; }
                label { "Link" input name="link" type="url" placeholder="https://"; }
                label hidden { "Token" input id="token" type="password" autocomplete="off"; }
                button { "Post" }
            }
        }
        p id="said" class="problem" role="alert" hidden {}
    }
}
