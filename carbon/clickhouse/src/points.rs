//! Points of series over a range: the query, its answer, and the values of the steps.

use std::collections::HashMap;

use whisper::{ABSENT, Point};

use crate::rollup::Function;
use crate::rows;
use crate::sql;
use crate::wire::Rows;

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

/// The points of a series in ClickHouse, in any order, as little-endian numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Columns<'a> {
    times: &'a [u8],
    values: &'a [u8],
    versions: &'a [u8],
}

/// Reads the answer. `None` if it is cut off.
pub(crate) fn read(
    answer: &[u8],
) -> Option<HashMap<&str, Columns<'_>, foldhash::fast::RandomState>> {
    let mut rows = Rows(answer);
    let mut series = HashMap::default();
    while !rows.is_empty() {
        let path = std::str::from_utf8(rows.bytes()?).ok();
        let columns = Columns {
            times: rows.array(4)?,
            values: rows.array(8)?,
            versions: rows.array(4)?,
        };
        if columns.times.len() / 4 != columns.values.len() / 8
            || columns.times.len() != columns.versions.len()
        {
            return None;
        }
        if let Some(path) = path {
            series.insert(path, columns);
        }
    }
    Some(series)
}

impl Columns<'_> {
    fn times(&self) -> impl Iterator<Item = u32> + '_ {
        let words = self.times.chunks_exact(4);
        words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let words = self.values.chunks_exact(8);
        words.map(|word| f64::from_le_bytes(std::array::from_fn(|n| word[n])))
    }

    fn versions(&self) -> impl Iterator<Item = u32> + '_ {
        let words = self.versions.chunks_exact(4);
        words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    }

    /// The value of each step. `waiting` are points that ClickHouse has not acknowledged, in order of arrival: they
    /// take the place of those with the same timestamps.
    pub(crate) fn steps(&self, waiting: &[Point], steps: Steps, function: Function) -> Vec<f64> {
        let mut buckets = Buckets::new(steps, function);
        let in_order = self.times().is_sorted_by(|a, b| a < b);
        if in_order && waiting.is_empty() {
            for (at, value) in self.times().zip(self.values()) {
                buckets.add(at, value);
            }
            return buckets.finish();
        }
        let mut points: Vec<(u32, u64, f64)> = Vec::with_capacity(self.times.len() / 4);
        let stored = self.times().zip(self.versions()).zip(self.values());
        points.extend(stored.map(|((at, version), value)| (at, u64::from(version), value)));
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
        buckets.finish()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.times.is_empty()
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
        let at = i64::from(at) - self.steps.begin;
        let Ok(at) = usize::try_from(at.div_euclid(self.steps.step)) else {
            return;
        };
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
        let series = read(&answer).unwrap();
        series["a"].steps(&waiting, steps, function)
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
            assert!(read(&answer[..end]).is_none(), "{end}");
        }
    }
}
