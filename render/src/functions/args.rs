//! The arguments of one call, bound to the parameters they are for.

mod bind;

use std::cell::Cell;

use self::bind::{by_param, convert_all, standing_in};
use super::Function;
use super::node::{NodeOrTag, node_or_tag};
use crate::aggregate::Aggregate;
use crate::attime;
use crate::budget::{Budget, Pace, Reservation};
use crate::context::{Context, Window};
use crate::error::{Error, Result};
use crate::python;
use crate::series::{OddName, Series, size_of_texts};
use crate::value::{Operand, Replacements, Value};

/// The arguments of one call.
pub struct Args<'a> {
    function: &'static Function,
    values: Vec<Value>,
    /// Which of them were written, rather than standing in.
    written: Vec<bool>,
    /// Those of a repeated last parameter.
    repeated: Vec<Value>,
    first: Option<Operand<'a>>,
    replacements: Option<Replacements<'a>>,
    budget: &'a Budget,
    /// What the call needs while it runs.
    held: Reservation,
    /// The texts of the series that [`Args::over`] gave out.
    taken: Cell<usize>,
}

impl<'a> Args<'a> {
    /// Puts arguments to parameters and converts them.
    ///
    /// # Errors
    /// Too many, too few, unknown or doubled ones.
    pub(crate) fn bind(
        function: &'static Function,
        mut places: Vec<Value>,
        keywords: Vec<(&str, Value)>,
        first: Option<Operand<'a>>,
        replacements: Option<Replacements<'a>>,
        budget: &'a Budget,
    ) -> Result<Self> {
        let (single, multiple) = match function.params.split_last() {
            Some((last, before)) if last.multiple => (before, Some(last)),
            _ => (function.params, None),
        };
        if places.len() > single.len() && multiple.is_none() {
            return Err(Error::refused(format!(
                "{}() takes {} arguments but {} were given",
                function.name,
                single.len(),
                places.len()
            )));
        }
        let mut repeated = places.split_off(places.len().min(single.len()));
        let n_placed = places.len();
        let mut values = by_param(function, single, places, keywords)?;
        // In Graphite a keyword that says `none` keeps all arguments from being converted.
        let mut by_keyword = values[n_placed..].iter();
        if !by_keyword.any(|value| matches!(value, Some(Value::None))) {
            convert_all(single, &mut values, multiple, &mut repeated);
        }
        let written = values.iter().map(Option::is_some).collect();
        let values = single
            .iter()
            .zip(values)
            .map(|(param, value)| value.unwrap_or_else(|| standing_in(param)))
            .collect();
        Ok(Self {
            function,
            values,
            written,
            repeated,
            first,
            replacements,
            budget,
            held: budget.hold(0)?,
            taken: Cell::new(0),
        })
    }

