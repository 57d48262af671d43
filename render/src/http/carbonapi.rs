//! What carbonapi asks a storage server: go-carbon's `carbonserver`, in `carbonapi_v2_pb` and
//! `carbonapi_v3_pb`.
//!
//! 1. `/render/` and `/metrics/find/` answer in these protocols when the request names one, by
//!    `format=` or, for version 3, by its `Accept` header; the patterns of version 3 are in the
//!    body, whatever the method.
//! 2. A target is a pattern or a `seriesByTag(…)` call, as go-carbon takes it: nothing is
//!    evaluated. Series are answered as they are stored, one message each.
//! 3. Answers come from this machine alone, without `render.peers`: carbonapi asks all of them itself, and
//!    so do they each other.
//! 4. An answer without a series or node is a 404, which carbonapi takes as an empty one.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::any;
use prost::Message;
use serde_json::{Value, json};

use super::flight::Key;
use super::pool::Lane;
use super::{Answer, App, Params};
use crate::attime;
use crate::context::{Limits, Query, Window};
use crate::error::{Error, Result};
use crate::format::carbonapi::{About, title, version_2, version_3};
use crate::format::{Buffer, Document};
use crate::protobuf::{decode, v2, v3};
use crate::series::{Series, Stored};
use crate::source::{Info, Node};
use crate::stats::count;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/_internal/capabilities", any(capabilities))
        .route("/_internal/capabilities/", any(capabilities))
        .route("/info", any(info))
        .route("/info/", any(info))
        .route("/metrics/list", any(list))
        .route("/metrics/list/", any(list))
}

/// The content type of version 3, also in `Accept`.
const VERSION_3: &str = "application/x-carbonapi-v3-pb";

/// The content type of version 2.
const VERSION_2: &str = "application/x-protobuf";

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    /// `carbonapi_v2_pb`: requests are parameters.
    Two,
    /// `carbonapi_v3_pb`: requests are messages in the body.
    Three,
}

impl Protocol {
    /// The protocol called `format`.
    pub(super) fn named(format: &str) -> Option<Self> {
        match format {
            "carbonapi_v2_pb" | "protobuf" | "protobuf3" => Some(Self::Two),
            "carbonapi_v3_pb" => Some(Self::Three),
            _ => None,
        }
    }

    /// The protocol that `params` ask for.
    pub(super) fn of(params: &Params) -> Option<Self> {
        if params.message().is_some() {
            return Some(Self::Three);
        }
        Self::named(params.get("format")?)
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Two => VERSION_2,
            Self::Three => VERSION_3,
        }
    }
}

/// Whether the headers ask for version 3.
pub(super) fn accepts_version_3(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.split(',').any(|kind| kind.trim() == VERSION_3))
}

/// A refusal in go-carbon's words.
fn refusal(app: &App, error: &Error) -> Answer {
    let status = app.refuse(error);
    if status == StatusCode::BAD_REQUEST {
        return Answer::text(status, format!("Bad request ({error})"));
    }
    Answer::text(status, error.to_string())
}

fn not_found() -> Answer {
    Answer::text(StatusCode::NOT_FOUND, "Not Found")
}

fn unsupported() -> Error {
    Error::refused("unsupported format")
}

/// A message as an answer, reserved before it is encoded.
fn encoded(message: &impl Message, protocol: Protocol, limits: &Limits) -> Result<Answer> {
    let mut out = Buffer::new(&limits.budget);
    message.encode_raw(out.room(message.encoded_len())?);
    Ok(Answer::ok(protocol.content_type(), out))
}

/// A pattern over a range, as `/render/` asks for it.
#[derive(Debug, Hash)]
struct Fetch {
    name: String,
    path_expression: String,
    window: Window,
}

/// `/render/` in one of the protocols.
pub(super) async fn render(app: App, params: Params, protocol: Protocol) -> Answer {
    let limits = app.limits();
    let wanted = match protocol {
        Protocol::Two => params
            .reserve_copies(2, &limits.budget)
            .and_then(|()| by_parameters(&app, &params)),
        Protocol::Three => by_message(params.message(), &limits),
    };
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => return refusal(&app, &error),
    };
    let now = app.now();
    let key = Key::of(&(protocol, &wanted, now));
    let seconds = |fetch: &Fetch| fetch.window.until.saturating_sub(fetch.window.from);
    let lane = Lane::of(
        wanted.iter().map(|fetch| fetch.name.as_str()),
        wanted.iter().map(seconds).max().unwrap_or(0),
    );
    let budget = limits.budget.clone();
    app.compute_once(key, budget, lane, move |app| {
        let answer = fetched(app, &wanted, protocol, &limits, now);
        let answer = answer.unwrap_or_else(|error| refusal(app, &error));
        answer.uncached()
    })
    .await
}

