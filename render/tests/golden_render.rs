//! Replays what graphite-web 1.1.10 answered against the router, in process.
//!
//! `PLUMBAGO_GOLDEN` names another directory of recordings, `PLUMBAGO_GOLDEN_ONLY` a prefix of
//! the ids to replay (`fn.scale`, `render.time`), for work on one function.

#![allow(clippy::unwrap_used, reason = "a broken recording fails the test")]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use carbon::{Access, Carbon, Setup, Timestamp};
use jiff::tz::TimeZone;
use render::http::events::EventsState;
use render::http::guard::{self, Guard};
use render::http::{App, router};
use render::{Options, events};
use serde_json::Value;
use support::{compare, decode, golden};
use tower::ServiceExt;

/// When the recordings were made.
const NOW: i64 = 1_700_000_000;

/// Cases that are answered otherwise, each with the reason that `docs/graphite-differences.md`
/// gives. At most ten.
const EXCEPTIONS: &[(&str, &str)] = &[(
    "fn.constantLine.afc4b82d4b",
    "values are numbers: constantLine(\"x\") is refused",
)];

fn serve(data: &Path) -> Router {
    let mut setup = Setup::new(
        Default::default(),
        Default::default(),
        settings::Span::seconds(10),
    );
    setup.access = Access::Frozen;
    setup.clock = Arc::new(|| Timestamp(NOW as u32));
    let carbon = Arc::new(Carbon::open(setup, data).unwrap());
    let store = events::Store::open(&data.join("events.db"), &Default::default()).unwrap();
    let guard = Arc::new(Guard::new(&guard::Options::default(), true));
    let options = Options {
        now: NOW,
        ..Options::default()
    };
    let app = App::new(&options, carbon.clone(), carbon, Arc::clone(&store));
    let events = EventsState {
        store,
        guard: Arc::clone(&guard),
        time_zone: TimeZone::UTC,
        clock: Some(NOW),
        room: Default::default(),
        base_path: Default::default(),
        page: None,
    };
    router(app.unwrap(), &guard).merge(render::http::events::routes(events))
}

struct Answered {
    status: StatusCode,
    content_type: String,
    body: Vec<u8>,
}

async fn ask(router: &Router, part: &Value, word: &str) -> Answered {
    let fill = |text: &str| text.replace("{{run}}", word);
    let query = match &part["query"] {
        Value::String(query) => fill(query),
        pairs => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            for pair in pairs.as_array().into_iter().flatten() {
                let text = |value: &Value| fill(value.as_str().unwrap_or_default());
                query.append_pair(&text(&pair[0]), &text(&pair[1]));
            }
            query.finish()
        }
    };
    let mut uri = fill(part["path"].as_str().unwrap()).replace(' ', "%20");
    if !query.is_empty() {
        uri += &format!("?{query}");
    }
    let mut request = Request::builder()
        .method(part["method"].as_str().unwrap())
        .uri(uri)
        .header(header::HOST, "127.0.0.1:8080");
    if let Some(kind) = part["request_content_type"].as_str() {
        request = request.header(header::CONTENT_TYPE, kind);
    }
    for (name, value) in part["headers"].as_object().into_iter().flatten() {
        request = request.header(name, value.as_str().unwrap());
    }
    let body = part["body"].as_str().map(fill).unwrap_or_default();
    let request = request.body(Body::from(body)).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let kind = response.headers().get(header::CONTENT_TYPE);
    Answered {
        status: response.status(),
        content_type: kind.map_or(String::new(), |kind| kind.to_str().unwrap().to_owned()),
        body: to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap()
            .to_vec(),
    }
}

