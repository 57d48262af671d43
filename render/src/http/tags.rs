//! `/tags/*`: what the tags of the series are, and which series have them.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::routing::{any, get};
use fancy_regex::Regex;
use serde_json::{Value, json};

use super::{Answer, App, Params, not_allowed};
use crate::error::{Error, Result};
use crate::source::TagValue;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/tags", get(list).fallback(not_allowed))
        .route("/tags/", get(list).fallback(not_allowed))
        .route("/tags/findSeries", any(find_series))
        .route("/tags/autoComplete/tags", any(complete_tags))
        .route("/tags/autoComplete/values", any(complete_values))
        .route("/tags/{*tag}", get(details).fallback(not_allowed))
}

/// Those that change something.
pub(super) fn writing_routes() -> Router<App> {
    Router::new()
        .route("/tags/tagSeries", any(tag_series))
        .route("/tags/tagMultiSeries", any(tag_multi_series))
        .route("/tags/delSeries", any(del_series))
}

/// How many suggestions are made when the request does not say.
const SUGGESTIONS: i64 = 100;

/// Answers with what `job` gives, as JSON; its refusals are JSON too.
async fn respond(
    app: App,
    params: Params,
    allowed: &[Method],
    job: impl FnOnce(&App, &Params) -> Result<Value> + Send + 'static,
) -> Answer {
    if !allowed.contains(&params.method) {
        return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    app.compute(move |app| match job(app, &params) {
        Ok(value) => {
            let text = if params.has_value("pretty") {
                serde_json::to_vec_pretty(&value)
            } else {
                serde_json::to_vec(&value)
            };
            Answer::ok(super::JSON, text.unwrap_or_default())
        }
        Err(error) => Answer::error(app.refuse(&error), &error.to_string()),
    })
    .await
}

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const BOTH: &[Method] = &[Method::GET, Method::POST];

async fn list(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, GET, |app, params| {
        let filter = Filter::read(params)?;
        let tags = app.tags.tags();
        let shown = tags.into_iter().filter(|(_, tag)| filter.matches(tag));
        let shown = shown.take(filter.limit);
        let shown = shown.map(|(id, tag)| json!({ "id": id, "tag": tag }));
        Ok(shown.collect())
    })
    .await
}

async fn details(State(app): State<App>, Path(tag): Path<String>, params: Params) -> Answer {
    respond(app, params, GET, move |app, params| {
        let Some((id, values)) = app.tags.values(&tag) else {
            return Ok(Value::Null);
        };
        let filter = Filter::read(params)?;
        let shown = values
            .into_iter()
            .filter(|value| filter.matches(&value.value));
        let shown = shown.take(filter.limit);
        let shown: Vec<Value> = shown
            .map(
                |TagValue { id, value, count }| json!({ "id": id, "value": value, "count": count }),
            )
            .collect();
        Ok(json!({ "id": id, "tag": tag, "values": shown }))
    })
    .await
}

/// `filter` and `limit` of a listing.
struct Filter {
    pattern: Option<Regex>,
    limit: usize,
}

impl Filter {
    fn read(params: &Params) -> Result<Self> {
        let pattern = params.get("filter").filter(|pattern| !pattern.is_empty());
        let pattern = pattern.map(|pattern| {
            // One that says where it begins is taken as it is, for all its alternatives.
            let anchored = if pattern.starts_with('^') {
                pattern.to_owned()
            } else {
                format!(r"\A(?:{pattern})")
            };
            Regex::new(&anchored)
                .map_err(|error| Error::refused(format!("filter {pattern:?}: {error}")))
        });
        let limit = match params.get("limit") {
            Some("") => None,
            _ => limit(params)?,
        };
        Ok(Self {
            pattern: pattern.transpose()?,
            limit: usize::try_from(limit.unwrap_or(-1)).unwrap_or(usize::MAX),
        })
    }

    fn matches(&self, text: &str) -> bool {
        let pattern = self.pattern.as_ref();
        pattern.is_none_or(|pattern| pattern.is_match(text).unwrap_or(false))
    }
}

fn limit(params: &Params) -> Result<Option<i64>> {
    match params.get("limit") {
        None => Ok(None),
        Some(text) => match text.trim().parse() {
            Ok(limit) => Ok(Some(limit)),
            Err(_) => Err(Error::refused(format!(
                "limit: {text:?} is not a whole number"
            ))),
        },
    }
}

/// How many suggestions are asked for; of a negative number, how many are left out at the end
/// ([`cut`]).
fn suggestions(params: &Params) -> Result<i64> {
    Ok(limit(params)?.unwrap_or(SUGGESTIONS))
}

/// Python's `all[:limit]`.
fn cut(mut all: Vec<String>, limit: i64) -> Vec<String> {
    let limit = match limit {
        0.. => usize::try_from(limit).unwrap_or(usize::MAX),
        _ => {
            let out = usize::try_from(limit.unsigned_abs()).unwrap_or(usize::MAX);
            all.len().saturating_sub(out)
        }
    };
    all.truncate(limit);
    all
}

async fn tag_series(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, POST, |app, params| {
        if !params.has_value("path") {
            return Err(Error::refused("no path specified"));
        }
        let path = params.get("path").unwrap_or_default();
        Ok(app.tags.register(path)?.into())
    })
    .await
}

async fn tag_multi_series(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, POST, |app, params| {
        let paths = params.list("path");
        if paths.is_empty() {
            return Err(Error::refused("no paths specified"));
        }
        let mut names = Vec::with_capacity(paths.len());
        for path in paths {
            names.push(app.tags.register(path)?);
        }
        Ok(names.into())
    })
    .await
}

async fn del_series(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, POST, |app, params| {
        let paths = params.list("path");
        if paths.is_empty() {
            return Err(Error::refused("no path specified"));
        }
        for path in paths {
            app.tags.unregister(path)?;
        }
        Ok(true.into())
    })
    .await
}

async fn find_series(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, BOTH, |app, params| {
        let expressions = params.list("expr");
        if expressions.is_empty() {
            return Err(Error::refused("no tag expressions specified"));
        }
        Ok(app.source.find_tagged(&expressions)?.into())
    })
    .await
}

async fn complete_tags(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, BOTH, |app, params| {
        let expressions = params.list("expr");
        let prefix = params.get("tagPrefix").unwrap_or_default();
        let limit = suggestions(params)?;
        if expressions.is_empty() {
            let tags = app.tags.tags().into_iter().map(|(_, tag)| tag);
            let tags = tags.filter(|tag| tag.starts_with(prefix)).collect();
            return Ok(cut(tags, limit).into());
        }
        let limit = usize::try_from(limit).unwrap_or(0);
        Ok(app.tags.complete_tags(&expressions, prefix, limit)?.into())
    })
    .await
}

async fn complete_values(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, BOTH, |app, params| {
        let expressions = params.list("expr");
        let tag = params.get("tag").unwrap_or_default();
        if tag.is_empty() {
            return Err(Error::refused("no tag specified"));
        }
        let prefix = params.get("valuePrefix").unwrap_or_default();
        let limit = suggestions(params)?;
        if expressions.is_empty() {
            let values = app.tags.values(tag).map(|(_, values)| values);
            let values = values.unwrap_or_default().into_iter();
            let values = values.map(|value| value.value);
            let values = values.filter(|value| value.starts_with(prefix)).collect();
            return Ok(cut(values, limit).into());
        }
        let limit = usize::try_from(limit).unwrap_or(0);
        let values = app.tags.complete_values(&expressions, tag, prefix, limit)?;
        Ok(values.into())
    })
    .await
}
