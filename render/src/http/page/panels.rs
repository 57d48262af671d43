//! A dashboard: a picture for each panel, and the events of its time range.

use std::collections::{BTreeMap, BTreeSet};

use form_urlencoded::Serializer;
use jiff::tz::TimeZone;
use maud::{Markup, html};

use super::dashboard::Good;
use super::deploy::{verdict, without_badge};
use super::layout::{Layout, encode};
use super::live::now;
use super::strip::{age, event_path, is_deploy, status};
use super::unfurl;
use super::variables::{self, Offered};
use super::view::View;
use super::words::{count, first_line, timestamp};
use super::{Dashboard, FRONT, Page, Panel};
use crate::draw::without_figures;
use crate::events::Event;
use crate::events::draft::is_web_link;
use crate::verdicts::finding_key;

/// The screens that show a graph over their whole width, as `style.css` has them.
const PHONE: &str = "(max-width: 640px)";
/// The page shows at most this many events in its table.
const EVENTS_SHOWN: usize = 20;
/// A panel that needs more series than this is not drawn every few seconds.
pub(super) const SERIES_PER_PANEL: usize = 2_000;

/// The page of the dashboard `name`. `panels` are those that have data, each with the number of
/// series it reads.
pub(super) fn dashboard_page(
    page: &Page,
    name: &str,
    dashboard: &Dashboard,
    panels: &[(Panel, usize)],
    (view, variables): (&View, &[Offered]),
    (up, base): (&str, Option<&str>),
) -> String {
    let host = &page.0.host;
    let from = view.from.as_deref().unwrap_or(&dashboard.from);
    let events = view.events.as_deref().unwrap_or(&dashboard.events);
    let zone = view.zone(page);
    let picture = PictureLinks {
        from,
        until: view.until.as_deref(),
        tz: view.tz.as_deref(),
        events,
        theme: view.theme,
        up,
    };
    let now = now();
    let (start, end) = view.range(&dashboard.from, &zone, now as i64);
    // Hidden events are hidden on the pictures only.
    let listed = if events == "none" { "*" } else { events };
    let titles = titles(page, panels, (start, end), &zone);
    let happened = page.around(listed, start as f64, end as f64 + 0.999_999, EVENTS_SHOWN);
    let content = html! {
        div class="head" {
            h1 { (dashboard.title) }
            @for link in &dashboard.links { a href=(link.url) { (link.title) } }
            (variables::form(variables, view))
            (view.tools(&dashboard.from, &zone))
        }
        (notes(page, name, dashboard))
        p id="zoomed" hidden { span {} button type="button" { "Back" } }
        div id="tags" role="group" aria-label="events on the graphs, by tag" {}
        div class="board" data-from=(dashboard.from) {
            div class="panels" {
                @for ((panel, n_series), title) in panels.iter().zip(&titles) {
                    (picture.figure(panel, title, *n_series))
                }
                @if panels.is_empty() { (no_data(dashboard)) }
            }
            (events_list(&happened, now, &zone, up))
        }
        p class="quiet foot" data-received={ (up) "received" } {
            "received: " strong { (count(host.received(), "metric")) }
        }
    };
    let unfurled = base.and_then(|base| Some((base, &panels.first()?.0)));
    let unfurled = unfurled.map(|(base, panel)| {
        let absolute = PictureLinks {
            up: base,
            ..picture
        };
        absolute.url(panel, "png", false)
    });
    let path = match name {
        FRONT => String::new(),
        name => format!("dashboards/{}", encode(name)),
    };
    let layout = Layout {
        title: &dashboard.title,
        path: &path,
        view,
        up,
        refresh: dashboard.refresh.0.as_secs(),
        head: unfurl::tags(&dashboard.title, unfurled.as_deref()),
        content,
    };
    layout.document(page)
}

