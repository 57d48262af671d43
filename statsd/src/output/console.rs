//! Flushes on standard output, as the reference's console backend prints them.
//!
//! 1. The object has the reference's members in its order: `counters`, `timers` (the samples),
//!    `gauges`, `timer_data`, `counter_rates`, `sets` (the members), `pctThreshold`; then
//!    `averages`, `raw` and others that are ours, if there are any, in alphabetical order.
//! 2. Printed plainly it ends two levels down, so that a histogram is `[Object]`; prettily it has
//!    all levels, and colours.

use std::collections::BTreeMap;
use std::io::Write as _;

use crate::inspect::{PLAIN, Shown, Style};
use crate::naming::{Line, Section};
use crate::number;

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
}

impl Console {
    pub(crate) fn new(is_pretty: bool, thresholds: &[f64]) -> Self {
        Self {
            is_pretty,
            thresholds: thresholds.to_vec(),
            counters: Fields::new(),
            timers: Fields::new(),
            gauges: Fields::new(),
            timer_data: Fields::new(),
            rates: Fields::new(),
            sets: Fields::new(),
            own: BTreeMap::new(),
        }
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
        // The reader may have gone, which must not stop the server.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
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

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
