//! Queries over this server and its peers (`render.peers`): names of all are found, and values are merged
//! point by point.
//!
//! 1. What is known here comes first; peers, in the order of the configuration, fill what is not.
//! 2. A peer answers from its own store alone ([`machine`]), so that peers can name each other.
//! 3. A peer that does not answer within `render.peer_timeout` is counted, named in the log, and left out
//!    for [`REST`]: a dead one costs that time once in a while, and never an answer.
//! 4. The series of a pattern are asked for together, some hundred at a time, when their fetches are
//!    announced; their values are reserved in the memory of all requests until they have been fetched.
//! 5. All that peers answer is reserved in the memory of the request that asks while it arrives ([`machine`]). A request
//!    without that much is refused, as for its own series; the peer does not count as failed then.

pub mod machine;
pub mod merge;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use render::budget::{Budget, Memory, Reservation};
use render::source::merged;
use render::{Completion, FetchRange, Fetched, Info, Node, Source, SourceError, TagValue, Tags};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use settings::Reading;
use whisper::Timestamp;

use self::machine::{Answer, Failure, Machine, is_pattern};
use crate::store::Asked;

/// How long a peer that failed is left out.
const REST: Duration = Duration::from_secs(5);
/// Series in a request to a peer.
const AT_ONCE: usize = 200;

settings::counters! {
    /// What is counted of a peer.
    pub struct Counts in "peers" {
        /// Requests to this peer that were answered. For information.
        answered = "answered";
        /// Requests to this peer that failed. If this grows, it is away, slow or overloaded: the log has
        /// the reason, and answers lack what only it knows.
        failed = "failed";
        /// Requests that this peer was left out of, because it had failed in the seconds before.
        skipped = "skipped";
    }
}

/// Another server whose series are part of all answers.
struct Peer {
    machine: Machine,
    counts: Counts,
    /// Left out until then.
    rests: Mutex<Option<Instant>>,
}

impl Peer {
    /// Asks, unless it rests: nothing if it rests, or fails.
    ///
    /// # Errors
    /// The request that asks may not go on.
    fn ask<T>(
        &self,
        question: impl FnOnce(&Machine) -> Result<T, Failure>,
    ) -> Result<Option<T>, render::Error> {
        let was_away = {
            let rests = self.rests.lock();
            if rests.is_some_and(|until| Instant::now() < until) {
                self.counts.skipped.add(1);
                return Ok(None);
            }
            rests.is_some()
        };
        match question(&self.machine) {
            Ok(answer) => {
                self.counts.answered.add(1);
                if was_away {
                    *self.rests.lock() = None;
                    tracing::info!("the peer {} answers again", self.machine.base());
                }
                Ok(Some(answer))
            }
            Err(Failure::Here(error)) => Err(error),
            Err(Failure::There(error)) => {
                self.counts.failed.add(1);
                *self.rests.lock() = Some(Instant::now() + REST);
                if !was_away {
                    tracing::warn!("a peer is left out of answers: {error:#}");
                }
                Ok(None)
            }
        }
    }
}

/// A store with peers.
pub struct Peered {
    local: Arc<dyn Source>,
    tags: Arc<dyn Tags>,
    peers: Vec<Peer>,
    /// The memory of all requests, for fetches that were not announced.
    memory: OnceLock<Arc<Memory>>,
}

/// What peers have of series that are about to be fetched.
#[derive(Default)]
struct Ahead {
    range: Option<FetchRange>,
    series: HashMap<String, Vec<Fetched>>,
    _reserved: Option<Reservation>,
    /// Why there is nothing, for the next fetch.
    refused: Option<render::Error>,
}

thread_local! {
    /// For the fetches of this thread; a query is evaluated on one thread.
    static AHEAD: RefCell<Option<Ahead>> = const { RefCell::new(None) };
}

/// A tag that a peer knows.
#[derive(Deserialize)]
struct TheirTag {
    tag: String,
}

/// What a peer knows of a tag.
#[derive(Deserialize)]
struct TheirValues {
    #[serde(default)]
    values: Vec<TheirValue>,
}

