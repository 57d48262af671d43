//! The HTTP side of the wiring: health, counters, the page's host, and serving.
//!
//! 1. [`serve`] answers as soon as the sockets are bound: with a 503 that states the progress of the
//!    start, until [`Front::open`] adds the routes.
//! 2. Every answer passes through [`secure`]; a panic while computing it becomes a 500.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use carbon::{Datapoint, NameError, SeriesId, Sink};
use parking_lot::{Mutex, MutexGuard};
use render::http::guard::Guard;
use render::http::page::nothing_at;
use render::options::ALWAYS;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::warn;

use crate::report::{Readings, prometheus};
use crate::supervise::Supervisor;

pub mod connections;
mod host;
pub(crate) mod secure;

use connections::Connections;
pub use host::Around;

/// How long requests in progress may take after the shutdown has begun.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The stage of the server between start and shutdown. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<Stage>>);

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Starting,
    /// Bytes of the journal that were read, of how many.
    Replaying(u64, u64),
    Ready,
    Stopping,
    /// The worker that ended by a panic.
    Died(String),
}

impl Readiness {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock()
    }

    /// So much of the journal has been read.
    pub fn replaying(&self, bytes: u64, of: u64) {
        *self.stage() = Stage::Replaying(bytes, of);
    }

    /// Everything runs.
    pub fn ready(&self) {
        *self.stage() = Stage::Ready;
    }

    /// The stop has begun.
    pub fn stopping(&self) {
        *self.stage() = Stage::Stopping;
    }

    /// The worker called `name` is dead.
    pub fn died(&self, name: &str) {
        *self.stage() = Stage::Died(name.to_owned());
    }

    /// Why the server is not ready; nothing if it is.
    ///
    /// # Errors
    /// The reason.
    pub fn check(&self) -> Result<(), String> {
        Err(match &*self.stage() {
            Stage::Ready => return Ok(()),
            Stage::Starting => "starting".to_owned(),
            Stage::Replaying(bytes, of) => {
                let percent = (100.0 * *bytes as f64 / (*of).max(1) as f64).min(100.0);
                format!("starting: {percent:.0} % of the journal read")
            }
            Stage::Stopping => "stopping".to_owned(),
            Stage::Died(name) => format!("{name} ended by a panic: the process shuts down"),
        })
    }
}

/// Checks whether the storage works; the error is the reason. What an operator should know although it
/// works is a sentence each.
pub type Checkup = Arc<dyn Fn() -> Result<Vec<String>, String> + Send + Sync>;

/// Health checks and counters over HTTP.
#[derive(Clone)]
pub struct Health {
    /// How far it is.
    pub readiness: Readiness,
    /// Whether the store can do its work.
    pub storage: Checkup,
    /// The access control for reading.
    pub guard: Arc<Guard>,
    /// The contents of `/metrics`.
    pub readings: Readings,
    /// Requests that panicked: each is a bug in plumbago.
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
            .merge(self.guard.watch(own))
            .fallback(nothing_here)
            .layer(from_fn_with_state(self, metrics_without_query))
            .layer(CatchPanicLayer::custom(move |_| {
                panics.fetch_add(1, Ordering::Relaxed);
                let sentence = "internal error: the request failed because of a bug in plumbago\n";
                (StatusCode::INTERNAL_SERVER_ERROR, sentence).into_response()
            }))
            .layer(map_response(secure::headers))
    }
}

/// A page for browsers, JSON for everybody else.
async fn nothing_here(uri: Uri, headers: HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT).iter();
    if accepted
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/html"))
    {
        return nothing_at(uri.path()).into_response();
    }
    no_such_page(&uri)
}

fn no_such_page(uri: &Uri) -> Response {
    let body = serde_json::json!({ "error": format!("no such page: {}", uri.path()) });
    let json = [(header::CONTENT_TYPE, "application/json")];
    (StatusCode::NOT_FOUND, json, body.to_string()).into_response()
}

