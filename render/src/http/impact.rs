//! Verdicts over HTTP.
//!
//! | route | |
//! |---|---|
//! | `GET /impact?event=ID` | the event with its verdict, all changed series included |
//! | `POST /impact?event=ID` | asks for a new verdict; 202, the answer comes with the event |
//! | `GET /impact/happened?target=T&at=TIME` | what happened to the series that the targets read, and the deploys that explain it |
//! | `GET /impact/calibration` | false alarms on deploys that never happened, by this server's own data; a page for browsers |
//! | `POST /impact/calibration` | measures them again; 202 |
//! | `GET /stats/deploys` | delivery figures of `from` until `until` for the events that `tags` selects |
//! | `POST /impact?event=ID&correction=right` | a person's opinion of it: `right`, `wrong`, `expected`, or `none` to take it back |

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use jiff::tz::TimeZone;
use serde_json::json;

use super::events::{Busy, Room};
use super::guard::{Guard, Scope};
use super::page::{Page, calibration_page, html_answer, targets};
use super::params::InQuery;
use super::pool::Lane;
use super::{Answer, App, Params};
use crate::attime;
use crate::events::{Error, Event, Store, TagQuery};
use crate::impact::{Correction, Report};
use crate::verdicts::{Handle, Happened, delivery};

/// What the routes of verdicts work with.
#[derive(Clone)]
pub struct ImpactState {
    /// The events and their verdicts.
    pub store: Arc<Store>,
    /// Asks for verdicts.
    pub handle: Handle,
    /// Who may write.
    pub guard: Arc<Guard>,
    /// What may be held in memory at once, together with the routes of events.
    pub room: Room,
    /// The path before all paths of links (`render.base_path`).
    pub base_path: Arc<str>,
    /// What pages are made of; `None`: browsers get JSON, too.
    pub page: Option<Page>,
    /// Computes what is asked of the page's series; `None`: nothing happened to any.
    pub app: Option<App>,
}

type Outcome = Result<Answer, Answer>;

/// The routes, ready to be merged into a router with any state.
pub fn routes<S>(state: ImpactState) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let mut router = Router::new();
    for path in ["/impact", "/impact/"] {
        router = router.route(path, get(show).post(change));
    }
    for path in ["/impact/calibration", "/impact/calibration/"] {
        router = router.route(path, get(calibration).post(calibrate));
    }
    let guarded = state.guard.protect(router, Scope::Events);
    let mut open = Router::new();
    for path in ["/impact/happened", "/impact/happened/"] {
        open = open.route(path, get(happened));
    }
    for path in ["/stats/deploys", "/stats/deploys/"] {
        open = open.route(path, get(figures));
    }
    let open = state.guard.watch(open);
    guarded.merge(open).with_state(state)
}

fn id_of(params: &Params) -> Result<i64, Answer> {
    let text = params.get("event").unwrap_or_default();
    text.parse().map_err(|_| {
        let sentence = format!("\"event\" must be the id of an event, not {text:?}");
        Answer::error(StatusCode::BAD_REQUEST, &sentence)
    })
}

impl ImpactState {
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Store) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let store = Arc::clone(&self.store);
        let asked = tokio::task::spawn_blocking(move || question(&store)).await;
        asked.unwrap_or(Err(Error::Closed))
    }

    /// After a form of a page: back to `path`.
    fn back_to(&self, path: &str) -> Answer {
        let seen = Answer {
            status: StatusCode::SEE_OTHER,
            ..Answer::text(StatusCode::OK, "")
        };
        seen.with(header::LOCATION, &format!("{}{path}", self.base_path))
    }
}

/// The event called `id`, with all of its verdict.
///
/// # Errors
/// [`Error::NotFound`], or the store fails.
pub fn with_verdict(store: &Store, id: i64) -> Result<Event, Error> {
    let mut event = store.event(id)?;
    event.impact = store.impact(id)?.map(Box::new);
    Ok(event)
}

async fn show(State(state): State<ImpactState>, InQuery(params): InQuery) -> Outcome {
    let id = id_of(&params)?;
    let event = state.ask(move |store| with_verdict(store, id)).await?;
    Ok(Answer::value(StatusCode::OK, &event.to_json()))
}

