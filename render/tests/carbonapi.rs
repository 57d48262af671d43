//! The requests of carbonapi, in both versions of its protocol, on a source held in memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Request, StatusCode, header};
use prost::Message;
use render::http::guard::{self, Guard};
use render::http::{App, router};
use render::memory::Memory;
use render::options::MemorySize;
use render::protobuf::{MAX_ITEMS, v2, v3};
use render::{Options, events};
use serde_json::{Value, json};
use settings::ByteSize;
use tower::ServiceExt;

struct Server {
    router: Router,
    _data: tempfile::TempDir,
}

const VERSION_3: &str = "application/x-carbonapi-v3-pb";

fn serve(options: Options) -> Server {
    let mut memory = Memory::default();
    for name in ["web.a", "web.b", "web.c.d", "odd(name)", "m;dc=x", "m;dc=y"] {
        memory.insert(name, 60, vec![1.0, whisper::ABSENT, 3.0, 4.0]);
    }
    let data = tempfile::tempdir().unwrap();
    let store = events::Store::open(&data.path().join("events.db"), &Default::default()).unwrap();
    let options = Options {
        now: 240,
        ..options
    };
    let app = App::new(
        &options,
        Arc::new(memory),
        Arc::new(Memory::default()),
        store,
    )
    .unwrap();
    let guard = Arc::new(Guard::new(&guard::Options::default(), true));
    Server {
        router: router(app, &guard),
        _data: data,
    }
}

impl Server {
    async fn send(&self, request: Request<Body>) -> (StatusCode, String, Bytes) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let kind = head.headers[header::CONTENT_TYPE].to_str().unwrap();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (head.status, kind.to_owned(), body)
    }

    async fn get(&self, uri: &str) -> (StatusCode, String, Bytes) {
        self.send(Request::get(uri).body(Body::empty()).unwrap())
            .await
    }

    /// As carbonapi does: a GET with a body, the version in `Accept`.
    async fn ask(&self, uri: &str, body: Vec<u8>) -> (StatusCode, String, Bytes) {
        let request = Request::get(uri).header(header::ACCEPT, VERSION_3);
        self.send(request.body(Body::from(body)).unwrap()).await
    }
}

fn fetch(name: &str, start_time: i64, stop_time: i64) -> v3::FetchRequest {
    v3::FetchRequest {
        name: name.to_owned(),
        path_expression: format!("as asked: {name}"),
        start_time,
        stop_time,
    }
}

fn globs(patterns: &[&str]) -> Vec<u8> {
    let metrics = patterns.iter().map(|&pattern| pattern.to_owned());
    let metrics = metrics.collect();
    v3::MultiGlobRequest { metrics }.encode_to_vec()
}

