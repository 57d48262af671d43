//! What the intakes report, summed up, and flushed at the end of each interval.
//!
//! 1. The book belongs to the aggregator's thread. Intakes number their names themselves; a map
//!    per intake leads from its numbers to the book's rows.
//! 2. Values of an interval arrive only after it has ended; samples of timers may come before, and
//!    those of the next interval while the last is still being swept, so there are two piles.
//! 3. A flush goes once over the rows and hands each line to the outputs. Then rows that are to be
//!    deleted are dropped, and the intakes are told.
//! 4. Where idle series are deleted, one without samples is left out of the flush at once but
//!    dropped only after some intervals: names that come and go are the rule.

pub(crate) mod names;
pub(crate) mod timer;

use std::io;
use std::sync::atomic::Ordering;
use std::time::Instant;

use hashbrown::{HashMap, HashSet};
use tracing::warn;

use crate::inspect;
use crate::metric::{Kind, PointKind};
use crate::naming::{Group, Line, Naming};
use crate::options::Options;
use crate::output::{Fan, UNKNOWN};
use crate::receive::{Counts, Point};
use crate::stats::Stats;
use crate::table::{Gauges, Members, Names as NewNames, Samples as NewSamples, Value};
use names::{NO_IDS, Names};
use timer::{Grouped, Samples, Spec};

/// No row stands for this entry.
const NO_ROW: u32 = u32::MAX;
/// There was no room for a row. The thread forgets the name at the next flush, and announces it
/// again with the next sample.
const REFUSED_ROW: u32 = u32::MAX - 1;
/// Flushes without samples after which a deleted series is dropped.
const IDLE: u8 = 8;
/// New names that are looked up ahead of the one at hand.
const AHEAD: usize = 16;
/// Series that are flushed before other threads get a chance.
const SPELL: usize = 4_096;
/// Slot of a timer or average that has none yet.
const NO_SLOT: u32 = u32::MAX;

/// What the flush of an interval is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// The end of the interval, Unix milliseconds.
    pub(crate) end_ms: u64,
}

/// Names that an intake is to forget.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Dropped {
    /// By intake.
    pub(crate) entries: Vec<Vec<u32>>,
}

/// How the flush before this one went.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    /// Unix seconds of the last flush that was handed over.
    flush: f64,
    exception: f64,
    flush_time_ms: f64,
    flush_length: f64,
    timestamp: Option<f64>,
}

/// Everything that is known of an interval. See the head of this file.
pub(crate) struct Book {
    pub(crate) names: Names,
    maps: Vec<Vec<u32>>,
    /// By intake: entries of names for which there was no room.
    refused: Vec<Vec<u32>>,
    /// By intake and entry: the slot of a timer or average. It could be looked up in the row, but
    /// with a million names that costs a trip to memory for every sample.
    slots_of: Vec<Vec<u32>>,
    gauges: Gauges,
    samples: [Samples; 2],
    slots: u32,
    free_slots: Vec<u32>,
    members: HashSet<(u32, Box<[u8]>)>,
    ids: Vec<u32>,
    free_ids: HashMap<u32, Vec<u32>>,
    /// Series ids of rows that are gone, to be given back at the next flush.
    released: Vec<u32>,
    spec: Spec,
    naming: Naming,
    rules: Rules,
    own: OwnRows,
    last: Last,
    extra: Vec<u64>,
    /// Whether it was said that there is no room for further names.
    is_full_reported: bool,
    /// Bad lines of all intervals before, by the names of their series.
    bad_lines: HashMap<String, u64>,
    /// Samples by name since the busiest were last asked for, if they are counted.
    hits: HashMap<u32, u64>,
}

/// The options that a flush looks at.
struct Rules {
    interval_ms: u64,
    stamp_start: bool,
    flush_counts: bool,
    delete_counters: bool,
    delete_timers: bool,
    delete_sets: bool,
    delete_gauges: bool,
    gauges_max_ttl: u32,
    exact: usize,
    memory: usize,
    self_metrics: bool,
}

/// Rows of our own series.
struct OwnRows {
    packets: u32,
    metrics: u32,
    bad: u32,
}

