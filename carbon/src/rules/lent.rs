//! The rules for StatsD, which asks for the id of a name once and then submits by id.
//!
//! 1. While rules are configured, [`Rules::lend`] gives out numbers of its own (from [`OWN`] on), each
//!    for a name as StatsD knows it. What the rules make of the name is looked up at each submission,
//!    so that it follows the rules when these are read again.
//! 2. A name that a list refuses has a number, too: its points are dropped and counted one by one, and
//!    a later reading of the list may let them pass.
//! 3. The series of a number is held ([`Index::hold`]) until the number is taken back or its name is
//!    judged again.

use std::sync::Arc;

use whisper::Timestamp;

use super::live::{Around, Learned, Rules};
use super::verdicts::{Fate, Judged};
use crate::datapoint::{Datapoint, NameError, SeriesId};
use crate::index::Index;
use crate::stats::Stats;

/// The first number. No series has such an id: that would be more names than fit into memory.
const OWN: u32 = 1 << 31;
/// The end of the numbers: StatsD has the last ones for names without an id.
const END: u32 = u32::MAX - 16;
/// Names that are judged again at once.
const AT_ONCE: usize = 512;

/// The numbers that were given out.
#[derive(Debug, Default)]
pub(super) struct Lent {
    names: Vec<Option<Name>>,
    free: Vec<u32>,
}

/// What a number stands for.
#[derive(Debug)]
struct Name {
    /// `None`: it is stored under itself and feeds nothing; the index has its text.
    judged: Option<Arc<Judged>>,
    /// Held. `None` if its points are not stored, or if the name of the series was refused.
    series: Option<SeriesId>,
    /// Why the name of the series was refused.
    refused: Option<NameError>,
}

impl Name {
    /// Holds the series that `judged` says.
    fn new(judged: Judged, index: &Index) -> Self {
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
    fn raw(&self, index: &Index) -> Box<[u8]> {
        match (&self.judged, self.series) {
            (Some(judged), _) => judged.raw.clone(),
            (None, Some(id)) => index.name(id).into_bytes().into(),
            (None, None) => Box::default(),
        }
    }
}

impl Lent {
    fn get(&self, number: SeriesId) -> Option<&Name> {
        self.names
            .get(number.0.checked_sub(OWN)? as usize)?
            .as_ref()
    }

    /// Gives out a number.
    fn add(&mut self, name: Name) -> Result<SeriesId, Name> {
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
    fn remove(&mut self, number: SeriesId) -> Option<SeriesId> {
        let slot = number.0.checked_sub(OWN)?;
        let name = self.names.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        name.series
    }
}

impl Rules {
    /// A number for `name`.
    ///
    /// # Errors
    /// The name under which its points would be stored is refused.
    pub(crate) fn lend(
        &self,
        name: &[u8],
        index: &Index,
        stats: &Stats,
    ) -> Result<SeriesId, NameError> {
        let Learned { judged, .. } = self.judge(name, stats)?;
        let name = Name::new(judged, index);
        if let Some(reason) = name.refused {
            return Err(reason);
        }
        let added = self.lent.write().add(name);
        added.map_err(|name| {
            index.release(name.series.as_slice());
            NameError::TooMany
        })
    }

    /// The series of a number, if its points are stored.
    pub(crate) fn series_of(&self, number: SeriesId) -> Option<SeriesId> {
        self.lent.read().get(number)?.series
    }

    /// Takes numbers back, one for each time that it was given out.
    pub(crate) fn take_back(&self, numbers: &[SeriesId], index: &Index) {
        let mut lent = self.lent.write();
        let released: Vec<SeriesId> = numbers.iter().filter_map(|id| lent.remove(*id)).collect();
        drop(lent);
        index.release(&released);
    }

    /// What is stored of `points`, each with its place among them. Their ids keep their names while the
    /// caller has a pin that it took before.
    pub(crate) fn stored(&self, points: &[Datapoint]) -> (Vec<usize>, Vec<Datapoint>) {
        let lent = self.lent.read();
        let stored = points.iter().enumerate().filter_map(|(place, point)| {
            let series = match lent.get(point.series) {
                None => point.series,
                Some(name) => name.series?,
            };
            Some((place, Datapoint { series, ..*point }))
        });
        stored.unzip()
    }

    /// Counts what is refused of `points`, and feeds the aggregates.
    pub(crate) fn account(&self, points: &[Datapoint], now: Timestamp, stats: &Stats) {
        let lent = self.lent.read();
        for point in points {
            let Some(name) = lent.get(point.series) else {
                continue;
            };
            let Some(judged) = &name.judged else {
                continue;
            };
            if let Fate::Refused(refusal) = judged.fate {
                Self::count_refusal(refusal, stats);
            }
            if let Some(reason) = name.refused {
                stats.count_refusal(reason);
            }
            self.feed(judged, (point.at, point.value), now, stats);
        }
    }

    /// Judges all names again that numbers were given out for.
    pub(super) fn judge_lent_again(&self, around: &Around<'_>) {
        let Around { index, stats, .. } = *around;
        let mut from = 0;
        loop {
            let names: Vec<(usize, Box<[u8]>)> = {
                let lent = self.lent.read();
                if from >= lent.names.len() {
                    return;
                }
                let names = lent.names.iter().enumerate().skip(from).take(AT_ONCE);
                names
                    .filter_map(|(slot, name)| Some((slot, name.as_ref()?.raw(index))))
                    .collect()
            };
            from += AT_ONCE;
            let mut released = Vec::new();
            for (slot, raw) in names {
                let Ok(Learned { judged, .. }) = self.judge(&raw, stats) else {
                    continue;
                };
                let mut new = Name::new(judged, index);
                let mut lent = self.lent.write();
                match lent.names.get_mut(slot) {
                    // It may have been taken back, and given to another name meanwhile.
                    Some(Some(name)) if name.raw(index) == raw => std::mem::swap(name, &mut new),
                    _ => {}
                }
                drop(lent);
                released.extend(new.series);
            }
            index.release(&released);
        }
    }
}
