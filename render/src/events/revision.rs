//! What servers tell each other of their events: each change as a revision of the whole event.
//!
//! 1. An event has the same `uid` on all servers: a hash of its sender's key or, without one, of its contents
//!    when it was created.
//! 2. A revision has a version: microseconds of the clock of the server that made the change, and more than the
//!    version that was changed. Of two revisions the one with the higher version replaces the other.
//! 3. Two servers may each have created the event before they heard of the other's, as when a deploy's start is
//!    posted at one and its end, under the same key, at the other. Then neither was made from the other, which
//!    `born` says, and they become one: the newer with the earlier beginning.
//! 4. A deleted event is a revision without contents. Servers remember it for [`DELETED_FOR`]. A server that has heard
//!    nothing for longer forgets what it had told and the others no longer have ([`super::Store::forget_absent`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Event, Status};

/// How long servers remember that an event was deleted.
pub const DELETED_FOR: Duration = Duration::from_secs(30 * 86_400);

/// The identity and version of an event, the same on all servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The event's id on all servers.
    pub uid: String,
    /// Higher after each change.
    pub version: i64,
    /// The versions of the first and the last creation that are part of it. They differ if several servers
    /// have created it.
    pub born: (i64, i64),
}

/// An event as a change has left it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Which event, and which version of it.
    #[serde(flatten)]
    pub mark: Mark,
    /// The event without its ids of one server; `None`: it was deleted.
    pub event: Option<Event>,
    /// The `uid` of the event that it undoes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_of: Option<String>,
    /// Whether this server has it from the table that all servers share.
    #[serde(skip)]
    pub is_shared: bool,
}

/// Changes in the order in which a server made or took them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// The random name of the store, another one after it was replaced.
    pub store: String,
    /// The number of the last of them, or what was asked for if there are none.
    pub last: i64,
    /// The changes. A later change of an event takes the place of those before.
    pub changes: Vec<Revision>,
    /// Events that ended before this time, in unix seconds, have expired there. `None`: that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from: Option<f64>,
}

/// The `uid` of a new event; `nth` tells events with the same contents apart.
pub(super) fn uid(event: &Event, nth: u32) -> String {
    let mut digest = Sha256::new();
    let mut add = |text: &str| {
        digest.update(text.as_bytes());
        digest.update([0]);
    };
    match &event.key {
        Some(key) => {
            add("key");
            add(key);
        }
        None => {
            add(&event.what);
            add(&event.data);
            add(&(event.when.floor() as i64).to_string());
            event.tags.iter().for_each(|tag| add(tag));
        }
    }
    if nth > 0 {
        add(&nth.to_string());
    }
    let bytes = digest.finalize();
    bytes[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What becomes of `mine`, given `theirs`; `None` if it stays as it is. Every server that has got both comes to the
/// same, in whatever order.
pub(super) fn settle(mine: (&Mark, &Event), theirs: (&Mark, &Event)) -> Option<(Mark, Event)> {
    let is_newer = order(theirs) > order(mine);
    let (newer, older) = if is_newer {
        (theirs, mine)
    } else {
        (mine, theirs)
    };
    let (has, other) = (newer.0.born, older.0.born);
    if has.0 <= other.0 && other.1 <= has.1 {
        return is_newer.then(|| (newer.0.clone(), newer.1.clone()));
    }
    let event = join(newer.1, older.1);
    let mark = Mark {
        uid: newer.0.uid.clone(),
        version: newer.0.version + i64::from(event != *newer.1),
        born: (has.0.min(other.0), has.1.max(other.1)),
    };
    Some((mark, event))
}

/// Revisions in the order in which they replace each other.
fn order<'e>((mark, event): (&Mark, &'e Event)) -> (i64, bool, String, &'e str) {
    let is_open = event.until.is_none() && event.status == Status::Started;
    // Versions are equal only in events from before there were versions.
    let rest = (&event.what, event.when, event.until, event.status.name());
    let text = format!("{rest:?} {:?} {:?} {:?}", event.tags, event.link, event.key);
    (mark.version, !is_open, text, &event.data)
}

