//! Starting a server, step by step.

use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use carbon::Sink;
use crossbeam::channel::{self, Receiver as Incoming, Sender};
use tokio::io::AsyncRead;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::error;

use super::aggregator::{AggregatorThread, Control, ReceiverHandle, StateFile, Wake};
use super::covered::{Covered, uptime_ms};
use super::key_flush::KeyFlush;
use super::sockets;
use crate::admin::{self, Admin, Query};
use crate::aggregate::Aggregator;
use crate::aggregate::kinds::Letters;
use crate::cell::{Carry, MemberLimits};
use crate::death::{Deaths, OnDeath, Threads};
use crate::error::Error;
use crate::events::{self, EventReport, EventSink};
use crate::listener::{self, Block, Gate, Peer};
use crate::options::{Health, Options, Output, Percentiles};
use crate::output::console::Console;
use crate::output::remote::Remote;
use crate::output::{Destinations, Outputs};
use crate::population::{Limits, Population};
use crate::raw::simd::Path as Instructions;
use crate::raw::socket::{Datagrams, Reader, Waker};
use crate::raw::thread::lower_priority;
use crate::receiver::{Channels, Receiver, ReceiverOptions};
use crate::repeater::Repeater;
use crate::report::{CommandQueue, Report, Shared};
use crate::state::{self, Preload};
use crate::stats::now_ms;
use crate::stream;

/// Reports that may wait for the aggregator.
const REPORTS: usize = 32;
/// Events that may wait for the event store.
const EVENTS: usize = 4_096;
/// Blocks of lines that may wait for the thread of all streams.
const BLOCKS: usize = 256;
/// Distinct members of sets that a receiver keeps in an interval.
const MEMBERS: usize = 4_000_000;
/// Bytes of these members: they are in memory once more while the interval before is flushed.
const MEMBER_BYTES: usize = 128 << 20;

/// A server that runs.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) control: Sender<Control>,
    /// Ends the tasks that accept and serve connections.
    pub(super) stop: watch::Sender<bool>,
    pub(super) aggregator: Threads<Result<(), Error>>,
    pub(super) threads: Threads,
}

/// A server that is being started.
pub(super) struct Start {
    options: Options,
    /// How many receivers there will be.
    receivers: usize,
    shared: Arc<Shared>,
    deaths: Deaths,
    threads: Threads,
    /// For the receivers: what carries on from before the start.
    preloads: Vec<Preload>,
    /// Whether the state file has been read.
    is_restored: bool,
    population: Arc<Population>,
    reports: (Sender<Report>, Incoming<Report>),
    events: Option<Sender<EventReport>>,
    repeater: Option<Repeater>,
    stop: (watch::Sender<bool>, watch::Receiver<bool>),
    handles: Vec<ReceiverHandle>,
}

impl Start {
    pub(super) fn new(options: Options, receivers: usize, on_death: OnDeath) -> Self {
        let shared = Arc::new(Shared::default());
        let is_down = options.health_status == Health::Down;
        shared.is_down.store(is_down, Ordering::Relaxed);
        let deaths = Deaths::new(on_death);
        Self {
            options,
            receivers,
            shared,
            threads: Threads::new(&deaths),
            deaths,
            preloads: Vec::new(),
            is_restored: false,
            population: Arc::default(),
            reports: channel::bounded(REPORTS),
            events: None,
            repeater: None,
            stop: watch::channel(false),
            handles: Vec::new(),
        }
    }

    /// The outputs, with the threads of the remote ones started.
    pub(super) fn open_outputs(&mut self, sink: Arc<dyn Sink>) -> Result<Outputs, Error> {
        let options = &self.options;
        let mut found = Destinations {
            sink: None,
            text: Vec::new(),
            pickle: Vec::new(),
            console: None,
            patience: options.flush_interval.0 / 2,
        };
        let (shared, threads) = (&self.shared, &mut self.threads);
        let mut remote = |address: &str| {
            let remote = Remote::new(
                address.to_owned(),
                options.output_queue.0,
                options.output_backoff.0,
            );
            let started = remote.start(shared.clone(), threads);
            started.map(|()| remote).map_err(Error::Thread)
        };
        for output in &options.output {
            match output {
                Output::Embedded => found.sink = Some(sink.clone()),
                Output::Tcp(address) => found.text.push(remote(address)?),
                Output::Pickle(address) => found.pickle.push(remote(address)?),
                Output::Console => {
                    let Percentiles(thresholds) = &options.percentiles;
                    let is_pretty = options.console_prettyprint;
                    let started =
                        Console::start(is_pretty, thresholds, shared.clone(), &self.deaths);
                    found.console = Some(started.map_err(Error::Thread)?);
                }
                Output::Discard => {}
            }
        }
        Ok(Outputs::new(found, shared.clone()))
    }

