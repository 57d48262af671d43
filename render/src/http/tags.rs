//! `/tags/*`: what the tags of the series are, and which series have them.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::routing::{any, get};
use fancy_regex::Regex;
use serde_json::{Map, Value, json};

use super::pool::Lane;
use super::{Answer, App, Params, not_allowed};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::source::{Completion, TagValue, Tags};

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

/// Whether another server asks, which wants what this one has by itself (`local=1`).
fn is_local(params: &Params) -> bool {
    params.get("local") == Some("1")
}

/// The tags that the request is about.
fn tags<'a>(app: &'a App, params: &Params) -> &'a dyn Tags {
    let local = app.tags.local().filter(|_| is_local(params));
    local.unwrap_or(&*app.tags)
}

/// How many series are registered at a time.
const BATCH: usize = 1_000;
/// How many suggestions are made when the request does not say.
const SUGGESTIONS: i64 = 100;

/// Answers with what `job` gives, as JSON; its refusals are JSON too.
async fn respond(
    app: App,
    params: Params,
    allowed: &[Method],
    job: impl FnOnce(&App, &Params, &Budget) -> Result<Value> + Send + 'static,
) -> Answer {
    if !allowed.contains(&params.method) {
        return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    let budget = app.limits().budget;
    app.compute(budget.clone(), lane(&params), move |app| {
        let answer =
            job(app, &params, &budget).and_then(|value| Answer::json(&value, &params, &budget));
        match answer {
            Ok(answer) => answer,
            Err(error) => Answer::error(app.refuse(&error), &error.to_string()),
        }
    })
    .await
}

/// Expressions may look at every value of a tag.
fn lane(params: &Params) -> Lane {
    let expressions = params.list("expr");
    if expressions
        .iter()
        .any(|expression| expression.contains('~'))
    {
        return Lane::Large;
    }
    Lane::of(expressions, 0)
}

/// What a text takes in a list of JSON beside itself.
const PER_TEXT: usize = 256;

/// What an object about a tag or a value takes there, which holds a copy of the text.
const PER_OBJECT: usize = 1_024;

/// Sets the memory of a list of objects about such `texts` aside. The text of the answer is reserved
/// as it is written.
fn reserve_objects<'a>(budget: &Budget, texts: impl Iterator<Item = &'a String>) -> Result<()> {
    let sizes = texts.map(|text| PER_OBJECT + text.len());
    budget.reserve(sizes.sum())
}

/// `texts`, which the index has reserved, as a list of JSON.
fn list_of(texts: Vec<String>, budget: &Budget) -> Result<Value> {
    budget.reserve(texts.len() * PER_TEXT)?;
    Ok(texts.into())
}

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const BOTH: &[Method] = &[Method::GET, Method::POST];

async fn list(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, GET, |app, params, budget| {
        let filter = Filter::read(params)?;
        let tags = tags(app, params).tags(budget)?;
        reserve_objects(budget, tags.iter().map(|(_, tag)| tag))?;
        let shown = filter.matching(tags, |(_, tag)| tag, budget)?.into_iter();
        let shown = shown.map(|(id, tag)| json!({ "id": id, "tag": tag }));
        Ok(shown.collect())
    })
    .await
}

