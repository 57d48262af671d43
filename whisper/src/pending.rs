//! Reading a file as if points that wait elsewhere had been written to it.
//!
//! A cache in front of files has to answer for both, coarser archives included. Rather than
//! saying a second time what a write does, the write is done, on a layer above the file that is
//! thrown away afterwards: what is fetched is by construction what a fetch after the write gives.

use crate::create::CreateOptions;
use crate::error::Result;
use crate::fetch::{self, Fetched};
use crate::header::Header;
use crate::layer::{Layer, Nothing};
use crate::point::Point;
use crate::scratch::Scratch;
use crate::storage::Storage;
use crate::units::Timestamp;
use crate::update::{self, Arrival};

/// What is asked, and at which clock.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The clock by which archive and range are chosen.
    pub now: Timestamp,
    /// The start, exclusive.
    pub from: Timestamp,
    /// The end, inclusive.
    pub until: Timestamp,
}

/// Which of the points that wait the answer to a [`Question`] depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    /// From here on, inclusive.
    pub from: Timestamp,
    /// Up to here, exclusive.
    pub until: Timestamp,
    /// This holds if all points that wait are between this time, inclusive, and [`Needed::newest`]. Otherwise all are
    /// needed: an older point goes into another archive, and a coarser value beside it may be made from slots
    /// that newer points have taken since.
    pub oldest: Timestamp,
    /// The newest time, inclusive: a point of the future takes the slot of one that is asked for.
    pub newest: Timestamp,
}

impl Needed {
    /// What `range` of a file needs at the clocks `reading` and `writing`.
    fn of(header: &Header, range: fetch::Range, reading: Timestamp, writing: Timestamp) -> Self {
        let timestamp = |at: i64| Timestamp(at.clamp(0, i64::from(u32::MAX)) as u32);
        let archives = header.archives();
        let reach = archives.first().map_or(0, |finest| finest.retention());
        let coarsest = archives.last().map_or(0, |last| last.step.seconds());
        let latest = i64::from(reading.max(writing).0);
        Self {
            from: timestamp(range.from),
            until: timestamp(range.until),
            oldest: timestamp(latest - reach as i64 + 1 + i64::from(coarsest)),
            newest: reading.min(writing),
        }
    }
}

/// Answers `question` for a file that is not there yet and would be created with `options`, with
/// `points` in it.
///
/// # Errors
/// As [`crate::create()`] and [`crate::File::fetch`].
pub fn fetch_unwritten(
    options: &CreateOptions,
    question: Question,
    arrival: impl Into<Arrival>,
    points: &[Point],
) -> Result<Option<Fetched>> {
    let CreateOptions {
        retentions,
        x_files_factor,
        aggregation,
        allocation: _,
    } = options;
    let header = Header::new(retentions, *x_files_factor, *aggregation)?;
    let Question { now, from, until } = question;
    match fetch::choose(&header, now, from, until, None)? {
        Some(range) => {
            read_over(None::<&Nothing>, &header, range, arrival.into(), points).map(Some)
        }
        None => Ok(None),
    }
}

/// Answers `question` over the storage `under` as if the points had been written that wait. `waiting` returns them,
/// or those that are needed; `now` is the clock by which they would be written.
pub(crate) fn fetch_over<S: Storage>(
    under: &S,
    header: &Header,
    question: Question,
    now: Timestamp,
    waiting: impl FnOnce(Needed) -> (Arrival, Vec<Point>),
) -> Result<Option<Fetched>> {
    let Some(range) = fetch::choose(header, question.now, question.from, question.until, None)?
    else {
        return Ok(None);
    };
    let (arrival, points) = waiting(Needed::of(header, range, question.now, now));
    read_over(Some(under), header, range, arrival, &points).map(Some)
}

fn read_over<S: Storage>(
    under: Option<&S>,
    header: &Header,
    range: fetch::Range,
    arrival: Arrival,
    points: &[Point],
) -> Result<Fetched> {
    if points.is_empty()
        && let Some(under) = under
    {
        return fetch::read(under, header, range, &mut Vec::new());
    }
    let mut layer = Layer::new(under, header);
    update::update_many(&mut layer, header, &mut Scratch::default(), arrival, points)?;
    fetch::read(&layer, header, range, &mut Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Aggregation, File, Lock, Retention, create};
    use proptest::prelude::*;

    const NOW: u32 = 1_700_000_000;

    fn options(aggregation: Aggregation, x_files_factor: f64) -> CreateOptions {
        CreateOptions {
            aggregation,
            x_files_factor,
            ..CreateOptions::new(vec![
                Retention::new(1, 60).unwrap(),
                Retention::new(10, 30).unwrap(),
                Retention::new(60, 30).unwrap(),
            ])
        }
    }

    fn points(ages: &[(u32, i32)]) -> Vec<Point> {
        ages.iter()
            .map(|(age, value)| Point {
                at: Timestamp(NOW - age),
                value: f64::from(*value),
            })
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pending_points_read_as_if_written(
            before in prop::collection::vec((0_u32..1_500, -9..9), 0..40),
            // In half of the cases as new as the finest archive.
            pending in (prop::sample::select(vec![60_u32, 2_000]), prop::collection::vec((0_u32..400, -9..9), 0..40))
                .prop_map(|(reach, ages)| ages.iter().map(|(age, value)| (age % reach, *value)).collect::<Vec<_>>()),
            sum in any::<bool>(),
            factor in 0..3,
            from in 1_u32..1_900,
            length in 0_u32..600,
        ) {
            let method = if sum { Aggregation::Sum } else { Aggregation::Average };
            let options = options(method, f64::from(factor) / 4.0);
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a.wsp");
            let now = Timestamp(NOW);
            let question = Question {
                now,
                from: Timestamp(NOW - from),
                until: Timestamp(NOW - from + length.min(from)),
            };
            let unwritten = fetch_unwritten(&options, question, now, &points(&pending)).unwrap();
            create(&path, &options).unwrap();
            File::open_mut(&path, Lock::None).unwrap().update_many(now, &points(&before)).unwrap();
            let file = File::open(&path).unwrap();
            let all = points(&pending);
            let answered = file.fetch_pending(question, now, |_| (now.into(), all.clone())).unwrap();
            let mut some = Vec::new();
            let partly = file.fetch_pending(question, now, |needed| {
                let are_between = |p: &Point| needed.oldest <= p.at && p.at <= needed.newest;
                let is_needed = |p: &Point| needed.from <= p.at && p.at < needed.until;
                some = all.clone();
                if all.iter().all(are_between) {
                    some.retain(is_needed);
                }
                (now.into(), some.clone())
            });
            drop(file);
            File::open_mut(&path, Lock::None).unwrap().update_many(now, &points(&pending)).unwrap();
            let written = File::open(&path).unwrap().fetch(now, question.from, question.until).unwrap();
            let bits = |fetched: &Option<Fetched>| fetched.as_ref().map(|f| {
                (f.start, f.end, f.step, f.values.iter().map(|v| v.to_bits()).collect::<Vec<_>>())
            });
            prop_assert_eq!(bits(&answered), bits(&written));
            prop_assert_eq!(bits(&partly.unwrap()), bits(&written));
            if before.is_empty() {
                prop_assert_eq!(bits(&unwritten), bits(&written));
            }
        }
    }
}
