//! rewrite-rules.conf: names that are changed on their way in.
//!
//! Read from carbon 1.1.10's `rewrite.py` and compared with recordings of carbon:
//!
//! - `[pre]` and `[post]` are the headings. The rules of `[pre]` are applied to a name before
//!   aggregation rules see it, those of `[post]` afterwards; all of a section, one after the other.
//! - A rule is `pattern = replacement`, where every match of the pattern is replaced as Python's
//!   `re.sub` does. The replacement may be empty. Lines that begin with `#` are comments.
//! - A line that is neither, a rule whose pattern is not a regular expression, and rules outside of the
//!   two sections are ignored. The server warns of them, and `plumbago config --check` fails.
//!
//! Different from carbon:
//!
//! - A rule is cut at its first `=` with white space on both sides, so that a pattern can hold one
//!   (`;dc=ams = ;dc=lon`). Without such a separator it is cut at the first `=`, as in carbon.
//! - A replacement that names a missing group or has an unknown escape refuses the file (in carbon it
//!   costs each point that the rule matches), as does a comment after a rule (in carbon it becomes
//!   part of the names).

use std::borrow::Cow;

use super::faults::Faults;
use crate::conf::{Findings, lines};
use crate::pattern::{PYTHON, Pattern, PatternError, Replacement};
use crate::patterns::Patterns;

/// The longest name that a rule makes. No series may have such a name (`carbon::series`).
const LONGEST: usize = 16 << 10;

/// A file's rules.
#[derive(Debug, Default)]
pub struct Rewrites {
    /// Before aggregation.
    pub pre: Section,
    /// After aggregation.
    pub post: Section,
}

/// The rules of a section, in the order in which they are applied.
#[derive(Debug, Default)]
pub struct Section {
    rules: Vec<Rewrite>,
    search: Patterns,
}

#[derive(Debug)]
struct Rewrite {
    pattern: Pattern,
    replacement: Replacement,
}

/// The accepted form of a line.
const RULE: &str = "\"pattern = replacement\"";

/// Which section a line belongs to.
#[derive(Clone, Copy)]
enum Place {
    Before,
    Pre,
    Post,
    Unknown,
}

/// Reads the text of rewrite-rules.conf.
pub fn parse(text: &str, findings: &mut Findings) -> Rewrites {
    let mut rewrites = Rewrites::default();
    let mut place = Place::Before;
    for (number, line) in lines(text) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(heading) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            place = match heading.to_lowercase().as_str() {
                "pre" => Place::Pre,
                "post" => Place::Post,
                _ => {
                    let wrong = format!(
                        "{line:?} is not a section that carbon knows, its rules are ignored"
                    );
                    findings.ignore(number, "", wrong, "\"[pre]\" or \"[post]\"");
                    Place::Unknown
                }
            };
            continue;
        }
        let Some((pattern, replacement)) = cut(line) else {
            let wrong = format!("{line:?} is neither a section nor a rule and is ignored");
            findings.ignore(number, "", wrong, RULE);
            continue;
        };
        let Some(rewrite) = read(number, pattern, replacement, findings) else {
            continue;
        };
        match place {
            Place::Pre => rewrites.pre.rules.push(rewrite),
            Place::Post => rewrites.post.rules.push(rewrite),
            Place::Before => findings.ignore(
                number,
                pattern,
                "the rule is above the first section and is ignored",
                "\"[pre]\" or \"[post]\" above it",
            ),
            // What is said of the heading holds for all of them.
            Place::Unknown => {}
        }
    }
    for section in [&mut rewrites.pre, &mut rewrites.post] {
        let texts = section.rules.iter().map(|rule| rule.pattern.text());
        section.search = Patterns::new(texts);
    }
    rewrites
}

/// Pattern and replacement of a line: see the head of this file.
fn cut(line: &str) -> Option<(&str, &str)> {
    let is_separate = |at: &usize| {
        let (before, after) = (&line[..*at], &line[at + 1..]);
        let blank = |c: Option<char>| c.is_none_or(char::is_whitespace);
        blank(before.chars().next_back()) && blank(after.chars().next())
    };
    let mut equals = line.match_indices('=').map(|(at, _)| at);
    let first = equals.clone().next()?;
    let at = equals.find(is_separate).unwrap_or(first);
    Some((line[..at].trim(), line[at + 1..].trim()))
}

fn read(
    number: usize,
    pattern: &str,
    replacement: &str,
    findings: &mut Findings,
) -> Option<Rewrite> {
    if super::lists::has_comment(replacement) {
        let wrong = format!("the replacement {replacement:?} has a comment in it");
        findings.refuse(number, pattern, wrong, "the comment on a line of its own");
        return None;
    }
    let compiled = match Pattern::new(pattern) {
        Ok(compiled) => compiled,
        Err(error) => {
            let wrong = format!("{error}; the rule is ignored");
            findings.ignore(number, pattern, wrong, PYTHON);
            return None;
        }
    };
    match compiled.replacement(replacement) {
        Ok(replacement) => Some(Rewrite {
            pattern: compiled,
            replacement,
        }),
        Err(error) => {
            let accepted = "\"\\1\" for a group, \"\\\\\" for a backslash";
            findings.refuse(number, pattern, error.to_string(), accepted);
            None
        }
    }
}

