//! Points of series over a range: the query, its answer, and the values of the steps.

use std::ops::Range;

use whisper::{ABSENT, Point};

use crate::client::Failure;
use crate::incoming::Incoming;
use crate::rollup::Function;
use crate::rows;
use crate::sql;

/// With more runs than this, points are sorted one by one.
const MOST_RUNS: usize = 64;

/// A range: the seconds of its first and last step, and the seconds between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    pub(crate) begin: i64,
    /// One step after the last.
    pub(crate) end: i64,
    pub(crate) step: i64,
}

impl Steps {
    /// The steps of a query for `(from, until]`, as Graphite's `whisper.fetch` has them.
    pub(crate) fn of(from: u32, until: u32, step: u32) -> Self {
        let step = i64::from(step.max(1));
        let (from, until) = (i64::from(from), i64::from(until));
        let begin = from - from % step + step;
        let end = until - until % step + step;
        Self {
            begin,
            end: if end > begin { end } else { begin + step },
            step,
        }
    }

    pub(crate) fn count(self) -> usize {
        usize::try_from((self.end - self.begin) / self.step).unwrap_or(0)
    }
}

/// The query for the points of `paths` with timestamps from `first` to `last`.
pub(crate) fn query(table: &str, paths: &[&str], first: u32, last: u32) -> String {
    let mut names = String::with_capacity(paths.iter().map(|path| path.len() + 4).sum());
    for (n, path) in paths.iter().enumerate() {
        if n > 0 {
            names.push(',');
        }
        sql::push_text(&mut names, path);
    }
    // Writers whose day is not that of UTC are a day off at most.
    let begin = sql::day(u32::from(rows::day(first)).saturating_sub(1));
    let end = sql::day((u32::from(rows::day(last)) + 1).min(49_710));
    format!(
        "SELECT Path, groupArray(Time), groupArray(Value), groupArray(Timestamp) FROM {table} \
         PREWHERE Date >= {begin} AND Date <= {end} \
         WHERE Path IN ({names}) AND Time >= {first} AND Time <= {last} \
         GROUP BY Path FORMAT RowBinary"
    )
}

/// The points of a series in ClickHouse, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    times: Vec<u32>,
    values: Vec<f64>,
    versions: Vec<u32>,
}

impl Columns {
    /// Reads the next row of an answer; what `find` makes of its path. `None`: there are no more.
    pub(crate) fn read<T>(
        &mut self,
        incoming: &mut Incoming<'_>,
        find: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        if incoming.is_over()? {
            return Ok(None);
        }
        let found = incoming.text(|path| std::str::from_utf8(path).ok().and_then(find))?;
        self.times.clear();
        self.values.clear();
        self.versions.clear();
        let numbers = |numbers: &[[u8; 4]], into: &mut Vec<u32>| {
            into.extend(numbers.iter().map(|number| u32::from_le_bytes(*number)));
        };
        incoming.array(|times| numbers(times, &mut self.times))?;
        let values = &mut self.values;
        incoming.array(|numbers| values.extend(numbers.iter().map(|n| f64::from_le_bytes(*n))))?;
        incoming.array(|versions| numbers(versions, &mut self.versions))?;
        let n = self.times.len();
        match found {
            Some(found) if (self.values.len(), self.versions.len()) == (n, n) => Ok(Some(found)),
            // Only what was asked for is answered.
            _ => Err(incoming.cut()),
        }
    }

    /// The value of each step. `waiting` are points that ClickHouse has not acknowledged, in order of arrival: they
    /// take the place of those with the same timestamps.
    pub(crate) fn steps(&self, waiting: &[Point], steps: Steps, function: Function) -> Vec<f64> {
        let mut buckets = Buckets::new(steps, function);
        match self.runs(waiting) {
            Some(runs) => {
                for run in runs {
                    let times = &self.times[run.clone()];
                    for (at, value) in times.iter().zip(&self.values[run]) {
                        buckets.add(*at, *value);
                    }
                }
                for point in waiting {
                    buckets.add(point.at.0, point.value);
                }
            }
            None => self.add_sorted(waiting, &mut buckets),
        }
        buckets.finish()
    }

