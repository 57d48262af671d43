//! The demo's own week, judged in memory: its harmful deploys are worse, its rollbacks better, its harmless ones
//! unchanged, and deploys that never happened are not accused.

#[path = "../benches/impact/week.rs"]
mod week;

use week::{Week, on_all_processors, placebos};

/// A Monday, 00:00 UTC.
const MONDAY: i64 = 1_767_571_200;
const HOUR: i64 = 3_600;

#[test]
fn each_deploy_is_judged_for_what_it_is() {
    // Started at noon of a working day, and so that harmless deploys fall into the beginning and the end of a weekend.
    // `cargo bench --bench impact -- week` tries every hour of a week.
    let openings = [12 * HOUR + 7, 58 * HOUR + 20, 132 * HOUR];
    let wrong = on_all_processors(&openings, |at| Week::new(MONDAY + at, 60).misjudged());
    assert!(wrong.iter().all(Vec::is_empty), "{wrong:#?}");
}

#[test]
fn deploys_that_never_happened_are_rarely_accused() {
    // Scaled down: steps of five minutes, a few hundred deploys; the bench judges ten thousand by minutes.
    let weeks: Vec<i64> = (0..6).map(|n| MONDAY + n * 31 * HOUR + 7).collect();
    let each = on_all_processors(&weeks, |at| placebos(&Week::new(*at, 300), 2 * HOUR + 300));
    let sum = |of: fn(&week::Placebos) -> usize| each.iter().map(of).sum::<usize>();
    let (judged, accused) = (sum(|one| one.judged), sum(|one| one.accused));
    let much = sum(|one| one.accused_of_much);
    assert!(judged > 200, "{judged}");
    // The stated rate is 5 %, and chance adds two deviations at most. Changes that matter to the demo are rarer.
    let n = judged as f64;
    let most = 0.05 * n + 2.0 * (0.05 * 0.95 * n).sqrt();
    assert!(accused as f64 <= most, "{accused} of {judged} accused");
    assert!(50 * much <= judged, "{much} of {judged} accused of much");
}
