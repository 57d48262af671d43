//! How rare a change is among the changes that series show by themselves.

use super::params::{Params, Plan};

/// A change at a placebo, or at the deploy, that is large for its series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rare {
    /// The placebo; the deploy comes after the last one.
    pub(super) index: usize,
    /// The size of the change over the series' own large change.
    pub(super) ratio: f64,
    /// Placebos with a change at least as large.
    pub(super) like: u32,
    /// Placebos compared with.
    pub(super) placebos: u32,
}

/// The changes of one series compared with its own placebos. Most changes are usual ones, of which nothing but
/// the ratio counts.
#[derive(Clone, Debug, Default)]
pub(super) struct Scored {
    /// Changes that the series does not show by itself too often for a finding.
    pub(super) rare: Vec<Rare>,
    /// The size of the deploy's change over the series' own large change.
    pub(super) ratio: f64,
    /// Placebos with a change at least as large as the deploy's.
    pub(super) like: u32,
    /// Placebos that the deploy is compared with.
    pub(super) placebos: u32,
    /// The series' own large change, by which the deploy's is divided.
    pub(super) scale: f64,
    /// The largest ratios at placebos, ascending: as many as decide whether a change is usual.
    pub(super) largest: Vec<f64>,
}

impl Scored {
    /// The series did as much as at the deploy by itself too often for a finding.
    pub(super) fn usual(&self, params: &Params) -> bool {
        is_usual(self.like, self.placebos, params)
    }
}

fn is_usual(like: u32, placebos: u32, params: &Params) -> bool {
    f64::from(like) > params.cap * f64::from(placebos)
}

/// A ratio; 0 where there is none.
fn known(ratio: f64) -> f64 {
    if ratio.is_nan() { 0.0 } else { ratio }
}

/// Ratios at the placebos of several series.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    zeros: usize,
    ratios: Vec<f64>,
}

impl Pool {
    fn add(&mut self, ratios: &[f64]) {
        let before = self.ratios.len();
        let positive = ratios.iter().filter(|ratio| **ratio > 0.0);
        self.ratios.extend(positive);
        self.zeros += before + ratios.len() - self.ratios.len();
    }

    /// Sorts what is in it, for [`Tail::new`].
    pub(super) fn sort(&mut self) {
        // No ratio is negative: their bits are in the order of their values.
        self.ratios.sort_unstable_by_key(|ratio| ratio.to_bits());
    }
}

/// Buffers of [`Comparison::score`].
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// The sizes of known changes at placebos, and their places; the largest are sorted, the largest first.
    own: Vec<(f64, u32)>,
    /// Of each part of the history, its placebos.
    parts: Vec<usize>,
    /// Of each part, its placebos among the largest changes so far.
    seen: Vec<usize>,
    ratios: Vec<f64>,
}

/// How the changes of one series are compared.
#[derive(Clone, Copy)]
pub(super) struct Comparison<'a> {
    pub(super) plan: &'a Plan,
    pub(super) params: &'a Params,
    /// Changes of this size are trifles.
    pub(super) floor: f64,
}

