//! Pieces of statements.

use std::fmt::Write;

/// `text` as a literal.
pub fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_text(&mut out, text);
    out
}

/// Appends `text` as a literal.
pub fn push_text(out: &mut String, text: &str) {
    out.push('\'');
    for c in text.chars() {
        match c {
            '\'' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\0'..='\u{1f}' | '\u{7f}' => {
                let _ = write!(out, "\\x{:02X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('\'');
}

/// `text` as a literal for LIKE that matches itself, followed by `%`.
pub fn prefix(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped.push('%');
    self::text(&escaped)
}

/// A day as ClickHouse writes it: `toDate(19000)`.
pub fn day(days: u32) -> String {
    format!("toDate({days})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_leave_their_quotes() {
        assert_eq!(text("a'b\\c\n\0é"), r"'a\'b\\c\x0A\x00é'");
        assert_eq!(prefix("a_b%c\\"), r"'a\\_b\\%c\\\\%'");
    }
}
