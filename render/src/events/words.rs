//! From a tag text to the words by which an event is found.
//!
//! Graphite keeps an event's tags as one text and reads it in two ways: it *shows* the text split
//! at blanks, and *finds* by the words that django-tagging makes of it. Those differ as soon as a
//! comma or a quote is involved: `a,b c` is shown as `a,b` and `c`, and found by `a` and `b c`.
//! Ours find by what is shown, and by the pieces between its commas. Hence each word that an event
//! is filed under says for whom it counts.

use std::collections::BTreeMap;

/// A word counts for our own expressions.
pub(super) const OURS: u8 = 1;
/// A word counts where Graphite's rules are asked for.
pub(super) const GRAPHITES: u8 = 2;

/// The words that `tags` are filed under, each with the rules ([`OURS`], [`GRAPHITES`]) it
/// counts for.
pub(super) fn filed_under(tags: &[String]) -> BTreeMap<String, u8> {
    let mut words = BTreeMap::new();
    for word in ours(tags) {
        *words.entry(word.to_owned()).or_default() |= OURS;
    }
    for word in graphites(&tags.join(" ")) {
        *words.entry(word).or_default() |= GRAPHITES;
    }
    words
}

/// The words that count for our own expressions: each tag, and its pieces if it holds commas.
pub(super) fn ours(tags: &[String]) -> impl Iterator<Item = &str> {
    tags.iter().flat_map(|tag| {
        let whole = tag.contains(',').then_some(tag.as_str());
        whole
            .into_iter()
            .chain(tag.split(',').filter(|piece| !piece.is_empty()))
    })
}

/// The words that django-tagging makes of a tag text: split at blanks, or at commas as soon as one
/// stands outside double quotes; what is quoted is one word. A quote that never closes counts as
/// plain text without its quote.
fn graphites(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut loose: Vec<&str> = Vec::new();
    let mut comma = false;
    let mut rest = text;
    while !rest.is_empty() {
        let Some(open) = rest.find('"') else {
            comma |= rest.contains(',');
            loose.push(rest);
            break;
        };
        comma |= rest[..open].contains(',');
        loose.push(&rest[..open]);
        let inside = &rest[open + 1..];
        match inside.find('"') {
            Some(close) => {
                words.push(inside[..close].trim().to_owned());
                rest = &inside[close + 1..];
            }
            None => {
                comma |= inside.contains(',');
                loose.push(inside);
                break;
            }
        }
    }
    let delimiter = if comma { ',' } else { ' ' };
    for chunk in loose {
        words.extend(chunk.split(delimiter).map(|word| word.trim().to_owned()));
    }
    words.retain(|word| !word.is_empty());
    words.sort_unstable();
    words.dedup();
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn django_tagging_splits_like_this() {
        for (text, words) in [
            ("", &[][..]),
            ("deploy web deploy", &["deploy", "web"]),
            ("a,comma", &["a", "comma"]),
            ("a,b c", &["a", "b c"]),
            ("\"two words\" x", &["two words", "x"]),
            ("\"two, words\" x y", &["two, words", "x", "y"]),
            ("one \"open, never closed", &["one", "open", "never closed"]),
            ("\"\" , ", &[]),
            ("a\"b\"c", &["a", "b", "c"]),
        ] {
            let mut wanted: Vec<&str> = words.to_vec();
            wanted.sort_unstable();
            assert_eq!(graphites(text), wanted, "{text}");
        }
    }

    #[test]
    fn words_say_for_whom_they_count() {
        let words = filed_under(&["a,b".to_owned(), "c".to_owned()]);
        assert_eq!(words["a"], OURS | GRAPHITES);
        assert_eq!(words["a,b"], OURS);
        assert_eq!(words["b c"], GRAPHITES);
        assert_eq!(words["c"], OURS);
    }
}
