//! What a page takes while it is written, and until it is sent.
//!
//! 1. [`PLACES`] pages are written at once, each on a thread of its own: a store that answers slowly holds
//!    these, and leaves the threads of the runtime to other work.
//! 2. The events that a page reads are reserved in the memory of all requests, with the markup that they become,
//!    before it is written. A page with many of them ([`Page::read`]) reserves before it reads.
//! 3. The finished page is reserved until it is sent, and only that.
//! 4. The page of a client that has gone ends at its next question.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{NEEDS_WITHIN, Page, failed};
use crate::budget::{Budget, Memory, Reservation};
use crate::error::{Error, Result};
use crate::events::store::MAX_ANSWER_BYTES;
use crate::events::{self, Event};
use crate::http::{Answer, Content, pool};

/// Pages that are written at once: as many as the store keeps connections for.
pub(super) const PLACES: usize = 8;
/// How long a page waits for a place.
const PATIENCE: Duration = Duration::from_secs(10);
/// The bytes of text that are read first: most pages have less.
const FIRST: usize = 256 << 10;
/// What an event takes beside its texts.
const PER_EVENT: usize = 512;
/// The least text of an event, as the store counts it.
const LEAST_TEXT: usize = 64;
/// The markup around the texts of an event, in bytes, and around one of its tags.
const MARKUP: usize = 2_048;
const MARKUP_OF_TAG: usize = 128;

/// One request for a page.
pub(super) struct Asked {
    budget: Budget,
    /// Until when it looks for series.
    until: Instant,
    /// Why it cannot be shown.
    refused: Mutex<Option<Error>>,
}

impl Asked {
    /// A request that takes `budget`, from now on.
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            budget,
            until: Instant::now() + NEEDS_WITHIN,
            refused: Mutex::default(),
        }
    }
}

/// Ends the work when the client goes.
struct Client(Budget);

impl Drop for Client {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Page {
    /// The answer that `write` makes of this page, on a thread that may block, when there is a place for it.
    pub(in crate::http) async fn answer(
        &self,
        write: impl FnOnce(&Self) -> Answer + Send + 'static,
    ) -> Answer {
        let place = Arc::clone(&self.0.places).acquire_owned();
        let Ok(Ok(place)) = timeout(PATIENCE, place).await else {
            return busy("too many pages are being written: try again later");
        };
        let asked = Asked::new(self.0.host.budget());
        let _client = Client(asked.budget.clone());
        let page = Self(Arc::clone(&self.0), Some(Arc::new(asked)));
        let (answering, answered) = oneshot::channel();
        let work = move || {
            let _place = place;
            let answer = pool::caught(|| page.kept(write(&page)));
            // The client may have gone.
            let _ = answering.send(answer.unwrap_or_else(|_| failed()));
        };
        let thread = thread::Builder::new().name("page".to_owned());
        if let Err(error) = thread.spawn(work) {
            return busy(&format!("no thread for the page: {error}"));
        }
        answered.await.unwrap_or_else(|_| failed())
    }

    /// `answer` with its bytes reserved until they are sent; a refusal if the page has not all that it shows.
    pub(super) fn kept(&self, answer: Answer) -> Answer {
        let Some(asked) = &self.1 else {
            return answer;
        };
        if let Some(error) = asked.refused.lock().take() {
            return self.refusal(&error);
        }
        let Content::Whole(bytes) = answer.body else {
            return answer;
        };
        match asked.budget.account().hold(bytes.len()) {
            Ok(held) => Answer {
                body: Bytes::from_owner(Kept { bytes, _held: held }).into(),
                ..answer
            },
            Err(error) => self.refusal(&error),
        }
    }

    pub(super) fn refusal(&self, error: &Error) -> Answer {
        let (status, sentence) = (self.0.host.refuse(error), error.to_string());
        match status {
            StatusCode::SERVICE_UNAVAILABLE => busy(&sentence),
            status => Answer::text(status, sentence),
        }
    }

    /// As [`Host::events`](super::Host::events), reserved.
    pub(super) fn events(
        &self,
        expression: &str,
        from: f64,
        until: f64,
        limit: usize,
    ) -> Vec<Event> {
        self.reserved(|| self.0.host.events(expression, from, until, limit))
    }

    /// As [`Host::around`](super::Host::around), reserved.
    pub(super) fn around(
        &self,
        expression: &str,
        from: f64,
        until: f64,
        limit: usize,
    ) -> Vec<Event> {
        self.reserved(|| self.0.host.around(expression, from, until, limit))
    }

    /// As [`Host::event`](super::Host::event), reserved.
    pub(super) fn event(&self, id: i64) -> Option<Event> {
        self.reserved(|| self.0.host.event(id).into_iter().collect())
            .pop()
    }

    /// What `read` gives; nothing if there is no memory or time for it, and then the page is refused.
    fn reserved(&self, read: impl FnOnce() -> Vec<Event>) -> Vec<Event> {
        let Some(asked) = &self.1 else {
            return read();
        };
        if asked.refused.lock().is_some() {
            return Vec::new();
        }
        let reserved = asked.budget.check().and_then(|()| {
            let events = read();
            self.reserve(&events).map(|()| events)
        });
        reserved.unwrap_or_else(|error| {
            *asked.refused.lock() = Some(error);
            Vec::new()
        })
    }

