//! The files that pages load: styles, scripts, the icon.
//!
//! Their path holds a digest of all of them, so that browsers keep them until a new version of the
//! program brings other ones. A path with another digest, from a page of an older version, gets the
//! present file, to be kept for no time.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};

use crate::http::Answer;
use crate::http::negotiate::{negotiated, tag};

/// Name, content type and text of each file.
const FILES: &[(&str, &str, &str)] = &[
    (
        "app.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/app.js"),
    ),
    (
        "card.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/card.js"),
    ),
    (
        "events.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/events.js"),
    ),
    (
        "explore.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/explore.js"),
    ),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    (
        "keys.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/keys.js"),
    ),
    (
        "live.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/live.js"),
    ),
    (
        "panels.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/panels.js"),
    ),
    (
        "scene.js",
        "text/javascript; charset=utf-8",
        include_str!("assets/scene.js"),
    ),
    (
        "style.css",
        "text/css; charset=utf-8",
        include_str!("assets/style.css"),
    ),
];

/// The names of the scripts.
pub(super) fn modules() -> impl Iterator<Item = &'static str> {
    let names = FILES.iter().map(|(name, _, _)| *name);
    names.filter(|name| name.ends_with(".js"))
}

/// The digest of all files.
pub(super) static VERSION: LazyLock<String> = LazyLock::new(|| {
    let all: String = FILES.iter().map(|(_, _, text)| *text).collect();
    let hex = tag(all.as_bytes());
    hex.chars()
        .filter(char::is_ascii_hexdigit)
        .take(12)
        .collect()
});

/// The path of the file `name`, seen from the page that reaches `/` by `up`.
pub(super) fn path(up: &str, name: &str) -> String {
    format!("{up}page/{}/{name}", *VERSION)
}

pub(super) async fn file(
    Path((version, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answer {
    let Some((_, content_type, text)) = FILES.iter().find(|(known, _, _)| *known == name) else {
        return Answer::error(StatusCode::NOT_FOUND, "there is no such file");
    };
    let kept = match version == *VERSION {
        true => "max-age=31536000, immutable",
        false => "no-cache",
    };
    negotiated(&headers, Answer::ok(content_type, *text)).with(header::CACHE_CONTROL, kept)
}

/// The icon under the path that browsers ask for by themselves.
pub(super) async fn icon(headers: HeaderMap) -> Answer {
    let icon = include_str!("assets/icon.svg");
    negotiated(&headers, Answer::ok("image/svg+xml", icon))
        .with(header::CACHE_CONTROL, "max-age=86400")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_kept_by_their_digest() {
        let ask = |version: &str, name: &str| {
            file(
                Path((version.to_owned(), name.to_owned())),
                HeaderMap::new(),
            )
        };
        let kept = |answer: &Answer| {
            let mut headers = answer.headers.iter();
            let found = headers.find(|(name, _)| *name == header::CACHE_CONTROL);
            found.map(|(_, value)| value.to_str().unwrap_or_default().to_owned())
        };
        let present = ask(&VERSION, "app.js").await;
        assert_eq!(
            kept(&present).as_deref(),
            Some("max-age=31536000, immutable")
        );
        assert_eq!(
            kept(&ask("0123", "app.js").await).as_deref(),
            Some("no-cache")
        );
        assert_eq!(
            ask(&VERSION, "../mod.rs").await.status,
            StatusCode::NOT_FOUND
        );
    }

    #[test]
    fn all_files_together_are_small() {
        let bytes: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(bytes < 150_000, "{bytes} bytes");
    }
}
