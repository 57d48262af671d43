//! From the looks at a deploy to the verdict on it.
//!
//! 1. A look at 5 or 10 minutes sees changes "so far". A change is lasting when a look of
//!    [`CONFIRMS`] minutes or more finds it; a change that an early look saw and the latest look does not
//!    find is passing. All looks share one error, so looking four times raises no more false alarms.
//! 2. One worse series makes the verdict worse; then better counts, then changed.
//! 3. The smallest change that matters is applied after the method: it can only remove findings.

use super::decide::{Judgement, Verdict};
use super::finding::{Finding, Least, Subject, group, number, words, worth};
use super::measure::in_its_unit;
use super::params::Params;
use super::report::{LookReport, Outcome, Report, SeriesReport, State, Worth};

/// The first look that confirms changes, in minutes.
pub const CONFIRMS: u32 = 30;
/// Most series described in a verdict; further ones are counted only.
const MAX_DESCRIBED: usize = 200;

/// What happened to one series over all looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// How long the change lasted; `None` without any.
    pub state: Option<State>,
    /// The look that describes it: the latest that found it, or the latest of all.
    pub look: usize,
}

/// Follows each series through `looks`, earliest first: minutes and judgement, all of the same series.
pub fn follow(looks: &[(u32, Judgement)]) -> Vec<Followed> {
    let Some((last, (_, latest))) = looks.iter().enumerate().next_back() else {
        return Vec::new();
    };
    let of = |at: usize| {
        let found = |look: &usize| looks[*look].1.verdicts[at].found;
        let confirmed = |look: &usize| looks[*look].0 >= CONFIRMS && found(look);
        let state = if (0..looks.len()).any(|look| confirmed(&look)) {
            Some(State::Lasting)
        } else if found(&last) {
            Some(State::SoFar)
        } else if (0..last).any(|look| found(&look)) {
            Some(State::Passing)
        } else {
            None
        };
        Followed {
            state,
            look: (0..=last).rev().find(found).unwrap_or(last),
        }
    };
    (0..latest.verdicts.len()).map(of).collect()
}

