//! The page at `/`: dashboards as pictures with deploy lines, or, while the store has no series to
//! draw, instructions for sending data.
//!
//! 1. The server writes all of the HTML; `page.js` only adds to it. Without JavaScript the same
//!    pictures are shown and the page reloads itself.
//! 2. Pictures are plain `/render` URLs that can be copied; the page computes no series itself.
//! 3. Every link is relative, so the page works under any prefix a proxy puts before it.
//! 4. Text goes through [`html::Html::text`]; the content security policy allows no script but ours.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use form_urlencoded::Serializer;
use settings::Span;

pub use self::dashboard::{Dashboard, Dashboards, FRONT, Panel};
use self::html::Html;
use crate::budget::Budget;
use crate::events::{Event, Status};
use crate::source::Source;

mod dashboard;
mod html;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("page.js");
const POLICY: &str = "default-src 'none'; img-src 'self'; object-src 'self'; frame-src 'self'; \
                      style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'self'";

/// The page shows at most this many events in its table.
const EVENTS_SHOWN: usize = 20;
/// A panel that needs more series than this is not drawn every few seconds.
const SERIES_PER_PANEL: usize = 2_000;
/// How long the number of series that a panel's pattern finds is kept.
const NEEDS_KEPT: Duration = Duration::from_secs(10);

/// What the page reads from the server.
pub trait Host: Send + Sync {
    /// Metrics and datapoints received from clients since the start, self metrics excluded.
    fn received(&self) -> u64;

    /// The bound addresses of each listener key.
    fn addresses(&self) -> &BTreeMap<&'static str, Vec<String>>;

    /// The newest `limit` events in `from..=until` (Unix seconds) that `expression` selects,
    /// newest last. The caller's thread may block.
    fn events(&self, expression: &str, from: f64, until: f64, limit: usize) -> Vec<Event>;

    /// A sentence shown on top of every page, for example that the data is made up.
    fn notice(&self) -> Option<&str>;
}

/// The page and what it needs; cheap to clone.
#[derive(Clone)]
pub struct Page(Arc<Inner>);

struct Inner {
    host: Arc<dyn Host>,
    source: Arc<dyn Source>,
    /// Replaced as a whole when the files are reloaded.
    dashboards: RwLock<Arc<Dashboards>>,
    /// How many series each pattern found, and when.
    found: RwLock<BTreeMap<String, (Instant, usize)>>,
}

impl Page {
    /// A page over `source` in the server `host`.
    pub fn new(host: Arc<dyn Host>, source: Arc<dyn Source>, dashboards: Dashboards) -> Self {
        Self(Arc::new(Inner {
            host,
            source,
            dashboards: RwLock::new(Arc::new(dashboards)),
            found: RwLock::default(),
        }))
    }

    /// Shows `dashboards` from now on.
    pub fn replace(&self, dashboards: Dashboards) {
        let mut current = match self.0.dashboards.write() {
            Ok(current) => current,
            Err(poisoned) => poisoned.into_inner(),
        };
        *current = Arc::new(dashboards);
    }

