//! `carbon.http`: lines in the bodies of POST requests.
//!
//! 1. Any path will do. The body is lines, plain or gzip-compressed, with a length or in chunks; the
//!    receiver reads it piece by piece and needs the memory of a few pieces only.
//! 2. The answer is JSON: 200 when all lines were taken; 400 when some were refused, with the number of
//!    each and the reason; the other lines are stored all the same. 413 after `carbon.http_max_body`
//!    bytes, 415 for another encoding.
//! 3. While the cache or the journal is full, the body is not read.
//! 4. Requests pass the same guard as other writes over HTTP (`auth.tokens`, pages of other hosts).

use std::future::poll_fn;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use carbon::Carbon;
use carbon::listener::{self, Outcome};
use flate2::write::MultiGzDecoder;
use render::http::guard::{Guard, Scope};
use serde_json::{Value, json};

use crate::http::secure;

/// Compressed bytes that are decompressed at once: they become a thousand times as many at most.
const PIECE: usize = 4 << 10;

/// What a request needs.
#[derive(Clone)]
struct Receiver {
    carbon: Carbon,
    max_body: u64,
}

/// The routes of `carbon.http`.
pub(crate) fn routes(carbon: &Carbon, max_body: u64, guard: &Arc<Guard>) -> Router {
    let receiver = Receiver {
        carbon: carbon.clone(),
        max_body,
    };
    let take = || post(take).get(|| async { "POST lines here\n" });
    let routes = Router::new()
        .route("/", take())
        .route("/{*path}", take())
        .with_state(receiver);
    let guarded = guard.protect(routes, Scope::Everything);
    guarded.layer(map_response(secure::headers))
}

/// Why a body was not read to its end.
enum Unread {
    TooLong,
    Broken(String),
}

async fn take(State(receiver): State<Receiver>, request: Request) -> Response {
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    let encoding = encoding.map_or(&b"identity"[..], |encoding| encoding.as_bytes());
    let compressed = match encoding.to_ascii_lowercase().as_slice() {
        b"identity" | b"" => false,
        b"gzip" | b"x-gzip" => true,
        other => {
            let why = format!(
                "Content-Encoding {:?} is not supported, use gzip or none",
                String::from_utf8_lossy(other)
            );
            let answer = json!({ "error": why });
            return respond(StatusCode::UNSUPPORTED_MEDIA_TYPE, &answer);
        }
    };
    let mut lines = listener::Body::new(&receiver.carbon);
    let mut left = receiver.max_body;
    let body = request.into_body();
    let read = match compressed {
        false => plain(body, &mut lines, &mut left).await,
        true => gzip(body, &mut lines, &mut left).await,
    };
    match read {
        Ok(()) => done(&lines.end().await),
        Err(Unread::TooLong) => {
            let why = format!(
                "the body has more than {} bytes (carbon.http_max_body): the lines before were taken",
                receiver.max_body
            );
            let answer = answer(&lines.abandon(), Some(why));
            respond(StatusCode::PAYLOAD_TOO_LARGE, &answer)
        }
        Err(Unread::Broken(why)) => {
            let why = format!("the body cannot be read: {why}; the lines before were taken");
            let answer = answer(&lines.abandon(), Some(why));
            respond(StatusCode::BAD_REQUEST, &answer)
        }
    }
}

/// The answer to a body that was read whole.
fn done(outcome: &Outcome) -> Response {
    if outcome.refused == 0 {
        return respond(StatusCode::OK, &answer(outcome, None));
    }
    let why = match outcome.refused {
        1 => "1 line was refused, the others were taken".to_owned(),
        n => format!("{n} lines were refused, the others were taken"),
    };
    respond(StatusCode::BAD_REQUEST, &answer(outcome, Some(why)))
}

fn respond(status: StatusCode, answer: &Value) -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (status, json, format!("{answer}\n")).into_response()
}

fn answer(outcome: &Outcome, error: Option<String>) -> Value {
    let mut answer = json!({ "accepted": outcome.accepted, "refused": outcome.refused });
    if let Some(error) = error {
        answer["error"] = error.into();
    }
    if !outcome.problems.is_empty() {
        let problems = outcome.problems.iter().map(|(line, refused)| {
            let text = String::from_utf8_lossy(&refused.sample);
            json!({ "line": line, "reason": refused.reason, "text": text })
        });
        answer["problems"] = problems.collect();
    }
    answer
}

