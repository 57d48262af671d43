//! A rule file as text, and its lines.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::problem::{Findings, Problem};

/// The largest file that is read. Rules of the largest known installations are below 1 MiB.
pub const MAX_BYTES: u64 = 4 << 20;

/// A file that was read and can be used.
#[derive(Debug)]
pub struct Loaded<T> {
    /// What it says.
    pub value: T,
    /// Lines that have no effect, see [`Findings::ignore`].
    pub ignored: Vec<Problem>,
    /// What an operator should know about it.
    pub warnings: Vec<Problem>,
}

impl<T> Loaded<T> {
    /// Everything that the log says of the file.
    pub fn logged(&self) -> impl Iterator<Item = &Problem> {
        self.ignored.iter().chain(&self.warnings)
    }
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
        Err(Unread::Missing(_)) if missing == Missing::Empty => {
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

/// The text of `path`, without U+FEFF at its beginning: a regular file of at most [`MAX_BYTES`] in UTF-8.
///
/// # Errors
/// Why it cannot be read, to be put after its name.
pub fn text(path: &Path) -> Result<String, String> {
    read(path).map_err(Unread::sentence)
}

/// As [`text`], but `path` may also be a pipe, which is waited for.
///
/// # Errors
/// As [`text`].
pub fn text_or_pipe(path: &Path) -> Result<String, String> {
    read_any(path).map_err(Unread::sentence)
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
        ignored: findings.ignored,
        warnings: findings.warnings,
    })
}

/// Why a file could not be read.
enum Unread {
    Missing(io::Error),
    Because { line: usize, message: String },
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing(error),
            _ => Self::because(0, format!("cannot be read: {error}")),
        }
    }
}

impl Unread {
    fn because(line: usize, message: impl Into<String>) -> Self {
        let message = message.into();
        Self::Because { line, message }
    }

    fn sentence(self) -> String {
        match self {
            Self::Missing(error) => format!("cannot be read: {error}"),
            Self::Because { line: 0, message } => message,
            Self::Because { line, message } => format!("line {line}: {message}"),
        }
    }

    fn problem(self, path: &Path) -> Problem {
        match self {
            Self::Missing(_) => whole(path, "the file does not exist".to_owned()),
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

/// The text of the regular file `path`, without U+FEFF at its beginning.
fn read(path: &Path) -> Result<String, Unread> {
    // A pipe would be waited for.
    let found = std::fs::metadata(path).map_err(Unread::from)?;
    if !found.is_file() {
        return Err(Unread::because(0, "is not a regular file"));
    }
    read_any(path)
}

/// As [`read`], of anything that can be read to its end.
fn read_any(path: &Path) -> Result<String, Unread> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)?;
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
