//! Samples that are kept one by one until the flush: of timers and averages.
//!
//! 1. Samples are appended to a log of (slot, value); a slot stands for a series. At the flush the
//!    log is sorted by slot, by counting.
//! 2. A log that grows long before the flush is folded into one [`SampleBuffer`] per slot, often,
//!    so that each time is short. A buffer keeps its samples up to `timer_exact_samples`; one more,
//!    and they go into an hdrhistogram. Buffers grow only as far as all of them together may; samples beyond that
//!    are in no percentile.
//! 3. A histogram answers within 0.1 % for values from 0.001 up, and within 0.000001 below.
//!    Count, sum, sum of squares, mean, deviation, least and largest stay exact beside it.

use std::borrow::Cow;

use hashbrown::HashMap;
use hdrhistogram::Histogram;

/// Samples in the log that make it be folded: more than there are slots to look at, up to a bound.
const LOG: std::ops::Range<usize> = 1 << 18..1 << 20;
const LOG_PER_SLOT: usize = 8;
/// The slot of a series that has none yet.
pub(crate) const NO_SLOT: u32 = u32::MAX;
/// Samples that are folded between two calls of `pause`.
const UNTIL_PAUSE: usize = 1 << 13;
/// Of a histogram: units per 1.0, so that values from 0.001 up have three digits.
const UNITS: f64 = 1e6;
const LARGEST: f64 = 4e18;
/// Bytes that a histogram takes at most.
const HISTOGRAM: usize = 1 << 18;

/// What is known of samples without keeping them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) squares: f64,
    pub(crate) mean: f64,
    /// Sum of the squared distances from the mean.
    pub(crate) spread: f64,
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

impl Summary {
    /// Adds `values`. The spread of several is that about their own mean, and that of their mean
    /// about the mean so far: it stays right where a difference of sums of squares would not, and
    /// costs no division per value.
    fn extend(&mut self, values: &[f64]) {
        let Some(first) = values.first() else { return };
        if self.count == 0 {
            (self.lower, self.upper) = (*first, *first);
        }
        let mut total = 0.0;
        for value in values {
            total += value;
            self.sum += value;
            self.squares += value * value;
            self.lower = self.lower.min(*value);
            self.upper = self.upper.max(*value);
        }
        let (before, more) = (self.count as f64, values.len() as f64);
        let own_mean = total / more;
        let own_spread: f64 = values
            .iter()
            .map(|value| (value - own_mean) * (value - own_mean))
            .sum();
        let distance = own_mean - self.mean;
        let share = more / (before + more);
        self.mean += distance * share;
        self.spread += own_spread + distance * distance * before * share;
        self.count += values.len() as u64;
    }
}

/// Many samples of one timer.
#[derive(Clone, Debug, Default)]
pub(crate) struct SampleBuffer {
    /// All samples, until there are too many.
    pub(crate) exact: Vec<f64>,
    pub(crate) summary: Summary,
    histogram: Option<Box<Histogram<u32>>>,
}

impl SampleBuffer {
    fn is_exact(&self) -> bool {
        self.histogram.is_none() && self.summary.count == self.exact.len() as u64
    }

    fn bytes(&self) -> usize {
        let buckets = self
            .histogram
            .as_ref()
            .map_or(0, |histogram| histogram.distinct_values());
        self.exact.capacity() * 8 + buckets * 4
    }

    /// Adds `values`; returns how many of them count in no percentile, because that would take more
    /// than `budget` bytes.
    fn extend(&mut self, values: &[f64], exact: usize, budget: &mut usize) -> u64 {
        self.summary.extend(values);
        let count = self.exact.len() + values.len();
        if self.histogram.is_none() && count <= exact {
            if !self.reserve(count, exact, budget) {
                return values.len() as u64;
            }
            self.exact.extend_from_slice(values);
            return 0;
        }
        self.widen(budget);
        match &mut self.histogram {
            Some(histogram) => record(histogram, values),
            None => values.len() as u64,
        }
    }