    /// The runs of timestamps in their order, if no timestamp is there twice and all of them are before `waiting`: each
    /// part of the table has a run of the series.
    fn runs(&self, waiting: &[Point]) -> Option<Vec<Range<usize>>> {
        let times = &self.times;
        let is_ascending = |pair: &[u32]| pair[0] < pair[1];
        let breaks = times.windows(2).enumerate();
        let breaks = breaks.filter(|(_, pair)| !is_ascending(pair));
        let mut runs = Vec::new();
        let mut begin = 0;
        for (at, _) in breaks {
            runs.push(begin..at + 1);
            begin = at + 1;
            if runs.len() > MOST_RUNS {
                return None;
            }
        }
        if begin < times.len() {
            runs.push(begin..times.len());
        }
        runs.sort_unstable_by_key(|run| times[run.start]);
        let last = |run: &Range<usize>| times[run.end - 1];
        let waits = waiting.first().map(|point| point.at.0);
        let in_order = runs
            .windows(2)
            .all(|pair| last(&pair[0]) < times[pair[1].start])
            && waiting.is_sorted_by(|a, b| a.at < b.at)
            && runs.last().map(last) < waits.or(Some(u32::MAX));
        in_order.then_some(runs)
    }

    fn add_sorted(&self, waiting: &[Point], buckets: &mut Buckets) {
        let mut points: Vec<(u32, u64, f64)> = Vec::with_capacity(self.times.len() + waiting.len());
        let stored = self.times.iter().zip(&self.versions).zip(&self.values);
        points.extend(stored.map(|((at, version), value)| (*at, u64::from(*version), *value)));
        let first = 1 << 32;
        let arrived = waiting.iter().zip(first..);
        points.extend(arrived.map(|(point, version)| (point.at.0, version, point.value)));
        points.sort_by_key(|(at, version, _)| (*at, *version));
        for (n, (at, _, value)) in points.iter().enumerate() {
            // The last of a timestamp is the one that counts.
            if points.get(n + 1).is_none_or(|next| next.0 != *at) {
                buckets.add(*at, *value);
            }
        }
    }
}

/// Makes one value of the points of each step; points come in order.
struct Buckets {
    steps: Steps,
    function: Function,
    values: Vec<f64>,
    /// The step of the last point, its sum and its number of points.
    open: Option<(usize, f64, u32)>,
}

impl Buckets {
    fn new(steps: Steps, function: Function) -> Self {
        Self {
            steps,
            function,
            values: vec![ABSENT; steps.count()],
            open: None,
        }
    }

    fn add(&mut self, at: u32, value: f64) {
        // Timestamps and steps fit into 32 bits, which divide in a fraction of the time.
        let (Ok(at), Ok(step)) = (
            u32::try_from(i64::from(at) - self.steps.begin),
            u32::try_from(self.steps.step),
        ) else {
            return;
        };
        let at = (at / step.max(1)) as usize;
        if at >= self.values.len() {
            return;
        }
        match &mut self.open {
            Some((open, made, count)) if *open == at => {
                *count += 1;
                *made = match self.function {
                    Function::Average | Function::Sum => *made + value,
                    Function::Min => made.min(value),
                    Function::Max => made.max(value),
                    Function::Any => *made,
                    Function::AnyLast => value,
                };
            }
            _ => {
                self.close();
                self.open = Some((at, value, 1));
            }
        }
    }

    fn close(&mut self) {
        if let Some((at, made, count)) = self.open.take() {
            self.values[at] = match self.function {
                Function::Average if count > 1 => made / f64::from(count),
                _ => made,
            };
        }
    }

