//! Series from the store, for one evaluation of a query.
//!
//! 1. Each pattern is looked up once.
//! 2. Each (pattern, window) that several places of the targets can ask for is fetched once and
//!    kept; its columns are shared. A pattern that one place asks for is handed over.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use whisper::Timestamp;

use crate::context::{Context, Query, Window};
use crate::error::{Error, Result};
use crate::query::{self, Argument, Base, Literal};
use crate::series::{Column, Series, Stored, tags_of};
use crate::source::FetchRange;

/// The series of one evaluation, and what was found and fetched so far.
pub(crate) struct Fetcher<'q> {
    query: &'q Query<'q>,
    /// In how many places of the targets each pattern can be asked for.
    uses: RefCell<HashMap<String, usize>>,
    /// The names that each pattern matches.
    found: RefCell<HashMap<String, Rc<[String]>>>,
    fetched: RefCell<HashMap<(String, Window), Vec<Series>>>,
}

impl<'q> Fetcher<'q> {
    pub(crate) fn new(query: &'q Query<'q>) -> Self {
        Self {
            query,
            uses: RefCell::default(),
            found: RefCell::default(),
            fetched: RefCell::default(),
        }
    }

    /// Counts a place that can ask for `pattern`, so many `times` with one window.
    pub(crate) fn count_use(&self, pattern: &str, times: usize) {
        *self
            .uses
            .borrow_mut()
            .entry(pattern.to_owned())
            .or_default() += times;
    }

    /// How often `pattern` can be asked for, if it was counted.
    pub(crate) fn uses(&self, pattern: &str) -> Option<usize> {
        self.uses.borrow().get(pattern).copied()
    }

    /// Every series that `pattern` matches, sorted by name.
    ///
    /// # Errors
    /// Those of the source and of the limits.
    pub(crate) fn series(&self, context: &Context<'_>, pattern: &str) -> Result<Vec<Series>> {
        if context.keyword && self.uses(pattern).is_none() {
            let note = format!("{pattern}: series in keyword arguments are not fetched");
            self.query.note(note);
            return Ok(Vec::new());
        }
        let key = (pattern.to_owned(), context.window);
        if let Some(series) = self.fetched.borrow().get(&key) {
            self.query.reserve_texts(series)?;
            return Ok(marked(series.clone(), context));
        }
        let mut all: Vec<Series> = Vec::new();
        let names = self.names(pattern)?;
        let mut next = self.announce(&names, context.window);
        for (at, name) in names.iter().enumerate() {
            next(at);
            let Some(series) = self.one(name, pattern, context.window)? else {
                continue;
            };
            self.query.count_points(series.values.len())?;
            self.query.reserve_texts(std::slice::from_ref(&series))?;
            all.push(series);
        }
        // A pattern that was not counted is asked for by a function: it may ask again.
        if self.uses(pattern).unwrap_or(2) > 1 {
            self.query.reserve_texts(&all)?;
            self.fetched.borrow_mut().insert(key, all.clone());
        }
        Ok(marked(all, context))
    }

    /// Announces to the source that `names` are fetched one after the other over `window`. What is returned is to be
    /// called before each with its number.
    pub(crate) fn announce<'a>(
        &'a self,
        names: &'a [String],
        window: Window,
    ) -> Box<dyn FnMut(usize) + 'a> {
        let budget = &self.query.limits.budget;
        self.query
            .source
            .announce(names, self.range(window), budget)
    }

    fn range(&self, Window { from, until }: Window) -> FetchRange {
        FetchRange {
            from: timestamp(from),
            until: timestamp(until),
            now: timestamp(self.query.now),
        }
    }

    /// The series names that `pattern` matches, sorted, each once.
    pub(crate) fn names(&self, pattern: &str) -> Result<Rc<[String]>> {
        if let Some(names) = self.found.borrow().get(pattern) {
            return Ok(Rc::clone(names));
        }
        let (source, budget) = (self.query.source, &self.query.limits.budget);
        let mut names = if pattern.starts_with("seriesByTag(") {
            // Parsed, and the texts of the arguments.
            let bytes = query::size_of_parsed(pattern).saturating_add(pattern.len());
            let _tree = budget.hold(bytes)?;
            let expressions = tag_expressions(pattern)?;
            let expressions: Vec<&str> = expressions.iter().map(String::as_str).collect();
            source.find_tagged(&expressions, budget)?
        } else if pattern.contains(';') && !pattern.starts_with("_tagged.") {
            // A tagged name in full is not a pattern: it is found only as it is stored, with its
            // tags sorted.
            let in_order = pattern.split(';').skip(1).is_sorted();
            in_order.then(|| pattern.to_owned()).into_iter().collect()
        } else {
            source.find_series(pattern, budget)?
        };
        names.sort_unstable();
        names.dedup();
        self.query.count_series(names.len())?;
        let names: Rc<[String]> = names.into();
        self.found
            .borrow_mut()
            .insert(pattern.to_owned(), Rc::clone(&names));
        Ok(names)
    }

    /// One series by its name, as found by `pattern`.
    pub(crate) fn one(&self, name: &str, pattern: &str, window: Window) -> Result<Option<Series>> {
        let stored = self.stored(name, pattern, window)?;
        Ok(stored.map(|stored| stored.series))
    }

    /// As [`Fetcher::one`], with what its file says about it.
    pub(crate) fn stored(
        &self,
        name: &str,
        pattern: &str,
        window: Window,
    ) -> Result<Option<Stored>> {
        let budget = &self.query.limits.budget;
        budget.check()?;
        let Window { from, until } = window;
        if from > until {
            return Err(Error::refused(format!(
                "Invalid interval start={from} end={until}: a window must not end before it starts"
            )));
        }
        let Some(fetched) = self.query.source.fetch(name, self.range(window))? else {
            return Ok(None);
        };
        let values = Column::from(fetched.values);
        values.reserve_in(budget)?;
        let series = Series {
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
        };
        Ok(Some(Stored {
            series,
            aggregation: fetched.aggregation,
            x_files_factor: fetched.x_files_factor,
        }))
    }
}

/// Fetched series carry the request's threshold for consolidation.
fn marked(mut series: Vec<Series>, context: &Context<'_>) -> Vec<Series> {
    for series in &mut series {
        series.x_files_factor = context.x_files_factor;
    }
    series
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
