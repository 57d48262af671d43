//! Which retentions and which aggregation a new file gets.
//!
//! The built-in schema is made for statsd: the finest step is never longer than the flush
//! interval, because a file coarser than that keeps only the last of several flushes and loses
//! counts; and what is summed up over time is chosen by what the name says the number is.

use whisper::{Aggregation, Allocation, CreateOptions, Retention};

use crate::options::Span;

/// How long the finest archive is: six hours.
const FINEST_SECONDS: u32 = 6 * 3_600;

/// Files up to this long get all their disk space when they are made. Longer ones are sparse: with
/// the built-in retentions a file is 3.3 MB, of which a new series needs three blocks, and reserving
/// the rest takes milliseconds per file and fills the disk for years ahead.
pub const RESERVE_UP_TO: u64 = 256 << 10;

/// The schema.
#[derive(Clone, Debug)]
pub struct Schema {
    retentions: Vec<Retention>,
    flush_seconds: u64,
}

impl Schema {
    /// The built-in schema: the smaller of 10 s and `flush_interval` for 6 hours, `1m:7d,10m:5y`.
    ///
    /// Steps divide each other, so an interval that does not divide a minute gets the next
    /// shorter step that does.
    pub fn built_in(flush_interval: Span) -> Self {
        let flush_seconds = flush_interval.0.as_secs().max(1);
        let step = (1..=flush_seconds.min(10) as u32)
            .rev()
            .find(|step| 60 % step == 0)
            .unwrap_or(1);
        let archives = [
            (step, FINEST_SECONDS / step),
            (60, 7 * 24 * 60),
            (600, 5 * 365 * 24 * 6),
        ];
        let retentions = archives
            .into_iter()
            .filter_map(|(step, points)| Retention::new(step, points))
            .collect();
        Self::new(retentions, flush_interval)
    }

    /// A schema that gives every new file `retentions`.
    pub fn new(retentions: Vec<Retention>, flush_interval: Span) -> Self {
        Self {
            retentions,
            flush_seconds: flush_interval.0.as_secs().max(1),
        }
    }

    /// What the file of the series called `name` is created with.
    pub fn create_options(&self, name: &str) -> CreateOptions {
        CreateOptions {
            retentions: self.retentions.clone(),
            x_files_factor: 0.0,
            aggregation: aggregation(name),
            allocation: self.allocation(),
        }
    }

    fn allocation(&self) -> Allocation {
        let points: u64 = self.retentions.iter().map(|r| u64::from(r.points)).sum();
        if points * 12 <= RESERVE_UP_TO {
            Allocation::Reserved
        } else {
            Allocation::Sparse
        }
    }

    /// For how many seconds new files keep points.
    pub fn longest_retention(&self) -> u32 {
        let longest = self.retentions.iter().map(|retention| retention.seconds());
        longest.max().unwrap_or(0) as u32
    }

    /// A warning when points come more often than the finest step, of which only the last in each
    /// step is kept. The built-in schema never needs one.
    pub fn warning(&self) -> Option<String> {
        let finest = self.retentions.iter().map(|r| r.step.seconds()).min()?;
        (u64::from(finest) > self.flush_seconds).then(|| {
            format!(
                "the finest step of {finest} s is longer than the flush interval of {} s: \
                 of several flushes in one step only the last is kept",
                self.flush_seconds
            )
        })
    }
}

/// The built-in aggregation: sum for counts, max for upper, min for lower, last for gauges, else
/// average. Looks at the last node (with or without a percentile, `upper_90`) and at the
/// namespaces of statsd; the tags of a tagged name are not looked at.
pub fn aggregation(name: &str) -> Aggregation {
    let plain = name.split(';').next().unwrap_or(name);
    let last = plain.rsplit('.').next().unwrap_or(plain);
    // `upper_90`, `count_99_9`, `sum_top10`: the percentile is no part of what is measured.
    let kind = last
        .split_once('_')
        .filter(|(_, rest)| {
            rest.trim_start_matches("top")
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'_')
        })
        .map_or(last, |(kind, _)| kind);
    let in_namespace = |namespace: &str| {
        plain.starts_with(&format!("{namespace}."))
            || plain.starts_with(&format!("stats.{namespace}."))
    };
    if plain.starts_with("stats_counts.") {
        return Aggregation::Sum;
    }
    match kind {
        "count" | "sum" => Aggregation::Sum,
        "upper" | "max" => Aggregation::Max,
        "lower" | "min" => Aggregation::Min,
        _ if in_namespace("gauges") => Aggregation::Last,
        _ => Aggregation::Average,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whisper::Header;

    #[test]
    fn names_say_how_they_aggregate() {
        for (name, expected) in [
            ("stats_counts.logins", Aggregation::Sum),
            ("stats.counters.logins.count", Aggregation::Sum),
            ("stats.counters.logins.rate", Aggregation::Average),
            ("stats.logins", Aggregation::Average),
            ("stats.timers.render.count_90", Aggregation::Sum),
            ("stats.timers.render.sum", Aggregation::Sum),
            ("stats.timers.render.upper", Aggregation::Max),
            ("stats.timers.render.upper_99_9", Aggregation::Max),
            ("stats.timers.render.upper_top10", Aggregation::Max),
            ("stats.timers.render.lower", Aggregation::Min),
            ("stats.timers.render.mean_90", Aggregation::Average),
            ("stats.gauges.users", Aggregation::Last),
            ("stats.gauges.queue.upper", Aggregation::Max),
            ("disk.used;host=a", Aggregation::Average),
            ("requests.count;host=a", Aggregation::Sum),
            ("web.count_down", Aggregation::Average),
        ] {
            assert_eq!(aggregation(name), expected, "{name}");
        }
    }

    #[test]
    fn no_flush_falls_into_the_step_of_another() {
        for (flush, step) in [(10, 10), (60, 10), (5, 5), (7, 6), (1, 1), (0, 1)] {
            let schema = Schema::built_in(Span::seconds(flush));
            let options = schema.create_options("a");
            let header = Header::new(&options.retentions, 0.0, options.aggregation).unwrap();
            assert_eq!(header.archives()[0].step.seconds(), step);
            assert_eq!(header.archives()[0].retention(), 6 * 3_600);
            assert_eq!(schema.warning(), None);
        }
        let minutes = vec![Retention::new(60, 60).unwrap()];
        let warning = Schema::new(minutes, Span::seconds(10)).warning().unwrap();
        assert!(warning.contains("60 s") && warning.contains("10 s"));
    }
}
