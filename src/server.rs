//! From start to stop: lock, bind, open, serve, drain.
//!
//! 1. The data directory is locked first, so that a second instance is told about the directory
//!    and not about a port.
//! 2. Every socket is bound before anything is opened; what arrives meanwhile waits in the kernel.
//! 3. Only when everything answers is the ready file written and the service manager told.
//! 4. Stopping runs with the stream: receivers first, then the cache into its files, then the
//!    journal; a second signal does not cut it short.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anyhow::{Context, anyhow};
use carbon::listener::{line_tcp, line_udp};
use carbon::{Access, Carbon, Setup, Sink, Timestamp};
use render::events::Store;
use render::events::metrics;
use render::http::events::{EventsState, routes as events_routes};
use render::http::guard::Guard;
use render::http::page::{Dashboards, Page};
use render::http::{App, router};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::interval;
use tracing::{error, info, warn};

use crate::bound::{self, Binder, Bound};
use crate::config::Config;
use crate::demo;
use crate::http::{self, Around, Health, Own};
use crate::lock::DataLock;
use crate::log::Log;
use crate::marks::IntoEvents;
use crate::notify::notify;
use crate::report::{self, Reading, Readings, SelfSeries};

/// How often our own counters become points of our own series, as carbon does it.
const SELF_INTERVAL: Duration = Duration::from_secs(60);

/// What the process was started with, beside its configuration.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The configuration file and the overrides, to be read again at SIGHUP.
    pub file: Option<PathBuf>,
    /// `KEY=VALUE` from the command line.
    pub overrides: Vec<String>,
    /// Where to write the bound addresses once everything listens.
    pub ready_file: Option<PathBuf>,
    /// Whether the made-up shop is run.
    pub demo: bool,
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
    let bound = Bound::open(&config)?;
    let running = Running::start(&config, &surroundings, bound)?;
    for (key, addresses) in &running.addresses {
        if !addresses.is_empty() {
            info!("{key} listens on {}", addresses.join(", "));
        }
    }
    if let Some(path) = &surroundings.ready_file {
        bound::write_ready_file(path, &running.addresses)?;
    }
    running.ready.store(true, Ordering::Release);
    let notify_socket = surroundings.notify_socket.as_deref();
    notify(notify_socket, "READY=1");

    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => running.reload(&surroundings, &log),
        }
    }
    info!("stopping");
    notify(notify_socket, "STOPPING=1");
    running.drain().await?;
    info!("stopped");
    Ok(())
}

/// Everything that runs, and what it takes to stop it.
struct Running {
    /// Taken out when it is stopped; whoever counts looks in as long as it is there.
    statsd: Arc<RwLock<Option<statsd::Server>>>,
    carbon: Carbon,
    page: Page,
    dashboards: PathBuf,
    addresses: BTreeMap<&'static str, Vec<String>>,
    ready: Arc<AtomicBool>,
    /// Tells the receivers to stop.
    stop_receiving: watch::Sender<bool>,
    receivers: JoinSet<()>,
    /// Tells HTTP to stop; later than the receivers, so that a look is possible meanwhile.
    stop_http: watch::Sender<bool>,
    http: JoinHandle<anyhow::Result<()>>,
    /// What ends with the process: the reporter, the demo's visitors.
    background: JoinSet<()>,
    /// Its drop takes away the files of Unix sockets.
    _binder: Binder,
}

