//! The contract of a statsd type: its facts, and what it does at the flush.
//!
//! Each type has a file in this directory, with four things in it that [`kinds`](super::kinds)
//! looks for: `KIND`, the facts; `sample`, which accepts a number; `add`, which changes a cell; and
//! a struct with the options that matter to the type, which implements [`Type`].

use std::io::{self, Write};

use hashbrown::HashMap;

use super::registry::{NameOf, Series, State};
use super::samples::{Grouped, RunningSums, SampleBuffer};
use super::saved::{Content, Head, Saved};
use crate::cell::{Carry, Value};
use crate::inspect::Shown;
use crate::kind::Kind;
use crate::naming::{Line, Naming, Section};
use crate::options::Options;
use crate::output::Outputs;

/// Flushes without samples after which an idle series that is to be deleted is dropped.
pub(super) const IDLE: u8 = 8;

/// The facts of a type, which no option changes.
pub(crate) struct Facts {
    pub(crate) kind: Kind,
    /// What follows the bar: `c`. A letter of an earlier type becomes that of a later one.
    pub(crate) letters: &'static [&'static str],
    /// Whether the letters mean this type under these options.
    pub(crate) is_enabled: fn(&Options) -> bool,
    /// Values are text rather than numbers.
    pub(crate) takes_text: bool,
    /// A value with DogStatsD's `|T` timestamp is stored at its time.
    pub(crate) takes_timestamps: bool,
    /// Every value is stored by itself.
    pub(crate) stores_each: bool,
    /// The letter after which the next field is a time.
    pub(crate) time_follows: Option<&'static str>,
    /// The number carries on from interval to interval.
    pub(crate) carries_on: bool,
    /// The letter of its lines in the saved state; a capital one for a series without samples.
    pub(crate) saved_as: u8,
    /// The letter of lines with a [`SampleBuffer`] in the saved state.
    pub(crate) buffer_saved_as: Option<u8>,
    /// Its table on the management interface, which `del` before it deletes from.
    pub(crate) table: Option<&'static str>,
}

impl Facts {
    /// A type that takes numbers and has nothing special.
    pub(super) const fn numbers(
        kind: Kind,
        letters: &'static [&'static str],
        saved_as: u8,
    ) -> Self {
        Self {
            kind,
            letters,
            is_enabled: |_| true,
            takes_text: false,
            takes_timestamps: false,
            stores_each: false,
            time_follows: None,
            carries_on: false,
            saved_as,
            buffer_saved_as: None,
            table: None,
        }
    }
}

/// What types are made of.
pub(crate) struct Setup<'a> {
    pub(crate) options: &'a Options,
    pub(crate) naming: &'a Naming,
    /// Seconds in an interval.
    pub(crate) seconds: f64,
    pub(crate) carry: Carry,
}

/// What is known of the interval that is flushed, beside the series themselves.
pub(crate) struct Interval<'a> {
    /// Seconds that it has: more than usual if flushes were missed.
    pub(crate) seconds: f64,
    pub(crate) grouped: Grouped,
    /// Members by series, if a console wants them.
    pub(crate) members: HashMap<u32, Vec<&'a [u8]>>,
    /// Room for the sums of one series.
    pub(crate) sums: RunningSums,
    /// Samples of a series up to which percentiles are exact.
    pub(crate) exact: usize,
}

/// The lines of one series on their way to the outputs.
pub(crate) struct Lines<'a> {
    pub(crate) outputs: &'a mut Outputs,
    /// Where the ids of the lines are kept, by their numbers.
    pub(crate) ids: &'a mut [u32],
    /// The number of the series.
    pub(crate) series: u32,
    pub(crate) name: NameOf<'a>,
    pub(crate) suffix: &'a [u8],
    pub(crate) not_finite: &'a mut u64,
}

