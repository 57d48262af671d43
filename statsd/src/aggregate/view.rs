//! The running interval, as the management interface shows it.

use hashbrown::HashMap;

use super::Aggregator;
use super::contract::Recent;
use super::registry::Series;
use super::samples::{NO_SLOT, SampleLog};
use crate::inspect::Shown;
use crate::kind::Kind;
use crate::report::Peek;

impl Aggregator {
    /// The table of a type: names with what they have now, the `peeks` of receivers included.
    pub(crate) fn table(
        &mut self,
        epoch: u64,
        kind: Kind,
        peeks: &[Option<Peek>],
    ) -> Vec<(String, Shown)> {
        let mut table = Vec::new();
        self.each_in_table(epoch, kind, peeks, |aggregator, (_, series), recent| {
            let shown = aggregator.types.of(kind).shown(series, recent);
            table.push((aggregator.shown_name(series), shown));
        });
        table
    }

    /// The numbers and names in the table of a type.
    pub(crate) fn names(
        &mut self,
        epoch: u64,
        kind: Kind,
        peeks: &[Option<Peek>],
    ) -> Vec<(u32, String)> {
        let mut names = Vec::new();
        self.each_in_table(epoch, kind, peeks, |aggregator, (number, series), _| {
            names.push((number, aggregator.shown_name(series)));
        });
        names
    }

    fn shown_name(&self, series: &Series) -> String {
        String::from_utf8_lossy(&self.registry.name(series)).into_owned()
    }

    /// Calls `each` with every series in the table of a type, and what it has now.
    fn each_in_table(
        &mut self,
        epoch: u64,
        kind: Kind,
        peeks: &[Option<Peek>],
        mut each: impl FnMut(&Self, (u32, &Series), &Recent<'_>),
    ) {
        let added = self.added(peeks);
        let more = self.recent_samples(peeks).group(self.slots.count as usize);
        let log = (epoch & 1) as usize;
        let grouped = self.samples[log].group(self.slots.count as usize);
        let repeats_idle = self.types.repeats_idle(kind);
        for (number, series) in self.registry.live() {
            if series.kind() != kind {
                continue;
            }
            let (samples, buffer) = grouped.of(series.slot());
            let recent = Recent {
                added: added.get(&number).copied(),
                buffer,
                samples,
                more: more.of(series.slot()).0,
            };
            // Where series are deleted at the flush, those without samples since are gone.
            if !repeats_idle && recent.is_empty() && !self.is_held(number) {
                continue;
            }
            each(self, (number, series), &recent);
        }
        self.samples[log].put_back(grouped);
    }

    /// By series: what receivers would report, and whether that replaces the number.
    fn added(&self, peeks: &[Option<Peek>]) -> HashMap<u32, (f64, bool)> {
        let mut added: HashMap<u32, (f64, bool)> = HashMap::new();
        let mut own = [0.0; 3];
        for (receiver, peek) in peeks.iter().enumerate() {
            let Some(Peek { values, counts, .. }) = peek else {
                continue;
            };
            let counts = [counts.packets, counts.lines, counts.bad];
            for (sum, count) in own.iter_mut().zip(counts) {
                *sum += count as f64;
            }
            for value in values {
                let Some(series) = self.series_of(receiver, value.entry) else {
                    continue;
                };
                let now = added.entry(series).or_default();
                if value.is_absolute {
                    *now = (value.value, true);
                } else {
                    now.0 += value.value;
                }
            }
        }
        for (series, count) in self.own_series.all().into_iter().zip(own) {
            added.entry(series).or_default().0 += count;
        }
        added
    }

    /// Samples that receivers have not reported yet.
    fn recent_samples(&self, peeks: &[Option<Peek>]) -> SampleLog {
        let mut recent = SampleLog::default();
        for (receiver, peek) in peeks.iter().enumerate() {
            let Some(Peek { samples, .. }) = peek else {
                continue;
            };
            for (entry, value) in samples.entries.iter().zip(&samples.values) {
                if let Some(series) = self.series_of(receiver, *entry) {
                    let slot = self.registry.get(series).slot();
                    if slot != NO_SLOT {
                        recent.push(slot, *value);
                    }
                }
            }
        }
        recent
    }
}