    /// Makes room for `count` exact samples, of at most `most`, within `budget` bytes. Whether there is.
    fn reserve(&mut self, count: usize, most: usize, budget: &mut usize) -> bool {
        let before = self.exact.capacity();
        if count <= before {
            return true;
        }
        let room = (2 * before).min(most).max(count);
        if (room - before) * 8 > *budget {
            return false;
        }
        self.exact.reserve_exact(room - self.exact.len());
        *budget = budget.saturating_sub((self.exact.capacity() - before) * 8);
        true
    }

    /// Makes a histogram that holds all samples so far, unless there is no `budget` for the largest one there is.
    /// Samples beyond a histogram that cannot grow are in no percentile.
    fn widen(&mut self, budget: &mut usize) {
        let largest = units(self.summary.upper);
        let known = self.histogram.as_ref();
        if known.is_some_and(|known| known.high() >= largest) || *budget < HISTOGRAM {
            return;
        }
        let Some(mut wider) = histogram(largest) else {
            return;
        };
        let before = self.bytes();
        match known {
            Some(known) if wider.add(&**known).is_err() => return,
            Some(_) => {}
            None => {
                record(&mut wider, &self.exact);
                self.exact = Vec::new();
            }
        }
        self.histogram = Some(Box::new(wider));
        *budget = (*budget + before).saturating_sub(self.bytes());
    }

    pub(super) fn sketch(&self) -> Sketch {
        let mut sketch = Sketch::default();
        let mut push = |value: f64, count: u64| {
            let (before, sum, squares) = sketch
                .steps
                .last()
                .map_or((0, 0.0, 0.0), |step| (step.count, step.sum, step.squares));
            sketch.steps.push(Step {
                value,
                count: before + count,
                sum: sum + value * count as f64,
                squares: squares + value * value * count as f64,
            });
        };
        if let Some(histogram) = &self.histogram {
            for bucket in histogram.iter_recorded() {
                let middle = histogram.median_equivalent(bucket.value_iterated_to());
                push(middle as f64 / UNITS, bucket.count_at_value().into());
            }
        } else {
            let mut sorted = self.exact.clone();
            sort(&mut sorted);
            for value in sorted {
                push(value, 1);
            }
        }
        sketch
    }

    /// How many samples there were.
    pub(crate) fn count(&self) -> u64 {
        self.summary.count
    }

    /// The samples as (value, how often), exact or as the histogram has them.
    pub(crate) fn weighted(&self) -> Vec<(f64, u64)> {
        let mut before = 0;
        self.sketch()
            .steps
            .iter()
            .map(|step| {
                let count = step.count - before;
                before = step.count;
                (step.value, count)
            })
            .collect()
    }

    /// A buffer that was saved.
    pub(crate) fn restore(summary: Summary, weighted: &[(f64, u64)]) -> Self {
        let values = weighted.iter().map(|(value, _)| *value);
        let mut histogram = histogram(units(values.fold(summary.upper, f64::max))).map(Box::new);
        if let Some(histogram) = &mut histogram {
            for (value, count) in weighted {
                let count = u32::try_from(*count).unwrap_or(u32::MAX);
                let _ = histogram.record_n(units(*value), count);
            }
        }
        Self {
            exact: Vec::new(),
            summary,
            histogram,
        }
    }
}

fn units(value: f64) -> u64 {
    (value * UNITS).round().min(LARGEST) as u64
}

/// An empty histogram that holds up to `largest`, in no more memory than that takes.
fn histogram(largest: u64) -> Option<Histogram<u32>> {
    // All numbers of as many bits take the same memory; so do those below 2,048.
    let high = u64::MAX >> largest.max(2_047).leading_zeros();
    Histogram::new_with_max(high, 3).ok()
}

/// Records `values`; returns how many of them are beyond what the histogram holds.
fn record(histogram: &mut Histogram<u32>, values: &[f64]) -> u64 {
    let mut beyond = 0;
    for value in values {
        beyond += u64::from(histogram.record(units(*value)).is_err());
    }
    beyond
}

