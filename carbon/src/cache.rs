//! Datapoints that are not in their file yet. Queries read them here.
//!
//! 1. The points of a series are a chain: the newest as it is, the others coded in chunks ([`chain`]). The
//!    table of chains is indexed by id: nothing is hashed, and nothing is allocated per series.
//! 2. Ids are assigned to shards in blocks of 1,024. Points mostly arrive in the order of their ids, and
//!    then take one lock per block and not one per point.
//! 3. Points that the writer has taken ([`Cache::take`]) stay readable until it calls [`Cache::done`];
//!    points that it could not write go back to the front ([`Cache::put_back`]). A point is always here
//!    or in its file, so a reader looks here first and into the file second.
//! 4. Memory is bounded, in units of a chunk. Room is reserved before a point is taken
//!    ([`Cache::reserve`]), so the bound holds with any number of receivers.
//! 5. A series without points can be claimed ([`Cache::claim`]): new points are still accepted, and the
//!    writer waits for the end of the claim before it takes them.
//! 6. A block knows when the first point came that waits in it ([`Since`]), so that the writer can keep to
//!    an age without a time for each series.
//! 7. Of several points of a series with the same timestamp, the last to arrive wins. Readers and writers
//!    decide that; inserting compares nothing.

mod chain;

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use whisper::{Point, Timestamp};

use self::chain::{CHUNK_BYTES, Chain, Chunks, EMPTY, MOST_PER_POINT};
use crate::datapoint::{Datapoint, SeriesId};
use crate::signal::Signal;

/// A series with points takes as much as a chunk beside its chunks: its chain, and its share of tables. So
/// a further point takes at most one unit: the first of a series, or one that begins a chunk.
const UNIT_BYTES: usize = CHUNK_BYTES;
const _: () = assert!(size_of::<Chain>() <= UNIT_BYTES && MOST_PER_POINT == 1);

const SHARDS: usize = 16;
const BLOCK_BITS: u32 = 10;
const BLOCK: usize = 1 << BLOCK_BITS;
const NONE: u32 = u32::MAX;

/// A series with this many points is returned by [`Cache::take_ripe`]: to wait longer would not make the
/// write of a point cheaper.
const RIPE: u32 = 256;

/// The cache.
#[derive(Debug)]
pub struct Cache {
    /// When the cache was made.
    begun: Instant,
    shards: Box<[Mutex<Shard>]>,
    /// Units in use or reserved.
    used: AtomicUsize,
    max: usize,
    points: AtomicUsize,
    /// The series that is claimed, or [`NONE`].
    claimed: AtomicU32,
    /// Sent when a claim ends.
    unclaimed: Signal,
}

/// While it exists, the writer does not take the points of one series.
#[derive(Debug)]
pub(crate) struct Claim<'a>(&'a Cache);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.claimed.store(NONE, Ordering::Release);
        self.0.unclaimed.send();
    }
}

#[derive(Debug, Default)]
struct Shard {
    blocks: Vec<Option<Box<Block>>>,
    chunks: Chunks,
    /// Series that have points, those in a writer's hand counted once more.
    held: usize,
    /// Series that the next sweep returns.
    waiting: usize,
    /// Series that have become ripe since the last [`Cache::take_ripe`].
    ripe: Vec<u32>,
    in_hand: Vec<(u32, Chain)>,
}

/// The chains of consecutive ids.
#[derive(Debug)]
struct Block {
    /// Which of them the next sweep returns.
    waiting: [u64; BLOCK / 64],
    n_waiting: u32,
    /// When the first point came that waits here for the next sweep, or [`LATER`].
    since: Since,
    /// The clock when the points came that the last sweep returned, and the time of that sweep.
    swept: Since,
    chains: [Chain; BLOCK],
}

const EMPTY_BLOCK: Block = Block {
    waiting: [0; BLOCK / 64],
    n_waiting: 0,
    since: LATER,
    swept: NEVER,
    chains: [EMPTY; BLOCK],
};

