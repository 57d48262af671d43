//! The open intervals of one output series.
//!
//! 1. An interval opens with its first point. It is emitted when it is over, and again [`GATHER`]
//!    seconds after a point that came late. One that lies in the future is emitted a frequency after
//!    its first point.
//! 2. It closes when it is over and has had no point for [`Timing::keep`] seconds. Closed intervals are
//!    remembered as ranges: a point for one of them is refused, because an aggregate of the late points
//!    alone would take the place of the right one.
//! 3. An interval of the future closes an hour after its last point and is not remembered: it will be
//!    the present.
//! 4. What has changed since it was saved is known ([`Buffer::save`]). An interval that was read back is
//!    emitted again ([`Buffer::resume`]): what was emitted of it last is not known.

use super::method::{Method, Values};
use super::writer::Writer;

/// How long late points are gathered before their interval is emitted again, at most; in seconds.
const GATHER: i64 = 5;
/// How long an interval of the future stays open without points, at least; in seconds.
const FUTURE: i64 = 3_600;
/// Most open intervals of a series. Only points of the future, or years of old points at once, can open
/// as many.
const MAX_OPEN: usize = 1_024;
/// Ranges of closed intervals that are remembered. When there are more, the two closest become one.
const MAX_RANGES: usize = 16;
/// Kept values that count as much as an open interval, for limits.
const VALUES: usize = 64;

/// How a rule's intervals are timed.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The length of an interval in seconds.
    pub frequency: i64,
    /// For how many intervals without a point an interval stays open (MAX_AGGREGATION_INTERVALS).
    pub late: i64,
}

impl Timing {
    /// How long after its end and its last point an interval stays open.
    fn keep(&self) -> i64 {
        // carbon looks at each multiple of the frequency only, which may be one interval later.
        (self.late + 1) * self.frequency
    }
}

/// What became of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is part of an open interval.
    Taken,
    /// Its interval is closed.
    Late,
    /// There is no room for a new interval.
    Full,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Sorted by start.
    open: Vec<Interval>,
    /// First and last start of closed intervals; sorted, apart from each other.
    closed: Vec<(i64, i64)>,
    /// When the last point came.
    touched: i64,
    /// Whether anything has changed since it was saved.
    changed: bool,
    /// Intervals that were saved and are no longer open.
    ended: Vec<i64>,
    /// Whether `closed` has changed since it was saved.
    closed_changed: bool,
}

#[derive(Debug)]
struct Interval {
    start: i64,
    values: Values,
    /// How many of the kept values are saved.
    values_saved: usize,
    /// It has changed since it was saved.
    changed: bool,
    /// It was saved before.
    saved: bool,
    /// When the last point came.
    touched: i64,
    /// When it is due; `None` while it has nothing new.
    due: Option<i64>,
}

impl Buffer {
    /// Adds a point of the interval that begins at `start`. `room` is asked when another interval is
    /// opened, and for each [`VALUES`] values that are kept.
    pub fn add(
        &mut self,
        (timing, method): (Timing, Method),
        start: i64,
        value: f64,
        now: i64,
        mut room: impl FnMut() -> bool,
    ) -> Added {
        let at = match self.open.binary_search_by_key(&start, |open| open.start) {
            Ok(at) => at,
            Err(_) if self.is_closed(start) => return Added::Late,
            Err(_) if self.open.len() >= MAX_OPEN || !room() => return Added::Full,
            Err(at) => {
                self.open.insert(at, Interval::new(start, now));
                at
            }
        };
        let open = &mut self.open[at];
        let kept = open.values.kept();
        if kept > 0 && kept.is_multiple_of(VALUES) && !room() {
            return Added::Full;
        }
        open.values.add(method, value);
        open.touched = now;
        open.changed = true;
        self.touched = now;
        self.changed = true;
        if open.due.is_none() {
            let end = start + timing.frequency;
            open.due = Some(match end > now {
                true => end.min(now + timing.frequency),
                false => now + GATHER.min(timing.frequency),
            });
        }
        Added::Taken
    }

    /// Emits the intervals that are due at `now` (all that have something new, if `all`) and closes
    /// those whose time is over; how much room they gave back.
    pub fn emit(
        &mut self,
        (timing, method): (Timing, Method),
        now: i64,
        all: bool,
        mut emit: impl FnMut(i64, f64),
    ) -> usize {
        let mut given_back = 0;
        let mut closing = Vec::new();
        let ended = &mut self.ended;
        self.open.retain_mut(|open| {
            if open.due.is_some_and(|due| due <= now || all) {
                open.due = None;
                emit(open.start, open.values.result(method));
            }
            let end = open.start + timing.frequency;
            let in_future = open.start > now;
            let until = match in_future {
                true => open.touched + FUTURE.max(timing.keep()),
                false => open.touched.max(end) + timing.keep(),
            };
            let stays = open.due.is_some() || now < until;
            if !stays {
                given_back += weight(&open.values);
                if open.saved {
                    ended.push(open.start);
                }
                if !in_future {
                    closing.push(open.start);
                }
            }
            stays
        });
        self.changed |= !self.ended.is_empty();
        for start in closing {
            self.close(start, timing.frequency);
        }
        given_back
    }

