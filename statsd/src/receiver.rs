//! What a receiving thread does with packets, of every kind of socket.
//!
//! 1. [`Receiver::packet`] reads a packet; [`Receiver::apply`] adds what has gathered to the table.
//!    Bytes must stay where they are between the two.
//! 2. An interval ends for this thread when it sees a new epoch ([`Receiver::step`]). It then sweeps
//!    its table a slice at a time between packets, and reports when it is through.
//! 3. Reports go to the aggregator through a bounded channel. If that is full the thread waits,
//!    and what does not fit into the socket's buffer meanwhile is dropped and counted by the kernel.

use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam::channel::Sender;
use tracing::{info, warn};

use crate::aggregate::kinds::Letters;
use crate::cell::{Carry, SampleList, Value};
use crate::events::{self, EventReport};
use crate::kind::Kind;
use crate::metric::{Item, Reject, Sample};
use crate::parse::{self, Head};
use crate::population::{Limits, Population};
use crate::raw::simd::{Path, Reading};
use crate::repeater::{Packets, Repeater};
use crate::report::{Command, CommandQueue, Contents, Counts, Peek, Point, Report, Shared};
use crate::sanitize;
use crate::stats::now_ms;
use crate::table::{Aside, Table};
use crate::token::{MARGIN, OddLine, Token, Tokens};

/// Tokens that are applied together: enough for the prefetches to pay, few enough that they stay
/// in the second-level cache.
const BATCH: usize = 4_096;
/// Entries swept between two reads of the socket.
const SLICE: u32 = 8_192;
/// Samples of timers that are handed over together.
const SAMPLES: usize = 32_768;
const POINTS: usize = 1_024;
/// New names that are handed over together, and their bytes.
const NAMES: usize = 4_096;
const NAME_BYTES: usize = 256 << 10;

/// What a receiver is made of.
pub(crate) struct ReceiverOptions {
    pub(crate) id: usize,
    pub(crate) limits: Limits,
    pub(crate) carry: Carry,
    pub(crate) letters: Letters,
    pub(crate) longest_name: usize,
    pub(crate) count_hits: bool,
    pub(crate) dump: bool,
    pub(crate) path: Path,
}

/// The other ends of a receiver.
#[derive(Clone)]
pub(crate) struct Channels {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: Arc<CommandQueue>,
    pub(crate) reports: Sender<Report>,
    /// `None` if events are bad lines.
    pub(crate) events: Option<Sender<EventReport>>,
    pub(crate) repeater: Option<Repeater>,
    pub(crate) population: Arc<Population>,
}

/// One receiving thread's table, and the batch on its way there.
pub(crate) struct Receiver {
    id: usize,
    path: Path,
    table: Table,
    reading: Reading,
    batch: Batch,
    channels: Channels,
    dump: bool,
    epoch: u64,
    /// How far the last interval has been swept; `None` when it is through.
    sweep: Option<u32>,
    swept: Vec<Value>,
    ending: Counts,
    repeated: Packets,
    last_packet: u64,
    /// Packets and lines of the interval that [`Stats`](crate::Stats) has.
    published: (u64, u64),
}

impl Receiver {
    /// A receiver with an empty table.
    ///
    /// # Errors
    /// There is no memory for the table.
    pub(crate) fn new(options: ReceiverOptions, channels: Channels) -> io::Result<Self> {
        let ReceiverOptions {
            id,
            limits,
            carry,
            letters,
            longest_name,
            count_hits,
            dump,
            path,
        } = options;
        // Tokens are hashed with the secrets of the table that they are looked up in.
        let table = Table::new(limits, carry, count_hits, channels.population.clone())?;
        let reading = Reading {
            seeds: table.seeds(),
            letters,
            longest: longest_name.min(usize::from(u16::MAX) - 512),
        };
        let batch = Batch {
            tokens: Tokens {
                common: Vec::with_capacity(BATCH + 1_024),
                odd: Vec::new(),
            },
            aside: vec![0; 2 * MARGIN],
            texts: Vec::new(),
            sanitize: limits.sanitize,
            points: Vec::new(),
            events: channels.events.clone(),
            counts: Counts::default(),
            from: None,
            shared: channels.shared.clone(),
        };
        Ok(Self {
            id,
            path,
            table,
            reading,
            batch,
            epoch: channels.shared.epoch.load(Ordering::Acquire),
            channels,
            dump,
            sweep: None,
            swept: Vec::new(),
            ending: Counts::default(),
            repeated: Packets::default(),
            last_packet: 0,
            published: (0, 0),
        })
    }