/// When points came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The clock by which they were received.
    pub clock: Timestamp,
    /// Tenths of a second of [`Cache::ticks`].
    ticks: u32,
}

/// Later than anything.
const LATER: Since = Since {
    clock: Timestamp(u32::MAX),
    ticks: u32::MAX,
};

/// The sweep of a block that was never swept: long ago, and no points.
const NEVER: Since = Since {
    clock: Timestamp(u32::MAX),
    ticks: 0,
};

impl Since {
    /// The earlier one.
    fn min(self, other: Self) -> Self {
        Self {
            clock: self.clock.min(other.clock),
            ticks: self.ticks.min(other.ticks),
        }
    }
}

/// Where [`Cache::ticks`] begin: points of the journal are older than the cache.
const FIRST_TICK: u32 = 1 << 30;

/// A series that has points waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The series.
    pub series: SeriesId,
    /// How many points wait.
    pub count: u32,
    /// When the first of them came, or earlier.
    pub since: Since,
}

/// Consecutive series of which some wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockWaiting {
    /// Its number; series are numbered in the same order.
    pub(crate) block: usize,
    /// How many of its series wait.
    pub(crate) count: usize,
    /// How long the first point has waited.
    pub(crate) age: Duration,
    /// How long ago it was swept.
    pub(crate) swept: Duration,
}

fn shard_of(id: u32) -> usize {
    (id >> BLOCK_BITS) as usize % SHARDS
}

fn block_of(id: u32) -> usize {
    (id >> BLOCK_BITS) as usize / SHARDS
}

