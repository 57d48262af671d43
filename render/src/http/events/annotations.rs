//! Grafana's annotations API over the same events, so that a tool changes only its URL.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::{Answer, EventsState, InQuery, Listed, Outcome, event_id, limit, parse, refuse};
use crate::events::expr::{Clause, Term};
use crate::events::{Draft, Event, Status, Store, TagQuery, webhook};

/// Annotations in an answer unless `limit` says otherwise, as in Grafana.
const LISTED: usize = 100;

pub(super) fn routes() -> Router<EventsState> {
    let mut routes = Router::new();
    for path in ["/api/annotations", "/api/annotations/"] {
        routes = routes.route(path, get(list).post(create));
    }
    for path in ["/api/annotations/graphite", "/api/annotations/graphite/"] {
        routes = routes.route(path, post(create_graphite));
    }
    for path in ["/api/annotations/{id}", "/api/annotations/{id}/"] {
        let one = get(show).put(change).patch(change).delete(remove);
        routes = routes.route(path, one);
    }
    routes
}

async fn create(State(state): State<EventsState>, body: Bytes) -> Outcome {
    let mut draft = webhook::annotation(&parse(&body)?)?;
    draft.what.get_or_insert_default();
    let saved = state.insert(draft).await?;
    Ok(said("Annotation added", saved.event.id))
}

async fn create_graphite(State(state): State<EventsState>, body: Bytes) -> Outcome {
    let draft = Draft::from_json(&parse(&body)?)?;
    let saved = state.insert(draft).await?;
    Ok(said("Graphite annotation added", saved.event.id))
}

async fn show(State(state): State<EventsState>, Path(id): Path<String>) -> Outcome {
    let id = event_id(&id)?;
    let event = state.ask(move |store| store.event(id)).await?;
    Ok(Answer::value(StatusCode::OK, &annotation(&event)))
}

async fn change(State(state): State<EventsState>, Path(id): Path<String>, body: Bytes) -> Outcome {
    let id = event_id(&id)?;
    let mut draft = webhook::annotation(&parse(&body)?)?;
    if draft.until.is_some() {
        // Grafana has no status: an annotation with an end is over.
        draft.status.get_or_insert(Status::Succeeded);
        let event = state.ask(move |store| store.event(id)).await?;
        if event.status != Status::Started {
            draft.status = None;
        }
    }
    state.update(id, draft).await?;
    Ok(said("Annotation patched", id))
}

async fn remove(State(state): State<EventsState>, Path(id): Path<String>) -> Outcome {
    let id = event_id(&id)?;
    state.change(move |store| store.remove(id)).await?;
    let json = json!({"message": "Annotation deleted"});
    Ok(Answer::value(StatusCode::OK, &json))
}

/// `from` and `to` in milliseconds, `tags` repeated, `matchAny`, `limit`; newest first.
async fn list(State(state): State<EventsState>, InQuery(params): InQuery) -> Outcome {
    let millis = |name: &str, default: f64| match params.get(name) {
        None => Ok(default),
        Some(text) => match text.parse::<f64>() {
            Ok(millis) if millis.is_finite() => Ok(millis / 1000.0),
            _ => refuse(format!("\"{name}\" must be a number of milliseconds")),
        },
    };
    let (from, until) = (millis("from", f64::MIN)?, millis("to", f64::MAX)?);
    let limit = limit(&params, LISTED)?;
    let words = params.all("tags").filter(|tag| !tag.is_empty());
    let words: Vec<Term> = words.map(|tag| Term::Tag(tag.to_owned())).collect();
    let clause = |all| Clause {
        all,
        none: Vec::new(),
    };
    let tags = match (words.is_empty(), params.get("matchAny")) {
        (true, _) => TagQuery::every(),
        (false, Some("true")) => TagQuery {
            any: words.into_iter().map(|term| clause(vec![term])).collect(),
        },
        (false, _) => TagQuery {
            any: vec![clause(words)],
        },
    };
    let question = move |store: &Store| store.query(&tags, from, until, limit);
    let listed = Listed { callback: None };
    let kind = listed.content_type();
    let write = |events: Vec<Event>| listed.write(events.into_iter().rev(), annotation);
    state.list(kind, question, write).await
}

fn said(message: &str, id: i64) -> Answer {
    let json = json!({"message": message, "id": id});
    Answer::value(StatusCode::OK, &json)
}

/// The event as Grafana prints an annotation.
fn annotation(event: &Event) -> Value {
    let millis = |seconds: f64| (seconds * 1000.0).round() as i64;
    let text = match event.data.as_str() {
        "" => event.what.clone(),
        data => format!("{}\n{data}", event.what),
    };
    json!({
        "id": event.id,
        "time": millis(event.when),
        "timeEnd": millis(event.until.unwrap_or(event.when)),
        "tags": event.tags,
        "text": text,
    })
}
