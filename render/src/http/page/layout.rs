//! What every page has: its head, and the links to all dashboards.

use maud::{DOCTYPE, Markup, html};

use super::view::View;
use super::{FRONT, Page};
use crate::http::html::finish;

/// A page between its head and its end.
pub(super) struct Layout<'a> {
    /// The title; the dashboard of that title is the current one.
    pub(super) title: &'a str,
    /// The options of the page, kept by the links to other dashboards.
    pub(super) view: &'a View,
    /// The relative path to `/`: "" or "../".
    pub(super) up: &'a str,
    /// The seconds between two refreshes; 0 for never.
    pub(super) refresh: u64,
    /// Further links of the header.
    pub(super) links: Markup,
    /// `main` and `footer`.
    pub(super) content: Markup,
}

impl Layout<'_> {
    /// The whole document.
    pub(super) fn document(self, page: &Page) -> String {
        let Self {
            title,
            view,
            up,
            refresh,
            links,
            content,
        } = self;
        finish(html! {
            (DOCTYPE)
            html lang="en" data-theme=[view.theme] {
                head {
                    meta charset="utf-8";
                    title { (title) " · plumbago" }
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    @if refresh > 0 {
                        noscript { meta http-equiv="refresh" content=(refresh); }
                    }
                    link rel="icon" href="data:,";
                    link rel="stylesheet" href={ (up) "page/style.css" };
                    script type="module" src={ (up) "page/page.js" } {}
                }
                body data-refresh=(refresh) {
                    header {
                        a class="name" href=(home(up)) { "plumbago" }
                        (navigation(page, title, view, up))
                        (links)
                    }
                    (content)
                }
            }
        })
    }
}

/// A link to the front page: an empty one would keep the current query.
fn home(up: &str) -> &str {
    match up {
        "" => "./",
        up => up,
    }
}

fn navigation(page: &Page, title: &str, view: &View, up: &str) -> Markup {
    let dashboards = page.dashboards();
    let query = view.query();
    html! {
        nav aria-label="dashboards" {
            @for (name, dashboard) in dashboards.iter() {
                @let path = match name {
                    FRONT => home(up).to_owned(),
                    name => format!("{up}dashboards/{}", encode(name)),
                };
                @let is_current = dashboard.title == title;
                a href={ (path) (query) } aria-current=[is_current.then_some("page")] {
                    (dashboard.title)
                }
            }
            a href={ (up) "start" } { "Send data" }
        }
    }
}

/// A name as a part of a path.
fn encode(part: &str) -> String {
    form_urlencoded::byte_serialize(part.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}