impl Cache {
    /// A cache of at most `max_bytes` of points.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            begun: Instant::now(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            used: AtomicUsize::new(0),
            max: (max_bytes / UNIT_BYTES).max(1),
            points: AtomicUsize::new(0),
            claimed: AtomicU32::new(NONE),
            unclaimed: Signal::default(),
        }
    }

    fn shard(&self, n: usize) -> MutexGuard<'_, Shard> {
        // A panic elsewhere does not poison the lock: a shard is consistent wherever code can panic.
        self.shards[n].lock()
    }

    /// Reserves room for up to `wanted` points and returns for how many there is room.
    /// [`Cache::insert`] gives unused room back.
    pub fn reserve(&self, wanted: usize) -> usize {
        let before = self.used.fetch_add(wanted, Ordering::Relaxed);
        let granted = self.max.saturating_sub(before).min(wanted);
        if granted < wanted {
            self.release(wanted - granted);
        }
        granted
    }

    /// Gives back the room of `reserved` points.
    pub fn release(&self, reserved: usize) {
        self.used.fetch_sub(reserved, Ordering::Relaxed);
    }

    /// Tenths of a second since some time before the cache was made.
    fn ticks(&self) -> u32 {
        let tenths = self.begun.elapsed().as_millis() / 100;
        FIRST_TICK.saturating_add(u32::try_from(tenths).unwrap_or(u32::MAX))
    }

    /// How long ago `since` was.
    pub(crate) fn age(&self, since: Since) -> Duration {
        Duration::from_millis(100) * self.ticks().saturating_sub(since.ticks)
    }

    /// Now, and `ago` before it: when points came that were received at `clock`.
    pub(crate) fn since(&self, clock: Timestamp, ago: Duration) -> Since {
        let ago = u32::try_from(ago.as_millis() / 100).unwrap_or(u32::MAX);
        let ticks = self.ticks().saturating_sub(ago);
        Since { clock, ticks }
    }

    /// Adds `points`, received at `clock`, for each of which room was reserved. Series that had no points
    /// waiting are appended to `woken`.
    pub fn insert(&self, points: &[Datapoint], clock: Timestamp, woken: &mut Vec<SeriesId>) {
        self.insert_since(points, || self.since(clock, Duration::ZERO), woken);
    }

    /// As [`Cache::insert`], for points that came at the time `since()`.
    pub(crate) fn insert_since(
        &self,
        points: &[Datapoint],
        since: impl Fn() -> Since,
        woken: &mut Vec<SeriesId>,
    ) {
        let mut rest = points;
        let mut units = 0;
        while let [first, ..] = rest {
            let block = first.series.0 >> BLOCK_BITS;
            let mut shard = self.shard(shard_of(first.series.0));
            let before = shard.units();
            let mut taken = 0;
            for point in rest {
                // The next block of ids belongs to another shard.
                if point.series.0 >> BLOCK_BITS != block {
                    break;
                }
                shard.push(point, &since, woken);
                taken += 1;
            }
            units += shard.units() - before;
            rest = &rest[taken..];
        }
        self.points.fetch_add(points.len(), Ordering::Relaxed);
        self.used.fetch_sub(points.len() - units, Ordering::Relaxed);
    }

    /// The points of `id` in order of arrival, those that the writer has taken first. Returns the clock
    /// when the first of them came, or an earlier one.
    pub fn read(&self, id: SeriesId, into: &mut Vec<Point>) -> Timestamp {
        let shard = self.shard(shard_of(id.0));
        for (_, chain) in shard.in_hand.iter().filter(|(own, _)| *own == id.0) {
            chain.read(&shard.chunks, into);
        }
        let Some(block) = shard.block(id.0) else {
            return LATER.clock;
        };
        block.chains[id.0 as usize % BLOCK].read(&shard.chunks, into);
        // Points that the writer has not taken yet may be of the last sweep.
        block.since.clock.min(block.swept.clock)
    }

    /// Whether `id` has points here.
    pub fn holds(&self, id: SeriesId) -> bool {
        self.shard(shard_of(id.0)).holds(id.0)
    }

    /// How many points of `id` wait, those in a writer's hand aside.
    pub(crate) fn count(&self, id: SeriesId) -> u32 {
        let shard = self.shard(shard_of(id.0));
        shard.chain(id.0).map_or(0, |chain| chain.count)
    }

    /// Claims `id`, unless it has points here or another series is claimed.
    pub(crate) fn claim(&self, id: SeriesId) -> Option<Claim<'_>> {
        let shard = self.shard(shard_of(id.0));
        if shard.holds(id.0) {
            return None;
        }
        // The writer learns of `id` from a sweep, which locks the shard later and so sees the claim.
        let claimed =
            self.claimed
                .compare_exchange(NONE, id.0, Ordering::AcqRel, Ordering::Relaxed);
        claimed.is_ok().then_some(Claim(self))
    }

    /// Waits until `id`, which a sweep returned, is not claimed. It cannot be claimed again before its
    /// points are written.
    pub(crate) fn wait_unclaimed(&self, id: SeriesId) {
        let is_claimed = || self.claimed.load(Ordering::Acquire) == id.0;
        while is_claimed() {
            let unclaimed = self.unclaimed.next();
            if is_claimed() {
                unclaimed.wait(None);
            }
        }
    }

    /// Every series that has points waiting, once, ordered by shard and id. A series is returned by one
    /// sweep only: the caller takes its points ([`Cache::take`]) or postpones it ([`Cache::postpone`]).
    pub fn sweep(&self, into: &mut Vec<Waiting>) {
        let now = self.ticks();
        for n in 0..SHARDS {
            self.shard(n).sweep(n, now, into);
        }
    }

    /// As [`Cache::sweep`], of one block.
    pub(crate) fn sweep_block(&self, block: usize, into: &mut Vec<Waiting>) {
        let now = self.ticks();
        let mut shard = self.shard(block % SHARDS);
        let Some(Some(found)) = shard.blocks.get_mut(block / SHARDS) else {
            return;
        };
        let before = found.n_waiting as usize;
        found.sweep(block << BLOCK_BITS, now, into);
        shard.waiting -= before;
    }

    /// The blocks in which series wait, in the order of ids.
    pub(crate) fn blocks(&self, into: &mut Vec<BlockWaiting>) {
        let now = self.ticks();
        let before = |since: Since| Duration::from_millis(100) * now.saturating_sub(since.ticks);
        for n in 0..SHARDS {
            let shard = self.shard(n);
            let blocks = shard.blocks.iter().enumerate();
            let waiting = blocks.filter_map(|(at, block)| {
                let block = block.as_ref().filter(|block| block.n_waiting > 0)?;
                Some(BlockWaiting {
                    block: at * SHARDS + n,
                    count: block.n_waiting as usize,
                    age: before(block.since),
                    swept: before(block.swept),
                })
            });
            into.extend(waiting);
        }
        into.sort_unstable_by_key(|waiting| waiting.block);
    }

    /// How long the oldest point has waited, as far as it is known: rather too long than too short.
    pub fn oldest_age(&self) -> Duration {
        let mut blocks = Vec::new();
        self.blocks(&mut blocks);
        let ages = blocks.iter().map(|block| block.age);
        ages.max().unwrap_or_default()
    }

    /// As [`Cache::sweep`], of the series that have become ripe: they have many points.
    pub(crate) fn take_ripe(&self, into: &mut Vec<Waiting>) {
        for n in 0..SHARDS {
            let mut shard = self.shard(n);
            for id in std::mem::take(&mut shard.ripe) {
                shard.sweep_one(id, into);
            }
        }
    }

    /// The timestamp of the point of `id` that arrived first.
    pub(crate) fn oldest(&self, id: SeriesId) -> Option<Timestamp> {
        let shard = self.shard(shard_of(id.0));
        let mut points = Vec::new();
        shard.chain(id.0)?.read(&shard.chunks, &mut points);
        points.first().map(|point| point.at)
    }

    /// Copies the waiting points of `id` to `into` for the writer and returns how many there are. They
    /// stay readable until [`Cache::done`] or [`Cache::put_back`].
    pub fn take(&self, id: SeriesId, into: &mut Vec<Point>) -> usize {
        let mut shard = self.shard(shard_of(id.0));
        let Some(slot) = shard.slot(id.0) else {
            return 0;
        };
        let chain = *slot;
        if chain.count == 0 {
            return 0;
        }
        // The step is that of the next points, too.
        slot.count = 0;
        chain.read(&shard.chunks, into);
        shard.in_hand.push((id.0, chain));
        chain.count as usize
    }

    /// Removes the points of `id` that the writer took: they are in the file.
    pub fn done(&self, id: SeriesId) {
        let mut shard = self.shard(shard_of(id.0));
        let Some(at) = shard.in_hand.iter().position(|(own, _)| *own == id.0) else {
            return;
        };
        let before = shard.units();
        let (_, chain) = shard.in_hand.swap_remove(at);
        shard.held -= 1;
        shard.chunks.free(&chain);
        let freed = before - shard.units();
        drop(shard);
        self.used.fetch_sub(freed, Ordering::Relaxed);
        self.points
            .fetch_sub(chain.count as usize, Ordering::Relaxed);
    }

    /// Removes all points that the writer took: they are in the remote store.
    pub(crate) fn all_done(&self) {
        let (mut freed, mut points) = (0, 0);
        for n in 0..SHARDS {
            let mut shard = self.shard(n);
            let before = shard.units();
            let Shard {
                chunks,
                held,
                in_hand,
                ..
            } = &mut *shard;
            for (_, chain) in in_hand.drain(..) {
                *held -= 1;
                chunks.free(&chain);
                points += chain.count as usize;
            }
            freed += before - shard.units();
        }
        self.used.fetch_sub(freed, Ordering::Relaxed);
        self.points.fetch_sub(points, Ordering::Relaxed);
    }

    /// Has the points of `id` that the writer took wait again, before those that have arrived since. They
    /// came at the time `since`.
    pub fn put_back(&self, id: SeriesId, since: Since) {
        let mut shard = self.shard(shard_of(id.0));
        let Some(at) = shard.in_hand.iter().position(|(own, _)| *own == id.0) else {
            return;
        };
        let before = shard.units();
        let (_, chain) = shard.in_hand.swap_remove(at);
        shard.join(id.0, chain, since);
        // Coded together they may take a chunk more or less.
        let after = shard.units();
        drop(shard);
        if after > before {
            self.used.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.used.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    /// Has the next sweep return a series again, whose points were not taken after the last one.
    pub fn postpone(&self, waiting: Waiting) {
        let Waiting { series, since, .. } = waiting;
        self.shard(shard_of(series.0)).wait(series.0, || since);
    }

    /// How many points there are.
    pub fn len(&self) -> usize {
        self.points.load(Ordering::Relaxed)
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in use or reserved.
    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed) * UNIT_BYTES
    }

    /// The bound on [`Cache::used_bytes`].
    pub fn max_bytes(&self) -> usize {
        self.max * UNIT_BYTES
    }

    /// How many series have points waiting.
    pub fn waiting(&self) -> usize {
        (0..SHARDS).map(|n| self.shard(n).waiting).sum()
    }
}

