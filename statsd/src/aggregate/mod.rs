//! What the receivers report, aggregated, and flushed at the end of each interval.
//!
//! ```text
//! registry  names to series and back        counter, gauge, timer, set, average, raw, distribution
//! samples   single values until the flush   one type, one file: `contract` says what it holds,
//! ids       of lines, for the outputs       `kinds` has them all
//! flush     series to lines
//! ```
//!
//! 1. The aggregator belongs to one thread. Receivers number their names themselves; a map per
//!    receiver leads from its numbers to those of the series.
//! 2. Values of an interval arrive only after it has ended; samples of timers may come before, and
//!    those of the next interval while the last is still being swept, so there are two logs.
//! 3. A flush goes once over the series and hands each line to the outputs. Then series that are to
//!    be deleted are dropped, and receivers forget their names.
//! 4. Where idle series are deleted, one without samples is left out of the flush at once but
//!    dropped only after some intervals: names that come and go are the rule. Its slot of samples is given to
//!    another one a flush later, when neither log has samples of it.
//! 5. Nothing here reads a clock, takes a lock or waits: times come in, and so does what is called
//!    between two parts of a long computation.

mod average;
mod contract;
mod counter;
mod distribution;
pub(crate) mod flush;
mod gauge;
mod ids;
pub(crate) mod kinds;
mod raw;
pub(crate) mod registry;
mod sampled;
mod samples;
pub(crate) mod saved;
mod saving;
mod self_metrics;
mod set;
mod timer;
mod view;

use std::io;
use std::sync::atomic::Ordering;

use hashbrown::{HashMap, HashSet};
use tracing::warn;

use crate::cell::{Carry, MemberList, SampleList, Value};
use crate::kind::Kind;
use crate::naming::Naming;
use crate::options::{Options, Stamp};
use crate::output::Outputs;
use crate::raw::memory::make_room;
use crate::report::{Contents, Counts, NewNames, Peek, Point, Report};
use crate::stats::Stats;
use contract::{PointLines, Setup};
use ids::LineIds;
use kinds::Types;
use registry::{Announced, NO_IDS, Registry, State};
use samples::{NO_SLOT, SampleLog};
use self_metrics::{Before, LastFlush, SelfSeries};

/// No series stands for this entry.
const NO_SERIES: u32 = u32::MAX;
/// What follows in a receiver's map is the slot of samples.
const IN_SLOT: u32 = 1 << 31;
/// There was no room for a series. The receiver forgets the name at the next flush, and announces
/// it again with the next sample.
const REFUSED: u32 = u32::MAX - 1;
/// New names that are looked up ahead of the one at hand.
const AHEAD: usize = 16;

/// Names that receivers are to forget.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Dropped {
    /// Entries, by receiver.
    pub(crate) entries: Vec<Vec<u32>>,
}

/// What a report says beside the numbers in it.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Nothing.
    Numbers,
    /// The receiver has reported the interval completely.
    IntervalEnd,
    /// What the running interval has so far.
    Peek(Peek),
    /// The receiver has ended.
    Ended,
}

/// What an aggregator has of a receiver.
#[derive(Debug, Default)]
struct ReceiverMap {
    /// By entry: the series, or [`IN_SLOT`] and the slot of its samples. The slot could be looked up in the
    /// series, but with a million names that costs a trip to memory for every sample.
    series: Vec<u32>,
    /// Entries of names for which there was no room.
    refused: Vec<u32>,
}

/// Everything that is known of an interval. See the head of this file.
pub(crate) struct Aggregator {
    registry: Registry,
    types: Types,
    receivers: Vec<ReceiverMap>,
    /// By the parity of the interval.
    samples: [SampleLog; 2],
    slots: Slots,
    /// Members of sets in the interval, with the numbers of their series: no more than the limits of all receivers.
    members: HashSet<(u32, Box<[u8]>)>,
    ids: LineIds,
    naming: Naming,
    rules: Rules,
    own_series: SelfSeries,
    last: LastFlush,
    before: Before,
    /// Whether the lack of room for further names has been logged.
    is_full_reported: bool,
    /// Samples by series since the busiest were last asked for, if they are counted.
    hits: HashMap<u32, u64>,
    /// Called between two parts of a long computation.
    pause: fn(),
}

