//! From a tree to series: the order in which targets, arguments and calls are evaluated.
//!
//! 1. Evaluation walks down with a [`Window`]. A function that needs more of the past than it
//!    shows (`movingAverage`) does not have its argument evaluated for it: it asks for it with
//!    the window it wants ([`Args::over`]), so the widened range reaches the leaves before
//!    anything is fetched, and the narrow one is fetched only if some function asks for it.
//! 2. Fetching is the [`Fetcher`]'s: this file counts the places that can ask for each pattern.
//! 3. A function that only adds its arguments up step by step declares a fold
//!    ([`Function::fold`]); over plain paths its series are then fetched one at a time and never
//!    held together.
//! 4. Values are reserved in the request's [`Budget`](crate::budget::Budget) where a [`Column`] is
//!    made, and given back when its last clone is dropped; names and tags when a call has made its
//!    series, and given back when another call takes them.
//! 5. Evaluation reads no clock, except the deadline of the budget that the caller handed in.

use std::collections::BTreeMap;

use crate::aggregate::{Aggregate, Fold};
use crate::context::{Context, Evaluate, Query, Window};
use crate::error::{Error, Result};
use crate::fetch::Fetcher;
use crate::functions::{self, Args, Function};
use crate::query::{self, Argument, Base, Call, Expression, Template};
use crate::series::{Column, Series, Stored, bytes_of};
use crate::value::{Operand, Replacements, Value};

impl Query<'_> {
    /// The series of all `targets` over `window`, in their order.
    ///
    /// # Errors
    /// Those of the functions, of the limits and of the store.
    pub fn evaluate(
        &self,
        targets: &[Expression],
        window: Window,
        x_files_factor: f64,
    ) -> Result<Vec<Series>> {
        let evaluator = Evaluator {
            fetcher: Fetcher::new(self),
        };
        for target in targets {
            evaluator.count_uses(target);
        }
        let mut context = Context::new(self, &evaluator, window, x_files_factor);
        let mut all = Vec::new();
        let mut n_shown = 0_usize;
        for target in targets {
            let mut series = evaluator.expression(&mut context, target, None)?;
            // Columns may be shared, but an answer shows each of them.
            let shown = series.iter().map(|series| series.values.len());
            n_shown = shown.fold(n_shown, usize::saturating_add);
            self.limits.check_points(n_shown)?;
            // They are reserved where they were made; the list of all moves as it grows.
            let places = 2 * size_of::<Series>();
            self.limits.budget.reserve(series.len() * places)?;
            all.append(&mut series);
        }
        Ok(all)
    }

    /// The series of the store that each of `wanted` (a pattern or a `seriesByTag` call, and a
    /// range) matches, sorted by name, with the number of the pattern that found it.
    ///
    /// # Errors
    /// Those of the limits and of the store.
    pub(crate) fn stored(&self, wanted: &[(&str, Window)]) -> Result<Vec<(usize, Stored)>> {
        let fetcher = Fetcher::new(self);
        let mut all = Vec::new();
        for (number, (pattern, window)) in wanted.iter().enumerate() {
            let names = fetcher.names(pattern)?;
            let mut next = fetcher.announce(&names, *window);
            for (at, name) in names.iter().enumerate() {
                next(at);
                let Some(stored) = fetcher.stored(name, pattern, *window)? else {
                    continue;
                };
                self.count_points(stored.series.values.len())?;
                self.reserve_texts(std::slice::from_ref(&stored.series))?;
                all.push((number, stored));
            }
        }
        Ok(all)
    }
}

/// One evaluation of a query's targets.
struct Evaluator<'q> {
    fetcher: Fetcher<'q>,
}

impl Evaluate for Evaluator<'_> {
    fn text(&self, context: &mut Context<'_>, text: &str) -> Result<Vec<Series>> {
        let _tree = context.budget().hold(query::size_of_parsed(text))?;
        let parsed = query::parse(text)?;
        self.count_uses(&parsed.expression);
        self.expression(context, &parsed.expression, None)
    }

    fn operand(
        &self,
        context: &mut Context<'_>,
        operand: Operand<'_>,
        replacements: Option<Replacements<'_>>,
    ) -> Result<Value> {
        match operand {
            Operand::Argument(Argument::Literal(literal)) => Ok(Value::from(literal)),
            Operand::Argument(Argument::Expression(expression)) => {
                self.prefix(context, expression, expression.piped.len(), replacements)
            }
            Operand::Piped(expression, n_calls) => {
                self.prefix(context, expression, n_calls, replacements)
            }
        }
    }
}

