//! Parameters of requests. Pairs written as a query, a form, a multipart body or JSON read back
//! as the same pairs; any body of any kind is refused or read, and what is read is no longer
//! than what was sent or the longest body.
#![no_main]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use axum::extract::FromRequest;
use axum::http::{Request, header};
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;
use render::budget::Memory;
use render::http::Params;
use render::http::params::{MAX_BODY, MAX_PAIRS, Reading};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
const KINDS: [&str; 8] = [
    FORM,
    JSON,
    "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=\"-- \"",
    "multipart/form-data; boundary=",
    "multipart/form-data",
    "Application/JSON;charset=utf-8",
    "",
];
type Pair = (String, String);
/// The memory of all requests: more than any body of these sizes needs.
const MEMORY: u64 = 1 << 30;

fuzz_target!(|data: &[u8]| {
    let mut input = Bytes(data);
    if input.below(3) == 0 {
        let kind = KINDS[input.below(KINDS.len())];
        return bounded(kind, input.0);
    }
    if input.below(16) == 0 {
        // A list repeats its name.
        let name = "n".repeat(input.word() as usize % 100_000);
        let list = vec!["1"; 1 + input.word() as usize % 100_000].join(",");
        bounded(JSON, format!("{{\"{name}\":[{list}]}}").as_bytes());
        return;
    }
    let mut pairs: Vec<Pair> = Vec::new();
    while !input.is_empty() {
        let name = text(&mut input);
        let value = text(&mut input);
        pairs.push((name, value));
    }
    let form: String = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
        .collect::<Vec<_>>()
        .join("&");
    assert_eq!(
        read("/render", FORM, form.as_bytes()).as_ref(),
        Some(&pairs)
    );
    assert_eq!(
        read(&format!("/render?{form}"), FORM, b"").as_ref(),
        Some(&pairs)
    );

    // Names in multipart bodies are not escaped: neither they nor values may contain what ends
    // them, and the header of a part has no control characters.
    let boundary = "-----boundary-of-parts";
    let plain: Vec<Pair> = pairs
        .iter()
        .filter(|(name, value)| {
            !name.contains(['"', '\\'])
                && !name.contains(char::is_control)
                && !value.contains(boundary)
        })
        .cloned()
        .collect();
    let mut body = String::new();
    for (name, value) in &plain {
        body += &format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
    }
    body += &format!("--{boundary}--\r\n");
    let kind = format!("multipart/form-data; boundary={boundary}");
    assert_eq!(
        read("/render", &kind, body.as_bytes()),
        Some(plain),
        "{body:?}"
    );

    // Of a JSON object the members are read, sorted or not, and lists one by one.
    let mut members = serde_json::Map::new();
    for (name, value) in &pairs {
        let list = members.entry(name).or_insert_with(|| serde_json::json!([]));
        list.as_array_mut().unwrap().push(value.clone().into());
    }
    let body = serde_json::to_vec(&members).unwrap();
    let mut sorted = pairs.clone();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut found = read("/render", JSON, &body).expect("an object is read");
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(found, sorted);
});

/// What is read of a body is bounded.
fn bounded(kind: &str, body: &[u8]) {
    let Some(pairs) = read("/render", kind, body) else {
        return;
    };
    let len: usize = pairs
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    // A byte that is not UTF-8 becomes three.
    assert!(
        len <= MAX_BODY.max(3 * body.len()),
        "{} bytes became {len}",
        body.len()
    );
    assert!(pairs.len() <= MAX_PAIRS);
}

fn text(input: &mut Bytes<'_>) -> String {
    let n = input.below(12);
    String::from_utf8_lossy(input.take(n)).into_owned()
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn read(uri: &str, kind: &str, body: &[u8]) -> Option<Vec<Pair>> {
    let request = Request::post(uri)
        .header(header::CONTENT_TYPE, kind)
        .body(Body::from(body.to_vec()))
        .unwrap();
    let memory = Memory::new(MEMORY);
    let state = Reading {
        memory: Arc::clone(&memory),
        stats: Arc::default(),
    };
    let pairs = {
        let mut reading = pin!(Params::from_request(request, &state));
        // The body is there: nothing is waited for.
        match reading
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
        {
            Poll::Ready(params) => params.ok().map(|params| params.pairs().to_vec()),
            Poll::Pending => panic!("a body that is there is waited for"),
        }
    };
    assert_eq!(memory.used(), 0);
    pairs
}
