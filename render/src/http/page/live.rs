//! Live updates: `GET /page/live`, Server-Sent Events for every open page.
//!
//! 1. The first message is the whole state, a few hundred bytes; each later one has the fields that differ
//!    from the last message that this page was sent. So no client has a queue: a slow one gets fewer messages.
//! 2. A message goes out when an event or a dashboard changed, within [`LOOK`], and otherwise every
//!    [`BEAT`]: a page that hears nothing for three beats knows that the server is gone or hangs.
//! 3. At most [`MOST`] pages are connected; others are refused and ask with `?once=1`.
//! 4. The shutdown ends all of them.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body::Frame;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::words::count;
use super::{Inner, Page, Stats, assets, fingerprint};
use crate::http::params::InQuery;
use crate::http::{Answer, JSON};

/// The time between two messages when nothing changes.
pub(super) const BEAT: Duration = Duration::from_secs(3);
/// How often changes are looked for.
const LOOK: Duration = Duration::from_millis(200);
/// Pages connected at once.
pub(super) const MOST: usize = 200;
/// Looks between two counts of the received metrics.
const LOOKS_PER_COUNT: u32 = 5;
/// Looks between two looks at the files of dashboards.
const LOOKS_PER_FILES: u32 = 10;

/// What has changed, for those who wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Versions {
    /// Of the events.
    events: u64,
    /// Of the dashboards.
    dashboards: u64,
    /// The server shuts down.
    stopped: bool,
}

/// When the clients' data came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    /// The most metrics that a count has found.
    received: u64,
    /// Unix seconds at which that number was last seen to grow.
    pub(super) last: Option<f64>,
    /// Unix seconds of the first count.
    pub(super) since: f64,
}

/// The state that all open pages share.
pub(super) struct Live {
    versions: watch::Sender<Versions>,
    arrivals: Mutex<Arrivals>,
    room: Arc<Semaphore>,
    pub(super) stats: Stats,
    /// Another one after every start.
    run: u64,
}

impl Live {
    pub(super) fn new() -> Self {
        let since = now();
        Self {
            versions: watch::Sender::default(),
            arrivals: Mutex::new(Arrivals {
                since,
                ..Arrivals::default()
            }),
            room: Arc::new(Semaphore::new(MOST)),
            stats: Stats::default(),
            run: (since * 1000.0) as u64,
        }
    }

    /// When the clients' data came.
    pub(super) fn arrivals(&self) -> Arrivals {
        *self.arrivals.lock()
    }

    /// Announces another set of dashboards.
    pub(super) fn dashboards_changed(&self) {
        self.versions
            .send_modify(|versions| versions.dashboards += 1);
    }

    /// Takes note of a count of the clients' metrics. One count may be lower than that before it.
    fn count_received(&self, received: u64) {
        let mut arrivals = self.arrivals.lock();
        if received > arrivals.received {
            arrivals.last = Some(now());
            arrivals.received = received;
        }
    }

    /// Pages connected now.
    pub(super) fn connected(&self) -> usize {
        MOST - self.room.available_permits()
    }
}

/// Unix seconds.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

