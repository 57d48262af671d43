//! Carbon's receivers: their sockets, and the tasks that serve them.

use std::future::Future;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use carbon::Carbon;
use carbon::listener::Listeners;
use render::http::guard::Guard;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::http::connections::Connections;
use crate::supervise::Supervisor;

mod http;

/// The bound sockets of `[carbon]`.
#[derive(Debug, Default)]
pub struct Receivers {
    /// `carbon.line_tcp`.
    pub line_tcp: Vec<TcpListener>,
    /// `carbon.line_udp`.
    pub line_udp: Vec<UdpSocket>,
    /// `carbon.relay_line_tcp`.
    pub relay_line_tcp: Vec<TcpListener>,
    /// `carbon.pickle`.
    pub pickle: Vec<TcpListener>,
    /// `carbon.protobuf`.
    pub protobuf: Vec<TcpListener>,
    /// `carbon.http`.
    pub http: Vec<TcpListener>,
    /// `carbon.carbonlink`.
    pub carbonlink: Vec<TcpListener>,
}

/// What the receivers need.
pub struct Needs<'n> {
    /// The store.
    pub carbon: &'n Carbon,
    /// `carbon.http_max_body`.
    pub http_max_body: u64,
    /// The access control for writing over HTTP.
    pub guard: &'n Arc<Guard>,
    /// The connections over HTTP.
    pub connections: &'n Connections,
    /// Receives the request to stop.
    pub stopped: &'n watch::Receiver<bool>,
    /// Watches the tasks.
    pub supervisor: &'n Supervisor,
}

/// How long requests in progress may take after the shutdown has begun.
const LAST_REQUESTS: Duration = Duration::from_secs(5);

impl Receivers {
    /// Serves all sockets until `stopped` says so.
    ///
    /// # Errors
    /// A socket that the runtime refuses.
    pub fn start(self, needs: &Needs<'_>) -> anyhow::Result<JoinSet<()>> {
        let Self {
            line_tcp,
            line_udp,
            relay_line_tcp,
            pickle,
            protobuf,
            http,
            carbonlink,
        } = self;
        let listeners = Listeners::new(needs.carbon);
        let mut tasks = JoinSet::new();
        for socket in line_udp {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            let receiver = listeners.clone().line_udp(socket, needs.stop());
            tasks.spawn(needs.supervisor.watched("carbon.line_udp", receiver));
        }
        each(needs, &mut tasks, "carbon.line_tcp", line_tcp, |listener| {
            listeners.clone().line_tcp(listener, needs.stop())
        })?;
        let key = "carbon.relay_line_tcp";
        each(needs, &mut tasks, key, relay_line_tcp, |listener| {
            listeners.clone().relay_line_tcp(listener, needs.stop())
        })?;
        each(needs, &mut tasks, "carbon.pickle", pickle, |listener| {
            listeners.clone().pickle(listener, needs.stop())
        })?;
        each(needs, &mut tasks, "carbon.protobuf", protobuf, |listener| {
            listeners.clone().protobuf(listener, needs.stop())
        })?;
        each(
            needs,
            &mut tasks,
            "carbon.carbonlink",
            carbonlink,
            |listener| listeners.clone().carbonlink(listener, needs.stop()),
        )?;
        let routes = http::routes(needs.carbon, needs.http_max_body, needs.guard);
        each(needs, &mut tasks, "carbon.http", http, |listener| {
            let (stop, stopped) = (needs.stop(), needs.stopped.clone());
            let routes = routes.clone();
            let serving =
                needs
                    .connections
                    .clone()
                    .serve(listener, move || routes.clone(), stopped);
            async move {
                tokio::select! {
                    () = serving => {}
                    () = async { stop.await; sleep(LAST_REQUESTS).await } => {}
                }
            }
        })?;
        Ok(tasks)
    }
}

impl Needs<'_> {
    /// Returns when the receivers are to stop.
    fn stop(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopped = self.stopped.clone();
        async move {
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    }
}

/// Spawns the task that `serve` gives for each of `sockets`.
fn each<F: Future<Output = ()> + Send + 'static>(
    needs: &Needs<'_>,
    tasks: &mut JoinSet<()>,
    key: &'static str,
    sockets: Vec<TcpListener>,
    serve: impl Fn(tokio::net::TcpListener) -> F,
) -> anyhow::Result<()> {
    for socket in sockets {
        let listener = tokio::net::TcpListener::from_std(socket)?;
        tasks.spawn(needs.supervisor.watched(key, serve(listener)));
    }
    Ok(())
}
