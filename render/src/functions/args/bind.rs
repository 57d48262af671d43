//! Values put to the parameters that they are for, and converted to their kinds.

use super::super::{Default, Function, Kind, Param};
use crate::aggregate;
use crate::attime;
use crate::error::{Error, Result};
use crate::value::Value;

/// The value given for each parameter, by its place or by its name.
pub(super) fn by_param(
    function: &Function,
    params: &[Param],
    places: Vec<Value>,
    keywords: Vec<(&str, Value)>,
) -> Result<Vec<Option<Value>>> {
    let refuse = |what: String| Err(Error::refused(format!("{}() {what}", function.name)));
    let n_placed = places.len();
    let mut values: Vec<Option<Value>> = places.into_iter().map(Some).collect();
    values.resize_with(params.len(), || None);
    for (name, value) in keywords {
        let is_named = |param: &Param| param.name == name || param.also == Some(name);
        match params.iter().position(is_named) {
            Some(place) if place < n_placed => {
                return refuse(format!("got two values for {name:?}"));
            }
            Some(place) => values[place] = Some(value),
            None => return refuse(format!("has no parameter called {name:?}")),
        }
    }
    for (param, value) in params.iter().zip(&values) {
        if value.is_none() && param.default == Default::Required {
            return refuse(format!("needs its argument {:?}", param.name));
        }
    }
    Ok(values)
}

/// Converts all values to the kinds of their parameters, or, as Graphite does, none of them if one
/// does not fit.
pub(super) fn convert_all(
    params: &[Param],
    values: &mut [Option<Value>],
    multiple: Option<&Param>,
    repeated: &mut [Value],
) {
    let converted: Option<Vec<Option<Value>>> = params
        .iter()
        .zip(values.iter())
        .map(|(param, value)| match value {
            None => Some(None),
            Some(value) => convert(param, value),
        })
        .collect();
    let converted_rest: Option<Vec<Option<Value>>> = match multiple {
        Some(param) => repeated.iter().map(|value| convert(param, value)).collect(),
        None => Some(Vec::new()),
    };
    let (Some(converted), Some(converted_rest)) = (converted, converted_rest) else {
        return;
    };
    for (value, converted) in values.iter_mut().zip(converted) {
        if let Some(converted) = converted {
            *value = Some(converted);
        }
    }
    for (value, converted) in repeated.iter_mut().zip(converted_rest) {
        if let Some(converted) = converted {
            *value = converted;
        }
    }
}

/// What stands for a parameter that is not given.
pub(super) fn standing_in(param: &Param) -> Value {
    match param.default {
        Default::Required | Default::Absent => Value::None,
        Default::Integer(number) => Value::Integer(number),
        Default::Float(number) => Value::Float(number),
        Default::Text(text) => Value::Text(text.to_owned()),
        Default::Boolean(value) => Value::Boolean(value),
    }
}

/// `value` as the parameter's kind wants it: `Some(None)` to leave it, `None` if it cannot be.
fn convert(param: &Param, value: &Value) -> Option<Option<Value>> {
    let has_default = !matches!(param.default, Default::Required | Default::Absent);
    if matches!(value, Value::None) && (has_default || !param.listed_required) {
        return Some(None);
    }
    if matches!(value, Value::Later) {
        return Some(None);
    }
    if !param.options.is_empty() {
        let meant = matches!(value, Value::Text(text) if param.options.contains(&text.as_str()));
        return meant.then_some(None);
    }
    match param.kind {
        Kind::Any | Kind::String | Kind::NodeOrTag | Kind::Tag | Kind::Date => Some(None),
        Kind::IntOrInterval => Some(None),
        Kind::SeriesList => matches!(value, Value::Series(_)).then_some(None),
        Kind::SeriesLists => matches!(value, Value::Lists(_)).then_some(None),
        Kind::Float => match value {
            Value::Text(text) => Some(Some(Value::Float(python_float(text)?))),
            other => Some(Some(Value::Float(other.number()?))),
        },
        Kind::Integer | Kind::Node => whole(value).map(|n| Some(Value::Integer(n))),
        Kind::IntOrInf => match whole(value) {
            Some(number) => Some(Some(Value::Integer(number))),
            None => {
                let number = match value {
                    Value::Text(text) => python_float(text)?,
                    other => other.number()?,
                };
                (number == f64::INFINITY).then_some(Some(Value::Float(number)))
            }
        },
        Kind::Boolean => match value {
            Value::Boolean(_) => Some(None),
            Value::Text(text) if text.eq_ignore_ascii_case("true") => {
                Some(Some(Value::Boolean(true)))
            }
            Value::Text(text) if text.eq_ignore_ascii_case("false") => {
                Some(Some(Value::Boolean(false)))
            }
            Value::Text(_) => None,
            Value::Integer(_) | Value::Float(_) => match value.number() {
                Some(0.0) => Some(Some(Value::Boolean(false))),
                Some(1.0) => Some(Some(Value::Boolean(true))),
                _ => None,
            },
            Value::Series(series) => Some(Some(Value::Boolean(!series.is_empty()))),
            _ => Some(Some(Value::Boolean(false))),
        },
        Kind::Interval => match value {
            Value::Text(text) => attime::offset(text).is_ok().then_some(None),
            _ => None,
        },
        Kind::AggFunc | Kind::AggOrSeriesFunc => match value {
            Value::Text(text) => {
                let word = text.strip_suffix("Series").unwrap_or(text);
                let known = aggregate::NAMES.iter().any(|(name, _)| *name == word);
                (known || param.kind == Kind::AggOrSeriesFunc).then_some(None)
            }
            _ => None,
        },
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Boolean(value) => Some(i64::from(*value)),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// `float(text)`
fn python_float(text: &str) -> Option<f64> {
    text.trim().replace('_', "").parse().ok()
}
