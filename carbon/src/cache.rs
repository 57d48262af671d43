//! Datapoints that are not in their file yet. Queries read them here.
//!
//! 1. The points of a series are a chain of chunks of five, one cache line each, in order of arrival.
//!    The table of chains is indexed by id: nothing is hashed, and nothing is allocated per series.
//! 2. Ids are assigned to shards in blocks of 1,024. Points mostly arrive in the order of their ids, and
//!    then take one lock per block and not one per point.
//! 3. Points that the writer has taken ([`Cache::take`]) stay readable until it calls [`Cache::done`];
//!    points that it could not write go back to the front ([`Cache::put_back`]). A point is always here
//!    or in its file, so a reader looks here first and into the file second.
//! 4. The number of chunks is bounded. Room is reserved before a point is taken ([`Cache::reserve`]), so
//!    the bound holds with any number of receivers.
//! 5. A series without points can be claimed ([`Cache::claim`]): new points are still accepted, and the
//!    writer waits for the end of the claim before it takes them.
//! 6. Of several points of a series with the same timestamp, the last to arrive wins. Readers and writers
//!    decide that; inserting compares nothing.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use whisper::{Point, Timestamp};

use crate::datapoint::{Datapoint, SeriesId};
use crate::signal::Signal;

/// Points per chunk: with the link they fill a cache line.
const CHUNK_POINTS: usize = 5;
/// Bytes per chunk.
pub const CHUNK_BYTES: usize = 64;
/// Chunks allocated together.
const SLAB: usize = 1 << 10;

const SHARDS: usize = 16;
const BLOCK_BITS: u32 = 10;
const BLOCK: usize = 1 << BLOCK_BITS;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Chunk {
    values: [f64; CHUNK_POINTS],
    times: [u32; CHUNK_POINTS],
    next: u32,
}

const _: () = assert!(size_of::<Chunk>() == CHUNK_BYTES);

const EMPTY_CHUNK: Chunk = Chunk {
    values: [0.0; CHUNK_POINTS],
    times: [0; CHUNK_POINTS],
    next: NONE,
};

/// The points of a series. Every chunk is full except the last, and except the one that was last in a
/// chain that was put back before new points ([`Shard::join`]): its unused slots have timestamp 0.
#[derive(Clone, Copy, Debug)]
struct Chain {
    first: u32,
    last: u32,
    count: u32,
    /// Points in the last chunk.
    filled: u32,
}

const NO_CHAIN: Chain = Chain {
    first: NONE,
    last: NONE,
    count: 0,
    filled: 0,
};

/// The cache.
#[derive(Debug)]
pub struct Cache {
    shards: Box<[Mutex<Shard>]>,
    /// Chunks in use or reserved.
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
    blocks: Vec<Option<Box<[Chain; BLOCK]>>>,
    slabs: Vec<Box<[Chunk; SLAB]>>,
    /// Chunks allocated so far, those in `free` included.
    bump: u32,
    free: Vec<u32>,
    /// The most chunks in use since the shard was last empty.
    peak: usize,
    /// Series that have points, in the order in which their first one came.
    waiting: Vec<u32>,
    in_hand: Vec<(u32, Chain)>,
}

