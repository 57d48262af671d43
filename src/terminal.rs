//! What verbs say on standard output and standard error, which may be a pipe that nobody reads any more, a terminal that
//! is gone, or a file on a full disk.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// For how long a reader of standard error may take no line.
const PATIENCE: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Writes a line to standard error, if that can be written. Unlike `eprintln!` it does not end the process otherwise,
/// nor wait for ever for a reader that hangs.
pub fn complain(line: impl Display) {
    let stderr = io::stderr();
    let mut writable = [PollFd::new(&stderr, PollFlags::OUT)];
    if poll(&mut writable, Some(&PATIENCE)) == Ok(0) {
        return;
    }
    let _ = writeln!(stderr.lock(), "{line}");
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
