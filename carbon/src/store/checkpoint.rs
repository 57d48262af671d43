//! Files are synced, so that segments of the journal can go.

use whisper::Timestamp;

use super::inner::Inner;
use super::patience::Patience;
use crate::clock::Clocks;
use crate::datapoint::SeriesId;
use crate::error::{Error, Result};
use crate::journal::{self, Journal};
use crate::persister::{Kind, Persister};

impl Inner {
    /// Begins a new segment, writes everything that waits, syncs the files, and drops the segments
    /// before. What cannot be written now is carried over into the new segment.
    pub(crate) fn checkpoint(
        &self,
        persister: &mut Persister,
        clocks: &Clocks,
        kind: Kind,
    ) -> Result<()> {
        let sync = |error| Error::io(&self.root, "syncing the files", error);
        let Some(journal) = &self.journal else {
            self.index.sync()?;
            return self.disk.sync_tree(&self.root).map_err(sync);
        };
        let rotating = |error| Error::io(&self.root, "beginning a segment of the journal", error);
        let rotation = {
            // Most of what is pending is written before everybody has to wait. If that fails, so
            // does what comes next, and says so.
            let _ = journal.commit(&self.stats);
            let _gate = self.gate.write();
            if self.behind.lock().journalled > 0 {
                // Only these segments have them: none may go before the next start.
                let why = "it has points that found no room while stopping";
                return Err(rotating(std::io::Error::other(why)));
            }
            journal.rotate(&self.stats).map_err(rotating)?
        };
        if journal.trouble().is_some() {
            // Its segment may have been deleted, and files with it: each is looked up again.
            self.maps.distrust();
        }
        let mut patience = Patience::new();
        persister.pass(&self.parts(), clocks, kind, |pass| {
            kind != Kind::Drain || patience.lasts(pass.written + pass.dropped)
        });
        self.disk.sync_tree(&self.root).map_err(sync)?;
        // Points that went into files that have been deleted are not safe.
        self.same_root()
            .map_err(|why| sync(std::io::Error::other(why)))?;
        self.index.sync()?;
        let left = std::mem::take(&mut persister.left);
        if !left.is_empty() {
            self.carry_over(journal, clocks.earliest(), &left);
            let kept = journal.commit(&self.stats);
            kept.map_err(|error| Error::io(&self.root, "carrying points over", error))?;
        }
        let dropped = journal.drop_before(rotation, &self.stats);
        self.room.tell();
        dropped.map_err(|error| Error::io(&self.root, "dropping a segment of the journal", error))
    }

    /// Journals again what series hold that could not be written. Nobody appends meanwhile, so
    /// that what is newer stays behind it.
    fn carry_over(&self, journal: &Journal, now: Timestamp, series: &[SeriesId]) {
        let mut points = Vec::new();
        for series in series.chunks(1_024) {
            let _gate = self.gate.write();
            let mut batch = Vec::new();
            for id in series {
                points.clear();
                self.cache.read(*id, &mut points);
                batch.extend(journal::datapoints(*id, &points));
            }
            journal.carry_over(&self.index, now, &batch);
        }
    }
}
