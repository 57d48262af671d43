//! What can stand in the way of starting or stopping.

use std::io;
use std::path::PathBuf;

/// Why the server could not start, or could not save what it had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A socket could not be made ready.
    #[error("statsd: {what}")]
    Socket {
        /// What was being done to which socket.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("statsd: a thread could not be started")]
    Thread(#[source] io::Error),
    /// There is no memory for the first tables.
    #[error("statsd: no memory for its tables")]
    Memory(#[source] io::Error),
    /// There is no tokio runtime to serve streams and the management interface on.
    #[error("statsd: started outside a tokio runtime")]
    NoRuntime,
    /// The file with the unfinished interval could not be read or written.
    #[error("{path}: while {action} the unfinished statsd interval")]
    State {
        /// The file.
        path: PathBuf,
        /// Reading or writing.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
