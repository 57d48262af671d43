//! Names of series as the tables have them.
//!
//! A plain name is the same in both. `cpu;host=a b;dc=x` is `cpu?dc=x&host=a+b`: the metric is escaped like the path of
//! a URL, tags and values like the parts of its query, as carbon-clickhouse does.

use std::borrow::Cow;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// The name in the tables of the series with the canonical name `name`.
pub(crate) fn to_table(name: &str) -> Cow<'_, str> {
    if !carbon::series::is_tagged(name) {
        return Cow::Borrowed(name);
    }
    let mut parts = name.split(';');
    let mut out = String::with_capacity(name.len() + 16);
    escape(&mut out, parts.next().unwrap_or_default(), true);
    for (n, part) in parts.enumerate() {
        out.push(if n == 0 { '?' } else { '&' });
        let (tag, value) = part.split_once('=').unwrap_or((part, ""));
        escape(&mut out, tag, false);
        out.push('=');
        escape(&mut out, value, false);
    }
    Cow::Owned(out)
}

/// The name of the series that the tables have as `name`.
pub(crate) fn from_table(name: &str) -> Cow<'_, str> {
    let Some((metric, query)) = name.split_once('?') else {
        return Cow::Borrowed(name);
    };
    let mut out = unescape(metric, false);
    for pair in query.split('&') {
        let (tag, value) = pair.split_once('=').unwrap_or((pair, ""));
        out.push(';');
        out.push_str(&unescape(tag, true));
        out.push('=');
        out.push_str(&unescape(value, true));
    }
    Cow::Owned(out)
}

fn escape(out: &mut String, text: &str, is_path: bool) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b'$' | b'&' | b'+' | b',' | b'/' | b':' | b';' | b'=' | b'@' if is_path => {
                out.push(char::from(byte));
            }
            b' ' if !is_path => out.push('+'),
            byte => {
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

fn unescape(text: &str, is_query: bool) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'%' => match (digit(bytes.get(at)), digit(bytes.get(at + 1))) {
                (Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            b'+' if is_query => out.push(b' '),
            byte => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_those_of_carbon_clickhouse() {
        for (name, table) in [
            ("a.b c", "a.b c"),
            ("cpu;dc=x;host=a b", "cpu?dc=x&host=a+b"),
            ("a b?c;t=ä/=&+%", "a%20b%3Fc?t=%C3%A4%2F%3D%26%2B%25"),
            ("cpu/x:y;a=1", "cpu/x:y?a=1"),
        ] {
            assert_eq!(to_table(name), table);
            assert_eq!(from_table(table), name);
        }
    }

    proptest! {
        #[test]
        fn tagged_names_read_back(metric in "[^;]{1,10}", value in "[^;]{1,10}") {
            let name = format!("a{metric};t={value}");
            prop_assume!(!name.starts_with("_tagged."));
            let table = to_table(&name);
            prop_assert_eq!(from_table(&table), name.as_str());
        }
    }
}
