//! Many values to one: Graphite's aggregation functions, in one table.
//!
//! 1. An absent value is no value: it is left out, except where a name says otherwise
//!    (`avg_zero`, `multiply`). No value at all gives none, except for `count`.
//! 2. Order matters to `diff` and `last`, and to the last digit of sums: values are taken in the
//!    order given, as Python's `sum` does.
//! 3. NaN that was stored is a value. `min` and `max` keep the earlier of two that do not compare.

use whisper::{ABSENT, is_absent};

use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::python;
use crate::series::{Column, bytes_of};

/// How the values of a step, or a whole series, become one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// The mean.
    Average,
    /// The mean, absent values counting as 0.
    AvgZero,
    /// The middle one, or the mean of the middle two.
    Median,
    /// The sum.
    Sum,
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The first minus all others.
    Diff,
    /// The standard deviation of the population.
    Stddev,
    /// How many are present.
    Count,
    /// The largest minus the smallest.
    Range,
    /// The product; none if any is absent.
    Multiply,
    /// The last present one.
    Last,
}

/// Names, aliases after the twelve proper ones.
pub const NAMES: &[(&str, Aggregate)] = &[
    ("average", Aggregate::Average),
    ("avg_zero", Aggregate::AvgZero),
    ("median", Aggregate::Median),
    ("sum", Aggregate::Sum),
    ("min", Aggregate::Min),
    ("max", Aggregate::Max),
    ("diff", Aggregate::Diff),
    ("stddev", Aggregate::Stddev),
    ("count", Aggregate::Count),
    ("range", Aggregate::Range),
    ("multiply", Aggregate::Multiply),
    ("last", Aggregate::Last),
    ("rangeOf", Aggregate::Range),
    ("avg", Aggregate::Average),
    ("total", Aggregate::Sum),
    ("current", Aggregate::Last),
];

impl Aggregate {
    /// The function called `name`.
    ///
    /// # Errors
    /// [`Error::Refused`] for any other word.
    pub fn named(name: &str) -> Result<Self> {
        NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, aggregate)| *aggregate)
            .ok_or_else(|| Error::refused(format!("Unsupported aggregation function: {name}")))
    }

    /// The one value of `values`, [`ABSENT`] if they are absent.
    pub fn of(self, values: &[f64]) -> f64 {
        let some = || values.iter().copied().filter(|&value| !is_absent(value));
        let count = || some().count();
        match self {
            Self::Average => match count() {
                0 => ABSENT,
                n => sum(some()) / n as f64,
            },
            Self::AvgZero => match values.len() {
                0 => ABSENT,
                n => sum(some()) / n as f64,
            },
            Self::Median => {
                let mut all = Vec::with_capacity(values.len());
                all.extend(some());
                median(all)
            }
            Self::Sum => match count() {
                0 => ABSENT,
                _ => sum(some()),
            },
            Self::Min => some().reduce(smaller).unwrap_or(ABSENT),
            Self::Max => some().reduce(larger).unwrap_or(ABSENT),
            Self::Diff => {
                let mut rest = some();
                match rest.next() {
                    Some(first) => rest.fold(first, |total, value| total - value),
                    None => ABSENT,
                }
            }
            Self::Stddev => match count() {
                0 => ABSENT,
                n => {
                    let mean = sum(some()) / n as f64;
                    let squares = sum(some().map(|value| (value - mean) * (value - mean)));
                    (squares / n as f64).sqrt()
                }
            },
            Self::Count => count() as f64,
            Self::Range => {
                let low = Self::Min.of(values);
                let high = Self::Max.of(values);
                if is_absent(low) { ABSENT } else { high - low }
            }
            Self::Multiply => {
                if values.is_empty() || values.iter().any(|&value| is_absent(value)) {
                    ABSENT
                } else {
                    values.iter().product()
                }
            }
            Self::Last => some().next_back().unwrap_or(ABSENT),
        }
    }
}

/// Left to right from 0, as Python does.
fn sum(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |total, value| total + value)
}

fn smaller(best: f64, value: f64) -> f64 {
    if value < best { value } else { best }
}

fn larger(best: f64, value: f64) -> f64 {
    if value > best { value } else { best }
}

fn median(mut values: Vec<f64>) -> f64 {
    python::sort(&mut values);
    let middle = values.len() / 2;
    match values.len() {
        0 => ABSENT,
        n if n % 2 == 0 => (values[middle - 1] + values[middle]) / 2.0,
        _ => values[middle],
    }
}

