//! TOML files as trees of values, each with its line.

use toml::de::{DeTable, DeValue};

use crate::node::{Kind, Node, Place, Table};
use crate::problem::Complaint;

/// The tree in `text`, or everything that keeps `text` from being TOML.
///
/// # Errors
/// Each mistake with its line.
pub fn parse(text: &str) -> Result<Node, Vec<Complaint>> {
    let line = |offset: usize| {
        let upto = text.as_bytes().get(..offset).unwrap_or(text.as_bytes());
        Place::Line(upto.iter().filter(|byte| **byte == b'\n').count() + 1)
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(Node::new(Place::Line(1), table_of(table.get_ref(), &line)));
    }
    let mut complaints: Vec<Complaint> = Vec::new();
    for error in errors {
        let span = error.span().unwrap_or_default();
        let place = line(span.start);
        // What follows on the same line follows from the first mistake there.
        if complaints.iter().any(|complaint| complaint.place == place) {
            continue;
        }
        complaints.push(Complaint {
            place,
            key: String::new(),
            message: in_words(error.message(), text.get(span).unwrap_or_default()),
        });
    }
    Err(complaints)
}

/// What the parser says about `part` of a file, where a plainer sentence is at hand.
fn in_words(message: &str, part: &str) -> String {
    let begins = |with: &[&str]| with.iter().any(|with| message.starts_with(with));
    if message == "duplicate key" {
        format!("{part} is set twice")
    } else if begins(&["unclosed table"]) {
        "the name of the section is not closed, write [NAME]".to_owned()
    } else if begins(&["invalid basic string", "invalid literal string"]) {
        "the text has no closing quote on its line".to_owned()
    } else if begins(&[
        "string values must be quoted",
        "invalid boolean",
        "invalid datetime",
        "invalid float",
        "invalid integer",
    ]) {
        "the value is missing, or is text without quotes, write KEY = \"TEXT\"".to_owned()
    } else {
        format!("not TOML: {}", message.replace('\n', ", "))
    }
}

/// The value in `text`, which was typed on the command line as override number `n`: TOML, or else
/// text without quotes.
pub fn typed(text: &str, n: usize) -> Node {
    let place = Place::Override(n);
    let kind = match DeValue::parse(text) {
        Ok(value) => kind_of(value.get_ref(), &|_| place),
        Err(_) => Kind::Text(text.to_owned()),
    };
    Node {
        typed: Some(text.to_owned()),
        ..Node::new(place, kind)
    }
}

fn table_of(table: &DeTable<'_>, line: &dyn Fn(usize) -> Place) -> Kind {
    let mut found: Vec<_> = table.iter().collect();
    found.sort_by_key(|(key, _)| key.span().start);
    let mut read = Table::default();
    for (key, value) in found {
        let place = line(key.span().start);
        let node = Node::new(place, kind_of(value.get_ref(), line));
        read.set(key.get_ref(), node);
    }
    Kind::Table(read)
}

fn kind_of(value: &DeValue<'_>, line: &dyn Fn(usize) -> Place) -> Kind {
    match value {
        DeValue::String(text) => Kind::Text(text.to_string()),
        DeValue::Boolean(yes) => Kind::Bool(*yes),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Kind::Integer(number),
            Err(_) => Kind::Other(number.to_string()),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Kind::Float(number),
            Err(_) => Kind::Other(number.to_string()),
        },
        DeValue::Datetime(date) => Kind::Other(date.to_string()),
        DeValue::Array(items) => {
            let item = |item: &toml::Spanned<DeValue<'_>>| {
                Node::new(line(item.span().start), kind_of(item.get_ref(), line))
            };
            Kind::List(items.iter().map(item).collect())
        }
        DeValue::Table(table) => table_of(table, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_has_its_line() {
        let said = |text: &str| -> Vec<(Place, String)> {
            let complaints = parse(text).unwrap_err().into_iter();
            complaints
                .map(|complaint| (complaint.place, complaint.message))
                .collect()
        };
        assert_eq!(
            said("a = 1\nb = \nc = info\n"),
            [
                (
                    Place::Line(2),
                    "the value is missing, or is text without quotes, write KEY = \"TEXT\""
                        .to_owned()
                ),
                (
                    Place::Line(3),
                    "the value is missing, or is text without quotes, write KEY = \"TEXT\""
                        .to_owned()
                ),
            ]
        );
        assert_eq!(
            said("[a]\nb = 1\nb = 2\n"),
            [(Place::Line(3), "b is set twice".to_owned())]
        );
        assert_eq!(
            said("\n[a\nb = 1\n")[0],
            (
                Place::Line(2),
                "the name of the section is not closed, write [NAME]".to_owned()
            )
        );
    }

    #[test]
    fn values_know_their_lines() {
        let node = parse("a = 1\n[b]\nc = [\n  2,\n  {d = 0x10},\n]\n").unwrap();
        let path = |path: crate::Path| node.place_of(&path);
        assert_eq!(path("a".into()), Place::Line(1));
        assert_eq!(path(crate::Path::from("c").below("b")), Place::Line(3));
        assert_eq!(path(crate::Path::from(("c", 0)).below("b")), Place::Line(4));
        assert_eq!(
            path(crate::Path::from(("c", 1, "d")).below("b")),
            Place::Line(5)
        );
        assert_eq!(path("x".into()), Place::Default);
    }

    #[test]
    fn what_is_typed_needs_no_quotes() {
        assert_eq!(typed("/a b", 0).kind, Kind::Text("/a b".to_owned()));
        assert_eq!(typed("\"a\"", 0).kind, Kind::Text("a".to_owned()));
        assert_eq!(typed("2024", 3).kind, Kind::Integer(2024));
        assert_eq!(typed("2024", 3).place, Place::Override(3));
        assert_eq!(typed("", 0).kind, Kind::Text(String::new()));
    }
}
