//! From a tree to series: what is fetched when, and what a function may see.
//!
//! 1. Evaluation walks down with a [`Window`]. A function that needs more of the past than it
//!    shows (`movingAverage`) does not have its argument evaluated for it: it asks for it with
//!    the window it wants ([`Args::over`]), so the widened range reaches the leaves before
//!    anything is fetched, and the narrow one is not fetched at all unless somebody asks.
//! 2. Within one query each pattern is looked up once, and each (pattern, window) is fetched
//!    once: what more than one place in the targets can ask for is kept, columns shared.
//! 3. A function that only adds its arguments up row by row declares a fold
//!    ([`Function::fold`]); over plain paths its series are then fetched one at a time and never
//!    held together.
//! 4. Values are set aside in the request's [`Budget`] where a [`Column`] is made, and given back
//!    when its last clone is dropped; names and tags when a call has made its series, and given
//!    back when another call takes them.
//! 5. Nothing here reads a clock, except the deadline of the [`Budget`] that the caller handed in.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use jiff::tz::TimeZone;
use whisper::Timestamp;

use crate::aggregate::Aggregate;
use crate::budget::Budget;
use crate::consolidate;
use crate::error::{Error, Result};
use crate::events;
use crate::functions::{self, Args, Function, Value};
use crate::query::{Argument, Base, Call, Expression, Literal, Template};
use crate::series::{Column, Series, bytes_of, tags_of};
use crate::source::Source;
use crate::{aggregate, query};

/// A range of time in Unix seconds, open at the left: the first point is the one after `from`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Exclusive.
    pub from: i64,
    /// Inclusive.
    pub until: i64,
}

/// How much one query may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How many series all targets together may match; 0 for no limit.
    pub max_series: usize,
    /// How many values may be fetched and held; 0 for no limit.
    pub max_points: usize,
    /// Its time, and its share of the memory of all requests.
    pub budget: Budget,
}

impl Limits {
    /// Checks that a request may find so many series or branches.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub fn check_series(&self, n: usize) -> Result<()> {
        limit(n, "series", "render.max_series", self.max_series)
    }
}

/// What one request is about: everything that all its targets share.
pub struct Query<'q> {
    /// Where series come from.
    pub source: &'q dyn Source,
    /// Where events come from, for `events()`.
    pub events: Option<&'q events::Store>,
    /// The request's clock, Unix seconds.
    pub now: i64,
    /// Its time zone.
    pub time_zone: TimeZone,
    /// Values for `$name` inside `template()`, from the request; they win over the target's own.
    pub template: BTreeMap<String, String>,
    /// Whether the odd answers of the reference are refused instead.
    pub strict: bool,
    /// How much it may take.
    pub limits: Limits,
    uses: RefCell<HashMap<String, usize>>,
    found: RefCell<HashMap<String, Rc<[String]>>>,
    fetched: RefCell<HashMap<(String, Window), Vec<Series>>>,
    notes: RefCell<Vec<String>>,
    n_series: Cell<usize>,
    n_points: Cell<usize>,
}

impl<'q> Query<'q> {
    /// A query at the clock `now`, in UTC, without limits.
    pub fn new(source: &'q dyn Source, now: i64) -> Self {
        Self {
            source,
            events: None,
            now,
            time_zone: TimeZone::UTC,
            template: BTreeMap::new(),
            strict: false,
            limits: Limits {
                max_series: 0,
                max_points: 0,
                budget: Budget::unlimited(),
            },
            uses: RefCell::default(),
            found: RefCell::default(),
            fetched: RefCell::default(),
            notes: RefCell::default(),
            n_series: Cell::new(0),
            n_points: Cell::new(0),
        }
    }

