//! What `/render` and its neighbours do with odd requests, on a source held in memory.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body::Body as _;
use render::budget::Budget;
use render::http::guard::{self, Guard};
use render::http::pool::Lane;
use render::http::{App, router};
use render::memory::Memory;
use render::options::MemorySize;
use render::{FetchRange, Fetched, Node, Options, Source, SourceError, events};
use serde_json::{Value, json};
use settings::{ByteSize, Span};
use tower::ServiceExt;

/// A memory that counts, waits and panics on request.
struct Odd {
    memory: Memory,
    n_fetched: AtomicUsize,
    barrier: Barrier,
}

impl Source for Odd {
    fn find(&self, pattern: &str, budget: &Budget) -> Result<Vec<Node>, SourceError> {
        self.memory.find(pattern, budget)
    }

    fn find_tagged(
        &self,
        expressions: &[&str],
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        self.memory.find_tagged(expressions, budget)
    }

    fn fetch(&self, name: &str, range: FetchRange) -> Result<Option<Fetched>, SourceError> {
        self.n_fetched.fetch_add(1, Ordering::SeqCst);
        match name {
            "odd.panics" => panic!("on purpose"),
            "odd.fails" => return Err(SourceError::Failed("the disk is gone".to_owned())),
            "odd.waits" => {
                self.barrier.wait();
            }
            _ => {}
        }
        self.memory.fetch(name, range)
    }
}

struct Server {
    router: Router,
    app: App,
    source: Arc<Odd>,
    _data: tempfile::TempDir,
}

/// The points of `long`, a second each.
const LONG: u32 = 400_000;

fn serve(options: Options) -> Server {
    let mut memory = Memory::default();
    for name in ["web.a", "web.b", "odd.panics", "odd.fails", "odd.waits"] {
        memory.insert(name, 60, vec![1.0, 2.0, 3.0, 4.0]);
    }
    memory.insert("long", 1, (0..LONG).map(|n| f64::from(n) / 4.0).collect());
    let source = Arc::new(Odd {
        memory,
        n_fetched: AtomicUsize::new(0),
        barrier: Barrier::new(2),
    });
    let data = tempfile::tempdir().unwrap();
    let store = events::Store::open(&data.path().join("events.db"), &Default::default()).unwrap();
    let now = match options.now {
        0 => 240,
        now => now,
    };
    let options = Options { now, ..options };
    let app = App::new(&options, source.clone(), Arc::new(Memory::default()), store).unwrap();
    let guard = Arc::new(Guard::new(&guard::Options::default(), true));
    Server {
        router: router(app.clone(), &guard),
        app,
        source,
        _data: data,
    }
}

impl Server {
    async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8_lossy(&body).into_owned();
        (head.status, head.headers, text)
    }

    async fn get(&self, uri: &str) -> (StatusCode, HeaderMap, String) {
        self.send(Request::get(uri).body(Body::empty()).unwrap())
            .await
    }

    async fn render(&self, query: &str) -> (StatusCode, HeaderMap, Value) {
        let uri = format!("/render?format=json&from=0&until=240&{query}");
        let (status, headers, text) = self.get(&uri).await;
        let body = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
        (status, headers, body)
    }
}

