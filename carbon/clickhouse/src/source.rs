//! ClickHouse as the source of queries, with the points that it has not acknowledged yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use carbon::Carbon;
use parking_lot::Mutex;
use render::budget::Budget;
use render::source::{FetchRange, Fetched, Node, Source, SourceError, merged};

use crate::cache::Cache;
use crate::client::{Client, Failure};
use crate::known::Known;
use crate::names;
use crate::options::Options;
use crate::points::{self, Steps};
use crate::rollup::Rollup;
use crate::rows;
use crate::sql;
use crate::stats::Stats;
use crate::wire::{CUT, Rows, said};
use crate::{find, tagged};

/// How long the rollup rules are used before they are asked for again.
const RULES_FOR: Duration = Duration::from_secs(60);
/// The most series of one query for points, and the most points and bytes of names that they may have.
const MOST_SERIES: usize = 500;
const MOST_POINTS: u64 = 4_000_000;
const MOST_TEXT: usize = 8 << 20;
/// What a name that is found takes beside its text.
pub(crate) const PER_NAME: usize = 64;

/// The store.
pub struct Clickhouse {
    pub(crate) client: Client,
    pub(crate) carbon: Carbon,
    known: Arc<Known>,
    stats: Arc<Stats>,
    points_table: String,
    pub(crate) index_table: String,
    pub(crate) tagged_table: String,
    rollup: String,
    rules: Mutex<Option<(Instant, Arc<Rollup>)>>,
    found: Cache,
    /// Whether the table of names has them reversed, as of when.
    reversed: Mutex<Option<(Instant, bool)>>,
    /// What was fetched ahead, by the thread that will ask for it.
    ahead: Mutex<HashMap<ThreadId, Ahead>>,
}

/// Series that were fetched together.
struct Ahead {
    range: FetchRange,
    series: HashMap<String, Fetched, foldhash::fast::RandomState>,
    failed: Option<SourceError>,
}

impl From<Failure> for SourceError {
    fn from(failure: Failure) -> Self {
        match failure {
            // A pattern that is Python's and not RE2's.
            Failure::Failed(why) if why.contains("Code: 427") => Self::Refused(why),
            Failure::Failed(why) => Self::Failed(why),
            Failure::Budget(error) => error.into(),
        }
    }
}