/// One event of two that were created independently.
fn join(newer: &Event, older: &Event) -> Event {
    let mut event = newer.clone();
    event.when = newer.when.min(older.when);
    if event.data.is_empty() {
        event.data.clone_from(&older.data);
    }
    if event.tags.is_empty() {
        event.tags.clone_from(&older.tags);
    }
    event.link = event.link.or_else(|| older.link.clone());
    event.rollback_of = event.rollback_of.or(older.rollback_of);
    let has_ended = |event: &Event| !matches!(event.status, Status::Started | Status::Unstated);
    if newer.status == Status::Started && (has_ended(older) || older.until.is_some()) {
        // The message of the start was the later one.
        event.status = older.status;
        event.until = older.until;
    }
    if event.until.is_none() && newer.status != older.status {
        // The end came without its time: it was then.
        let ends = [newer, older].into_iter().filter(|one| has_ended(one));
        event.until = ends.map(|one| one.when).find(|at| *at > event.when);
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(version: i64, born: (i64, i64)) -> Mark {
        Mark {
            uid: "u".to_owned(),
            version,
            born,
        }
    }

    fn event(when: f64, status: Status) -> Event {
        Event {
            what: "deploy".to_owned(),
            when,
            status,
            ..Event::default()
        }
    }

    #[test]
    fn the_newer_replaces_the_older() {
        let (first, changed) = (event(1.0, Status::Started), event(2.0, Status::Failed));
        let (old, new) = (mark(5, (5, 5)), mark(9, (5, 5)));
        let settled = settle((&old, &first), (&new, &changed));
        assert_eq!(settled, Some((new.clone(), changed.clone())));
        assert_eq!(settle((&new, &changed), (&old, &first)), None);
        assert_eq!(settle((&new, &changed), (&new, &changed)), None);
    }

    #[test]
    fn a_start_here_and_an_end_there_are_one_event_everywhere() {
        let (start, end) = (
            event(100.0, Status::Started),
            event(160.0, Status::Succeeded),
        );
        for (at_start, at_end) in [(100, 160), (170, 160)] {
            let (a, b) = (
                mark(at_start, (at_start, at_start)),
                mark(at_end, (at_end, at_end)),
            );
            let here = settle((&a, &start), (&b, &end)).unwrap();
            let there = settle((&b, &end), (&a, &start)).unwrap();
            assert_eq!(here, there);
            let (joined, whole) = here;
            assert_eq!((whole.when, whole.until), (100.0, Some(160.0)));
            assert_eq!(whole.status, Status::Succeeded);
            // What it was made of comes again and changes nothing, not even a later correction.
            let mut corrected = whole.clone();
            corrected.when = 150.0;
            let later = Mark {
                version: joined.version + 50,
                ..joined.clone()
            };
            for (mark, event) in [(&a, &start), (&b, &end), (&joined, &whole)] {
                assert_eq!(settle((&later, &corrected), (mark, event)), None);
            }
        }
    }

    #[test]
    fn a_change_of_one_half_keeps_the_other_half() {
        let (start, end) = (
            event(100.0, Status::Started),
            event(160.0, Status::Succeeded),
        );
        let (a, b) = (mark(100, (100, 100)), mark(160, (160, 160)));
        let (joined, whole) = settle((&a, &start), (&b, &end)).unwrap();
        let mut edited = end.clone();
        edited.data = "log".to_owned();
        let edit = mark(165, (160, 160));
        let here = settle((&joined, &whole), (&edit, &edited)).unwrap();
        let there = settle((&edit, &edited), (&joined, &whole)).unwrap();
        assert_eq!(here, there);
        assert_eq!((here.1.when, here.1.data.as_str()), (100.0, "log"));
    }

    #[test]
    fn the_same_event_posted_twice_has_one_uid_unless_it_is_the_second() {
        let one = event(100.5, Status::Unstated);
        let mut other = one.clone();
        other.when = 100.9;
        assert_eq!(uid(&one, 0), uid(&other, 0));
        assert_ne!(uid(&one, 0), uid(&one, 1));
        other.key = Some("k".to_owned());
        assert_ne!(uid(&one, 0), uid(&other, 0));
    }
}