#[tokio::test]
async fn what_is_ignored_is_told_and_refused_when_strict() {
    let server = serve(Options::default());
    let (status, headers, body) = server.render("target=scale(web.a,2))").await;
    assert_eq!(
        (status, &body[0]["target"]),
        (StatusCode::OK, &json!("scale(web.a,2)"))
    );
    assert_eq!(
        headers["x-plumbago-ignored"],
        "target 1 from character 14: )"
    );
    let (status, _, body) = server.render("target=scale(web.a,2))&strict=1").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["position"], 14);
    let (status, _, body) = server.render("target=%22x%22").await;
    assert_eq!(
        (status, &body["position"]),
        (StatusCode::BAD_REQUEST, &json!(0))
    );
    let (_, headers, body) = server
        .render("target=transformNull(web.a,referenceSeries=web.b)")
        .await;
    assert_eq!(body[0]["target"], "transformNull(web.a,0)");
    assert!(
        headers["x-plumbago-ignored"]
            .to_str()
            .unwrap()
            .starts_with("web.b")
    );
    let (_, headers, body) = server
        .render("target=transformNull(web.a,referenceSeries=web.b)&strict=1")
        .await;
    assert_eq!(body[0]["target"], "transformNull(web.a,0,referenceSeries)");
    assert!(!headers.contains_key("x-plumbago-ignored"));
    // Of many, the first ones and their number.
    let (status, headers, _) = server.render(&"target=web.a)&".repeat(1_000)).await;
    assert_eq!(status, StatusCode::OK);
    let ignored = headers["x-plumbago-ignored"].to_str().unwrap();
    assert!(
        ignored.starts_with("target 1 from character 5: ); target 2 "),
        "{ignored}"
    );
    let n_shown = ignored.matches("target ").count();
    assert!(
        ignored.ends_with(&format!("; and {} more", 1_000 - n_shown)),
        "{ignored}"
    );
    assert!(ignored.len() < 4_096, "{} bytes", ignored.len());
}

#[tokio::test]
async fn refusals_are_json_for_programs_and_text_for_people() {
    let server = serve(Options::default());
    let (status, _, body) = server.render("target=sumSeris(web.a)").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let sentence = body["error"].as_str().unwrap();
    assert!(
        sentence.ends_with("sumSeris (did you mean sumSeries?)"),
        "{sentence}"
    );
    let (status, headers, text) = server
        .get("/render?format=raw&target=sumSeris(web.a)")
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        headers[header::CONTENT_TYPE]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    assert!(text.starts_with("Invalid parameters ("), "{text}");
    assert!(text.ends_with("targets: \"sumSeris(web.a)\""), "{text}");
    for query in [
        "graphType=bar",
        "from=x",
        "until=0",
        "cacheTimeout=x",
        "xFilesFactor=x",
        "events=-",
        "format=pdf",
        "format=json&jsonp=a(b)&target=web.a",
        "target=scale(web.a)",
        "target=web.a|scale(2,3,4)",
        "target=scale(web.a,factor=2,bogus=3)",
        "width=9999&target=web.a",
    ] {
        let (status, _, text) = server
            .get(&format!("/render?from=0&until=240&{query}"))
            .await;
        let accepted = query == "until=0" || query == "from=x";
        assert!(
            status.is_client_error() || accepted,
            "{query}: {status} {text}"
        );
    }
}

#[tokio::test]
async fn bodies_are_read_in_every_shape() {
    let server = serve(Options::default());
    let part = "--x\r\nContent-Disposition: form-data; name=\"target\"\r\n\r\nweb.a\r\n--x--\r\n";
    for (kind, body) in [
        ("application/x-www-form-urlencoded", "target=web.a"),
        ("application/x-www-form-urlencoded", "target%5B%5D=web.a"),
        ("application/json", r#"{"target": ["web.a"]}"#),
        ("multipart/form-data; boundary=x", part),
    ] {
        let request = Request::post("/render/?format=json&from=0&until=240")
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .unwrap();
        let (status, _, text) = server.send(request).await;
        assert_eq!(status, StatusCode::OK);
        assert!(text.contains(r#""target":"web.a""#), "{kind}: {text}");
    }
}

#[tokio::test]
async fn limits_name_their_keys() {
    let few = serve(Options {
        max_series: 1,
        ..Options::default()
    });
    let (status, _, body) = few.render("target=web.*").await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        body["error"]
            .as_str()
            .unwrap()
            .contains("render.max_series = 1")
    );
    let short = serve(Options {
        max_points: 5,
        ..Options::default()
    });
    let (status, _, body) = short.render("target=web.*").await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        body["error"]
            .as_str()
            .unwrap()
            .contains("render.max_points = 5")
    );
    // A sum holds one series, however many it adds up.
    let (status, _, body) = short.render("target=sumSeries(web.*)").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body[0]["datapoints"][3], json!([8.0, 240]));
    let quick = serve(Options {
        timeout: Span(std::time::Duration::from_nanos(1)),
        ..Options::default()
    });
    let (status, _, body) = quick.render("target=web.*").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body["error"].as_str().unwrap().contains("render.timeout"));
}

