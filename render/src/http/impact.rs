//! Verdicts over HTTP.
//!
//! | route | |
//! |---|---|
//! | `GET /impact?event=ID` | the event with its verdict, all changed series included |
//! | `POST /impact?event=ID` | asks for a new verdict; 202, the answer comes with the event |
//! | `POST /impact?event=ID&correction=right` | a person's opinion of it: `right`, `wrong`, `expected`, or `none` to take it back |

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::get;
use serde_json::json;

use super::guard::{Guard, Scope};
use super::params::InQuery;
use super::{Answer, Params};
use crate::events::{Error, Event, Store};
use crate::impact::{Correction, Report};
use crate::verdicts::Handle;

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
    let guarded = state.guard.protect(router, Scope::Events);
    guarded.with_state(state)
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
