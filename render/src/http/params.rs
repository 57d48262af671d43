//! What a request asks, from its query string and its body.
//!
//! The pairs of the body come after those of the query string, and of two single values the last
//! counts, as in graphite-web. A body is a form (urlencoded or multipart), or a JSON object whose
//! lists stand for repeated parameters.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::{Method, StatusCode, header};

use super::Answer;

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
}

impl Params {
    /// Parameters from pairs, as of a GET.
    pub fn from_pairs(pairs: Vec<(String, String)>) -> Self {
        Self {
            method: Method::GET,
            n_in_query: pairs.len(),
            pairs,
        }
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

    /// Every value of `name`, or if there is none of `name[]`.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let all = |name: &str| -> Vec<&str> {
            let matching = self.pairs.iter().filter(|(key, _)| key == name);
            matching.map(|(_, value)| value.as_str()).collect()
        };
        let plain = all(name);
        if plain.is_empty() {
            all(&format!("{name}[]"))
        } else {
            plain
        }
    }

    /// Whether `name` is there with a value.
    pub fn has_value(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !value.is_empty())
    }
}

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = Answer;

    async fn from_request(request: Request, _: &S) -> Result<Self, Answer> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        let mut pairs = form(query.as_bytes())?;
        let n_in_query = pairs.len();
        if head.method == Method::POST {
            let kind = head.headers.get(header::CONTENT_TYPE);
            let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            pairs.append(&mut in_body(kind, body).await?);
        }
        check_number(pairs.len())?;
        Ok(Self {
            method: head.method,
            pairs,
            n_in_query,
        })
    }
}

async fn in_body(kind: &str, body: Body) -> Result<Vec<(String, String)>, Answer> {
    let body = to_bytes(body, MAX_BODY).await.map_err(|_| {
        let sentence = format!("the body is longer than {MAX_BODY} bytes or ended early");
        Answer::text(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    })?;
    let (main, details) = kind.split_once(';').unwrap_or((kind, ""));
    match main.trim().to_ascii_lowercase().as_str() {
        "application/json" => object(&body),
        "multipart/form-data" => {
            let boundary = details.split(';').find_map(|detail| {
                let (name, value) = detail.trim().split_once('=')?;
                name.eq_ignore_ascii_case("boundary")
                    .then(|| value.trim_matches('"').to_owned())
            });
            match boundary {
                Some(boundary) => multipart(&body, &boundary),
                None => Err(Answer::text(
                    StatusCode::BAD_REQUEST,
                    "a multipart body needs a boundary in its content type",
                )),
            }
        }
        _ => form(&body),
    }
}

/// Commas that a JSON body may have for each parameter that a request may have.
const COMMAS_PER_PAIR: usize = 10;

type Pairs = Result<Vec<(String, String)>, Answer>;

/// Each takes many times the byte or two that it needs on the wire: they are counted before they
/// are stored.
fn check_number(n_pairs: usize) -> Result<(), Answer> {
    if n_pairs <= MAX_PAIRS {
        return Ok(());
    }
    let sentence = format!("the request has more than {MAX_PAIRS} parameters");
    Err(Answer::text(StatusCode::PAYLOAD_TOO_LARGE, sentence))
}

fn too_long() -> Answer {
    let sentence = format!("the parameters of the body are longer than {MAX_BODY} bytes");
    Answer::text(StatusCode::PAYLOAD_TOO_LARGE, sentence)
}

fn form(text: &[u8]) -> Pairs {
    check_number(text.iter().filter(|&&byte| byte == b'&').count())?;
    Ok(form_urlencoded::parse(text).into_owned().collect())
}

/// The members of a JSON object; anything else has none.
fn object(body: &[u8]) -> Pairs {
    use serde_json::Value;
    // There is a comma between any two values; targets have some of their own.
    let n_commas = body.iter().filter(|&&byte| byte == b',').count();
    check_number(n_commas / COMMAS_PER_PAIR)?;
    let Ok(Value::Object(members)) = serde_json::from_slice(body) else {
        return Ok(Vec::new());
    };
    fn text(value: Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text),
            Value::Null => None,
            other => Some(other.to_string()),
        }
    }
    let mut room = MAX_BODY;
    let mut pairs = Vec::new();
    for (name, value) in members {
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        let values = values.into_iter().filter_map(text);
        for value in values {
            check_number(pairs.len() + 1)?;
            // A long list repeats its name: what it comes to is known only here.
            room = room
                .checked_sub(name.len() + value.len())
                .ok_or_else(too_long)?;
            pairs.push((name.clone(), value));
        }
    }
    Ok(pairs)
}

/// The fields of a multipart body. Parts that make no sense are left out.
fn multipart(body: &[u8], boundary: &str) -> Pairs {
    let body = String::from_utf8_lossy(body);
    let mut pairs = Vec::new();
    for part in body.split(&format!("--{boundary}")).skip(1) {
        let part = part.trim_start_matches("\r\n");
        let Some((head, value)) = part.split_once("\r\n\r\n") else {
            continue;
        };
        let disposition = head.lines().find(|line| {
            line.to_ascii_lowercase()
                .starts_with("content-disposition:")
        });
        let name = disposition.and_then(|line| {
            let (_, rest) = line.split_once("name=\"")?;
            Some(rest.split_once('"')?.0)
        });
        if let Some(name) = name {
            let value = value.strip_suffix("\r\n").unwrap_or(value);
            check_number(pairs.len() + 1)?;
            pairs.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(uri: &str, kind: &str, body: &'static str) -> Params {
        let request = axum::http::Request::post(uri)
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(body))
            .unwrap();
        Params::from_request(request, &()).await.unwrap()
    }

    #[tokio::test]
    async fn a_body_that_grows_when_it_is_read_is_refused() {
        let long = "n".repeat(1 << 10);
        let ones = vec!["1"; MAX_BODY >> 10].join(",");
        let request = axum::http::Request::post("/render")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(format!("{{\"{long}\": [{ones}]}}")))
            .unwrap();
        let refused = Params::from_request(request, &()).await.unwrap_err();
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
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
                let params = Params::from_request(request, &()).await;
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
            read("/render", "application/json", "[1")
                .await
                .pairs()
                .is_empty()
        );
    }
}
