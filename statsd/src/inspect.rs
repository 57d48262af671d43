//! Values in JavaScript's notation, as the management interface and the console output show them.
//!
//! The layout is that of Node's `util.inspect`, which the reference prints with:
//!
//! 1. Members that are array indices come first in an object, by number; the others as they came.
//! 2. Keys are quoted only where they must be.
//! 3. What fits into 80 columns, with 10 to spare, stands on one line unless more than three levels
//!    are open below it. Lists of more than six items are set in columns.
//! 4. Lists are cut after 100 items. Objects below [`Style::depth`] are only named.

use std::fmt::Write as _;

use crate::number;

/// Something to be shown.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shown {
    Number(f64),
    Text(String),
    /// Items, and how many there are beyond them.
    List(Vec<Shown>, usize),
    Object(Vec<(String, Shown)>),
}

/// How it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// Levels that are shown below the first.
    pub(crate) depth: usize,
    /// Whether numbers and texts have the terminal's colours.
    pub(crate) is_coloured: bool,
}

/// The default of `util.inspect`.
pub(crate) const PLAIN: Style = Style {
    depth: 2,
    is_coloured: false,
};

const WIDTH: usize = 80;
const SPARE: usize = 10;
/// Levels that may stand on one line.
const COMPACT: usize = 3;
/// Items of a list that are shown.
pub(crate) const ITEMS: usize = 100;
/// Items above which a list is set in columns.
const FEW: usize = 6;

/// A piece of text and the columns that it takes.
struct Piece {
    text: String,
    width: usize,
}

impl Piece {
    fn plain(text: String) -> Self {
        let width = text.chars().count();
        Self { text, width }
    }

    fn coloured(text: String, style: Style, code: u8, end: u8) -> Self {
        let piece = Self::plain(text);
        if !style.is_coloured {
            return piece;
        }
        Self {
            text: format!("\u{1b}[{code}m{}\u{1b}[{end}m", piece.text),
            ..piece
        }
    }

    fn text(text: &str, style: Style) -> Self {
        Self::coloured(quoted(text), style, 32, 39)
    }
}

impl Shown {
    /// An object of `fields`, in the order in which JavaScript has them.
    pub(crate) fn object(mut fields: Vec<(String, Self)>) -> Self {
        let index = |(key, _): &(String, Self)| array_index(key).unwrap_or(u32::MAX);
        fields.sort_by_key(index);
        Self::Object(fields)
    }

    /// The text, without a final line feed.
    pub(crate) fn text(&self, style: Style) -> String {
        self.piece(style, 0, 0).0.text
    }

    /// The text at that indentation, `level` levels down; and how many levels there are in it,
    /// below its last member.
    fn piece(&self, style: Style, indent: usize, level: usize) -> (Piece, usize) {
        let (is_list, is_empty) = match self {
            Self::Number(number) => {
                let text = match *number {
                    number if number == 0.0 && number.is_sign_negative() => "-0".to_owned(),
                    number => number::text(number),
                };
                return (Piece::coloured(text, style, 33, 39), 0);
            }
            Self::Text(text) => return (Piece::text(text, style), 0),
            Self::List(items, more) => (true, items.is_empty() && *more == 0),
            Self::Object(fields) => (false, fields.is_empty()),
        };
        let (open, close) = if is_list { ('[', ']') } else { ('{', '}') };
        if is_empty {
            return (Piece::plain(format!("{open}{close}")), 0);
        }
        if level > style.depth {
            let name = if is_list { "[Array]" } else { "[Object]" };
            return (Piece::coloured(name.to_owned(), style, 36, 39), 0);
        }
        // Members first: how they are set depends on how wide they are.
        let mut pieces = Vec::new();
        let mut below = 0;
        let mut add = |key: Option<&str>, value: &Self| {
            let (piece, levels) = value.piece(style, indent + 2, level + 1);
            if levels > 0 {
                below = levels;
            }
            pieces.push(match key {
                None => piece,
                Some(key) => {
                    let key = if is_identifier(key) {
                        Piece::plain(key.to_owned())
                    } else {
                        Piece::text(key, style)
                    };
                    Piece {
                        text: format!("{}: {}", key.text, piece.text),
                        width: key.width + 2 + piece.width,
                    }
                }
            });
        };
        match self {
            Self::Object(fields) => fields.iter().for_each(|(key, value)| add(Some(key), value)),
            Self::List(items, _) => items.iter().take(ITEMS).for_each(|item| add(None, item)),
            _ => {}
        }
        // Long lists are set in columns if that makes fewer lines.
        let mut is_grouped = false;
        if let Self::List(items, more) = self {
            let more = items.len().saturating_sub(ITEMS) + more;
            let numbers = items.iter().all(|item| matches!(item, Self::Number(_)));
            if pieces.len() + usize::from(more > 0) > FEW
                && let Some(lines) = columns(&pieces, more > 0, indent, numbers)
            {
                is_grouped = lines.len() != pieces.len();
                pieces = lines;
            }
            if more > 0 {
                let s = if more == 1 { "" } else { "s" };
                pieces.push(Piece::plain(format!("... {more} more item{s}")));
            }
        }
        let on_one_line = !is_grouped && below < COMPACT;
        (
            joined(&pieces, (open, close), indent, on_one_line),
            below + 1,
        )
    }
}