impl Book {
    /// A book for `intakes` receiving threads. Without `self_metrics` nothing but what was
    /// received is flushed.
    ///
    /// # Errors
    /// There is no memory for the look-up table of names.
    pub(crate) fn new(
        options: &Options,
        intakes: usize,
        self_metrics: bool,
        now_ms: u64,
    ) -> io::Result<Self> {
        let interval_ms = (options.flush_interval.0.as_millis() as u64).max(1);
        let idle = options.delete_idle_stats;
        let naming = Naming::new(options);
        let mut names = Names::new(u32::MAX)?;
        let mut own = |name: &str| {
            let mut text = naming.own_series.clone();
            text.extend_from_slice(name.as_bytes());
            let hash = names.hash(Kind::Counter, &text);
            let (row, _) = names
                .intern(hash, Kind::Counter, &text)
                .ok_or(io::ErrorKind::OutOfMemory)?;
            names.keep(row);
            Ok::<_, io::Error>(row)
        };
        let own = OwnRows {
            bad: own("bad_lines_seen")?,
            packets: own("packets_received")?,
            metrics: own("metrics_received")?,
        };
        Ok(Self {
            names,
            maps: vec![Vec::new(); intakes],
            refused: vec![Vec::new(); intakes],
            slots_of: vec![Vec::new(); intakes],
            gauges: gauges(intakes),
            samples: Default::default(),
            slots: 0,
            free_slots: Vec::new(),
            members: HashSet::new(),
            ids: Vec::new(),
            free_ids: HashMap::new(),
            released: Vec::new(),
            spec: Spec::new(
                &options.percentiles.0,
                &options.calculated_timer_metrics,
                &options.histogram,
                interval_ms as f64 / 1_000.0,
            ),
            naming,
            rules: Rules {
                interval_ms,
                stamp_start: options.timestamp == crate::options::Stamp::Start,
                flush_counts: options.flush_counts,
                delete_counters: options.delete_counters.or(idle),
                delete_timers: options.delete_timers.or(idle),
                delete_sets: options.delete_sets.or(idle),
                delete_gauges: options.delete_gauges.or(idle),
                gauges_max_ttl: options.gauges_max_ttl.max(1),
                exact: options.timer_exact_samples.max(1) as usize,
                memory: usize::try_from(options.timer_memory.0).unwrap_or(usize::MAX),
                self_metrics,
            },
            own,
            last: Last {
                flush: (now_ms / 1_000) as f64,
                ..Last::default()
            },
            extra: vec![0; EXTRA.len()],
            is_full_reported: false,
            bad_lines: HashMap::new(),
            hits: HashMap::new(),
        })
    }

    /// Learns what an intake's entries stand for.
    pub(crate) fn learn(&mut self, intake: usize, names: &NewNames) {
        let hashes: Vec<u64> = names
            .iter()
            .map(|(_, kind, name)| self.names.hash(kind, name))
            .collect();
        for (at, (entry, kind, name)) in names.iter().enumerate() {
            if let Some(later) = hashes.get(at + AHEAD) {
                self.names.prefetch(*later);
            }
            let row = self.intern(hashes[at], kind, name);
            if row.is_none() {
                self.refuse(intake, entry);
            }
            let map = &mut self.maps[intake];
            let entry = entry as usize;
            if map.len() <= entry {
                map.resize(entry + 1, NO_ROW);
            }
            map[entry] = row.unwrap_or(REFUSED_ROW);
            if let Some(row) = row
                && matches!(kind, Kind::Timer | Kind::Average)
            {
                let slots = &mut self.slots_of[intake];
                if slots.len() <= entry {
                    slots.resize(entry + 1, NO_SLOT);
                }
                slots[entry] = self.names.rows[row as usize].extra;
            }
        }
    }

    /// Remembers an entry for whose name there is no room, to be forgotten at the next flush.
    #[cold]
    fn refuse(&mut self, intake: usize, entry: u32) {
        self.refused[intake].push(entry);
        if !std::mem::replace(&mut self.is_full_reported, true) {
            warn!("there is no room for further names: their samples are refused and counted");
        }
    }

    fn intern(&mut self, hash: u64, kind: Kind, name: &[u8]) -> Option<u32> {
        let (row, is_new) = self.names.intern(hash, kind, name)?;
        if is_new && matches!(kind, Kind::Timer | Kind::Average) {
            let slot = self.free_slots.pop().unwrap_or_else(|| {
                self.slots += 1;
                self.slots - 1
            });
            self.names.rows[row as usize].extra = slot;
        }
        Some(row)
    }

