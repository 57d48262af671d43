//! Nodes of names and tags: what `aliasByNode` shows and `groupByNode` groups by.

use super::support::check_length;
use crate::error::Result;
use crate::query::{self, Argument, Base};
use crate::series::Series;
use crate::value::Value;

/// A node of a name by its place, or a tag by its name.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeOrTag {
    /// The place, negative from the end.
    Node(i64),
    /// The tag.
    Tag(String),
}

/// `value` as a place, or as the name of a tag.
pub(super) fn node_or_tag(value: &Value) -> NodeOrTag {
    match value {
        Value::Integer(place) => NodeOrTag::Node(*place),
        Value::Float(place) if place.fract() == 0.0 => NodeOrTag::Node(*place as i64),
        Value::Boolean(place) => NodeOrTag::Node(i64::from(*place)),
        other => NodeOrTag::Tag(other.python_str()),
    }
}

/// The key of a series by nodes and tags, joined with dots: what `aliasByNode` shows and
/// `groupByNode` groups by. A node that is not there, and is no tag either, is empty.
///
/// # Errors
/// If the name looks like a call and does not parse, or the key would be very long.
pub fn node_key(series: &Series, nodes: &[NodeOrTag]) -> Result<String> {
    let inner = if series.name.ends_with(')') {
        first_path(&series.name)?
    } else {
        None
    };
    let name = inner.as_deref().unwrap_or(&series.name);
    let path = name.split(';').next().unwrap_or(name);
    let parts: Vec<&str> = path.split('.').collect();
    let mut key = String::new();
    for (place, node) in nodes.iter().enumerate() {
        let part = part(series, &parts, node);
        check_length(key.len() + part.len() + 1, &series.name)?;
        if place > 0 {
            key.push('.');
        }
        key.push_str(part);
    }
    Ok(key)
}

fn part<'s>(series: &'s Series, parts: &[&'s str], node: &NodeOrTag) -> &'s str {
    let tag = match node {
        NodeOrTag::Tag(tag) => series.tags.get(tag),
        NodeOrTag::Node(place) => {
            if let Some(found) = pick(parts, *place) {
                return found;
            }
            series.tags.get(&place.to_string())
        }
    };
    tag.map_or("", String::as_str)
}

/// Python's `list[place]`.
fn pick<T>(list: &[T], place: i64) -> Option<&T> {
    let place = if place < 0 {
        place.checked_add(i64::try_from(list.len()).ok()?)?
    } else {
        place
    };
    list.get(usize::try_from(place).ok()?)
}

/// The first path in the innermost first argument of a name that is a call.
fn first_path(name: &str) -> Result<Option<String>> {
    let parsed = query::parse(name)?;
    let mut base = parsed.expression.base;
    loop {
        base = match base {
            Base::Path(path) => return Ok(Some(path)),
            Base::Template(_) => return Ok(None),
            Base::Call(call) => match call.args.into_iter().next() {
                Some(Argument::Expression(expression)) => expression.base,
                _ => return Ok(None),
            },
        };
    }
}
