//! Timers: percentiles and the rest, exact to the last digit as the reference has them.
//!
//! 1. Samples come as a log of (slot, value). At the flush the log is brought into the order of
//!    its slots by counting, then each timer's values are sorted.
//! 2. A log that grows long before the flush is folded into one [`Pile`] per timer, often, so that
//!    each time is short, and makes way for receiving threads in between. A pile keeps
//!    its samples up to `timer_exact_samples`; one more, and they go into an hdrhistogram.
//! 3. Sums run over the sorted values from the least up, since the order decides the last digits.
//! 4. A histogram answers within 0.1 % for values from 0.001 up, and within 0.000001 below.
//!    Count, sum, sum of squares, mean, std, lower and upper stay exact beside it.

use hashbrown::HashMap;
use hdrhistogram::Histogram;

use crate::number;
use crate::options;

/// Samples in the log that make it be folded: more than there are timers to look at, up to a bound.
const LOG: std::ops::Range<usize> = 1 << 18..1 << 20;
const LOG_PER_SLOT: usize = 8;
/// Samples that are folded before other threads get a chance.
const SPELL: usize = 1 << 13;
/// Of a histogram: units per 1.0, so that values from 0.001 up have three digits.
const UNITS: f64 = 1e6;
const LARGEST: f64 = 4e18;

/// What is flushed of a timer.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    thresholds: Vec<f64>,
    /// Statistics in the reference's order, with the text that follows the name.
    stats: Vec<(Stat, Vec<u8>)>,
    /// Where `count_ps` and `count` are among them, for timers without samples.
    idle: Vec<usize>,
    histograms: Vec<Bins>,
    /// Seconds in an interval.
    seconds: f64,
}

/// The bins of the timers whose name holds `metric`.
#[derive(Clone, Debug)]
struct Bins {
    metric: Vec<u8>,
    bounds: Vec<f64>,
    texts: Vec<Vec<u8>>,
}

