//! What a function sees of the request: the query that all targets share, and its own context.
//!
//! Functions are below evaluation: where one needs an argument over another window, or makes up a
//! target, it asks its [`Context`], and the context asks the [`Evaluate`] that evaluation put
//! there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::aggregate::{self, Aggregate};
use crate::budget::Budget;
use crate::consolidate;
use crate::error::{Error, Result};
use crate::events;
use crate::query;
use crate::series::{Column, Series, common_tags, path_expressions, size_of_texts};
use crate::source::Source;
use crate::value::{Operand, Replacements, Value};

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

    /// Checks that a request may hold or show so many values.
    ///
    /// # Errors
    /// [`Error::Limit`].
    pub fn check_points(&self, n: usize) -> Result<()> {
        limit(n, "points", "render.max_points", self.max_points)
    }
}

fn limit(n: usize, what: &str, key: &'static str, limit: usize) -> Result<()> {
    if limit > 0 && n > limit {
        let what = format!("the query needs {n} {what}");
        return Err(Error::Limit { what, key, limit });
    }
    Ok(())
}

/// The request: everything that all its targets share.
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
    pub template: Arc<BTreeMap<String, String>>,
    /// Whether the odd answers of the reference are refused instead.
    pub strict: bool,
    /// How much it may take.
    pub limits: Limits,
    notes: RefCell<Vec<String>>,
    n_series: Cell<usize>,
    n_points: Cell<usize>,
}

/// The bytes that [`Query::take_notes`] gives at most.
const MAX_NOTES: usize = 256 << 10;

impl<'q> Query<'q> {
    /// A query at the clock `now`, in UTC, without limits.
    pub fn new(source: &'q dyn Source, now: i64) -> Self {
        Self {
            source,
            events: None,
            now,
            time_zone: TimeZone::UTC,
            template: Arc::default(),
            strict: false,
            limits: Limits {
                max_series: 0,
                max_points: 0,
                budget: Budget::unlimited(),
            },
            notes: RefCell::default(),
            n_series: Cell::new(0),
            n_points: Cell::new(0),
        }
    }

    /// The parts of the targets that had no effect, a sentence each.
    pub fn take_notes(&self) -> Vec<String> {
        self.notes.take()
    }

    /// Adds a sentence to the notes, unless they are too long already.
    pub(crate) fn note(&self, note: String) {
        let mut notes = self.notes.borrow_mut();
        let length: usize = notes.iter().map(String::len).sum();
        if length + note.len() <= MAX_NOTES {
            notes.push(note);
        }
    }

    /// Counts series towards what the query may match.
    pub(crate) fn count_series(&self, n_series: usize) -> Result<()> {
        let total = self.n_series.get() + n_series;
        self.limits.check_series(total)?;
        self.n_series.set(total);
        Ok(())
    }

    /// Counts values towards what the query may hold.
    pub(crate) fn count_points(&self, n_points: usize) -> Result<()> {
        let total = self.n_points.get().saturating_add(n_points);
        self.limits.check_points(total)?;
        self.n_points.set(total);
        Ok(())
    }

    /// Reserves the names and tags of `series` in the budget.
    pub(crate) fn reserve_texts(&self, series: &[Series]) -> Result<()> {
        self.limits.budget.reserve(size_of_texts(series))
    }
}

/// Evaluation, as functions may ask for it.
pub(crate) trait Evaluate {
    /// The series of a target given as text.
    fn text(&self, context: &mut Context<'_>, text: &str) -> Result<Vec<Series>>;

    /// The value of an operand, inside a template with its replacements.
    fn operand(
        &self,
        context: &mut Context<'_>,
        operand: Operand<'_>,
        replacements: Option<Replacements<'_>>,
    ) -> Result<Value>;
}

/// The totals so far of each named stack, value by value.
pub type Stacks = HashMap<String, Vec<f64>>;

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
    /// Whether a keyword argument is being evaluated. The reference gathers the patterns to fetch
    /// from positional arguments only: a pattern in a keyword argument alone is empty.
    pub(crate) keyword: bool,
    /// How many calls are being evaluated, one within the other, those of targets given as text
    /// included.
    depth: usize,
    evaluation: &'q dyn Evaluate,
}

impl<'q> Context<'q> {
    /// The context that the targets of `query` begin with.
    pub(crate) fn new(
        query: &'q Query<'q>,
        evaluation: &'q dyn Evaluate,
        window: Window,
        x_files_factor: f64,
    ) -> Self {
        Self {
            query,
            window,
            x_files_factor,
            stacks: None,
            keyword: false,
            depth: 0,
            evaluation,
        }
    }

    /// This context over another window.
    pub fn over(&self, window: Window) -> Self {
        Self {
            window,
            ..self.clone()
        }
    }

    /// Evaluates what is one call deeper. A text can ask for itself again through a variable, so
    /// the depth of each tree does not bound the depth of all.
    pub(crate) fn deeper<T>(&mut self, evaluate: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= query::MAX_DEPTH {
            return Err(Error::refused(format!(
                "calls, and targets that calls make up, nest deeper than {}",
                query::MAX_DEPTH
            )));
        }
        self.depth += 1;
        let result = evaluate(self);
        self.depth -= 1;
        result
    }

    /// The series of a target given as text: for functions that make up targets.
    ///
    /// # Errors
    /// If it does not parse, or as [`Query::evaluate`].
    pub fn evaluate_text(&mut self, text: &str) -> Result<Vec<Series>> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let evaluation = self.evaluation;
        evaluation.text(self, text)
    }

    /// The value of an operand in this context.
    pub(crate) fn operand(
        &mut self,
        operand: Operand<'_>,
        replacements: Option<Replacements<'_>>,
    ) -> Result<Value> {
        let evaluation = self.evaluation;
        evaluation.operand(self, operand, replacements)
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

    /// A straight line over the window: its start, its middle and its end. `shown` is Python's
    /// `str` of the value.
    pub fn line(&self, value: f64, shown: &str) -> Series {
        let Window { from, until } = self.window;
        let shape = (from, until, until.saturating_sub(from) / 2);
        let mut line = self.made(shown.to_owned(), shape, vec![value; 3].into());
        line.path_expression = format!("constantLine({shown})");
        line
    }

    /// Graphite's `aggregate`: all series brought to one step, and the values of each step to one. Of an
    /// empty list the result is empty. `word` names the result, `sum` for `sumSeries(…)`.
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
