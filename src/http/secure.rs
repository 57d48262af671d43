//! Headers that every answer has, whatever made it.
//!
//! 1. No answer is taken for another type than it says (`nosniff`), none tells other sites where
//!    its reader came from, and none but pictures is shown inside the page of another site.
//! 2. Pictures may be shown anywhere: graphs stand in wikis. No `Cross-Origin-Resource-Policy` is
//!    sent, so that `<img>` and scripts with `jsonp` work from every site that may reach us.
//! 3. HTML runs and loads nothing from elsewhere; a page that says more strictly what it needs
//!    keeps its own policy.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::Response;

/// On everything that is no picture, unless the answer says otherwise.
pub(super) const HEADERS: &[(HeaderName, &str)] = &[
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
];

/// What HTML may load unless it says so itself.
const HTML_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

/// Adds what is missing.
pub(super) async fn headers(mut response: Response) -> Response {
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
