//! The whole path from packets to flushed lines, in one thread and without a clock.

mod flush;
mod golden;
mod split;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carbon::{Datapoint, NameError, SeriesId, Sink};
use crossbeam::channel;
use hashbrown::HashMap;

use crate::aggregate::flush::FlushInput;
use crate::aggregate::{Aggregator, Dropped};
use crate::events::EventReport;
use crate::number;
use crate::options::Options;
use crate::output::remote::Remote;
use crate::output::{Destinations, Outputs};
use crate::population::Population;
use crate::raw::simd::Path;
use crate::receiver::{Channels, Receiver};
use crate::report::{Command, CommandQueue, Report, Shared};
use crate::server::receiver_options;
use crate::token::MARGIN;

/// A sink that remembers.
#[derive(Default)]
pub(super) struct Memory {
    names: Mutex<Vec<String>>,
    ids: Mutex<HashMap<String, u32>>,
    points: Mutex<Vec<Datapoint>>,
}

impl Sink for Memory {
    fn intern(&self, name: &[u8]) -> Result<SeriesId, NameError> {
        let name = std::str::from_utf8(name).map_err(|_| NameError::NotUtf8)?;
        let mut names = self.names.lock().unwrap();
        let mut ids = self.ids.lock().unwrap();
        let id = *ids.entry(name.to_owned()).or_insert_with(|| {
            names.push(name.to_owned());
            (names.len() - 1) as u32
        });
        Ok(SeriesId(id))
    }

    fn submit(&self, points: &[Datapoint]) {
        self.points.lock().unwrap().extend_from_slice(points);
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        self.submit(points);
        points.len()
    }
}

impl Memory {
    /// `name value time` of all points, taken out.
    fn take(&self) -> Vec<String> {
        let names = self.names.lock().unwrap();
        let points = std::mem::take(&mut *self.points.lock().unwrap());
        points
            .iter()
            .map(|point| {
                let name = &names[point.series.0 as usize];
                format!(
                    "{name} {} {}",
                    number::text(point.value),
                    point.at.timestamp().0
                )
            })
            .collect()
    }
}

/// A server without threads.
pub(crate) struct Harness {
    pub(super) receivers: Vec<Receiver>,
    commands: Vec<Arc<CommandQueue>>,
    pub(super) reports: channel::Receiver<Report>,
    pub(super) events: channel::Receiver<EventReport>,
    pub(crate) aggregator: Aggregator,
    outputs: Outputs,
    text: Arc<Remote>,
    memory: Arc<Memory>,
    pub(super) shared: Arc<Shared>,
    pub(super) epoch: u64,
    now_ms: u64,
    interval_ms: u64,
}

pub(super) const START_MS: u64 = 1_700_000_000_000;

impl Harness {
    pub(crate) fn new(options: &Options) -> Self {
        Self::with(options, 1, Path::detect())
    }

    pub(super) fn with(options: &Options, receivers: usize, path: Path) -> Self {
        let shared = Arc::new(Shared::default());
        let (reports_in, reports) = channel::unbounded();
        let (events_in, events) = channel::unbounded();
        let population = Arc::new(Population::default());
        let mut queues = Vec::new();
        let found = (0..receivers)
            .map(|id| {
                let commands = Arc::new(CommandQueue::default());
                queues.push(commands.clone());
                let channels = Channels {
                    shared: shared.clone(),
                    commands,
                    reports: reports_in.clone(),
                    events: options.events.then(|| events_in.clone()),
                    repeater: None,
                    population: population.clone(),
                };
                let mut made = receiver_options(options, id, receivers);
                made.path = path;
                Receiver::new(made, channels).unwrap()
            })
            .collect();
        let memory = Arc::new(Memory::default());
        let text = Remote::new("nowhere:1".to_owned(), 1 << 30, Duration::ZERO);
        let destinations = Destinations {
            sink: Some(memory.clone()),
            text: vec![text.clone()],
            pickle: Vec::new(),
            console: None,
            patience: Duration::ZERO,
        };
        let own = options.self_metrics;
        Self {
            receivers: found,
            commands: queues,
            reports,
            events,
            aggregator: Aggregator::new(options, receivers, own, START_MS, || {}).unwrap(),
            outputs: Outputs::new(destinations, shared.clone()),
            text,
            memory,
            shared,
            epoch: 0,
            now_ms: START_MS,
            interval_ms: options.flush_interval.0.as_millis() as u64,
        }
    }

    pub(crate) fn packet(&mut self, packet: &[u8]) {
        self.packet_to(0, packet);
    }

    pub(super) fn packet_to(&mut self, receiver: usize, packet: &[u8]) {
        let mut bytes = vec![b'|'; MARGIN];
        bytes.extend_from_slice(packet);
        bytes.resize(bytes.len() + MARGIN, b'\n');
        let end = bytes.len() - MARGIN;
        self.receivers[receiver].packet(&bytes, MARGIN..end, None);
        self.receivers[receiver].apply(&bytes);
        self.receivers[receiver].step();
    }

    /// Ends the interval in the receivers.
    pub(crate) fn end_interval(&mut self) {
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for receiver in &mut self.receivers {
            receiver.step();
            while receiver.is_sweeping() {
                receiver.step();
            }
        }
        self.take_reports();
    }

    /// Gives the aggregator what receivers have reported.
    pub(super) fn take_reports(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            let stats = &self.shared.stats;
            self.aggregator.take(report, &mut self.outputs, stats);
        }
    }

    /// Asks receivers to forget names.
    pub(super) fn forget(&mut self, dropped: Dropped, with_samples: bool) {
        for (queue, entries) in self.commands.iter().zip(dropped.entries) {
            queue.push(Command::Forget {
                entries,
                with_samples,
            });
        }
    }

    /// Ends the interval; its lines, as text and as the sink got them, must say the same.
    pub(super) fn flush(&mut self) -> Vec<String> {
        self.flush_after(1)
    }

    /// As [`Harness::flush`], after so many intervals of which only the last was flushed.
    pub(super) fn flush_after(&mut self, intervals: u64) -> Vec<String> {
        self.end_interval();
        self.now_ms += self.interval_ms * intervals;
        let stats = &self.shared.stats;
        let input = FlushInput {
            epoch: self.epoch,
            interval_end_ms: self.now_ms,
            intervals,
            bad_lines: stats.bad_lines_series(),
            clock: || Duration::ZERO,
        };
        let dropped = self.aggregator.flush(&input, &mut self.outputs, stats);
        self.epoch += 1;
        self.forget(dropped, false);
        let text = String::from_utf8(self.text.take_all()).unwrap();
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let sunk: Vec<String> = self.memory.take();
        let whole = |line: &String| {
            let (rest, at) = line.rsplit_once(' ').unwrap();
            format!("{rest} {}", at.parse::<f64>().unwrap() as u32)
        };
        assert_eq!(lines.iter().map(whole).collect::<Vec<_>>(), sunk);
        lines
    }

    /// As [`Harness::flush`], without our own lines and without times, sorted.
    pub(super) fn flush_values(&mut self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .flush()
            .iter()
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .filter(|line| !line.contains("statsd."))
            .collect();
        lines.sort();
        lines
    }
}
