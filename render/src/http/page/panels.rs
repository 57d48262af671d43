//! A dashboard: a picture for each panel, and the events of its time range.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use form_urlencoded::Serializer;
use maud::{Markup, html};

use super::layout::Layout;
use super::view::{View, seconds_back};
use super::words::{ago, count, length, timestamp};
use super::{Dashboard, Page, Panel};
use crate::events::draft::is_web_link;
use crate::events::{Event, Status};

/// The page shows at most this many events in its table.
const EVENTS_SHOWN: usize = 20;
/// A panel that needs more series than this is not drawn every few seconds.
const SERIES_PER_PANEL: usize = 2_000;

/// The page of the dashboard `name`. `panels` are those that have data, each with the number of
/// series it reads.
pub(super) fn dashboard_page(
    page: &Page,
    name: &str,
    dashboard: &Dashboard,
    panels: &[(&Panel, usize)],
    view: &View,
    up: &str,
) -> String {
    let host = &page.0.host;
    let from = view.from.as_deref().unwrap_or(&dashboard.from);
    let events = view.events.as_deref().unwrap_or(&dashboard.events);
    let picture = PictureLinks {
        from,
        events,
        theme: view.theme,
        up,
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let back = seconds_back(from)
        .or_else(|| seconds_back(&dashboard.from))
        .unwrap_or(3_600);
    // Hidden events are hidden on the pictures only.
    let listed = if events == "none" { "*" } else { events };
    let happened = host.events(listed, now - back as f64, now, EVENTS_SHOWN);
    let notes = [host.banner().unwrap_or_default(), &dashboard.note];
    let content = html! {
        main {
            h1 { (dashboard.title) }
            @for note in notes.iter().filter(|note| !note.is_empty()) {
                p class="note" { (note) }
            }
            @if panels.is_empty() {
                p { "The panels of this dashboard have no data yet." }
            }
            div class="panels" {
                @for (panel, n_series) in panels { (picture.figure(panel, *n_series)) }
            }
            (events_table(&happened, now, up))
        }
        footer {
            span data-received={ (up) "received" } {
                "received: " strong { (count(host.received(), "metric")) }
            }
            span { (name) ": " (count(panels.len() as u64, "panel")) }
        }
    };
    let layout = Layout {
        title: &dashboard.title,
        view,
        up,
        refresh: dashboard.refresh.0.as_secs(),
        links: view.links(from, events),
        content,
    };
    layout.document(page)
}

/// What the `/render` URLs of all panels have in common.
struct PictureLinks<'a> {
    from: &'a str,
    events: &'a str,
    theme: Option<&'static str>,
    up: &'a str,
}

impl PictureLinks<'_> {
    fn figure(&self, panel: &Panel, n_series: usize) -> Markup {
        let is_dark = self.theme == Some("dark");
        let png = self.url(panel, "png", is_dark);
        html! {
            figure {
                figcaption {
                    h2 { (panel.title) }
                    span class="links quiet" {
                        a href=(self.url(panel, "svg", is_dark)) { "SVG" } " "
                        a href=(png) { "PNG" } " "
                        a href=(self.url(panel, "json", false)) { "JSON" }
                    }
                }
                @if n_series > SERIES_PER_PANEL {
                    p class="quiet" {
                        (count(n_series as u64, "series match"))
                        ": too many to redraw every few seconds. To select some of them, write a \
                         dashboard file."
                    }
                } @else {
                    // The script draws the SVG; without it, the browser shows the PNG.
                    div class="picture" data-label=(panel.title)
                        data-light=(self.url(panel, "svg", false))
                        data-dark=(self.url(panel, "svg", true)) {
                        noscript {
                            picture {
                                @if self.theme.is_none() {
                                    source media="(prefers-color-scheme: dark)"
                                        srcset=(self.url(panel, "png", true));
                                }
                                img alt=(panel.title) src=(png);
                            }
                        }
                    }
                }
            }
        }
    }

    /// The `/render` URL of a panel.
    fn url(&self, panel: &Panel, format: &str, is_dark: bool) -> String {
        let start = format!("{}render?", self.up);
        let begun = start.len();
        let mut query = Serializer::for_suffix(start, begun);
        for target in &panel.targets {
            query.append_pair("target", target);
        }
        query.append_pair("from", self.from);
        query.append_pair("format", format);
        query.append_pair("strict", "1");
        if format == "json" {
            return query.finish();
        }
        let colour = |light, dark| if is_dark { dark } else { light };
        let mut params: BTreeMap<&str, &str> = BTreeMap::from([
            ("events", self.events),
            ("width", "600"),
            ("height", "300"),
            ("hideLegend", "false"),
            ("template", "grafana"),
            ("bgcolor", colour("ffffff", "1a2027")),
            ("fgcolor", colour("333b45", "c3ccd6")),
            ("majorGridLineColor", colour("d5dae0", "38424d")),
            ("minorGridLineColor", colour("eceff2", "252d36")),
        ]);
        if format == "png" {
            params.insert("pixelRatio", "2");
        }
        for (key, value) in &panel.params {
            params.insert(key, value);
        }
        query.extend_pairs(params);
        query.finish()
    }
}

fn events_table(happened: &[Event], now: f64, up: &str) -> Markup {
    html! {
        section {
            h2 { "Deploys and events" }
            @if happened.is_empty() {
                p class="quiet" {
                    "No events in this time range. " a href={ (up) "start" } { "Post one" } "."
                }
            } @else {
                table {
                    thead { tr { th { "when (UTC)" } th { "what" } th { "tags" } th { "status" } } }
                    tbody { @for event in happened.iter().rev() { (event_line(event, now)) } }
                }
            }
        }
    }
}

fn event_line(event: &Event, now: f64) -> Markup {
    let (class, words) = match event.status {
        Status::Started => ("started", "under way"),
        Status::Succeeded => ("succeeded", "succeeded"),
        Status::Failed => ("failed", "failed"),
        Status::RolledBack => ("rolled_back", "rolled back"),
    };
    let ended = event.until.filter(|until| *until > event.when);
    html! {
        tr {
            td class="when" {
                (timestamp(event.when))
                br; span class="quiet" { (ago(now - event.when)) }
            }
            td class="what" {
                @match event.link.as_deref().filter(|link| is_web_link(link)) {
                    Some(url) => a rel="noopener noreferrer" href=(url) { (event.what) },
                    None => (event.what),
                }
                @if !event.data.is_empty() { br; span class="quiet" { (event.data) } }
            }
            td { @for tag in &event.tags { span class="tag" { (tag) } } }
            td {
                span class=(class) {
                    @if event.rollback_of.is_some() { "rollback" } @else { (words) }
                    @if let Some(until) = ended { ", took " (length(until - event.when)) }
                }
            }
        }
    }
}
