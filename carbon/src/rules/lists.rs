//! whitelist.conf and blacklist.conf: which names are received.
//!
//! Read from carbon 1.1.10's `regexlist.py` and compared with recordings of carbon: a regular
//! expression a line, which matches anywhere in the name; spaces around it do not belong to it; lines
//! that begin with `#` are comments.
//!
//! Different from carbon:
//!
//! - A line that is not a regular expression refuses the file (carbon ignores the line, so that a list
//!   of one line with a typing error lets every name pass).
//! - A `#` after spaces begins a comment, too; one after a pattern and a space refuses the file.

use super::faults::Faults;
use crate::conf::{Findings, lines};
use crate::pattern::{PYTHON, Pattern};
use crate::patterns::Patterns;

/// The patterns of a list.
#[derive(Debug, Default)]
pub struct List {
    patterns: Vec<Pattern>,
    search: Patterns,
}

/// Reads the text of whitelist.conf: a list that allows every name if it has no pattern.
pub fn parse_allowed(text: &str, findings: &mut Findings) -> List {
    let list = parse(text, findings);
    if list.is_empty() {
        findings.warn(0, "", "the list has no pattern: every name is allowed");
    }
    list
}

/// Reads the text of a list.
pub fn parse(text: &str, findings: &mut Findings) -> List {
    let mut patterns = Vec::new();
    for (number, line) in lines(text) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if has_comment(line) {
            let wrong = format!("{line:?} has a comment after the pattern");
            findings.refuse(number, "", wrong, "the comment on a line of its own");
            continue;
        }
        match Pattern::new(line) {
            Ok(pattern) => patterns.push(pattern),
            Err(error) => findings.refuse(number, "", error.to_string(), PYTHON),
        }
    }
    let search = Patterns::new(patterns.iter().map(Pattern::text));
    List { patterns, search }
}

impl List {
    /// Whether it has no pattern.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// How many patterns it has.
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Whether any pattern matches somewhere in `name`.
    pub fn matches(&self, name: &str, faults: &mut Faults) -> bool {
        self.search.any(name, |number| {
            let matches = self.patterns[number].is_in(name);
            faults.note(matches).unwrap_or(false)
        })
    }
}

/// Whether `text`, a pattern or a replacement, is followed by a comment.
pub(super) fn has_comment(text: &str) -> bool {
    let mut before = None;
    text.chars().any(|c| {
        let comment = c == '#' && before.is_some_and(char::is_whitespace);
        before = Some(c);
        comment
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::load_text;

    fn list(text: &str) -> Result<List, Vec<String>> {
        match load_text("f".as_ref(), text, parse) {
            Ok(loaded) => Ok(loaded.value),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect()),
        }
    }

    #[test]
    fn comments_and_blank_lines_are_skipped() {
        let list = list("# one\n\n  # two\n \t^a\\. \r\n\\#x\n").unwrap();
        let matches = |name| list.matches(name, &mut Faults::default());
        assert!(matches("a.b") && matches("b#x"));
        assert!(!matches("b.a.") && !matches("# one"));
        assert!(super::parse("#\n", &mut Findings::new("f".as_ref())).is_empty());
    }

    #[test]
    fn bad_lines_refuse_the_file_by_their_number() {
        let problems = list("^a\n*.b\n^c # all c\n(\n").unwrap_err();
        assert_eq!(problems.len(), 3);
        assert!(problems[0].starts_with("f:2: \"*.b\" is not a regular expression"));
        assert_eq!(
            problems[1],
            "f:3: \"^c # all c\" has a comment after the pattern, write the comment on a line of its own"
        );
        assert!(problems[2].starts_with("f:4: "));
    }
}