    /// The routes `/`, `/start`, `/dashboards/NAME`, `/received` and the two files they load.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/", get(front))
            .route("/start", get(start))
            .route("/dashboards/{name}", get(named))
            .route("/received", get(received))
            .route(
                "/page/style.css",
                get(|| file("text/css; charset=utf-8", STYLE)),
            )
            .route(
                "/page/page.js",
                get(|| file("text/javascript; charset=utf-8", SCRIPT)),
            )
            .with_state(self)
    }

    fn dashboards(&self) -> Arc<Dashboards> {
        match self.0.dashboards.read() {
            Ok(current) => current.clone(),
            Err(poisoned) => poisoned.into_inner().clone(),
        }
    }

    /// How many series `panel` reads. All requests share the result for a few seconds.
    fn found(&self, panel: &Panel) -> usize {
        let Panel { needs, except, .. } = panel;
        let key = format!("{needs} {except:?}");
        if let Ok(found) = self.0.found.read()
            && let Some((at, count)) = found.get(&key)
            && at.elapsed() < NEEDS_KEPT
            && *count > 0
        {
            return *count;
        }
        let counts = |path: &str| {
            let first = path.split('.').next().unwrap_or(path);
            !is_ours(path) && !except.iter().any(|node| node == first)
        };
        // The pattern comes from the operator's file: no budget applies.
        let found = self.0.source.find(needs, &Budget::unlimited());
        let count = found.map_or(0, |nodes| {
            let leaves = nodes.iter().filter(|node| node.leaf);
            leaves.filter(|node| counts(&node.path)).count()
        });
        if let Ok(mut found) = self.0.found.write() {
            found.insert(key, (Instant::now(), count));
        }
        count
    }

    /// The panels that have data, with the number of series they read.
    fn shown<'a>(&self, dashboard: &'a Dashboard) -> Vec<(&'a Panel, usize)> {
        let counted = dashboard.panels.iter().map(|panel| {
            let always = panel.needs.is_empty();
            (panel, if always { 1 } else { self.found(panel) })
        });
        counted.filter(|(_, count)| *count > 0).collect()
    }
}

/// Whether a series is a self metric of this server.
fn is_ours(path: &str) -> bool {
    [
        "carbon.",
        "stats.statsd.",
        "stats_counts.statsd.",
        "stats.gauges.statsd.",
        "stats.timers.statsd.",
        "statsd.",
    ]
    .iter()
    .any(|prefix| path.starts_with(prefix))
}

/// The options of the page in its URL.
#[derive(Debug, Default, PartialEq)]
struct View {
    from: Option<String>,
    events: Option<String>,
    theme: Option<&'static str>,
}

impl View {
    fn of(query: &str) -> Self {
        let mut view = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "from" if seconds_back(&value).is_some() => view.from = Some(value.into_owned()),
                "events" => view.events = Some(value.into_owned()),
                "theme" => view.theme = ["light", "dark"].into_iter().find(|theme| *theme == value),
                _ => {}
            }
        }
        view
    }

    /// The query that leads to this view.
    fn query(&self) -> String {
        let mut query = Serializer::for_suffix(String::from("?"), 1);
        let theme = self.theme.map(str::to_owned);
        for (key, value) in [
            ("from", &self.from),
            ("events", &self.events),
            ("theme", &theme),
        ] {
            if let Some(value) = value {
                query.append_pair(key, value);
            }
        }
        query.finish()
    }
}

/// `-6h` as seconds.
fn seconds_back(from: &str) -> Option<u64> {
    let span: Span = from.strip_prefix('-')?.parse().ok()?;
    Some(span.0.as_secs()).filter(|seconds| *seconds > 0)
}

async fn front(State(page): State<Page>, RawQuery(query): RawQuery) -> Response {
    show(page, FRONT.to_owned(), query, "").await
}

async fn named(
    State(page): State<Page>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    show(page, name, query, "../").await
}

async fn start(State(page): State<Page>, RawQuery(query): RawQuery) -> Response {
    let view = View::of(query.as_deref().unwrap_or_default());
    html_answer(StatusCode::OK, start_page(&page, &view, false))
}

