//! Stores that give each other their changes come to the same events.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use render::events::{Draft, Event, Options, Revision, Status, Store, TagQuery};

struct Server {
    store: Arc<Store>,
    taken: BTreeMap<usize, i64>,
    _directory: tempfile::TempDir,
}

impl Server {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            store: open(directory.path()),
            taken: BTreeMap::new(),
            _directory: directory,
        }
    }

    fn post(&self, draft: Draft) -> i64 {
        self.store.insert(draft).unwrap().event.id
    }

    /// The events without their ids, which differ, and what each undoes.
    fn events(&self) -> Vec<(Event, Option<String>)> {
        let all = self
            .store
            .query(&TagQuery::every(), 0.0, 4e9, 1_000)
            .unwrap();
        let what = |id: Option<i64>| {
            all.iter()
                .find(|event| Some(event.id) == id)
                .map(|event| event.what.clone())
        };
        let mut events: Vec<_> = all
            .iter()
            .map(|event| {
                let rollback_of = what(event.rollback_of);
                let event = Event {
                    id: 0,
                    rollback_of: None,
                    ..event.clone()
                };
                (event, rollback_of)
            })
            .collect();
        events.sort_by_key(|(event, _)| format!("{event:?}"));
        events
    }
}

fn open(directory: &Path) -> Arc<Store> {
    Store::open(&directory.join("events.db"), &Options::default()).unwrap()
}

fn draft(what: &str, when: f64) -> Draft {
    Draft {
        when: Some(when),
        ..Draft::new(what, &["deploy"])
    }
}

/// Lets `servers[to]` take what `servers[from]` has, a little at a time; whether anything changed.
fn take(servers: &mut [Server], to: usize, from: usize) -> bool {
    let mut is_changed = false;
    loop {
        let after = servers[to].taken.get(&from).copied().unwrap_or(0);
        let found = servers[from].store.changes(after, 500).unwrap();
        if found.changes.is_empty() {
            return is_changed;
        }
        // As over HTTP.
        let text = serde_json::to_string(&found.changes).unwrap();
        let changes: Vec<Revision> = serde_json::from_str(&text).unwrap();
        is_changed |= servers[to].store.take(changes, false).unwrap() > 0;
        servers[to].taken.insert(from, found.last);
    }
}

/// Until no server has anything new; that has to come soon.
fn exchange(servers: &mut [Server]) {
    for _ in 0..10 {
        let mut is_changed = false;
        for to in 0..servers.len() {
            for from in (0..servers.len()).filter(|from| *from != to) {
                is_changed |= take(servers, to, from);
            }
        }
        if !is_changed {
            return;
        }
    }
    panic!("changes go round for ever");
}

fn alike(servers: &[Server]) -> Vec<(Event, Option<String>)> {
    let first = servers[0].events();
    for other in &servers[1..] {
        assert_eq!(other.events(), first);
    }
    first
}