    /// The aggregator, with what the state file has of the interval before the stop.
    pub(super) fn restore_state(&mut self, path: Option<&Path>) -> Result<Aggregator, Error> {
        let options = &self.options;
        let mut aggregator = Aggregator::new(
            options,
            self.receivers,
            options.self_metrics,
            now_ms(),
            std::thread::yield_now,
        )
        .map_err(Error::Memory)?;
        if let Some(path) = path {
            match state::load(path, &mut aggregator, 0) {
                Ok(found) => {
                    self.is_restored = found.is_some();
                    let found = found.unwrap_or_default();
                    self.shared.stats.state_unread.add(found.unread);
                    self.preloads = found.preloads;
                }
                Err(why) => error!("{}", chain(&why)),
            }
        }
        Ok(aggregator)
    }

    /// The threads that receivers hand events and packets to. Returns the channel of queries.
    pub(super) fn spawn_helpers(
        &mut self,
        sink: Arc<dyn EventSink>,
    ) -> Result<(Sender<Query>, Incoming<Query>), Error> {
        let options = &self.options;
        if options.events {
            let (sender, reports) = channel::bounded(EVENTS);
            let run = move || events::hand_on(reports, &*sink);
            let started = self.threads.spawn("statsd-events", run);
            started.map_err(Error::Thread)?;
            self.events = Some(sender);
        }
        if !options.repeater.is_empty() {
            let started = Repeater::start(
                &options.repeater,
                options.repeater_protocol,
                &self.shared,
                &mut self.threads,
            );
            self.repeater = Some(started.map_err(Error::Thread)?);
        }
        Ok(channel::unbounded())
    }

    /// A receiver, which `wake` makes look at its commands.
    fn receiver(&mut self, wake: Wake) -> Result<Receiver, Error> {
        let commands = Arc::new(CommandQueue::default());
        let id = self.handles.len();
        self.handles
            .push(ReceiverHandle::new(commands.clone(), wake));
        let channels = Channels {
            shared: self.shared.clone(),
            commands,
            reports: self.reports.0.clone(),
            events: self.events.clone(),
            repeater: self.repeater.clone(),
            population: self.population.clone(),
        };
        let options = receiver_options(&self.options, id, self.receivers);
        let mut receiver = Receiver::new(options, channels).map_err(Error::Memory)?;
        for Preload { kind, name, value } in &self.preloads {
            receiver.preload(*kind, name, *value);
        }
        Ok(receiver)
    }

    /// A thread for each datagram socket.
    pub(super) fn spawn_datagram_receivers(
        &mut self,
        udp: Vec<UdpSocket>,
        unix: Vec<UnixDatagram>,
    ) -> Result<(), Error> {
        let udp = udp.into_iter().map(Datagrams::Udp);
        let unix = unix.into_iter().map(Datagrams::Unix);
        for socket in udp.chain(unix) {
            let shown = sockets::prepare(&socket, &self.options)?;
            let failed = |source| Error::Socket {
                what: format!("{shown} could not be made ready"),
                source,
            };
            let options = &self.options;
            // A Unix socket queues datagrams by number (net.unix.max_dgram_qlen, often 10), so
            // letting them gather there makes senders fail.
            let pause = match socket {
                Datagrams::Udp(_) => options.receive_pause.0,
                Datagrams::Unix(_) => Duration::ZERO,
            };
            let (waker, wakes) = Waker::pair().map_err(failed)?;
            let buffer = options.receive_buffer.0.min(1 << 30) as usize;
            let (reader, granted) =
                Reader::new(socket, wakes, buffer, options.receive_gro).map_err(failed)?;
            sockets::log_granted(&shown, granted, options);
            let receiver = self.receiver(Wake::Socket(waker))?;
            let shared = self.shared.clone();
            let run = move || sockets::receive(reader, receiver, &shared, pause, &shown);
            let started = self.threads.spawn("statsd-receive", run);
            started.map_err(Error::Thread)?;
        }
        Ok(())
    }

    /// A task for each stream listener, and one thread for what all of them read.
    pub(super) fn spawn_streams(
        &mut self,
        runtime: &Handle,
        tcp: Vec<TcpListener>,
        unix: Vec<UnixListener>,
    ) -> Result<(), Error> {
        if tcp.is_empty() && unix.is_empty() {
            return Ok(());
        }
        // All connections feed one receiver, so that streams share one table.
        let (blocks, incoming) = mpsc::channel(BLOCKS);
        let receiver = self.receiver(Wake::Streams(blocks.downgrade()))?;
        let run = move || listener::run(receiver, incoming);
        let started = self.threads.spawn("statsd-streams", run);
        started.map_err(Error::Thread)?;

        // The limit on connections holds for all stream listeners together.
        let most = self.options.max_connections;
        let gate = Gate::new(
            "statsd-streams",
            most,
            self.shared.clone(),
            self.deaths.clone(),
        );
        let stopping = &self.stop.1;
        // Registering a socket needs to know the runtime.
        let _guard = runtime.enter();
        for socket in tcp {
            let listener = sockets::tokio_listener(socket)?;
            let serve = self.stream_server(&blocks);
            runtime.spawn(gate.clone().run(listener, stopping.clone(), serve));
        }
        for socket in unix {
            sockets::set_mode(socket.local_addr(), &self.options)?;
            let failed = |source| Error::Socket {
                what: "a Unix stream socket could not be made ready".to_owned(),
                source,
            };
            socket.set_nonblocking(true).map_err(failed)?;
            let listener = tokio::net::UnixListener::from_std(socket).map_err(failed)?;
            let serve = self.stream_server(&blocks);
            runtime.spawn(gate.clone().run(listener, stopping.clone(), serve));
        }
        Ok(())
    }