/// The next piece of a body.
async fn piece(body: &mut Body) -> Result<Option<Bytes>, Unread> {
    loop {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        match frame {
            None => return Ok(None),
            Some(Err(why)) => return Err(Unread::Broken(why.to_string())),
            // Trailers say nothing here.
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn plain(mut body: Body, lines: &mut listener::Body, left: &mut u64) -> Result<(), Unread> {
    while let Some(piece) = piece(&mut body).await? {
        push(&piece, lines, left).await?;
    }
    Ok(())
}

async fn gzip(mut body: Body, lines: &mut listener::Body, left: &mut u64) -> Result<(), Unread> {
    let broken = |why: std::io::Error| Unread::Broken(why.to_string());
    let mut decoder = MultiGzDecoder::new(Vec::new());
    while let Some(piece) = piece(&mut body).await? {
        for piece in piece.chunks(PIECE) {
            decoder.write_all(piece).map_err(broken)?;
            let text = std::mem::take(decoder.get_mut());
            push(&text, lines, left).await?;
        }
    }
    decoder.try_finish().map_err(broken)?;
    push(decoder.get_ref(), lines, left).await
}

/// Passes on what the limit on the body leaves of `bytes`.
async fn push(bytes: &[u8], lines: &mut listener::Body, left: &mut u64) -> Result<(), Unread> {
    match left.checked_sub(bytes.len() as u64) {
        Some(rest) => *left = rest,
        None => return Err(Unread::TooLong),
    }
    lines.push(bytes).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use carbon::Setup;
    use carbon::options::{JournalOptions, Options, Span};
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tower::ServiceExt;

    fn gzipped(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    /// Posts `body`; status and answer.
    async fn ask(carbon: &Carbon, encoding: &str, body: Vec<u8>) -> (StatusCode, Value) {
        let guard = Arc::new(Guard::new(&Default::default(), true));
        let request = Request::post("/any/path")
            .header(header::HOST, "localhost")
            .header(header::CONTENT_ENCODING, encoding)
            .body(Body::from(body))
            .unwrap();
        let response = routes(carbon, 100_000, &guard)
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Ok(Some(piece)) = piece(&mut body).await {
            bytes.extend(piece);
        }
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    #[tokio::test]
    async fn answers_count_lines_and_name_those_that_were_refused() {
        let dir = tempfile::tempdir().unwrap();
        let setup = Setup::new(
            Options::default(),
            JournalOptions::default(),
            Span::seconds(10),
        );
        let carbon = Carbon::open(setup, dir.path()).unwrap();
        let good = b"a 1 1\nb 2 2";
        let all = json!({ "accepted": 2, "refused": 0 });
        let ok = (StatusCode::OK, all);
        assert_eq!(ask(&carbon, "identity", good.to_vec()).await, ok);
        assert_eq!(ask(&carbon, "gzip", gzipped(good)).await, ok);
        let (status, answer) = ask(&carbon, "gzip", gzipped(b"a 1 1\nbad\nb 2 2\n")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(
            (&answer["accepted"], &answer["refused"]),
            (&json!(2), &json!(1))
        );
        let problem = &answer["problems"][0];
        assert_eq!(
            (&problem["line"], &problem["text"]),
            (&json!(2), &json!("bad"))
        );

        let (status, answer) = ask(&carbon, "br", good.to_vec()).await;
        assert_eq!(status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{answer}");
        // The limit holds after decompression.
        let long = b"a 1 1\n".repeat(50_000);
        for (encoding, body) in [("identity", long.clone()), ("gzip", gzipped(&long))] {
            let (status, answer) = ask(&carbon, encoding, body).await;
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
            assert!(answer["error"].as_str().unwrap().contains("http_max_body"));
        }
        let cut = gzipped(good)[..20].to_vec();
        let (status, answer) = ask(&carbon, "gzip", cut).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(answer["error"].as_str().unwrap().contains("cannot be read"));
    }
}
