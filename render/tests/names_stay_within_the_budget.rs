//! Answers of names, from an index of many: what is really allocated stays within the budget, a
//! budget that is too small refuses with a 413 that names its key, a large one answers.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::alloc::System;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use cap::Cap;
use carbon::{Access, Carbon, Setup};
use render::http::guard::{self, Guard};
use render::http::{App, router};
use render::options::MemorySize;
use render::{Options, events};
use settings::ByteSize;
use tower::ServiceExt;

#[global_allocator]
static ALLOCATED: Cap<System> = Cap::new(System, usize::MAX);

const MIB: usize = 1 << 20;

/// A budget that is too small for every answer here.
const SMALL: usize = 2 * MIB;

/// What is allocated beside the budget: the sets of a tag query, the router and its requests.
const SLACK: usize = MIB;

const N_NAMES: usize = 30_000;

/// Every answer of names: the texts of the requests.
const ASKED: [&str; 17] = [
    "/metrics/find?query=web.*",
    "/metrics/find?query=web.*&format=completer",
    "/metrics/find?query=web.*&format=nodelist",
    "/metrics/find?query=web.*&format=json",
    "/metrics/find?query=web.*&format=msgpack",
    "/metrics/find?query=web.*&format=pickle",
    "/metrics/find?query=web.*&jsonp=x",
    "/metrics/expand?query=web.*",
    "/metrics/expand?query=web.*&groupByExpr=1",
    "/metrics/index.json",
    "/tags",
    "/tags/host",
    "/tags/findSeries?expr=name=m",
    "/tags/autoComplete/tags?limit=1000000",
    "/tags/autoComplete/tags?limit=1000000&expr=name=m",
    "/tags/autoComplete/values?tag=host&limit=1000000",
    "/tags/autoComplete/values?tag=host&limit=-1",
];

/// A store that knows the names: as many series, as many values of `host`, as many tags.
fn store(data: &Path) -> Arc<Carbon> {
    let mut setup = Setup::new(
        Default::default(),
        Default::default(),
        settings::Span::seconds(10),
    );
    setup.access = Access::Frozen;
    let carbon = Arc::new(Carbon::open(setup, data).unwrap());
    let index = carbon.index();
    let tagged: Vec<String> = (0..N_NAMES)
        .map(|n| format!("m;host=machine-number-{n:06};label-number-{n:06}=x"))
        .collect();
    let tagged: Vec<&str> = tagged.iter().map(String::as_str).collect();
    index.register_all(&tagged).unwrap();
    for n in 0..N_NAMES {
        let name = format!("web.machine-number-{n:06}-requests");
        index.note_stored(name.as_bytes()).unwrap();
    }
    carbon
}

fn serve(carbon: &Arc<Carbon>, data: &Path, limit: usize) -> (App, Router) {
    let store = events::Store::open(&data.join("events.db"), &Default::default()).unwrap();
    let options = Options {
        max_series: 0,
        max_memory: MemorySize::Bytes(ByteSize(limit as u64)),
        ..Options::default()
    };
    let app = App::new(&options, carbon.clone(), carbon.clone(), store).unwrap();
    let guard = Arc::new(Guard::new(&guard::Options::default(), true));
    (app.clone(), router(app, &guard))
}

#[tokio::test]
async fn answers_of_names_stay_within_the_budget() {
    let data = tempfile::tempdir().unwrap();
    let carbon = store(data.path());
    // The least first: the peak is that of all requests so far.
    for limit in [SMALL, 256 * MIB] {
        let (app, router) = serve(&carbon, data.path(), limit);
        for path in ASKED {
            let before = ALLOCATED.allocated();
            let peak_before = ALLOCATED.max_allocated();
            app.memory.restart_peak();
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let (status, held) = (response.status(), app.memory.used());
            let peak = ALLOCATED.max_allocated();
            let reserved = app.memory.peak() as usize;
            if peak > peak_before {
                let taken = peak - before;
                assert!(taken <= reserved + SLACK, "{path}: {taken} of {reserved}");
            }
            let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
            if limit == SMALL {
                let text = String::from_utf8_lossy(&body);
                assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{path}: {text:.100}");
                assert!(text.contains("render.max_memory"), "{path}: {text}");
            } else {
                assert_eq!(status, StatusCode::OK, "{path}");
                assert!(body.len() > N_NAMES * 16, "{path}: {}", body.len());
                // Its text stays reserved until it is sent.
                assert!(held >= body.len() as u64, "{path}: {held}");
            }
            drop(body);
            assert_eq!(app.memory.used(), 0, "{path}");
        }
    }
}
