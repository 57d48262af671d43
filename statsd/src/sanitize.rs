//! From the name as sent to the one canonical name of the series.
//!
//! 1. Five notations of tags are read: DogStatsD `name|#k:v`, Graphite `name;k=v`, InfluxDB
//!    `name,k=v`, SignalFx `name[k=v]` and Librato `name#k=v`. One notation inside the name, and
//!    DogStatsD's beside it.
//! 2. The canonical form is Graphite's with sorted, unique tags: `name;a=1;b=2`. The last of
//!    several equal keys wins. A bare tag `x` is `x=true`; a tag without a key or a value is left
//!    out, and so is `name`, which Graphite keeps for itself.
//! 3. Sanitising is the reference's: blanks become `_`, `/` becomes `-`, what is not
//!    `[A-Za-z0-9_.=-]` goes. It runs after the tags are taken apart, so that it cannot glue a
//!    tag's text to a name.
//! 4. This runs once per way to write a name, when the table first sees it.

use crate::metric::Reject;
use crate::number;

/// What stands between a name and its DogStatsD tags in a table's key.
pub(crate) const TAGS: &[u8] = b"|#";

/// Appends the canonical form of `raw` (`name` or `name|#tags`) to `out`.
///
/// # Errors
/// [`Reject::EmptyName`] if nothing is left of the name; `out` is then as it was.
pub(crate) fn canonical(raw: &[u8], sanitize: bool, out: &mut Vec<u8>) -> Result<(), Reject> {
    if raw.is_empty() {
        return Err(Reject::EmptyName);
    }
    // Most names are canonical already.
    if raw.iter().all(|byte| is_plain(*byte)) {
        out.extend_from_slice(raw);
        return Ok(());
    }
    let (named, dog) = match memchr::memmem::find(raw, TAGS) {
        Some(at) => (&raw[..at], &raw[at + TAGS.len()..]),
        None => (raw, &[][..]),
    };
    let notation = Notation::of(named);
    // The name is cleaned apart from its tags, so that neither can become part of the other.
    let start = out.len();
    for part in [notation.name, notation.rest] {
        clean(part, true, out);
    }
    if out.len() == start {
        return Err(Reject::EmptyName);
    }
    // Tags of both notations are one list, in which the last of equal keys wins.
    let mut tags: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let pairs = notation
        .tags
        .split(|byte| *byte == notation.separator)
        .map(|tag| cut(tag, b'='))
        .chain(dog.split(|byte| *byte == b',').map(|tag| cut(tag, b':')));
    for (key, value) in pairs {
        let (mut clean_key, mut clean_value) = (Vec::new(), Vec::new());
        clean_tag(key, sanitize, &mut clean_key);
        clean_tag(value.unwrap_or(b"true"), sanitize, &mut clean_value);
        // Graphite refuses these characters in a key, and a value that begins with `~`.
        clean_key.retain(|byte| !matches!(byte, b'=' | b'!' | b'^'));
        let leading = clean_value.iter().take_while(|byte| **byte == b'~').count();
        clean_value.drain(..leading);
        if clean_key.is_empty() || clean_value.is_empty() || clean_key == b"name" {
            continue;
        }
        tags.push((clean_key, clean_value));
    }
    // The sort keeps equal keys in their order.
    tags.sort_by(|a, b| a.0.cmp(&b.0));
    let mut tags = tags.iter().peekable();
    while let Some((key, value)) = tags.next() {
        if tags.peek().is_some_and(|(next, _)| next == key) {
            continue;
        }
        out.push(b';');
        out.extend_from_slice(key);
        out.push(b'=');
        out.extend_from_slice(value);
    }
    Ok(())
}

/// A name with the tags inside it taken apart.
struct Notation<'a> {
    name: &'a [u8],
    /// What follows the tags: SignalFx allows them amid the name.
    rest: &'a [u8],
    tags: &'a [u8],
    separator: u8,
}

impl<'a> Notation<'a> {
    fn of(raw: &'a [u8]) -> Self {
        let untagged = Self {
            name: raw,
            rest: b"",
            tags: b"",
            separator: b';',
        };
        let after = |at: usize, separator| Self {
            name: &raw[..at],
            rest: b"",
            tags: &raw[at + 1..],
            separator,
        };
        if let Some(at) = memchr::memchr(b';', raw) {
            return after(at, b';');
        }
        if let Some(at) = memchr::memchr(b'#', raw)
            && all_pairs(&raw[at + 1..])
        {
            return after(at, b',');
        }
        if let Some(open) = memchr::memchr(b'[', raw)
            && let Some(length) = memchr::memchr(b']', &raw[open..])
            && all_pairs(&raw[open + 1..open + length])
        {
            return Self {
                name: &raw[..open],
                rest: &raw[open + length + 1..],
                tags: &raw[open + 1..open + length],
                separator: b',',
            };
        }
        if let Some(at) = memchr::memchr(b',', raw)
            && all_pairs(&raw[at + 1..])
        {
            return after(at, b',');
        }
        untagged
    }
}

/// Whether `text` is `k=v,k=v`. Names with a stray `,`, `#` or `[` are not tagged.
fn all_pairs(text: &[u8]) -> bool {
    text.split(|byte| *byte == b',')
        .all(|pair| matches!(cut(pair, b'='), (key, Some(_)) if !key.is_empty()))
}

fn cut(text: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(at, text) {
        Some(found) => (&text[..found], Some(&text[found + 1..])),
        None => (text, None),
    }
}

