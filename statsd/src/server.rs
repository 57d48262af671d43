//! The threads, and how an interval ends.
//!
//! ```text
//! socket ─ intake ┐                        ┌ sink (carbon in this process)
//! socket ─ intake ┼─ reports ─ aggregator ─┼ remote outputs, a thread each
//! streams ─ intake┘      ▲                 └ console
//!                     queries of the management interface
//! ```
//!
//! 1. An interval ends at a multiple of its length since 1970. The aggregator then counts up the
//!    epoch, wakes the intakes, and takes their reports until each has turned; then it flushes.
//! 2. Stopping is one more turn. What it brings is saved for the next start if the only output is
//!    the store of this process, and flushed otherwise.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use carbon::Sink;
use crossbeam::channel::{self, Receiver, Sender};
use crossbeam::select;
use hashbrown::HashMap;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use crate::admin::{self, Admin, Query};
use crate::aggregate::{self, Book, Dropped, Moment};
use crate::death::{Deaths, OnDeath, Threads};
use crate::error::Error;
use crate::inspect::{PLAIN, Shown};
use crate::listener::{self, Block, Gate};
use crate::marks::{Marks, Status};
use crate::options::{Health, Options, Output, Percentiles};
use crate::output::console::Console;
use crate::output::remote::Remote;
use crate::output::{Fan, Outputs};
use crate::pacer::Pacer;
use crate::population::Population;
use crate::raw;
use crate::raw::simd::Path as Instructions;
use crate::raw::socket::{self, Datagrams, Granted, Reader, Waker};
use crate::receive::{
    Command, Intake, IntakeOptions, Mailbox, MarkReport, Outlets, Peeked, Report, Shared, What,
};
use crate::state::{self, Extent};
use crate::stats::{Stats, now_ms};
use crate::table::Limits;
use crate::{repeater, view};

/// Reports that may wait for the aggregator.
const REPORTS: usize = 32;
const MARKS: usize = 4_096;
const REPEATED: usize = 1_024;
const BLOCKS: usize = 256;
/// Distinct members of sets that a thread keeps in an interval.
const MEMBERS: usize = 4_000_000;

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

/// A running StatsD server. See the head of this file.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    control: Sender<Control>,
    stop: watch::Sender<bool>,
    aggregator: Threads<Result<(), Error>>,
    threads: Threads,
}

#[derive(Debug)]
enum Control {
    Stop,
    /// Flush now; for tests and benches that do not wait for the clock.
    Flush(Sender<()>),
}

