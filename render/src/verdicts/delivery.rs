//! Delivery figures from the deploys of a range: how often, how long from the commit, how many failed, how long
//! until that was repaired. Values in, values out.
//!
//! What events alone cannot know is not in them: incidents without a deploy, and failures found days later
//! that no event undoes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Serialize;

use crate::events::{Event, Status};
use crate::impact::{Correction, Outcome, Report};

/// Tags by which figures are split.
const GROUPS: [&str; 3] = ["service:", "app:", "team:"];
/// Most groups; further ones are only in the total.
const MAX_GROUPS: usize = 500;
const DAY: f64 = 86_400.0;

/// The middle of some durations, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Durations {
    /// How many there are.
    pub count: usize,
    /// The median; `None` without any.
    pub median: Option<f64>,
    /// The 90th percentile.
    pub p90: Option<f64>,
}

/// The figures of some deploys.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Deploys that ended, a fleet's deploy once; rollbacks are not counted.
    pub deploys: usize,
    /// The same per day.
    pub per_day: f64,
    /// The share that failed or was rolled back.
    pub failed: f64,
    /// The share that was judged worse.
    pub worse: f64,
    /// The share that was judged worse, and a person confirmed it.
    pub confirmed: f64,
    /// From a deploy that failed or was rolled back to the end of what undid it, or of the next deploy of the same
    /// service that succeeded.
    pub restore: Durations,
    /// From the commit to the deploy's end, where the events say when that was.
    pub lead: Durations,
}

/// The figures of a range.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Delivery {
    /// The beginning of the range, in Unix seconds.
    pub from: f64,
    /// Its end.
    pub until: f64,
    /// Whether the range has more deploys than are looked at: the figures are of the newest.
    pub cut: bool,
    /// Of all deploys.
    pub all: Figures,
    /// Of the deploys with each `service:`, `app:` or `team:` tag.
    pub groups: BTreeMap<String, Figures>,
}

/// Takes out of a deploy what no figure is made of.
pub(crate) fn trim(event: &mut Event) {
    let line = event.data.lines().find(|line| is_commit(line));
    event.data = line.unwrap_or_default().to_owned();
    event.link = None;
    event.key = None;
    if let Some(report) = &mut event.impact {
        **report = Report {
            verdict: report.verdict,
            correction: report.correction,
            ..Report::default()
        };
    }
}

/// The figures of `deploys`, which are the deploys from `from` until `until`, oldest first, fleets merged. `cut` says that
/// they are not all.
pub fn delivery(deploys: &[Event], from: f64, until: f64, cut: bool) -> Delivery {
    let mut groups: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in deploys {
        let tags = event.tags.iter().map(String::as_str);
        let named = tags.filter(|tag| GROUPS.iter().any(|group| tag.starts_with(group)));
        // An event counts once for a tag that it has twice.
        for tag in named.collect::<BTreeSet<_>>() {
            if groups.len() < MAX_GROUPS || groups.contains_key(tag) {
                groups.entry(tag).or_default().push(event);
            }
        }
    }
    let days = ((until - from) / DAY).max(1.0 / 24.0);
    let groups = groups
        .into_iter()
        .map(|(tag, some)| (tag.to_owned(), figures(&some, days)));
    Delivery {
        from,
        until,
        cut,
        groups: groups.collect(),
        all: figures(&deploys.iter().collect::<Vec<_>>(), days),
    }
}

/// Most groups that are kept as series, those with the most deploys.
const MAX_KEPT: usize = 100;

