//! What verbs say on standard output and standard error, which may be a pipe that nobody reads any more, a terminal that
//! is gone, or a file on a full disk.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

/// Writes a line to standard error, if that can be written. Unlike `eprintln!` it does not end the process otherwise.
pub fn complain(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes `text` to standard output. That nobody reads it any more (`| head`) is no error: the caller goes on to its
/// exit code.
///
/// # Errors
/// Standard output cannot be written, as on a full disk.
pub fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        said => said,
    }
}