impl Page {
    /// Watches for changes and announces them to open pages, until it is dropped.
    pub async fn watch(self) {
        let _ending = Ending(Arc::clone(&self.0));
        let live = &self.0.live;
        let mut looks = 0u32;
        let mut files = None;
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if looks.is_multiple_of(LOOKS_PER_COUNT) {
                live.count_received(self.0.host.received());
            }
            if looks.is_multiple_of(LOOKS_PER_FILES) {
                files = self.look_at_files(files).await;
            }
            looks = looks.wrapping_add(1);
            let events = self.0.host.generation();
            live.versions.send_if_modified(|versions| {
                let changed = versions.events != events;
                versions.events = events;
                changed
            });
        }
    }

    /// Reads the dashboards again if their files have another fingerprint than `before`, and drops
    /// the list of names if it is not used. Returns the fingerprint.
    async fn look_at_files(&self, before: Option<u64>) -> Option<u64> {
        let page = self.clone();
        let look = tokio::task::spawn_blocking(move || {
            page.0.search.tidy();
            let now = page.0.directory.as_deref().map(fingerprint);
            if before.is_some() && before != now {
                page.reload();
            }
            now
        });
        look.await.unwrap_or(before)
    }

    /// The present state.
    fn beat(&self) -> Map<String, Value> {
        let live = &self.0.live;
        let Versions {
            events, dashboards, ..
        } = *live.versions.borrow();
        let arrivals = live.arrivals();
        let tenths = |at: f64| (at * 10.0).round() / 10.0;
        let fields = [
            ("now", tenths(now()).into()),
            ("data", arrivals.last.map(tenths).into()),
            ("since", tenths(arrivals.since).into()),
            ("received", count(self.0.host.received(), "metric").into()),
            ("events", events.into()),
            ("dashboards", dashboards.into()),
            ("run", live.run.into()),
            ("version", assets::VERSION.as_str().into()),
        ];
        let named = fields.map(|(name, value)| (name.to_owned(), value));
        Map::from_iter(named)
    }
}

/// `GET /page/live`.
pub(super) async fn live(State(page): State<Page>, InQuery(params): InQuery) -> Response {
    if params.get("once").is_some() {
        let answer = Answer::ok(JSON, Value::from(page.beat()).to_string());
        return answer
            .with(header::CACHE_CONTROL, "no-store")
            .into_response();
    }
    let live = &page.0.live;
    let Ok(place) = Arc::clone(&live.room).try_acquire_owned() else {
        live.stats.refused.add(1);
        let sentence = "too many pages are connected for live updates";
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, sentence).into_response();
    };
    live.stats.opened.add(1);
    let (sender, messages) = mpsc::channel(1);
    let versions = live.versions.subscribe();
    tokio::spawn(send_states(page.clone(), versions, sender));
    let feed = Feed {
        messages,
        _place: place,
    };
    let mut response = Response::new(Body::new(feed));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies such as nginx pass the messages on at once.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Sends the state to one page until it goes or the server shuts down.
async fn send_states(
    page: Page,
    mut versions: watch::Receiver<Versions>,
    sender: mpsc::Sender<Bytes>,
) {
    let mut sent = Map::new();
    while !versions.borrow_and_update().stopped {
        let state = page.beat();
        let mut news = state.clone();
        news.retain(|name, value| sent.get(name) != Some(value));
        let retry = if sent.is_empty() { "retry: 2000\n" } else { "" };
        let message = format!("{retry}data: {}\n\n", Value::from(news));
        match sender.try_send(Bytes::from(message)) {
            Ok(()) => sent = state,
            Err(mpsc::error::TrySendError::Full(_)) => page.0.live.stats.skipped.add(1),
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
        tokio::select! {
            changed = versions.changed() => if changed.is_err() { return },
            () = sleep(BEAT) => {}
            () = sender.closed() => return,
        }
    }
}

/// Ends the messages to all pages when the task that watches ends.
struct Ending(Arc<Inner>);

impl Drop for Ending {
    fn drop(&mut self) {
        let Live { versions, .. } = &self.0.live;
        versions.send_modify(|versions| versions.stopped = true);
    }
}

/// The body of the answer to one page.
struct Feed {
    messages: mpsc::Receiver<Bytes>,
    /// Counts this page as connected.
    _place: OwnedSemaphorePermit,
}

impl http_body::Body for Feed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let message = self.messages.poll_recv(context);
        message.map(|message| message.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_count_above_all_before_is_new_data() {
        let live = Live::new();
        live.count_received(0);
        assert_eq!(live.arrivals().last, None);
        live.count_received(5);
        let last = live.arrivals().last;
        assert!(last.is_some());
        for received in [3, 5] {
            live.count_received(received);
            assert_eq!(live.arrivals().last, last);
        }
        live.count_received(6);
        assert!(live.arrivals().last >= last && live.arrivals().received == 6);
    }
}
