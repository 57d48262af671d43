//! The page at `/`: dashboards as pictures with deploy lines, or, while the store has no series to
//! draw, instructions for sending data.
//!
//! 1. The server writes all of the HTML; `page.js` only adds to it. Without JavaScript the same
//!    pictures are shown and the page reloads itself.
//! 2. Pictures are plain `/render` URLs that can be copied; the page computes no series itself.
//! 3. Every link is relative, so the page works under any prefix a proxy puts before it.
//! 4. The markup is written with `maud`, which escapes all text; the content security policy allows
//!    only what this server sends.
//! 5. A page is a [`Layout`](layout::Layout): the strip with the newest data and deploy, the links, the content. Parts
//!    with `data-part` are replaced in open pages when an event or a dashboard changes ([`live`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use jiff::tz::TimeZone;
use parking_lot::RwLock;
use settings::Reading;
use tokio::sync::Semaphore;

use self::asked::{Asked, PLACES};
pub(super) use self::calibration::calibration_page;
pub(super) use self::changes::targets;
pub use self::dashboard::{Dashboard, Dashboards, FRONT, Panel};
use self::dashboard::{HOSTS, fingerprint};
use self::live::Live;
use self::panels::dashboard_page;
use self::search::Search;
use self::start::{missing, start_page};
pub use self::stats::Stats;
use self::titles::Titles;
use self::variables::Choice;
use self::view::View;
use self::words::count;
use super::negotiate::negotiated;
use super::params::InQuery;
use super::{Answer, JSON, Params, html};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::source::{Node, Source};
use crate::stats::is_ours;
use crate::verdicts::Happened;

mod asked;
mod assets;
mod calibration;
mod changes;
mod dashboard;
mod deploy;
pub(crate) mod event_pages;
mod explore;
mod layout;
mod live;
mod panels;
mod search;
mod start;
mod stats;
mod strip;
mod titles;
mod unfurl;
mod variables;
mod view;
pub(crate) mod words;

pub use self::layout::nothing_at;

/// The content security policy of every page.
pub(crate) const POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

/// How long the number of series that a panel's pattern finds is kept.
const NEEDS_KEPT: Duration = Duration::from_secs(10);
/// Numbers that are kept.
const MOST_NEEDS: usize = 500;
/// How long a page may look for the series of its panels; a panel whose series are not found by then
/// is not shown.
const NEEDS_WITHIN: Duration = Duration::from_secs(5);

/// What the page reads from the server.
pub trait Host: Send + Sync {
    /// Metrics and datapoints received from clients since the start, self metrics excluded.
    fn received(&self) -> u64;

    /// The bound addresses of each listener key.
    fn addresses(&self) -> &BTreeMap<&'static str, Vec<String>>;

    /// The newest `limit` events in `from..=until` (Unix seconds) that `expression` selects,
    /// newest last, with the beginning of their data: 1,000 characters of its first line are enough. The
    /// caller's thread may block.
    fn events(&self, expression: &str, from: f64, until: f64, limit: usize) -> Vec<Event>;

    /// As [`Host::events`], and with them the bands that began before `from` and reach into the
    /// range.
    fn around(&self, expression: &str, from: f64, until: f64, limit: usize) -> Vec<Event> {
        self.events(expression, from, until, limit)
    }

    /// The event called `id`, with all of its verdict. The caller's thread may block.
    fn event(&self, id: i64) -> Option<Event> {
        let _ = id;
        None
    }

    /// What happened to the series that `targets` read around `at`. The caller's thread may block.
    ///
    /// # Errors
    /// As [`what_happened`](crate::verdicts::what_happened).
    fn happened(&self, targets: &[String], at: i64, budget: &Budget) -> Result<Option<Happened>> {
        let _ = (targets, at, budget);
        Ok(None)
    }

    /// What one question of a page may take.
    fn budget(&self) -> Budget {
        Budget::unlimited()
    }

