//! Threads and tasks whose death is noticed.
//!
//! 1. A thread that ends by a panic tells the process, once: what it did is not done any more, so
//!    the process should end with an error rather than go on without it.
//! 2. [`Threads::join`] waits for threads that are alive, for as long as they take. Once one has
//!    died it waits for a bounded time, since others may wait for what the dead one would do.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};
use tracing::error;

/// Called with the name of the first thread or task of a server that ends by a panic.
pub type OnDeath = Arc<dyn Fn(&str) + Send + Sync>;

/// For how long the threads that are left may go on after one has died.
const AFTER_DEATH: Duration = Duration::from_secs(10);

/// What all threads and tasks of a server report their death to.
#[derive(Clone)]
pub(crate) struct Deaths(Arc<Noticed>);

struct Noticed {
    any: AtomicBool,
    on_death: OnDeath,
}

impl Deaths {
    pub(crate) fn new(on_death: OnDeath) -> Self {
        let any = AtomicBool::new(false);
        Self(Arc::new(Noticed { any, on_death }))
    }

    /// Runs `run`; `None`, reported, if it panics.
    fn watch<T>(&self, name: &str, run: impl FnOnce() -> T) -> Option<T> {
        // What a panic leaves half done belongs to the thread that ends with it, or is behind a
        // lock or a channel whose other end expects the worst.
        let result = panic::catch_unwind(AssertUnwindSafe(run));
        if result.is_err() {
            error!("{name} has panicked");
            if !self.0.any.swap(true, Ordering::AcqRel) {
                (self.0.on_death)(name);
            }
        }
        result.ok()
    }

    /// Runs `task` to its end, or until it panics.
    pub(crate) async fn watch_task(self, name: &'static str, task: impl Future<Output = ()>) {
        let mut task = pin!(task);
        let poll = |context: &mut Context<'_>| {
            let polled = self.watch(name, || task.as_mut().poll(context));
            polled.unwrap_or(Poll::Ready(()))
        };
        poll_fn(poll).await;
    }

    fn any(&self) -> bool {
        self.0.any.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Deaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Deaths").field(&self.any()).finish()
    }
}

/// Threads that are waited for together.
#[derive(Debug)]
pub(crate) struct Threads<T = ()> {
    deaths: Deaths,
    handles: Vec<JoinHandle<Option<T>>>,
    /// Each thread has a copy for as long as it runs.
    running: Option<Sender<Infallible>>,
    ended: Receiver<Infallible>,
}

impl<T: Send + 'static> Threads<T> {
    pub(crate) fn new(deaths: &Deaths) -> Self {
        let (running, ended) = channel::bounded(0);
        Self {
            deaths: deaths.clone(),
            handles: Vec::new(),
            running: Some(running),
            ended,
        }
    }

    /// Starts a thread.
    ///
    /// # Errors
    /// The system does not start it.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<()> {
        let deaths = self.deaths.clone();
        let running = self.running.clone();
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _running = running;
                deaths.watch(name, run)
            })?;
        self.handles.push(handle);
        Ok(())
    }

    /// Waits for the threads, but no longer than `time`; returns whether all have ended. The others
    /// are left behind.
    pub(crate) fn join_within(&mut self, time: Duration) -> bool {
        self.running = None;
        match self.ended.recv_timeout(time) {
            Ok(never) => match never {},
            Err(why) => why == RecvTimeoutError::Disconnected,
        }
    }

    /// Waits for the threads; returns what those that have not died came to.
    pub(crate) fn join(&mut self) -> Vec<T> {
        self.running = None;
        let all_ended = loop {
            match self.ended.recv_timeout(AFTER_DEATH) {
                Ok(never) => match never {},
                Err(RecvTimeoutError::Disconnected) => break true,
                Err(RecvTimeoutError::Timeout) if self.deaths.any() => break false,
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        let mut results = Vec::new();
        for handle in self.handles.drain(..) {
            if all_ended || handle.is_finished() {
                results.extend(handle.join().ok().flatten());
            } else {
                let name = handle.thread().name().unwrap_or_default();
                error!("{name} is left behind: it waits for a thread that has died");
            }
        }
        results
    }
}
