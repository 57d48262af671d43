//! What must hold for every verdict, whatever the data.

use std::ops::Range;

use proptest::prelude::*;
use render::impact::{Input, Judgement, Params, Question, Role, Values, judge};

const STEP: u32 = 300;
const DAY: usize = 288;

struct Columns(Vec<Vec<f64>>);

impl Values for Columns {
    fn read(&self, row: usize, points: Range<usize>, values: &mut Vec<f64>) {
        values.extend(&self.0[row][points]);
    }
}

fn look(columns: &Columns, end: usize) -> Option<Judgement> {
    let roles = vec![
        Role {
            mine: true,
            deploys: None
        };
        columns.0.len()
    ];
    let question = Question {
        step: STEP,
        end,
        gap: 0,
        look: 30,
        earlier: Vec::new(),
    };
    let input = Input {
        roles: &roles,
        deploys: &[],
        values: columns,
        threads: 1,
    };
    judge(&question, input, &Params::default(), None)
}

/// Noise without a trend, from a seed.
fn noise(seed: u64, length: usize) -> Vec<f64> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 10_000) as f64 / 10_000.0
    };
    (0..length)
        .map(|_| 50.0 + next() - next() + next() - next())
        .collect()
}

#[test]
fn constant_absent_and_short_series_are_never_findings() {
    let days = 8 * DAY;
    let columns = Columns(vec![
        vec![7.0; days],
        vec![0.0; days],
        vec![f64::NAN; days],
        vec![0.5; days],
    ]);
    let judged = look(&columns, 7 * DAY).unwrap();
    assert!(
        judged.verdicts.iter().all(|verdict| !verdict.found),
        "{judged:?}"
    );
    for hours in [0, 1, 2, 3] {
        let end = hours * 12;
        let mut values = noise(9, end + 12);
        for value in &mut values[end..] {
            *value += 1_000.0;
        }
        let found =
            look(&Columns(vec![values]), end).is_some_and(|judged| judged.verdicts[0].found);
        assert!(!found, "a verdict after {hours} hours");
    }
}

#[test]
fn a_clear_step_is_found_with_direction_and_levels() {
    let mut values = noise(3, 8 * DAY);
    for value in &mut values[7 * DAY..] {
        *value += 20.0;
    }
    let judged = look(&Columns(vec![values, noise(4, 8 * DAY)]), 7 * DAY).unwrap();
    let [changed, other] = &judged.verdicts[..] else {
        panic!("{judged:?}")
    };
    assert!(
        changed.found && changed.trend == 1.0 && changed.like == 0,
        "{changed:?}"
    );
    assert!((changed.before - 50.0).abs() < 1.0 && (changed.after - 70.0).abs() < 1.0);
    assert!(changed.low <= 20.0 && changed.high >= 19.0);
    assert!(!other.found);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn level_and_clock_do_not_matter(seed in any::<u64>(), step in 0.0..8.0_f64, shift in 1_usize..3) {
        let length = 9 * DAY;
        let mut values = noise(seed, length);
        let end = 7 * DAY + 40;
        for value in &mut values[end..] {
            *value += step;
        }
        let before = look(&Columns(vec![values.clone()]), end).unwrap();
        // All values higher by the same amount.
        let raised = Columns(vec![values.iter().map(|value| value + 64.0).collect()]);
        let raised = look(&raised, end).unwrap();
        prop_assert_eq!(before.verdicts[0].trend, raised.verdicts[0].trend);
        prop_assert!((before.verdicts[0].effect - raised.verdicts[0].effect).abs() < 1e-6);
        prop_assert_eq!(before.verdicts[0].like, raised.verdicts[0].like);
        // Older data than the history, whole days of it: the same verdict.
        let mut older = noise(seed ^ 77, shift * DAY);
        older.extend(&values);
        let later = look(&Columns(vec![older]), end + shift * DAY).unwrap();
        let first = &later.verdicts[0];
        prop_assert_eq!(before.verdicts[0].found, first.found);
        prop_assert_eq!(before.verdicts[0].before, first.before);
        prop_assert_eq!(before.verdicts[0].after, first.after);
    }
}
