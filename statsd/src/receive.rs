//! What a receiving thread does with packets, whatever socket they came from.
//!
//! 1. [`Intake::packet`] takes a packet apart; [`Intake::settle`] applies what has gathered. Bytes
//!    must stay where they are between the two.
//! 2. An interval ends for this thread when it sees a new epoch ([`Intake::step`]). It then sweeps
//!    its table a slice at a time between packets, and reports when it is through.
//! 3. Reports go to the aggregator through a bounded channel. If that is full the thread waits,
//!    and what does not fit into the socket's buffer meanwhile is dropped and counted by the kernel.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam::channel::{Sender, TrySendError};
use tracing::{info, warn};

use crate::marks::{self, Check, Mark};
use crate::metric::{Op, PointKind, Reject};
use crate::name;
use crate::parse::{self, Head, Item};
use crate::population::Population;
use crate::raw::simd::{self, Path};
use crate::repeater::Packets;
use crate::stats::{Stats, now_ms};
use crate::table::{Gauges, Limits, Members, Names, Refused, Samples, Table, Value};
use crate::token::{MARGIN, Seeds, Token};

/// Tokens that are applied together: enough for the prefetches to pay, few enough that they stay
/// in the second-level cache.
const BATCH: usize = 4_096;
/// Entries swept between two reads of the socket.
const SLICE: u32 = 8_192;
/// Samples of timers that are handed over together.
const SAMPLES: usize = 32_768;
const POINTS: usize = 1_024;
const NAMES: usize = 4_096;

/// What a receiving thread tells the aggregator.
#[derive(Debug)]
pub(crate) struct Report {
    /// Which thread.
    pub(crate) intake: usize,
    /// Which interval.
    pub(crate) epoch: u64,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// Names that entries stand for from now on.
    Names(Names),
    Values(Vec<Value>),
    Samples(Samples),
    Members(Members),
    Points(Vec<Point>),
    /// All of the epoch has been reported.
    Turned(Counts),
    /// The answer to [`Command::Peek`].
    Peeked(Peeked),
    /// The thread has ended.
    Ended,
}

/// A value with its own time, under its canonical name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: PointKind,
    pub(crate) value: f64,
    /// Unix seconds.
    pub(crate) at: f64,
}

/// What a thread counted in an interval.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) packets: u64,
    pub(crate) lines: u64,
    pub(crate) bad: u64,
    pub(crate) refused: Refused,
    pub(crate) hits: Vec<(u32, u32)>,
}

/// A look at the running interval.
#[derive(Debug, Default)]
pub(crate) struct Peeked {
    pub(crate) values: Vec<Value>,
    pub(crate) samples: Samples,
    pub(crate) counts: Counts,
}

/// What the aggregator asks of a thread.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// These names are dropped; with all that they have, or only if they have nothing new.
    Forget {
        entries: Vec<u32>,
        with_samples: bool,
    },
    Peek,
}

/// What all threads see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The interval that samples belong to.
    pub(crate) epoch: AtomicU64,
    pub(crate) stop: AtomicBool,
    /// What `health` answers.
    pub(crate) is_down: AtomicBool,
    pub(crate) stats: Stats,
}

/// The aggregator's side of a thread.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    commands: Mutex<Vec<Command>>,
    waiting: AtomicBool,
}

impl Mailbox {
    pub(crate) fn push(&self, command: Command) {
        self.commands
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(command);
        self.waiting.store(true, Ordering::Release);
    }

