//! The events routes: Graphite's `/events/`, webhooks, and the annotation shapes of others.
//!
//! | route | |
//! |---|---|
//! | `GET /events/` | the list for people; JSON for who accepts it; `tags=EXPR`, `from`, `until` |
//! | `POST /events/` | one event; 200 and an empty body as from Graphite, 201 and the event for who accepts JSON |
//! | `GET /events/get_data` | Graphite's query, by Graphite's tag rules (also `/events/get_dat`: its URL pattern takes that) |
//! | `GET PATCH DELETE /events/ID/` | one event |
//! | `GET /events/export`, `POST /events/import` | JSON lines |
//! | `POST /webhooks/github`, `/webhooks/gitlab` | deployments |
//! | `POST /api/1/deploy`, `PATCH /api/1/deploy/ID` | Rollbar's deploys |
//! | `/api/annotations`, `/api/annotations/graphite` | Grafana's annotations |
//!
//! What the store does may wait for the disk, so each call runs on a thread that may wait. What all
//! of this may hold in memory together is bounded by the [`Room`].

mod annotations;
mod hooks;
mod html;
mod room;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

pub use self::room::Room;
use self::room::{Busy, bodies, export};
use super::guard::{Guard, MAX_BODY, Scope};
use super::html::CONTENT_TYPE;
use crate::attime;
use crate::events::store::{MAX_ANSWER, MAX_ANSWER_BYTES};
use crate::events::{Draft, Error, Event, GraphiteTags, Store, TagQuery, lines};

/// Most bytes in one import; a longer file is sent in parts.
pub const MAX_IMPORT: usize = 64 * 1024 * 1024;
/// Events on the page that lists them, unless `limit` says otherwise.
const LISTED: usize = 200;

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
    ) -> Result<T, Failure> {
        let store = Arc::clone(&self.store);
        match tokio::task::spawn_blocking(move || question(&store)).await {
            Ok(answer) => answer.map_err(Failure::from),
            Err(_) => Err(Error::Closed.into()),
        }
    }

    /// Answers with the text that `write` makes of the events that `question` gives.
    async fn list(
        &self,
        kind: &'static str,
        question: impl FnOnce(&Store) -> Result<Vec<Event>, Error> + Send + 'static,
        write: impl FnOnce(Vec<Event>) -> Result<String, Error> + Send + 'static,
    ) -> Result<Response, Failure> {
        let busy = |busy: Busy| Failure::Busy(Box::new(busy.answer(&self.store)));
        let _place = self.room.reader().await.map_err(busy)?;
        let text = self.ask(|store| write(question(store)?)).await?;
        let body = self.room.answer(text).map_err(busy)?;
        Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
    }

    /// Stores what `draft` says at this server's clock.
    async fn insert(&self, draft: Draft) -> Result<crate::events::Saved, Failure> {
        let now = self.now();
        self.ask(move |store| store.insert_at(draft, now)).await
    }

    async fn update(&self, id: i64, draft: Draft) -> Result<Event, Failure> {
        let now = self.now();
        self.ask(move |store| store.update_at(id, draft, now)).await
    }
}

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
    let mut open = Router::new().route("/events/export", get(export));
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

/// What went wrong, on its way to a client.
enum Failure {
    Error(Error),
    /// There is no room: answered and counted already.
    Busy(Box<Response>),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let error = match self {
            Self::Error(error) => error,
            Self::Busy(response) => return *response,
        };
        let status = match &error {
            Error::Refused(_) => StatusCode::BAD_REQUEST,
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::TooMany(_) | Error::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
            error => {
                let error: &dyn std::error::Error = error;
                tracing::error!(error, "a request for events failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        json_answer(status, &json!({"error": error.to_string()}))
    }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Failure> {
    Err(Error::Refused(why.into()).into())
}

fn json_answer(status: StatusCode, json: &Value) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (status, kind, json.to_string()).into_response()
}

fn accepts_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.contains("application/json"))
    })
}

fn parse(body: &Bytes) -> Result<Value, Failure> {
    serde_json::from_slice(body).or_else(|error| refuse(format!("the body is not JSON: {error}")))
}

fn event_id(text: &str) -> Result<i64, Failure> {
    // Whatever is no number is no event's: not found, like a number that is none's.
    text.parse().map_err(|_| Error::NotFound(0).into())
}

/// The parameters of a query string; of a repeated one the last counts, as in Graphite.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn new(query: Option<&str>) -> Self {
        let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().collect())
    }

    fn last(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().rev().find(|(key, _)| key == name)?;
        Some(&pair.1)
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = self.0.iter().filter(move |(key, _)| key == name);
        pairs.map(|(_, value)| value.as_str())
    }

    /// The range that `from` and `until` ask for: from the beginning and until now unless they
    /// say otherwise. Never swapped.
    fn range(&self, state: &EventsState) -> Result<(f64, f64), Failure> {
        let now = state.now();
        let read = |name: &str, default: f64| match self.last(name) {
            None => Ok(default),
            Some(text) => match attime::parse(text, &state.time_zone, now as i64) {
                Ok(moment) => Ok(moment as f64),
                Err(why) => refuse(why.to_string()),
            },
        };
        Ok((read("from", 0.0)?, read("until", now)?))
    }

    fn limit(&self, default: usize) -> Result<usize, Failure> {
        match self.last("limit") {
            None => Ok(default),
            Some(text) => match text.parse::<usize>() {
                Ok(limit) => Ok(limit.min(MAX_ANSWER)),
                Err(_) => refuse(format!("\"limit\" must be a number, not {text:?}")),
            },
        }
    }
}

