//! The errors of carbon.

use std::io;
use std::path::{Path, PathBuf};

use crate::datapoint::NameError;

/// A result with carbon's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A route cannot be used.
    #[error("{0}")]
    Relay(String),
    /// A system call failed.
    #[error("{}: while {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operation.
        action: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// A whisper file could not be read.
    #[error(transparent)]
    Whisper(#[from] whisper::Error),
    /// A name that no series can have.
    #[error("{name:?}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// Why.
        reason: NameError,
    },
    /// The store must not be changed.
    #[error("the store is read-only")]
    ReadOnly,
    /// A pattern that would cost too much.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// Rule files that cannot be used, with everything that is wrong with them.
    #[error("{}", lines(.0))]
    Rules(Vec<crate::conf::Problem>),
    /// A tag expression that is refused.
    #[error(transparent)]
    Tag(#[from] TagError),
}

/// Why a pattern was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PatternError {
    /// Too many alternatives.
    #[error("the braces of {pattern:?} stand for more than {most} alternatives")]
    Alternatives {
        /// The node of the pattern that has the braces.
        pattern: String,
        /// The most that are allowed.
        most: usize,
    },
    /// Too long.
    #[error("the pattern is longer than {most} bytes")]
    TooLong {
        /// The most bytes that are allowed.
        most: usize,
    },
    /// Too many `**`.
    #[error("more than {most} nodes of the pattern are `**`")]
    Globstars {
        /// The most that are allowed.
        most: usize,
    },
    /// The caller ended the search.
    #[error("the search was ended")]
    Ended,
}

/// Why a tag expression was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TagError {
    /// Not of the form `tag=value`, `tag!=value`, `tag=~regex`, `tag!=~regex`.
    #[error("invalid tagspec {0:?}")]
    Malformed(String),
    /// The regular expression is invalid.
    #[error("invalid regular expression in tagspec {spec:?}: {reason}")]
    Regex {
        /// The expression.
        spec: String,
        /// The reason.
        reason: String,
    },
    /// Every expression also matches series that do not carry its tag.
    #[error("at least one tagspec must not match the empty string")]
    MatchesEverything,
    /// The caller ended the search.
    #[error("the search was ended")]
    Ended,
}

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str, source: io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            action,
            source,
        }
    }
}

fn lines(problems: &[crate::conf::Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}
