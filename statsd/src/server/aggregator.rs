//! The aggregator's thread: ends intervals, takes reports, answers queries.
//!
//! 1. An interval ends at a multiple of its length since 1970. The aggregator then counts up the
//!    epoch, wakes the receivers, and takes their reports until each has reported the interval;
//!    then it flushes. What is late by whole intervals is one flush, of all of them ([`Covered`]).
//! 2. Stopping ends one more interval: each receiver takes what waits in its sockets, reports it
//!    with what it has, and ends. The epoch stays, so that all of it is one interval. It is saved for the next start if the only
//!    output is the store of this process, and flushed otherwise.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam::channel::{self, Receiver as Incoming, Sender};
use crossbeam::select;
use tokio::sync::mpsc;
use tracing::error;

use super::covered::{Covered, uptime_ms};
use super::key_flush::KeyFlush;
use super::start::chain;
use crate::admin::Query;
use crate::aggregate::flush::FlushInput;
use crate::aggregate::{Aggregator, Dropped, Taken};
use crate::error::Error;
use crate::listener::Block;
use crate::output::Outputs;
use crate::population::Population;
use crate::raw::socket::Waker;
use crate::report::{Command, CommandQueue, Peek, Report, Shared};
use crate::state::{self, Extent};
use crate::stats::now_ms;

/// What the server asks of the thread.
#[derive(Debug)]
pub(super) enum Control {
    Stop,
    /// Flush now; for tests and benches that do not wait for the clock.
    Flush(Sender<()>),
}

/// What makes a receiver look at the epoch and its commands.
pub(super) enum Wake {
    Socket(Waker),
    /// Weak, so that the thread of all streams sees when the last connection has ended.
    Streams(mpsc::WeakSender<Block>),
}

impl Wake {
    fn wake(&self) {
        match self {
            Self::Socket(waker) => waker.wake(),
            Self::Streams(blocks) => {
                if let Some(blocks) = blocks.upgrade() {
                    // A full channel means that it is awake.
                    let _ = blocks.try_send(Block::Wake);
                }
            }
        }
    }
}

/// The aggregator's side of a receiver.
pub(super) struct ReceiverHandle {
    commands: Arc<CommandQueue>,
    wake: Wake,
    has_ended: bool,
    has_reported: bool,
    peek: Option<Peek>,
}

impl ReceiverHandle {
    pub(super) fn new(commands: Arc<CommandQueue>, wake: Wake) -> Self {
        Self {
            commands,
            wake,
            has_ended: false,
            has_reported: false,
            peek: None,
        }
    }
}

/// Where the unfinished interval goes at a stop.
pub(super) struct StateFile {
    pub(super) path: PathBuf,
    /// Its samples go there, too, instead of a last flush.
    pub(super) has_interval: bool,
    /// The file has what the start read from it, of which nothing has been flushed yet.
    pub(super) is_restored: bool,
}

impl StateFile {
    /// Deletes what has been read, before it is flushed.
    fn use_up(&mut self) {
        if self.is_restored {
            match state::delete(&self.path) {
                Ok(()) => self.is_restored = false,
                Err(why) => error!("{}", chain(&why)),
            }
        }
    }
}

/// The aggregator's thread. See the head of this file.
pub(super) struct AggregatorThread {
    pub(super) interval_ms: u64,
    pub(super) covered: Covered,
    pub(super) key_flush: Option<KeyFlush>,
    pub(super) aggregator: Aggregator,
    pub(super) outputs: Outputs,
    pub(super) shared: Arc<Shared>,
    pub(super) population: Arc<Population>,
    pub(super) reports: Incoming<Report>,
    pub(super) queries: Incoming<Query>,
    pub(super) controls: Incoming<Control>,
    pub(super) receivers: Vec<ReceiverHandle>,
    pub(super) epoch: u64,
    pub(super) state_file: Option<StateFile>,
}

