//! The events routes: Graphite's `/events/`, webhooks, and the annotation shapes of others.
//!
//! | route | |
//! |---|---|
//! | `GET /events/` | a page with the list, or JSON if the request accepts it; `tags=EXPR`, `from`, `until` |
//! | `POST /events/` | one event; 200 and an empty body as from Graphite, or 201 and the event if the request accepts JSON |
//! | `GET /events/get_data` | Graphite's query, by Graphite's tag rules (also `/events/get_dat`: its URL pattern takes that) |
//! | `GET PATCH DELETE /events/ID/` | one event |
//! | `GET /events/changes?after=N&store=NAME` | changes with higher numbers, for the server with the store `NAME`: what [`Store::changes`] gives |
//! | `GET /events/export`, `POST /events/import` | JSON lines |
//! | `POST /webhooks/github`, `/webhooks/gitlab` | deployments |
//! | `POST /api/1/deploy`, `PATCH /api/1/deploy/ID` | Rollbar's deploys |
//! | `/api/annotations`, `/api/annotations/graphite` | Grafana's annotations |
//!
//! Calls of the store may wait for the disk, so each runs on a blocking thread. The [`Room`] bounds
//! the memory of all these requests together.

mod annotations;
mod hooks;
mod html;
mod room;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

pub use self::room::Room;
pub(in crate::http) use self::room::{Busy, Unread};
use self::room::{bodies, export};
use super::answer::JAVASCRIPT;
use super::guard::{Guard, MAX_BODY, Scope};
use super::html::CONTENT_TYPE;
use super::page::{Page, event_pages};
use super::params::InQuery;
use super::{Answer, JSON, Params};
use crate::attime;
use crate::events::store::{MAX_ANSWER, MAX_ANSWER_BYTES};
use crate::events::{Draft, Error, Event, GraphiteTags, Saved, Store, TagQuery, lines};

/// Most bytes in one import; a longer file is sent in parts.
pub const MAX_IMPORT: usize = 64 * 1024 * 1024;
/// Bytes of text in one answer with changes, unless a single event is larger.
const CHANGES: usize = 1024 * 1024;
/// Events on the page that lists them, unless `limit` says otherwise.
const LISTED: usize = 200;

/// Seconds after an event in which its page looks for its rollback.
const ROLLED_BACK_WITHIN: f64 = 7.0 * 86_400.0;

/// What the events routes work with.
#[derive(Clone)]
pub struct EventsState {
    /// The events.
    pub store: Arc<Store>,
    /// Who may write.
    pub guard: Arc<Guard>,
    /// The zone of dates and times of day in `from` and `until`.
    pub time_zone: TimeZone,
    /// The epoch at which the clock stands still (`render.now`), else the clock runs.
    pub clock: Option<i64>,
    /// What may be held in memory at once.
    pub room: Room,
    /// The path before all paths of links (`render.base_path`), empty or without a slash at its end.
    pub base_path: Arc<str>,
    /// The page in whose frame events are shown; without one they are plain pages.
    pub page: Option<Page>,
}

impl EventsState {
    fn now(&self) -> f64 {
        match self.clock {
            Some(clock) => clock as f64,
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default()
                .as_secs_f64(),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.store);
        let asked = tokio::task::spawn_blocking(move || question(&store)).await;
        asked.unwrap_or(Err(Error::Closed))
    }

    /// Answers with the text that `write` makes of the events that `question` gives.
    async fn list(
        &self,
        content_type: &'static str,
        question: impl FnOnce(&Store) -> Result<Vec<Event>, Error> + Send + 'static,
        write: impl FnOnce(Vec<Event>) -> Result<String, Error> + Send + 'static,
    ) -> Outcome {
        let busy = |busy: room::Busy| busy.answer(&self.store);
        let _place = self.room.reader().await.map_err(busy)?;
        let text = self.ask(|store| write(question(store)?)).await?;
        let body = self.room.answer(&self.store, text).map_err(busy)?;
        Ok(Answer::ok(content_type, body))
    }

    /// As [`EventsState::ask`] for a change, which waits for its commit.
    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Answer> {
        let place = self.room.writer().await;
        let _place = place.map_err(|busy| busy.answer(&self.store))?;
        Ok(self.ask(change).await?)
    }