/// The options that concern all types.
struct Rules {
    /// Of an interval.
    seconds: f64,
    stamp_start: bool,
    /// Samples of a series up to which percentiles are exact.
    exact: usize,
    /// Bytes for the samples of an interval.
    memory: usize,
    self_metrics: bool,
}

/// Which slots of the sample logs are in use.
#[derive(Debug, Default)]
struct Slots {
    count: u32,
    free: Vec<u32>,
    /// Those of series dropped since the last flush, of which a log may still have samples.
    leaving: Vec<u32>,
    /// By slot: the series.
    series: Vec<u32>,
}

impl Slots {
    /// The series that a receiver's map leads to with `mapped`.
    #[inline]
    fn series_of(&self, mapped: u32) -> Option<u32> {
        match mapped {
            NO_SERIES | REFUSED => None,
            slot if slot & IN_SLOT != 0 => self.series.get((slot & !IN_SLOT) as usize).copied(),
            series => Some(series),
        }
    }

    /// A slot for the samples of `series`.
    fn take(&mut self, series: u32) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.series[slot as usize] = series;
            return slot;
        }
        self.series.push(series);
        self.count += 1;
        self.count - 1
    }

    /// Frees what has left before the log was flushed that could have samples of it.
    fn end_interval(&mut self) {
        self.free.append(&mut self.leaving);
    }
}

impl Aggregator {
    /// An aggregator for that many receivers. Without `self_metrics` only what was received is
    /// flushed. `pause` is called between two parts of a long computation, so that receiving
    /// threads on the same core get a chance.
    ///
    /// # Errors
    /// There is no memory for the look-up table of names.
    pub(crate) fn new(
        options: &Options,
        receivers: usize,
        self_metrics: bool,
        now_ms: u64,
        pause: fn(),
    ) -> io::Result<Self> {
        let interval_ms = (options.flush_interval.0.as_millis() as u64).max(1);
        let seconds = interval_ms as f64 / 1_000.0;
        let naming = Naming::new(options);
        // Types read their options once, here.
        let types = Types::new(&Setup {
            options,
            naming: &naming,
            seconds,
            carry: Carry::for_receivers(receivers),
        });
        // Self metrics are the first series: they are flushed even if nothing is received.
        let mut registry = Registry::new(u32::MAX, receivers)?;
        let own_series = SelfSeries::new(&mut registry, &naming)?;
        Ok(Self {
            registry,
            types,
            receivers: std::iter::repeat_with(ReceiverMap::default)
                .take(receivers)
                .collect(),
            samples: Default::default(),
            slots: Slots::default(),
            members: HashSet::new(),
            ids: LineIds::default(),
            naming,
            rules: Rules {
                seconds,
                stamp_start: options.timestamp == Stamp::Start,
                exact: options.timer_exact_samples.max(1) as usize,
                memory: usize::try_from(options.timer_memory.0).unwrap_or(usize::MAX),
                self_metrics,
            },
            own_series,
            last: LastFlush {
                flush: (now_ms / 1_000) as f64,
                ..LastFlush::default()
            },
            before: Before::default(),
            is_full_reported: false,
            hits: HashMap::new(),
            pause,
        })
    }

    /// Takes what a receiver reports. Values that are stored by themselves go to `outputs` at once.
    pub(crate) fn take(&mut self, report: Report, outputs: &mut Outputs, stats: &Stats) -> Taken {
        let Report {
            receiver,
            epoch,
            contents,
        } = report;
        match contents {
            Contents::Names(names) => self.learn(receiver, &names),
            Contents::Values(values) => self.values(receiver, &values, stats),
            Contents::Samples(samples) => self.samples(receiver, epoch, &samples, stats),
            Contents::Members(members) => self.members(receiver, members),
            Contents::Points(points) => self.points(&points, outputs),
            Contents::IntervalEnd(counts) => {
                self.counts(receiver, &counts, stats);
                return Taken::IntervalEnd;
            }
            Contents::Peek(peek) => return Taken::Peek(peek),
            Contents::Ended => return Taken::Ended,
        }
        Taken::Numbers
    }