/// What is wrong with the dashboard `name`, and the notes above its panels.
fn notes(page: &Page, name: &str, dashboard: &Dashboard) -> Markup {
    let notes = [page.0.host.banner().unwrap_or_default(), &dashboard.note];
    html! {
        @for line in page.dashboards().wrong(name) {
            p class="problem" role="alert" { (line) }
        }
        @for note in notes.iter().filter(|note| !note.is_empty()) {
            p class="note" { (note) }
        }
    }
}

/// The headings of `panels`, with their figures.
fn titles(
    page: &Page,
    panels: &[(Panel, usize)],
    range: (i64, i64),
    zone: &TimeZone,
) -> Vec<String> {
    let panels = panels.iter().map(|(panel, _)| panel);
    let budget = page.budget();
    page.0
        .titles
        .of(&*page.0.source, panels, range, zone, budget.memory())
}

fn no_data(dashboard: &Dashboard) -> Markup {
    html! {
        section class="nothing" {
            h2 { "No data yet" }
            p { "No series has a name that the panels of this dashboard look for:" }
            ul {
                @for panel in &dashboard.panels {
                    li { (without_figures(&panel.title)) ": " code { (panel.needs) } }
                }
            }
        }
    }
}

/// What the `/render` URLs of all panels have in common.
#[derive(Clone, Copy)]
pub(super) struct PictureLinks<'a> {
    pub(super) from: &'a str,
    pub(super) until: Option<&'a str>,
    pub(super) tz: Option<&'a str>,
    pub(super) events: &'a str,
    pub(super) theme: Option<&'static str>,
    pub(super) up: &'a str,
}