/// The targets of version 2, all over one range.
fn by_parameters(app: &App, params: &Params) -> Result<Vec<Fetch>> {
    let now = app.now();
    let time = |name: &str, otherwise: i64| match params.get(name) {
        None => Ok(otherwise),
        Some(text) => attime::parse(text, &app.time_zone, now)
            .map_err(|error| Error::refused(format!("invalid '{name}' time: {error}"))),
    };
    let window = Window {
        from: time("from", now - 86_400)?,
        until: time("until", now)?,
    };
    let targets = params.list("target").into_iter();
    Ok(targets
        .map(|target| Fetch {
            name: target.to_owned(),
            path_expression: target.to_owned(),
            window,
        })
        .collect())
}

/// The requests of version 3, each over a range of its own.
fn by_message(body: Option<&Bytes>, limits: &Limits) -> Result<Vec<Fetch>> {
    let body = body.map(Bytes::as_ref).unwrap_or_default();
    let request: v3::MultiFetchRequest = decode(body, &limits.budget)?;
    let metrics = request.metrics.into_iter();
    Ok(metrics
        .map(|metric| Fetch {
            window: Window {
                from: metric.start_time,
                until: metric.stop_time,
            },
            name: metric.name,
            path_expression: metric.path_expression,
        })
        .collect())
}

fn fetched(
    app: &App,
    wanted: &[Fetch],
    protocol: Protocol,
    limits: &Limits,
    now: i64,
) -> Result<Answer> {
    let mut query = Query::new(app.local_source(), now);
    query.limits = limits.clone();
    let patterns: Vec<(&str, Window)> = wanted
        .iter()
        .map(|fetch| (fetch.name.as_str(), fetch.window))
        .collect();
    let stored = query.stored(&patterns)?;
    if stored.is_empty() {
        return Ok(not_found());
    }
    let document = match protocol {
        Protocol::Two => version_2(stored.into_iter().map(|(_, s)| s.series).collect()),
        Protocol::Three => described(stored, wanted, limits)?,
    };
    super::render::send(app, &limits.budget, protocol.content_type(), document)
}

/// The document of version 3: each series with the expression and the range of its request.
fn described(stored: Vec<(usize, Stored)>, wanted: &[Fetch], limits: &Limits) -> Result<Document> {
    let mut all: Vec<Series> = Vec::with_capacity(stored.len());
    let mut about = Vec::with_capacity(stored.len());
    for (number, stored) in stored {
        let Fetch {
            path_expression,
            window,
            ..
        } = &wanted[number];
        let mut series = stored.series;
        limits.budget.reserve(path_expression.len())?;
        series.path_expression.clone_from(path_expression);
        all.push(series);
        about.push(About {
            aggregation: stored.aggregation,
            x_files_factor: stored.x_files_factor,
            request: *window,
        });
    }
    Ok(version_3(all, about))
}

/// `/metrics/find/` in one of the protocols.
pub(super) async fn find(app: App, params: Params, protocol: Protocol) -> Answer {
    let limits = app.limits();
    let queries = match protocol {
        // Version 2 answers the first pattern alone.
        Protocol::Two => {
            let queries = params.list("query").into_iter().take(1);
            Ok(queries.map(str::to_owned).collect())
        }
        Protocol::Three => patterns(params.message(), &limits),
    };
    let queries: Vec<String> = match queries {
        Ok(queries) if queries.is_empty() => {
            return refusal(&app, &Error::refused("no query"));
        }
        Ok(queries) => queries,
        Err(error) => return refusal(&app, &error),
    };
    let lane = Lane::of(queries.iter().map(String::as_str), 0);
    app.compute(limits.budget.clone(), lane, move |app| {
        let found = found(app, queries, protocol, &limits);
        found
            .unwrap_or_else(|error| refusal(app, &error))
            .uncached()
    })
    .await
}

