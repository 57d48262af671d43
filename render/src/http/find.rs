//! `/metrics/*`: names by pattern.

use std::collections::{BTreeSet, HashSet};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::any;
use carbon::protocol::pickle::write;
use jiff::tz::TimeZone;
use rmp::encode::{write_array_len, write_bool, write_f64, write_map_len, write_str};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use whisper::Timestamp;

use super::carbonapi::{self, Protocol};
use super::pool::Lane;
use super::{Answer, App, Params};
use crate::attime;
use crate::budget::Budget;
use crate::context::Limits;
use crate::error::{Error, Result};
use crate::format::Buffer;
use crate::format::buffer::stopped;
use crate::format::msgpack::length;
use crate::paths::Paths;
use crate::source::Node;
use crate::stats::count;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/metrics", any(find))
        .route("/metrics/", any(find))
        .route("/metrics/find", any(find))
        .route("/metrics/find/", any(find))
        .route("/metrics/expand", any(expand))
        .route("/metrics/expand/", any(expand))
        .route("/metrics/index.json", any(index))
}

/// `/metrics/find`; also `/metrics?query=…`.
pub async fn find(State(app): State<App>, params: Params) -> Answer {
    count(&app.stats.finds);
    if let Some(protocol) = Protocol::of(&params) {
        return carbonapi::find(app, params, protocol).await;
    }
    let limits = app.limits();
    let lane = Lane::of(params.get("query"), 0);
    app.compute(limits.budget.clone(), lane, move |app| {
        let found = find_now(app, &params, &limits);
        found
            .unwrap_or_else(|error| refusal(app, &error))
            .uncached()
    })
    .await
}

fn refusal(app: &App, error: &Error) -> Answer {
    let status = app.refuse(error);
    Answer::text(status, format!("Invalid parameters ({error})"))
}

fn find_now(app: &App, params: &Params, limits: &Limits) -> Result<Answer> {
    let format = params.get("format").unwrap_or("treejson");
    let leaves_only = whole(params, "leavesOnly", 0)? != 0;
    whole(params, "local", 0)?;
    let wildcards = whole(params, "wildcards", 0)? != 0;
    read_times(app, params)?;
    let position = whole(params, "position", -1)?;
    let variants = whole(params, "automatic_variants", 0)? != 0;
    let query = match params.get("query") {
        None => return Err(Error::refused("Missing required parameter 'query'")),
        Some("") => return Err(Error::refused("Required parameter 'query' is empty")),
        Some(query) => query,
    };
    let base = query.rfind('.').map_or("", |dot| &query[..=dot]);
    let pattern = if format == "completer" {
        completed(query, variants)
    } else {
        query.to_owned()
    };
    let budget = &limits.budget;
    let mut nodes = app.source.find(&pattern, budget)?;
    let n_all = nodes.len();
    nodes.retain(|node| node.leaf || !leaves_only);
    limits.check_series(n_all)?;
    reserve_answer(budget, &nodes, per_node(format))?;
    nodes.sort_by(|a, b| name(a).cmp(name(b)));
    budget.check()?;
    let shown = |value: Value| Answer::jsonp(&value, params, budget);
    match format {
        "treejson" => shown(tree(&nodes, base, wildcards)),
        "nodelist" => shown(by_position(&nodes, position)),
        "completer" => shown(completer(&nodes, wildcards)),
        "json" => {
            nodes.sort_by(|a, b| a.path.cmp(&b.path));
            let intervals = intervals(app, &nodes, budget)?;
            shown(with_intervals(&nodes, intervals))
        }
        "msgpack" => {
            let body = packed(&nodes, &intervals(app, &nodes, budget)?, budget)?;
            Ok(Answer::ok("application/x-msgpack", body))
        }
        "pickle" => {
            let body = pickled(&nodes, &intervals(app, &nodes, budget)?, budget)?;
            Ok(Answer::ok("application/pickle", body))
        }
        _ => Ok(Answer::text(
            StatusCode::BAD_REQUEST,
            "Invalid value for 'format' parameter",
        )),
    }
}

/// What a path takes in a list of JSON beside its text, with the list that it comes from.
const PER_PATH: usize = 384;

/// What a node takes in an answer of `format` beside its texts: in a tree of JSON, or in the list of
/// intervals. The text of an answer is reserved as it is written.
fn per_node(format: &str) -> usize {
    match format {
        "treejson" | "completer" => 1_536,
        "json" => 2_048,
        _ => PER_PATH,
    }
}

/// How often the path of a node stands in a tree of JSON at the most.
const PATHS_PER_NODE: usize = 2;

/// Sets the memory aside that takes `per_node` bytes for each of `nodes`, and their texts.
fn reserve_answer(budget: &Budget, nodes: &[Node], per_node: usize) -> Result<()> {
    let sizes = nodes
        .iter()
        .map(|node| per_node + PATHS_PER_NODE * node.path.len());
    budget.reserve(sizes.sum())
}

