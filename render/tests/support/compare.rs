//! The rules by which two answers are the same.

use serde_json::Value;

fn same_number(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= (1e-9 * a.abs().max(b.abs())).max(1e-12)
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(160).collect()
}

/// `None` if they are the same, else where and how they differ.
pub(crate) fn differ(want: &Value, got: &Value, at: &str, unordered: bool) -> Option<String> {
    match (want, got) {
        (Value::Number(a), Value::Number(b)) => {
            let same = same_number(a.as_f64()?, b.as_f64()?);
            (!same).then(|| format!("{at}: want {a}, got {b}"))
        }
        (Value::String(word), Value::Null) if word == "NaN" => None,
        (Value::Object(a), Value::Object(b)) => {
            if let Some(key) = a.keys().find(|key| !b.contains_key(*key)) {
                return Some(format!("{at}: key {key:?} is missing"));
            }
            if let Some(key) = b.keys().find(|key| !a.contains_key(*key)) {
                return Some(format!("{at}: unexpected key {key:?}"));
            }
            a.iter()
                .find_map(|(key, a)| differ(a, &b[key], &format!("{at}.{key}"), unordered))
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                return Some(format!("{at}: want {} items, got {}", a.len(), b.len()));
            }
            let plain = |v: &Value| matches!(v, Value::Array(_) | Value::Number(_) | Value::Null);
            if unordered && !a.iter().any(plain) {
                let mut left: Vec<&Value> = b.iter().collect();
                for (i, a) in a.iter().enumerate() {
                    match left.iter().position(|b| differ(a, b, "", true).is_none()) {
                        Some(place) => {
                            left.remove(place);
                        }
                        None => return Some(format!("{at}[{i}]: nothing equals {}", short(a))),
                    }
                }
                return None;
            }
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(i, (a, b))| differ(a, b, &format!("{at}[{i}]"), unordered))
        }
        (a, b) if a == b => None,
        (a, b) => Some(format!("{at}: want {}, got {}", short(a), short(b))),
    }
}

/// Text cut at `separators`, each piece the same as text or as a number.
pub(crate) fn differ_pieces(want: &str, got: &str, separators: &[char]) -> Option<String> {
    let cut = |text: &str| -> Vec<String> {
        let text = text.replace("\r\n", "\n");
        let pieces = text.trim_end_matches('\n').split(separators);
        pieces.map(str::to_owned).collect()
    };
    let (want, got) = (cut(want), cut(got));
    for (i, (a, b)) in want.iter().zip(&got).enumerate() {
        let numbers = a.parse::<f64>().ok().zip(b.parse::<f64>().ok());
        if a != b && !numbers.is_some_and(|(a, b)| same_number(a, b)) {
            return Some(format!("piece {i}: want {a:?}, got {b:?}"));
        }
    }
    (want.len() != got.len()).then(|| format!("want {} pieces, got {}", want.len(), got.len()))
}

/// Random values: the same series and timestamps, and a number or none at each.
pub(crate) fn differ_schema(want: &Value, got: &Value) -> Option<String> {
    let (want, got) = (want.as_array()?, got.as_array()?);
    if want.len() != got.len() {
        return Some("not the same number of series".to_owned());
    }
    for (a, b) in want.iter().zip(got) {
        if a["target"] != b["target"] {
            return Some(format!("want {}, got {}", a["target"], b["target"]));
        }
        let timestamps = |v: &Value| -> Vec<Value> {
            let points = v["datapoints"].as_array().cloned().unwrap_or_default();
            points.iter().map(|point| point[1].clone()).collect()
        };
        if timestamps(a) != timestamps(b) {
            return Some("other timestamps".to_owned());
        }
    }
    None
}

/// `value` without the members called `keys`, wherever they are.
pub(crate) fn without(value: Value, keys: &[String]) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(key, _)| !keys.contains(key))
            .map(|(key, value)| (key, without(value, keys)))
            .collect(),
        Value::Array(items) => items.into_iter().map(|v| without(v, keys)).collect(),
        other => other,
    }
}
