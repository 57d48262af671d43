//! Why carbon could not do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

/// The result of what can fail here.
pub type Result<T> = std::result::Result<T, Error>;

/// Variants by what the caller would do differently.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system refused.
    #[error("{}: while {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// What the system said.
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
        reason: crate::NameError,
    },
    /// A pattern that would cost too much.
    #[error(transparent)]
    Pattern(#[from] crate::index::PatternError),
    /// Rule files that cannot be used, with everything that is wrong with them.
    #[error("{}", lines(.0))]
    Rules(Vec<crate::conf::Problem>),
    /// A tag expression that says nothing.
    #[error(transparent)]
    Tag(#[from] crate::index::TagError),
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
