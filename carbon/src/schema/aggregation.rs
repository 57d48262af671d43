//! `storage-aggregation.conf`: how a new file aggregates; and the built-in choice by name.
//!
//! Semantics of carbon 1.1.10 (`carbon/storage.py`): sections in the order of the file, `pattern`
//! searched anywhere in the name, first match wins even where it sets only one of the two values;
//! the other one is carbon's default, 0.5 or average. go-carbon's word `avg` is taken, too.

use whisper::Aggregation;

use super::rule_list::{RuleList, comment, compile, other_keys, unknown};
use crate::conf::Findings;
use crate::conf::ini::{Entry, Section};
use crate::pattern::Pattern;

/// The keys of a section, in lower case.
const KEYS: [&str; 3] = ["pattern", "xfilesfactor", "aggregationmethod"];
/// go-carbon's keys that mean nothing here.
const GO_CARBON: [&str; 3] = ["priority", "xffmigration", "aggregationmethodmigration"];

/// One section of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregationRule {
    /// The name of the section.
    pub section: String,
    /// The line of its heading.
    pub line: usize,
    /// The regular expression, as it was written.
    pub pattern: String,
    /// The share of known points that it takes to make a coarser one; `None`: carbon's 0.5.
    pub x_files_factor: Option<f64>,
    /// How points are made coarser; `None`: carbon's average.
    pub method: Option<Aggregation>,
}

/// The rules of a storage-aggregation.conf.
pub type Aggregations = RuleList<AggregationRule>;

impl Aggregations {
    /// Reads the text of a storage-aggregation.conf.
    pub fn parse(text: &str, findings: &mut Findings) -> Self {
        Self::read(text, &KEYS, findings, rule)
    }
}

fn rule(section: Section, findings: &mut Findings) -> Option<(AggregationRule, Pattern)> {
    other_keys(&section, unused, findings);
    let factor = section.get("xfilesfactor");
    let x_files_factor = factor.and_then(|entry| factor_of(&section, entry, findings));
    let method = section.get("aggregationmethod");
    let method = method.and_then(|entry| method_of(&section, entry, findings));
    let Some(pattern) = section.get("pattern") else {
        let warning = "\"pattern\" is missing; the section is left out, as in carbon";
        findings.warn(section.line, format!("[{}]", section.name), warning);
        return None;
    };
    let compiled = compile(&section, pattern, findings)?;
    let rule = AggregationRule {
        line: section.line,
        pattern: pattern.value.clone(),
        x_files_factor,
        method,
        section: section.name,
    };
    Some((rule, compiled))
}

fn factor_of(section: &Section, entry: &Entry, findings: &mut Findings) -> Option<f64> {
    let text = &entry.value;
    let factor = number(text).filter(|factor| (0.0..=1.0).contains(factor));
    if factor.is_none() {
        let wrong =
            comment(text).unwrap_or_else(|| format!("{text:?} is not a number from 0 to 1"));
        findings.refuse(entry.line, section.place("xFilesFactor"), wrong, "\"0.5\"");
    }
    factor
}

/// A number as Python's `float` reads it, in ASCII.
fn number(text: &str) -> Option<f64> {
    let digit = |at: Option<usize>| {
        at.and_then(|at| text.as_bytes().get(at))
            .is_some_and(u8::is_ascii_digit)
    };
    let between_digits = |at: usize| digit(at.checked_sub(1)) && digit(Some(at + 1));
    if text.match_indices('_').all(|(at, _)| between_digits(at)) {
        text.replace('_', "").parse().ok()
    } else {
        None
    }
}

fn method_of(section: &Section, entry: &Entry, findings: &mut Findings) -> Option<Aggregation> {
    let text = entry.value.as_str();
    let method = match text {
        "avg" => Some(Aggregation::Average),
        text => Aggregation::parse(text),
    };
    if method.is_none() {
        let names = Aggregation::ALL.map(Aggregation::name);
        let wrong = comment(text).unwrap_or_else(|| format!("{text:?} is not a method"));
        let accepted = match settings::nearest(text, names) {
            Some(near) => format!("{near:?}"),
            None => format!("one of {}", names.join(", ")),
        };
        findings.refuse(
            entry.line,
            section.place("aggregationMethod"),
            wrong,
            accepted,
        );
    }
    method
}

/// Why a key has no effect.
fn unused(key: &str) -> Option<String> {
    if KEYS.contains(&key) {
        return None;
    }
    Some(if GO_CARBON.contains(&key) {
        "is go-carbon's and has no effect".to_owned()
    } else if key == "retentions" {
        "has no effect here; it belongs in storage-schemas.conf".to_owned()
    } else {
        unknown(settings::nearest(&key.replace('_', ""), KEYS))
    })
}