/// Samples by rank, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Sketch {
    steps: Vec<Step>,
}

/// All samples up to `value`.
#[derive(Clone, Copy, Debug)]
struct Step {
    value: f64,
    count: u64,
    sum: f64,
    squares: f64,
}

impl Sketch {
    fn total(&self) -> u64 {
        self.steps.last().map_or(0, |step| step.count)
    }

    /// `rank` of the summary' samples, scaled to those that are known.
    fn scaled(&self, rank: u64, summary: &Summary) -> u64 {
        let total = self.total();
        if total == summary.count {
            rank
        } else {
            (rank as f64 * total as f64 / summary.count as f64).round() as u64
        }
    }

    /// The value with that rank, 1 being the least.
    pub(super) fn at(&self, rank: u64, summary: &Summary) -> f64 {
        let scaled = self.scaled(rank, summary).max(1);
        let at = self.steps.partition_point(|step| step.count < scaled);
        let value = match self.steps.get(at).or(self.steps.last()) {
            _ if rank >= summary.count => summary.upper,
            _ if rank <= 1 => summary.lower,
            Some(step) => step.value,
            None => summary.mean,
        };
        value.clamp(summary.lower, summary.upper)
    }

    /// The value with that rank, and the sum and sum of squares of the samples up to it.
    pub(super) fn up_to(&self, rank: u64, summary: &Summary) -> (f64, f64, f64) {
        if rank == 0 {
            return (summary.lower, 0.0, 0.0);
        }
        if rank >= summary.count {
            return (summary.upper, summary.sum, summary.squares);
        }
        let scaled = self.scaled(rank, summary);
        let at = self.steps.partition_point(|step| step.count < scaled);
        let (count, sum, squares) = match at.checked_sub(1).and_then(|at| self.steps.get(at)) {
            Some(step) => (step.count, step.sum, step.squares),
            None => (0, 0.0, 0.0),
        };
        let value = self.steps.get(at).map_or(summary.upper, |step| step.value);
        let rest = (scaled - count) as f64;
        let scale = rank as f64 / scaled.max(1) as f64;
        (
            self.at(rank, summary),
            (sum + rest * value) * scale,
            (squares + rest * value * value) * scale,
        )
    }

    /// How many samples are below `bound`.
    pub(super) fn below(&self, bound: f64, summary: &Summary) -> f64 {
        if bound > summary.upper {
            return summary.count as f64;
        }
        let at = self.steps.partition_point(|step| step.value < bound);
        let known = at
            .checked_sub(1)
            .and_then(|at| self.steps.get(at))
            .map_or(0, |step| step.count);
        if self.total() == summary.count || self.total() == 0 {
            known as f64
        } else {
            (known as f64 * summary.count as f64 / self.total() as f64).round()
        }
    }
}

/// Sorts values that are neither negative nor -0, whose bits therefore order as they do.
fn sort(values: &mut [f64]) {
    values.sort_unstable_by_key(|value| value.to_bits());
}

/// The samples of all timers and averages of an interval.
#[derive(Debug, Default)]
pub(crate) struct SampleLog {
    slots: Vec<u32>,
    values: Vec<f64>,
    buffers: HashMap<u32, SampleBuffer>,
    used: usize,
    /// Room for the next fold.
    room: (Vec<u32>, Vec<f64>),
}

/// The log in the order of its slots.
#[derive(Debug, Default)]
pub(crate) struct Grouped {
    /// Where each slot's values end.
    ends: Vec<u32>,
    values: Vec<f64>,
    buffers: HashMap<u32, SampleBuffer>,
    /// The buffer that was sorted last, and its slot.
    sorted: Option<(u32, SampleBuffer)>,
}

