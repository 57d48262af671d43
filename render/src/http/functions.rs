//! `/functions` and `/version`.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde_json::{Map, Value};

use super::answer::json_text;
use super::{Answer, App, JSON, Params, not_allowed};
use crate::functions;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/functions", get(list).fallback(not_allowed))
        .route("/functions/", get(list).fallback(not_allowed))
        .route("/functions/{*name}", get(details).fallback(not_allowed))
        .route("/version", get(version))
        .route("/version/", get(version))
}

/// The release of graphite-web whose answers these are: clients choose what they ask by it.
pub const GRAPHITE_VERSION: &str = "1.1.10";

async fn version() -> Answer {
    Answer::ok("text/html; charset=utf-8", format!("{GRAPHITE_VERSION}\n"))
}

/// The functions that the request is about, each with its name and group: those of pies, or those
/// of series.
fn asked(params: &Params) -> Vec<(&'static str, &'static str, Value)> {
    if params.get("type") == Some("pie") {
        let pie = functions::PIE.iter();
        return pie.map(|f| (f.name, "Pie", f.describe())).collect();
    }
    let all = functions::all();
    all.map(|(name, group, f)| (name, group, functions::describe(name, group, f)))
        .collect()
}

async fn list(State(_): State<App>, params: Params) -> Answer {
    let grouped = params.get("grouped").unwrap_or_default().to_lowercase();
    let grouped = matches!(grouped.as_str(), "1" | "true");
    let mut result = Map::new();
    for (name, group, shown) in asked(&params) {
        if params.get("group").is_some_and(|only| only != group) {
            continue;
        }
        if grouped {
            let group = result.entry(group).or_insert_with(|| Map::new().into());
            if let Value::Object(group) = group {
                group.insert(name.to_owned(), shown);
            }
        } else {
            result.insert(name.to_owned(), shown);
        }
    }
    answer(&result.into(), &params)
}

async fn details(State(_): State<App>, Path(name): Path<String>, params: Params) -> Answer {
    let all = asked(&params);
    match all.into_iter().find(|(known, _, _)| *known == name) {
        Some((_, _, shown)) => answer(&shown, &params),
        None => Answer::error(
            StatusCode::NOT_FOUND,
            &format!("Function not found: {name}"),
        ),
    }
}

fn answer(value: &Value, params: &Params) -> Answer {
    let text = String::from_utf8(json_text(value, params)).unwrap_or_default();
    // The one default value that has no number in JSON.
    Answer::ok(JSON, text.replace("\"1e9999\"", "1e9999"))
}