impl Shard {
    /// Units in use.
    fn units(&self) -> usize {
        self.chunks.in_use() + self.held
    }

    fn holds(&self, id: u32) -> bool {
        self.in_hand.iter().any(|(own, _)| *own == id)
            || self.chain(id).is_some_and(|chain| chain.count > 0)
    }

    fn block(&self, id: u32) -> Option<&Block> {
        self.blocks.get(block_of(id))?.as_deref()
    }

    fn chain(&self, id: u32) -> Option<&Chain> {
        Some(&self.block(id)?.chains[id as usize % BLOCK])
    }

    fn slot(&mut self, id: u32) -> Option<&mut Chain> {
        let block = self.blocks.get_mut(block_of(id))?.as_mut()?;
        Some(&mut block.chains[id as usize % BLOCK])
    }

    /// Has the next sweep return `id`, whose points came at the time `since()`.
    fn wait(&mut self, id: u32, since: impl Fn() -> Since) {
        if let Some(Some(block)) = self.blocks.get_mut(block_of(id)) {
            block.since = block.since.min(since());
            self.waiting += usize::from(block.wait(id, since));
        }
    }

    #[inline]
    fn push(&mut self, point: &Datapoint, since: &impl Fn() -> Since, woken: &mut Vec<SeriesId>) {
        let id = point.series.0;
        let n = block_of(id);
        if self.blocks.len() <= n {
            self.blocks.resize_with(n + 1, || None);
        }
        let block = self.blocks[n].get_or_insert_with(Block::new);
        let chain = &mut block.chains[id as usize % BLOCK];
        let is_first = chain.count == 0;
        chain.push(&mut self.chunks, point.at.timestamp().0, point.value);
        if is_first {
            self.held += 1;
            self.waiting += usize::from(block.wait(id, since));
            woken.push(point.series);
        } else if chain.count == RIPE {
            self.ripe.push(id);
        }
    }