/// A series that has points waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The series.
    pub series: SeriesId,
    /// How many points wait.
    pub count: u32,
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
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            used: AtomicUsize::new(0),
            max: (max_bytes / CHUNK_BYTES).max(1),
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
            self.used.fetch_sub(wanted - granted, Ordering::Relaxed);
        }
        granted
    }

    /// Gives back reserved room.
    pub fn release(&self, reserved: usize) {
        self.used.fetch_sub(reserved, Ordering::Relaxed);
    }

    /// Adds `points`, for each of which room was reserved. Series that had no points waiting are
    /// appended to `woken`.
    pub fn insert(&self, points: &[Datapoint], woken: &mut Vec<SeriesId>) {
        let mut rest = points;
        let mut chunks = 0;
        while let [first, ..] = rest {
            let block = first.series.0 >> BLOCK_BITS;
            let mut shard = self.shard(shard_of(first.series.0));
            let before = shard.in_use();
            let mut taken = 0;
            for point in rest {
                // The next block of ids belongs to another shard.
                if point.series.0 >> BLOCK_BITS != block {
                    break;
                }
                shard.push(point, woken);
                taken += 1;
            }
            chunks += shard.in_use() - before;
            rest = &rest[taken..];
        }
        self.points.fetch_add(points.len(), Ordering::Relaxed);
        self.used
            .fetch_sub(points.len() - chunks, Ordering::Relaxed);
    }

    /// The points of `id` in order of arrival, those that the writer has taken first.
    pub fn read(&self, id: SeriesId, into: &mut Vec<Point>) {
        let shard = self.shard(shard_of(id.0));
        for (_, chain) in shard.in_hand.iter().filter(|(own, _)| *own == id.0) {
            shard.copy(*chain, into);
        }
        if let Some(chain) = shard.chain(id.0) {
            shard.copy(chain, into);
        }
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

    /// Every series that has points waiting, once: ordered by shard, and within a shard by the arrival of
    /// the oldest point. A series is returned by one sweep only: the caller takes its points
    /// ([`Cache::take`]) or postpones it ([`Cache::postpone`]).
    pub fn sweep(&self, into: &mut Vec<Waiting>) {
        for n in 0..SHARDS {
            let mut shard = self.shard(n);
            let waiting = std::mem::take(&mut shard.waiting);
            into.extend(waiting.iter().filter_map(|id| {
                let count = shard.chain(*id).map_or(0, |chain| chain.count);
                let series = SeriesId(*id);
                (count > 0).then_some(Waiting { series, count })
            }));
        }
    }

    /// Copies the waiting points of `id` to `into` for the writer and returns how many there are. They
    /// stay readable until [`Cache::done`] or [`Cache::put_back`].
    pub fn take(&self, id: SeriesId, into: &mut Vec<Point>) -> usize {
        let mut shard = self.shard(shard_of(id.0));
        let Some(slot) = shard.slot(id.0) else {
            return 0;
        };
        let chain = std::mem::replace(slot, NO_CHAIN);
        if chain.count == 0 {
            return 0;
        }
        shard.copy(chain, into);
        shard.in_hand.push((id.0, chain));
        chain.count as usize
    }

    /// Removes the points of `id` that the writer took: they are in the file.
    pub fn done(&self, id: SeriesId) {
        let mut shard = self.shard(shard_of(id.0));
        let Some(at) = shard.in_hand.iter().position(|(own, _)| *own == id.0) else {
            return;
        };
        let (_, chain) = shard.in_hand.swap_remove(at);
        let freed = shard.free(chain);
        drop(shard);
        self.used.fetch_sub(freed, Ordering::Relaxed);
        self.points
            .fetch_sub(chain.count as usize, Ordering::Relaxed);
    }

    /// Has the points of `id` that the writer took wait again, before those that have arrived since.
    pub fn put_back(&self, id: SeriesId) {
        let mut shard = self.shard(shard_of(id.0));
        let Some(at) = shard.in_hand.iter().position(|(own, _)| *own == id.0) else {
            return;
        };
        let (_, chain) = shard.in_hand.swap_remove(at);
        shard.join(id.0, chain);
    }

    /// Has the next sweep return `id`, whose points were not taken after the last one.
    pub fn postpone(&self, id: SeriesId) {
        let mut shard = self.shard(shard_of(id.0));
        shard.waiting.push(id.0);
    }

    /// How many points there are.
    pub fn len(&self) -> usize {
        self.points.load(Ordering::Relaxed)
    }

    /// Whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of chunks in use or reserved.
    pub fn used_bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed) * CHUNK_BYTES
    }

    /// The bound on [`Cache::used_bytes`].
    pub fn max_bytes(&self) -> usize {
        self.max * CHUNK_BYTES
    }

    /// How many series have points waiting.
    pub fn waiting(&self) -> usize {
        (0..SHARDS).map(|n| self.shard(n).waiting.len()).sum()
    }
}

impl Shard {
    fn in_use(&self) -> usize {
        self.bump as usize - self.free.len()
    }

    fn holds(&self, id: u32) -> bool {
        self.in_hand.iter().any(|(own, _)| *own == id)
            || self.chain(id).is_some_and(|chain| chain.count > 0)
    }

    fn chain(&self, id: u32) -> Option<Chain> {
        let block = self.blocks.get(block_of(id))?.as_ref()?;
        Some(block[id as usize % BLOCK])
    }

    fn slot(&mut self, id: u32) -> Option<&mut Chain> {
        let block = self.blocks.get_mut(block_of(id))?.as_mut()?;
        Some(&mut block[id as usize % BLOCK])
    }

    fn chunk(&self, n: u32) -> &Chunk {
        &self.slabs[n as usize / SLAB][n as usize % SLAB]
    }

    fn chunk_mut(&mut self, n: u32) -> &mut Chunk {
        &mut self.slabs[n as usize / SLAB][n as usize % SLAB]
    }

    #[inline]
    fn push(&mut self, point: &Datapoint, woken: &mut Vec<SeriesId>) {
        let id = point.series.0;
        let block = block_of(id);
        if self.blocks.len() <= block {
            self.blocks.resize_with(block + 1, || None);
        }
        let mut chain = self.blocks[block].get_or_insert_with(|| Box::new([NO_CHAIN; BLOCK]))
            [id as usize % BLOCK];
        if chain.count == 0 {
            self.waiting.push(id);
            woken.push(point.series);
            chain.first = self.allocate();
            chain.last = chain.first;
            chain.filled = 0;
        } else if chain.filled as usize == CHUNK_POINTS {
            let new = self.allocate();
            self.chunk_mut(chain.last).next = new;
            chain.last = new;
            chain.filled = 0;
        }
        let chunk = self.chunk_mut(chain.last);
        chunk.times[chain.filled as usize] = point.at.timestamp().0;
        chunk.values[chain.filled as usize] = point.value;
        chain.filled += 1;
        chain.count += 1;
        if let Some(block) = &mut self.blocks[block] {
            block[id as usize % BLOCK] = chain;
        }
    }

