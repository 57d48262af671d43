//! Streams and bodies that end when the client makes no progress.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use render::http::Holds;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::readers::Place;
use super::{Phase, Shared, Watch};

/// Bytes a second below which a body is too slow, once its first patience is used up.
const SLOWEST_BODY: u64 = 1024;

/// A stream with deadlines for reading and writing.
pub(super) struct Timed {
    stream: TcpStream,
    reading: Pin<Box<Sleep>>,
    writing: Pin<Box<Sleep>>,
    /// Whether the kernel took nothing the last time, so that a part of an answer is still here.
    stalled: bool,
    watch: Arc<Watch>,
}

impl Timed {
    pub(super) fn new(stream: TcpStream, watch: Arc<Watch>) -> Self {
        Self {
            stream,
            reading: Box::pin(sleep(Duration::ZERO)),
            writing: Box::pin(sleep(Duration::ZERO)),
            stalled: false,
            watch,
        }
    }

    fn wrote<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Shared {
            limits, counters, ..
        } = &*self.watch.shared;
        let stalled_before = std::mem::replace(&mut self.stalled, outcome.is_pending());
        if !self.stalled || limits.write.is_zero() {
            if self.watch.phase() == Phase::Idle {
                self.watch.rests.notify_one();
            }
            return outcome;
        }
        if !stalled_before {
            self.writing.as_mut().reset(Instant::now() + limits.write);
        }
        if self.writing.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        counters.unread.add(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Drop for Timed {
    /// Resets a connection on which an answer is not out: the end of one whose length the client does
    /// not know, as of all that are formatted while they are sent to a client of HTTP/1.0, would look
    /// like the end of the answer.
    fn drop(&mut self) {
        if self.stalled || self.watch.answering.load(Ordering::Relaxed) {
            // If the system refuses it, the connection has ended already.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(context, buffer);
        if outcome.is_ready() {
            if buffer.filled().len() > before && self.watch.phase() == Phase::Idle {
                self.watch.enter(Phase::Head);
            }
            return outcome;
        }
        let Self { reading, watch, .. } = &mut *self;
        let Some((deadline, counter)) = watch.deadline() else {
            return Poll::Pending;
        };
        if reading.deadline() != deadline {
            reading.as_mut().reset(deadline);
        }
        if reading.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        counter.add(1);
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.wrote(context, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.wrote(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// A body on its way in.
pub(super) struct Arriving {
    body: Incoming,
    patience: Pin<Box<Sleep>>,
    began: Instant,
    /// When the last piece came.
    last: Instant,
    n_bytes: u64,
    watch: Arc<Watch>,
}

impl Arriving {
    pub(super) fn new(body: Incoming, watch: Arc<Watch>) -> Self {
        let now = Instant::now();
        Self {
            body,
            patience: Box::pin(sleep_until(now)),
            began: now,
            last: now,
            n_bytes: 0,
            watch,
        }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            if let Some(Ok(frame)) = &frame {
                this.n_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.last = Instant::now();
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        let patience = this.watch.shared.limits.write;
        if patience.is_zero() {
            return Poll::Pending;
        }
        let owed = Duration::from_secs(this.n_bytes / SLOWEST_BODY);
        let deadline = (this.last + patience).min(this.began + patience + owed);
        if this.patience.deadline() != deadline {
            this.patience.as_mut().reset(deadline);
        }
        if this.patience.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        this.watch.shared.counters.slow_bodies.add(1);
        let why = io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly");
        Poll::Ready(Some(Err(axum::Error::new(why))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Holds from the request to the end of its answer.
pub(super) struct Answered(pub(super) Arc<Watch>);

impl Drop for Answered {
    fn drop(&mut self) {
        self.0.enter(Phase::Idle);
        self.0.rests.notify_one();
    }
}

/// The pieces in which large answers go out, so that it shows how fast their clients read, in bytes.
const PIECE: usize = 64 << 10;

/// The body of an answer on its way out.
pub(super) struct Sent {
    body: Body,
    /// What is left of a piece of the body.
    rest: Bytes,
    /// Where the client of a large answer is watched.
    place: Option<Place>,
    answered: Answered,
}

impl Sent {
    /// `body`, of which nothing has been sent, and what it holds if that is much; `is_head` if nothing of it
    /// will be sent.
    pub(super) fn new(body: Body, held: Option<Holds>, answered: Answered, is_head: bool) -> Self {
        let Answered(watch) = &answered;
        let answering = !is_head && !body.is_end_stream();
        watch.answering.store(answering, Ordering::Relaxed);
        let held = held.filter(|_| answering);
        let place = held.map(|held| watch.shared.readers.join(held, Arc::clone(&watch.end)));
        Self {
            body,
            rest: Bytes::new(),
            place,
            answered,
        }
    }

    /// What of `frame` goes out at once.
    fn begun(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if self.place.is_none() {
            return frame;
        }
        match frame.into_data() {
            Ok(data) => {
                self.rest = data;
                Frame::data(self.piece().unwrap_or_default())
            }
            Err(trailers) => trailers,
        }
    }

    /// The next piece of what is left, if anything is.
    fn piece(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            return None;
        }
        let length = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(length);
        if let Some(place) = &self.place {
            place.sent(length);
        }
        Some(piece)
    }
}

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        if let Some(place) = &this.place {
            place.wants();
        }
        let frame = match this.piece() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None => Pin::new(&mut this.body)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map(|frame| this.begun(frame)))),
        };
        let is_over = match &frame {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(_))) => this.is_end_stream(),
            // One that breaks off is not out.
            Poll::Ready(Some(Err(_))) | Poll::Pending => false,
        };
        if is_over {
            this.answered.0.answering.store(false, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, body) = (self.rest.len() as u64, self.body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