impl Lines<'_> {
    /// Puts line number `at`, below [`Type::width`].
    #[inline(always)]
    pub(crate) fn put(
        &mut self,
        at: usize,
        section: Section,
        namespace: &[u8],
        stat: &[u8],
        value: f64,
    ) {
        // Nearly all lines: the store knows the name already, and no other output wants it.
        if let Some(id) = self.ids.get(at)
            && value.is_finite()
            && self.outputs.put_known(*id, value)
        {
            return;
        }
        self.put_named(at, section, [namespace, stat], value);
    }

    #[inline(never)]
    fn put_named(
        &mut self,
        at: usize,
        section: Section,
        [namespace, stat]: [&[u8]; 2],
        value: f64,
    ) {
        if !value.is_finite() {
            *self.not_finite += 1;
            return;
        }
        let line = Line {
            section,
            namespace,
            name: &self.name.get(),
            stat,
            suffix: self.suffix,
        };
        self.outputs.line(self.ids.get_mut(at), &line, value);
    }
}

/// The lines of a value that is stored at its own time.
pub(crate) struct PointLines<'a> {
    pub(crate) outputs: &'a mut Outputs,
    pub(crate) name: &'a [u8],
    pub(crate) suffix: &'a [u8],
    pub(crate) at: f64,
}

impl PointLines<'_> {
    /// Puts a line named as those of the flush.
    pub(crate) fn put(&mut self, namespace: &[u8], stat: &[u8], value: f64) {
        self.put_named(namespace, stat, self.suffix, value);
    }

    /// Puts a line under the bare name.
    pub(crate) fn put_bare(&mut self, value: f64) {
        self.put_named(b"", b"", b"", value);
    }

    fn put_named(&mut self, namespace: &[u8], stat: &[u8], suffix: &[u8], value: f64) {
        let line = Line {
            section: Section::Named("raw"),
            namespace,
            name: self.name,
            stat,
            suffix,
        };
        self.outputs.line_once(&line, value, self.at);
    }
}

/// What the running interval has of a series so far, for the management interface.
pub(crate) struct Recent<'a> {
    /// What receivers would report, and whether it replaces the number.
    pub(crate) added: Option<(f64, bool)>,
    /// The samples that the aggregator has already, those of a buffer first.
    pub(crate) buffer: Option<&'a SampleBuffer>,
    pub(crate) samples: &'a [f64],
    /// Those that receivers still have.
    pub(crate) more: &'a [f64],
}

impl Recent<'_> {
    /// Whether there were no samples.
    pub(crate) fn is_empty(&self) -> bool {
        self.added.is_none()
            && self.buffer.is_none()
            && self.samples.is_empty()
            && self.more.is_empty()
    }
}

/// A type under the options of a server.
pub(crate) trait Type {
    /// What a new series has beside its number. Of [`State::Samples`] the slot is filled in.
    fn state(&self) -> State {
        State::Nothing
    }

    /// Adds what a receiver reports at the end of an interval.
    fn merge(&self, series: &mut Series, value: &Value) {
        series.value += value.value;
    }

    /// Takes note of a member that is new in the interval.
    fn member_added(&self, _series: &mut Series) {}

    /// Whether a series that had no samples is flushed all the same.
    fn repeats_idle(&self) -> bool;

    /// How many lines a series of this name has at most.
    fn width(&self, _name: &[u8]) -> usize {
        1
    }

    /// Puts the lines of a series.
    fn flush(&self, series: &Series, interval: &mut Interval<'_>, lines: &mut Lines<'_>);

    /// Puts the lines of a value that is stored at its own time.
    fn flush_point(&self, _value: f64, _lines: &mut PointLines<'_>) {}

    /// Makes a series ready for the next interval after `idle` flushes without samples; returns
    /// whether it is to be dropped.
    fn end_interval(&self, series: &mut Series, idle: u8) -> bool;

    /// Writes the line of a series for the saved state, which begins with `head` and the number.
    ///
    /// # Errors
    /// `out` cannot be written to.
    fn save(
        &self,
        out: &mut dyn Write,
        head: &Head<'_>,
        series: &Series,
        _content: &Content<'_>,
    ) -> io::Result<u64> {
        head.write(out, series.value)?;
        out.write_all(b"\n")?;
        Ok(1)
    }

    /// Reads what follows the number in a saved line of this letter; `None` if it is damaged.
    fn restore(&self, _letter: u8, _words: &mut dyn Iterator<Item = &str>) -> Option<Saved> {
        Some(Saved::default())
    }

    /// What a table of the management interface shows of a series.
    fn shown(&self, series: &Series, recent: &Recent<'_>) -> Shown {
        Shown::Number(series.value + recent.added.map_or(0.0, |(added, _)| added))
    }
}
