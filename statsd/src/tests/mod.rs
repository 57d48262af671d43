//! The whole path from packets to flushed lines, in one thread and without a clock.

mod flush;
mod golden;
mod split;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carbon::{Datapoint, NameError, SeriesId, Sink};
use crossbeam::channel::{self, Receiver};
use hashbrown::HashMap;

use crate::aggregate::{Book, Moment};
use crate::number;
use crate::options::Options;
use crate::output::remote::Remote;
use crate::output::{Fan, Outputs};
use crate::population::Population;
use crate::raw::simd::Path;
use crate::receive::{Command, Intake, Mailbox, MarkReport, Outlets, Report, Shared, What};
use crate::server::intake_options;
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
                format!("{name} {} {}", number::text(point.value), point.at.0)
            })
            .collect()
    }
}

/// A server without threads.
pub(super) struct Bench {
    pub(super) intakes: Vec<Intake>,
    mailboxes: Vec<Arc<Mailbox>>,
    pub(super) reports: Receiver<Report>,
    pub(super) marks: Receiver<MarkReport>,
    pub(super) book: Book,
    fan: Fan,
    text: Arc<Remote>,
    memory: Arc<Memory>,
    pub(super) shared: Arc<Shared>,
    pub(super) epoch: u64,
    now_ms: u64,
    interval_ms: u64,
}

pub(super) const START_MS: u64 = 1_700_000_000_000;

impl Bench {
    pub(super) fn new(options: &Options) -> Self {
        Self::with(options, 1, Path::detect())
    }

    pub(super) fn with(options: &Options, intakes: usize, path: Path) -> Self {
        let shared = Arc::new(Shared::default());
        let (reports_in, reports) = channel::unbounded();
        let (marks_in, marks) = channel::unbounded();
        let population = Arc::new(Population::default());
        let mut mailboxes = Vec::new();
        let found = (0..intakes)
            .map(|id| {
                let mailbox = Arc::new(Mailbox::default());
                mailboxes.push(mailbox.clone());
                let outlets = Outlets {
                    shared: shared.clone(),
                    mailbox,
                    reports: reports_in.clone(),
                    marks: options.events.then(|| marks_in.clone()),
                    repeater: None,
                    population: population.clone(),
                };
                let mut made = intake_options(options, id, intakes);
                made.path = path;
                Intake::new(made, outlets).unwrap()
            })
            .collect();
        let memory = Arc::new(Memory::default());
        let text = Remote::new("nowhere:1".to_owned(), 1 << 30, Duration::ZERO);
        let outputs = Outputs {
            sink: Some(memory.clone()),
            text: vec![text.clone()],
            pickle: Vec::new(),
            console: None,
            patience: Duration::ZERO,
        };
        Self {
            intakes: found,
            mailboxes,
            reports,
            marks,
            book: Book::new(options, intakes, options.self_metrics, START_MS).unwrap(),
            fan: Fan::new(outputs, shared.clone()),
            text,
            memory,
            shared,
            epoch: 0,
            now_ms: START_MS,
            interval_ms: options.flush_interval.0.as_millis() as u64,
        }
    }

    pub(super) fn packet(&mut self, packet: &[u8]) {
        self.packet_to(0, packet);
    }

    pub(super) fn packet_to(&mut self, intake: usize, packet: &[u8]) {
        let mut bytes = vec![b'|'; MARGIN];
        bytes.extend_from_slice(packet);
        bytes.resize(bytes.len() + MARGIN, b'\n');
        let end = bytes.len() - MARGIN;
        self.intakes[intake].packet(&bytes, MARGIN..end, None);
        self.intakes[intake].settle(&bytes);
        self.intakes[intake].step();
    }

    fn take(&mut self) {
        while let Ok(report) = self.reports.try_recv() {
            let Report {
                intake,
                epoch,
                what,
            } = report;
            match what {
                What::Names(names) => self.book.learn(intake, &names),
                What::Values(values) => self.book.values(intake, &values, &self.shared.stats),
                What::Samples(samples) => {
                    self.book
                        .samples(intake, epoch, &samples, &self.shared.stats);
                }
                What::Members(members) => self.book.members(intake, members),
                What::Points(points) => self.book.points(&points, &mut self.fan),
                What::Turned(counts) => {
                    let refused = counts.refused.samples;
                    let stats = &self.shared.stats;
                    stats.names_refused.fetch_add(refused, Ordering::Relaxed);
                    self.book.counts(intake, &counts);
                }
                What::Peeked(_) | What::Ended => {}
            }
        }
    }

    /// Ends the interval in the intakes.
    pub(super) fn turn(&mut self) {
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for intake in &mut self.intakes {
            intake.step();
            while intake.is_sweeping() {
                intake.step();
            }
        }
        self.take();
    }

    /// Ends the interval; its lines, as text and as the sink got them, must say the same.
    pub(super) fn flush(&mut self) -> Vec<String> {
        self.turn();
        self.now_ms += self.interval_ms;
        let moment = Moment {
            end_ms: self.now_ms,
        };
        let stats = &self.shared.stats;
        let dropped = self.book.flush(self.epoch, moment, &mut self.fan, stats);
        self.epoch += 1;
        for (mailbox, entries) in self.mailboxes.iter().zip(dropped.entries) {
            mailbox.push(Command::Forget {
                entries,
                with_samples: false,
            });
        }
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

    /// As [`Bench::flush`], without our own lines and without times, sorted.
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
