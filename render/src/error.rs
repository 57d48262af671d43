//! What can go wrong while answering a request: variants by the answer to the client.

/// Shorthand used throughout the crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request is wrong: a 400 with this sentence.
    #[error("{0}")]
    Refused(String),
    /// A target does not parse, or (with `strict=1`) not wholly: a 400 with the position.
    #[error("{message} at character {position}")]
    Target {
        /// What is wrong there.
        message: String,
        /// The target it is about.
        target: String,
        /// Counted in bytes from the start of the target.
        position: usize,
    },
    /// The answer would pass one of the server's limits: a 413 that names the key.
    #[error("{what}, more than {key} = {limit} allows")]
    Limit {
        /// What passed it, with its number.
        what: String,
        /// The configuration key.
        key: &'static str,
        /// Its value.
        limit: usize,
    },
    /// The time allowed for a request is over: a 503.
    #[error("the query took longer than render.timeout allows")]
    Timeout,
    /// The client has gone: the answer is not sent to anybody.
    #[error("the client closed the connection")]
    Cancelled,
    /// The store failed: a 500 with a counter.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// A refusal with this sentence.
    pub fn refused(sentence: impl Into<String>) -> Self {
        Self::Refused(sentence.into())
    }
}

impl From<crate::events::Error> for Error {
    fn from(error: crate::events::Error) -> Self {
        use crate::events::Error as Event;
        match error {
            Event::Refused(sentence) => Self::Refused(sentence),
            Event::NotFound(_) | Event::TooMany(_) => Self::Refused(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}
