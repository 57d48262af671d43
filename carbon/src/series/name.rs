//! Names of series, and the paths of their files.
//!
//! 1. Every name passes through [`canonical`] when it is first seen. Query, cache, journal and file use the
//!    result.
//! 2. A plain name has nodes separated by dots, none of them empty. A slash is a dot, because carbon stores
//!    both in the same file. A tagged name is the metric followed by `;tag=value` pairs, sorted as whole
//!    strings. If a tag is repeated, the last value wins. Leading `~` of the metric are cut, as carbon cuts
//!    them (`TaggedSeries.parse`), and in a plain name after leading dots as well: the canonical form of a
//!    canonical name is the name itself. Otherwise the series of a name would depend on the names before it.
//! 3. A name that begins with `_tagged.` is always plain: it is the path of the file of a tagged series, as
//!    graphite-web lists it.
//! 4. The path of a plain name has its nodes as directories. The path of a tagged name is below `_tagged/`
//!    and made of the SHA-256 of the name (`TaggedSeries.encode` in Graphite).

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::datapoint::NameError;

/// The start of the dotted paths of the files of tagged series.
const TAGGED: &str = "_tagged.";

/// The longest node: with `.wsp` it is a file name of 255 bytes.
const MAX_NODE: usize = 251;
/// The longest name. As a path below a root it fits into the kernel's 4,096 bytes.
pub(crate) const MAX_NAME: usize = 4_000;

/// The canonical form of `raw`, borrowed if it is `raw` itself.
///
/// # Errors
/// No file can have the name, or the tags are malformed.
pub fn canonical(raw: &[u8]) -> Result<Cow<'_, str>, NameError> {
    let text = std::str::from_utf8(raw).map_err(|_| NameError::NotUtf8)?;
    if text.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    let name = if text.starts_with(TAGGED) {
        return plain(text);
    } else if is_open_metrics(text) {
        Cow::Owned(tagged(open_metrics(text)?)?)
    } else if text.contains(';') {
        match tagged(carbon(text)?)? {
            same if same == text => Cow::Borrowed(text),
            other => Cow::Owned(other),
        }
    } else {
        untagged(text)?
    };
    // Read again, it would have another canonical form.
    if is_open_metrics(&name) && !name.starts_with(TAGGED) {
        return Err(NameError::BadTag);
    }
    Ok(name)
}

/// Whether it has the form `metric{tag="value"}`.
fn is_open_metrics(text: &str) -> bool {
    text.ends_with("\"}") && text.contains('{')
}

/// Whether `name` (canonical) carries tags.
pub fn is_tagged(name: &str) -> bool {
    memchr::memchr(b';', name.as_bytes()).is_some() && !name.starts_with(TAGGED)
}

/// The tags of a canonical name, with the metric as tag `name`, in the name's order.
pub fn tags(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut parts = name.split(';');
    let metric = parts.next().unwrap_or_default();
    std::iter::once(("name", metric.trim_start_matches('~')))
        .chain(parts.filter_map(|part| part.split_once('=')))
}

/// As [`plain`], without leading `~`. Borrowed if it is `text` itself.
fn untagged(text: &str) -> Result<Cow<'_, str>, NameError> {
    // A dot before them leaves with them: its node is empty.
    let start = text.find(|c| !matches!(c, '~' | '.' | '/'));
    match plain(&text[start.unwrap_or(text.len())..])? {
        Cow::Borrowed(cut) if cut.len() < text.len() => Ok(Cow::Owned(cut.to_owned())),
        name => Ok(name),
    }
}

/// Reads slashes as dots, removes empty nodes and checks the others.
fn plain(text: &str) -> Result<Cow<'_, str>, NameError> {
    let mut collapse = text.is_empty() || text.contains('/');
    for node in text.split(['.', '/']) {
        collapse |= node.is_empty();
        if node.len() > MAX_NODE {
            return Err(NameError::TooLong);
        }
    }
    if text.contains('\0') {
        return Err(NameError::Forbidden);
    }
    if !collapse {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = String::with_capacity(text.len());
    for node in text.split(['.', '/']).filter(|node| !node.is_empty()) {
        if !out.is_empty() {
            out.push('.');
        }
        out.push_str(node);
    }
    if out.is_empty() {
        return Err(NameError::Empty);
    }
    Ok(Cow::Owned(out))
}

/// A metric and its tags as they were written.
struct Parsed<'a> {
    metric: &'a str,
    tags: Vec<(&'a str, Cow<'a, str>)>,
}

/// `metric;tag=value;tag=value`.
fn carbon(text: &str) -> Result<Parsed<'_>, NameError> {
    let mut parts = text.split(';');
    let metric = parts.next().unwrap_or_default();
    let tags = parts
        .map(|part| part.split_once('=').ok_or(NameError::BadTag))
        .map(|pair| pair.map(|(tag, value)| (tag, Cow::Borrowed(value))))
        .collect::<Result<_, _>>()?;
    Ok(Parsed { metric, tags })
}