    /// How many names there are.
    #[cfg(test)]
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// How many slots there are.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> u32 {
        self.slots.count
    }

    /// Learns what a receiver's entries stand for.
    fn learn(&mut self, receiver: usize, names: &NewNames) {
        for chunk in &names.chunks {
            self.registry.share(receiver, chunk.clone());
        }
        let hashes: Vec<u64> = names
            .iter()
            .map(|(_, kind, name)| self.registry.hash(kind, name))
            .collect();
        for (at, (entry, kind, name)) in names.iter().enumerate() {
            if let Some(later) = hashes.get(at + AHEAD) {
                self.registry.prefetch(*later);
            }
            let announced = Some(Announced { receiver, entry });
            let map = &mut self.receivers[receiver].series;
            let more = (entry as usize + 1).saturating_sub(map.len());
            if !make_room(map, more) {
                self.refuse(receiver, entry);
                continue;
            }
            let series = self.intern(hashes[at], kind, name, announced);
            if series.is_none() {
                self.refuse(receiver, entry);
            }
            let slot = series.map_or(NO_SLOT, |series| self.registry.get(series).slot());
            let mapped = match slot {
                NO_SLOT => series.unwrap_or(REFUSED),
                slot => IN_SLOT | slot,
            };
            put(
                &mut self.receivers[receiver].series,
                entry,
                mapped,
                NO_SERIES,
            );
        }
    }

    /// Remembers an entry for whose name there is no room, to be forgotten at the next flush.
    #[cold]
    fn refuse(&mut self, receiver: usize, entry: u32) {
        self.receivers[receiver].refused.push(entry);
        if !std::mem::replace(&mut self.is_full_reported, true) {
            warn!("there is no room for further names: their samples are refused and counted");
        }
    }

    fn intern(
        &mut self,
        hash: u64,
        kind: Kind,
        name: &[u8],
        announced: Option<Announced>,
    ) -> Option<u32> {
        if !make_room(&mut self.slots.series, 1) {
            return None;
        }
        let types = &self.types;
        let state = || types.of(kind).state();
        let (number, is_new) = self.registry.intern(hash, kind, name, announced, state)?;
        let series = self.registry.get_mut(number);
        if is_new && matches!(series.state(), State::Samples(_)) {
            series.set_state(State::Samples(self.slots.take(number)));
        }
        Some(number)
    }

    /// The series that a receiver's entry stands for.
    #[inline]
    fn series_of(&self, receiver: usize, entry: u32) -> Option<u32> {
        let mapped = *self.receivers[receiver].series.get(entry as usize)?;
        self.slots.series_of(mapped)
    }

    /// Adds what entries have in the interval that has ended. What names without a series have is
    /// counted.
    fn values(&mut self, receiver: usize, values: &[Value], stats: &Stats) {
        let mut refused = 0;
        for value in values {
            let Some(number) = self.series_of(receiver, value.entry) else {
                let known = self.receivers[receiver].series.get(value.entry as usize);
                refused += u64::from(known != Some(&NO_SERIES));
                continue;
            };
            let series = self.registry.get_mut(number);
            series.touch();
            self.types.merge(series, value);
        }
        stats.names_refused.fetch_add(refused, Ordering::Relaxed);
    }

    /// Adds single samples of the interval `epoch`.
    fn samples(&mut self, receiver: usize, epoch: u64, samples: &SampleList, stats: &Stats) {
        let log = &mut self.samples[(epoch & 1) as usize];
        let map = &self.receivers[receiver].series;
        for (entry, value) in samples.entries.iter().zip(&samples.values) {
            if let Some(mapped) = map.get(*entry as usize)
                && *mapped & IN_SLOT != 0
                && *mapped < REFUSED
            {
                log.push(*mapped & !IN_SLOT, *value);
            }
        }
        let slots = self.slots.count as usize;
        if log.is_long(slots) {
            let rules = &self.rules;
            let unranked = log.fold(slots, rules.exact, rules.memory, self.pause);
            stats
                .samples_unranked
                .fetch_add(unranked, Ordering::Relaxed);
        }
    }

    /// Adds members of sets of the interval that has ended.
    fn members(&mut self, receiver: usize, members: MemberList) {
        for (entry, member) in members.into_iter() {
            if let Some(series) = self.series_of(receiver, entry) {
                self.member(series, member);
            }
        }
    }

    fn member(&mut self, number: u32, member: Box<[u8]>) {
        if self.members.insert((number, member)) {
            let series = self.registry.get_mut(number);
            self.types.of(series.kind()).member_added(series);
            series.touch();
        }
    }

    /// Adds what a receiver counted in the interval that has ended.
    fn counts(&mut self, receiver: usize, counts: &Counts, stats: &Stats) {
        for (own, count) in [
            (self.own_series.packets, counts.packets),
            (self.own_series.metrics, counts.lines),
            (self.own_series.bad_lines, counts.bad),
        ] {
            self.registry.get_mut(own).value += count as f64;
        }
        for (entry, count) in &counts.hits {
            if let Some(series) = self.series_of(receiver, *entry) {
                *self.hits.entry(series).or_insert(0) += u64::from(*count);
            }
        }
        let refused = &counts.refused;
        stats
            .names_refused
            .fetch_add(refused.samples, Ordering::Relaxed);
        stats
            .members_refused
            .fetch_add(refused.members, Ordering::Relaxed);
        for prefix in &refused.prefixes {
            warn!(
                "max_names_per_prefix is reached below {:?}; further names there are refused and counted",
                String::from_utf8_lossy(prefix)
            );
        }
    }

    /// Hands on values that are stored by themselves.
    fn points(&self, points: &[Point], outputs: &mut Outputs) {
        for point in points {
            let mut lines = PointLines {
                outputs: &mut *outputs,
                name: &point.name,
                suffix: &self.naming.suffix,
                at: point.at,
            };
            self.types
                .of(point.kind)
                .flush_point(point.value, &mut lines);
        }
        outputs.end_of_points();
    }

    fn remove(&mut self, number: u32) {
        let series = *self.registry.get(number);
        let ids = self.registry.ids(number);
        if ids != NO_IDS {
            let name = self.registry.name(&series);
            let width = self.types.of(series.kind()).width(&name);
            self.ids.give_back(ids, width);
        }
        if series.slot() != NO_SLOT {
            self.slots.leaving.push(series.slot());
        }
        self.hits.remove(&number);
        self.registry.remove(number);
    }

    /// Takes series that are gone, and names that were refused, out of the receivers' maps.
    fn unmap(&mut self) -> Dropped {
        let (registry, slots) = (&self.registry, &self.slots);
        let unmap = |map: &mut ReceiverMap| {
            let mut gone = std::mem::take(&mut map.refused);
            for entry in &gone {
                if let Some(mapped) = map.series.get_mut(*entry as usize) {
                    *mapped = NO_SERIES;
                }
            }
            for (entry, mapped) in map.series.iter_mut().enumerate() {
                let series = slots.series_of(*mapped);
                if series.is_some_and(|series| !registry.get(series).is_live()) {
                    *mapped = NO_SERIES;
                    gone.push(entry as u32);
                }
            }
            gone
        };
        Dropped {
            entries: self.receivers.iter_mut().map(unmap).collect(),
        }
    }

    /// Deletes series for an operator.
    pub(crate) fn delete(&mut self, numbers: &[u32]) -> Dropped {
        for number in numbers {
            let series = self.registry.get_mut(*number);
            if series.is_lasting() && series.kind() == Kind::Counter {
                series.value = 0.0;
            } else {
                self.remove(*number);
            }
        }
        self.unmap()
    }

    /// Whether a series would be flushed if nothing more were received.
    fn is_held(&self, number: u32) -> bool {
        let series = self.registry.get(number);
        series.is_touched() || series.is_lasting() || self.types.repeats_idle(series.kind())
    }

    /// The busiest `percent` of names since the last call: (samples, name), busiest first.
    pub(crate) fn busiest(&mut self, percent: f64) -> Vec<(u64, String)> {
        let mut counts: Vec<_> = std::mem::take(&mut self.hits)
            .into_iter()
            .filter(|(number, _)| *number < self.registry.end())
            .filter_map(|(number, count)| {
                let series = self.registry.get(number);
                let name = String::from_utf8_lossy(&self.registry.name(series)).into_owned();
                series.is_live().then_some((count, name))
            })
            .collect();
        counts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let most = (percent.clamp(0.0, 100.0) / 100.0 * counts.len() as f64).ceil();
        counts.truncate(most as usize);
        counts
    }

    /// For the management interface: when and how the last flush went.
    pub(crate) fn last_flush(&self) -> [(&'static str, f64); 4] {
        self.last.named()
    }
}

/// Puts `value` at `at`, filling up with `unused`.
fn put(list: &mut Vec<u32>, at: u32, value: u32, unused: u32) {
    let at = at as usize;
    if list.len() <= at {
        list.resize(at + 1, unused);
    }
    list[at] = value;
}
