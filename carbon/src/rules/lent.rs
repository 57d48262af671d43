//! The numbers that StatsD has in the place of ids while rules are configured; `lending.rs` has their life.

use std::sync::Arc;

use super::verdicts::{Fate, Judged};
use crate::datapoint::{NameError, SeriesId};
use crate::index::Index;

/// The first number. No series has such an id: that would be more names than fit into memory.
const OWN: u32 = 1 << 31;
/// The end of the numbers: StatsD has the last ones for names without an id.
const END: u32 = u32::MAX - 16;

/// The numbers that were given out.
#[derive(Debug, Default)]
pub(super) struct Lent {
    pub(super) names: Vec<Option<Name>>,
    free: Vec<u32>,
}

/// What a number stands for.
#[derive(Debug)]
pub(super) struct Name {
    /// `None`: it is stored under itself and feeds nothing; the index has its text.
    pub(super) judged: Option<Arc<Judged>>,
    /// Held. `None` if its points are not stored, or if the name of the series was refused.
    pub(super) series: Option<SeriesId>,
    /// Why the name of the series was refused.
    pub(super) refused: Option<NameError>,
}

impl Name {
    /// Holds the series that `judged` says.
    pub(super) fn new(judged: Judged, index: &Index) -> Self {
        let mut name = Self {
            judged: None,
            series: None,
            refused: None,
        };
        if let Fate::Stored(stored) = &judged.fate {
            match index.hold(stored.as_bytes()) {
                Ok(id) => name.series = Some(id),
                Err(reason) => name.refused = Some(reason),
            }
        }
        let is_same = |id| index.names().name(id).as_bytes() == &*judged.raw;
        let is_plain = judged.outputs.is_empty()
            && judged.without_room == 0
            && name.series.is_some_and(is_same);
        name.judged = (!is_plain).then(|| Arc::new(judged));
        name
    }

    /// The name as StatsD knows it.
    pub(super) fn raw(&self, index: &Index) -> Box<[u8]> {
        match (&self.judged, self.series) {
            (Some(judged), _) => judged.raw.clone(),
            (None, Some(id)) => index.name(id).into_bytes().into(),
            (None, None) => Box::default(),
        }
    }
}

impl Lent {
    pub(super) fn get(&self, number: SeriesId) -> Option<&Name> {
        self.names
            .get(number.0.checked_sub(OWN)? as usize)?
            .as_ref()
    }

    /// Gives out a number.
    pub(super) fn add(&mut self, name: Name) -> Result<SeriesId, Name> {
        if let Some(slot) = self.free.pop() {
            self.names[slot as usize] = Some(name);
            return Ok(SeriesId(OWN + slot));
        }
        match u32::try_from(self.names.len()) {
            Ok(slot) if slot < END - OWN => {
                self.names.push(Some(name));
                Ok(SeriesId(OWN + slot))
            }
            _ => Err(name),
        }
    }

    /// Takes a number back; the series that is to be released.
    pub(super) fn remove(&mut self, number: SeriesId) -> Option<SeriesId> {
        let slot = number.0.checked_sub(OWN)?;
        let name = self.names.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        name.series
    }
}