    /// Whether anything has changed since it was saved.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether there is nothing to save.
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.closed.is_empty()
    }

    /// Writes what has changed since the last call; everything, if `all`.
    pub(super) fn save(&mut self, all: bool, writer: &mut Writer<'_>) {
        for start in std::mem::take(&mut self.ended) {
            if !all {
                writer.ended(start);
            }
        }
        for open in &mut self.open {
            if all || open.changed {
                let from = if all { 0 } else { open.values_saved };
                writer.interval(open.start, open.touched, &open.values, from);
                open.values_saved = open.values.kept();
                open.changed = false;
                open.saved = true;
            }
        }
        if self.closed_changed || (all && !self.closed.is_empty()) {
            writer.closed(self.touched, &self.closed);
        }
        self.closed_changed = false;
        self.changed = false;
    }

    /// Sets an interval that was saved; `added` are kept values since its last record.
    pub(super) fn set(
        &mut self,
        start: i64,
        touched: i64,
        (count, total): (u64, f64),
        added: impl Iterator<Item = f64>,
    ) {
        let at = match self.open.binary_search_by_key(&start, |open| open.start) {
            Ok(at) => at,
            Err(at) => {
                self.open.insert(at, Interval::new(start, touched));
                at
            }
        };
        let open = &mut self.open[at];
        open.values.restore(count, total, added);
        open.touched = touched;
        self.touched = self.touched.max(touched);
    }

    /// Removes an interval that was saved.
    pub(super) fn forget(&mut self, start: i64) {
        self.open.retain(|open| open.start != start);
    }

    /// Sets which intervals are closed.
    pub(super) fn set_closed(&mut self, touched: i64, ranges: Vec<(i64, i64)>) {
        self.closed = ranges;
        self.touched = self.touched.max(touched);
    }

    /// What was read back goes on at `now`: each interval is emitted when it is over, or at once.
    pub(super) fn resume(&mut self, timing: Timing, now: i64) {
        for open in &mut self.open {
            let end = open.start + timing.frequency;
            open.due = Some(match end > now {
                true => end.min(now + timing.frequency),
                false => now,
            });
        }
    }

    /// The room that its intervals take.
    pub fn weight(&self) -> usize {
        self.open.iter().map(|open| weight(&open.values)).sum()
    }

    /// Open intervals, and the values in them.
    pub fn len(&self) -> (usize, u64) {
        let values = self.open.iter().map(|open| open.values.count());
        (self.open.len(), values.sum())
    }

    /// Whether nothing is open, and the last point came more than an hour and the time of 60 intervals
    /// ago: there is no need to remember what is closed.
    pub fn is_idle(&self, timing: Timing, now: i64) -> bool {
        let memory = FUTURE.max(60 * timing.frequency);
        self.open.is_empty() && now > self.touched + memory
    }

    fn is_closed(&self, start: i64) -> bool {
        let mut ranges = self.closed.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&start))
    }

    /// Remembers that the interval from `start` on is closed.
    fn close(&mut self, start: i64, frequency: i64) {
        self.closed_changed = true;
        self.changed = true;
        let at = self.closed.partition_point(|(first, _)| *first <= start);
        self.closed.insert(at, (start, start));
        // Neighbours become one; so do the two closest, if there are too many.
        let gap = |pair: &[(i64, i64)]| pair[1].0 - pair[0].1;
        let mut at = 0;
        while at + 1 < self.closed.len() {
            if gap(&self.closed[at..=at + 1]) <= frequency {
                self.join(at);
            } else {
                at += 1;
            }
        }
        while self.closed.len() > MAX_RANGES {
            let gaps = self.closed.windows(2).map(gap).enumerate();
            let Some((at, _)) = gaps.min_by_key(|(_, gap)| *gap) else {
                return;
            };
            self.join(at);
        }
    }

    /// Makes one of the ranges `at` and `at + 1`.
    fn join(&mut self, at: usize) {
        let (_, last) = self.closed.remove(at + 1);
        self.closed[at].1 = last.max(self.closed[at].1);
    }
}