    /// Gives a name that carries on its value from before the start.
    pub(crate) fn preload(&mut self, kind: Kind, name: &[u8], value: f64) {
        self.table.preload(kind, name, value);
    }

    /// Reads the lines of `bytes[packet]`. [`Receiver::apply`] must follow before `bytes` change,
    /// with the same `bytes`.
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
        if self.channels.repeater.is_some() {
            self.repeated.push(&bytes[packet.clone()]);
        }
        let batch = &mut self.batch;
        batch.from = from;
        batch.counts.packets += 1;
        batch.counts.lines += self
            .path
            .tokenise(bytes, packet, &self.reading, &mut batch.tokens);
        if !batch.tokens.odd.is_empty() {
            batch.parse_odd(&self.reading, bytes);
        }
        if batch.tokens.common.len() >= BATCH {
            self.apply_tokens(bytes);
        }
    }

    /// Applies what the packets since the last call hold.
    #[inline]
    pub(crate) fn apply(&mut self, bytes: &[u8]) {
        self.apply_tokens(bytes);
        self.publish();
        let second = now_ms() / 1_000;
        if second != self.last_packet {
            self.last_packet = second;
            let stats = &self.channels.shared.stats;
            stats.last_packet.store(second, Ordering::Relaxed);
        }
        if !self.repeated.is_empty() {
            self.repeat();
        }
    }

    fn publish(&mut self) {
        let (stats, counts) = (&self.channels.shared.stats, &self.batch.counts);
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
    fn apply_tokens(&mut self, bytes: &[u8]) {
        let (table, batch) = (&mut self.table, &mut self.batch);
        let aside = Aside {
            bytes: &batch.aside,
            texts: &batch.texts,
        };
        let tokens = &batch.tokens.common;
        self.path.run(
            #[inline(always)]
            || table.apply(tokens, bytes, aside),
        );
        batch.tokens.common.clear();
        batch.aside.truncate(2 * MARGIN);
        batch.texts.clear();
        if self.table.samples.values.len() >= SAMPLES {
            self.report_samples();
        }
        if self.table.names.len() >= NAMES || self.table.names.bytes() >= NAME_BYTES {
            self.report_names();
        }
        if self.batch.points.len() >= POINTS {
            self.report_points();
        }
    }

    #[cold]
    fn repeat(&mut self) {
        if let Some(repeater) = &self.channels.repeater {
            repeater.repeat(std::mem::take(&mut self.repeated));
        }
    }

    /// Whether an interval has ended and is still being swept.
    pub(crate) fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Handles commands, and a slice of the sweep. Call it after every read and before every wait.
    pub(crate) fn step(&mut self) {
        self.handle_commands();
        match self.sweep {
            None => {
                if self.channels.shared.epoch.load(Ordering::Acquire) != self.epoch {
                    self.end_interval();
                }
            }
            Some(_) => self.sweep_slice(),
        }
    }

    /// Does what the aggregator asks. Call it before the packets of a read, too: what was sent
    /// after a flush comes after what the flush has deleted.
    #[inline]
    pub(crate) fn handle_commands(&mut self) {
        for command in self.channels.commands.take() {
            self.handle(command);
        }
    }

    fn handle(&mut self, command: Command) {
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
                let peek = Peek {
                    values: self.table.peek(),
                    samples: self.table.samples.clone(),
                    counts: Counts {
                        hits: Vec::new(),
                        ..self.batch.counts.clone()
                    },
                };
                self.report(Contents::Peek(peek));
            }
        }
    }

    /// Ends the interval: what has gathered as a list goes at once, the cells are swept later.
    fn end_interval(&mut self) {
        // The names of points are announced, too.
        self.report_points();
        self.report_names();
        self.report_samples();
        let mut members = std::mem::take(&mut self.table.members);
        self.table.refused.members = std::mem::take(&mut members.refused);
        if !members.is_empty() {
            self.report(Contents::Members(members));
        }
        self.publish();
        self.published = (0, 0);
        self.ending = std::mem::take(&mut self.batch.counts);
        self.ending.refused = std::mem::take(&mut self.table.refused);
        self.ending.hits = self.table.take_hits();
        self.ending.bad += self.ending.refused.empty_names;
        let stats = &self.channels.shared.stats;
        for _ in 0..self.ending.refused.empty_names {
            stats.bad_line(Reject::EmptyName, b"", None);
        }
        self.table.end_interval();
        self.sweep = Some(0);
        self.sweep_slice();
    }

    fn sweep_slice(&mut self) {
        let Some(mut from) = self.sweep else { return };
        let done = self.table.sweep(&mut from, SLICE, &mut self.swept);
        self.sweep = Some(from);
        if self.swept.len() >= SLICE as usize || (done && !self.swept.is_empty()) {
            // Entries announced since the interval ended have nothing in it, but one that was
            // announced by the sweep's own batch has: names go first.
            self.report_names();
            let values = std::mem::take(&mut self.swept);
            self.report(Contents::Values(values));
        }
        if done {
            let counts = std::mem::take(&mut self.ending);
            self.report(Contents::IntervalEnd(counts));
            self.epoch += 1;
            self.sweep = None;
        }
    }

    /// Reports the interval as far as it has come.
    pub(crate) fn end(mut self) {
        self.handle_commands();
        while self.is_sweeping() {
            self.sweep_slice();
        }
        self.end_interval();
        while self.is_sweeping() {
            self.sweep_slice();
        }
    }

    fn report_names(&mut self) {
        if !self.table.names.is_empty() {
            let names = std::mem::take(&mut self.table.names);
            self.report(Contents::Names(names));
        }
    }

    fn report_samples(&mut self) {
        if !self.table.samples.values.is_empty() {
            self.report_names();
            let room = self.table.samples.values.len().min(SAMPLES) + BATCH;
            let next = SampleList {
                entries: Vec::with_capacity(room),
                values: Vec::with_capacity(room),
            };
            let samples = std::mem::replace(&mut self.table.samples, next);
            self.report(Contents::Samples(samples));
        }
    }

    fn report_points(&mut self) {
        let mut points = std::mem::take(&mut self.batch.points);
        points.retain(|point| self.table.admit(&point.name));
        if !points.is_empty() {
            self.report(Contents::Points(points));
        }
    }

    fn report(&self, contents: Contents) {
        // While the old interval is swept, lists that fill up belong to the new one.
        let is_new = self.sweep.is_some()
            && !matches!(contents, Contents::Values(_) | Contents::IntervalEnd(_));
        let report = Report {
            receiver: self.id,
            epoch: self.epoch + u64::from(is_new),
            contents,
        };
        let shared = &self.channels.shared;
        if self.channels.reports.send(report).is_err()
            && !shared.is_stopping.load(Ordering::Relaxed)
        {
            warn!("the statsd aggregator has ended");
        }
    }
}

