//! The rules for the receivers of carbon: where does each point of a batch go?

use std::sync::Arc;

use parking_lot::RwLockReadGuard;
use whisper::Timestamp;

use super::live::{Learned, Rules};
use super::verdicts::{Fate, Found, Judged, Verdicts};
use crate::datapoint::{NameError, PointTime, SeriesId};
use crate::index::Index;
use crate::series::Names;
use crate::stats::Stats;

/// The rules for a batch of received points.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    rules: &'a Rules,
    index: &'a Index,
    stats: &'a Stats,
    now: Timestamp,
    verdicts: Option<RwLockReadGuard<'a, Verdicts>>,
    names: Option<RwLockReadGuard<'a, Names>>,
}

impl<'a> Session<'a> {
    /// A session for a batch that is received at `now`. The caller has a pin until it has submitted
    /// what it took.
    pub(crate) fn new(
        rules: &'a Rules,
        index: &'a Index,
        stats: &'a Stats,
        now: Timestamp,
    ) -> Self {
        Self {
            rules,
            index,
            stats,
            now,
            verdicts: None,
            names: None,
        }
    }

    /// Where a point is stored; `None` if it is not, which is counted. Feeds the aggregates.
    ///
    /// # Errors
    /// The name under which it would be stored is refused.
    #[inline]
    pub(crate) fn take(
        &mut self,
        raw: &[u8],
        at: PointTime,
        value: f64,
    ) -> Result<Option<SeriesId>, NameError> {
        let (rules, index) = (self.rules, self.index);
        let verdicts = self.verdicts.get_or_insert_with(|| rules.read_verdicts());
        let names = self.names.get_or_insert_with(|| index.names());
        let judged = match verdicts.find(raw, names) {
            Some(Found::Plain(series)) => return Ok(Some(series)),
            Some(Found::Judged(judged, series)) => {
                let needs_id = series.is_none() && matches!(judged.fate, Fate::Stored(_));
                if !needs_id {
                    if let Fate::Refused(refusal) = judged.fate {
                        Rules::count_refusal(refusal, self.stats);
                    }
                    rules.feed(judged, (at, value), self.now, self.stats);
                    return Ok(series);
                }
                Some(Arc::clone(judged))
            }
            None => None,
        };
        self.learn(judged, raw, (at, value))
    }

    /// As [`Session::take`], for a name that is new or whose series has no known id.
    #[cold]
    fn learn(
        &mut self,
        judged: Option<Arc<Judged>>,
        raw: &[u8],
        point: (PointTime, f64),
    ) -> Result<Option<SeriesId>, NameError> {
        // Both are written below: readers must let go first.
        self.verdicts = None;
        self.names = None;
        let Self {
            rules,
            index,
            stats,
            ..
        } = *self;
        let (judged, generation) = match judged {
            Some(judged) => (judged, rules.generation()),
            None => {
                let Learned { judged, generation } = rules.judge(raw, stats)?;
                (Arc::new(judged), generation)
            }
        };
        rules.feed(&judged, point, self.now, stats);
        let series = match &judged.fate {
            Fate::Refused(refusal) => {
                Rules::count_refusal(*refusal, stats);
                rules.write_verdicts().judge(generation, judged, None);
                return Ok(None);
            }
            Fate::Fed => {
                rules.write_verdicts().judge(generation, judged, None);
                return Ok(None);
            }
            Fate::Stored(name) => index.admit(name.as_bytes()),
        };
        let id = match series {
            Ok(id) => id,
            Err(reason) => {
                // Its points are refused one by one, but it is not judged again for each.
                rules.write_verdicts().judge(generation, judged, None);
                return Err(reason);
            }
        };
        let canonical = index.name(id);
        let is_plain =
            judged.outputs.is_empty() && judged.without_room == 0 && canonical.as_bytes() == raw;
        if is_plain {
            rules.write_verdicts().plain(generation, raw, id);
        } else {
            let judged = match &judged.fate {
                Fate::Stored(name) if **name == *canonical => judged,
                _ => Arc::new(Judged {
                    raw: judged.raw.clone(),
                    fate: Fate::Stored(canonical.into()),
                    outputs: judged.outputs.clone(),
                    without_room: judged.without_room,
                }),
            };
            rules.write_verdicts().judge(generation, judged, Some(id));
        }
        Ok(Some(id))
    }
}