    fn finish(mut self) -> Vec<f64> {
        self.close();
        self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use render::budget::Budget;
    use std::collections::HashMap;
    use whisper::Timestamp;

    fn answer(path: &str, points: &[(u32, f64, u32)]) -> Vec<u8> {
        let mut out = vec![path.len() as u8];
        out.extend(path.as_bytes());
        out.push(points.len() as u8);
        points.iter().for_each(|p| out.extend(p.0.to_le_bytes()));
        out.push(points.len() as u8);
        points.iter().for_each(|p| out.extend(p.1.to_le_bytes()));
        out.push(points.len() as u8);
        points.iter().for_each(|p| out.extend(p.2.to_le_bytes()));
        out
    }

    fn values(points: &[(u32, f64, u32)], waiting: &[(u32, f64)], function: Function) -> Vec<f64> {
        let answer = answer("a", points);
        let waiting: Vec<Point> = waiting
            .iter()
            .map(|(at, value)| Point {
                at: Timestamp(*at),
                value: *value,
            })
            .collect();
        let steps = Steps::of(990, 1_020, 10);
        let columns = read(&answer).unwrap();
        columns["a"].steps(&waiting, steps, function)
    }

    fn read(mut answer: &[u8]) -> Result<HashMap<String, Columns>, Failure> {
        let held = Budget::unlimited().hold(0).unwrap();
        let mut incoming = Incoming::new(&mut answer, held)?;
        let mut columns = Columns::default();
        let mut series = HashMap::new();
        while let Some(path) = columns.read(&mut incoming, |path| Some(path.to_owned()))? {
            series.insert(path, columns.clone());
        }
        Ok(series)
    }

    #[test]
    fn steps_are_those_of_whisper() {
        let steps = |begin, end, step| Steps { begin, end, step };
        assert_eq!(Steps::of(990, 1_020, 10), steps(1_000, 1_030, 10));
        assert_eq!(Steps::of(991, 1_029, 10), steps(1_000, 1_030, 10));
        assert_eq!(Steps::of(1_000, 1_000, 10), steps(1_010, 1_020, 10));
    }

    #[test]
    fn the_last_version_of_a_timestamp_counts_once() {
        let points = [
            (1_011, 5.0, 2),
            (1_003, 1.0, 7),
            (1_003, 9.0, 6),
            (1_004, 3.0, 1),
        ];
        let [first, second, third] = values(&points, &[], Function::Average)[..] else {
            panic!()
        };
        assert_eq!((first, second), (2.0, 5.0));
        assert!(third.is_nan());
        let sums = values(
            &points,
            &[(1_003, 8.0), (1_003, 4.0), (1_029, 2.0)],
            Function::Sum,
        );
        assert_eq!(sums, [7.0, 5.0, 2.0]);
    }

    #[test]
    fn every_function_makes_one_value_of_many() {
        let points = [(1_000, 3.0, 1), (1_001, 1.0, 1), (1_002, 2.0, 1)];
        for (function, expected) in [
            (Function::Average, 2.0),
            (Function::Sum, 6.0),
            (Function::Min, 1.0),
            (Function::Max, 3.0),
            (Function::Any, 3.0),
            (Function::AnyLast, 2.0),
        ] {
            assert_eq!(values(&points, &[], function)[0], expected, "{function:?}");
        }
    }

    #[test]
    fn points_outside_are_left_out_and_what_is_cut_off_is_refused() {
        let points = [(999, 1.0, 1), (1_030, 1.0, 1)];
        assert!(
            values(&points, &[], Function::Sum)
                .iter()
                .all(|v| v.is_nan())
        );
        let answer = answer("a", &points);
        for end in 1..answer.len() {
            assert!(read(&answer[..end]).is_err(), "{end}");
        }
    }
    #[test]
    fn runs_of_parts_are_taken_in_their_order() {
        let columns = |times: &[u32]| Columns {
            times: times.to_vec(),
            values: times.iter().map(|at| f64::from(*at)).collect(),
            versions: vec![1; times.len()],
        };
        let waits = |at| Point {
            at: Timestamp(at),
            value: 0.0,
        };
        let runs = |times: &[u32], waiting: &[Point]| columns(times).runs(waiting);
        assert_eq!(runs(&[5, 6, 1, 2, 3], &[]), Some(vec![2..5, 0..2]));
        assert_eq!(runs(&[], &[waits(1)]), Some(Vec::new()));
        assert_eq!(runs(&[2, 3, 1], &[waits(4)]), Some(vec![2..3, 0..2]));
        for twice in [&[1, 1][..], &[1, 3, 2, 4], &[1, 2, 2, 3]] {
            assert_eq!(runs(twice, &[]), None, "{twice:?}");
        }
        assert_eq!(runs(&[1, 2], &[waits(2)]), None);
        assert_eq!(runs(&[1], &[waits(3), waits(3)]), None);
    }

    proptest! {
        #[test]
        fn runs_give_what_sorting_gives(
            times in prop::collection::vec(995_u32..1_035, 0..30),
            waiting in prop::collection::vec(995_u32..1_035, 0..4),
            is_sorted: bool,
        ) {
            let mut times = times;
            if is_sorted {
                times.sort_unstable();
                times.dedup();
                let half = times.len() / 2;
                times.rotate_left(half);
            }
            let columns = Columns {
                values: (0..times.len()).map(|n| n as f64).collect(),
                versions: (0..times.len()).map(|n| n as u32 % 3).collect(),
                times,
            };
            let point = |(n, at): (usize, u32)| Point { at: Timestamp(at), value: n as f64 / 8.0 };
            let waiting: Vec<Point> = waiting.into_iter().enumerate().map(point).collect();
            let steps = Steps::of(990, 1_020, 10);
            let mut sorted = Buckets::new(steps, Function::AnyLast);
            columns.add_sorted(&waiting, &mut sorted);
            let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
            let got = columns.steps(&waiting, steps, Function::AnyLast);
            prop_assert_eq!(bits(got), bits(sorted.finish()));
        }
    }
}
