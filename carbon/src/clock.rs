//! The clock that decides how old a point is.
//!
//! A file has an archive for each age, and no place for points older than all of them. A wall clock
//! that is wrong for a while must not make good points too old:
//!
//! 1. The monotonic clock checks the wall clock ([`Steady`]): a jump of more than [`TOLERANCE`] is
//!    believed after it has lasted for [`BELIEVED`]. Until then there are two clocks, one with the
//!    jump and one without.
//! 2. With several clocks, the age of a point is taken from the earliest clock that has reached its
//!    timestamp ([`Clocks::of`]), so that no point counts as older than it can be. A point ahead of all
//!    clocks goes into the finest archive in any case.
//! 3. A point that waits in the cache has the age that it had when it came: its clock is that of its arrival
//!    ([`Clocks::arrival`]). If the clock has jumped since then, both clocks apply.
//! 4. Each frame of the journal has the earliest clock of its time. For a run of frames that is ahead of
//!    the frames before and after it, the clocks of these frames apply as well ([`judge`]).

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use whisper::{Arrival, Timestamp};

/// Seconds by which two clocks may differ and still count as one.
const TOLERANCE: u32 = 60;
/// How long a jump must last until the clock is believed.
const BELIEVED: Duration = Duration::from_secs(600);

/// The clocks that may be right, ascending. Nearly always one; at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clocks {
    all: [Timestamp; 3],
    count: usize,
}

impl Clocks {
    /// A single clock.
    pub(crate) fn one(clock: Timestamp) -> Self {
        Self {
            all: [clock; 3],
            count: 1,
        }
    }

    /// These and `other`, if they are not three already.
    fn and(mut self, other: Timestamp) -> Self {
        if self.count < self.all.len() && !self.each().any(|clock| clock == other) {
            self.all[self.count] = other;
            self.count += 1;
            self.all[..self.count].sort_unstable();
        }
        self
    }

    /// The clocks, ascending.
    pub(crate) fn each(&self) -> impl Iterator<Item = Timestamp> {
        self.all.into_iter().take(self.count)
    }

    /// The earliest.
    pub(crate) fn earliest(&self) -> Timestamp {
        self.all[0]
    }

    /// The clock that decides how old a point with the timestamp `at` is.
    pub(crate) fn of(&self, at: Timestamp) -> Timestamp {
        let reached = |clock: &Timestamp| clock.0.saturating_add(TOLERANCE) >= at.0;
        self.each()
            .find(reached)
            .unwrap_or(self.all[self.count - 1])
    }

    /// The clock, if there is only one.
    pub(crate) fn single(&self) -> Option<Timestamp> {
        (self.count == 1).then_some(self.all[0])
    }

    /// The arrival of points of which the first came at the clock `since`, `age()` ago by the monotonic clock.
    /// `None`: several clocks may be right, or the clock has jumped meanwhile.
    pub(crate) fn arrival(
        &self,
        since: Timestamp,
        age: impl FnOnce() -> Duration,
    ) -> Option<Arrival> {
        let now = self.single()?;
        let waited = now.0.saturating_sub(since.0);
        if is_near(now, since) {
            return Some(Arrival {
                since: since.min(now),
                now,
            });
        }
        let is_true =
            now > since && age().as_secs().abs_diff(u64::from(waited)) <= TOLERANCE.into();
        is_true.then_some(Arrival { since, now })
    }

    /// These, and the clock of an arrival unless it is near one of them.
    pub(crate) fn and_arrival(self, since: Timestamp) -> Self {
        match self.each().any(|clock| is_near(clock, since)) {
            true => self,
            false => self.and(since),
        }
    }

    /// Whether points that belong to these clocks can be written together with points that belong to
    /// `next`, by `next`.
    pub(crate) fn leads_to(&self, next: &Self) -> bool {
        match (self.single(), next.single()) {
            (Some(this), Some(next)) => this <= next && is_near(this, next),
            _ => self == next,
        }
    }
}

fn is_near(a: Timestamp, b: Timestamp) -> bool {
    a.0.abs_diff(b.0) <= TOLERANCE
}

/// Checks the wall clock against the monotonic one.
#[derive(Debug, Default)]
pub(crate) struct Steady(Mutex<Option<State>>);

