//! `/render`: targets in, series out.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::routing::any;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

use super::answer::JAVASCRIPT;
use super::flight::Key;
use super::pool::Lane;
use super::{Answer, App, Content, JSON, Params, Stream};
use crate::attime;
use crate::context::{Limits, Query, Window};
use crate::draw;
use crate::error::{Error, Result};
use crate::events::{Event, TagQuery};
use crate::format::{self, Buffer, Document, Format, Wanted, buffer, json};
use crate::query::{self, Expression};
use crate::series::Series;
use crate::stats::count;

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
enum Output {
    /// The series themselves.
    Series(&'static Format),
    /// A picture of them.
    Picture(Box<Picture>),
}

/// A request understood.
struct Request {
    targets: Vec<String>,
    window: Window,
    now: i64,
    zone: TimeZone,
    template: BTreeMap<String, String>,
    output: Output,
    callback: Option<String>,
    choice: json::Choice,
    x_files_factor: f64,
    strict: bool,
    /// Events beside the series in JSON.
    meta: bool,
    events: TagQuery,
    max_age: u64,
    limits: Limits,
}

/// What a picture needs beside its series.
struct Picture {
    /// SVG, else PNG.
    is_svg: bool,
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
        let output = match format::named(format) {
            // A pie has no numbers to send.
            Some(format) if !pie => Output::Series(format),
            // Any other name draws a PNG, as in graphite-web.
            None if strict && !["png", "svg"].contains(&format) => {
                return Err(Error::refused(format!("format: {format:?} is not known")));
            }
            _ => Output::Picture(Box::new(Picture {
                is_svg: format == "svg",
                pie,
                params: draw::Params::from_pairs(params.pairs()),
                pairs: params.pairs().to_vec(),
            })),
        };
        let meta = format == "json" && !pie && matches!(params.get("meta"), Some("1" | "true"));
        let events = match params.get("events") {
            Some("none") => TagQuery::default(),
            Some(expression) => expression
                .parse()
                .map_err(|error| Error::refused(format!("events: {error}")))?,
            None if matches!(output, Output::Picture(_)) => app.default_events.clone(),
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
                .map(|text| query::expand_tabs(text).into_owned())
                .collect(),
            window: Window {
                from: from.min(until),
                until: from.max(until),
            },
            now,
            template: template.collect(),
            output,
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
        if let Output::Picture(picture) = &self.output
            && large(picture)
        {
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
            output,
            callback,
            choice,
            x_files_factor,
            strict,
            meta,
            events,
            max_age,
            limits: _,
        } = self;
        let zone = zone.iana_name();
        let (output, pairs) = match output {
            Output::Series(format) => (format.name, None),
            Output::Picture(picture) if picture.is_svg => ("svg", Some(&picture.pairs)),
            Output::Picture(picture) => ("png", Some(&picture.pairs)),
        };
        Key::of(format_args!(
            "{targets:?} {window:?} {now} {zone:?} {template:?} {output:?} {callback:?} \
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
                let name = match &self.output {
                    Output::Series(format) => Some(format.name),
                    Output::Picture(_) => None,
                };
                let targets: Vec<&str> = self.targets.iter().map(String::as_str).collect();
                refusal(app, &error, name, &targets)
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
        let budget = &self.limits.budget;
        if picture.pie {
            let slices = self.slices(app, picture, ignored)?;
            return Ok(draw::draw_pie(&picture.params, &slices, budget)?);
        }
        let series = self.evaluate(app, &self.targets, ignored)?;
        let window = draw::Window {
            from: self.window.from,
            until: self.window.until,
            zone: self.zone.clone(),
        };
        let events = self.events(app)?;
        Ok(draw::draw(
            &picture.params,
            &series,
            &window,
            &events,
            budget,
        )?)
    }

    /// A slice for each target that is written out as `name:value`, and for each series of others.
    fn slices(
        &self,
        app: &App,
        picture: &Picture,
        ignored: &mut Vec<String>,
    ) -> Result<Vec<draw::Slice>> {
        let budget = &self.limits.budget;
        let mut slices = Vec::new();
        for target in &self.targets {
            if let Some(slice) = draw::Slice::literal(target) {
                slices.push(slice);
                continue;
            }
            let series = self.evaluate(app, std::slice::from_ref(target), ignored)?;
            let mode = picture.params.pie_mode;
            for series in &series {
                budget.check()?;
                budget.reserve(size_of::<draw::Slice>() + series.name.len())?;
                slices.push(draw::Slice::of(series, mode));
            }
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
            budget.reserve(query::size_of_parsed(text))?;
            let parsed = query::parse(text)?;
            if let Some(position) = parsed.rest {
                let rest = &text[position..];
                if self.strict {
                    return Err(Error::Target {
                        message: format!("{:?} is not valid here", first_word(rest)),
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
        match &self.output {
            Output::Series(format) => self.write_series(app, format, ignored),
            Output::Picture(picture) => {
                let scene = self.draw(app, picture, ignored)?;
                match picture.is_svg {
                    true => self.write_svg(&scene),
                    false => Ok(Answer::ok("image/png", scene.png()?)),
                }
            }
        }
    }

    /// A drawing as SVG, or with `jsonp=` the text of it as a call, or as JSON if that is empty.
    fn write_svg(&self, scene: &draw::Scene) -> Result<Answer> {
        let Some(callback) = self.callback.as_deref() else {
            return Ok(
                Answer::ok(SVG, scene.svg()?).with(header::CONTENT_SECURITY_POLICY, SVG_POLICY)
            );
        };
        let callback = match Answer::callback(Some(callback)) {
            Ok(callback) => callback,
            Err(refusal) => return Ok(refusal),
        };
        let svg = scene.svg()?;
        let mut out = Buffer::new(&self.limits.budget);
        if let Some(name) = callback {
            out.push_str(name)?;
            out.push_str("(")?;
        }
        let svg = std::str::from_utf8(&svg).unwrap_or_default();
        format::push_text(out.room(format::text_room(svg))?, svg);
        if callback.is_none() {
            return Ok(Answer::ok(JSON, out));
        }
        out.push_str(")")?;
        Ok(Answer::ok(JAVASCRIPT, out))
    }

    fn write_series(
        &self,
        app: &App,
        format: &'static Format,
        ignored: &mut Vec<String>,
    ) -> Result<Answer> {
        let budget = &self.limits.budget;
        let series = self.evaluate(app, &self.targets, ignored)?;
        let wanted = Wanted {
            choice: self.choice,
            zone: &self.zone,
        };
        let mut document = (format.document)(series, &wanted, budget)?;
        if self.meta {
            let mut after = Buffer::new(budget);
            after.push_str(",\"events\":")?;
            serde_json::to_writer(&mut after, &self.events(app)?)
                .map_err(|error| buffer::stopped(error.into()))?;
            after.push_str("}")?;
            document = document.within(b"{\"series\":", after);
        }
        if !format.is_json {
            return self.send(app, format.content_type, document);
        }
        match Answer::callback(self.callback.as_deref()) {
            Ok(None) => self.send(app, format.content_type, document),
            Ok(Some(name)) => {
                let mut after = Buffer::new(budget);
                after.push_str(")")?;
                let document = document.within(format!("{name}(").as_bytes(), after);
                self.send(app, JAVASCRIPT, document)
            }
            Err(refusal) => Ok(refusal),
        }
    }

    /// A document as an answer: whole if it is small, else formatted while it is sent.
    fn send(&self, app: &App, content_type: &'static str, document: Document) -> Result<Answer> {
        let budget = &self.limits.budget;
        let (least, limit) = (document.least_size(), budget.memory().limit());
        if limit > 0 && least > limit {
            return Err(Error::Limit {
                what: format!("the answer would have {least} bytes or more"),
                key: "render.max_memory",
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            });
        }
        if document.usual_size() <= WHOLE_UP_TO {
            return Ok(Answer::ok(content_type, document.whole(budget)?));
        }
        let stream = Stream::new(app.clone(), document, budget.clone());
        Ok(Answer::ok(content_type, Content::Stream(stream)))
    }
}

/// Answers up to about this size are held whole: equal requests share the bytes.
const WHOLE_UP_TO: u64 = 8 * 1024 * 1024;

const SVG: &str = "image/svg+xml";

/// A picture runs nothing and fetches nothing, whatever stands in it; its colours are styles.
const SVG_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// As much of `text` as a message should quote.
fn first_word(text: &str) -> String {
    text.chars().take(20).collect()
}

/// A refusal: JSON with the place in the target for who asked for JSON, else graphite-web's text.
fn refusal(app: &App, error: &Error, format: Option<&str>, targets: &[&str]) -> Answer {
    let status = app.refuse(error);
    let is_json = format
        .and_then(format::named)
        .is_some_and(|format| format.is_json);
    if !is_json {
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
    Answer::value(status, &body)
}
