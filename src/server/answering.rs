//! HTTP as it answers from the start on, before there are routes.

use std::net::TcpListener;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::Config;
use crate::http::connections::{Connections, Limits};
use crate::http::{self, Front, Readiness};
use crate::supervise::Supervisor;

/// HTTP, answering from the start on.
pub(super) struct Answering {
    pub(super) readiness: Readiness,
    pub(super) front: Front,
    pub(super) connections: Connections,
    /// Whether all listeners are on loopback addresses.
    pub(super) loopback_only: bool,
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinHandle<anyhow::Result<()>>,
}

impl Answering {
    pub(super) fn start(
        config: &Config,
        listeners: Vec<TcpListener>,
        supervisor: &Supervisor,
    ) -> Self {
        let limits = Limits {
            connections: config.render.max_connections,
            header: config.render.header_timeout.0,
            idle: config.render.idle_timeout.0,
            write: config.render.write_timeout.0,
        };
        let readiness = Readiness::default();
        let front = Front::closed(readiness.clone(), &config.render.base_path);
        let connections = Connections::new(limits);
        let loopback_only = loopback_only(&listeners);
        let (stop, stopped) = watch::channel(false);
        let serving = http::serve(
            listeners,
            front.clone(),
            connections.clone(),
            supervisor.clone(),
            stopped,
        );
        Self {
            readiness,
            front,
            connections,
            loopback_only,
            stop,
            task: tokio::spawn(serving),
        }
    }
}

/// Whether all listeners are on loopback addresses.
fn loopback_only(listeners: &[TcpListener]) -> bool {
    listeners.iter().all(|listener| {
        let address = listener.local_addr();
        address.is_ok_and(|address| address.ip().is_loopback())
    })
}