/// The dashboard `name`, built on a blocking thread: finding series may read the disk.
async fn show(page: Page, name: String, query: Option<String>, up: &'static str) -> Response {
    let written = tokio::task::spawn_blocking(move || {
        let view = View::of(query.as_deref().unwrap_or_default());
        let dashboards = page.dashboards();
        let Some(dashboard) = dashboards.get(&name) else {
            return html_answer(StatusCode::NOT_FOUND, missing(&page, &name, up));
        };
        let panels = page.shown(dashboard);
        if panels.is_empty() && name == FRONT {
            return html_answer(StatusCode::OK, start_page(&page, &view, true));
        }
        let body = dashboard_page(&page, &name, dashboard, &panels, &view, up);
        html_answer(StatusCode::OK, body)
    });
    match written.await {
        Ok(answer) => answer,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The number of received metrics, for the live count: `{"text": "3 metrics", "graphs": true}`.
async fn received(State(page): State<Page>) -> Response {
    let answer = tokio::task::spawn_blocking(move || {
        let dashboards = page.dashboards();
        let graphs = dashboards
            .get(FRONT)
            .is_some_and(|front| !page.shown(front).is_empty());
        let text = count(page.0.host.received(), "metric");
        format!("{{\"text\": \"{text}\", \"graphs\": {graphs}}}\n")
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    match answer.await {
        Ok(text) => (headers, text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "max-age=60"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, text).into_response()
}

fn html_answer(status: StatusCode, body: String) -> Response {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ];
    (status, headers, body).into_response()
}

/// `1 metric`, `2,000 metrics`.
fn count(number: u64, what: &str) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {what}{}", if number == 1 { "" } else { "s" })
}

/// The page up to and including the dashboards' navigation.
fn head(page: &Page, html: &mut Html, title: &str, view: &View, up: &str, refresh: u64) {
    html.raw("<!DOCTYPE html>\n<html lang=\"en\"");
    if let Some(theme) = view.theme {
        html.raw(" data-theme=\"").text(theme).raw("\"");
    }
    html.raw(">\n<head>\n<meta charset=\"utf-8\">\n<title>")
        .text(title);
    html.raw(" · plumbago</title>\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    if refresh > 0 {
        html.raw("<noscript><meta http-equiv=\"refresh\" content=\"")
            .number(refresh)
            .raw("\"></noscript>\n");
    }
    html.raw("<link rel=\"icon\" href=\"data:,\">\n<link rel=\"stylesheet\" href=\"")
        .text(up);
    html.raw("page/style.css\">\n<script type=\"module\" src=\"")
        .text(up)
        .raw("page/page.js\"></script>\n</head>\n<body data-refresh=\"");
    html.number(refresh)
        .raw("\">\n<header>\n<a class=\"name\" href=\"")
        .text(if up.is_empty() { "./" } else { up });
    html.raw("\">plumbago</a>\n<nav aria-label=\"dashboards\">");
    let dashboards = page.dashboards();
    for (name, dashboard) in dashboards.iter() {
        html.raw("<a href=\"").text(up);
        if name != FRONT {
            html.raw("dashboards/").text(&encode(name));
        } else if up.is_empty() {
            html.raw("./");
        }
        html.text(&view.query()).raw("\"");
        if dashboard.title == title {
            html.raw(" aria-current=\"page\"");
        }
        html.raw(">").text(&dashboard.title).raw("</a>");
    }
    html.raw("<a href=\"")
        .text(up)
        .raw("start\">Send data</a></nav>\n");
}

fn encode(part: &str) -> String {
    form_urlencoded::byte_serialize(part.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

fn dashboard_page(
    page: &Page,
    name: &str,
    dashboard: &Dashboard,
    panels: &[(&Panel, usize)],
    view: &View,
    up: &str,
) -> String {
    let from = view.from.as_deref().unwrap_or(&dashboard.from);
    let events = view.events.as_deref().unwrap_or(&dashboard.events);
    let mut html = Html::default();
    head(
        page,
        &mut html,
        &dashboard.title,
        view,
        up,
        dashboard.refresh.0.as_secs(),
    );
    html.raw("<nav class=\"right\" aria-label=\"view\">");
    for range in ["-15min", "-1h", "-6h", "-1d", "-7d", "-30d"] {
        let there = View {
            from: Some(range.to_owned()),
            events: view.events.clone(),
            theme: view.theme,
        };
        link(&mut html, &there, range == from, &range[1..]);
    }
    let drawn = events != "none";
    let there = View {
        from: view.from.clone(),
        events: drawn.then(|| "none".to_owned()),
        theme: view.theme,
    };
    link(
        &mut html,
        &there,
        false,
        if drawn { "hide events" } else { "show events" },
    );
    for theme in ["light", "dark"] {
        let there = View {
            from: view.from.clone(),
            events: view.events.clone(),
            theme: Some(theme),
        };
        link(&mut html, &there, view.theme == Some(theme), theme);
    }
    html.raw("</nav>\n</header>\n<main>\n<h1>")
        .text(&dashboard.title)
        .raw("</h1>\n");
    let notes = [page.0.host.notice().unwrap_or_default(), &dashboard.note];
    for note in notes.into_iter().filter(|note| !note.is_empty()) {
        html.raw("<p class=\"note\">").text(note).raw("</p>\n");
    }
    if panels.is_empty() {
        html.raw("<p>The panels of this dashboard have no data yet.</p>\n");
    }
    html.raw("<div class=\"panels\">\n");
    for (panel, series) in panels {
        panel_figure(&mut html, panel, *series, from, events, view, up);
    }
    html.raw("</div>\n");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    let back = seconds_back(from)
        .or_else(|| seconds_back(&dashboard.from))
        .unwrap_or(3_600);
    let expression = if drawn { events } else { "*" };
    let happened = page
        .0
        .host
        .events(expression, now - back as f64, now, EVENTS_SHOWN);
    events_table(&mut html, &happened, now, up);
    html.raw("</main>\n<footer><span data-received=\"").text(up);
    html.raw("received\">received: <strong>")
        .text(&count(page.0.host.received(), "metric"));
    html.raw("</strong></span><span>")
        .text(name)
        .raw(": ")
        .text(&count(panels.len() as u64, "panel"));
    html.raw("</span></footer>\n</body>\n</html>\n");
    html.finish()
}

fn link(html: &mut Html, there: &View, current: bool, text: &str) {
    html.raw("<a href=\"").text(&there.query()).raw("\"");
    if current {
        html.raw(" aria-current=\"true\"");
    }
    html.raw(">").text(text).raw("</a>");
}

fn panel_figure(
    html: &mut Html,
    panel: &Panel,
    series: usize,
    from: &str,
    events: &str,
    view: &View,
    up: &str,
) {
    let url = |format: &str, dark: bool| picture(panel, from, events, format, dark, up);
    html.raw("<figure>\n<figcaption><h2>").text(&panel.title);
    html.raw("</h2><span class=\"links quiet\"><a href=\"")
        .text(&url("svg", view.theme == Some("dark")));
    html.raw("\">SVG</a> <a href=\"")
        .text(&url("png", view.theme == Some("dark")));
    html.raw("\">PNG</a> <a href=\"")
        .text(&url("json", false))
        .raw("\">JSON</a></span></figcaption>\n");
    if series > SERIES_PER_PANEL {
        html.raw("<p class=\"quiet\">")
            .text(&count(series as u64, "series match"));
        html.raw(": too many to redraw every few seconds. To select some of them, write a dashboard file.</p>\n</figure>\n");
        return;
    }
    html.raw("<div class=\"picture\" data-label=\"")
        .text(&panel.title);
    html.raw("\" data-light=\"").text(&url("svg", false));
    html.raw("\" data-dark=\"").text(&url("svg", true));
    html.raw("\"><noscript><picture>");
    if view.theme.is_none() {
        html.raw("<source media=\"(prefers-color-scheme: dark)\" srcset=\"")
            .text(&url("png", true))
            .raw("\">");
    }
    html.raw("<img alt=\"").text(&panel.title).raw("\" src=\"");
    html.text(&url("png", view.theme == Some("dark")))
        .raw("\"></picture></noscript></div>\n</figure>\n");
}

/// The `/render` URL of a panel.
fn picture(panel: &Panel, from: &str, events: &str, format: &str, dark: bool, up: &str) -> String {
    let start = format!("{up}render?");
    let begun = start.len();
    let mut query = Serializer::for_suffix(start, begun);
    for target in &panel.targets {
        query.append_pair("target", target);
    }
    query.append_pair("from", from);
    query.append_pair("format", format);
    query.append_pair("strict", "1");
    if format == "json" {
        return query.finish();
    }
    let mut params: BTreeMap<&str, &str> = BTreeMap::from([
        ("events", events),
        ("width", "600"),
        ("height", "300"),
        ("hideLegend", "false"),
        ("template", "grafana"),
        ("bgcolor", if dark { "1a2027" } else { "ffffff" }),
        ("fgcolor", if dark { "c3ccd6" } else { "333b45" }),
        ("majorGridLineColor", if dark { "38424d" } else { "d5dae0" }),
        ("minorGridLineColor", if dark { "252d36" } else { "eceff2" }),
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

fn events_table(html: &mut Html, happened: &[Event], now: f64, up: &str) {
    html.raw("<section>\n<h2>Deploys and events</h2>\n");
    if happened.is_empty() {
        html.raw("<p class=\"quiet\">No events in this time range. <a href=\"")
            .text(up)
            .raw("start\">Post one</a>.</p>\n</section>\n");
        return;
    }
    html.raw("<table>\n<thead><tr><th>when (UTC)</th><th>what</th><th>tags</th><th>status</th></tr></thead>\n<tbody>\n");
    for event in happened.iter().rev() {
        html.raw("<tr><td class=\"when\">")
            .text(&timestamp(event.when));
        html.raw("<br><span class=\"quiet\">")
            .text(&ago(now - event.when));
        html.raw("</span></td><td class=\"what\">");
        match event.link.as_deref().filter(|link| is_web(link)) {
            Some(url) => {
                html.raw("<a rel=\"noopener noreferrer\" href=\"")
                    .text(url)
                    .raw("\">")
                    .text(&event.what)
                    .raw("</a>");
            }
            None => {
                html.text(&event.what);
            }
        }
        if !event.data.is_empty() {
            html.raw("<br><span class=\"quiet\">")
                .text(&event.data)
                .raw("</span>");
        }
        html.raw("</td><td>");
        for tag in &event.tags {
            html.raw("<span class=\"tag\">").text(tag).raw("</span>");
        }
        let (class, words) = match event.status {
            Status::Started => ("started", "under way"),
            Status::Succeeded => ("succeeded", "succeeded"),
            Status::Failed => ("failed", "failed"),
            Status::RolledBack => ("rolled_back", "rolled back"),
        };
        html.raw("</td><td><span class=\"").raw(class).raw("\">");
        html.raw(if event.rollback_of.is_some() {
            "rollback"
        } else {
            words
        });
        if let Some(until) = event.until.filter(|until| *until > event.when) {
            html.raw(", took ").text(&length(until - event.when));
        }
        html.raw("</span></td></tr>\n");
    }
    html.raw("</tbody>\n</table>\n</section>\n");
}

fn is_web(link: &str) -> bool {
    link.starts_with("https://") || link.starts_with("http://")
}

fn timestamp(when: f64) -> String {
    jiff::Timestamp::from_second(when as i64).map_or_else(
        |_| when.to_string(),
        |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

fn ago(seconds: f64) -> String {
    if seconds < 1.0 {
        return "just now".to_owned();
    }
    format!("{} ago", length(seconds))
}

/// A duration in its largest fitting unit: `45 s`, `12 min`, `3 h`, `6 d`.
fn length(seconds: f64) -> String {
    let units = [(86_400.0, "d"), (3_600.0, "h"), (60.0, "min")];
    let fitting = units.into_iter().find(|(unit, _)| seconds >= 2.0 * unit);
    let (unit, name) = fitting.unwrap_or((1.0, "s"));
    format!("{} {name}", (seconds / unit) as u64)
}

/// Instructions for sending data. `waiting`: the store has no series to draw yet, and the page
/// switches to the dashboard when it has.
fn start_page(page: &Page, view: &View, waiting: bool) -> String {
    let host = &page.0.host;
    let first = |key: &str| {
        let bound = host.addresses().get(key).and_then(|bound| bound.first())?;
        let (ip, port) = bound.rsplit_once(':')?;
        let everywhere = ["0.0.0.0", "[::]"].contains(&ip);
        Some((
            if everywhere { "127.0.0.1" } else { ip }.to_owned(),
            port.to_owned(),
        ))
    };
    let mut html = Html::default();
    head(
        page,
        &mut html,
        "Send data",
        view,
        "",
        if waiting { 5 } else { 0 },
    );
    html.raw("</header>\n<main class=\"start\">\n<h1>");
    html.raw(if waiting {
        "Waiting for the first metric"
    } else {
        "Send data"
    });
    html.raw("</h1>\n<p class=\"count\" data-received=\"received\"");
    if waiting {
        html.raw(" data-start");
    }
    html.raw(">received: <strong>")
        .text(&count(host.received(), "metric"))
        .raw("</strong>");
    if waiting {
        html.raw("<br><span class=\"quiet\">The first graph appears after the first flush; this page then switches to it.</span>");
    }
    html.raw("</p>\n");
    if let Some((ip, port)) = first("statsd.udp") {
        html.raw("<h2>A counter, a timer and a gauge from the shell</h2>\n<pre>");
        html.text(&format!(
            "printf 'shop.logins:1|c\\nshop.login_time:83|ms\\nshop.carts:12|g' | nc -u -w1 {ip} {port}"
        ));
        html.raw("</pre>\n<h2>From Python (<code>pip install python-statsd</code>)</h2>\n<pre>");
        html.text(&format!(
            "import statsd\nstatsd.Connection.set_defaults(host='{ip}', port={port})\nstatsd.Counter('shop').increment('logins')\nstatsd.Timer('shop').send('login_time', 0.083)"
        ));
        html.raw("</pre>\n");
    }
    if let Some((ip, port)) = first("carbon.line_tcp") {
        html.raw("<h2>A value with its own timestamp, in carbon's line protocol</h2>\n<pre>");
        html.text(&format!(
            "echo \"shop.stock 40 $(date +%s)\" | nc -w1 {ip} {port}"
        ));
        html.raw("</pre>\n");
    }
    if let Some((ip, port)) = first("render.http") {
        html.raw("<h2>A deploy: a vertical line on every graph</h2>\n<pre>");
        html.text(&format!(
            "curl http://{ip}:{port}/events/ -d '{{\"what\": \"shop 1.4.2\", \"tags\": \"deploy shop\", \"data\": \"by me\"}}'"
        ));
        html.raw("</pre>\n<h2>A graph with that line</h2>\n<pre>");
        html.text(&format!(
            "curl -o graph.png 'http://{ip}:{port}/render?target=stats.shop.logins&from=-15min&events=deploy'"
        ));
        html.raw("</pre>\n");
    }
    html.raw("</main>\n</body>\n</html>\n");
    html.finish()
}

fn missing(page: &Page, name: &str, up: &str) -> String {
    let mut html = Html::default();
    head(
        page,
        &mut html,
        "No such dashboard",
        &View::default(),
        up,
        0,
    );
    html.raw(
        "</header>\n<main>\n<h1>No such dashboard</h1>\n<p>There is no dashboard called <code>",
    );
    html.text(name).raw("</code>. A dashboard is a file NAME.toml in the directory <code>dashboards</code> of the data directory.</p>\n</main>\n</body>\n</html>\n");
    html.finish()
}

#[cfg(test)]
mod tests;
