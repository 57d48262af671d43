//! Queries over this server and its peers (`render.peers`): names of all are found, and values are merged
//! point by point.
//!
//! 1. What is known here comes first; peers, in the order of the configuration, fill what is not.
//! 2. A peer answers from its own store alone ([`machine`]), so that peers can name each other.
//! 3. A peer that does not answer within `render.peer_timeout` is counted, named in the log, and left out
//!    for [`REST`]: a dead one costs that time once in a while, and never an answer.
//! 4. The series of a pattern are asked for together, some hundred at a time, when their fetches are
//!    announced; their values are reserved in the memory of all requests until they have been fetched.

pub mod machine;
pub mod merge;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use render::budget::{Budget, Reservation};
use render::source::merged;
use render::{Completion, FetchRange, Fetched, Info, Node, Source, SourceError, TagValue, Tags};
use serde_json::Value;
use settings::Reading;
use whisper::Timestamp;

use self::machine::{Machine, is_pattern};
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
    /// Asks, unless it rests.
    fn ask<T>(&self, question: impl FnOnce(&Machine) -> anyhow::Result<T>) -> Option<T> {
        let was_away = {
            let rests = self.rests.lock();
            if rests.is_some_and(|until| Instant::now() < until) {
                self.counts.skipped.add(1);
                return None;
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
                Some(answer)
            }
            Err(error) => {
                self.counts.failed.add(1);
                *self.rests.lock() = Some(Instant::now() + REST);
                if !was_away {
                    tracing::warn!("a peer is left out of answers: {error:#}");
                }
                None
            }
        }
    }
}

/// A store with peers.
pub struct Peered {
    local: Arc<dyn Source>,
    tags: Arc<dyn Tags>,
    peers: Vec<Peer>,
}

/// What peers have of series that are about to be fetched.
#[derive(Default)]
struct Ahead {
    range: Option<FetchRange>,
    series: HashMap<String, Vec<Fetched>>,
    _reserved: Option<Reservation>,
}

thread_local! {
    /// For the fetches of this thread; a query is evaluated on one thread.
    static AHEAD: RefCell<Option<Ahead>> = const { RefCell::new(None) };
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
        })
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
    fn ask<T: Send>(&self, question: impl Fn(&Machine) -> anyhow::Result<T> + Sync) -> Vec<T> {
        if let [peer] = &self.peers[..] {
            return peer.ask(&question).into_iter().collect();
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
                .filter_map(|one| one.join().ok().flatten())
                .collect()
        })
    }

    /// The JSON lists that peers answer, put together.
    fn lists(&self, path: &str, pairs: &[(&str, &str)]) -> Vec<Value> {
        let pairs = [pairs, &[("local", "1")]].concat();
        let answers = self.ask(|machine| machine.json(path, &pairs));
        let lists = answers.into_iter().filter_map(|answer| match answer {
            Value::Array(list) => Some(list),
            _ => None,
        });
        lists.flatten().collect()
    }

    /// As [`Peered::lists`], of texts.
    fn texts(&self, path: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        let texts = self.lists(path, pairs).into_iter();
        texts
            .filter_map(|text| text.as_str().map(str::to_owned))
            .collect()
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
        let more = self.texts(&format!("/tags/autoComplete/{kind}"), &pairs);
        Ok(wanted.of(merged(found, more, budget)?))
    }

    /// What peers have of `names`.
    fn of_peers(&self, names: &[&str], range: FetchRange) -> HashMap<String, Vec<Fetched>> {
        let names: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| !is_pattern(name))
            .collect();
        let mut found: HashMap<String, Vec<Fetched>> = HashMap::new();
        if names.is_empty() {
            return found;
        }
        let (from, until) = (i64::from(range.from.0), i64::from(range.until.0));
        for answer in self.ask(|machine| machine.fetch(&names, from, until)) {
            for mut series in answer {
                let name = std::mem::take(&mut series.name);
                found
                    .entry(name)
                    .or_default()
                    .extend(merge::fetched(series));
            }
        }
        found
    }

    fn read_ahead(&self, names: &[String], range: FetchRange, budget: &Budget) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let series = self.of_peers(&names, range);
        let values = series
            .values()
            .flatten()
            .map(|one| one.values.len() * 8 + 128);
        let ahead = match budget.hold(values.sum()) {
            Ok(reserved) => Ahead {
                range: Some(range),
                series,
                _reserved: Some(reserved),
            },
            Err(_) => {
                tracing::warn!(
                    "values of peers are left out of an answer: render.max_memory is used up"
                );
                Ahead {
                    range: Some(range),
                    ..Ahead::default()
                }
            }
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
        for found in self.ask(|machine| machine.find(pattern)) {
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
        let names = self.local.find_series(pattern, budget)?;
        let found = self.ask(|machine| machine.find(pattern));
        let leaves = found.into_iter().flatten().filter(|node| node.is_leaf);
        merged(names, leaves.map(|node| node.path), budget)
    }

    fn find_tagged(
        &self,
        expressions: &[&str],
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let names = self.local.find_tagged(expressions, budget)?;
        let pairs: Vec<_> = expressions.iter().map(|one| ("expr", *one)).collect();
        merged(names, self.texts("/tags/findSeries", &pairs), budget)
    }

    fn fetch(&self, name: &str, range: FetchRange) -> Result<Option<Fetched>, SourceError> {
        let local = self.local.fetch(name, range);
        let announced = AHEAD.with_borrow_mut(|ahead| {
            let ahead = ahead.as_mut().filter(|ahead| ahead.range == Some(range))?;
            Some(ahead.series.remove(name).unwrap_or_default())
        });
        let others = announced.unwrap_or_else(|| {
            let mut found = self.of_peers(&[name], range);
            found.remove(name).unwrap_or_default()
        });
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
        for tag in self.lists("/tags", &[]) {
            let Some(tag) = tag["tag"].as_str() else {
                continue;
            };
            if tags.iter().all(|(_, known)| known != tag) {
                budget.reserve(tag.len() + 64)?;
                tags.push((next, tag.to_owned()));
                next += 1;
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
        let answers = self.ask(|machine| machine.json(&path, &[("local", "1")]));
        let (id, values) = local.unwrap_or_default();
        let mut all: BTreeMap<String, TagValue> = values
            .into_iter()
            .map(|value| (value.value.clone(), value))
            .collect();
        for answer in answers {
            for value in answer["values"].as_array().into_iter().flatten() {
                let Some(text) = value["value"].as_str() else {
                    continue;
                };
                let count = value["count"].as_u64().unwrap_or(0) as usize;
                budget.reserve(text.len() * 2 + 128)?;
                let next = all.len() as u32;
                let known = all.entry(text.to_owned()).or_insert_with(|| TagValue {
                    id: next,
                    value: text.to_owned(),
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
