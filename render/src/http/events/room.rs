//! What the events routes may hold in memory together.
//!
//! 1. [`EXPORTS`] exports are read at once, a portion at a time, when the client has taken the one
//!    before. A further one is refused: it would only wait for the others.
//! 2. One import is read at once: it is checked whole before any of it is stored.
//! 3. [`READERS`] questions are asked at once, and what was answered counts against [`ANSWERS`]
//!    until it is sent.
//! 4. A body that is large, or does not say how large it is, needs one of [`BODIES`] places.
//! 5. Bodies, and what becomes of them as JSON, are reserved in the memory of all requests.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{Answer, EventsState};
use crate::budget::{Budget, Memory, Reservation};
use crate::events::{Error, Store, lines};
use crate::http::guard::MAX_BODY;
use crate::http::params::{Reading, refused, size_of_form, size_of_json, whole};

/// Exports at once.
const EXPORTS: usize = 4;
/// Bytes of events in a portion of an export, unless a single event is larger.
const PORTION: usize = 64 * 1024;
/// Questions at once.
const READERS: usize = 4;
/// Bytes of answers that may wait to be sent.
const ANSWERS: usize = 64 * 1024 * 1024;
/// Bodies of more than [`SMALL`] bytes at once.
const BODIES: usize = 16;
const SMALL: u64 = 64 * 1024;
/// How long a request waits for a place.
const PATIENCE: Duration = Duration::from_secs(10);

/// The places there are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room {
    exports: Arc<Semaphore>,
    imports: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    answers: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    reading: Reading,
}

impl Default for Room {
    /// Room in memory without a limit.
    fn default() -> Self {
        Self::within(Reading {
            memory: Memory::new(0),
            stats: Arc::default(),
        })
    }
}

impl Room {
    /// Room within the memory of `reading`.
    pub fn within(reading: Reading) -> Self {
        let places = |n| Arc::new(Semaphore::new(n));
        Self {
            exports: places(EXPORTS),
            imports: places(1),
            readers: places(READERS),
            answers: places(ANSWERS),
            bodies: places(BODIES),
            reading,
        }
    }

    /// All of `body`, at most `most` bytes, reserved while the bytes are there; `size` says what else a
    /// handler takes for it, which is reserved with the second.
    pub(super) async fn whole(
        &self,
        body: Body,
        most: usize,
        size: impl FnOnce(&[u8]) -> usize,
    ) -> Result<(Bytes, Reservation), Answer> {
        let budget = Budget::new(Arc::clone(&self.reading.memory), None);
        let read = match whole(body, &budget, most).await {
            Ok(bytes) => {
                let held = budget.hold(size(&bytes)).map_err(refused);
                held.map(|held| (bytes, held))
            }
            Err(refusal) => Err(refusal),
        };
        read.map_err(|refusal| self.reading.count(refusal))
    }

    /// A place for a query.
    pub(in crate::http) async fn reader(&self) -> Result<OwnedSemaphorePermit, Busy> {
        wait(&self.readers, "too many event queries are running").await
    }

    /// The place for an import.
    pub(super) async fn import(&self) -> Result<OwnedSemaphorePermit, Busy> {
        wait(&self.imports, "another import is running").await
    }

    /// `text` as a body that counts until all of it is sent.
    pub(super) fn answer(&self, text: String) -> Result<Bytes, Busy> {
        let size = u32::try_from(text.len().min(ANSWERS)).unwrap_or(u32::MAX);
        let answers = Arc::clone(&self.answers);
        match answers.try_acquire_many_owned(size) {
            Ok(permit) => Ok(Bytes::from_owner(Held {
                text,
                _permit: permit,
            })),
            Err(_) => Err(Busy("too many answers with events wait for their clients")),
        }
    }
}

async fn wait(places: &Arc<Semaphore>, why: &'static str) -> Result<OwnedSemaphorePermit, Busy> {
    if let Ok(permit) = Arc::clone(places).try_acquire_owned() {
        return Ok(permit);
    }
    match timeout(PATIENCE, Arc::clone(places).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(Busy(why)),
    }
}

/// There is no room: a 503 that says why.
#[derive(Debug)]
pub(in crate::http) struct Busy(&'static str);

impl Busy {
    /// The answer, counted.
    pub(in crate::http) fn answer(&self, store: &Store) -> Answer {
        store.stats().busy.fetch_add(1, Ordering::Relaxed);
        let sentence = format!("{}: try again later", self.0);
        Answer::error(StatusCode::SERVICE_UNAVAILABLE, &sentence).with(header::RETRY_AFTER, "5")
    }
}

/// Reads the body of a request: with a large one it waits for a place before.
pub(super) async fn bodies(
    State(state): State<EventsState>,
    request: Request,
    next: Next,
) -> Response {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
    let _place = if chunked || length.unwrap_or(0) > SMALL {
        let place = wait(&state.room.bodies, "too many large bodies are being read").await;
        match place {
            Ok(place) => Some(place),
            Err(busy) => return busy.answer(&state.store).into_response(),
        }
    } else {
        None
    };
    let (head, body) = request.into_parts();
    // JSON, or a form that becomes JSON.
    let size = |body: &[u8]| size_of_json(body) + size_of_form(body);
    match state.room.whole(body, MAX_BODY, size).await {
        Ok((bytes, _held)) => next.run(Request::from_parts(head, bytes.into())).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// All events as JSON lines, read while they are sent.
pub(super) async fn export(State(state): State<EventsState>) -> Response {
    let Ok(place) = Arc::clone(&state.room.exports).try_acquire_owned() else {
        let busy = Busy("the maximum number of exports is running");
        return busy.answer(&state.store).into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"events.jsonl\"",
        ),
    ];
    let body = Body::new(Export {
        store: state.store,
        after: 0,
        reading: None,
        ended: false,
        _place: place,
    });
    (headers, body).into_response()
}

/// What a portion is: its text, and the id of its last event, none at the end.
type Portion = Result<(String, Option<i64>), Error>;

/// The body of an export. Nothing is read, and no thread is taken, while the client does not.
struct Export {
    store: Arc<Store>,
    /// The last id that was sent.
    after: i64,
    reading: Option<JoinHandle<Portion>>,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Export {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let (store, after) = (&this.store, this.after);
        let reading = this.reading.get_or_insert_with(|| {
            let store = Arc::clone(store);
            tokio::task::spawn_blocking(move || {
                let events = store.export(after, PORTION)?;
                let text = events.iter().map(lines::write).collect();
                Ok((text, events.last().map(|event| event.id)))
            })
        });
        let portion = ready!(Pin::new(reading).poll(context));
        this.reading = None;
        let portion = portion.unwrap_or(Err(Error::Closed));
        Poll::Ready(match portion {
            Ok((text, Some(last))) => {
                this.after = last;
                Some(Ok(Frame::data(text.into())))
            }
            Ok((_, None)) => {
                this.ended = true;
                None
            }
            Err(why) => {
                this.ended = true;
                tracing::error!("an export of events failed: {why}");
                Some(Err(io::Error::other(why)))
            }
        })
    }
}

/// A text that holds its place until the last of its bytes is dropped, which is when the connection
/// has written it.
struct Held {
    text: String,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}
