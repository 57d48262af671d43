//! The tables and the rollup section, as text for the server.

use std::fmt::Write;

use carbon::options::Span;
use carbon::schema::{self, built_in};
use whisper::{Aggregation, Retention};

use crate::events;
use crate::options::Options;

/// The first version of ClickHouse whose rollup rules may have a function without retentions, or retentions without
/// a function.
pub const SPLIT_RULES: u32 = 19;

/// The statements that make the tables, in order. Those that exist are left as they are.
pub fn tables(options: &Options) -> Vec<Table<'_>> {
    let Options {
        points_table,
        index_table,
        tagged_table,
        events_table,
        rollup,
        ..
    } = options;
    let statements = [
        format!(
            "CREATE TABLE IF NOT EXISTS {points_table} (\n    Path String,\n    Value Float64,\n    Time UInt32,\n    \
             Date Date,\n    Timestamp UInt32\n) ENGINE = GraphiteMergeTree('{rollup}')\n\
             PARTITION BY toYYYYMM(Date)\nORDER BY (Path, Time)"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {index_table} (\n    Date Date,\n    Level UInt32,\n    Path String,\n    \
             Version UInt32\n) ENGINE = ReplacingMergeTree(Version)\n\
             PARTITION BY toYYYYMM(Date)\nORDER BY (Level, Path, Date)"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {tagged_table} (\n    Date Date,\n    Tag1 String,\n    Path String,\n    \
             Tags Array(String),\n    Version UInt32\n) ENGINE = ReplacingMergeTree(Version)\n\
             PARTITION BY toYYYYMM(Date)\nORDER BY (Tag1, Path, Date)"
        ),
        events::schema(events_table),
    ];
    [points_table, index_table, tagged_table, events_table]
        .into_iter()
        .zip(statements)
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, statement)| Table { name, statement })
        .collect()
}

/// A table.
#[derive(Debug)]
pub struct Table<'a> {
    /// Its name.
    pub name: &'a str,
    /// The statement that makes it.
    pub statement: String,
}

/// What the rollup section is made of.
#[derive(Debug)]
pub struct Rules {
    /// Patterns and retentions of storage-schemas.conf, in order.
    pub schemas: Vec<(String, Vec<Retention>)>,
    /// Patterns and functions of storage-aggregation.conf, in order.
    pub functions: Vec<(String, Aggregation)>,
    /// The retentions of names that no pattern matches.
    pub default: Vec<Retention>,
}

impl Rules {
    /// The rules of a server with `options` whose statsd flushes every `flush_interval`.
    ///
    /// # Errors
    /// Everything that makes the files unusable.
    pub fn of(
        options: &carbon::options::Options,
        flush_interval: Span,
    ) -> Result<Self, Vec<carbon::conf::Problem>> {
        let mut rules = Self {
            schemas: Vec::new(),
            functions: Vec::new(),
            default: built_in::built_in(flush_interval.0.as_secs().clamp(1, 10)),
        };
        if !options.schemas.is_empty() {
            let loaded = schema::load_schemas(options.schemas.as_ref(), flush_interval)?;
            let found = loaded.value.rules().iter();
            rules.schemas = found
                .map(|rule| (rule.pattern.clone(), rule.retentions.clone()))
                .collect();
        }
        if options.aggregation.is_empty() {
            // As `schema::aggregation` has it.
            let last = |kind: &str| format!(r"[.]({kind})(_(top)?[0-9_]+)?([?].*)?$");
            rules.functions = vec![
                (r"^stats_counts[.]".to_owned(), Aggregation::Sum),
                (last("count|sum"), Aggregation::Sum),
                (last("upper|max"), Aggregation::Max),
                (last("lower|min"), Aggregation::Min),
                (r"^(stats[.])?gauges[.]".to_owned(), Aggregation::Last),
            ];
        } else {
            let loaded = schema::load_aggregations(options.aggregation.as_ref())?;
            let found = loaded.value.rules().iter();
            rules.functions = found
                .map(|rule| {
                    (
                        rule.pattern.clone(),
                        rule.method.unwrap_or(Aggregation::Average),
                    )
                })
                .collect();
        }
        Ok(rules)
    }

    /// The section `name` for a server of this version.
    pub fn section(&self, name: &str, version: u32) -> String {
        let mut out = format!(
            "<{name}>\n  <path_column_name>Path</path_column_name>\n  \
             <time_column_name>Time</time_column_name>\n  <value_column_name>Value</value_column_name>\n  \
             <version_column_name>Timestamp</version_column_name>\n"
        );
        if version >= SPLIT_RULES {
            for (pattern, function) in &self.functions {
                push_rule(&mut out, pattern, Some(*function), &[]);
            }
            for (pattern, retentions) in &self.schemas {
                push_rule(&mut out, pattern, None, retentions);
            }
        } else {
            self.push_pairs(&mut out);
        }
        out.push_str("  <default>\n    <function>avg</function>\n");
        push_retentions(&mut out, &self.default);
        let _ = writeln!(out, "  </default>\n</{name}>");
        out
    }