    fn take(&self) -> Vec<Command> {
        if !self.waiting.load(Ordering::Relaxed) || !self.waiting.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// An event on its way to the thread that hands it on.
#[derive(Debug)]
pub(crate) enum MarkReport {
    Event(Mark),
    Check(Check),
}

/// What an intake is made of.
pub(crate) struct IntakeOptions {
    pub(crate) id: usize,
    pub(crate) limits: Limits,
    pub(crate) gauges: Gauges,
    pub(crate) longest_name: usize,
    pub(crate) count_hits: bool,
    pub(crate) dump: bool,
    pub(crate) path: Path,
}

/// Where an intake's findings go.
#[derive(Clone)]
pub(crate) struct Outlets {
    pub(crate) shared: Arc<Shared>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) reports: Sender<Report>,
    /// `None` if events are bad lines.
    pub(crate) marks: Option<Sender<MarkReport>>,
    pub(crate) repeater: Option<Sender<Packets>>,
    pub(crate) population: Arc<Population>,
}

/// One receiving thread's table, and the batch on its way there.
pub(crate) struct Intake {
    id: usize,
    path: Path,
    table: Table,
    batch: Batch,
    outlets: Outlets,
    dump: bool,
    epoch: u64,
    /// How far the last interval has been swept; `None` when it is through.
    sweep: Option<u32>,
    swept: Vec<Value>,
    ending: Counts,
    repeated: Packets,
    last_packet: u64,
    /// Packets and lines of the interval that [`Stats`] has.
    published: (u64, u64),
}

impl Intake {
    /// An intake with an empty table.
    ///
    /// # Errors
    /// There is no memory for the table.
    pub(crate) fn new(options: IntakeOptions, outlets: Outlets) -> io::Result<Self> {
        let IntakeOptions {
            id,
            limits,
            gauges,
            longest_name,
            count_hits,
            dump,
            path,
        } = options;
        let table = Table::new(limits, gauges, count_hits, outlets.population.clone())?;
        let batch = Batch {
            seeds: table.seeds(),
            tokens: Vec::with_capacity(BATCH + 1_024),
            side: vec![0; 2 * MARGIN],
            longest: longest_name.min(usize::from(u16::MAX) - 512),
            sanitize: limits.sanitize,
            points: Vec::new(),
            marks: outlets.marks.clone(),
            counts: Counts::default(),
            from: None,
            shared: outlets.shared.clone(),
        };
        Ok(Self {
            id,
            path,
            table,
            batch,
            epoch: outlets.shared.epoch.load(Ordering::Acquire),
            outlets,
            dump,
            sweep: None,
            swept: Vec::new(),
            ending: Counts::default(),
            repeated: Packets::default(),
            last_packet: 0,
            published: (0, 0),
        })
    }

    /// Gives a gauge its value from before the start.
    pub(crate) fn preload(&mut self, name: &[u8], value: f64) {
        self.table.preload(name, value);
    }

    /// Takes `bytes[packet]` apart. [`Intake::settle`] must follow before `bytes` change, with
    /// the same `bytes`.
    ///
    /// Before and after the packet `bytes` has [`MARGIN`] bytes.
    #[inline]
    pub(crate) fn packet(&mut self, bytes: &[u8], packet: Range<usize>, from: Option<IpAddr>) {
        if self.dump {
            info!(
                "packet: {:?}",
                String::from_utf8_lossy(&bytes[packet.clone()])
            );
        }
        if self.outlets.repeater.is_some() {
            self.repeated.push(&bytes[packet.clone()]);
        }
        self.batch.from = from;
        self.batch.counts.packets += 1;
        let (seeds, longest) = (self.batch.seeds, self.batch.longest);
        let lines = self
            .path
            .tokenise(bytes, packet, &seeds, longest, &mut self.batch);
        self.batch.counts.lines += lines;
        if self.batch.tokens.len() >= BATCH {
            self.apply(bytes);
        }
    }

    /// Applies what the packets since the last call held.
    #[inline]
    pub(crate) fn settle(&mut self, bytes: &[u8]) {
        self.apply(bytes);
        self.publish();
        let second = now_ms() / 1_000;
        if second != self.last_packet {
            self.last_packet = second;
            let stats = &self.outlets.shared.stats;
            stats.last_packet.store(second, Ordering::Relaxed);
        }
        if !self.repeated.is_empty() {
            self.repeat();
        }
    }

    fn publish(&mut self) {
        let (stats, counts) = (&self.outlets.shared.stats, &self.batch.counts);
        let (packets, lines) = self.published;
        stats
            .packets
            .fetch_add(counts.packets - packets, Ordering::Relaxed);
        stats
            .metrics
            .fetch_add(counts.lines - lines, Ordering::Relaxed);
        self.published = (counts.packets, counts.lines);
    }

    #[inline]
    fn apply(&mut self, bytes: &[u8]) {
        self.path
            .apply(&mut self.table, &self.batch.tokens, bytes, &self.batch.side);
        self.batch.tokens.clear();
        self.batch.side.truncate(2 * MARGIN);
        if self.table.samples.values.len() >= SAMPLES {
            self.report_samples();
        }
        if self.table.names.len() >= NAMES {
            self.report_names();
        }
        if self.batch.points.len() >= POINTS {
            self.report_points();
        }
    }

    #[cold]
    fn repeat(&mut self) {
        let Some(repeater) = &self.outlets.repeater else {
            return;
        };
        let packets = std::mem::take(&mut self.repeated);
        if let Err(TrySendError::Full(packets) | TrySendError::Disconnected(packets)) =
            repeater.try_send(packets)
        {
            let stats = &self.outlets.shared.stats;
            stats
                .repeater_dropped
                .fetch_add(packets.len() as u64, Ordering::Relaxed);
        }
    }