/// The samples of one series.
pub(crate) enum Sorted<'a> {
    /// All of them, ascending.
    Exact(&'a [f64]),
    /// Too many to be kept.
    Sketched(Cow<'a, SampleBuffer>),
}

impl SampleLog {
    /// Adds one sample of `slot`.
    pub(crate) fn push(&mut self, slot: u32, value: f64) {
        self.slots.push(slot);
        self.values.push(value);
    }

    /// Adds a buffer that was saved.
    pub(crate) fn restore(&mut self, slot: u32, buffer: SampleBuffer) {
        self.used += buffer.bytes();
        self.buffers.insert(slot, buffer);
    }

    /// Whether the log should be folded, if there are that many slots.
    pub(crate) fn is_long(&self, slots: usize) -> bool {
        self.values.len() >= (slots * LOG_PER_SLOT).clamp(LOG.start, LOG.end)
    }

    /// Folds the log into buffers, of at most `memory` bytes together. Returns how many samples are
    /// left out of percentiles.
    ///
    /// `pause` is called now and then, so that receiving threads on the same core get a chance.
    pub(crate) fn fold(
        &mut self,
        slots: usize,
        exact: usize,
        memory: usize,
        pause: impl Fn(),
    ) -> u64 {
        let mut grouped = self.group(slots);
        let mut budget = memory.saturating_sub(self.used);
        let mut unranked = 0;
        let (mut start, mut rested) = (0, 0);
        for (slot, end) in grouped.ends.iter().enumerate() {
            let end = *end as usize;
            if end > rested + UNTIL_PAUSE {
                pause();
                rested = end;
            }
            if end > start {
                let buffer = grouped.buffers.entry(slot as u32).or_default();
                unranked += buffer.extend(&grouped.values[start..end], exact, &mut budget);
            }
            start = end;
        }
        self.used = memory.saturating_sub(budget);
        self.buffers = grouped.buffers;
        self.room = (grouped.ends, grouped.values);
        unranked
    }

    /// Ends the interval: everything by slot, of which there are `slots`.
    pub(crate) fn group(&mut self, slots: usize) -> Grouped {
        let (mut ends, mut values) = std::mem::take(&mut self.room);
        ends.clear();
        ends.resize(slots, 0);
        for slot in &self.slots {
            ends[*slot as usize] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            // Each holds where its slot's values start, and moves to where they end.
            sum += std::mem::replace(end, sum);
        }
        values.resize(self.values.len(), 0.0);
        for (slot, value) in self.slots.iter().zip(&self.values) {
            let at = &mut ends[*slot as usize];
            values[*at as usize] = *value;
            *at += 1;
        }
        self.slots.clear();
        self.values.clear();
        if self.slots.capacity() > 2 * LOG.end {
            self.slots.shrink_to(LOG.end);
            self.values.shrink_to(LOG.end);
        }
        Grouped {
            ends,
            values,
            buffers: std::mem::take(&mut self.buffers),
            sorted: None,
        }
    }

    /// Which slots, of `slots`, have samples.
    pub(crate) fn in_use(&self, slots: usize) -> Vec<bool> {
        let mut in_use = vec![false; slots];
        for slot in self.slots.iter().chain(self.buffers.keys()) {
            in_use[*slot as usize] = true;
        }
        in_use
    }

    /// Takes back what [`SampleLog::group`] gave.
    pub(crate) fn put_back(&mut self, grouped: Grouped) {
        let Grouped {
            ends,
            values,
            buffers,
            sorted: _,
        } = grouped;
        let mut start = 0;
        for (slot, end) in ends.iter().enumerate() {
            for value in &values[start..*end as usize] {
                self.push(slot as u32, *value);
            }
            start = *end as usize;
        }
        self.buffers.extend(buffers);
    }

    /// Forgets what a finished interval used.
    pub(crate) fn end_interval(&mut self) {
        self.used = 0;
    }
}

impl Grouped {
    fn range(&self, slot: u32) -> std::ops::Range<usize> {
        let at = slot as usize;
        // Slots that were given out since have nothing here.
        let Some(end) = self.ends.get(at) else {
            return 0..0;
        };
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..*end as usize
    }

    /// The samples of `slot` in the order in which they came, if they are all there.
    pub(crate) fn mean(&self, slot: u32) -> Option<f64> {
        let values = &self.values[self.range(slot)];
        match self.buffers.get(&slot) {
            None if values.is_empty() => None,
            None => Some(values.iter().sum::<f64>() / values.len() as f64),
            Some(buffer) => {
                let sum: f64 = values.iter().sum::<f64>() + buffer.summary.sum;
                Some(sum / (values.len() as u64 + buffer.summary.count) as f64)
            }
        }
    }

    /// The samples of `slot`, sorted if there are at most `exact`; `None` if there are none. A buffer is gone when the
    /// next one is sorted.
    pub(crate) fn sorted(&mut self, slot: u32, exact: usize) -> Option<Sorted<'_>> {
        let range = self.range(slot);
        // The interval is over: memory is not limited any more, but only one buffer grows at a time.
        let mut budget = usize::MAX / 4;
        self.sorted = None;
        if let Some(mut buffer) = self.buffers.remove(&slot) {
            buffer.extend(&self.values[range], exact, &mut budget);
            let (_, buffer) = self.sorted.insert((slot, buffer));
            return Some(if buffer.is_exact() {
                sort(&mut buffer.exact);
                Sorted::Exact(&buffer.exact)
            } else {
                Sorted::Sketched(Cow::Borrowed(buffer))
            });
        }
        let values = &mut self.values[range];
        if values.is_empty() {
            return None;
        }
        if values.len() > exact {
            let mut buffer = SampleBuffer::default();
            buffer.extend(values, exact, &mut budget);
            return Some(Sorted::Sketched(Cow::Owned(buffer)));
        }
        sort(values);
        Some(Sorted::Exact(values))
    }

    /// The least `count` samples of `slot` after [`Grouped::sorted`], and how many more there are.
    pub(crate) fn least(&self, slot: u32, count: usize) -> (Vec<f64>, usize) {
        let mut least = Vec::new();
        let total = match &self.sorted {
            Some((sorted, buffer)) if *sorted == slot => {
                for (value, times) in buffer.weighted() {
                    let room = count - least.len();
                    least.extend(std::iter::repeat_n(value, room.min(times as usize)));
                }
                buffer.count() as usize
            }
            _ => {
                let mut values = self.values[self.range(slot)].to_vec();
                sort(&mut values);
                least.extend(values.iter().take(count));
                values.len()
            }
        };
        let more = total.saturating_sub(least.len());
        (least, more)
    }

    /// The samples of `slot` in the order in which they arrived, and those that are in a buffer.
    pub(crate) fn of(&self, slot: u32) -> (&[f64], Option<&SampleBuffer>) {
        (&self.values[self.range(slot)], self.buffers.get(&slot))
    }
}

