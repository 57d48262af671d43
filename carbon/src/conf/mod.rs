//! Rule files: Graphite's configuration files, read with line numbers, watched while the server runs.
//!
//! 1. A parser is a function from text and [`Findings`] to a value. It does no I/O, never stops at
//!    the first fault, and puts each fault into the findings: [`Findings::refuse`] for what makes
//!    the whole file unusable, [`Findings::warn`] for what an operator should know.
//! 2. A file with a refusal is never used in part. At the start it refuses the start; later the
//!    value of the last good file stays in effect, and every fault is logged with file, line and key.
//! 3. [`Watched`] holds the value. It is read again when the file changes on disk (a thread of the
//!    store looks every second) and on [`crate::Carbon::reload`] (SIGHUP).
//! 4. Readers take the value whole ([`Watched::get`], or [`Cached`] where that is hot): a reader sees
//!    the old rules or the new ones, never a mixture.
//!
//! ```
//! use carbon::conf::{Findings, load_text};
//!
//! // A file of numbers, one a line.
//! fn parse(text: &str, findings: &mut Findings) -> Vec<u32> {
//!     let mut numbers = Vec::new();
//!     for (line, text) in carbon::conf::lines(text) {
//!         match text.trim().parse() {
//!             Ok(number) => numbers.push(number),
//!             Err(_) => findings.refuse(line, "", format!("{text:?} is not a number"), "\"12\""),
//!         }
//!     }
//!     numbers
//! }
//!
//! let loaded = load_text("numbers.conf".as_ref(), "1\n2\nx\n", parse);
//! assert_eq!(
//!     loaded.unwrap_err()[0].to_string(),
//!     "numbers.conf:3: \"x\" is not a number, write \"12\"",
//! );
//! ```

pub mod ini;
mod watched;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use watched::{Cached, Files, Parse, Watch, Watched};

/// The largest file that is read. Rules of the largest known installations are below 1 MiB.
pub const MAX_BYTES: u64 = 4 << 20;

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
    refused: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Problems of one kind that are kept of one file: a wrong file can have one on each line.
const MAX_PROBLEMS: usize = 100;

