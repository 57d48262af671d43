//! When verdicts are computed: as the windows after deploys fill, and on request.
//!
//! 1. The worker sleeps until the next look is due, an event comes, or a verdict is asked for.
//! 2. Events of the last [`BACK`] without a complete verdict are due, the newest first; older ones are judged on
//!    request only. Nothing but the events themselves is remembered, so a restart goes on where it was.
//! 3. After a verdict that nobody asked for the worker rests for as long as it took.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::calibration::{Calibration, Running};
use super::judge::Judge;
use crate::events::{Draft, Event};
use crate::impact::{Outcome, Report};

/// How far back events are judged without a request, in seconds: two days of history are left then.
const BACK: f64 = 5.0 * 86_400.0;
/// A deploy that ended more than this many seconds ago is judged without an event and without a webhook.
const NEWS: f64 = 86_400.0;
/// Events looked at in one search.
const MAX_FOUND: usize = 1_000;
/// How often events are searched when none is due.
const SEARCH: Duration = Duration::from_secs(5);
/// How long an event is left alone when its verdict failed.
const RETRY: f64 = 60.0;
/// Most requests that wait.
const MAX_REQUESTS: usize = 256;

/// What the worker needs from the server.
pub trait Host: Send + Sync {
    /// The clock, in Unix seconds.
    fn now(&self) -> f64;

    /// The targets of all panels of all dashboards.
    fn dashboards(&self) -> Vec<String>;

    /// Called when a deploy turns out worse.
    ///
    /// # Errors
    /// Why a message about it was not delivered.
    fn worse(&self, event: &Event, report: &Report) -> Result<(), String>;
}

/// Asks the worker for verdicts, and stops it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Handle(Arc<Control>);

#[derive(Default)]
struct Control {
    state: Mutex<State>,
    changed: Condvar,
    cancelled: AtomicBool,
}

#[derive(Default)]
struct State {
    requests: VecDeque<i64>,
    stopped: bool,
    /// A calibration is wanted.
    calibrate: bool,
    /// The last one, or the one in progress.
    calibration: Option<Calibration>,
}

impl Handle {
    /// Asks for a new verdict on the event called `id`; false if too many requests wait.
    pub fn request(&self, id: i64) -> bool {
        let mut state = self.0.state.lock();
        if !state.requests.contains(&id) {
            if state.requests.len() >= MAX_REQUESTS {
                return false;
            }
            state.requests.push_back(id);
        }
        self.0.changed.notify_all();
        true
    }

    /// The last calibration, if there was one since the start.
    pub fn calibration(&self) -> Option<Calibration> {
        self.0.state.lock().calibration.clone()
    }

    /// Asks for a new calibration.
    pub fn calibrate(&self) {
        self.0.state.lock().calibrate = true;
        self.0.changed.notify_all();
    }

