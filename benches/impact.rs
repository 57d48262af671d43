//! Verdicts on deploys: the time and memory of one look, and of all four together.
//!
//! 2,000 series of 10,080 points (a week of minutes): gauges with noise and a daily season, counts, rare counts,
//! some with gaps. One in fifty changes at the deploy. The reference is the same look at a tenth of the series:
//! the cost must grow with the number of series. Values are held in memory; the server reads them from files.
//!
//!     cargo bench --profile quick --bench impact
//!
//! With `week` it judges the demo instead: its planned deploys for every hour of a week at which it may be started, and
//! ten thousand deploys that never happened.
//!
//!     cargo bench --profile quick --bench impact -- week

#[path = "impact/week.rs"]
mod week;

use std::ops::Range;
use std::time::Instant;

use render::impact::{Input, LOOKS, Params, Question, Role, Values, judge_looks};

const SERIES: usize = 2_000;
const WEEK: usize = 10_080;
const ROUNDS: usize = 5;

struct Columns(Vec<Vec<f32>>);

impl Values for Columns {
    fn read(&self, series: usize, points: Range<usize>, values: &mut Vec<f64>) {
        values.extend(self.0[series][points].iter().map(|value| f64::from(*value)));
    }
}

fn main() {
    if std::env::args().any(|argument| argument == "week") {
        return demo();
    }
    let columns = Columns((0..SERIES).map(|n| column(n as u64)).collect());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("impact, {threads} threads, median of {ROUNDS}");
    for (looks, n) in [(&[30][..], SERIES / 10), (&[30], SERIES), (&LOOKS, SERIES)] {
        let before = peak_kib();
        let mut times: Vec<f64> = (0..ROUNDS)
            .map(|_| verdict(&columns, n, looks, threads))
            .collect();
        times.sort_by(f64::total_cmp);
        let grown = peak_kib().saturating_sub(before) / 1024;
        let time = times[ROUNDS / 2];
        println!(
            "{n:>5} series, looks at {looks:?} minutes: {:>7.1} ms, {:>6.1} µs a series, {grown} MiB more at the peak",
            time * 1e3,
            time * 1e6 / n as f64
        );
    }
}

/// The demo's deploys, and deploys that never happened.
fn demo() {
    const MONDAY: i64 = 1_767_571_200;
    const HOUR: i64 = 3_600;
    let begun = Instant::now();
    let openings: Vec<i64> = (0..168)
        .map(|hour| MONDAY + hour * HOUR + hour * 7)
        .collect();
    let wrong = week::on_all_processors(&openings, |at| {
        let week = week::Week::new(*at, 60);
        (week.deploys().len(), week.misjudged())
    });
    let planned: usize = wrong.iter().map(|(planned, _)| planned).sum();
    let wrong: Vec<&String> = wrong.iter().flat_map(|(_, wrong)| wrong).collect();
    println!(
        "the demo, started at each hour of a week: {} of {planned} deploys misjudged, {:.0?}",
        wrong.len(),
        begun.elapsed()
    );
    for one in wrong.iter().take(20) {
        println!("  {one}");
    }
    let begun = Instant::now();
    let weeks: Vec<i64> = (0..42).map(|n| MONDAY + n * 31 * HOUR + n * 11).collect();
    let each = week::on_all_processors(&weeks, |at| {
        week::placebos(&week::Week::new(*at, 60), 17 * 60)
    });
    let sum = |of: fn(&week::Placebos) -> usize| each.iter().map(of).sum::<usize>();
    let (judged, accused) = (sum(|one| one.judged), sum(|one| one.accused));
    println!(
        "deploys that never happened: {accused} of {judged} accused = {:.2} %, {} with changes that matter there, {:.0?}",
        100.0 * accused as f64 / judged.max(1) as f64,
        sum(|one| one.accused_of_much),
        begun.elapsed()
    );
}

fn verdict(columns: &Columns, n: usize, looks: &[u32], threads: usize) -> f64 {
    let role = |series: usize| Role {
        mine: !series.is_multiple_of(5),
        deploys: None,
    };
    let roles: Vec<Role> = (0..n).map(role).collect();
    let question = Question {
        step: 60,
        end: WEEK,
        gap: 0,
        look: looks[0],
        earlier: Vec::new(),
    };
    let input = Input {
        roles: &roles,
        deploys: &[],
        values: columns,
        threads,
    };
    let begun = Instant::now();
    let judged = judge_looks(&question, looks, input, &Params::default());
    let took = begun.elapsed().as_secs_f64();
    let found = judged.last().map_or(0, |(_, judged)| {
        judged
            .verdicts
            .iter()
            .filter(|verdict| verdict.found)
            .count()
    });
    assert!(found > n / 200, "{found} of {n}");
    took
}

/// A week and an hour of one series.
fn column(seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut even = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut drift = 0.0;
    (0..WEEK + 60)
        .map(|at| {
            drift = 0.9 * drift + even() - even();
            let season = (at as f64 / 1_440.0 * std::f64::consts::TAU).sin();
            let step = if at >= WEEK && seed % 50 == 1 {
                30.0
            } else {
                0.0
            };
            let level = 50.0 + 10.0 * season + 2.0 * drift + step;
            let value = match seed % 4 {
                0 | 1 => level + even(),
                2 => (level * (0.8 + 0.4 * even())).round(),
                _ => f64::from(u8::from(even() < 0.05 + step / 60.0)),
            };
            if seed.is_multiple_of(10) && even() < 0.1 {
                f32::NAN
            } else {
                value as f32
            }
        })
        .collect()
}

/// The most memory that this process has had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let digits = line.and_then(|line| line.split_whitespace().next());
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_default()
}
