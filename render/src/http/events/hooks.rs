//! Webhooks of GitHub and GitLab, and Rollbar's deploy messages.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::{patch, post};
use serde_json::{Value, json};

use super::{Answer, Error, EventsState, Outcome, event_id, parse, refuse, stored};
use crate::events::{Draft, webhook};

pub(super) fn routes() -> Router<EventsState> {
    let mut routes = Router::new();
    for path in ["/webhooks/github", "/webhooks/github/"] {
        routes = routes.route(path, post(github));
    }
    for path in ["/webhooks/gitlab", "/webhooks/gitlab/"] {
        routes = routes.route(path, post(gitlab));
    }
    for path in ["/api/1/deploy", "/api/1/deploy/"] {
        routes = routes.route(path, post(rollbar));
    }
    for path in ["/api/1/deploy/{id}", "/api/1/deploy/{id}/"] {
        routes = routes.route(path, patch(rollbar_ended));
    }
    routes
}

async fn github(State(state): State<EventsState>, headers: HeaderMap, body: Bytes) -> Outcome {
    let Some(kind) = headers.get("x-github-event") else {
        return Ok(refuse("the header X-GitHub-Event is missing")?);
    };
    let draft = webhook::github(
        kind.to_str().unwrap_or_default(),
        &message(&headers, &body)?,
    )?;
    answer(&state, draft).await
}

async fn gitlab(State(state): State<EventsState>, headers: HeaderMap, body: Bytes) -> Outcome {
    let draft = webhook::gitlab(&message(&headers, &body)?)?;
    answer(&state, draft).await
}

async fn answer(state: &EventsState, draft: Option<Draft>) -> Outcome {
    let Some(draft) = draft else {
        return Ok(Answer::value(StatusCode::OK, &json!({"ignored": true})));
    };
    let saved = state.insert(draft).await?;
    Ok(stored(&saved))
}

async fn rollbar(State(state): State<EventsState>, headers: HeaderMap, body: Bytes) -> Outcome {
    let draft = webhook::rollbar(&message(&headers, &body)?)?;
    let saved = state.insert(draft).await?;
    Ok(deploy(saved.event.id))
}

async fn rollbar_ended(
    State(state): State<EventsState>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Outcome {
    let status = webhook::rollbar_status(&message(&headers, &body)?)?;
    let draft = Draft {
        status,
        ..Draft::default()
    };
    let event = state.update(event_id(&id)?, draft).await?;
    Ok(deploy(event.id))
}

fn deploy(id: i64) -> Answer {
    let json = json!({"err": 0, "data": {"deploy_id": id}});
    Answer::value(StatusCode::OK, &json)
}

/// A message as JSON or as a form: GitHub sends its JSON in the form field `payload` when it is
/// set to, Rollbar's messages are forms by habit.
fn message(headers: &HeaderMap, body: &Bytes) -> Result<Value, Error> {
    let form = headers.get(header::CONTENT_TYPE).is_some_and(|kind| {
        kind.as_bytes()
            .starts_with(b"application/x-www-form-urlencoded")
    });
    if !form || body.trim_ascii_start().starts_with(b"{") {
        return parse(body);
    }
    let mut fields = serde_json::Map::new();
    for (name, value) in form_urlencoded::parse(body) {
        if name == "payload" {
            return parse(&Bytes::copy_from_slice(value.as_bytes()));
        }
        fields.insert(name.into_owned(), value.into_owned().into());
    }
    Ok(Value::Object(fields))
}