    /// Appends the waiting series of this shard, the `n`th, to `into`.
    fn sweep(&mut self, n: usize, now: u32, into: &mut Vec<Waiting>) {
        if self.waiting == 0 {
            return;
        }
        self.waiting = 0;
        self.ripe.clear();
        for (at, block) in self.blocks.iter_mut().enumerate() {
            if let Some(block) = block {
                block.sweep((at * SHARDS + n) << BLOCK_BITS, now, into);
            }
        }
    }

    /// Appends `id` to `into`, if it waits.
    fn sweep_one(&mut self, id: u32, into: &mut Vec<Waiting>) {
        let Some(Some(block)) = self.blocks.get_mut(block_of(id)) else {
            return;
        };
        let (at, bit) = (id as usize % BLOCK, 1 << (id % 64));
        let count = block.chains[at].count;
        if block.waiting[at / 64] & bit == 0 || count == 0 {
            return;
        }
        block.waiting[at / 64] &= !bit;
        block.n_waiting -= 1;
        self.waiting -= 1;
        into.push(Waiting {
            series: SeriesId(id),
            count,
            since: block.since,
        });
    }

    /// Puts `chain` before the points that wait for `id`.
    fn join(&mut self, id: u32, chain: Chain, came: Since) {
        self.wait(id, || came);
        let Self {
            blocks,
            chunks,
            held,
            ..
        } = self;
        let Some(Some(block)) = blocks.get_mut(block_of(id)) else {
            return;
        };
        let slot = &mut block.chains[id as usize % BLOCK];
        let since = std::mem::replace(slot, chain);
        if since.count == 0 {
            return;
        }
        *held -= 1;
        let mut points = Vec::new();
        since.read(chunks, &mut points);
        chunks.free(&since);
        for point in points {
            slot.push(chunks, point.at.0, point.value);
        }
    }
}

