//! A part of the cache, and its series in blocks of consecutive ids.

use super::chain::{Chain, Chunks, EMPTY};
use super::waiting::{LATER, NEVER, Since, Waiting};
use crate::datapoint::{Datapoint, SeriesId};

pub(super) const SHARDS: usize = 16;
pub(super) const BLOCK_BITS: u32 = 10;
pub(super) const BLOCK: usize = 1 << BLOCK_BITS;

/// A series with this many points is returned by [`super::Cache::take_ripe`]: to wait longer would not make the
/// write of a point cheaper.
pub(super) const RIPE: u32 = 256;

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) blocks: Vec<Option<Box<Block>>>,
    pub(super) chunks: Chunks,
    /// Series that have points, those in a writer's hand counted once more.
    pub(super) held: usize,
    /// Series that the next sweep returns.
    pub(super) waiting: usize,
    /// Series that have become ripe since the last [`super::Cache::take_ripe`].
    pub(super) ripe: Vec<u32>,
    pub(super) in_hand: Vec<(u32, Chain)>,
}

/// The chains of consecutive ids.
#[derive(Debug)]
pub(super) struct Block {
    /// Which of them the next sweep returns.
    pub(super) waiting: [u64; BLOCK / 64],
    pub(super) n_waiting: u32,
    /// When the first point came that waits here for the next sweep, or [`LATER`].
    pub(super) since: Since,
    /// The clock when the points came that the last sweep returned, and the time of that sweep.
    pub(super) swept: Since,
    pub(super) chains: [Chain; BLOCK],
}

const EMPTY_BLOCK: Block = Block {
    waiting: [0; BLOCK / 64],
    n_waiting: 0,
    since: LATER,
    swept: NEVER,
    chains: [EMPTY; BLOCK],
};

pub(super) fn shard_of(id: u32) -> usize {
    (id >> BLOCK_BITS) as usize % SHARDS
}

pub(super) fn block_of(id: u32) -> usize {
    (id >> BLOCK_BITS) as usize / SHARDS
}

impl Shard {
    /// Units in use.
    pub(super) fn units(&self) -> usize {
        self.chunks.in_use() + self.held
    }

    pub(super) fn holds(&self, id: u32) -> bool {
        self.in_hand.iter().any(|(own, _)| *own == id)
            || self.chain(id).is_some_and(|chain| chain.count > 0)
    }

    pub(super) fn block(&self, id: u32) -> Option<&Block> {
        self.blocks.get(block_of(id))?.as_deref()
    }

    pub(super) fn chain(&self, id: u32) -> Option<&Chain> {
        Some(&self.block(id)?.chains[id as usize % BLOCK])
    }

    pub(super) fn slot(&mut self, id: u32) -> Option<&mut Chain> {
        let block = self.blocks.get_mut(block_of(id))?.as_mut()?;
        Some(&mut block.chains[id as usize % BLOCK])
    }

    /// Has the next sweep return `id`, whose points came at the time `since()`.
    pub(super) fn wait(&mut self, id: u32, since: impl Fn() -> Since) {
        if let Some(Some(block)) = self.blocks.get_mut(block_of(id)) {
            block.since = block.since.min(since());
            self.waiting += usize::from(block.wait(id, since));
        }
    }

    #[inline]
    pub(super) fn push(
        &mut self,
        point: &Datapoint,
        since: &impl Fn() -> Since,
        woken: &mut Vec<SeriesId>,
    ) {
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
    pub(super) fn sweep(&mut self, n: usize, now: u32, into: &mut Vec<Waiting>) {
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
    pub(super) fn sweep_one(&mut self, id: u32, into: &mut Vec<Waiting>) {
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
    pub(super) fn join(&mut self, id: u32, chain: Chain, came: Since) {
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
    pub(super) fn wait(&mut self, id: u32, since: impl Fn() -> Since) -> bool {
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
    pub(super) fn sweep(&mut self, first: usize, now: u32, into: &mut Vec<Waiting>) {
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
