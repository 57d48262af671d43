//! Slow clients and a store that hangs, one beside the others.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http_body::Frame;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use super::room::WRITERS;
use super::*;
use crate::events::Options;
use crate::http::guard;

/// A server with so many threads for work that blocks.
struct Server {
    state: EventsState,
    runtime: Runtime,
    _directory: tempfile::TempDir,
}

impl Server {
    fn start(n_threads: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        let state = EventsState {
            store: Store::open(&path, &Options::default()).unwrap(),
            guard: Arc::new(Guard::new(&guard::Options::default(), true)),
            time_zone: TimeZone::UTC,
            clock: None,
            room: Room::default(),
            base_path: Arc::default(),
            page: None,
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(n_threads)
            .build();
        Self {
            state,
            runtime: runtime.unwrap(),
            _directory: directory,
        }
    }

    fn send(&self, method: &str, path: &str, body: Body) -> impl Future<Output = Response> + use<> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::HOST, "localhost").body(body);
        let router: Router = routes(self.state.clone());
        async move { router.oneshot(request.unwrap()).await.unwrap() }
    }

    fn post(&self) -> impl Future<Output = Response> + use<> {
        self.send("POST", "/events/", Body::from("{\"what\": \"deploy\"}"))
    }
}

#[test]
fn changes_that_wait_leave_threads_to_others() {
    let server = Server::start(WRITERS + 1);
    let release = server.state.store.hold();
    server.runtime.block_on(async {
        let mut posts = JoinSet::new();
        for _ in 0..4 * WRITERS {
            posts.spawn(server.post());
        }
        // Each comes as far as it can.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let thread = tokio::task::spawn_blocking(|| ());
        let thread = tokio::time::timeout(Duration::from_secs(60), thread).await;
        assert!(thread.is_ok(), "no thread is left");
        assert!(posts.try_join_next().is_none());
        drop(release);
        while let Some(answer) = posts.join_next().await {
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
        }
    });
}

/// A body that does not come.
struct Never;

impl http_body::Body for Never {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[test]
fn bodies_that_arrive_slowly_keep_nothing_from_others() {
    let server = Server::start(4);
    let large = format!("{{\"what\": \"a\", \"data\": \"{}\"}}", "x".repeat(100_000));
    server.runtime.block_on(async {
        let mut slow = JoinSet::new();
        for _ in 0..40 {
            for path in ["/events/import", "/events/"] {
                slow.spawn(server.send("POST", path, Body::new(Never)));
            }
        }
        tokio::task::yield_now().await;
        for (path, body) in [
            ("/events/import", "{\"what\": \"a\", \"when\": 1}"),
            ("/events/", &large),
        ] {
            let body = Body::from(body.to_owned());
            let answer = server.send("POST", path, body).await;
            assert_eq!(answer.status(), StatusCode::OK, "{path}");
        }
        assert!(slow.try_join_next().is_none());
    });
}

#[test]
fn exports_that_are_not_read_keep_nothing_from_others() {
    let server = Server::start(4);
    server.runtime.block_on(async {
        assert_eq!(server.post().await.status(), StatusCode::OK);
        let mut unread = Vec::new();
        for _ in 0..40 {
            unread.push(server.send("GET", "/events/export", Body::empty()).await);
        }
        let answer = server.send("GET", "/events/export", Body::empty()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let read = axum::body::to_bytes(answer.into_body(), 10_000).await;
        assert!(read.unwrap().starts_with(b"{\"id\":1,"));
    });
}
