//! Open Graph tags: what a chat shows of a link to a page.

use axum::http::{HeaderMap, header};
use maud::{Markup, html};

use super::Page;

/// The address under which the client reached this server, up to and including the slash after
/// `render.base_path`; nothing if the request does not say.
pub(super) fn base(headers: &HeaderMap, page: &Page) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST.as_str())?;
    let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_sound) {
        return None;
    }
    // A proxy that speaks TLS says so.
    let scheme = match text("x-forwarded-proto") {
        Some("https") => "https",
        _ => "http",
    };
    Some(format!("{scheme}://{host}{}/", page.0.host.base_path()))
}

/// The tags of a page called `title` that shows the picture at the absolute address `picture`.
pub(super) fn tags(title: &str, picture: Option<&str>) -> Markup {
    html! {
        meta property="og:title" content=(title);
        meta property="og:type" content="website";
        meta property="og:site_name" content="plumbago";
        @if let Some(picture) = picture {
            meta property="og:image" content=(picture);
            meta property="og:image:width" content="800";
            meta property="og:image:height" content="400";
            meta name="twitter:card" content="summary_large_image";
        }
    }
}