#[tokio::test]
async fn version_2_answers_patterns_over_one_range() {
    let server = serve(Options::default());
    for format in ["protobuf", "protobuf3", "carbonapi_v2_pb"] {
        let uri =
            format!("/render/?format={format}&from=0&until=240&target=web.*&target=odd(name)");
        let (status, kind, body) = server.get(&uri).await;
        assert_eq!((status, &*kind), (StatusCode::OK, "application/x-protobuf"));
        let answer = v2::MultiFetchResponse::decode(body).unwrap();
        let names: Vec<&str> = answer.metrics.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["web.a", "web.b", "odd(name)"]);
        let first = &answer.metrics[0];
        assert_eq!(
            (first.start_time, first.stop_time, first.step_time),
            (60, 300, 60)
        );
        assert_eq!(first.values, [1.0, 0.0, 3.0, 4.0]);
        assert_eq!(first.is_absent, [false, true, false, false]);
    }
    let (status, kind, body) = server
        .get("/metrics/find/?format=protobuf&query=web.*")
        .await;
    assert_eq!((status, &*kind), (StatusCode::OK, "application/x-protobuf"));
    let answer = v2::GlobResponse::decode(body).unwrap();
    let node = |path: &str, is_leaf| v2::GlobMatch {
        path: path.into(),
        is_leaf,
    };
    assert_eq!(answer.name, "web.*");
    assert_eq!(
        answer.matches,
        [
            node("web.a", true),
            node("web.b", true),
            node("web.c", false)
        ]
    );
    let (_, _, body) = server.get("/info/?target=web.a&format=protobuf").await;
    let answer = v2::InfoResponse::decode(body).unwrap();
    let retention = v2::Retention {
        seconds_per_point: 60,
        number_of_points: 4,
    };
    let expected = v2::InfoResponse {
        name: "web.a".into(),
        aggregation_method: "Average".into(),
        max_retention: 240,
        x_files_factor: 0.5,
        retentions: vec![retention],
    };
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn version_3_answers_each_request_over_its_own_range() {
    let server = serve(Options::default());
    let metrics = vec![
        fetch("web.*", 0, 240),
        fetch("nosuch", 0, 240),
        fetch("web.a", 60, 120),
        fetch("seriesByTag('name=m', 'dc=~x')", 0, 60),
    ];
    let body = v3::MultiFetchRequest { metrics }.encode_to_vec();
    let posted = Request::post("/render/?format=carbonapi_v3_pb");
    let posted = posted.body(Body::from(body.clone())).unwrap();
    let (status, kind, first) = server.send(posted).await;
    assert_eq!((status, &*kind), (StatusCode::OK, VERSION_3));
    let (_, _, second) = server.ask("/render/?format=carbonapi_v3_pb", body).await;
    assert_eq!(first, second);
    let answer = v3::MultiFetchResponse::decode(first).unwrap();
    let shape = |m: &v3::FetchResponse| {
        (
            m.name.clone(),
            m.path_expression.clone(),
            (m.start_time, m.stop_time),
            (m.request_start_time, m.request_stop_time),
        )
    };
    let shapes: Vec<_> = answer.metrics.iter().map(shape).collect();
    let of = |name: &str, asked: &str, times: (i64, i64), request: (i64, i64)| {
        (
            name.to_owned(),
            format!("as asked: {asked}"),
            times,
            request,
        )
    };
    assert_eq!(
        shapes,
        [
            of("web.a", "web.*", (60, 300), (0, 240)),
            of("web.b", "web.*", (60, 300), (0, 240)),
            of("web.a", "web.a", (120, 180), (60, 120)),
            of(
                "m;dc=x",
                "seriesByTag('name=m', 'dc=~x')",
                (60, 120),
                (0, 60)
            ),
        ]
    );
    let first = &answer.metrics[0];
    assert_eq!(first.consolidation_func, "Average");
    assert_eq!((first.x_files_factor, first.step_time), (0.5, 60));
    assert!(first.values[1].is_nan());
    assert_eq!([first.values[0], first.values[3]], [1.0, 4.0]);

    let (status, kind, body) = server
        .ask("/metrics/find/", globs(&["web.*", "no.*"]))
        .await;
    assert_eq!((status, &*kind), (StatusCode::OK, VERSION_3));
    let answer = v3::MultiGlobResponse::decode(body).unwrap();
    let found = answer.metrics.iter().map(|m| (&*m.name, m.matches.len()));
    assert_eq!(found.collect::<Vec<_>>(), [("web.*", 3), ("no.*", 0)]);

    let (_, _, body) = server.ask("/info/", globs(&["web.b", "web.a"])).await;
    let answer = v3::MultiMetricsInfoResponse::decode(body).unwrap();
    let names = answer.metrics.iter().map(|m| (&*m.name, m.max_retention));
    assert_eq!(names.collect::<Vec<_>>(), [("web.b", 240), ("web.a", 240)]);
}

