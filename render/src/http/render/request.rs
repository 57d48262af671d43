//! What a request to `/render` asks, read from its parameters.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::attime;
use crate::context::{Limits, Window};
use crate::draw;
use crate::error::{Error, Result};
use crate::events::TagQuery;
use crate::format::{self, Format, json};
use crate::http::flight::Key;
use crate::http::pool::Lane;
use crate::http::{App, Params};
use crate::query;

/// The pixels of a picture that is always a large request.
const LARGE_PICTURE: u32 = 2_000_000;

/// The output of a request.
pub(super) enum Output {
    /// The series themselves.
    Series(&'static Format),
    /// A picture of them.
    Picture(Box<Picture>),
}

/// A request whose parameters have been read.
pub(super) struct Request {
    pub(super) targets: Vec<String>,
    pub(super) window: Window,
    pub(super) now: i64,
    pub(super) zone: TimeZone,
    pub(super) template: Arc<BTreeMap<String, String>>,
    pub(super) output: Output,
    pub(super) callback: Option<String>,
    pub(super) choice: json::Choice,
    pub(super) x_files_factor: f64,
    pub(super) strict: bool,
    /// Events beside the series in JSON.
    pub(super) meta: bool,
    pub(super) events: TagQuery,
    pub(super) max_age: u64,
    pub(super) limits: Limits,
}

/// How a picture is sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    Png,
    Svg,
    /// As numbers, for the page: without what it knows.
    Graph(draw::Known),
}

/// The parameters of a picture.
pub(super) struct Picture {
    /// How it is sent.
    pub(super) shape: Shape,
    pub(super) pie: bool,
    pub(super) params: draw::Params,
    /// All parameters of the request: equal pictures have equal ones.
    pairs: Vec<(String, String)>,
}

/// The times of a request.
struct Times {
    now: i64,
    window: Window,
    zone: TimeZone,
}

impl Request {
    pub(super) fn read(app: &App, params: &Params) -> Result<Self> {
        let graph_type = params.get("graphType").unwrap_or("line");
        if !matches!(graph_type, "line" | "pie") {
            return Err(Error::refused(format!(
                "Invalid graphType '{graph_type}', must be one of ['line', 'pie']"
            )));
        }
        let Times { now, window, zone } = times(app, params)?;
        let max_age = max_age(params)?;
        let flag = |name: &str| matches!(params.get(name), Some("1" | "true"));
        let (strict, is_pie) = (flag("strict"), graph_type == "pie");
        let format = format_name(params);
        let output = output(params, format, is_pie, strict)?;
        let events = events(app, params, &output)?;
        let digits = |name: &str| {
            let text = params.get(name)?;
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().unwrap_or(u64::MAX))
        };
        let limits = app.limits();
        // Targets and variables, to be read and for what is said of them; a picture also keeps all
        // parameters, to tell equal pictures.
        let n_copies = if matches!(output, Output::Picture(_)) {
            4
        } else {
            3
        };
        params.reserve_copies(n_copies, &limits.budget)?;
        // Only together with a format, as in graphite-web.
        let callback = params.get("format").and_then(|_| params.get("jsonp"));
        Ok(Self {
            targets: params
                .list("target")
                .into_iter()
                .map(|text| query::expand_tabs(text).into_owned())
                .collect(),
            window,
            now,
            template: Arc::new(template(params)),
            meta: format == "json" && !is_pie && flag("meta"),
            output,
            callback: callback.map(str::to_owned),
            choice: json::Choice {
                max_points: digits("maxDataPoints"),
                only_present: params.get("noNullPoints").is_some(),
                pretty: params.has_value("pretty"),
            },
            x_files_factor: number(params, "xFilesFactor", 0.0)?,
            strict,
            events,
            max_age,
            limits,
            zone,
        })
    }

    /// The lane for the amount of work that the request seems to be.
    pub(super) fn lane(&self) -> Lane {
        let large = |picture: &Picture| {
            let draw::Params { width, height, .. } = picture.params;
            width.saturating_mul(height) > LARGE_PICTURE
        };
        if let Output::Picture(picture) = &self.output
            && large(picture)
        {
            return Lane::Large;
        }
        let Window { from, until } = self.window;
        let targets = self.targets.iter().map(String::as_str);
        Lane::of(targets, until.saturating_sub(from))
    }

    /// The key of a request: equal requests over the same `generation` of events have equal
    /// answers.
    pub(super) fn key(&self, generation: u64) -> Key {
        Key::of(&(self, generation))
    }
}

