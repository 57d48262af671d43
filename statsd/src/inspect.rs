//! Values in JavaScript's notation, as the management interface and the console output show them.
//!
//! As Node's `util.inspect`: keys are quoted only where they must be, lists are cut after 100
//! items, what fits on a line of 72 characters stands on one.

use std::fmt::Write as _;

use crate::number;

/// Something to be shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shown {
    Number(f64),
    List(Vec<Shown>),
    Object(Vec<(String, Shown)>),
}

const WIDTH: usize = 72;
const ITEMS: usize = 100;

impl Shown {
    /// The text, without a final line feed.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        self.print(0, &mut out);
        out
    }

    fn print(&self, indent: usize, out: &mut String) {
        let parts: Vec<String> = match self {
            Self::Number(number) => {
                out.push_str(&number::text(*number));
                return;
            }
            Self::List(items) => {
                let cut = items.len().saturating_sub(ITEMS);
                items
                    .iter()
                    .take(ITEMS)
                    .map(|item| item.nested(indent))
                    .chain((cut > 0).then(|| {
                        let s = if cut == 1 { "" } else { "s" };
                        format!("... {cut} more item{s}")
                    }))
                    .collect()
            }
            Self::Object(fields) => fields
                .iter()
                .map(|(key, value)| format!("{}: {}", quoted(key), value.nested(indent)))
                .collect(),
        };
        let (open, close) = match self {
            Self::List(_) => ('[', ']'),
            _ => ('{', '}'),
        };
        if parts.is_empty() {
            let _ = write!(out, "{open}{close}");
            return;
        }
        let width: usize = parts.iter().map(|part| part.len() + 2).sum();
        if width <= WIDTH && !parts.iter().any(|part| part.contains('\n')) {
            let _ = write!(out, "{open} {} {close}", parts.join(", "));
            return;
        }
        let pad = " ".repeat(indent + 2);
        let _ = write!(
            out,
            "{open}\n{pad}{}\n{}{close}",
            parts.join(&format!(",\n{pad}")),
            " ".repeat(indent)
        );
    }

    fn nested(&self, indent: usize) -> String {
        let mut out = String::new();
        self.print(indent + 2, &mut out);
        out
    }
}

fn quoted(key: &str) -> String {
    let mut bytes = key.bytes();
    let plain = bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || matches!(first, b'_' | b'$'))
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$'));
    if plain {
        key.to_owned()
    } else {
        format!("'{}'", key.replace('\\', "\\\\").replace('\'', "\\'"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_like_node() {
        let counter = |name: &str, value| (name.to_owned(), Shown::Number(value));
        let object = Shown::Object(vec![counter("a", 1.0), counter("b.c", 0.5)]);
        assert_eq!(object.text(), "{ a: 1, 'b.c': 0.5 }");
        assert_eq!(Shown::Object(Vec::new()).text(), "{}");
        let list = Shown::List((0..150).map(|n| Shown::Number(f64::from(n))).collect());
        assert!(list.text().ends_with("99,\n  ... 50 more items\n]"));
        let nested = Shown::Object(vec![(
            "t".to_owned(),
            Shown::List(vec![Shown::Number(3.0)]),
        )]);
        assert_eq!(nested.text(), "{ t: [ 3 ] }");
        let wide = Shown::Object((0..20).map(|n| counter(&format!("k{n}"), 1.0)).collect());
        assert!(wide.text().starts_with("{\n  k0: 1,\n  k1: 1,\n"));
    }
}