/// A value of a tag.
#[derive(Deserialize)]
struct TheirValue {
    value: String,
    count: usize,
}

/// Ends with the announcement.
struct Announced;

impl Drop for Announced {
    fn drop(&mut self) {
        AHEAD.with_borrow_mut(|ahead| *ahead = None);
    }
}

impl Peered {
    /// `asked` with the peers at `urls`.
    ///
    /// # Errors
    /// Something that is not a URL.
    pub fn new(asked: Asked, urls: &[String], timeout: Duration) -> anyhow::Result<Self> {
        let peers = urls.iter().map(|url| {
            Ok(Peer {
                machine: Machine::new(url, timeout)?,
                counts: Counts::default(),
                rests: Mutex::default(),
            })
        });
        Ok(Self {
            local: asked.source,
            tags: asked.tags,
            peers: peers.collect::<anyhow::Result<_>>()?,
            memory: OnceLock::new(),
        })
    }

    /// Reserves in `memory` what belongs to no request in particular. The first call counts.
    pub fn within(&self, memory: &Arc<Memory>) {
        let _ = self.memory.set(Arc::clone(memory));
    }

    /// The counters of all peers.
    pub fn readings(&self) -> Vec<Reading> {
        let all = self.peers.iter().flat_map(|peer| {
            let readings = peer.counts.readings().into_iter();
            readings.map(|reading| reading.labelled("peer", peer.machine.base()))
        });
        all.collect()
    }

    /// What each peer that answers says to `question`, in the order of the configuration.
    fn ask<T: Send>(
        &self,
        question: impl Fn(&Machine) -> Result<T, Failure> + Sync,
    ) -> Result<Vec<T>, render::Error> {
        if let [peer] = &self.peers[..] {
            return Ok(peer.ask(&question)?.into_iter().collect());
        }
        let question = &question;
        std::thread::scope(|scope| {
            let asked = self
                .peers
                .iter()
                .map(|peer| scope.spawn(move || peer.ask(question)));
            let asked: Vec<_> = asked.collect();
            asked
                .into_iter()
                .filter_map(|one| one.join().ok()?.transpose())
                .collect()
        })
    }

    /// The JSON that peers answer.
    fn json<T: DeserializeOwned + Send>(
        &self,
        path: &str,
        pairs: &[(&str, &str)],
        budget: &Budget,
    ) -> Result<Vec<Answer<T>>, render::Error> {
        let pairs = [pairs, &[("local", "1")]].concat();
        self.ask(|machine| machine.json(path, &pairs, budget))
    }

    /// `found` with the lists of texts that peers answer.
    fn with_texts(
        &self,
        found: Vec<String>,
        path: &str,
        pairs: &[(&str, &str)],
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let mut all = found;
        for answer in self.json::<Vec<String>>(path, pairs, budget)? {
            all = merged(all, answer.content, budget)?;
        }
        Ok(all)
    }

    /// `found`, with the `kind` of completions that peers have.
    fn completed(
        &self,
        found: Vec<String>,
        kind: &str,
        asked: &[(&str, &str)],
        wanted: &Completion<'_>,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let limit = wanted.limit.to_string();
        let mut pairs: Vec<_> = wanted
            .expressions
            .iter()
            .map(|one| ("expr", *one))
            .collect();
        pairs.extend(asked);
        pairs.push(("limit", &limit));
        let path = format!("/tags/autoComplete/{kind}");
        Ok(wanted.of(self.with_texts(found, &path, &pairs, budget)?))
    }