/// Puts `pieces` between brackets: on one line if that is allowed and they fit, else on a line each.
fn joined(
    pieces: &[Piece],
    (open, close): (char, char),
    indent: usize,
    on_one_line: bool,
) -> Piece {
    let used = 2 * pieces.len() + indent + 1 + SPARE;
    let width: usize = pieces.iter().map(|piece| piece.width).sum();
    let texts: Vec<&str> = pieces.iter().map(|piece| &*piece.text).collect();
    let fits = used + width <= WIDTH && !texts.iter().any(|text| text.contains('\n'));
    let text = if on_one_line && fits {
        format!("{open} {} {close}", texts.join(", "))
    } else {
        let pad = " ".repeat(indent + 2);
        let end = " ".repeat(indent);
        let texts = texts.join(&format!(",\n{pad}"));
        format!("{open}\n{pad}{texts}\n{end}{close}")
    };
    let width = width + 2 * pieces.len() + 2;
    Piece { text, width }
}

/// Sets `pieces` in columns, about twice as many as there are lines; `None` if that does not pay.
/// Numbers stand to the right of their columns.
fn columns(pieces: &[Piece], is_cut: bool, indent: usize, numbers: bool) -> Option<Vec<Piece>> {
    let widths = || pieces.iter().map(|piece| piece.width);
    let total: usize = widths().map(|width| width + 2).sum();
    let widest = widths().max()?;
    let most = widest + 2;
    if most * 3 + indent >= WIDTH || (total as f64 / most as f64 <= 5.0 && widest > 6) {
        return None;
    }
    // The number of columns aims at a block about 2.5 times as wide as it is high, as Node's does.
    let shown = pieces.len() + usize::from(is_cut);
    let spread = (most as f64 - total as f64 / shown as f64).sqrt();
    let biased = (most as f64 - 3.0 - spread).max(1.0);
    let wanted = ((2.5 * biased * pieces.len() as f64).sqrt() / biased).round() as usize;
    let count = wanted.min((WIDTH - indent) / most).min(4 * COMPACT).min(15);
    if count <= 1 {
        return None;
    }
    let column = |at: usize| {
        pieces
            .iter()
            .skip(at)
            .step_by(count)
            .map(|piece| piece.width)
    };
    let room: Vec<usize> = (0..count).map(|at| column(at).max().unwrap_or(0)).collect();
    let lines = pieces.chunks(count).map(|items| {
        let mut line = Piece::plain(String::new());
        for (at, piece) in items.iter().enumerate() {
            let is_last = at + 1 == items.len();
            let pad = " ".repeat(room[at] - piece.width);
            let comma = if is_last { "" } else { ", " };
            let (before, after) = match numbers {
                true => (&*pad, ""),
                false if is_last => ("", ""),
                false => ("", &*pad),
            };
            line.text += &format!("{before}{}{comma}{after}", piece.text);
            line.width += before.len() + piece.width + comma.len() + after.len();
        }
        line
    });
    Some(lines.collect())
}

/// The number that `key` is, if it can be an array's index.
fn array_index(key: &str) -> Option<u32> {
    let is_canonical = key == "0" || !key.starts_with('0');
    let number = key.bytes().all(|byte| byte.is_ascii_digit()) && is_canonical;
    key.parse()
        .ok()
        .filter(|index| number && *index != u32::MAX)
}

