//! The slow twin of a whisper file: a model that forgets nothing.
//!
//! Each archive is the list of all that was ever written to it. A ring has room for one of the
//! intervals that are whole turns apart, so a point is there if no later entry of the list lies
//! whole turns away from it. No slots, no bases, no runs, no bytes.

use whisper::{ABSENT, Aggregation, Point, Retention, Timestamp};

pub(crate) struct Naive {
    pub(crate) retentions: Vec<Retention>,
    pub(crate) x_files_factor: f32,
    pub(crate) aggregation: Aggregation,
    written: Vec<Vec<Point>>,
}

impl Naive {
    pub(crate) fn new(
        retentions: Vec<Retention>,
        x_files_factor: f32,
        aggregation: Aggregation,
    ) -> Self {
        let written = vec![Vec::new(); retentions.len()];
        Self {
            retentions,
            x_files_factor,
            aggregation,
            written,
        }
    }

    /// The value at `at`, a multiple of the archive's step.
    fn value(&self, archive: usize, at: i64) -> Option<f64> {
        let length = self.retentions[archive].seconds() as i64;
        let shares = |point: &&Point| (i64::from(point.at.0) - at) % length == 0;
        let last = self.written[archive].iter().rev().find(shares)?;
        (i64::from(last.at.0) == at).then_some(last.value)
    }

    /// Point by point, oldest first; then each coarser archive from what the finer one holds.
    pub(crate) fn update_many(&mut self, now: Timestamp, points: &[Point]) {
        let age = |point: &Point| i64::from(now.0) - i64::from(point.at.0);
        let mut sorted = points.to_vec();
        sorted.sort_by_key(|point| point.at);
        for archive in 0..self.retentions.len() {
            let reach = |n: usize| self.retentions[n].seconds() as i64;
            let mine: Vec<Point> = sorted
                .iter()
                .filter(|point| {
                    age(point) < reach(archive)
                        && (0..archive).all(|finer| age(point) >= reach(finer))
                })
                .copied()
                .collect();
            if mine.is_empty() {
                continue;
            }
            let step = self.retentions[archive].step;
            for point in &mine {
                self.written[archive].push(Point {
                    at: step.floor(point.at),
                    ..*point
                });
            }
            self.propagate(archive, &mine);
        }
    }

    fn propagate(&mut self, from: usize, points: &[Point]) {
        for lower in from + 1..self.retentions.len() {
            let (finer, coarser) = (self.retentions[lower - 1].step, self.retentions[lower].step);
            let floored = |step: whisper::Step, point: &Point| step.floor(point.at);
            let own = self.retentions[from].step;
            let mut starts: Vec<Timestamp> = points
                .iter()
                .map(|point| coarser.floor(floored(own, point)))
                .collect();
            starts.sort();
            starts.dedup();
            let slots = coarser.seconds() / finer.seconds();
            let mut wrote = false;
            for start in starts {
                let at = |n: u32| i64::from(start.0) + i64::from(n) * i64::from(finer.seconds());
                let known: Vec<f64> = (0..slots)
                    .filter_map(|n| self.value(lower - 1, at(n)))
                    .collect();
                if known.len() as f32 / slots as f32 >= self.x_files_factor
                    && let Some(value) = self.aggregation.apply(&known, slots)
                {
                    self.written[lower].push(Point { at: start, value });
                    wrote = true;
                }
            }
            if !wrote {
                break;
            }
        }
    }

    /// What the archive of `step` answers, every step of (`from`, `until`].
    pub(crate) fn fetch(
        &self,
        archive: usize,
        now: Timestamp,
        from: Timestamp,
        until: Timestamp,
    ) -> Option<Vec<f64>> {
        let oldest = i64::from(now.0) - self.retentions.last()?.seconds() as i64;
        if from > now || i64::from(until.0) < oldest {
            return None;
        }
        let step = i64::from(self.retentions[archive].step.seconds());
        let up = |at: i64| (at.div_euclid(step) + 1) * step;
        let first = up(i64::from(from.0).max(oldest));
        let end = up(i64::from(until.0.min(now.0))).max(first + step);
        let newest = end - self.retentions[archive].seconds() as i64;
        let value = |at: i64| match at < newest {
            // Further back than the ring is long, counted from the end of the request.
            true => ABSENT,
            false => self.value(archive, at).unwrap_or(ABSENT),
        };
        Some((first..end).step_by(step as usize).map(value).collect())
    }

    /// The archive that answers a request that names none.
    pub(crate) fn choice(&self, now: Timestamp, from: Timestamp) -> usize {
        let reaches = |r: &Retention| u64::from(now.0.saturating_sub(from.0)) <= r.seconds();
        self.retentions
            .iter()
            .position(reaches)
            .unwrap_or(self.retentions.len() - 1)
    }
}
