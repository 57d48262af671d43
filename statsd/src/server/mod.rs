//! The threads of a server, and how they start and stop.
//!
//! ```text
//! socket ─ receiver ┐                        ┌ sink (carbon in this process)
//! socket ─ receiver ┼─ reports ─ aggregator ─┼ remote outputs, a thread each
//! streams ─ receiver┘      ▲                 └ console, a thread
//!                       queries of the management interface
//! ```
//!
//! [`start`] makes these from the options, [`aggregator`] ends the intervals, [`covered`] knows which were missed, [`sockets`] has the
//! thread of a datagram socket, [`listener`](crate::listener) that of all streams.

mod aggregator;
mod covered;
mod key_flush;
mod sockets;
mod start;

use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use carbon::Sink;
use crossbeam::channel;

use crate::death::OnDeath;
use crate::error::Error;
use crate::events::EventSink;
use crate::options::Options;
use crate::stats::Stats;
use aggregator::Control;
#[cfg(any(test, fuzzing))]
pub(crate) use start::receiver_options;
use start::{Running, Start};

/// Bound sockets, handed in. Streams and the management interface may be non-blocking or not.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Datagrams over IPv4 or IPv6, a thread each.
    pub udp: Vec<UdpSocket>,
    /// Lines over TCP.
    pub tcp: Vec<TcpListener>,
    /// Datagrams over Unix sockets, a thread each.
    pub unix: Vec<UnixDatagram>,
    /// Lines over Unix sockets.
    pub unix_stream: Vec<UnixListener>,
    /// The management interface.
    pub admin: Vec<TcpListener>,
}

impl Sockets {
    fn has_streams(&self) -> bool {
        !self.tcp.is_empty() || !self.unix_stream.is_empty()
    }

    fn needs_runtime(&self) -> bool {
        self.has_streams() || !self.admin.is_empty()
    }

    /// How many receiving threads they need.
    fn receivers(&self) -> usize {
        self.udp.len() + self.unix.len() + usize::from(self.has_streams())
    }
}

/// A running StatsD server. See the head of this crate.
#[derive(Debug)]
pub struct Server(Running);

impl Server {
    /// Starts the server on `sockets`.
    ///
    /// Values go to `sink` if `options.output` has `embedded`; events go to `events`. What
    /// `state_file` holds of an interval that was cut off is continued; the file is deleted before the first flush, so that a
    /// start that fails costs nothing.
    ///
    /// `on_death` is called once, with a thread's name, if a thread or task of the server ends by a
    /// panic. The server goes on without it, but does not do all of its work any more; it can
    /// still be stopped.
    ///
    /// Must be called within a tokio runtime if there are streams or management sockets.
    ///
    /// # Errors
    /// A socket cannot be made ready, or a thread not started. A state file that cannot be read is
    /// only logged, and left where it is.
    pub fn start(
        options: Options,
        sockets: Sockets,
        sink: Arc<dyn Sink>,
        events: Arc<dyn EventSink>,
        state_file: Option<PathBuf>,
        on_death: OnDeath,
    ) -> Result<Self, Error> {
        let runtime = match tokio::runtime::Handle::try_current() {
            Ok(runtime) => Some(runtime),
            Err(_) if sockets.needs_runtime() => return Err(Error::NoRuntime),
            Err(_) => None,
        };
        let mut start = Start::new(options, sockets.receivers(), on_death);
        let outputs = start.open_outputs(sink)?;
        let aggregator = start.restore_state(state_file.as_deref())?;
        let queries = start.spawn_helpers(events)?;
        start.spawn_datagram_receivers(sockets.udp, sockets.unix)?;
        if let Some(runtime) = &runtime {
            start.spawn_streams(runtime, sockets.tcp, sockets.unix_stream)?;
            start.spawn_admin(runtime, sockets.admin, queries.0)?;
        }
        let running = start.spawn_aggregator(aggregator, outputs, queries.1, state_file)?;
        Ok(Self(running))
    }

    /// What the server has counted since its start.
    pub fn stats(&self) -> &Stats {
        &self.0.shared.stats
    }

    /// Whether an operator has set the health to `down`.
    pub fn is_down(&self) -> bool {
        self.0.shared.is_down.load(Ordering::Relaxed)
    }

    /// Ends the interval at once and flushes it; returns when the outputs have it (remote ones:
    /// in their queue). For tests and benches, which should not wait for the clock.
    pub fn flush_now(&self) {
        let (done, wait) = channel::bounded(1);
        if self.0.control.send(Control::Flush(done)).is_ok() {
            let _ = wait.recv();
        }
    }

    /// Stops receiving and ends the unfinished interval.
    ///
    /// With `embedded` as the only output the interval and all gauges go into the state file, to be
    /// continued at the next start; otherwise the interval is flushed and the state file keeps the
    /// gauges. Blocks until it is done: up to five seconds where a remote output is slow. A thread
    /// that has died is not waited for, and others ten seconds at most then.
    ///
    /// # Errors
    /// The state file cannot be written.
    pub fn stop(mut self) -> Result<(), Error> {
        let _ = self.0.stop.send(true);
        let _ = self.0.control.send(Control::Stop);
        let result = self.0.aggregator.join().pop().unwrap_or(Ok(()));
        // The aggregator has said so itself, unless it has died.
        self.0.shared.is_stopping.store(true, Ordering::Release);
        self.0.threads.join();
        result
    }
}