    /// The series of all `targets` over `window`, in their order.
    ///
    /// # Errors
    /// Whatever a function, a limit or the store refuses.
    pub fn evaluate(
        &self,
        targets: &[Expression],
        window: Window,
        x_files_factor: f64,
    ) -> Result<Vec<Series>> {
        for target in targets {
            self.count_uses(target);
        }
        let mut context = Context {
            query: self,
            window,
            x_files_factor,
            stacks: None,
            keyword: false,
        };
        let mut all = Vec::new();
        let mut n_shown = 0_usize;
        for target in targets {
            let mut series = context.expression(target, None)?;
            // Columns may be shared, but whatever shows them shows each.
            let shown = series.iter().map(|series| series.values.len());
            n_shown = shown.fold(n_shown, usize::saturating_add);
            let limits = &self.limits;
            limit(n_shown, "points", "render.max_points", limits.max_points)?;
            all.append(&mut series);
        }
        Ok(all)
    }

    /// What had no effect, in sentences, for who wants to know.
    pub fn take_notes(&self) -> Vec<String> {
        self.notes.take()
    }

    /// Counts the places that can ask for each pattern: what one place alone asks for need not
    /// be kept for another.
    fn count_uses(&self, expression: &Expression) {
        let mut uses = self.uses.borrow_mut();
        leaves(expression, 1, &mut |leaf, times| {
            *uses.entry(leaf.to_owned()).or_default() += times;
        });
    }

    /// The series names that `pattern` matches, sorted, each once.
    fn names(&self, pattern: &str) -> Result<Rc<[String]>> {
        if let Some(names) = self.found.borrow().get(pattern) {
            return Ok(Rc::clone(names));
        }
        let names = if pattern.starts_with("seriesByTag(") {
            let expressions = tag_expressions(pattern)?;
            let expressions: Vec<&str> = expressions.iter().map(String::as_str).collect();
            self.source.find_tagged(&expressions, &self.limits.budget)?
        } else if pattern.contains(';') && !pattern.starts_with("_tagged.") {
            // A tagged name in full is no pattern, and found only as it is stored: tags sorted.
            let in_order = pattern.split(';').skip(1).is_sorted();
            in_order.then(|| pattern.to_owned()).into_iter().collect()
        } else {
            let nodes = self.source.find(pattern, &self.limits.budget)?;
            let leaves = nodes.into_iter().filter(|node| node.leaf);
            leaves.map(|node| node.path).collect()
        };
        let mut names = names;
        names.sort_unstable();
        names.dedup();
        let total = self.n_series.get() + names.len();
        self.limits.check_series(total)?;
        self.n_series.set(total);
        let names: Rc<[String]> = names.into();
        self.found
            .borrow_mut()
            .insert(pattern.to_owned(), Rc::clone(&names));
        Ok(names)
    }

    /// One series by its name, as found by `pattern`.
    fn fetch_one(&self, name: &str, pattern: &str, window: Window) -> Result<Option<Series>> {
        self.limits.budget.check()?;
        let Window { from, until } = window;
        if from > until {
            return Err(Error::refused(format!(
                "Invalid interval start={from} end={until}: a window must not end before it starts"
            )));
        }
        let (from, until) = (timestamp(from), timestamp(until));
        let Some(fetched) = self.source.fetch(name, from, until, timestamp(self.now))? else {
            return Ok(None);
        };
        let values = Column::from(fetched.values);
        values.reserve_in(&self.limits.budget)?;
        Ok(Some(Series {
            name: name.to_owned(),
            odd_name: None,
            path_expression: pattern.to_owned(),
            start: fetched.start,
            end: fetched.end,
            step: fetched.step.max(1),
            values,
            consolidation: Default::default(),
            x_files_factor: 0.0,
            tags: tags_of(name),
            drawing: Default::default(),
        }))
    }

    /// Sets the names and tags of `series` aside.
    fn reserve_texts(&self, series: &[Series]) -> Result<()> {
        self.limits.budget.reserve(size_of_texts(series))
    }

    /// Counts values towards what the query may hold.
    pub(crate) fn count_points(&self, n_points: usize) -> Result<()> {
        let total = self.n_points.get().saturating_add(n_points);
        limit(total, "points", "render.max_points", self.limits.max_points)?;
        self.n_points.set(total);
        Ok(())
    }
}

/// The bytes that [`Query::take_notes`] gives at most.
const MAX_NOTES: usize = 256 << 10;

