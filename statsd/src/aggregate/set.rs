//! Sets: distinct members are counted. A member is any text; an empty one is `0`.
//!
//! ```text
//! users:ann|s            stats.sets.users.count 1
//! ```

use std::io::{self, Write};

use super::contract::{Facts, IDLE, Interval, Lines, Setup, Type};
use super::registry::{Series, State};
use super::saved::{Content, Head, Saved};
use crate::cell::{Cell, Value};
use crate::kind::Kind;
use crate::metric::{Number, Reject, Sample};
use crate::naming::Section;

pub(super) const KIND: Facts = Facts {
    takes_text: true,
    ..Facts::numbers(Kind::Set, &["s"], b's')
};

pub(super) fn sample(_number: Number) -> Result<Sample, Reject> {
    Err(Reject::UnknownType)
}

#[inline(always)]
pub(super) fn add(cell: &mut Cell<'_>, _sample: Sample) {
    cell.keep_member();
}

/// Beside the number, which is not used, a series has the count of its members.
pub(super) struct Set {
    namespace: Vec<u8>,
    deletes_idle: bool,
}

impl Set {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        let options = setup.options;
        Self {
            namespace: setup.naming.set.clone(),
            deletes_idle: options.delete_sets.or(options.delete_idle_stats),
        }
    }
}

impl Type for Set {
    fn state(&self) -> State {
        State::Members(0)
    }

    fn merge(&self, _series: &mut Series, _value: &Value) {}

    fn member_added(&self, series: &mut Series) {
        if let State::Members(count) = series.state() {
            series.set_state(State::Members(count.saturating_add(1)));
        }
    }

    fn repeats_idle(&self) -> bool {
        !self.deletes_idle
    }

    fn flush(&self, series: &Series, interval: &mut Interval<'_>, lines: &mut Lines<'_>) {
        let (name, number) = (lines.name, lines.series);
        if let Some(console) = lines.outputs.console() {
            console.set(
                &name.get(),
                interval.members.remove(&number).unwrap_or_default(),
            );
        }
        if let State::Members(count) = series.state() {
            let count = f64::from(count);
            lines.put(0, Section::Elsewhere, &self.namespace, b".count", count);
        }
    }

    fn end_interval(&self, series: &mut Series, idle: u8) -> bool {
        series.set_state(State::Members(0));
        self.deletes_idle && idle >= IDLE
    }

    fn save(
        &self,
        out: &mut dyn Write,
        head: &Head<'_>,
        series: &Series,
        content: &Content<'_>,
    ) -> io::Result<u64> {
        head.write(out, series.value)?;
        for member in content.members {
            out.write_all(b" ")?;
            for byte in *member {
                write!(out, "{byte:02x}")?;
            }
        }
        out.write_all(b"\n")?;
        Ok(1)
    }

    fn restore(&self, _letter: u8, words: &mut dyn Iterator<Item = &str>) -> Option<Saved> {
        let member = |word: &str| {
            let byte = |at: usize| u8::from_str_radix(word.get(2 * at..2 * at + 2)?, 16).ok();
            (0..word.len() / 2).map(byte).collect::<Option<Vec<u8>>>()
        };
        Some(Saved {
            members: words.map(member).collect::<Option<_>>()?,
            ..Saved::default()
        })
    }
}
