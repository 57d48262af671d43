//! The flush: what the series of an interval have, as lines for the outputs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hashbrown::HashMap;

use super::contract::{Interval, Lines};
use super::registry::{NO_IDS, NameOf};
use super::samples::{NO_SLOT, RunningSums};
use super::{Aggregator, Dropped};
use crate::kind::Kind;
use crate::naming::{Line, Section};
use crate::output::Outputs;
use crate::stats::Stats;

/// Series that are flushed between two pauses.
const UNTIL_PAUSE: u32 = 4_096;

/// The time since some point in the past, read from outside: aggregates have no clock.
pub(crate) type HostClock = fn() -> Duration;

/// What a flush needs to know.
#[derive(Clone, Debug)]
pub(crate) struct FlushInput {
    /// The interval.
    pub(crate) epoch: u64,
    /// Its end, in Unix milliseconds.
    pub(crate) interval_end_ms: u64,
    /// How many intervals the values are of: more than one if flushes were missed. What is per second is of
    /// all that time.
    pub(crate) intervals: u64,
    /// Bad lines since the start, by the names of their series.
    pub(crate) bad_lines: Vec<(String, u64)>,
    /// What measures how long the flush takes.
    pub(crate) clock: HostClock,
}

/// Whole milliseconds since `start`, as the reference counts them.
fn ms_since(start: Duration, clock: HostClock) -> f64 {
    (clock().saturating_sub(start).as_micros() as f64 / 1_000.0).round()
}

impl Aggregator {
    /// Flushes an interval. Returns the names to be forgotten.
    pub(crate) fn flush(
        &mut self,
        input: &FlushInput,
        outputs: &mut Outputs,
        stats: &Stats,
    ) -> Dropped {
        let clock = input.clock;
        let log = (input.epoch & 1) as usize;
        let end = (input.interval_end_ms as f64 / 1_000.0).round();

        // Everything is sorted before the first line is made: the reference times both apart.
        let started = clock();
        self.note_lag(end);
        let mut members = std::mem::take(&mut self.members);
        let mut interval = Interval {
            seconds: self.rules.seconds * input.intervals as f64,
            grouped: self.samples[log].group(self.slots.count as usize),
            members: HashMap::new(),
            sums: RunningSums::default(),
            exact: self.rules.exact,
        };
        let processing_ms = ms_since(started, clock);

        let building = clock();
        let at = if self.rules.stamp_start {
            end - self.rules.seconds
        } else {
            end
        };
        outputs.begin(at);
        outputs.release(&mut self.ids.released);
        if outputs.console().is_some() {
            for (series, member) in &members {
                interval.members.entry(*series).or_default().push(member);
            }
        }
        let count = self.flush_series(&mut interval, outputs, stats);
        if self.rules.self_metrics {
            let times = [ms_since(building, clock), processing_ms];
            self.flush_self_metrics(input, count, times, at, outputs, stats);
        }

        // The figures of this flush are flushed with the next one.
        self.last.exception = stats.last_output_error.load(Ordering::Relaxed) as f64;
        let handing_over = clock();
        let flushed = outputs.end();
        self.last.flush_time_ms = ms_since(handing_over, clock);
        self.last.flush_length = flushed.bytes as f64;
        self.last.flush = end;
        stats
            .lines_flushed
            .fetch_add(flushed.lines, Ordering::Relaxed);
        stats.flushes.fetch_add(1, Ordering::Relaxed);

        // From here on everything is made ready for the next interval.
        drop(interval);
        members.clear();
        self.members = members;
        self.samples[log].end_interval();
        self.registry.grow();
        self.slots.end_interval();
        let dropped = self.end_interval(1 - log);
        let names = self.registry.len() as u64;
        stats.names.store(names, Ordering::Relaxed);
        dropped
    }

    /// Keeps the gauge of how late the flush is, as the reference does from the second flush on.
    fn note_lag(&mut self, end: f64) {
        let Some(previous) = self.last.timestamp.replace(end) else {
            return;
        };
        if !self.rules.self_metrics {
            return;
        }
        let mut name = self.naming.self_series.clone();
        name.extend_from_slice(b"timestamp_lag");
        let hash = self.registry.hash(Kind::Gauge, &name);
        if let Some(number) = self.intern(hash, Kind::Gauge, &name, None) {
            self.registry.keep(number);
            let series = self.registry.get_mut(number);
            series.touch();
            series.value = end - previous - self.rules.seconds;
        }
    }

