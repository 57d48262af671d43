//! `/render`: targets in, series out.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::any;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

use super::flight::Key;
use super::pool::Lane;
use super::{Answer, App, JSON, Params};
use crate::attime;
use crate::draw;
use crate::error::{Error, Result};
use crate::eval::{Limits, Query, Window};
use crate::events::{Event, TagQuery};
use crate::format::{self, csv, dygraph, json, msgpack, pickle, raw, rickshaw};
use crate::series::Series;
use crate::stats::count;
use crate::target::{self, Expression};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/render", any(handle))
        .route("/render/", any(handle))
}

/// Says which parts of targets had no meaning and were left out.
const IGNORED: HeaderName = HeaderName::from_static("x-plumbago-ignored");

async fn handle(State(app): State<App>, params: Params) -> Answer {
    count(&app.stats.renders);
    let request = match Request::read(&app, &params) {
        Ok(request) => request,
        Err(error) => return refusal(&app, &error, params.get("format"), &params.list("target")),
    };
    let key = request.key(app.events.generation());
    let (budget, lane) = (request.limits.budget.clone(), request.lane());
    let answer = app.compute_once(key, budget, lane, move |app| request.answer(app));
    answer.await
}

/// The pixels of a picture that takes its time whatever it shows.
const LARGE_PICTURE: u32 = 2_000_000;

/// What is sent back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Png,
    Svg,
    Json,
    Csv,
    Raw,
    Pickle,
    Msgpack,
    Dygraph,
    Rickshaw,
}

impl Format {
    /// What no other format is called draws a PNG, as in graphite-web.
    fn named(name: &str) -> Self {
        match name {
            "svg" => Self::Svg,
            "json" => Self::Json,
            "csv" => Self::Csv,
            "raw" => Self::Raw,
            "pickle" => Self::Pickle,
            "msgpack" => Self::Msgpack,
            "dygraph" => Self::Dygraph,
            "rickshaw" => Self::Rickshaw,
            _ => Self::Png,
        }
    }
}

/// A request understood.
struct Request {
    targets: Vec<String>,
    window: Window,
    now: i64,
    zone: TimeZone,
    template: BTreeMap<String, String>,
    format: Format,
    callback: Option<String>,
    choice: json::Choice,
    x_files_factor: f64,
    strict: bool,
    /// Events beside the series in JSON.
    meta: bool,
    events: TagQuery,
    picture: Option<Picture>,
    max_age: u64,
    limits: Limits,
}

/// What a picture needs beside its series.
struct Picture {
    pie: bool,
    params: draw::Params,
    /// All that was asked: two pictures are equal if all of it is.
    pairs: Vec<(String, String)>,
}

