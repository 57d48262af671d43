//! Rule files that act on received names (`crate::rules`): opening them, their thread, and the sink of
//! StatsD.

use std::sync::Arc;
use std::time::Duration;

use super::carbon::Carbon;
use super::inner::Inner;
use crate::conf::{Files, Problem};
use crate::datapoint::{Datapoint, NameError, SeriesId, Sink};
use crate::error::{Error, Result};
use crate::options::{Options, Span};
use crate::rules::aggregate::Limits;
use crate::rules::{Around, Rules, Sources};

/// How often the thread looks for changed rules and for aggregates that are due.
const TICK: Duration = Duration::from_millis(250);

/// Reads the files that `options` names and adds them to `files`; `None` if it names none.
///
/// # Errors
/// Everything that makes a file unusable.
pub(crate) fn open(
    options: &Options,
    files: &mut Files,
) -> std::result::Result<Option<Rules>, Vec<Problem>> {
    let limit = |limit: u64| match limit {
        0 => usize::MAX,
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    let sources = Sources {
        allow: &options.allow,
        deny: &options.deny,
        rewrite_rules: &options.rewrite_rules,
        aggregation_rules: &options.aggregation_rules,
        forward: options.aggregation_forward_all,
        limits: Limits {
            outputs: limit(options.aggregation_max_series),
            intervals: limit(options.aggregation_max_buckets),
            late: options.aggregation_late_intervals,
        },
    };
    Rules::open(&sources, files)
}

/// The thread of the rules.
pub(crate) fn run(inner: &Inner) {
    while !inner.stop.is_set() {
        inner.stop.pause(TICK);
        inner.with_rules(Rules::tick);
    }
}

impl Inner {
    fn with_rules(&self, work: impl FnOnce(&Rules, &Around<'_>)) {
        if let Some(rules) = &self.rules {
            let around = Around {
                index: &self.index,
                stats: &self.stats,
                now: (self.clock)(),
                submit: &|points| self.submit(points),
                set_step: &|series, seconds| self.schema.known.set(series, seconds),
            };
            work(rules, &around);
        }
    }

    /// Goes on with the aggregates of the last run: no receiver has begun.
    ///
    /// # Errors
    /// Their file cannot be read.
    pub(crate) fn restore_aggregates(&self) -> Result<()> {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        let path = self.data.join("aggregates");
        let synced = self.journal.is_some();
        rules
            .restore(&path, synced, (self.clock)())
            .map_err(|error| Error::io(&path, "reading the saved aggregates", error))
    }

    /// Stores what aggregates hold: the receivers have ended.
    pub(crate) fn finish_rules(&self) {
        self.with_rules(Rules::finish);
    }
}

impl Carbon {
    /// Where StatsD puts its values: the store, behind the rules if any are configured.
    /// Its series come every `interval`.
    pub fn ruled_sink(&self, interval: Span) -> Arc<dyn Sink> {
        match &self.0.rules {
            None => Arc::new(self.every(interval)),
            Some(rules) => Arc::new(RuledSink {
                carbon: self.clone(),
                rules: Arc::clone(rules),
                seconds: u32::try_from(interval.0.as_secs().max(1)).unwrap_or(u32::MAX),
            }),
        }
    }
}

/// The sink for a program that keeps ids (`crate::rules::lent`).
struct RuledSink {
    carbon: Carbon,
    rules: Arc<Rules>,
    /// How often its series have points.
    seconds: u32,
}

impl Sink for RuledSink {
    fn intern(&self, name: &[u8]) -> std::result::Result<SeriesId, NameError> {
        let stats = self.carbon.stats();
        let lent = self.rules.lend(name, self.carbon.index(), stats);
        if let Err(reason @ NameError::Limit(_)) = lent {
            stats.count_refusal(reason);
        }
        if let Ok(number) = lent
            && let Some(series) = self.rules.series_of(number)
        {
            self.carbon.0.schema.known.set(series, self.seconds);
        }
        lent
    }

    fn release(&self, ids: &[SeriesId]) {
        self.rules.take_back(ids, self.carbon.index());
    }

    fn submit(&self, points: &[Datapoint]) {
        // The series may be released while the points are on their way: the pin keeps their names.
        let _pin = self.carbon.index().pin();
        let (_, stored) = self.rules.stored(points);
        let (now, stats) = (self.carbon.now(), self.carbon.stats());
        self.rules.account(points, now, stats);
        self.carbon.submit(&stored);
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        let _pin = self.carbon.index().pin();
        let (places, stored) = self.rules.stored(points);
        let taken = self.carbon.try_submit(&stored);
        let end = places.get(taken).copied().unwrap_or(points.len());
        let (now, stats) = (self.carbon.now(), self.carbon.stats());
        self.rules.account(&points[..end], now, stats);
        end
    }
}