impl Bins {
    fn new(metric: &str, bins: &[options::Bound]) -> Self {
        let mut bounds: Vec<f64> = Vec::with_capacity(bins.len());
        for options::Bound(bound) in bins {
            if !bounds.contains(bound) {
                bounds.push(*bound);
            }
        }
        let text = |bound: &f64| {
            let text = if bound.is_infinite() {
                "inf".to_owned()
            } else {
                number::text(*bound).replacen('.', "_", 1)
            };
            format!(".histogram.bin_{text}").into_bytes()
        };
        Self {
            metric: metric.as_bytes().to_vec(),
            texts: bounds.iter().map(text).collect(),
            bounds,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stat {
    CountOf(usize),
    MeanOf(usize),
    BoundOf(usize),
    SumOf(usize),
    SquaresOf(usize),
    Std,
    Upper,
    Lower,
    Count,
    PerSecond,
    Sum,
    Squares,
    Mean,
    Median,
}

/// The part of the samples within one threshold.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    count: f64,
    bound: f64,
    sum: f64,
    squares: f64,
}

impl Spec {
    pub(crate) fn new(
        percentiles: &[f64],
        wanted: &[String],
        histograms: &[options::Histogram],
        seconds: f64,
    ) -> Self {
        // As members of JavaScript's objects: what is named twice is there once.
        let mut thresholds: Vec<f64> = Vec::with_capacity(percentiles.len());
        for threshold in percentiles {
            if !thresholds.contains(threshold) {
                thresholds.push(*threshold);
            }
        }
        let is_wanted = |name: &str| {
            let normal = normalise(name);
            wanted.is_empty() || wanted.contains(&normal)
        };
        let mut stats = Vec::new();
        let mut add = |stat, name: String| {
            if is_wanted(&name) {
                stats.push((stat, format!(".{name}").into_bytes()));
            }
        };
        for (at, threshold) in thresholds.iter().enumerate() {
            let text = number::text(*threshold)
                .replacen('.', "_", 1)
                .replacen('-', "top", 1);
            let bound = if *threshold > 0.0 { "upper" } else { "lower" };
            add(Stat::CountOf(at), format!("count_{text}"));
            add(Stat::MeanOf(at), format!("mean_{text}"));
            add(Stat::BoundOf(at), format!("{bound}_{text}"));
            add(Stat::SumOf(at), format!("sum_{text}"));
            add(Stat::SquaresOf(at), format!("sum_squares_{text}"));
        }
        for (stat, name) in [
            (Stat::Std, "std"),
            (Stat::Upper, "upper"),
            (Stat::Lower, "lower"),
            (Stat::Count, "count"),
            (Stat::PerSecond, "count_ps"),
            (Stat::Sum, "sum"),
            (Stat::Squares, "sum_squares"),
            (Stat::Mean, "mean"),
            (Stat::Median, "median"),
        ] {
            add(stat, name.to_owned());
        }
        let idle = [Stat::PerSecond, Stat::Count]
            .iter()
            .filter_map(|idle| stats.iter().position(|(stat, _)| stat == idle))
            .collect();
        let histograms = if wanted.is_empty() || wanted.iter().any(|name| name == "histogram") {
            histograms
                .iter()
                .map(|options::Histogram { metric, bins }| Bins::new(metric, bins))
                .collect()
        } else {
            Vec::new()
        };
        Self {
            thresholds,
            stats,
            idle,
            histograms,
            seconds,
        }
    }

    fn bins(&self, name: &[u8]) -> Option<&Bins> {
        self.histograms
            .iter()
            .find(|bins| memchr::memmem::find(name, &bins.metric).is_some())
    }

    /// How many lines a timer of this name has at most.
    pub(crate) fn width(&self, name: &[u8]) -> usize {
        self.stats.len() + self.bins(name).map_or(0, |bins| bins.bounds.len())
    }

    /// The lines of a timer that had no samples: (number of the line, text after the name).
    pub(crate) fn idle_lines(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.idle.iter().map(|at| (*at, &*self.stats[*at].1))
    }
}

/// The stat's name for `calculated_timer_metrics`: a final `_90` or `_top10` becomes `_percent`.
fn normalise(name: &str) -> String {
    if let Some((stem, last)) = name.rsplit_once('_') {
        let digits = last.strip_prefix("top").unwrap_or(last);
        if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return format!("{stem}_percent");
        }
    }
    name.to_owned()
}

/// Takes the lines of one timer.
pub(crate) trait Lines {
    /// Line number `at` (below [`Spec::width`]), named with `text` after the timer's name.
    fn line(&mut self, at: usize, text: &[u8], value: f64);
}

impl Spec {
    fn lines(
        &self,
        name: &[u8],
        parts: &[Part],
        whole: impl Fn(Stat) -> f64,
        below: impl Fn(f64) -> f64,
        lines: &mut impl Lines,
    ) {
        for (at, (stat, text)) in self.stats.iter().enumerate() {
            let part = |index: usize, value: fn(&Part) -> f64| {
                parts.get(index).filter(|part| part.count > 0.0).map(value)
            };
            let value = match *stat {
                Stat::CountOf(index) => part(index, |part| part.count),
                Stat::MeanOf(index) => part(index, |part| part.sum / part.count),
                Stat::BoundOf(index) => part(index, |part| part.bound),
                Stat::SumOf(index) => part(index, |part| part.sum),
                Stat::SquaresOf(index) => part(index, |part| part.squares),
                other => Some(whole(other)),
            };
            if let Some(value) = value {
                lines.line(at, text, value);
            }
        }
        if let Some(bins) = self.bins(name) {
            let mut before = 0.0;
            for (at, (bound, text)) in bins.bounds.iter().zip(&bins.texts).enumerate() {
                // Bounds that do not ascend have nothing left to take, as in the reference.
                let up_to = below(*bound).max(before);
                lines.line(self.stats.len() + at, text, up_to - before);
                before = up_to;
            }
        }
    }

    fn rank(&self, threshold: f64, count: u64) -> u64 {
        if count == 1 {
            return 1;
        }
        // JavaScript's Math.round: halves go up.
        let rank = (threshold.abs() / 100.0 * count as f64 + 0.5).floor();
        (rank as u64).min(count)
    }

    /// The lines of `sorted` samples whose weights come to `weight`.
    fn exact(
        &self,
        name: &[u8],
        sorted: &[f64],
        weight: f64,
        room: &mut Sums,
        lines: &mut impl Lines,
    ) {
        let count = sorted.len();
        room.fill(sorted);
        let Sums { sums, squares, .. } = room;
        let parts = &mut room.parts;
        parts.clear();
        for threshold in &self.thresholds {
            let rank = self.rank(*threshold, count as u64) as usize;
            parts.push(if rank == 0 {
                Part::default()
            } else if *threshold > 0.0 {
                Part {
                    count: rank as f64,
                    bound: sorted[rank - 1],
                    sum: sums[rank - 1],
                    squares: squares[rank - 1],
                }
            } else {
                let rest = |sums: &[f64]| match count - rank {
                    0 => sums[count - 1],
                    left => sums[count - 1] - sums[left - 1],
                };
                Part {
                    count: rank as f64,
                    bound: sorted[count - rank],
                    sum: rest(sums),
                    squares: rest(squares),
                }
            });
        }
        let sum = sums[count - 1];
        let mean = sum / count as f64;
        let whole = |stat| match stat {
            Stat::Std => {
                let mut spread = 0.0;
                for value in sorted {
                    spread += (value - mean) * (value - mean);
                }
                (spread / count as f64).sqrt()
            }
            Stat::Upper => sorted[count - 1],
            Stat::Lower => sorted[0],
            Stat::Count => weight,
            Stat::PerSecond => weight / self.seconds,
            Stat::Sum => sum,
            Stat::Squares => squares[count - 1],
            Stat::Median if count % 2 == 1 => sorted[count / 2],
            Stat::Median => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
            _ => mean,
        };
        let below = |bound| sorted.partition_point(|value| *value < bound) as f64;
        self.lines(name, parts, whole, below, lines);
    }

