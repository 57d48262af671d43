//! The arguments of one call, bound to the parameters they are for.

use std::cell::Cell;

use super::support::check_length;
use super::{Default, Function, Kind, Param};
use crate::aggregate::{self, Aggregate};
use crate::attime;
use crate::budget::{Budget, Pace, Reservation};
use crate::context::{Context, Window};
use crate::error::{Error, Result};
use crate::python;
use crate::query::{self, Argument, Base};
use crate::series::{OddName, Series, size_of_texts};
use crate::value::{Operand, Replacements, Value};

/// A node of a name by its place, or a tag by its name.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeOrTag {
    /// The place, negative from the end.
    Node(i64),
    /// The tag.
    Tag(String),
}

/// The arguments of one call.
pub struct Args<'a> {
    function: &'static Function,
    values: Vec<Value>,
    /// Which of them were written, rather than standing in.
    written: Vec<bool>,
    /// Those of a repeated last parameter.
    repeated: Vec<Value>,
    first: Option<Operand<'a>>,
    replacements: Option<&'a Replacements>,
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
        replacements: Option<&'a Replacements>,
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

/// The value given for each parameter, by its place or by its name.
fn by_param(
    function: &Function,
    params: &[Param],
    places: Vec<Value>,
    keywords: Vec<(&str, Value)>,
) -> Result<Vec<Option<Value>>> {
    let refuse = |what: String| Err(Error::refused(format!("{}() {what}", function.name)));
    let n_placed = places.len();
    let mut values: Vec<Option<Value>> = places.into_iter().map(Some).collect();
    values.resize_with(params.len(), || None);
    for (name, value) in keywords {
        let is_named = |param: &Param| param.name == name || param.also == Some(name);
        match params.iter().position(is_named) {
            Some(place) if place < n_placed => {
                return refuse(format!("got two values for {name:?}"));
            }
            Some(place) => values[place] = Some(value),
            None => return refuse(format!("has no parameter called {name:?}")),
        }
    }
    for (param, value) in params.iter().zip(&values) {
        if value.is_none() && param.default == Default::Required {
            return refuse(format!("needs its argument {:?}", param.name));
        }
    }
    Ok(values)
}

/// Converts all values to the kinds of their parameters, or, as Graphite does, none of them if one
/// does not fit.
fn convert_all(
    params: &[Param],
    values: &mut [Option<Value>],
    multiple: Option<&Param>,
    repeated: &mut [Value],
) {
    let converted: Option<Vec<Option<Value>>> = params
        .iter()
        .zip(values.iter())
        .map(|(param, value)| match value {
            None => Some(None),
            Some(value) => convert(param, value),
        })
        .collect();
    let converted_rest: Option<Vec<Option<Value>>> = match multiple {
        Some(param) => repeated.iter().map(|value| convert(param, value)).collect(),
        None => Some(Vec::new()),
    };
    let (Some(converted), Some(converted_rest)) = (converted, converted_rest) else {
        return;
    };
    for (value, converted) in values.iter_mut().zip(converted) {
        if let Some(converted) = converted {
            *value = Some(converted);
        }
    }
    for (value, converted) in repeated.iter_mut().zip(converted_rest) {
        if let Some(converted) = converted {
            *value = converted;
        }
    }
}

fn node_or_tag(value: &Value) -> NodeOrTag {
    match value {
        Value::Integer(place) => NodeOrTag::Node(*place),
        Value::Float(place) if place.fract() == 0.0 => NodeOrTag::Node(*place as i64),
        Value::Boolean(place) => NodeOrTag::Node(i64::from(*place)),
        other => NodeOrTag::Tag(other.python_str()),
    }
}

/// What stands for a parameter that is not given.
fn standing_in(param: &Param) -> Value {
    match param.default {
        Default::Required | Default::Absent => Value::None,
        Default::Integer(number) => Value::Integer(number),
        Default::Float(number) => Value::Float(number),
        Default::Text(text) => Value::Text(text.to_owned()),
        Default::Boolean(value) => Value::Boolean(value),
    }
}

