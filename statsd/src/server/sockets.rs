//! Sockets on their way to their threads, and the thread of a datagram socket.

use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::error::Error;
use crate::options::Options;
use crate::pacer::Pacer;
use crate::raw::socket::{self, Datagrams, Granted, Reader};
use crate::receiver::Receiver;
use crate::report::Shared;

/// How long a socket is read at the stop, if its senders do not pause.
const DRAIN: Duration = Duration::from_secs(1);
/// What the kernel charges to a receive buffer for a message, at least, beside its bytes.
const MESSAGE: usize = 256;

pub(super) fn prepare(socket: &Datagrams, options: &Options) -> Result<String, Error> {
    Ok(match socket {
        Datagrams::Udp(socket) => match socket.local_addr() {
            Ok(address) => format!("statsd.udp {address}"),
            Err(_) => "statsd.udp".to_owned(),
        },
        Datagrams::Unix(socket) => {
            set_mode(socket.local_addr(), options)?;
            "statsd.unix".to_owned()
        }
    })
}

pub(super) fn set_mode(
    address: io::Result<std::os::unix::net::SocketAddr>,
    options: &Options,
) -> Result<(), Error> {
    if options.unix_mode.is_empty() {
        return Ok(());
    }
    let failed = |source| Error::Socket {
        what: format!("unix_mode {:?} could not be set", options.unix_mode),
        source,
    };
    let mode = u32::from_str_radix(&options.unix_mode, 8)
        .map_err(|why| failed(io::Error::new(io::ErrorKind::InvalidInput, why)))?;
    let address = address.map_err(failed)?;
    if let Some(path) = address.as_pathname() {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

pub(super) fn tokio_listener(socket: TcpListener) -> Result<tokio::net::TcpListener, Error> {
    let failed = |source| Error::Socket {
        what: "a TCP socket could not be made ready".to_owned(),
        source,
    };
    socket.set_nonblocking(true).map_err(failed)?;
    tokio::net::TcpListener::from_std(socket).map_err(failed)
}

pub(super) fn log_granted(shown: &str, granted: Granted, options: &Options) {
    // The kernel doubles what was asked for, to have room for its own bookkeeping.
    let (got, wanted) = (granted.buffer / 2, options.receive_buffer.0 as usize);
    let gro = if granted.gro { ", coalescing" } else { "" };
    if wanted > got {
        warn!(
            "{shown}: receive buffer of {got} bytes granted of {wanted}; raise net.core.rmem_max{gro}"
        );
    } else {
        info!("{shown}: receive buffer of {got} bytes{gro}");
    }
}

/// The thread of a datagram socket.
pub(super) fn receive(
    mut reader: Reader,
    mut receiver: Receiver,
    shared: &Shared,
    pause: Duration,
    shown: &str,
) {
    let mut pacer = (!pause.is_zero()).then(|| Pacer::new(pause, reader.buffer()));
    let mut epoch = shared.epoch.load(Ordering::Acquire);
    let mut drain = None;
    loop {
        // Looked at before the read: what has arrived by the stop must be in a later one.
        let is_stopping = shared.is_stopping.load(Ordering::Acquire);
        let read = match reader.read() {
            Ok(read) => read,
            Err(why) => {
                // ICMP errors of other sockets' traffic arrive here; they are no reason to stop.
                warn!("{shown}: {why}");
                thread::sleep(Duration::from_millis(10));
                0
            }
        };
        let (mut datagrams, mut bytes) = (0, 0);
        // Every datagram of the read becomes tokens, then all are applied together.
        if read > 0 {
            receiver.handle_commands();
            for at in 0..read {
                let message = reader.message(at);
                bytes += message.bytes.len();
                if message.bytes.is_empty() {
                    receiver.packet(reader.arena(), message.bytes.clone(), message.from);
                }
                for datagram in message.datagrams() {
                    datagrams += 1;
                    receiver.packet(reader.arena(), datagram, message.from);
                }
            }
            receiver.apply(reader.arena());
            if let Some(pacer) = &mut pacer {
                pacer.count(datagrams, bytes);
            }
        }
        // The kernel's drops are counted once per interval.
        let now = shared.epoch.load(Ordering::Acquire);
        if now != epoch {
            epoch = now;
            count_drops(&mut reader, shared, shown);
        }
        receiver.step();
        // What is in the socket's buffer at the stop still counts.
        if is_stopping {
            let drain = drain.get_or_insert_with(|| Drain::new(reader.buffer()));
            if read == 0 || drain.is_over(read, bytes) {
                break;
            }
            continue;
        }
        // There is more to read, or to sweep: no time to wait.
        if read == socket::BATCH || receiver.is_sweeping() {
            continue;
        }
        // A busy socket is left alone for a while, an idle one waited for.
        if read > 0
            && let Some(pause) = pacer.as_mut().and_then(Pacer::pause)
        {
            thread::sleep(pause);
            continue;
        }
        reader.wait();
    }
    count_drops(&mut reader, shared, shown);
    receiver.end();
}

fn count_drops(reader: &mut Reader, shared: &Shared, shown: &str) {
    let dropped = reader.dropped();
    if dropped > 0 {
        warn!(
            "{shown}: the kernel dropped {dropped} datagrams in this interval: the receive buffer was full"
        );
        let drops = &shared.stats.kernel_drops;
        drops.fetch_add(dropped, Ordering::Relaxed);
    }
}

/// Ends the reading of a socket at the stop although its senders go on.
///
/// It is over when as much has been read as the buffer can hold, so that all that was in it at the
/// stop has been read. The queue of a Unix socket is charged to its senders: the time is for it.
struct Drain {
    left: usize,
    until: Instant,
}

impl Drain {
    fn new(buffer: usize) -> Self {
        Self {
            left: buffer,
            until: Instant::now() + DRAIN,
        }
    }

    fn is_over(&mut self, messages: usize, bytes: usize) -> bool {
        self.left = self.left.saturating_sub(bytes + messages * MESSAGE);
        self.left == 0 && Instant::now() >= self.until
    }
}
