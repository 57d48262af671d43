//! Points that went into files which lost their names, written again.

use std::path::PathBuf;
use std::time::Duration;

use super::{Kind, Parts, Persister, report};
use crate::clock::Clocks;
use crate::datapoint::SeriesId;

impl Persister {
    /// Writes the points again that displaced files have swallowed, into the files that have the names
    /// now or into new ones. The series whose files could not be written: their points stay where they are.
    pub(crate) fn write_displaced(
        &mut self,
        parts: &Parts<'_>,
        clocks: &Clocks,
        kind: Kind,
    ) -> Vec<SeriesId> {
        let mut left = Vec::new();
        let mut path = PathBuf::new();
        for key in parts.maps.displaced() {
            let id = SeriesId(key);
            // Its file may be being deleted because the series had expired.
            parts.cache.wait_unclaimed(id);
            let stored = parts.index.path(id, &mut path);
            if !path.exists() && !self.may_create(parts, kind) {
                left.push(id);
                continue;
            }
            let since = parts.cache.since(clocks.earliest(), Duration::ZERO);
            match self.update(parts, id, (clocks, kind, since), &path, stored, &[]) {
                // The index may have dropped the series while it had no file.
                Ok(_) => parts.index.list(&[id]),
                Err(error) if error.is_hopeless() => {
                    parts.maps.forget(key);
                    report::dropped(&mut self.dropped_logged, parts, id, 0, &error);
                }
                Err(error) => {
                    left.push(id);
                    parts.stats.errors.add(1);
                    report::waits(&mut self.waits_logged, &error);
                    self.why = Some(error.to_string());
                }
            }
        }
        report::count_events(parts);
        left
    }
}