impl Drop for Receiver {
    /// Says that no more comes, even if the thread has died: the aggregator waits for all others.
    fn drop(&mut self) {
        let _ = self.channels.reports.send(Report {
            receiver: self.id,
            epoch: self.epoch,
            contents: Contents::Ended,
        });
    }
}

/// The name of a line, in the forms that its values need: made once, however many they are.
#[derive(Default)]
struct LineNames {
    /// Where its key is aside.
    place: Option<Range<usize>>,
    /// For values that are stored by themselves.
    canonical: Option<Result<Arc<[u8]>, Reject>>,
}

/// The lines of a few packets, on their way into the table.
struct Batch {
    tokens: Tokens,
    /// Names that are not in the packet as they are looked up, and members of sets. It starts and
    /// ends with a margin.
    aside: Vec<u8>,
    /// Where in `aside` the texts of tokens with text are, in order.
    texts: Vec<Range<usize>>,
    sanitize: bool,
    points: Vec<Point>,
    events: Option<Sender<EventReport>>,
    counts: Counts,
    from: Option<IpAddr>,
    shared: Arc<Shared>,
}

impl Batch {
    /// Parses the odd lines of the packet, and puts their tokens where the lines were.
    #[cold]
    fn parse_odd(&mut self, reading: &Reading, bytes: &[u8]) {
        let odd = std::mem::take(&mut self.tokens.odd);
        let Some(first) = odd.first() else { return };
        // Tokens before the first odd line stay; those after it follow one by one.
        let start = first.after;
        let later = self.tokens.common.split_off(start);
        let mut moved = 0;
        for OddLine { after, line } in &odd {
            let before = &later[moved..after - start];
            self.tokens.common.extend_from_slice(before);
            moved += before.len();
            self.odd(reading, &bytes[line.clone()]);
        }
        self.tokens.common.extend_from_slice(&later[moved..]);
        self.tokens.odd = odd;
        self.tokens.odd.clear();
    }

