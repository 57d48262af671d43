//! Events of several servers: what is posted, changed or deleted at one of them is so at all.
//!
//! 1. Each other end, a peer or the table of ClickHouse, has a task: every [`PAUSE`] it takes what is new there and, if
//!    the end does not ask for it itself, gives what is new here.
//! 2. How far it is with each end is in `events-exchange` in the data directory. If that file is lost, it begins
//!    with the first change again; changes that are known already change nothing.
//! 3. Which of two changes holds is decided by the store (`render::events::revision`).
//! 4. A round ends after [`ROUND`]; the next one goes on where it was.
//! 5. The shutdown ends a round at once: its requests are made by threads of their own, which hold nothing of the store
//!    and are not waited for. What they would have exchanged is exchanged after the next start.
//! 6. Deletions are forgotten after a while ([`DELETED_FOR`]). So a server that was away from an end for longer does not
//!    know what was deleted there. It takes the end's word: what it had given to the end and the end does not have any
//!    more is forgotten here, too.

mod peer;
mod table;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use parking_lot::Mutex;
use render::budget::{Budget, Memory};
use render::events::revision::DELETED_FOR;
use render::events::{Revision, Store, There};
use serde::{Deserialize, Serialize};
use settings::Reading;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::peer::Peer;
use self::table::Shared;
use crate::config::Config;
use crate::store::Remote;
use crate::supervise::Supervisor;

/// How often each end is asked.
const PAUSE: Duration = Duration::from_secs(3);
/// How long a round goes on while there is more.
const ROUND: Duration = Duration::from_secs(10);
/// How often a round that waits for an answer looks whether the server stops.
const LOOK: Duration = Duration::from_millis(50);

settings::counters! {
    /// What is counted of an end.
    pub struct Counts in "events" {
        /// Rounds in which events were exchanged with this server or table. If this stops growing, look at the log.
        rounds = "exchange.rounds";
        /// Rounds that failed. If this grows, the log has the reason; what was not exchanged is later.
        failed = "exchange.failed";
        /// Changes of events received from there, known ones included. For information only.
        received = "exchange.received";
        /// Changes of events written into the table. For information only.
        sent = "exchange.sent";
    }
}

/// How far the exchange with an end is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Position {
    /// The store that is there, for a peer.
    theirs: String,
    /// The number of the last change taken from there: of a peer its own, of a table the second of its arrival.
    taken: i64,
    /// The store that is here.
    ours: String,
    /// The number of the last change of this store that is there.
    given: i64,
    /// The id in the last row that was read from a table.
    last: String,
    /// When all that was there had been taken, in unix seconds, to the hour.
    met: u64,
}

/// How exact [`Position::met`] is: the file is not written in each round.
const MET_EVERY: u64 = 3_600;

impl Position {
    /// Whether deletions may have been forgotten there since the last complete round.
    fn is_stale(&self) -> bool {
        // A day less, for clocks that differ.
        let most = DELETED_FOR.as_secs() - 86_400 - MET_EVERY;
        self.met > 0 && now().saturating_sub(self.met) > most
    }

    /// All that was there has been taken.
    fn meet(&mut self) {
        let now = now();
        if now.abs_diff(self.met) >= MET_EVERY {
            self.met = now;
        }
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

/// An other end.
trait End: Send {
    /// Its URL, and its table.
    fn name(&self) -> String;

    /// Exchanges what is new until `until`.
    ///
    /// # Errors
    /// It cannot be reached, or refuses.
    fn round(&mut self, here: &Here<'_>, position: &mut Position) -> anyhow::Result<()>;
}

/// What a round works with.
struct Here<'a> {
    store: &'a Store,
    /// The memory of answers. It is cancelled when the server stops.
    budget: &'a Budget,
    counts: &'a Counts,
    until: Instant,
}

impl Here<'_> {
    /// What an end answers to `question`.
    ///
    /// # Errors
    /// Those of `question`, and the stop of the server.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Budget) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        self.budget.check()?;
        let budget = self.budget.clone();
        let (send, answer) = sync_channel(1);
        let work = move || {
            // The round may have ended.
            let _ = send.send(question(&budget));
        };
        thread::Builder::new()
            .name("exchange".to_owned())
            .spawn(work)?;
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) => self.budget.check()?,
                Err(RecvTimeoutError::Disconnected) => bail!("the thread of the request has ended"),
            }
        }
    }

    /// Takes `revisions`.
    fn take(&self, revisions: Vec<Revision>, is_shared: bool) -> anyhow::Result<()> {
        self.counts.received.add(revisions.len() as u64);
        self.store.take(revisions, is_shared)?;
        Ok(())
    }

    /// Forgets what an end was given and does not have any more.
    fn forget_absent(&self, name: &str, there: There) -> anyhow::Result<()> {
        let n_known = there.known.len();
        let n_gone = self.store.forget_absent(there)?;
        tracing::info!(
            "nothing was exchanged with {name} for a month: of the events here {n_gone} are not among the {n_known} there \
             any more, and were forgotten"
        );
        Ok(())
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }
}

/// The positions of all ends, and their file.
struct Positions {
    path: PathBuf,
    all: Mutex<BTreeMap<String, Position>>,
}

impl Positions {
    fn read(path: PathBuf) -> Self {
        let text = carbon::private::read(&path).unwrap_or_default();
        Self {
            path,
            all: Mutex::new(serde_json::from_slice(&text).unwrap_or_default()),
        }
    }

