//! What the types share that keep every sample until the flush: timers, distributions, averages.
//!
//! Such a series has a number, the sum of the weights of its samples if the type counts them, and beside it
//! the slot of its samples. Each type has its own [`Statistics`]; the end of an interval and the lines of the
//! saved state are the same for all.

use std::io::{self, Write};

use super::contract::{Facts, IDLE, Interval, Lines, Recent, Setup, Type};
use super::registry::{Series, State};
use super::samples::NO_SLOT;
use super::saved::{self, Content, Head, Saved};
use crate::inspect::Shown;

/// What differs between these types.
pub(super) trait Statistics {
    /// The type's facts.
    const FACTS: Facts;

    /// The statistics under the options of a server.
    fn new(setup: &Setup<'_>) -> Self;

    /// Reads a sample of the saved state; `None` if the type has no such sample.
    fn saved_sample(word: &str) -> Option<f64> {
        saved::not_negative(word)
    }

    /// Whether a series without samples is flushed, if idle series are kept.
    const REPEATS_IDLE: bool = false;

    /// [`Type::width`].
    fn width(&self, _name: &[u8]) -> usize {
        1
    }

    /// [`Type::flush`].
    fn flush(&self, series: &Series, interval: &mut Interval<'_>, lines: &mut Lines<'_>);

    /// [`Type::shown`].
    fn shown(&self, series: &Series, recent: &Recent<'_>) -> Shown {
        Shown::Number(series.value + recent.added.map_or(0.0, |(added, _)| added))
    }
}

/// A type that keeps samples, with the statistics `S`.
pub(super) struct Sampled<S> {
    statistics: S,
    deletes_idle: bool,
}

impl<S: Statistics> Sampled<S> {
    pub(super) fn new(setup: &Setup<'_>) -> Self {
        let options = setup.options;
        Self {
            statistics: S::new(setup),
            deletes_idle: options.delete_timers.or(options.delete_idle_stats),
        }
    }
}

impl<S: Statistics> Type for Sampled<S> {
    fn state(&self) -> State {
        State::Samples(NO_SLOT)
    }

    fn repeats_idle(&self) -> bool {
        S::REPEATS_IDLE && !self.deletes_idle
    }

    fn width(&self, name: &[u8]) -> usize {
        self.statistics.width(name)
    }

    #[inline]
    fn flush(&self, series: &Series, interval: &mut Interval<'_>, lines: &mut Lines<'_>) {
        self.statistics.flush(series, interval, lines);
    }

    fn end_interval(&self, series: &mut Series, idle: u8) -> bool {
        series.value = 0.0;
        self.deletes_idle && idle >= IDLE
    }

    fn save(
        &self,
        out: &mut dyn Write,
        head: &Head<'_>,
        series: &Series,
        content: &Content<'_>,
    ) -> io::Result<u64> {
        saved::save(out, head, S::FACTS.buffer_saved_as, series.value, content)
    }

    fn restore(&self, letter: u8, words: &mut dyn Iterator<Item = &str>) -> Option<Saved> {
        let is_buffer = Some(letter) == S::FACTS.buffer_saved_as;
        saved::restore(is_buffer, words, S::saved_sample)
    }

    fn shown(&self, series: &Series, recent: &Recent<'_>) -> Shown {
        self.statistics.shown(series, recent)
    }
}