impl Evaluator<'_> {
    /// Counts the places that can ask for each pattern: the series of a pattern that one place
    /// alone asks for need not be kept for another.
    fn count_uses(&self, expression: &Expression) {
        leaves(expression, 1, &mut |leaf, times| {
            self.fetcher.count_use(leaf, times);
        });
    }

    fn expression(
        &self,
        context: &mut Context<'_>,
        expression: &Expression,
        replacements: Option<Replacements<'_>>,
    ) -> Result<Vec<Series>> {
        match self.prefix(context, expression, expression.piped.len(), replacements)? {
            Value::Series(series) => Ok(series),
            Value::None => Ok(Vec::new()),
            Value::Lists(lists) if lists.is_empty() => Ok(Vec::new()),
            Value::Lists(_) => Err(Error::refused(
                "lists of series are only good as an argument of reduceSeries()",
            )),
            other => Err(Error::refused(format!(
                "{} is not a series",
                other.python_str()
            ))),
        }
    }

    /// `expression` with the first `n_calls` of its pipe.
    fn prefix(
        &self,
        context: &mut Context<'_>,
        expression: &Expression,
        n_calls: usize,
        replacements: Option<Replacements<'_>>,
    ) -> Result<Value> {
        match n_calls.checked_sub(1) {
            Some(before) => {
                let call = &expression.piped[before];
                let piped = Operand::Piped(expression, before);
                context.deeper(|context| self.call(context, call, Some(piped), replacements))
            }
            None => self.base(context, &expression.base, replacements),
        }
    }

    fn base(
        &self,
        context: &mut Context<'_>,
        base: &Base,
        replacements: Option<Replacements<'_>>,
    ) -> Result<Value> {
        match base {
            Base::Path(path) => self.path(context, path, replacements),
            Base::Call(call) => {
                context.deeper(|context| self.call(context, call, None, replacements))
            }
            Base::Template(template) => {
                let own = own_values(template);
                let replacements = Replacements {
                    requested: &context.query.template,
                    own: &own,
                };
                self.base(context, &template.body, Some(replacements))
            }
        }
    }

    fn path(
        &self,
        context: &mut Context<'_>,
        path: &str,
        replacements: Option<Replacements<'_>>,
    ) -> Result<Value> {
        let Some(replacements) = replacements else {
            return Ok(Value::Series(self.fetcher.series(context, path)?));
        };
        if let Some(value) = path
            .strip_prefix('$')
            .and_then(|name| replacements.get(name))
        {
            // A name that is all of the path stands for the value itself, a number if it looks
            // like one.
            return Ok(match value {
                Value::Text(text) if looks_like_a_number(&text) => {
                    Value::Float(text.parse().map_err(|_| {
                        Error::refused(format!("{text:?} is not a number, for {path}"))
                    })?)
                }
                value => value,
            });
        }
        let path = replaced(context, path, replacements)?;
        Ok(Value::Series(self.fetcher.series(context, &path)?))
    }

    fn call(
        &self,
        context: &mut Context<'_>,
        call: &Call,
        piped: Option<Operand<'_>>,
        replacements: Option<Replacements<'_>>,
    ) -> Result<Value> {
        if call.name == "template" {
            return Err(Error::refused(
                "invalid template() syntax, only string/numeric arguments are allowed",
            ));
        }
        if call.name == "seriesByTag" {
            return Ok(Value::Series(self.fetcher.series(context, &call.raw)?));
        }
        let function = functions::named(&call.name)?;
        // Functions that evaluate their argument again, one within the other, double the work with
        // each level and may fetch nothing new.
        context.budget().check()?;
        let written = call.args.iter().map(Operand::Argument);
        let operands: Vec<Operand<'_>> = piped.into_iter().chain(written).collect();
        if let Some(aggregate) = function.fold
            && replacements.is_none()
            && call.keywords.is_empty()
            && let Some(patterns) = self.patterns_to_fold(&operands)
            && let Some(folded) = self.fold(context, function, aggregate, &patterns)?
        {
            return Ok(Value::Series(folded));
        }
        let mut places = Vec::with_capacity(operands.len());
        for (place, operand) in operands.iter().enumerate() {
            places.push(if place == 0 && function.lazy && !has_effects(*operand) {
                Value::Later
            } else {
                self.operand(context, *operand, replacements)?
            });
        }
        let keywords = self.keywords(context, call, replacements)?;
        let first = operands.first().copied();
        apply(context, function, (places, keywords), first, replacements)
    }

    /// The keyword arguments of a call, evaluated.
    fn keywords<'c>(
        &self,
        context: &mut Context<'_>,
        call: &'c Call,
        replacements: Option<Replacements<'_>>,
    ) -> Result<Vec<(&'c str, Value)>> {
        let outside = std::mem::replace(&mut context.keyword, !context.query.strict);
        let keywords = call.keywords.iter().map(|(name, argument)| {
            let value = self.operand(context, Operand::Argument(argument), replacements)?;
            Ok((name.as_str(), value))
        });
        let keywords = keywords.collect();
        context.keyword = outside;
        keywords
    }

    /// The patterns that the operands are, if series can be added up as they are fetched: each
    /// operand is a pattern, and no other place asks for the same series.
    fn patterns_to_fold<'o>(&self, operands: &[Operand<'o>]) -> Option<Vec<&'o str>> {
        let patterns = operands.iter().map(|operand| {
            let pattern = operand.pattern()?;
            (self.fetcher.uses(pattern) == Some(1)).then_some(pattern)
        });
        patterns.collect()
    }

    /// Adds up series as they are fetched, if all series have one shape. `None` if not: the
    /// ordinary way then fetches them (again).
    fn fold(
        &self,
        context: &Context<'_>,
        function: &'static Function,
        aggregate: Aggregate,
        patterns: &[&str],
    ) -> Result<Option<Vec<Series>>> {
        let Some(mut fold) = Fold::new(aggregate) else {
            return Ok(None);
        };
        let budget = context.budget();
        let mut first: Option<Series> = None;
        // The sums and counts of the rows, until the result has a reservation of its own.
        let mut rows = budget.hold(0)?;
        let mut expressions: Vec<&str> = Vec::new();
        for pattern in patterns {
            let names = self.fetcher.names(pattern)?;
            let mut next = self.fetcher.announce(&names, context.window);
            for (at, name) in names.iter().enumerate() {
                next(at);
                let Some(series) = self.fetcher.one(name, pattern, context.window)? else {
                    continue;
                };
                // The name of the result lists only the patterns that have series.
                if expressions.last() != Some(pattern) && !expressions.contains(pattern) {
                    expressions.push(pattern);
                }
                let Some(first) = &mut first else {
                    let n_rows = series.values.len();
                    rows.grow(bytes_of(n_rows) + Fold::size_beside(n_rows))?;
                    fold.add(&series.values);
                    first = Some(series);
                    continue;
                };
                let shape_of = |s: &Series| (s.start, s.end, s.step);
                if shape_of(first) != shape_of(&series) {
                    return Ok(None);
                }
                fold.add(&series.values);
                let tags = &mut first.tags;
                tags.retain(|tag, value| series.tags.get(tag) == Some(value));
            }
        }
        let Some(first) = first else {
            return Ok(Some(Vec::new()));
        };
        context.query.count_points(first.values.len())?;
        let values = Column::from(fold.finish(context.x_files_factor));
        drop(rows);
        values.reserve_in(budget)?;
        let word = function.aggregate_word();
        let name = format!("{word}Series({})", expressions.join(","));
        let mut series = first.derived(name, values);
        series.consolidation = Default::default();
        series.x_files_factor = context.x_files_factor;
        series.end = first.end - (first.end - first.start) % first.step;
        let name = series.name.clone();
        series.tags.entry("name".to_owned()).or_insert(name);
        series.tag("aggregatedBy", word);
        let folded = vec![series];
        context.query.reserve_texts(&folded)?;
        Ok(Some(folded))
    }
}