    /// What is done with each connection that brings lines.
    fn stream_server<S: AsyncRead + Unpin + Send + 'static>(
        &self,
        blocks: &mpsc::Sender<Block>,
    ) -> impl Fn(S, Option<IpAddr>, Arc<Peer>) -> StreamTask + Send + 'static {
        let (blocks, shared) = (blocks.clone(), self.shared.clone());
        let stop = self.stop.1.clone();
        move |stream, from, peer| {
            let (blocks, shared, stop) = (blocks.clone(), shared.clone(), stop.clone());
            Box::pin(stream::connection(stream, from, blocks, shared, stop, peer))
        }
    }

    /// A task for each listener of the management interface.
    pub(super) fn spawn_admin(
        &mut self,
        runtime: &Handle,
        listeners: Vec<TcpListener>,
        queries: Sender<Query>,
    ) -> Result<(), Error> {
        let served = Arc::new(Admin {
            shared: self.shared.clone(),
            queries,
            started: Instant::now(),
            options: self.options.clone(),
            idle: admin::IDLE,
            answer: admin::ANSWER,
            large: Semaphore::new(admin::LARGE),
            turn: admin::TURN,
        });
        let most = self.options.max_connections;
        let gate = Gate::new(
            "statsd-admin",
            most,
            self.shared.clone(),
            self.deaths.clone(),
        );
        let _guard = runtime.enter();
        for socket in listeners {
            let listener = sockets::tokio_listener(socket)?;
            let (served, stop) = (served.clone(), self.stop.1.clone());
            let serve = move |stream, _, peer| served.clone().serve(stream, stop.clone(), peer);
            runtime.spawn(gate.clone().run(listener, self.stop.1.clone(), serve));
        }
        Ok(())
    }

    /// The aggregator's thread; with it the server runs.
    pub(super) fn spawn_aggregator(
        self,
        aggregator: Aggregator,
        outputs: Outputs,
        queries: Incoming<Query>,
        state_file: Option<PathBuf>,
    ) -> Result<Running, Error> {
        let (control, controls) = channel::unbounded();
        let options = &self.options;
        // What was flushed to a carbon elsewhere cannot be continued by the next start.
        let has_interval = options.output.contains(&Output::Embedded)
            && options
                .output
                .iter()
                .all(|output| matches!(output, Output::Embedded | Output::Discard));
        let is_restored = self.is_restored;
        let interval_ms = (options.flush_interval.0.as_millis() as u64).max(1);
        // Everything that the other steps have made ends in this thread.
        let thread = AggregatorThread {
            interval_ms,
            covered: Covered::after(interval_ms, now_ms() % interval_ms, uptime_ms()),
            key_flush: KeyFlush::new(options),
            aggregator,
            outputs,
            shared: self.shared.clone(),
            population: self.population,
            reports: self.reports.1,
            queries,
            controls,
            receivers: self.handles,
            epoch: 0,
            state_file: state_file.map(|path| StateFile {
                path,
                has_interval,
                is_restored,
            }),
        };
        let mut aggregators = Threads::new(&self.deaths);
        let run = move || {
            lower_priority();
            thread.run()
        };
        aggregators
            .spawn("statsd-aggregate", run)
            .map_err(Error::Thread)?;
        Ok(Running {
            shared: self.shared,
            control,
            stop: self.stop.0,
            aggregator: aggregators,
            threads: self.threads,
        })
    }
}

/// One connection that brings lines.
type StreamTask = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// How the options make a receiver.
pub(crate) fn receiver_options(options: &Options, id: usize, receivers: usize) -> ReceiverOptions {
    ReceiverOptions {
        id,
        limits: Limits {
            names: options.max_names,
            new_names: options.max_new_names,
            names_per_prefix: options.max_names_per_prefix,
            prefix_nodes: options.prefix_nodes as usize,
            members: MemberLimits {
                count: MEMBERS,
                bytes: MEMBER_BYTES,
                longest: options.max_name_length as usize,
            },
            sanitize: options.key_name_sanitize,
        },
        carry: Carry::for_receivers(receivers),
        letters: Letters::new(options),
        longest_name: options.max_name_length as usize,
        count_hits: !options.key_flush_interval.0.is_zero(),
        dump: options.dump_messages,
        path: Instructions::detect(),
    }
}

/// An error with all of its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
