//! The HTTP side of the wiring: health, counters, what the page asks of the server, and serving.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use carbon::{Datapoint, NameError, SeriesId, Sink};
use render::events::{Event, Store, TagQuery};
use render::http::page::Host;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::{error, warn};

use crate::report::{Readings, prometheus};

/// How long requests that are being answered when the server stops may still take.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Whether the server answers, and what it counts.
#[derive(Clone)]
pub struct Health {
    /// Set while everything runs.
    pub ready: Arc<AtomicBool>,
    /// What `/metrics` shows.
    pub readings: Readings,
    /// Requests that panicked: each is a mistake in this program.
    pub panics: Arc<AtomicU64>,
}

impl Health {
    /// Puts `/healthz`, `/readyz` and `/metrics` beside `routes`. `/metrics` with a `query` stays
    /// what it is in graphite-web: find.
    pub fn beside(self, routes: Router) -> Router {
        let own = Router::new()
            .route("/healthz", get(|| async { "alive\n" }))
            .route("/readyz", get(ready))
            .with_state(self.clone());
        let panics = self.panics.clone();
        routes
            .merge(own)
            .fallback(nothing_here)
            .layer(from_fn_with_state(self, metrics_without_query))
            .layer(CatchPanicLayer::custom(move |_| {
                panics.fetch_add(1, Ordering::Relaxed);
                let sentence = "the request met a mistake in this program\n";
                (StatusCode::INTERNAL_SERVER_ERROR, sentence).into_response()
            }))
    }
}

async fn nothing_here(uri: Uri) -> Response {
    let body = serde_json::json!({ "error": format!("there is nothing at {}", uri.path()) });
    let json = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::NOT_FOUND, json, body.to_string()).into_response()
}

async fn ready(State(health): State<Health>) -> Response {
    if health.ready.load(Ordering::Acquire) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting or stopping\n").into_response()
    }
}

async fn metrics_without_query(
    State(health): State<Health>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().trim_end_matches('/');
    let query = request.uri().query().unwrap_or_default();
    let asks = query.split('&').any(|pair| pair.starts_with("query="));
    if path != "/metrics" || asks || request.method() != Method::GET {
        return next.run(request).await;
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let text = prometheus(&(health.readings)());
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// What the page asks of the server around it.
pub struct Around {
    /// The really bound addresses.
    pub addresses: BTreeMap<&'static str, Vec<String>>,
    /// The events.
    pub events: Arc<Store>,
    /// What has come from outside.
    pub received: Box<dyn Fn() -> u64 + Send + Sync>,
    /// What every page says on top.
    pub notice: Option<&'static str>,
}

impl Host for Around {
    fn received(&self) -> u64 {
        (self.received)()
    }

    fn addresses(&self) -> &BTreeMap<&'static str, Vec<String>> {
        &self.addresses
    }

    fn events(&self, expression: &str, from: f64, until: f64, limit: usize) -> Vec<Event> {
        let Ok(query) = expression.parse::<TagQuery>() else {
            return Vec::new();
        };
        self.events
            .query(&query, from, until, limit)
            .unwrap_or_else(|why| {
                warn!("events for the page: {why}");
                Vec::new()
            })
    }

    fn notice(&self) -> Option<&str> {
        self.notice
    }
}

/// A sink that counts what goes through it: datapoints that are our own, not received.
pub struct Own {
    /// Where they go.
    pub sink: Arc<dyn Sink>,
    /// How many there were.
    pub count: Arc<AtomicU64>,
}

impl Sink for Own {
    fn intern(&self, name: &[u8]) -> Result<SeriesId, NameError> {
        self.sink.intern(name)
    }

    fn release(&self, ids: &[SeriesId]) {
        self.sink.release(ids);
    }

    fn submit(&self, points: &[Datapoint]) {
        self.count.fetch_add(points.len() as u64, Ordering::Relaxed);
        self.sink.submit(points);
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        let taken = self.sink.try_submit(points);
        self.count.fetch_add(taken as u64, Ordering::Relaxed);
        taken
    }
}

/// Answers on every listener until `stop` changes, then lets begun answers finish.
///
/// # Errors
/// A listener that the runtime refuses.
pub async fn serve(
    listeners: Vec<TcpListener>,
    router: Router,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut servers = JoinSet::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let router = router.clone();
        let mut stopped = stop.clone();
        servers.spawn(async move {
            let until = async move {
                // An error means that the other end is gone, which is a stop as well.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            if let Err(why) = axum::serve(listener, router)
                .with_graceful_shutdown(until)
                .await
            {
                error!("HTTP: {why}");
            }
        });
    }
    let mut stopped = stop;
    let _ = stopped.wait_for(|stop| *stop).await;
    let last = async { while servers.join_next().await.is_some() {} };
    if timeout(LAST_ANSWERS, last).await.is_err() {
        warn!("HTTP: connections that were still open after {LAST_ANSWERS:?} are closed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;
    use crate::report::Reading;

    async fn ask(health: &Health, path: &str) -> (StatusCode, String) {
        let routes = Router::new()
            .route("/metrics", get(|| async { "find" }))
            .route("/panic", get(|| async { panic!("a mistake") as &str }));
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = health
            .clone()
            .beside(routes)
            .oneshot(request)
            .await
            .unwrap();
        let status = answer.status();
        let body = axum::body::to_bytes(answer.into_body(), 10_000)
            .await
            .unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn health_counters_panics_and_unknown_paths() {
        let health = Health {
            ready: Arc::default(),
            readings: Arc::new(|| vec![Reading::count("carbon", "creates", "Files created.", 2)]),
            panics: Arc::default(),
        };
        assert_eq!(ask(&health, "/healthz").await.0, StatusCode::OK);
        assert_eq!(
            ask(&health, "/readyz").await.0,
            StatusCode::SERVICE_UNAVAILABLE
        );
        health.ready.store(true, Ordering::Release);
        assert_eq!(ask(&health, "/readyz").await.0, StatusCode::OK);
        assert!(
            ask(&health, "/metrics")
                .await
                .1
                .contains("plumbago_carbon_creates_total 2\n")
        );
        assert_eq!(ask(&health, "/metrics?query=a.*").await.1, "find");
        let (status, body) = ask(&health, "/a/%3Cb%3E").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.contains("there is nothing at /a/"), "{body}");
        assert_eq!(
            ask(&health, "/panic").await.0,
            StatusCode::INTERNAL_SERVER_ERROR
        );
        assert_eq!(health.panics.load(Ordering::Relaxed), 1);
    }
}
