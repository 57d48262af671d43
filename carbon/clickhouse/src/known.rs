//! Which series are in the tables of names.

use carbon::SeriesId;
use parking_lot::RwLock;

/// The day for which each series was last written into the tables of names, and acknowledged.
#[derive(Debug, Default)]
pub struct Known(RwLock<Vec<u16>>);

impl Known {
    /// Whether the names tables have the series.
    pub fn has(&self, series: SeriesId) -> bool {
        self.0
            .read()
            .get(series.0 as usize)
            .is_some_and(|day| *day > 0)
    }

    /// These series were acknowledged with these days.
    pub(crate) fn set(&self, series: &[(SeriesId, u16)]) {
        let mut known = self.0.write();
        for (id, day) in series {
            set(&mut known, *id, *day);
        }
    }
}

/// Sets the day of a series.
pub(crate) fn set(days: &mut Vec<u16>, id: SeriesId, day: u16) {
    let at = id.0 as usize;
    if days.len() <= at {
        days.resize(at + 1, 0);
    }
    days[at] = day;
}
