//! Every series for the saved state, and back.
//!
//! `state.rs` has the file, `saved.rs` its lines; each type writes and reads its own.

use std::io;

use hashbrown::HashMap;

use super::Aggregator;
use super::kinds::Types;
use super::registry::Series;
use super::samples::NO_SLOT;
use super::saved::{Content, Head, Saved};
use crate::cell::Value;
use crate::kind::Kind;

impl Aggregator {
    /// Calls `each` with every series that is not dropped, for saving; the samples of the interval
    /// `epoch` are gone afterwards.
    ///
    /// # Errors
    /// That of `each`.
    pub(crate) fn for_each_saved(
        &mut self,
        epoch: u64,
        mut each: impl FnMut(&SavedSeries<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        let slots = self.slots.count as usize;
        let grouped = self.samples[(epoch & 1) as usize].group(slots);
        let mut members: HashMap<u32, Vec<&[u8]>> = HashMap::new();
        for (series, member) in &self.members {
            members.entry(*series).or_default().push(member);
        }
        for (number, series) in self.registry.live() {
            let (samples, buffer) = grouped.of(series.slot());
            let members = members.get(&number);
            each(&SavedSeries {
                name: &self.registry.name(series),
                kind: series.kind(),
                is_touched: series.is_touched(),
                series,
                types: &self.types,
                content: Content {
                    samples,
                    buffer,
                    members: members.map_or(&[], |members| &members[..]),
                },
            })?;
        }
        Ok(())
    }

    /// Reads what follows the number in a saved line; `None` if it is damaged.
    pub(crate) fn read_saved(
        &self,
        kind: Kind,
        letter: u8,
        words: &mut dyn Iterator<Item = &str>,
    ) -> Option<Saved> {
        self.types.of(kind).restore(letter, words)
    }

    /// Takes a series that was saved, for the interval `epoch`. Without room for its name it is
    /// left out.
    pub(crate) fn restore(
        &mut self,
        epoch: u64,
        kind: Kind,
        name: &[u8],
        value: f64,
        is_touched: bool,
        saved: Saved,
    ) {
        let hash = self.registry.hash(kind, name);
        let Some(number) = self.intern(hash, kind, name, None) else {
            return;
        };
        let series = self.registry.get_mut(number);
        let value = Value {
            entry: 0,
            is_absolute: true,
            value,
        };
        self.types.merge(series, &value);
        if is_touched {
            series.touch();
        }
        let (slot, log) = (series.slot(), &mut self.samples[(epoch & 1) as usize]);
        if slot != NO_SLOT {
            for sample in saved.samples {
                log.push(slot, sample);
            }
            if let Some(buffer) = saved.buffer {
                log.restore(slot, buffer);
            }
        }
        for member in saved.members {
            self.member(number, member.into());
        }
    }
}

/// A series as it is saved.
pub(crate) struct SavedSeries<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) kind: Kind,
    pub(crate) is_touched: bool,
    series: &'a Series,
    types: &'a Types,
    content: Content<'a>,
}

impl SavedSeries<'_> {
    /// Writes the lines of the series; returns how many.
    ///
    /// # Errors
    /// `out` cannot be written to.
    pub(crate) fn write(&self, out: &mut dyn io::Write) -> io::Result<u64> {
        let letter = self.kind.facts().saved_as;
        let head = Head {
            letter: if self.is_touched {
                letter
            } else {
                letter.to_ascii_uppercase()
            },
            name: self.name,
        };
        let kind = self.types.of(self.kind);
        kind.save(out, &head, self.series, &self.content)
    }
}
