//! Self metrics, collected from the crates' counters: as Prometheus text, and as series in the store
//! under the names that carbon uses (`carbon.agents.HOST.*`).
//!
//! StatsD's self metrics are written at each flush instead, as in the reference.

use std::fmt::Write;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use carbon::{Datapoint, NameError, PointTime, SeriesId, Sink, Timestamp};
pub use settings::Reading;
use settings::Span;
use settings::options::{Checked, at_least};
use tracing::warn;

settings::options! {
    /// `[stats]`.
    #[derive(PartialEq, Eq)]
    pub struct StatsOptions {
        /// Keep the server's own counters as series (stats.statsd.*, carbon.agents.*) in its own store.
        own("self"): bool = true;
        /// How often the counters below carbon.agents are kept (carbon's CARBON_METRIC_INTERVAL).
        interval: Span = Span::seconds(60) => at_least(Span::seconds(1));
        /// The first node of their names (carbon's CARBON_METRIC_PREFIX).
        prefix: String = "carbon".to_owned() => check_prefix;
        /// What follows the name of the host: with "a" they are carbon.agents.HOST-a.*, as dashboards of
        /// carbon have it. Empty: carbon.agents.HOST.*.
        instance: String = String::new() => check_instance;
    }
}

/// Nodes of a series name.
fn check_prefix(prefix: &str, checked: &mut Checked<'_>) {
    if carbon::series::canonical(prefix.as_bytes()).is_err() || prefix.contains([';', '{']) {
        checked.say(format!("{prefix:?} cannot begin the name of a series"));
    }
}

/// A part of a node of a series name.
fn check_instance(instance: &str, checked: &mut Checked<'_>) {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ':');
    if let Some(other) = instance.chars().find(|c| !is_plain(*c)) {
        checked.say(format!(
            "{instance:?} cannot be a part of a series name: it has {other:?}"
        ));
    }
}

/// Where readings come from; called for each report.
pub type Readings = Arc<dyn Fn() -> Vec<Reading> + Send + Sync>;

/// Prometheus' text format, version 0.0.4.
pub fn prometheus(readings: &[Reading]) -> String {
    let mut out = String::new();
    let mut last = String::new();
    for reading in readings {
        let Reading {
            part,
            name,
            help,
            counts,
            value,
            label,
        } = reading;
        let mut full = format!("plumbago_{part}_{}", snake(name));
        if *counts && !full.ends_with("_total") {
            full.push_str("_total");
        }
        let kind = if *counts { "counter" } else { "gauge" };
        if full != last {
            let _ = writeln!(out, "# HELP {full} {help}\n# TYPE {full} {kind}");
        }
        let _ = match label {
            None => writeln!(out, "{full} {value}"),
            Some((kind, which)) => {
                writeln!(out, "{full}{{{kind}=\"{}\"}} {value}", escaped(which))
            }
        };
        last = full;
    }
    out
}

/// The value of a label.
fn escaped(which: &str) -> String {
    let mut out = String::new();
    for c in which.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
    out
}

/// `cache.avgUpdateTime` as `cache_avg_update_time`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() {
            if !out.is_empty() && !out.ends_with('_') {
                out.push('_');
            }
            out.push(c.to_ascii_lowercase());
        } else {
            out.push(if c.is_ascii_alphanumeric() { c } else { '_' });
        }
    }
    out
}

/// The machine's name as one node of a series name.
pub fn host() -> String {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    name.replace('.', "_")
}

/// `which` as one node of a series name.
fn node(which: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':');
    which.replace(|c| !plain(c), "_")
}

/// CPU time in seconds and resident memory in bytes of this process.
pub fn process() -> Vec<Reading> {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program is in brackets and may hold anything.
    let fields: Vec<f64> = stat
        .rsplit_once(") ")
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .map(|field| field.parse().unwrap_or_default())
        .collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or_default();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let page = rustix::param::page_size() as f64;
    vec![
        Reading {
            counts: true,
            ..Reading::level(
                "process",
                "cpu_seconds",
                "CPU time used, user and system. If it grows as fast as the clock, look at the traffic and the queries.",
                (field(11) + field(12)) / ticks,
            )
        },
        Reading::level(
            "process",
            "memory_bytes",
            "Resident memory, mapped files included. If it grows without end, look at the number of names and series.",
            field(21) * page,
        ),
    ]
}

/// Writes carbon's readings as series: counters as the difference to the last report, levels as
/// they are.
pub struct SelfSeries {
    sink: Arc<dyn Sink>,
    period: Duration,
    prefix: String,
    /// The last written value of each counter, and its series.
    last: Vec<(String, f64, SeriesId)>,
    written: Option<Timestamp>,
}

