//! ClickHouse as the source of queries, with the points that it has not acknowledged yet.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use carbon::Carbon;
use parking_lot::Mutex;
use render::Paths;
use render::budget::{Budget, Reservation};
use render::paths::Gathering;
use render::source::{FetchRange, Fetched, Node, Source, SourceError, merged};
use whisper::Point;

use crate::cache::Cache;
use crate::client::{Client, Failure};
use crate::incoming::Incoming;
use crate::known::Known;
use crate::names;
use crate::options::Options;
use crate::points::{self, Columns, Steps};
use crate::rollup::{Function, Rollup};
use crate::rows;
use crate::sql;
use crate::stats::Stats;
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
    series: Series,
    failed: Option<SourceError>,
    _held: Option<Reservation>,
}

/// What was fetched, by name.
type Series = HashMap<String, Fetched, foldhash::fast::RandomState>;

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

    /// The only column of the answer to `sql`, each text as `read` has it, in bytewise order. `named` is the question
    /// that it answers.
    fn texts(
        &self,
        named: &str,
        sql: String,
        read: fn(&str) -> Cow<'_, str>,
        budget: &Budget,
    ) -> Result<Paths, SourceError> {
        if let Some(kept) = self.found.get(named) {
            self.stats.found_again.add(1);
            return Ok(kept);
        }
        let (texts, held) = self.client.read(sql, budget, move |incoming| {
            let mut gathering = Gathering::default();
            while !incoming.is_over()? {
                let rows = incoming.block(1)?;
                incoming.column_of_texts()?;
                gathering.cut();
                for _ in 0..rows {
                    let room = incoming.text(|text| {
                        let text = String::from_utf8_lossy(text);
                        gathering.push(&read(&text));
                        Gathering::room(&text)
                    })?;
                    incoming.hold(room)?;
                }
            }
            Ok(gathering.finish())
        })?;
        self.found.keep(named, &texts);
        Ok(texts.holding(held))
    }

    /// What was found for `pattern`, and names that only the cache knows.
    fn nodes(
        &self,
        pattern: &str,
        found: &Paths,
        budget: &Budget,
    ) -> Result<Vec<Node>, SourceError> {
        let keeps_dot = pattern.ends_with('.');
        let mut is_cut = false;
        let mut nodes = each(found, budget, |path| {
            let is_branch = path.ends_with('.');
            // As it was asked for.
            is_cut |= is_branch && !keeps_dot;
            let end = path.len() - usize::from(is_branch && !keeps_dot);
            Node {
                path: path[..end].to_owned(),
                leaf: !is_branch,
            }
        })?;
        if is_cut {
            // A branch without its dot belongs before names that go on with what sorts before a dot.
            nodes.sort();
        }
        self.add_new(pattern, &mut nodes, budget)?;
        Ok(nodes)
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
    ) -> Result<(Series, Reservation), SourceError> {
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
        // In the order of `names`, with what ClickHouse has of them.
        let series = names.iter().zip(&paths).zip(waiting).zip(rolled);
        let series = series.map(|(((name, path), waiting), (function, steps))| Wanted {
            name: (*name).to_owned(),
            path: path.clone().into_owned(),
            waiting,
            function,
            steps,
            values: None,
        });
        let mut series: Vec<Wanted> = series.collect();
        let (series, held) = self.client.read(sql, budget, move |incoming| {
            read_points(incoming, &mut series)?;
            Ok(series)
        })?;
        let mut fetched = HashMap::default();
        for one in series {
            let is_known = one.values.is_some() || !one.waiting.is_empty();
            let tagged = carbon::series::is_tagged(&one.name);
            if tagged && !is_known && !self.has_tagged(&one.path, &one.name, budget)? {
                continue;
            }
            let (name, one) = one.fetched();
            fetched.insert(name, one);
        }
        Ok((fetched, held))
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

/// Reads the points of `series`.
fn read_points(incoming: &mut Incoming<'_>, series: &mut [Wanted]) -> Result<(), Failure> {
    let numbers = series.iter().enumerate();
    let numbers: HashMap<String, usize, foldhash::fast::RandomState> = numbers
        .map(|(n, wanted)| (wanted.path.clone(), n))
        .collect();
    let mut columns = Columns::default();
    while let Some(n) = columns.read(incoming, |path| numbers.get(path).copied())? {
        let wanted = &mut series[n];
        incoming.hold(wanted.steps.count() * size_of::<f64>())?;
        wanted.values = Some(wanted.values_of(&columns));
    }
    Ok(())
}

/// A series whose points are asked for.
struct Wanted {
    name: String,
    /// What the tables call it.
    path: String,
    /// Its points that are not acknowledged.
    waiting: Vec<Point>,
    function: Function,
    steps: Steps,
    /// The values, if ClickHouse has points of it.
    values: Option<Vec<f64>>,
}

impl Wanted {
    fn values_of(&self, columns: &Columns) -> Vec<f64> {
        columns.steps(&self.waiting, self.steps, self.function)
    }

    fn fetched(mut self) -> (String, Fetched) {
        let values = self.values.take();
        let values = values.unwrap_or_else(|| self.values_of(&Columns::default()));
        let Steps { begin, end, step } = self.steps;
        let fetched = Fetched {
            start: begin,
            end,
            step,
            values,
            aggregation: self.function.aggregation(),
            x_files_factor: 0.0,
        };
        (self.name, fetched)
    }
}

/// What `make` makes of each path, reserved in `budget`.
fn each<T>(
    paths: &Paths,
    budget: &Budget,
    mut make: impl FnMut(&str) -> T,
) -> Result<Vec<T>, SourceError> {
    let mut steps = budget.steps();
    let mut all = Vec::with_capacity(paths.len());
    for path in paths.iter() {
        steps.take(path.len() + PER_NAME)?;
        all.push(make(path));
    }
    Ok(all)
}

fn identity(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
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
        let found = self.texts(pattern, sql, identity, budget)?;
        self.nodes(pattern, &found, budget)
    }

    fn find_paths(
        &self,
        pattern: &str,
        leaves_only: bool,
        budget: &Budget,
    ) -> Result<Paths, SourceError> {
        let sql = find::query(&self.index_table, pattern).map_err(SourceError::Refused)?;
        let Some(sql) = sql else {
            return Source::find_paths(&self.carbon, pattern, leaves_only, budget);
        };
        let found = self.texts(pattern, sql, identity, budget)?;
        let is_leaf = |path: &&str| !path.ends_with('.');
        if !self.carbon.has_new_series() {
            if found.iter().all(|path| is_leaf(&path)) {
                return Ok(found);
            }
            if leaves_only {
                return Ok(Paths::new(found.iter().filter(is_leaf), budget)?);
            }
        }
        let nodes = self.nodes(pattern, &found, budget)?;
        let nodes = nodes.iter().filter(|node| node.leaf || !leaves_only);
        Ok(Paths::new(nodes.map(|node| node.path.as_str()), budget)?)
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
        let texts = self.texts(&question, sql, |path| rows::reversed(path).into(), budget)?;
        let mut own = Vec::new();
        if self.carbon.has_new_series() {
            own = Source::find_series(&self.carbon, pattern, budget)?;
            own.retain(|name| self.is_new(name));
        }
        let names = each(&texts, budget, str::to_owned)?;
        merged(names, own, budget)
    }

    fn find_tagged(
        &self,
        expressions: &[&str],
        budget: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        let sql = tagged::query(&self.tagged_table, expressions).map_err(SourceError::Refused)?;
        let question = format!("\0{}", expressions.join("\0"));
        let texts = self.texts(&question, sql, identity, budget)?;
        let names = each(&texts, budget, |path| names::from_table(path).into_owned())?;
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
        let (mut fetched, _held) = self.fetch_all(&[name], range, &Budget::unlimited())?;
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
            let ahead = match self.fetch_all(&part, range, budget) {
                Ok((series, held)) => Ahead {
                    range,
                    series,
                    failed: None,
                    _held: Some(held),
                },
                Err(error) => Ahead {
                    range,
                    series: Series::default(),
                    failed: Some(error),
                    _held: None,
                },
            };
            self.ahead.lock().insert(std::thread::current().id(), ahead);
        })
    }
}
