//! The bodies that contain parameters: forms, multipart forms and JSON objects.

use std::future::poll_fn;
use std::pin::pin;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{HeaderValue, StatusCode, header};
use serde_json::Value;

use super::{MAX_BODY, MAX_PAIRS, SMALLEST_TEXT};
use crate::budget::{Arriving, Budget, Reservation};
use crate::error::Error;
use crate::format::Buffer;
use crate::http::Answer;

type Pairs = Result<Vec<(String, String)>, Answer>;

/// The parameters in a body of the content type `kind`; a body of another type is read as a form.
/// `reserved` grows by what they take.
pub(super) async fn in_body(kind: &str, body: Body, reserved: &mut Reservation) -> Pairs {
    let body = whole(body, reserved.budget(), MAX_BODY).await?;
    let main = kind.split(';').next().unwrap_or_default();
    let kind_of_body = main.trim().to_ascii_lowercase();
    let size = match kind_of_body.as_str() {
        "application/json" => size_of_json(&body),
        // A copy, and the texts, each with its place in a list that doubles.
        "multipart/form-data" => 5 * body.len(),
        _ => size_of_form(&body),
    };
    reserved.grow(size).map_err(refused)?;
    match kind_of_body.as_str() {
        "application/json" => object(&body),
        "multipart/form-data" => multipart(body, kind).await,
        _ => form(&body),
    }
}

/// All of a body of `most` bytes. Its bytes stay reserved in `budget` while they are held. The rest of a body for which
/// there is no memory is read and dropped: a client that is still sending would lose the answer
/// together with the connection.
pub(in crate::http) async fn whole(
    body: Body,
    budget: &Budget,
    most: usize,
) -> Result<Bytes, Answer> {
    let too_long = || {
        let sentence = format!("the body is longer than {most} bytes or ended early");
        Answer::text(StatusCode::PAYLOAD_TOO_LARGE, sentence)
    };
    let mut held = Ok((Buffer::new(budget), Arriving::new(budget.memory())));
    let mut length = 0;
    let mut body = pin!(body);
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        // What follows the data has no meaning here.
        let Ok(data) = frame.map_err(|_| too_long())?.into_data() else {
            continue;
        };
        length += data.len();
        if length > most {
            return Err(too_long());
        }
        if let Ok((bytes, arriving)) = &mut held
            && let Err(error) = append(bytes, arriving, &data)
        {
            held = Err(error);
        }
    }
    match held {
        Ok((bytes, _)) => Ok(Bytes::from_owner(bytes)),
        Err(error) => Err(refused(error)),
    }
}

fn append(bytes: &mut Buffer, arriving: &mut Arriving, data: &[u8]) -> Result<(), Error> {
    arriving.grow(data.len())?;
    bytes.room(data.len())?.extend_from_slice(data);
    Ok(())
}

/// The answer to a request whose body or parameters need too much memory.
pub(in crate::http) fn refused(error: Error) -> Answer {
    Answer::text(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
}

/// The most bytes that the parameters of a form take: each has a place in a list, and a byte that is
/// not UTF-8 becomes a character of three.
pub(in crate::http) fn size_of_form(text: &[u8]) -> usize {
    let n_pairs = 1 + text.iter().filter(|&&byte| byte == b'&').count();
    match text.len() {
        0 => 0,
        length => n_pairs * (size_of::<(String, String)>() + 2 * SMALLEST_TEXT) + 3 * length,
    }
}

/// What a value of JSON takes beside its text: a place in a list that doubles while it grows, and the
/// name and value of the parameter that it becomes.
const PER_VALUE: usize = 4 * size_of::<Value>() + size_of::<(String, String)>() + 2 * SMALLEST_TEXT;

/// The most bytes that an object of JSON takes until its members are parameters.
pub(in crate::http) fn size_of_json(body: &[u8]) -> usize {
    let n_values = 1 + body.iter().filter(|&&byte| byte == b',').count();
    // Texts are there twice, in the object and in the parameters.
    n_values * PER_VALUE + 2 * body.len()
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
    let n_pairs = text.iter().filter(|&&byte| byte == b'&').count();
    check_number(n_pairs)?;
    if text.is_empty() {
        return Ok(Vec::new());
    }
    // All at once: a list that grows takes three times as much.
    let mut pairs = Vec::with_capacity(n_pairs + 1);
    pairs.extend(form_urlencoded::parse(text).into_owned());
    Ok(pairs)
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