fn is_identifier(key: &str) -> bool {
    let mut bytes = key.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `text` in quotes: single ones unless that means to escape one.
fn quoted(text: &str) -> String {
    let quote = ['\'', '"', '`']
        .into_iter()
        .find(|quote| !text.contains(*quote))
        .unwrap_or('\'');
    let mut out = String::from(quote);
    for letter in text.chars() {
        match letter {
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\\' => out.push_str("\\\\"),
            _ if letter == quote => {
                out.push('\\');
                out.push(letter);
            }
            _ if letter.is_control() => {
                let _ = write!(out, "\\x{:02X}", letter as u32);
            }
            _ => out.push(letter),
        }
    }
    out.push(quote);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: f64) -> Shown {
        Shown::Number(value)
    }

    fn object(fields: &[(&str, Shown)]) -> Shown {
        let fields = fields.iter();
        Shown::object(
            fields
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect(),
        )
    }

    fn list(values: impl Iterator<Item = f64>) -> Shown {
        Shown::List(values.map(number).collect(), 0)
    }

    /// All expectations are what Node 20 prints.
    #[test]
    fn it_looks_like_node() {
        let text = |shown: &Shown| shown.text(PLAIN);
        let small = object(&[
            ("a", number(1.0)),
            ("b.c", number(0.5)),
            ("d", number(-0.0)),
        ]);
        assert_eq!(text(&small), "{ a: 1, 'b.c': 0.5, d: -0 }");
        assert_eq!(text(&object(&[])), "{}");
        assert_eq!(
            text(&object(&[("t", list([3.0].into_iter()))])),
            "{ t: [ 3 ] }"
        );
        let names: Vec<_> = (0..20).map(|n| format!("k{n}")).collect();
        let wide: Vec<_> = names.iter().map(|name| (&**name, number(1.0))).collect();
        assert!(text(&object(&wide)).starts_with("{\n  k0: 1,\n  k1: 1,\n"));
        let keys = ["a$", "4294967294", "4294967295", "01", "\u{e9}", "2"];
        assert_eq!(
            text(&object(&keys.map(|key| (key, number(1.0))))),
            "{ '2': 1, '4294967294': 1, 'a$': 1, '4294967295': 1, '01': 1, '\u{e9}': 1 }"
        );
        assert_eq!(
            text(&Shown::Text("a\u{b}\u{7f}\u{85}'b\\".to_owned())),
            "\"a\\x0B\\x7F\\x85'b\\\\\""
        );
    }

    #[test]
    fn long_lists_stand_in_columns() {
        let text = |shown: &Shown| shown.text(PLAIN);
        assert_eq!(
            text(&list((1..8).map(f64::from))),
            "[\n  1, 2, 3, 4,\n  5, 6, 7\n]"
        );
        let uneven = [100_000_000_000.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7_777_777.0];
        assert_eq!(
            text(&list(uneven.into_iter())),
            "[ 100000000000, 2, 3, 4, 5, 6, 7777777 ]"
        );
        let long = text(&list((0..150).map(|n| f64::from(n) * 1.5)));
        assert!(
            long.starts_with("[\n    0,   1.5,   3,   4.5,   6,   7.5,   9,  10.5,  12,  13.5,\n")
        );
        assert!(long.ends_with("\n  135, 136.5, 138, 139.5, 141, 142.5, 144, 145.5, 147, 148.5,\n  ... 50 more items\n]"));
        let words = ["a", "bb", "c", "d", "e", "f", "gg"].map(|word| Shown::Text(word.to_owned()));
        assert_eq!(
            text(&Shown::List(words.to_vec(), 1)),
            "[\n  'a',  'bb', 'c',\n  'd',  'e',  'f',\n  'gg',\n  ... 1 more item\n]"
        );
    }

    #[test]
    fn depth_and_colours() {
        let nested = |inner| {
            let b = object(&[("b", object(&[("c", inner)]))]);
            object(&[("a", b)])
        };
        let inner = object(&[("d", number(1.0))]);
        assert_eq!(
            nested(inner.clone()).text(PLAIN),
            "{ a: { b: { c: [Object] } } }"
        );
        assert_eq!(nested(object(&[])).text(PLAIN), "{ a: { b: { c: {} } } }");
        let deep = Style {
            depth: 5,
            is_coloured: false,
        };
        assert_eq!(
            nested(inner).text(deep),
            "{\n  a: { b: { c: { d: 1 } } }\n}"
        );
        let bright = Style {
            depth: 5,
            is_coloured: true,
        };
        let shown = object(&[("b", list([-0.0, 1.5, 3.0, 4.0, 5.0, 6.0, 7.0].into_iter()))]);
        let yellow = |text: &str| format!("\u{1b}[33m{text}\u{1b}[39m");
        let line = |items: &[&str]| items.iter().map(|text| yellow(text)).collect::<Vec<_>>();
        assert_eq!(
            shown.text(bright),
            format!(
                "{{\n  b: [\n    {},\n     {}\n  ]\n}}",
                line(&["-0", "1.5", "3", "4"]).join(", "),
                line(&["5", "6", "7"])
                    .join(",   ")
                    .replacen(",   \u{1b}[33m7", ", \u{1b}[33m7", 1)
            )
        );
    }
}