    fn of(&self, name: &str) -> Position {
        self.all.lock().get(name).cloned().unwrap_or_default()
    }

    /// Keeps a position if it is another one.
    fn keep(&self, name: &str, position: &Position) {
        let mut all = self.all.lock();
        if all.get(name) == Some(position) {
            return;
        }
        all.insert(name.to_owned(), position.clone());
        let text = serde_json::to_vec_pretty(&*all).unwrap_or_default();
        if let Err(error) = self.write(&text) {
            tracing::warn!(%error, "{} cannot be written", self.path.display());
        }
    }

    /// Replaces the file.
    fn write(&self, text: &[u8]) -> io::Result<()> {
        let partial = self.path.with_extension("partial");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true);
        carbon::private::open(&partial, options)?.write_all(text)?;
        fs::rename(&partial, &self.path)
    }
}

/// The exchange with one end.
struct Exchange {
    end: Box<dyn End>,
    name: String,
    counts: Arc<Counts>,
    store: Arc<Store>,
    budget: Budget,
    positions: Arc<Positions>,
    has_failed: bool,
}

/// Ends the round when it is dropped.
struct Stop(Budget);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl Exchange {
    /// Exchanges until it is dropped.
    async fn run(mut self) {
        let _stop = Stop(self.budget.clone());
        let mut ticks = tokio::time::interval(PAUSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let round = tokio::task::spawn_blocking(move || {
                self.round();
                self
            });
            match round.await {
                Ok(back) => self = back,
                Err(_) => return,
            }
        }
    }

    fn round(&mut self) {
        let name = &self.name;
        let mut position = self.positions.of(name);
        let here = Here {
            store: &self.store,
            budget: &self.budget,
            counts: &self.counts,
            until: Instant::now() + ROUND,
        };
        let outcome = self.end.round(&here, &mut position);
        // What was done before a failure is done.
        self.positions.keep(name, &position);
        match outcome {
            Ok(()) => {
                self.counts.rounds.add(1);
                if self.has_failed {
                    tracing::info!("events are exchanged with {name} again");
                }
                self.has_failed = false;
            }
            Err(_) if self.budget.is_cancelled() => {}
            Err(error) => {
                self.counts.failed.add(1);
                if !self.has_failed {
                    tracing::warn!("events are not exchanged with {name}: {error:#}");
                }
                self.has_failed = true;
            }
        }
    }
}

/// The counters of all exchanges, by the names of the ends.
#[derive(Clone, Default)]
pub struct Counted(Vec<(String, Arc<Counts>)>);

impl Counted {
    /// The counters.
    pub fn readings(&self) -> Vec<Reading> {
        let all = self.0.iter().flat_map(|(name, counts)| {
            let readings = counts.readings().into_iter();
            readings.map(move |reading| reading.labelled("with", name))
        });
        all.collect()
    }
}

/// Exchanges the events of `store` with all peers, and with the table of ClickHouse if that is the store of points.
///
/// # Errors
/// Something that is not a URL.
pub fn start(
    config: &Config,
    store: &Arc<Store>,
    memory: &Arc<Memory>,
    remote: Option<&Remote>,
    background: &mut JoinSet<()>,
    supervisor: &Supervisor,
) -> anyhow::Result<Counted> {
    let mut ends: Vec<Box<dyn End>> = Vec::new();
    for url in &config.render.peers {
        ends.push(Box::new(Peer::new(url, config.render.peer_timeout.0)?));
    }
    if let Some(table) = remote.and_then(Remote::events) {
        ends.push(Box::new(Shared::new(table)));
    }
    let positions = Arc::new(Positions::read(config.data.join("events-exchange")));
    let mut counted = Counted::default();
    for end in ends {
        let (name, counts) = (end.name(), Arc::<Counts>::default());
        counted.0.push((name.clone(), Arc::clone(&counts)));
        let exchange = Exchange {
            end,
            name,
            counts,
            store: Arc::clone(store),
            budget: Budget::new(Arc::clone(memory), None),
            positions: Arc::clone(&positions),
            has_failed: false,
        };
        background.spawn(supervisor.watched("events exchange", exchange.run()));
    }
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_round_ends_at_the_stop_although_a_peer_is_silent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.db");
        let store = Store::open(&path, &render::events::Options::default()).unwrap();
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let counts = Arc::<Counts>::default();
        let exchange = Exchange {
            end: Box::new(Peer::new(&url, Duration::from_secs(600)).unwrap()),
            name: url,
            counts: Arc::clone(&counts),
            store: Arc::clone(&store),
            budget: Budget::unlimited(),
            positions: Arc::new(Positions::read(directory.path().join("events-exchange"))),
            has_failed: false,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build();
        let runtime = runtime.unwrap();
        let running = runtime.spawn(exchange.run());
        let _request = silent.accept().unwrap();
        running.abort();
        // The end of the runtime waits for the round.
        let (ended, end) = sync_channel(1);
        thread::spawn(move || {
            drop(runtime);
            let _ = ended.send(());
        });
        assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(()));
        assert_eq!(Arc::strong_count(&store), 1, "nothing holds the store");
        assert_eq!(counts.failed.load(std::sync::atomic::Ordering::Relaxed), 0);
    }
}
