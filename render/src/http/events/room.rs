//! What the events routes may hold in memory together.
//!
//! 1. No place is held at the pace of a client: neither while a body arrives nor while an answer is read.
//! 2. Bodies, and what becomes of them as JSON, are reserved in the memory of all requests. One import is
//!    stored at once: it is checked whole before any of it is stored.
//! 3. [`READERS`] questions are asked at once. What was answered counts against [`ANSWERS`] until it is sent
//!    ([`Answers`]): if there is no room for a new answer, the one that is read most slowly is broken off.
//! 4. An export is read a portion at a time, when the client has taken the one before; [`PORTIONS`] are read at
//!    once. One that the client has not taken is reserved in the memory of all requests.
//! 5. [`WRITERS`] changes wait for the store at once, each on a thread; further ones wait without one.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::{Answer, EventsState};
use crate::budget::{Budget, Memory, Reservation};
use crate::events::{Error, Store, lines};
use crate::http::guard::MAX_BODY;
use crate::http::params::{Reading, refused, size_of_form, size_of_json, whole};

/// Portions of exports that are read at once.
const PORTIONS: usize = 4;
/// Bytes of events in a portion of an export, unless a single event is larger.
const PORTION: usize = 64 * 1024;
/// Questions at once.
const READERS: usize = 4;
/// Changes that wait for the store on a thread: far fewer than there are threads (`MOST_BLOCKING` of the server).
pub(super) const WRITERS: usize = 16;
/// Bytes of answers that may wait to be sent.
const ANSWERS: usize = 64 * 1024 * 1024;
/// Bytes of an answer that are given to the connection at once.
const PIECE: usize = 64 * 1024;
/// For so long an answer is not broken off.
const GRACE: Duration = Duration::from_secs(5);
/// How long a request waits for a place.
const PATIENCE: Duration = Duration::from_secs(10);

/// The places there are. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Room {
    portions: Arc<Semaphore>,
    imports: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    writers: Arc<Semaphore>,
    answers: Arc<Answers>,
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
            portions: places(PORTIONS),
            imports: places(1),
            readers: places(READERS),
            writers: places(WRITERS),
            answers: Arc::new(Answers::new(ANSWERS, GRACE)),
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

    /// A place for a change that waits for the store.
    pub(super) async fn writer(&self) -> Result<OwnedSemaphorePermit, Busy> {
        let why = "too many changes wait for events.db, which another program may hold";
        wait(&self.writers, why).await
    }

    /// `text` as a body that counts until all of it is sent.
    pub(super) fn answer(&self, store: &Store, text: String) -> Result<Unread, Busy> {
        let (held, n_displaced) = self.answers.hold(text);
        store.stats().displaced.add(n_displaced);
        held.ok_or(Busy("too many answers with events wait for their clients"))
    }
}

/// The answers that are being read, up to a number of bytes.
#[derive(Debug)]
struct Answers {
    places: Arc<Semaphore>,
    most: usize,
    /// How long an answer is not broken off.
    grace: Duration,
    out: Mutex<Vec<Weak<Shared>>>,
}

impl Answers {
    fn new(most: usize, grace: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(most)),
            most,
            grace,
            out: Mutex::default(),
        }
    }

    /// `text` with its place, if there is one or one can be had, and how many answers were broken off for it.
    fn hold(&self, text: String) -> (Option<Unread>, u64) {
        let size = u32::try_from(text.len().min(self.most)).unwrap_or(u32::MAX);
        let mut n_displaced = 0;
        loop {
            let permit = Arc::clone(&self.places).try_acquire_many_owned(size);
            if let Ok(permit) = permit {
                let shared = Arc::new(Shared {
                    length: text.len(),
                    n_sent: AtomicUsize::new(0),
                    began: Instant::now(),
                    text: Mutex::new(Some((text, permit))),
                });
                let mut out = self.out.lock();
                out.retain(|other| other.strong_count() > 0);
                out.push(Arc::downgrade(&shared));
                return (Some(Unread(shared)), n_displaced);
            }
            if !self.displace() {
                return (None, n_displaced);
            }
            n_displaced += 1;
        }
    }

    /// Breaks off the answer that is read most slowly; false if none has been out for long.
    fn displace(&self) -> bool {
        let all: Vec<_> = self.out.lock().iter().filter_map(Weak::upgrade).collect();
        let slow = all
            .iter()
            .filter(|one| one.began.elapsed() >= self.grace && one.text.lock().is_some());
        let slowest = slow.min_by(|one, other| one.rate().total_cmp(&other.rate()));
        slowest.is_some_and(|one| one.text.lock().take().is_some())
    }
}

/// A text that holds its place until its last byte is given to the connection, or until it is broken off.
#[derive(Clone, Debug)]
pub struct Unread(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// The text and its place, while it is needed.
    text: Mutex<Option<(String, OwnedSemaphorePermit)>>,
    length: usize,
    n_sent: AtomicUsize,
    began: Instant,
}

impl Shared {
    /// Bytes a second that the client has read.
    fn rate(&self) -> f64 {
        let n_sent = self.n_sent.load(Ordering::Relaxed) as f64;
        n_sent / self.began.elapsed().as_secs_f64().max(0.001)
    }
}

impl Unread {
    /// The body for the client.
    pub(in crate::http) fn body(self) -> Body {
        Body::new(Sending { held: self, at: 0 })
    }
}

