//! An argument of a function: the operand that is evaluated, and the value that it becomes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::iter;

use crate::python;
use crate::query::{Argument, Base, Expression, Literal};
use crate::series::{Series, size_of_texts};

/// What an argument can be.
#[derive(Clone, Debug)]
pub enum Value {
    /// A list of series.
    Series(Vec<Series>),
    /// Lists of series.
    Lists(Vec<Vec<Series>>),
    /// A whole number.
    Integer(i64),
    /// Any number.
    Float(f64),
    /// Text.
    Text(String),
    /// True or false.
    Boolean(bool),
    /// `none`.
    None,
    /// Left for the function to evaluate.
    Later,
}

impl Value {
    /// Python's `str` of the value, as names and tags show it.
    pub fn python_str(&self) -> String {
        match self {
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => python::float(*number),
            Self::Text(text) => text.clone(),
            Self::Boolean(value) => python::boolean(*value).to_owned(),
            Self::None => "None".to_owned(),
            Self::Series(_) | Self::Lists(_) | Self::Later => "a list of series".to_owned(),
        }
    }

    /// The number, also that of a boolean; texts are not read.
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Integer(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Boolean(value) => Some(f64::from(u8::from(*value))),
            _ => None,
        }
    }

    /// The lists of series in the value.
    pub(crate) fn lists(&self) -> &[Vec<Series>] {
        match self {
            Self::Series(series) => std::slice::from_ref(series),
            Self::Lists(lists) => lists,
            _ => &[],
        }
    }

    /// The bytes of the names and tags of the series in the value, and the number of the series.
    pub(crate) fn size_of_texts(&self) -> (usize, usize) {
        let lists = self.lists().iter();
        let sizes = lists.map(|series| (size_of_texts(series), series.len()));
        sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
    }
}

impl From<&Literal> for Value {
    fn from(literal: &Literal) -> Self {
        match literal {
            Literal::Integer(number) => Self::Integer(*number),
            Literal::Float(number) => Self::Float(*number),
            Literal::Text(text) => Self::Text(text.text.clone()),
            Literal::Boolean(value) => Self::Boolean(*value),
            Literal::None => Self::None,
            Literal::Infinity => Self::Float(f64::INFINITY),
        }
    }
}

/// Values for `$name` inside a template: those of the request, which win, and its own.
#[derive(Clone, Copy)]
pub(crate) struct Replacements<'a> {
    pub(crate) requested: &'a BTreeMap<String, String>,
    pub(crate) own: &'a BTreeMap<String, Value>,
}

impl<'a> Replacements<'a> {
    /// The value of `$name`.
    pub(crate) fn get(self, name: &str) -> Option<Value> {
        let requested = self.requested.get(name).cloned().map(Value::Text);
        requested.or_else(|| self.own.get(name).cloned())
    }

    /// Names and values as texts, by name.
    pub(crate) fn texts(self) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        let mut requested = self.requested.iter().peekable();
        let own = self.own.iter();
        let mut own = own
            .filter(move |(name, _)| !self.requested.contains_key(*name))
            .peekable();
        iter::from_fn(move || {
            let own_first = match (own.peek(), requested.peek()) {
                (Some((own, _)), Some((requested, _))) => own < requested,
                (own, _) => own.is_some(),
            };
            if own_first {
                let (name, value) = own.next()?;
                return Some((name.as_str(), value.python_str().into()));
            }
            let (name, value) = requested.next()?;
            Some((name.as_str(), value.as_str().into()))
        })
    }
}

/// An argument that is not evaluated yet: written between the brackets, or piped in.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// Written.
    Argument(&'a Argument),
    /// An expression with the first so many calls of its pipe.
    Piped(&'a Expression, usize),
}

impl<'a> Operand<'a> {
    /// The pattern, if the operand is a pattern and nothing else.
    pub(crate) fn pattern(self) -> Option<&'a str> {
        let expression = match self {
            Operand::Argument(Argument::Expression(expression)) if expression.piped.is_empty() => {
                expression
            }
            Operand::Piped(expression, 0) => expression,
            _ => return None,
        };
        match &expression.base {
            Base::Path(path) => Some(path),
            Base::Call(call) if call.name == "seriesByTag" => Some(&call.raw),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_a_request_win_and_all_are_in_order() {
        let text = |text: &str| text.to_owned();
        let requested = [("b", "1"), ("c", "2"), ("e", "3")].map(|(k, v)| (text(k), text(v)));
        let own = ["a", "c", "d", "f"].map(|name| (text(name), Value::Integer(9)));
        let (requested, own) = (BTreeMap::from(requested), BTreeMap::from(own));
        let both = Replacements {
            requested: &requested,
            own: &own,
        };
        let texts: Vec<String> = both
            .texts()
            .map(|(name, value)| format!("{name}{value}"))
            .collect();
        assert_eq!(texts, ["a9", "b1", "c2", "d9", "e3", "f9"]);
        assert!(matches!(both.get("c"), Some(Value::Text(value)) if value == "2"));
        assert!(matches!(both.get("d"), Some(Value::Integer(9))));
        assert!(both.get("g").is_none());
    }
}
