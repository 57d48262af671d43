//! The parameters of a request, from its query string and its body.
//!
//! The pairs of the body follow those of the query string; if a parameter is repeated, the last
//! value wins, as in graphite-web. A body is a form (urlencoded or multipart), or a JSON object whose
//! lists stand for repeated parameters. A request in `carbonapi_v3_pb` has a message as its body,
//! which is kept as it is. Bodies and parameters are reserved in the memory of all requests while
//! they are held.

mod body;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::{FromRef, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Answer;
use super::carbonapi::{Protocol, accepts_version_3};
use crate::budget::{Budget, Memory, Reservation};
use crate::error::Result as Checked;
use crate::stats::{Stats, count};
use body::{check_number, form, in_body};
pub(super) use body::{refused, size_of_form, size_of_json, whole};

/// How long a body may be.
pub const MAX_BODY: usize = 8 << 20;

/// How many parameters a request may have.
pub const MAX_PAIRS: usize = 200_000;

/// The parameters of a request.
#[derive(Clone, Debug)]
pub struct Params {
    /// Its method.
    pub method: Method,
    pairs: Vec<(String, String)>,
    n_in_query: usize,
    message: Option<Bytes>,
    /// What `pairs` has reserved, unless it was not read from a request.
    reserved: Option<Arc<Reservation>>,
}

impl Params {
    /// Parameters from pairs, as of a GET.
    pub fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        Self {
            method: Method::GET,
            n_in_query: pairs.len(),
            pairs,
            message: None,
            reserved: None,
        }
    }

    /// Sets memory aside in `budget` for copies of all parameters, so many of them.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub fn reserve_copies(&self, n_copies: usize, budget: &Budget) -> Checked<()> {
        let size = self.reserved.as_ref().map_or(0, |held| held.bytes());
        budget.reserve(size.saturating_mul(n_copies))
    }

    /// All of them, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.pairs
    }

    /// The last value of `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut from_last = self.pairs.iter().rev();
        let (_, value) = from_last.find(|(key, _)| key == name)?;
        Some(value)
    }

    /// The last value of `name` in the query string alone.
    pub fn in_query(&self, name: &str) -> Option<&str> {
        let mut from_last = self.pairs[..self.n_in_query].iter().rev();
        let (_, value) = from_last.find(|(key, _)| key == name)?;
        Some(value)
    }

    /// The body of a request in `carbonapi_v3_pb`.
    pub(super) fn message(&self) -> Option<&Bytes> {
        self.message.as_ref()
    }

    /// Every value of `name`.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let matching = self.pairs.iter().filter(move |(key, _)| key == name);
        matching.map(|(_, value)| value.as_str())
    }

    /// Every value of `name`, or of `name[]` if there are no others.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let plain: Vec<&str> = self.all(name).collect();
        if !plain.is_empty() {
            return plain;
        }
        self.all(&format!("{name}[]")).collect()
    }

    /// Whether `name` is there with a value.
    pub fn has_value(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !value.is_empty())
    }
}

/// What reading parameters needs.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Where they are reserved.
    pub memory: Arc<Memory>,
    /// Where refusals are counted.
    pub stats: Arc<Stats>,
}

impl Reading {
    /// Counts a refusal for want of memory.
    pub(super) fn count(&self, refusal: Answer) -> Answer {
        if refusal.status == StatusCode::PAYLOAD_TOO_LARGE {
            count(&self.stats.limited);
        }
        refusal
    }
}

/// Reserves the parameters in the head of a request until its answer begins. A head is read before
/// anything is known of the request, and handlers keep its parameters while they wait for a thread or
/// the disk.
pub async fn heads(State(reading): State<Reading>, request: Request, next: Next) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let budget = Budget::new(Arc::clone(&reading.memory), None);
    let held = budget.hold(query.len() + size_of_form(query.as_bytes()));
    match held {
        Ok(_held) => next.run(request).await,
        Err(error) => reading.count(refused(error)).into_response(),
    }
}

impl<S: Send + Sync> FromRequest<S> for Params
where
    Reading: FromRef<S>,
{
    type Rejection = Answer;

    async fn from_request(request: Request, state: &S) -> Result<Self, Answer> {
        let reading = Reading::from_ref(state);
        let read = Self::read(request, Budget::new(Arc::clone(&reading.memory), None)).await;
        read.map_err(|refusal| reading.count(refusal))
    }
}

