//! What storage-schemas.conf and storage-aggregation.conf have in common: sections with a pattern, of
//! which the first that matches a name applies.

use super::first_match::FirstMatch;
use crate::conf::Findings;
use crate::conf::ini::{self, Entry, Section};
use crate::pattern::{PYTHON, Pattern};

/// The rules of a file.
#[derive(Debug)]
pub struct RuleList<R> {
    rules: Vec<R>,
    matcher: FirstMatch,
}

impl<R> Default for RuleList<R> {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            matcher: FirstMatch::default(),
        }
    }
}

impl<R> RuleList<R> {
    /// Reads `text`, whose sections may have the keys `known`; `rule` makes a rule of a section. Empty if
    /// anything is refused.
    pub(super) fn read(
        text: &str,
        known: &[&str],
        findings: &mut Findings,
        rule: impl Fn(Section, &mut Findings) -> Option<(R, Pattern)>,
    ) -> Self {
        let sections = ini::parse(text, known, findings).into_iter();
        let read: Vec<_> = sections
            .filter_map(|section| rule(section, findings))
            .collect();
        if findings.is_refused() {
            return Self::default();
        }
        let (rules, patterns) = read.into_iter().unzip();
        Self {
            rules,
            matcher: FirstMatch::new(patterns),
        }
    }

    /// The first rule whose pattern matches in `name`, which is in canonical form.
    pub fn find(&self, name: &str) -> Option<&R> {
        self.matcher.find(name).map(|number| &self.rules[number])
    }

    /// All rules in order.
    pub fn rules(&self) -> &[R] {
        &self.rules
    }

    /// As [`RuleList::find`], by trying one pattern after the other.
    #[cfg(any(test, fuzzing))]
    pub fn find_slowly(&self, name: &str) -> Option<&R> {
        let number = self.matcher.find_slowly(name);
        number.map(|number| &self.rules[number])
    }
}

/// Compiles the pattern of a section; what is wrong or doubtful about it goes to the findings.
pub(super) fn compile(
    section: &Section,
    entry: &Entry,
    findings: &mut Findings,
) -> Option<Pattern> {
    let place = section.place(&entry.key);
    let text = &entry.value;
    // In an expression with the flag x, white space and comments mean nothing.
    let has_comments = text.contains("(?") && text.contains('x');
    if let Some(wrong) = comment(text).filter(|_| !has_comments) {
        findings.refuse(entry.line, place, wrong, "the comment on a line of its own");
        return None;
    }
    if entry.continued > 0 {
        let warning = format!(
            "line {} is indented and continues the pattern, which then has a line break in it; no \
             name matches that",
            entry.continued
        );
        findings.warn(entry.line, place.clone(), warning);
    }
    let quoted = |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if quoted('"') || quoted('\'') {
        let warning =
            format!("the quotes are part of the pattern {text}, as in carbon; remove them");
        findings.warn(entry.line, place.clone(), warning);
    }
    match Pattern::new(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            findings.refuse(entry.line, place, error.to_string(), PYTHON);
            None
        }
    }
}

/// What is wrong with a value that ends in a comment.
pub(super) fn comment(value: &str) -> Option<String> {
    let mut before = ' ';
    for (at, c) in value.char_indices() {
        if matches!(c, '#' | ';') && before.is_whitespace() && at > 0 {
            return Some(format!(
                "{:?} after the value would be part of it",
                &value[at..]
            ));
        }
        before = c;
    }
    None
}

/// Warns of keys that have no effect; `unused` says why.
pub(super) fn other_keys(
    section: &Section,
    unused: impl Fn(&str) -> Option<String>,
    findings: &mut Findings,
) {
    for entry in &section.entries {
        if let Some(why) = unused(&entry.key) {
            findings.warn(entry.line, section.place(&entry.key), why);
        }
    }
}

/// What is said of an unknown key, and of the known one that is `nearest` to it.
pub(super) fn unknown(nearest: Option<&str>) -> String {
    match nearest {
        Some(known) => format!("is unknown and has no effect; did you mean {known}?"),
        None => "is unknown and has no effect".to_owned(),
    }
}
