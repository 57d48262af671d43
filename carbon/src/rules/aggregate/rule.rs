//! A line of aggregation-rules.conf: `output (frequency) = method input`.
//!
//! Read from carbon 1.1.10's `aggregator/rules.py` and compared with recordings of carbon:
//!
//! - The input is cut at dots. In a node, `<<field>>` captures any characters, dots included; `<field>`
//!   captures characters of the node, with what stands around it; `*` alone is a node of any
//!   characters, `*` beside other characters any number of characters of the node. Everything else is
//!   a regular expression. A node has one field at most, and a `*` beside a field repeats what stands
//!   before it. The whole name must match.
//! - `<field>` in the output stands for what the input has captured, `%%` for a percent character.
//! - The frequency is in seconds; its brackets may be missing. Lines that begin with `#` are comments.
//!
//! Different from carbon:
//!
//! - Dots in a class (`[a.b]`) and after a backslash do not cut the input.
//! - A rule is cut at an `=` with white space on both sides, so that tags may be part of its names.
//! - What costs carbon each matching point refuses the file: a field in the output that the input does
//!   not capture, a lone percent character, a frequency of 0 or less.
//! - A bad line refuses the file and is named. (carbon does not start; when the file changes, it stops
//!   looking at it.)

use std::collections::HashMap;

use super::method::{METHODS, Method};
use crate::conf::{Findings, lines};
use crate::datapoint::NameError;
use crate::pattern::{PYTHON, Pattern};
use crate::rules::faults::Faults;
use crate::series::{MAX_NAME, canonical};

/// The longest interval of a rule: ten years.
const LONGEST: u32 = 10 * 366 * 86_400;

/// A rule.
#[derive(Debug)]
pub struct Rule {
    /// The line as it was written, without the spaces around it.
    pub text: String,
    /// How long an interval is, in seconds; not 0.
    pub frequency: u32,
    /// How its values become one.
    pub method: Method,
    pattern: Pattern,
    template: Vec<Part>,
}

/// A part of the output's name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// What the field captured: the name of its group.
    Field(String),
}

/// A line that makes an output, its frequency and its method.
type Made = (usize, u32, Method);

/// Reads the text of aggregation-rules.conf.
pub fn parse(text: &str, findings: &mut Findings) -> Vec<Rule> {
    let mut rules = Vec::new();
    // The first line of each output, with its frequency and method, and the first that has others.
    let mut outputs: HashMap<String, [Option<Made>; 2]> = HashMap::new();
    for (number, line) in lines(text) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match read(line) {
            Ok((output, rule)) => {
                let known = outputs.entry(output.clone()).or_default();
                let this = (number, rule.frequency, rule.method);
                let is_other = |(_, frequency, method): &Made| {
                    (*frequency, *method) != (rule.frequency, rule.method)
                };
                let other = known
                    .iter()
                    .flatten()
                    .find(|known| is_other(known))
                    .copied();
                match known {
                    [None, _] => known[0] = Some(this),
                    [Some(first), None] if is_other(first) => known[1] = Some(this),
                    _ => {}
                }
                if let Some((first, ..)) = other {
                    let warning = format!(
                        "line {first} makes {output:?} with another frequency or method: the \
                         first point decides which of the two is used for all"
                    );
                    findings.warn(number, line, warning);
                }
                rules.push(rule);
            }
            Err(Refused { wrong, accepted }) => findings.refuse(number, "", wrong, accepted),
        }
    }
    rules
}

struct Refused {
    wrong: String,
    accepted: String,
}

fn refused(wrong: impl Into<String>, accepted: impl Into<String>) -> Refused {
    Refused {
        wrong: wrong.into(),
        accepted: accepted.into(),
    }
}