/// Whether `present` of `total` slots are enough. None is never enough.
pub fn enough(present: usize, total: f64, x_files_factor: f64) -> bool {
    present > 0 && total > 0.0 && present as f64 / total >= x_files_factor
}

/// Columns folded one after the other into an aggregate by step: needs memory by points, not by
/// columns. Holds for all aggregates but those that need all values of a step at once.
#[derive(Clone, Debug)]
pub struct Fold {
    aggregate: Aggregate,
    columns: usize,
    first: Vec<f64>,
    second: Vec<f64>,
    present: Vec<u32>,
}

impl Fold {
    /// An empty fold, or `None` for an aggregate that needs its rows whole.
    pub fn new(aggregate: Aggregate) -> Option<Self> {
        if matches!(aggregate, Aggregate::Median | Aggregate::Stddev) {
            return None;
        }
        Some(Self {
            aggregate,
            columns: 0,
            first: Vec::new(),
            second: Vec::new(),
            present: Vec::new(),
        })
    }

    /// The bytes that a fold of so many rows takes beside the values of its result.
    pub fn size_beside(n_rows: usize) -> usize {
        n_rows.saturating_mul(size_of::<f64>() + size_of::<u32>())
    }

    /// Adds the next column. Rows beyond its end have no value in it.
    pub fn add(&mut self, column: &[f64]) {
        if column.len() > self.present.len() {
            let start = match self.aggregate {
                Aggregate::Multiply => 1.0,
                _ => 0.0,
            };
            self.first.resize(column.len(), start);
            self.present.resize(column.len(), 0);
            if self.aggregate == Aggregate::Range {
                self.second.resize(column.len(), 0.0);
            }
        }
        self.columns += 1;
        let rows = self.first.iter_mut().zip(&mut self.present).zip(column);
        match self.aggregate {
            Aggregate::Sum | Aggregate::Average | Aggregate::AvgZero => {
                for ((total, present), &value) in rows {
                    // Branch-free: an absent value adds nothing.
                    let there = !is_absent(value);
                    *total += if there { value } else { 0.0 };
                    *present += u32::from(there);
                }
            }
            Aggregate::Count => {
                for ((_, present), &value) in rows {
                    *present += u32::from(!is_absent(value));
                }
            }
            Aggregate::Min => each(rows, smaller),
            Aggregate::Max => each(rows, larger),
            Aggregate::Diff => each(rows, |total, value| total - value),
            Aggregate::Last => each(rows, |_, value| value),
            Aggregate::Multiply => each(rows, |total, value| total * value),
            Aggregate::Range => {
                let rows = rows.zip(&mut self.second);
                for (((low, present), &value), high) in rows {
                    if is_absent(value) {
                        continue;
                    }
                    (*low, *high) = match *present {
                        0 => (value, value),
                        _ => (smaller(*low, value), larger(*high, value)),
                    };
                    *present += 1;
                }
            }
            Aggregate::Median | Aggregate::Stddev => unreachable!("refused by Fold::new"),
        }
    }

    /// The aggregate of each step: absent where too few columns had a value.
    pub fn finish(self, x_files_factor: f64) -> Vec<f64> {
        let Self {
            aggregate,
            columns,
            mut first,
            second,
            present,
        } = self;
        let total = columns as f64;
        for (cells, (value, &present)) in first.iter_mut().zip(&present).enumerate() {
            if !enough(present as usize, total, x_files_factor) {
                *value = ABSENT;
                continue;
            }
            match aggregate {
                Aggregate::Average => *value /= f64::from(present),
                Aggregate::AvgZero => *value /= total,
                Aggregate::Count => *value = f64::from(present),
                Aggregate::Range => *value = second[cells] - *value,
                Aggregate::Multiply if (present as usize) < columns => *value = ABSENT,
                _ => {}
            }
        }
        first
    }
}

/// The first value of a step is taken as it is, later ones through `fold`.
fn each<'a>(
    rows: impl Iterator<Item = ((&'a mut f64, &'a mut u32), &'a f64)>,
    fold: impl Fn(f64, f64) -> f64,
) {
    for ((held, present), &value) in rows {
        if is_absent(value) {
            continue;
        }
        *held = if *present == 0 {
            value
        } else {
            fold(*held, value)
        };
        *present += 1;
    }
}