impl SelfSeries {
    /// Series below `PREFIX.agents.HOST.` in `sink`, or `PREFIX.agents.HOST-INSTANCE.`.
    pub fn new(sink: Arc<dyn Sink>, options: &StatsOptions) -> Self {
        let StatsOptions {
            own: _,
            interval,
            prefix,
            instance,
        } = options;
        let dash = if instance.is_empty() { "" } else { "-" };
        Self {
            sink,
            period: interval.0,
            prefix: format!("{prefix}.agents.{}{dash}{instance}.", host()),
            last: Vec::new(),
            written: None,
        }
    }

    /// How often a point of each is due.
    pub fn period(&self) -> Duration {
        self.period
    }

    /// Writes one point of each.
    pub fn write(&mut self, readings: &[Reading], now: Timestamp) {
        let mut points = Vec::new();
        let elapsed = self
            .written
            .map_or(1, |at| now.0.saturating_sub(at.0).max(1));
        self.written = Some(now);
        let at = PointTime::of_clock(now);
        let mut of = Means::default();
        for reading in readings {
            let name = match (reading.part, reading.name.as_str()) {
                ("carbon", name) => name,
                ("process", "cpu_seconds") => "cpuUsage",
                ("process", "memory_bytes") => "memUsage",
                _ => continue,
            };
            let labelled;
            let name = match &reading.label {
                None => name,
                Some((_, which)) => {
                    labelled = format!("{name}.{}", node(which));
                    &labelled
                }
            };
            let Some((last, series)) = self.known(name, reading.value) else {
                continue;
            };
            let mut value = reading.value;
            if reading.counts {
                value -= *last;
            }
            *last = reading.value;
            match name {
                // As in carbon: percent of one core.
                "cpuUsage" => value *= 100.0 / f64::from(elapsed),
                "committedPoints" => of.committed = value,
                "updateOperations" => of.updates = value,
                "updateNanoseconds" => of.nanoseconds = value,
                "cache.bulk_queries" => of.bulk_queries = value,
                "cache.bulk_query_series" => of.bulk_query_series = value,
                _ => {}
            }
            points.push(Datapoint { series, at, value });
        }
        for (name, value) in of.means() {
            if let Some((_, series)) = self.known(name, 0.0) {
                points.push(Datapoint { series, at, value });
            }
        }
        // A full cache must not block the reporter: a missing self metric is sufficient information.
        self.sink.try_submit(&points);
    }

    /// The last value of the reading called `name` (`value` at first sight) and its series;
    /// `None`, with a line in the log, if the store refuses the name.
    fn known(&mut self, name: &str, value: f64) -> Option<(&mut f64, SeriesId)> {
        let index = match self.last.iter().position(|(known, ..)| known == name) {
            Some(index) => index,
            None => {
                let full = format!("{}{name}", self.prefix);
                match self.sink.intern(full.as_bytes()) {
                    Ok(series) => self.last.push((name.to_owned(), value, series)),
                    // The store logs this itself. The next report tries again.
                    Err(NameError::Limit(_)) => return None,
                    Err(error) => {
                        warn!("the self metric {full} is not stored: {error}");
                        return None;
                    }
                }
                self.last.len() - 1
            }
        };
        let (_, last, series) = &mut self.last[index];
        Some((last, *series))
    }
}

/// What carbon reports as means over the interval, from the counters that they are made of.
#[derive(Default)]
struct Means {
    committed: f64,
    updates: f64,
    nanoseconds: f64,
    bulk_queries: f64,
    bulk_query_series: f64,
}

