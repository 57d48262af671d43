//! Replays what graphite-web answered about events against our routes, in process.

#![allow(clippy::unwrap_used)]

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use jiff::tz::TimeZone;
use render::events::{GraphiteTags, Options, Store};
use render::http::events::{EventsState, routes};
use render::http::guard::{Guard, Options as AuthOptions};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The clock of the recordings.
const NOW: i64 = 1_700_000_000;

fn directory() -> PathBuf {
    std::env::var_os("PLUMBAGO_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden"),
        PathBuf::from,
    )
}

/// The text of `NAME`, or of `NAME.gz` unpacked.
fn recorded(name: &str) -> String {
    let plain = directory().join(name);
    if let Ok(text) = std::fs::read_to_string(&plain) {
        return text;
    }
    let packed = directory().join(format!("{name}.gz"));
    let file = std::fs::File::open(&packed).unwrap_or_else(|e| panic!("{}: {e}", packed.display()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    text
}

struct Server {
    router: Router,
    store: Arc<Store>,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

struct Answer {
    status: u16,
    kind: String,
    body: String,
}

impl Server {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("events.db"), &Options::default()).unwrap();
        let state = EventsState {
            store: Arc::clone(&store),
            guard: Arc::new(Guard::new(&AuthOptions::default(), true)),
            time_zone: TimeZone::UTC,
            clock: Some(NOW),
            room: Default::default(),
            base_path: Default::default(),
            page: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        Self {
            router: routes(state),
            store,
            runtime,
            _directory: directory,
        }
    }

    /// Asks what `case` asks, `{{run}}` being `run`.
    fn ask(&self, case: &Value, run: &str) -> Answer {
        let fill = |text: &str| text.replace("{{run}}", run);
        let query = match &case["query"] {
            Value::String(raw) => fill(raw),
            pairs => {
                let mut query = form_urlencoded::Serializer::new(String::new());
                for pair in pairs.as_array().into_iter().flatten() {
                    query.append_pair(
                        &fill(pair[0].as_str().unwrap()),
                        &fill(pair[1].as_str().unwrap()),
                    );
                }
                query.finish()
            }
        };
        let path = case["path"].as_str().unwrap();
        let uri = if query.is_empty() {
            path.to_owned()
        } else {
            format!("{path}?{query}")
        };
        let mut request = Request::builder()
            .method(case["method"].as_str().unwrap())
            .uri(uri)
            .header("host", "127.0.0.1:8080");
        if let Some(kind) = case["request_content_type"].as_str() {
            request = request.header("content-type", kind);
        }
        for (name, value) in case["headers"].as_object().into_iter().flatten() {
            request = request.header(name, value.as_str().unwrap());
        }
        let body = case["body"].as_str().map(fill).unwrap_or_default();
        let request = request.body(Body::from(body)).unwrap();
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let kind = response.headers().get("content-type");
            let kind = kind
                .map(|kind| kind.to_str().unwrap().to_owned())
                .unwrap_or_default();
            let status = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), usize::MAX)
                .await
                .unwrap();
            Answer {
                status,
                kind,
                body: String::from_utf8(body.to_vec()).unwrap(),
            }
        })
    }

    /// What is wrong with the answer to `case`, if anything.
    fn check(&self, case: &Value, run: &str) -> Result<(), String> {
        let answer = self.ask(case, run);
        let wanted = case["status"].as_u64().unwrap() as u16;
        let compare = case["compare"].as_str().unwrap();
        // A recorded 500 is graphite-web failing: any refusal is as good, and a crash has no rule.
        if wanted == 500 {
            let fine = case["crash"] == true || (400..600).contains(&answer.status);
            return fine
                .then_some(())
                .ok_or_else(|| format!("status {}", answer.status));
        }
        if answer.status != wanted {
            return Err(format!(
                "status {} and not {wanted}: {}",
                answer.status, answer.body
            ));
        }
        if compare == "status" {
            return Ok(());
        }
        let essence = |kind: &str| kind.split(';').next().unwrap_or_default().trim().to_owned();
        let kind = essence(case["content_type"].as_str().unwrap());
        if essence(&answer.kind) != kind {
            return Err(format!("content type {} and not {kind}", answer.kind));
        }
        let expected = filled(&case["answer"], run);
        let ours = match compare {
            "json" | "error" => serde_json::from_str(&answer.body).map_err(|e| e.to_string())?,
            "jsonp" => {
                let (callback, rest) = answer.body.split_once('(').ok_or("no call")?;
                let json = rest
                    .trim_end()
                    .trim_end_matches(';')
                    .strip_suffix(')')
                    .ok_or("no end")?;
                json!({"callback": callback, "json": serde_json::from_str::<Value>(json).map_err(|e| e.to_string())?})
            }
            "text" => Value::String(answer.body),
            other => return Err(format!("{other} is not known here")),
        };
        if compare == "error" {
            let has = ours.get("error").is_some();
            return has
                .then_some(())
                .ok_or_else(|| format!("no error in {ours}"));
        }
        let ignored: Vec<&str> = case["ignore"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let (ours, expected) = (without(ours, &ignored), without(expected, &ignored));
        if ours == expected {
            return Ok(());
        }
        Err(format!("\n  ours     {ours}\n  expected {expected}"))
    }

    /// A step that asks `/render` for `events("…")`, answered by what that function reads.
    fn check_series(&self, step: &Value, run: &str) -> Result<(), String> {
        let parameter = |name: &str| {
            let pairs = step["query"].as_array().unwrap();
            let pair = pairs.iter().find(|pair| pair[0] == name).unwrap();
            pair[1].as_str().unwrap().replace("{{run}}", run)
        };
        let target = parameter("target");
        let word = target
            .strip_prefix("events(\"")
            .and_then(|rest| rest.strip_suffix("\")"));
        let word = word.ok_or_else(|| format!("{target} is not known here"))?;
        let time = |name: &str| parameter(name).parse::<i64>().unwrap();
        let (from, until) = (time("from"), time("until"));
        let tags = GraphiteTags::from_arguments(&[word]);
        let counts = self.store.count_per_second(&tags, from, until).unwrap();
        let points: Vec<Value> = counts
            .iter()
            .zip(from..)
            .map(|(count, at)| match count.is_nan() {
                true => json!([null, at]),
                false => json!([*count as i64, at]),
            })
            .collect();
        let expected = &step["answer"][0]["datapoints"];
        if json!(points) == *expected {
            return Ok(());
        }
        Err(format!(
            "\n  ours     {}\n  expected {expected}",
            json!(points)
        ))
    }
}

