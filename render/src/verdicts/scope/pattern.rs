//! Ways to find series: patterns of names, and expressions over tags.

use crate::budget::Budget;
use crate::error::Error;
use crate::query::{self, Argument, Base, Call, Expression, Literal};
use crate::source::{Source, SourceError};

/// A way to find series.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Pattern {
    Path(String),
    Tags(Vec<String>),
}

impl Pattern {
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let parsed = query::parse(text).map_err(|error| format!("target {text:?}: {error}"))?;
        let plain = parsed.rest.is_none() && parsed.expression.piped.is_empty();
        Self::of(&parsed.expression.base)
            .filter(|_| plain)
            .ok_or_else(|| format!("{text:?} is neither a pattern of names nor seriesByTag(…)"))
    }

    fn of(base: &Base) -> Option<Self> {
        match base {
            Base::Path(path) => Some(Self::Path(path.clone())),
            Base::Call(call) if call.name == "seriesByTag" => {
                let text = |argument: &Argument| match argument {
                    Argument::Literal(Literal::Text(text)) => Some(text.text.clone()),
                    _ => None,
                };
                call.args
                    .iter()
                    .map(text)
                    .collect::<Option<_>>()
                    .map(Self::Tags)
            }
            _ => None,
        }
    }

    /// The series that it finds, sorted.
    pub(super) fn find(&self, source: &dyn Source, budget: &Budget) -> Result<Vec<String>, Error> {
        let found = match self {
            Self::Path(path) => source.find(path, budget).map(|nodes| {
                let leaves = nodes.into_iter().filter(|node| node.leaf);
                leaves.map(|node| node.path).collect()
            }),
            Self::Tags(expressions) => {
                let expressions: Vec<&str> = expressions.iter().map(String::as_str).collect();
                source.find_tagged(&expressions, budget)
            }
        };
        match found {
            // A pattern that cannot find anything finds nothing.
            Err(SourceError::Refused(_)) => Ok(Vec::new()),
            found => Ok(found?),
        }
    }
}

/// The patterns of all series that `expression` reads.
pub(super) fn patterns_of(expression: &Expression, patterns: &mut Vec<Pattern>) {
    match &expression.base {
        Base::Template(template) => {
            if let Some(pattern) = Pattern::of(&template.body) {
                patterns.push(pattern);
            }
        }
        base => match (Pattern::of(base), base) {
            (Some(pattern), _) => patterns.push(pattern),
            (None, Base::Call(call)) => patterns_of_call(call, patterns),
            (None, _) => {}
        },
    }
    for call in &expression.piped {
        patterns_of_call(call, patterns);
    }
}

fn patterns_of_call(call: &Call, patterns: &mut Vec<Pattern>) {
    let named = call.keywords.iter().map(|(_, argument)| argument);
    for argument in call.args.iter().chain(named) {
        if let Argument::Expression(expression) = argument {
            patterns_of(expression, patterns);
        }
    }
}