#[derive(Clone, Copy, Debug)]
struct State {
    /// The wall clock when it was last believed, and the monotonic clock at that time.
    wall: Timestamp,
    at: Instant,
    /// Since when the wall clock has differed from the expected time.
    jumped: Option<Instant>,
}

impl Steady {
    /// The clocks that may be right while the wall clock reads `wall`.
    pub(crate) fn clocks(&self, wall: Timestamp) -> Clocks {
        self.clocks_at(wall, Instant::now())
    }

    fn clocks_at(&self, wall: Timestamp, now: Instant) -> Clocks {
        let believed = State {
            wall,
            at: now,
            jumped: None,
        };
        let mut state = self.0.lock();
        let state = state.get_or_insert(believed);
        // `now` may be earlier than that of another thread that was here before.
        let elapsed = now.saturating_duration_since(state.at).as_secs();
        let elapsed = u32::try_from(elapsed).unwrap_or(u32::MAX);
        let expected = Timestamp(state.wall.0.saturating_add(elapsed));
        let since = *state.jumped.get_or_insert(now);
        if is_near(wall, expected) || now.saturating_duration_since(since) >= BELIEVED {
            *state = believed;
            return Clocks::one(wall);
        }
        Clocks::one(wall).and(expected)
    }
}

/// A run of frames of a journal whose clocks are close to each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Era {
    first: Timestamp,
    last: Timestamp,
    /// The number of frames.
    pub(crate) frames: u64,
    /// `None`: each frame has its own clock.
    judged_by: Option<Clocks>,
}

impl Era {
    /// The clocks of a frame of this era whose own clock is `clock`.
    pub(crate) fn clocks(&self, clock: Timestamp) -> Clocks {
        self.judged_by.unwrap_or(Clocks::one(clock))
    }
}

/// Adds the next frame's clock to the eras of a journal.
pub(crate) fn push(eras: &mut Vec<Era>, clock: Timestamp) {
    match eras.last_mut() {
        Some(era) if is_near(era.last, clock) => {
            era.last = clock;
            era.frames += 1;
        }
        _ => eras.push(Era {
            first: clock,
            last: clock,
            frames: 1,
            judged_by: None,
        }),
    }
}