/// The bytes of all names and tags of `series`.
fn size_of_texts(series: &[Series]) -> usize {
    let sizes = series.iter().map(Series::size_of_texts);
    sizes.fold(0, usize::saturating_add)
}

/// The bytes of the names and tags of the series in a value, and how many series those are.
fn texts_in(value: &Value) -> (usize, usize) {
    match value {
        Value::Series(series) => (size_of_texts(series), series.len()),
        Value::Lists(lists) => {
            let sizes = lists.iter().map(|series| size_of_texts(series));
            (sizes.sum(), lists.iter().map(Vec::len).sum())
        }
        _ => (0, 0),
    }
}

fn limit(n: usize, what: &str, key: &'static str, limit: usize) -> Result<()> {
    if limit > 0 && n > limit {
        let what = format!("the query needs {n} {what}");
        return Err(Error::Limit { what, key, limit });
    }
    Ok(())
}

fn timestamp(seconds: i64) -> Timestamp {
    Timestamp(u32::try_from(seconds.max(0)).unwrap_or(u32::MAX))
}

/// The strings among the arguments of a `seriesByTag` call, given as text.
fn tag_expressions(call: &str) -> Result<Vec<String>> {
    let parsed = query::parse(call)?;
    let Base::Call(call) = parsed.expression.base else {
        return Ok(Vec::new());
    };
    let strings = call.args.into_iter().filter_map(|argument| match argument {
        Argument::Literal(Literal::Text(text)) => Some(text.text),
        _ => None,
    });
    Ok(strings.collect())
}

/// Calls `visit` with every pattern below `expression` and how often it may be asked for with one
/// window: a function that evaluates its argument anew may ask twice.
fn leaves(expression: &Expression, times: usize, visit: &mut dyn FnMut(&str, usize)) {
    fn in_base(base: &Base, times: usize, visit: &mut dyn FnMut(&str, usize)) {
        match base {
            Base::Path(path) => visit(path, times),
            Base::Call(call) => in_call(call, times, visit),
            Base::Template(template) => in_base(&template.body, times, visit),
        }
    }
    fn in_call(call: &Call, times: usize, visit: &mut dyn FnMut(&str, usize)) {
        if call.name == "seriesByTag" {
            return visit(&call.raw, times);
        }
        let times = times + lazy(call);
        for argument in &call.args {
            if let Argument::Expression(expression) = argument {
                leaves(expression, times, visit);
            }
        }
    }
    fn lazy(call: &Call) -> usize {
        usize::from(functions::named(&call.name).is_ok_and(|function| function.lazy))
    }
    let piped: usize = expression.piped.iter().map(lazy).sum();
    in_base(&expression.base, times + piped, visit);
    for call in &expression.piped {
        in_call(call, times + piped, visit);
    }
}

/// What a function sees of the request: handed to every call, copied for another window.
#[derive(Clone)]
pub struct Context<'q> {
    /// What all targets share.
    pub query: &'q Query<'q>,
    /// The range being evaluated.
    pub window: Window,
    /// The request's `xFilesFactor`; `setXFilesFactor()` changes it for all that follows.
    pub x_files_factor: f64,
    /// Running totals of `stacked()`, by stack.
    pub stacks: Option<Rc<RefCell<Stacks>>>,
    /// Whether a keyword argument is being evaluated. The reference gathers what to fetch from
    /// arguments by position only: what stands in a keyword argument alone is empty.
    keyword: bool,
}

/// The totals so far of each named stack, value by value.
pub type Stacks = HashMap<String, Vec<f64>>;

/// Values for `$name` inside a template.
pub(crate) type Replacements = BTreeMap<String, Value>;

