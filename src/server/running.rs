//! The parts of the server while it runs: started in the order in which they need each other, stopped along
//! the data flow.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::{Context, anyhow};
use carbon::{Carbon, Sink};
use parking_lot::RwLock;
use render::events::Store;
use render::http::App;
use render::http::guard::Guard;
use render::http::page::Page;
use render::source::Source;
use settings::Span;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::interval;
use tracing::{error, info, warn};

use super::answering::Answering;
use super::answers::{Counted, Statsd, all_routes, health, readings, received};
use super::opened::Opened;
use crate::bound::{Binder, Bound};
use crate::config::{Config, Loaded};
use crate::demo::{self, shop::Shop};
use crate::deploys::DeploySeries;
use crate::events::IntoEvents;
use crate::exchange;
use crate::http::connections::Connections;
use crate::http::{Around, Own};
use crate::impact::Impact;
use crate::log::Log;
use crate::memory;
use crate::peers;
use crate::receivers::{Needs, Receivers};
use crate::report::{Readings, SelfSeries};
use crate::store::{Asked, Remote};
use crate::supervise::Supervisor;

/// How long each step of the stop may take once a worker is dead.
const PATIENCE: Duration = Duration::from_secs(10);

/// The running parts of the server and the handles that stop them.
pub(super) struct Running {
    /// `None` after it has been stopped. `/metrics` reads its counters until then.
    statsd: Statsd,
    carbon: Carbon,
    page: Page,
    pub(super) addresses: BTreeMap<&'static str, Vec<String>>,
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
    events: Arc<Store>,
    /// Removes the files of Unix sockets when dropped.
    _binder: Binder,
}

impl Running {
    pub(super) fn start(
        config: &Config,
        bound: Bound,
        opened: Opened,
        answering: Answering,
        supervisor: &Supervisor,
    ) -> anyhow::Result<Self> {
        let Opened {
            shop,
            events,
            carbon,
            remote,
        } = opened;
        let addresses = bound.binder.addresses().clone();

        let sinks = Sinks {
            carbon: carbon.clone(),
            count: Arc::default(),
        };
        let own = sinks.own(config.statsd.flush_interval);
        let flushed = sinks.ruled(config.statsd.flush_interval);
        let statsd = start_statsd(config, bound.statsd, &flushed, &events, supervisor)?;
        let mut background = JoinSet::new();
        let banner = shop.is_some().then_some(demo::BANNER);
        let demo = (shop, &own, &events, addresses["statsd.udp"].first());
        start_demo(config, demo, &mut background, supervisor)?;

        // The routes need the counters of everything that was started above.
        let panics = Arc::new(AtomicU64::new(0));
        let started = Started {
            config,
            events: &events,
            carbon: &carbon,
            statsd: &statsd,
            sinks: &sinks,
            banner,
            supervisor,
            panics: &panics,
            connections: &answering.connections,
        };
        let Answers {
            app,
            page,
            impact,
            readings,
        } = started.answers(remote, &addresses, &mut background)?;
        write_own(
            config,
            &sinks,
            &events,
            readings.clone(),
            &mut background,
            supervisor,
        );
        let guard = Arc::new(Guard::new(&config.auth, answering.loopback_only).within(&app.memory));
        let (stop_receiving, stopped) = watch::channel(false);
        let receivers = started.receivers(bound.carbon, &guard, &stopped)?;
        let routes = all_routes(
            app,
            events.clone(),
            page.clone(),
            &guard,
            &impact.handle,
            config,
        );
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
            events,
            _binder: bound.binder,
        })
    }

    /// Logs what a person wants to know who has just started the server.
    pub(super) fn greet(&self, config: &Config) {
        for (key, addresses) in &self.addresses {
            if !addresses.is_empty() {
                info!("{key} listens on {}", addresses.join(", "));
            }
        }
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

    /// Applies the keys of the configuration, read again, that can change while the server runs.
    pub(super) fn reload(&self, loaded: Loaded, rust_log: Option<&str>, log: &Log) {
        for warning in loaded.warnings() {
            warn!("{warning}");
        }
        let done = loaded
            .usable()
            .map_err(anyhow::Error::from)
            .and_then(|config| log.reload(&config.log, rust_log));
        self.page.reload();
        self.carbon.reload();
        match done {
            Ok(()) => info!("configuration reloaded"),
            Err(why) => error!("configuration not reloaded, the old one stays in effect: {why:#}"),
        }
    }

    /// Shuts down along the data flow: statsd, line receivers, cache and journal, HTTP. A step that
    /// waits for a dead worker is abandoned after [`PATIENCE`].
    pub(super) async fn drain(mut self, supervisor: &Supervisor) -> anyhow::Result<()> {
        // Carbon first: a full cache must not block the receivers that stop next.
        self.carbon.shut_down();
        self.events.shut_down();
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

/// What runs when the parts are made that answer requests.
struct Started<'a> {
    config: &'a Config,
    events: &'a Arc<Store>,
    carbon: &'a Carbon,
    statsd: &'a Statsd,
    sinks: &'a Sinks,
    banner: Option<&'static str>,
    supervisor: &'a Supervisor,
    panics: &'a Arc<AtomicU64>,
    connections: &'a Connections,
}

/// What answers requests, and the counters of everything.
struct Answers {
    app: App,
    page: Page,
    impact: Impact,
    readings: Readings,
}

impl Started<'_> {
    fn answers(
        &self,
        remote: Option<Remote>,
        addresses: &BTreeMap<&'static str, Vec<String>>,
        background: &mut JoinSet<()>,
    ) -> anyhow::Result<Answers> {
        let Self {
            config,
            events,
            carbon,
            statsd,
            sinks,
            banner,
            supervisor,
            panics,
            connections,
        } = *self;
        let asked = Asked::of(remote.as_ref(), carbon);
        let source = asked.source.clone();
        let (asked, peered) = peers::with(asked, &config.render)?;
        let app = App::new(&config.render, asked.source, asked.tags, events.clone())?;
        if let Some(peered) = &peered {
            peered.within(&app.memory);
        }
        let exchange = exchange::start(
            config,
            events,
            &app.memory,
            remote.as_ref(),
            background,
            supervisor,
        )?;
        let readers = connections.clone();
        memory::return_of_requests(&app.memory, move |limit| readers.make_room(limit))
            .context("starting a thread")?;
        let host = Around {
            addresses: addresses.clone(),
            events: events.clone(),
            received: received(carbon, statsd, sinks.count.clone()),
            app: app.clone(),
            deploys: config.impact.events.clone(),
            banner,
            base_path: config.render.base_path.clone(),
        };
        let page = page(config, host, source.clone());
        background.spawn(supervisor.watched("page", page.clone().watch()));
        let impact = Impact::start(config, events, source, &app, &page, supervisor)?;
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
            connections: connections.clone(),
            remote,
        });
        Ok(Answers {
            app,
            page,
            impact,
            readings,
        })
    }

    fn receivers(
        &self,
        bound: Receivers,
        guard: &Arc<Guard>,
        stopped: &watch::Receiver<bool>,
    ) -> anyhow::Result<JoinSet<()>> {
        bound.start(&Needs {
            carbon: self.carbon,
            http_max_body: self.config.carbon.http_max_body.0,
            guard,
            connections: self.connections,
            stopped,
            supervisor: self.supervisor,
        })
    }
}