/// The output as it was written, and the rule.
fn read(line: &str) -> Result<(String, Rule), Refused> {
    const FORM: &str = "\"output (seconds) = method input\"";
    let malformed = || refused(format!("{line:?} is not a rule"), FORM);
    let words: Vec<&str> = line.split_whitespace().collect();
    let (output, frequency, method, input) = match *words.as_slice() {
        [output, frequency, "=", method, input] => (output, frequency, method, input),
        _ => {
            let (left, right) = line.split_once('=').ok_or_else(malformed)?;
            let mut left = left.split_whitespace();
            let mut right = right.split_whitespace();
            let mut next = || Some((left.next()?, left.next()?, right.next()?, right.next()?));
            let words = next().ok_or_else(malformed)?;
            if left.next().is_some() || right.next().is_some() {
                return Err(malformed());
            }
            words
        }
    };
    let frequency = seconds(frequency)?;
    let method = Method::named(method).ok_or_else(|| {
        let known: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        refused(
            format!("{method:?} is not a method"),
            format!("one of {}", known.join(", ")),
        )
    })?;
    let (pattern, fields) = compile(input)?;
    let template = template(output, &fields)?;
    let rule = Rule {
        text: line.to_owned(),
        frequency,
        method,
        pattern,
        template,
    };
    Ok((output.to_owned(), rule))
}

/// The frequency `(60)`.
fn seconds(text: &str) -> Result<u32, Refused> {
    let digits = text.trim_start_matches('(').trim_end_matches(')');
    let wrong = || {
        refused(
            format!("{text:?} is not a frequency"),
            format!("whole seconds from 1 to {LONGEST} in brackets, such as \"(60)\""),
        )
    };
    // As Python's int(): single underscores may stand between digits.
    let sound = digits
        .split('_')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    if !sound {
        return Err(wrong());
    }
    let number = digits.replace('_', "").parse().ok();
    number
        .filter(|number| (1..=LONGEST).contains(number))
        .ok_or_else(wrong)
}

/// How the group of field number `n` is called in the expression.
fn group(n: usize) -> String {
    format!("field{n}")
}

/// The input as a regular expression, and its fields in the order of their groups.
fn compile(input: &str) -> Result<(Pattern, Vec<String>), Refused> {
    let mut fields: Vec<String> = Vec::new();
    let mut nodes = Vec::new();
    for node in cut(input) {
        nodes.push(match field(node) {
            Some(Field {
                before,
                name,
                after,
                any,
            }) => {
                check_name(name)?;
                if fields.iter().any(|known| known == name) {
                    return Err(refused(
                        format!("the input has the field <{name}> twice"),
                        "another name for one of the two",
                    ));
                }
                let group = group(fields.len());
                fields.push(name.to_owned());
                format!("{before}(?P<{group}>{any}){after}")
            }
            None if node == "*" => "[^.]+".to_owned(),
            None => node.replace('*', "[^.]*"),
        });
    }
    let expression = format!("\\A(?:{}$)", nodes.join("\\."));
    match Pattern::new(&expression) {
        Ok(pattern) => Ok((pattern, fields)),
        Err(error) => Err(refused(format!("the input {input:?}: {error}"), PYTHON)),
    }
}

/// The nodes of an input: cut at dots, but not at those in a class or after a backslash.
fn cut(input: &str) -> Vec<&str> {
    let mut nodes = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(c) = input[at..].chars().next() {
        let rest = &input[at..];
        at += match c {
            '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            '[' => class(rest).unwrap_or(1),
            '.' => {
                nodes.push(&input[start..at]);
                start = at + 1;
                1
            }
            c => c.len_utf8(),
        };
    }
    nodes.push(&input[start..]);
    nodes
}

/// The bytes of the class that `text` begins with; `None` if it is not closed.
fn class(text: &str) -> Option<usize> {
    // A bracket in the first place is one of the class.
    let skipped = match text.as_bytes() {
        [b'[', b'^', b']', ..] => 3,
        [b'[', b'^' | b']', ..] => 2,
        _ => 1,
    };
    let mut at = skipped;
    loop {
        match text[at..].chars().next()? {
            ']' => return Some(at + 1),
            '\\' => at += 1 + text[at + 1..].chars().next()?.len_utf8(),
            c => at += c.len_utf8(),
        }
    }
}

struct Field<'a> {
    before: &'a str,
    name: &'a str,
    after: &'a str,
    /// The expression of what it captures.
    any: &'static str,
}