    fn row(&self, intake: usize, entry: u32) -> Option<usize> {
        match self.maps[intake].get(entry as usize) {
            Some(row) if *row < REFUSED_ROW => Some(*row as usize),
            _ => None,
        }
    }

    /// Adds what entries came to in the interval that ends. What names without a row came to is
    /// counted.
    pub(crate) fn values(&mut self, intake: usize, values: &[Value], stats: &Stats) {
        let mut refused = 0;
        for value in values {
            let Some(row) = self.row(intake, value.entry) else {
                let row = self.maps[intake].get(value.entry as usize);
                refused += u64::from(row == Some(&REFUSED_ROW));
                continue;
            };
            let row = &mut self.names.rows[row];
            row.touch();
            match row.kind() {
                Kind::Counter | Kind::Timer => row.value += value.value,
                Kind::Gauge => {
                    if value.absolute || self.gauges == Gauges::Running {
                        row.value = value.value;
                    } else {
                        row.value += value.value;
                    }
                    row.extra = self.rules.gauges_max_ttl;
                }
                Kind::Set | Kind::Average => {}
            }
        }
        stats.names_refused.fetch_add(refused, Ordering::Relaxed);
    }

    /// Adds samples of timers and averages of the interval `epoch`.
    pub(crate) fn samples(
        &mut self,
        intake: usize,
        epoch: u64,
        samples: &NewSamples,
        stats: &Stats,
    ) {
        let log = &mut self.samples[(epoch & 1) as usize];
        let slots = &self.slots_of[intake];
        for (entry, value) in samples.entries.iter().zip(&samples.values) {
            if let Some(slot) = slots.get(*entry as usize)
                && *slot != NO_SLOT
            {
                log.push(*slot, *value);
            }
        }
        let timers = self.slots as usize;
        if log.is_long(timers) {
            let rules = &self.rules;
            let unranked = log.fold(timers, rules.exact, rules.memory);
            stats
                .samples_unranked
                .fetch_add(unranked, Ordering::Relaxed);
        }
    }

    /// Adds members of sets of the interval that ends.
    pub(crate) fn members(&mut self, intake: usize, members: Members) {
        for (entry, member) in members.into_iter() {
            if let Some(row) = self.row(intake, entry) {
                self.member(row as u32, member);
            }
        }
    }

    fn member(&mut self, row: u32, member: Box<[u8]>) {
        if self.members.insert((row, member)) {
            let row = &mut self.names.rows[row as usize];
            row.extra += 1;
            row.touch();
        }
    }

    /// Adds what an intake counted in the interval that ends.
    pub(crate) fn counts(&mut self, intake: usize, counts: &Counts) {
        for (row, count) in [
            (self.own.packets, counts.packets),
            (self.own.metrics, counts.lines),
            (self.own.bad, counts.bad),
        ] {
            self.names.rows[row as usize].value += count as f64;
        }
        for (entry, count) in &counts.hits {
            if let Some(row) = self.row(intake, *entry) {
                *self.hits.entry(row as u32).or_insert(0) += u64::from(*count);
            }
        }
    }

    /// Hands on values that bring their own time.
    pub(crate) fn points(&self, points: &[Point], fan: &mut Fan) {
        let suffix = &self.naming.suffix[..];
        let seconds = self.rules.interval_ms as f64 / 1_000.0;
        for point in points {
            let mut line = |(namespace, stat): (&[u8], &[u8]), suffix, value| {
                let line = Line {
                    group: Group::Points,
                    namespace,
                    name: &point.name,
                    stat,
                    suffix,
                };
                fan.line_once(&line, value, point.at);
            };
            match point.kind {
                PointKind::Raw => line((b"", b""), &b""[..], point.value),
                PointKind::Gauge => line((&self.naming.gauge, b""), suffix, point.value),
                PointKind::Count => {
                    let (namespace, stat) = &self.naming.rate;
                    line((namespace, stat), suffix, point.value / seconds);
                    if self.rules.flush_counts {
                        let (namespace, stat) = &self.naming.count;
                        line((namespace, stat), suffix, point.value);
                    }
                }
            }
        }
        fan.end_of_points();
    }