/// The texts of a `MultiGlobRequest`.
fn patterns(body: Option<&Bytes>, limits: &Limits) -> Result<Vec<String>> {
    let body = body.map(Bytes::as_ref).unwrap_or_default();
    let request: v3::MultiGlobRequest = decode(body, &limits.budget)?;
    Ok(request.metrics)
}

fn found(app: &App, queries: Vec<String>, protocol: Protocol, limits: &Limits) -> Result<Answer> {
    let mut n_found = 0;
    let mut metrics = Vec::with_capacity(queries.len());
    for query in queries {
        limits.budget.check()?;
        // What is found is reserved by the source; messages hold the same texts.
        let nodes = app.local_source().find(&query, &limits.budget)?;
        n_found += nodes.len();
        limits.check_series(n_found)?;
        let matches = nodes.into_iter();
        let matches = matches.map(|Node { path, leaf }| v2::GlobMatch {
            path,
            is_leaf: leaf,
        });
        metrics.push(v2::GlobResponse {
            name: query,
            matches: matches.collect(),
        });
    }
    if n_found == 0 {
        return Ok(not_found());
    }
    match protocol {
        Protocol::Two => encoded(&metrics.swap_remove(0), protocol, limits),
        Protocol::Three => encoded(&v3::MultiGlobResponse { metrics }, protocol, limits),
    }
}

/// How the handlers of this file alone answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    Json,
    Protobuf(Protocol),
}

impl Output {
    /// JSON if the request does not say.
    fn of(params: &Params) -> Result<Self> {
        match (Protocol::of(params), params.get("format")) {
            (Some(protocol), _) => Ok(Self::Protobuf(protocol)),
            (None, None | Some("" | "json")) => Ok(Self::Json),
            (None, Some(_)) => Err(unsupported()),
        }
    }
}

async fn capabilities(State(app): State<App>, params: Params) -> Answer {
    let limits = app.limits();
    let answer = match Output::of(&params) {
        Ok(Output::Json) => Answer::json(
            &json!({
                "supportedProtocols": PROTOCOLS,
                "name": host_name(),
                "likeSplittedRequests": true,
            }),
            &params,
            &limits.budget,
        ),
        Ok(Output::Protobuf(Protocol::Three)) => {
            let message = v3::CapabilityResponse {
                supported_protocols: PROTOCOLS.iter().map(|&name| name.to_owned()).collect(),
                name: host_name(),
                like_splitted_requests: true,
                ..Default::default()
            };
            encoded(&message, Protocol::Three, &limits)
        }
        Ok(Output::Protobuf(Protocol::Two)) => Err(unsupported()),
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| refusal(&app, &error))
}

/// What storage clients may speak, the best first: carbonapi's `auto` takes the first.
const PROTOCOLS: &[&str] = &[
    "carbonapi_v3_pb",
    "carbonapi_v2_pb",
    "graphite-web-pickle",
    "graphite-web-pickle-1.1",
    "msgpack",
];

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let name = name.unwrap_or_default();
    match name.trim() {
        "" => "(unknown)".to_owned(),
        name => name.to_owned(),
    }
}

/// `/info?target=NAME`: retentions, aggregation and xFilesFactor of the series' file.
async fn info(State(app): State<App>, params: Params) -> Answer {
    let limits = app.limits();
    let output = Output::of(&params);
    let names = match output {
        Ok(Output::Protobuf(Protocol::Three)) => patterns(params.message(), &limits),
        _ => {
            let names = params.list("target").into_iter();
            Ok(names.map(str::to_owned).collect())
        }
    };
    let (output, names) = match (output, names) {
        (Ok(output), Ok(names)) => (output, names),
        (Err(error), _) | (_, Err(error)) => return refusal(&app, &error),
    };
    // Each reads the header of a file.
    let lane = Lane::of(names.iter().map(String::as_str), 0);
    app.compute(limits.budget.clone(), lane, move |app| {
        let described = info_now(app, names, output, &params, &limits);
        described.unwrap_or_else(|error| refusal(app, &error))
    })
    .await
}

/// The bytes that the layout of a file takes, as a message and as JSON.
const PER_INFO: usize = 8 << 10;

