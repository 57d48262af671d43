//! Reads Graphite's files of retentions and aggregation.

use std::collections::HashSet;
use std::path::Path;

use settings::Span;

use super::aggregation::Aggregations;
use super::retentions::Schemas;
use crate::conf::{Findings, Loaded, Missing, Problem, load};

/// Names as statsd's flushes make them, to find the rules that apply to them.
const FLUSHED: [&str; 7] = [
    "stats.counters.requests.count",
    "stats.counters.requests.rate",
    "stats_counts.requests",
    "stats.requests",
    "stats.timers.request.upper_90",
    "stats.timers.request.count",
    "stats.gauges.users",
];

/// Reads a storage-schemas.conf beside a statsd that flushes every `flush_seconds`: a rule that
/// applies to its series and is coarser is warned of.
pub(super) fn parse_schemas(text: &str, flush_seconds: u64, findings: &mut Findings) -> Schemas {
    let schemas = Schemas::parse(text, findings);
    let mut warned = HashSet::new();
    for rule in FLUSHED.iter().filter_map(|name| schemas.find(name)) {
        if u64::from(rule.finest()) > flush_seconds && warned.insert(rule.line) {
            let place = format!("[{}] retentions", rule.section);
            findings.warn(rule.line, place, coarse(rule.finest(), flush_seconds));
        }
    }
    schemas
}

/// Reads the file that `carbon.schemas` names, for a statsd that flushes every `flush_interval`.
///
/// # Errors
/// Everything that makes the file unusable.
pub fn load_schemas(path: &Path, flush_interval: Span) -> Result<Loaded<Schemas>, Vec<Problem>> {
    let flush_seconds = flush_interval.0.as_secs().max(1);
    load(path, Missing::Refused, |text, findings| {
        parse_schemas(text, flush_seconds, findings)
    })
}

/// Reads the file that `carbon.aggregation` names.
///
/// # Errors
/// Everything that makes the file unusable.
pub fn load_aggregations(path: &Path) -> Result<Loaded<Aggregations>, Vec<Problem>> {
    load(path, Missing::Empty, Aggregations::parse)
}

/// The warning about a finest step of `finest` seconds.
pub(super) fn coarse(finest: u32, flush_seconds: u64) -> String {
    format!(
        "the finest step of {finest} s is longer than the flush interval of {flush_seconds} s: \
         of several flushes in one step only the last is kept"
    )
}
