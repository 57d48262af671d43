//! The bodies that contain parameters: forms, multipart forms and JSON objects.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use super::{MAX_BODY, MAX_PAIRS};
use crate::http::Answer;

type Pairs = Result<Vec<(String, String)>, Answer>;

/// The parameters in a body of the content type `kind`; a body of another type is read as a form.
pub(super) async fn in_body(kind: &str, body: Body) -> Pairs {
    let body = whole(body).await?;
    let main = kind.split(';').next().unwrap_or_default();
    match main.trim().to_ascii_lowercase().as_str() {
        "application/json" => object(&body),
        "multipart/form-data" => multipart(body, kind).await,
        _ => form(&body),
    }
}

/// All of a body.
pub(super) async fn whole(body: Body) -> Result<Bytes, Answer> {
    to_bytes(body, MAX_BODY).await.map_err(|_| {
        let sentence = format!("the body is longer than {MAX_BODY} bytes or ended early");
        Answer::text(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    })
}

/// Commas that a JSON body may have for each parameter that a request may have.
const COMMAS_PER_PAIR: usize = 10;

/// Refuses more parameters than a request may have. A parameter takes many times the byte or two
/// that it needs on the wire, so they are counted before they are stored.
pub(super) fn check_number(n_pairs: usize) -> Result<(), Answer> {
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

pub(super) fn form(text: &[u8]) -> Pairs {
    check_number(text.iter().filter(|&&byte| byte == b'&').count())?;
    Ok(form_urlencoded::parse(text).into_owned().collect())
}

/// The members of a JSON object; other JSON has no parameters.
fn object(body: &[u8]) -> Pairs {
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
            // A long list repeats its name, so the length is known only here.
            room = room
                .checked_sub(name.len() + value.len())
                .ok_or_else(too_long)?;
            pairs.push((name.clone(), value));
        }
    }
    Ok(pairs)
}

/// The fields of a multipart body; parts without a name are ignored.
async fn multipart(body: Bytes, kind: &str) -> Pairs {
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let bad = |error: MultipartError| {
        let sentence = format!("the multipart body is invalid: {}", error.body_text());
        Answer::text(StatusCode::BAD_REQUEST, sentence)
    };
    let mut request = Request::new(Body::from(body));
    if let Ok(kind) = HeaderValue::from_str(kind) {
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
    }
    // The length was checked already.
    DefaultBodyLimit::disable().apply(&mut request);
    let mut parts = Multipart::from_request(request, &()).await.map_err(|_| {
        let sentence = "a multipart body needs a boundary in its content type";
        Answer::text(StatusCode::BAD_REQUEST, sentence)
    })?;
    let mut pairs = Vec::new();
    while let Some(part) = parts.next_field().await.map_err(bad)? {
        if let Some(name) = part.name().map(str::to_owned) {
            check_number(pairs.len() + 1)?;
            let value = part.bytes().await.map_err(bad)?;
            pairs.push((name, String::from_utf8_lossy(&value).into_owned()));
        }
    }
    Ok(pairs)
}
