//! Takes points from receivers into journal and cache.

use std::time::Instant;

use super::carbon::{Carbon, Origin};
use super::inner::Inner;
use super::patience::PATIENCE;
use super::setup::Access;
use crate::datapoint::{Datapoint, NameError, SeriesId, Sink};
use crate::journal::Journal;
use crate::relay::live::Relay;
use crate::signal::Changed;

impl Carbon {
    /// The next time that there may be room in the cache and the journal again.
    ///
    /// For receivers that call [`Sink::try_submit`] themselves and have other work while they wait.
    /// [`Carbon::submit_async`] has the loop.
    ///
    /// ```no_run
    /// # use carbon::{Carbon, Datapoint, Sink};
    /// # async fn offer(carbon: &Carbon, points: &[Datapoint]) {
    /// let mut rest = points;
    /// loop {
    ///     // Made before the points are offered: room that is made in between is not missed.
    ///     let room = carbon.room();
    ///     rest = &rest[carbon.try_submit(rest)..];
    ///     if rest.is_empty() {
    ///         return;
    ///     }
    ///     room.await;
    /// }
    /// # }
    /// ```
    pub fn room(&self) -> Changed {
        self.0.room.next()
    }

    /// As [`Sink::submit`], for tasks: waits for room without blocking a thread, and with
    /// `journal.sync = "always"` until all of `points` are committed.
    ///
    /// A receiver that has to end while it waits drops the future. Points that were taken until then stay
    /// in the cache and the journal. While the store shuts down, points without room go into the journal alone
    /// once a receiver has waited for too long ([`Carbon::wait_no_longer`]).
    pub async fn submit_async(&self, points: &[Datapoint]) {
        let mut rest = &points[self.try_submit(points)..];
        while !rest.is_empty() {
            let room = self.room();
            let taken = self.try_submit(rest);
            rest = &rest[taken..];
            if taken == 0 {
                if self.0.is_closing() && self.0.waits_no_longer() {
                    self.0.leave_behind(rest);
                    break;
                }
                self.stats().waits.add(1);
                room.await;
            }
        }
        self.committed_so_far().await;
    }

    /// Ends the wait for room of all receivers while the store shuts down: what finds no room from now on
    /// goes into the journal alone. Tasks, which have no clock here, are woken by it.
    pub fn wait_no_longer(&self) {
        self.0.behind.lock().is_time_up = true;
        self.0.room.send();
    }

    /// With `journal.sync = "always"`, waits until all points that were taken before this call are committed.
    /// Otherwise, and after the journal has stopped, it is ready at once.
    pub async fn committed_so_far(&self) {
        let Some(journal) = self.0.journal.as_ref() else {
            return;
        };
        if !journal.is_synchronous() {
            return;
        }
        let appended = journal.appended();
        loop {
            let commit = journal.next_commit();
            if journal.committed() >= appended || journal.is_stopping() {
                return;
            }
            commit.await;
        }
    }
}

impl Inner {
    /// Takes as many of `points`, from the front, as there is room for: into the store, and for the
    /// destinations of routes unless a relay has sent them. Returns how many, and the number that
    /// [`Carbon::committed`] reaches when they are committed.
    fn take(&self, points: &[Datapoint], origin: Origin) -> (usize, u64) {
        match &self.relay {
            Some(relay) if origin == Origin::Anyone => self.take_and_send(relay, points),
            _ => self.store(points),
        }
    }

    fn take_and_send(&self, relay: &Relay, points: &[Datapoint]) -> (usize, u64) {
        let ways = relay.ways(&self.index, &self.stats, points);
        let (taken, ticket) = if ways.keep_all() {
            self.store(points)
        } else {
            let keeps = relay.keeps(&ways);
            let places = (0..points.len()).filter(|place| keeps[*place]);
            let places: Vec<usize> = places.collect();
            let kept: Vec<Datapoint> = places.iter().map(|place| points[*place]).collect();
            let (stored, ticket) = match kept.is_empty() {
                true => (0, 0),
                false => self.store(&kept),
            };
            let taken = places.get(stored).copied().unwrap_or(points.len());
            self.stats.only_relayed.add((taken - stored) as u64);
            (taken, ticket)
        };
        relay.send(&self.index, &points[..taken], &ways);
        (taken, ticket)
    }

