//! From start to stop: lock, bind, open, serve, drain.
//!
//! 1. The data directory is locked first, so that the error of a second instance names the directory
//!    and not a port.
//! 2. Every socket is bound before the stores are opened; until then data waits in the kernel. HTTP
//!    answers at once: with a 503 that states how much of the journal has been read.
//! 3. The journal is read back on a thread of its own. A signal during this phase ends the process
//!    as a crash would: the journal stays and is read back at the next start.
//! 4. The ready file is written and the service manager is notified after all routes are open.
//! 5. The shutdown follows the data flow: statsd and the line receivers first, then the cache into
//!    its files and the journal, then HTTP. A second signal is ignored.
//! 6. A worker that dies by a panic ends the process: the same drain, each step of it for
//!    ten seconds at most, and exit code 1.

mod answering;
mod answers;
mod opened;
mod running;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::anyhow;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info};

use self::answering::Answering;
use self::running::Running;
use crate::bound::{self, Bound, descriptors};
use crate::config::{Config, Loaded, Sources};
use crate::demo;
use crate::lock::DataLock;
use crate::log::Log;
use crate::notify::notify;
use crate::supervise::Supervisor;

/// The arguments and environment of the process, apart from its configuration.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Where the configuration came from, to be read again at SIGHUP.
    pub sources: Sources,
    /// Where to write the bound addresses once everything listens.
    pub ready_file: Option<PathBuf>,
    /// Whether the made-up shop is run.
    pub demo: bool,
    /// `NOTIFY_SOCKET`.
    pub notify_socket: Option<String>,
    /// `RUST_LOG`.
    pub rust_log: Option<String>,
}

/// How the pipeline came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything was stopped in its order.
    Drained,
    /// Stopped during the start: threads are still working, and the end of the process interrupts
    /// them as a crash would.
    Early,
    /// This worker died; others may still wait for it.
    Died(String),
}

/// Runs the pipeline until SIGTERM or SIGINT, then drains it.
///
/// # Errors
/// The reason why the server could not start or shut down cleanly.
pub async fn run(
    mut config: Config,
    surroundings: Surroundings,
    log: Log,
) -> anyhow::Result<Ended> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let notify_socket = surroundings.notify_socket.as_deref();

    let descriptors = descriptors::raise()?;
    let lock = Arc::new(DataLock::take(&config.data)?);
    let bound = Bound::open(&config.statsd, &config.carbon, &config.render)?;
    cap_connections(&mut config, descriptors);
    if surroundings.demo && config.impact.rules.is_empty() {
        config.impact.rules = demo::rules();
    }
    let supervisor = Supervisor::default();
    let answering = Answering::start(&config, bound.http, &supervisor);
    let readiness = answering.readiness.clone();
    let (opened, opening) = oneshot::channel();
    opened::open(
        &config,
        surroundings.demo,
        lock.clone(),
        &readiness,
        &supervisor,
        opened,
    )?;
    let opened = tokio::select! {
        opened = opening => opened.map_err(|_| anyhow!("opening the data directory failed"))??,
        _ = terminate.recv() => return Ok(early(lock)),
        _ = interrupt.recv() => return Ok(early(lock)),
    };
    let bound = Bound {
        http: Vec::new(),
        ..bound
    };
    let running = Running::start(&config, bound, opened, answering, &supervisor)?;
    running.greet(&config);
    if let Some(path) = &surroundings.ready_file {
        bound::write_ready_file(path, &running.addresses)?;
    }
    readiness.ready();
    notify(notify_socket, "READY=1");

    let mut reading = None;
    let dead = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => match &mut reading {
                Some(reading) => reading.is_old = true,
                None => reading = Reading::begin(&surroundings.sources),
            },
            loaded = Reading::end(&mut reading) => match loaded {
                Some(loaded) => running.reload(loaded, surroundings.rust_log.as_deref(), &log),
                None => reading = Reading::begin(&surroundings.sources),
            },
            name = supervisor.death() => break Some(name),
        }
    };
    info!("stopping");
    notify(notify_socket, "STOPPING=1");
    match &dead {
        None => readiness.stopping(),
        Some(name) => readiness.died(name),
    }
    let drained = running.drain(&supervisor).await;
    if let Some(name) = supervisor.dead() {
        if let Err(why) = drained {
            error!("stopping: {why:#}");
        }
        // Threads that wait for the dead worker may still write: the lock is held until the
        // process ends.
        std::mem::forget(lock);
        return Ok(Ended::Died(name));
    }
    drained?;
    info!("stopped");
    Ok(Ended::Drained)
}

/// The configuration while it is read again, on a thread of its own: a file, or the name of a host in it, may take long
/// to read, and signals have to be heard meanwhile.
struct Reading {
    loaded: oneshot::Receiver<Loaded>,
    /// Whether it has to be read once more, as the next SIGHUP came meanwhile.
    is_old: bool,
}

impl Reading {
    fn begin(sources: &Sources) -> Option<Self> {
        let (send, loaded) = oneshot::channel();
        let sources = sources.clone();
        let running = std::thread::Builder::new()
            .name("reload".to_owned())
            .spawn(move || {
                let _ = send.send(sources.read_again());
            });
        if let Err(why) = running {
            error!("configuration not reloaded, the old one stays in effect: {why}");
            return None;
        }
        Some(Self {
            loaded,
            is_old: false,
        })
    }

    /// Waits for the end of `reading`, which is then taken: what was read, or `None` if it has to be read once more.
    async fn end(reading: &mut Option<Self>) -> Option<Loaded> {
        let Some(running) = reading else {
            return std::future::pending().await;
        };
        let loaded = (&mut running.loaded).await;
        let is_old = running.is_old;
        *reading = None;
        // A thread that panicked has no result; it is tried again at the next signal.
        match loaded {
            Ok(loaded) if !is_old => Some(loaded),
            Err(_) if !is_old => std::future::pending().await,
            _ => None,
        }
    }
}

/// Cuts the limits on connections in `config` so that descriptors for files stay free.
fn cap_connections(config: &mut Config, descriptors: u64) {
    let Config {
        render,
        carbon,
        statsd,
        ..
    } = config;
    // StatsD's limit holds for its streams and, once more, for its management connections.
    let wanted = [
        ("render.max_connections", render.max_connections),
        ("carbon.max_connections", carbon.max_connections as usize),
        (
            "statsd.max_connections",
            statsd.max_connections as usize * 2,
        ),
    ];
    let wanted = wanted.map(|(key, wanted)| descriptors::Cap { key, wanted });
    let caps = descriptors::share(descriptors, descriptors::open(), &wanted);
    let each =
        |cap: usize, listeners: usize| u32::try_from(cap / listeners).unwrap_or(u32::MAX).max(1);
    render.max_connections = caps[0];
    carbon.max_connections = each(caps[1], 1);
    statsd.max_connections = each(caps[2], 2);
}

/// The end while the journal is still being read back: `lock` is held until the process is gone.
fn early(lock: Arc<DataLock>) -> Ended {
    info!("stopped during the start: the journal keeps the datapoints that were not read back");
    std::mem::forget(lock);
    Ended::Early
}
