//! Graphite's HTTP API.
//!
//! 1. The runtime only reads requests and writes answers: what they ask for is computed on the
//!    [`pool`], a fixed number of threads, each request whole on one.
//! 2. Two equal requests at the same time are computed once ([`flight`]). Work ends when the last
//!    client that waits for it has gone.
//! 3. Whatever a client sends is answered with a 2xx or 4xx and a sentence. A 500 means that the
//!    store failed or that this program is wrong, and is counted.
//! 4. Every area has a module with its `routes()`; a path may end in a slash, except below
//!    `/tags` and `/functions`, where a slash is part of the name.

mod answer;
mod app;
mod carbonapi;
pub mod events;
mod find;
pub mod flight;
mod functions;
pub mod guard;
mod html;
pub mod impact;
mod negotiate;
pub mod page;
pub mod params;
pub mod pool;
mod render;
mod stream;
mod tags;

use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;

pub use answer::{Answer, Content, Holds, JSON};
pub use app::{App, Shared};
pub use find::find;
pub use functions::GRAPHITE_VERSION;
use guard::{Guard, Scope};
pub use params::Params;
pub use stream::Stream;

/// All routes of the query side; `guard` decides which requests they answer.
pub fn router(app: App, guard: &Arc<Guard>) -> Router {
    Router::new()
        .merge(guard.protect(tags::writing_routes(), Scope::Everything))
        .merge(
            guard.watch(
                Router::new()
                    .merge(render::routes())
                    .merge(carbonapi::routes())
                    .merge(find::routes())
                    .merge(tags::routes())
                    .merge(functions::routes()),
            ),
        )
        .with_state(app)
}

/// A 405 with an empty body.
pub(crate) async fn not_allowed() -> StatusCode {
    StatusCode::METHOD_NOT_ALLOWED
}
