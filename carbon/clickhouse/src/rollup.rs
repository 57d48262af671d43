//! The rollup rules of a table: which function makes one point of many, and how far apart points are by their age.
//!
//! The rules are in the configuration of the ClickHouse server, which lists them in `system.graphite_retentions`. As
//! the engine does it, the first rule that matches a name and has a function gives the function, and the first that has
//! retentions gives these.

use carbon::pattern::Pattern;
use render::budget::Budget;
use whisper::Aggregation;

use crate::client::{Client, Failure};
use crate::sql;
use crate::wire::{CUT, Rows};

/// Makes one value of many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Function {
    /// `avg`, and every function that is not known here.
    #[default]
    Average,
    /// `sum`
    Sum,
    /// `min`
    Min,
    /// `max`
    Max,
    /// `any`: the first.
    Any,
    /// `anyLast`
    AnyLast,
}

impl Function {
    fn named(name: &str) -> Self {
        match name {
            "sum" => Self::Sum,
            "min" => Self::Min,
            "max" => Self::Max,
            "any" => Self::Any,
            "anyLast" => Self::AnyLast,
            _ => Self::Average,
        }
    }

    /// The nearest of Graphite's.
    pub(crate) fn aggregation(self) -> Aggregation {
        match self {
            Self::Average | Self::Any => Aggregation::Average,
            Self::Sum => Aggregation::Sum,
            Self::Min => Aggregation::Min,
            Self::Max => Aggregation::Max,
            Self::AnyLast => Aggregation::Last,
        }
    }
}

#[derive(Debug)]
struct Rule {
    /// `None`: it matches every name.
    pattern: Option<Pattern>,
    function: Option<Function>,
    /// Ages and precisions in seconds, by age.
    retentions: Vec<(u64, u64)>,
}

/// The rules.
#[derive(Debug, Default)]
pub struct Rollup(Vec<Rule>);

impl Rollup {
    /// Asks the server for the rules in the section `name` of its configuration.
    ///
    /// # Errors
    /// The server does not answer, or has no such section.
    pub(crate) fn ask(client: &Client, name: &str) -> Result<Self, Failure> {
        let sql = format!(
            "SELECT toString(regexp), toString(function), toUInt64(age), toUInt64(precision), \
             toUInt64(priority), toUInt8(is_default) FROM system.graphite_retentions \
             WHERE config_name = {} ORDER BY is_default, priority, age FORMAT RowBinary",
            sql::text(name)
        );
        let answer = client.query(sql, &Budget::unlimited())?;
        let rollup = Self::read(&answer.bytes).ok_or_else(|| Failure::Failed(CUT.to_owned()))?;
        if rollup.0.is_empty() {
            return Err(Failure::Failed(format!(
                "store.clickhouse.rollup: system.graphite_retentions of the server has no rules of {name:?}"
            )));
        }
        Ok(rollup)
    }

    fn read(answer: &[u8]) -> Option<Self> {
        let mut rows = Rows(answer);
        let mut rules: Vec<(u64, u8, Rule)> = Vec::new();
        while !rows.is_empty() {
            let (regexp, function) = (rows.text()?, rows.text()?);
            let (age, precision, priority) = (rows.u64()?, rows.u64()?, rows.u64()?);
            let is_default = rows.u8()?;
            let is_same = rules
                .last()
                .is_some_and(|(last, default, _)| (*last, *default) == (priority, is_default));
            if !is_same {
                // A pattern that is RE2's and not Python's matches nothing here.
                let pattern = match is_default {
                    0 => match Pattern::new(&regexp) {
                        Ok(pattern) => Some(pattern),
                        Err(error) => {
                            tracing::warn!(%regexp, "a rollup rule is left out: {error}");
                            continue;
                        }
                    },
                    _ => None,
                };
                let function = Some(function.as_str()).filter(|name| !name.is_empty());
                let function = function.map(Function::named);
                let retentions = Vec::new();
                rules.push((
                    priority,
                    is_default,
                    Rule {
                        pattern,
                        function,
                        retentions,
                    },
                ));
            }
            if let Some((_, _, rule)) = rules.last_mut()
                && precision > 0
            {
                rule.retentions.push((age, precision));
            }
        }
        Some(Self(rules.into_iter().map(|(_, _, rule)| rule).collect()))
    }

    /// The function for the series that the tables call `path`, and the seconds between points that are `age` seconds
    /// old.
    pub(crate) fn of(&self, path: &str, age: u32) -> (Function, u32) {
        let (mut function, mut retentions) = (None, None);
        for rule in &self.0 {
            if function.is_some() && retentions.is_some() {
                break;
            }
            let matches = |pattern: &Pattern| pattern.is_in(path).unwrap_or(false);
            if !rule.pattern.as_ref().is_none_or(matches) {
                continue;
            }
            function = function.or(rule.function);
            if !rule.retentions.is_empty() {
                retentions = retentions.or(Some(&rule.retentions));
            }
        }
        let of_age = retentions.and_then(|retentions| {
            let reached = retentions.iter().rev();
            let mut reached = reached.skip_while(|(begins, _)| *begins > u64::from(age));
            reached.next().or(retentions.first())
        });
        let step = of_age.map_or(1, |(_, precision)| *precision);
        let step = u32::try_from(step).unwrap_or(u32::MAX).max(1);
        (function.unwrap_or_default(), step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(out: &mut Vec<u8>, regexp: &str, function: &str, [age, precision, priority]: [u64; 3]) {
        for text in [regexp, function] {
            out.push(text.len() as u8);
            out.extend(text.as_bytes());
        }
        for number in [age, precision, priority] {
            out.extend(number.to_le_bytes());
        }
        out.push(u8::from(regexp.is_empty()));
    }

    #[test]
    fn the_first_rule_with_a_function_and_the_first_with_retentions_apply() {
        let mut answer = Vec::new();
        row(&mut answer, r"\.count$", "sum", [0, 0, 1]);
        row(&mut answer, r"^fast\.", "", [0, 1, 2]);
        row(&mut answer, r"^fast\.", "", [3_600, 60, 2]);
        row(&mut answer, r"\.max$", "max", [0, 5, 3]);
        row(&mut answer, "", "avg", [0, 10, 9]);
        row(&mut answer, "", "avg", [600, 60, 9]);
        row(&mut answer, "", "avg", [86_400, 600, 9]);
        let rollup = Rollup::read(&answer).unwrap();
        assert_eq!(rollup.of("fast.count", 0), (Function::Sum, 1));
        assert_eq!(rollup.of("fast.count", 3_600), (Function::Sum, 60));
        assert_eq!(rollup.of("a.count", 599), (Function::Sum, 10));
        assert_eq!(rollup.of("a.count", 600), (Function::Sum, 60));
        assert_eq!(rollup.of("a.max", 1 << 30), (Function::Max, 5));
        assert_eq!(rollup.of("fast.max", 0), (Function::Max, 1));
        assert_eq!(rollup.of("a.b", 86_400), (Function::Average, 600));
        assert_eq!(Rollup::default().of("a", 5), (Function::Average, 1));
        assert!(Rollup::read(&answer[..answer.len() - 1]).is_none());
    }
}
