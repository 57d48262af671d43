//! From start to stop: lock, bind, open, serve, drain.
//!
//! 1. The data directory is locked first, so that a second instance is told about the directory
//!    and not about a port.
//! 2. Every socket is bound before anything is opened; what arrives meanwhile waits in the kernel.
//! 3. Only when everything answers is the ready file written and the service manager told.
//! 4. Stopping runs with the stream: receivers first, then the cache into its files, then the
//!    journal; a second signal does not cut it short.

use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};

use crate::bound::{self, Binder};
use crate::config::Config;
use crate::lock::DataLock;
use crate::log::Log;
use crate::notify::notify;

/// What the process was started with, beside its configuration.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The configuration file and the overrides, to be read again at SIGHUP.
    pub file: Option<PathBuf>,
    /// `KEY=VALUE` from the command line.
    pub overrides: Vec<String>,
    /// Where to write the bound addresses once everything listens.
    pub ready_file: Option<PathBuf>,
    /// `NOTIFY_SOCKET`.
    pub notify_socket: Option<String>,
    /// `RUST_LOG`.
    pub rust_log: Option<String>,
}

/// Runs the pipeline until SIGTERM or SIGINT, then drains it.
///
/// # Errors
/// Whatever stood in the way of starting or of stopping cleanly, named.
pub async fn run(config: Config, surroundings: Surroundings, log: Log) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let _lock = DataLock::take(&config.data)?;
    let binder = Binder::default();
    for (key, addresses) in binder.addresses() {
        if !addresses.is_empty() {
            info!("{key} listens on {}", addresses.join(", "));
        }
    }
    if let Some(path) = &surroundings.ready_file {
        bound::write_ready_file(path, binder.addresses())?;
    }
    let notify_socket = surroundings.notify_socket.as_deref();
    notify(notify_socket, "READY=1");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload(&surroundings, &log),
        }
    }
    info!("stopping");
    notify(notify_socket, "STOPPING=1");
    info!("stopped");
    Ok(())
}

/// Takes from a fresh reading of the configuration what can change while running.
fn reload(surroundings: &Surroundings, log: &Log) {
    let done = Config::load(surroundings.file.as_deref(), &surroundings.overrides)
        .and_then(|config| log.reload(&config.log, surroundings.rust_log.as_deref()));
    match done {
        Ok(()) => info!("configuration read again"),
        Err(why) => error!("configuration not taken, the old one stays: {why:#}"),
    }
}