impl Params {
    async fn read(request: Request, budget: Budget) -> Result<Self, Answer> {
        let (head, body) = request.into_parts();
        let mut reserved = budget.hold(size_of_query(&head)).map_err(refused)?;
        let mut pairs = query(&head)?;
        let n_in_query = pairs.len();
        let format = pairs.iter().rev().find(|(name, _)| name == "format");
        let named = format.and_then(|(_, format)| Protocol::named(format));
        let mut message = None;
        if named == Some(Protocol::Three) || accepts_version_3(&head.headers) {
            // carbonapi sends its messages as the bodies of GETs.
            message = Some(whole(body, &budget, MAX_BODY).await?);
        } else if head.method == Method::POST {
            let kind = head.headers.get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            pairs.append(&mut in_body(kind, body, &mut reserved).await?);
        }
        check_number(pairs.len())?;
        reserved.resize(size_of_pairs(&pairs)).map_err(refused)?;
        Ok(Self {
            method: head.method,
            pairs,
            n_in_query,
            message,
            reserved: Some(Arc::new(reserved)),
        })
    }
}

/// The parameters of the query string alone, for routes that ignore or read their body themselves.
#[derive(Clone, Debug)]
pub struct InQuery(pub Params);

impl<S: Send + Sync> FromRequestParts<S> for InQuery {
    type Rejection = Answer;

    async fn from_request_parts(head: &mut Parts, _: &S) -> Result<Self, Answer> {
        let pairs = query(head)?;
        check_number(pairs.len())?;
        Ok(Self(Params {
            method: head.method.clone(),
            n_in_query: pairs.len(),
            pairs,
            message: None,
            reserved: None,
        }))
    }
}

/// The least that the allocator takes for a text, with its own note of the size.
const SMALLEST_TEXT: usize = 32;

/// The bytes that `pairs` takes.
fn size_of_pairs(pairs: &Vec<(String, String)>) -> usize {
    let text = |text: &String| text.capacity() + SMALLEST_TEXT;
    let texts = pairs.iter().map(|(name, value)| text(name) + text(value));
    texts.sum::<usize>() + pairs.capacity() * size_of::<(String, String)>()
}

fn size_of_query(head: &Parts) -> usize {
    size_of_form(head.uri.query().unwrap_or_default().as_bytes())
}