/// `value` as the parameter's kind wants it: `Some(None)` to leave it, `None` if it cannot be.
fn convert(param: &Param, value: &Value) -> Option<Option<Value>> {
    let has_default = !matches!(param.default, Default::Required | Default::Absent);
    if matches!(value, Value::None) && (has_default || !param.listed_required) {
        return Some(None);
    }
    if matches!(value, Value::Later) {
        return Some(None);
    }
    if !param.options.is_empty() {
        let meant = matches!(value, Value::Text(text) if param.options.contains(&text.as_str()));
        return meant.then_some(None);
    }
    match param.kind {
        Kind::Any | Kind::String | Kind::NodeOrTag | Kind::Tag | Kind::Date => Some(None),
        Kind::IntOrInterval => Some(None),
        Kind::SeriesList => matches!(value, Value::Series(_)).then_some(None),
        Kind::SeriesLists => matches!(value, Value::Lists(_)).then_some(None),
        Kind::Float => match value {
            Value::Text(text) => Some(Some(Value::Float(python_float(text)?))),
            other => Some(Some(Value::Float(other.number()?))),
        },
        Kind::Integer | Kind::Node => whole(value).map(|n| Some(Value::Integer(n))),
        Kind::IntOrInf => match whole(value) {
            Some(number) => Some(Some(Value::Integer(number))),
            None => {
                let number = match value {
                    Value::Text(text) => python_float(text)?,
                    other => other.number()?,
                };
                (number == f64::INFINITY).then_some(Some(Value::Float(number)))
            }
        },
        Kind::Boolean => match value {
            Value::Boolean(_) => Some(None),
            Value::Text(text) if text.eq_ignore_ascii_case("true") => {
                Some(Some(Value::Boolean(true)))
            }
            Value::Text(text) if text.eq_ignore_ascii_case("false") => {
                Some(Some(Value::Boolean(false)))
            }
            Value::Text(_) => None,
            Value::Integer(_) | Value::Float(_) => match value.number() {
                Some(0.0) => Some(Some(Value::Boolean(false))),
                Some(1.0) => Some(Some(Value::Boolean(true))),
                _ => None,
            },
            Value::Series(series) => Some(Some(Value::Boolean(!series.is_empty()))),
            _ => Some(Some(Value::Boolean(false))),
        },
        Kind::Interval => match value {
            Value::Text(text) => attime::offset(text).is_ok().then_some(None),
            _ => None,
        },
        Kind::AggFunc | Kind::AggOrSeriesFunc => match value {
            Value::Text(text) => {
                let word = text.strip_suffix("Series").unwrap_or(text);
                let known = aggregate::NAMES.iter().any(|(name, _)| *name == word);
                (known || param.kind == Kind::AggOrSeriesFunc).then_some(None)
            }
            _ => None,
        },
    }
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Boolean(value) => Some(i64::from(*value)),
        Value::Text(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// `float(text)`
fn python_float(text: &str) -> Option<f64> {
    text.trim().replace('_', "").parse().ok()
}

/// The key of a series by nodes and tags, joined with dots: what `aliasByNode` shows and
/// `groupByNode` groups by. A node that is not there, and is no tag either, is empty.
///
/// # Errors
/// If the name looks like a call and does not parse, or the key would be very long.
pub fn node_key(series: &Series, nodes: &[NodeOrTag]) -> Result<String> {
    let inner = if series.name.ends_with(')') {
        first_path(&series.name)?
    } else {
        None
    };
    let name = inner.as_deref().unwrap_or(&series.name);
    let mut key = String::new();
    for (place, node) in nodes.iter().enumerate() {
        let part = part(series, name, node);
        check_length(key.len() + part.len() + 1, &series.name)?;
        if place > 0 {
            key.push('.');
        }
        key.push_str(&part);
    }
    Ok(key)
}

fn part(series: &Series, name: &str, node: &NodeOrTag) -> String {
    let tag = match node {
        NodeOrTag::Tag(tag) => tag.clone(),
        NodeOrTag::Node(place) => {
            let path = name.split(';').next().unwrap_or(name);
            let nodes: Vec<&str> = path.split('.').collect();
            if let Some(found) = pick(&nodes, *place) {
                return (*found).to_owned();
            }
            place.to_string()
        }
    };
    series.tags.get(&tag).cloned().unwrap_or_default()
}

/// Python's `list[place]`.
fn pick<T>(list: &[T], place: i64) -> Option<&T> {
    let place = if place < 0 {
        place.checked_add(i64::try_from(list.len()).ok()?)?
    } else {
        place
    };
    list.get(usize::try_from(place).ok()?)
}

/// The first path in the innermost first argument of a name that is a call.
fn first_path(name: &str) -> Result<Option<String>> {
    let parsed = query::parse(name)?;
    let mut base = parsed.expression.base;
    loop {
        base = match base {
            Base::Path(path) => return Ok(Some(path)),
            Base::Template(_) => return Ok(None),
            Base::Call(call) => match call.args.into_iter().next() {
                Some(Argument::Expression(expression)) => expression.base,
                _ => return Ok(None),
            },
        };
    }
}