/// Why the answer to `part` is not the recorded one.
async fn check(router: &Router, part: &Value, word: &str) -> Option<String> {
    let answered = ask(router, part, word).await;
    let (want, got) = (part["status"].as_u64().unwrap(), answered.status.as_u16());
    if u64::from(got) != want {
        let any = want == 500 && (part["crash"] == true || (400..600).contains(&got));
        let text = String::from_utf8_lossy(&answered.body);
        let text: String = text.chars().take(160).collect();
        return (!any).then(|| format!("want status {want}, got {got}: {text}"));
    }
    let kind = part["compare"].as_str().unwrap_or("json");
    let text = || String::from_utf8_lossy(&answered.body).replace(word, "{{run}}");
    if kind == "status" {
        return None;
    }
    if kind == "error" {
        let error = decode::json(&text()).is_ok_and(|v| v.get("error").is_some());
        return (!error).then(|| format!("no error object: {}", text()));
    }
    let main = |text: &str| text.split(';').next().unwrap_or_default().trim().to_owned();
    let want = main(part["content_type"].as_str().unwrap_or_default());
    let got = main(&answered.content_type);
    if want != got {
        return Some(format!("want content type {want:?}, got {got:?}"));
    }
    let answer = &part["answer"];
    let words = || answer.as_str().unwrap_or_default();
    match kind {
        "type" => return answered.body.is_empty().then(|| "an empty body".to_owned()),
        "csv" => return compare::differ_pieces(words(), &text(), &[',', '\n']),
        "raw" => return compare::differ_pieces(words(), &text(), &[',', '|', '\n']),
        "text" => {
            return (words() != text()).then(|| format!("want {:?}, got {:?}", words(), text()));
        }
        _ => {}
    }
    let decoded = match kind {
        "pickle" => decode::pickle(&answered.body),
        "msgpack" => decode::msgpack(&answered.body),
        "jsonp" => decode::jsonp(&text()),
        _ => decode::json(&text()),
    };
    let decoded = match decoded {
        Ok(decoded) => decoded,
        Err(error) => return Some(format!("not {kind}: {error}")),
    };
    let ignored: Vec<String> = part["ignore"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|key| key.as_str().map(str::to_owned))
        .collect();
    let decoded = compare::without(decoded, &ignored);
    if kind == "schema" {
        return compare::differ_schema(answer, &decoded);
    }
    let unordered = kind == "json-unordered" || part["unordered"] == true;
    compare::differ(answer, &decoded, "", unordered)
}

async fn seed(router: &Router) {
    let tags: Vec<String> = serde_json::from_str(&golden::text("tags.json")).unwrap();
    let mut form = form_urlencoded::Serializer::new(String::new());
    for tag in &tags {
        form.append_pair("path", tag);
    }
    let mut posts = vec![(
        "/tags/tagMultiSeries",
        "application/x-www-form-urlencoded",
        form.finish(),
    )];
    let events: Vec<Value> = serde_json::from_str(&golden::text("events.json")).unwrap();
    for event in events {
        posts.push(("/events/", "application/json", event.to_string()));
    }
    for (path, kind, body) in posts {
        let part = serde_json::json!({
            "method": "POST", "path": path, "body": body, "request_content_type": kind,
        });
        let answered = ask(router, &part, "").await;
        let text = String::from_utf8_lossy(&answered.body);
        assert_eq!(answered.status, StatusCode::OK, "{path}: {text}");
    }
}

#[tokio::test]
async fn golden_render() {
    let data = tempfile::tempdir().unwrap();
    golden::unpack("whisper-tree.tar.gz", data.path());
    let router = serve(data.path());
    seed(&router).await;
    let only = std::env::var("PLUMBAGO_GOLDEN_ONLY").unwrap_or_default();
    let mut failures = Vec::new();
    let mut groups: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let cases = golden::text("render-cases.jsonl");
    for (number, line) in cases.lines().enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        if !id.starts_with(&only) {
            continue;
        }
        let word = format!("run{number}x");
        let why = match case["steps"].as_array() {
            None => check(&router, &case, &word).await,
            Some(steps) => {
                let mut why = None;
                for (number, step) in steps.iter().enumerate() {
                    if let Some(differs) = check(&router, step, &word).await {
                        why = Some(format!("step {}: {differs}", number + 1));
                        break;
                    }
                }
                why
            }
        };
        let group = id.split('.').take(2).collect::<Vec<_>>().join(".");
        let (passed, failed) = groups.entry(group).or_default();
        match why {
            None => *passed += 1,
            Some(why) => {
                *failed += 1;
                let asked = &case["query"];
                failures.push((id.to_owned(), format!("{why}\n      {asked}")));
            }
        }
    }
    let excused = |id: &str| EXCEPTIONS.iter().any(|(excused, _)| *excused == id);
    let (known, new): (Vec<_>, Vec<_>) = failures.iter().partition(|(id, _)| excused(id));
    for (id, why) in &new {
        println!("{id}: {why}");
    }
    for (group, (passed, failed)) in groups.iter().filter(|(_, (_, failed))| *failed > 0) {
        println!("{group}: {passed} passed, {failed} failed");
    }
    let passed: usize = groups.values().map(|(passed, _)| passed).sum();
    println!("{passed} passed, {} failed", failures.len());
    assert!(new.is_empty(), "{} cases are answered otherwise", new.len());
    assert!(EXCEPTIONS.len() <= 10);
    if only.is_empty() {
        assert_eq!(
            known.len(),
            EXCEPTIONS.len(),
            "an exception passes: strike it"
        );
    }
}
