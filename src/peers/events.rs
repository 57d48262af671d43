//! Events of peers: what is posted at one server appears at the others.
//!
//! 1. Every [`PAUSE`] each peer is asked for its events since a little before the last answer; after a gap,
//!    a restart included, for those since then.
//! 2. An event with a key of its sender keeps the key, under which the store knows it again. One without
//!    gets a key made of its contents, the same on whatever way it comes; where the event itself is, it is
//!    known by its contents.
//! 3. An event that has ended or failed meanwhile at a peer does so here, too. Other changes, and
//!    deletions, are not passed on, and neither is which event a rollback undoes: ids differ.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use render::events::{Draft, Event, Status, Store, TagQuery};
use render::http::App;
use serde_json::Value;
use sha2::{Digest, Sha256};

use tokio::task::JoinSet;

use super::Peered;
use super::machine::Machine;
use crate::config::Config;
use crate::supervise::Supervisor;

/// How often peers are asked.
const PAUSE: Duration = Duration::from_secs(3);
/// Events may be posted for times that are this many seconds ago.
const LATE: i64 = 3_600;
/// How far back a server looks that has never heard of a peer's events.
const FIRST: i64 = 30 * 86_400;
/// Most events of one second that are compared with one that comes.
const MOST: usize = 10_000;
/// What marks keys that were made here.
const MADE: &str = "peer:";

/// Asks peers for events.
pub struct Exchange {
    peers: Vec<(Machine, i64)>,
    store: Arc<Store>,
    /// Until when each peer has been asked, a line each.
    path: PathBuf,
}

impl Exchange {
    /// An exchange with the peers at `urls`, which remembers in `data` how far it is.
    ///
    /// # Errors
    /// Something that is not a URL.
    pub fn new(
        store: &Arc<Store>,
        urls: &[String],
        timeout: Duration,
        data: &Path,
    ) -> anyhow::Result<Self> {
        let path = data.join("peers-events");
        let known = carbon::private::read(&path).unwrap_or_default();
        let known = String::from_utf8_lossy(&known).into_owned();
        let since = |url: &str| {
            let mut lines = known.lines().filter_map(|line| line.split_once(' '));
            let line = lines.find(|(_, other)| *other == url);
            line.and_then(|(since, _)| since.parse().ok())
        };
        let peers = urls.iter().map(|url| {
            let first = now() - FIRST;
            Ok((Machine::new(url, timeout)?, since(url).unwrap_or(first)))
        });
        Ok(Self {
            peers: peers.collect::<anyhow::Result<_>>()?,
            store: Arc::clone(store),
            path,
        })
    }

    /// Asks until it is dropped.
    pub async fn run(self) {
        let mut exchange = self;
        let mut ticks = tokio::time::interval(PAUSE);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let round = tokio::task::spawn_blocking(move || {
                exchange.round();
                exchange
            });
            match round.await {
                Ok(back) => exchange = back,
                Err(_) => return,
            }
        }
    }

    /// Asks each peer once.
    fn round(&mut self) {
        let mut moved = false;
        for (machine, since) in &mut self.peers {
            let begun = now();
            match fetch(machine, *since - LATE) {
                Ok(events) => {
                    for event in events {
                        if let Err(error) = take(&self.store, event) {
                            tracing::warn!(%error, "an event of the peer {} cannot be kept", machine.base());
                        }
                    }
                    moved |= begun / 60 != *since / 60;
                    *since = begun;
                }
                // The queries of the peer say so in the log.
                Err(error) => tracing::debug!(%error, "events of a peer"),
            }
        }
        if moved {
            let lines = self
                .peers
                .iter()
                .map(|(machine, since)| format!("{since} {}\n", machine.base()));
            let text: String = lines.collect();
            let partial = self.path.with_extension("partial");
            let written =
                std::fs::write(&partial, text).and_then(|()| std::fs::rename(&partial, &self.path));
            if let Err(error) = written {
                tracing::warn!(%error, "{} cannot be written", self.path.display());
            }
        }
    }
}