/// Calls `function` with the values of its arguments, by place and by keyword.
fn apply(
    context: &mut Context<'_>,
    function: &'static Function,
    (places, keywords): (Vec<Value>, Vec<(&str, Value)>),
    first: Option<Operand<'_>>,
    replacements: Option<Replacements<'_>>,
) -> Result<Value> {
    let by_keyword = keywords.iter().map(|(_, value)| value);
    let sizes = places.iter().chain(by_keyword).map(Value::size_of_texts);
    let (taken, n_series) = sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    let budget = context.budget();
    let mut args = Args::bind(function, places, keywords, first, replacements, budget)?;
    // Names grow by what the arguments say: in name, expression and a tag of each series.
    let said = args.length_of_texts().saturating_mul(3);
    args.hold(taken.saturating_add(said.saturating_mul(n_series)))?;
    let result = match function.lists {
        Some(lists) => Value::Lists(lists(context, &mut args)?),
        None => Value::Series((function.call)(context, &mut args)?),
    };
    budget.release(taken + args.finish());
    for series in result.lists() {
        context.query.reserve_texts(series)?;
        for series in series {
            series.values.reserve_in(budget)?;
        }
    }
    Ok(result)
}

/// The values that a template has for its variables. They are as long as its text, which is set
/// aside; those of the request are shared.
fn own_values(template: &Template) -> BTreeMap<String, Value> {
    let by_place = template.args.iter().enumerate();
    let by_place = by_place.map(|(i, value)| ((i + 1).to_string(), Value::from(value)));
    let by_name = template.keywords.iter();
    let by_name = by_name.map(|(name, value)| (name.clone(), Value::from(value)));
    by_place.chain(by_name).collect()
}