impl Comparison<'_> {
    /// Scores `changes`, of which the deploy's is the last. A placebo is compared with those of other parts of the
    /// history only: its neighbours share its points. The ratios of the placebos go to `pool`.
    pub(super) fn score(
        &self,
        changes: &[f64],
        pool: Option<&mut Pool>,
        buffers: &mut Buffers,
    ) -> Scored {
        let Self {
            plan,
            params,
            floor,
        } = *self;
        let deploy = plan.placebos();
        let Buffers {
            own,
            parts,
            seen,
            ratios,
        } = buffers;
        parts.clear();
        parts.resize(plan.part.iter().max().map_or(0, |last| last + 1), 0);
        own.clear();
        for (index, change) in changes[..deploy].iter().enumerate() {
            if change.is_finite() {
                own.push((change.abs(), index as u32));
                parts[plan.part[index]] += 1;
            }
        }
        let sorted = self.sort_largest(own, parts);
        let large = |part: Option<usize>| {
            let others = own.len() - part.map_or(0, |part| parts[part]);
            self.quantile_of_others(&own[..sorted], part, others) + floor
        };
        self.divide(&changes[..deploy], large, ratios);
        let last = changes[deploy];
        let size = if last.is_finite() { last.abs() } else { 0.0 };
        let mut scored = Scored {
            rare: Vec::new(),
            scale: large(None),
            ratio: 0.0,
            like: 0,
            placebos: own.len() as u32,
            largest: Vec::new(),
        };
        scored.ratio = known(size / scored.scale);
        if size > 0.0 {
            scored.like = own.iter().filter(|(other, _)| *other >= size).count() as u32;
        }
        self.find_rare((own, sorted), parts, seen, ratios, &mut scored.rare);
        if scored.ratio > 0.0 && !scored.usual(params) {
            scored.rare.push(Rare {
                index: deploy,
                ratio: scored.ratio,
                like: scored.like,
                placebos: scored.placebos,
            });
        }
        if let Some(pool) = pool {
            let mut changes = changes.iter();
            ratios.retain(|_| changes.next().is_some_and(|change| change.is_finite()));
            pool.add(ratios);
            // More of the series' own changes than these must not be as large as one that is found.
            let most = (params.cap * ratios.len() as f64) as usize + 1;
            let others = ratios.len().saturating_sub(most);
            if others > 0 {
                ratios.select_nth_unstable_by(others, f64::total_cmp);
            }
            scored.largest.extend_from_slice(&ratios[others..]);
            scored.largest.sort_unstable_by(f64::total_cmp);
        }
        scored
    }

    /// The ratio of each of `changes` to what `large` says of its part.
    fn divide(&self, changes: &[f64], large: impl Fn(Option<usize>) -> f64, ratios: &mut Vec<f64>) {
        ratios.clear();
        // Placebos of one part follow each other.
        let mut of_part = None;
        for (change, part) in changes.iter().zip(&self.plan.part) {
            let divisor = match of_part {
                Some((known, divisor)) if known == part => divisor,
                _ => large(Some(*part)),
            };
            of_part = Some((part, divisor));
            ratios.push(known(change.abs() / divisor));
        }
    }

    /// As [`Comparison::score`] of changes that are 0, at `placebos` placebos and at the deploy.
    pub(super) fn unchanged(&self, placebos: usize, pool: &mut Pool) -> Scored {
        pool.zeros += placebos;
        Scored {
            placebos: placebos as u32,
            scale: self.floor,
            ..Scored::default()
        }
    }

    /// Sorts as many of the largest changes as the quantiles and the rare changes need, and returns how many.
    fn sort_largest(&self, own: &mut [(f64, u32)], parts: &[usize]) -> usize {
        let share = (1.0 - self.params.scale_quantile).max(self.params.cap);
        let left_out = parts.iter().max().copied().unwrap_or_default();
        let needed = (share * own.len() as f64).ceil() as usize + left_out + 3;
        let descending = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0);
        if needed >= own.len() {
            own.sort_unstable_by(descending);
            return own.len();
        }
        let (largest, ..) = own.select_nth_unstable_by(needed, descending);
        largest.sort_unstable_by(descending);
        needed
    }

    /// The quantile of the sizes of the changes of all parts but `part`, which are `others`; `largest` has the largest
    /// of all parts. NaN for none.
    fn quantile_of_others(
        &self,
        largest: &[(f64, u32)],
        part: Option<usize>,
        others: usize,
    ) -> f64 {
        let Some(last) = others.checked_sub(1) else {
            return f64::NAN;
        };
        let rank = (self.params.scale_quantile * last as f64).max(0.0);
        let low = rank.floor() as usize;
        let is_other = |(_, index): &&(f64, u32)| part != Some(self.plan.part[*index as usize]);
        let mut sizes = largest.iter().filter(is_other).map(|(size, _)| *size);
        // Counted from the largest on.
        let b = sizes.nth(last - (low + 1).min(last)).unwrap_or(f64::NAN);
        let a = if low < last {
            sizes.next().unwrap_or(f64::NAN)
        } else {
            b
        };
        a + (b - a) * (rank - low as f64)
    }

    /// Appends the placebos whose changes are no usual ones to `rare`. The first `sorted` of `own` are its largest ones.
    fn find_rare(
        &self,
        (own, sorted): (&[(f64, u32)], usize),
        parts: &[usize],
        seen: &mut Vec<usize>,
        ratios: &[f64],
        rare: &mut Vec<Rare>,
    ) {
        let Self { plan, params, .. } = *self;
        let of_one_part = parts.iter().max().copied().unwrap_or_default();
        seen.clear();
        seen.resize(parts.len(), 0);
        let mut begun = 0;
        while begun < sorted && own[begun].0 > 0.0 {
            // Equal changes count together; those of the last size go on beyond the sorted ones.
            let size = own[begun].0;
            let equal = own[begun..sorted]
                .iter()
                .take_while(|(other, _)| *other == size);
            let end = begun + equal.count();
            let beyond: &[(f64, u32)] = if end == sorted { &own[sorted..] } else { &[] };
            let beyond = beyond.iter().filter(|(other, _)| *other == size);
            let equal = own[begun..end].iter().chain(beyond);
            let mut largest = begun;
            for (_, index) in equal.clone() {
                seen[plan.part[*index as usize]] += 1;
                largest += 1;
            }
            for (_, index) in equal {
                let index = *index as usize;
                let part = plan.part[index];
                let like = (largest - seen[part]) as u32;
                let placebos = (own.len() - parts[part]) as u32;
                let ratio = ratios[index];
                if ratio > 0.0 && !is_usual(like, placebos, params) {
                    rare.push(Rare {
                        index,
                        ratio,
                        like,
                        placebos,
                    });
                }
            }
            // All smaller changes are usual ones, whichever part they are in.
            if largest as f64 - of_one_part as f64 > params.cap * own.len() as f64 {
                return;
            }
            begun = end;
        }
    }
}