/// The figures as series: names and values. `plumbago.deploys.all.*` for all deploys, and for example
/// `plumbago.deploys.service.web.*` for those with the tag `service:web`. A figure that no deploy has is left out.
pub fn series(delivery: &Delivery) -> Vec<(String, f64)> {
    let mut groups: Vec<(&String, &Figures)> = delivery.groups.iter().collect();
    groups.sort_by_key(|(_, figures)| std::cmp::Reverse(figures.deploys));
    groups.truncate(MAX_KEPT);
    let mut all = BTreeMap::new();
    let mut keep = |group: &str, figures: &Figures| {
        for (name, value) in [
            ("per_day", Some(figures.per_day)),
            ("failed_percent", Some(100.0 * figures.failed)),
            ("worse_percent", Some(100.0 * figures.worse)),
            ("lead_time_seconds", figures.lead.median),
            ("restore_time_seconds", figures.restore.median),
        ] {
            if let Some(value) = value {
                // Of two tags that become the same node, the one with more deploys.
                all.entry(format!("plumbago.deploys.{group}.{name}"))
                    .or_insert(value);
            }
        }
    };
    keep("all", &delivery.all);
    for (tag, figures) in groups {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_');
        let node = |text: &str| text.replace(|c| !plain(c), "_");
        if let Some((kind, value)) = tag.split_once(':').filter(|(_, value)| !value.is_empty()) {
            keep(&format!("{}.{}", node(kind), node(value)), figures);
        }
    }
    all.into_iter().collect()
}

fn figures(events: &[&Event], days: f64) -> Figures {
    let undone: BTreeSet<i64> = events
        .iter()
        .filter_map(|event| event.rollback_of)
        .collect();
    let is_failure = |event: &Event| {
        matches!(event.status, Status::Failed | Status::RolledBack) || undone.contains(&event.id)
    };
    let is_deploy = |event: &Event| event.rollback_of.is_none() && event.status != Status::Started;
    let deploys: Vec<&Event> = events
        .iter()
        .copied()
        .filter(|event| is_deploy(event))
        .collect();
    let share = |n: usize| match deploys.len() {
        0 => 0.0,
        all => n as f64 / all as f64,
    };
    let is_worse = |event: &Event| {
        let report = event.impact.as_ref();
        report.is_some_and(|report| report.verdict == Outcome::Worse)
    };
    let is_confirmed = |event: &Event| {
        let correction = event.impact.as_ref().and_then(|report| report.correction);
        is_worse(event) && correction == Some(Correction::Right)
    };
    // What undid each event, the first of several.
    let mut undoing: HashMap<i64, &Event> = HashMap::new();
    for event in events {
        if let Some(id) = event.rollback_of {
            undoing.entry(id).or_insert(event);
        }
    }
    let next = successors(&deploys, is_failure);
    let mut n_failures = 0;
    let mut restored = Vec::new();
    for (failure, next) in deploys.iter().zip(next) {
        if is_failure(failure) {
            n_failures += 1;
            let undo = undoing.get(&failure.id).copied().or(next);
            restored.extend(undo.map(|undo| (end(undo) - failure.when).max(0.0)));
        }
    }
    let lead = deploys.iter().filter_map(|event| {
        let lead = end(event) - committed(event)?;
        (lead >= 0.0).then_some(lead)
    });
    Figures {
        deploys: deploys.len(),
        per_day: deploys.len() as f64 / days,
        failed: share(n_failures),
        worse: share(deploys.iter().filter(|event| is_worse(event)).count()),
        confirmed: share(deploys.iter().filter(|event| is_confirmed(event)).count()),
        restore: durations(restored),
        lead: durations(lead.collect()),
    }
}

fn end(event: &Event) -> f64 {
    event.until.unwrap_or(event.when)
}

