//! Flushes on standard output, as the reference's console backend prints them.
//!
//! 1. The object has the reference's members in its order: `counters`, `timers` (the samples),
//!    `gauges`, `timer_data`, `counter_rates`, `sets` (the members), `pctThreshold`; then
//!    `averages`, `raw` and others that are ours, if there are any, in alphabetical order.
//! 2. Printed plainly it ends two levels down, so that a histogram is `[Object]`; prettily it has
//!    all levels, and colours.
//! 3. A thread prints, and one flush may wait for it. A reader of standard output that is slower
//!    than the flushes misses some, which are counted; it holds up neither the flushes nor, beyond
//!    [`LAST`], the stop.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use tracing::warn;

use crate::death::{Deaths, Threads};
use crate::inspect::{PLAIN, Shown, Style};
use crate::naming::{Line, Section};
use crate::number;
use crate::report::Shared;

/// For how long flushes may be printed after the stop.
const LAST: Duration = Duration::from_secs(1);

const PRETTY: Style = Style {
    depth: 5,
    is_coloured: true,
};

type Fields = Vec<(String, Shown)>;

/// The flush that is being put together.
#[derive(Debug)]
pub(crate) struct Console {
    is_pretty: bool,
    thresholds: Vec<f64>,
    counters: Fields,
    timers: Fields,
    gauges: Fields,
    timer_data: Fields,
    rates: Fields,
    sets: Fields,
    /// Sections that the reference does not have, by name.
    own: BTreeMap<&'static str, Fields>,
    printer: Printer,
}

impl Console {
    /// The output, with its thread started.
    ///
    /// # Errors
    /// The thread does not start, or there is no descriptor for standard output.
    pub(crate) fn start(
        is_pretty: bool,
        thresholds: &[f64],
        shared: Arc<Shared>,
        deaths: &Deaths,
    ) -> io::Result<Self> {
        // Not by way of `std::io::stdout`, whose lock would be held while the reader does not read.
        let to = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self {
            is_pretty,
            thresholds: thresholds.to_vec(),
            counters: Fields::new(),
            timers: Fields::new(),
            gauges: Fields::new(),
            timer_data: Fields::new(),
            rates: Fields::new(),
            sets: Fields::new(),
            own: BTreeMap::new(),
            printer: Printer::start(to, shared, deaths)?,
        })
    }

    pub(crate) fn counter(&mut self, name: &[u8], count: f64, rate: f64) {
        self.counters.push((text(name), Shown::Number(count)));
        self.rates.push((text(name), Shown::Number(rate)));
    }

    pub(crate) fn gauge(&mut self, name: &[u8], value: f64) {
        self.gauges.push((text(name), Shown::Number(value)));
    }

    pub(crate) fn set(&mut self, name: &[u8], mut members: Vec<&[u8]>) {
        members.sort_unstable();
        let members = members.into_iter().map(|member| Shown::Text(text(member)));
        self.sets
            .push((text(name), Shown::List(members.collect(), 0)));
    }

    /// A timer, whose statistics follow as lines.
    pub(crate) fn timer(&mut self, name: &[u8]) {
        self.timer_data
            .push((text(name), Shown::Object(Vec::new())));
    }

    /// The samples of a timer: the first, and how many there are beyond them.
    pub(crate) fn samples(&mut self, name: &[u8], samples: &[f64], more: usize) {
        let samples = samples.iter().copied().map(Shown::Number).collect();
        self.timers.push((text(name), Shown::List(samples, more)));
    }

    pub(super) fn line(&mut self, line: &Line<'_>, value: f64) {
        let value = Shown::Number(value);
        match line.section {
            Section::Statistic => {
                let Some((_, Shown::Object(stats))) = self.timer_data.last_mut() else {
                    return;
                };
                let stat = text(line.stat.strip_prefix(b".").unwrap_or(line.stat));
                match stat.split_once('.') {
                    None => stats.push((stat, value)),
                    Some((part, bin)) => match stats.last_mut() {
                        Some((last, Shown::Object(bins))) if last == part => {
                            bins.push((bin.to_owned(), value));
                        }
                        _ => {
                            let bins = vec![(bin.to_owned(), value)];
                            stats.push((part.to_owned(), Shown::Object(bins)));
                        }
                    },
                }
            }
            Section::Named(section) => {
                let own = self.own.entry(section).or_default();
                own.push((text(line.name), value));
            }
            Section::Elsewhere => {}
        }
    }

    pub(super) fn flush(&mut self, at: f64) {
        let text = self.report(at);
        self.printer.print(text);
    }

    fn report(&mut self, at: f64) -> String {
        let thresholds = self.thresholds.iter().copied().map(Shown::Number);
        let mut fields = Fields::new();
        for (name, members) in [
            ("counters", &mut self.counters),
            ("timers", &mut self.timers),
            ("gauges", &mut self.gauges),
            ("timer_data", &mut self.timer_data),
            ("counter_rates", &mut self.rates),
            ("sets", &mut self.sets),
        ] {
            fields.push((name.to_owned(), Shown::object(std::mem::take(members))));
        }
        let thresholds = Shown::List(thresholds.collect(), 0);
        fields.push(("pctThreshold".to_owned(), thresholds));
        for (name, members) in std::mem::take(&mut self.own) {
            fields.push((name.to_owned(), Shown::object(members)));
        }
        let style = if self.is_pretty { PRETTY } else { PLAIN };
        let shown = Shown::Object(fields).text(style);
        format!("Flushing stats at {}\n{shown}\n", number::text(at))
    }
}

/// The thread that prints, and the flush that waits for it.
#[derive(Debug)]
struct Printer {
    /// `None` at the end.
    reports: Option<Sender<String>>,
    thread: Threads,
    shared: Arc<Shared>,
    /// Whether the last flush was dropped.
    is_behind: bool,
}

impl Printer {
    fn start(to: File, shared: Arc<Shared>, deaths: &Deaths) -> io::Result<Self> {
        let (reports, waiting) = channel::bounded(1);
        let mut thread = Threads::new(deaths);
        let counted = shared.clone();
        thread.spawn("statsd-console", move || print(to, waiting, &counted))?;
        Ok(Self {
            reports: Some(reports),
            thread,
            shared,
            is_behind: false,
        })
    }

    fn print(&mut self, report: String) {
        let reports = self.reports.as_ref();
        let is_taken = reports.is_some_and(|reports| reports.try_send(report).is_ok());
        if !is_taken {
            self.shared.stats.console_dropped.add(1);
            if !self.is_behind {
                warn!("output console: standard output is not read; flushes are dropped");
            }
        }
        self.is_behind = !is_taken;
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.reports = None;
        if !self.thread.join_within(LAST) {
            warn!("output console: standard output is not read; the last flushes are not printed");
        }
    }
}

/// Prints `reports` until no more come.
fn print(mut to: File, reports: Receiver<String>, shared: &Shared) {
    for report in reports {
        // The reader may have gone, which must not stop the server.
        if to.write_all(report.as_bytes()).is_err() {
            shared.stats.console_dropped.add(1);
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
