//! Python's `str()` of a JSON value: how graphite-web keeps a `data` or `what` that is no text.

use std::fmt::Write as _;

use serde_json::Value;

use crate::python::push_float;

/// `str(value)` as Python 3 prints it: a text as it is, `True`, `None`, `{'k': 'v'}`.
pub(super) fn str(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => {
            let mut out = String::new();
            repr(other, &mut out);
            out
        }
    }
}

fn repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => push_float(out, float),
            _ => {
                let _ = write!(out, "{number}");
            }
        },
        Value::String(text) => string_repr(text, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                repr(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            out.push('{');
            for (i, (key, item)) in fields.iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                string_repr(key, out);
                out.push_str(": ");
                repr(item, out);
            }
            out.push('}');
        }
    }
}

/// Single quotes, unless the text holds one and no double quote.
fn string_repr(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || (0x7f..0xa1).contains(&(c as u32)) => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_print_as_python_prints_them() {
        for (value, text) in [
            (json!("plain 'text'"), "plain 'text'"),
            (json!(null), "None"),
            (
                json!([true, false, 1, 1.0, -2.5]),
                "[True, False, 1, 1.0, -2.5]",
            ),
            (
                json!([1e16, 1e-5, 1.5e300, 0.0001]),
                "[1e+16, 1e-05, 1.5e+300, 0.0001]",
            ),
            (json!({"k": "v"}), "{'k': 'v'}"),
            (
                json!(["it's", "a \"b\" 'c'"]),
                "[\"it's\", 'a \"b\" \\'c\\'']",
            ),
            (json!(["é\n\u{1}"]), "['é\\n\\x01']"),
        ] {
            assert_eq!(str(&value), text);
        }
    }
}