/// Something that stands as an argument: written there, or piped in.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// Written.
    Argument(&'a Argument),
    /// An expression with the first so many calls of its pipe.
    Piped(&'a Expression, usize),
}

impl<'q> Context<'q> {
    /// This context over another window.
    pub fn over(&self, window: Window) -> Self {
        Self {
            window,
            ..self.clone()
        }
    }

    /// The series of a target given as text: for functions that make up targets.
    ///
    /// # Errors
    /// If it does not parse, or as [`Query::evaluate`].
    pub fn evaluate_text(&mut self, text: &str) -> Result<Vec<Series>> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let parsed = query::parse(text)?;
        self.query.count_uses(&parsed.expression);
        self.expression(&parsed.expression, None)
    }

    /// The request's time and memory.
    pub fn budget(&self) -> &'q Budget {
        &self.query.limits.budget
    }

    /// A column of about `n_values` that a function makes.
    ///
    /// # Errors
    /// As [`Column::reserved`].
    pub fn column(
        &self,
        n_values: usize,
        make: impl FnOnce() -> Result<Vec<f64>>,
    ) -> Result<Column> {
        Column::reserved(self.budget(), n_values, make)
    }

    /// A series that a function makes up, of this start, end and step, under the request's
    /// threshold for consolidation.
    pub fn made(&self, name: String, shape: (i64, i64, i64), values: Column) -> Series {
        let (start, end, step) = shape;
        let mut series = Series::new(name, start, end, step, values);
        series.x_files_factor = self.x_files_factor;
        series
    }

    /// A straight line over the window: its start, its middle and its end. `spelled` is what
    /// Python calls the value.
    pub fn line(&self, value: f64, spelled: &str) -> Series {
        let Window { from, until } = self.window;
        let shape = (from, until, until.saturating_sub(from) / 2);
        let mut line = self.made(spelled.to_owned(), shape, vec![value; 3].into());
        line.path_expression = format!("constantLine({spelled})");
        line
    }

    fn expression(
        &mut self,
        expression: &Expression,
        replacements: Option<&Replacements>,
    ) -> Result<Vec<Series>> {
        match self.prefix(expression, expression.piped.len(), replacements)? {
            Value::Series(series) => Ok(series),
            Value::None => Ok(Vec::new()),
            Value::Lists(lists) if lists.is_empty() => Ok(Vec::new()),
            Value::Lists(_) => Err(Error::refused(
                "lists of series are only good as an argument of reduceSeries()",
            )),
            other => Err(Error::refused(format!(
                "{} is not a series",
                other.spelled()
            ))),
        }
    }

    /// `expression` with the first `n_calls` of its pipe.
    fn prefix(
        &mut self,
        expression: &Expression,
        n_calls: usize,
        replacements: Option<&Replacements>,
    ) -> Result<Value> {
        match n_calls.checked_sub(1) {
            Some(before) => {
                let call = &expression.piped[before];
                let piped = Operand::Piped(expression, before);
                self.call(call, Some(piped), replacements)
            }
            None => self.base(&expression.base, replacements),
        }
    }

    fn base(&mut self, base: &Base, replacements: Option<&Replacements>) -> Result<Value> {
        match base {
            Base::Path(path) => self.path(path, replacements),
            Base::Call(call) => self.call(call, None, replacements),
            Base::Template(template) => {
                let replacements = self.replacements(template);
                self.base(&template.body, Some(&replacements))
            }
        }
    }

    fn replacements(&self, template: &Template) -> Replacements {
        let by_place = template.args.iter().enumerate();
        let by_place = by_place.map(|(i, value)| ((i + 1).to_string(), Value::from(value)));
        let by_name = template.keywords.iter();
        let by_name = by_name.map(|(name, value)| (name.clone(), Value::from(value)));
        let asked = self.query.template.iter();
        let asked = asked.map(|(name, value)| (name.clone(), Value::Text(value.clone())));
        by_place.chain(by_name).chain(asked).collect()
    }

    fn path(&mut self, path: &str, replacements: Option<&Replacements>) -> Result<Value> {
        let Some(replacements) = replacements else {
            return Ok(Value::Series(self.fetch(path)?));
        };
        if let Some(value) = path
            .strip_prefix('$')
            .and_then(|name| replacements.get(name))
        {
            // A name that is all of the path stands for the value itself, a number if it looks
            // like one.
            return Ok(match value {
                Value::Text(text) if looks_like_a_number(text) => {
                    Value::Float(text.parse().map_err(|_| {
                        Error::refused(format!("{text:?} is not a number, for {path}"))
                    })?)
                }
                value => value.clone(),
            });
        }
        let mut path = path.to_owned();
        for (name, value) in replacements {
            self.budget().check()?;
            let (name, value) = (format!("${name}"), value.spelled());
            let n_found = path.matches(name.as_str()).count();
            // Values may name other variables: with each the path may grow many times over.
            let length = path
                .len()
                .saturating_add(n_found.saturating_mul(value.len()));
            if length > query::MAX_LENGTH {
                return Err(Error::refused(format!(
                    "template(): the path with its variables has {length} characters, more than {}",
                    query::MAX_LENGTH
                )));
            }
            path = path.replace(&name, &value);
        }
        Ok(Value::Series(self.fetch(&path)?))
    }

    fn call(
        &mut self,
        call: &Call,
        piped: Option<Operand<'_>>,
        replacements: Option<&Replacements>,
    ) -> Result<Value> {
        if call.name == "template" {
            return Err(Error::refused(
                "invalid template() syntax, only string/numeric arguments are allowed",
            ));
        }
        if call.name == "seriesByTag" {
            return Ok(Value::Series(self.fetch(&call.raw)?));
        }
        let function = functions::named(&call.name)?;
        // Functions that evaluate their argument anew, one within the other, double the work with
        // each level and may fetch nothing new.
        let budget = self.budget();
        budget.check()?;
        let written = call.args.iter().map(Operand::Argument);
        let operands: Vec<Operand<'_>> = piped.into_iter().chain(written).collect();
        if let Some(fold) = function.fold
            && let Some(folded) = self.fold(function, fold, &operands, call, replacements)?
        {
            return Ok(Value::Series(folded));
        }
        let mut args = Vec::with_capacity(operands.len());
        for (place, operand) in operands.iter().enumerate() {
            args.push(if place == 0 && function.lazy && !has_effects(*operand) {
                Value::Later
            } else {
                self.operand(*operand, replacements)?
            });
        }
        let mut keywords = Vec::with_capacity(call.keywords.len());
        let within = std::mem::replace(&mut self.keyword, !self.query.strict);
        for (name, argument) in &call.keywords {
            let value = self.operand(Operand::Argument(argument), replacements)?;
            keywords.push((name.as_str(), value));
        }
        self.keyword = within;
        let first = operands.first().copied();
        let values = args
            .iter()
            .chain(keywords.iter().map(|(_, value)| value))
            .map(texts_in);
        let (taken, n_series) = values.fold((0, 0), |all: (usize, usize), one| {
            (all.0 + one.0, all.1 + one.1)
        });
        let mut args = Args::bind(function, args, keywords, first, replacements, budget)?;
        // Names grow by what the arguments say: in name, expression and a tag of each series.
        let said = args.length_of_texts().saturating_mul(3);
        args.hold(taken.saturating_add(said.saturating_mul(n_series)))?;
        let result = match function.lists {
            Some(lists) => Value::Lists(lists(self, &mut args)?),
            None => Value::Series((function.call)(self, &mut args)?),
        };
        budget.release(taken + args.finish());
        let series = match &result {
            Value::Series(series) => std::slice::from_ref(series),
            Value::Lists(lists) => lists.as_slice(),
            _ => &[],
        };
        for series in series {
            self.query.reserve_texts(series)?;
            for series in series {
                series.values.reserve_in(budget)?;
            }
        }
        Ok(result)
    }

    pub(crate) fn operand(
        &mut self,
        operand: Operand<'_>,
        replacements: Option<&Replacements>,
    ) -> Result<Value> {
        match operand {
            Operand::Argument(Argument::Literal(literal)) => Ok(Value::from(literal)),
            Operand::Argument(Argument::Expression(expression)) => {
                self.prefix(expression, expression.piped.len(), replacements)
            }
            Operand::Piped(expression, n_calls) => self.prefix(expression, n_calls, replacements),
        }
    }

    /// Every series that `pattern` matches, sorted by name.
    ///
    /// # Errors
    /// What the source or a limit refuses.
    pub fn fetch(&mut self, pattern: &str) -> Result<Vec<Series>> {
        if self.keyword && !self.query.uses.borrow().contains_key(pattern) {
            let note = format!("{pattern}: series in keyword arguments are not fetched");
            let mut notes = self.query.notes.borrow_mut();
            let length: usize = notes.iter().map(String::len).sum();
            if length + note.len() <= MAX_NOTES {
                notes.push(note);
            }
            return Ok(Vec::new());
        }
        let key = (pattern.to_owned(), self.window);
        if let Some(series) = self.query.fetched.borrow().get(&key) {
            self.query.reserve_texts(series)?;
            return Ok(self.marked(series.clone()));
        }
        let mut all: Vec<Series> = Vec::new();
        for name in self.query.names(pattern)?.iter() {
            let Some(series) = self.query.fetch_one(name, pattern, self.window)? else {
                continue;
            };
            self.query.count_points(series.values.len())?;
            self.query.reserve_texts(std::slice::from_ref(&series))?;
            all.push(series);
        }
        let places = self.query.uses.borrow().get(pattern).copied();
        if places.unwrap_or(2) > 1 {
            self.query.reserve_texts(&all)?;
            self.query.fetched.borrow_mut().insert(key, all.clone());
        }
        Ok(self.marked(all))
    }

    /// Fetched series carry the request's threshold for consolidation.
    fn marked(&self, mut series: Vec<Series>) -> Vec<Series> {
        for series in &mut series {
            series.x_files_factor = self.x_files_factor;
        }
        series
    }

    /// Adds up series as they are fetched, if every operand is a plain path and all series have
    /// one shape. `None` if not: the ordinary way then fetches them (again).
    fn fold(
        &mut self,
        function: &'static Function,
        aggregate: Aggregate,
        operands: &[Operand<'_>],
        call: &Call,
        replacements: Option<&Replacements>,
    ) -> Result<Option<Vec<Series>>> {
        if replacements.is_some() || !call.keywords.is_empty() {
            return Ok(None);
        }
        let patterns: Option<Vec<&str>> = operands.iter().map(|operand| plain(*operand)).collect();
        let Some(mut patterns) = patterns else {
            return Ok(None);
        };
        let Some(mut fold) = aggregate::Fold::new(aggregate) else {
            return Ok(None);
        };
        let mut shape: Option<Series> = None;
        let mut counts = self.budget().hold(0)?;
        for pattern in &mut patterns {
            if self.query.uses.borrow().get(*pattern).copied() != Some(1) {
                return Ok(None);
            }
        }
        let mut expressions: Vec<&str> = Vec::new();
        for pattern in &patterns {
            for name in self.query.names(pattern)?.iter() {
                let Some(series) = self.query.fetch_one(name, pattern, self.window)? else {
                    continue;
                };
                if expressions.last() != Some(pattern) && !expressions.contains(pattern) {
                    expressions.push(pattern);
                }
                match &mut shape {
                    None => {
                        let n_rows = series.values.len();
                        counts.grow(bytes_of(n_rows) + aggregate::Fold::size_beside(n_rows))?;
                        fold.add(&series.values);
                        shape = Some(series);
                    }
                    Some(first) => {
                        let shape_of = |s: &Series| (s.start, s.end, s.step);
                        if shape_of(first) != shape_of(&series) {
                            return Ok(None);
                        }
                        fold.add(&series.values);
                        first
                            .tags
                            .retain(|tag, value| series.tags.get(tag) == Some(value));
                    }
                }
            }
        }
        let Some(first) = shape else {
            return Ok(Some(Vec::new()));
        };
        self.query.count_points(first.values.len())?;
        let word = function.aggregate_word();
        let name = format!("{word}Series({})", expressions.join(","));
        let values = Column::from(fold.finish(self.x_files_factor));
        drop(counts);
        values.reserve_in(self.budget())?;
        let mut series = first.derived(name, values);
        series.consolidation = Default::default();
        series.x_files_factor = self.x_files_factor;
        series.end = first.end - (first.end - first.start) % first.step;
        let name = series.name.clone();
        series.tags.entry("name".to_owned()).or_insert(name);
        series.tag("aggregatedBy", word);
        self.query.reserve_texts(std::slice::from_ref(&series))?;
        Ok(Some(vec![series]))
    }

    /// Graphite's `aggregate`: all series brought to one step, and each row to one value. No
    /// series give none. `word` is what names the result, `sum` for `sumSeries(…)`.
    ///
    /// # Errors
    /// As [`Column::reserved`].
    pub fn aggregate(
        &self,
        series: Vec<Series>,
        aggregate: Aggregate,
        word: &str,
        x_files_factor: Option<f64>,
    ) -> Result<Vec<Series>> {
        let Some(all) = consolidate::normalise(series)? else {
            return Ok(Vec::new());
        };
        let x_files_factor = x_files_factor.unwrap_or(self.x_files_factor);
        let values = aggregate::rows(aggregate, &all.slices(), x_files_factor, self.budget())?;
        let name = format!("{word}Series({})", path_expressions(&all.series));
        let mut result = Series::new(name, all.start, all.end, all.step, values);
        result.x_files_factor = x_files_factor;
        result.tags = common_tags(&all.series, &result.name);
        result.tag("aggregatedBy", word);
        Ok(vec![result])
    }
}