/// The aggregate of each step over `columns`; shorter columns have no value in the last steps.
///
/// # Errors
/// As [`Budget::check`] and [`Budget::reserve`].
pub fn rows(
    aggregate: Aggregate,
    columns: &[&[f64]],
    x_files_factor: f64,
    budget: &Budget,
) -> Result<Column> {
    if let Some(mut fold) = Fold::new(aggregate) {
        let length = longest(columns);
        let _counts = budget.hold(Fold::size_beside(length))?;
        return Column::reserved(budget, length, || {
            for column in columns {
                budget.check()?;
                fold.add(column);
            }
            Ok(fold.finish(x_files_factor))
        });
    }
    each_row(columns, budget, |cells| {
        let present = cells.iter().filter(|&&value| !is_absent(value)).count();
        if enough(present, cells.len() as f64, x_files_factor) {
            aggregate.of(cells)
        } else {
            ABSENT
        }
    })
}

fn longest(columns: &[&[f64]]) -> usize {
    columns.iter().map(|column| column.len()).max().unwrap_or(0)
}

/// `function` of each step over `columns`; shorter columns are absent in the last steps.
///
/// # Errors
/// As [`Budget::check`] and [`Budget::reserve`].
pub fn each_row(
    columns: &[&[f64]],
    budget: &Budget,
    mut function: impl FnMut(&[f64]) -> f64,
) -> Result<Column> {
    let length = longest(columns);
    // The values of a step, and once more for functions that sort it.
    let _row = budget.hold(bytes_of(2 * columns.len()))?;
    Column::reserved(budget, length, || {
        let mut cells = Vec::with_capacity(columns.len());
        let mut values = Vec::with_capacity(length);
        let mut pace = budget.pace();
        for index in 0..length {
            pace.check_after(columns.len())?;
            cells.clear();
            let at = |column: &&[f64]| column.get(index).copied().unwrap_or(ABSENT);
            cells.extend(columns.iter().map(at));
            values.push(function(&cells));
        }
        Ok(values)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_aggregate_of_a_row() {
        let cells = [ABSENT, 4.0, 1.0, ABSENT, 1.0];
        for (name, value) in [
            ("average", 2.0),
            ("avg", 2.0),
            ("avg_zero", 1.2),
            ("median", 1.0),
            ("sum", 6.0),
            ("min", 1.0),
            ("max", 4.0),
            ("diff", 2.0),
            ("stddev", 2.0_f64.sqrt()),
            ("count", 3.0),
            ("rangeOf", 3.0),
            ("multiply", ABSENT),
            ("current", 1.0),
        ] {
            let got = Aggregate::named(name).unwrap().of(&cells);
            assert!(
                got == value || (is_absent(got) && is_absent(value)),
                "{name}: {got}"
            );
        }
        assert_eq!(Aggregate::Median.of(&[3.0, 1.0, 2.0, 10.0]), 2.5);
        assert!(is_absent(Aggregate::Sum.of(&[ABSENT])));
        assert_eq!(Aggregate::Count.of(&[]), 0.0);
        assert!(Aggregate::named("sumSeries").is_err());
    }

    fn column() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(prop_oneof![Just(ABSENT), -4.0..4.0_f64, Just(0.0)], 0..6)
    }

    proptest! {
        /// Folding column by column equals aggregating step by step.
        #[test]
        fn a_fold_equals_its_rows(
            columns in prop::collection::vec(column(), 1..5),
            which in 0..NAMES.len(),
            xff in 0.0..1.0_f64,
        ) {
            let aggregate = NAMES[which].1;
            let columns: Vec<&[f64]> = columns.iter().map(Vec::as_slice).collect();
            let budget = Budget::unlimited();
            let naive = each_row(&columns, &budget, |cells| {
                let present = cells.iter().filter(|&&v| !is_absent(v)).count();
                if enough(present, cells.len() as f64, xff) { aggregate.of(cells) } else { ABSENT }
            }).unwrap();
            let folded = rows(aggregate, &columns, xff, &budget).unwrap();
            prop_assert_eq!(naive.len(), folded.len());
            for (a, b) in naive.iter().zip(&*folded) {
                prop_assert!(a == b || (is_absent(*a) && is_absent(*b)), "{} {}", a, b);
            }
        }
    }
}
