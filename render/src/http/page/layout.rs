//! What every page has: its head, the strip, and the links to all pages.

use axum::http::StatusCode;
use maud::{DOCTYPE, Markup, html};

use super::strip::strip;
use super::view::View;
use super::{FRONT, Page, assets, html_answer};
use crate::http::Answer;
use crate::http::html::finish;

/// A page without what all pages have.
pub(crate) struct Layout<'a> {
    /// The title in the browser's tab.
    pub(crate) title: &'a str,
    /// The path of the page below `/`, without a slash at its start; its link is the current one.
    pub(crate) path: &'a str,
    /// The options of the page, kept by the links to other pages.
    pub(crate) view: &'a View,
    /// The relative path to `/`: "", "../" or "../../".
    pub(crate) up: &'a str,
    /// The seconds between two refreshes; 0 for never.
    pub(crate) refresh: u64,
    /// Further elements of the head.
    pub(crate) head: Markup,
    /// The contents of `main`. Parts with `data-part="NAME"` are replaced when events change.
    pub(crate) content: Markup,
}

impl Layout<'_> {
    /// The whole document. It reads events: the caller's thread may block.
    pub(crate) fn document(self, page: &Page) -> String {
        let Self {
            title,
            path,
            view,
            up,
            refresh,
            head,
            content,
        } = self;
        finish(html! {
            (DOCTYPE)
            html lang="en" data-theme=[view.theme] data-wall=[view.wall.then_some("1")] {
                head {
                    meta charset="utf-8";
                    title { (title) " · plumbago" }
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    @if refresh > 0 {
                        noscript { meta http-equiv="refresh" content=(refresh); }
                    }
                    link rel="icon" href=(assets::path(up, "icon.svg"));
                    link rel="stylesheet" href=(assets::path(up, "style.css"));
                    // All modules at once: each import would be asked for only when its importer has come.
                    @for name in assets::modules() {
                        link rel="modulepreload" href=(assets::path(up, name));
                    }
                    script type="module" src=(assets::path(up, "app.js")) {}
                    (head)
                }
                body data-refresh=(refresh) data-up=(up) data-version=(*assets::VERSION)
                    data-refused=[(!view.refused.is_empty()).then(|| view.refused.join(" "))]
                    data-tz=(view.zone(page).iana_name().unwrap_or("UTC")) {
                    a class="skip" href="#main" { "Skip to the content" }
                    p id="stale" class="stale" role="alert" hidden {}
                    (strip(page, view, up))
                    header {
                        a class="name" href={ (home(up)) (view.kept()) } { "plumbago" }
                        (navigation(page, path, view, up))
                        button id="help" type="button" class="needs-script" aria-label="keyboard" { "?" }
                        (view.themes())
                    }
                    main id="main" tabindex="-1" {
                        @for problem in &view.problems { p class="problem" role="alert" { (problem) } }
                        (content)
                    }
                }
            }
        })
    }
}

/// The answer to a browser that asks for a `path` at which there is nothing.
pub fn nothing_at(path: &str) -> Answer {
    let up = "../".repeat(path.matches('/').count().saturating_sub(1));
    let page = finish(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                title { "No such page · plumbago" }
                meta name="viewport" content="width=device-width, initial-scale=1";
                link rel="icon" href=(assets::path(&up, "icon.svg"));
                link rel="stylesheet" href=(assets::path(&up, "style.css"));
            }
            body {
                header { a class="name" href=(home(&up)) { "plumbago" } }
                main {
                    h1 { "No such page" }
                    p { "There is nothing at " code { (path) } "." }
                    p { a href=(home(&up)) { "Graphs" } " · " a href={ (up) "explore" } { "Explore" } " · "
                        a href={ (up) "events/" } { "Events" } }
                }
            }
        }
    });
    html_answer(StatusCode::NOT_FOUND, page)
}

/// A link to the front page: an empty one would keep the current query.
fn home(up: &str) -> &str {
    match up {
        "" => "./",
        up => up,
    }
}

/// Links to pages that are not dashboards: path and text.
const PAGES: &[(&str, &str)] = &[
    ("explore", "Explore"),
    ("events/", "Events"),
    ("changes", "Changes"),
    ("start", "Send data"),
];

fn navigation(page: &Page, path: &str, view: &View, up: &str) -> Markup {
    let dashboards = page.dashboards();
    let kept = view.kept();
    html! {
        nav aria-label="pages" {
            @for (name, dashboard) in dashboards.iter() {
                @let (there, href) = match name {
                    FRONT => (String::new(), home(up).to_owned()),
                    name => {
                        let there = format!("dashboards/{}", encode(name));
                        let href = format!("{up}{there}");
                        (there, href)
                    }
                };
                a href={ (href) (kept) } aria-current=[(there == path).then_some("page")] {
                    (dashboard.title)
                }
            }
            @for name in dashboards.unreadable() {
                @let there = format!("dashboards/{}", encode(name));
                a class="wrong" href={ (up) (there) (kept) } aria-current=[(there == path).then_some("page")] {
                    (name) ": error"
                }
            }
            @for (there, text) in PAGES {
                a href={ (up) (there) (kept) } aria-current=[(*there == path).then_some("page")] {
                    (text)
                }
            }
        }
    }
}

/// A name as a part of a path.
pub(super) fn encode(part: &str) -> String {
    form_urlencoded::byte_serialize(part.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}