    fn allocate(&mut self) -> u32 {
        let chunk = self.free.pop().unwrap_or_else(|| {
            if self.bump as usize == self.slabs.len() * SLAB {
                self.slabs.push(Box::new([EMPTY_CHUNK; SLAB]));
            }
            self.bump += 1;
            self.bump - 1
        });
        self.peak = self.peak.max(self.in_use());
        self.chunk_mut(chunk).next = NONE;
        chunk
    }

    /// Frees the chunks of `chain` and returns how many they are. An empty shard starts over with its
    /// chunks in order, and keeps no more memory than it needed since it was last empty.
    fn free(&mut self, chain: Chain) -> usize {
        let mut chunk = chain.first;
        let mut freed = 0;
        while chunk != NONE {
            self.free.push(chunk);
            freed += 1;
            if chunk == chain.last {
                break;
            }
            chunk = self.chunk(chunk).next;
        }
        if self.in_use() == 0 {
            self.free.clear();
            self.bump = 0;
            self.slabs.truncate(self.peak.div_ceil(SLAB));
            self.peak = 0;
        }
        freed
    }

    /// Copies the points of `chain`.
    fn copy(&self, chain: Chain, into: &mut Vec<Point>) {
        let mut chunk = chain.first;
        into.reserve(chain.count as usize);
        while chunk != NONE {
            let Chunk {
                values,
                times,
                next,
            } = self.chunk(chunk);
            let filled = if chunk == chain.last {
                chain.filled as usize
            } else {
                CHUNK_POINTS
            };
            for (at, value) in times[..filled].iter().zip(values) {
                if *at != 0 {
                    let (at, value) = (Timestamp(*at), *value);
                    into.push(Point { at, value });
                }
            }
            if chunk == chain.last {
                break;
            }
            chunk = *next;
        }
    }

    /// Puts `chain` before the points that wait for `id`.
    fn join(&mut self, id: u32, mut chain: Chain) {
        let waiting = self.chain(id).unwrap_or(NO_CHAIN);
        if waiting.count > 0 {
            // The last chunk becomes an inner one. A `PointTime` is never 0, so 0 means unused.
            let filled = chain.filled as usize;
            let last = self.chunk_mut(chain.last);
            last.times[filled..].fill(0);
            last.next = waiting.first;
            chain.last = waiting.last;
            chain.filled = waiting.filled;
            chain.count += waiting.count;
        } else {
            self.waiting.push(id);
        }
        if let Some(slot) = self.slot(id) {
            *slot = chain;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapoint::PointTime;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

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
        cache.insert(points, &mut woken);
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
        cache.put_back(SeriesId(7));
        assert_eq!(read(&cache, 7), [1, 2, 4]);
        points.clear();
        assert_eq!(cache.take(SeriesId(7), &mut points), 3);
        cache.done(SeriesId(7));
        assert!(read(&cache, 7).is_empty());
        assert!(!cache.holds(SeriesId(7)));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn the_bound_holds() {
        let cache = Cache::new(10 * CHUNK_BYTES);
        assert_eq!(cache.reserve(100), 10);
        assert_eq!(cache.reserve(1), 0);
        let points: Vec<_> = (1..=10).map(|at| point(1, at)).collect();
        cache.insert(&points, &mut Vec::new());
        // Ten points of one series fill two chunks.
        assert_eq!(cache.used_bytes(), 2 * CHUNK_BYTES);
        assert_eq!(cache.reserve(100), 8);
        cache.release(8);
        cache.take(SeriesId(1), &mut Vec::new());
        cache.done(SeriesId(1));
        assert_eq!(cache.used_bytes(), 0);
        assert!(cache.is_empty());
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
                        cache.put_back(SeriesId(id));
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
                        for waiting in waiting { cache.postpone(waiting.series); }
                    }
                }
                for id in [0, 1, 1_023, 1_024, 5_000, 16_384, 16_385] {
                    let mut expected = hand.iter().filter(|(own, _)| *own == id).flat_map(|(_, l)| l.clone()).collect::<Vec<_>>();
                    expected.extend(twin.get(&id).into_iter().flatten());
                    prop_assert_eq!(read(&cache, id), expected);
                }
                let all: usize = twin.values().map(Vec::len).sum::<usize>() + hand.as_ref().map_or(0, |(_, l)| l.len());
                prop_assert_eq!(cache.len(), all);
            }
        }
    }
}
