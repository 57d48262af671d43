//! From the events in a window to the shown on a picture: looks by rule, fleets as one.
//!
//! When many hosts report one release, each by an event of its own, a picture shows one band from
//! the first to the last of them. Such events say the same, carry the same tags but for one that
//! names the host (`host:web1`), and follow each other within [`FLEET_GAP`].

use std::collections::HashMap;

use super::{Event, Rules, Status};
use crate::impact::{Outcome, Report};

/// Reports of one release that lie further apart, in seconds, are two releases.
const FLEET_GAP: f64 = 900.0;
/// The tags that name one host among many.
const HOST_TAGS: [&str; 4] = ["host:", "node:", "instance:", "server:"];
/// Most host names listed in the text of a merged event.
const MAX_HOSTS: usize = 20;

/// Merges fleets in `events`, which are in the order of their times, and gives each event its
/// look.
pub(super) fn dress(events: Vec<Event>, rules: &Rules) -> Vec<Event> {
    let mut fleets = Fleets::default();
    for event in events {
        fleets.add(event);
    }
    let mut events = fleets.finish();
    for event in &mut events {
        event.look = super::Look {
            merged: event.look.merged,
            ..rules.look(event)
        };
    }
    events
}

#[derive(Default)]
struct Fleets {
    shown: Vec<Fleet>,
    /// The latest event of each release, and the latest start among its members.
    latest: HashMap<(String, Vec<String>), (usize, f64)>,
}

struct Fleet {
    first: Event,
    hosts: Vec<String>,
    end: f64,
}

impl Fleets {
    fn add(&mut self, event: Event) {
        let Some((host, tags)) = host_and_rest(&event.tags) else {
            self.shown.push(Fleet {
                end: event.when,
                first: event,
                hosts: Vec::new(),
            });
            return;
        };
        // "deploy web 1.4 on web1" is the same release as "deploy web 1.4 on web2".
        let release = (without(&event.what, &host), tags);
        if let Some((at, start)) = self.latest.get_mut(&release)
            && event.when - *start <= FLEET_GAP
        {
            *start = event.when;
            self.shown[*at].join(event, host);
            return;
        }
        self.latest.insert(release, (self.shown.len(), event.when));
        self.shown.push(Fleet {
            end: event.until.unwrap_or(event.when),
            first: event,
            hosts: vec![host],
        });
    }

    fn finish(self) -> Vec<Event> {
        self.shown.into_iter().map(Fleet::finish).collect()
    }
}

impl Fleet {
    fn join(&mut self, event: Event, host: String) {
        self.end = self.end.max(event.until.unwrap_or(event.when));
        self.first.look.merged += 1;
        self.first.status = worse(self.first.status, event.status);
        self.first.link = self.first.link.take().or(event.link);
        self.first.rollback_of = self.first.rollback_of.or(event.rollback_of);
        // The worst verdict on one of them is the verdict on the release.
        let rank = |impact: &Option<Box<Report>>| {
            let verdict = impact.as_ref().map(|impact| impact.verdict);
            let mut all = Outcome::ALL.into_iter();
            verdict.and_then(|verdict| all.position(|one| one == verdict))
        };
        let ranks = (rank(&event.impact), rank(&self.first.impact));
        if let (Some(theirs), ours) = ranks
            && ours.is_none_or(|ours| theirs < ours)
        {
            self.first.impact = event.impact;
        }
        if !self.hosts.contains(&host) {
            self.hosts.push(host);
        }
    }

    fn finish(self) -> Event {
        let Self {
            mut first,
            hosts,
            end,
        } = self;
        if first.look.merged > 0 {
            if let Some((host, tags)) = host_and_rest(&first.tags) {
                first.tags = tags;
                let what = without(&first.what, &host);
                first.what = what.strip_suffix(" on").unwrap_or(&what).to_owned();
            }
            // One that is still under way leaves the band open.
            first.until = (first.status != Status::Started).then_some(end);
            let named = hosts.len().min(MAX_HOSTS);
            let more = match hosts.len() - named {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let gap = if first.data.is_empty() { "" } else { "\n" };
            first.data += &format!("{gap}{}{more}", hosts[..named].join(", "));
        }
        first
    }
}

/// The host that the tags name, and the other tags; `None` if they name none, or several.
fn host_and_rest(tags: &[String]) -> Option<(String, Vec<String>)> {
    let host_of = |tag: &str| {
        HOST_TAGS
            .iter()
            .find_map(|prefix| tag.strip_prefix(prefix))
            .filter(|host| !host.is_empty())
            .map(str::to_owned)
    };
    let mut hosts = tags.iter().filter_map(|tag| host_of(tag));
    let host = hosts.next()?;
    if hosts.next().is_some() {
        return None;
    }
    let rest = tags.iter().filter(|tag| host_of(tag).is_none());
    Some((host, rest.cloned().collect()))
}

/// A line without the word that is the host's name.
fn without(what: &str, host: &str) -> String {
    let words: Vec<&str> = what.split(' ').filter(|word| *word != host).collect();
    words.join(" ")
}

/// What to show for two: a failure before anything else, then what is still under way.
fn worse(a: Status, b: Status) -> Status {
    let rank = |status| match status {
        Status::Failed => 3,
        Status::RolledBack => 2,
        Status::Started => 1,
        Status::Succeeded | Status::Unstated => 0,
    };
    if rank(a) >= rank(b) { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: &str, tags: &str, when: f64) -> Event {
        Event {
            what: what.to_owned(),
            tags: tags.split_whitespace().map(str::to_owned).collect(),
            when,
            ..Event::default()
        }
    }

    #[test]
    fn a_fleets_release_is_one_band() {
        let mut failed = event("web 1.4 on c", "deploy host:c", 160.0);
        failed.status = Status::Failed;
        failed.until = Some(200.0);
        let shown = dress(
            vec![
                event("web 1.4 on a", "deploy host:a", 100.0),
                event("config", "config", 110.0),
                event("web 1.4 on b", "deploy host:b", 130.0),
                failed,
                event("web 1.5 on a", "deploy host:a", 170.0),
                event("web 1.4 on a", "deploy host:a", 5000.0),
            ],
            &Rules::default(),
        );
        let whats: Vec<_> = shown.iter().map(|event| event.what.as_str()).collect();
        assert_eq!(whats, ["web 1.4", "config", "web 1.5 on a", "web 1.4 on a"]);
        let fleet = &shown[0];
        assert_eq!((fleet.when, fleet.until), (100.0, Some(200.0)));
        assert_eq!((fleet.look.merged, fleet.status), (2, Status::Failed));
        assert_eq!((fleet.data.as_str(), fleet.tags.len()), ("a, b, c", 1));
    }

    #[test]
    fn without_hosts_nothing_merges() {
        let shown = dress(
            vec![event("web", "deploy", 1.0), event("web", "deploy", 2.0)],
            &Rules::default(),
        );
        assert_eq!(shown.len(), 2);
    }
}
