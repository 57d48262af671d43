//! Series whose interval is known before their points are: those that the server itself writes.

use parking_lot::RwLock;
use roaring::RoaringBitmap;

use crate::datapoint::SeriesId;

/// Intervals in seconds, each with the series that come so often. There are two or three: the
/// flush interval of statsd, the interval of self metrics.
#[derive(Debug, Default)]
pub(crate) struct Known(RwLock<Vec<(u32, RoaringBitmap)>>);

impl Known {
    /// The points of `series` come every `seconds`.
    pub(crate) fn set(&self, series: SeriesId, seconds: u32) {
        if self.get(series) == Some(seconds) {
            return;
        }
        let mut known = self.0.write();
        if !known.iter().any(|(interval, _)| *interval == seconds) {
            known.push((seconds, RoaringBitmap::new()));
        }
        for (interval, members) in known.iter_mut() {
            if *interval == seconds {
                members.insert(series.0);
            } else {
                members.remove(series.0);
            }
        }
    }

    /// How often the points of `series` come, in seconds.
    pub(crate) fn get(&self, series: SeriesId) -> Option<u32> {
        let known = self.0.read();
        let found = known.iter().find(|(_, members)| members.contains(series.0));
        found.map(|(seconds, _)| *seconds)
    }

    /// The ids may stand for other names from now on.
    pub(crate) fn forget(&self, ids: &[SeriesId]) {
        let mut known = self.0.write();
        for (_, members) in known.iter_mut() {
            for id in ids {
                members.remove(id.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_interval_counts_until_the_id_is_freed() {
        let known = Known::default();
        known.set(SeriesId(1), 10);
        known.set(SeriesId(2), 60);
        known.set(SeriesId(1), 60);
        assert_eq!(known.get(SeriesId(1)), Some(60));
        assert_eq!(known.get(SeriesId(3)), None);
        known.forget(&[SeriesId(1)]);
        assert_eq!(known.get(SeriesId(1)), None);
        assert_eq!(known.get(SeriesId(2)), Some(60));
    }
}