/// `metric{tag="value",tag="value"}` with `\"` and `\\` in values.
fn open_metrics(text: &str) -> Result<Parsed<'_>, NameError> {
    let (metric, rest) = text.split_once('{').ok_or(NameError::BadTag)?;
    let mut rest = rest.strip_suffix('}').ok_or(NameError::BadTag)?;
    let mut tags = Vec::new();
    while !rest.is_empty() {
        let (tag, quoted) = rest.split_once("=\"").ok_or(NameError::BadTag)?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next() {
                Some((at, '"')) => break at,
                Some((_, '\\')) => match chars.next() {
                    Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                    _ => return Err(NameError::BadTag),
                },
                Some((_, other)) => value.push(other),
                None => return Err(NameError::BadTag),
            }
        };
        tags.push((tag, Cow::Owned(value)));
        let after = &quoted[end + 1..];
        rest = match after.strip_prefix(',') {
            Some(more) => more,
            None if after.is_empty() => after,
            None => return Err(NameError::BadTag),
        };
    }
    Ok(Parsed { metric, tags })
}

/// Checks and prints `parsed` in canonical form.
fn tagged(parsed: Parsed<'_>) -> Result<String, NameError> {
    let Parsed { metric, mut tags } = parsed;
    let metric = metric.trim_start_matches('~');
    if metric.is_empty() {
        return Err(NameError::Empty);
    }
    if metric.contains(';') {
        return Err(NameError::BadTag);
    }
    for (tag, value) in &tags {
        if tag.is_empty()
            || value.is_empty()
            || tag.contains([';', '!', '^', '='])
            || value.contains(';')
            || value.starts_with('~')
        {
            return Err(NameError::BadTag);
        }
    }
    // A tag called `name` would hide the metric: Graphite drops it.
    tags.retain(|(tag, _)| *tag != "name");
    if tags.is_empty() {
        return untagged(metric).map(Cow::into_owned);
    }
    if metric.contains('\0') || tags.iter().any(|(_, value)| value.contains('\0')) {
        return Err(NameError::Forbidden);
    }
    // The last of several values wins: a stable sort keeps their order, the reverse finds it first.
    tags.reverse();
    tags.sort_by(|a, b| a.0.cmp(b.0));
    tags.dedup_by(|later, first| later.0 == first.0);
    let mut parts: Vec<String> = tags
        .iter()
        .map(|(tag, value)| format!("{tag}={value}"))
        .collect();
    parts.sort_unstable();
    let name = format!("{metric};{}", parts.join(";"));
    if name.len() > MAX_NAME {
        return Err(NameError::TooLong);
    }
    Ok(name)
}

/// Writes the path of `name`'s file below `root` into `path`.
pub fn file_path(root: &Path, name: &str, path: &mut PathBuf) {
    // As bytes: for each file that is written, its path is made.
    let mut text = std::mem::take(path).into_os_string().into_vec();
    text.clear();
    text.extend_from_slice(root.as_os_str().as_bytes());
    text.push(b'/');
    if is_tagged(name) {
        let hex = sha256_hex(name.as_bytes());
        for part in ["_tagged/", &hex[..3], "/", &hex[3..6], "/", &hex] {
            text.extend_from_slice(part.as_bytes());
        }
    } else {
        let nodes = text.len();
        text.extend_from_slice(name.as_bytes());
        for byte in &mut text[nodes..] {
            *byte = if *byte == b'.' { b'/' } else { *byte };
        }
    }
    text.extend_from_slice(b".wsp");
    *path = OsString::from_vec(text).into();
}

/// The SHA-256 digest of `name` as 64 hexadecimal digits.
fn sha256_hex(name: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let halves = |byte: u8| [byte >> 4, byte & 15];
    Sha256::digest(name)
        .into_iter()
        .flat_map(halves)
        .map(|half| char::from(DIGITS[usize::from(half)]))
        .collect()
}

/// The path of the file of a tagged series where hashed file names are disabled
/// (`TAG_HASH_FILENAMES = False`): the name itself with `.` as `_DOT_`.
pub fn unhashed_path(root: &Path, name: &str) -> PathBuf {
    let hex = sha256_hex(name.as_bytes());
    root.join("_tagged")
        .join(&hex[..3])
        .join(&hex[3..6])
        .join(format!("{}.wsp", name.replace('.', "_DOT_")))
}