/// The body of an answer on its way to the client.
struct Sending {
    held: Unread,
    at: usize,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let shared = Arc::clone(&self.held.0);
        let end = shared.length.min(self.at + PIECE);
        if self.at == end {
            return Poll::Ready(None);
        }
        let mut text = shared.text.lock();
        let Some(piece) = text
            .as_ref()
            .and_then(|(text, _)| text.as_bytes().get(self.at..end))
        else {
            let why = "broken off: the client reads slowly, and others need the room";
            return Poll::Ready(Some(Err(io::Error::other(why))));
        };
        let piece = Bytes::copy_from_slice(piece);
        if end == shared.length {
            text.take();
        }
        self.at = end;
        shared.n_sent.store(end, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.at == self.held.0.length
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact((self.held.0.length - self.at) as u64)
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

/// Reads the body of a request before it gets any place.
pub(super) async fn bodies(
    State(state): State<EventsState>,
    request: Request,
    next: Next,
) -> Response {
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
    let reading = &state.room.reading;
    let budget = Budget::new(Arc::clone(&reading.memory), None);
    let held = match budget.hold(PORTION) {
        Ok(held) => held,
        Err(error) => return reading.count(refused(error)).into_response(),
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
        places: state.room.portions,
        after: 0,
        reading: None,
        ended: false,
        held,
    });
    (headers, body).into_response()
}

/// What a portion is: its text, and the id of its last event, none at the end.
type Portion = Result<(String, Option<i64>), Error>;

/// The body of an export. Nothing is read, and no thread or place is taken, while the client does not.
struct Export {
    store: Arc<Store>,
    places: Arc<Semaphore>,
    /// The last id that was sent.
    after: i64,
    reading: Option<Pin<Box<dyn Future<Output = Portion> + Send>>>,
    ended: bool,
    /// The memory of the portion that the client has not taken.
    held: Reservation,
}

/// The events after the one called `after`, read when there is a place.
async fn portion(store: Arc<Store>, places: Arc<Semaphore>, after: i64) -> Portion {
    let Ok(_place) = places.acquire_owned().await else {
        return Err(Error::Closed);
    };
    let read = tokio::task::spawn_blocking(move || {
        let events = store.export(after, PORTION)?;
        let text = events.iter().map(lines::write).collect();
        Ok((text, events.last().map(|event| event.id)))
    });
    read.await.unwrap_or(Err(Error::Closed))
}

impl Export {
    /// Reserves `text` in place of the portion before.
    fn take(&mut self, text: String) -> io::Result<Frame<Bytes>> {
        let reserved = self.held.resize(text.len().max(PORTION));
        reserved.map_err(io::Error::other)?;
        Ok(Frame::data(text.into()))
    }
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
        let (store, places, after) = (&this.store, &this.places, this.after);
        let reading = this
            .reading
            .get_or_insert_with(|| Box::pin(portion(Arc::clone(store), Arc::clone(places), after)));
        let portion = ready!(reading.as_mut().poll(context));
        this.reading = None;
        let frame = match portion {
            Ok((text, Some(last))) => {
                this.after = last;
                this.take(text)
            }
            Ok((_, None)) => {
                this.ended = true;
                return Poll::Ready(None);
            }
            Err(why) => Err(io::Error::other(why)),
        };
        if let Err(why) = &frame {
            this.ended = true;
            tracing::error!("an export of events failed: {why}");
        }
        Poll::Ready(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;

    use http_body::Body as _;

    use super::*;

    /// The next piece of `body`; `None` at the end.
    async fn piece(body: &mut Body) -> Option<Result<Bytes, axum::Error>> {
        let mut body = pin!(body);
        let frame = poll_fn(|context| body.as_mut().poll_frame(context)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    fn text() -> String {
        "x".repeat(2 * PIECE + 1)
    }

    #[tokio::test]
    async fn the_answer_that_is_read_most_slowly_makes_room() {
        let answers = Answers::new(2 * text().len(), Duration::ZERO);
        let hold = || answers.hold(text());
        let mut unread = hold().0.unwrap().body();
        let mut read = hold().0.unwrap().body();
        assert_eq!(piece(&mut read).await.unwrap().unwrap().len(), PIECE);
        let (third, n_displaced) = hold();
        assert_eq!(n_displaced, 1);
        let broken_off = piece(&mut unread).await.unwrap().unwrap_err();
        assert!(
            broken_off.to_string().contains("reads slowly"),
            "{broken_off}"
        );
        // The others are whole.
        for mut body in [read, third.unwrap().body()] {
            let most = body.size_hint().exact().unwrap();
            let mut length = 0;
            while let Some(piece) = piece(&mut body).await {
                length += piece.unwrap().len() as u64;
            }
            assert_eq!(length, most);
        }
        // A client that leaves makes room at once.
        let left = hold().0.unwrap();
        let _other = hold().0.unwrap();
        drop(left);
        assert_eq!(hold().1, 0);
    }

    #[test]
    fn an_answer_is_not_broken_off_at_once() {
        let answers = Answers::new(text().len(), Duration::MAX);
        let first = answers.hold(text()).0.unwrap();
        assert!(answers.hold(text()).0.is_none());
        drop(first);
        assert!(answers.hold(text()).0.is_some());
    }
}
