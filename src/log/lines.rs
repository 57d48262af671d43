//! Lines of the log on their way to standard error.
//!
//! 1. A thread writes them, and who logs waits until its line is written: what is logged is there before
//!    what comes next.
//! 2. Standard error may be a pipe whose reader hangs. After [`PATIENCE`] nobody waits any more, until the
//!    thread has caught up. [`WAITING`] lines are kept meanwhile; others are dropped and counted.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};
use tracing_subscriber::fmt::MakeWriter;

/// For how long a line is waited for.
const PATIENCE: Duration = Duration::from_millis(100);
/// Most lines that wait to be written.
const WAITING: usize = 256;

/// Where lines are handed on.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    queue: Sender<Line>,
    /// Whether the thread does not come to its end.
    is_behind: Arc<AtomicBool>,
    dropped: &'static AtomicU64,
}

#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    written: Sender<()>,
}

impl Lines {
    /// Starts the thread that writes to standard error. Lines that are dropped are added to `dropped`.
    ///
    /// # Errors
    /// There is no descriptor, or no thread.
    pub(super) fn start(dropped: &'static AtomicU64) -> io::Result<Self> {
        // Not by way of `std::io::stderr`, whose lock would be held while the reader does not read.
        let to = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Self::to(to, dropped)
    }

    fn to(to: File, dropped: &'static AtomicU64) -> io::Result<Self> {
        let (queue, lines) = channel::bounded(WAITING);
        let is_behind = Arc::new(AtomicBool::new(false));
        let behind = Arc::clone(&is_behind);
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(to, &lines, &behind, dropped))?;
        Ok(Self {
            queue,
            is_behind,
            dropped,
        })
    }
}

/// Writes `lines` until no more come.
fn write_all(mut to: File, lines: &Receiver<Line>, is_behind: &AtomicBool, dropped: &AtomicU64) {
    let mut said = 0;
    for Line { text, written } in lines {
        // A log that cannot be written stops nothing.
        let _ = to.write_all(&text);
        let _ = written.send(());
        if lines.is_empty() {
            is_behind.store(false, Ordering::Relaxed);
            let all = dropped.load(Ordering::Relaxed);
            if all > said {
                let missing = all - said;
                let _ = writeln!(
                    to,
                    "{missing} lines of the log are missing here: standard error was not read"
                );
                said = all;
            }
        }
    }
}

impl Write for &Lines {
    /// Writes one whole line.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let (written, done) = channel::bounded(1);
        let line = Line {
            text: text.to_vec(),
            written,
        };
        if self.queue.try_send(line).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        } else if !self.is_behind.load(Ordering::Relaxed) && done.recv_timeout(PATIENCE).is_err() {
            self.is_behind.store(true, Ordering::Relaxed);
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::time::Instant;

    use super::*;

    #[test]
    fn lines_that_nobody_reads_are_dropped_and_counted() {
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let (reader, writer) = io::pipe().unwrap();
        let lines = Lines::to(File::from(std::os::fd::OwnedFd::from(writer)), &DROPPED).unwrap();
        let mut line = vec![b'x'; 64 << 10];
        line.push(b'\n');
        // The pipe holds one of them at most.
        let n_lines = WAITING + 10;
        let began = Instant::now();
        for _ in 0..n_lines {
            (&lines).write_all(&line).unwrap();
        }
        assert!(began.elapsed() < PATIENCE * n_lines as u32 / 2);
        let dropped = DROPPED.load(Ordering::Relaxed);
        assert!((1..10).contains(&dropped), "{dropped}");
        let mut reader = BufReader::new(reader);
        let mut read = String::new();
        for _ in 0..n_lines as u64 - dropped {
            read.clear();
            reader.read_line(&mut read).unwrap();
            assert_eq!(read.len(), line.len());
        }
        read.clear();
        reader.read_line(&mut read).unwrap();
        assert!(
            read.starts_with(&format!("{dropped} lines of the log are missing here")),
            "{read}"
        );
        // Then lines are waited for as before.
        while lines.is_behind.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        (&lines).write_all(b"later\n").unwrap();
        read.clear();
        reader.read_line(&mut read).unwrap();
        assert_eq!(read, "later\n");
    }
}