/// For each of `deploys`, which are in the order of their times, that failed: the next one of the same service that
/// succeeded, later than itself. Two deploys are of one service if they share a tag that names one, or if neither has
/// such a tag and all tags are the same.
fn successors<'a>(
    deploys: &[&'a Event],
    is_failure: impl Fn(&Event) -> bool,
) -> Vec<Option<&'a Event>> {
    let services = |event: &'a Event| {
        let tags = event.tags.iter().map(String::as_str);
        tags.filter(|tag| GROUPS[..2].iter().any(|group| tag.starts_with(group)))
    };
    let mut of_service: HashMap<&str, usize> = HashMap::new();
    let mut of_tags: HashMap<&[String], usize> = HashMap::new();
    let mut next = vec![None; deploys.len()];
    let mut end = deploys.len();
    // From the last to the first; those of one time together, as none of them is later than another.
    while let Some(last) = end.checked_sub(1) {
        let when = deploys[last].when;
        let start = deploys[..end]
            .partition_point(|event| event.when < when)
            .min(last);
        for at in start..end {
            let failure = deploys[at];
            if is_failure(failure) {
                let has_service = services(failure).next().is_some();
                let found = match has_service {
                    true => services(failure)
                        .filter_map(|tag| of_service.get(tag))
                        .min(),
                    false => of_tags.get(failure.tags.as_slice()),
                };
                next[at] = found.map(|at| deploys[*at]);
            }
        }
        for at in (start..end).rev() {
            let event = deploys[at];
            if event.status == Status::Succeeded && !is_failure(event) {
                of_tags.insert(&event.tags, at);
                of_service.extend(services(event).map(|tag| (tag, at)));
            }
        }
        end = start;
    }
    next
}

/// Begins the tag or the line that says when the commit was made.
const COMMITTED: &str = "committed:";

fn is_commit(text: &str) -> bool {
    text.trim().starts_with(COMMITTED)
}

/// When the commit of a deploy was made, in Unix seconds: the tag `committed:TIME`, or a line of its data that begins
/// so. TIME is Unix seconds or `2026-11-20T13:00:00Z`.
fn committed(event: &Event) -> Option<f64> {
    let tags = event.tags.iter().map(String::as_str);
    let text = tags
        .chain(event.data.lines())
        .find_map(|text| text.trim().strip_prefix(COMMITTED))?;
    let text = text.trim();
    match text.parse::<f64>() {
        Ok(seconds) => seconds.is_finite().then_some(seconds),
        Err(_) => text
            .parse::<jiff::Timestamp>()
            .ok()
            .map(|at| at.as_second() as f64),
    }
}