#[tokio::test]
async fn the_best_protocol_is_the_first_capability() {
    let server = serve(Options::default());
    let (status, kind, body) = server.ask("/_internal/capabilities/", Vec::new()).await;
    assert_eq!((status, &*kind), (StatusCode::OK, VERSION_3));
    let answer = v3::CapabilityResponse::decode(body).unwrap();
    assert_eq!(
        answer.supported_protocols[..2],
        ["carbonapi_v3_pb", "carbonapi_v2_pb"]
    );
    assert!(!answer.name.is_empty() && answer.like_splitted_requests);
    let (_, _, body) = server.get("/_internal/capabilities/?format=json").await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["supportedProtocols"][0], "carbonapi_v3_pb");
}

#[tokio::test]
async fn info_and_list_speak_json_too() {
    let server = serve(Options::default());
    let (status, kind, body) = server.get("/info?target=web.a&target=web.b").await;
    assert_eq!((status, &*kind), (StatusCode::OK, "application/json"));
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        answer["metrics"][0],
        json!({
            "name": "web.a",
            "consolidationFunc": "Average",
            "maxRetention": "240",
            "xFilesFactor": 0.5,
            "retentions": [{ "secondsPerPoint": "60", "numberOfPoints": "4" }],
        })
    );
    assert_eq!(answer["metrics"][1]["name"], "web.b");
    let (_, _, body) = server.get("/metrics/list/?format=json").await;
    assert_eq!(
        body,
        r#"{"Metrics":["odd(name)","web.a","web.b","web.c.d"]}"#
    );
    let (_, _, body) = server.get("/metrics/list/?format=carbonapi_v2_pb").await;
    let answer = v2::ListMetricsResponse::decode(body).unwrap();
    assert_eq!(answer.metrics.len(), 4);
}

#[tokio::test]
async fn refusals_and_empty_answers_are_go_carbons() {
    let server = serve(Options::default());
    for (uri, expected) in [
        ("/render/?format=protobuf&target=no.*&from=0&until=9", 404),
        ("/render/?format=protobuf&from=0&until=9", 404),
        ("/render/?format=protobuf&target=web.a&from=x&until=9", 400),
        ("/render/?format=protobuf&target=web.a&from=9&until=0", 400),
        ("/render/?format=carbonapi_v3_pb", 404),
        ("/metrics/find/?format=protobuf&query=no.*", 404),
        ("/metrics/find/?format=protobuf", 400),
        ("/metrics/find/?format=carbonapi_v3_pb", 400),
        ("/info/?target=no&format=protobuf", 404),
        ("/info/?target=web.a&target=no", 404),
        ("/info/", 404),
        ("/info/?target=web.a&format=pickle", 400),
        ("/_internal/capabilities/?format=protobuf", 400),
        ("/metrics/list/?format=xml", 400),
    ] {
        let (status, _, body) = server.get(uri).await;
        assert_eq!(status.as_u16(), expected, "{uri}: {body:?}");
    }
    for uri in ["/render/", "/metrics/find/", "/info/"] {
        let (status, _, body) = server.ask(uri, b"\x0a\xff".to_vec()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{uri}");
        assert!(
            body.starts_with(b"Bad request (malformed protobuf"),
            "{uri}"
        );
        let many = b"\x0a\x00".repeat(MAX_ITEMS + 1);
        let (status, ..) = server.ask(uri, many).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{uri}");
    }
}

#[tokio::test]
async fn answers_are_within_the_budget() {
    let server = serve(Options {
        max_memory: MemorySize::Bytes(ByteSize(100_000)),
        ..Options::default()
    });
    let metrics = vec![fetch("web.*", 0, 240); 200];
    let body = v3::MultiFetchRequest { metrics }.encode_to_vec();
    let (status, _, body) = server.ask("/render/", body).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body:?}");
    let (status, ..) = server.ask("/metrics/find/", globs(&["web.*"; 2_000])).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, ..) = server.get("/render/?format=protobuf&target=web.a").await;
    assert_eq!(status, StatusCode::OK);
}