impl Interval {
    fn new(start: i64, touched: i64) -> Self {
        Self {
            start,
            values: Values::default(),
            values_saved: 0,
            changed: false,
            saved: false,
            touched,
            due: None,
        }
    }
}

/// The room that the values of an interval take: 1, and 1 more for every [`VALUES`] that are kept.
fn weight(values: &Values) -> usize {
    1 + values.kept().saturating_sub(1) / VALUES
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        frequency: 10,
        late: 5,
    };
    const SUM: (Timing, Method) = (TIMING, Method::Sum);

    fn add(buffer: &mut Buffer, start: i64, value: f64, now: i64) -> Added {
        buffer.add(SUM, start, value, now, || true)
    }

    fn emit(buffer: &mut Buffer, now: i64) -> Vec<(i64, f64)> {
        let mut emitted = Vec::new();
        buffer.emit(SUM, now, false, |start, value| emitted.push((start, value)));
        emitted
    }

    #[test]
    fn an_interval_is_emitted_when_it_is_over_and_after_late_points() {
        let mut buffer = Buffer::default();
        add(&mut buffer, 100, 1.0, 101);
        add(&mut buffer, 100, 2.0, 108);
        assert_eq!(emit(&mut buffer, 109), []);
        assert_eq!(emit(&mut buffer, 110), [(100, 3.0)]);
        assert_eq!(emit(&mut buffer, 111), []);
        assert_eq!(add(&mut buffer, 100, 4.0, 112), Added::Taken);
        assert_eq!(add(&mut buffer, 100, 4.0, 115), Added::Taken);
        assert_eq!(emit(&mut buffer, 116), []);
        assert_eq!(emit(&mut buffer, 117), [(100, 11.0)]);
    }

    #[test]
    fn points_for_a_closed_interval_are_refused_and_older_ones_are_not() {
        let mut buffer = Buffer::default();
        add(&mut buffer, 100, 1.0, 101);
        add(&mut buffer, 110, 1.0, 111);
        assert_eq!(emit(&mut buffer, 120).len(), 2);
        emit(&mut buffer, 169);
        assert_eq!(buffer.len().0, 2);
        emit(&mut buffer, 170);
        assert_eq!(buffer.len().0, 1);
        assert_eq!(add(&mut buffer, 100, 1.0, 170), Added::Late);
        emit(&mut buffer, 180);
        assert_eq!(buffer.closed, [(100, 110)]);
        // A queue that is sent late: those intervals were never made.
        assert_eq!(add(&mut buffer, 50, 1.0, 181), Added::Taken);
        assert_eq!(emit(&mut buffer, 186), [(50, 1.0)]);
        assert_eq!(add(&mut buffer, 50, 1.0, 200), Added::Taken);
        assert_eq!(emit(&mut buffer, 205), [(50, 2.0)]);
    }

    #[test]
    fn the_future_is_emitted_soon_and_becomes_the_present() {
        let mut buffer = Buffer::default();
        assert_eq!(add(&mut buffer, 1_000_000, 1.0, 100), Added::Taken);
        assert_eq!(emit(&mut buffer, 110), [(1_000_000, 1.0)]);
        emit(&mut buffer, 100 + FUTURE);
        assert_eq!((buffer.len().0, buffer.closed.len()), (0, 0));
        assert_eq!(add(&mut buffer, 1_000_000, 1.0, 1_000_001), Added::Taken);
        assert!(!buffer.is_idle(TIMING, 1_000_001));
        emit(&mut buffer, 1_002_000);
        assert!(!buffer.is_idle(TIMING, 1_002_000));
        assert!(buffer.is_idle(TIMING, 1_004_000));
    }

    #[test]
    fn memory_is_bounded() {
        let mut buffer = Buffer::default();
        for start in 0..2_000 {
            let added = add(&mut buffer, start * 20, 1.0, 10);
            assert_eq!(added == Added::Taken, start < MAX_OPEN as i64);
        }
        assert_eq!(buffer.weight(), MAX_OPEN);
        let given_back = buffer.emit(SUM, 1_000_000, true, |_, _| {});
        assert_eq!((given_back, buffer.weight()), (MAX_OPEN, 0));
        assert_eq!(buffer.closed.len(), MAX_RANGES);
        // Percentiles keep their values, which count as intervals do.
        let median = (TIMING, Method::Percentile(0.5));
        let mut room = 3;
        let mut ask = || {
            room -= i32::from(room > 0);
            room > 0
        };
        let taken = (0..500).filter(|n| {
            let added = buffer.add(median, 2_000_000, f64::from(*n), 2_000_000, &mut ask);
            added == Added::Taken
        });
        assert_eq!(taken.count(), 2 * VALUES);
        assert_eq!(buffer.weight(), 2);
    }
}
