//! The events routes as clients see them: what is answered, what is refused, and that nothing a
//! client can send is an error of ours.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use jiff::tz::TimeZone;
use proptest::prelude::*;
use render::budget::Memory;
use render::events::{Options, Store};
use render::http::events::{EventsState, Room, routes};
use render::http::guard::{Guard, MAX_BODY, Options as AuthOptions};
use render::http::params::Reading;
use serde_json::{Value, json};
use tower::ServiceExt as _;

const NOW: i64 = 1_700_000_000;
const JSON: (&str, &str) = ("accept", "application/json");

struct Server {
    router: Router,
    store: Arc<Store>,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

impl Server {
    fn start() -> Self {
        Self::with(&AuthOptions::default())
    }

    fn with(auth: &AuthOptions) -> Self {
        Self::within(auth, &Memory::new(0))
    }

    /// A server whose requests have `memory` together.
    fn within(auth: &AuthOptions, memory: &Arc<Memory>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("events.db"), &Options::default()).unwrap();
        let state = EventsState {
            store: Arc::clone(&store),
            guard: Arc::new(Guard::new(auth, true).within(memory)),
            time_zone: TimeZone::UTC,
            clock: Some(NOW),
            room: Room::within(Reading {
                memory: Arc::clone(memory),
                stats: Arc::default(),
            }),
            base_path: Default::default(),
            page: None,
        };
        Self {
            router: routes(state),
            store,
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .unwrap(),
            _directory: directory,
        }
    }

    fn send(
        &self,
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).unwrap();
        self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            Answer {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
            }
        })
    }

    fn get(&self, uri: &str) -> Answer {
        self.send("GET", uri, &[JSON], "")
    }

    fn post(&self, uri: &str, json: &Value) -> Answer {
        self.send("POST", uri, &[JSON], json.to_string())
    }

    fn only_event(&self) -> Value {
        let events = self.get("/events/").json();
        assert_eq!(events.as_array().unwrap().len(), 1, "{events}");
        events[0].clone()
    }
}

#[test]
fn a_graphite_client_gets_graphites_answer_and_others_the_event() {
    let server = Server::start();
    let body = "{\"what\": \"deploy\", \"tags\": \"deploy web\", \"data\": \"x\"}";
    let plain = server.send("POST", "/events/", &[("accept", "*/*")], body);
    assert_eq!((plain.status, plain.body.as_str()), (200, ""));
    assert_eq!(plain.header("location"), "/events/1/");
    let created = server.post(
        "/events",
        &json!({"what": "b", "when": 5, "until": 9, "status": "failed"}),
    );
    assert_eq!(created.status, 201);
    assert_eq!(
        created.json(),
        json!({"id": 2, "what": "b", "data": "", "tags": [], "when": 5, "until": 9, "status": "failed"})
    );
    let listed = server.get("/events/?tags=deploy");
    assert_eq!(listed.json()[0]["when"], NOW);
    assert_eq!(
        server.get("/events/1").json()["when"],
        "2023-11-14T22:13:20Z"
    );
    assert_eq!(server.get("/events/3/").status, 404);
    assert_eq!(server.get("/events/9x").status, 404);
}

#[test]
fn a_key_makes_retries_one_event() {
    let server = Server::start();
    let start = json!({"what": "deploy", "key": "run 1", "status": "started", "when": NOW - 60});
    assert_eq!(server.post("/events/", &start).status, 201);
    assert_eq!(server.post("/events/", &start).status, 200);
    server.post("/events/", &json!({"key": "run 1", "status": "succeeded"}));
    server.post("/events/", &start);
    let event = server.only_event();
    assert_eq!(
        (&event["when"], &event["until"]),
        (&json!(NOW - 60), &json!(NOW))
    );
    let headers = [JSON, ("idempotency-key", "run 1")];
    let again = server.send("POST", "/events/", &headers, "{\"what\": \"again\"}");
    assert_eq!(
        (again.status, &again.json()["what"]),
        (200, &json!("again"))
    );
}