/// Whether evaluating an operand changes what the request evaluates after it, or may refuse the
/// window: then it is evaluated where it stands, also for a function that asks for it again over
/// another window.
fn has_effects(operand: Operand<'_>) -> bool {
    fn in_base(base: &Base) -> bool {
        match base {
            Base::Path(_) => false,
            Base::Call(call) => in_call(call),
            Base::Template(template) => in_base(&template.body),
        }
    }
    fn in_call(call: &Call) -> bool {
        let itself = ["setXFilesFactor", "stacked", "verticalLine", "xFilesFactor"];
        itself.contains(&call.name.as_str())
            || call.args.iter().any(|argument| match argument {
                Argument::Expression(expression) => in_expression(expression),
                Argument::Literal(_) => false,
            })
    }
    fn in_expression(expression: &Expression) -> bool {
        in_base(&expression.base) || expression.piped.iter().any(in_call)
    }
    match operand {
        Operand::Argument(Argument::Literal(_)) => false,
        Operand::Argument(Argument::Expression(expression)) => in_expression(expression),
        Operand::Piped(expression, n_calls) => {
            in_base(&expression.base) || expression.piped.iter().take(n_calls).any(in_call)
        }
    }
}

/// The pattern that an operand is, if it is nothing else.
fn plain<'a>(operand: Operand<'a>) -> Option<&'a str> {
    let expression = match operand {
        Operand::Argument(Argument::Expression(expression)) if expression.piped.is_empty() => {
            expression
        }
        Operand::Piped(expression, 0) => expression,
        _ => return None,
    };
    match &expression.base {
        Base::Path(path) => Some(path),
        Base::Call(call) if call.name == "seriesByTag" => Some(&call.raw),
        _ => None,
    }
}

/// `^-?[\d.]+$`
fn looks_like_a_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

/// The distinct expressions of `series` in their order, joined by commas.
pub fn path_expressions(series: &[Series]) -> String {
    let mut seen = std::collections::HashSet::new();
    let distinct: Vec<&str> = series
        .iter()
        .map(|series| series.path_expression.as_str())
        .filter(|expression| seen.insert(*expression))
        .collect();
    distinct.join(",")
}

/// The tags on which all of `series` agree; `name` becomes `otherwise` if they do not on that.
pub fn common_tags(series: &[Series], otherwise: &str) -> BTreeMap<String, String> {
    let mut tags = series
        .first()
        .map(|first| first.tags.clone())
        .unwrap_or_default();
    for other in series.iter().skip(1) {
        tags.retain(|tag, value| other.tags.get(tag) == Some(value));
    }
    tags.entry("name".to_owned())
        .or_insert_with(|| otherwise.to_owned());
    tags
}
