//! The persister's thread while points may wait for minutes.
//!
//! ```text
//! journal  segment 1      │ segment 2      │ segment 3 …
//!                    rotation        rotation
//! hand     ───────────────●────────────────┼───────────────●
//!                         └──── a lap: all points of segment 1 are in files ──► sync, delete segment 1
//! ```
//!
//! 1. A few times a second the hand moves on ([`Hand`]) and the series that it has come to are written.
//! 2. Twice a lap the journal begins a new segment. A segment is deleted a lap after its end: its points are
//!    in files then, except those of series that could not be written, which are appended to the present
//!    segment before.
//! 3. When the cache or the journal fill up, laps become shorter. When the journal is half full or pauses, a
//!    checkpoint writes everything; when the cache is nearly full, so does a pass.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::background::{GUARD_EVERY, PAUSE, Rhythm};
use super::inner::Inner;
use crate::clock::Clocks;
use crate::error::Error;
use crate::journal::{Journal, Rotation};
use crate::persister::{Hand, Pass, Place};

/// How often the hand moves.
const STEP: Duration = Duration::from_millis(250);
/// The shares of the cache from which laps become shorter, and from which a pass writes everything.
const CACHE: [f64; 2] = [1.0 / 2.0, 7.0 / 8.0];
/// The shares of the journal from which laps become shorter, and from which a checkpoint writes everything.
const JOURNAL: [f64; 2] = [1.0 / 4.0, 1.0 / 2.0];
/// The share of `persist_within` after which the journal begins a new segment: about half of a lap.
const SEGMENT: f64 = 0.45;
/// The most finished segments that wait for the hand.
const MOST_OPEN: usize = 8;

/// Writes what waits, until the store stops. Points wait for `within` at most.
pub(super) fn persist(inner: &Inner, within: Duration) {
    let mut rhythm = Rhythm::new();
    let mut rounds = Rounds::new(inner, within);
    while !inner.stop.is_set() {
        wait(inner);
        let clocks = inner.clocks();
        rhythm.look_around(inner, &clocks);
        let pressure = Pressure::of(inner);
        if pressure.is_checkpoint_due && rhythm.checkpoint(inner, &clocks) {
            rounds.open.clear();
        } else if pressure.lap > 0.0 {
            rounds.step(inner, &clocks, pressure.lap);
        } else {
            rounds.whole(inner, &clocks);
        }
        rounds.keep_journal(inner, &clocks, pressure.lap);
    }
}

/// Sleeps until the next step, or until room is short or the journal pauses.
fn wait(inner: &Inner) {
    let work = inner.work.next();
    if !inner.stop.is_set() {
        let span = if inner.cache.is_empty() {
            GUARD_EVERY
        } else {
            STEP
        };
        let next = Instant::now() + span;
        let tried = inner.persister.lock().next_try();
        work.wait(Some(tried.map_or(next, |tried| next.min(tried))));
        // Receivers without room ask again and again.
        inner.stop.pause(PAUSE);
    }
}

/// How full cache and journal are.
struct Pressure {
    /// The share of its time that a lap may take: 1 without pressure, 0 if everything is to be written.
    lap: f64,
    is_checkpoint_due: bool,
}

impl Pressure {
    fn of(inner: &Inner) -> Self {
        let left =
            |used: f64, [begins, most]: [f64; 2]| ((most - used) / (most - begins)).clamp(0.0, 1.0);
        let cache = inner.cache.used_bytes() as f64 / inner.cache.max_bytes() as f64;
        let journal = inner.journal.as_ref();
        let used = journal.map_or(0.0, Journal::share_used);
        Self {
            lap: left(cache, CACHE).min(left(used, JOURNAL)),
            is_checkpoint_due: used >= JOURNAL[1] || journal.is_some_and(Journal::is_paused),
        }
    }
}

/// The hand, and the segments that it has not caught up with.
struct Rounds {
    hand: Hand,
    /// Ends of segments, and where the hand was then.
    open: VecDeque<(Rotation, Place)>,
    /// When the journal began its present segment.
    rotated: Instant,
    segment: Duration,
    /// No segment begins or is deleted before this time, because that has failed.
    journal_after: Instant,
}

impl Rounds {
    fn new(inner: &Inner, within: Duration) -> Self {
        let hand = Hand::new(within);
        // Points of the segments that were read back are in the cache.
        let read_back = inner.journal.as_ref().map(Journal::read_back);
        Self {
            open: read_back
                .map(|end| (end, hand.place()))
                .into_iter()
                .collect(),
            hand,
            rotated: Instant::now(),
            segment: within.mul_f64(SEGMENT),
            journal_after: Instant::now(),
        }
    }

    /// Moves the hand and writes the series that it comes to.
    fn step(&mut self, inner: &Inner, clocks: &Clocks, pressure: f64) {
        let is_urgent = || Pressure::of(inner).is_checkpoint_due;
        let go_on = |pass: Pass| {
            let looks = pass.written > 0 && pass.written.is_multiple_of(1_024);
            !(inner.stop.is_set() || looks && is_urgent())
        };
        let mut persister = inner.persister.lock();
        persister.hand_pass(&inner.parts(), clocks, &mut self.hand, pressure, go_on);
    }

    /// Writes everything that waits.
    fn whole(&mut self, inner: &Inner, clocks: &Clocks) {
        let go_on = |_: Pass| !inner.stop.is_set();
        let mut persister = inner.persister.lock();
        let pass = persister.whole_pass(&inner.parts(), clocks, go_on);
        drop(persister);
        self.hand.lap_is_done();
        if pass.written == 0 {
            // Do not try at once again what could not be written.
            inner.stop.pause(STEP);
        }
    }

    /// Begins a segment when the present one is long enough, and deletes those that the hand has caught up
    /// with.
    fn keep_journal(&mut self, inner: &Inner, clocks: &Clocks, pressure: f64) {
        let Some(journal) = &inner.journal else {
            return;
        };
        if Instant::now() < self.journal_after || journal.is_paused() {
            return;
        }
        let place = self.hand.place();
        let is_long = self.rotated.elapsed() >= self.segment.mul_f64(pressure.max(0.1));
        let begins = is_long && self.open.len() < MOST_OPEN && journal.has_points();
        let caught_up = |(_, end): &(Rotation, Place)| place >= end.lap_later();
        let released = self.open.iter().take_while(|open| caught_up(open)).count();
        if released == 0 && !begins {
            return;
        }
        let mut kept = Ok(());
        if let Some((rotation, _)) = released.checked_sub(1).and_then(|last| self.open.get(last)) {
            let mut persister = inner.persister.lock();
            let stuck = persister.take_stuck();
            kept = inner.release(&mut persister, clocks, *rotation, &stuck);
            match &kept {
                Ok(()) => drop(self.open.drain(..released)),
                Err(_) => persister.stick(&stuck),
            }
        }
        if kept.is_ok() && begins {
            kept = inner.begin_segment(journal).map(|rotation| {
                self.open.push_back((rotation, place));
                self.rotated = Instant::now();
            });
        }
        let state = kept.map_err(|error: Error| error.to_string());
        if state.is_err() {
            self.journal_after = Instant::now() + GUARD_EVERY;
        }
        inner.note("checkpoint", state);
    }
}