    /// Whether an interval has ended and is still being swept.
    pub(crate) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Sees to what the aggregator wants, and to a slice of the sweep. Call it after every read
    /// and before every wait.
    pub(crate) fn step(&mut self) {
        self.obey_all();
        match self.sweep {
            None => {
                if self.outlets.shared.epoch.load(Ordering::Acquire) != self.epoch {
                    self.turn();
                }
            }
            Some(_) => self.sweep_slice(),
        }
    }

    /// Does what the aggregator wants. Call it before the packets of a read, too: what was sent
    /// after a flush comes after what the flush has deleted.
    #[inline]
    pub(crate) fn obey_all(&mut self) {
        for command in self.outlets.mailbox.take() {
            self.obey(command);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Forget {
                entries,
                with_samples,
            } => {
                for entry in entries {
                    self.table.forget(entry, with_samples);
                }
            }
            Command::Peek => {
                // Names first, so that every entry of the answer is known.
                self.report_names();
                let peeked = Peeked {
                    values: self.table.peek(),
                    samples: self.table.samples.clone(),
                    counts: Counts {
                        hits: Vec::new(),
                        ..self.batch.counts.clone()
                    },
                };
                self.report(What::Peeked(peeked));
            }
        }
    }

    /// Ends the interval: what has gathered as a list goes at once, the cells are swept later.
    fn turn(&mut self) {
        self.report_names();
        self.report_samples();
        self.report_points();
        let members = std::mem::take(&mut self.table.members);
        if !members.is_empty() {
            self.report(What::Members(members));
        }
        self.publish();
        self.published = (0, 0);
        self.ending = std::mem::take(&mut self.batch.counts);
        self.ending.refused = std::mem::take(&mut self.table.refused);
        self.ending.hits = self.table.take_hits();
        self.ending.bad += self.ending.refused.empty_names;
        let stats = &self.outlets.shared.stats;
        for _ in 0..self.ending.refused.empty_names {
            stats.bad_line(Reject::EmptyName, b"", None);
        }
        self.table.turn();
        self.sweep = Some(0);
        self.sweep_slice();
    }

    fn sweep_slice(&mut self) {
        let Some(mut from) = self.sweep else { return };
        let done = self.table.sweep(&mut from, SLICE, &mut self.swept);
        self.sweep = Some(from);
        if self.swept.len() >= SLICE as usize || (done && !self.swept.is_empty()) {
            // Entries announced since the turn have nothing in the old interval, but one that was
            // announced by the sweep's own batch has: names go first.
            self.report_names();
            let values = std::mem::take(&mut self.swept);
            self.report(What::Values(values));
        }
        if done {
            let counts = std::mem::take(&mut self.ending);
            self.report(What::Turned(counts));
            self.epoch += 1;
            self.sweep = None;
        }
    }

    /// Finishes the interval as far as it has come.
    pub(crate) fn end(mut self) {
        while self.outlets.shared.epoch.load(Ordering::Acquire) != self.epoch || self.is_sweeping()
        {
            self.step();
        }
    }

    fn report_names(&mut self) {
        if !self.table.names.is_empty() {
            let names = std::mem::take(&mut self.table.names);
            self.report(What::Names(names));
        }
    }

    fn report_samples(&mut self) {
        if !self.table.samples.values.is_empty() {
            self.report_names();
            let room = self.table.samples.values.len().min(SAMPLES) + BATCH;
            let next = Samples {
                entries: Vec::with_capacity(room),
                values: Vec::with_capacity(room),
            };
            let samples = std::mem::replace(&mut self.table.samples, next);
            self.report(What::Samples(samples));
        }
    }

    fn report_points(&mut self) {
        if !self.batch.points.is_empty() {
            let points = std::mem::take(&mut self.batch.points);
            self.report(What::Points(points));
        }
    }