/// How a list of events is written as JSON, wrapped in a call of the function that `jsonp` names.
struct Listed {
    callback: Option<String>,
}

impl Listed {
    fn new(parameters: &Parameters) -> Result<Self, Failure> {
        let callback = parameters.last("jsonp").map(str::to_owned);
        let fine = |c: char| c.is_ascii_alphanumeric() || "_.$".contains(c);
        if let Some(name) = &callback
            && (name.is_empty() || !name.chars().all(fine))
        {
            return refuse("\"jsonp\" must be a function's name");
        }
        Ok(Self { callback })
    }

    fn kind(&self) -> &'static str {
        match self.callback {
            None => "application/json",
            Some(_) => "text/javascript",
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

async fn get_data(
    State(state): State<EventsState>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let parameters = Parameters::new(query.as_deref());
    let (from, until) = parameters.range(&state)?;
    let tags = GraphiteTags::from_query(parameters.last("tags"), parameters.last("set"));
    let listed = Listed::new(&parameters)?;
    let question = move |store: &Store| store.graphite(&tags, from, until);
    let kind = listed.kind();
    let write = |events| listed.write(events, Event::to_json);
    state.list(kind, question, write).await
}

async fn list(
    State(state): State<EventsState>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let parameters = Parameters::new(query.as_deref());
    let expression = parameters.last("tags").unwrap_or("*").to_owned();
    let tags: TagQuery = expression
        .parse()
        .or_else(|error| refuse(format!("\"tags\": {error}")))?;
    let (from, until) = parameters.range(&state)?;
    // Planned work lies ahead: the list shows it unless it is told where to end.
    let until = parameters.last("until").map_or(f64::MAX, |_| until);
    let limit = parameters.limit(LISTED)?;
    let question = move |store: &Store| store.query(&tags, from, until, limit);
    if accepts_json(&headers) {
        let listed = Listed::new(&parameters)?;
        let kind = listed.kind();
        let write = |events| listed.write(events, Event::to_json);
        return state.list(kind, question, write).await;
    }
    let write = move |events: Vec<Event>| Ok(html::list(&events, &expression, limit));
    let page = state.list(CONTENT_TYPE, question, write).await?;
    Ok(html::secured(page))
}

async fn create(
    State(state): State<EventsState>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let mut draft = Draft::from_json(&parse(&body)?)?;
    if let Some(key) = headers.get("idempotency-key")
        && draft.key.is_none()
    {
        draft.key = Some(String::from_utf8_lossy(key.as_bytes()).into_owned());
    }
    let saved = state.insert(draft).await?;
    let location = [(header::LOCATION, format!("/events/{}/", saved.event.id))];
    if accepts_json(&headers) {
        let status = match saved.created {
            true => StatusCode::CREATED,
            false => StatusCode::OK,
        };
        return Ok((location, json_answer(status, &saved.event.to_json())).into_response());
    }
    // Graphite's answer: nothing, as HTML.
    let kind = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    Ok((kind, location, "").into_response())
}

async fn show(
    State(state): State<EventsState>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Failure> {
    let json = accepts_json(&headers);
    let event = match event_id(&id) {
        Ok(id) => state.ask(move |store| store.event(id)).await,
        Err(failure) => Err(failure),
    };
    match event {
        Ok(event) if json => Ok(json_answer(StatusCode::OK, &dated(&event))),
        Ok(event) => Ok(html::secured(html::event(&event))),
        Err(Failure::Error(Error::NotFound(_))) if json => Ok(json_answer(
            StatusCode::NOT_FOUND,
            &json!({"error": "Event matching query does not exist"}),
        )),
        Err(Failure::Error(Error::NotFound(_))) => {
            let page = html::secured(html::not_found());
            Ok((StatusCode::NOT_FOUND, page).into_response())
        }
        Err(failure) => Err(failure),
    }
}

async fn change(
    State(state): State<EventsState>,
    Path(id): Path<String>,
    body: Bytes,
) -> Result<Response, Failure> {
    let id = event_id(&id)?;
    let draft = Draft::from_json(&parse(&body)?)?;
    let event = state.update(id, draft).await?;
    Ok(json_answer(StatusCode::OK, &event.to_json()))
}

async fn remove(
    State(state): State<EventsState>,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    let id = event_id(&id)?;
    state.ask(move |store| store.remove(id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The event with its moments as Graphite prints those of a single one: `2023-11-14T22:13:20Z`.
fn dated(event: &Event) -> Value {
    let mut json = event.to_json();
    json["when"] = html::iso(event.when).into();
    if let Some(until) = event.until {
        json["until"] = html::iso(until).into();
    }
    json
}

async fn import(State(state): State<EventsState>, request: Request) -> Result<Response, Failure> {
    let busy = |busy: Busy| Failure::Busy(Box::new(busy.answer(&state.store)));
    let _place = state.room.import().await.map_err(busy)?;
    let body = match to_bytes(request.into_body(), MAX_IMPORT).await {
        Ok(body) => body,
        Err(why) => {
            let sentence = format!("the body was not read, {MAX_IMPORT} bytes at most: {why}");
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Ok(json_answer(status, &json!({ "error": sentence })));
        }
    };
    let Ok(text) = String::from_utf8(body.into()) else {
        return refuse("the body is not UTF-8");
    };
    let (n_read, n_new) = state
        .ask(move |store| {
            let events = lines::read(&text)?;
            Ok((events.len(), store.import(events)?))
        })
        .await?;
    let counts = json!({"events": n_read, "new": n_new});
    Ok(json_answer(StatusCode::OK, &counts))
}
