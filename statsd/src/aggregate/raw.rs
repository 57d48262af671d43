//! Raw values: stored as they are, under the bare name.
//!
//! ```text
//! disk.free:12.5|r|1700000000      python-statsd: at that time, fractions allowed
//! disk.free:12.5|kv                statsite: at the time of arrival
//! ```
//!
//! No sample of this type reaches a table, so there is nothing to aggregate. Its names do, and those of other values
//! that are stored by themselves: they count towards the limits, and are dropped when they are idle.

use std::io::{self, Write};

use super::contract::{Facts, IDLE, Interval, Lines, PointLines, Setup, Type};
use super::registry::Series;
use super::saved::{Content, Head};
use crate::cell::Cell;
use crate::kind::Kind;
use crate::metric::{Number, Reject, Sample};

pub(super) const KIND: Facts = Facts {
    stores_each: true,
    time_follows: Some("r"),
    ..Facts::numbers(Kind::Raw, &["r", "kv"], b'r')
};

pub(super) fn sample(number: Number) -> Result<Sample, Reject> {
    Ok(Sample {
        value: number.value,
        weight: number.weight,
        is_relative: false,
    })
}

#[inline(always)]
pub(super) fn add(_cell: &mut Cell<'_>, _sample: Sample) {}

pub(super) struct Raw;

impl Raw {
    pub(super) fn new(_setup: &Setup<'_>) -> Self {
        Self
    }
}

impl Type for Raw {
    fn repeats_idle(&self) -> bool {
        false
    }

    fn flush(&self, _series: &Series, _interval: &mut Interval<'_>, _lines: &mut Lines<'_>) {}

    fn flush_point(&self, value: f64, lines: &mut PointLines<'_>) {
        lines.put_bare(value);
    }

    fn end_interval(&self, _series: &mut Series, idle: u8) -> bool {
        idle >= IDLE
    }

    fn save(
        &self,
        _out: &mut dyn Write,
        _head: &Head<'_>,
        _series: &Series,
        _content: &Content<'_>,
    ) -> io::Result<u64> {
        Ok(0)
    }
}