/// `path` with the values of the variables in it.
fn replaced(context: &Context<'_>, path: &str, replacements: Replacements<'_>) -> Result<String> {
    let mut path = path.to_owned();
    for (name, value) in replacements.texts() {
        context.budget().check()?;
        let name = format!("${name}");
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
    Ok(path)
}

/// Calls `visit` with every pattern below `expression` and how often it may be asked for with one
/// window: a function that evaluates its argument itself may ask twice.
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
        usize::from(functions::find(&call.name).is_some_and(|function| function.lazy))
    }
    let piped: usize = expression.piped.iter().map(lazy).sum();
    in_base(&expression.base, times + piped, visit);
    for call in &expression.piped {
        in_call(call, times + piped, visit);
    }
}

/// Whether a call in the operand has effects ([`Function::effects`]).
fn has_effects(operand: Operand<'_>) -> bool {
    fn in_base(base: &Base) -> bool {
        match base {
            Base::Path(_) => false,
            Base::Call(call) => in_call(call),
            Base::Template(template) => in_base(&template.body),
        }
    }
    fn in_call(call: &Call) -> bool {
        functions::find(&call.name).is_some_and(|function| function.effects)
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

/// `^-?[\d.]+$`
fn looks_like_a_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use crate::query::MAX_DEPTH;

    #[test]
    fn calls_with_effects_are_found_below_others() {
        for (text, expected) in [
            ("web.a.hits", false),
            ("scale(web.a.hits, 2)", false),
            ("stacked(web.a.hits)", true),
            ("scale(sumSeries(setXFilesFactor(web.a.hits, 1)), 2)", true),
            ("web.a.hits|xFilesFactor(0.5)|scale(2)", true),
            ("group(web.a.hits, verticalLine(\"12:00\"))", true),
            ("template(stacked(web.$x), x=\"a\")", true),
            ("noSuchFunction(web.a.hits)", false),
        ] {
            let argument = Argument::Expression(query::parse(text).unwrap().expression);
            assert_eq!(
                has_effects(Operand::Argument(&argument)),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn texts_that_ask_for_themselves_nest_no_deeper_than_a_tree() {
        let mut source = Memory::default();
        source.insert("a", 60, vec![1.0; 4]);
        source.insert("$t", 60, vec![1.0; 4]);
        let within = "absolute(".repeat(MAX_DEPTH - 3) + "a" + &")".repeat(MAX_DEPTH - 3);
        for (target, text, refused) in [
            ("template(applyByNode(a,0,$t))", "absolute(%)", false),
            (
                "template(applyByNode(a,0,$t))",
                "template(applyByNode(a,0,$t))",
                true,
            ),
            (
                r#"template(absolute(aliasQuery(a,"a",$t,"%d")))"#,
                r#"template(absolute(aliasQuery(a,"a",$t,"%d")))"#,
                true,
            ),
            (
                r#"template(useSeriesAbove(a,0,"^a$",$t))"#,
                r#"template(useSeriesAbove(a,0,"^a$",$t))"#,
                true,
            ),
            // The parser's stack comes on top of that of evaluation.
            (
                &format!("template(group(applyByNode(a,0,$t),{within}))"),
                &format!("template(group(applyByNode(a,0,$t),{within}))"),
                true,
            ),
            ("template(absolute(applyByNode(a,0,$t)))", &within, false),
            (
                "template(absolute(absolute(applyByNode(a,0,$t))))",
                &format!("absolute({within})"),
                true,
            ),
        ] {
            let mut query = Query::new(&source, 240);
            let variable = ("t".to_owned(), text.to_owned());
            query.template = BTreeMap::from([variable]).into();
            let parsed = query::parse(target).unwrap().expression;
            let window = Window {
                from: 0,
                until: 240,
            };
            let result = query.evaluate(&[parsed], window, 0.0);
            let too_deep =
                matches!(&result, Err(error) if error.to_string().contains("deeper than 64"));
            assert_eq!(too_deep, refused, "{target}: {result:?}");
        }
    }

    #[test]
    fn a_piped_operand_has_the_effects_of_its_own_calls() {
        let piped = query::parse("web.a.hits|scale(2)|stacked()").unwrap();
        assert!(!has_effects(Operand::Piped(&piped.expression, 1)));
        assert!(has_effects(Operand::Piped(&piped.expression, 2)));
    }
}
