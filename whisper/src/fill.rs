//! Filling the gaps of one file with the points of another (`whisper-fill`).

use crate::error::Result;
use crate::file::File;
use crate::merge::{by_retention, known_points, oldest};
use crate::point::{Point, is_absent, present};
use crate::units::Timestamp;

/// What counts as a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gaps {
    /// What `whisper-fill` fills: a stored zero is a gap too, and a gap of a single point is left
    /// unless it is the newest.
    #[default]
    Reference,
    /// Every step without a value, and nothing else.
    Every,
}

/// Copies into the gaps of `target` what `source` knows about them, at the best precision it has.
/// The archives of the two may differ.
///
/// # Errors
/// [`crate::Error::Truncated`]; [`crate::Error::Io`].
pub fn fill(source: &File, target: &mut File, now: Timestamp, gaps: Gaps) -> Result<()> {
    let mut until = i64::from(now.0);
    for index in by_retention(target.header()) {
        let from = oldest(target.header(), index, now).max(0);
        if from >= until {
            continue;
        }
        let fetched = target.fetch(now, clamp(from), clamp(until))?;
        until = from;
        let Some(fetched) = fetched else { continue };
        let step = i64::from(fetched.step.seconds());
        for (first, next) in found(&fetched.values, gaps) {
            let at = |n: usize| i64::from(fetched.start.0) + n as i64 * step;
            copy(source, target, now, at(first) - step, at(next))?;
        }
    }
    Ok(())
}

/// The gaps in `values`: the first step of each, and the step that ends it. One that reaches the
/// end is ended by the last step itself.
fn found(values: &[f64], gaps: Gaps) -> Vec<(usize, usize)> {
    let missing = |value: f64| match gaps {
        Gaps::Reference => present(value).is_none_or(|value| value == 0.0),
        Gaps::Every => is_absent(value),
    };
    let mut all = Vec::new();
    let mut start = None;
    for (i, &value) in values.iter().enumerate() {
        match (missing(value), start) {
            (true, None) => start = Some(i),
            (false, Some(first)) => {
                if gaps == Gaps::Every || i - first > 1 {
                    all.push((first, i));
                }
                start = None;
            }
            _ => {}
        }
    }
    if let Some(first) = start {
        let last = values.len() - 1;
        // The reference sees the end only at a step that does not itself begin the gap.
        if gaps == Gaps::Every || last > first {
            all.push((first, last));
        }
    }
    all
}

/// Copies (`from`, `until`], newest first, each stretch from the finest archive that holds it.
fn copy(source: &File, target: &mut File, now: Timestamp, from: i64, mut until: i64) -> Result<()> {
    let header = source.header();
    let reach = i64::from(now.0) - i64::from(header.max_retention());
    if from < reach && until < reach {
        return Ok(());
    }
    for index in by_retention(header) {
        let oldest = oldest(header, index, now);
        if until <= oldest {
            continue;
        }
        let start = from.max(oldest).max(0);
        if let Some(fetched) = source.fetch(now, clamp(start), clamp(until))? {
            let points: Vec<Point> = known_points(&fetched);
            if !points.is_empty() {
                target.update_many(now, &points)?;
            }
        }
        until = start;
        if from >= until {
            break;
        }
    }
    Ok(())
}

fn clamp(at: i64) -> Timestamp {
    Timestamp(at.clamp(0, i64::from(u32::MAX)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point::ABSENT;

    #[test]
    fn gaps_of_both_kinds() {
        let values = [1.0, ABSENT, 2.0, ABSENT, ABSENT, 3.0, 0.0, 0.0, 4.0, ABSENT];
        assert_eq!(found(&values, Gaps::Reference), [(3, 5), (6, 8)]);
        assert_eq!(found(&values, Gaps::Every), [(1, 2), (3, 5), (9, 9)]);
        assert_eq!(found(&[1.0, ABSENT, ABSENT], Gaps::Reference), [(1, 2)]);
    }
}