/// If there are peers, reserves their values in the memory of requests, and exchanges events with them.
///
/// # Errors
/// Something that is not a URL.
pub fn start(
    config: &Config,
    peered: Option<&Peered>,
    app: &App,
    background: &mut JoinSet<()>,
    supervisor: &Supervisor,
) -> anyhow::Result<()> {
    let Some(peered) = peered else {
        return Ok(());
    };
    peered.reserve_in(&app.memory);
    let render = &config.render;
    let timeout = render.peer_timeout.0;
    let exchange = Exchange::new(&app.events, &render.peers, timeout, &config.data)?;
    background.spawn(supervisor.watched("peers", exchange.run()));
    Ok(())
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

/// The events of a peer since `since`.
fn fetch(machine: &Machine, since: i64) -> anyhow::Result<Vec<Event>> {
    let (since, until) = (since.max(0).to_string(), (now() + 86_400).to_string());
    let answer = machine.json("/events/get_data", &[("from", &since), ("until", &until)])?;
    let Value::Array(events) = answer else {
        anyhow::bail!("{}: events are not a list", machine.base());
    };
    let events = events.into_iter().map(|mut event| {
        if let Some(fields) = event.as_object_mut() {
            fields.remove("impact");
        }
        serde_json::from_value(event)
    });
    Ok(events.collect::<Result<_, _>>()?)
}

/// The key of an event whose sender gave none.
fn made_key(event: &Event) -> String {
    let mut digest = Sha256::new();
    let when = event.when.floor() as i64;
    for text in [&event.what, &event.data, &when.to_string()] {
        digest.update(text.as_bytes());
        digest.update([0]);
    }
    for tag in &event.tags {
        digest.update(tag.as_bytes());
        digest.update([0]);
    }
    let hex: String = digest
        .finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{MADE}{hex}")
}

/// Selects every event.
fn every() -> Result<TagQuery, render::events::Error> {
    "*".parse()
        .map_err(|error| render::events::Error::Refused(format!("{error}")))
}

/// Keeps an event of a peer, unless it is here already.
fn take(store: &Store, event: Event) -> Result<(), render::events::Error> {
    let key = event.key.clone().unwrap_or_else(|| made_key(&event));
    let at = event.when.floor();
    let near = store.query(&every()?, at, at + 1.0, MOST)?;
    let is_it = |other: &&Event| match &other.key {
        Some(other) => *other == key,
        None => key.starts_with(MADE) && made_key(other) == key,
    };
    if let Some(known) = near.iter().find(is_it) {
        let is_open = |one: &Event| {
            one.until.is_none() && matches!(one.status, Status::Started | Status::Unstated)
        };
        if is_open(known) && !is_open(&event) {
            let draft = Draft {
                until: event.until.map(Some),
                status: (!event.status.is_unstated()).then_some(event.status),
                ..Draft::default()
            };
            store.update(known.id, draft)?;
        }
        return Ok(());
    }
    let draft = Draft {
        what: Some(event.what),
        data: Some(event.data),
        tags: Some(event.tags),
        when: Some(event.when),
        until: event.until.map(Some),
        status: (!event.status.is_unstated()).then_some(event.status),
        link: event.link.map(Some),
        key: Some(key),
        ..Draft::default()
    };
    store.insert(draft)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: &str, key: Option<&str>) -> Event {
        Event {
            what: what.to_owned(),
            when: 1_700_000_000.0,
            tags: vec!["deploy".to_owned()],
            key: key.map(str::to_owned),
            ..Event::default()
        }
    }

    fn all(store: &Store) -> Vec<Event> {
        store.query(&every().unwrap(), 0.0, 2e9, 100).unwrap()
    }

    #[test]
    fn an_event_is_known_again_on_every_way_that_it_comes() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let open = |dir: &tempfile::TempDir| {
            Store::open(
                &dir.path().join("events.db"),
                &render::events::Options::default(),
            )
            .unwrap()
        };
        let (here, there) = (open(&here), open(&there));
        let post = |what: &str, key: Option<&str>| {
            let event = event(what, key);
            let draft = Draft {
                what: Some(event.what),
                tags: Some(event.tags),
                when: Some(event.when),
                key: event.key,
                ..Draft::default()
            };
            here.insert(draft).unwrap().event.id
        };
        let id = post("one", None);
        post("two", Some("k"));
        for _ in 0..3 {
            for event in all(&here) {
                take(&there, event).unwrap();
            }
            // Back again.
            for event in all(&there) {
                take(&here, event).unwrap();
            }
        }
        assert_eq!((all(&here).len(), all(&there).len()), (2, 2));
        let ended = Draft {
            status: Some(Status::Failed),
            until: Some(Some(1_700_000_060.0)),
            ..Draft::default()
        };
        here.update(id, ended).unwrap();
        for event in all(&here) {
            take(&there, event).unwrap();
        }
        let failed = all(&there)
            .into_iter()
            .filter(|event| event.status == Status::Failed);
        assert_eq!(
            failed.map(|event| event.until).collect::<Vec<_>>(),
            [Some(1_700_000_060.0)]
        );
    }
}
