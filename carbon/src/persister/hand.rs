//! Which series are written next, while points may wait for minutes.
//!
//! 1. The hand goes round all blocks of ids in a lap, at a pace that is as even as the series that wait
//!    ahead of it. So each series is written once a lap with all its points, and not all series at once.
//! 2. A lap takes `carbon.persist_within` but for a few seconds ([`SPARE`]), or less: under pressure (cache or
//!    journal are filling up) it takes that share of it.
//! 3. Blocks whose first point has waited for nearly `persist_within` are written wherever the hand is. What
//!    could not be written is tried again every [`RETRY`].
//! 4. A series with very many points is written at once: to wait longer would not make a point cheaper.
//! 5. After a lap ([`Hand::place`]), every point that was in the cache when it began is in its file, or its
//!    series is among those that could not be written.

use std::time::{Duration, Instant};

use crate::cache::{BlockWaiting, Cache, Waiting};

/// What a lap leaves of `persist_within`, and at most a tenth of it: for blocks that the hand reaches later than
/// in the lap before. A visit costs the same with more points, so it is short.
const SPARE: Duration = Duration::from_secs(6);
/// How long before its end the wait of a block is over: a step of the persister, and its resolution.
const MARGIN: Duration = Duration::from_millis(600);
/// After this long, what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The place of the persister on its way round the series.
#[derive(Debug)]
pub(crate) struct Hand {
    within: Duration,
    /// The next block.
    block: usize,
    lap: u64,
    begun: Instant,
    moved: Instant,
    /// Series that the pace allows, and that the next block was too large for.
    credit: f64,
    blocks: Vec<BlockWaiting>,
}

/// A place on the way: laps, and the next block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    lap: u64,
    block: usize,
}

impl Place {
    /// The same place a lap later.
    pub(crate) fn lap_later(self) -> Self {
        Self {
            lap: self.lap + 1,
            ..self
        }
    }
}