fn info_now(
    app: &App,
    names: Vec<String>,
    output: Output,
    params: &Params,
    limits: &Limits,
) -> Result<Answer> {
    limits.check_series(names.len())?;
    let mut metrics = Vec::new();
    for name in names {
        limits.budget.check()?;
        limits.budget.reserve(PER_INFO + 2 * name.len())?;
        let Some(info) = app.local_source().info(&name)? else {
            return Ok(Answer::text(StatusCode::NOT_FOUND, "Metric not found"));
        };
        metrics.push(described_file(name, &info));
        // Version 2 has one series.
        if output == Output::Protobuf(Protocol::Two) {
            break;
        }
    }
    if metrics.is_empty() {
        return Ok(not_found());
    }
    match output {
        Output::Json => {
            let metrics: Value = metrics.into_iter().map(info_as_json).collect();
            Answer::json(&json!({ "metrics": metrics }), params, &limits.budget)
        }
        Output::Protobuf(Protocol::Two) => {
            let protocol = Protocol::Two;
            encoded(&as_version_2(metrics.swap_remove(0)), protocol, limits)
        }
        Output::Protobuf(Protocol::Three) => {
            let message = v3::MultiMetricsInfoResponse { metrics };
            encoded(&message, Protocol::Three, limits)
        }
    }
}

fn described_file(name: String, info: &Info) -> v3::MetricsInfoResponse {
    let seconds = |retention: &whisper::Retention| {
        i64::from(retention.step.seconds()) * i64::from(retention.points)
    };
    let retentions = info.retentions.iter();
    v3::MetricsInfoResponse {
        name,
        consolidation_func: title(info.aggregation),
        max_retention: retentions.clone().map(seconds).max().unwrap_or(0),
        x_files_factor: info.x_files_factor,
        retentions: retentions
            .map(|retention| v3::Retention {
                seconds_per_point: i64::from(retention.step.seconds()),
                number_of_points: i64::from(retention.points),
            })
            .collect(),
    }
}

fn as_version_2(info: v3::MetricsInfoResponse) -> v2::InfoResponse {
    let small = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
    v2::InfoResponse {
        name: info.name,
        aggregation_method: info.consolidation_func,
        max_retention: small(info.max_retention),
        x_files_factor: info.x_files_factor,
        retentions: info
            .retentions
            .into_iter()
            .map(|retention| v2::Retention {
                seconds_per_point: small(retention.seconds_per_point),
                number_of_points: small(retention.number_of_points),
            })
            .collect(),
    }
}

/// As protobuf's own JSON has it: whole numbers of 64 bits are strings.
fn info_as_json(info: v3::MetricsInfoResponse) -> Value {
    let retentions = info.retentions.iter().map(|retention| {
        json!({
            "secondsPerPoint": retention.seconds_per_point.to_string(),
            "numberOfPoints": retention.number_of_points.to_string(),
        })
    });
    json!({
        "name": info.name,
        "consolidationFunc": info.consolidation_func,
        "maxRetention": info.max_retention.to_string(),
        "xFilesFactor": info.x_files_factor,
        "retentions": retentions.collect::<Value>(),
    })
}

/// `/metrics/list/`: the names of all series in the tree.
async fn list(State(app): State<App>, params: Params) -> Answer {
    count(&app.stats.finds);
    let limits = app.limits();
    let output = match Output::of(&params) {
        Ok(output) => output,
        Err(error) => return refusal(&app, &error),
    };
    app.compute(limits.budget.clone(), Lane::Large, move |app| {
        let listed = list_now(app, output, &params, &limits);
        listed.unwrap_or_else(|error| refusal(app, &error))
    })
    .await
}

fn list_now(app: &App, output: Output, params: &Params, limits: &Limits) -> Result<Answer> {
    let nodes = app.local_source().find("**", &limits.budget)?;
    let leaves = nodes.into_iter().filter(|node| node.leaf);
    let metrics: Vec<String> = leaves.map(|node| node.path).collect();
    limits.check_series(metrics.len())?;
    match output {
        Output::Json => {
            // The texts move into the tree of JSON, which takes more for each.
            let values = metrics.len() * size_of::<Value>();
            limits.budget.reserve(values)?;
            let metrics: Value = metrics.into_iter().collect();
            Answer::json(&json!({ "Metrics": metrics }), params, &limits.budget)
        }
        Output::Protobuf(protocol) => {
            let message = v2::ListMetricsResponse { metrics };
            encoded(&message, protocol, limits)
        }
    }
}
