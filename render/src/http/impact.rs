//! Verdicts over HTTP.
//!
//! | route | |
//! |---|---|
//! | `GET /impact?event=ID` | the event with its verdict, all changed series included |
//! | `POST /impact?event=ID` | asks for a new verdict; 202, the answer comes with the event |
//! | `GET /impact/calibration` | false alarms on deploys that never happened, by this server's own data |
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

use super::guard::{Guard, Scope};
use super::params::InQuery;
use super::{Answer, Params};
use crate::attime;
use crate::events::{Error, Event, Store, TagQuery};
use crate::impact::{Correction, Report};
use crate::verdicts::{Handle, delivery};

/// What the routes of verdicts work with.
#[derive(Clone)]
pub struct ImpactState {
    /// The events and their verdicts.
    pub store: Arc<Store>,
    /// Asks for verdicts.
    pub handle: Handle,
    /// Who may write.
    pub guard: Arc<Guard>,
    /// The path before all paths of links (`render.base_path`).
    pub base_path: Arc<str>,
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
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("text/html")) {
        // A form of the page: back to it.
        let seen = Answer {
            status: StatusCode::SEE_OTHER,
            ..Answer::text(StatusCode::OK, "")
        };
        let place = format!("{}/deploy/{id}", state.base_path);
        return Ok(seen.with(header::LOCATION, &place));
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
    let figures = state
        .ask(move |store| {
            let mut deploys = store.overlay(&query, from, until, now)?;
            // Bands that reach into the range began before it.
            deploys.retain(|event| event.when >= from);
            Ok(delivery(&deploys, from, until))
        })
        .await?;
    let figures = serde_json::to_value(figures).unwrap_or_default();
    Ok(Answer::value(StatusCode::OK, &figures))
}

async fn calibration(State(state): State<ImpactState>) -> Outcome {
    let last = state.handle.calibration();
    if last.is_none() {
        state.handle.calibrate();
    }
    let json = serde_json::to_value(last).unwrap_or_default();
    Ok(Answer::value(StatusCode::OK, &json!({"calibration": json})))
}

async fn calibrate(State(state): State<ImpactState>) -> Outcome {
    state.handle.calibrate();
    Ok(Answer::value(
        StatusCode::ACCEPTED,
        &json!({"requested": true}),
    ))
}
