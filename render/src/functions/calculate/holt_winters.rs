//! Holt-Winters triple exponential smoothing, with Graphite's constants and Graphite's ways
//! around missing values.

use whisper::{ABSENT, is_absent, present};

/// Weight of the newest value in level and season.
const ALPHA: f64 = 0.1;
const GAMMA: f64 = 0.1;
/// Weight of the newest slope.
const BETA: f64 = 0.0035;

/// What smoothing says about each value of a series.
#[derive(Debug)]
pub(super) struct Analysis {
    /// What was expected there.
    pub predictions: Vec<f64>,
    /// How far off expectations usually are at this point of the season.
    pub deviations: Vec<f64>,
}

/// How many values the smoothing of `n_values` takes.
pub(super) fn room(n_values: usize) -> usize {
    n_values.saturating_mul(3)
}

/// Smooths `values`, whose season is `season` values long.
///
/// The first prediction is the first value itself. A missing value has the prediction that was
/// due, a slope and a season of nothing, and leaves the next value without a prediction.
pub(super) fn analyse(values: &[f64], season: usize) -> Analysis {
    let n = values.len();
    let mut predictions = Vec::with_capacity(n);
    let mut deviations: Vec<f64> = Vec::with_capacity(n);
    let mut seasonals: Vec<f64> = Vec::with_capacity(n);
    let (mut level, mut slope) = (None, 0.0);
    let mut due = None;
    let one_season_ago = |known: &[f64], i: usize| i.checked_sub(season).map(|i| known[i]);
    for (i, &value) in values.iter().enumerate() {
        let Some(actual) = present(value) else {
            level = None;
            slope = 0.0;
            seasonals.push(0.0);
            predictions.push(due.take().unwrap_or(ABSENT));
            deviations.push(0.0);
            continue;
        };
        let last_level = level.unwrap_or(actual);
        let prediction = if i == 0 { Some(actual) } else { due };
        // A season of no length at all looks at values not there yet: none.
        let last_season = if season == 0 {
            0.0
        } else {
            one_season_ago(&seasonals, i).unwrap_or(0.0)
        };
        let last_deviation = if season == 0 {
            0.0
        } else {
            one_season_ago(&deviations, i).unwrap_or(0.0)
        };

        let now = ALPHA * (actual - last_season) + (1.0 - ALPHA) * (last_level + slope);
        slope = BETA * (now - last_level) + (1.0 - BETA) * slope;
        seasonals.push(GAMMA * (actual - now) + (1.0 - GAMMA) * last_season);
        let expected = prediction.unwrap_or(0.0);
        deviations.push(GAMMA * (actual - expected).abs() + (1.0 - GAMMA) * last_deviation);
        predictions.push(prediction.unwrap_or(ABSENT));

        let next_season = if season == 0 {
            0.0
        } else {
            one_season_ago(&seasonals, i + 1).unwrap_or(0.0)
        };
        due = Some(now + slope + next_season);
        level = Some(now);
    }
    Analysis {
        predictions,
        deviations,
    }
}

/// How far `values` lie outside the band: positive above, negative below, zero inside or where
/// nothing is known.
pub(super) fn aberration(values: &[f64], lower: &[f64], upper: &[f64]) -> Vec<f64> {
    let bound = |band: &[f64], i: usize| band.get(i).copied().unwrap_or(ABSENT);
    values
        .iter()
        .enumerate()
        .map(|(i, &value)| {
            let (lower, upper) = (bound(lower, i), bound(upper, i));
            // An absent value or bound is a NaN: no comparison with it holds.
            if value > upper {
                value - upper
            } else if value < lower {
                value - lower
            } else {
                0.0
            }
        })
        .collect()
}

/// The forecast moved by `delta` deviations; absent where either is.
pub(super) fn band(forecast: &[f64], deviations: &[f64], delta: f64) -> Vec<f64> {
    forecast
        .iter()
        .zip(deviations)
        .map(|(&forecast, &deviation)| {
            if is_absent(forecast) {
                ABSENT
            } else {
                forecast + delta * deviation
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_is_expected_to_stay() {
        let analysis = analyse(&[5.0; 6], 3);
        assert!(analysis.predictions.iter().all(|v| (v - 5.0).abs() < 1e-12));
        assert!(analysis.deviations.iter().all(|v| v.abs() < 1e-12));
    }

    #[test]
    fn a_gap_leaves_the_next_value_unexpected() {
        let analysis = analyse(&[1.0, 2.0, ABSENT, 3.0, 4.0], 2);
        let known: Vec<bool> = analysis
            .predictions
            .iter()
            .map(|v| !is_absent(*v))
            .collect();
        assert_eq!(known, [true, true, true, false, true]);
        assert_eq!(analysis.deviations[2], 0.0);
        // With nothing expected the whole value counts as a deviation.
        assert!((analysis.deviations[3] - (0.1 * 3.0 + 0.9 * 0.1 * 1.0)).abs() < 1e-9);
    }

    #[test]
    fn seasons_of_any_length_are_survived() {
        for season in [0, 1, 7, usize::MAX] {
            assert_eq!(analyse(&[1.0, ABSENT, 3.0], season).predictions.len(), 3);
        }
    }

    #[test]
    fn outside_the_band_the_distance_counts() {
        let (lower, upper) = ([0.0, 0.0, 0.0, ABSENT], [1.0, 1.0, 1.0, 1.0]);
        let values = [2.0, -1.0, 0.5, -9.0, ABSENT];
        assert_eq!(
            aberration(&values, &lower, &upper),
            [1.0, -1.0, 0.0, 0.0, 0.0]
        );
    }
}
