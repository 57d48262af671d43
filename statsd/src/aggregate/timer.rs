//! Timers: percentiles and the rest, exact to the last digit as the reference has them.
//!
//! ```text
//! web.time:320|ms|@0.1   stats.timers.web.time.count 10, .count_ps 1, .mean 320, .upper_90 320, …
//! ```
//!
//! 1. Every sample is kept until the flush ([`samples`](super::samples)); the number of a series is the sum of their
//!    weights.
//! 2. Sums run over the sorted values from the least up, since the order decides the last digits.

use super::contract::{Facts, Interval, Lines, Recent, Setup};
use super::registry::Series;
use super::sampled::{Sampled, Statistics};
use super::samples::{Part, RunningSums, SampleBuffer, Sorted};
use crate::cell::Cell;
use crate::inspect::{ITEMS, Shown};
use crate::kind::Kind;
use crate::metric::{Number, Reject, Sample};
use crate::naming::Section;
use crate::{number, options};

pub(super) const KIND: Facts = Facts {
    buffer_saved_as: Some(b'p'),
    table: Some("timers"),
    ..Facts::numbers(Kind::Timer, &["ms", "h", "d"], b't')
};

#[inline]
pub(super) fn sample(number: Number) -> Result<Sample, Reject> {
    if number.value < 0.0 {
        return Err(Reject::NegativeTime);
    }
    Ok(Sample {
        // The sum turns -0 into 0, so that values sort by their bits.
        value: number.value + 0.0,
        weight: number.weight,
        is_relative: false,
    })
}

#[inline(always)]
pub(super) fn add(cell: &mut Cell<'_>, sample: Sample) {
    cell.add(sample.weight);
    cell.keep(sample.value);
}

/// Timers. The number of a series is the sum of its samples' weights.
pub(super) type Timer = Sampled<TimerLines>;

/// The lines of timers.
pub(super) struct TimerLines {
    namespace: Vec<u8>,
    statistics: TimerStatistics,
}

impl Statistics for TimerLines {
    const FACTS: Facts = KIND;
    const REPEATS_IDLE: bool = true;

    fn new(setup: &Setup<'_>) -> Self {
        let options = setup.options;
        Self {
            namespace: setup.naming.timer.clone(),
            statistics: TimerStatistics::new(
                &options.percentiles.0,
                &options.calculated_timer_metrics,
                &options.histogram,
            ),
        }
    }

    fn width(&self, name: &[u8]) -> usize {
        self.statistics.width(name)
    }

    fn flush(&self, series: &Series, interval: &mut Interval<'_>, lines: &mut Lines<'_>) {
        let (name, slot, statistics) = (lines.name, series.slot(), &self.statistics);
        if let Some(console) = lines.outputs.console() {
            console.timer(&name.get());
        }
        // Only histograms depend on it.
        let named = (!statistics.histograms.is_empty()).then(|| lines.name.get());
        let bare = named.as_deref().unwrap_or_default();
        let put = |at: usize, text: &[u8], value: f64| {
            lines.put(at, Section::Statistic, &self.namespace, text, value);
        };
        let (weight, seconds) = (series.value, interval.seconds);
        match interval.grouped.sorted(slot, interval.exact) {
            None => statistics.idle(put),
            Some(Sorted::Exact(sorted)) => {
                statistics.exact(bare, sorted, [weight, seconds], &mut interval.sums, put);
            }
            Some(Sorted::Sketched(buffer)) => {
                statistics.sketched(bare, &buffer, [weight, seconds], put);
            }
        }
        if let Some(console) = lines.outputs.console() {
            let (samples, more) = interval.grouped.least(slot, ITEMS);
            console.samples(&name.get(), &samples, more);
        }
    }