    /// Flushes the interval `epoch`, which ends at `moment`. Returns the names to be forgotten.
    pub(crate) fn flush(
        &mut self,
        epoch: u64,
        moment: Moment,
        fan: &mut Fan,
        stats: &Stats,
    ) -> Dropped {
        let started = Instant::now();
        let end = (moment.end_ms as f64 / 1_000.0).round();
        let seconds = self.rules.interval_ms as f64 / 1_000.0;
        if let Some(previous) = self.last.timestamp.replace(end)
            && self.rules.self_metrics
        {
            let mut name = self.naming.own_series.clone();
            name.extend_from_slice(b"timestamp_lag");
            let hash = self.names.hash(Kind::Gauge, &name);
            if let Some(row) = self.intern(hash, Kind::Gauge, &name) {
                self.names.keep(row);
                let row = &mut self.names.rows[row as usize];
                row.touch();
                row.value = end - previous - seconds;
            }
        }
        let mut grouped = self.samples[(epoch & 1) as usize].group(self.slots as usize);
        let processing_ms = millis(started);

        let building = Instant::now();
        let at = if self.rules.stamp_start {
            end - seconds
        } else {
            end
        };
        fan.begin(at);
        fan.release(&mut self.released);
        let count = self.series(&mut grouped, fan, stats);
        if self.rules.self_metrics {
            let mut fan_line = |namespace: &[u8], name: &[u8], value| {
                let line = Line {
                    group: Group::Own,
                    namespace,
                    name,
                    stat: b"",
                    suffix: &self.naming.suffix,
                };
                fan.line_once(&line, value, at);
            };
            let own = &self.naming.own[..];
            fan_line(&self.naming.own_num_stats, b"numStats", count as f64);
            fan_line(own, b"graphiteStats.calculationtime", millis(building));
            fan_line(own, b"processing_time", processing_ms);
            fan_line(own, b"graphiteStats.last_exception", self.last.exception);
            fan_line(own, b"graphiteStats.last_flush", self.last.flush);
            fan_line(own, b"graphiteStats.flush_time", self.last.flush_time_ms);
            fan_line(own, b"graphiteStats.flush_length", self.last.flush_length);
            for (name, value) in extra_counts(stats, &mut self.extra) {
                fan_line(own, name.as_bytes(), value);
            }
            // As those: from the first bad line of a reason or a sender on.
            for (name, total) in stats.bad_lines_series() {
                let before = self.bad_lines.get(&name).copied().unwrap_or(0);
                fan_line(own, name.as_bytes(), (total - before) as f64);
                self.bad_lines.insert(name, total);
            }
        }
        self.last.exception = stats.last_output_error.load(Ordering::Relaxed) as f64;
        let handing_over = Instant::now();
        let flushed = fan.end();
        self.last.flush_time_ms = millis(handing_over);
        self.last.flush_length = flushed.bytes as f64;
        self.last.flush = end;
        stats
            .lines_flushed
            .fetch_add(flushed.lines, Ordering::Relaxed);
        stats.flushes.fetch_add(1, Ordering::Relaxed);

        self.samples[(epoch & 1) as usize].interval_ends();
        self.members.clear();
        self.names.grow();
        let dropped = self.interval_ends();
        stats
            .names
            .store(self.names.len() as u64, Ordering::Relaxed);
        stats.interval_ends();
        dropped
    }