impl Hash for Request {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self {
            targets,
            window,
            now,
            zone,
            template,
            output,
            callback,
            choice,
            x_files_factor,
            strict,
            meta,
            events,
            max_age,
            // The limits of the server, and a budget of the request's own.
            limits: _,
        } = self;
        (targets, window, now, zone.iana_name()).hash(hasher);
        (template, callback, choice, x_files_factor.to_bits()).hash(hasher);
        (strict, meta, events, max_age).hash(hasher);
        match output {
            Output::Series(format) => format.name.hash(hasher),
            Output::Picture(picture) => {
                // `params` is read from the pairs.
                let Picture {
                    shape,
                    pie,
                    params: _,
                    pairs,
                } = &**picture;
                (shape, pie, pairs).hash(hasher);
            }
        }
    }
}

fn times(app: &App, params: &Params) -> Result<Times> {
    let zone = params.get("tz").and_then(|name| TimeZone::get(name).ok());
    let zone = zone.unwrap_or_else(|| app.time_zone.clone());
    let time = |name: &str, now: i64, default: i64| match params.get(name) {
        None => Ok(default),
        Some(text) => attime::parse(text, &zone, now)
            .map_err(|error| Error::refused(format!("{name}: {error}"))),
    };
    let clock = app.now();
    let now = time("now", clock, clock)?;
    let until = time("until", now, now)?;
    let from = time("from", now, now - 86_400)?;
    if from == until {
        return Err(Error::refused("Invalid empty time range"));
    }
    let window = Window {
        from: from.min(until),
        until: from.max(until),
    };
    Ok(Times { now, window, zone })
}

fn number(params: &Params, name: &str, default: f64) -> Result<f64> {
    match params.get(name) {
        None => Ok(default),
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| Error::refused(format!("{name}: {text:?} is not a number"))),
    }
}

/// The seconds for which a client may keep the answer.
fn max_age(params: &Params) -> Result<u64> {
    let asked = match params.get("cacheTimeout") {
        None => 0,
        Some(text) => text
            .trim()
            .parse::<i64>()
            .map_err(|_| Error::refused(format!("cacheTimeout: {text:?} is not a whole number")))?,
    };
    match params.get("noCache") {
        Some(_) => Ok(0),
        None => Ok(u64::try_from(asked).unwrap_or(0)),
    }
}

/// The name of the format; `rawData` and `pickle` are the names of older clients.
fn format_name(params: &Params) -> &str {
    if let Some(format) = params.get("format") {
        return format;
    }
    let older = [("rawData", "raw"), ("pickle", "pickle")];
    let asked = older.iter().find(|(name, _)| params.get(name).is_some());
    asked.map_or("png", |(_, format)| format)
}

fn output(params: &Params, format: &str, is_pie: bool, strict: bool) -> Result<Output> {
    if format == "pdf" {
        return Err(Error::refused("format: pdf is not drawn, ask for svg"));
    }
    match format::named(format) {
        // A pie has no numbers to send.
        Some(format) if !is_pie => Ok(Output::Series(format)),
        // Any other name draws a PNG, as in graphite-web.
        None if strict && !["png", "svg", "graph"].contains(&format) => {
            Err(Error::refused(format!("format: {format:?} is not known")))
        }
        _ => Ok(Output::Picture(Box::new(Picture {
            shape: match format {
                "svg" => Shape::Svg,
                "graph" if !is_pie => Shape::Graph(draw::Known {
                    since: since(params)?,
                    layout: params.get("layout").map(str::to_owned),
                }),
                _ => Shape::Png,
            },
            pie: is_pie,
            params: draw::Params::from_pairs(params.pairs()),
            pairs: params.pairs().to_vec(),
        }))),
    }
}

/// The timestamp from which on the values of a graph are sent.
fn since(params: &Params) -> Result<Option<i64>> {
    let read = |text: &str| {
        let number = text.parse();
        number.map_err(|_| Error::refused(format!("since: {text:?} is not a whole number")))
    };
    params.get("since").map(read).transpose()
}

/// The events to show; pictures show the default ones unless `events` is set.
fn events(app: &App, params: &Params, output: &Output) -> Result<TagQuery> {
    match (params.get("events"), output) {
        (Some("none"), _) => Ok(TagQuery::default()),
        (Some(expression), _) => expression
            .parse()
            .map_err(|error| Error::refused(format!("events: {error}"))),
        (None, Output::Picture(_)) => Ok(app.default_events.clone()),
        (None, Output::Series(_)) => Ok(TagQuery::default()),
    }
}

/// The variables of `template[NAME]=VALUE`.
fn template(params: &Params) -> BTreeMap<String, String> {
    let variables = params.pairs().iter().filter_map(|(name, value)| {
        let name = name.strip_prefix("template[")?;
        let name = name.strip_suffix(']').unwrap_or(name);
        Some((name.to_owned(), value.clone()))
    });
    variables.collect()
}