/// Finds the eras that are ahead of both the era before and the era after them; `now` is the clock after
/// the last era.
pub(crate) fn judge(eras: &mut [Era], now: Timestamp) {
    let is_ahead = |clock: Timestamp, of: Timestamp| clock > of && !is_near(clock, of);
    // The earliest clock after each era.
    let mut after = vec![now; eras.len()];
    let mut earliest = now;
    for (after, era) in after.iter_mut().zip(&*eras).rev() {
        *after = earliest;
        earliest = earliest.min(era.first).min(era.last);
    }
    let mut before: Option<Timestamp> = None;
    let mut stray = Vec::new();
    for (at, era) in eras.iter_mut().enumerate() {
        // No clock is known from before the first era: the present one takes its place.
        let jumped = is_ahead(era.first, before.unwrap_or(now));
        if jumped && is_ahead(era.first, after[at]) {
            let own = Clocks::one(era.last);
            era.judged_by = Some(before.map_or(own, |before| own.and(before)));
            stray.push(at);
        } else {
            before = Some(era.last);
        }
    }
    for at in stray {
        let next = eras[at + 1..].iter().find(|era| era.judged_by.is_none());
        let next = next.map_or(now, |era| era.first);
        let era = &mut eras[at];
        era.judged_by = era.judged_by.map(|clocks| clocks.and(next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: u32 = 1_700_000_000;
    const HOUR: u32 = 3_600;
    const YEARS: u32 = 10 * 365 * 86_400;

    fn all(clocks: Clocks) -> Vec<u32> {
        clocks.each().map(|clock| clock.0).collect()
    }

    #[test]
    fn a_jump_is_believed_when_it_has_lasted() {
        let steady = Steady::default();
        let start = Instant::now();
        let at = |seconds: u64, wall: u32| {
            let now = start + Duration::from_secs(seconds);
            all(steady.clocks_at(Timestamp(wall), now))
        };
        assert_eq!(at(0, T), [T]);
        assert_eq!(at(10, T + 9), [T + 9], "small steps are followed");
        for wall in [T + YEARS, T - 7 * HOUR] {
            let mut expected = vec![T + 10, wall];
            expected.sort_unstable();
            assert_eq!(at(11, wall), expected);
            assert_eq!(at(11, T + 10), [T + 10], "and back");
        }
        let jumped = T + HOUR;
        assert_eq!(at(12, jumped), [T + 11, jumped]);
        assert_eq!(at(611, jumped + 599), [T + 610, jumped + 599]);
        assert_eq!(at(612, jumped + 600), [jumped + 600]);
        assert_eq!(at(613, jumped + 601), [jumped + 601]);
    }

    #[test]
    fn a_point_is_never_taken_for_older_than_it_may_be() {
        let clocks = Clocks::one(Timestamp(T)).and(Timestamp(T + YEARS));
        let of = |at: u32| clocks.of(Timestamp(at)).0;
        assert_eq!(of(T - HOUR), T);
        assert_eq!(of(T + TOLERANCE), T);
        assert_eq!(of(T + HOUR), T + YEARS);
        assert_eq!(of(T + YEARS + HOUR), T + YEARS);
    }

    #[test]
    fn points_that_waited_have_the_clock_of_their_arrival() {
        let clocks = Clocks::one(Timestamp(T));
        let arrival = |since: u32, age: u64| {
            let arrival = clocks.arrival(Timestamp(since), || Duration::from_secs(age));
            arrival.map(|arrival| (arrival.since.0, arrival.now.0))
        };
        assert_eq!(arrival(T - 300, 301), Some((T - 300, T)));
        assert_eq!(arrival(T + 5, 300), Some((T, T)), "a small step back");
        assert_eq!(arrival(T - HOUR, 300), None, "a jump forward meanwhile");
        assert_eq!(arrival(T + HOUR, 300), None, "a jump back meanwhile");
        let both = clocks.and(Timestamp(T + HOUR));
        assert_eq!(both.arrival(Timestamp(T), || Duration::ZERO), None);
    }

    /// The clocks of frames that say `said`, read back at `now`.
    fn judged(said: &[u32], now: u32) -> Vec<Vec<u32>> {
        let mut eras = Vec::new();
        for clock in said {
            push(&mut eras, Timestamp(*clock));
        }
        judge(&mut eras, Timestamp(now));
        let mut said = said.iter();
        let mut found = Vec::new();
        for era in eras {
            let frames = said.by_ref().take(era.frames as usize);
            found.extend(frames.map(|clock| all(era.clocks(Timestamp(*clock)))));
        }
        found
    }

    #[test]
    fn frames_ahead_of_both_neighbours_are_judged_by_them_too() {
        for jump in [120, HOUR, 7 * HOUR, 86_400, YEARS] {
            let ahead = T + jump;
            assert_eq!(
                judged(&[T, ahead, ahead + 1, T + 5], T + 100),
                [
                    vec![T],
                    vec![T, T + 5, ahead + 1],
                    vec![T, T + 5, ahead + 1],
                    vec![T + 5],
                ]
            );
            // Killed while it was ahead, and begun while it was ahead.
            assert_eq!(judged(&[T, ahead], T + 7), [vec![T], vec![T, T + 7, ahead]]);
            assert_eq!(judged(&[ahead, T], T + 7), [vec![T, ahead], vec![T]]);
        }
        // Two jumps on end.
        assert_eq!(
            judged(&[T, T + HOUR, T + YEARS, T + 9], T + 9)[1],
            [T, T + 9, T + HOUR]
        );
    }

    #[test]
    fn frames_that_nothing_speaks_against_are_judged_by_their_own_clock() {
        // A quiet night, a clock that was corrected, a clock that went back briefly.
        for said in [
            [T, T + 8 * HOUR, T + 9 * HOUR],
            [HOUR, T, T + 1],
            [T, T - 7 * HOUR, T + 2],
        ] {
            let expected: Vec<_> = said.iter().map(|clock| vec![*clock]).collect();
            assert_eq!(judged(&said, T + 10 * HOUR), expected);
        }
        // A machine without a clock of its own, just started.
        assert_eq!(
            judged(&[T, T + 1], 100),
            [vec![100, T + 1], vec![100, T + 1]]
        );
    }
}