fn filled(json: &Value, run: &str) -> Value {
    serde_json::from_str(&json.to_string().replace("{{run}}", run)).unwrap()
}

fn without(mut json: Value, ignored: &[&str]) -> Value {
    match &mut json {
        Value::Array(items) => {
            for item in items {
                *item = without(item.take(), ignored);
            }
        }
        Value::Object(fields) => {
            for name in ignored {
                fields.remove(*name);
            }
            for (_, item) in fields.iter_mut() {
                *item = without(item.take(), ignored);
            }
        }
        _ => {}
    }
    json
}

#[test]
fn golden_events() {
    let server = Server::start();
    let seeds: Vec<Value> = serde_json::from_str(&recorded("events.json")).unwrap();
    for seed in &seeds {
        let post = json!({
            "method": "POST", "path": "/events/", "query": [], "body": seed.to_string(),
            "status": 200, "content_type": "text/html", "compare": "text", "answer": "",
        });
        server.check(&post, "").unwrap();
    }
    let mut n_cases = 0;
    let mut failures = Vec::new();
    for line in recorded("render-cases.jsonl").lines() {
        if !line.contains("\"group\": \"events.") && !line.contains("\"group\":\"events.") {
            continue;
        }
        let case: Value = serde_json::from_str(line).unwrap();
        n_cases += 1;
        let run = format!("run{n_cases}");
        let steps = match case["steps"].as_array() {
            Some(steps) => steps.iter().collect(),
            None => vec![&case],
        };
        let outcome = steps
            .into_iter()
            .try_for_each(|step| match step["path"].as_str() {
                Some("/render") => server.check_series(step, &run),
                _ => server.check(step, &run),
            });
        if let Err(why) = outcome {
            failures.push(format!("{}: {why}", case["id"]));
        }
    }
    assert!(n_cases > 0, "no cases in {}", directory().display());
    assert!(
        failures.is_empty(),
        "{} of {n_cases} failed\n{}",
        failures.len(),
        failures.join("\n")
    );
}