    /// Gives the lines of all series; returns how many series had any.
    fn series(&mut self, grouped: &mut Grouped, fan: &mut Fan, stats: &Stats) -> u64 {
        let seconds = self.rules.interval_ms as f64 / 1_000.0;
        let (rules, naming, spec) = (&self.rules, &self.naming, &self.spec);
        let suffix = &naming.suffix[..];
        let with_ids = fan.wants_ids();
        let mut members: HashMap<u32, Vec<&[u8]>> = HashMap::new();
        if fan.console().is_some() {
            for (row, member) in &self.members {
                members.entry(*row).or_default().push(member);
            }
        }
        let mut not_finite = 0;
        let mut count = 0;
        for at in 0..self.names.rows.len() {
            if at % SPELL == 0 {
                std::thread::yield_now();
            }
            let row = self.names.rows[at];
            if !row.is_live() {
                continue;
            }
            let kind = row.kind();
            if !self.is_held(at as u32) {
                continue;
            }
            let own = at == self.own.packets as usize
                || at == self.own.metrics as usize
                || at == self.own.bad as usize;
            if own && !rules.self_metrics {
                continue;
            }
            count += 1;
            let name = self.names.name(&row);
            if let Some(console) = fan.console() {
                match kind {
                    Kind::Counter => console.counter(name, row.value, row.value / seconds),
                    Kind::Gauge => console.gauge(name, row.value),
                    Kind::Set => {
                        console.set(name, members.remove(&(at as u32)).unwrap_or_default());
                    }
                    Kind::Timer => console.timer(name),
                    Kind::Average => {}
                }
            }
            let mut ids = row.ids;
            if with_ids && ids == NO_IDS {
                let width = width(kind, spec, name);
                ids = match self.free_ids.get_mut(&width).and_then(Vec::pop) {
                    Some(ids) => ids,
                    None => {
                        let ids = self.ids.len() as u32;
                        self.ids.resize(self.ids.len() + width as usize, UNKNOWN);
                        ids
                    }
                };
            }
            let ids_of_row = match self.ids.get_mut(ids as usize..) {
                Some(ids) if with_ids => ids,
                _ => &mut [],
            };
            let mut lines = SeriesLines {
                fan,
                ids: ids_of_row,
                namespace: &naming.timer,
                name,
                suffix,
                not_finite: &mut not_finite,
            };
            match kind {
                Kind::Counter => {
                    lines.put(
                        Group::Rates,
                        0,
                        &naming.rate.0,
                        &naming.rate.1,
                        row.value / seconds,
                    );
                    if rules.flush_counts {
                        lines.put(
                            Group::Counters,
                            1,
                            &naming.count.0,
                            &naming.count.1,
                            row.value,
                        );
                    }
                }
                Kind::Gauge => lines.put(Group::Gauges, 0, &naming.gauge, b"", row.value),
                Kind::Set => {
                    lines.put(Group::Sets, 0, &naming.set, b".count", f64::from(row.extra))
                }
                Kind::Average => {
                    if let Some(mean) = grouped.mean(row.extra) {
                        lines.put(Group::Averages, 0, &naming.average, b"", mean);
                    }
                }
                Kind::Timer => {
                    let had =
                        grouped.timer(row.extra, name, row.value, spec, rules.exact, &mut lines);
                    if !had {
                        for (at, text) in spec.idle_lines() {
                            lines.put(Group::Timers, at, &naming.timer, text, 0.0);
                        }
                    }
                    if let Some(console) = fan.console() {
                        let (samples, more) = grouped.least(row.extra, inspect::ITEMS);
                        console.samples(name, &samples, more);
                    }
                }
            }
            self.names.rows[at].ids = ids;
        }
        stats.not_finite.fetch_add(not_finite, Ordering::Relaxed);
        count
    }

    /// Makes all rows ready for the next interval, and drops those that are to be deleted.
    fn interval_ends(&mut self) -> Dropped {
        let mut gone = false;
        for at in 0..self.names.rows.len() {
            let row = &mut self.names.rows[at];
            if !row.is_live() {
                continue;
            }
            let idle = row.rest();
            let drop = match row.kind() {
                Kind::Gauge if self.rules.delete_gauges && !row.is_lasting() => {
                    row.extra = row.extra.saturating_sub(1);
                    row.extra == 0
                }
                Kind::Gauge => false,
                Kind::Counter => {
                    row.value = 0.0;
                    self.rules.delete_counters && idle >= IDLE && !row.is_lasting()
                }
                Kind::Timer => {
                    row.value = 0.0;
                    self.rules.delete_timers && idle >= IDLE
                }
                Kind::Set => {
                    row.extra = 0;
                    self.rules.delete_sets && idle >= IDLE
                }
                Kind::Average => self.rules.delete_timers && idle >= IDLE,
            };
            if drop {
                self.remove(at as u32);
                gone = true;
            }
        }
        if gone || self.refused.iter().any(|refused| !refused.is_empty()) {
            self.unmap()
        } else {
            Dropped::default()
        }
    }

    fn remove(&mut self, at: u32) {
        let row = self.names.rows[at as usize];
        if row.ids != NO_IDS {
            let width = width(row.kind(), &self.spec, self.names.name(&row));
            let start = row.ids as usize;
            let ids = &mut self.ids[start..start + width as usize];
            self.released.extend_from_slice(ids);
            ids.fill(UNKNOWN);
            self.free_ids.entry(width).or_default().push(row.ids);
        }
        if matches!(row.kind(), Kind::Timer | Kind::Average) && row.extra != NO_SLOT {
            self.free_slots.push(row.extra);
        }
        self.hits.remove(&at);
        self.names.remove(at);
    }