impl Means {
    /// The means that there are: as in carbon, only of something that has happened.
    fn means(&self) -> Vec<(&'static str, f64)> {
        let mut means = Vec::new();
        if self.updates > 0.0 {
            means.push(("pointsPerUpdate", self.committed / self.updates));
            means.push(("avgUpdateTime", self.nanoseconds / 1e9 / self.updates));
        }
        if self.bulk_queries > 0.0 {
            let size = self.bulk_query_series / self.bulk_queries;
            means.push(("cache.bulk_queries_average_size", size));
        }
        means
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn reading(part: &'static str, name: &str, counts: bool, value: f64) -> Reading {
        Reading {
            part,
            name: name.to_owned(),
            help: "What it is.",
            counts,
            value,
            label: None,
        }
    }

    #[test]
    fn what_is_counted_for_several_things_has_a_label_and_a_series_of_its_own() {
        let of = |which: &str, value| {
            reading("carbon", "rejects.prefix", true, value).labelled("prefix", which)
        };
        let readings = [of("app.web", 3.0), of("a\"b\\c", 4.0)];
        assert_eq!(
            prometheus(&readings),
            "# HELP plumbago_carbon_rejects_prefix_total What it is.\n\
             # TYPE plumbago_carbon_rejects_prefix_total counter\n\
             plumbago_carbon_rejects_prefix_total{prefix=\"app.web\"} 3\n\
             plumbago_carbon_rejects_prefix_total{prefix=\"a\\\"b\\\\c\"} 4\n"
        );
        let kept = Arc::new(Kept::default());
        SelfSeries::new(kept.clone(), &StatsOptions::default()).write(&readings, Timestamp(60));
        let names = &kept.0.lock().unwrap().0;
        assert!(names[0].ends_with(".rejects.prefix.app_web"), "{names:?}");
        assert!(names[1].ends_with(".rejects.prefix.a_b_c"), "{names:?}");
    }

    #[test]
    fn prometheus_text_has_help_type_and_value() {
        let text = prometheus(&[
            reading("carbon", "metricsReceived", true, 3.0),
            reading("carbon", "cache.size", false, 0.5),
        ]);
        assert_eq!(
            text,
            "# HELP plumbago_carbon_metrics_received_total What it is.\n\
             # TYPE plumbago_carbon_metrics_received_total counter\n\
             plumbago_carbon_metrics_received_total 3\n\
             # HELP plumbago_carbon_cache_size What it is.\n\
             # TYPE plumbago_carbon_cache_size gauge\n\
             plumbago_carbon_cache_size 0.5\n"
        );
    }

    #[test]
    fn this_process_has_memory_and_a_host_name_is_one_node() {
        let readings = process();
        assert!(readings.iter().all(|reading| reading.value >= 0.0));
        assert!(readings[1].value > 100_000.0);
        assert!(!host().contains('.'));
    }

    #[derive(Default)]
    struct Kept(Mutex<(Vec<String>, Vec<Datapoint>)>);

    impl Sink for Kept {
        fn intern(&self, name: &[u8]) -> Result<SeriesId, NameError> {
            let mut kept = self.0.lock().unwrap();
            kept.0.push(String::from_utf8(name.to_vec()).unwrap());
            Ok(SeriesId(kept.0.len() as u32 - 1))
        }

        fn submit(&self, points: &[Datapoint]) {
            self.0.lock().unwrap().1.extend_from_slice(points);
        }

        fn try_submit(&self, points: &[Datapoint]) -> usize {
            self.submit(points);
            points.len()
        }
    }

    #[test]
    fn counters_are_written_as_differences_and_levels_as_they_are() {
        let kept = Arc::new(Kept::default());
        let mut series = SelfSeries::new(kept.clone(), &StatsOptions::default());
        for (now, counted, level) in [(60, 10.0, 5.0), (120, 25.0, 4.0)] {
            let readings = [
                reading("carbon", "metricsReceived", true, counted),
                reading("carbon", "cache.size", false, level),
                reading("events", "created", true, 9.0),
            ];
            series.write(&readings, Timestamp(now));
        }
        let kept = kept.0.lock().unwrap();
        let values: Vec<f64> = kept.1.iter().map(|point| point.value).collect();
        assert_eq!(values, [0.0, 5.0, 15.0, 4.0]);
        assert!(kept.0[0].starts_with("carbon.agents.") && kept.0[0].ends_with(".metricsReceived"));
        assert_eq!(kept.0.len(), 2);
    }

    #[test]
    fn means_are_written_when_there_is_something_to_report() {
        let kept = Arc::new(Kept::default());
        let mut series = SelfSeries::new(
            kept.clone(),
            &StatsOptions {
                prefix: "x.y".to_owned(),
                instance: "b-1".to_owned(),
                ..StatsOptions::default()
            },
        );
        for (now, n) in [(60, 0.0), (120, 1.0), (180, 1.0)] {
            let readings = [
                reading("carbon", "committedPoints", true, 30.0 * n),
                reading("carbon", "updateOperations", true, 4.0 * n),
                reading("carbon", "updateNanoseconds", true, 8e9 * n),
                reading("carbon", "cache.bulk_queries", true, 2.0 * n),
                reading("carbon", "cache.bulk_query_series", true, 5.0 * n),
            ];
            series.write(&readings, Timestamp(now));
        }
        let kept = kept.0.lock().unwrap();
        let prefix = format!("x.y.agents.{}-b-1.", host());
        let means: Vec<(&str, f64)> = kept.1[5..13]
            .iter()
            .filter(|point| point.series.0 >= 5)
            .map(|point| {
                let name = &kept.0[point.series.0 as usize];
                (name.strip_prefix(&prefix).unwrap(), point.value)
            })
            .collect();
        let expected = [
            ("pointsPerUpdate", 7.5),
            ("avgUpdateTime", 2.0),
            ("cache.bulk_queries_average_size", 2.5),
        ];
        assert_eq!(means, expected);
        assert_eq!(kept.1.len(), 18, "none before and after");
    }
}