/// Where the server's own datapoints go, counted.
struct Sinks {
    carbon: Carbon,
    count: Arc<AtomicU64>,
}

impl Sinks {
    /// For series of the server, which have a point every `interval`.
    fn own(&self, interval: Span) -> Arc<dyn Sink> {
        self.counted(Arc::new(self.carbon.every(interval)))
    }

    /// For the lines of StatsD: carbon's rule files hold for them, and not for the server's own series.
    fn ruled(&self, interval: Span) -> Arc<dyn Sink> {
        self.counted(self.carbon.ruled_sink(interval))
    }

    fn counted(&self, sink: Arc<dyn Sink>) -> Arc<dyn Sink> {
        let count = self.count.clone();
        Arc::new(Own { sink, count })
    }
}

/// Writes the server's own series from now on, if they are wanted.
fn write_own(
    config: &Config,
    sinks: &Sinks,
    events: &Arc<Store>,
    readings: Readings,
    background: &mut JoinSet<()>,
    supervisor: &Supervisor,
) {
    if !config.stats.own || config.render.now != 0 {
        return;
    }
    let interval = config.stats.interval;
    let series = SelfSeries::new(sinks.own(interval), &config.stats);
    let reporter = report(series, readings, sinks.carbon.clone());
    background.spawn(supervisor.watched("report", reporter));
    if let Some(series) = DeploySeries::new(&config.impact.events, events, sinks.own(interval)) {
        let kept = series.keep(interval.0, sinks.carbon.clone());
        background.spawn(supervisor.watched("deploys", kept));
    }
}

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
    let now = demo::now();
    let broken = demo::broken(&seen, now - demo::WEEK, now);
    demo::fill(shop, &**own, now, flush, &broken, &post)?;
    if let Some(address) = address {
        let broken = move |now| demo::is_broken(&seen, now);
        let visitors = demo::visit(shop, address.parse()?, post, broken);
        background.spawn(supervisor.watched("demo", visitors));
    }
    Ok(())
}

/// The page over the store.
fn page(config: &Config, host: Around, source: Arc<dyn Source>) -> Page {
    let directory = config.dashboards();
    Page::in_directory(Arc::new(host), source, directory)
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

/// Our own counters as points of our own series, now and then every `stats.interval`.
async fn report(mut series: SelfSeries, readings: Readings, carbon: Carbon) {
    let mut ticks = interval(series.period());
    loop {
        ticks.tick().await;
        series.write(&readings(), carbon.now());
    }
}