impl Findings {
    /// No findings yet in `file`.
    pub fn new(file: &Path) -> Self {
        Self {
            file: file.to_owned(),
            refused: Vec::new(),
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

/// A file that was read and can be used.
#[derive(Debug)]
pub struct Loaded<T> {
    /// What it says.
    pub value: T,
    /// What an operator should know about it.
    pub warnings: Vec<Problem>,
}

/// What a file that does not exist means when it is read for the first time. Later, a file that has
/// disappeared always leaves its last rules in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A fault, as for carbon's storage-schemas.conf.
    Refused,
    /// An empty file, with a warning, as for carbon's storage-aggregation.conf, its lists and its
    /// rewrite rules.
    Empty,
}

/// Reads `path` and parses it.
///
/// # Errors
/// Everything that makes the file unusable: it cannot be read, is not a regular file, is larger than
/// [`MAX_BYTES`], is not UTF-8, or the parser refused something.
pub fn load<T>(
    path: &Path,
    missing: Missing,
    parse: impl FnOnce(&str, &mut Findings) -> T,
) -> Result<Loaded<T>, Vec<Problem>> {
    match read(path) {
        Ok(text) => load_text(path, &text, parse),
        Err(Unread::Missing) if missing == Missing::Empty => {
            let mut loaded = load_text(path, "", parse)?;
            loaded.warnings.push(whole(
                path,
                "the file does not exist; it counts as empty".to_owned(),
            ));
            Ok(loaded)
        }
        Err(unread) => Err(vec![unread.problem(path)]),
    }
}

/// Parses `text`, which was read from `path`.
///
/// # Errors
/// Everything that the parser refused.
pub fn load_text<T>(
    path: &Path,
    text: &str,
    parse: impl FnOnce(&str, &mut Findings) -> T,
) -> Result<Loaded<T>, Vec<Problem>> {
    let mut findings = Findings::new(path);
    let value = parse(text, &mut findings);
    if findings.is_refused() {
        return Err(findings.refused);
    }
    Ok(Loaded {
        value,
        warnings: findings.warnings,
    })
}

/// Why a file could not be read.
enum Unread {
    Missing,
    Because { line: usize, message: String },
}

impl Unread {
    fn because(line: usize, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Because { line, message }
    }

    fn problem(self, path: &Path) -> Problem {
        match self {
            Self::Missing => whole(path, "the file does not exist".to_owned()),
            Self::Because { line, message } => Problem {
                line,
                ..whole(path, message)
            },
        }
    }
}

fn whole(path: &Path, message: String) -> Problem {
    Problem {
        file: path.to_owned(),
        line: 0,
        place: String::new(),
        message,
        accepted: String::new(),
    }
}

/// The text of `path`, without U+FEFF at its beginning.
fn read(path: &Path) -> Result<String, Unread> {
    let refuse = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unread::Missing,
        _ => Unread::because(0, format!("cannot be read: {error}")),
    };
    // A pipe would be waited for.
    let found = std::fs::metadata(path).map_err(refuse)?;
    if !found.is_file() {
        return Err(Unread::because(0, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(refuse)?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(refuse)?;
    if bytes.len() as u64 > MAX_BYTES {
        let message = format!("is larger than {} MiB", MAX_BYTES >> 20);
        return Err(Unread::because(0, message));
    }
    decode(bytes)
}

fn decode(bytes: Vec<u8>) -> Result<String, Unread> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..valid];
        let byte = error.as_bytes().get(valid).copied().unwrap_or_default();
        // Valid up to here, so that nothing is replaced.
        let line = lines(&String::from_utf8_lossy(before)).count_lines().max(1);
        let message = format!("byte 0x{byte:02x} is not UTF-8; convert the file to UTF-8");
        Unread::because(line, message)
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// The lines of `text` with their numbers, counted from 1, ended by LF, CR LF or CR, as Python's
/// text files are.
pub fn lines(text: &str) -> Lines<'_> {
    Lines {
        rest: Some(text),
        number: 0,
    }
}

/// Iterator over the lines of a text, see [`lines`].
#[derive(Clone, Debug)]
pub struct Lines<'a> {
    rest: Option<&'a str>,
    number: usize,
}

impl Lines<'_> {
    fn count_lines(self) -> usize {
        self.last().map_or(0, |(number, _)| number)
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        self.number += 1;
        let Some(end) = rest.find(['\n', '\r']) else {
            self.rest = None;
            return Some((self.number, rest));
        };
        let after = &rest[end..];
        let after = after.strip_prefix("\r\n").unwrap_or(&after[1..]);
        self.rest = Some(after);
        Some((self.number, &rest[..end]))
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

    #[test]
    fn lines_end_as_in_pythons_text_files() {
        let all: Vec<_> = lines("a\r\nb\rc\n\nd").collect();
        assert_eq!(all, [(1, "a"), (2, "b"), (3, "c"), (4, ""), (5, "d")]);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_reported_with_their_line() {
        let Err(unread) = decode(b"a\r\nb\nc caf\xe9\n".to_vec()) else {
            panic!("accepted");
        };
        let shown = unread.problem(Path::new("f")).to_string();
        assert_eq!(
            shown,
            "f:3: byte 0xe9 is not UTF-8; convert the file to UTF-8"
        );
        assert_eq!(decode(b"\xef\xbb\xbf[a]".to_vec()).ok().unwrap(), "[a]");
    }

    #[test]
    fn what_is_not_a_small_regular_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        let message = |missing| match load(&path, missing, |text, _| text.len()) {
            Ok(loaded) => format!("{} {}", loaded.value, loaded.warnings.len()),
            Err(problems) => problems[0].message.clone(),
        };
        assert_eq!(message(Missing::Refused), "the file does not exist");
        assert_eq!(message(Missing::Empty), "0 1");
        std::fs::create_dir(&path).unwrap();
        assert_eq!(message(Missing::Empty), "is not a regular file");
        std::fs::remove_dir(&path).unwrap();
        let file = File::create(&path).unwrap();
        file.set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(message(Missing::Empty), "is larger than 4 MiB");
    }
}
