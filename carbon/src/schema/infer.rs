//! The step of a new series, from the timestamps of its first points.
//!
//! A file coarser than its sender loses points; a file finer than its sender has holes between the
//! points, and functions that compare neighbours (`derivative`, `perSecond`) answer nothing. So the
//! step of a file is the largest of [`STEPS`] that is not longer than the sender's interval, with a
//! tenth of tolerance: a sender of 60 s by cron or by a sleep sends after 59 s at times, and the two
//! points still fall into two minutes.
//!
//! The interval is the median of the distances between the distinct timestamps that are there, the
//! shorter one of two in the middle. Two timestamps suffice; a batch of old points decides by all of
//! its distances, so that a gap or a late point in it changes nothing.

use whisper::Point;

/// The steps that are chosen from, in seconds; the first stands for the built-in finest step, which
/// may be shorter.
pub const STEPS: [u32; 4] = [10, 30, 60, 300];

/// The interval of a sender, in seconds, by the points that it has sent; `None` while they have
/// only one timestamp.
pub fn interval(points: &[Point]) -> Option<u32> {
    let mut times: Vec<u32> = points.iter().map(|point| point.at.0).collect();
    times.sort_unstable();
    times.dedup();
    let mut distances: Vec<u32> = times.windows(2).map(|two| two[1] - two[0]).collect();
    distances.sort_unstable();
    let middle = distances.len().checked_sub(1)? / 2;
    distances.get(middle).copied()
}

/// The step of [`STEPS`] for a sender whose points are `interval` seconds apart.
pub fn step(interval: u32) -> u32 {
    let fits = |step: &&u32| u64::from(interval) * 10 >= u64::from(**step) * 9;
    *STEPS.iter().rfind(fits).unwrap_or(&STEPS[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use whisper::Timestamp;

    use crate::schema::built_in::built_in;

    fn at(times: &[u32]) -> Vec<Point> {
        let point = |at: &u32| Point {
            at: Timestamp(*at),
            value: 0.0,
        };
        times.iter().map(point).collect()
    }

    #[test]
    fn the_first_two_timestamps_decide() {
        for (times, expected) in [
            (&[1_000][..], None),
            (&[1_000, 1_000], None),
            (&[1_000, 1_001], Some(10)),
            (&[1_000, 1_015], Some(10)),
            (&[1_000, 1_026], Some(10)),
            (&[1_000, 1_030], Some(30)),
            (&[1_029, 1_000], Some(30)),
            (&[1_000, 1_053], Some(30)),
            (&[1_000, 1_059], Some(60)),
            (&[1_000, 1_000, 1_060], Some(60)),
            (&[1_000, 1_120], Some(60)),
            (&[1_000, 1_299], Some(300)),
            (&[1_000, 1_300], Some(300)),
            (&[1_000, 90_000], Some(300)),
            // A gap in a batch, and a batch with points of a second sender.
            (&[0, 60, 120, 4_000, 4_060], Some(60)),
            (&[0, 7, 60, 67], Some(10)),
        ] {
            assert_eq!(interval(&at(times)).map(step), expected, "{times:?}");
        }
    }

    proptest! {
        /// A regular sender, late by up to a tenth of its interval each time, whose batch comes in any
        /// order, gets a step that holds each of its points.
        #[test]
        fn no_step_is_coarser_than_the_sender(
            every in 1u32..1_000,
            late in prop::collection::vec(0u32..100, 2..40),
            start in 1u32..4_000_000_000,
        ) {
            let mut times: Vec<u32> = late
                .iter()
                .enumerate()
                .map(|(n, late)| start + n as u32 * every + every * late / 2_000)
                .collect();
            let ordered = interval(&at(&times));
            times.reverse();
            let interval = interval(&at(&times)).unwrap();
            prop_assert_eq!(Some(interval), ordered);
            prop_assert!(step(interval) <= 10.max(every * 11 / 9));
            let finest = built_in(u64::from(step(interval)))[0].step.seconds();
            prop_assert_eq!(finest, step(interval));
        }

        #[test]
        fn a_longer_interval_never_gets_a_shorter_step(a in 0u32..2_000, b in 0u32..2_000) {
            prop_assert!(step(a.min(b)) <= step(a.max(b)));
        }
    }
}
