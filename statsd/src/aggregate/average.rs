//! Averages (python-statsd): the mean of the interval's values. Without values there is no line.
//!
//! ```text
//! load:1.5|a             stats.averages.load 1.5
//! ```

use std::io::{self, Write};

use super::contract::{Facts, IDLE, Interval, Lines, Setup, Type};
use super::registry::{Series, State};
use super::samples::NO_SLOT;
use super::saved::{self, Content, Head, Saved};
use crate::cell::{Cell, Value};
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

/// Beside the number, which is not used, a series has the slot of its samples.
pub(super) struct Average {
    namespace: Vec<u8>,
    deletes_idle: bool,
}

impl Average {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        let options = setup.options;
        Self {
            namespace: setup.naming.average.clone(),
            deletes_idle: options.delete_timers.or(options.delete_idle_stats),
        }
    }
}

impl Type for Average {
    fn state(&self) -> State {
        State::Samples(NO_SLOT)
    }

    fn merge(&self, _series: &mut Series, _value: &Value) {}

    fn repeats_idle(&self) -> bool {
        false
    }

    fn flush(&self, series: &Series, interval: &mut Interval<'_>, lines: &mut Lines<'_>) {
        if let Some(mean) = interval.grouped.mean(series.slot()) {
            lines.put(0, Section::Named("averages"), &self.namespace, b"", mean);
        }
    }

    fn end_interval(&self, _series: &mut Series, idle: u8) -> bool {
        self.deletes_idle && idle >= IDLE
    }

    fn save(
        &self,
        out: &mut dyn Write,
        head: &Head<'_>,
        series: &Series,
        content: &Content<'_>,
    ) -> io::Result<u64> {
        saved::save(out, head, KIND.buffer_saved_as, series.value, content)
    }

    fn restore(&self, letter: u8, words: &mut dyn Iterator<Item = &str>) -> Option<Saved> {
        let is_buffer = Some(letter) == KIND.buffer_saved_as;
        saved::restore(is_buffer, words, |word| word.parse().ok())
    }
}