/// The last node of a path.
fn name(node: &Node) -> &str {
    node.path.rsplit('.').next().unwrap_or(&node.path)
}

fn whole(params: &Params, name: &str, otherwise: i64) -> Result<i64> {
    match params.get(name) {
        None => Ok(otherwise),
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| Error::refused(format!("Invalid int value {text:?} for param {name}"))),
    }
}

/// Times are checked and then mean nothing, as in graphite-web.
fn read_times(app: &App, params: &Params) -> Result<()> {
    let zone = params.get("tz").and_then(|name| TimeZone::get(name).ok());
    let zone = zone.unwrap_or_else(|| app.time_zone.clone());
    let mut now = app.now();
    for name in ["now", "from", "until"] {
        let Some(text) = params.get(name) else {
            continue;
        };
        if name != "now" && text == "-1" {
            continue;
        }
        let time = attime::parse(text, &zone, now).map_err(|error| {
            Error::refused(format!("Invalid value {text:?} for param {name}: {error}"))
        })?;
        if name == "now" {
            now = time;
        }
    }
    Ok(())
}

/// What a completer looks for when this much was typed.
fn completed(query: &str, variants: bool) -> String {
    let mut query = query.replace("..", "*.");
    if !query.ends_with('*') {
        query.push('*');
    }
    if !variants {
        return query;
    }
    let parts = query.split('.').map(|part| {
        if part.contains(',') && !part.contains('{') {
            format!("{{{part}}}")
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join(".")
}

fn tree(nodes: &[Node], base: &str, wildcards: bool) -> Value {
    let entry = |text: &str, id: String, leaf: bool| {
        let branch = i32::from(!leaf);
        json!({
            "text": text,
            "id": id,
            "allowChildren": branch,
            "expandable": branch,
            "leaf": i32::from(leaf),
        })
    };
    let mut all = Vec::with_capacity(nodes.len() + 1);
    if wildcards && nodes.len() > 1 {
        let leaves = nodes.iter().all(|node| node.leaf);
        all.push(entry("*", format!("{base}*"), leaves));
    }
    let mut leaves = Vec::new();
    let mut last = None;
    for node in nodes {
        let name = name(node);
        // A name that is branch and leaf comes once, as the branch.
        if last.replace(name) == Some(name) {
            continue;
        }
        let shown = entry(&unquoted(name), format!("{base}{name}"), node.leaf);
        if node.leaf {
            leaves.push(shown);
        } else {
            all.push(shown);
        }
    }
    all.append(&mut leaves);
    all.into()
}

/// `%41+b` as `A b`.
fn unquoted(name: &str) -> String {
    if !name.contains(['%', '+']) {
        return name.to_owned();
    }
    let escaped = name.replace('&', "%26").replace('=', "%3D");
    let mut pairs = form_urlencoded::parse(escaped.as_bytes());
    pairs
        .next()
        .map(|(name, _)| name.into_owned())
        .unwrap_or_default()
}

fn by_position(nodes: &[Node], position: i64) -> Value {
    let found: BTreeSet<&str> = nodes
        .iter()
        .filter_map(|node| {
            let parts: Vec<&str> = node.path.split('.').collect();
            let place = match position {
                0.. => usize::try_from(position).ok()?,
                _ => parts.len().checked_sub(usize::try_from(-position).ok()?)?,
            };
            parts.get(place).copied()
        })
        .collect();
    json!({ "nodes": found })
}

fn completer(nodes: &[Node], wildcards: bool) -> Value {
    let mut shown: Vec<Value> = nodes
        .iter()
        .map(|node| {
            let dot = if node.leaf { "" } else { "." };
            json!({
                "path": format!("{}{dot}", node.path),
                "name": name(node),
                "is_leaf": if node.leaf { "1" } else { "0" },
            })
        })
        .collect();
    if wildcards && shown.len() > 1 {
        shown.push(json!({ "name": "*" }));
    }
    // Moved: the macro would copy the list.
    Map::from_iter([("metrics".to_owned(), shown.into())]).into()
}

/// From when to when a leaf may hold points.
type Interval = Option<(f64, f64)>;

/// The interval of each of `nodes`, by the clock: each leaf's file is looked at.
fn intervals(app: &App, nodes: &[Node], budget: &Budget) -> Result<Vec<Interval>> {
    let now = Timestamp(u32::try_from(app.now()).unwrap_or(u32::MAX));
    let interval = |node: &Node| {
        budget.check()?;
        if !node.leaf {
            return Ok(None);
        }
        let reach = app.source.reach(&node.path, now).ok().flatten();
        Ok(reach.map(|(start, end)| (f64::from(start.0), f64::from(end.0))))
    };
    nodes.iter().map(interval).collect()
}

fn with_intervals(nodes: &[Node], intervals: Vec<Interval>) -> Value {
    let shown = nodes.iter().zip(intervals).map(|(node, interval)| {
        let mut shown = json!({ "path": node.path, "is_leaf": node.leaf });
        if node.leaf {
            let intervals = interval.map(|(start, end)| json!({ "start": start, "end": end }));
            shown["intervals"] = intervals.into_iter().collect();
        }
        shown
    });
    shown.collect()
}

fn packed(nodes: &[Node], intervals: &[Interval], budget: &Budget) -> Result<Buffer> {
    let mut out = Buffer::new(budget);
    let mut write = || -> std::io::Result<()> {
        write_array_len(&mut out, length(nodes.len()))?;
        for (node, interval) in nodes.iter().zip(intervals) {
            write_map_len(&mut out, if node.leaf { 3 } else { 2 })?;
            write_str(&mut out, "path")?;
            write_str(&mut out, &node.path)?;
            write_str(&mut out, "is_leaf")?;
            write_bool(&mut out, node.leaf)?;
            if node.leaf {
                write_str(&mut out, "intervals")?;
                write_array_len(&mut out, u32::from(interval.is_some()))?;
                if let Some((start, end)) = *interval {
                    write_array_len(&mut out, 2)?;
                    write_f64(&mut out, start)?;
                    write_f64(&mut out, end)?;
                }
            }
        }
        Ok(())
    };
    write().map_err(stopped)?;
    Ok(out)
}

/// What a node takes in a pickle beside its path.
const PICKLED_NODE: usize = 96;

fn pickled(nodes: &[Node], intervals: &[Interval], budget: &Budget) -> Result<Buffer> {
    let sizes = nodes.iter().map(|node| PICKLED_NODE + node.path.len());
    let room = 64 + sizes.sum::<usize>();
    let account = budget.account();
    account.reserve(room)?;
    let mut out = Vec::with_capacity(room);
    write::start(&mut out);
    write::list(&mut out, |out| {
        for (node, interval) in nodes.iter().zip(intervals) {
            write::dict(out, |out| {
                write::text(out, "path");
                write::text(out, &node.path);
                write::text(out, "is_leaf");
                write::bool(out, node.leaf);
                if node.leaf {
                    write::text(out, "intervals");
                    write::list(out, |out| {
                        if let Some((start, end)) = *interval {
                            write::tuple(out, |out| {
                                write::float(out, start);
                                write::float(out, end);
                            });
                        }
                    });
                }
            });
        }
    });
    write::stop(&mut out);
    Ok(Buffer::full(out, account))
}

async fn expand(State(app): State<App>, params: Params) -> Answer {
    count(&app.stats.finds);
    let limits = app.limits();
    let lane = Lane::of(params.list("query"), 0);
    app.compute(limits.budget.clone(), lane, move |app| {
        let found = expand_now(app, &params, &limits);
        found
            .unwrap_or_else(|error| refusal(app, &error))
            .uncached()
    })
    .await
}

fn expand_now(app: &App, params: &Params, limits: &Limits) -> Result<Answer> {
    let budget = &limits.budget;
    whole(params, "local", 0)?;
    let grouped = whole(params, "groupByExpr", 0)? != 0;
    let leaves_only = whole(params, "leavesOnly", 0)? != 0;
    let mut found = Vec::new();
    let queries = params.pairs().iter().filter(|(name, _)| name == "query");
    // The same query again finds the same.
    let mut seen = HashSet::new();
    let mut n_found = 0;
    for (_, query) in queries.filter(|(_, query)| seen.insert(query.as_str())) {
        budget.check()?;
        let paths = match query.as_str() {
            // The root, as in graphite-web.
            "" => Paths::new([""].into_iter().filter(|_| !leaves_only), budget)?,
            query => app.source.find_paths(query, leaves_only, budget)?,
        };
        n_found += paths.len();
        limits.check_series(n_found)?;
        found.push((query, paths));
    }
    if grouped {
        let results = Groups(found);
        return Answer::jsonp(&Expanded { results }, params, budget);
    }
    let results = match &found[..] {
        [(_, paths)] => paths.clone(),
        all => Paths::new(all.iter().flat_map(|(_, paths)| paths.iter()), budget)?,
    };
    Answer::jsonp(&Expanded { results }, params, budget)
}

/// The answer of `/metrics/expand`.
#[derive(Serialize)]
struct Expanded<T> {
    results: T,
}

/// The paths that each query finds.
struct Groups<'a>(Vec<(&'a String, Paths)>);

impl Serialize for Groups<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(query, paths)| (query, paths)))
    }
}

async fn index(State(app): State<App>, params: Params) -> Answer {
    let budget = app.limits().budget;
    app.compute(budget.clone(), Lane::Large, move |app| {
        let found = whole(&params, "local", 0)
            .and_then(|_| Ok(app.source.find_paths("**", true, &budget)?))
            .and_then(|paths| {
                budget.check()?;
                Answer::jsonp(&paths, &params, &budget)
            });
        found.unwrap_or_else(|error| refusal(app, &error))
    })
    .await
}