    /// Reserves what all these events take on this page.
    ///
    /// # Errors
    /// The answer to the client.
    pub(in crate::http) fn reserve_all<'e>(
        &self,
        all: impl IntoIterator<Item = &'e [Event]>,
    ) -> Result<(), Answer> {
        all.into_iter()
            .try_for_each(|events| self.reserve(events))
            .map_err(|error| self.refusal(&error))
    }

    fn reserve(&self, events: &[Event]) -> Result<()> {
        match &self.1 {
            Some(asked) => asked.budget.reserve(size_on_page(events)),
            None => Ok(()),
        }
    }

    /// At most `limit` events as `query` finds them, reserved. It is called with the most bytes of text that they may
    /// have.
    ///
    /// # Errors
    /// The answer to the client.
    pub(in crate::http) fn read(
        &self,
        limit: usize,
        query: impl Fn(usize) -> Result<Vec<Event>, events::Error>,
    ) -> Result<Vec<Event>, Answer> {
        let Some(asked) = &self.1 else {
            return Ok(query(MAX_ANSWER_BYTES)?);
        };
        let refused = |error: Error| self.refusal(&error);
        let memory = asked.budget.memory();
        let most = most_text(limit, memory.left());
        for n_bytes in [FIRST.min(most), most] {
            let room = size_of_read(limit, n_bytes);
            asked.budget.reserve(room).map_err(refused)?;
            let events = match query(n_bytes) {
                Ok(events) => events,
                Err(error) => {
                    asked.budget.release(room);
                    match error {
                        events::Error::TooLarge(_) if n_bytes < most => continue,
                        events::Error::TooLarge(_) if most < MAX_ANSWER_BYTES => break,
                        error => return Err(error.into()),
                    }
                }
            };
            let size = size_on_page(&events);
            asked.budget.release(room.saturating_sub(size));
            let reserved = asked.budget.reserve(size.saturating_sub(room));
            // What was read is reserved until it is dropped.
            return reserved.map(|()| events).map_err(refused);
        }
        Err(refused(Error::Limit {
            what: format!(
                "the events of the page have more than {most} bytes beside {} in use",
                memory.used().saturating_add(memory.charged())
            ),
            key: "render.max_memory",
            limit: usize::try_from(memory.limit()).unwrap_or(usize::MAX),
        }))
    }

    /// What one search for series of this page may take: all of them end together.
    pub(super) fn searching(&self) -> Budget {
        let (memory, until) = match &self.1 {
            Some(asked) => (Arc::clone(asked.budget.memory()), asked.until),
            None => (Memory::new(0), Instant::now() + NEEDS_WITHIN),
        };
        Budget::new(memory, Some(until))
    }

    /// What one question of this page may take.
    pub(super) fn budget(&self) -> Budget {
        match &self.1 {
            Some(asked) => asked.budget.clone(),
            None => self.0.host.budget(),
        }
    }
}

/// A 503 with this sentence.
fn busy(sentence: &str) -> Answer {
    Answer::text(StatusCode::SERVICE_UNAVAILABLE, sentence).with(header::RETRY_AFTER, "5")
}

/// The bytes of a page, and their memory.
struct Kept {
    bytes: Bytes,
    _held: Reservation,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What `n_bytes` of text in at most `limit` events take.
fn size_of_read(limit: usize, n_bytes: usize) -> usize {
    let n_events = limit.min(n_bytes / LEAST_TEXT);
    n_bytes.saturating_add(n_events.saturating_mul(PER_EVENT))
}

/// The most text in at most `limit` events that may be read while `left` bytes of memory are left: together three
/// quarters of it.
fn most_text(limit: usize, left: u64) -> usize {
    let share = usize::try_from(left / 4).map_or(usize::MAX, |quarter| quarter.saturating_mul(3));
    let of_few = share.saturating_sub(limit.saturating_mul(PER_EVENT));
    let of_many = share / (1 + PER_EVENT / LEAST_TEXT);
    of_few.max(of_many).min(MAX_ANSWER_BYTES)
}

/// What events take on a page: they themselves, and their markup, which is up to twice as long while it grows.
fn size_on_page(events: &[Event]) -> usize {
    let escaped = |text: &str| {
        let n_special = text.bytes().filter(|byte| b"<>&\"".contains(byte)).count();
        text.len() + 5 * n_special
    };
    let one = |event: &Event| {
        // A tag is a part of an address, too.
        let tag = |tag: &String| escaped(tag) + 3 * tag.len() + MARKUP_OF_TAG;
        let tags: usize = event.tags.iter().map(tag).sum();
        let link = event.link.as_deref().map_or(0, escaped);
        let verdict = event
            .impact
            .as_ref()
            .map_or(0, |report| 2 * report.text_len());
        let markup = MARKUP + escaped(&event.what) + escaped(&event.data) + tags + link + verdict;
        PER_EVENT + event.text_len() + 2 * markup
    };
    events.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_fits_into_what_is_left() {
        for limit in [0, 1, 200, 100_000, usize::MAX] {
            for left in [0, 1, 1_000, 1 << 20, 64 << 20, u64::MAX] {
                let most = most_text(limit, left);
                let room = size_of_read(limit, most) as u64;
                assert!(room <= left / 4 * 3 + 3, "{limit} {left}: {most} {room}");
            }
        }
        assert_eq!(most_text(200, 1 << 40), MAX_ANSWER_BYTES);
    }
}
