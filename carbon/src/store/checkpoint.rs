//! Syncs files, so that segments of the journal can be deleted.

use std::io;

use whisper::Timestamp;

use super::inner::Inner;
use super::patience::Patience;
use crate::clock::Clocks;
use crate::datapoint::SeriesId;
use crate::error::{Error, Result};
use crate::journal::{self, Journal, Rotation};
use crate::persister::{Kind, Persister};

impl Inner {
    /// Begins a new segment, writes the cache, syncs the files, and deletes the segments before. Points that
    /// cannot be written now are appended to the new segment.
    pub(crate) fn checkpoint(
        &self,
        persister: &mut Persister,
        clocks: &Clocks,
        kind: Kind,
    ) -> Result<()> {
        let sync = |error| Error::io(&self.root, "syncing the files", error);
        let Some(journal) = &self.journal else {
            let displaced = self.write_displaced(persister, clocks, kind).len();
            self.index.sync()?;
            self.disk.sync_tree(&self.root).map_err(sync)?;
            if displaced == 0 {
                return Ok(());
            }
            let why = persister.why.as_deref().unwrap_or_default();
            let why =
                format!("{displaced} files were replaced or deleted, and are not written: {why}");
            let action = "writing points of replaced files again";
            return Err(Error::io(&self.root, action, io::Error::other(why)));
        };
        let rotation = self.begin_segment(journal)?;
        if journal.trouble().is_some() {
            // The segment, and files with it, may have been deleted: look up each path again.
            self.maps.distrust();
        }
        // Everything in the finished segments is in the cache: write it to the files, and sync these.
        let mut patience = Patience::default();
        let mut ends = false;
        persister.pass(&self.parts(), clocks, kind, |pass| {
            ends = match kind {
                Kind::Drain | Kind::Replay => self.is_late(),
                _ => self.stop.is_set(),
            };
            !ends && (kind.is_budgeted() || patience.lasts(pass.written + pass.dropped))
        });
        if ends {
            // The segments keep what has not been written.
            persister.why = Some(self.drain_timeout_passed());
            return Ok(());
        }
        let left = std::mem::take(&mut persister.left);
        self.release_as(persister, clocks, kind, rotation, &left)
    }

    /// Begins a new segment of the journal: everything in those before is in the cache.
    pub(crate) fn begin_segment(&self, journal: &Journal) -> Result<Rotation> {
        // Commit first, so that little is left for the end of the segment. If this fails, so does the
        // rotation, whose error is returned.
        let _ = journal.commit(&self.stats);
        let rotation = journal.rotate(&self.stats, || {
            let gate = self.gate.write();
            if self.behind.lock().journalled > 0 {
                // Only these segments have the points: none may be deleted before the next start.
                let why = "it has points that found no room while stopping";
                return Err(io::Error::other(why));
            }
            Ok(gate)
        });
        rotation.map_err(|error| Error::io(&self.root, "beginning a segment of the journal", error))
    }

    /// Syncs the files and deletes the segments before `rotation`. All of their points are in files, but for
    /// those of the series `left`.
    pub(crate) fn release(
        &self,
        persister: &mut Persister,
        clocks: &Clocks,
        rotation: Rotation,
        left: &[SeriesId],
    ) -> Result<()> {
        self.release_as(persister, clocks, Kind::Hand, rotation, left)
    }

    fn release_as(
        &self,
        persister: &mut Persister,
        clocks: &Clocks,
        kind: Kind,
        rotation: Rotation,
        left: &[SeriesId],
    ) -> Result<()> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        let sync = |error| Error::io(&self.root, "syncing the files", error);
        let displaced = self.write_displaced(persister, clocks, kind);
        self.disk.sync_tree(&self.root).map_err(sync)?;
        // Points in files that have been deleted meanwhile are not safe.
        self.same_root()
            .map_err(|why| sync(io::Error::other(why)))?;
        self.index.sync()?;
        // Points that could not be written go into the new segment before the old ones are deleted: one file that
        // cannot be written must not have the journal grow until nothing is taken any more.
        let mut left = [left, &displaced].concat();
        left.sort_unstable();
        left.dedup();
        if !left.is_empty() {
            self.carry_over(journal, clocks.earliest(), &left);
            let kept = journal.commit(&self.stats);
            kept.map_err(|error| Error::io(&self.root, "carrying points over", error))?;
        }
        let dropped = journal.drop_before(rotation, &self.stats);
        self.room.send();
        dropped.map_err(|error| Error::io(&self.root, "dropping a segment of the journal", error))
    }

    /// Checks that the files which were written of late still have their names, and writes the points of
    /// the others once more: the journal gives up only points that a name leads to. The series whose points
    /// could not be written.
    fn write_displaced(
        &self,
        persister: &mut Persister,
        clocks: &Clocks,
        kind: Kind,
    ) -> Vec<SeriesId> {
        self.maps.confirm_written(|key, path| {
            self.index.path(SeriesId(key), path);
        });
        persister.write_displaced(&self.parts(), clocks, kind)
    }

    /// Appends the points again of series that could not be written. Nothing else is appended meanwhile, so
    /// newer points follow them.
    fn carry_over(&self, journal: &Journal, now: Timestamp, series: &[SeriesId]) {
        for series in series.chunks(1_024) {
            let _gate = self.gate.write();
            let mut batch = Vec::new();
            for id in series {
                // What a file has swallowed came before what waits.
                let mut points = self.maps.displaced_points(id.0);
                self.cache.read(*id, &mut points);
                batch.extend(journal::datapoints(*id, &points));
            }
            journal.carry_over(&self.index, now, &batch);
        }
    }
}