async fn change(
    State(state): State<ImpactState>,
    headers: HeaderMap,
    InQuery(params): InQuery,
) -> Outcome {
    let id = id_of(&params)?;
    let Some(correction) = params.get("correction") else {
        state.ask(move |store| store.event(id)).await?;
        if !state.handle.request(id) {
            let sentence = "too many verdicts are asked for already";
            return Err(Answer::error(StatusCode::SERVICE_UNAVAILABLE, sentence));
        }
        let answer = json!({"event": id, "requested": true});
        return Ok(Answer::value(StatusCode::ACCEPTED, &answer));
    };
    let correction = match (correction, Correction::parse(correction)) {
        ("none", _) => None,
        (_, Some(correction)) => Some(correction),
        (other, None) => {
            let sentence =
                format!("\"correction\" must be right, wrong, expected or none, not {other:?}");
            return Err(Answer::error(StatusCode::BAD_REQUEST, &sentence));
        }
    };
    let report: Report = state
        .ask(move |store| store.correct(id, correction))
        .await?;
    if wants_page(&headers) {
        return Ok(state.back_to(&format!("/deploy/{id}")));
    }
    let report = serde_json::to_value(report).unwrap_or_default();
    Ok(Answer::value(
        StatusCode::OK,
        &json!({"event": id, "impact": report}),
    ))
}

async fn figures(State(state): State<ImpactState>, InQuery(params): InQuery) -> Outcome {
    let bad = |why: String| Answer::error(StatusCode::BAD_REQUEST, &why);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs_f64();
    let time = |name: &str, default: &str| {
        let text = params.get(name).unwrap_or(default);
        let at = attime::parse(text, &TimeZone::UTC, now as i64);
        at.map(|at| at as f64).map_err(|why| bad(why.to_string()))
    };
    let (from, until) = (time("from", "-30d")?, time("until", "now")?);
    let tags = params.get("tags").unwrap_or("deploy");
    let query: TagQuery = tags
        .parse()
        .map_err(|why| bad(format!("\"tags\": {why}")))?;
    let busy = |busy: Busy| busy.answer(&state.store);
    let _place = state.room.reader().await.map_err(busy)?;
    let figures = state
        .ask(move |store| {
            let (deploys, is_cut) = store.deploys(&query, from, until)?;
            Ok(delivery(&deploys, from, until, is_cut))
        })
        .await?;
    let figures = serde_json::to_value(figures).unwrap_or_default();
    Ok(Answer::value(StatusCode::OK, &figures))
}

/// Whether a browser asks.
fn wants_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT);
    let accept = accept.and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

async fn happened(State(state): State<ImpactState>, InQuery(params): InQuery) -> Outcome {
    let bad = |why: &str| Answer::error(StatusCode::BAD_REQUEST, why);
    let targets = targets(&params);
    if targets.is_empty() {
        return Err(bad("\"target\" is missing: what the graph shows"));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs() as i64;
    let at = params.get("at").unwrap_or("now");
    let at = attime::parse(at, &TimeZone::UTC, now);
    let at = at.map_err(|why| bad(&format!("\"at\": {why}")))?;
    let answer = |happened: Option<Happened>| {
        let happened = happened.map(|happened| {
            let mut json = serde_json::to_value(&happened).unwrap_or_default();
            let deploys = happened.deploys.iter().map(Event::to_json);
            json["deploys"] = deploys.collect();
            json
        });
        Answer::value(StatusCode::OK, &json!({"happened": happened}))
    };
    let (Some(app), Some(page)) = (state.app, state.page) else {
        return Ok(answer(None));
    };
    let budget = app.limits().budget;
    let found = app.compute(budget.clone(), Lane::Large, move |app| {
        match page.happened(&targets, at, &budget) {
            Ok(happened) => answer(happened),
            Err(error) => Answer::error(app.refuse(&error), &error.to_string()),
        }
    });
    Ok(found.await)
}

async fn calibration(
    State(state): State<ImpactState>,
    headers: HeaderMap,
    InQuery(params): InQuery,
) -> Outcome {
    let last = state.handle.calibration();
    if last.is_none() {
        state.handle.calibrate();
    }
    if let Some(page) = state.page.as_ref().filter(|_| wants_page(&headers)) {
        let write = move |page: &Page| {
            let written = calibration_page(page, last.as_ref(), &params);
            html_answer(StatusCode::OK, written)
        };
        return Ok(page.answer(write).await);
    }
    let json = serde_json::to_value(last).unwrap_or_default();
    Ok(Answer::value(StatusCode::OK, &json!({"calibration": json})))
}

async fn calibrate(State(state): State<ImpactState>, headers: HeaderMap) -> Outcome {
    state.handle.calibrate();
    if wants_page(&headers) {
        return Ok(state.back_to("/impact/calibration"));
    }
    Ok(Answer::value(
        StatusCode::ACCEPTED,
        &json!({"requested": true}),
    ))
}