impl PictureLinks<'_> {
    pub(super) fn figure(&self, panel: &Panel, title: &str, n_series: usize) -> Markup {
        self.described(panel, title, n_series, &html! {})
    }

    /// A figure with a sentence below its heading.
    pub(super) fn described(
        &self,
        panel: &Panel,
        title: &str,
        n_series: usize,
        sentence: &Markup,
    ) -> Markup {
        let is_dark = self.theme == Some("dark");
        let png = self.url(panel, "png", is_dark);
        let too_many = n_series > SERIES_PER_PANEL;
        html! {
            figure data-query=[(!too_many).then(|| self.query(panel))] data-unit=(panel.unit)
                data-good=[panel.good.map(Good::name)] data-warn=[panel.warn] data-critical=[panel.critical] {
                figcaption {
                    h2 { (title) }
                    @for link in &panel.links { a href=(link.url) { (link.title) } }
                    span class="links quiet" {
                        a href=(self.url(panel, "svg", is_dark)) { "SVG" } " "
                        a href=(png) { "PNG" } " "
                        a href=(self.url(panel, "json", false)) { "JSON" }
                    }
                }
                @if !sentence.0.is_empty() { p class="about" { (sentence) } }
                @if too_many {
                    p class="quiet" {
                        (count(n_series as u64, "series match"))
                        ": too many to redraw every few seconds. To select some of them, write a \
                         dashboard file."
                    }
                } @else {
                    // The script draws the graph; without it, the browser shows the PNG.
                    div class="picture" {
                        noscript {
                            picture {
                                @if self.theme.is_none() {
                                    source media={ (PHONE) " and (prefers-color-scheme: dark)" }
                                        srcset=(self.small(panel, true));
                                }
                                source media=(PHONE) srcset=(self.small(panel, is_dark));
                                @if self.theme.is_none() {
                                    source media="(prefers-color-scheme: dark)"
                                        srcset=(self.url(panel, "png", true));
                                }
                                img alt=(without_figures(&panel.title)) src=(png);
                            }
                        }
                    }
                }
            }
        }
    }

    /// The parameters of a panel's graph, but for its range, size and colours.
    fn query(&self, panel: &Panel) -> String {
        let mut query = Serializer::new(String::new());
        for target in panel.drawn() {
            query.append_pair("target", &target);
        }
        let mut params = BTreeMap::from([
            ("events", panel.events.as_deref().unwrap_or(self.events)),
            ("strict", "1"),
            ("title", &panel.title),
            ("template", "grafana"),
        ]);
        for (key, value) in &panel.params {
            params.insert(key, value);
        }
        query.extend_pairs(params);
        query.finish()
    }

    /// The URL of a panel's picture for a phone: a wide one that is scaled down cannot be read.
    fn small(&self, panel: &Panel, is_dark: bool) -> String {
        let size = [("width", "350"), ("height", "230"), ("fontSize", "11")];
        self.sized(panel, "png", is_dark, size)
    }

    /// The `/render` URL of a panel.
    fn url(&self, panel: &Panel, format: &str, is_dark: bool) -> String {
        let size = [("width", "600"), ("height", "300"), ("fontSize", "10")];
        self.sized(panel, format, is_dark, size)
    }

    fn sized(&self, panel: &Panel, format: &str, is_dark: bool, size: [(&str, &str); 3]) -> String {
        let start = format!("{}render?", self.up);
        let begun = start.len();
        let mut query = Serializer::for_suffix(start, begun);
        for target in panel.drawn() {
            query.append_pair("target", &target);
        }
        query.append_pair("from", self.from);
        for (name, value) in [("until", self.until), ("tz", self.tz)] {
            if let Some(value) = value {
                query.append_pair(name, value);
            }
        }
        query.append_pair("format", format);
        query.append_pair("strict", "1");
        if format == "json" {
            return query.finish();
        }
        let colour = |light, dark| if is_dark { dark } else { light };
        let mut params: BTreeMap<&str, &str> = BTreeMap::from([
            ("events", panel.events.as_deref().unwrap_or(self.events)),
            ("hideLegend", "false"),
            ("template", "grafana"),
            ("bgcolor", colour("ffffff", "1a2027")),
            ("fgcolor", colour("333b45", "c3ccd6")),
            ("majorGridLineColor", colour("d5dae0", "38424d")),
            ("minorGridLineColor", colour("eceff2", "252d36")),
        ]);
        params.extend(size);
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

/// `happened` without the events which only say that a deploy among them turned out worse: the deploy shows its verdict.
fn without_findings(happened: &[Event]) -> Vec<&Event> {
    let judged = happened.iter().filter(|event| event.impact.is_some());
    let findings: BTreeSet<String> = judged.map(|event| finding_key(event.id)).collect();
    let is_finding = |event: &&Event| event.key.as_ref().is_some_and(|key| findings.contains(key));
    let others = happened.iter().filter(|event| !is_finding(event));
    others.collect()
}

pub(super) fn events_list(happened: &[Event], now: f64, zone: &TimeZone, up: &str) -> Markup {
    html! {
        section class="events" data-part="events" aria-label="deploys and events" {
            h2 { "Deploys and events" }
            @if happened.is_empty() {
                p class="quiet" {
                    "No events in this time range. " a href={ (up) "start" } { "Post one" } "."
                }
            } @else {
                ol {
                    @for event in without_findings(happened).into_iter().rev() { (event_line(event, now, zone, up)) }
                }
            }
            p { a href={ (up) "events/" } { "All events" } }
        }
    }
}

fn event_line(event: &Event, now: f64, zone: &TimeZone, up: &str) -> Markup {
    let class = is_deploy(event).then_some("is-deploy");
    html! {
        li class=[class] data-event=(event.id) {
            div class="what" {
                a href=(event_path(up, event.id)) { (event.what) }
                (status(event))
                (verdict(event))
                @if let Some(url) = event.link.as_deref().filter(|link| is_web_link(link)) {
                    a class="out" rel="noopener noreferrer" href=(url) { "link" }
                }
            }
            @if let Some(report) = &event.impact { div class="by" { (without_badge(report)) } }
            @let data = first_line(&event.data, 200);
            @if !data.is_empty() { div class="by" { (data) } }
            div class="quiet" {
                (age(event.when, now, zone)) " · " (timestamp(event.when, zone)) " "
                @for tag in &event.tags { span class="tag" { (tag) } }
            }
        }
    }
}
