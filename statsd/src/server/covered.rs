//! How many intervals a flush covers.
//!
//! One, nearly always. A flush that is late by whole intervals, because the process was stopped, the machine was
//! suspended or an output was slow, has the values of all of them.
//!
//! Setting the wall clock does not make a flush late: the ends of intervals are compared on `CLOCK_BOOTTIME`, which
//! nobody sets and which counts while the machine sleeps.

use rustix::time::{ClockId, clock_gettime};

/// The end of the last interval that was flushed.
#[derive(Debug)]
pub(super) struct Covered {
    interval_ms: u64,
    /// By the clock that nobody sets.
    ended_ms: i64,
}

/// Now by the clock that nobody sets, in milliseconds.
pub(super) fn uptime_ms() -> i64 {
    let time = clock_gettime(ClockId::Boottime);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

impl Covered {
    /// The first flush covers what comes after the interval's end `ago_ms` before `uptime_ms`.
    pub(super) fn after(interval_ms: u64, ago_ms: u64, uptime_ms: i64) -> Self {
        Self {
            interval_ms,
            ended_ms: before(uptime_ms, ago_ms),
        }
    }

    /// How many intervals end with the one that ended `ago_ms` before `uptime_ms`.
    pub(super) fn until(&mut self, ago_ms: u64, uptime_ms: i64) -> u64 {
        let end = before(uptime_ms, ago_ms);
        let since = end.saturating_sub(self.ended_ms).max(0) as u64;
        self.ended_ms = end;
        // The clocks differ by some milliseconds.
        (since.saturating_add(self.interval_ms / 2) / self.interval_ms).max(1)
    }
}

fn before(uptime_ms: i64, ago_ms: u64) -> i64 {
    uptime_ms.saturating_sub_unsigned(ago_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Intervals of 10 s that end at multiples of 10 s by the clock on the wall; the other one is 1 s behind.
    fn covered(flushes: &[(i64, i64, u64)]) -> Vec<u64> {
        let mut covered = Covered::after(10_000, 4_000, 3_000);
        let mut until = |(wall, uptime, end): &(i64, i64, u64)| {
            let ago = (*wall as u64).saturating_sub(*end);
            covered.until(ago, *uptime)
        };
        flushes.iter().map(&mut until).collect()
    }

    #[test]
    fn a_flush_covers_the_intervals_that_were_missed_too() {
        // (now by the wall, now by the other clock, end of the interval)
        let flushes = [
            (10_003, 9_003, 10_000),
            (19_998, 18_999, 20_000),
            // Late, but by no interval.
            (39_900, 38_900, 30_000),
            (40_001, 39_001, 40_000),
            // Stopped until 95 s: the values of 50, 60, 70, 80 and 90 s.
            (95_000, 94_000, 90_000),
            (100_001, 99_001, 100_000),
        ];
        assert_eq!(covered(&flushes), [1, 1, 1, 1, 5, 1]);
        // The first one is late.
        assert_eq!(covered(&[(33_000, 32_000, 30_000)]), [3]);
    }

    #[test]
    fn a_clock_that_is_set_is_no_lateness() {
        let hour = 3_600_000;
        let flushes = [
            (10_001, 9_001, 10_000),
            // Forward by an hour, within the interval.
            (hour + 14_000, 13_000, hour as u64 + 10_000),
            (hour + 20_000, 19_000, hour as u64 + 20_000),
            // Back again.
            (30_000, 29_000, 30_000),
            (40_000, 39_000, 40_000),
        ];
        assert_eq!(covered(&flushes), [1, 1, 1, 1, 1]);
    }
}