#[test]
fn changes_ends_and_deletions_reach_every_server() {
    let mut servers = [Server::new(), Server::new(), Server::new()];
    let kept = servers[0].post(draft("kept", 100.0));
    let gone = servers[0].post(draft("gone", 200.0));
    servers[1].post(draft("other", 300.0));
    exchange(&mut servers);
    assert_eq!(alike(&servers).len(), 3);
    let change = Draft {
        what: Some("changed".to_owned()),
        when: Some(150.0),
        status: Some(Status::Failed),
        until: Some(Some(160.0)),
        ..Draft::default()
    };
    servers[0].store.update(kept, change).unwrap();
    servers[0].store.remove(gone).unwrap();
    // At the server to which it came by the exchange.
    let third = servers[2]
        .store
        .query(&TagQuery::every(), 300.0, 300.0, 1)
        .unwrap();
    servers[2].store.remove(third[0].id).unwrap();
    exchange(&mut servers);
    let events = alike(&servers);
    let [(event, None)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((event.what.as_str(), event.when), ("changed", 150.0));
    assert_eq!((event.status, event.until), (Status::Failed, Some(160.0)));
}

#[test]
fn a_deploy_that_starts_here_and_ends_there_is_one_event() {
    let mut servers = [Server::new(), Server::new()];
    let of = |what: &str, when: f64, status: Status| Draft {
        status: Some(status),
        key: Some("deploy-7".to_owned()),
        ..draft(what, when)
    };
    servers[0].post(of("deploy", 1_000.0, Status::Started));
    servers[1].post(of("deploy", 1_090.0, Status::Succeeded));
    exchange(&mut servers);
    let events = alike(&servers);
    assert_eq!(events.len(), 1);
    let event = &events[0].0;
    assert_eq!((event.when, event.until), (1_000.0, Some(1_090.0)));
    assert_eq!(event.status, Status::Succeeded);
}

#[test]
fn the_same_event_posted_to_each_is_one_and_a_second_one_is_two() {
    let mut servers = [Server::new(), Server::new()];
    for server in &servers {
        server.post(draft("twice", 100.0));
        server.post(draft("twice", 100.0));
    }
    exchange(&mut servers);
    assert_eq!(alike(&servers).len(), 2);
}

#[test]
fn what_a_rollback_undoes_is_the_same_event_everywhere() {
    let mut servers = [Server::new(), Server::new()];
    // Ids differ.
    servers[1].post(draft("before", 10.0));
    let undone = servers[0].post(draft("release", 100.0));
    servers[0].post(Draft {
        rollback_of: Some(Some(undone)),
        ..draft("rollback", 200.0)
    });
    exchange(&mut servers);
    let events = alike(&servers);
    let rollback = events
        .iter()
        .find(|(event, _)| event.what == "rollback")
        .unwrap();
    assert_eq!(rollback.1.as_deref(), Some("release"));
    let release = events
        .iter()
        .find(|(event, _)| event.what == "release")
        .unwrap();
    assert_eq!(release.0.status, Status::RolledBack);
}

#[test]
fn a_deleted_event_comes_back_only_under_its_key() {
    let mut servers = [Server::new(), Server::new()];
    let keyed = |what: &str| Draft {
        key: Some("k".to_owned()),
        ..draft(what, 100.0)
    };
    let id = servers[0].post(keyed("first"));
    exchange(&mut servers);
    servers[0].store.remove(id).unwrap();
    exchange(&mut servers);
    assert!(alike(&servers).is_empty());
    servers[1].post(keyed("again"));
    exchange(&mut servers);
    assert_eq!(alike(&servers)[0].0.what, "again");
}

#[test]
fn what_makes_no_sense_is_counted_and_takes_no_neighbour_with_it() {
    let (here, there) = (Server::new(), Server::new());
    for n in 0..4 {
        there.post(draft(&format!("event {n}"), f64::from(n)));
    }
    let mut changes = there.store.changes(0, 1 << 20).unwrap().changes;
    changes[0].mark.uid = "../".to_owned();
    changes[1].mark.version = i64::MAX;
    changes[2].event.as_mut().unwrap().link = Some("javascript:1".to_owned());
    assert_eq!(here.store.take(changes, false).unwrap(), 1);
    assert_eq!(here.events()[0].0.what, "event 3");
    assert_eq!(here.store.stats().refused.get(), 3);
}

#[test]
fn a_database_without_changes_gets_them_and_matches_that_of_its_peer() {
    let mut servers = [Server::new(), Server::new()];
    for (n, server) in servers.iter_mut().enumerate() {
        // The second one has it from the first, as servers kept it then.
        server.post(draft("old", 100.0));
        let keyed = Draft {
            key: Some("k".to_owned()),
            ..draft("keyed", 200.0)
        };
        server.post(keyed);
        let path = server._directory.path().join("events.db");
        // Closed.
        server.store = open(tempfile::tempdir().unwrap().path());
        let db = rusqlite::Connection::open(&path).unwrap();
        let as_before = format!(
            "DROP TABLE revisions; DROP TABLE store; PRAGMA user_version = 2;
             UPDATE events SET key = 'peer:0123' WHERE what = 'old' AND {n} = 1;
             UPDATE events SET status = 'failed', until = 300 WHERE what = 'keyed' AND {n} = 0;"
        );
        db.execute_batch(&as_before).unwrap();
        drop(db);
        server.store = open(server._directory.path());
    }
    exchange(&mut servers);
    let events = alike(&servers);
    assert_eq!(events.len(), 2);
    let keyed = events
        .iter()
        .find(|(event, _)| event.what == "keyed")
        .unwrap();
    assert_eq!(keyed.0.until, Some(300.0));
}

#[derive(Clone, Debug)]
enum Step {
    Post(usize, u8, Option<u8>, Status),
    Change(usize, u8, u8),
    Remove(usize, u8),
    Take(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let server = 0..3_usize;
    let status = prop::sample::select(vec![Status::Unstated, Status::Started, Status::Succeeded]);
    prop_oneof![
        (server.clone(), 0..4_u8, prop::option::of(0..3_u8), status)
            .prop_map(|(server, what, key, status)| Step::Post(server, what, key, status)),
        (server.clone(), any::<u8>(), 0..4_u8)
            .prop_map(|(server, event, what)| Step::Change(server, event, what)),
        (server.clone(), any::<u8>()).prop_map(|(server, event)| Step::Remove(server, event)),
        (server.clone(), server).prop_map(|(to, from)| Step::Take(to, from)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn servers_agree_whatever_happens_in_whatever_order(steps in prop::collection::vec(step(), 1..30)) {
        let mut servers = [Server::new(), Server::new(), Server::new()];
        let pick = |server: &Server, n: u8| {
            let all = server.store.query(&TagQuery::every(), 0.0, 4e9, 1_000).unwrap();
            let len = all.len().max(1);
            all.get(usize::from(n) % len).map(|event| event.id)
        };
        for step in steps {
            match step {
                Step::Post(server, what, key, status) => {
                    let draft = Draft {
                        key: key.map(|key| format!("key {key}")),
                        status: Some(status),
                        ..draft(&format!("what {what}"), f64::from(what) * 10.0)
                    };
                    servers[server].post(draft);
                }
                Step::Change(server, event, what) => {
                    if let Some(id) = pick(&servers[server], event) {
                        let draft = Draft {
                            what: Some(format!("changed {what}")),
                            ..Draft::default()
                        };
                        servers[server].store.update(id, draft).unwrap();
                    }
                }
                Step::Remove(server, event) => {
                    if let Some(id) = pick(&servers[server], event) {
                        servers[server].store.remove(id).unwrap();
                    }
                }
                Step::Take(to, from) if to != from => {
                    take(&mut servers, to, from);
                }
                Step::Take(..) => {}
            }
        }
        exchange(&mut servers);
        alike(&servers);
    }
}