    /// Stores as many of `points`, from the front, as there is room for.
    fn store(&self, points: &[Datapoint]) -> (usize, u64) {
        let all = points;
        if self.access != Access::Serve {
            self.stats.read_only.add(points.len() as u64);
            return (points.len(), 0);
        }
        let is_full = self.journal.as_ref().is_some_and(Journal::is_full);
        let taken = if is_full {
            0
        } else {
            self.cache.reserve(points.len())
        };
        if taken < points.len() {
            self.work.send();
        }
        // A remote store may be away for hours: the journal alone has what the cache has no room for.
        let spills = !is_full && taken < points.len() && self.remote.is_some();
        if taken == 0 && !spills {
            return (0, 0);
        }
        let (cached, rest) = points.split_at(taken);
        let (mut taken, mut points) = (taken, cached);
        let mut woken = Vec::new();
        let mut ticket = 0;
        {
            let _gate = self.gate.read();
            let clock = self.clocks().earliest();
            if let Some(journal) = &self.journal
                && !cached.is_empty()
            {
                ticket = journal.append(&self.index, clock, cached);
            }
            self.cache.insert(cached, clock, &mut woken);
            if spills && let Some(spilled) = self.spill(clock, rest) {
                (taken, points, ticket) = (all.len(), all, spilled);
            }
        }
        if taken == 0 {
            return (0, 0);
        }
        self.index.list(&woken);
        self.stats.received.add(taken as u64);
        // While points may wait, only the first ones wake the persister.
        if !woken.is_empty() && (self.may_wait().is_none() || self.cache.len() <= taken) {
            self.work.send();
        }
        if let Some(observer) = &self.observer {
            self.introduce(&**observer);
            observer.taken(points);
        }
        (taken, ticket)
    }

    /// As [`Sink::submit`].
    pub(crate) fn submit(&self, points: &[Datapoint]) {
        self.submit_of(points, Origin::Anyone);
    }

    fn submit_of(&self, points: &[Datapoint], origin: Origin) {
        let mut rest = points;
        // Since when nothing has been taken while the store shuts down.
        let mut stuck: Option<Instant> = None;
        // Made before points are offered again: room that is made in between is not missed.
        let mut room: Option<Changed> = None;
        loop {
            let (taken, ticket) = self.take(rest, origin);
            rest = &rest[taken..];
            if taken > 0 {
                self.wait_committed(ticket);
            }
            if rest.is_empty() {
                return;
            }
            let mut deadline = None;
            if self.is_closing() {
                let since = *match taken {
                    0 => stuck.get_or_insert_with(Instant::now),
                    _ => stuck.insert(Instant::now()),
                };
                if since.elapsed() >= PATIENCE || self.waits_no_longer() {
                    return self.leave_behind(rest);
                }
                deadline = Some(since + PATIENCE);
            }
            match room.take() {
                Some(room) if taken == 0 => {
                    self.stats.waits.add(1);
                    room.wait(deadline);
                }
                _ => room = Some(self.room.next()),
            }
        }
    }

    /// Whether points without room are left behind at once during the shutdown. After one receiver has left
    /// points behind, no receiver waits any longer.
    fn waits_no_longer(&self) -> bool {
        let behind = self.behind.lock();
        behind.is_time_up || !behind.series.is_empty() || self.is_late()
    }

    fn is_closing(&self) -> bool {
        self.closing.get().is_some()
    }

    /// With `journal.sync = "always"`, blocks until `ticket` points are committed; while the store shuts
    /// down, for [`PATIENCE`] at most.
    fn wait_committed(&self, ticket: u64) {
        if let Some(journal) = &self.journal
            && journal.is_synchronous()
        {
            let give_up = Instant::now() + PATIENCE;
            journal.wait(ticket, || self.is_closing().then_some(give_up));
        }
    }
}

impl Sink for Carbon {
    fn intern(&self, name: &[u8]) -> std::result::Result<SeriesId, NameError> {
        let interned = self.0.index.hold(name);
        if let Err(reason @ NameError::Limit(_)) = interned {
            self.0.stats.count_refusal(reason);
        }
        interned
    }

    fn release(&self, ids: &[SeriesId]) {
        self.0.index.release(ids);
    }

    fn submit(&self, points: &[Datapoint]) {
        self.0.submit_of(points, self.2);
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        self.0.take(points, self.2).0
    }
}