async fn ready(State(health): State<Health>) -> Response {
    if let Err(why) = health.readiness.check() {
        return unavailable(&why);
    }
    // It looks at the disk.
    match tokio::task::spawn_blocking(move || (health.storage)()).await {
        Ok(Ok(notes)) => {
            let notes = notes.iter().map(|note| format!("{note}\n"));
            format!("ready\n{}", notes.collect::<String>()).into_response()
        }
        Ok(Err(why)) => unavailable(&why),
        Err(_) => unavailable("checking the store failed"),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

async fn metrics_without_query(
    State(health): State<Health>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().trim_end_matches('/');
    let query = request.uri().query().unwrap_or_default();
    let asks = query.split('&').any(|pair| pair.starts_with("query="));
    if path != "/metrics" || asks || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    if let Err(refusal) = health.guard.look(request.headers(), request.uri()) {
        return refusal.into_response();
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let text = prometheus(&(health.readings)());
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// The service behind the listeners: a 503 during the start, the routes afterwards, all below the
/// base path. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    routes: Arc<OnceLock<Router>>,
    starting: Router,
    base_path: Arc<str>,
}

impl Front {
    /// A front that answers with the state of `readiness` until it is opened. `base_path` is
    /// `render.base_path`, checked.
    pub fn closed(readiness: Readiness, base_path: &str) -> Self {
        let starting = Router::new()
            .fallback(starting)
            .with_state(readiness)
            .layer(map_response(secure::headers));
        let base_path: Arc<str> = base_path.into();
        Self {
            routes: Arc::default(),
            starting: below(&base_path, starting),
            base_path,
        }
    }

    /// Answers with `routes` from now on.
    pub fn open(&self, routes: Router) {
        // It is opened once.
        let _ = self.routes.set(below(&self.base_path, routes));
    }

    fn routes(&self) -> Router {
        self.routes.get().unwrap_or(&self.starting).clone()
    }
}

/// `routes` below `base_path`; the routes themselves if that is empty.
fn below(base_path: &Arc<str>, routes: Router) -> Router {
    if base_path.is_empty() {
        return routes;
    }
    // The path is changed before the routes are asked for it.
    Router::new()
        .fallback_service(routes)
        .layer(from_fn_with_state(Arc::clone(base_path), without_base))
        .layer(map_response(secure::headers))
}

/// Takes the base path off a request's path. Outside of it, only the probes and the metrics are
/// answered.
async fn without_base(
    State(base_path): State<Arc<str>>,
    mut request: Request,
    next: Next,
) -> Response {
    let uri = request.uri().clone();
    let query = uri.query().map(|query| format!("?{query}"));
    let query = query.unwrap_or_default();
    let path = match uri.path().strip_prefix(&*base_path) {
        // Links on the page are relative: they need the slash.
        Some("") => {
            return Redirect::permanent(&format!("{base_path}/{query}")).into_response();
        }
        Some(rest) if rest.starts_with('/') => format!("{rest}{query}"),
        _ if is_probe(&request) => format!("/{}", uri.path().trim_matches('/')),
        _ => return no_such_page(&uri),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    match Uri::from_parts(parts) {
        Ok(inner) => *request.uri_mut() = inner,
        Err(_) => return no_such_page(&uri),
    }
    next.run(request).await
}

/// Whether a request asks for a path that is answered outside of the base path.
fn is_probe(request: &Request) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    reads && ALWAYS.contains(&request.uri().path().trim_matches('/'))
}

async fn starting(State(readiness): State<Readiness>, uri: Uri) -> Response {
    let why = match readiness.check() {
        Err(why) => why,
        // The server has become ready during this request.
        Ok(()) => "starting".to_owned(),
    };
    let mut response = match uri.path().trim_end_matches('/') {
        "/healthz" | "/readyz" => unavailable(&why),
        _ => {
            let body = serde_json::json!({ "error": why }).to_string();
            let json = [(header::CONTENT_TYPE, "application/json")];
            (StatusCode::SERVICE_UNAVAILABLE, json, body).into_response()
        }
    };
    let soon = header::HeaderValue::from_static("5");
    response.headers_mut().insert(header::RETRY_AFTER, soon);
    response
}

/// A sink that counts the datapoints that this server makes itself: they do not count as received.
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

    // Counted before the sink counts them: who reads its count first and this one then never takes
    // a point of the server for a client's.
    fn submit(&self, points: &[Datapoint]) {
        self.count.fetch_add(points.len() as u64, Ordering::Relaxed);
        fence(Ordering::Release);
        self.sink.submit(points);
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        self.count.fetch_add(points.len() as u64, Ordering::Relaxed);
        fence(Ordering::Release);
        let taken = self.sink.try_submit(points);
        let refused = points.len() - taken;
        self.count.fetch_sub(refused as u64, Ordering::Relaxed);
        taken
    }
}

/// Answers on every listener until `stop` changes, then lets begun answers finish.
///
/// # Errors
/// A listener that the runtime refuses.
pub async fn serve(
    listeners: Vec<TcpListener>,
    front: Front,
    connections: Connections,
    supervisor: Supervisor,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let mut servers = JoinSet::new();
    for listener in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let front = front.clone();
        let routes = move || front.routes();
        let serving = connections.clone().serve(listener, routes, stop.clone());
        servers.spawn(supervisor.watched("http", serving));
    }
    let mut stopped = stop;
    let _ = stopped.wait_for(|stop| *stop).await;
    let last = async { while servers.join_next().await.is_some() {} };
    if timeout(LAST_ANSWERS, last).await.is_err() {
        warn!("shutdown: closed the HTTP connections that were still open after {LAST_ANSWERS:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use render::http::guard;
    use tower::ServiceExt;

    use super::*;
    use crate::report::Reading;

    async fn ask(router: Router, path: &str, host: &str) -> (StatusCode, HeaderMap, String) {
        let request = Request::get(path).header(header::HOST, host);
        let request = request.body(Body::empty()).unwrap();
        let answer = router.oneshot(request).await.unwrap();
        let (parts, body) = answer.into_parts();
        let body = axum::body::to_bytes(body, 10_000).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        (parts.status, parts.headers, text)
    }

    /// A sink that takes one point of each call, and expects that all were counted before.
    struct Narrow(Arc<AtomicU64>);

    impl Sink for Narrow {
        fn intern(&self, _name: &[u8]) -> Result<SeriesId, NameError> {
            Err(NameError::Empty)
        }

        fn release(&self, _ids: &[SeriesId]) {}

        fn submit(&self, points: &[Datapoint]) {
            self.try_submit(points);
        }

        fn try_submit(&self, points: &[Datapoint]) -> usize {
            assert!(self.0.load(Ordering::Relaxed) >= points.len() as u64);
            1
        }
    }

    #[test]
    fn own_points_are_counted_before_they_are_received() {
        let count = Arc::new(AtomicU64::new(0));
        let sink = Arc::new(Narrow(count.clone()));
        let own = Own {
            sink,
            count: count.clone(),
        };
        let point = Datapoint {
            series: SeriesId(1),
            at: carbon::PointTime::of_clock(whisper::Timestamp(10)),
            value: 1.0,
        };
        assert_eq!(own.try_submit(&[point; 3]), 1);
        assert_eq!(count.load(Ordering::Relaxed), 1);
        own.submit(&[point; 2]);
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    fn health() -> Health {
        Health {
            readiness: Readiness::default(),
            storage: Arc::new(|| Ok(Vec::new())),
            guard: Arc::new(Guard::new(&guard::Options::default(), true)),
            readings: Arc::new(|| vec![Reading::count("carbon", "creates", "Files created.", 2)]),
            panics: Arc::default(),
        }
    }

    fn routes() -> Router {
        let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        let picture = [(header::CONTENT_TYPE, "image/svg+xml")];
        Router::new()
            .route("/metrics", get(|| async { "find" }))
            .route("/html", get(move || async move { (html, "") }))
            .route("/picture", get(move || async move { (picture, "") }))
            .route("/panic", get(|| async { panic!("a mistake") as &str }))
    }

    #[tokio::test]
    async fn health_counters_panics_and_unknown_paths() {
        let health = health();
        let router = health.clone().beside(routes());
        let ask = |path| ask(router.clone(), path, "localhost:8080");
        assert_eq!(ask("/healthz").await.0, StatusCode::OK);
        let (status, _, text) = ask("/readyz").await;
        assert_eq!(
            (status, &*text),
            (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
        );
        health.readiness.ready();
        assert_eq!(ask("/readyz").await.0, StatusCode::OK);
        health.readiness.died("persister");
        let (status, _, text) = ask("/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "persister ended by a panic: the process shuts down\n");
        let (_, _, text) = ask("/metrics").await;
        assert!(text.contains("plumbago_carbon_creates_total 2\n"), "{text}");
        assert_eq!(ask("/metrics?query=a.*").await.2, "find");
        let (status, _, body) = ask("/a/%3Cb%3E").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.contains("no such page: /a/"), "{body}");
        let request = Request::get("/a/%3Cb%3E").header(header::ACCEPT, "text/html,*/*");
        let request = request.header(header::HOST, "localhost:8080");
        let answer = router.clone().oneshot(request.body(Body::empty()).unwrap());
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        let page = axum::body::to_bytes(answer.into_body(), usize::MAX).await;
        let page = String::from_utf8(page.unwrap().to_vec()).unwrap();
        assert!(
            page.contains("No such page") && page.contains("href=\"../\""),
            "{page}"
        );
        assert_eq!(ask("/panic").await.0, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(health.panics.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn everything_is_below_the_base_path() {
        let health = health();
        let front = Front::closed(health.readiness.clone(), "/graphite/web");
        let (status, ..) = ask(front.routes(), "/graphite/web/html", "localhost").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let (status, ..) = ask(front.routes(), "/html", "localhost").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        let (_, _, text) = ask(front.routes(), "/readyz", "localhost").await;
        assert_eq!(text, "starting\n");
        front.open(health.clone().beside(routes()));
        health.readiness.ready();
        for (path, expected) in [
            ("/graphite/web/html", StatusCode::OK),
            ("/graphite/web/html?a=b", StatusCode::OK),
            ("/graphite/web/healthz", StatusCode::OK),
            ("/graphite/web/panic", StatusCode::INTERNAL_SERVER_ERROR),
            ("/graphite/web/", StatusCode::NOT_FOUND),
            ("/graphite/web", StatusCode::PERMANENT_REDIRECT),
            ("/graphite/webhtml", StatusCode::NOT_FOUND),
            ("/graphite/web//html", StatusCode::NOT_FOUND),
            ("/graphite/html", StatusCode::NOT_FOUND),
            ("/html", StatusCode::NOT_FOUND),
            ("/", StatusCode::NOT_FOUND),
            ("/healthz", StatusCode::OK),
            ("/readyz/", StatusCode::OK),
        ] {
            let (status, headers, body) = ask(front.routes(), path, "localhost").await;
            assert_eq!(status, expected, "{path}: {body}");
            assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        }
        let (_, headers, _) = ask(front.routes(), "/graphite/web?a=b", "localhost").await;
        assert_eq!(headers[header::LOCATION], "/graphite/web/?a=b");
        // Outside of the base path, /metrics is never find.
        for path in ["/metrics", "/metrics?query=a", "/graphite/web/metrics"] {
            let (_, _, text) = ask(front.routes(), path, "localhost").await;
            assert!(text.contains("plumbago_carbon_creates_total 2\n"), "{path}");
        }
        let (_, _, text) = ask(front.routes(), "/graphite/web/metrics?query=a", "localhost").await;
        assert_eq!(text, "find");
    }

    #[tokio::test]
    async fn a_store_in_trouble_is_not_ready() {
        let health = Health {
            storage: Arc::new(|| Err("the data directory is gone".to_owned())),
            ..health()
        };
        health.readiness.ready();
        let (status, _, text) = ask(health.beside(routes()), "/readyz", "localhost").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "the data directory is gone\n");
    }

    #[tokio::test]
    async fn every_answer_has_the_headers_and_pictures_may_be_shown_anywhere() {
        let router = health().beside(routes());
        let paths = [
            "/healthz", "/readyz", "/metrics", "/nothing", "/panic", "/html",
        ];
        for path in paths {
            let (_, headers, _) = ask(router.clone(), path, "localhost").await;
            assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
            assert_eq!(headers["referrer-policy"], "same-origin", "{path}");
            assert_eq!(headers["x-frame-options"], "SAMEORIGIN", "{path}");
            let policy = headers.get(header::CONTENT_SECURITY_POLICY);
            assert_eq!(policy.is_some(), path == "/html", "{path}: {policy:?}");
        }
        let (_, headers, _) = ask(router, "/picture", "localhost").await;
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(!headers.contains_key(header::X_FRAME_OPTIONS));
        assert!(!headers.contains_key("cross-origin-resource-policy"));
    }

    #[tokio::test]
    async fn on_loopback_only_our_own_names_are_answered() {
        let router = health().beside(routes());
        for path in ["/healthz", "/metrics"] {
            let (status, headers, text) = ask(router.clone(), path, "evil.example").await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{path}");
            assert!(text.contains("auth.hosts"), "{text}");
            assert_eq!(headers["x-content-type-options"], "nosniff");
        }
    }

    #[tokio::test]
    async fn until_it_is_opened_the_front_says_how_far_the_start_is() {
        let readiness = Readiness::default();
        let front = Front::closed(readiness.clone(), "");
        readiness.replaying(40, 100);
        for path in ["/healthz", "/readyz", "/render?target=a", "/events/"] {
            let (status, headers, text) = ask(front.routes(), path, "localhost").await;
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
            assert_eq!(headers[header::RETRY_AFTER], "5", "{path}");
            assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
            let sentence = "starting: 40 % of the journal read";
            let is_json = headers[header::CONTENT_TYPE] == "application/json";
            assert_eq!(is_json, !path.ends_with('z'), "{path}");
            match is_json {
                true => assert_eq!(text, format!("{{\"error\":\"{sentence}\"}}")),
                false => assert_eq!(text, format!("{sentence}\n")),
            }
        }
        readiness.ready();
        front.open(routes());
        let (status, _, text) = ask(front.routes(), "/metrics", "localhost").await;
        assert_eq!((status, &*text), (StatusCode::OK, "find"));
    }
}