    /// What peers have of `names`.
    fn of_peers(
        &self,
        names: &[&str],
        range: FetchRange,
        budget: &Budget,
    ) -> Result<HashMap<String, Vec<Fetched>>, render::Error> {
        let names: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !is_pattern(name))
            .collect();
        let mut found: HashMap<String, Vec<Fetched>> = HashMap::new();
        if names.is_empty() {
            return Ok(found);
        }
        let range = (i64::from(range.from.0), i64::from(range.until.0));
        for answer in self.ask(|machine| machine.fetch(&names, range, budget))? {
            for mut series in answer.content {
                let name = std::mem::take(&mut series.name);
                found
                    .entry(name)
                    .or_default()
                    .extend(merge::fetched(series));
            }
        }
        Ok(found)
    }

    fn read_ahead(&self, names: &[String], range: FetchRange, budget: &Budget) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let read = self.of_peers(&names, range, budget).and_then(|series| {
            let values = series
                .values()
                .flatten()
                .map(|one| one.values.capacity() * 8 + 128);
            Ok((budget.hold(values.sum())?, series))
        });
        let range = Some(range);
        let ahead = match read {
            Ok((reserved, series)) => Ahead {
                range,
                series,
                _reserved: Some(reserved),
                refused: None,
            },
            Err(error) => Ahead {
                range,
                refused: Some(error),
                ..Ahead::default()
            },
        };
        AHEAD.with_borrow_mut(|all| *all = Some(ahead));
    }
}

/// What queries ask: `asked`, with `render.peers` if there are any.
///
/// # Errors
/// Something that is not a URL.
pub fn with(
    asked: Asked,
    options: &render::Options,
) -> anyhow::Result<(Asked, Option<Arc<Peered>>)> {
    if options.peers.is_empty() {
        return Ok((asked, None));
    }
    let peered = Arc::new(Peered::new(asked, &options.peers, options.peer_timeout.0)?);
    let asked = Asked {
        source: peered.clone(),
        tags: peered.clone(),
    };
    Ok((asked, Some(peered)))
}

impl Source for Peered {
    fn local(&self) -> Option<&dyn Source> {
        Some(&*self.local)
    }

    fn find(&self, pattern: &str, budget: &Budget) -> Result<Vec<Node>, SourceError> {
        let mut nodes = self.local.find(pattern, budget)?;
        for answer in self.ask(|machine| machine.find(pattern, budget))? {
            let found = answer.content;
            budget.reserve(found.iter().map(|node| node.path.len() + 64).sum())?;
            nodes.extend(found.into_iter().map(|node| Node {
                path: node.path,
                leaf: node.is_leaf,
            }));
        }
        nodes.sort_unstable();
        nodes.dedup();
        Ok(nodes)
    }

    fn find_series(&self, pattern: &str, budget: &Budget) -> Result<Vec<String>, SourceError> {
        let mut names = self.local.find_series(pattern, budget)?;
        for answer in self.ask(|machine| machine.find(pattern, budget))? {
            let leaves = answer.content.into_iter().filter(|node| node.is_leaf);
            names = merged(names, leaves.map(|node| node.path), budget)?;
        }
        Ok(names)
    }

    fn find_tagged(
        &self,
        expressions: &[&str],
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let names = self.local.find_tagged(expressions, budget)?;
        let pairs: Vec<_> = expressions.iter().map(|one| ("expr", *one)).collect();
        self.with_texts(names, "/tags/findSeries", &pairs, budget)
    }

    fn fetch(&self, name: &str, range: FetchRange) -> Result<Option<Fetched>, SourceError> {
        let local = self.local.fetch(name, range);
        let announced = AHEAD.with_borrow_mut(|ahead| {
            let ahead = ahead.as_mut().filter(|ahead| ahead.range == Some(range))?;
            Some(match ahead.refused.take() {
                Some(error) => Err(error),
                None => Ok(ahead.series.remove(name).unwrap_or_default()),
            })
        });
        let others = announced.unwrap_or_else(|| {
            let memory = self.memory.get_or_init(|| Memory::new(0));
            let budget = Budget::new(Arc::clone(memory), None);
            let mut found = self.of_peers(&[name], range, &budget)?;
            Ok(found.remove(name).unwrap_or_default())
        })?;
        // If the file here is damaged, a peer may still have the series.
        let mut whole = match local {
            Ok(local) => local,
            Err(_) if !others.is_empty() => None,
            Err(error) => return Err(error),
        };
        for other in others {
            match &mut whole {
                Some(whole) => merge::merge(whole, other),
                None => whole = Some(other),
            }
        }
        Ok(whole)
    }