    /// The status of an answer to a request that was refused, counted.
    fn refuse(&self, error: &Error) -> StatusCode {
        match error {
            Error::Limit { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Error::Timeout | Error::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            Error::Refused(_) | Error::Target { .. } => StatusCode::BAD_REQUEST,
            Error::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A number that is another one after every change of the events.
    fn generation(&self) -> u64 {
        0
    }

    /// The zone in which times are written.
    fn time_zone(&self) -> TimeZone {
        TimeZone::UTC
    }

    /// A sentence shown on top of every page, for example that the data is made up.
    fn banner(&self) -> Option<&str>;

    /// The path before all paths of this server (`render.base_path`).
    fn base_path(&self) -> &str {
        ""
    }
}

/// The page and what it needs, and the request that it is written for; cheap to clone.
#[derive(Clone)]
pub struct Page(Arc<Inner>, Option<Arc<Asked>>);

struct Inner {
    host: Arc<dyn Host>,
    source: Arc<dyn Source>,
    /// Replaced as a whole when the files are reloaded.
    dashboards: RwLock<Arc<Dashboards>>,
    /// How many series each pattern found, and when.
    found: RwLock<BTreeMap<String, (Instant, usize)>>,
    live: Live,
    titles: Titles,
    search: Arc<Search>,
    /// For pages that are being written.
    places: Arc<Semaphore>,
    /// Where the files of dashboards are looked for.
    directory: Option<PathBuf>,
}

impl Page {
    /// A page over `source` in the server `host`, with the dashboards in `directory`.
    pub fn in_directory(host: Arc<dyn Host>, source: Arc<dyn Source>, directory: PathBuf) -> Self {
        let dashboards = Dashboards::load(&directory);
        Self::with(host, source, dashboards, Some(directory))
    }

    /// A page over `source` in the server `host`.
    pub fn new(host: Arc<dyn Host>, source: Arc<dyn Source>, dashboards: Dashboards) -> Self {
        Self::with(host, source, dashboards, None)
    }

    fn with(
        host: Arc<dyn Host>,
        source: Arc<dyn Source>,
        dashboards: Dashboards,
        directory: Option<PathBuf>,
    ) -> Self {
        let inner = Inner {
            directory,
            host,
            source,
            dashboards: RwLock::new(Arc::new(dashboards)),
            found: RwLock::default(),
            live: Live::new(),
            titles: Titles::default(),
            search: Arc::default(),
            places: Arc::new(Semaphore::new(PLACES)),
        };
        Self(Arc::new(inner), None)
    }

    /// Reads the dashboards again.
    pub fn reload(&self) {
        if let Some(directory) = &self.0.directory {
            self.replace(Dashboards::load(directory));
        }
    }

    /// Shows `dashboards` from now on.
    pub fn replace(&self, dashboards: Dashboards) {
        *self.0.dashboards.write() = Arc::new(dashboards);
        self.0.live.dashboards_changed();
    }

    /// What the page counts about itself.
    pub fn readings(&self) -> Vec<Reading> {
        let Live { stats, .. } = &self.0.live;
        let help = "Open pages that get live updates now. For information only.";
        let connected = self.0.live.connected() as f64;
        let level = Reading::level("page", "live", help, connected);
        std::iter::once(level).chain(stats.readings()).collect()
    }

    /// The targets of all panels of all dashboards.
    pub fn targets(&self) -> Vec<String> {
        let dashboards = self.dashboards();
        let panels = dashboards
            .iter()
            .flat_map(|(_, dashboard)| &dashboard.panels);
        panels.flat_map(|panel| panel.targets.clone()).collect()
    }

    /// The routes `/`, `/start`, `/dashboards/NAME`, `/received`, `/page/live` and the files that
    /// pages load.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/", get(front))
            .route("/start", get(start))
            .route("/dashboards/{name}", get(named))
            .route("/received", get(received))
            .route("/favicon.ico", get(assets::icon))
            .merge(deploy::routes())
            .merge(changes::routes())
            .route("/explore", get(explore::explore))
            .route("/page/live", get(live::live))
            .route("/page/search", get(explore::search))
            .route("/page/{version}/{name}", get(assets::file))
            .with_state(self)
    }

    fn dashboards(&self) -> Arc<Dashboards> {
        self.0.dashboards.read().clone()
    }

    /// How many series `panel` reads, 0 if one of its patterns finds none. All requests share the result for a few seconds.
    fn found(&self, panel: &Panel) -> usize {
        let Panel { needs, except, .. } = panel;
        let key = format!("{needs} {except:?}");
        if let Some((at, count)) = self.0.found.read().get(&key)
            && at.elapsed() < NEEDS_KEPT
        {
            return *count;
        }
        // The server's own series count only where they are asked for by name.
        let counts = |path: &str, pattern: &str| {
            let first = path.split('.').next().unwrap_or(path);
            let is_excepted = |one: &String| one == first || search::fits(one, path);
            (!is_ours(path) || is_ours(pattern)) && !except.iter().any(is_excepted)
        };
        // The patterns come from the operator's file, but the values of variables from anybody.
        let budget = self.searching();
        let count_of = |pattern: &str| {
            let found = self.0.source.find(pattern, &budget);
            found.map_or(0, |nodes| {
                let leaves = nodes.iter().filter(|node| node.leaf);
                leaves.filter(|node| counts(&node.path, pattern)).count()
            })
        };
        let each: Vec<usize> = needs.split_whitespace().map(count_of).collect();
        let count = match each.contains(&0) {
            true => 0,
            false => each.iter().sum(),
        };
        // What was not found is looked for again.
        if count > 0 {
            let mut found = self.0.found.write();
            found.retain(|_, (at, _)| at.elapsed() < NEEDS_KEPT);
            if found.len() < MOST_NEEDS {
                found.insert(key, (Instant::now(), count));
            }
        }
        count
    }

    /// The panels that have data, with the values of the variables and the number of series they
    /// read.
    fn shown(&self, dashboard: &Dashboard, choice: &Choice) -> Vec<(Panel, usize)> {
        let counted = dashboard.panels.iter().map(|panel| {
            let panel = choice.put_into_panel(panel);
            let count = match panel.needs.is_empty() {
                true => 1,
                false => self.found(&panel),
            };
            (panel, count)
        });
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// Whether the dashboard `name` has a panel with data.
    fn has_data(&self, name: &str) -> bool {
        let dashboards = self.dashboards();
        let Some(dashboard) = dashboards.get(name) else {
            return false;
        };
        let (_, choice) = variables::offered(self, dashboard, &mut View::default());
        !self.shown(dashboard, &choice).is_empty()
    }

    /// Whether there is a series that is not one of this server's own.
    fn has_series(&self) -> bool {
        let budget = self.searching();
        let tops = self.0.source.find("*", &budget);
        let foreign = |node: &Node| {
            !["carbon", "stats", "stats_counts", "statsd", "plumbago"].contains(&node.path.as_str())
        };
        let any = Panel {
            needs: "stats*.**".to_owned(),
            ..Panel::of(Vec::new())
        };
        tops.is_ok_and(|nodes| nodes.iter().any(foreign)) || self.found(&any) > 0
    }

    /// What happened to the series that `targets` read around `at`. The caller's thread may block.
    ///
    /// # Errors
    /// As [`Host::happened`].
    pub(in crate::http) fn happened(
        &self,
        targets: &[String],
        at: i64,
        budget: &Budget,
    ) -> Result<Option<Happened>> {
        self.0.host.happened(targets, at, budget)
    }

    /// Where `/` leads if the front dashboard has no data; nothing if there is no data at all.
    fn elsewhere(&self) -> Option<&'static str> {
        if self.has_data(HOSTS) {
            return Some("dashboards/hosts");
        }
        self.has_series().then_some("explore")
    }
}

async fn front(State(page): State<Page>, headers: HeaderMap, InQuery(params): InQuery) -> Answer {
    let base = unfurl::base(&headers, &page);
    let shown = move |page: &Page| show(page, FRONT, &params, ("", base));
    page.answer(move |page| negotiated(&headers, shown(page)))
        .await
}

async fn named(
    State(page): State<Page>,
    Path(name): Path<String>,
    headers: HeaderMap,
    InQuery(params): InQuery,
) -> Answer {
    let base = unfurl::base(&headers, &page);
    let shown = move |page: &Page| show(page, &name, &params, ("../", base));
    page.answer(move |page| negotiated(&headers, shown(page)))
        .await
}

async fn start(State(page): State<Page>, headers: HeaderMap, InQuery(params): InQuery) -> Answer {
    page.answer(move |page| {
        let view = View::of(&params);
        let written = html_answer(StatusCode::OK, start_page(page, &view, false));
        negotiated(&headers, written)
    })
    .await
}

/// The dashboard `name`. Finding series may read the disk.
fn show(
    page: &Page,
    name: &str,
    params: &Params,
    (up, base): (&'static str, Option<String>),
) -> Answer {
    let mut view = View::of(params);
    let dashboards = page.dashboards();
    let Some(dashboard) = dashboards.get(name) else {
        return html_answer(StatusCode::NOT_FOUND, missing(page, name, up));
    };
    let (variables, choice) = variables::offered(page, dashboard, &mut view);
    let panels = page.shown(dashboard, &choice);
    if panels.is_empty() && name == FRONT {
        if let Some(place) = page.elsewhere() {
            // The query of the whole view: a range or the wall display was asked for there, too.
            let query = view.query();
            let place = format!("{up}{place}{}", query.trim_end_matches('?'));
            let moved = html_answer(StatusCode::SEE_OTHER, String::new());
            return moved.with(header::LOCATION, &place);
        }
        return html_answer(StatusCode::OK, start_page(page, &view, true));
    }
    let view = (&view, &*variables);
    let body = dashboard_page(page, name, dashboard, &panels, view, (up, base.as_deref()));
    html_answer(StatusCode::OK, body)
}

/// The answer if a page could not be built because of a bug.
fn failed() -> Answer {
    Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "")
}

/// The number of received metrics, for the live count: `{"text": "3 metrics", "graphs": true}`.
async fn received(State(page): State<Page>) -> Answer {
    page.answer(|page| {
        let graphs = page.has_data(FRONT) || page.elsewhere().is_some();
        let text = count(page.0.host.received(), "metric");
        let json = format!("{{\"text\": \"{text}\", \"graphs\": {graphs}}}\n");
        Answer::ok(JSON, json).with(header::CACHE_CONTROL, "no-store")
    })
    .await
}

/// A page as an answer: browsers ask before they show it again.
pub(crate) fn html_answer(status: StatusCode, body: String) -> Answer {
    let page = Answer {
        status,
        ..Answer::ok(html::CONTENT_TYPE, body)
    };
    page.with(header::CACHE_CONTROL, "no-cache")
        .with(header::CONTENT_SECURITY_POLICY, POLICY)
        .with(header::REFERRER_POLICY, "same-origin")
}

#[cfg(test)]
mod tests;
