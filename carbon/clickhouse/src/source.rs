//! ClickHouse as the source of queries, with the points that it has not acknowledged yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use carbon::{Carbon, Timestamp};
use parking_lot::Mutex;
use render::budget::Budget;
use render::source::{Fetched, Node, Source, SourceError, TagValue, Tags};

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
use crate::wire::{CUT, Rows};
use crate::{find, tagged};

/// How long the rollup rules are used before they are asked for again.
const RULES_FOR: Duration = Duration::from_secs(60);
/// How long a registration may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most series of one query for points, and the most points and bytes of names that they may have.
const MOST_SERIES: usize = 500;
const MOST_POINTS: u64 = 4_000_000;
const MOST_TEXT: usize = 8 << 20;
/// What a name that is found takes beside its text.
const PER_NAME: usize = 64;

/// The store.
pub struct Clickhouse {
    client: Client,
    carbon: Carbon,
    known: Arc<Known>,
    stats: Arc<Stats>,
    points_table: String,
    index_table: String,
    tagged_table: String,
    rollup: String,
    rules: Mutex<Option<(Instant, Arc<Rollup>)>>,
    found: Cache,
    /// What was fetched ahead, by the thread that will ask for it.
    ahead: Mutex<HashMap<ThreadId, Ahead>>,
}

/// Series that were fetched together.
struct Ahead {
    question: [Timestamp; 3],
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

    /// The first column of the answer to `sql`: texts, in bytewise order. `named` is the question that it answers.
    fn texts(
        &self,
        named: &str,
        sql: String,
        budget: &Budget,
    ) -> Result<Arc<[String]>, SourceError> {
        if let Some(kept) = self.found.get(named) {
            self.stats.found_again.add(1);
            return Ok(kept);
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
            texts.push(text);
        }
        if !texts.is_sorted() {
            texts.sort_unstable();
        }
        let texts: Arc<[String]> = texts.into();
        self.found.keep(named, &texts);
        Ok(texts)
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
        [from, until, now]: [Timestamp; 3],
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
        let answer = self.client.query(sql, budget)?;
        let stored =
            points::read(&answer.bytes).ok_or_else(|| SourceError::Failed(CUT.to_owned()))?;
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
    fn together(&self, names: &[String], [from, until, now]: [Timestamp; 3]) -> usize {
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
        let texts = self.texts(pattern, sql, budget)?;
        let mut steps = budget.steps();
        let mut nodes = Vec::with_capacity(texts.len());
        let keeps_dot = pattern.ends_with('.');
        for text in texts.iter() {
            steps.take(text.len() + PER_NAME)?;
            nodes.push(match text.strip_suffix('.') {
                Some(branch) => Node {
                    // As it was asked for.
                    path: if keeps_dot { text } else { branch }.to_owned(),
                    leaf: false,
                },
                None => Node {
                    path: text.clone(),
                    leaf: true,
                },
            });
        }
        if !nodes.is_sorted() {
            nodes.sort_unstable();
        }
        self.add_new(pattern, &mut nodes, budget)?;
        Ok(nodes)
    }

    fn find_tagged(
        &self,
        expressions: &[&str],
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let sql = tagged::query(&self.tagged_table, expressions).map_err(SourceError::Refused)?;
        let question = format!("\0{}", expressions.join("\0"));
        let texts = self.texts(&question, sql, budget)?;
        let names = texts
            .iter()
            .map(|path| names::from_table(path).into_owned());
        let mut names: Vec<String> = names.collect();
        if self.carbon.has_new_series() {
            let own = Source::find_tagged(&self.carbon, expressions, budget)?;
            names.extend(own.into_iter().filter(|name| self.is_new(name)));
        }
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    fn fetch(
        &self,
        name: &str,
        from: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Fetched>, SourceError> {
        if from > now {
            return Ok(None);
        }
        let question = [from, until, now];
        if let Some(ahead) = self.ahead.lock().get_mut(&std::thread::current().id())
            && ahead.question == question
        {
            // The request ends with it.
            if let Some(error) = ahead.failed.take() {
                return Err(error);
            }
            if let Some(fetched) = ahead.series.remove(name) {
                return Ok(Some(fetched));
            }
        }
        let mut fetched = self.fetch_all(&[name], question, &Budget::unlimited())?;
        Ok(fetched.remove(name))
    }

    fn announce_within<'a>(
        &'a self,
        names: &'a [String],
        from: Timestamp,
        until: Timestamp,
        now: Timestamp,
        budget: &'a Budget,
    ) -> Box<dyn FnMut(usize) + 'a> {
        let question = [from, until, now];
        let announced = Announced(self);
        let mut fetched = 0;
        Box::new(move |at| {
            let _ = &announced;
            if at < fetched || from > now {
                return;
            }
            let rest = names.get(at..).unwrap_or_default();
            let together = self.together(rest, question).min(rest.len());
            fetched = at + together;
            let part: Vec<&str> = rest[..together].iter().map(String::as_str).collect();
            let (series, failed) = match self.fetch_all(&part, question, budget) {
                Ok(series) => (series, None),
                Err(error) => (HashMap::default(), Some(error)),
            };
            let ahead = Ahead {
                question,
                series,
                failed,
            };
            self.ahead.lock().insert(std::thread::current().id(), ahead);
        })
    }
}

impl Clickhouse {
    /// The answer to a query with a text and a number in each row.
    fn counted(&self, sql: String, budget: &Budget) -> Result<Vec<(String, u64)>, SourceError> {
        let answer = self.client.query(sql, budget)?;
        let mut steps = budget.steps();
        let mut rows = Rows(&answer.bytes);
        let mut found = Vec::new();
        while !rows.is_empty() {
            let row = rows.text().zip(rows.u64());
            let row = row.ok_or_else(|| SourceError::Failed(CUT.to_owned()))?;
            steps.take(row.0.len() + PER_NAME)?;
            found.push(row);
        }
        Ok(found)
    }