    /// The first samples, and how many more there are.
    fn shown(&self, _series: &Series, recent: &Recent<'_>) -> Shown {
        let buffered = recent.buffer.into_iter().flat_map(|buffer| {
            let weighted = buffer.weighted().into_iter();
            weighted.flat_map(|(value, count)| (0..count).map(move |_| value))
        });
        let single = recent.samples.iter().chain(recent.more).copied();
        let items: Vec<_> = buffered
            .chain(single)
            .take(ITEMS)
            .map(Shown::Number)
            .collect();
        let single = (recent.samples.len() + recent.more.len()) as u64;
        let count = recent.buffer.map_or(0, SampleBuffer::count) + single;
        let rest = count.saturating_sub(items.len() as u64) as usize;
        Shown::List(items, rest)
    }
}

/// What is flushed of a timer.
#[derive(Clone, Debug)]
struct TimerStatistics {
    thresholds: Vec<f64>,
    /// Statistics in the reference's order, with the text that follows the name.
    stats: Vec<(Statistic, Vec<u8>)>,
    /// Where `count_ps` and `count` are among them, for timers without samples.
    idle: Vec<usize>,
    histograms: Vec<Bins>,
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
enum Statistic {
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

impl TimerStatistics {
    fn new(percentiles: &[f64], wanted: &[String], histograms: &[options::Histogram]) -> Self {
        // As members of JavaScript's objects: what is named twice is there once.
        let mut thresholds: Vec<f64> = Vec::with_capacity(percentiles.len());
        for threshold in percentiles {
            if !thresholds.contains(threshold) {
                thresholds.push(*threshold);
            }
        }
        // `calculated_timer_metrics` names all percentiles at once.
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
        // The order is that of the reference, which flushes percentiles first.
        for (at, threshold) in thresholds.iter().enumerate() {
            let text = number::text(*threshold)
                .replacen('.', "_", 1)
                .replacen('-', "top", 1);
            let bound = if *threshold > 0.0 { "upper" } else { "lower" };
            add(Statistic::CountOf(at), format!("count_{text}"));
            add(Statistic::MeanOf(at), format!("mean_{text}"));
            add(Statistic::BoundOf(at), format!("{bound}_{text}"));
            add(Statistic::SumOf(at), format!("sum_{text}"));
            add(Statistic::SquaresOf(at), format!("sum_squares_{text}"));
        }
        for (stat, name) in [
            (Statistic::Std, "std"),
            (Statistic::Upper, "upper"),
            (Statistic::Lower, "lower"),
            (Statistic::Count, "count"),
            (Statistic::PerSecond, "count_ps"),
            (Statistic::Sum, "sum"),
            (Statistic::Squares, "sum_squares"),
            (Statistic::Mean, "mean"),
            (Statistic::Median, "median"),
        ] {
            add(stat, name.to_owned());
        }
        // Only these two are repeated as zeros for a timer without samples.
        let idle = [Statistic::PerSecond, Statistic::Count]
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
        }
    }

    fn bins(&self, name: &[u8]) -> Option<&Bins> {
        self.histograms
            .iter()
            .find(|bins| memchr::memmem::find(name, &bins.metric).is_some())
    }

    /// How many lines a timer of this name has at most.
    fn width(&self, name: &[u8]) -> usize {
        self.stats.len() + self.bins(name).map_or(0, |bins| bins.bounds.len())
    }