impl Section {
    /// Whether it has no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many rules it has.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// What the rules make of `name`. A rule that cannot be applied within bounds is skipped.
    pub fn apply<'n>(&self, name: Cow<'n, str>, faults: &mut Faults) -> Cow<'n, str> {
        let mut name = name;
        // The first rule that matches makes another name, which any rule behind it may match.
        let first = self.search.candidates(&name).first().copied();
        let from = first.unwrap_or(self.rules.len());
        for Rewrite {
            pattern,
            replacement,
        } in &self.rules[from..]
        {
            let replaced = pattern.replace(&name, replacement, LONGEST, || true);
            let replaced: Result<_, PatternError> = replaced;
            if let Some(Some(replaced)) = faults.note(replaced) {
                name = Cow::Owned(replaced);
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::load_text;
    use proptest::prelude::*;

    fn rewrites(text: &str) -> (Rewrites, Vec<String>) {
        let loaded = load_text("f".as_ref(), text, parse).unwrap();
        let ignored = loaded.logged().map(ToString::to_string).collect();
        (loaded.value, ignored)
    }

    fn pre(rules: &str, name: &str) -> String {
        let (rewrites, warnings) = rewrites(&format!("[pre]\n{rules}\n"));
        assert_eq!(warnings, [""; 0]);
        let name = rewrites.pre.apply(name.into(), &mut Faults::default());
        name.into_owned()
    }

    #[test]
    fn a_rule_is_cut_at_the_separate_equals_sign() {
        assert_eq!(pre(";dc=ams = ;dc=lon", "a;dc=ams"), "a;dc=lon");
        assert_eq!(pre("^a\\.=b.", "a.x"), "b.x");
        assert_eq!(pre("(?<=\\.)cpu\t=\tCPU", "cpu.cpu"), "cpu.CPU");
        assert_eq!(pre(";dc=ams =", "a;dc=ams;h=b"), "a;h=b");
        assert_eq!(pre("= x", "ab"), "xaxbx");
    }

    #[test]
    fn all_rules_are_applied_in_their_order() {
        assert_eq!(pre("^a = b\n^b = c\n^a = d", "a"), "c");
        let (rewrites, _) = rewrites("[post]\na = b\n[PRE]\nb = c\n");
        let mut faults = Faults::default();
        assert_eq!(rewrites.pre.apply("ab".into(), &mut faults), "ac");
        assert_eq!(rewrites.post.apply("ab".into(), &mut faults), "bb");
    }

    #[test]
    fn what_carbon_ignores_is_ignored_and_named() {
        let text = "^z = y\n[pre] # first\n[pre]\n^a -> b\n^(a = b\n[ab]\\. = [x]\n^c = d\n";
        let (rewrites, warnings) = rewrites(text);
        assert!(rewrites.pre.is_empty() && rewrites.post.is_empty());
        let lines: Vec<&str> = warnings.iter().map(|w| &w[..4]).collect();
        assert_eq!(lines, ["f:1:", "f:2:", "f:4:", "f:5:", "f:6:"]);
        assert_eq!(
            warnings[2],
            "f:4: \"^a -> b\" is neither a section nor a rule and is ignored, write \"pattern = replacement\""
        );
    }

    #[test]
    fn replacements_are_checked_when_the_file_is_read() {
        let text = "[pre]\n^a = \\1\n^a = \\q\n^(a) = \\1 # x\n^a = b#c\n";
        let problems = load_text("f".as_ref(), text, parse).unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "f:2: ^a: \"\\\\1\": the pattern has no group \"1\", write \"\\1\" for a group, \"\\\\\" for a backslash",
                "f:3: ^a: \"\\\\q\": bad escape \\q, write \"\\1\" for a group, \"\\\\\" for a backslash",
                "f:4: ^(a): the replacement \"\\\\1 # x\" has a comment in it, write the comment on a line of its own",
            ]
        );
    }

    #[test]
    fn a_rule_that_needs_too_many_steps_is_skipped_and_counted() {
        let (rewrites, _) = rewrites("[pre]\n(a|a)*\\1c = x\n^a = b\n");
        let mut faults = Faults::default();
        let name = rewrites.pre.apply("a".repeat(60).into(), &mut faults);
        assert_eq!((name.starts_with("ba"), faults.count), (true, 1));
    }

    proptest! {
        #[test]
        fn a_search_for_the_first_rule_changes_nothing(
            rules in prop::collection::vec(("(a|b|ab|\\.c|\\(\\?!a\\)b|\\^a|c\\$)", "[abc.]{0,2}"), 0..6),
            name in "[abc.]{0,8}",
        ) {
            let lines: Vec<String> = rules.iter().map(|(from, to)| format!("{from} = {to}")).collect();
            let (rewrites, _) = rewrites(&format!("[pre]\n{}\n", lines.join("\n")));
            let mut expected = name.clone();
            for (from, to) in &rules {
                let pattern = Pattern::new(from).unwrap();
                let replacement = pattern.replacement(to).unwrap();
                let replaced = pattern.replace(&expected, &replacement, LONGEST, || true).unwrap();
                expected = replaced.unwrap_or(expected);
            }
            let got = rewrites.pre.apply(name.into(), &mut Faults::default());
            prop_assert_eq!(got, expected);
        }
    }
}