    /// The lines of a pile that has outgrown exactness.
    fn sketched(&self, name: &[u8], pile: &Pile, weight: f64, lines: &mut impl Lines) {
        let (moments, sketch) = (&pile.moments, pile.sketch());
        let parts: Vec<Part> = self
            .thresholds
            .iter()
            .map(|threshold| {
                let rank = self.rank(*threshold, moments.count);
                if rank == 0 {
                    return Part::default();
                }
                if *threshold > 0.0 {
                    let (bound, sum, squares) = sketch.up_to(rank, moments);
                    return Part {
                        count: rank as f64,
                        bound,
                        sum,
                        squares,
                    };
                }
                let (_, sum, squares) = sketch.up_to(moments.count - rank, moments);
                Part {
                    count: rank as f64,
                    bound: sketch.at(moments.count - rank + 1, moments),
                    sum: moments.sum - sum,
                    squares: moments.squares - squares,
                }
            })
            .collect();
        let half = moments.count / 2;
        let whole = |stat| match stat {
            Stat::Std => (moments.spread / moments.count as f64).max(0.0).sqrt(),
            Stat::Upper => moments.upper,
            Stat::Lower => moments.lower,
            Stat::Count => weight,
            Stat::PerSecond => weight / self.seconds,
            Stat::Sum => moments.sum,
            Stat::Squares => moments.squares,
            Stat::Median if moments.count % 2 == 1 => sketch.at(half + 1, moments),
            Stat::Median => (sketch.at(half, moments) + sketch.at(half + 1, moments)) / 2.0,
            _ => moments.mean,
        };
        let below = |bound| sketch.below(bound, moments);
        self.lines(name, &parts, whole, below, lines);
    }
}

/// Room for the running sums of one timer, used again for the next.
#[derive(Debug, Default)]
struct Sums {
    sums: Vec<f64>,
    squares: Vec<f64>,
    parts: Vec<Part>,
}

impl Sums {
    fn fill(&mut self, sorted: &[f64]) {
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

/// What is known of samples without keeping them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Moments {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) squares: f64,
    pub(crate) mean: f64,
    /// Sum of the squared distances from the mean.
    pub(crate) spread: f64,
    pub(crate) lower: f64,
    pub(crate) upper: f64,
}

impl Moments {
    /// Adds `values`. The spread of several is that about their own mean, and that of their mean
    /// about the mean so far: it stays right where a difference of sums of squares would not, and
    /// costs no division per value.
    fn extend(&mut self, values: &[f64]) {
        let Some(first) = values.first() else { return };
        if self.count == 0 {
            (self.lower, self.upper) = (*first, *first);
        }
        let mut own = 0.0;
        for value in values {
            own += value;
            self.sum += value;
            self.squares += value * value;
            self.lower = self.lower.min(*value);
            self.upper = self.upper.max(*value);
        }
        let (before, more) = (self.count as f64, values.len() as f64);
        let own_mean = own / more;
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
pub(crate) struct Pile {
    /// All samples, until there are too many.
    pub(crate) exact: Vec<f64>,
    pub(crate) moments: Moments,
    histogram: Option<Box<Histogram<u32>>>,
}

impl Pile {
    fn is_exact(&self) -> bool {
        self.histogram.is_none() && self.moments.count == self.exact.len() as u64
    }

    fn bytes(&self) -> usize {
        let buckets = self
            .histogram
            .as_ref()
            .map_or(0, |histogram| histogram.distinct_values());
        self.exact.capacity() * 8 + buckets * 4
    }

    /// Adds `values`; returns how many of them count in no percentile, because `budget` bytes
    /// more would be exceeded.
    fn extend(&mut self, values: &[f64], exact: usize, budget: &mut usize) -> u64 {
        let before = self.bytes();
        self.moments.extend(values);
        let mut unranked = 0;
        let fits = self.histogram.is_none() && self.exact.len() + values.len() <= exact;
        if fits && values.len() * 16 <= *budget {
            self.exact.extend_from_slice(values);
        } else if let Some(histogram) = self.histogram.as_mut() {
            for value in values {
                record(histogram, *value);
            }
        } else if let Some(mut histogram) = (*budget >= 1 << 18 && !fits)
            .then(|| Histogram::<u32>::new(3).ok())
            .flatten()
        {
            for value in self.exact.iter().chain(values) {
                record(&mut histogram, *value);
            }
            self.exact = Vec::new();
            self.histogram = Some(Box::new(histogram));
        } else {
            unranked = values.len() as u64;
        }
        *budget = (*budget + before).saturating_sub(self.bytes());
        unranked
    }

    fn sketch(&self) -> Sketch {
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
        self.moments.count
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

    /// A pile that was saved.
    pub(crate) fn restore(moments: Moments, weighted: &[(f64, u64)]) -> Self {
        let mut histogram = Histogram::<u32>::new(3).ok().map(Box::new);
        if let Some(histogram) = &mut histogram {
            for (value, count) in weighted {
                let count = u32::try_from(*count).unwrap_or(u32::MAX);
                let _ = histogram.record_n(units(*value), count);
            }
        }
        Self {
            exact: Vec::new(),
            moments,
            histogram,
        }
    }
}

fn units(value: f64) -> u64 {
    (value * UNITS).round().min(LARGEST) as u64
}

fn record(histogram: &mut Histogram<u32>, value: f64) {
    // It grows to hold the value. If it cannot, the largest one that it holds stands for it.
    if histogram.record(units(value)).is_err() {
        histogram.saturating_record(units(value));
    }
}

/// Samples by rank, as far as they are known.
#[derive(Debug, Default)]
struct Sketch {
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

    /// `rank` of the moments' samples, scaled to those that are known.
    fn scaled(&self, rank: u64, moments: &Moments) -> u64 {
        let total = self.total();
        if total == moments.count {
            rank
        } else {
            (rank as f64 * total as f64 / moments.count as f64).round() as u64
        }
    }

    /// The value with that rank, 1 being the least.
    fn at(&self, rank: u64, moments: &Moments) -> f64 {
        let scaled = self.scaled(rank, moments).max(1);
        let at = self.steps.partition_point(|step| step.count < scaled);
        let value = match self.steps.get(at).or(self.steps.last()) {
            _ if rank >= moments.count => moments.upper,
            _ if rank <= 1 => moments.lower,
            Some(step) => step.value,
            None => moments.mean,
        };
        value.clamp(moments.lower, moments.upper)
    }

    /// The value with that rank, and the sum and sum of squares of the samples up to it.
    fn up_to(&self, rank: u64, moments: &Moments) -> (f64, f64, f64) {
        if rank == 0 {
            return (moments.lower, 0.0, 0.0);
        }
        if rank >= moments.count {
            return (moments.upper, moments.sum, moments.squares);
        }
        let scaled = self.scaled(rank, moments);
        let at = self.steps.partition_point(|step| step.count < scaled);
        let (count, sum, squares) = match at.checked_sub(1).and_then(|at| self.steps.get(at)) {
            Some(step) => (step.count, step.sum, step.squares),
            None => (0, 0.0, 0.0),
        };
        let value = self.steps.get(at).map_or(moments.upper, |step| step.value);
        let rest = (scaled - count) as f64;
        let scale = rank as f64 / scaled.max(1) as f64;
        (
            self.at(rank, moments),
            (sum + rest * value) * scale,
            (squares + rest * value * value) * scale,
        )
    }

    /// How many samples are below `bound`.
    fn below(&self, bound: f64, moments: &Moments) -> f64 {
        if bound > moments.upper {
            return moments.count as f64;
        }
        let at = self.steps.partition_point(|step| step.value < bound);
        let known = at
            .checked_sub(1)
            .and_then(|at| self.steps.get(at))
            .map_or(0, |step| step.count);
        if self.total() == moments.count || self.total() == 0 {
            known as f64
        } else {
            (known as f64 * moments.count as f64 / self.total() as f64).round()
        }
    }
}

/// Sorts values that are neither negative nor -0, whose bits therefore order as they do.
fn sort(values: &mut [f64]) {
    values.sort_unstable_by_key(|value| value.to_bits());
}

/// The samples of all timers and averages of an interval.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    slots: Vec<u32>,
    values: Vec<f64>,
    piles: HashMap<u32, Pile>,
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
    piles: HashMap<u32, Pile>,
    room: Sums,
}

impl Samples {
    /// Adds one sample of `slot`.
    pub(crate) fn push(&mut self, slot: u32, value: f64) {
        self.slots.push(slot);
        self.values.push(value);
    }

    /// Adds a pile that was saved.
    pub(crate) fn restore(&mut self, slot: u32, pile: Pile) {
        self.used += pile.bytes();
        self.piles.insert(slot, pile);
    }

    /// Whether the log should be folded, if there are that many slots.
    pub(crate) fn is_long(&self, slots: usize) -> bool {
        self.values.len() >= (slots * LOG_PER_SLOT).clamp(LOG.start, LOG.end)
    }

    /// Folds the log into piles, of at most `memory` bytes together. Returns how many samples are
    /// left out of percentiles.
    pub(crate) fn fold(&mut self, slots: usize, exact: usize, memory: usize) -> u64 {
        let mut grouped = self.group(slots);
        let mut budget = memory.saturating_sub(self.used);
        let mut unranked = 0;
        let (mut start, mut rested) = (0, 0);
        for (slot, end) in grouped.ends.iter().enumerate() {
            let end = *end as usize;
            if end > rested + SPELL {
                std::thread::yield_now();
                rested = end;
            }
            if end > start {
                let pile = grouped.piles.entry(slot as u32).or_default();
                unranked += pile.extend(&grouped.values[start..end], exact, &mut budget);
            }
            start = end;
        }
        self.used = memory.saturating_sub(budget);
        self.piles = grouped.piles;
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
            piles: std::mem::take(&mut self.piles),
            room: Sums::default(),
        }
    }

    /// Takes back what [`Samples::group`] gave.
    pub(crate) fn put_back(&mut self, grouped: Grouped) {
        let Grouped {
            ends,
            values,
            piles,
            ..
        } = grouped;
        let mut start = 0;
        for (slot, end) in ends.iter().enumerate() {
            for value in &values[start..*end as usize] {
                self.push(slot as u32, *value);
            }
            start = *end as usize;
        }
        self.piles.extend(piles);
    }

    /// Forgets what a finished interval used.
    pub(crate) fn interval_ends(&mut self) {
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
        match self.piles.get(&slot) {
            None if values.is_empty() => None,
            None => Some(values.iter().sum::<f64>() / values.len() as f64),
            Some(pile) => {
                let sum: f64 = values.iter().sum::<f64>() + pile.moments.sum;
                Some(sum / (values.len() as u64 + pile.moments.count) as f64)
            }
        }
    }

    /// Gives the lines of the timer `slot`; returns false if it had no samples.
    pub(crate) fn timer(
        &mut self,
        slot: u32,
        name: &[u8],
        weight: f64,
        spec: &Spec,
        exact: usize,
        lines: &mut impl Lines,
    ) -> bool {
        let range = self.range(slot);
        if let Some(pile) = self.piles.get_mut(&slot) {
            let mut budget = usize::MAX / 4;
            pile.extend(&self.values[range], exact, &mut budget);
            if pile.is_exact() {
                sort(&mut pile.exact);
                spec.exact(name, &pile.exact, weight, &mut self.room, lines);
            } else {
                spec.sketched(name, pile, weight, lines);
            }
            return true;
        }
        let values = &mut self.values[range];
        if values.is_empty() {
            return false;
        }
        if values.len() > exact {
            let mut pile = Pile::default();
            let mut budget = usize::MAX / 4;
            pile.extend(values, exact, &mut budget);
            spec.sketched(name, &pile, weight, lines);
            return true;
        }
        sort(values);
        spec.exact(name, values, weight, &mut self.room, lines);
        true
    }

    /// The least `count` samples of `slot` after [`Grouped::timer`], and how many more there are.
    pub(crate) fn least(&self, slot: u32, count: usize) -> (Vec<f64>, usize) {
        let mut least = Vec::new();
        let total = match self.piles.get(&slot) {
            Some(pile) => {
                for (value, times) in pile.weighted() {
                    let room = count - least.len();
                    least.extend(std::iter::repeat_n(value, room.min(times as usize)));
                }
                pile.count() as usize
            }
            None => {
                let mut values = self.values[self.range(slot)].to_vec();
                sort(&mut values);
                least.extend(values.iter().take(count));
                values.len()
            }
        };
        let more = total.saturating_sub(least.len());
        (least, more)
    }

    /// The samples of `slot` for saving: those that are all kept, or a pile.
    pub(crate) fn saved(&self, slot: u32) -> (&[f64], Option<&Pile>) {
        (&self.values[self.range(slot)], self.piles.get(&slot))
    }
}