impl Clickhouse {
    /// The store with the tables of `options`. `carbon` has the points that are not acknowledged yet, `known` the series
    /// that are in the tables of names.
    pub fn new(
        options: &Options,
        client: Client,
        carbon: Carbon,
        known: Arc<Known>,
        stats: Arc<Stats>,
    ) -> Self {
        let most = usize::try_from(options.find_cache_size.0).unwrap_or(usize::MAX);
        Self {
            client,
            carbon,
            known,
            stats,
            points_table: options.points_table.clone(),
            index_table: options.index_table.clone(),
            tagged_table: options.tagged_table.clone(),
            rollup: options.rollup.clone(),
            rules: Mutex::default(),
            found: Cache::new(options.find_cache.0, most),
            reversed: Mutex::default(),
            ahead: Mutex::default(),
        }
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The rollup rules. If the server does not answer, the last ones.
    fn rules(&self) -> Result<Arc<Rollup>, Failure> {
        let before = self.rules.lock().clone();
        if let Some((at, rules)) = &before
            && at.elapsed() < RULES_FOR
        {
            return Ok(Arc::clone(rules));
        }
        let rules = match (Rollup::ask(&self.client, &self.rollup), before) {
            (Ok(rules), _) => Arc::new(rules),
            (Err(_), Some((_, rules))) => rules,
            (Err(failure), None) => return Err(failure),
        };
        *self.rules.lock() = Some((Instant::now(), Arc::clone(&rules)));
        Ok(rules)
    }

    /// The first column of the answer to `sql`, each text as `read` has it, in bytewise order. `named` is the question
    /// that it answers.
    fn texts(
        &self,
        named: &str,
        sql: String,
        read: fn(String) -> String,
        budget: &Budget,
    ) -> Result<Texts, SourceError> {
        if let Some(kept) = self.found.get(named) {
            self.stats.found_again.add(1);
            return Ok(Texts::Kept(kept));
        }
        let answer = self.client.query(sql, budget)?;
        let mut steps = budget.steps();
        let mut rows = Rows(&answer.bytes);
        let mut texts = Vec::new();
        while !rows.is_empty() {
            let text = rows
                .text()
                .ok_or_else(|| SourceError::Failed(CUT.to_owned()))?;
            steps.take(text.len() + PER_NAME)?;
            texts.push(read(text));
        }
        // Long runs of them are in order.
        texts.sort();
        texts.dedup();
        if !self.found.fits(named, &texts) {
            return Ok(Texts::Own(texts));
        }
        let texts: Arc<[String]> = texts.into();
        self.found.keep(named, &texts);
        Ok(Texts::Kept(texts))
    }

    /// Whether the table of names has them reversed, too.
    fn has_reversed(&self, budget: &Budget) -> Result<bool, SourceError> {
        if let Some((at, has)) = *self.reversed.lock()
            && at.elapsed() < RULES_FOR
        {
            return Ok(has);
        }
        let answer = self
            .client
            .query(find::any_reversed(&self.index_table), budget)?;
        let has = !answer.bytes.is_empty();
        *self.reversed.lock() = Some((Instant::now(), has));
        Ok(has)
    }

    /// Whether the series called `name` has points that wait, and is not in the tables of names.
    fn is_new(&self, name: &str) -> bool {
        let id = self.carbon.waiting_id(name);
        id.is_some_and(|id| !self.known.has(id))
    }

    /// Adds nodes that only the cache knows to those that `nodes` has.
    fn add_new(
        &self,
        pattern: &str,
        nodes: &mut Vec<Node>,
        budget: &Budget,
    ) -> Result<(), SourceError> {
        if !self.carbon.has_new_series() {
            return Ok(());
        }
        let before = nodes.len();
        for node in Source::find(&self.carbon, pattern, budget)? {
            if nodes[..before].binary_search(&node).is_ok() {
                continue;
            }
            let is_new = match node.leaf {
                true => self.is_new(&node.path),
                false => {
                    let below = format!("{}.**", node.path);
                    let below = Source::find(&self.carbon, &below, budget)?;
                    let mut leaves = below.iter().filter(|node| node.leaf);
                    leaves.any(|leaf| self.is_new(&leaf.path))
                }
            };
            if is_new {
                nodes.push(node);
            }
        }
        if nodes.len() > before {
            nodes.sort_unstable();
        }
        Ok(())
    }

    /// The points of `names`, one query for all of them.
    fn fetch_all(
        &self,
        names: &[&str],
        FetchRange { from, until, now }: FetchRange,
        budget: &Budget,
    ) -> Result<HashMap<String, Fetched, foldhash::fast::RandomState>, SourceError> {
        let until = until.min(now);
        let rules = self.rules()?;
        let age = now.0.saturating_sub(from.0);
        let paths: Vec<_> = names.iter().map(|name| names::to_table(name)).collect();
        // What waits is read before what is there: a point that is acknowledged meanwhile is seen twice, not never.
        let waiting: Vec<_> = names
            .iter()
            .map(|name| self.carbon.unacknowledged(name))
            .collect();
        let rolled: Vec<_> = paths
            .iter()
            .map(|path| {
                let (function, step) = rules.of(path, age);
                (function, Steps::of(from.0, until.0, step))
            })
            .collect();
        let first = rolled.iter().map(|(_, steps)| steps.begin).min();
        let last = rolled.iter().map(|(_, steps)| steps.end - 1).max();
        let seconds = |at: Option<i64>| u32::try_from(at.unwrap_or(0)).unwrap_or(u32::MAX);
        let asked: Vec<&str> = paths.iter().map(AsRef::as_ref).collect();
        let sql = points::query(&self.points_table, &asked, seconds(first), seconds(last));
        let answer = self.client.stream(sql, budget)?;
        let stored =
            points::read(&answer.bytes).ok_or_else(|| SourceError::Failed(said(&answer.bytes)))?;
        let mut fetched = HashMap::default();
        for (n, name) in names.iter().enumerate() {
            let (function, steps) = rolled[n];
            let columns = stored.get(&*paths[n]).copied();
            let is_known = columns.is_some_and(|columns| !columns.is_empty());
            let tagged = carbon::series::is_tagged(name);
            if tagged
                && !is_known
                && waiting[n].is_empty()
                && !self.has_tagged(&paths[n], name, budget)?
            {
                continue;
            }
            let columns = columns.unwrap_or_default();
            let values = columns.steps(&waiting[n], steps, function);
            fetched.insert(
                (*name).to_owned(),
                Fetched {
                    start: steps.begin,
                    end: steps.end,
                    step: steps.step,
                    values,
                    aggregation: function.aggregation(),
                    x_files_factor: 0.0,
                },
            );
        }
        Ok(fetched)
    }

    /// Whether the tables have the tagged series `name`, which they call `path`.
    fn has_tagged(&self, path: &str, name: &str, budget: &Budget) -> Result<bool, SourceError> {
        let metric = name.split(';').next().unwrap_or_default();
        let tag = sql::text(&format!("__name__={metric}"));
        let (table, path) = (&self.tagged_table, sql::text(path));
        let sql = format!(
            "SELECT Path FROM {table} WHERE Tag1 = {tag} AND Path = {path} LIMIT 1 FORMAT RowBinary"
        );
        Ok(!self.client.query(sql, budget)?.bytes.is_empty())
    }

    /// How many of `names` from the front are fetched together.
    fn together(&self, names: &[String], range: FetchRange) -> usize {
        let FetchRange { from, until, now } = range;
        let step = match self.rules.lock().as_ref() {
            Some((_, rules)) => {
                let age = now.0.saturating_sub(from.0);
                names.first().map_or(1, |name| rules.of(name, age).1)
            }
            None => 1,
        };
        let each = u64::from(until.0.saturating_sub(from.0)) / u64::from(step.max(1)) + 1;
        let most = usize::try_from(MOST_POINTS / each).unwrap_or(usize::MAX);
        let mut text = 0;
        let fits = names.iter().take_while(|name| {
            text += name.len() + 4;
            text <= MOST_TEXT
        });
        fits.count().min(most.clamp(1, MOST_SERIES)).max(1)
    }
}

/// Texts of an answer.
enum Texts {
    /// Of this request alone.
    Own(Vec<String>),
    /// Kept for others, too.
    Kept(Arc<[String]>),
}

impl Texts {
    fn iter(&self) -> std::slice::Iter<'_, String> {
        match self {
            Self::Own(texts) => texts.iter(),
            Self::Kept(texts) => texts.iter(),
        }
    }

