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
//!    [`PATIENCE`] at most, and exit code 1.

mod answers;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, anyhow};
use carbon::{Access, Carbon, OnDeath, Setup, Sink, Timestamp};
use parking_lot::RwLock;
use render::events::Store;
use render::events::observer::observer;
use render::http::App;
use render::http::guard::Guard;
use render::http::page::Page;
use render::source::Source;
use settings::Span;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::interval;
use tracing::{error, info, warn};

use self::answers::{Counted, all_routes, health, readings, received};
use crate::bound::{self, Binder, Bound, descriptors};
use crate::config::{Config, Sources};
use crate::demo::{self, shop::Shop};
use crate::deploys::DeploySeries;
use crate::events::IntoEvents;
use crate::exchange;
use crate::http::connections::{Connections, Limits};
use crate::http::{self, Around, Front, Own, Readiness};
use crate::impact::Impact;
use crate::lock::DataLock;
use crate::log::Log;
use crate::memory;
use crate::notify::notify;
use crate::peers;
use crate::receivers::Needs;
use crate::report::{Readings, SelfSeries};
use crate::store::{Asked, Remote};
use crate::supervise::Supervisor;

/// How long each step of the stop may take once a worker is dead.
const PATIENCE: Duration = Duration::from_secs(10);

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
    open(
        &config,
        &surroundings,
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
    for (key, addresses) in &running.addresses {
        if !addresses.is_empty() {
            info!("{key} listens on {}", addresses.join(", "));
        }
    }
    running.greet(&config);
    if let Some(path) = &surroundings.ready_file {
        bound::write_ready_file(path, &running.addresses)?;
    }
    readiness.ready();
    notify(notify_socket, "READY=1");

    let dead = loop {
        tokio::select! {
            _ = terminate.recv() => break None,
            _ = interrupt.recv() => break None,
            _ = hangup.recv() => running.reload(&surroundings, &log),
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

/// `sink`, with its datapoints counted as the server's own.
fn own_sink(sink: Arc<dyn Sink>, count: &Arc<AtomicU64>) -> Arc<dyn Sink> {
    Arc::new(Own {
        sink,
        count: count.clone(),
    })
}

/// The page over the store.
fn page(config: &Config, host: Around, source: Arc<dyn Source>) -> Page {
    let directory = config.dashboards();
    Page::in_directory(Arc::new(host), source, directory)
}

/// The end while the journal is still being read back: `lock` is held until the process is gone.
fn early(lock: Arc<DataLock>) -> Ended {
    info!("stopped during the start: the journal keeps the datapoints that were not read back");
    std::mem::forget(lock);
    Ended::Early
}

/// HTTP, answering from the start on.
struct Answering {
    readiness: Readiness,
    front: Front,
    connections: Connections,
    /// Whether all listeners are on loopback addresses.
    loopback_only: bool,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Answering {
    fn start(config: &Config, listeners: Vec<TcpListener>, supervisor: &Supervisor) -> Self {
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

/// The stores of the data directory, opened before the receivers start.
struct Opened {
    shop: Option<Shop>,
    events: Arc<Store>,
    carbon: Carbon,
    remote: Option<Remote>,
}

/// Opens the data directory on a thread of its own and sends the result: reading back a long journal
/// takes time, and a thread of the runtime must not wait for it.
fn open(
    config: &Config,
    surroundings: &Surroundings,
    lock: Arc<DataLock>,
    readiness: &Readiness,
    supervisor: &Supervisor,
    opened: oneshot::Sender<anyhow::Result<Opened>>,
) -> anyhow::Result<()> {
    let (config, readiness) = (config.clone(), readiness.clone());
    let on_death = supervisor.on_death();
    let demo = surroundings.demo;
    let work = move || {
        let outcome = Opened::read(&config, demo, lock, readiness, &on_death);
        // The receiver is dropped if the server was stopped during the start.
        let _ = opened.send(outcome);
    };
    std::thread::Builder::new()
        .name("open".to_owned())
        .spawn(work)
        .context("starting a thread")?;
    Ok(())
}

impl Opened {
    fn read(
        config: &Config,
        demo: bool,
        lock: Arc<DataLock>,
        readiness: Readiness,
        on_death: &OnDeath,
    ) -> anyhow::Result<Self> {
        let shop = demo.then(|| demo::open(&config.data)).transpose()?;
        let path = config.data.join("events.db");
        let events = Store::open_watched(&path, &config.events, on_death).context("events")?;
        let now = config.render.now;
        let mut setup = Setup::new(
            config.carbon.clone(),
            config.journal.clone(),
            config.statsd.flush_interval,
        );
        if now != 0 {
            let at = u32::try_from(now)
                .map_err(|_| anyhow!("render.now: {now} is not a timestamp in Unix seconds"))?;
            setup.access = Access::Frozen;
            setup.clock = Arc::new(move || Timestamp(at));
        }
        setup.observer = observer(&events);
        setup.guard = Some(Arc::new(move || lock.check()));
        setup.on_death = Arc::clone(on_death);
        setup.replaying = Arc::new(move |bytes, of| readiness.replaying(bytes, of));
        let remote = Remote::of(config)?;
        setup.delivery = remote.as_ref().map(Remote::delivery);
        let carbon = Carbon::open(setup, &config.data).context("carbon")?;
        Ok(Self {
            shop,
            events,
            carbon,
            remote,
        })
    }
}

/// The running parts of the server and the handles that stop them.
struct Running {
    /// `None` after it has been stopped. `/metrics` reads its counters until then.
    statsd: Statsd,
    carbon: Carbon,
    page: Page,
    addresses: BTreeMap<&'static str, Vec<String>>,
    /// Tells the receivers to stop.
    stop_receiving: watch::Sender<bool>,
    receivers: JoinSet<()>,
    /// Stops HTTP, after the receivers, so that `/readyz` and `/metrics` answer during the shutdown.
    stop_http: watch::Sender<bool>,
    http: JoinHandle<anyhow::Result<()>>,
    /// Tasks that end with the process: the reporter, the demo's visitors.
    background: JoinSet<()>,
    /// Judges deploys.
    impact: Impact,
    /// Removes the files of Unix sockets when dropped.
    _binder: Binder,
}

impl Running {
    fn start(
        config: &Config,
        bound: Bound,
        opened: Opened,
        answering: Answering,
        supervisor: &Supervisor,
    ) -> anyhow::Result<Self> {
        let (shop, events, carbon) = (opened.shop, opened.events, opened.carbon);
        let addresses = bound.binder.addresses().clone();

        let own_count = Arc::new(AtomicU64::new(0));
        let own_every = |interval: Span| own_sink(Arc::new(carbon.every(interval)), &own_count);
        let own = own_every(config.statsd.flush_interval);
        // Carbon's rule files hold for the lines of StatsD, and not for the server's own series.
        let flushed = own_sink(carbon.ruled_sink(config.statsd.flush_interval), &own_count);
        let statsd = start_statsd(config, bound.statsd, &flushed, &events, supervisor)?;
        let mut background = JoinSet::new();
        let banner = shop.is_some().then_some(demo::BANNER);
        let demo = (shop, &own, &events, addresses["statsd.udp"].first());
        start_demo(config, demo, &mut background, supervisor)?;

        // The routes need the counters of everything that was started above.
        let panics = Arc::new(AtomicU64::new(0));
        let asked = Asked::of(opened.remote.as_ref(), &carbon);
        let source = asked.source.clone();
        let (asked, peered) = peers::with(asked, &config.render)?;
        let app = App::new(&config.render, asked.source, asked.tags, events.clone())?;
        let remote = opened.remote.as_ref();
        let exchange = exchange::start(config, &events, remote, &mut background, supervisor)?;
        memory::return_of_requests(&app.memory).context("starting a thread")?;
        let host = Around {
            addresses: addresses.clone(),
            events: events.clone(),
            received: received(&carbon, &statsd, own_count.clone()),
            app: app.clone(),
            deploys: config.impact.events.clone(),
            banner,
            base_path: config.render.base_path.clone(),
        };
        let page = page(config, host, source.clone());
        background.spawn(supervisor.watched("page", page.clone().watch()));
        let impact = Impact::start(config, &events, source, &app, &page, supervisor)?;
        let readings = readings(Counted {
            page: page.clone(),
            statsd: statsd.clone(),
            carbon: carbon.clone(),
            app: app.clone(),
            events: events.clone(),
            judge: impact.judge.clone(),
            peered,
            exchange,
            panics: panics.clone(),
            connections: answering.connections.clone(),
            remote: opened.remote,
        });
        if config.stats.own && config.render.now == 0 {
            let series = SelfSeries::new(own_every(config.stats.interval), &config.stats);
            let reporter = report(series, readings.clone(), carbon.clone());
            background.spawn(supervisor.watched("report", reporter));
            let (deploys, own) = (&config.impact.events, own_every(config.stats.interval));
            if let Some(series) = DeploySeries::new(deploys, &events, own) {
                let kept = series.keep(config.stats.interval.0, carbon.clone());
                background.spawn(supervisor.watched("deploys", kept));
            }
        }
        let guard = Arc::new(Guard::new(&config.auth, answering.loopback_only).within(&app.memory));
        let (stop_receiving, stopped) = watch::channel(false);
        let receivers = bound.carbon.start(&Needs {
            carbon: &carbon,
            http_max_body: config.carbon.http_max_body.0,
            guard: &guard,
            connections: &answering.connections,
            stopped: &stopped,
            supervisor,
        })?;
        let routes = all_routes(app, events, page.clone(), &guard, &impact.handle, config);
        let health = health(&carbon, answering.readiness, guard, readings, panics);
        answering.front.open(health.beside(routes));
        Ok(Self {
            statsd,
            carbon,
            page,
            addresses,
            stop_receiving,
            receivers,
            stop_http: answering.stop,
            http: answering.task,
            background,
            impact,
            _binder: bound.binder,
        })
    }

    /// Logs what a person wants to know who has just started the server.
    fn greet(&self, config: &Config) {
        let version = env!("CARGO_PKG_VERSION");
        let data = fs::canonicalize(&config.data).unwrap_or_else(|_| config.data.clone());
        let series = self.carbon.index().len();
        info!(
            "plumbago {version}: {series} series, data in {}",
            data.display()
        );
        let http = self
            .addresses
            .get("render.http")
            .and_then(|all| all.first());
        if let Some(address) = http {
            let host = match address.rsplit_once(':') {
                Some(("0.0.0.0" | "[::]", port)) => format!("localhost:{port}"),
                _ => address.clone(),
            };
            info!("Open http://{host}{}/", config.render.base_path);
        }
    }

    /// Reloads the configuration and applies the keys that can change while the server runs.
    fn reload(&self, surroundings: &Surroundings, log: &Log) {
        let loaded = surroundings.sources.read();
        for warning in loaded.warnings() {
            warn!("{warning}");
        }
        let done = loaded
            .usable()
            .map_err(anyhow::Error::from)
            .and_then(|config| log.reload(&config.log, surroundings.rust_log.as_deref()));
        self.page.reload();
        self.carbon.reload();
        match done {
            Ok(()) => info!("configuration reloaded"),
            Err(why) => error!("configuration not reloaded, the old one stays in effect: {why:#}"),
        }
    }

    /// Shuts down along the data flow: statsd, line receivers, cache and journal, HTTP. A step that
    /// waits for a dead worker is abandoned after [`PATIENCE`].
    async fn drain(mut self, supervisor: &Supervisor) -> anyhow::Result<()> {
        // Carbon first: a full cache must not block the receivers that stop next.
        self.carbon.shut_down();
        self.background.shutdown().await;
        let impact = self.impact;
        let judged = tokio::task::spawn_blocking(|| impact.stop());
        let judged = within(supervisor, "stopping the judge of deploys", judged)
            .await
            .flatten();
        let statsd = self.statsd.write().take();
        let stopped = tokio::task::spawn_blocking(|| statsd.map_or(Ok(()), statsd::Server::stop));
        let stopped = within(supervisor, "stopping statsd", stopped).await;
        let stopped = stopped.and_then(|result| result.context("statsd"));
        let _ = self.stop_receiving.send(true);
        let receivers =
            tokio::spawn(async move { while self.receivers.join_next().await.is_some() {} });
        let received = within(supervisor, "stopping the receivers", receivers).await;
        let carbon = self.carbon.clone();
        let drained = tokio::task::spawn_blocking(move || {
            carbon.drain(|left| info!("shutdown: {left} datapoints are not in their files yet"))
        });
        let drained = within(supervisor, "draining the cache", drained).await;
        let drained = drained.and_then(|result| result.context("carbon"));
        let _ = self.stop_http.send(true);
        let answered = within(supervisor, "HTTP", self.http).await.flatten();
        drained.and(stopped).and(received).and(answered).and(judged)
    }
}

/// StatsD, until the shutdown takes it out.
type Statsd = Arc<RwLock<Option<statsd::Server>>>;

fn start_statsd(
    config: &Config,
    sockets: statsd::Sockets,
    sink: &Arc<dyn Sink>,
    events: &Arc<Store>,
    supervisor: &Supervisor,
) -> anyhow::Result<Statsd> {
    let options = statsd::Options {
        self_metrics: config.stats.own && config.render.now == 0,
        ..config.statsd.clone()
    };
    let wants_tokens = config.auth.wants_tokens();
    let events = IntoEvents::new(events.clone(), &config.events, wants_tokens);
    let state = Some(config.data.join("statsd-state"));
    let events = Arc::new(events);
    let on_death = supervisor.on_death();
    let started = statsd::Server::start(options, sockets, sink.clone(), events, state, on_death);
    Ok(Arc::new(RwLock::new(Some(started.context("statsd")?))))
}

/// The demo's shop, the sink of its history, its events and the address of its visitors.
type Demo<'a> = (
    Option<Shop>,
    &'a Arc<dyn Sink>,
    &'a Arc<Store>,
    Option<&'a String>,
);

/// If there is a demo, writes the history of its shop and sends visitors to it.
fn start_demo(
    config: &Config,
    (shop, own, events, address): Demo<'_>,
    background: &mut JoinSet<()>,
    supervisor: &Supervisor,
) -> anyhow::Result<()> {
    let Some(shop) = shop else {
        return Ok(());
    };
    let (events, seen) = (events.clone(), events.clone());
    let post = move |draft| match events.insert(draft) {
        Ok(saved) => Some(saved.event.id),
        Err(why) => {
            warn!("demo: {why}");
            None
        }
    };
    let flush = config.statsd.flush_interval.0;
    demo::fill(shop, &**own, demo::now(), flush, &post)?;
    if let Some(address) = address {
        let broken = move |now| demo::is_broken(&seen, now);
        let visitors = demo::visit(shop, address.parse()?, post, broken);
        background.spawn(supervisor.watched("demo", visitors));
    }
    Ok(())
}

/// Waits for `step`, but not for long once a worker is dead.
async fn within<T>(supervisor: &Supervisor, what: &str, step: JoinHandle<T>) -> anyhow::Result<T> {
    let patience = async {
        supervisor.death().await;
        tokio::time::sleep(PATIENCE).await;
    };
    tokio::select! {
        done = step => done.map_err(|_| anyhow!("{what} failed")),
        () = patience => Err(anyhow!("{what} took longer than {PATIENCE:?}")),
    }
}

/// Whether all listeners are on loopback addresses.
fn loopback_only(listeners: &[TcpListener]) -> bool {
    listeners.iter().all(|listener| {
        let address = listener.local_addr();
        address.is_ok_and(|address| address.ip().is_loopback())
    })
}

/// Our own counters as points of our own series, now and then every `stats.interval`.
async fn report(mut series: SelfSeries, readings: Readings, carbon: Carbon) {
    let mut ticks = interval(series.period());
    loop {
        ticks.tick().await;
        series.write(&readings(), carbon.now());
    }
}