    /// Old servers want both in one rule: a rule for each pair, whose pattern matches what has both.
    fn push_pairs(&self, out: &mut String) {
        for (pattern, retentions) in &self.schemas {
            for (wanted, function) in &self.functions {
                push_rule(out, &both(pattern, wanted), Some(*function), retentions);
            }
            push_rule(out, pattern, Some(Aggregation::Average), retentions);
        }
        for (wanted, function) in &self.functions {
            push_rule(out, wanted, Some(*function), &self.default);
        }
    }
}

/// An expression that matches names in which `a` and `b` match at different places, or of which one says both.
fn both(a: &str, b: &str) -> String {
    let is_all = |pattern: &str| matches!(pattern, ".*" | "" | "^.*" | "^.*$" | ".*$");
    match (is_all(a), is_all(b)) {
        (true, _) => b.to_owned(),
        (_, true) => a.to_owned(),
        _ if b.ends_with('$') && a.ends_with(b) => a.to_owned(),
        _ if b.starts_with('^') && a.starts_with(b) => a.to_owned(),
        _ => format!("({a}).*({b})|({b}).*({a})"),
    }
}

fn push_rule(
    out: &mut String,
    pattern: &str,
    function: Option<Aggregation>,
    retentions: &[Retention],
) {
    let mut escaped = String::new();
    for c in pattern.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            c => escaped.push(c),
        }
    }
    let _ = writeln!(out, "  <pattern>\n    <regexp>{escaped}</regexp>");
    if let Some(function) = function {
        let _ = writeln!(out, "    <function>{}</function>", named(function));
    }
    push_retentions(out, retentions);
    out.push_str("  </pattern>\n");
}

/// Points get coarser when they are older than the retention before.
fn push_retentions(out: &mut String, retentions: &[Retention]) {
    let mut age = 0;
    for retention in retentions {
        let step = retention.step.seconds();
        let _ = writeln!(
            out,
            "    <retention><age>{age}</age><precision>{step}</precision></retention>"
        );
        age = u64::from(step) * u64::from(retention.points);
    }
}

fn named(function: Aggregation) -> &'static str {
    match function {
        Aggregation::Sum => "sum",
        Aggregation::Last => "anyLast",
        Aggregation::Max => "max",
        Aggregation::Min => "min",
        // ClickHouse has none of the others that would do.
        _ => "avg",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        let retention = |step, points| Retention::new(step, points).unwrap();
        Rules {
            schemas: vec![(
                r"^carbon\.".to_owned(),
                vec![retention(10, 2_160), retention(60, 10_080)],
            )],
            functions: vec![(r"\.count$".to_owned(), Aggregation::Sum)],
            default: vec![retention(60, 1_440)],
        }
    }

    #[test]
    fn functions_and_retentions_are_rules_of_their_own() {
        let section = rules().section("graphite_rollup", 26);
        let expected = r"  <pattern>
    <regexp>\.count$</regexp>
    <function>sum</function>
  </pattern>
  <pattern>
    <regexp>^carbon\.</regexp>
    <retention><age>0</age><precision>10</precision></retention>
    <retention><age>21600</age><precision>60</precision></retention>
  </pattern>
  <default>
    <function>avg</function>
    <retention><age>0</age><precision>60</precision></retention>
  </default>
";
        assert!(section.contains(expected), "{section}");
    }

    #[test]
    fn old_servers_get_a_rule_for_each_pair() {
        let section = rules().section("graphite_rollup", 18);
        let patterns: Vec<&str> = section
            .lines()
            .filter_map(|line| {
                line.trim()
                    .strip_prefix("<regexp>")?
                    .strip_suffix("</regexp>")
            })
            .collect();
        let pair = r"(^carbon\.).*(\.count$)|(\.count$).*(^carbon\.)";
        assert_eq!(patterns, [pair, r"^carbon\.", r"\.count$"]);
        assert_eq!(section.matches("<function>").count(), 4);
    }

    #[test]
    fn one_pattern_may_say_both() {
        assert_eq!(both(r"^a\..*\.count$", r"\.count$"), r"^a\..*\.count$");
        assert_eq!(both(".*", "x"), "x");
        assert_eq!(both("x", ".*"), "x");
    }
}