    fn into_vec(self) -> Vec<String> {
        match self {
            Self::Own(texts) => texts,
            Self::Kept(texts) => texts.to_vec(),
        }
    }
}

fn identity(text: String) -> String {
    text
}

/// Forgets what was fetched ahead for this thread.
struct Announced<'a>(&'a Clickhouse);

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.ahead.lock().remove(&std::thread::current().id());
    }
}

impl Source for Clickhouse {
    fn find(&self, pattern: &str, budget: &Budget) -> Result<Vec<Node>, SourceError> {
        let sql = find::query(&self.index_table, pattern).map_err(SourceError::Refused)?;
        let Some(sql) = sql else {
            return Source::find(&self.carbon, pattern, budget);
        };
        let texts = self.texts(pattern, sql, identity, budget)?;
        let keeps_dot = pattern.ends_with('.');
        let node = |mut path: String| {
            let leaf = !path.ends_with('.');
            // As it was asked for.
            if !leaf && !keeps_dot {
                path.pop();
            }
            Node { path, leaf }
        };
        let mut nodes: Vec<Node> = match texts {
            Texts::Own(texts) => texts.into_iter().map(node).collect(),
            Texts::Kept(texts) => {
                let mut steps = budget.steps();
                for text in texts.iter() {
                    steps.take(text.len() + PER_NAME)?;
                }
                texts.iter().cloned().map(node).collect()
            }
        };
        // A branch without its dot belongs before names that go on with what sorts before a dot.
        nodes.sort();
        self.add_new(pattern, &mut nodes, budget)?;
        Ok(nodes)
    }

