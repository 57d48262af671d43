//! Adds points to the buffer of the next commit.

use std::sync::atomic::Ordering;
use std::time::Instant;

use whisper::{Point, Timestamp};

use super::frame::{MAX_POINTS, Writer};
use super::state::{Journal, Pending};
use crate::datapoint::{Datapoint, PointTime, SeriesId};
use crate::index::Index;

/// From this many pending bytes on, they are written before the commit is due.
pub(super) const EARLY_WRITE: usize = 4 << 20;

impl Journal {
    /// Appends `points`, which were taken at `clock`, and returns the number that
    /// [`Journal::committed`] reaches when they are committed.
    pub(crate) fn append(&self, index: &Index, clock: Timestamp, points: &[Datapoint]) -> u64 {
        let mut pending = self.pending.lock();
        pending.appended += points.len() as u64;
        if !pending.paused {
            self.encode(&mut pending, index, clock, points);
            let wake = pending.since.is_none() || pending.bytes.len() >= EARLY_WRITE;
            pending.since.get_or_insert_with(Instant::now);
            if wake {
                self.work.notify_one();
            }
        }
        pending.appended
    }

    /// As [`Journal::append`], for points that only the journal will have. `None` while it pauses.
    pub(crate) fn append_only(
        &self,
        index: &Index,
        clock: Timestamp,
        points: &[Datapoint],
    ) -> Option<u64> {
        let mut pending = self.pending.lock();
        if pending.paused {
            return None;
        }
        pending.appended += points.len() as u64;
        self.encode(&mut pending, index, clock, points);
        let wake = pending.since.is_none() || pending.bytes.len() >= EARLY_WRITE;
        pending.since.get_or_insert_with(Instant::now);
        if wake {
            self.work.notify_one();
        }
        Some(pending.appended)
    }

    /// Appends points again that were in a segment which is to be deleted. They are not counted again.
    pub(crate) fn carry_over(&self, index: &Index, clock: Timestamp, points: &[Datapoint]) {
        let mut pending = self.pending.lock();
        if !pending.paused {
            self.encode(&mut pending, index, clock, points);
        }
    }

    /// Appends points for which the cache has no room, for the next start to read back. Returns whether the
    /// journal takes them, which it does not while it pauses.
    pub(crate) fn leave_behind(
        &self,
        index: &Index,
        clock: Timestamp,
        points: &[Datapoint],
    ) -> bool {
        let mut pending = self.pending.lock();
        if !pending.paused {
            self.encode(&mut pending, index, clock, points);
        }
        !pending.paused
    }

    fn encode(&self, pending: &mut Pending, index: &Index, clock: Timestamp, points: &[Datapoint]) {
        let Pending { bytes, named, .. } = pending;
        let before = bytes.len();
        for points in points.chunks(MAX_POINTS) {
            let mut writer = Writer::new(bytes, clock);
            let mut names = None;
            for point in points {
                if !named.get(point.series.0) {
                    named.set(point.series.0);
                    let names = names.get_or_insert_with(|| index.names());
                    writer.name(point.series, names.name(point.series).as_bytes());
                }
                writer.point(point);
            }
            writer.finish();
        }
        let added = (bytes.len() - before) as u64;
        self.size.fetch_add(added, Ordering::Relaxed);
    }
}

/// The points of `series` as datapoints.
pub(crate) fn datapoints(series: SeriesId, points: &[Point]) -> impl Iterator<Item = Datapoint> {
    points.iter().filter_map(move |point| {
        Some(Datapoint {
            series,
            at: PointTime::new(point.at)?,
            value: point.value,
        })
    })
}