    /// Takes rows that are gone out of the intakes' maps.
    fn unmap(&mut self) -> Dropped {
        let rows = &self.names.rows;
        let entries = self
            .maps
            .iter_mut()
            .zip(&mut self.slots_of)
            .zip(&mut self.refused)
            .map(|((map, slots), refused)| {
                let mut gone = std::mem::take(refused);
                for entry in &gone {
                    map[*entry as usize] = NO_ROW;
                }
                for (entry, row) in map.iter_mut().enumerate() {
                    if *row != NO_ROW && !rows[*row as usize].is_live() {
                        *row = NO_ROW;
                        if let Some(slot) = slots.get_mut(entry) {
                            *slot = NO_SLOT;
                        }
                        gone.push(entry as u32);
                    }
                }
                gone
            })
            .collect();
        Dropped { entries }
    }

    /// Deletes a series at an operator's wish; `None` if there is none of that name.
    pub(crate) fn delete(&mut self, kind: Kind, name: &[u8]) -> Option<Dropped> {
        let row = self.names.find(kind, name)?;
        if self.names.rows[row as usize].is_lasting() && kind == Kind::Counter {
            self.names.rows[row as usize].value = 0.0;
            return Some(Dropped::default());
        }
        self.remove(row);
        Some(self.unmap())
    }

    /// Whether series of `kind` are deleted at each flush. Gauges are when their time is over.
    pub(crate) fn deletes(&self, kind: Kind) -> bool {
        match kind {
            Kind::Counter => self.rules.delete_counters,
            Kind::Timer => self.rules.delete_timers,
            Kind::Set => self.rules.delete_sets,
            Kind::Gauge => false,
            Kind::Average => true,
        }
    }

    /// Whether `row` would be flushed though nothing more were received.
    pub(crate) fn is_held(&self, row: u32) -> bool {
        let row = &self.names.rows[row as usize];
        row.is_touched() || row.is_lasting() || !self.deletes(row.kind())
    }

    /// The names of a kind, in the order in which they were first seen.
    pub(crate) fn rows_of(&self, kind: Kind) -> impl Iterator<Item = (u32, &[u8], f64)> {
        self.names
            .rows
            .iter()
            .enumerate()
            .filter(move |(_, row)| row.is_live() && row.kind() == kind)
            .map(|(at, row)| (at as u32, self.names.name(row), row.value))
    }

    /// The row that an intake's entry stands for.
    pub(crate) fn row_of(&self, intake: usize, entry: u32) -> Option<u32> {
        self.row(intake, entry).map(|row| row as u32)
    }

    /// The slot of a timer's samples.
    pub(crate) fn slot_of(&self, row: u32) -> u32 {
        self.names.rows[row as usize].extra
    }

    /// Rows of our own counters: packets, metrics, bad lines.
    pub(crate) fn own_rows(&self) -> [u32; 3] {
        [self.own.packets, self.own.metrics, self.own.bad]
    }

    /// All that the interval `epoch` holds, by slot; it is empty afterwards.
    pub(crate) fn group(&mut self, epoch: u64) -> Grouped {
        self.samples[(epoch & 1) as usize].group(self.slots as usize)
    }

    /// Puts back what [`Book::group`] took.
    pub(crate) fn ungroup(&mut self, epoch: u64, grouped: Grouped) {
        self.samples[(epoch & 1) as usize].put_back(grouped);
    }

    /// The members of sets in the interval that ends.
    pub(crate) fn all_members(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.members.iter().map(|(row, member)| (*row, &**member))
    }

    /// Takes a value that was saved.
    /// `None` if there is no room for its name.
    pub(crate) fn restore(
        &mut self,
        kind: Kind,
        name: &[u8],
        value: f64,
        touched: bool,
    ) -> Option<u32> {
        let row = self.intern(self.names.hash(kind, name), kind, name)?;
        let found = &mut self.names.rows[row as usize];
        match kind {
            Kind::Gauge => {
                found.value = value;
                found.extra = self.rules.gauges_max_ttl;
            }
            _ => found.value += value,
        }
        if touched {
            found.touch();
        }
        Some(row)
    }

