//! Windows of one series that lie at equal distances: their levels and spreads.
//!
//! Placebos lie a fixed number of points apart, and the windows around them are mostly whole multiples of that: an
//! hour before and half an hour after, every quarter of an hour. Such windows overlap: blocks of that length are
//! sorted once and merged with their neighbours. What is known of a window serves all looks at a deploy.

use std::collections::BTreeMap;

use super::network::{ABSENT, LANES, Network, Row, levels, load, spreads};
use super::windows::Scratch;

/// Shorter blocks are not worth it.
const SHORTEST: usize = 8;
/// Longer windows are sorted one by one.
const LONGEST: usize = 64;

/// Where the windows are: around `end`, and around every `stride` points before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Anchors {
    /// The first point after the deploy.
    pub(super) end: usize,
    /// Points from one to the next.
    pub(super) stride: usize,
    /// How many there are, the deploy's included.
    pub(super) count: usize,
}

/// The windows of one length and place, by anchor; the deploy's are the first.
#[derive(Debug, Default)]
pub(super) struct Levels {
    /// Points before the anchor at which the window begins; negative for points after it.
    back: isize,
    length: usize,
    pub(super) level: Vec<f64>,
    pub(super) spread: Vec<f64>,
}

/// The windows of one series that are known so far.
#[derive(Debug, Default)]
pub(super) struct Column {
    known: Vec<Levels>,
    /// How many of `known` are of this series.
    used: usize,
    /// Blocks that begin at different points.
    blocks: Vec<Blocks>,
    used_blocks: usize,
    rows: Vec<Row>,
    scratch: Scratch,
    networks: BTreeMap<usize, Network>,
}

impl Column {
    /// Begins another series.
    pub(super) fn clear(&mut self) {
        (self.used, self.used_blocks) = (0, 0);
    }

    /// The windows of `length` points of `values` that begin `back` points before each of `anchors`, as a number for
    /// [`Column::get`].
    pub(super) fn find(
        &mut self,
        values: &[f64],
        anchors: Anchors,
        back: isize,
        length: usize,
    ) -> usize {
        let known = self.known[..self.used].iter();
        let is_same = |one: &Levels| (one.back, one.length) == (back, length);
        if let Some(at) = known.clone().position(is_same) {
            return at;
        }
        if self.used == self.known.len() {
            self.known.push(Levels::default());
        }
        let mut found = std::mem::take(&mut self.known[self.used]);
        (found.back, found.length) = (back, length);
        found.level.clear();
        found.spread.clear();
        let Anchors { end, stride, count } = anchors;
        let start = |n: usize| (end as isize - back) as usize - stride * n;
        if Blocks::suit(stride, length) {
            let blocks = self.blocks(values, stride, start(0) % stride);
            let blocks = &mut self.blocks[blocks];
            let first = (start(0) - blocks.offset) / stride;
            let (level, spread) = blocks.windows(length);
            found.level.extend((0..count).map(|n| level[first - n]));
            found.spread.extend((0..count).map(|n| spread[first - n]));
        } else if length > LONGEST {
            for n in 0..count {
                let shape = self.scratch.shape(&values[start(n)..start(n) + length]);
                found.level.push(shape.level);
                found.spread.push(shape.spread);
            }
        } else {
            let network = self.networks.entry(length);
            let network = network.or_insert_with(|| Network::sorting(length));
            self.rows.resize(length, [ABSENT; LANES]);
            for from in (0..count).step_by(LANES) {
                let mut present = [length; LANES];
                let last = (count - from).min(LANES);
                for (lane, present) in present[..last].iter_mut().enumerate() {
                    let start = start(from + lane);
                    *present = load(&values[start..start + length], &mut self.rows, lane);
                }
                network.run(&mut self.rows);
                found.level.extend(&levels(&self.rows, &present)[..last]);
                found.spread.extend(&spreads(&self.rows, &present)[..last]);
            }
        }
        self.known[self.used] = found;
        self.used += 1;
        self.used - 1
    }

    /// What [`Column::find`] found.
    pub(super) fn get(&self, found: usize) -> &Levels {
        &self.known[found]
    }

    /// The blocks of `size` points that begin at `offset`.
    fn blocks(&mut self, values: &[f64], size: usize, offset: usize) -> usize {
        let known = self.blocks[..self.used_blocks].iter();
        if let Some(at) = known.clone().position(|one| one.offset == offset) {
            return at;
        }
        if self.used_blocks == self.blocks.len() {
            self.blocks.push(Blocks::default());
        }
        self.blocks[self.used_blocks].fill(values, size, offset);
        self.used_blocks += 1;
        self.used_blocks - 1
    }
}

/// The sorted blocks of one series. Place `r` of block `b` is at `r * width + b`.
#[derive(Debug, Default)]
struct Blocks {
    size: usize,
    /// The first point of the first block.
    offset: usize,
    count: usize,
    /// Blocks and some lanes more.
    width: usize,
    /// Present values of each block.
    present: Vec<usize>,
    single: Vec<f64>,
    /// Those of each block and the next one together.
    pairs: Vec<f64>,
    /// Level and spread of each pair of blocks; empty where not needed so far.
    of_pairs: (Vec<f64>, Vec<f64>),
    /// The same of each four blocks.
    of_fours: (Vec<f64>, Vec<f64>),
    rows: Vec<Row>,
    networks: BTreeMap<(usize, bool), Network>,
}

