//! The retentions of a new file when no storage-schemas.conf says anything else.

use whisper::Retention;

use super::infer::STEPS;

/// How long the finest archive is where it is finer than a minute: six hours.
const FINEST_SECONDS: u32 = 6 * 3_600;
const WEEK: u32 = 7 * 86_400;
const FIVE_YEARS: u32 = 5 * 365 * 86_400;

/// The archives of a new file whose points come every `interval` seconds: the finest step is never
/// longer than that, steps divide each other, and the archives reach back six hours, a week and
/// five years. From 10 s on: `10s:6h,1m:7d,10m:5y`, from 30 s `30s:6h,…`, from a minute
/// `1m:7d,10m:5y`, from five minutes `5m:7d,10m:5y`.
pub fn built_in(interval: u64) -> Vec<Retention> {
    let finest = match interval {
        0..10 => (1..=interval.max(1) as u32)
            .rev()
            .find(|step| 60 % step == 0)
            .unwrap_or(1),
        _ => *STEPS
            .iter()
            .rfind(|step| u64::from(**step) <= interval)
            .unwrap_or(&STEPS[0]),
    };
    let archives = [
        (finest, FINEST_SECONDS),
        (60.max(finest), WEEK),
        (600, FIVE_YEARS),
    ];
    archives
        .into_iter()
        // The second takes the place of the first where they are equally fine.
        .filter(|(step, length)| *step < 60 || *length != FINEST_SECONDS)
        .filter_map(|(step, length)| Retention::new(step, length / step))
        .collect()
}

/// Whether a file with `retentions` may have got them from [`built_in`]: they say what one sender
/// did, and not what an operator wants.
pub fn is_built_in(retentions: &[Retention]) -> bool {
    let finest = retentions.first().map_or(0, |finest| finest.step.seconds());
    retentions == built_in(u64::from(finest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use whisper::{Aggregation, Header};

    fn shown(interval: u64) -> Vec<(u32, u32)> {
        let all = built_in(interval).into_iter();
        all.map(|r| (r.step.seconds(), r.points)).collect()
    }

    #[test]
    fn the_built_in_archives_follow_the_interval() {
        let (week, years) = ((60, 10_080), (600, 262_800));
        assert_eq!(shown(10), [(10, 2_160), week, years]);
        assert_eq!(shown(20), [(10, 2_160), week, years]);
        assert_eq!(shown(7), [(6, 3_600), week, years]);
        assert_eq!(shown(0), [(1, 21_600), week, years]);
        assert_eq!(shown(30), [(30, 720), week, years]);
        assert_eq!(shown(60), [week, years]);
        assert_eq!(shown(299), [week, years]);
        assert_eq!(shown(300), [(300, 2_016), years]);
        assert_eq!(shown(86_400), [(300, 2_016), years]);
        for interval in 0..400 {
            let retentions = built_in(interval);
            assert!(Header::new(&retentions, 0.0, Aggregation::Sum).is_ok());
            assert!(u64::from(retentions[0].step.seconds()) <= interval.max(1));
            assert!(is_built_in(&retentions));
        }
        assert!(!is_built_in(&[Retention::new(60, 10_080).unwrap()]));
        assert!(!is_built_in(&[]));
    }
}