/// Groups the series that `followed` calls lasting or changed so far, as [`group`] does, by what the
/// latest of `looks` knows.
pub fn group_followed(
    looks: &[(u32, Judgement)],
    followed: &[Followed],
    subjects: &[Subject<'_>],
) -> Vec<Vec<usize>> {
    let Some((_, latest)) = looks.last() else {
        return Vec::new();
    };
    // Placebos of one look, so that they can be compared; the rest from the look that describes it.
    let one = |(at, followed): (usize, &Followed)| {
        let is_found = matches!(followed.state, Some(State::Lasting | State::SoFar));
        is_found.then(|| Finding {
            placebos: &latest.verdicts[at].placebos,
            ..Finding::new(at, &subjects[at], &looks[followed.look].1.verdicts[at])
        })
    };
    let findings: Vec<Finding<'_>> = followed.iter().enumerate().filter_map(one).collect();
    group(&findings)
}

/// The verdict over `looks`, earliest first; `subjects` has the series of the scope in the order of the
/// judgements' verdicts. `complete`: no further look will come. Ids and times are left for the caller.
pub fn report(
    looks: &[(u32, Judgement)],
    subjects: &[Subject<'_>],
    complete: bool,
    params: &Params,
) -> Report {
    let mut report = Report {
        complete,
        ..Report::default()
    };
    let Some((_, latest)) = looks.last() else {
        report.without_data = subjects.len();
        report.sentence = "not enough data: no look could be taken".to_owned();
        return report;
    };
    count(&mut report, looks, latest, params);
    report.vetoed = latest.verdicts.iter().filter(|one| one.vetoed).count();
    report.visible = visible(latest, params);

    let mut followed = follow(looks);
    for (at, one) in followed.iter_mut().enumerate() {
        let verdict = &looks[one.look].1.verdicts[at];
        if one.state.is_some() && is_small(verdict, subjects[at].least) {
            one.state = None;
            report.too_small += 1;
        }
    }
    let groups = group_followed(looks, &followed, subjects);
    report.groups = groups.len();
    let passing = (0..followed.len()).filter(|at| followed[*at].state == Some(State::Passing));
    let passing: Vec<usize> = passing.collect();
    report.passing = passing.len();
    report.changed = groups.iter().map(Vec::len).sum();
    let described = groups
        .into_iter()
        .enumerate()
        .flat_map(|(n, group)| group.into_iter().map(move |at| (n, at)))
        .chain(passing.into_iter().map(|at| (report.groups, at)));
    let mut worths = Vec::new();
    for (n, at) in described {
        let verdict = &looks[followed[at].look].1.verdicts[at];
        let state = followed[at].state.unwrap_or_default();
        let described = describe(&subjects[at], verdict, state, n);
        if state != State::Passing {
            worths.push(described.worth);
        }
        if report.series.len() < MAX_DESCRIBED {
            report.series.push(described);
        }
    }
    report.verdict = if worths.contains(&Worth::Worse) {
        Outcome::Worse
    } else if worths.contains(&Worth::Better) {
        Outcome::Better
    } else if !worths.is_empty() {
        Outcome::Changed
    } else if report.tested > 0 {
        Outcome::Unchanged
    } else {
        Outcome::NotEnoughData
    };
    report.sentence = sentence(&report);
    report
}

/// Counts the looks and the series that could be judged.
fn count(report: &mut Report, looks: &[(u32, Judgement)], latest: &Judgement, params: &Params) {
    for (minutes, judgement) in looks {
        let found = judgement.verdicts.iter().filter(|verdict| verdict.found);
        report.looks.push(LookReport {
            minutes: *minutes,
            found: found.count(),
        });
    }
    let judged = |verdict: &&Verdict| verdict.is_judged(params);
    report.tested = latest.verdicts.iter().filter(judged).count();
    report.without_data = latest.verdicts.len() - report.tested;
    let mut comparable: Vec<u32> = latest
        .verdicts
        .iter()
        .filter(judged)
        .map(|one| one.comparable)
        .collect();
    comparable.sort_unstable();
    report.comparable = comparable
        .get(comparable.len() / 2)
        .copied()
        .unwrap_or_default();
}

impl Verdict {
    /// The series has points, and enough comparable times for a verdict.
    pub fn is_judged(&self, params: &Params) -> bool {
        self.present > 0 && self.comparable as usize >= params.min_placebos && !self.effect.is_nan()
    }
}

/// The smallest change of the series, as a share of its level, that half of the series would have shown.
fn visible(latest: &Judgement, params: &Params) -> Option<f64> {
    let judged = latest.verdicts.iter().filter(|one| one.is_judged(params));
    let mut shares: Vec<f64> = judged.filter_map(|one| one.visible).collect();
    shares.sort_unstable_by(f64::total_cmp);
    shares.get(shares.len() / 2).copied()
}

/// Whether the change of `verdict`, without what the time of day does, is smaller than `least`. Series that stop or
/// begin are never small.
fn is_small(verdict: &Verdict, least: Option<Least>) -> bool {
    let change = in_its_unit(verdict.kind, verdict.before, verdict.effect).abs();
    if verdict.presence || change.is_nan() {
        return false;
    }
    match least {
        None => false,
        Some(Least::Amount(amount)) => change < amount,
        Some(Least::Share(share)) => change < share * verdict.before.abs(),
    }
}

/// What `verdict` says about `subject`.
fn describe(subject: &Subject<'_>, verdict: &Verdict, state: State, group: usize) -> SeriesReport {
    let known = |value: f64| value.is_finite().then_some(value);
    let shifted = |change: f64| known(in_its_unit(verdict.kind, verdict.before, change));
    SeriesReport {
        name: subject.name.to_owned(),
        group,
        state,
        worth: match worth(verdict, subject.direction) {
            -1 => Worth::Worse,
            1 => Worth::Better,
            _ => Worth::Unknown,
        },
        trend: verdict.trend as i8,
        presence: verdict.presence,
        before: known(verdict.before),
        after: known(verdict.after),
        low: shifted(verdict.low),
        high: shifted(verdict.high),
        ratio: if verdict.ratio.is_finite() {
            verdict.ratio
        } else {
            0.0
        },
        like: verdict.like,
        comparable: verdict.comparable,
        sentence: words(subject.name, verdict),
    }
}

/// The verdict as a sentence.
fn sentence(report: &Report) -> String {
    let tested = match report.tested {
        1 => "1 series".to_owned(),
        n => format!("{n} series"),
    };
    let mut text = match report.verdict {
        Outcome::NotEnoughData => {
            "not enough data: no series has 50 comparable times without a deploy".to_owned()
        }
        Outcome::Unchanged => {
            let mut text = format!("nothing changed among {tested}");
            if let Some(visible) = report.visible {
                let percent = number(100.0 * visible, 2);
                text += &format!("; at this size a change of {percent} % would have been seen");
            }
            text
        }
        outcome => {
            let wanted = match outcome {
                Outcome::Worse => Worth::Worse,
                Outcome::Better => Worth::Better,
                _ => Worth::Unknown,
            };
            let shown = report
                .series
                .iter()
                .filter(|one| one.state != State::Passing);
            let first = shown
                .clone()
                .find(|one| one.worth == wanted)
                .or(shown.clone().next());
            let mut text = first.map_or_else(String::new, |one| one.sentence.clone());
            if let Some(one) = first
                && one.state == State::Lasting
            {
                text = text.replacen("; a change like", ", lasting; a change like", 1);
            }
            match report.changed.saturating_sub(1) {
                0 => {}
                1 => text += "; 1 more series changed",
                more => text += &format!("; {more} more series changed"),
            }
            text
        }
    };
    if report.passing > 0 {
        text += &format!("; {} changed for a few minutes only", report.passing);
    }
    if report.complete || report.verdict == Outcome::NotEnoughData {
        text
    } else {
        format!("so far: {text}")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::impact::Direction;
    use crate::impact::measure::Kind;

    pub(in crate::impact) fn verdict(found: bool) -> Verdict {
        Verdict {
            series: 0,
            found,
            trend: 1.0,
            ratio: 8.4,
            like: 0,
            comparable: 612,
            rarity: 0.001,
            before: 0.2,
            after: 3.1,
            effect: 2.9,
            low: 2.8,
            high: 3.0,
            kind: Kind::Plain,
            presence: false,
            vetoed: false,
            visible: Some(0.125),
            present: 10_000,
            placebos: vec![0.1; 612],
        }
    }

    fn look(minutes: u32, found: &[bool]) -> (u32, Judgement) {
        let judgement = Judgement {
            verdicts: found.iter().map(|found| verdict(*found)).collect(),
            share: 0.0,
            joint: None,
            threshold: 0.001,
            short: false,
        };
        (minutes, judgement)
    }

    fn subject(name: &str, direction: Direction) -> Subject<'_> {
        Subject {
            name,
            direction,
            least: None,
        }
    }

    const UP: Direction = Direction::UpIsWorse;

    #[test]
    fn early_changes_are_confirmed_or_pass() {
        let states = |looks: &[(u32, Judgement)]| -> Vec<Option<State>> {
            follow(looks).into_iter().map(|one| one.state).collect()
        };
        let (so_far, lasting, passing) = (
            Some(State::SoFar),
            Some(State::Lasting),
            Some(State::Passing),
        );
        let mut looks = vec![look(5, &[true, true, false, false])];
        assert_eq!(states(&looks), [so_far, so_far, None, None]);
        looks.push(look(10, &[true, false, false, false]));
        assert_eq!(states(&looks), [so_far, passing, None, None]);
        looks.push(look(30, &[true, false, true, false]));
        assert_eq!(states(&looks), [lasting, passing, lasting, None]);
        looks.push(look(60, &[false, false, false, false]));
        assert_eq!(states(&looks), [lasting, passing, lasting, None]);
        assert_eq!(follow(&looks)[2].look, 2);
        assert!(follow(&[]).is_empty());
    }

    #[test]
    fn worse_wins_and_the_sentence_says_what_and_how_sure() {
        let params = Params::default();
        let looks = [look(30, &[true, true, false])];
        let subjects = [
            subject("web.orders", Direction::DownIsWorse),
            subject("web.errors", UP),
            subject("web.load", UP),
        ];
        let worse = report(&looks, &subjects, true, &params);
        assert_eq!(worse.verdict, Outcome::Worse);
        assert_eq!((worse.changed, worse.tested, worse.comparable), (2, 3, 612));
        assert_eq!(
            worse.sentence,
            "web.errors rose from 0.2 to 3.1 (16x), 8.4 times its own largest usual change, lasting; \
             a change like this at 0 of 612 comparable times; 1 more series changed"
        );
        let better = report(
            &looks,
            &[subjects[0], subjects[0], subjects[2]],
            false,
            &params,
        );
        assert_eq!(better.verdict, Outcome::Better);
        assert!(
            better.sentence.starts_with("so far: web.orders rose"),
            "{}",
            better.sentence
        );
        let unknown = subject("web.x", Direction::Unknown);
        let changed = report(&looks, &[unknown; 3], true, &params);
        assert_eq!(changed.verdict, Outcome::Changed);
        let quiet = report(&[look(60, &[false])], &subjects[..1], true, &params);
        assert_eq!(quiet.verdict, Outcome::Unchanged);
        assert_eq!(
            quiet.sentence,
            "nothing changed among 1 series; at this size a change of 13 % would have been seen"
        );
    }

    #[test]
    fn series_without_points_or_comparable_times_give_no_verdict() {
        let params = Params::default();
        let mut looks = [look(30, &[false])];
        looks[0].1.verdicts[0].comparable = 49;
        let subjects = [subject("web.errors", UP)];
        let report = super::report(&looks, &subjects, true, &params);
        assert_eq!(
            (report.verdict, report.tested, report.without_data),
            (Outcome::NotEnoughData, 0, 1)
        );
        let mut looks = [look(30, &[false])];
        looks[0].1.verdicts[0].present = 0;
        assert_eq!(super::report(&looks, &subjects, true, &params).tested, 0);
        let none = super::report(&[], &subjects, false, &params);
        assert_eq!(
            (none.verdict, none.without_data),
            (Outcome::NotEnoughData, 1)
        );
    }

    #[test]
    fn small_changes_are_counted_and_not_reported() {
        let params = Params::default();
        let looks = [look(30, &[true])];
        for (least, kept) in [
            (Least::Share(14.0), true),
            (Least::Share(15.0), false),
            (Least::Amount(2.8), true),
            (Least::Amount(3.0), false),
        ] {
            let subjects = [Subject {
                least: Some(least),
                ..subject("web.errors", UP)
            }];
            let report = report(&looks, &subjects, true, &params);
            assert_eq!(report.changed == 1, kept, "{least:?}");
            assert_eq!(report.too_small == 0, kept, "{least:?}");
        }
    }

    #[test]
    fn changes_come_back_to_the_unit_of_the_series() {
        assert_eq!(in_its_unit(Kind::Plain, 5.0, 2.0), 2.0);
        assert!((in_its_unit(Kind::Log, 5.0, 2.0_f64.ln()) - 5.0).abs() < 1e-12);
        let count = |x: f64| 2.0 * (x + 0.375).sqrt();
        assert!((in_its_unit(Kind::Count, 9.0, count(16.0) - count(9.0)) - 7.0).abs() < 1e-12);
        assert!((in_its_unit(Kind::Sparse, 1.0, 2.0) - 3.0).abs() < 1e-12);
        assert_eq!(in_its_unit(Kind::Sparse, 1.0, -9.0), -1.0);
    }
}