/// Whether `byte` means the same in the name as sent and in the canonical one.
pub(crate) fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'=')
}

/// Appends `text` sanitised; `strict` removes all that is not plain, otherwise only what would
/// end a line, a name or a tag.
fn clean(text: &[u8], strict: bool, out: &mut Vec<u8>) {
    let mut blank = false;
    for letter in String::from_utf8_lossy(text).chars() {
        let was_blank = std::mem::replace(&mut blank, number::is_blank(letter));
        match letter {
            _ if blank && was_blank => {}
            _ if blank => out.push(b'_'),
            '/' if strict => out.push(b'-'),
            _ if letter.is_ascii() && is_plain(letter as u8) => out.push(letter as u8),
            _ if strict || letter.is_ascii_control() => {}
            _ => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

fn clean_tag(text: &[u8], sanitize: bool, out: &mut Vec<u8>) {
    if sanitize {
        clean(text, true, out);
        return;
    }
    // Tags as sent, but valid UTF-8 and without what would end the tag or the line.
    let start = out.len();
    clean(text, false, out);
    for byte in out[start..].iter_mut().filter(|byte| **byte == b';') {
        *byte = b'_';
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(raw: &str, sanitize: bool) -> String {
        let mut out = Vec::new();
        match canonical(raw.as_bytes(), sanitize, &mut out) {
            Ok(()) => String::from_utf8(out).unwrap(),
            Err(reject) => format!("{reject:?}"),
        }
    }

    #[test]
    fn five_notations_are_one_series() {
        for raw in [
            "hits|#host:a,env:prod",
            "hits;host=a;env=prod",
            "hits,host=a,env=prod",
            "hits[host=a,env=prod]",
            "hi[host=a,env=prod]ts",
            "hits#host=a,env=prod",
            "hits;host=b|#env:prod,host:a",
            "hits|#env:dev,host:a,env:prod",
        ] {
            assert_eq!(named(raw, true), "hits;env=prod;host=a", "{raw}");
        }
    }

    #[test]
    fn odd_tags() {
        for (raw, expected) in [
            ("x|#", "x"),
            ("x|#canary", "x;canary=true"),
            ("x|#:", "x"),
            ("x|#a:", "x"),
            ("x|#:b", "x"),
            ("x|#name:b", "x"),
            ("x|#url:http://h:1/p", "x;url=http--h1-p"),
            ("x|#v:~1", "x;v=1"),
            ("x;a=b=c", "x;a=b=c"),
            ("x;a", "x;a=true"),
            ("x,y", "xy"),
            ("x[y]", "xy"),
            ("x#y", "xy"),
            ("x[a=1", "xa=1"),
            (";a=b", "EmptyName"),
            ("!!!", "EmptyName"),
            ("", "EmptyName"),
        ] {
            assert_eq!(named(raw, true), expected, "{raw}");
        }
        assert_eq!(named("a b|#k:v w/\u{fc};x", false), "a_b;k=v_w/\u{fc}_x");
        assert_eq!(named("\u{fc}x|#k:@", false), "x;k=@");
    }

    #[test]
    fn sanitising_is_the_references() {
        for (raw, expected) in [
            ("a b/c", "a_b-c"),
            ("a  \tb", "a_b"),
            ("weird!@$%^&*()[]{}chars", "weirdchars"),
            ("\u{fc}n\u{ef}", "n"),
            ("a\u{a0}\u{2003} b", "a_b"),
            ("\u{feff}a\u{3000}", "_a_"),
            ("a \0 b", "a__b"),
            ("a..b", "a..b"),
            (".lead", ".lead"),
            ("trail.", "trail."),
            ("a=b", "a=b"),
        ] {
            assert_eq!(named(raw, true), expected, "{raw}");
        }
    }

    /// The tags of `text`, each looked for among those before it.
    fn naive_tags(text: &str) -> String {
        let mut tags: Vec<(&str, String)> = Vec::new();
        for tag in text.split(',') {
            let (key, value) = tag.split_once(':').unwrap_or((tag, "true"));
            let value = value.replace(':', "");
            if key.is_empty() || value.is_empty() || key == "name" {
                continue;
            }
            match tags.iter_mut().find(|(known, _)| *known == key) {
                Some(known) => known.1 = value,
                None => tags.push((key, value)),
            }
        }
        tags.sort_unstable();
        let tags = tags.iter().map(|(key, value)| format!(";{key}={value}"));
        tags.collect()
    }

    /// About as many as the longest name has room for.
    #[test]
    fn very_many_tags_are_told_apart() {
        let pair = |n: u32| format!("{n:04x}");
        let tags: Vec<String> = (0..13_000).map(|n| pair(n % 12_900)).collect();
        let name = named(&format!("x|#{}", tags.join(",")), true);
        assert_eq!(name.matches(';').count(), 12_900);
        assert!(name.starts_with("x;0000=true;0001=true;"), "{name:.60}");
    }

    proptest! {
        #[test]
        fn tags_are_those_of_the_naive_twin(text in "([abn]|name|[a-c]{0,2}:[x-z]{0,2}|:|,){0,40}") {
            prop_assert_eq!(named(&format!("x|#{text}"), true), format!("x{}", naive_tags(&text)));
        }

        #[test]
        fn canonical_names_stay_as_they_are(raw in "[ -~]{0,40}", sanitize: bool) {
            let once = named(&raw, sanitize);
            if !once.starts_with("EmptyName") {
                prop_assert_eq!(named(&once, sanitize), once);
            }
        }
    }
}