    fn odd(&mut self, reading: &Reading, line: &[u8]) {
        // Lines that end as Windows ends them; elsewhere a blank is part of what it follows.
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if self.events.is_some() && events::is_event(line) {
            self.event(reading, line);
            return;
        }
        let mut names = LineNames::default();
        parse::line(line, &reading.letters, |head, item| {
            self.item(reading, line, head, item, &mut names);
        });
    }

    #[cold]
    fn bad(&mut self, line: &[u8], reason: Reject) {
        self.counts.bad += 1;
        self.shared.stats.bad_line(reason, line, self.from);
    }

    /// Puts bytes aside; returns where.
    fn aside(&mut self, fill: impl FnOnce(&mut Vec<u8>)) -> Range<usize> {
        self.aside.truncate(self.aside.len() - MARGIN);
        let start = self.aside.len();
        fill(&mut self.aside);
        let end = self.aside.len();
        self.aside.resize(end + MARGIN, 0);
        start..end
    }

    fn item(
        &mut self,
        reading: &Reading,
        line: &[u8],
        head: &Head<'_>,
        item: Item<'_>,
        names: &mut LineNames,
    ) {
        let key_len = head.name.len() + head.tags.len() + sanitize::TAGS.len();
        let (kind, sample) = match item {
            Item::Bad(reason) => return self.bad(line, reason),
            _ if head.name.is_empty() => return self.bad(line, Reject::EmptyName),
            _ if key_len > reading.longest + sanitize::TAGS.len() => {
                return self.bad(line, Reject::LongName);
            }
            Item::Sample(kind, sample) => (kind, sample),
            Item::Member(kind, member) => {
                let place = self.aside(|aside| aside.extend_from_slice(member));
                self.texts.push(place);
                let sample = Sample {
                    value: 0.0,
                    weight: 1.0,
                    is_relative: false,
                };
                (kind, sample)
            }
            Item::Point { kind, value, at } => {
                let sanitize = self.sanitize;
                let name = names.canonical.get_or_insert_with(|| {
                    let (mut key, mut name) = (Vec::new(), Vec::new());
                    parse::key(head, &mut key);
                    sanitize::canonical(&key, sanitize, &mut name).map(|()| name.into())
                });
                match name {
                    Ok(name) => self.points.push(Point {
                        name: name.clone(),
                        kind,
                        value,
                        at: at.unwrap_or_else(|| (now_ms() / 1_000) as f64),
                    }),
                    Err(reason) => self.bad(line, *reason),
                }
                return;
            }
        };
        let key = match &names.place {
            Some(key) => key.clone(),
            None => {
                let key = self.aside(|aside| parse::key(head, aside));
                names.place.insert(key).clone()
            }
        };
        self.push(reading, key, kind, sample);
    }

    fn push(&mut self, reading: &Reading, key: Range<usize>, kind: Kind, sample: Sample) {
        let hash = reading.seeds.hash(&self.aside, key.start, key.len(), kind);
        let token = Token::new(hash, key.start, key.len(), kind, sample);
        self.tokens.common.push(token.aside());
    }

    fn event(&mut self, reading: &Reading, line: &[u8]) {
        let Some(report) = events::read(line) else {
            return self.bad(line, Reject::Event);
        };
        // A service check is a gauge, too, at every arrival.
        if let EventReport::Check(check) = &report {
            if check.gauge.len() > reading.longest {
                return self.bad(line, Reject::LongName);
            }
            let key = self.aside(|aside| aside.extend_from_slice(&check.gauge));
            let sample = Sample {
                value: check.status.value(),
                weight: 1.0,
                is_relative: false,
            };
            self.push(reading, key, Kind::Gauge, sample);
        }
        let stats = &self.shared.stats;
        let taken = self
            .events
            .as_ref()
            .is_some_and(|events| events.try_send(report).is_ok());
        let counter = if taken {
            &stats.events
        } else {
            &stats.events_dropped
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
