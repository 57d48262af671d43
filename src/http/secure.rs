//! Security headers on every answer.
//!
//! 1. Browsers must use the declared content type (`nosniff`), send no referrer to other sites, and
//!    show only pictures inside pages of other sites.
//! 2. Pictures may be embedded anywhere, for example in wikis. `Cross-Origin-Resource-Policy` is not
//!    sent, so that `<img>` and scripts with `jsonp` work on every site that can reach the server.
//! 3. HTML loads and runs resources of this server only; a page with a stricter policy keeps it.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

/// Headers that an answer gets unless it sets them itself; pictures get no `X-Frame-Options`.
pub(super) const HEADERS: &[(HeaderName, &str)] = &[
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
];

/// The policy of HTML without a policy of its own.
const HTML_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

/// Adds the missing headers.
pub(crate) async fn headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map(|kind| kind.as_bytes().to_ascii_lowercase())
        .unwrap_or_default();
    let is_picture = kind.starts_with(b"image/");
    for (name, value) in HEADERS {
        if !(is_picture && name == header::X_FRAME_OPTIONS) {
            let entry = headers.entry(name);
            entry.or_insert(HeaderValue::from_static(value));
        }
    }
    if kind.starts_with(b"text/html") {
        let entry = headers.entry(header::CONTENT_SECURITY_POLICY);
        entry.or_insert(HeaderValue::from_static(HTML_POLICY));
    }
    response
}