    fn announce<'a>(
        &'a self,
        names: &'a [String],
        range: FetchRange,
        budget: &'a Budget,
    ) -> Box<dyn FnMut(usize) + 'a> {
        let mut local = self.local.announce(names, range, budget);
        let announced = Announced;
        let mut end = 0;
        Box::new(move |at| {
            let _lives_as_long = &announced;
            if at >= end {
                end = (at + AT_ONCE).min(names.len());
                self.read_ahead(&names[at..end], range, budget);
            }
            local(at);
        })
    }

    fn reach(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<Option<(Timestamp, Timestamp)>, SourceError> {
        self.local.reach(name, now)
    }

    fn info(&self, name: &str) -> Result<Option<Info>, SourceError> {
        self.local.info(name)
    }
}

impl Tags for Peered {
    fn local(&self) -> Option<&dyn Tags> {
        Some(&*self.tags)
    }

    fn tags(&self, budget: &Budget) -> Result<Vec<(u32, String)>, SourceError> {
        let mut tags = self.tags.tags(budget)?;
        let mut next = tags.iter().map(|(id, _)| id + 1).max().unwrap_or(0);
        let _known = budget.hold(tags.iter().map(|(_, tag)| tag.len() + 64).sum())?;
        let mut known: HashSet<String> = tags.iter().map(|(_, tag)| tag.clone()).collect();
        for answer in self.json::<Vec<TheirTag>>("/tags", &[], budget)? {
            for TheirTag { tag } in answer.content {
                if !known.contains(&tag) {
                    budget.reserve(2 * (tag.len() + 64))?;
                    known.insert(tag.clone());
                    tags.push((next, tag));
                    next += 1;
                }
            }
        }
        tags.sort_unstable_by(|(_, a), (_, b)| a.cmp(b));
        Ok(tags)
    }

    fn values(
        &self,
        tag: &str,
        budget: &Budget,
    ) -> Result<Option<(u32, Vec<TagValue>)>, SourceError> {
        let local = self.tags.values(tag, budget)?;
        let encoded: String = form_urlencoded::byte_serialize(tag.as_bytes()).collect();
        let path = format!("/tags/{}", encoded.replace('+', "%20"));
        let answers = self.json::<TheirValues>(&path, &[], budget)?;
        let (id, values) = local.unwrap_or_default();
        let mut all: BTreeMap<String, TagValue> = values
            .into_iter()
            .map(|value| (value.value.clone(), value))
            .collect();
        for answer in answers {
            for TheirValue { value, count } in answer.content.values {
                budget.reserve(value.len() * 2 + 128)?;
                let next = all.len() as u32;
                let known = all.entry(value.clone()).or_insert_with(|| TagValue {
                    id: next,
                    value,
                    count: 0,
                });
                // Most series are on both.
                known.count = known.count.max(count);
            }
        }
        Ok((!all.is_empty()).then(|| (id, all.into_values().collect())))
    }

    fn complete_tags(
        &self,
        wanted: &Completion<'_>,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let found = self.tags.complete_tags(wanted, budget)?;
        self.completed(
            found,
            "tags",
            &[("tagPrefix", wanted.prefix)],
            wanted,
            budget,
        )
    }

    fn complete_values(
        &self,
        tag: &str,
        wanted: &Completion<'_>,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let found = self.tags.complete_values(tag, wanted, budget)?;
        let asked = [("tag", tag), ("valuePrefix", wanted.prefix)];
        self.completed(found, "values", &asked, wanted, budget)
    }

    fn register(&self, path: &str) -> Result<String, SourceError> {
        self.tags.register(path)
    }

    fn register_all(&self, paths: &[&str]) -> Result<Vec<String>, SourceError> {
        self.tags.register_all(paths)
    }

    fn unregister(&self, path: &str) -> Result<(), SourceError> {
        self.tags.unregister(path)
    }
}

#[cfg(test)]
mod tests;
