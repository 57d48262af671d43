//! The registry as `/functions` shows it.

use serde_json::{Map, Number, Value as Json, json};

use super::{Default, Function, Kind, Param};
use crate::aggregate;
use crate::python;

/// A function under one of its names, as JSON.
pub fn describe(name: &str, group: &str, function: &Function) -> Json {
    json!({
        "name": name,
        "function": format!("{name}{}", signature(function)),
        "description": function.help,
        "module": "graphite.render.functions",
        "group": group,
        "params": function.params.iter().map(param).collect::<Vec<_>>(),
    })
}

/// The parameters as in a Python signature: `(seriesList, func='average', *nodes)`.
pub fn signature(function: &Function) -> String {
    if let Some(signature) = function.signature {
        return signature.to_owned();
    }
    let params: Vec<String> = function.params.iter().map(in_signature).collect();
    format!("({})", params.join(", "))
}

fn in_signature(param: &Param) -> String {
    let name = param.name;
    if param.multiple {
        return format!("*{name}");
    }
    match param.default {
        Default::Required => name.to_owned(),
        Default::Absent => format!("{name}=None"),
        Default::Integer(number) => format!("{name}={number}"),
        Default::Float(number) => format!("{name}={}", python::float(number)),
        Default::Text(text) => format!("{name}='{text}'"),
        Default::Boolean(value) => format!("{name}={}", python::boolean(value)),
    }
}

fn param(param: &Param) -> Json {
    let mut shown = Map::new();
    shown.insert("name".into(), param.name.into());
    shown.insert("type".into(), param.kind.name().into());
    if param.listed_required {
        shown.insert("required".into(), true.into());
    }
    if param.listed_default {
        let default = match param.default {
            Default::Required | Default::Absent => None,
            Default::Integer(number) => Some(Json::from(number)),
            // The only default that is no JSON number is infinity.
            Default::Float(number) => {
                Some(Number::from_f64(number).map_or_else(|| Json::from("1e9999"), Json::Number))
            }
            Default::Text(text) => Some(Json::from(text)),
            Default::Boolean(value) => Some(Json::from(value)),
        };
        if let Some(default) = default {
            shown.insert("default".into(), default);
        }
    }
    if param.multiple {
        shown.insert("multiple".into(), true.into());
    }
    let mut options: Vec<&str> = param.options.to_vec();
    match param.kind {
        Kind::AggFunc => options.extend(aggregate::NAMES.iter().map(|(name, _)| *name)),
        Kind::AggOrSeriesFunc => {
            options.extend(aggregate::NAMES.iter().map(|(name, _)| *name));
            let adding = super::all().filter(|(_, _, function)| function.aggregator);
            options.extend(adding.map(|(name, _, _)| name));
        }
        _ => {}
    }
    if !options.is_empty() {
        options.sort_unstable();
        options.dedup();
        let odd = param.odd_options.iter();
        let odd = odd.filter_map(|text| serde_json::from_str(text).ok());
        let options: Vec<Json> = odd.chain(options.into_iter().map(Json::from)).collect();
        shown.insert("options".into(), options.into());
    }
    if !param.suggestions.is_empty() {
        let values = param.suggestions.iter();
        let values: Vec<Json> = values
            .filter_map(|text| serde_json::from_str(text).ok())
            .collect();
        shown.insert("suggestions".into(), values.into());
    }
    Json::Object(shown)
}
