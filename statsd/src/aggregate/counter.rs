//! Counters: values are added up, each multiplied by 1 / sample rate.
//!
//! ```text
//! web.hits:3|c|@0.5      stats.web.hits 0.6 (per second), stats_counts.web.hits 6
//! ```
//!
//! A counter with DogStatsD's `|T` was added up by the client: it is stored at its time, and not
//! weighted again.

use super::contract::{Facts, IDLE, Interval, Lines, PointLines, Setup, Type};
use super::registry::Series;
use crate::cell::Cell;
use crate::kind::Kind;
use crate::metric::{Number, Reject, Sample};
use crate::naming::Section;

pub(super) const KIND: Facts = Facts {
    takes_timestamps: true,
    table: Some("counters"),
    ..Facts::numbers(Kind::Counter, &["c", "m"], b'c')
};

#[inline]
pub(super) fn sample(number: Number) -> Result<Sample, Reject> {
    let value = number.value * number.weight;
    if !value.is_finite() {
        return Err(Reject::SampleRate);
    }
    Ok(Sample {
        value,
        weight: number.weight,
        is_relative: false,
    })
}

#[inline(always)]
pub(super) fn add(cell: &mut Cell<'_>, sample: Sample) {
    cell.add(sample.value);
}

/// The number of a series is the interval's sum.
pub(super) struct Counter {
    /// Namespace and statistic of the line per second.
    rate: (Vec<u8>, Vec<u8>),
    /// The same of the count, if it is flushed.
    count: Option<(Vec<u8>, Vec<u8>)>,
    /// What a value with a time of its own covers: one interval.
    seconds: f64,
    deletes_idle: bool,
}

impl Counter {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        let Setup {
            options, naming, ..
        } = setup;
        Self {
            rate: naming.rate.clone(),
            count: options.flush_counts.then(|| naming.count.clone()),
            seconds: setup.seconds,
            deletes_idle: options.delete_counters.or(options.delete_idle_stats),
        }
    }
}

impl Type for Counter {
    fn repeats_idle(&self) -> bool {
        !self.deletes_idle
    }

    fn width(&self, _name: &[u8]) -> usize {
        2
    }

    fn flush(&self, series: &Series, interval: &mut Interval<'_>, lines: &mut Lines<'_>) {
        let per_second = series.value / interval.seconds;
        let name = lines.name;
        if let Some(console) = lines.outputs.console() {
            console.counter(&name.get(), series.value, per_second);
        }
        let (namespace, stat) = &self.rate;
        lines.put(0, Section::Elsewhere, namespace, stat, per_second);
        if let Some((namespace, stat)) = &self.count {
            lines.put(1, Section::Elsewhere, namespace, stat, series.value);
        }
    }

    fn flush_point(&self, value: f64, lines: &mut PointLines<'_>) {
        let (namespace, stat) = &self.rate;
        lines.put(namespace, stat, value / self.seconds);
        if let Some((namespace, stat)) = &self.count {
            lines.put(namespace, stat, value);
        }
    }

    fn end_interval(&self, series: &mut Series, idle: u8) -> bool {
        series.value = 0.0;
        self.deletes_idle && idle >= IDLE && !series.is_lasting()
    }
}