    /// Stores the event of `draft` at this server's clock.
    async fn insert(&self, draft: Draft) -> Result<Saved, Answer> {
        let now = self.now();
        self.change(move |store| store.insert_at(draft, now)).await
    }

    async fn update(&self, id: i64, draft: Draft) -> Result<Event, Answer> {
        let now = self.now();
        self.change(move |store| store.update_at(id, draft, now))
            .await
    }
}

/// An answer, or a refusal.
type Outcome = Result<Answer, Answer>;

/// The routes, ready to be merged into a router with any state.
pub fn routes<S>(state: EventsState) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let import = Router::new().route("/events/import", post(import));
    let mut guarded = Router::new();
    for path in ["/events", "/events/"] {
        guarded = guarded.route(path, get(list).post(create));
    }
    for path in ["/events/{id}", "/events/{id}/"] {
        guarded = guarded.route(path, get(show).patch(change).delete(remove));
    }
    let guarded = guarded
        .merge(hooks::routes())
        .merge(annotations::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .route_layer(from_fn_with_state(state.clone(), bodies))
        .merge(import);
    let mut open = Router::new()
        .route("/events/export", get(export))
        .route("/events/changes", get(changes));
    for path in [
        "/events/get_data",
        "/events/get_data/",
        "/events/get_dat",
        "/events/get_dat/",
    ] {
        open = open.route(path, get(get_data).post(get_data));
    }
    let guarded = state.guard.protect(guarded, Scope::Events);
    let open = state.guard.watch(open);
    guarded.merge(open).with_state(state)
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Refused(_) => StatusCode::BAD_REQUEST,
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::TooMany(_) | Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            Error::Locked(_) => {
                return Self::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())
                    .with(header::RETRY_AFTER, "5");
            }
            error => {
                let error: &dyn std::error::Error = error;
                tracing::error!(error, "a request for events failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let cause = std::error::Error::source(&error);
        let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
        Self::error(status, &format!("{error}{cause}"))
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Refused(why.into()))
}

fn accepts_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.contains("application/json"))
    })
}

fn parse(body: &Bytes) -> Result<Value, Error> {
    serde_json::from_slice(body).or_else(|error| refuse(format!("the body is not JSON: {error}")))
}

/// An id in a path. A text that is not a number is answered like an unknown id.
fn event_id(text: &str) -> Result<i64, Error> {
    text.parse().map_err(|_| Error::NotFound(0))
}

/// The range of `from` and `until`, by default from the beginning until now. Never swapped.
fn range(params: &Params, state: &EventsState) -> Result<(f64, f64), Error> {
    let now = state.now();
    let read = |name: &str, default: f64| match params.get(name) {
        None => Ok(default),
        Some(text) => match attime::parse(text, &state.time_zone, now as i64) {
            Ok(timestamp) => Ok(timestamp as f64),
            Err(why) => refuse(why.to_string()),
        },
    };
    Ok((read("from", 0.0)?, read("until", now)?))
}

fn limit(params: &Params, default: usize) -> Result<usize, Error> {
    match params.get("limit") {
        None => Ok(default),
        Some(text) => match text.parse::<usize>() {
            Ok(limit) => Ok(limit.min(MAX_ANSWER)),
            Err(_) => refuse(format!("\"limit\" must be a number, not {text:?}")),
        },
    }
}

/// How a list of events is written as JSON, wrapped in a call of the function that `jsonp` names.
struct Listed {
    callback: Option<String>,
}

impl Listed {
    fn new(params: &Params) -> Result<Self, Answer> {
        let name = params.get("jsonp");
        if name == Some("") {
            return Ok(refuse("\"jsonp\" must be a function's name")?);
        }
        let callback = Answer::callback(name)?.map(str::to_owned);
        Ok(Self { callback })
    }

