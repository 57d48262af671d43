//! What the handlers of queries share, and how they compute their answers.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::FromRef;
use axum::http::StatusCode;
use jiff::tz::TimeZone;

use super::Answer;
use super::flight::{Flights, Key};
use super::params::Reading;
use super::pool::{self, Lane, Pool, Refusal};
use crate::budget::{Budget, Memory};
use crate::context::Limits;
use crate::error::Error;
use crate::events::{Store, TagQuery};
use crate::options::Options;
use crate::source::{Source, Tags};
use crate::stats::{Stats, count};

/// What all handlers share. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// The inside of an [`App`].
pub struct Shared {
    /// Where series come from.
    pub source: Arc<dyn Source>,
    /// The tags of the tagged series.
    pub tags: Arc<dyn Tags>,
    /// The events.
    pub events: Arc<Store>,
    /// Where requests are computed.
    pub pool: Pool,
    /// Counters.
    pub stats: Arc<Stats>,
    /// The time zone of requests that name none.
    pub time_zone: TimeZone,
    /// The events on pictures that do not say which.
    pub default_events: TagQuery,
    max_series: usize,
    max_points: usize,
    /// What all requests together may hold.
    pub memory: Arc<Memory>,
    timeout: Duration,
    fixed_now: Option<i64>,
    in_flight: Flights,
}

impl FromRef<App> for Reading {
    fn from_ref(app: &App) -> Self {
        Self {
            memory: Arc::clone(&app.memory),
            stats: Arc::clone(&app.stats),
        }
    }
}

impl Deref for App {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl App {
    /// An application over a store.
    ///
    /// # Errors
    /// [`Error::Refused`] if `time_zone` or `default_events` does not read as one, or a file of `fonts`
    /// is not a font.
    pub fn new(
        options: &Options,
        source: Arc<dyn Source>,
        tags: Arc<dyn Tags>,
        events: Arc<Store>,
    ) -> Result<Self, Error> {
        let Options {
            // Used by the server of the routes.
            http: _,
            base_path: _,
            max_connections: _,
            header_timeout: _,
            idle_timeout: _,
            write_timeout: _,
            time_zone,
            fonts,
            max_series,
            max_points,
            max_memory,
            timeout,
            // Used by the server, which hands in their series.
            peers: _,
            peer_timeout: _,
            concurrency,
            default_events,
            now,
        } = options;
        crate::draw::use_fonts(fonts)
            .map_err(|why| Error::refused(format!("render.fonts: {why}")))?;
        let default_events = default_events
            .parse()
            .map_err(|error| Error::refused(format!("render.default_events: {error}")))?;
        let zone = TimeZone::get(time_zone).map_err(|_| {
            Error::refused(format!(
                "render.time_zone: {time_zone:?} is not an IANA time zone, e.g. Europe/Berlin"
            ))
        })?;
        Ok(Self(Arc::new(Shared {
            source,
            tags,
            events,
            default_events,
            pool: Pool::new(*concurrency),
            stats: Arc::default(),
            time_zone: zone,
            max_series: *max_series,
            max_points: *max_points,
            memory: Memory::new(max_memory.bytes()),
            timeout: timeout.0,
            fixed_now: (*now != 0).then_some(*now),
            in_flight: Flights::default(),
        })))
    }

    /// The series of this machine alone.
    pub fn local_source(&self) -> &dyn Source {
        self.source.local().unwrap_or(&*self.source)
    }

    /// The clock of queries, in Unix seconds: `render.now` if that is set.
    pub fn now(&self) -> i64 {
        self.fixed_now.unwrap_or_else(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            i64::try_from(since.unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
        })
    }

    /// What one request may take, its time beginning now.
    pub fn limits(&self) -> Limits {
        Limits {
            max_series: self.max_series,
            max_points: self.max_points,
            budget: Budget::new(Arc::clone(&self.memory), self.deadline()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if self.timeout.is_zero() {
            return None;
        }
        // A timeout beyond the range of the clock is no timeout.
        Instant::now().checked_add(self.timeout)
    }

    /// Computes an answer on the pool, within `budget`, which is cancelled if the client goes.
    pub async fn compute(
        &self,
        budget: Budget,
        lane: Lane,
        job: impl FnOnce(&Self) -> Answer + Send + 'static,
    ) -> Answer {
        let app = self.clone();
        let mut client = Waiting {
            app: self,
            alone: Some(budget),
            answered: false,
        };
        let answer = self.pool.run(lane, move || job(&app)).await;
        client.answered = true;
        answer.unwrap_or_else(|refusal| self.no_answer(refusal))
    }

    /// As [`App::compute`], but requests with the same key that come while the first is being
    /// computed share its answer. The work goes on for as long as one of their clients waits.
    pub async fn compute_once(
        &self,
        key: Key,
        budget: Budget,
        lane: Lane,
        job: impl FnOnce(&Self) -> Answer + Send + 'static,
    ) -> Answer {
        let (mut client, answering) = self.in_flight.join(key, budget.clone());
        let first = answering.is_some();
        if let Some(answering) = answering {
            let (app, number) = (self.clone(), client.number);
            let submitted = self.pool.submit(lane, move || {
                // All clients may have gone away meanwhile.
                if budget.is_cancelled() {
                    return;
                }
                let answer = pool::caught(|| job(&app));
                let answer = answer.unwrap_or_else(|refusal| app.no_answer(refusal));
                app.in_flight.end(&key, number);
                answering.send_replace(Some(answer));
            });
            if let Err(refusal) = submitted {
                self.in_flight.end(&key, number);
                return self.no_answer(refusal);
            }
        }
        let mut waiting = Waiting {
            app: self,
            alone: None,
            answered: false,
        };
        let answer = client.answer.wait_for(Option::is_some).await;
        let answer = answer.map(|answer| (*answer).clone());
        waiting.answered = true;
        match answer {
            Ok(Some(answer)) => {
                if !first {
                    count(&self.stats.shared);
                }
                answer
            }
            // The first found the queue full.
            _ => self.no_answer(Refusal::Full),
        }
    }

    /// The answer to a request that the pool did not compute.
    fn no_answer(&self, refusal: Refusal) -> Answer {
        match refusal {
            Refusal::Full => {
                count(&self.stats.limited);
                let sentence = "too many requests wait already: see render.concurrency";
                Answer::text(StatusCode::SERVICE_UNAVAILABLE, sentence)
            }
            Refusal::Panicked => {
                count(&self.stats.panicked);
                let sentence = "internal error: the request failed because of a bug in plumbago";
                Answer::text(StatusCode::INTERNAL_SERVER_ERROR, sentence)
            }
        }
    }

    /// The answer to a request that went wrong, counted.
    pub fn refuse(&self, error: &Error) -> StatusCode {
        match error {
            Error::Refused(_) | Error::Target { .. } => {
                count(&self.stats.refused);
                StatusCode::BAD_REQUEST
            }
            Error::Limit { .. } => {
                count(&self.stats.limited);
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Error::Timeout => {
                count(&self.stats.timed_out);
                StatusCode::SERVICE_UNAVAILABLE
            }
            // Counted when the client went.
            Error::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
            Error::Failed(_) => {
                count(&self.stats.failed);
                tracing::warn!(%error, "a query failed");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        }
    }
}

/// A client that waits for its answer. If it is dropped before, the client has gone.
struct Waiting<'a> {
    app: &'a App,
    /// The budget of work for this client alone.
    alone: Option<Budget>,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        count(&self.app.stats.cancelled);
        if let Some(budget) = &self.alone {
            budget.cancel();
        }
    }
}