/// The probability that a ratio is at least so large, over all series: counted, and a power law
/// beyond the last 1/2000.
#[derive(Debug)]
pub(super) struct Tail<'a> {
    /// Each is sorted.
    pools: Vec<&'a Pool>,
    count: usize,
    from: f64,
    share: f64,
    exponent: f64,
}

impl<'a> Tail<'a> {
    /// The tail of what sorted `pools` hold together.
    pub(super) fn new(pools: Vec<&'a Pool>) -> Self {
        const LEAST: f64 = 1e-12;
        let n = pools
            .iter()
            .map(|pool| pool.zeros + pool.ratios.len())
            .sum::<usize>();
        let count = n.min((n / 2_000).max(20));
        let largest = |pool: &&'a Pool| pool.ratios.iter().rev().take(count).copied();
        let mut beyond: Vec<f64> = pools.iter().flat_map(largest).collect();
        beyond.resize(beyond.len().max(count), 0.0);
        beyond.sort_unstable_by(|a, b| b.total_cmp(a));
        beyond.truncate(count);
        beyond.reverse();
        let from = beyond.first().map_or(LEAST, |first| first.max(LEAST));
        let logs = beyond.iter().map(|ratio| (ratio.max(LEAST) / from).ln());
        let mean = logs.sum::<f64>() / count.max(1) as f64;
        Self {
            share: count as f64 / n.max(1) as f64,
            exponent: 1.0 / mean.max(1e-6),
            from,
            count: n,
            pools,
        }
    }

    /// That a ratio is at least `ratio`, which is above 0.
    pub(super) fn beyond(&self, ratio: f64) -> f64 {
        let n = self.count;
        if n == 0 {
            return 1.0;
        }
        if ratio > self.from {
            return self.share * (ratio / self.from).powf(-self.exponent);
        }
        let as_large =
            |pool: &&Pool| pool.ratios.len() - pool.ratios.partition_point(|other| *other < ratio);
        let as_large: usize = self.pools.iter().map(as_large).sum();
        (as_large as f64 / n as f64).max(1.0 / n as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_falls() {
        // A power law: the share beyond r is 1/r.
        let mut pools = vec![Pool::default(); 3];
        for n in 1..=10_000_u32 {
            pools[n as usize % 2].ratios.push(10_000.0 / f64::from(n));
        }
        pools.iter_mut().for_each(Pool::sort);
        let tail = Tail::new(pools.iter().collect());
        let mut last = 1.0;
        for ratio in [1e-3, 1.0, 2.0, 10.0, 400.0, 600.0, 10_000.0, 1e6] {
            let share = tail.beyond(ratio);
            assert!(
                share > 0.0 && share <= last,
                "{ratio}: {share} after {last}"
            );
            last = share;
        }
        assert_eq!(Tail::new(Vec::new()).beyond(3.0), 1.0);
        let zeros = Pool {
            zeros: 10,
            ratios: Vec::new(),
        };
        assert_eq!(Tail::new(vec![&zeros]).beyond(3.0), 0.0);
    }
}
