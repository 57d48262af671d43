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
mod shard;
mod waiting;

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use whisper::{Needed, Point, Timestamp};

use self::chain::{CHUNK_BYTES, Chain, MOST_PER_POINT};
use self::shard::{BLOCK, BLOCK_BITS, SHARDS, Shard, shard_of};
use self::waiting::LATER;
pub use self::waiting::{Since, Waiting};
use crate::datapoint::{Datapoint, SeriesId};
use crate::signal::Signal;

/// A series with points takes as much as a chunk beside its chunks: its chain, and its share of tables. So
/// a further point takes at most one unit: the first of a series, or one that begins a chunk.
const UNIT_BYTES: usize = CHUNK_BYTES;
const _: () = assert!(size_of::<Chain>() <= UNIT_BYTES && MOST_PER_POINT == 1);

const NONE: u32 = u32::MAX;

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

/// Where [`Cache::ticks`] begin: points of the journal are older than the cache.
const FIRST_TICK: u32 = 1 << 30;

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
        self.read_needed(id, None, into)
    }

    /// As [`Cache::read`]. Points that are not `needed` may be left out: they are not decoded.
    pub fn read_needed(
        &self,
        id: SeriesId,
        needed: Option<Needed>,
        into: &mut Vec<Point>,
    ) -> Timestamp {
        let shard = self.shard(shard_of(id.0));
        let in_hand = shard.in_hand.iter().filter(|(own, _)| *own == id.0);
        let in_hand = in_hand.map(|(_, chain)| chain);
        let block = shard.block(id.0);
        let waits = block.map(|block| &block.chains[id.0 as usize % BLOCK]);
        let chains = in_hand.chain(waits);
        match needed {
            Some(needed) if chains.clone().all(|chain| chain.is_between(&needed)) => {
                chains.for_each(|chain| {
                    chain.read_between(&shard.chunks, needed.from, needed.until, into);
                });
            }
            _ => chains.for_each(|chain| chain.read(&shard.chunks, into)),
        }
        let Some(block) = block else {
            return LATER.clock;
        };
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

    /// As [`Cache::sweep`], of the series `id`.
    pub(crate) fn sweep_one(&self, id: SeriesId, into: &mut Vec<Waiting>) {
        self.shard(shard_of(id.0)).sweep_one(id.0, into);
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

#[cfg(test)]
mod tests;