    fn report(&self, what: What) {
        // While the old interval is swept, lists that fill up belong to the new one.
        let new = self.sweep.is_some() && !matches!(what, What::Values(_) | What::Turned(_));
        let report = Report {
            intake: self.id,
            epoch: self.epoch + u64::from(new),
            what,
        };
        if self.outlets.reports.send(report).is_err()
            && !self.outlets.shared.stop.load(Ordering::Relaxed)
        {
            warn!("the aggregator has gone");
        }
    }
}

impl Drop for Intake {
    /// Says that no more comes, even if the thread has died: the aggregator waits for all others.
    fn drop(&mut self) {
        let _ = self.outlets.reports.send(Report {
            intake: self.id,
            epoch: self.epoch,
            what: What::Ended,
        });
    }
}

/// The lines of a few packets, on their way into the table.
struct Batch {
    seeds: Seeds,
    tokens: Vec<Token>,
    /// Names that do not stand in the packet as they are looked up, and members of sets. It
    /// starts and ends with a margin.
    side: Vec<u8>,
    longest: usize,
    sanitize: bool,
    points: Vec<Point>,
    marks: Option<Sender<MarkReport>>,
    counts: Counts,
    from: Option<IpAddr>,
    shared: Arc<Shared>,
}

impl simd::Lines for Batch {
    #[inline(always)]
    fn token(&mut self, token: Token) {
        self.tokens.push(token);
    }

    fn odd(&mut self, bytes: &[u8], line: Range<usize>) {
        let line = &bytes[line];
        // Lines that end as Windows ends them; elsewhere a blank is part of what it follows.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.marks.is_some() && marks::is_mark(line) {
            self.mark(line);
            return;
        }
        let mut place = None;
        parse::line(line, |head, item| {
            self.item(line, head, item, &mut place);
        });
    }
}

impl Batch {
    #[cold]
    fn bad(&mut self, line: &[u8], reason: Reject) {
        self.counts.bad += 1;
        self.shared.stats.bad_line(reason, line, self.from);
    }

    /// Puts `bytes` into the side buffer; returns where.
    fn aside(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        self.side.truncate(self.side.len() - MARGIN);
        let start = self.side.len();
        fill(&mut self.side);
        let end = self.side.len();
        self.side.resize(end + MARGIN, 0);
        start..end
    }

    /// `place` is where the line's key lies in the side buffer, once it does.
    fn item(
        &mut self,
        line: &[u8],
        head: &Head<'_>,
        item: Item<'_>,
        place: &mut Option<Range<usize>>,
    ) {
        let key_len = head.name.len() + head.tags.len() + name::TAGS.len();
        let (op, value, weight) = match item {
            Item::Bad(reason) => return self.bad(line, reason),
            _ if head.name.is_empty() => return self.bad(line, Reject::EmptyName),
            _ if key_len > self.longest + name::TAGS.len() => {
                return self.bad(line, Reject::LongName);
            }
            Item::Sample { op, value, weight } => (op, value, weight),
            Item::Member(member) => {
                let place = self.aside(|side| side.extend_from_slice(member));
                let bits = (place.start as u64) << 32 | place.len() as u64;
                (Op::Member, f64::from_bits(bits), 1.0)
            }
            Item::Point { kind, value, at } => return self.point(line, head, kind, value, at),
        };
        let key = match place {
            Some(key) => key.clone(),
            None => {
                let key = self.aside(|side| parse::key(head, side));
                place.insert(key).clone()
            }
        };
        self.push(key, op, value, weight);
    }

    fn push(&mut self, key: Range<usize>, op: Op, value: f64, weight: f64) {
        self.tokens.push(Token {
            hash: self.seeds.hash(&self.side, key.start, key.len(), op),
            value,
            weight,
            start: key.start as u32,
            len: key.len() as u16,
            op,
            side: true,
        });
    }

    fn point(
        &mut self,
        line: &[u8],
        head: &Head<'_>,
        kind: PointKind,
        value: f64,
        at: Option<f64>,
    ) {
        let mut key = Vec::new();
        parse::key(head, &mut key);
        let mut canonical = Vec::new();
        if let Err(reason) = name::canonical(&key, self.sanitize, &mut canonical) {
            return self.bad(line, reason);
        }
        self.points.push(Point {
            name: canonical,
            kind,
            value,
            at: at.unwrap_or_else(|| (now_ms() / 1_000) as f64),
        });
    }

    fn mark(&mut self, line: &[u8]) {
        let report = if line.starts_with(b"_e") {
            marks::event(line).map(MarkReport::Event)
        } else {
            marks::check(line).map(MarkReport::Check)
        };
        let Some(report) = report else {
            return self.bad(line, Reject::Event);
        };
        if let MarkReport::Check(check) = &report {
            if check.gauge.len() > self.longest {
                return self.bad(line, Reject::LongName);
            }
            let key = self.aside(|side| side.extend_from_slice(&check.gauge));
            self.push(key, Op::Set, check.status.value(), 1.0);
        }
        let stats = &self.shared.stats;
        let taken = self
            .marks
            .as_ref()
            .is_some_and(|marks| marks.try_send(report).is_ok());
        let counter = if taken {
            &stats.marks
        } else {
            &stats.marks_dropped
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