#[tokio::test]
async fn a_panic_or_a_failing_store_is_a_500_and_counted() {
    let server = serve(Options::default());
    let get = |target: &'static str| server.get(target);
    let (status, _, _) = get("/render?format=json&target=odd.panics&from=0&until=240").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let (status, _, text) = get("/render?format=json&target=odd.fails&from=0&until=240").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(text.contains("the disk is gone"));
    let stats = &server.app.stats;
    assert_eq!((stats.panicked.get(), stats.failed.get()), (1, 1));
    let (status, _, _) = server.render("target=web.a").await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn equal_requests_at_the_same_moment_are_computed_once() {
    let server = serve(Options::default());
    let ask = || server.render("target=odd.waits");
    let other = server.render("target=web.a");
    // The first is held in the store until the others wait for it too.
    let open = async {
        while server.source.n_fetched.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        let source = Arc::clone(&server.source);
        tokio::task::spawn_blocking(move || source.barrier.wait())
            .await
            .unwrap();
    };
    let (a, b, c, (status, _, _), ()) = tokio::join!(ask(), ask(), ask(), other, open);
    assert_eq!(status, StatusCode::OK);
    assert!(
        [&a, &b, &c]
            .iter()
            .all(|(status, _, _)| *status == StatusCode::OK)
    );
    assert_eq!(a.2, b.2);
    // One for the three, one for the other.
    assert_eq!(server.source.n_fetched.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn work_ends_when_its_last_client_has_gone() {
    let server = serve(Options {
        concurrency: 1,
        ..Options::default()
    });
    let counter = |name: &str| {
        let mut all = server.app.stats.each();
        all.find(|(known, _, _)| *known == name).unwrap().2
    };
    // Long enough for the thread that takes large requests too.
    let uri = format!(
        "/render?from=-1y&target=odd.waits{}",
        "&target=web.a".repeat(40)
    );
    let ask = || server.get(&uri);
    let mut first = Box::pin(ask());
    let mut second = Box::pin(ask());
    while server.source.n_fetched.load(Ordering::SeqCst) < 1 {
        tokio::select! {
            biased;
            _ = &mut first => unreachable!("the source holds it"),
            _ = &mut second => unreachable!("the source holds it"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(first);
    assert_eq!(counter("cancelled"), 1);
    let kept = server.app.memory.used();
    drop(second);
    assert_eq!(counter("cancelled"), 2);
    // An equal request begins again: nothing is left of the one that was abandoned.
    let third = server.get("/render?format=json&from=-1y&target=web.b");
    let source = Arc::clone(&server.source);
    let open = tokio::task::spawn_blocking(move || source.barrier.wait());
    let ((status, _, _), opened) = tokio::join!(third, open);
    opened.unwrap();
    assert_eq!(status, StatusCode::OK);
    // The series that held it, and that of the third: not one more of the forty.
    assert_eq!(server.source.n_fetched.load(Ordering::SeqCst), 2);
    // The thread is done with both.
    server.app.pool.run(Lane::Large, || ()).await.unwrap();
    assert!(kept > 0);
    assert_eq!(server.app.memory.used(), 0);
}

#[tokio::test]
async fn searches_count_what_they_find_and_ask_once() {
    let server = serve(Options {
        max_series: 5,
        ..Options::default()
    });
    let expand = |query: &str| format!("/metrics/expand?leavesOnly=1&{query}");
    let same = expand(&"query=*.*&".repeat(1_000));
    assert_eq!(server.get(&same).await.0, StatusCode::OK);
    let (status, _, text) = server.get(&expand("query=*.*&query=web.*")).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(text.contains("render.max_series = 5"), "{text}");
    let server = serve(Options {
        max_series: 4,
        ..Options::default()
    });
    let (status, _, _) = server.get("/metrics/find?query=*.*").await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn what_is_shown_and_what_is_held_is_limited() {
    let server = serve(Options {
        max_points: 40,
        max_memory: "64KiB".parse().unwrap(),
        ..Options::default()
    });
    let (status, _, _) = server.render(&"target=web.a&".repeat(10)).await;
    assert_eq!(status, StatusCode::OK);
    let (status, _, body) = server.render(&"target=web.a&".repeat(11)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        body["error"]
            .as_str()
            .unwrap()
            .contains("render.max_points = 40")
    );
    let many = ["scale(web.a,2)"; 300].join(",");
    let (status, _, body) = server.render(&format!("target=countSeries({many})")).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(
        body["error"]
            .as_str()
            .unwrap()
            .contains("render.max_memory = 65536")
    );
    // The thread that computed it gives back just after it has answered.
    let begun = std::time::Instant::now();
    while server.app.memory.used() > 0 {
        assert!(begun.elapsed().as_secs() < 20, "memory is not given back");
        tokio::task::yield_now().await;
    }
    // Shown once again: what was refused has given everything back.
    assert_eq!(server.render("target=web.a").await.0, StatusCode::OK);
}

#[tokio::test]
async fn each_series_is_fetched_once_for_each_window() {
    let server = serve(Options::default());
    let fetched = |n: usize| {
        assert_eq!(server.source.n_fetched.swap(0, Ordering::SeqCst), n);
    };
    server
        .render("target=sumSeries(web.*)&target=maxSeries(web.*)")
        .await;
    fetched(2);
    // The argument over the window, and over one that begins earlier.
    server.render("target=movingAverage(web.a,1)").await;
    fetched(2);
    server
        .render("target=web.a&target=alias(movingAverage(web.a,1),%22x%22)")
        .await;
    fetched(2);
    server
        .render("target=divideSeries(web.a,timeShift(web.a,%221min%22))")
        .await;
    fetched(2);
}

#[tokio::test]
async fn small_things() {
    let server = serve(Options::default());
    for path in [
        "/render/?format=json",
        "/version/",
        "/functions/",
        "/tags/",
        "/metrics/find/?query=*",
    ] {
        assert_eq!(server.get(path).await.0, StatusCode::OK, "{path}");
    }
    let (_, _, text) = server.get("/version").await;
    assert_eq!(text, "1.1.10\n");
    assert_eq!(server.get("/functions/nope").await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        server.get("/tags/delSeries").await.0,
        StatusCode::METHOD_NOT_ALLOWED
    );
    let (_, headers, text) = server
        .get("/render?format=json&jsonp=cb.a&target=web.a&from=0&until=60")
        .await;
    assert_eq!(headers[header::CONTENT_TYPE], "text/javascript");
    assert!(text.starts_with("cb.a([{"), "{text}");
    let (_, _, body) = server.render("target=web.a&meta=1&events=*").await;
    assert_eq!(body["events"], json!([]));
    assert_eq!(body["series"][0]["target"], "web.a");
    let (_, headers, _) = server.get("/render?format=json&cacheTimeout=30").await;
    assert_eq!(headers[header::CACHE_CONTROL], "max-age=30");
    let (_, headers, _) = server.get("/render?format=json").await;
    assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
    let (status, headers, _) = server.get("/render?target=web.a&format=bogus").await;
    assert_eq!(
        (status, &headers[header::CONTENT_TYPE]),
        (StatusCode::OK, &"image/png".parse().unwrap())
    );
}

fn long_query(format: &str, n_targets: usize) -> String {
    let targets = "&target=long".repeat(n_targets);
    format!("/render?format={format}&from=0&until={LONG}{targets}")
}

/// The next bytes of an answer.
async fn next(body: &mut Body) -> Option<Bytes> {
    let frame = std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await?;
    Some(frame.unwrap().into_data().unwrap())
}

/// Waits until nothing is reserved: a thread of the pool may still hold the end of a request.
async fn given_back(server: &Server) {
    let until = Instant::now() + Duration::from_secs(20);
    while server.app.memory.used() > 0 {
        assert!(Instant::now() < until, "{} bytes", server.app.memory.used());
        tokio::task::yield_now().await;
    }
}

fn with_memory(bytes: u64) -> Options {
    Options {
        now: i64::from(LONG),
        concurrency: 1,
        max_memory: MemorySize::Bytes(ByteSize(bytes)),
        ..Options::default()
    }
}

#[tokio::test]
async fn large_answers_are_streamed_in_little_memory() {
    // The values of one series take 3.2 MB, however often it is asked for; the answers take more.
    let server = serve(with_memory(24_000_000));
    for format in [
        "json", "csv", "raw", "rickshaw", "dygraph", "pickle", "msgpack",
    ] {
        let request = Request::get(long_query(format, 3));
        let request = request.body(Body::empty()).unwrap();
        let response = server.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{format}");
        let mut body = response.into_body();
        let (mut length, mut most) = (0, 0);
        while let Some(chunk) = next(&mut body).await {
            length += chunk.len();
            most = most.max(server.app.memory.used());
        }
        assert!(length > 10_000_000, "{format}: {length}");
        assert!(most < 8_000_000, "{format}: {most}");
        drop(body);
        given_back(&server).await;
    }
}

#[tokio::test]
async fn a_streamed_answer_is_the_whole_answer() {
    let server = serve(with_memory(1 << 30));
    let (_, _, one) = server.get(&long_query("json", 1)).await;
    let (_, _, two) = server.get(&long_query("json", 2)).await;
    let inner = one.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    let inner = inner.unwrap();
    assert!(two == format!("[{inner},{inner}]"), "{}", two.len());
    let (_, headers, called) = server
        .get(&(long_query("json", 2) + "&jsonp=call&meta=1"))
        .await;
    assert_eq!(headers[header::CONTENT_TYPE], "text/javascript");
    assert!(called == format!("call({{\"series\":{two},\"events\":[]}})"));
}

#[tokio::test]
async fn a_slow_client_holds_no_thread_and_gives_its_memory_back() {
    let server = serve(with_memory(12_000_000));
    let request = Request::get(long_query("json", 3));
    let request = request.body(Body::empty()).unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    let mut slow = response.into_body();
    next(&mut slow).await.unwrap();
    // There is one thread.
    let (status, _, _) = server
        .get("/render?format=json&target=web.a&from=0&until=240")
        .await;
    assert_eq!(status, StatusCode::OK);
    assert!(server.app.memory.used() > 3_200_000);
    drop(slow);
    given_back(&server).await;
}

#[tokio::test]
async fn an_answer_that_cannot_fit_is_refused_at_once() {
    let server = serve(with_memory(12_000_000));
    for format in [
        "json", "csv", "raw", "rickshaw", "dygraph", "pickle", "msgpack",
    ] {
        let (status, _, text) = server.get(&long_query(format, 100)).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{format}");
        assert!(
            text.contains("render.max_memory = 12000000"),
            "{format}: {text}"
        );
        given_back(&server).await;
    }
}

#[tokio::test]
async fn an_answer_that_takes_too_long_to_format_breaks_off() {
    let timeout = Span(Duration::from_millis(400));
    let server = serve(Options {
        timeout,
        ..with_memory(1 << 30)
    });
    let request = Request::get(long_query("csv", 100));
    let request = request.body(Body::empty()).unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let whole = to_bytes(response.into_body(), usize::MAX).await;
    assert!(
        whole.is_err(),
        "an end without an error says that all is there"
    );
    assert_eq!(server.app.memory.used(), 0);
}

#[tokio::test]
async fn a_picture_runs_nothing() {
    let server = serve(Options::default());
    let (_, headers, _) = server
        .get("/render?format=svg&target=web.a&from=0&until=240")
        .await;
    assert_eq!(
        headers[header::CONTENT_SECURITY_POLICY],
        "default-src 'none'; style-src 'unsafe-inline'"
    );
}