#[test]
fn events_are_changed_and_deleted() {
    let server = Server::start();
    server.post(
        "/events/",
        &json!({"what": "a", "tags": "x", "when": 5, "link": "https://a/"}),
    );
    let changed = server.send(
        "PATCH",
        "/events/1/",
        &[],
        "{\"tags\": [\"y\"], \"link\": null}",
    );
    assert_eq!(changed.status, 200);
    assert_eq!(
        changed.json(),
        json!({"id": 1, "what": "a", "data": "", "tags": ["y"], "when": 5})
    );
    assert_eq!(server.get("/events/?tags=x").json(), json!([]));
    assert_eq!(
        server
            .send("PATCH", "/events/1", &[], "{\"until\": 4}")
            .status,
        400
    );
    assert_eq!(server.send("PATCH", "/events/7", &[], "{}").status, 404);
    assert_eq!(server.send("DELETE", "/events/1/", &[], "").status, 204);
    assert_eq!(server.send("DELETE", "/events/1/", &[], "").status, 404);
    assert_eq!(server.get("/events/").json(), json!([]));
}

#[test]
fn the_list_is_a_page_in_which_nothing_runs() {
    let server = Server::start();
    let hostile = "<img src=x onerror=alert(1)>";
    server.post(
        "/events/",
        &json!({"what": hostile, "tags": [hostile], "data": hostile}),
    );
    for uri in ["/events/", "/events/1/", "/events/?tags=%3Cimg%20src=x%3E"] {
        let page = server.send("GET", uri, &[("accept", "text/html")], "");
        assert_eq!(page.status, 200);
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(
            page.header("content-security-policy")
                .starts_with("default-src 'none'")
        );
        assert!(!page.body.contains("<img"), "{}", page.body);
    }
    assert_eq!(server.get("/events/?tags=a*b").status, 400);
    assert_eq!(server.get("/events/?from=nonsense").status, 400);
}

#[test]
fn jsonp_takes_names_only() {
    let server = Server::start();
    server.post("/events/", &json!({"what": "a\u{2028}b", "when": 5}));
    let good = server.get("/events/get_data?jsonp=my.cb");
    assert_eq!(good.header("content-type"), "text/javascript");
    assert!(
        good.body.starts_with("my.cb([{") && good.body.contains("a\\u2028b"),
        "{}",
        good.body
    );
    assert_eq!(server.get("/events/get_data?jsonp=alert(1)//").status, 400);
    assert_eq!(server.get("/events/get_data?jsonp=").status, 400);
}

#[test]
fn an_export_is_imported_elsewhere() {
    let (here, there) = (Server::start(), Server::start());
    for i in 0..1500 {
        let draft = render::events::Draft {
            when: Some(f64::from(i) + 0.25),
            ..render::events::Draft::new(format!("event {i}"), &["x"])
        };
        here.store.insert(draft).unwrap();
    }
    let export = here.get("/events/export");
    assert_eq!(export.header("content-type"), "application/x-ndjson");
    assert_eq!(export.body.lines().count(), 1500);
    let import = there.send("POST", "/events/import", &[], export.body.clone());
    assert_eq!(import.json(), json!({"events": 1500, "new": 1500}));
    assert_eq!(there.get("/events/export").body, export.body);
    let again = there.send("POST", "/events/import", &[], export.body);
    assert_eq!(again.json(), json!({"events": 1500, "new": 0}));
    // Moving in from Graphite: what it answers is what we take.
    let graphites = here.get("/events/get_data?from=0&until=3").body;
    let moved = Server::start();
    let import = moved.send("POST", "/events/import", &[], graphites);
    assert_eq!(import.json(), json!({"events": 3, "new": 3}));
    assert_eq!(
        moved
            .send("POST", "/events/import", &[], "{\"what\": 1}\n")
            .status,
        400
    );
}

