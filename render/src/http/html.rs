//! Pages of HTML. Their markup is written with `maud::html!`, which escapes every text that is not
//! a literal of this source.

use maud::Markup;

/// The content type of a page.
pub(super) const CONTENT_TYPE: &str = "text/html; charset=utf-8";

/// A page as it is sent. HTML forbids control characters, also as character references: a
/// replacement character takes their place.
pub(super) fn finish(page: Markup) -> String {
    let mut text = page.into_string();
    // It grew by doubling, and is held until it is sent.
    text.shrink_to_fit();
    let is_forbidden = |c: char| c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r');
    if text.contains(is_forbidden) {
        return text.replace(is_forbidden, "\u{fffd}");
    }
    text
}

#[cfg(test)]
mod tests {
    use maud::html;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_opens_a_tag_or_closes_an_attribute(text in any::<String>()) {
            let page = finish(html! { p title=(text) { (text) } });
            let page = page.strip_prefix("<p title=\"").unwrap().strip_suffix("</p>").unwrap();
            let (title, content) = page.split_once("\">").unwrap();
            prop_assert_eq!(title, content);
            prop_assert!(!title.contains(['<', '>', '"', '\0']));
            let plain = title.replace("&lt;", "").replace("&gt;", "").replace("&quot;", "")
                .replace("&amp;", "");
            prop_assert!(!plain.contains('&'));
        }
    }
}
