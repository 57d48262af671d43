//! An HTML writer that escapes by construction: markup is a string literal of this source, all other
//! text is escaped. The type has no other way to write.

use std::fmt::Write;

/// A page being written.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Markup, known when the program was compiled.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Text from anywhere, for an element's content or a quoted attribute.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for c in text.chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // HTML forbids these characters, also as character references.
                '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\x7f' => {
                    self.0.push('\u{fffd}');
                }
                c => self.0.push(c),
            }
        }
        self
    }

    /// A number.
    pub(super) fn number(&mut self, number: impl Into<u64>) -> &mut Self {
        let _ = write!(self.0, "{}", number.into());
        self
    }

    /// The finished page.
    pub(super) fn finish(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_text_opens_a_tag_or_closes_an_attribute(text in any::<String>()) {
            let mut html = Html::default();
            html.text(&text);
            let out = html.finish();
            prop_assert!(!out.contains(['<', '>', '"', '\'', '\0']));
            let plain = out.replace("&lt;", "").replace("&gt;", "").replace("&quot;", "")
                .replace("&#39;", "").replace("&amp;", "");
            prop_assert!(!plain.contains('&'));
        }
    }
}
