//! `/render`: targets in, series out.

mod graph;
mod request;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::routing::{any, get};

use self::request::{Output, Picture, Request, Shape};
use super::answer::JAVASCRIPT;
use super::carbonapi::{self, Protocol};
use super::negotiate::{negotiated, packed};
use super::{Answer, App, Content, JSON, Params, Stream};
use crate::budget::Budget;
use crate::context::{Query, Window};
use crate::draw;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::format::{self, Buffer, Document, Format, Wanted, buffer};
use crate::query::{self, Expression};
use crate::series::Series;
use crate::stats::count;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/render", any(handle))
        .route("/render/", any(handle))
        .route("/graph/{name}", get(graph::graph))
}

/// Says which parts of targets had no meaning and were left out.
const IGNORED: HeaderName = HeaderName::from_static("x-plumbago-ignored");

/// What the header says at most, in bytes: proxies and clients refuse answers with long heads.
const MAX_IGNORED: usize = 2_048;

/// The parts of the targets that had no effect, a sentence each.
#[derive(Default)]
struct Ignored {
    sentences: String,
    /// Those for which there was no room.
    n_more: usize,
}

impl Ignored {
    fn push(&mut self, sentence: &str) {
        if self.n_more > 0 || self.sentences.len() + sentence.len() > MAX_IGNORED {
            self.n_more += 1;
            return;
        }
        if !self.sentences.is_empty() {
            self.sentences += "; ";
        }
        self.sentences += sentence;
    }

    /// The header; `None` if all had an effect.
    fn said(self) -> Option<String> {
        let Self { sentences, n_more } = self;
        match (sentences.is_empty(), n_more) {
            (true, 0) => None,
            (false, 0) => Some(sentences),
            (true, n) => Some(format!("{n} parts of the targets")),
            (false, n) => Some(format!("{sentences}; and {n} more")),
        }
    }
}

async fn handle(State(app): State<App>, headers: HeaderMap, params: Params) -> Answer {
    count(&app.stats.renders);
    if let Some(protocol) = Protocol::of(&params) {
        return carbonapi::render(app, params, protocol).await;
    }
    let request = match Request::read(&app, &params) {
        Ok(request) => request,
        Err(error) => return refusal(&app, &error, params.get("format"), &params.list("target")),
    };
    let key = request.key(app.events.generation());
    let (budget, lane) = (request.limits.budget.clone(), request.lane());
    let known = request.known().cloned();
    let answer = app.compute_once(key, budget, lane, move |app| request.answer(app));
    match known {
        None => answer.await,
        // Nobody asks for the newest part of a graph twice: it needs no tag.
        Some(known) if known.since.is_some() => packed(&headers, answer.await.kept("no-store")),
        Some(_) => negotiated(&headers, answer.await.kept("no-cache")),
    }
}

impl Request {
    fn answer(self, app: &App) -> Answer {
        let mut ignored = Ignored::default();
        match self.write(app, &mut ignored) {
            Ok(mut answer) => {
                if let Some(said) = ignored.said() {
                    answer = answer.with(IGNORED, &said);
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
                    Output::Picture(_) if self.known().is_some() => Some("graph"),
                    Output::Picture(_) => None,
                };
                let targets: Vec<&str> = self.targets.iter().map(String::as_str).collect();
                refusal(app, &error, name, &targets)
            }
        }
    }

    /// What the client has of a graph that is asked for as numbers.
    fn known(&self) -> Option<&draw::Known> {
        let Output::Picture(picture) = &self.output else {
            return None;
        };
        match &picture.shape {
            Shape::Graph(known) => Some(known),
            _ => None,
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

    fn draw(&self, app: &App, picture: &Picture, ignored: &mut Ignored) -> Result<draw::Scene> {
        let budget = &self.limits.budget;
        if picture.pie {
            let slices = self.slices(app, picture, ignored)?;
            return Ok(draw::draw_pie(&picture.params, &slices, budget)?);
        }
        let series = self.evaluate(app, &self.targets, ignored)?;
        let events = self.events(app)?;
        let window = self.drawn_window();
        Ok(draw::draw(
            &picture.params,
            &series,
            &window,
            &events,
            budget,
        )?)
    }

    fn drawn_window(&self) -> draw::Window {
        draw::Window {
            from: self.window.from,
            until: self.window.until,
            zone: self.zone.clone(),
        }
    }

    /// A picture as numbers, which the page draws.
    fn write_graph(
        &self,
        app: &App,
        picture: &Picture,
        known: &draw::Known,
        ignored: &mut Ignored,
    ) -> Result<Answer> {
        let series = self.evaluate(app, &self.targets, ignored)?;
        let (events, window) = (self.events(app)?, self.drawn_window());
        let budget = &self.limits.budget;
        let graph = draw::graph(&picture.params, &series, &window, &events, known, budget)?;
        Ok(Answer::ok(JSON, graph))
    }

    /// A slice for each target that is written out as `name:value`, and for each series of others.
    fn slices(
        &self,
        app: &App,
        picture: &Picture,
        ignored: &mut Ignored,
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
    fn evaluate(&self, app: &App, texts: &[String], ignored: &mut Ignored) -> Result<Vec<Series>> {
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
                ignored.push(&format!(
                    "target {number} from character {position}: {word}"
                ));
            }
            targets.push(parsed.expression);
        }
        let mut query = Query::new(&*app.source, self.now);
        query.events = Some(&app.events);
        query.time_zone = self.zone.clone();
        query.template = Arc::clone(&self.template);
        query.strict = self.strict;
        query.limits = self.limits.clone();
        let series = query.evaluate(&targets, self.window, self.x_files_factor)?;
        for note in query.take_notes() {
            ignored.push(&note);
        }
        Ok(series)
    }

    fn write(&self, app: &App, ignored: &mut Ignored) -> Result<Answer> {
        match &self.output {
            Output::Series(format) => self.write_series(app, format, ignored),
            Output::Picture(picture) => match &picture.shape {
                Shape::Graph(known) => self.write_graph(app, picture, known, ignored),
                Shape::Svg => self.write_svg(&self.draw(app, picture, ignored)?),
                Shape::Png => {
                    let scene = self.draw(app, picture, ignored)?;
                    Ok(Answer::ok("image/png", scene.png()?))
                }
            },
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
        ignored: &mut Ignored,
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
            return send(app, budget, format.content_type, document);
        }
        match Answer::callback(self.callback.as_deref()) {
            Ok(None) => send(app, budget, format.content_type, document),
            Ok(Some(name)) => {
                let mut after = Buffer::new(budget);
                after.push_str(")")?;
                let document = document.within(format!("{name}(").as_bytes(), after);
                send(app, budget, JAVASCRIPT, document)
            }
            Err(refusal) => Ok(refusal),
        }
    }
}

/// A document as an answer: whole if it is small, else formatted while it is sent.
pub(super) fn send(
    app: &App,
    budget: &Budget,
    content_type: &'static str,
    document: Document,
) -> Result<Answer> {
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

/// Answers up to about this size are held whole: equal requests share the bytes.
const WHOLE_UP_TO: u64 = 8 * 1024 * 1024;

const SVG: &str = "image/svg+xml";

/// A picture must not run or fetch anything; its colours are styles.
const SVG_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// As much of `text` as a message should quote.
fn first_word(text: &str) -> String {
    text.chars().take(20).collect()
}

/// A refusal: JSON with the position in the target if JSON was requested, else graphite-web's text.
fn refusal(app: &App, error: &Error, format: Option<&str>, targets: &[&str]) -> Answer {
    let status = app.refuse(error);
    let is_json = format == Some("graph")
        || format
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