    /// The request's time and memory.
    pub fn budget(&self) -> &'a Budget {
        self.budget
    }

    /// Checks for a loop over series or values.
    pub fn pace(&self) -> Pace<'a> {
        self.budget.pace()
    }

    /// Sets `bytes` more aside until the call is done: for names that grow, and for scratch room.
    ///
    /// # Errors
    /// As [`Budget::reserve`].
    pub fn hold(&mut self, bytes: usize) -> Result<()> {
        self.held.grow(bytes)
    }

    /// The bytes of all strings among the arguments.
    pub(crate) fn length_of_texts(&self) -> usize {
        let all = self.values.iter().chain(&self.repeated);
        let texts = all.map(|value| match value {
            Value::Text(text) => text.len(),
            _ => 0,
        });
        texts.sum()
    }

    /// Gives back what the call held. The bytes of the names and tags of the series that were
    /// evaluated for it while it ran, and that it has used up.
    pub(crate) fn finish(self) -> usize {
        self.taken.get()
    }

    /// The value of `param`, as given or by default.
    ///
    /// # Panics
    /// If the function has no such parameter: a mistake in the registry that its tests find.
    pub fn value(&self, param: &str) -> &Value {
        &self.values[self.place(param)]
    }

    fn place(&self, param: &str) -> usize {
        let mut params = self.function.params.iter();
        let place = params.position(|known| known.name == param);
        place.unwrap_or_else(|| panic!("{} has no parameter {param}", self.function.name))
    }

    /// The function that they are for.
    pub fn function(&self) -> &'static Function {
        self.function
    }

    /// What a series named by `param` is called in JSON, if that is not text.
    pub fn odd_name(&self, param: &str) -> Option<OddName> {
        match self.value(param) {
            Value::None => Some(OddName::Nothing),
            Value::Integer(_) | Value::Float(_) => Some(OddName::Number),
            _ => None,
        }
    }

    /// A refusal that names the function.
    pub fn refusal(&self, reason: &str) -> Error {
        Error::refused(format!("{}(): {reason}", self.function.name))
    }

    /// Whether `param` was written, and not as `none`: its default does not count.
    pub fn written(&self, param: &str) -> bool {
        self.written[self.place(param)] && self.given(param)
    }

    fn refuse<T>(&self, param: &str, expected: &str) -> Result<T> {
        let value = self.value(param).python_str();
        Err(Error::refused(format!(
            "{}(): {param} must be {expected}, not {value:?}",
            self.function.name
        )))
    }

    /// Takes the series of a parameter out.
    ///
    /// # Errors
    /// If it is something else.
    pub fn series(&mut self, param: &str) -> Result<Vec<Series>> {
        let place = self.place(param);
        match std::mem::replace(&mut self.values[place], Value::None) {
            Value::Series(series) => Ok(series),
            other => {
                self.values[place] = other;
                self.refuse(param, "a list of series")
            }
        }
    }

    /// Takes the lists of series of a parameter out.
    ///
    /// # Errors
    /// If it is something else.
    pub fn lists(&mut self, param: &str) -> Result<Vec<Vec<Series>>> {
        let place = self.place(param);
        match std::mem::replace(&mut self.values[place], Value::None) {
            Value::Lists(lists) => Ok(lists),
            Value::Series(series) if series.is_empty() => Ok(Vec::new()),
            other => {
                self.values[place] = other;
                self.refuse(param, "lists of series, from mapSeries()")
            }
        }
    }

    /// Takes the series of a repeated parameter out, list by list.
    ///
    /// # Errors
    /// If one is something else.
    pub fn repeated_series(&mut self) -> Result<Vec<Vec<Series>>> {
        let taken = std::mem::take(&mut self.repeated);
        taken
            .into_iter()
            .map(|value| match value {
                Value::Series(series) => Ok(series),
                other => Err(Error::refused(format!(
                    "{}() takes lists of series, not {:?}",
                    self.function.name,
                    other.python_str()
                ))),
            })
            .collect()
    }

    /// All series of a repeated parameter in one list. `none` on its own is no series.
    ///
    /// # Errors
    /// As [`Args::repeated_series`].
    pub fn all_series(&mut self) -> Result<Vec<Series>> {
        if let [Value::None] = self.repeated[..] {
            return Ok(Vec::new());
        }
        Ok(self.repeated_series()?.into_iter().flatten().collect())
    }

    /// The values of a repeated parameter.
    pub fn repeated(&self) -> &[Value] {
        &self.repeated
    }

    /// The strings of a repeated parameter.
    ///
    /// # Errors
    /// If one is something else.
    pub fn repeated_text(&self) -> Result<Vec<&str>> {
        let texts = self.repeated.iter().map(|value| match value {
            Value::Text(text) => Ok(text.as_str()),
            other => Err(Error::refused(format!(
                "{}() takes strings, not {:?}",
                self.function.name,
                other.python_str()
            ))),
        });
        texts.collect()
    }

    /// The nodes and tags of a repeated parameter.
    pub fn nodes(&self) -> Vec<NodeOrTag> {
        self.repeated.iter().map(node_or_tag).collect()
    }

    /// The node or tag that `param` names.
    pub fn node(&self, param: &str) -> NodeOrTag {
        node_or_tag(self.value(param))
    }

    /// Whether `param` was given, and not as `none`.
    pub fn given(&self, param: &str) -> bool {
        !matches!(self.value(param), Value::None)
    }

    /// A number.
    ///
    /// # Errors
    /// If it is something else.
    pub fn number(&self, param: &str) -> Result<f64> {
        match self.value(param).number() {
            Some(number) => Ok(number),
            None => self.refuse(param, "a number"),
        }
    }

    /// A number, if it was given.
    ///
    /// # Errors
    /// If it is something else.
    pub fn number_if_given(&self, param: &str) -> Result<Option<f64>> {
        self.given(param).then(|| self.number(param)).transpose()
    }

    /// A step in seconds, decimals included, as microseconds.
    ///
    /// # Errors
    /// If it is something else, or less than a second.
    pub fn step(&self, param: &str) -> Result<i64> {
        let seconds = match self.value(param) {
            Value::Float(number) => *number,
            _ => self.integer(param)? as f64,
        };
        if seconds >= 1.0 && seconds < i64::MAX as f64 / 1e6 {
            Ok((seconds * 1e6).round_ties_even() as i64)
        } else {
            let shown = python::general(seconds);
            let refusal = format!("a step of {shown} seconds is invalid: the minimum is 1 second");
            Err(Error::refused(refusal))
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// If it is something else.
    pub fn integer(&self, param: &str) -> Result<i64> {
        match self.value(param) {
            Value::Integer(number) => Ok(*number),
            Value::Boolean(value) => Ok(i64::from(*value)),
            _ => self.refuse(param, "a whole number"),
        }
    }

    /// Python's `int` of a number, or of a text that is one: decimals are cut off.
    ///
    /// # Errors
    /// If it is something else, or beyond all whole numbers.
    pub fn cut(&self, param: &str) -> Result<i64> {
        match self.value(param) {
            Value::Float(number) if number.is_finite() => Ok(*number as i64),
            Value::Text(text) => match text.trim().parse() {
                Ok(number) => Ok(number),
                Err(_) => self.refuse(param, "a whole number"),
            },
            _ => self.integer(param),
        }
    }

    /// Text.
    ///
    /// # Errors
    /// If it is something else.
    pub fn text(&self, param: &str) -> Result<&str> {
        match self.value(param) {
            Value::Text(text) => Ok(text),
            _ => self.refuse(param, "a string"),
        }
    }

    /// Text, if it was given.
    ///
    /// # Errors
    /// If it is something else.
    pub fn text_if_given(&self, param: &str) -> Result<Option<&str>> {
        self.given(param).then(|| self.text(param)).transpose()
    }

    /// Whether `param` is true, as Python sees truth.
    pub fn flag(&self, param: &str) -> bool {
        match self.value(param) {
            Value::Boolean(value) => *value,
            Value::Integer(number) => *number != 0,
            Value::Float(number) => *number != 0.0,
            Value::Text(text) => !text.is_empty(),
            Value::Series(series) => !series.is_empty(),
            Value::Lists(lists) => !lists.is_empty(),
            Value::None => false,
            Value::Later => true,
        }
    }

    /// An aggregate by its name.
    ///
    /// # Errors
    /// If no argument has that name.
    pub fn aggregate(&self, param: &str) -> Result<Aggregate> {
        Aggregate::named(self.text(param)?)
    }

    /// A time such as `"1h"` or `"-30min"` in seconds.
    ///
    /// # Errors
    /// If it does not read as one.
    pub fn interval(&self, param: &str) -> Result<i64> {
        let text = self.text(param)?;
        attime::offset(text)
            .map_err(|error| Error::refused(format!("{}(): {param}: {error}", self.function.name)))
    }

    /// Changes every value of every series in `seriesList` on its own. The series is renamed
    /// `FUNCTION(name)` or `FUNCTION(name,detail)`, and tagged with the function's name.
    ///
    /// # Errors
    /// If `seriesList` is something else.
    pub fn each_series(
        &mut self,
        detail: Option<&str>,
        tag: &str,
        mut function: impl FnMut(Option<f64>) -> Option<f64>,
    ) -> Result<Vec<Series>> {
        let mut all = self.series("seriesList")?;
        for series in &mut all {
            let name = match detail {
                Some(detail) => format!("{}({},{detail})", self.function.name, series.name),
                None => format!("{}({})", self.function.name, series.name),
            };
            series.tag(self.function.name, tag);
            series.rename(name);
            series.map(&mut function)?;
        }
        Ok(all)
    }

    /// The first argument over the request's own window, for lazy functions.
    ///
    /// # Errors
    /// Whatever its evaluation refuses.
    pub fn original(&mut self, context: &mut Context<'_>) -> Result<Vec<Series>> {
        if !matches!(self.values.first(), Some(Value::Later)) {
            let param = self.function.params[0].name;
            return self.series(param);
        }
        let Some(first) = self.first else {
            return Ok(Vec::new());
        };
        self.evaluated(context.operand(first, self.replacements)?)
    }

    /// The first argument over another window, for lazy functions. Values of an enclosing
    /// `template()` do not reach it, in Graphite as here.
    ///
    /// # Errors
    /// Whatever its evaluation refuses, and if this call was not written out (a callback).
    pub fn over(&mut self, context: &Context<'_>, window: Window) -> Result<Vec<Series>> {
        let Some(first) = self.first else {
            return Err(Error::refused(format!(
                "{}() cannot be a callback",
                self.function.name
            )));
        };
        let value = context.over(window).operand(first, None)?;
        self.evaluated(value)
    }

    fn evaluated(&self, value: Value) -> Result<Vec<Series>> {
        match value {
            Value::Series(series) => {
                self.taken.set(self.taken.get() + size_of_texts(&series));
                Ok(series)
            }
            other => Err(Error::refused(format!(
                "{}() takes a list of series, not {:?}",
                self.function.name,
                other.python_str()
            ))),
        }
    }
}