async fn details(State(app): State<App>, Path(tag): Path<String>, params: Params) -> Answer {
    respond(app, params, GET, move |app, params, budget| {
        let Some((id, values)) = tags(app, params).values(&tag, budget)? else {
            return Ok(Value::Null);
        };
        let filter = Filter::read(params)?;
        reserve_objects(budget, values.iter().map(|value| &value.value))?;
        let shown = filter.matching(values, |value| &value.value, budget)?;
        let shown: Vec<Value> = shown
            .into_iter()
            .map(
                |TagValue { id, value, count }| json!({ "id": id, "value": value, "count": count }),
            )
            .collect();
        let mut answer = Map::new();
        answer.insert("id".to_owned(), id.into());
        answer.insert("tag".to_owned(), tag.into());
        // Moved: the macro would copy the list.
        answer.insert("values".to_owned(), shown.into());
        Ok(answer.into())
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
            carbon::index::regex(&anchored)
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

    /// As many of `all` as are asked for, of those whose text the filter matches.
    fn matching<T>(
        &self,
        all: Vec<T>,
        text: impl Fn(&T) -> &String,
        budget: &Budget,
    ) -> Result<Vec<T>> {
        let mut found = Vec::new();
        for item in all {
            if found.len() >= self.limit {
                break;
            }
            budget.check()?;
            let pattern = self.pattern.as_ref();
            if pattern.is_none_or(|pattern| pattern.is_match(text(&item)).unwrap_or(false)) {
                found.push(item);
            }
        }
        Ok(found)
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
    respond(app, params, POST, |app, params, _| {
        if !params.has_value("path") {
            return Err(Error::refused("no path specified"));
        }
        let path = params.get("path").unwrap_or_default();
        Ok(app.tags.register(path)?.into())
    })
    .await
}

async fn tag_multi_series(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, POST, |app, params, budget| {
        let paths = params.list("path");
        if paths.is_empty() {
            return Err(Error::refused("no paths specified"));
        }
        let mut names = Vec::with_capacity(paths.len());
        // The names of a batch are synced to the disk together.
        for batch in paths.chunks(BATCH) {
            budget.check()?;
            names.extend(app.tags.register_all(batch)?);
        }
        Ok(names.into())
    })
    .await
}

async fn del_series(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, POST, |app, params, budget| {
        let paths = params.list("path");
        if paths.is_empty() {
            return Err(Error::refused("no path specified"));
        }
        for path in paths {
            budget.check()?;
            app.tags.unregister(path)?;
        }
        Ok(true.into())
    })
    .await
}

async fn find_series(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, BOTH, |app, params, budget| {
        let expressions = params.list("expr");
        if expressions.is_empty() {
            return Err(Error::refused("no tag expressions specified"));
        }
        let source = match is_local(params) {
            true => app.local_source(),
            false => &*app.source,
        };
        let found = source.find_tagged(&expressions, budget)?;
        app.limits().check_series(found.len())?;
        list_of(found, budget)
    })
    .await
}

fn completion<'a>(expressions: &'a [&'a str], prefix: &'a str, limit: i64) -> Completion<'a> {
    Completion {
        expressions,
        prefix,
        limit: usize::try_from(limit).unwrap_or(0),
    }
}

async fn complete_tags(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, BOTH, |app, params, budget| {
        let expressions = params.list("expr");
        let prefix = params.get("tagPrefix").unwrap_or_default();
        let limit = suggestions(params)?;
        if expressions.is_empty() {
            let tags = tags(app, params)
                .tags(budget)?
                .into_iter()
                .map(|(_, tag)| tag);
            let tags = tags.filter(|tag| tag.starts_with(prefix)).collect();
            return list_of(cut(tags, limit), budget);
        }
        let wanted = completion(&expressions, prefix, limit);
        let tags = tags(app, params).complete_tags(&wanted, budget)?;
        list_of(tags, budget)
    })
    .await
}

async fn complete_values(State(app): State<App>, params: Params) -> Answer {
    respond(app, params, BOTH, |app, params, budget| {
        let expressions = params.list("expr");
        let tag = params.get("tag").unwrap_or_default();
        if tag.is_empty() {
            return Err(Error::refused("no tag specified"));
        }
        let prefix = params.get("valuePrefix").unwrap_or_default();
        let limit = suggestions(params)?;
        // A negative number leaves out values at the end of all.
        if expressions.is_empty() && limit < 0 {
            let values = tags(app, params)
                .values(tag, budget)?
                .map(|(_, values)| values);
            let values = values.unwrap_or_default().into_iter();
            let values = values.map(|value| value.value);
            let values = values.filter(|value| value.starts_with(prefix)).collect();
            return list_of(cut(values, limit), budget);
        }
        let wanted = completion(&expressions, prefix, limit);
        let values = tags(app, params).complete_values(tag, &wanted, budget)?;
        list_of(values, budget)
    })
    .await
}
