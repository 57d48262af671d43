//! The end of a store: the cache is written to files, and points that cannot be written stay in the journal.

use std::time::Instant;

use super::carbon::Carbon;
use super::inner::Inner;
use super::inner::LONGEST_WAIT;
use super::patience::Patience;
use super::setup::Access;
use crate::clock::Clocks;
use crate::datapoint::Datapoint;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::persister::{Kind, Persister};
use crate::relay::live::Relay;

impl Carbon {
    /// Announces the shutdown: from now on receivers wait for room only while there is progress, and
    /// `carbon.drain_timeout` runs. Call this before stopping receivers, because a full cache may block
    /// them.
    pub fn shut_down(&self) {
        self.0.closing.get_or_init(Instant::now);
        self.0.room.send();
        if let Some(journal) = &self.0.journal {
            journal.wake_waiting();
        }
    }

    /// Ends the threads, writes the cache to the files, syncs them and empties the journal. Calls `progress`
    /// with the number of points left, from time to time and at the end. Points that cannot be written,
    /// or not before `carbon.drain_timeout` has passed, stay in the journal, and the log has their number
    /// and the reason.
    ///
    /// Stop the receivers first: points that arrive later stay in the cache.
    ///
    /// # Errors
    /// Datapoints are neither in synced files nor in the journal.
    pub fn drain(&self, mut progress: impl FnMut(usize)) -> Result<()> {
        let inner = &*self.0;
        self.shut_down();
        inner.finish_rules();
        // Destinations get what waits for them while the cache is written.
        inner.relay.iter().for_each(Relay::stop);
        inner.stop_threads();
        for thread in std::mem::take(&mut *inner.threads.lock()) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store had ended before");
            }
        }
        if inner.access != Access::Serve {
            return Ok(());
        }
        if let Some(remote) = &inner.remote {
            let kept = inner.drain_remote(remote);
            progress(inner.cache.len());
            inner.relay.iter().for_each(Relay::join);
            return kept;
        }
        let clocks = inner.clocks();
        let mut persister = inner.persister.lock();
        persister.why = None;
        let mut said = Instant::now();
        let mut patience = Patience::default();
        persister.pass(&inner.parts(), &clocks, Kind::Drain, |pass| {
            if said.elapsed() > LONGEST_WAIT {
                said = Instant::now();
                progress(inner.cache.len());
            }
            patience.lasts(pass.written + pass.dropped) && !inner.is_late()
        });
        progress(inner.cache.len());
        if let Err(error) = inner.index.compact(0) {
            // Missing names are found again by walking the disk; registrations were synced.
            tracing::warn!(%error, "the index could not be written");
        }
        let kept = inner.put_down(&mut persister, &clocks);
        inner.say_what_is_left(&persister, &kept);
        inner.relay.iter().for_each(Relay::join);
        kept
    }

    /// Ends the threads and writes nothing more, as in a crash: for tests.
    #[doc(hidden)]
    pub fn abandon(self) {
        self.0.stop_threads();
        for thread in std::mem::take(&mut *self.0.threads.lock()) {
            // A thread that panicked has ended as well.
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// Appends `points` to the journal alone: the cache has no room, and there is no time to wait for it.
    pub(crate) fn leave_behind(&self, points: &[Datapoint]) {
        let _gate = self.gate.read();
        let clock = self.clocks().earliest();
        let journalled = self
            .journal
            .as_ref()
            .is_some_and(|journal| journal.leave_behind(&self.index, clock, points));
        let mut behind = self.behind.lock();
        if journalled {
            behind.journalled += points.len();
        } else {
            behind.lost += points.len();
        }
        behind
            .series
            .extend(points.iter().map(|point| point.series));
        drop(behind);
        // Wakes the other receivers, which then leave their points behind as well.
        self.room.send();
    }

    /// Whether the shutdown has taken as long as it may. Without a sound journal it takes as long as the
    /// files take, because only they keep the points then.
    pub(crate) fn is_late(&self) -> bool {
        let limit = self.options.drain_timeout.0;
        let journal = self.journal.as_ref();
        !limit.is_zero()
            && self.closing.get().is_some_and(|at| at.elapsed() >= limit)
            && journal.is_some_and(|journal| journal.trouble().is_none())
    }

    pub(crate) fn drain_timeout_passed(&self) -> String {
        let limit = self.options.drain_timeout;
        format!("carbon.drain_timeout = {limit} has passed")
    }

    /// The last step of a shutdown: empties the journal, or keeps all of it if some points are only there.
    fn put_down(&self, persister: &mut Persister, clocks: &Clocks) -> Result<()> {
        let behind = self.behind.lock().journalled > 0;
        let late = self.is_late() && !self.cache.is_empty();
        if late {
            persister.why = Some(self.drain_timeout_passed());
        }
        let (Some(journal), true) = (&self.journal, behind || late) else {
            let emptied = self.checkpoint(persister, clocks, Kind::Drain);
            let committed = |journal: &Journal| journal.committed() >= journal.appended();
            return match emptied {
                // The segments could not be deleted, but they have all points.
                Err(error) if self.journal.as_ref().is_some_and(committed) => {
                    tracing::warn!(%error, "the journal is not empty; the next start reads it back");
                    Ok(())
                }
                emptied => emptied,
            };
        };
        let committed = journal.commit(&self.stats);
        committed.map_err(|error| Error::io(&self.root, "committing the journal", error))
    }

    /// Logs how many points are not in their files at the end, and why.
    fn say_what_is_left(&self, persister: &Persister, kept: &Result<()>) {
        let behind = self.behind.lock();
        let mut series = behind.series.clone();
        let mut waiting = Vec::new();
        self.cache.sweep(&mut waiting);
        series.extend(waiting.iter().map(|waiting| waiting.series));
        let points = self.cache.len() + behind.journalled;
        let why = persister.why.as_deref().unwrap_or("the cache was full");
        if points > 0 {
            let series = series.len();
            match (kept, &self.journal) {
                (Ok(()), Some(_)) => tracing::warn!(
                    "{points} datapoints of {series} series are not in their files ({why}); the journal keeps them for the next start"
                ),
                _ => tracing::error!(
                    "{points} datapoints of {series} series are lost but for what the journal has of them ({why})"
                ),
            }
        }
        if behind.lost > 0 {
            let lost = behind.lost;
            tracing::error!("{lost} datapoints found no room while stopping and are lost ({why})");
        }
    }
}