/// The built-in aggregation: sum for counts, max for upper, min for lower, last for gauges, else
/// average. Looks at the last node (with or without a percentile, `upper_90`) and at the
/// namespaces of statsd; the tags of a tagged name are not looked at.
pub fn aggregation(name: &str) -> Aggregation {
    let plain = name.split(';').next().unwrap_or(name);
    let last = plain.rsplit('.').next().unwrap_or(plain);
    // `upper_90`, `count_99_9`, `sum_top10`: the percentile is no part of what is measured.
    let kind = last
        .split_once('_')
        .filter(|(_, rest)| {
            rest.trim_start_matches("top")
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'_')
        })
        .map_or(last, |(kind, _)| kind);
    let in_namespace = |namespace: &str| {
        plain.starts_with(&format!("{namespace}."))
            || plain.starts_with(&format!("stats.{namespace}."))
    };
    if plain.starts_with("stats_counts.") {
        return Aggregation::Sum;
    }
    match kind {
        "count" | "sum" => Aggregation::Sum,
        "upper" | "max" => Aggregation::Max,
        "lower" | "min" => Aggregation::Min,
        _ if in_namespace("gauges") => Aggregation::Last,
        _ => Aggregation::Average,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::load_text;
    use std::path::Path;

    fn said(text: &str) -> Vec<String> {
        match load_text(Path::new("f"), text, Aggregations::parse) {
            Ok(loaded) => {
                let rules = loaded.value.rules().iter().map(|rule| {
                    format!(
                        "{} {:?} {:?}",
                        rule.section, rule.x_files_factor, rule.method
                    )
                });
                let warnings = loaded.warnings.iter().map(ToString::to_string);
                rules.chain(warnings).collect()
            }
            Err(problems) => problems.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn faults_and_warnings_name_line_section_and_key() {
        for (text, expected) in [
            (
                "[a]\npattern =\nxFilesFactor = 1_0e-1_0\naggregationMethod = avg\n",
                vec!["a Some(1e-9) Some(Average)"],
            ),
            (
                "[a]\npattern = a\nxFilesFactor = 50\naggregationMethod = SUM\n",
                vec![
                    "f:3: [a] xFilesFactor: \"50\" is not a number from 0 to 1, write \"0.5\"",
                    "f:4: [a] aggregationMethod: \"SUM\" is not a method, write \"sum\"",
                ],
            ),
            (
                "[a]\npattern = a\naggregationMethod = percentile\n",
                vec![
                    "f:3: [a] aggregationMethod: \"percentile\" is not a method, write one of average, sum, last, max, min, avg_zero, absmax, absmin",
                ],
            ),
            (
                "[a]\npattern = a\nxFileFactor = 0\nretentions = 1:1\nx_files_factor = 0\n[b]\n",
                vec![
                    "a None None",
                    "f:3: [a] xfilefactor: is unknown and has no effect; did you mean xfilesfactor?",
                    "f:4: [a] retentions: has no effect here; it belongs in storage-schemas.conf",
                    "f:5: [a] x_files_factor: is unknown and has no effect; did you mean xfilesfactor?",
                    "f:6: [b]: \"pattern\" is missing; the section is left out, as in carbon",
                ],
            ),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
        for bad in [
            "nan", "inf", "-0.1", "1.1", "0x0", "half", "", "_1", "0_", "1__0",
        ] {
            let text = format!("[a]\npattern = a\nxFilesFactor = {bad}\n");
            assert!(
                said(&text)[0].contains("is not a number from 0 to 1"),
                "{bad}"
            );
        }
    }

    #[test]
    fn names_say_how_they_aggregate() {
        for (name, expected) in [
            ("stats_counts.logins", Aggregation::Sum),
            ("stats.counters.logins.count", Aggregation::Sum),
            ("stats.counters.logins.rate", Aggregation::Average),
            ("stats.logins", Aggregation::Average),
            ("stats.timers.render.count_90", Aggregation::Sum),
            ("stats.timers.render.sum", Aggregation::Sum),
            ("stats.timers.render.upper", Aggregation::Max),
            ("stats.timers.render.upper_99_9", Aggregation::Max),
            ("stats.timers.render.upper_top10", Aggregation::Max),
            ("stats.timers.render.lower", Aggregation::Min),
            ("stats.timers.render.mean_90", Aggregation::Average),
            ("stats.gauges.users", Aggregation::Last),
            ("stats.gauges.queue.upper", Aggregation::Max),
            ("disk.used;host=a", Aggregation::Average),
            ("requests.count;host=a", Aggregation::Sum),
            ("web.count_down", Aggregation::Average),
        ] {
            assert_eq!(aggregation(name), expected, "{name}");
        }
    }
}
