//! Flushes on standard output, as an object in JavaScript's notation.
//!
//! The object has the reference's members that have a value after aggregation: `counters`,
//! `counter_rates`, `gauges`, `sets`, `timer_data`, and what is ours. Raw samples are not kept.

use std::io::Write as _;

use crate::inspect::Shown;
use crate::naming::{Group, Line};
use crate::number;

/// Lines of the flush, by group.
#[derive(Debug)]
pub(super) struct Console {
    is_pretty: bool,
    groups: Vec<(Group, Vec<(String, Shown)>)>,
}

impl Console {
    pub(super) fn new(is_pretty: bool) -> Self {
        Self {
            is_pretty,
            groups: Vec::new(),
        }
    }

    pub(super) fn line(&mut self, line: &Line<'_>, value: f64) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let at = match self
            .groups
            .iter()
            .position(|(known, _)| *known == line.group)
        {
            Some(at) => at,
            None => {
                self.groups.push((line.group, Vec::new()));
                self.groups.len() - 1
            }
        };
        let fields = &mut self.groups[at].1;
        let name = text(line.name);
        let value = Shown::Number(value);
        if line.group != Group::Timers {
            fields.push((name, value));
            return;
        }
        let stat = text(line.stat.strip_prefix(b".").unwrap_or(line.stat));
        match fields.last_mut() {
            Some((last, Shown::Object(stats))) if *last == name => stats.push((stat, value)),
            _ => fields.push((name, Shown::Object(vec![(stat, value)]))),
        }
    }

    pub(super) fn flush(&mut self, at: f64) {
        let mut groups = std::mem::take(&mut self.groups);
        groups.sort_by_key(|(group, _)| *group);
        let object = Shown::Object(
            groups
                .into_iter()
                .map(|(group, fields)| (group.name().to_owned(), Shown::Object(fields)))
                .collect(),
        );
        let mut text = object.text();
        if !self.is_pretty {
            text = text
                .split('\n')
                .map(str::trim_start)
                .collect::<Vec<_>>()
                .join(" ");
        }
        let text = format!("Flushing stats at {}\n{text}\n", number::text(at));
        // Nobody may be reading any more, which is no reason to stop serving.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }
}