impl Blocks {
    /// Whether windows of `length` points can be merged from blocks of `size`.
    fn suit(size: usize, length: usize) -> bool {
        size >= SHORTEST && 4 * size <= LONGEST && (length == 2 * size || length == 4 * size)
    }

    /// Takes over `values`.
    fn fill(&mut self, values: &[f64], size: usize, offset: usize) {
        (self.size, self.offset) = (size, offset);
        let values = &values[offset..];
        self.count = values.len() / size;
        self.width = self.count.next_multiple_of(LANES) + 2 * LANES;
        self.present.clear();
        self.present.resize(self.width, 0);
        self.single.clear();
        self.single.resize(size * self.width, ABSENT);
        self.of_pairs.0.clear();
        self.of_fours.0.clear();
        self.pairs.clear();
        let network = self.networks.entry((size, false));
        let network = network.or_insert_with(|| Network::sorting(size));
        self.rows.clear();
        self.rows.resize(size, [ABSENT; LANES]);
        for first in (0..self.count).step_by(LANES) {
            for lane in 0..LANES {
                let window = values.get((first + lane) * size..(first + lane + 1) * size);
                let window = window.unwrap_or_default();
                self.present[first + lane] = match window.len() {
                    // Beyond the last block.
                    0 => {
                        self.rows.iter_mut().for_each(|row| row[lane] = ABSENT);
                        0
                    }
                    _ => load(window, &mut self.rows, lane),
                };
            }
            network.run(&mut self.rows);
            for (place, row) in self.rows.iter().enumerate() {
                let at = place * self.width + first;
                self.single[at..at + LANES].copy_from_slice(row);
            }
        }
    }

    /// Level and spread of the window of `length` points that begins at each block.
    fn windows(&mut self, length: usize) -> (&[f64], &[f64]) {
        if self.pairs.is_empty() {
            self.pairs.resize(2 * self.size * self.width, ABSENT);
            let is_asked = length == 2 * self.size;
            let mut pairs = std::mem::take(&mut self.pairs);
            self.merge(1, Some(&mut pairs), is_asked);
            self.pairs = pairs;
        }
        if length == 2 * self.size {
            if self.of_pairs.0.is_empty() {
                self.merge(1, None, true);
            }
            return (&self.of_pairs.0, &self.of_pairs.1);
        }
        if self.of_fours.0.is_empty() {
            self.merge(2, None, true);
        }
        (&self.of_fours.0, &self.of_fours.1)
    }

    /// Merges runs of `blocks` blocks with the following ones, `into` sorted values, and levels if `levelled`.
    fn merge(&mut self, blocks: usize, mut into: Option<&mut Vec<f64>>, levelled: bool) {
        let half = blocks * self.size;
        let room = half.next_power_of_two();
        let network = self.networks.entry((room, true));
        let network = network.or_insert_with(|| Network::merging(room));
        let from = if blocks == 1 {
            &self.single
        } else {
            &self.pairs
        };
        let known = if blocks == 1 {
            &mut self.of_pairs
        } else {
            &mut self.of_fours
        };
        known.0.clear();
        known.1.clear();
        self.rows.clear();
        self.rows.resize(2 * room, [ABSENT; LANES]);
        for first in (0..self.count).step_by(LANES) {
            self.rows.fill([ABSENT; LANES]);
            for place in 0..half {
                let at = place * self.width + first;
                self.rows[place].copy_from_slice(&from[at..at + LANES]);
                self.rows[room + place].copy_from_slice(&from[at + blocks..at + blocks + LANES]);
            }
            network.run(&mut self.rows);
            let sorted = &self.rows[..2 * half];
            if let Some(into) = &mut into {
                for (place, row) in sorted.iter().enumerate() {
                    let at = place * self.width + first;
                    into[at..at + LANES].copy_from_slice(row);
                }
            }
            if levelled {
                let of = |lane: usize| self.present[first + lane..][..2 * blocks].iter().sum();
                let present = std::array::from_fn(of);
                known.0.extend(levels(sorted, &present));
                known.1.extend(spreads(sorted, &present));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn windows_at_equal_distances_are_windows(
            values in prop::collection::vec(
                prop_oneof![30 => -9.0..9.0_f64, 1 => Just(f64::NAN), 3 => Just(1.0)], 200..400),
            stride in 1_usize..20,
            gap in 0_usize..20,
            length in 1_usize..70,
        ) {
            let end = values.len() - 70;
            let count = (end - 70 - gap) / stride + 1;
            let anchors = Anchors { end, stride, count };
            let mut column = Column::default();
            // Twice: buffers are used again.
            for values in [values.iter().map(|value| -value).collect::<Vec<f64>>(), values.clone()] {
                column.clear();
                for length in [length, 2 * stride, 4 * stride, 2 * stride].map(|length| length.min(70)) {
                    for back in [0, (gap + length) as isize, -((70 - length) as isize)] {
                        let found = column.find(&values, anchors, back, length);
                        let found = column.get(found);
                        prop_assert_eq!((found.level.len(), found.spread.len()), (count, count));
                        for n in 0..count {
                            let start = (end as isize - back) as usize - n * stride;
                            let shape = Scratch::default().shape(&values[start..start + length]);
                            prop_assert_eq!(found.level[n].to_bits(), shape.level.to_bits(), "{} {}", length, n);
                            prop_assert_eq!(found.spread[n].to_bits(), shape.spread.to_bits());
                        }
                    }
                }
            }
        }
    }
}
