//! Answers that a client may already have, and compressed ones.
//!
//! 1. The tag of an answer is a digest of its bytes: equal bytes have equal tags on every server and
//!    after every restart.
//! 2. Only answers that are held whole are tagged and compressed. Small ones stay as they are: the
//!    headers would be longer than what is saved.

use std::io::Write as _;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

use super::{Answer, Content};

/// Bytes below which an answer is not compressed.
const WORTHWHILE: usize = 600;

/// `answer` as the client with these request `headers` gets it: a 304 if it has the same bytes,
/// else compressed if it accepts gzip.
pub(super) fn negotiated(headers: &HeaderMap, answer: Answer) -> Answer {
    let Content::Whole(bytes) = &answer.body else {
        return answer;
    };
    if answer.status != StatusCode::OK {
        return answer;
    }
    let tag = tag(bytes);
    let answer = answer
        .with(header::ETAG, &tag)
        .with(header::VARY, "Accept-Encoding");
    if has(headers, &tag) {
        return Answer {
            status: StatusCode::NOT_MODIFIED,
            body: Bytes::new().into(),
            ..answer
        };
    }
    packed(headers, answer)
}

/// `answer`, compressed if the client accepts gzip and the answer is long enough.
pub(super) fn packed(headers: &HeaderMap, answer: Answer) -> Answer {
    let Content::Whole(bytes) = &answer.body else {
        return answer;
    };
    if bytes.len() < WORTHWHILE || !accepts_gzip(headers) {
        return answer;
    }
    match compressed(bytes) {
        Some(bytes) => Answer {
            body: bytes.into(),
            ..answer.with(header::CONTENT_ENCODING, "gzip")
        },
        None => answer,
    }
}

/// A weak tag: the same for the compressed and the plain answer.
pub(super) fn tag(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let hex: String = digest.iter().take(12).map(|b| format!("{b:02x}")).collect();
    format!("W/\"{hex}\"")
}

fn has(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |text: &str| text.trim().trim_start_matches("W/").to_owned();
    headers.get_all(header::IF_NONE_MATCH).iter().any(|value| {
        let tags = value.to_str().unwrap_or_default();
        tags.split(',').any(|one| opaque(one) == opaque(tag))
    })
}

/// Whether the client takes gzip. `gzip;q=0` refuses it.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT_ENCODING)
        .iter()
        .any(|value| {
            let codings = value.to_str().unwrap_or_default();
            codings.split(',').any(|coding| {
                let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
                let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
                let refused = weight.parse::<f64>().is_ok_and(|weight| weight <= 0.0);
                name.trim().eq_ignore_ascii_case("gzip") && !refused
            })
        })
}

/// `bytes` in gzip; `None` if they do not become smaller.
fn compressed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 3), Compression::new(5));
    encoder.write_all(bytes).ok()?;
    let done = encoder.finish().ok()?;
    (done.len() < bytes.len()).then_some(done)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().cloned();
        pairs
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect()
    }

    fn body(answer: &Answer) -> &[u8] {
        match &answer.body {
            Content::Whole(bytes) => bytes,
            Content::Stream(_) => panic!("not whole"),
        }
    }

    fn value(answer: &Answer, name: HeaderName) -> Option<String> {
        let found = answer.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_answer_is_compressed_for_clients_that_accept_it() {
        let text = "a long text ".repeat(200);
        let plain = negotiated(&HeaderMap::new(), Answer::ok("text/plain", text.clone()));
        assert_eq!(body(&plain), text.as_bytes());
        let refusing = headers(&[(header::ACCEPT_ENCODING, "br, gzip;q=0")]);
        let refused = negotiated(&refusing, Answer::ok("text/plain", text.clone()));
        assert_eq!(body(&refused), text.as_bytes());
        let accepting = headers(&[(header::ACCEPT_ENCODING, "deflate, gzip;q=0.5")]);
        let packed = negotiated(&accepting, Answer::ok("text/plain", text.clone()));
        assert_eq!(
            value(&packed, header::CONTENT_ENCODING).as_deref(),
            Some("gzip")
        );
        assert_eq!(value(&packed, header::ETAG), value(&plain, header::ETAG));
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(body(&packed))
            .read_to_string(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, text);
    }

    #[test]
    fn a_client_that_has_the_bytes_gets_none() {
        let first = negotiated(&HeaderMap::new(), Answer::ok("text/plain", "abc"));
        let tag = value(&first, header::ETAG).unwrap();
        let known = format!("\"other\", {tag}");
        let known = HeaderMap::from_iter([(header::IF_NONE_MATCH, known.parse().unwrap())]);
        let again = negotiated(&known, Answer::ok("text/plain", "abc"));
        assert_eq!(again.status, StatusCode::NOT_MODIFIED);
        assert_eq!(body(&again), b"");
        let changed = negotiated(&known, Answer::ok("text/plain", "abd"));
        assert_eq!(changed.status, StatusCode::OK);
        let refused = Answer::text(StatusCode::BAD_REQUEST, "no");
        assert_eq!(value(&negotiated(&known, refused), header::ETAG), None);
    }
}