    fn content_type(&self) -> &'static str {
        match self.callback {
            None => JSON,
            Some(_) => JAVASCRIPT,
        }
    }

    /// The events as an array, each let go when it is written.
    fn write(
        self,
        events: impl IntoIterator<Item = Event>,
        json: fn(&Event) -> Value,
    ) -> Result<String, Error> {
        let mut text = String::new();
        if let Some(name) = &self.callback {
            text = format!("{name}(");
        }
        let mut separator = "[";
        for event in events {
            text += separator;
            separator = ",";
            let one = json(&event).to_string();
            match self.callback {
                None => text += &one,
                // These end a line in old JavaScript, though not in JSON.
                Some(_) => {
                    text += &one
                        .replace('\u{2028}', "\\u2028")
                        .replace('\u{2029}', "\\u2029");
                }
            }
            if text.len() > 2 * MAX_ANSWER_BYTES {
                return Err(Error::TooLarge(MAX_ANSWER_BYTES));
            }
        }
        text += if separator == "[" { "[]" } else { "]" };
        if self.callback.is_some() {
            text.push(')');
        }
        Ok(text)
    }
}

async fn get_data(State(state): State<EventsState>, InQuery(params): InQuery) -> Outcome {
    let (from, until) = range(&params, &state)?;
    let tags = GraphiteTags::from_query(params.get("tags"), params.get("set"));
    let listed = Listed::new(&params)?;
    let question = move |store: &Store| store.graphite(&tags, from, until);
    let kind = listed.content_type();
    let print = printed(&params);
    let write = move |events| listed.write(events, print);
    state.list(kind, question, write).await
}

/// How Graphite's own requests have events printed: as Graphite does, and with verdicts for `meta=1`.
fn printed(params: &Params) -> fn(&Event) -> Value {
    match params.get("meta") {
        Some("1") => Event::to_json,
        _ => Event::to_graphite_json,
    }
}

async fn changes(State(state): State<EventsState>, InQuery(params): InQuery) -> Outcome {
    let after = params.get("after").unwrap_or("0");
    let after: i64 = after
        .parse()
        .or_else(|_| refuse(format!("\"after\" must be a number, not {after:?}")))?;
    let busy = |busy: room::Busy| busy.answer(&state.store);
    let _place = state.room.reader().await.map_err(busy)?;
    let asker = params.get("store").map(str::to_owned);
    let print = move |store: &Store| {
        if let Some(asker) = asker {
            store.asked_by(&asker, after);
        }
        let changes = store.changes(after, CHANGES)?;
        serde_json::to_string(&changes).or_else(|error| refuse(error.to_string()))
    };
    let text = state.ask(print).await?;
    let body = state.room.answer(&state.store, text).map_err(busy)?;
    Ok(Answer::ok(JSON, body))
}

async fn list(
    State(state): State<EventsState>,
    headers: HeaderMap,
    InQuery(params): InQuery,
) -> Outcome {
    let expression = params.get("tags").unwrap_or("*").to_owned();
    let tags: TagQuery = expression
        .parse()
        .or_else(|error| refuse(format!("\"tags\": {error}")))?;
    let (from, until) = range(&params, &state)?;
    // Planned work is in the future: the list shows it unless `until` is set.
    let until = params.get("until").map_or(f64::MAX, |_| until);
    let limit = limit(&params, LISTED)?;
    if accepts_json(&headers) {
        let question = move |store: &Store| store.query(&tags, from, until, limit);
        let listed = Listed::new(&params)?;
        let kind = listed.content_type();
        let write = |events| listed.write(events, Event::to_json);
        return state.list(kind, question, write).await;
    }
    if let Some(page) = state.page.clone() {
        let busy = |busy: room::Busy| busy.answer(&state.store);
        let _place = state.room.reader().await.map_err(busy)?;
        let store = Arc::clone(&state.store);
        let shown = move |page: &Page| {
            let query = |n_bytes| store.query_up_to(&tags, from, until, limit, n_bytes);
            match page.read(limit, query) {
                Ok(found) => event_pages::list(page, &params, &found, limit),
                Err(refusal) => refusal,
            }
        };
        return Ok(page.answer(shown).await);
    }
    let question = move |store: &Store| store.query(&tags, from, until, limit);
    let base = Arc::clone(&state.base_path);
    let write = move |events: Vec<Event>| Ok(html::list(&base, &events, &expression, limit));
    let page = state.list(CONTENT_TYPE, question, write).await?;
    Ok(html::with_policy(page))
}

async fn create(State(state): State<EventsState>, headers: HeaderMap, body: Bytes) -> Outcome {
    let mut draft = Draft::from_json(&parse(&body)?)?;
    if let Some(key) = headers.get("idempotency-key")
        && draft.key.is_none()
    {
        draft.key = Some(String::from_utf8_lossy(key.as_bytes()).into_owned());
    }
    let saved = state.insert(draft).await?;
    let answer = match accepts_json(&headers) {
        true => stored(&saved),
        // As in Graphite: an empty page.
        false => Answer::ok(CONTENT_TYPE, ""),
    };
    let location = format!("{}/events/{}/", state.base_path, saved.event.id);
    Ok(answer.with(header::LOCATION, &location))
}

