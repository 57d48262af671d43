//! Gauges: the last value, or a sum of differences.
//!
//! ```text
//! queue.depth:320|g      sets        queue.depth:+10|g, queue.depth:-10|g     add
//! queue.depth: -5|g      sets -5: a blank before the minus makes it part of the value
//! ```
//!
//! 1. A gauge goes on from interval to interval. With one receiver its cell has the running value;
//!    with several each reports what changed, and the aggregator has the value.
//! 2. Where gauges are deleted, one lives for `gauges_max_ttl` flushes after its last sample.

use super::contract::{Facts, Interval, Lines, PointLines, Recent, Setup, Type};
use super::registry::{Series, State};
use crate::cell::{Carry, Cell, Value};
use crate::inspect::Shown;
use crate::kind::Kind;
use crate::metric::{Number, Reject, Sample};
use crate::naming::Section;

pub(super) const KIND: Facts = Facts {
    takes_timestamps: true,
    carries_on: true,
    table: Some("gauges"),
    ..Facts::numbers(Kind::Gauge, &["g"], b'g')
};

#[inline]
pub(super) fn sample(number: Number) -> Result<Sample, Reject> {
    Ok(Sample {
        value: number.value,
        weight: number.weight,
        is_relative: number.is_signed,
    })
}

#[inline(always)]
pub(super) fn add(cell: &mut Cell<'_>, sample: Sample) {
    cell.carry_on();
    if sample.is_relative {
        cell.add(sample.value);
    } else {
        cell.set(sample.value);
    }
}

/// The number of a series is its value; beside it are the flushes that it lives on.
pub(super) struct Gauge {
    namespace: Vec<u8>,
    carry: Carry,
    deletes_idle: bool,
    max_ttl: u32,
}

impl Gauge {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        let options = setup.options;
        Self {
            namespace: setup.naming.gauge.clone(),
            carry: setup.carry,
            deletes_idle: options.delete_gauges.or(options.delete_idle_stats),
            max_ttl: options.gauges_max_ttl.max(1),
        }
    }
}

impl Type for Gauge {
    fn state(&self) -> State {
        State::FlushesLeft(0)
    }

    fn merge(&self, series: &mut Series, value: &Value) {
        if value.is_absolute || self.carry == Carry::Running {
            series.value = value.value;
        } else {
            series.value += value.value;
        }
        series.set_state(State::FlushesLeft(self.max_ttl));
    }

    fn repeats_idle(&self) -> bool {
        true
    }

    fn flush(&self, series: &Series, _interval: &mut Interval<'_>, lines: &mut Lines<'_>) {
        let name = lines.name;
        if let Some(console) = lines.outputs.console() {
            console.gauge(&name.get(), series.value);
        }
        lines.put(0, Section::Elsewhere, &self.namespace, b"", series.value);
    }

    fn flush_point(&self, value: f64, lines: &mut PointLines<'_>) {
        lines.put(&self.namespace, b"", value);
    }

    fn end_interval(&self, series: &mut Series, _idle: u8) -> bool {
        if !self.deletes_idle || series.is_lasting() {
            return false;
        }
        let State::FlushesLeft(left) = series.state() else {
            return false;
        };
        let left = left.saturating_sub(1);
        series.set_state(State::FlushesLeft(left));
        left == 0
    }

    fn shown(&self, series: &Series, recent: &Recent<'_>) -> Shown {
        Shown::Number(match recent.added {
            None => series.value,
            Some((value, is_absolute)) if is_absolute || self.carry == Carry::Running => value,
            Some((difference, _)) => series.value + difference,
        })
    }
}