    /// Stops the worker: a verdict in progress is abandoned.
    pub fn stop(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
        self.0.state.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

/// Computes verdicts until it is stopped.
pub struct Worker {
    judge: Arc<Judge>,
    host: Arc<dyn Host>,
    handle: Handle,
    worse_tags: Vec<String>,
    /// Events whose verdict failed, and when to try again.
    failed: BTreeMap<i64, f64>,
    calibration: Option<Running>,
}

impl Worker {
    /// A worker that judges by `judge`; `worse_tags` are the tags of the event that it posts when a deploy turns
    /// out worse.
    pub fn new(judge: Arc<Judge>, host: Arc<dyn Host>, worse_tags: &str) -> (Self, Handle) {
        let handle = Handle::default();
        let worker = Self {
            judge,
            host,
            handle: handle.clone(),
            worse_tags: worse_tags.split_whitespace().map(str::to_owned).collect(),
            failed: BTreeMap::new(),
            calibration: None,
        };
        (worker, handle)
    }

    /// Works until [`Handle::stop`]. Blocks the calling thread.
    pub fn run(mut self) {
        while let Some(requested) = self.wait() {
            let begun = Instant::now();
            let now = self.host.now();
            let event = match requested {
                Some(id) => self.judge.store.event(id).ok(),
                None => self.due(now),
            };
            match event {
                Some(event) => self.judge(&event, now),
                None if requested.is_none() && self.calibrate(now) => {}
                None => {
                    self.rest(SEARCH);
                    continue;
                }
            }
            if requested.is_none() {
                self.rest(begun.elapsed());
            }
        }
    }

    /// The next request, if one waits; `None` when stopped.
    fn wait(&self) -> Option<Option<i64>> {
        let mut state = self.handle.0.state.lock();
        (!state.stopped).then(|| state.requests.pop_front())
    }

    /// Sleeps, but not longer than until something is wanted.
    fn rest(&self, time: Duration) {
        let mut state = self.handle.0.state.lock();
        if state.requests.is_empty() && !state.stopped && !state.calibrate {
            self.handle.0.changed.wait_for(&mut state, time);
        }
    }

    /// The newest event whose verdict is due.
    fn due(&mut self, now: f64) -> Option<Event> {
        let query = self.judge.events.as_ref()?;
        let found = self.judge.store.query(query, now - BACK, now, MAX_FOUND);
        let found = found
            .map_err(|error| tracing::warn!(%error, "events to judge"))
            .ok()?;
        self.failed.retain(|_, again| *again > now);
        let due = |event: &&Event| {
            let Some(end) = Judge::end(event, now) else {
                return false;
            };
            let next = match &event.impact {
                None => Some(Judge::due(end, crate::impact::LOOKS[0])),
                Some(report) if report.complete => None,
                Some(report) => report.next.or(Some(now)),
            };
            next.is_some_and(|next| next <= now) && !self.failed.contains_key(&event.id)
        };
        found.iter().rev().find(due).cloned()
    }

    fn judge(&mut self, event: &Event, now: f64) {
        let cancelled = &self.handle.0.cancelled;
        let stats = &self.judge.stats;
        let dashboards = self.host.dashboards();
        let judged = self.judge.judge(event, now, dashboards, cancelled);
        if cancelled.load(Ordering::Relaxed) {
            return;
        }
        let kept = judged
            .map_err(|error| error.to_string())
            .and_then(|report| {
                let store = &self.judge.store;
                store
                    .set_impact(event.id, report)
                    .map_err(|error| error.to_string())
            });
        match kept {
            Ok(report) => {
                stats.judged.add(1);
                let before = event.impact.as_ref().map(|report| report.verdict);
                if report.verdict == Outcome::Worse && before != Some(Outcome::Worse) {
                    stats.worse.add(1);
                    if Judge::end(event, now).is_some_and(|end| now - end < NEWS) {
                        self.announce(event, &report);
                    }
                }
            }
            Err(error) => {
                stats.failed.add(1);
                tracing::warn!(error, event = event.id, "no verdict");
                self.failed.insert(event.id, now + RETRY);
            }
        }
    }

    /// Judges the next deploy of a calibration; false if there is nothing to do.
    fn calibrate(&mut self, now: f64) -> bool {
        let wanted = std::mem::take(&mut self.handle.0.state.lock().calibrate);
        if wanted {
            self.calibration = Some(Running::begin(&self.judge, now));
        }
        let Some(running) = &mut self.calibration else {
            return false;
        };
        let next = running.next();
        if let Some(event) = &next {
            let cancelled = &self.handle.0.cancelled;
            match self
                .judge
                .judge(event, now, self.host.dashboards(), cancelled)
            {
                Ok(report) => running.count(&report),
                Err(error) => tracing::warn!(%error, "a part of the calibration"),
            }
        }
        self.handle.0.state.lock().calibration = Some(running.so_far.clone());
        if next.is_none() {
            self.calibration = None;
        }
        true
    }

    /// Says that `event` turned out worse: an event of its own, and what the host does.
    fn announce(&self, event: &Event, report: &Report) {
        if !self.worse_tags.is_empty() {
            let tags: Vec<&str> = self.worse_tags.iter().map(String::as_str).collect();
            let draft = Draft {
                data: Some(report.sentence.clone()),
                key: Some(finding_key(event.id)),
                when: Some(self.host.now()),
                ..Draft::new(format!("worse: {}", event.what), &tags)
            };
            self.judge.store.insert_later(draft);
        }
        if let Err(error) = self.host.worse(event, report) {
            self.judge.stats.webhooks_failed.add(1);
            tracing::warn!(error, event = event.id, "a webhook was not delivered");
        }
    }
}

/// The key of the event that says that the deploy `id` turned out worse.
pub fn finding_key(id: i64) -> String {
    format!("impact-{id}")
}