/// The field of a node.
fn field(node: &str) -> Option<Field<'_>> {
    let between = |open: &str, close: &str, any| {
        let (start, end) = (node.find(open)?, node.find(close)?);
        let inside = start + open.len();
        (inside <= end).then(|| Field {
            before: &node[..start],
            name: &node[inside..end],
            after: &node[end + close.len()..],
            any,
        })
    };
    between("<<", ">>", ".+?").or_else(|| between("<", ">", "[^.]+?"))
}

/// Field names are Python's identifiers.
fn check_name(name: &str) -> Result<(), Refused> {
    let mut chars = name.chars();
    let begins = |c: char| c.is_alphabetic() || c == '_';
    if chars.next().is_some_and(begins) && chars.all(|c| c.is_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(refused(
        format!("the input has a field <{name}>"),
        "a name of letters, digits and \"_\" that does not begin with a digit",
    ))
}

/// The output taken apart. carbon makes a format of Python's `%` operator of it, which is done here in
/// the same two steps.
fn template(output: &str, fields: &[String]) -> Result<Vec<Part>, Refused> {
    let format = output.replace('<', "%(").replace('>', ")s");
    let mut parts = Vec::new();
    let mut text = String::new();
    let mut rest = format.as_str();
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let named = after.strip_prefix('(').and_then(|a| a.split_once(")s"));
        let Some((name, after)) = named else {
            return Err(refused(
                format!("the output {output:?} has a \"%\" or \"<\" without its end"),
                "\"%%\" for a percent character, \"<field>\" for a field",
            ));
        };
        let Some(number) = fields.iter().position(|field| field == name) else {
            return Err(refused(
                format!(
                    "the output asks for <{name}>, which the input does not capture (only the first \
                     <field> of a node between dots is one)"
                ),
                "",
            ));
        };
        parts.push(Part::Text(std::mem::take(&mut text)));
        parts.push(Part::Field(group(number)));
        rest = after;
    }
    text.push_str(rest);
    parts.push(Part::Text(text));
    Ok(parts)
}

impl Rule {
    /// The regular expression that it is for.
    pub(crate) fn pattern(&self) -> &str {
        self.pattern.text()
    }

    /// The series that points of `name` go to, if the rule is for them. A name that is too long for a file
    /// is counted as a fault.
    pub fn output(&self, name: &str, faults: &mut Faults) -> Option<String> {
        let found = faults.note(self.pattern.captures(name))??;
        let mut output = String::new();
        for part in &self.template {
            output.push_str(match part {
                Part::Text(text) => text,
                // Python's text for a group that took no part in the match.
                Part::Field(group) => found.name(group).map_or("None", |group| group.as_str()),
            });
            if output.len() > MAX_NAME {
                faults.count += 1;
                return None;
            }
        }
        // An aggregate takes memory: none is kept whose nodes are too long for a file.
        if matches!(canonical(output.as_bytes()), Err(NameError::TooLong)) {
            faults.count += 1;
            return None;
        }
        Some(output)
    }