fn query(head: &Parts) -> Result<Vec<(String, String)>, Answer> {
    form(head.uri.query().unwrap_or_default().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use axum::body::Body;

    use super::*;

    fn reading(limit: u64) -> Reading {
        Reading {
            memory: Memory::new(limit),
            stats: Arc::default(),
        }
    }

    async fn read(uri: &str, kind: &str, body: &'static str) -> Params {
        let request = axum::http::Request::post(uri)
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .unwrap();
        Params::from_request(request, &reading(0)).await.unwrap()
    }

    #[tokio::test]
    async fn a_body_that_grows_when_it_is_read_is_refused() {
        let long = "n".repeat(1 << 10);
        let ones = vec!["1"; MAX_BODY >> 10].join(",");
        let request = axum::http::Request::post("/render")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(format!("{{\"{long}\": [{ones}]}}")))
            .unwrap();
        let refused = Params::from_request(request, &reading(0))
            .await
            .unwrap_err();
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test]
    async fn bodies_and_parameters_are_reserved_while_they_are_held() {
        let form = "application/x-www-form-urlencoded";
        let part = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nbcd\r\n";
        for (kind, body) in [
            (form, "a=bcd&".repeat(1_000)),
            (form, "%FF".repeat(10_000)),
            (
                "application/json",
                format!("{{\"a\":[{}1]}}", "1,".repeat(2_000)),
            ),
            (
                "multipart/form-data; boundary=x",
                format!("{}--x--\r\n", part.repeat(500)),
            ),
        ] {
            let request = || {
                let request = axum::http::Request::post("/render?a=1");
                let request = request.header(header::CONTENT_TYPE, kind);
                request.body(Body::from(body.clone())).unwrap()
            };
            let reading_all = reading(0);
            let params = Params::from_request(request(), &reading_all).await.unwrap();
            let (held, peak) = (reading_all.memory.used(), reading_all.memory.peak());
            assert!(held >= size_of_pairs(&params.pairs) as u64, "{kind}");
            let copies = Budget::new(Arc::clone(&reading_all.memory), None);
            params.reserve_copies(2, &copies).unwrap();
            assert_eq!(reading_all.memory.used(), 3 * held, "{kind}");
            drop((params, copies));
            assert_eq!(reading_all.memory.used(), 0, "{kind}");
            // Less than was needed at most: refused before it is allocated.
            for limit in [20_000, peak - 1] {
                let few = reading(limit);
                let read = Params::from_request(request(), &few).await;
                let refused = read.err().map(|answer| answer.status);
                assert_eq!(refused, Some(StatusCode::PAYLOAD_TOO_LARGE), "{kind}");
                assert_eq!(few.memory.used(), 0, "{kind}");
                assert_eq!(few.stats.limited.load(Ordering::Relaxed), 1, "{kind}");
            }
        }
    }

    #[tokio::test]
    async fn heads_are_reserved_until_the_answer_begins() {
        use axum::middleware::from_fn_with_state;
        use tower::ServiceExt as _;
        let many = format!("/?{}", "a&".repeat(10_000));
        for (limit, uri, status) in [
            (100_000, "/?a=1", StatusCode::OK),
            (100_000, &*many, StatusCode::PAYLOAD_TOO_LARGE),
            (0, &*many, StatusCode::OK),
        ] {
            let reading = reading(limit);
            let memory = Arc::clone(&reading.memory);
            let held = move || async move { memory.used().to_string() };
            let router = axum::Router::new()
                .route("/", axum::routing::get(held))
                .layer(from_fn_with_state(reading.clone(), heads));
            let request = Request::get(uri).body(Body::empty()).unwrap();
            let answer = router.oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{uri:.20}");
            let refused = u64::from(status != StatusCode::OK);
            assert_eq!(reading.stats.limited.load(Ordering::Relaxed), refused);
            let body = axum::body::to_bytes(answer.into_body(), 1_000)
                .await
                .unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            match status {
                StatusCode::OK => assert!(body.parse::<usize>().unwrap() > uri.len(), "{body}"),
                _ => assert!(body.contains("render.max_memory"), "{body}"),
            }
            assert_eq!(reading.memory.used(), 0);
        }
    }

    #[tokio::test]
    async fn parameters_are_counted() {
        let form = "application/x-www-form-urlencoded";
        let part = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n\r\n";
        for (kind, piece) in [
            (form, "a&"),
            ("application/json", "1,"),
            ("multipart/form-data; boundary=x", part),
        ] {
            let refused = |n: usize| async move {
                let mut body = piece.repeat(n);
                if kind == "application/json" {
                    body = format!("{{\"a\":[{}1]}}", body);
                }
                let request = axum::http::Request::post("/render")
                    .header(header::CONTENT_TYPE, kind)
                    .body(Body::from(body))
                    .unwrap();
                let params = Params::from_request(request, &reading(0)).await;
                params.err().map(|answer| answer.status)
            };
            if piece.len() * MAX_PAIRS < MAX_BODY {
                assert_eq!(refused(MAX_PAIRS - 1).await, None, "{kind}");
                let too_large = Some(StatusCode::PAYLOAD_TOO_LARGE);
                assert_eq!(refused(MAX_PAIRS + 1).await, too_large, "{kind}");
            }
        }
    }

    #[tokio::test]
    async fn bodies_add_to_the_query() {
        let form = "application/x-www-form-urlencoded";
        let params = read("/render?target=a&from=1", form, "target=b%20c&from=2").await;
        assert_eq!(params.list("target"), ["a", "b c"]);
        assert_eq!(params.get("from"), Some("2"));
        assert_eq!(params.in_query("from"), Some("1"));
        let params = read(
            "/render",
            "application/json",
            r#"{"target[]":["a","b"],"from":-5}"#,
        )
        .await;
        assert_eq!(params.list("target"), ["a", "b"]);
        assert_eq!(params.get("from"), Some("-5"));
        let body =
            "--x\r\nContent-Disposition: form-data; name=\"target\"\r\n\r\na\r\nb\r\n--x--\r\n";
        let params = read("/render", "multipart/form-data; boundary=\"x\"", body).await;
        assert_eq!(params.list("target"), ["a\r\nb"]);
        assert!(
            read("/render", "multipart/form-data; boundary=x", "")
                .await
                .pairs()
                .is_empty()
        );
        for (kind, body) in [
            ("multipart/form-data", body),
            ("multipart/form-data; boundary=x", "--x\r\n"),
        ] {
            let request = axum::http::Request::post("/render")
                .header(header::CONTENT_TYPE, kind)
                .body(Body::from(body))
                .unwrap();
            let refused = Params::from_request(request, &reading(0))
                .await
                .unwrap_err();
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{kind}");
        }
        assert!(
            read("/render", "application/json", "[1")
                .await
                .pairs()
                .is_empty()
        );
    }
}