    fn find_series(&self, pattern: &str, budget: &Budget) -> Result<Vec<String>, SourceError> {
        let sql = find::reversed(&self.index_table, pattern).map_err(SourceError::Refused)?;
        let sql = match sql {
            Some(sql) if self.has_reversed(budget)? => sql,
            _ => {
                let nodes = self.find(pattern, budget)?.into_iter();
                let leaves = nodes.filter(|node| node.leaf);
                return Ok(leaves.map(|node| node.path).collect());
            }
        };
        let question = format!("\0reversed\0{pattern}");
        let texts = self.texts(&question, sql, |path| rows::reversed(&path), budget)?;
        let mut own = Vec::new();
        if self.carbon.has_new_series() {
            own = Source::find_series(&self.carbon, pattern, budget)?;
            own.retain(|name| self.is_new(name));
        }
        merged(texts.into_vec(), own, budget)
    }

    fn find_tagged(
        &self,
        expressions: &[&str],
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let sql = tagged::query(&self.tagged_table, expressions).map_err(SourceError::Refused)?;
        let question = format!("\0{}", expressions.join("\0"));
        let texts = self.texts(&question, sql, identity, budget)?;
        let names = texts
            .iter()
            .map(|path| names::from_table(path).into_owned());
        let names: Vec<String> = names.collect();
        let mut own = Vec::new();
        if self.carbon.has_new_series() {
            own = Source::find_tagged(&self.carbon, expressions, budget)?;
            own.retain(|name| self.is_new(name));
        }
        merged(names, own, budget)
    }

    fn fetch(&self, name: &str, range: FetchRange) -> Result<Option<Fetched>, SourceError> {
        if range.from > range.now {
            return Ok(None);
        }
        if let Some(ahead) = self.ahead.lock().get_mut(&std::thread::current().id())
            && ahead.range == range
        {
            // The request ends with it.
            if let Some(error) = ahead.failed.take() {
                return Err(error);
            }
            if let Some(fetched) = ahead.series.remove(name) {
                return Ok(Some(fetched));
            }
        }
        let mut fetched = self.fetch_all(&[name], range, &Budget::unlimited())?;
        Ok(fetched.remove(name))
    }

    fn announce<'a>(
        &'a self,
        names: &'a [String],
        range: FetchRange,
        budget: &'a Budget,
    ) -> Box<dyn FnMut(usize) + 'a> {
        let announced = Announced(self);
        let mut fetched = 0;
        Box::new(move |at| {
            let _ = &announced;
            if at < fetched || range.from > range.now {
                return;
            }
            let rest = names.get(at..).unwrap_or_default();
            let together = self.together(rest, range).min(rest.len());
            fetched = at + together;
            let part: Vec<&str> = rest[..together].iter().map(String::as_str).collect();
            let (series, failed) = match self.fetch_all(&part, range, budget) {
                Ok(series) => (series, None),
                Err(error) => (HashMap::default(), Some(error)),
            };
            let ahead = Ahead {
                range,
                series,
                failed,
            };
            self.ahead.lock().insert(std::thread::current().id(), ahead);
        })
    }
}
