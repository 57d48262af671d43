//! Averages (python-statsd): the mean of the interval's values. Without values there is no line.
//!
//! ```text
//! load:1.5|a             stats.averages.load 1.5
//! ```

use super::contract::{Facts, Interval, Lines, Setup};
use super::registry::Series;
use super::sampled::{Sampled, Statistics};
use crate::cell::Cell;
use crate::kind::Kind;
use crate::metric::{Number, Reject, Sample};
use crate::naming::Section;

pub(super) const KIND: Facts = Facts {
    buffer_saved_as: Some(b'q'),
    ..Facts::numbers(Kind::Average, &["a"], b'a')
};

#[inline]
pub(super) fn sample(number: Number) -> Result<Sample, Reject> {
    Ok(Sample {
        value: number.value,
        weight: number.weight,
        is_relative: false,
    })
}

#[inline(always)]
pub(super) fn add(cell: &mut Cell<'_>, sample: Sample) {
    cell.keep(sample.value);
}

/// Averages. The number of a series is not used.
pub(super) type Average = Sampled<Mean>;

/// The mean of an interval's samples.
pub(super) struct Mean {
    namespace: Vec<u8>,
}

impl Statistics for Mean {
    const FACTS: Facts = KIND;

    fn new(setup: &Setup<'_>) -> Self {
        Self {
            namespace: setup.naming.average.clone(),
        }
    }

    fn saved_sample(word: &str) -> Option<f64> {
        word.parse().ok()
    }

    fn flush(&self, series: &Series, interval: &mut Interval<'_>, lines: &mut Lines<'_>) {
        if let Some(mean) = interval.grouped.mean(series.slot()) {
            lines.put(0, Section::Named("averages"), &self.namespace, b"", mean);
        }
    }
}