impl Running {
    fn start(config: &Config, surroundings: &Surroundings, bound: Bound) -> anyhow::Result<Self> {
        let Bound {
            statsd: statsd_sockets,
            line_tcp: line_listeners,
            line_udp: line_sockets,
            http: http_listeners,
            binder,
        } = bound;
        let addresses = binder.addresses().clone();

        let shop = surroundings
            .demo
            .then(|| demo::open(&config.data))
            .transpose()?;
        let events =
            Store::open(&config.data.join("events.db"), &config.events).context("events")?;
        let now = config.render.now;
        let mut setup = Setup::new(
            config.carbon.clone(),
            config.journal.clone(),
            config.statsd.flush_interval,
        );
        if now != 0 {
            let at = u32::try_from(now).map_err(|_| anyhow!("render.now: {now} is no moment"))?;
            setup.access = Access::Frozen;
            setup.clock = Arc::new(move || Timestamp(at));
        }
        setup.observer = metrics::observer(&events);
        let carbon = Carbon::open(setup, &config.data).context("carbon")?;
        let sink: Arc<dyn Sink> = Arc::new(carbon.clone());
        let own_count = Arc::new(AtomicU64::new(0));
        let own: Arc<dyn Sink> = Arc::new(Own {
            sink: sink.clone(),
            count: own_count.clone(),
        });

        let own_series = config.stats.own && now == 0;
        let options = statsd::Options {
            self_metrics: own_series,
            ..config.statsd.clone()
        };
        let statsd = statsd::Server::start(
            options,
            statsd_sockets,
            own.clone(),
            Arc::new(IntoEvents(events.clone())),
            Some(config.data.join("statsd-state")),
        )
        .context("statsd")?;
        let statsd = Arc::new(RwLock::new(Some(statsd)));

        let mut background = JoinSet::new();
        let mut notice = None;
        if let Some(shop) = shop {
            notice = Some(demo::NOTICE);
            let post = {
                let events = events.clone();
                move |draft| match events.insert(draft) {
                    Ok(saved) => Some(saved.event.id),
                    Err(why) => {
                        warn!("demo: {why}");
                        None
                    }
                }
            };
            let flush = config.statsd.flush_interval.0;
            demo::fill(shop, &*own, demo::now(), flush, &post)?;
            if let Some(address) = addresses["statsd.udp"].first() {
                background.spawn(demo::visit(shop, address.parse()?, post));
            }
        }

        let (stop_receiving, stopped) = watch::channel(false);
        let mut receivers = JoinSet::new();
        for listener in line_listeners {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            receivers.spawn(line_tcp(carbon.clone(), listener, told(stopped.clone())));
        }
        for socket in line_sockets {
            socket.set_nonblocking(true)?;
            let socket = tokio::net::UdpSocket::from_std(socket)?;
            receivers.spawn(line_udp(carbon.clone(), socket, told(stopped.clone())));
        }

        let panics = Arc::new(AtomicU64::new(0));
        let store: Arc<Carbon> = Arc::new(carbon.clone());
        let app = App::new(&config.render, store.clone(), store, events.clone())?;
        let readings = readings(Counted {
            statsd: statsd.clone(),
            carbon: carbon.clone(),
            app: app.clone(),
            events: events.clone(),
            panics: panics.clone(),
        });
        if own_series {
            background.spawn(report(
                SelfSeries::new(own.clone()),
                readings.clone(),
                carbon.clone(),
            ));
        }

        let dashboards = config.data.join("dashboards");
        let host = Around {
            addresses: addresses.clone(),
            events: events.clone(),
            received: {
                let (carbon, statsd) = (carbon.clone(), statsd.clone());
                Box::new(move || {
                    let all = carbon.stats().received.get();
                    let lines = all.saturating_sub(own_count.load(Ordering::Relaxed));
                    let stats = read(&statsd);
                    let metrics = stats
                        .as_ref()
                        .map_or(0, |statsd| statsd.stats().metrics.load(Ordering::Relaxed));
                    lines + metrics
                })
            },
            notice,
        };
        let page = Page::new(Arc::new(host), Arc::new(carbon.clone()), load(&dashboards));
        let guard = Arc::new(Guard::new(&config.auth, loopback_only(&http_listeners)));
        let event_routes = events_routes(EventsState {
            store: events,
            guard: guard.clone(),
            time_zone: app.time_zone.clone(),
            clock: (now != 0).then_some(now),
        });
        let routes = router(app, &guard)
            .merge(event_routes)
            .merge(page.clone().routes());
        let ready = Arc::new(AtomicBool::new(false));
        let health = Health {
            ready: ready.clone(),
            readings,
            panics,
        };
        let (stop_http, stopped) = watch::channel(false);
        let http = tokio::spawn(http::serve(http_listeners, health.beside(routes), stopped));
        Ok(Self {
            statsd,
            carbon,
            page,
            dashboards,
            addresses,
            ready,
            stop_receiving,
            receivers,
            stop_http,
            http,
            background,
            _binder: binder,
        })
    }

    /// Takes from a fresh reading of the configuration what can change while running.
    fn reload(&self, surroundings: &Surroundings, log: &Log) {
        let done = Config::load(surroundings.file.as_deref(), &surroundings.overrides)
            .and_then(|config| log.reload(&config.log, surroundings.rust_log.as_deref()));
        self.page.replace(load(&self.dashboards));
        match done {
            Ok(()) => info!("configuration read again"),
            Err(why) => error!("configuration not taken, the old one stays: {why:#}"),
        }
    }

