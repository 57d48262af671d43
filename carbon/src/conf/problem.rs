//! What is wrong with a rule file, or doubtful about it.

use std::fmt;
use std::path::{Path, PathBuf};

/// Something that is wrong with a rule file, or that an operator should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named in the configuration.
    pub file: PathBuf,
    /// The line, counted from 1; 0 if the problem concerns the file as a whole.
    pub line: usize,
    /// The section, key or rule, such as `[stats] retentions`; may be empty.
    pub place: String,
    /// What is wrong, with the refused value: lower case, no full stop.
    pub message: String,
    /// What to write instead; empty if the message states it already.
    pub accepted: String,
}

impl fmt::Display for Problem {
    /// One line: `FILE:LINE: PLACE: MESSAGE, write ACCEPTED`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            place,
            message,
            accepted,
        } = self;
        write!(f, "{}", file.display())?;
        if *line > 0 {
            write!(f, ":{line}")?;
        }
        if !place.is_empty() {
            write!(f, ": {}", place.escape_debug())?;
        }
        write!(f, ": {message}")?;
        if !accepted.is_empty() {
            write!(f, ", write {accepted}")?;
        }
        Ok(())
    }
}

/// What a parser has found in one file, in the order in which it was found.
#[derive(Debug)]
pub struct Findings {
    file: PathBuf,
    pub(super) refused: Vec<Problem>,
    pub(super) ignored: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// Problems of one kind that are kept of one file: a wrong file can have one on each line.
const MAX_PROBLEMS: usize = 100;

impl Findings {
    /// No findings yet in `file`.
    pub fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            refused: Vec::new(),
            ignored: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The file cannot be used: what is wrong in `line` at `place`, and what to write instead
    /// (empty if the message states it).
    pub fn refuse(
        &mut self,
        line: usize,
        place: impl Into<String>,
        message: impl Into<String>,
        accepted: impl Into<String>,
    ) {
        let problem = self.problem(line, place.into(), message.into(), accepted.into());
        keep(&mut self.refused, problem);
    }

    /// The file can be used without `line`, which has no effect in carbon either: what is wrong at
    /// `place`, and what to write instead. The server logs a warning; `plumbago config --check` fails.
    pub fn ignore(
        &mut self,
        line: usize,
        place: impl Into<String>,
        message: impl Into<String>,
        accepted: impl Into<String>,
    ) {
        let problem = self.problem(line, place.into(), message.into(), accepted.into());
        keep(&mut self.ignored, problem);
    }

    /// The file can be used, but an operator should know this.
    pub fn warn(&mut self, line: usize, place: impl Into<String>, message: impl Into<String>) {
        let problem = self.problem(line, place.into(), message.into(), String::new());
        keep(&mut self.warnings, problem);
    }

    /// Whether the file cannot be used.
    pub fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    fn problem(&self, line: usize, place: String, message: String, accepted: String) -> Problem {
        Problem {
            file: self.file.clone(),
            line,
            place,
            message,
            accepted,
        }
    }
}

/// Keeps the first problems of a file, and says that there are more.
fn keep(problems: &mut Vec<Problem>, problem: Problem) {
    match problems.len() {
        n if n < MAX_PROBLEMS => problems.push(problem),
        MAX_PROBLEMS => problems.push(Problem {
            line: 0,
            place: String::new(),
            message: "there are further problems".to_owned(),
            accepted: String::new(),
            ..problem
        }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_one_line_with_file_line_and_key() {
        let mut findings = Findings::new(Path::new("/etc/graphite/storage-schemas.conf"));
        findings.refuse(12, "[stats] retentions", "\"x\" is not one", "\"10s:6h\"");
        findings.refuse(0, "", "cannot be read", "");
        findings.refuse(3, "[a\nb]", "is odd", "");
        let shown: Vec<String> = findings.refused.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "/etc/graphite/storage-schemas.conf:12: [stats] retentions: \"x\" is not one, write \"10s:6h\"",
                "/etc/graphite/storage-schemas.conf: cannot be read",
                "/etc/graphite/storage-schemas.conf:3: [a\\nb]: is odd",
            ]
        );
    }

    #[test]
    fn a_file_with_a_fault_on_each_line_is_described_in_bounds() {
        let mut findings = Findings::new(Path::new("f"));
        for line in 1..10_000 {
            findings.refuse(line, "", "is wrong", "");
        }
        assert_eq!(findings.refused.len(), MAX_PROBLEMS + 1);
        assert_eq!(
            findings.refused[MAX_PROBLEMS].to_string(),
            "f: there are further problems"
        );
    }
}