    /// Puts the lines of all series; returns how many series had any.
    fn flush_series(
        &mut self,
        interval: &mut Interval<'_>,
        outputs: &mut Outputs,
        stats: &Stats,
    ) -> u64 {
        let with_ids = outputs.wants_ids();
        let own = self.own_series.all();
        let (mut not_finite, mut count) = (0, 0);
        for number in 0..self.registry.end() {
            if number % UNTIL_PAUSE == 0 {
                (self.pause)();
            }
            let series = *self.registry.get(number);
            if !series.is_live() || !self.is_held(number) {
                continue;
            }
            // Values that are stored by themselves have no lines here.
            if !self.rules.self_metrics && own.contains(&number)
                || series.kind().facts().stores_each
            {
                continue;
            }
            count += 1;
            let name = NameOf {
                registry: &self.registry,
                series: &series,
            };
            // A series has its ids from its first flush on: only the store of this process uses
            // them.
            let known = if with_ids {
                self.registry.ids(number)
            } else {
                NO_IDS
            };
            let mut ids = known;
            if with_ids && ids == NO_IDS {
                ids = self
                    .ids
                    .take(self.types.of(series.kind()).width(&name.get()));
            }
            let mut lines = Lines {
                outputs: &mut *outputs,
                ids: if with_ids { self.ids.of(ids) } else { &mut [] },
                series: number,
                name,
                suffix: &self.naming.suffix,
                not_finite: &mut not_finite,
            };
            self.types.flush(&series, interval, &mut lines);
            if ids != known && !self.registry.set_ids(number, ids) {
                let name = self.registry.name(&series);
                let width = self.types.of(series.kind()).width(&name);
                self.ids.give_back(ids, width);
            }
        }
        stats.not_finite.fetch_add(not_finite, Ordering::Relaxed);
        count
    }

    /// Puts the lines of the server's own metrics: `times` are what building the lines and sorting took.
    fn flush_self_metrics(
        &mut self,
        input: &FlushInput,
        count: u64,
        times: [f64; 2],
        at: f64,
        outputs: &mut Outputs,
        stats: &Stats,
    ) {
        let Self {
            naming,
            last,
            before,
            ..
        } = self;
        let mut put = |namespace: &[u8], name: &[u8], value| {
            let line = Line {
                section: Section::Elsewhere,
                namespace,
                name,
                stat: b"",
                suffix: &naming.suffix,
            };
            outputs.line_once(&line, value, at);
        };
        // The reference's, in its order.
        let own = &naming.self_metrics[..];
        let [building_ms, processing_ms] = times;
        put(&naming.num_stats, b"numStats", count as f64);
        put(own, b"graphiteStats.calculationtime", building_ms);
        put(own, b"processing_time", processing_ms);
        put(own, b"graphiteStats.last_exception", last.exception);
        put(own, b"graphiteStats.last_flush", last.flush);
        put(own, b"graphiteStats.flush_time", last.flush_time_ms);
        put(own, b"graphiteStats.flush_length", last.flush_length);
        // Those that the reference does not have.
        for (name, value) in before.extra(stats) {
            put(own, name.as_bytes(), value);
        }
        for (name, total) in &input.bad_lines {
            put(own, name.as_bytes(), before.bad_lines(name, *total));
        }
    }

    /// Makes all series ready for the next interval, whose samples are in the log `next`, and drops those that are
    /// to be deleted.
    fn end_interval(&mut self, next: usize) -> Dropped {
        let mut is_any_gone = false;
        let mut has_samples: Option<Vec<bool>> = None;
        for number in 0..self.registry.end() {
            let series = self.registry.get_mut(number);
            if !series.is_live() {
                continue;
            }
            let idle = series.start_interval();
            if self.types.end_interval(series, idle) {
                // Receivers that ended the interval earlier may have reported samples of the next one.
                let slot = series.slot();
                if slot != NO_SLOT
                    && has_samples
                        .get_or_insert_with(|| self.samples[next].in_use(self.slots.count as usize))
                        [slot as usize]
                {
                    continue;
                }
                self.remove(number);
                is_any_gone = true;
            }
        }
        let is_any_refused = self.receivers.iter().any(|map| !map.refused.is_empty());
        if is_any_gone || is_any_refused {
            self.unmap()
        } else {
            Dropped::default()
        }
    }
}
