//! Distributions (DogStatsD): fixed percentiles of the interval's values.
//!
//! ```text
//! page.size:1420|d       stats.distributions.page.size.count 1, .avg 1420, .p95 1420, …
//! ```
//!
//! 1. The type is there if `distributions = true`; otherwise the letter is a timer's.
//! 2. The number of a series is the sum of its samples' weights, which is the count. A percentile is
//!    the least sample that at least so many percent of the samples do not exceed.
//! 3. Without samples there is no line: a distribution of nothing has no percentiles. Negative values
//!    are refused, as a timer's: samples are kept as those are.

use super::contract::{Facts, Interval, Lines, Setup};
use super::registry::Series;
use super::sampled::{Sampled, Statistics};
use super::samples::Sorted;
use super::timer;
use crate::cell::Cell;
use crate::kind::Kind;
use crate::metric::{Number, Reject, Sample};
use crate::naming::Section;

pub(super) const KIND: Facts = Facts {
    is_enabled: |options| options.distributions,
    buffer_saved_as: Some(b'e'),
    ..Facts::numbers(Kind::Distribution, &["d"], b'd')
};

/// Statistics in the order in which they are flushed; a percentile has its share.
const STATISTICS: [(&[u8], Statistic); 10] = [
    (b".count", Statistic::Count),
    (b".sum", Statistic::Sum),
    (b".avg", Statistic::Mean),
    (b".min", Statistic::Percentile(0.0)),
    (b".max", Statistic::Percentile(1.0)),
    (b".p50", Statistic::Percentile(0.5)),
    (b".p75", Statistic::Percentile(0.75)),
    (b".p90", Statistic::Percentile(0.9)),
    (b".p95", Statistic::Percentile(0.95)),
    (b".p99", Statistic::Percentile(0.99)),
];

#[derive(Clone, Copy)]
enum Statistic {
    Count,
    Sum,
    Mean,
    Percentile(f64),
}

#[inline]
pub(super) fn sample(number: Number) -> Result<Sample, Reject> {
    timer::sample(number)
}

#[inline(always)]
pub(super) fn add(cell: &mut Cell<'_>, sample: Sample) {
    cell.add(sample.weight);
    cell.keep(sample.value);
}

/// Distributions. The number of a series is its count.
pub(super) type Distribution = Sampled<Percentiles>;

/// The statistics of an interval's samples.
pub(super) struct Percentiles {
    namespace: Vec<u8>,
}

/// The number of the sample, from 1 on, that `share` of `count` samples do not exceed.
fn rank(share: f64, count: u64) -> u64 {
    ((share * count as f64).ceil() as u64).clamp(1, count)
}

impl Statistics for Percentiles {
    const FACTS: Facts = KIND;

    fn new(setup: &Setup<'_>) -> Self {
        Self {
            namespace: setup.naming.distribution.clone(),
        }
    }

    fn width(&self, _name: &[u8]) -> usize {
        STATISTICS.len()
    }

    fn flush(&self, series: &Series, interval: &mut Interval<'_>, lines: &mut Lines<'_>) {
        let Some(sorted) = interval.grouped.sorted(series.slot(), interval.exact) else {
            return;
        };
        let (count, sum) = match &sorted {
            Sorted::Exact(samples) => (samples.len() as u64, samples.iter().sum()),
            Sorted::Sketched(buffer) => (buffer.count(), buffer.summary.sum),
        };
        // The sketch of many samples is made once for all percentiles.
        let sketch = match &sorted {
            Sorted::Exact(_) => None,
            Sorted::Sketched(buffer) => Some((buffer.sketch(), &buffer.summary)),
        };
        let percentile = |share: f64| match (&sorted, &sketch) {
            (Sorted::Exact(samples), _) => samples[rank(share, count) as usize - 1],
            (_, Some((sketch, summary))) => sketch.at(rank(share, count), summary),
            (Sorted::Sketched(buffer), None) => buffer.summary.mean,
        };
        for (at, (text, statistic)) in STATISTICS.iter().enumerate() {
            let value = match statistic {
                Statistic::Count => series.value,
                Statistic::Sum => sum,
                Statistic::Mean => sum / count as f64,
                Statistic::Percentile(share) => percentile(*share),
            };
            let section = Section::Named("distributions");
            lines.put(at, section, &self.namespace, text, value);
        }
    }
}