    /// Stops with the stream: receivers, cache, journal, HTTP.
    async fn drain(mut self) -> anyhow::Result<()> {
        self.ready.store(false, Ordering::Release);
        self.background.shutdown().await;
        let statsd = match self.statsd.write() {
            Ok(mut statsd) => statsd.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        let stopped = tokio::task::spawn_blocking(|| statsd.map_or(Ok(()), statsd::Server::stop));
        let stopped = stopped
            .await
            .map_err(|_| anyhow!("stopping statsd failed"))?
            .context("statsd");
        let _ = self.stop_receiving.send(true);
        while self.receivers.join_next().await.is_some() {}
        let carbon = self.carbon.clone();
        let drained = tokio::task::spawn_blocking(move || {
            carbon.drain(|left| info!("{left} datapoints left to be written"))
        });
        let drained = drained
            .await
            .map_err(|_| anyhow!("draining the cache failed"))?;
        let _ = self.stop_http.send(true);
        self.http.await.map_err(|_| anyhow!("HTTP failed"))??;
        drained.context("carbon").and(stopped)
    }
}

/// Returns when the other end says so, or is gone.
async fn told(mut stopped: watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Whether nothing but this machine reaches the listeners.
fn loopback_only(listeners: &[TcpListener]) -> bool {
    listeners.iter().all(|listener| {
        let address = listener.local_addr();
        address.is_ok_and(|address| address.ip().is_loopback())
    })
}

/// Looks at what is behind the lock, whatever became of others who did.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

/// Everything that counts.
struct Counted {
    statsd: Arc<RwLock<Option<statsd::Server>>>,
    carbon: Carbon,
    app: App,
    events: Arc<Store>,
    panics: Arc<AtomicU64>,
}

/// What the crates count, gathered whenever somebody asks.
fn readings(counted: Counted) -> Readings {
    let Counted {
        statsd,
        carbon,
        app,
        events,
        panics,
    } = counted;
    Arc::new(move || {
        let mut readings: Vec<Reading> = Vec::new();
        if let Some(statsd) = read(&statsd).as_ref() {
            let help = "As the StatsD side counts it.";
            for (name, value) in statsd.stats().counters() {
                readings.push(match name {
                    "names" => Reading::level("statsd", name, "Names known now.", value as f64),
                    _ => Reading::count("statsd", name, help, value),
                });
            }
            for (reason, value) in statsd.stats().bad_lines_by_reason() {
                let name = format!("bad_lines.{reason}");
                readings.push(Reading::count(
                    "statsd",
                    name,
                    "Bad lines of this kind.",
                    value,
                ));
            }
        }
        readings.extend(
            carbon
                .stats()
                .each()
                .map(|(name, help, value)| Reading::count("carbon", name, help, value)),
        );
        let refused = carbon.index().refused();
        let help = "Refused because a limit on series is reached, by the first nodes of the name.";
        let count = |which: String, n| {
            Reading::count("carbon", "rejects.prefix", help, n).labelled("prefix", which)
        };
        readings.extend(
            refused
                .prefixes
                .into_iter()
                .map(|(prefix, n)| count(prefix, n)),
        );
        if refused.elsewhere > 0 {
            readings.push(count("(others)".to_owned(), refused.elsewhere));
        }
        let cache = carbon.cache();
        let level = |name, help, value: usize| Reading::level("carbon", name, help, value as f64);
        readings.extend([
            level(
                "cache.size",
                "Datapoints that are not in their files yet.",
                cache.len(),
            ),
            level(
                "cache.queues",
                "Series that have such datapoints.",
                cache.waiting(),
            ),
            level("cache.bytes", "Memory that these take.", cache.used_bytes()),
            level("index.series", "Series known.", carbon.index().len()),
        ]);
        let help = "As the query side counts it.";
        for (name, value) in app.stats.all() {
            readings.push(Reading::count("render", name, help, value));
        }
        let counted = events.stats();
        readings.extend(
            [
                ("created", "Events that are new.", &counted.created),
                (
                    "updated",
                    "Changes to events that were there.",
                    &counted.updated,
                ),
                ("removed", "Events deleted.", &counted.removed),
                ("refused", "Events that were refused.", &counted.refused),
                (
                    "dropped",
                    "Events dropped because the store was behind.",
                    &counted.dropped,
                ),
                (
                    "failed",
                    "Changes that the database refused.",
                    &counted.failed,
                ),
            ]
            .map(|(name, help, counter)| {
                Reading::count("events", name, help, counter.load(Ordering::Relaxed))
            }),
        );
        readings.push(Reading::count(
            "http",
            "panics",
            "Requests that met a mistake in this program.",
            panics.load(Ordering::Relaxed),
        ));
        readings.extend(report::process());
        readings
    })
}

/// The dashboards, with a line in the log for each that cannot be used.
fn load(directory: &Path) -> Dashboards {
    let (dashboards, problems) = Dashboards::load(directory);
    for problem in problems {
        warn!("dashboard left out: {problem}");
    }
    dashboards
}

/// Our own counters as points of our own series, now and then every minute.
async fn report(mut series: SelfSeries, readings: Readings, carbon: Carbon) {
    let mut ticks = interval(SELF_INTERVAL);
    loop {
        ticks.tick().await;
        series.write(&readings(), carbon.now());
    }
}
