//! The rules for StatsD, which asks for the id of a name once and then submits by id.
//!
//! 1. While rules are configured, [`Rules::lend`] gives out numbers of its own (`lent.rs`), each
//!    for a name as StatsD knows it. What the rules make of the name is looked up at each submission,
//!    so that it follows the rules when these are read again.
//! 2. A name that a list refuses has a number, too: its points are dropped and counted one by one, and
//!    a later reading of the list may let them pass.
//! 3. The series of a number is held ([`Index::hold`]) until the number is taken back or its name is
//!    judged again.

use whisper::Timestamp;

use super::lent::Name;
use super::live::{Around, Learned, Rules};
use super::verdicts::Fate;
use crate::datapoint::{Datapoint, NameError, SeriesId};
use crate::index::Index;
use crate::stats::Stats;

/// Names that are judged again at once.
const AT_ONCE: usize = 512;

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