fn durations(mut all: Vec<f64>) -> Durations {
    all.sort_unstable_by(f64::total_cmp);
    let at = |share: f64| {
        all.get(((all.len() as f64 - 1.0) * share).round().max(0.0) as usize)
            .copied()
    };
    Durations {
        count: all.len(),
        median: at(0.5),
        p90: at(0.9),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn deploy(id: i64, tags: &str, when: f64, status: Status) -> Event {
        Event {
            id,
            when,
            status,
            tags: tags.split_whitespace().map(str::to_owned).collect(),
            ..Event::default()
        }
    }

    #[test]
    fn figures_of_a_day() {
        let mut events = vec![
            deploy(
                1,
                "deploy service:web committed:700",
                1_000.0,
                Status::Succeeded,
            ),
            deploy(2, "deploy service:web", 2_000.0, Status::RolledBack),
            deploy(3, "deploy service:web rollback", 2_500.0, Status::Succeeded),
            deploy(4, "deploy service:search", 3_000.0, Status::Failed),
            deploy(5, "deploy service:search", 4_000.0, Status::Succeeded),
            deploy(6, "deploy service:search", 5_000.0, Status::Started),
        ];
        events[2].rollback_of = Some(2);
        events[2].until = Some(2_600.0);
        events[1].impact = Some(Box::new(Report {
            verdict: Outcome::Worse,
            correction: Some(Correction::Right),
            ..Report::default()
        }));
        events[4].data = "by ann\ncommitted: 1970-01-01T00:10:00Z".to_owned();
        events.iter_mut().for_each(trim);
        let all = delivery(&events, 0.0, 2.0 * DAY, false);
        assert_eq!((all.all.deploys, all.all.per_day), (4, 2.0));
        assert_eq!(
            (all.all.failed, all.all.worse, all.all.confirmed),
            (0.5, 0.25, 0.25)
        );
        assert_eq!(
            (all.all.restore.count, all.all.restore.median),
            (2, Some(1_000.0))
        );
        assert_eq!((all.all.lead.count, all.all.lead.p90), (2, Some(3_400.0)));
        let web = &all.groups["service:web"];
        assert_eq!(
            (web.deploys, web.failed, web.restore.median),
            (2, 0.5, Some(600.0))
        );
        assert_eq!(web.lead.median, Some(300.0));
        assert_eq!(all.groups.len(), 2);
    }

    #[test]
    fn figures_become_series_with_a_bound() {
        let mut events: Vec<Event> = (0..150)
            .map(|n| deploy(n, &format!("deploy service:s{n}"), 10.0, Status::Succeeded))
            .collect();
        for n in 0..3 {
            let tags = "deploy service:a.b/c committed:4";
            events.push(deploy(200 + n, tags, 10.0, Status::Failed));
        }
        let all = series(&delivery(&events, 0.0, DAY, false));
        let value = |name: &str| {
            all.iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| *value)
        };
        assert_eq!(value("plumbago.deploys.all.per_day"), Some(153.0));
        assert_eq!(
            value("plumbago.deploys.service.a_b_c.failed_percent"),
            Some(100.0)
        );
        assert_eq!(
            value("plumbago.deploys.service.a_b_c.lead_time_seconds"),
            Some(6.0)
        );
        assert_eq!(
            value("plumbago.deploys.service.a_b_c.restore_time_seconds"),
            None
        );
        let kept = all
            .iter()
            .filter(|(name, _)| name.ends_with(".per_day"))
            .count();
        assert_eq!(kept, 1 + MAX_KEPT);
    }

    /// Whether two deploys are of one service.
    fn shares_service(a: &Event, b: &Event) -> bool {
        let of = |event: &Event| -> BTreeSet<String> {
            let named = |tag: &&String| tag.starts_with("service:") || tag.starts_with("app:");
            event.tags.iter().filter(named).cloned().collect()
        };
        let (mine, theirs) = (of(a), of(b));
        match mine.is_empty() && theirs.is_empty() {
            true => a.tags == b.tags,
            false => !mine.is_disjoint(&theirs),
        }
    }

    proptest! {
        #[test]
        fn the_next_success_is_what_a_scan_finds(
            all in proptest::collection::vec((0..4_i64, 0..6_usize, any::<bool>()), 0..40),
        ) {
            const TAGS: [&str; 6] = ["", "x", "service:a", "app:b service:a", "service:b", "app:b x"];
            let mut when = 0;
            let events: Vec<Event> = all
                .into_iter()
                .enumerate()
                .map(|(id, (gap, tags, failed))| {
                    when += gap / 2;
                    let status = if failed { Status::Failed } else { Status::Succeeded };
                    deploy(id as i64, TAGS[tags], when as f64, status)
                })
                .collect();
            let events: Vec<&Event> = events.iter().collect();
            let is_failure = |event: &Event| event.status == Status::Failed;
            let next = successors(&events, is_failure);
            for (event, next) in events.iter().zip(next) {
                let fits = |other: &&&Event| {
                    other.when > event.when && !is_failure(other) && shares_service(event, other)
                };
                let expected = events.iter().find(fits).filter(|_| is_failure(event));
                prop_assert_eq!(next.map(|next| next.id), expected.map(|next| next.id));
            }
        }
    }

    #[test]
    fn many_failures_take_a_time_that_grows_with_their_number() {
        let events: Vec<Event> = (0..20_000)
            .map(|n| {
                let tags = format!("deploy service:s{} team:t{}", n % 400, n % 100);
                deploy(n, &tags, n as f64, Status::Failed)
            })
            .collect();
        let began = std::time::Instant::now();
        let all = delivery(&events, 0.0, DAY, false);
        // Comparing each with each takes minutes.
        assert!(began.elapsed() < std::time::Duration::from_secs(20));
        assert_eq!((all.all.failed, all.groups.len()), (1.0, 500));
        assert_eq!(all.all.restore.count, 0);
    }

    #[test]
    fn no_deploys_have_no_figures() {
        let none = delivery(&[], 0.0, 0.0, false).all;
        assert_eq!(
            (none.deploys, none.failed, none.restore.median),
            (0, 0.0, None)
        );
        let json = serde_json::to_value(none).unwrap();
        assert!(json["lead"]["median"].is_null());
    }
}