    /// Takes samples that were saved, for the interval `epoch`.
    pub(crate) fn restore_samples(&mut self, epoch: u64, row: u32, values: &[f64]) {
        let slot = self.slot_of(row);
        for value in values {
            self.samples[(epoch & 1) as usize].push(slot, *value);
        }
    }

    /// Takes a pile that was saved, for the interval `epoch`.
    pub(crate) fn restore_pile(&mut self, epoch: u64, row: u32, pile: timer::Pile) {
        let slot = self.slot_of(row);
        self.samples[(epoch & 1) as usize].restore(slot, pile);
    }

    /// Takes a member of a set that was saved.
    pub(crate) fn restore_member(&mut self, row: u32, member: &[u8]) {
        self.member(row, member.into());
    }

    /// The busiest `percent` of names since the last call: (samples, name), busiest first.
    pub(crate) fn busiest(&mut self, percent: f64) -> Vec<(u64, String)> {
        let mut counts: Vec<_> = std::mem::take(&mut self.hits)
            .into_iter()
            .filter_map(|(row, count)| {
                let row = self.names.rows.get(row as usize)?;
                let name = String::from_utf8_lossy(self.names.name(row)).into_owned();
                row.is_live().then_some((count, name))
            })
            .collect();
        counts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let most = (percent.clamp(0.0, 100.0) / 100.0 * counts.len() as f64).ceil();
        counts.truncate(most as usize);
        counts
    }

    /// For the management interface: when and how the last flush went.
    pub(crate) fn last_flush(&self) -> [(&'static str, f64); 4] {
        [
            ("last_flush", self.last.flush),
            ("last_exception", self.last.exception),
            ("flush_time", self.last.flush_time_ms),
            ("flush_length", self.last.flush_length),
        ]
    }
}

/// How gauges are kept with that many intakes.
pub(crate) fn gauges(intakes: usize) -> Gauges {
    if intakes == 1 {
        Gauges::Running
    } else {
        Gauges::Differences
    }
}

fn millis(since: Instant) -> f64 {
    (since.elapsed().as_micros() as f64 / 1_000.0).round()
}

fn width(kind: Kind, spec: &Spec, name: &[u8]) -> u32 {
    match kind {
        Kind::Counter => 2,
        Kind::Gauge | Kind::Set | Kind::Average => 1,
        Kind::Timer => spec.width(name) as u32,
    }
}

/// What we count beyond the reference. Each is flushed from the first time on that it is not 0,
/// so that a server to which nothing odd happens has the reference's series and no others.
const EXTRA: [&str; 11] = [
    "kernel_drops",
    "names_refused",
    "members_refused",
    "samples_unranked",
    "not_finite",
    "series_refused",
    "points_refused",
    "connections_refused",
    "connections_timed_out",
    "lines_dropped",
    "repeater_dropped",
];

fn extra_counts(stats: &Stats, before: &mut [u64]) -> Vec<(&'static str, f64)> {
    let all: Vec<_> = stats.each().collect();
    EXTRA
        .iter()
        .zip(before)
        .filter_map(|(name, before)| {
            let (_, _, total) = all.iter().find(|(known, _, _)| known == name)?;
            let seen = *before > 0;
            let added = total - std::mem::replace(before, *total);
            (seen || added > 0).then_some((*name, added as f64))
        })
        .collect()
}

/// The lines of one series on their way to the outputs.
struct SeriesLines<'a> {
    fan: &'a mut Fan,
    ids: &'a mut [u32],
    namespace: &'a [u8],
    name: &'a [u8],
    suffix: &'a [u8],
    not_finite: &'a mut u64,
}

impl SeriesLines<'_> {
    #[inline]
    fn put(&mut self, group: Group, at: usize, namespace: &[u8], stat: &[u8], value: f64) {
        if !value.is_finite() {
            *self.not_finite += 1;
            return;
        }
        let line = Line {
            group,
            namespace,
            name: self.name,
            stat,
            suffix: self.suffix,
        };
        self.fan.line(self.ids.get_mut(at), &line, value);
    }
}

impl timer::Lines for SeriesLines<'_> {
    #[inline]
    fn line(&mut self, at: usize, text: &[u8], value: f64) {
        let namespace = self.namespace;
        self.put(Group::Timers, at, namespace, text, value);
    }
}