impl Hand {
    /// A hand for which points wait for `within` at most.
    pub(crate) fn new(within: Duration) -> Self {
        let now = Instant::now();
        Self {
            within,
            block: 0,
            lap: 0,
            begun: now,
            moved: now,
            credit: 0.0,
            blocks: Vec::new(),
        }
    }

    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        Place {
            lap: self.lap,
            block: self.block,
        }
    }

    /// All series that waited when this lap was at the present block have been written, or tried.
    pub(crate) fn lap_is_done(&mut self) {
        self.lap += 1;
        self.begun = Instant::now();
        self.credit = 0.0;
    }

    /// Moves on, and appends the series to `into` that are to be written now. With a `pressure` of 1 a lap
    /// takes its full time, with 0 none.
    pub(crate) fn go_on(&mut self, cache: &Cache, pressure: f64, into: &mut Vec<Waiting>) {
        self.go_on_at(Instant::now(), cache, pressure, into);
    }

    fn go_on_at(&mut self, now: Instant, cache: &Cache, pressure: f64, into: &mut Vec<Waiting>) {
        let elapsed = now.saturating_duration_since(self.moved);
        self.moved = now;
        let lap = self.within - SPARE.min(self.within / 10);
        let lap = lap.mul_f64(pressure.clamp(0.0, 1.0));
        let left = lap.saturating_sub(now.saturating_duration_since(self.begun));
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.clear();
        cache.blocks(&mut blocks);
        let ahead = blocks.partition_point(|waiting| waiting.block < self.block);
        let waiting: usize = blocks[ahead..].iter().map(|waiting| waiting.count).sum();
        let share = elapsed.as_secs_f64() / (elapsed + left).as_secs_f64().max(f64::MIN_POSITIVE);
        self.credit += (waiting as f64 - self.credit).max(0.0) * share.min(1.0);
        let mut swept = ahead;
        for found in &blocks[ahead..] {
            // Half a series for the sums of fractions.
            if !left.is_zero() && found.count as f64 > self.credit + 0.5 {
                break;
            }
            self.credit -= found.count as f64;
            cache.sweep_block(found.block, into);
            self.block = found.block + 1;
            swept += 1;
        }
        let is_due = |found: &&BlockWaiting| {
            found.age + MARGIN >= self.within && found.swept >= RETRY.min(self.within)
        };
        let others = blocks[..ahead].iter().chain(&blocks[swept..]);
        for found in others.filter(is_due) {
            cache.sweep_block(found.block, into);
        }
        cache.take_ripe(into);
        self.blocks = blocks;
        if left.is_zero() {
            self.lap += 1;
            self.block = 0;
            self.begun = now;
            self.credit = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapoint::{Datapoint, PointTime, SeriesId};
    use whisper::Timestamp;

    const WITHIN: Duration = Duration::from_secs(300);
    const BLOCK: u32 = 1_024;

    fn add(cache: &Cache, id: u32, ago: Duration) {
        let point = Datapoint {
            series: SeriesId(id),
            at: PointTime::new(Timestamp(100)).unwrap(),
            value: 1.0,
        };
        assert_eq!(cache.reserve(1), 1);
        let since = cache.since(Timestamp(100), ago);
        cache.insert_since(&[point], || since, &mut Vec::new());
    }

    fn write(cache: &Cache, written: &[Waiting]) {
        for one in written {
            cache.take(one.series, &mut Vec::new());
            cache.done(one.series);
        }
    }

    /// Moves the hand every second for `seconds`. The series written in each, by which `each` is called.
    fn run(hand: &mut Hand, cache: &Cache, seconds: u64, mut each: impl FnMut(u64, &[Waiting])) {
        let start = hand.moved;
        let mut into = Vec::new();
        for second in 1..=seconds {
            into.clear();
            hand.go_on_at(start + Duration::from_secs(second), cache, 1.0, &mut into);
            write(cache, &into);
            each(second, &into);
        }
    }

    #[test]
    fn each_series_is_written_once_a_lap_at_an_even_pace() {
        let cache = Cache::new(64 << 20);
        let mut hand = Hand::new(WITHIN);
        let fill = || (0..100 * BLOCK).for_each(|id| add(&cache, id, Duration::ZERO));
        for _lap in 0..2 {
            fill();
            let (mut most, mut all) = (0, 0);
            run(&mut hand, &cache, 294, |_, written| {
                most = most.max(written.len());
                all += written.len();
            });
            assert_eq!(all, 100 * BLOCK as usize);
            assert_eq!(most, BLOCK as usize, "never two blocks in a second");
            assert_eq!(hand.block, 0);
        }
        assert_eq!(hand.lap, 2);
    }

    #[test]
    fn a_few_series_are_written_once_a_lap() {
        let cache = Cache::new(1 << 20);
        let mut hand = Hand::new(WITHIN);
        let mut seconds = Vec::new();
        run(&mut hand, &cache, 700, |second, written| {
            if !written.is_empty() {
                seconds.push(second);
            }
            if second % 10 == 0 {
                add(&cache, 5, Duration::ZERO);
            }
        });
        assert!((2..=3).contains(&seconds.len()), "{seconds:?}");
    }

    #[test]
    fn what_has_waited_for_long_is_written_wherever_the_hand_is() {
        let cache = Cache::new(1 << 20);
        let mut hand = Hand::new(WITHIN);
        add(&cache, 50 * BLOCK, Duration::ZERO);
        add(&cache, 3 * BLOCK, WITHIN);
        hand.block = 40;
        run(&mut hand, &cache, 1, |_, written| {
            let series: Vec<u32> = written.iter().map(|one| one.series.0).collect();
            assert_eq!(series, [3 * BLOCK]);
        });
    }

    #[test]
    fn under_full_pressure_everything_is_written_at_once() {
        let cache = Cache::new(1 << 20);
        let mut hand = Hand::new(WITHIN);
        (0..20).for_each(|n| add(&cache, n * BLOCK, Duration::ZERO));
        let before = hand.place();
        let mut into = Vec::new();
        hand.go_on_at(hand.moved, &cache, 0.0, &mut into);
        assert_eq!(into.len(), 20);
        assert!(hand.place() >= before.lap_later());
    }
}