/// The dotted path of the hashed file of a tagged series in the tree of names.
pub fn tree_path(name: &str) -> String {
    let hex = sha256_hex(name.as_bytes());
    format!("_tagged.{}.{}.{}", &hex[..3], &hex[3..6], hex)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ok(raw: &str) -> String {
        canonical(raw.as_bytes()).unwrap().into_owned()
    }

    #[test]
    fn empty_nodes_collapse() {
        assert_eq!(ok("a..b"), "a.b");
        assert_eq!(ok(".a.b."), "a.b");
        assert_eq!(ok("a"), "a");
        assert!(matches!(canonical(b"a.b"), Ok(Cow::Borrowed("a.b"))));
    }

    #[test]
    fn slashes_are_dots_and_leading_tildes_go() {
        assert_eq!(ok("a/b"), "a.b");
        assert_eq!(ok("../../etc/passwd"), "etc.passwd");
        assert_eq!(ok("a./b"), "a.b");
        assert_eq!(ok("~a"), "a");
        assert_eq!(ok("~~a~b"), "a~b");
        assert_eq!(ok(".~a"), "a");
        assert_eq!(ok("~./~.a.~b"), "a.~b");
        assert_eq!(ok(".~a;name=b"), "a");
        // Borrowed is only what was canonical.
        for raw in ["~a", "~~a.b", "~a..b"] {
            assert!(
                matches!(canonical(raw.as_bytes()), Ok(Cow::Owned(_))),
                "{raw}"
            );
        }
        assert_eq!(ok("~a;b=c"), "a;b=c");
        assert_eq!(ok("~a{b=\"c\"}"), "a;b=c");
        // A file name that holds a hash has room for slashes.
        assert_eq!(ok("a/b;c=/d"), "a/b;c=/d");
    }

    #[test]
    fn names_without_a_file_are_refused() {
        for (raw, why) in [
            (&b""[..], NameError::Empty),
            (b"...", NameError::Empty),
            (b"/./", NameError::Empty),
            (b"~", NameError::Empty),
            (b".~", NameError::Empty),
            (b"~~;a=b", NameError::Empty),
            (b"a\0b", NameError::Forbidden),
            (b"a\xffb", NameError::NotUtf8),
            (b"a;b", NameError::BadTag),
            (b"a;b=", NameError::BadTag),
            (b"a;=b", NameError::BadTag),
            (b"a;b=c;", NameError::BadTag),
            (b"x{only=\"v\"}..", NameError::BadTag),
            (b";{a=\"b\"}", NameError::BadTag),
            (b"x{a=\"{\\\"}\"}", NameError::BadTag),
            (b"a;b!=c", NameError::BadTag),
            (b"a;b^=c", NameError::BadTag),
            (b"a;b=~c", NameError::BadTag),
            (b";a=b", NameError::Empty),
            (b"a{b=\"c\"x=\"d\"}", NameError::BadTag),
        ] {
            assert_eq!(canonical(raw), Err(why), "{}", raw.escape_ascii());
        }
        assert_eq!(canonical(&[b'a'; 252]), Err(NameError::TooLong));
        assert!(canonical(&[b'a'; 251]).is_ok());
        assert_eq!(
            canonical("a.".repeat(2_001).as_bytes()),
            Err(NameError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn a_canonical_name_is_its_own_canonical_form(
            metric in "(_tagged)?[a.~/;=_]{0,8}",
            tags in "(;[an~]a?(me)?=[a.~/]{0,3}){0,2}|\\{a=\"[a.~;{}]{0,4}\"\\}|\\{\\}",
        ) {
            if let Ok(name) = canonical([metric, tags].concat().as_bytes()) {
                prop_assert_eq!(canonical(name.as_bytes()), Ok(Cow::Borrowed(&*name)));
            }
        }
    }

    #[test]
    fn tags_sort_and_the_last_value_wins() {
        assert_eq!(ok("p;b=2;a=1"), "p;a=1;b=2");
        assert_eq!(ok("p{b=\"2\",a=\"1\"}"), "p;a=1;b=2");
        assert_eq!(ok("p;s=b;s=c"), "p;s=c");
        assert_eq!(ok("p;name=other"), "p");
        assert_eq!(ok("x{only=\"a\\\"b\"}"), "x;only=a\"b");
        assert_eq!(ok("x{only=v}"), "x{only=v}");
        assert_eq!(
            tags("~p;a=1;b=2=3").collect::<Vec<_>>(),
            [("name", "p"), ("a", "1"), ("b", "2=3")]
        );
    }

    #[test]
    fn files_lie_where_graphite_puts_them() {
        let mut path = PathBuf::new();
        file_path(Path::new("/w"), "a.b.c", &mut path);
        assert_eq!(path, Path::new("/w/a/b/c.wsp"));
        let name = "some.metric;tag1=value2;tag2=value.2";
        file_path(Path::new("/w"), name, &mut path);
        assert_eq!(
            path,
            Path::new(
                "/w/_tagged/eff/aae/effaae5b55950b150a7493d2f5430772ca2460bf7cccb4d9e523643df54c010f.wsp"
            )
        );
        assert_eq!(
            unhashed_path(Path::new("/w"), name),
            Path::new("/w/_tagged/eff/aae/some_DOT_metric;tag1=value2;tag2=value_DOT_2.wsp")
        );
    }
}