impl Block {
    /// A block without points. Not inlined: the stack that it needs would be touched with each batch.
    #[cold]
    #[inline(never)]
    fn new() -> Box<Self> {
        Box::new(EMPTY_BLOCK)
    }

    /// Has the next sweep return `id`. Whether it would not have done so before. If no other series waits,
    /// points have waited since `since()`.
    fn wait(&mut self, id: u32, since: impl Fn() -> Since) -> bool {
        let word = &mut self.waiting[id as usize % BLOCK / 64];
        let bit = 1 << (id % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        if self.n_waiting == 0 {
            self.since = since();
        }
        self.n_waiting += u32::from(is_new);
        is_new
    }

    /// Appends the waiting series to `into`; the first chain is that of the id `first`.
    fn sweep(&mut self, first: usize, now: u32, into: &mut Vec<Waiting>) {
        if self.n_waiting == 0 {
            return;
        }
        let since = std::mem::replace(&mut self.since, LATER);
        self.n_waiting = 0;
        self.swept = Since {
            clock: since.clock,
            ticks: now,
        };
        for (at, word) in self.waiting.iter_mut().enumerate() {
            let mut bits = std::mem::take(word);
            while bits != 0 {
                let at = at * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                let count = self.chains[at].count;
                if count > 0 {
                    let series = SeriesId((first + at) as u32);
                    into.push(Waiting {
                        series,
                        count,
                        since,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapoint::PointTime;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const NOW: Timestamp = Timestamp(1_000);

    fn point(id: u32, at: u32) -> Datapoint {
        Datapoint {
            series: SeriesId(id),
            at: PointTime::new(Timestamp(at)).unwrap(),
            value: f64::from(at) / 2.0,
        }
    }

    fn read(cache: &Cache, id: u32) -> Vec<u32> {
        let mut points = Vec::new();
        cache.read(SeriesId(id), &mut points);
        assert!(points.iter().all(|p| p.value == f64::from(p.at.0) / 2.0));
        points.iter().map(|point| point.at.0).collect()
    }

    fn insert(cache: &Cache, points: &[Datapoint]) -> Vec<SeriesId> {
        let mut woken = Vec::new();
        assert_eq!(cache.reserve(points.len()), points.len());
        cache.insert(points, NOW, &mut woken);
        woken
    }

    #[test]
    fn points_that_the_writer_took_stay_readable() {
        let cache = Cache::new(1 << 20);
        assert_eq!(
            insert(&cache, &[point(7, 1), point(7, 2), point(9, 3)]),
            [SeriesId(7), SeriesId(9)]
        );
        let mut points = Vec::new();
        assert_eq!(cache.take(SeriesId(7), &mut points), 2);
        assert_eq!(insert(&cache, &[point(7, 4)]), [SeriesId(7)]);
        assert_eq!(read(&cache, 7), [1, 2, 4]);
        cache.put_back(SeriesId(7), cache.since(NOW, Duration::ZERO));
        assert_eq!(read(&cache, 7), [1, 2, 4]);
        points.clear();
        assert_eq!(cache.take(SeriesId(7), &mut points), 3);
        cache.done(SeriesId(7));
        assert!(read(&cache, 7).is_empty());
        assert!(!cache.holds(SeriesId(7)));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn a_series_whose_points_are_gone_reads_as_empty() {
        let cache = Cache::new(1 << 20);
        let many: Vec<_> = (1..200).map(|at| point(7, at)).collect();
        // The second time, the shard has given all of its memory back.
        for points in [&many[..], &many[..1]] {
            insert(&cache, points);
            cache.take(SeriesId(7), &mut Vec::new());
            cache.done(SeriesId(7));
            assert_eq!(read(&cache, 7), [0; 0]);
            assert_eq!(cache.oldest(SeriesId(7)), None);
        }
    }

    #[test]
    fn all_that_was_taken_is_done_at_once() {
        let cache = Cache::new(1 << 20);
        let points: Vec<_> = (0..3_000).map(|id| point(id, 1)).collect();
        insert(&cache, &points);
        let before = cache.used_bytes();
        for id in 0..2_999 {
            cache.take(SeriesId(id), &mut Vec::new());
        }
        insert(&cache, &[point(5, 2)]);
        cache.all_done();
        assert_eq!((read(&cache, 5), read(&cache, 2_999)), (vec![2], vec![1]));
        assert_eq!((cache.len(), cache.holds(SeriesId(6))), (2, false));
        assert_eq!(cache.used_bytes(), before / 3_000 * 2);
    }

    #[test]
    fn the_bound_holds() {
        let cache = Cache::new(10 * UNIT_BYTES);
        assert_eq!(cache.reserve(100), 10);
        assert_eq!(cache.reserve(1), 0);
        let points: Vec<_> = (1..=10).map(|at| point(1, at)).collect();
        cache.insert(&points, NOW, &mut Vec::new());
        // Nine tokens of thousandths take three bytes each.
        let used = 2;
        assert_eq!(cache.used_bytes(), used * UNIT_BYTES);
        let room = 10 - used;
        assert_eq!(cache.reserve(100), room);
        cache.release(room);
        cache.take(SeriesId(1), &mut Vec::new());
        cache.done(SeriesId(1));
        assert_eq!(cache.used_bytes(), 0);
        assert!(cache.is_empty());
    }

    #[test]
    fn a_block_knows_how_long_its_first_point_has_waited() {
        let cache = Cache::new(1 << 20);
        let minute = Duration::from_secs(60);
        let at = |seconds: u32, ago: Duration| cache.since(Timestamp(seconds), ago);
        let add = |id: u32, since: Since| {
            assert_eq!(cache.reserve(1), 1);
            cache.insert_since(&[point(id, 1)], || since, &mut Vec::new());
        };
        add(5_000, at(100, 3 * minute));
        add(5_001, at(200, minute));
        add(3, at(300, minute));
        let blocks = || {
            let mut blocks = Vec::new();
            cache.blocks(&mut blocks);
            blocks
        };
        let seen: Vec<_> = blocks().iter().map(|b| (b.block, b.count)).collect();
        assert_eq!(seen, [(0, 1), (4, 2)]);
        assert!(cache.oldest_age() >= 3 * minute);
        let mut swept = Vec::new();
        cache.sweep_block(4, &mut swept);
        assert_eq!(swept.len(), 2);
        assert!(swept.iter().all(|w| w.since.clock == Timestamp(100)));
        assert!(cache.oldest_age() < 2 * minute);
        assert_eq!(cache.waiting(), 1);
        // What is not written keeps its age, and points that came meanwhile do not make it younger.
        add(5_002, at(400, Duration::ZERO));
        cache.postpone(swept[1]);
        assert!(cache.oldest_age() >= 3 * minute);
        assert_eq!(cache.read(SeriesId(5_001), &mut Vec::new()), Timestamp(100));
        assert_eq!(blocks().len(), 2);
    }

    #[test]
    fn series_with_many_points_are_returned_early() {
        let cache = Cache::new(1 << 20);
        let points: Vec<_> = (1..=RIPE).map(|at| point(7, at)).collect();
        insert(&cache, &points);
        insert(&cache, &[point(8, 1)]);
        let mut ripe = Vec::new();
        cache.take_ripe(&mut ripe);
        assert_eq!(ripe.len(), 1);
        assert_eq!((ripe[0].series, ripe[0].count), (SeriesId(7), RIPE));
        let mut all = Vec::new();
        cache.sweep(&mut all);
        assert_eq!(all.len(), 1, "only the other one");
    }

    #[derive(Clone, Debug)]
    enum Act {
        Insert(Vec<(u32, u32)>),
        Take(u32),
        Done,
        PutBack,
        Sweep,
    }

    fn act() -> impl Strategy<Value = Act> {
        // Ids of several shards and blocks.
        let id = || prop::sample::select(vec![0, 1, 1_023, 1_024, 5_000, 16_384, 16_385]);
        prop_oneof![
            4 => prop::collection::vec((id(), 1..1_000_u32), 0..30).prop_map(Act::Insert),
            3 => id().prop_map(Act::Take),
            2 => Just(Act::Done),
            1 => Just(Act::PutBack),
            1 => Just(Act::Sweep),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_of_lists(acts in prop::collection::vec(act(), 0..60)) {
            let cache = Cache::new(1 << 20);
            let mut twin: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            // The writer has the points of one series at most.
            let mut hand: Option<(u32, Vec<u32>)> = None;
            for act in acts {
                match act {
                    Act::Insert(points) => {
                        let points: Vec<_> = points.iter().map(|(id, at)| point(*id, *at)).collect();
                        let woken = insert(&cache, &points);
                        let mut expected = Vec::new();
                        for point in &points {
                            let list = twin.entry(point.series.0).or_default();
                            if list.is_empty() { expected.push(point.series); }
                            list.push(point.at.timestamp().0);
                        }
                        prop_assert_eq!(woken, expected);
                    }
                    Act::Take(id) if hand.is_none() => {
                        let mut points = Vec::new();
                        let expected = twin.remove(&id).unwrap_or_default();
                        prop_assert_eq!(cache.take(SeriesId(id), &mut points), expected.len());
                        prop_assert_eq!(points.iter().map(|p| p.at.0).collect::<Vec<_>>(), expected.clone());
                        if !expected.is_empty() { hand = Some((id, expected)); }
                    }
                    Act::Take(_) => {}
                    Act::Done => if let Some((id, _)) = hand.take() { cache.done(SeriesId(id)); },
                    Act::PutBack => if let Some((id, mut points)) = hand.take() {
                        cache.put_back(SeriesId(id), cache.since(NOW, Duration::ZERO));
                        points.append(twin.entry(id).or_default());
                        twin.insert(id, points);
                    },
                    Act::Sweep => {
                        let mut waiting = Vec::new();
                        cache.sweep(&mut waiting);
                        let mut ids: Vec<(u32, usize)> = waiting.iter().map(|w| (w.series.0, w.count as usize)).collect();
                        ids.sort_unstable();
                        ids.dedup();
                        let expected: Vec<(u32, usize)> = twin.iter().filter(|(_, l)| !l.is_empty()).map(|(id, l)| (*id, l.len())).collect();
                        prop_assert_eq!(ids, expected);
                        for waiting in waiting { cache.postpone(waiting); }
                    }
                }
                for id in [0, 1, 1_023, 1_024, 5_000, 16_384, 16_385] {
                    let mut expected = hand.iter().filter(|(own, _)| *own == id).flat_map(|(_, l)| l.clone()).collect::<Vec<_>>();
                    expected.extend(twin.get(&id).into_iter().flatten());
                    prop_assert_eq!(read(&cache, id), expected);
                }
                let all: usize = twin.values().map(Vec::len).sum::<usize>() + hand.as_ref().map_or(0, |(_, l)| l.len());
                prop_assert_eq!(cache.len(), all);
                let held: usize = (0..SHARDS).map(|n| cache.shard(n).units()).sum();
                prop_assert_eq!(cache.used_bytes(), held * UNIT_BYTES);
                if all == 0 { prop_assert_eq!(held, 0); }
            }
        }
    }
}