#[test]
fn a_deployment_on_github_is_one_band() {
    let server = Server::start();
    let message = |status: Value| {
        json!({
            "deployment": {"id": 1, "ref": "v2", "environment": "prod", "created_at": "2023-11-14T22:00:00Z"},
            "deployment_status": status,
            "repository": {"full_name": "shop/web", "html_url": "https://github.com/shop/web"}
        })
    };
    let send = |kind: &str, json: &Value| {
        server.send(
            "POST",
            "/webhooks/github",
            &[("x-github-event", kind)],
            json.to_string(),
        )
    };
    assert_eq!(
        send("ping", &json!({"zen": "x"})).json(),
        json!({"ignored": true})
    );
    assert_eq!(send("deployment", &message(Value::Null)).status, 201);
    let success = json!({"state": "success", "created_at": "2023-11-14T22:05:00Z"});
    assert_eq!(send("deployment_status", &message(success)).status, 200);
    // Delivered late, the start does not reopen it.
    let started = json!({"state": "in_progress", "created_at": "2023-11-14T22:01:00Z"});
    assert_eq!(send("deployment_status", &message(started)).status, 200);
    let event = server.only_event();
    assert_eq!(
        event["until"].as_i64().unwrap() - event["when"].as_i64().unwrap(),
        300
    );
    assert_eq!(event["status"], "succeeded");
    assert_eq!(send("deployment", &json!({})).status, 400);
    assert_eq!(
        server.send("POST", "/webhooks/github", &[], "{}").status,
        400
    );
    // Set to "application/x-www-form-urlencoded", GitHub sends the same in a form field.
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("payload", &message(Value::Null).to_string())
        .finish();
    let headers = [
        ("x-github-event", "deployment"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    assert_eq!(
        server
            .send("POST", "/webhooks/github", &headers, form)
            .status,
        200
    );
}

#[test]
fn gitlab_and_rollbar_tell_of_deploys_too() {
    let server = Server::start();
    let gitlab = json!({
        "object_kind": "deployment", "status": "success", "status_changed_at": "2023-11-14 22:00:00 UTC",
        "deployment_id": 5, "environment": "prod", "ref": "main",
        "project": {"path_with_namespace": "group/shop"}
    });
    assert_eq!(server.post("/webhooks/gitlab", &gitlab).status, 201);
    let form = "environment=prod&revision=abc123&local_username=bob&status=started";
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let started = server.send("POST", "/api/1/deploy/", &headers, form);
    let id = &started.json()["data"]["deploy_id"];
    let ended = server.send(
        "PATCH",
        &format!("/api/1/deploy/{id}"),
        &[],
        "{\"status\": \"failed\"}",
    );
    assert_eq!(ended.status, 200);
    let event = server.get(&format!("/events/{id}")).json();
    assert_eq!(
        (&event["status"], &event["data"]),
        (&json!("failed"), &json!("by bob"))
    );
    assert_eq!(event["until"], event["when"]);
}

#[test]
fn annotations_are_events() {
    let server = Server::start();
    let range =
        json!({"time": 5_000, "timeEnd": 65_000, "tags": ["deploy", "web"], "text": "out\nby me"});
    let added = server.post("/api/annotations", &range);
    assert_eq!(
        added.json(),
        json!({"message": "Annotation added", "id": 1})
    );
    let graphite = json!({"what": "config", "tags": ["config"], "when": 70, "data": "d"});
    let added = server.post("/api/annotations/graphite", &graphite);
    assert_eq!(
        added.json(),
        json!({"message": "Graphite annotation added", "id": 2})
    );
    let wanted = json!({"id": 1, "time": 5000, "timeEnd": 65_000, "tags": ["deploy", "web"], "text": "out\nby me"});
    assert_eq!(server.get("/api/annotations/1").json(), wanted);
    assert_eq!(
        server.get("/api/annotations?tags=deploy&tags=web").json(),
        json!([wanted])
    );
    assert_eq!(
        server
            .get("/api/annotations?tags=deploy&tags=config")
            .json(),
        json!([])
    );
    let any = server.get("/api/annotations?tags=deploy&tags=config&matchAny=true");
    assert_eq!(any.json().as_array().unwrap().len(), 2);
    assert_eq!(
        server
            .get("/api/annotations?from=70000")
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let patched = server.send("PATCH", "/api/annotations/1", &[], "{\"text\": \"in\"}");
    assert_eq!(patched.status, 200);
    assert_eq!(server.get("/events/1").json()["what"], "in");
    assert_eq!(
        server.send("DELETE", "/api/annotations/1", &[], "").status,
        200
    );
    assert_eq!(server.get("/api/annotations/1").status, 404);
    assert_eq!(server.get("/api/annotations?from=x").status, 400);
}

#[test]
fn writing_needs_a_token_when_there_are_any() {
    let auth = AuthOptions {
        event_tokens: vec!["secret".to_owned()],
        ..AuthOptions::default()
    };
    let server = Server::with(&auth);
    let body = "{\"what\": \"a\", \"when\": 5}";
    let bare = server.send("POST", "/events/", &[], body);
    assert_eq!(bare.status, 401);
    assert!(bare.header("www-authenticate").starts_with("Basic"));
    assert!(
        bare.json()["error"]
            .as_str()
            .unwrap()
            .contains("auth.event_tokens")
    );
    for (method, uri) in [
        ("POST", "/events"),
        ("PATCH", "/events/1"),
        ("DELETE", "/events/1"),
        ("POST", "/events/import"),
        ("POST", "/webhooks/github"),
        ("POST", "/webhooks/gitlab"),
        ("POST", "/api/1/deploy"),
        ("POST", "/api/annotations"),
        ("POST", "/api/annotations/graphite"),
        ("DELETE", "/api/annotations/1"),
    ] {
        assert_eq!(
            server.send(method, uri, &[], body).status,
            401,
            "{method} {uri}"
        );
    }
    // c2VjcmV0 is "secret", OnNlY3JldA== is ":secret".
    for headers in [
        [("authorization", "Bearer secret")],
        [("authorization", "Basic OnNlY3JldA==")],
    ] {
        assert_eq!(server.send("POST", "/events/", &headers, body).status, 200);
    }
    let form = "environment=prod&revision=abc&access_token=secret";
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(
        server.send("POST", "/api/1/deploy", &headers, form).status,
        200
    );
    // printf 'BODY' | openssl dgst -sha256 -hmac secret
    let signature = "sha256=08a4a1edb9a8b276cf52948938cd6f64311e65fd0ed934e157779f5ca4eb02f4";
    let signed = [("x-hub-signature-256", signature)];
    assert_eq!(server.send("POST", "/events/", &signed, body).status, 200);
    let other = "{\"what\": \"b\", \"when\": 5}";
    assert_eq!(server.send("POST", "/events/", &signed, other).status, 401);
    assert_eq!(server.get("/events/").status, 200, "reading is open");
    assert_eq!(server.send("POST", "/events/get_data", &[], "").status, 200);
}

#[test]
fn a_page_elsewhere_cannot_write() {
    let server = Server::start();
    let body = "{\"what\": \"a\"}";
    for headers in [
        &[("origin", "http://evil.example")][..],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site")],
    ] {
        assert_eq!(
            server.send("POST", "/events/", headers, body).status,
            403,
            "{headers:?}"
        );
    }
    assert_eq!(
        server
            .send("POST", "/events/", &[("origin", "http://localhost")], body)
            .status,
        200
    );
    assert_eq!(server.get("/events/").json().as_array().unwrap().len(), 1);
}

#[test]
fn a_body_too_long_is_refused() {
    let server = Server::start();
    let answer = server.send("POST", "/events/", &[], " ".repeat(MAX_BODY + 1));
    assert_eq!(answer.status, 413);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_query_is_an_error_of_ours(query in "[a-z0-9=&%+*,:. \\-]{0,40}", known in any::<prop::sample::Index>()) {
        let server = Server::start();
        server.post("/events/", &json!({"what": "a", "tags": "x y", "when": 5}));
        let names = ["tags=", "set=", "from=", "until=", "jsonp=", "limit=", "to=", "matchAny="];
        let query = format!("{}{query}", known.get(&names)).replace(' ', "+");
        for path in ["/events/get_data", "/events/", "/api/annotations"] {
            let uri = format!("{path}?{query}");
            if uri.parse::<axum::http::Uri>().is_ok() {
                prop_assert!(server.get(&uri).status < 500, "{uri}");
            }
        }
    }

    #[test]
    fn no_body_is_an_error_of_ours(
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        json in "[\\[\\]{}\":,a-z0-9\\-. ]{0,40}",
        wrapped in "[a-z_]{1,12}",
    ) {
        let server = Server::start();
        let wrapped = format!("{{\"what\": \"x\", \"deployment\": {{\"id\": 1}}, \"{wrapped}\": {json}}}");
        for body in [bytes, json.into_bytes(), wrapped.into_bytes()] {
            for (method, uri) in [
                ("POST", "/events/"), ("POST", "/events/import"), ("PATCH", "/events/1"),
                ("POST", "/webhooks/github"), ("POST", "/webhooks/gitlab"), ("POST", "/api/1/deploy"),
                ("POST", "/api/annotations"), ("POST", "/api/annotations/graphite"),
            ] {
                let headers = [("x-github-event", "deployment_status")];
                let answer = server.send(method, uri, &headers, body.clone());
                prop_assert!(answer.status < 500, "{method} {uri}: {}", answer.status);
            }
        }
    }
}

#[test]
fn bodies_are_reserved_while_they_are_held() {
    let memory = Memory::new(400_000);
    let server = Server::within(&AuthOptions::default(), &memory);
    let event = |data: usize| json!({"what": "deploy", "data": "x".repeat(data)}).to_string();
    let imported = "{\"what\":\"a\",\"when\":1}\n";
    for (uri, fits, too_much) in [
        ("/events/", event(1_000), event(300_000)),
        // Few bytes that become many values.
        (
            "/events/",
            event(1_000),
            format!("[{}1]", "1,".repeat(10_000)),
        ),
        ("/webhooks/gitlab", "{}".to_owned(), event(300_000)),
        ("/api/annotations", event(1_000), event(300_000)),
        (
            "/events/import",
            imported.to_owned(),
            imported.repeat(5_000),
        ),
    ] {
        let refused = server.send("POST", uri, &[], too_much);
        assert_eq!(refused.status, 413, "{uri}: {}", refused.body);
        assert!(
            refused.body.contains("render.max_memory"),
            "{}",
            refused.body
        );
        let taken = server.send("POST", uri, &[], fits);
        assert_ne!(taken.status, 413, "{uri}: {}", taken.body);
        assert_eq!(memory.used(), 0, "{uri}");
    }
    assert!(memory.peak() > 100_000);
}

/// A body is read before its signature is known to be good.
#[test]
fn bodies_with_signatures_are_reserved() {
    let auth = AuthOptions {
        event_tokens: vec!["secret".to_owned()],
        ..AuthOptions::default()
    };
    let memory = Memory::new(100_000);
    let server = Server::within(&auth, &memory);
    let signed = [("x-hub-signature-256", "sha256=00")];
    for (length, status) in [(1_000, 401), (200_000, 413)] {
        let answer = server.send("POST", "/webhooks/github", &signed, "x".repeat(length));
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    assert_eq!(memory.used(), 0);
}