    /// The tags of the series that satisfy `expressions`, or of all.
    fn items(
        &self,
        expressions: &[&str],
        strict: bool,
    ) -> Result<(String, Vec<String>), SourceError> {
        let table = &self.tagged_table;
        if expressions.is_empty() {
            return Ok((
                format!("(SELECT Tag1 AS item, Path FROM {table})"),
                Vec::new(),
            ));
        }
        let (condition, tags) = tagged::named(expressions, strict).map_err(SourceError::Refused)?;
        let from = format!("(SELECT arrayJoin(Tags) AS item, Path FROM {table} WHERE {condition})");
        Ok((from, tags))
    }
}

impl Tags for Clickhouse {
    fn tags(&self, budget: &Budget) -> Result<Vec<(u32, String)>, SourceError> {
        let tags = self.complete_tags(&[], "", usize::MAX, budget)?;
        Ok((1..).zip(tags).collect())
    }

    fn values(
        &self,
        tag: &str,
        budget: &Budget,
    ) -> Result<Option<(u32, Vec<TagValue>)>, SourceError> {
        let key = format!("{}=", tagged::to_table(tag));
        let sql = format!(
            "SELECT substring(Tag1, {}) AS value, toUInt64(uniqExact(Path)) FROM {} WHERE Tag1 LIKE {} \
             GROUP BY value FORMAT RowBinary",
            key.len() + 1,
            self.tagged_table,
            sql::prefix(&key),
        );
        let mut found = self.counted(sql, budget)?;
        found.sort_unstable();
        let values: Vec<TagValue> = (1..)
            .zip(found)
            .map(|(id, (value, count))| TagValue {
                id,
                value,
                count: count as usize,
            })
            .collect();
        Ok((!values.is_empty()).then_some((1, values)))
    }

    fn complete_tags(
        &self,
        expressions: &[&str],
        prefix: &str,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let (from, named) = self.items(expressions, true)?;
        let sql = format!(
            "SELECT splitByChar('=', item)[1] AS tag, toUInt64(count()) FROM {from} GROUP BY tag FORMAT RowBinary"
        );
        let found = self.counted(sql, budget)?;
        let tags = found.into_iter().filter(|(tag, _)| !named.contains(tag));
        let tags = tags.map(|(tag, _)| tagged::from_table(&tag).to_owned());
        let mut tags: Vec<String> = tags.filter(|tag| tag.starts_with(prefix)).collect();
        tags.sort_unstable();
        tags.truncate(limit);
        Ok(tags)
    }

    fn complete_values(
        &self,
        expressions: &[&str],
        tag: &str,
        prefix: &str,
        limit: usize,
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let (from, _) = self.items(expressions, false)?;
        let key = format!("{}=", tagged::to_table(tag));
        let sql = format!(
            "SELECT substring(item, {}) AS value, toUInt64(count()) FROM {from} WHERE item LIKE {} \
             GROUP BY value ORDER BY value LIMIT {} FORMAT RowBinary",
            key.len() + 1,
            sql::prefix(&format!("{key}{prefix}")),
            limit.min(1 << 31),
        );
        let found = self.counted(sql, budget)?;
        Ok(found.into_iter().map(|(value, _)| value).collect())
    }

    fn register(&self, path: &str) -> Result<String, SourceError> {
        let canonical = Tags::register(&self.carbon, path)?;
        let now = self.carbon.now().0;
        let mut out = Vec::new();
        let (table, columns) = match carbon::series::is_tagged(&canonical) {
            true => {
                let path = names::to_table(&canonical);
                rows::push_tags(&mut out, &canonical, &path, rows::day(now), now);
                (&self.tagged_table, "Date, Tag1, Path, Tags, Version")
            }
            false => {
                let branches = &mut Default::default();
                rows::push_names(&mut out, &canonical, rows::day(now), now, false, branches);
                (&self.index_table, "Date, Level, Path, Version")
            }
        };
        let inserted = self.client.insert(table, columns, &out, false, PATIENCE);
        inserted.map_err(SourceError::Failed)?;
        Ok(canonical)
    }

    fn unregister(&self, path: &str) -> Result<(), SourceError> {
        Err(SourceError::Refused(format!(
            "{path}: series in ClickHouse are deleted there (ALTER TABLE … DELETE)"
        )))
    }
}