impl Request {
    fn read(app: &App, params: &Params) -> Result<Self> {
        let graph_type = params.get("graphType").unwrap_or("line");
        if !matches!(graph_type, "line" | "pie") {
            return Err(Error::refused(format!(
                "Invalid graphType '{graph_type}', must be one of ['line', 'pie']"
            )));
        }
        let zone = params.get("tz").and_then(|name| TimeZone::get(name).ok());
        let zone = zone.unwrap_or_else(|| app.time_zone.clone());
        let clock = app.now();
        let moment = |name: &str, now: i64| {
            let text = params.get(name)?;
            let moment = attime::parse(text, &zone, now);
            Some(moment.map_err(|error| Error::refused(format!("{name}: {error}"))))
        };
        let now = moment("now", clock).transpose()?.unwrap_or(clock);
        let until = moment("until", now).transpose()?.unwrap_or(now);
        let from = moment("from", now).transpose()?.unwrap_or(now - 86_400);
        if from == until {
            return Err(Error::refused("Invalid empty time range"));
        }
        let number = |name: &str, otherwise: f64| match params.get(name) {
            None => Ok(otherwise),
            Some(text) => text
                .trim()
                .parse()
                .map_err(|_| Error::refused(format!("{name}: {text:?} is not a number"))),
        };
        let max_age = match params.get("cacheTimeout") {
            None => 0,
            Some(text) => text.trim().parse::<i64>().map_err(|_| {
                Error::refused(format!("cacheTimeout: {text:?} is not a whole number"))
            })?,
        };
        let digits = |name: &str| {
            let text = params.get(name)?;
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| text.parse().unwrap_or(u64::MAX))
        };
        let mut format = None;
        if params.get("pickle").is_some() {
            format = Some("pickle");
        }
        if params.get("rawData").is_some() {
            format = Some("raw");
        }
        let asked = params.get("format");
        let format = asked.or(format).unwrap_or("png");
        // Only together with a format, as in graphite-web.
        let callback = asked.and_then(|_| params.get("jsonp"));
        let strict = matches!(params.get("strict"), Some("1" | "true"));
        if format == "pdf" {
            return Err(Error::refused("format: pdf is not drawn, ask for svg"));
        }
        let pie = graph_type == "pie";
        let format = match Format::named(format) {
            Format::Png if strict && format != "png" => {
                return Err(Error::refused(format!("format: {format:?} is not known")));
            }
            // A pie has no numbers to send.
            format if pie && format != Format::Svg => Format::Png,
            format => format,
        };
        let meta = format == Format::Json && matches!(params.get("meta"), Some("1" | "true"));
        let picture = matches!(format, Format::Png | Format::Svg).then(|| Picture {
            pie,
            params: draw::Params::from_pairs(params.pairs()),
            pairs: params.pairs().to_vec(),
        });
        let events = match params.get("events") {
            Some("none") => TagQuery::default(),
            Some(expression) => expression
                .parse()
                .map_err(|error| Error::refused(format!("events: {error}")))?,
            None if picture.is_some() => app.default_events.clone(),
            None => TagQuery::default(),
        };
        let template = params.pairs().iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("template[")?;
            let name = name.strip_suffix(']').unwrap_or(name);
            Some((name.to_owned(), value.clone()))
        });
        Ok(Self {
            targets: params
                .list("target")
                .into_iter()
                .map(|text| target::expand_tabs(text).into_owned())
                .collect(),
            window: Window {
                from: from.min(until),
                until: from.max(until),
            },
            now,
            template: template.collect(),
            format,
            callback: callback.map(str::to_owned),
            choice: json::Choice {
                max_points: digits("maxDataPoints"),
                only_present: params.get("noNullPoints").is_some(),
                pretty: params.has_value("pretty"),
            },
            x_files_factor: number("xFilesFactor", 0.0)?,
            strict,
            meta,
            events,
            picture,
            max_age: match params.get("noCache") {
                Some(_) => 0,
                None => u64::try_from(max_age).unwrap_or(0),
            },
            limits: app.limits(),
            zone,
        })
    }

    /// How much work it looks like.
    fn lane(&self) -> Lane {
        let large = |picture: &Picture| {
            let draw::Params { width, height, .. } = picture.params;
            width.saturating_mul(height) > LARGE_PICTURE
        };
        if self.picture.as_ref().is_some_and(large) {
            return Lane::Large;
        }
        let Window { from, until } = self.window;
        let targets = self.targets.iter().map(String::as_str);
        Lane::of(targets, until.saturating_sub(from))
    }

    /// What makes two requests equal: what they ask, and the events that there are.
    fn key(&self, generation: u64) -> Key {
        let Self {
            targets,
            window,
            now,
            zone,
            template,
            format,
            callback,
            choice,
            x_files_factor,
            strict,
            meta,
            events,
            picture,
            max_age,
            limits: _,
        } = self;
        let zone = zone.iana_name();
        let pairs = picture.as_ref().map(|picture| &picture.pairs);
        Key::of(format_args!(
            "{targets:?} {window:?} {now} {zone:?} {template:?} {format:?} {callback:?} \
             {choice:?} {x_files_factor} {strict} {meta} {events:?} {pairs:?} {max_age} \
             {generation}"
        ))
    }

    fn answer(self, app: &App) -> Answer {
        let mut ignored = Vec::new();
        match self.write(app, &mut ignored) {
            Ok(mut answer) => {
                if !ignored.is_empty() {
                    answer = answer.with(IGNORED, &ignored.join("; "));
                }
                match self.max_age {
                    0 => answer.uncached(),
                    // What a browser keeps must not be older than the newest event on it.
                    _ if self.shows_events() => answer.uncached(),
                    age => answer.with(header::CACHE_CONTROL, &format!("max-age={age}")),
                }
            }
            Err(error) => {
                let machine = matches!(
                    self.format,
                    Format::Json | Format::Dygraph | Format::Rickshaw
                );
                let targets: Vec<&str> = self.targets.iter().map(String::as_str).collect();
                refusal(app, &error, machine.then_some("json"), &targets)
            }
        }
    }

    fn shows_events(&self) -> bool {
        !self.events.is_empty() || self.targets.iter().any(|target| target.contains("events("))
    }

    /// The events that were asked for, as they look.
    fn events(&self, app: &App) -> Result<Vec<Event>> {
        let Window { from, until } = self.window;
        // Windows are whole seconds and events are not: the last second counts to its end.
        let last = until as f64 + 0.999_999;
        let (from, until, now) = (from as f64, last, self.now as f64);
        Ok(app.events.overlay(&self.events, from, until, now)?)
    }

    fn draw(&self, app: &App, picture: &Picture, ignored: &mut Vec<String>) -> Result<draw::Scene> {
        let refuse = |error: draw::Error| Error::refused(error.to_string());
        if picture.pie {
            return draw::draw_pie(&picture.params, &self.slices(app, picture, ignored)?)
                .map_err(refuse);
        }
        let series = self.evaluate(app, &self.targets, ignored)?;
        let window = draw::Window {
            from: self.window.from,
            until: self.window.until,
            zone: self.zone.clone(),
        };
        draw::draw(&picture.params, &series, &window, &self.events(app)?).map_err(refuse)
    }

    /// A slice for each target that is written out as `name:value`, and for each series of others.
    fn slices(
        &self,
        app: &App,
        picture: &Picture,
        ignored: &mut Vec<String>,
    ) -> Result<Vec<draw::Slice>> {
        let mut slices = Vec::new();
        for target in &self.targets {
            if let Some(slice) = draw::Slice::literal(target) {
                slices.push(slice);
                continue;
            }
            let series = self.evaluate(app, std::slice::from_ref(target), ignored)?;
            let mode = picture.params.pie_mode;
            slices.extend(series.iter().map(|series| draw::Slice::of(series, mode)));
        }
        Ok(slices)
    }

    /// The series of `texts`; what of them had no meaning goes to `ignored`.
    fn evaluate(
        &self,
        app: &App,
        texts: &[String],
        ignored: &mut Vec<String>,
    ) -> Result<Vec<Series>> {
        let mut targets: Vec<Expression> = Vec::new();
        for (number, text) in texts.iter().enumerate() {
            if text.trim().is_empty() {
                continue;
            }
            let budget = &self.limits.budget;
            budget.check()?;
            budget.reserve(target::size_of_parsed(text))?;
            let parsed = target::parse(text)?;
            if let Some(position) = parsed.rest {
                let rest = &text[position..];
                if self.strict {
                    return Err(Error::Target {
                        message: format!("{:?} cannot stand here", first_word(rest)),
                        target: text.clone(),
                        position,
                    });
                }
                let number = number + 1;
                let word = first_word(rest).escape_default().to_string();
                ignored.push(format!("target {number} from character {position}: {word}"));
            }
            targets.push(parsed.expression);
        }
        let mut query = Query::new(&*app.source, self.now);
        query.events = Some(&app.events);
        query.time_zone = self.zone.clone();
        query.template = self.template.clone();
        query.strict = self.strict;
        query.limits = self.limits.clone();
        let series = query.evaluate(&targets, self.window, self.x_files_factor)?;
        ignored.append(&mut query.take_notes());
        Ok(series)
    }

    fn write(&self, app: &App, ignored: &mut Vec<String>) -> Result<Answer> {
        let callback = self.callback.as_deref();
        if let Some(picture) = &self.picture {
            let scene = self.draw(app, picture, ignored)?;
            return Ok(match (self.format, callback) {
                (Format::Svg, None) => Answer::ok("image/svg+xml", scene.svg()),
                (Format::Svg, callback) => {
                    let mut text = Vec::new();
                    format::push_text(&mut text, &scene.svg());
                    Answer::jsonp(text, callback)
                }
                _ => Answer::ok("image/png", scene.png()),
            });
        }
        let series = self.evaluate(app, &self.targets, ignored)?;
        Ok(match self.format {
            Format::Json => {
                let mut body = json::write(series, self.choice)?;
                if self.meta {
                    let events = serde_json::to_vec(&self.events(app)?).unwrap_or_default();
                    let parts: [&[u8]; 5] =
                        [b"{\"series\":", &body, b",\"events\":", &events, b"}"];
                    body = parts.concat();
                }
                Answer::jsonp(body, callback)
            }
            Format::Rickshaw => Answer::jsonp(rickshaw::write(&series), callback),
            Format::Dygraph => Answer::jsonp(dygraph::write(&series), callback),
            Format::Csv => Answer::ok("text/csv", csv::write(&series, &self.zone)),
            Format::Raw => Answer::ok("text/plain", raw::write(&series)),
            Format::Pickle => Answer::ok("application/pickle", pickle::write(&series)),
            Format::Msgpack | Format::Png | Format::Svg => {
                Answer::ok("application/x-msgpack", msgpack::write(&series))
            }
        })
    }
}

/// As much of `text` as a message should quote.
fn first_word(text: &str) -> String {
    text.chars().take(20).collect()
}

/// A refusal: JSON with the place in the target for who asked for JSON, else graphite-web's text.
fn refusal(app: &App, error: &Error, format: Option<&str>, targets: &[&str]) -> Answer {
    let status = app.refuse(error);
    let machine = matches!(format, Some("json" | "dygraph" | "rickshaw"));
    if !machine {
        let mut text = format!("Invalid parameters ({error})");
        if status != StatusCode::BAD_REQUEST {
            text = error.to_string();
        } else if !targets.is_empty() {
            text += &format!("; targets: \"{}\"", targets.join(", "));
        }
        return Answer::text(status, text);
    }
    let mut body = serde_json::json!({ "error": error.to_string() });
    match error {
        Error::Target {
            message,
            target,
            position,
        } => {
            body = serde_json::json!({ "error": message, "target": target, "position": position });
        }
        _ if !targets.is_empty() => body["target"] = targets.join(", ").into(),
        _ => {}
    }
    Answer {
        status,
        ..Answer::ok(JSON, body.to_string())
    }
}