impl Server {
    /// Starts the server on `sockets`.
    ///
    /// Datagrams go to `sink` if `options.output` has `embedded`; events go to `marks`. What
    /// `state_file` holds of an interval that was cut off is continued, and the file taken away.
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
        marks: Arc<dyn Marks>,
        state_file: Option<PathBuf>,
        on_death: OnDeath,
    ) -> Result<Self, Error> {
        let Sockets {
            udp,
            tcp,
            unix,
            unix_stream,
            admin: admin_sockets,
        } = sockets;
        let wants_runtime = !tcp.is_empty() || !unix_stream.is_empty() || !admin_sockets.is_empty();
        let runtime = tokio::runtime::Handle::try_current();
        if wants_runtime && runtime.is_err() {
            return Err(Error::NoRuntime);
        }
        let has_streams = !tcp.is_empty() || !unix_stream.is_empty();
        let intakes = udp.len() + unix.len() + usize::from(has_streams);

        let shared = Arc::new(Shared::default());
        shared
            .is_down
            .store(options.health_status == Health::Down, Ordering::Relaxed);
        let (reports_in, reports) = channel::bounded(REPORTS);
        let (queries_in, queries) = channel::unbounded();
        let (control, controls) = channel::unbounded();
        let (stop, stopping) = watch::channel(false);
        let deaths = Deaths::new(on_death);
        let mut threads = Threads::new(&deaths);

        let fan = outputs(&options, sink, &shared, &mut threads)?;
        let mut book =
            Book::new(&options, intakes, options.self_metrics, now_ms()).map_err(Error::Memory)?;
        let mut gauges = Vec::new();
        if let Some(path) = &state_file {
            match state::load(path, &mut book, 0) {
                Ok(found) => gauges = found,
                Err(why) => error!("{}", chain(&why)),
            }
        }

        let marks_in = options
            .events
            .then(|| start_marks(marks, &mut threads))
            .transpose()?;
        let repeater_in = if options.repeater.is_empty() {
            None
        } else {
            let (sender, packets) = channel::bounded(REPEATED);
            repeater::start(
                &options.repeater,
                options.repeater_protocol,
                packets,
                shared.clone(),
                &mut threads,
            )
            .map_err(Error::Thread)?;
            Some(sender)
        };

        let population = Arc::new(Population::default());
        let mut mailboxes = Vec::new();
        let mut wakers = Vec::new();
        let mut new_intake = |id| {
            let mailbox = Arc::new(Mailbox::default());
            mailboxes.push(mailbox.clone());
            let outlets = Outlets {
                shared: shared.clone(),
                mailbox,
                reports: reports_in.clone(),
                marks: marks_in.clone(),
                repeater: repeater_in.clone(),
                population: population.clone(),
            };
            let made = Intake::new(intake_options(&options, id, intakes), outlets);
            let mut intake = made.map_err(Error::Memory)?;
            for (name, value) in &gauges {
                intake.preload(name, *value);
            }
            Ok::<_, Error>(intake)
        };

        let datagrams = udp
            .into_iter()
            .map(Datagrams::Udp)
            .chain(unix.into_iter().map(Datagrams::Unix));
        for (id, socket) in datagrams.enumerate() {
            let shown = prepare_datagrams(&socket, &options)?;
            let is_unix = matches!(socket, Datagrams::Unix(_));
            let failed = |source| Error::Socket {
                what: format!("{shown} could not be made ready"),
                source,
            };
            let (waker, wakes) = Waker::pair().map_err(failed)?;
            let (reader, granted) = Reader::new(
                socket,
                wakes,
                options.receive_buffer.0.min(1 << 30) as usize,
                options.receive_gro,
            )
            .map_err(failed)?;
            log_granted(&shown, granted, &options);
            wakers.push(Wake::Socket(waker));
            let intake = new_intake(id)?;
            let shared = shared.clone();
            // A Unix socket queues datagrams by number (net.unix.max_dgram_qlen, often 10), so
            // letting them gather there makes senders fail.
            let pause = if is_unix {
                Duration::ZERO
            } else {
                options.receive_pause.0
            };
            threads
                .spawn("statsd-receive", move || {
                    receive(reader, intake, &shared, pause, &shown);
                })
                .map_err(Error::Thread)?;
        }
        if has_streams && let Ok(runtime) = &runtime {
            let (blocks_in, blocks) = mpsc::channel(BLOCKS);
            wakers.push(Wake::Streams(blocks_in.clone()));
            let intake = new_intake(intakes - 1)?;
            let shared_here = shared.clone();
            threads
                .spawn("statsd-streams", move || {
                    listener::run(intake, &shared_here, blocks);
                })
                .map_err(Error::Thread)?;
            let most = options.max_connections;
            let gate = Gate::new("statsd streams", most, shared.clone(), deaths.clone());
            let connection = {
                let (shared, stopping) = (shared.clone(), stopping.clone());
                move |blocks: &mpsc::Sender<Block>| {
                    (blocks.clone(), shared.clone(), stopping.clone())
                }
            };
            let _guard = runtime.enter();
            for socket in tcp {
                let listener = tokio_listener(socket)?;
                let (connection, blocks) = (connection.clone(), blocks_in.clone());
                let run = move |stream, from| {
                    let (blocks, shared, stop) = connection(&blocks);
                    listener::connection(stream, from, blocks, shared, stop)
                };
                runtime.spawn(gate.clone().run(listener, stopping.clone(), run));
            }
            for socket in unix_stream {
                set_mode(socket.local_addr(), &options)?;
                let failed = |source| Error::Socket {
                    what: "a Unix stream socket could not be made ready".to_owned(),
                    source,
                };
                socket.set_nonblocking(true).map_err(failed)?;
                let listener = tokio::net::UnixListener::from_std(socket).map_err(failed)?;
                let (connection, blocks) = (connection.clone(), blocks_in.clone());
                let run = move |stream, from| {
                    let (blocks, shared, stop) = connection(&blocks);
                    listener::connection(stream, from, blocks, shared, stop)
                };
                runtime.spawn(gate.clone().run(listener, stopping.clone(), run));
            }
        }
        if let Ok(runtime) = &runtime {
            let _guard = runtime.enter();
            let served = Arc::new(Admin {
                shared: shared.clone(),
                queries: queries_in,
                started: Instant::now(),
                options: options.clone(),
                idle: admin::IDLE,
                answer: admin::ANSWER,
            });
            let most = options.max_connections;
            let gate = Gate::new("statsd admin", most, shared.clone(), deaths.clone());
            for socket in admin_sockets {
                let listener = tokio_listener(socket)?;
                let (served, stop) = (served.clone(), stopping.clone());
                let run = move |stream, _| served.clone().serve(stream, stop.clone());
                runtime.spawn(gate.clone().run(listener, stopping.clone(), run));
            }
        }

        let has_embedded = options.output.contains(&Output::Embedded);
        let only_embedded = has_embedded
            && options
                .output
                .iter()
                .all(|output| matches!(output, Output::Embedded | Output::Discard));
        let aggregator = Aggregator {
            interval_ms: (options.flush_interval.0.as_millis() as u64).max(1),
            key_flush: KeyFlush::new(&options),
            book,
            fan,
            shared: shared.clone(),
            reports,
            queries,
            controls,
            mailboxes,
            wakers,
            ended: vec![false; intakes],
            turned: vec![false; intakes],
            peeked: (0..intakes).map(|_| None).collect(),
            epoch: 0,
            state_file: state_file.map(|path| (path, only_embedded)),
        };
        let mut aggregators = Threads::new(&deaths);
        aggregators
            .spawn("statsd-aggregate", move || {
                raw::thread::step_back();
                aggregator.run()
            })
            .map_err(Error::Thread)?;
        Ok(Self {
            shared,
            control,
            stop,
            aggregator: aggregators,
            threads,
        })
    }

    /// What the server has counted since its start.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Whether the management interface was told to report ill health.
    pub fn is_down(&self) -> bool {
        self.shared.is_down.load(Ordering::Relaxed)
    }

    /// Ends the interval at once and flushes it; returns when the outputs have it (remote ones:
    /// in their queue). For tests and benches, which should not wait for the clock.
    pub fn flush_now(&self) {
        let (done, wait) = channel::bounded(1);
        if self.control.send(Control::Flush(done)).is_ok() {
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
        let _ = self.stop.send(true);
        let _ = self.control.send(Control::Stop);
        let result = self.aggregator.join().pop().unwrap_or(Ok(()));
        // The aggregator has said so itself, unless it has died.
        self.shared.stop.store(true, Ordering::Release);
        self.threads.join();
        result
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// How the options make an intake.
pub(crate) fn intake_options(options: &Options, id: usize, intakes: usize) -> IntakeOptions {
    IntakeOptions {
        id,
        limits: Limits {
            names: options.max_names,
            new_names: options.max_new_names,
            names_per_prefix: options.max_names_per_prefix,
            prefix_nodes: options.prefix_nodes as usize,
            members: MEMBERS,
            sanitize: options.key_name_sanitize,
        },
        gauges: aggregate::gauges(intakes),
        longest_name: options.max_name_length as usize,
        count_hits: !options.key_flush_interval.0.is_zero(),
        dump: options.dump_messages,
        path: Instructions::detect(),
    }
}

/// The outputs, with the threads of the remote ones started.
fn outputs(
    options: &Options,
    sink: Arc<dyn Sink>,
    shared: &Arc<Shared>,
    threads: &mut Threads,
) -> Result<Fan, Error> {
    let mut found = Outputs {
        sink: None,
        text: Vec::new(),
        pickle: Vec::new(),
        console: None,
        patience: options.flush_interval.0 / 2,
    };
    for output in &options.output {
        let mut remote = |address: &str| {
            let remote = Remote::new(
                address.to_owned(),
                options.output_queue.0,
                options.output_backoff.0,
            );
            remote
                .start(shared.clone(), threads)
                .map_err(Error::Thread)?;
            Ok(remote)
        };
        match output {
            Output::Embedded => found.sink = Some(sink.clone()),
            Output::Tcp(address) => found.text.push(remote(address)?),
            Output::Pickle(address) => found.pickle.push(remote(address)?),
            Output::Console => {
                let Percentiles(thresholds) = &options.percentiles;
                found.console = Some(Console::new(options.console_prettyprint, thresholds));
            }
            Output::Discard => {}
        }
    }
    Ok(Fan::new(found, shared.clone()))
}

/// The thread that hands on events: the store may take its time.
fn start_marks(marks: Arc<dyn Marks>, threads: &mut Threads) -> Result<Sender<MarkReport>, Error> {
    let (sender, reports) = channel::bounded::<MarkReport>(MARKS);
    let run = move || {
        // A check says how things are every few seconds; an event is when that changes.
        let mut known: HashMap<Vec<u8>, Status> = HashMap::new();
        for report in reports {
            match report {
                MarkReport::Event(mark) => marks.mark(mark),
                MarkReport::Check(check) => {
                    if known.len() >= MARKS {
                        known.clear();
                    }
                    if known.insert(check.gauge, check.status) != Some(check.status) {
                        marks.mark(check.mark);
                    }
                }
            }
        }
    };
    threads.spawn("statsd-marks", run).map_err(Error::Thread)?;
    Ok(sender)
}

fn prepare_datagrams(socket: &Datagrams, options: &Options) -> Result<String, Error> {
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

fn set_mode(
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

fn tokio_listener(socket: TcpListener) -> Result<tokio::net::TcpListener, Error> {
    let failed = |source| Error::Socket {
        what: "a TCP socket could not be made ready".to_owned(),
        source,
    };
    socket.set_nonblocking(true).map_err(failed)?;
    tokio::net::TcpListener::from_std(socket).map_err(failed)
}

fn log_granted(shown: &str, granted: Granted, options: &Options) {
    // The kernel doubles what it was asked for, to have room for its own bookkeeping.
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
fn receive(mut reader: Reader, mut intake: Intake, shared: &Shared, pause: Duration, shown: &str) {
    let mut pacer = (!pause.is_zero()).then(|| Pacer::new(pause, reader.buffer()));
    let mut epoch = shared.epoch.load(Ordering::Acquire);
    loop {
        let read = match reader.read() {
            Ok(read) => read,
            Err(why) => {
                // ICMP errors of other sockets' traffic turn up here; none is a reason to stop.
                warn!("{shown}: {why}");
                thread::sleep(Duration::from_millis(10));
                0
            }
        };
        if read > 0 {
            intake.obey_all();
            let (mut datagrams, mut bytes) = (0, 0);
            for at in 0..read {
                let message = reader.message(at);
                bytes += message.bytes.len();
                if message.bytes.is_empty() {
                    intake.packet(reader.arena(), message.bytes.clone(), message.from);
                }
                for datagram in message.datagrams() {
                    datagrams += 1;
                    intake.packet(reader.arena(), datagram, message.from);
                }
            }
            intake.settle(reader.arena());
            if let Some(pacer) = &mut pacer {
                pacer.count(datagrams, bytes);
            }
        }
        let now = shared.epoch.load(Ordering::Acquire);
        if now != epoch {
            epoch = now;
            let dropped = reader.dropped();
            if dropped > 0 {
                warn!(
                    "{shown}: the kernel dropped {dropped} datagrams in this interval: the receive buffer was full"
                );
                shared
                    .stats
                    .kernel_drops
                    .fetch_add(dropped, Ordering::Relaxed);
            }
        }
        intake.step();
        if read == socket::BATCH || intake.is_sweeping() {
            continue;
        }
        if shared.stop.load(Ordering::Acquire) {
            if read == 0 {
                break;
            }
            continue;
        }
        if read > 0
            && let Some(pause) = pacer.as_mut().and_then(Pacer::pause)
        {
            thread::sleep(pause);
            continue;
        }
        reader.wait();
    }
    intake.end();
}

enum Wake {
    Socket(Waker),
    Streams(mpsc::Sender<Block>),
}

impl Wake {
    fn wake(&self) {
        match self {
            Self::Socket(waker) => waker.wake(),
            Self::Streams(blocks) => {
                // Full means that it is awake.
                let _ = blocks.try_send(Block::Wake);
            }
        }
    }
}

/// The aggregator's thread.
struct Aggregator {
    interval_ms: u64,
    key_flush: Option<KeyFlush>,
    book: Book,
    fan: Fan,
    shared: Arc<Shared>,
    reports: Receiver<Report>,
    queries: Receiver<Query>,
    controls: Receiver<Control>,
    mailboxes: Vec<Arc<Mailbox>>,
    wakers: Vec<Wake>,
    ended: Vec<bool>,
    turned: Vec<bool>,
    peeked: Vec<Option<Peeked>>,
    epoch: u64,
    /// Where the unfinished interval goes; and whether its samples do, or only the gauges.
    state_file: Option<(PathBuf, bool)>,
}

impl Aggregator {
    fn run(mut self) -> Result<(), Error> {
        let mut end = self.next_end(now_ms());
        loop {
            let now = now_ms();
            // A clock that was set back must not stop the flushes.
            if end > now + 2 * self.interval_ms {
                end = self.next_end(now);
            }
            if now >= end {
                // After a pause of the machine only the last boundary is flushed.
                let missed = (now - end) / self.interval_ms * self.interval_ms;
                self.flush(end + missed);
                end = self.next_end(now_ms().max(end + missed));
                continue;
            }
            let wait = Duration::from_millis(end - now);
            let (reports, queries, controls) = (
                self.reports.clone(),
                self.queries.clone(),
                self.controls.clone(),
            );
            select! {
                recv(reports) -> report => match report {
                    Ok(report) => self.take(report),
                    // No intakes: nothing will ever come.
                    Err(_) => self.reports = channel::never(),
                },
                recv(queries) -> query => match query {
                    Ok(query) => self.answer(query),
                    Err(_) => self.queries = channel::never(),
                },
                recv(controls) -> control => match control {
                    Ok(Control::Flush(done)) => {
                        self.flush(now_ms());
                        let _ = done.send(());
                    }
                    Ok(Control::Stop) | Err(_) => return self.stop(),
                },
                default(wait) => {}
            }
        }
    }

    fn next_end(&self, now: u64) -> u64 {
        (now / self.interval_ms + 1) * self.interval_ms
    }

    fn take(&mut self, report: Report) {
        let Report {
            intake,
            epoch,
            what,
        } = report;
        match what {
            What::Names(names) => self.book.learn(intake, &names),
            What::Values(values) => self.book.values(intake, &values, &self.shared.stats),
            What::Samples(samples) => {
                self.book
                    .samples(intake, epoch, &samples, &self.shared.stats);
            }
            What::Members(members) => self.book.members(intake, members),
            What::Points(points) => {
                self.book.points(&points, &mut self.fan);
            }
            What::Turned(counts) => {
                self.book.counts(intake, &counts);
                let stats = &self.shared.stats;
                let refused = &counts.refused;
                stats
                    .names_refused
                    .fetch_add(refused.samples, Ordering::Relaxed);
                stats
                    .members_refused
                    .fetch_add(refused.members, Ordering::Relaxed);
                for prefix in &refused.prefixes {
                    warn!(
                        "max_names_per_prefix is reached below {:?}; further names there are refused and counted",
                        String::from_utf8_lossy(prefix)
                    );
                }
                self.turned[intake] = true;
            }
            What::Peeked(peeked) => self.peeked[intake] = Some(peeked),
            What::Ended => self.ended[intake] = true,
        }
    }

    /// Ends the interval in all intakes and takes what they report.
    fn turn(&mut self) {
        self.turned.fill(false);
        self.shared.epoch.store(self.epoch + 1, Ordering::Release);
        self.wake();
        while !self.everybody(|this, at| this.turned[at] || this.ended[at]) {
            match self.reports.recv() {
                Ok(report) => self.take(report),
                Err(_) => break,
            }
        }
    }

    fn everybody(&self, done: impl Fn(&Self, usize) -> bool) -> bool {
        (0..self.mailboxes.len()).all(|at| done(self, at))
    }

    fn wake(&self) {
        for waker in &self.wakers {
            waker.wake();
        }
    }

    fn flush(&mut self, end_ms: u64) {
        self.turn();
        let epoch = self.epoch;
        self.epoch += 1;
        let (moment, stats) = (Moment { end_ms }, &self.shared.stats);
        let dropped = self.book.flush(epoch, moment, &mut self.fan, stats);
        if self.forget(dropped, false) {
            self.wake();
        }
        if let Some(key_flush) = &mut self.key_flush {
            key_flush.tick(&mut self.book);
        }
    }

    /// Asks the intakes to forget; returns whether there is anything to forget.
    fn forget(&self, dropped: Dropped, with_samples: bool) -> bool {
        let mut any = false;
        for (mailbox, entries) in self.mailboxes.iter().zip(dropped.entries) {
            if !entries.is_empty() {
                any = true;
                mailbox.push(Command::Forget {
                    entries,
                    with_samples,
                });
            }
        }
        any
    }

    fn answer(&mut self, query: Query) {
        match query {
            Query::LastFlush(reply) => {
                let _ = reply.send(self.book.last_flush());
            }
            Query::Table(kind, reply) => {
                let peeked = self.peek();
                let shown = view::table(&mut self.book, self.epoch, kind, &peeked);
                let _ = reply.send(Shown::object(shown).text(PLAIN));
            }
            Query::Delete(kind, names, reply) => {
                // Names that came in just now are there to be deleted, too.
                let peeked = self.peek();
                let mut known = view::table(&mut self.book, self.epoch, kind, &peeked);
                let mut text = String::new();
                for name in names {
                    let (found, others) = known
                        .into_iter()
                        .partition::<Vec<_>, _>(|(known, _)| view::is_meant(known, &name));
                    known = others;
                    if found.is_empty() {
                        text.push_str(&format!("metric {name} not found\n"));
                    }
                    for (name, _) in found {
                        if let Some(dropped) = self.book.delete(kind, name.as_bytes()) {
                            self.forget(dropped, true);
                        }
                        text.push_str(&format!("deleted: {name}\n"));
                    }
                }
                self.wake();
                let _ = reply.send(text);
            }
        }
    }

    /// What the running interval has come to so far, by intake.
    fn peek(&mut self) -> Vec<Option<Peeked>> {
        for (mailbox, peeked) in self.mailboxes.iter().zip(&mut self.peeked) {
            *peeked = None;
            mailbox.push(Command::Peek);
        }
        self.wake();
        while !self.everybody(|this, at| this.peeked[at].is_some() || this.ended[at]) {
            match self.reports.recv() {
                Ok(report) => self.take(report),
                Err(_) => break,
            }
        }
        self.peeked.iter_mut().map(Option::take).collect()
    }

    fn stop(mut self) -> Result<(), Error> {
        // The epoch first: an intake that sees the stop ends its interval, too.
        self.turned.fill(false);
        self.shared.epoch.store(self.epoch + 1, Ordering::Release);
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        while !self.everybody(|this, at| this.ended[at]) {
            match self.reports.recv() {
                Ok(report) => self.take(report),
                Err(_) => break,
            }
        }
        let now = now_ms();
        let state_file = self.state_file.take();
        if let Some((path, true)) = &state_file {
            return state::save(path, &mut self.book, self.epoch, Extent::All);
        }
        let moment = Moment { end_ms: now };
        let stats = &self.shared.stats;
        self.book.flush(self.epoch, moment, &mut self.fan, stats);
        match &state_file {
            Some((path, _)) => state::save(path, &mut self.book, self.epoch, Extent::Gauges),
            None => Ok(()),
        }
    }
}

/// The busiest names, written out now and then.
struct KeyFlush {
    every: Duration,
    percent: f64,
    log: String,
    last: Instant,
}

impl KeyFlush {
    fn new(options: &Options) -> Option<Self> {
        let every = options.key_flush_interval.0;
        (!every.is_zero()).then(|| Self {
            every,
            percent: options.key_flush_percent,
            log: options.key_flush_log.clone(),
            last: Instant::now(),
        })
    }

    fn tick(&mut self, book: &mut Book) {
        use std::io::Write as _;
        if self.last.elapsed() < self.every {
            return;
        }
        self.last = Instant::now();
        let at = now_ms() / 1_000;
        let mut text = String::new();
        for (count, name) in book.busiest(self.percent) {
            text.push_str(&format!("{at} count={count} key={name}\n"));
        }
        if self.log.is_empty() {
            for line in text.lines() {
                info!("{line}");
            }
            return;
        }
        let written = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        if let Err(why) = written {
            warn!("key_flush_log {}: {why}", self.log);
        }
    }
}
