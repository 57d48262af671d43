//! What the server answers over HTTP: its routes, its health, its counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use axum::Router;
use axum::extract::FromRef as _;
use axum::middleware::from_fn_with_state;
use carbon::Carbon;
use parking_lot::RwLock;
use render::events::Store;
use render::http::events::{EventsState, Room, routes as events_routes};
use render::http::guard::Guard;
use render::http::impact::{ImpactState, routes as impact_routes};
use render::http::page::Page;
use render::http::params::{self, heads};
use render::http::{App, router};
use render::verdicts::{Handle, Judge};

use crate::config::Config;
use crate::exchange;
use crate::http::connections::Connections;
use crate::http::{Health, Readiness};
use crate::log;
use crate::peers::Peered;
use crate::report::{self, Reading, Readings};
use crate::store::Remote;

/// StatsD, until the shutdown takes it out.
pub(super) type Statsd = Arc<RwLock<Option<statsd::Server>>>;

/// The routes that say how the server is.
pub(super) fn health(
    carbon: &Carbon,
    readiness: Readiness,
    guard: Arc<Guard>,
    readings: Readings,
    panics: Arc<AtomicU64>,
) -> Health {
    let carbon = carbon.clone();
    Health {
        readiness,
        storage: Arc::new(move || carbon.health().map(|()| carbon.away())),
        guard,
        readings,
        panics,
    }
}

/// The routes of queries, events, verdicts and the page.
pub(super) fn all_routes(
    app: App,
    events: Arc<Store>,
    page: Page,
    guard: &Arc<Guard>,
    handle: &Handle,
    config: &Config,
) -> Router {
    let render = &config.render;
    let reading = params::Reading::from_ref(&app);
    let room = Room::within(reading.clone());
    let verdicts = impact_routes(ImpactState {
        store: events.clone(),
        handle: handle.clone(),
        guard: guard.clone(),
        room: room.clone(),
        base_path: render.base_path.as_str().into(),
        page: Some(page.clone()),
        app: Some(app.clone()),
    });
    let event_routes = events_routes(EventsState {
        store: events,
        guard: guard.clone(),
        time_zone: app.time_zone.clone(),
        clock: (render.now != 0).then_some(render.now),
        room,
        base_path: render.base_path.as_str().into(),
        page: Some(page.clone()),
    });
    router(app, guard)
        .merge(event_routes)
        .merge(verdicts)
        .merge(guard.watch(page.routes()))
        .layer(from_fn_with_state(reading, heads))
}

/// Counts the metrics and datapoints that clients sent: all but the `own_count` of this server. While
/// the server writes points of its own, the count may be too low by them, never too high.
pub(super) fn received(
    carbon: &Carbon,
    statsd: &Statsd,
    own_count: Arc<AtomicU64>,
) -> Box<dyn Fn() -> u64 + Send + Sync> {
    let (carbon, statsd) = (carbon.clone(), statsd.clone());
    Box::new(move || {
        let all = carbon.stats().received.get();
        fence(Ordering::Acquire);
        let lines = all.saturating_sub(own_count.load(Ordering::Relaxed));
        let statsd = statsd.read();
        let metrics = |statsd: &statsd::Server| statsd.stats().metrics.load(Ordering::Relaxed);
        lines + statsd.as_ref().map_or(0, metrics)
    })
}

/// The parts of the server that have counters.
pub(super) struct Counted {
    pub(super) page: Page,
    pub(super) statsd: Statsd,
    pub(super) carbon: Carbon,
    pub(super) app: App,
    pub(super) events: Arc<Store>,
    pub(super) judge: Arc<Judge>,
    pub(super) peered: Option<Arc<Peered>>,
    pub(super) exchange: exchange::Counted,
    pub(super) panics: Arc<AtomicU64>,
    pub(super) connections: Connections,
    pub(super) remote: Option<Remote>,
}

/// The counters of all crates, read at each call.
pub(super) fn readings(counted: Counted) -> Readings {
    let Counted {
        page,
        statsd,
        carbon,
        app,
        events,
        judge,
        peered,
        exchange,
        panics,
        connections,
        remote,
    } = counted;
    Arc::new(move || {
        let mut readings: Vec<Reading> = Vec::new();
        if let Some(statsd) = statsd.read().as_ref() {
            readings.extend(statsd.stats().all_readings());
        }
        readings.extend(carbon.readings());
        if let Some(remote) = &remote {
            readings.extend(remote.readings(&carbon));
        }
        readings.extend(app.stats.readings());
        readings.extend(events.stats().readings());
        readings.extend(judge.stats.readings());
        readings.extend(peered.iter().flat_map(|peered| peered.readings()));
        readings.extend(exchange.readings());
        readings.push(Reading::count(
            "http",
            "panics",
            "Requests that failed because of a bug in this program. If this is not 0, please report the lines in the log.",
            panics.load(Ordering::Relaxed),
        ));
        readings.extend(connections.readings());
        readings.extend(page.readings());
        readings.push(log::reading());
        readings.extend(report::process());
        readings
    })
}