/// A stored event as JSON: 201 if it is new.
fn stored(saved: &Saved) -> Answer {
    let status = match saved.created {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Answer::value(status, &saved.event.to_json())
}

async fn show(
    State(state): State<EventsState>,
    headers: HeaderMap,
    Path(id): Path<String>,
    InQuery(params): InQuery,
) -> Outcome {
    let json = accepts_json(&headers);
    let busy = |busy: room::Busy| busy.answer(&state.store);
    let _place = state.room.reader().await.map_err(busy)?;
    let event = match event_id(&id) {
        Ok(id) => state.ask(move |store| store.event(id)).await,
        Err(unknown) => Err(unknown),
    };
    match event {
        Ok(event) if json => Ok(Answer::value(
            StatusCode::OK,
            &dated(&event, printed(&params)),
        )),
        Ok(event) if state.page.is_some() => framed(&state, params, event).await,
        Ok(event) => Ok(html::secured(
            StatusCode::OK,
            html::event(&state.base_path, &event),
        )),
        Err(Error::NotFound(_)) if json => {
            let sentence = "Event matching query does not exist";
            Err(Answer::error(StatusCode::NOT_FOUND, sentence))
        }
        Err(Error::NotFound(_)) => Err(match state.page.clone() {
            Some(page) => page.answer(event_pages::missing).await,
            None => html::secured(StatusCode::NOT_FOUND, html::not_found()),
        }),
        Err(error) => Err(error.into()),
    }
}

/// The page of `event` in the frame of all pages.
async fn framed(state: &EventsState, params: Params, event: Event) -> Outcome {
    let Some(page) = state.page.clone() else {
        return Ok(html::secured(
            StatusCode::OK,
            html::event(&state.base_path, &event),
        ));
    };
    let (from, id) = (event.when, event.id);
    // A rollback comes soon, or is found by its own page.
    let undone_by = state
        .ask(move |store| store.undone_by(id, from, from + ROLLED_BACK_WITHIN))
        .await?;
    let shown = move |page: &Page| {
        let events = [std::slice::from_ref(&event), &undone_by];
        match page.reserve_all(events) {
            Ok(()) => event_pages::one(page, &params, &event, &undone_by),
            Err(refusal) => refusal,
        }
    };
    Ok(page.answer(shown).await)
}

async fn change(State(state): State<EventsState>, Path(id): Path<String>, body: Bytes) -> Outcome {
    let id = event_id(&id)?;
    let draft = Draft::from_json(&parse(&body)?)?;
    let event = state.update(id, draft).await?;
    Ok(Answer::value(StatusCode::OK, &event.to_json()))
}

async fn remove(
    State(state): State<EventsState>,
    Path(id): Path<String>,
) -> Result<StatusCode, Answer> {
    let id = event_id(&id)?;
    state.change(move |store| store.remove(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The event with times as Graphite prints them for a single event: `2023-11-14T22:13:20Z`.
fn dated(event: &Event, print: fn(&Event) -> Value) -> Value {
    let mut json = print(event);
    json["when"] = html::iso(event.when).into();
    if let Some(until) = event.until {
        json["until"] = html::iso(until).into();
    }
    json
}

async fn import(State(state): State<EventsState>, request: Request) -> Outcome {
    let body = request.into_body();
    let (body, _held) = state.room.whole(body, MAX_IMPORT, lines::memory_of).await?;
    let busy = |busy: room::Busy| busy.answer(&state.store);
    let _place = state.room.import().await.map_err(busy)?;
    let (n_read, n_new) = state
        .ask(move |store| {
            let Ok(text) = str::from_utf8(&body) else {
                return refuse("the body is not UTF-8");
            };
            let events = lines::read(text)?;
            Ok((events.len(), store.import(events)?))
        })
        .await?;
    let counts = json!({"events": n_read, "new": n_new});
    Ok(Answer::value(StatusCode::OK, &counts))
}

#[cfg(test)]
mod tests;