/// Running sums of the sorted samples of one series; the room is used again for the next.
#[derive(Debug, Default)]
pub(crate) struct RunningSums {
    /// Up to and with each sample.
    pub(super) sums: Vec<f64>,
    /// The same of their squares.
    pub(super) squares: Vec<f64>,
    pub(super) parts: Vec<Part>,
}

/// The part of the samples within one threshold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Part {
    pub(super) count: f64,
    pub(super) bound: f64,
    pub(super) sum: f64,
    pub(super) squares: f64,
}

impl RunningSums {
    /// Sums from the least sample up: the order decides the last digits.
    pub(super) fn fill(&mut self, sorted: &[f64]) {
        self.sums.clear();
        self.squares.clear();
        let (mut sum, mut squares) = (0.0, 0.0);
        for value in sorted {
            sum += value;
            squares += value * value;
            self.sums.push(sum);
            self.squares.push(squares);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: usize = 200;

    /// Adds `count` samples of `value` to each slot, and folds them into no more than `memory`.
    fn fold(log: &mut SampleLog, count: usize, value: f64, exact: usize, memory: usize) -> u64 {
        for slot in 0..SLOTS {
            (0..count).for_each(|_| log.push(slot as u32, value));
        }
        log.fold(SLOTS, exact, memory, || {})
    }

    fn bytes(buffers: &HashMap<u32, SampleBuffer>) -> usize {
        buffers.values().map(SampleBuffer::bytes).sum()
    }

    /// A histogram of small values takes 8 KiB, and one with a large value beside them 212 KiB.
    #[test]
    fn histograms_grow_within_the_memory() {
        let mut log = SampleLog::default();
        let memory = 4 << 20;
        assert_eq!(fold(&mut log, 20, 0.001, 10, memory), 0);
        assert!(bytes(&log.buffers) <= memory);
        let unranked = fold(&mut log, 3, 1e12, 10, memory);
        assert!(bytes(&log.buffers) <= memory, "{}", bytes(&log.buffers));
        // Some had room; all have the rest of their statistics.
        assert!((1..3 * SLOTS as u64).contains(&unranked), "{unranked}");
        let ranked = |buffer: &SampleBuffer| buffer.sketch().total();
        let ranked: u64 = log.buffers.values().map(ranked).sum();
        assert_eq!(ranked + unranked, 23 * SLOTS as u64);
        for buffer in log.buffers.values() {
            let Summary {
                count,
                sum,
                lower,
                upper,
                ..
            } = buffer.summary;
            assert_eq!((count, lower, upper), (23, 0.001, 1e12));
            assert!((sum - 3e12).abs() < 0.1);
        }
        // What a histogram holds it still takes.
        assert_eq!(fold(&mut log, 1, 0.001, 10, memory), 0);
    }

    #[test]
    fn exact_samples_grow_within_the_memory() {
        let mut log = SampleLog::default();
        let memory = 1 << 20;
        let mut unranked = 0;
        for _ in 0..20 {
            unranked += fold(&mut log, 100, 7.0, 100_000, memory);
            assert!(bytes(&log.buffers) <= memory, "{}", bytes(&log.buffers));
        }
        let exact: usize = log.buffers.values().map(|buffer| buffer.exact.len()).sum();
        assert_eq!(exact as u64 + unranked, (2_000 * SLOTS) as u64);
        assert!(exact * 8 > memory / 3, "{exact}");
    }

    /// One sample more makes each of many buffers a histogram: they are not all there at once.
    #[test]
    fn a_flush_takes_the_memory_of_one_histogram_more() {
        let mut log = SampleLog::default();
        let memory = 1 << 20;
        assert_eq!(fold(&mut log, 100, 7.0, 100, memory), 0);
        (0..SLOTS).for_each(|slot| log.push(slot as u32, 1e12));
        let mut grouped = log.group(SLOTS);
        for slot in 0..SLOTS as u32 {
            match grouped.sorted(slot, 100) {
                Some(Sorted::Sketched(buffer)) => {
                    assert_eq!((buffer.count(), buffer.sketch().total()), (101, 101));
                }
                _ => panic!("too many samples to be exact"),
            }
            let sorted = grouped.sorted.as_ref().map(|(_, buffer)| buffer.bytes());
            let held = bytes(&grouped.buffers) + sorted.unwrap_or_default();
            assert!(held <= memory + HISTOGRAM, "{held}");
            assert_eq!(grouped.least(slot, 3).0.len(), 3);
        }
    }

    /// What is taken for the most that a histogram takes is that.
    #[test]
    fn a_histogram_has_a_largest_size() {
        for (largest, bytes) in [(0, 8 << 10), (2_047, 8 << 10), (2_048, 12 << 10)] {
            assert_eq!(histogram(largest).unwrap().distinct_values() * 4, bytes);
        }
        let most = histogram(units(f64::MAX)).unwrap();
        assert!(most.distinct_values() * 4 <= HISTOGRAM);
        assert!(most.high() >= units(f64::MAX));
    }
}