    /// The lines of a timer that had no samples.
    fn idle(&self, mut put: impl FnMut(usize, &[u8], f64)) {
        for at in &self.idle {
            put(*at, &self.stats[*at].1, 0.0);
        }
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

impl TimerStatistics {
    fn lines(
        &self,
        name: &[u8],
        parts: &[Part],
        whole: impl Fn(Statistic) -> f64,
        below: impl Fn(f64) -> f64,
        mut put: impl FnMut(usize, &[u8], f64),
    ) {
        for (at, (stat, text)) in self.stats.iter().enumerate() {
            let part = |index: usize, value: fn(&Part) -> f64| {
                parts.get(index).filter(|part| part.count > 0.0).map(value)
            };
            let value = match *stat {
                Statistic::CountOf(index) => part(index, |part| part.count),
                Statistic::MeanOf(index) => part(index, |part| part.sum / part.count),
                Statistic::BoundOf(index) => part(index, |part| part.bound),
                Statistic::SumOf(index) => part(index, |part| part.sum),
                Statistic::SquaresOf(index) => part(index, |part| part.squares),
                other => Some(whole(other)),
            };
            if let Some(value) = value {
                put(at, text, value);
            }
        }
        if let Some(bins) = self.bins(name) {
            let mut before = 0.0;
            for (at, (bound, text)) in bins.bounds.iter().zip(&bins.texts).enumerate() {
                // Bounds that do not ascend have nothing left to take, as in the reference.
                let up_to = below(*bound).max(before);
                put(self.stats.len() + at, text, up_to - before);
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

    /// The lines of `sorted` samples whose weights came to `weight` in so many seconds.
    fn exact(
        &self,
        name: &[u8],
        sorted: &[f64],
        [weight, seconds]: [f64; 2],
        room: &mut RunningSums,
        put: impl FnMut(usize, &[u8], f64),
    ) {
        let count = sorted.len();
        room.fill(sorted);
        // With running sums the part of the samples within a threshold is a look-up, from the top
        // for negative thresholds.
        let RunningSums { sums, squares, .. } = room;
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
        // The statistics of all samples.
        let sum = sums[count - 1];
        let mean = sum / count as f64;
        let whole = |stat| match stat {
            Statistic::Std => {
                let mut spread = 0.0;
                for value in sorted {
                    spread += (value - mean) * (value - mean);
                }
                (spread / count as f64).sqrt()
            }
            Statistic::Upper => sorted[count - 1],
            Statistic::Lower => sorted[0],
            Statistic::Count => weight,
            Statistic::PerSecond => weight / seconds,
            Statistic::Sum => sum,
            Statistic::Squares => squares[count - 1],
            Statistic::Median if count % 2 == 1 => sorted[count / 2],
            Statistic::Median => (sorted[count / 2 - 1] + sorted[count / 2]) / 2.0,
            _ => mean,
        };
        let below = |bound| sorted.partition_point(|value| *value < bound) as f64;
        self.lines(name, parts, whole, below, put);
    }

    /// The lines of a buffer with too many samples to be exact.
    fn sketched(
        &self,
        name: &[u8],
        buffer: &SampleBuffer,
        [weight, seconds]: [f64; 2],
        put: impl FnMut(usize, &[u8], f64),
    ) {
        let (summary, sketch) = (&buffer.summary, buffer.sketch());
        // A rank leads to the samples up to it as the sketch knows them; from the top it is the rest.
        let parts: Vec<Part> = self
            .thresholds
            .iter()
            .map(|threshold| {
                let rank = self.rank(*threshold, summary.count);
                if rank == 0 {
                    return Part::default();
                }
                if *threshold > 0.0 {
                    let (bound, sum, squares) = sketch.up_to(rank, summary);
                    return Part {
                        count: rank as f64,
                        bound,
                        sum,
                        squares,
                    };
                }
                let (_, sum, squares) = sketch.up_to(summary.count - rank, summary);
                Part {
                    count: rank as f64,
                    bound: sketch.at(summary.count - rank + 1, summary),
                    sum: summary.sum - sum,
                    squares: summary.squares - squares,
                }
            })
            .collect();
        // Statistics of all samples are exact, but for the median.
        let half = summary.count / 2;
        let whole = |stat| match stat {
            Statistic::Std => (summary.spread / summary.count as f64).max(0.0).sqrt(),
            Statistic::Upper => summary.upper,
            Statistic::Lower => summary.lower,
            Statistic::Count => weight,
            Statistic::PerSecond => weight / seconds,
            Statistic::Sum => summary.sum,
            Statistic::Squares => summary.squares,
            Statistic::Median if summary.count % 2 == 1 => sketch.at(half + 1, summary),
            Statistic::Median => (sketch.at(half, summary) + sketch.at(half + 1, summary)) / 2.0,
            _ => summary.mean,
        };
        let below = |bound| sketch.below(bound, summary);
        self.lines(name, &parts, whole, below, put);
    }
}
