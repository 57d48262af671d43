//! Answers too large to be held: formatted while the client reads them.
//!
//! 1. A chunk is formatted on the pool when the connection has room for it. A slow client holds a
//!    few chunks, which are reserved before the first is sent, and no thread.
//! 2. The series stay reserved until the last of the clients that share them has gone. When a
//!    client goes, its chunks end. One that reads slowly is broken off when others miss the memory
//!    ([`Holds`]).
//! 3. Formatting counts against `render.timeout`, waiting for the client does not. An answer that
//!    takes longer breaks off, so that the client does not take a part for the whole.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use http_body::{Body, Frame};

use super::pool::{Lane, Refusal};
use super::{App, Holds};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::format::{Buffer, Document, Position};

/// The bytes that are formatted at once.
const CHUNK: usize = 256 * 1024;

/// How many chunks a connection may hold: what hyper gathers before it writes, and one more.
const HELD: usize = 3;

/// How long a chunk waits before it asks again for a place in the pool's queue.
const AGAIN: Duration = Duration::from_millis(20);

/// A document that several clients may read at their own pace.
#[derive(Clone)]
pub struct Stream(Arc<Shared>);

struct Shared {
    app: App,
    document: Document,
    /// Holds the series reserved.
    budget: Budget,
    /// How long each client's formatting may take.
    allowed: Duration,
    /// Of a chunk, to the last byte.
    capacity: usize,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stream").field(&self.0.document).finish()
    }
}

impl Stream {
    pub(super) fn new(app: App, document: Document, budget: Budget) -> Self {
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        Self(Arc::new(Shared {
            capacity: CHUNK + document.largest_piece(),
            allowed: budget.deadline().map_or(Duration::MAX, left),
            app,
            document,
            budget,
        }))
    }

    /// The body for one client.
    ///
    /// # Errors
    /// [`Error::Limit`] if there is no memory for its chunks.
    pub(super) fn body(self) -> Result<Sending> {
        let room = self.0.budget.account();
        room.reserve(HELD.saturating_mul(self.0.capacity))?;
        Ok(Sending {
            stream: self,
            room,
            position: Position::START,
            spent: Duration::ZERO,
            job: None,
        })
    }

    pub(super) fn app(&self) -> &App {
        &self.0.app
    }

    fn chunk(&self, mut at: Position, spent: Duration, room: Budget) -> Result<Chunk> {
        let Shared {
            document,
            allowed,
            capacity,
            ..
        } = &*self.0;
        let started = Instant::now();
        let mut out = Buffer::prepaid(*capacity, room)?;
        document.write(&mut at, &mut out, CHUNK, || {
            if spent + started.elapsed() > *allowed {
                return Err(Error::Timeout);
            }
            Ok(())
        })?;
        Ok(Chunk {
            bytes: Bytes::from_owner(out),
            next: at,
            spent: spent + started.elapsed(),
        })
    }
}

struct Chunk {
    bytes: Bytes,
    next: Position,
    spent: Duration,
}

type Job = Pin<Box<dyn Future<Output = Result<Chunk>> + Send>>;

/// The body of an answer that is formatted while it is sent.
pub(super) struct Sending {
    stream: Stream,
    /// What its chunks have reserved.
    room: Budget,
    position: Position,
    spent: Duration,
    /// The chunk that is being formatted.
    job: Option<Job>,
}

impl Sending {
    pub(super) fn held(&self) -> Holds {
        Holds {
            own: self.room.reserved(),
            shared: self.stream.0.budget.reserved(),
            answer: Arc::as_ptr(&self.stream.0).addr(),
        }
    }

    fn next_chunk(&self) -> Job {
        let (stream, at, room) = (self.stream.clone(), self.position, self.room.clone());
        let mut spent = self.spent;
        Box::pin(async move {
            loop {
                let (part, room) = (stream.clone(), room.clone());
                let job = move || part.chunk(at, spent, room);
                // A chunk takes a millisecond or two, and there is one at a time for each client.
                let chunk = stream.app().pool.run(Lane::Small, job).await;
                match chunk {
                    Ok(chunk) => return chunk,
                    Err(Refusal::Full) if spent < stream.0.allowed => {
                        tokio::time::sleep(AGAIN).await;
                        spent = spent.saturating_add(AGAIN);
                    }
                    Err(Refusal::Full) => return Err(Error::Timeout),
                    Err(Refusal::Panicked) => {
                        return Err(Error::Failed("formatting an answer panicked".to_owned()));
                    }
                }
            }
        })
    }
}

impl Body for Sending {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.position.is_end() {
            return Poll::Ready(None);
        }
        let mut job = this.job.take().unwrap_or_else(|| this.next_chunk());
        let chunk = match job.as_mut().poll(context) {
            Poll::Ready(chunk) => chunk,
            Poll::Pending => {
                this.job = Some(job);
                return Poll::Pending;
            }
        };
        match chunk {
            Ok(chunk) => {
                (this.position, this.spent) = (chunk.next, chunk.spent);
                Poll::Ready(Some(Ok(Frame::data(chunk.bytes))))
            }
            Err(error) => {
                this.stream.app().refuse(&error);
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.position.is_end()
    }
}