impl AggregatorThread {
    /// Runs until the server stops.
    ///
    /// # Errors
    /// The state file cannot be written.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut end = self.next_end(now_ms());
        loop {
            let now = now_ms();
            // A clock that was set back must not stop the flushes.
            if end > now + 2 * self.interval_ms {
                end = self.next_end(now);
            }
            if now >= end {
                // After a pause of the machine only the last boundary is flushed, for all before it.
                let missed = (now - end) / self.interval_ms * self.interval_ms;
                self.flush(end + missed);
                end = self.next_end(now_ms().max(end + missed));
                continue;
            }
            let wait = Duration::from_millis(end - now);
            let (reports, queries, controls) = (
                self.reports.clone(),
                self.queries.clone(),
                self.controls.clone(),
            );
            select! {
                recv(reports) -> report => match report {
                    Ok(report) => self.take(report),
                    // There are no receivers: no report will ever come.
                    Err(_) => self.reports = channel::never(),
                },
                recv(queries) -> query => match query {
                    Ok(query) => self.answer(query),
                    Err(_) => self.queries = channel::never(),
                },
                recv(controls) -> control => match control {
                    Ok(Control::Flush(done)) => {
                        self.flush(now_ms());
                        let _ = done.send(());
                    }
                    Ok(Control::Stop) | Err(_) => return self.stop(),
                },
                default(wait) => {}
            }
        }
    }

    fn next_end(&self, now: u64) -> u64 {
        (now / self.interval_ms + 1) * self.interval_ms
    }

    fn take(&mut self, report: Report) {
        let receiver = report.receiver;
        let taken = self
            .aggregator
            .take(report, &mut self.outputs, &self.shared.stats);
        let receiver = &mut self.receivers[receiver];
        match taken {
            Taken::Numbers => {}
            Taken::IntervalEnd => receiver.has_reported = true,
            Taken::Peek(peek) => receiver.peek = Some(peek),
            Taken::Ended => receiver.has_ended = true,
        }
    }

    /// Takes reports until each receiver is `done` or has ended.
    fn take_until(&mut self, done: impl Fn(&ReceiverHandle) -> bool) {
        let is_left = |receiver: &ReceiverHandle| !receiver.has_ended && !done(receiver);
        while self.receivers.iter().any(is_left) {
            match self.reports.recv() {
                Ok(report) => self.take(report),
                Err(_) => break,
            }
        }
    }

    fn wake(&self) {
        for receiver in &self.receivers {
            receiver.wake.wake();
        }
    }

    /// Starts the next epoch: receivers report the one before.
    fn end_interval(&mut self) {
        for receiver in &mut self.receivers {
            receiver.has_reported = false;
        }
        self.shared.epoch.store(self.epoch + 1, Ordering::Release);
    }

    /// Flushes what the aggregator has.
    fn flush_aggregator(&mut self, interval_end_ms: u64) -> Dropped {
        let stats = &self.shared.stats;
        let ago = now_ms().saturating_sub(interval_end_ms);
        let input = FlushInput {
            epoch: self.epoch,
            interval_end_ms,
            intervals: self.covered.until(ago, uptime_ms()),
            bad_lines: stats.bad_lines_series(),
            clock: since_start,
        };
        let dropped = self.aggregator.flush(&input, &mut self.outputs, stats);
        stats.name_entries.set(self.population.entries());
        stats.end_interval();
        dropped
    }

    fn flush(&mut self, interval_end_ms: u64) {
        self.end_interval();
        self.wake();
        self.take_until(|receiver| receiver.has_reported);
        if let Some(file) = &mut self.state_file {
            file.use_up();
        }
        let dropped = self.flush_aggregator(interval_end_ms);
        self.epoch += 1;
        if forget(&self.receivers, dropped, false) {
            self.wake();
        }
        if let Some(key_flush) = &mut self.key_flush {
            key_flush.tick(&mut self.aggregator);
        }
    }

    fn answer(&mut self, query: Query) {
        let peeks = if query.needs_peek() {
            self.peek()
        } else {
            Vec::new()
        };
        let receivers = &self.receivers;
        query.answer(&mut self.aggregator, self.epoch, &peeks, |dropped| {
            forget(receivers, dropped, true);
            for receiver in receivers {
                receiver.wake.wake();
            }
        });
    }

    /// What the running interval has so far, by receiver.
    fn peek(&mut self) -> Vec<Option<Peek>> {
        for receiver in &mut self.receivers {
            receiver.peek = None;
            receiver.commands.push(Command::Peek);
        }
        self.wake();
        self.take_until(|receiver| receiver.peek.is_some());
        let peeks = self.receivers.iter_mut().map(|it| it.peek.take());
        peeks.collect()
    }

    fn stop(mut self) -> Result<(), Error> {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.wake();
        self.take_until(|_| false);
        let epoch = self.epoch;
        let state_file = self.state_file.take();
        if let Some(StateFile {
            path,
            has_interval: true,
            ..
        }) = &state_file
        {
            return state::save(path, &mut self.aggregator, epoch, Extent::All);
        }
        // The gauges are saved after this flush: remote outputs may not hold it up for long.
        self.outputs.hurry();
        self.flush_aggregator(now_ms());
        match &state_file {
            Some(file) => {
                let extent = Extent::CarriesOn;
                state::save(&file.path, &mut self.aggregator, epoch, extent)
            }
            None => Ok(()),
        }
    }
}

/// Asks receivers to forget names; returns whether there is anything to forget.
fn forget(receivers: &[ReceiverHandle], dropped: Dropped, with_samples: bool) -> bool {
    let mut any = false;
    for (receiver, entries) in receivers.iter().zip(dropped.entries) {
        if !entries.is_empty() {
            any = true;
            receiver.commands.push(Command::Forget {
                entries,
                with_samples,
            });
        }
    }
    any
}

/// The time since the first call.
fn since_start() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}