    /// The start of the interval that `at` is in.
    pub fn interval(&self, at: i64) -> i64 {
        at - at.rem_euclid(i64::from(self.frequency))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::load_text;

    fn rule(line: &str) -> Result<Rule, String> {
        match load_text("f".as_ref(), line, parse) {
            Ok(mut loaded) => Ok(loaded.value.remove(0)),
            Err(problems) => Err(problems[0].to_string()),
        }
    }

    fn output(line: &str, name: &str) -> Option<String> {
        rule(line).unwrap().output(name, &mut Faults::default())
    }

    #[test]
    fn names_are_captured_and_filled_in() {
        for (line, name, expected) in [
            (
                "<e>.all.<m> (60) = sum <e>.*.<<m>>",
                "a.b.c.d",
                Some("a.all.c.d"),
            ),
            ("all (60) = sum *", "a.b", None),
            ("s.<h> (1) = avg web<h>\\d.c", "web12.c", Some("s.1")),
            ("o (10) = sum a\\.b", "a.b", Some("o")),
            ("o (10) = sum a\\.b", "a\\.b", None),
            ("o (10) = sum [a.]x", ".x", Some("o")),
            ("o (10) = sum a[]].b", "a].b", Some("o")),
            ("o;c=<v> (10) = sum a;c=<v>", "a;c=d", Some("o;c=d")),
            ("o.50%% (10) = sum <a>.z", "p.z", Some("o.50%")),
            ("o.%(a)s (10) = sum <a>.z", "p.z", Some("o.p")),
            ("o.<a> (10) = sum x(<a>)?y", "xy", Some("o.None")),
            ("o.<ä> (10) = sum <ä>.z", "p.z", Some("o.p")),
            ("o (10)=sum (?!x)*.b", "a.b", Some("o")),
            ("o (10)=sum (?!x)*.b", "x.b", None),
            ("o (10) = sum a|b", "abc", Some("o")),
        ] {
            assert_eq!(output(line, name).as_deref(), expected, "{line} {name}");
        }
    }

    #[test]
    fn outputs_that_no_file_can_have_are_faults() {
        let rule = rule("o.<a> (60) = sum in.<<a>>").unwrap();
        let mut faults = Faults::default();
        let mut output = |name: &str| rule.output(&format!("in.{name}"), &mut faults).is_some();
        let nodes = "x".repeat(250) + ".";
        assert!(output(&nodes.repeat(15)));
        assert!(output(&"x".repeat(251)));
        assert!(!output(&"x".repeat(252)));
        assert!(!output(&nodes.repeat(16)));
        assert_eq!(faults.count, 2);
    }

    #[test]
    fn frequencies_are_whole_seconds() {
        for (text, expected) in [("(10)", 10), ("10", 10), ("((10))", 10), ("(1_0)", 10)] {
            assert_eq!(
                rule(&format!("o {text} = sum a")).unwrap().frequency,
                expected
            );
        }
        for text in [
            "(0)",
            "(-10)",
            "()",
            "(1__0)",
            "(_1)",
            "(10.5)",
            "(99999999999)",
        ] {
            let problem = rule(&format!("o {text} = sum a")).unwrap_err();
            assert!(problem.contains("is not a frequency"), "{problem}");
        }
        let rule = rule("o (60) = sum a").unwrap();
        assert_eq!((rule.interval(119), rule.interval(-1)), (60, -60));
    }

    #[test]
    fn bad_lines_are_named_with_what_is_accepted() {
        for (line, expected) in [
            (
                "o (10) sum a",
                "f:1: \"o (10) sum a\" is not a rule, write \"output (seconds) = method input\"",
            ),
            (
                "o (10) = sum",
                "f:1: \"o (10) = sum\" is not a rule, write \"output (seconds) = method input\"",
            ),
            (
                "o (10) = last a",
                "f:1: \"last\" is not a method, write one of sum, avg, min, max, count, p50, p75, p80, p90, p95, p99, p999",
            ),
            (
                "o.<b> (10) = sum <a>_<b>.z",
                "f:1: the output asks for <b>, which the input does not capture (only the first <field> of a node between dots is one)",
            ),
            (
                "o.50% (10) = sum a",
                "f:1: the output \"o.50%\" has a \"%\" or \"<\" without its end, write \"%%\" for a percent character, \"<field>\" for a field",
            ),
            (
                "o (10) = sum <a>.<a>",
                "f:1: the input has the field <a> twice, write another name for one of the two",
            ),
        ] {
            assert_eq!(rule(line).unwrap_err(), expected);
        }
        assert!(rule("o (10) = sum <1a>.z").is_err());
        assert!(rule("o (10) = sum (a").is_err());
    }

    #[test]
    fn two_rules_for_one_series_should_agree() {
        let text = "o (10) = sum a\no (10) = sum b\no (60) = sum c\n";
        let loaded = load_text("f".as_ref(), text, parse).unwrap();
        let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0]
                .starts_with("f:3: o (60) = sum c: line 1 makes \"o\" with another frequency")
        );
    }
}
