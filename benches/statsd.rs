//! StatsD: what a metric costs from the socket into the table, what gets lost, and what a flush costs.
//!
//! ```text
//! cargo bench --bench statsd                          # all rows but the soak
//! cargo bench --bench statsd -- saturated 100000      # one case: saturated, single, paced, loss, first, flush, meanwhile
//! cargo bench --bench statsd -- soak 17600000 300     # metrics a second, seconds
//! ```
//!
//! Data: names of 38 bytes, 70 % counters, 20 % timers, 10 % gauges, shuffled, packed to 1,432 bytes (empty
//! lines make all packets equally long) or one per datagram; fixed. A thread on the first core sends them over loopback, many
//! datagrams a call (`UDP_SEGMENT`); all threads of the server are on the second. The server is the real one: sample
//! rates, tags, validation, sanitising and limits are in. Its output is a sink that does nothing, so that only
//! StatsD is measured. Processor time is that of the threads (`schedstat`), per metric that arrived.
//!
//! The reference, alternating with ours on the same datagrams: a baseline of `recvmmsg` with the same socket options
//! that looks at nothing. For new names: their insertion into a `HashMap<String, f64>` without any socket. For flushes: one
//! pass over a million records of 64 bytes.

#![allow(clippy::unwrap_used)]

mod baseline;
#[path = "statsd/load.rs"]
mod load;

use std::collections::HashMap;
use std::hint::black_box;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use carbon::{Datapoint, NameError, SeriesId, Sink};
use load::{Load, path};
use settings::{ByteSize, Span};
use statsd::{Event, EventSink, Options, Server, Sockets};

const SENDER: usize = 0;
const RECEIVER: usize = 1;
/// What all servers are given here, but the soak's, which has the default.
const BUFFER: usize = 4 << 20;
const PACKET: usize = 1_432;
const ROUNDS: usize = 5;
const OURS: &[&str] = &["statsd-receive", "statsd-aggreg"];

/// Counts and forgets.
#[derive(Default)]
struct Counting {
    names: AtomicU64,
    points: AtomicU64,
}

impl Sink for Counting {
    fn intern(&self, _name: &[u8]) -> Result<SeriesId, NameError> {
        Ok(SeriesId(self.names.fetch_add(1, Ordering::Relaxed) as u32))
    }

    fn submit(&self, points: &[Datapoint]) {
        self.points
            .fetch_add(points.len() as u64, Ordering::Relaxed);
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        self.submit(points);
        points.len()
    }
}

impl EventSink for Counting {
    fn event(&self, _event: Event) {}
}

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let case = words.first().map(String::as_str);
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<f64>().ok());
    let names = |usual: &[u32]| match number(1) {
        Some(names) => vec![names as u32],
        None => usual.to_vec(),
    };
    let wanted = |name| case.is_none() || case == Some(name);
    if wanted("saturated") {
        for names in names(&[1_000, 100_000, 1_000_000]) {
            for coalesce in [true, false] {
                saturated("packed", &Load::new(names, PACKET, 8), coalesce);
            }
        }
    }
    if wanted("single") {
        saturated("one per datagram", &Load::new(1_000, 0, 64), true);
    }
    if wanted("paced") {
        paced(&Load::new(1_000, 0, 1), 100_000.0);
    }
    if wanted("loss") {
        loss(&Load::new(1_000, PACKET, 8));
    }
    if wanted("first") {
        names(&[1_000_000]).into_iter().for_each(first_sight);
    }
    if wanted("flush") {
        names(&[100_000, 1_000_000]).into_iter().for_each(flush);
    }
    if wanted("meanwhile") {
        names(&[1_000_000]).into_iter().for_each(meanwhile);
    }
    if case == Some("soak") {
        soak(
            number(1).unwrap_or(10e6),
            Duration::from_secs_f64(number(2).unwrap_or(300.0)),
        );
    }
}

/// Seconds that the threads whose names start so have run.
fn processor_time(threads: &[&str]) -> f64 {
    let mut nanoseconds = 0.0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        if threads.iter().any(|thread| comm.starts_with(thread)) {
            let stat = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let ran = stat.split(' ').next().and_then(|n| n.parse::<f64>().ok());
            nanoseconds += ran.unwrap_or(0.0);
        }
    }
    nanoseconds / 1e9
}

/// Anonymous memory of this process in MB.
fn memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon"))
        .unwrap();
    let kib: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1_024.0 / 1e6
}

/// Datagrams that the kernel dropped at the socket.
fn dropped(address: SocketAddr) -> u64 {
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let line = table.lines().find(|line| {
        let local = line.split_whitespace().nth(1);
        local.is_some_and(|local| local.ends_with(&port))
    });
    let drops = line.and_then(|line| line.split_whitespace().last());
    drops.and_then(|drops| drops.parse().ok()).unwrap_or(0)
}

/// The real server, its threads on the second core.
struct Ours {
    server: Server,
    sink: Arc<Counting>,
    address: SocketAddr,
}

impl Ours {
    fn start(coalesce: bool) -> Self {
        Self::with(coalesce, ByteSize(BUFFER as u64))
    }

    fn with(coalesce: bool, buffer: ByteSize) -> Self {
        thread::spawn(move || {
            baseline::stay_on(RECEIVER);
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let address = socket.local_addr().unwrap();
            let sink = Arc::new(Counting::default());
            let options = Options {
                flush_interval: Span::seconds(86_400),
                receive_gro: coalesce,
                receive_buffer: buffer,
                ..Options::default()
            };
            let sockets = Sockets {
                udp: vec![socket],
                ..Sockets::default()
            };
            let server = Server::start(
                options,
                sockets,
                sink.clone(),
                sink.clone(),
                None,
                Arc::new(|_: &str| std::process::abort()),
            )
            .unwrap();
            Self {
                server,
                sink,
                address,
            }
        })
        .join()
        .unwrap()
    }

    fn received(&self) -> u64 {
        self.server.stats().metrics.load(Ordering::Relaxed)
    }

    /// Waits until nothing more comes; returns what has come and what that took.
    fn drained(&self) -> (u64, f64) {
        let received = final_count(|| self.received());
        (received, processor_time(OURS))
    }
}

fn final_count(count: impl Fn() -> u64) -> u64 {
    let mut last = count();
    loop {
        thread::sleep(Duration::from_millis(100));
        let now = count();
        if now == last {
            return now;
        }
        last = now;
    }
}

/// Sends as `send` does to a baseline; returns seconds of processor time, bytes that came, and datagrams lost.
fn baseline_receiver(coalesce: bool, send: impl FnOnce(SocketAddr)) -> (f64, u64, u64) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let (stop, bytes) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let thread = thread::Builder::new().name("baseline".to_owned()).spawn({
        let (stop, bytes) = (stop.clone(), bytes.clone());
        move || {
            baseline::stay_on(RECEIVER);
            let mut receiver = baseline::Baseline::new(socket, coalesce, BUFFER);
            while !stop.load(Ordering::Relaxed) {
                bytes.fetch_add(receiver.read() as u64, Ordering::Relaxed);
            }
        }
    });
    let thread = thread.unwrap();
    let before = processor_time(&["baseline"]);
    send(address);
    let came = final_count(|| bytes.load(Ordering::Relaxed));
    let took = processor_time(&["baseline"]) - before;
    let lost = dropped(address);
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    (took, came, lost)
}

/// Runs `run` on a thread of its own, so that the core that it chooses stays its own.
fn apart<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(run).join().unwrap())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print_pairs(what: &str, ours: &mut [f64], theirs: &mut [f64], rest: &str) {
    let mut ratios: Vec<f64> = ours.iter().zip(&*theirs).map(|(a, b)| a / b).collect();
    let ratio = median(&mut ratios);
    let (ours, theirs) = (median(ours), median(theirs));
    println!(
        "{what:<58} ours {ours:>7.1} ns   baseline {theirs:>7.1} ns   {ratio:>5.2} times ({:.2} to {:.2}){rest}",
        ratios[0],
        ratios[ratios.len() - 1],
    );
}

/// Flat out: both are always behind.
fn saturated(what: &str, load: &Load, coalesce: bool) {
    let time = Duration::from_millis(1_000);
    let per_byte = load.metrics() as f64 / load.bytes() as f64;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let server = Ours::start(coalesce);
        apart(|| load.send_once(server.address));
        let before = server.drained();
        apart(|| load.send(server.address, 0.0, u64::MAX, time));
        let after = server.drained();
        ours.push((after.1 - before.1) / (after.0 - before.0) as f64 * 1e9);
        server.server.stop().unwrap();
        let (took, came, _) = baseline_receiver(coalesce, |address| {
            apart(|| load.send(address, 0.0, u64::MAX, time));
        });
        theirs.push(took / (came as f64 * per_byte) * 1e9);
    }
    let gro = if coalesce { "GRO" } else { "no GRO" };
    let what = format!("saturated, {what}, {} names, {gro}", load.names);
    print_pairs(&what, &mut ours, &mut theirs, "");
}

/// A load that leaves time between datagrams: what waking up costs.
fn paced(load: &Load, rate: f64) {
    let time = Duration::from_secs(2);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let server = Ours::start(true);
        apart(|| load.send_once(server.address));
        let before = server.drained();
        let sent = apart(|| load.send(server.address, rate, u64::MAX, time));
        let after = server.drained();
        assert_eq!(after.0 - before.0, sent, "some were lost");
        ours.push((after.1 - before.1) / sent as f64 * 1e9);
        server.server.stop().unwrap();
        let mut sent = 0;
        let (took, ..) = baseline_receiver(true, |address| {
            sent = apart(|| load.send(address, rate, u64::MAX, time));
        });
        theirs.push(took / sent as f64 * 1e9);
    }
    let what = format!("one per datagram, {rate} a second, not coalesced");
    print_pairs(&what, &mut ours, &mut theirs, "");
}

/// The highest rates of which less than 0.1 % is lost.
fn loss(load: &Load) {
    const TRIALS: usize = 5;
    let time = Duration::from_millis(800);
    let mut best = [0.0_f64; 2];
    let mut in_row = [0, 0];
    for rate in (8..=40)
        .step_by(2)
        .map(|millions| f64::from(millions) * 1e6)
    {
        let (mut ours, mut theirs, mut offered) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..TRIALS {
            let server = Ours::start(true);
            apart(|| load.send_once(server.address));
            let before = server.drained().0;
            let start = Instant::now();
            let sent = apart(|| load.send(server.address, rate, u64::MAX, time));
            offered.push(sent as f64 / start.elapsed().as_secs_f64());
            ours.push(1.0 - (server.drained().0 - before) as f64 / sent as f64);
            server.server.stop().unwrap();
            let mut sent = 0;
            let (_, _, lost) = baseline_receiver(true, |address| {
                sent = apart(|| load.send(address, rate, u64::MAX, time));
            });
            let datagrams = sent as f64 / load.metrics() as f64 * load.bytes() as f64;
            theirs.push(lost as f64 / (datagrams / load.segment as f64));
        }
        let offered = median(&mut offered);
        let lost = [median(&mut ours), median(&mut theirs)];
        for (at, lost) in lost.iter().enumerate() {
            if *lost < 0.001 {
                best[at] = offered;
                in_row[at] = 0;
            } else {
                in_row[at] += 1;
            }
        }
        println!(
            "loss at {:>4.1} million a second: ours {:.3} %, baseline {:.3} % (medians of {TRIALS}; most {:.3} and {:.3} %)",
            offered / 1e6,
            lost[0] * 100.0,
            lost[1] * 100.0,
            ours[TRIALS - 1] * 100.0,
            theirs[TRIALS - 1] * 100.0,
        );
        if in_row[0] == 2 || offered < rate * 0.95 {
            break;
        }
    }
    println!(
        "loss below 0.1 % up to {:.1} million a second; baseline {:.1}, or what the sender manages",
        best[0] / 1e6,
        best[1] / 1e6
    );
}

/// Names that nobody has seen before.
fn first_sight(names: u32) {
    let load = Load::new(names, PACKET, 1);
    let (mut first, mut again, mut maps) = (Vec::new(), Vec::new(), Vec::new());
    let paths: Vec<String> = (0..names).map(path).collect();
    for _ in 0..ROUNDS {
        let server = Ours::start(true);
        for costs in [&mut first, &mut again] {
            let before = server.drained();
            apart(|| load.send_once(server.address));
            let after = server.drained();
            assert_eq!(after.0 - before.0, load.metrics(), "some were lost");
            costs.push((after.1 - before.1) / load.metrics() as f64 * 1e9);
        }
        server.server.stop().unwrap();
        maps.push(apart(|| {
            baseline::stay_on(RECEIVER);
            let start = Instant::now();
            let mut map = HashMap::new();
            for path in &paths {
                map.insert(path.clone(), 1.0);
            }
            black_box(&map);
            start.elapsed().as_secs_f64() / f64::from(names) * 1e9
        }));
    }
    println!(
        "first sight, {names} names at 400,000 a second: {:.0} ns a name ({:.0} to {:.0}), {:.0} ns when known; HashMap<String, f64> without a socket {:.0} ns",
        median(&mut first),
        first[0],
        first[ROUNDS - 1],
        median(&mut again),
        median(&mut maps),
    );
}

/// All names sent, then flushed.
fn flush(names: u32) {
    let empty = memory();
    let load = Load::new(names, PACKET, 1);
    let own = memory() - empty;
    let server = Ours::start(true);
    apart(|| load.send_once(server.address));
    server.drained();
    server.server.flush_now();
    let (mut costs, mut walks) = (Vec::new(), Vec::new());
    let (mut peak, mut steady) = (0.0_f64, 0.0_f64);
    let records = vec![[1_u64; 8]; names as usize];
    let own = own + f64::from(names) * 64.0 / 1e6;
    let mut lines = 0;
    for _ in 0..ROUNDS {
        apart(|| load.send_once(server.address));
        server.drained();
        steady = memory() - empty - own;
        let before = (
            processor_time(OURS),
            server.sink.points.load(Ordering::Relaxed),
        );
        let running = AtomicBool::new(true);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                baseline::stay_on(SENDER);
                let mut most = 0.0_f64;
                while running.load(Ordering::Relaxed) {
                    most = most.max(memory());
                    thread::sleep(Duration::from_millis(1));
                }
                most
            });
            server.server.flush_now();
            running.store(false, Ordering::Relaxed);
            peak = peak.max((watch.join().unwrap() - empty - own) / steady);
        });
        lines = server.sink.points.load(Ordering::Relaxed) - before.1;
        costs.push((processor_time(OURS) - before.0) / lines as f64 * 1e9);
        let start = Instant::now();
        black_box(records.iter().map(|record| record[0]).sum::<u64>());
        walks.push(start.elapsed().as_secs_f64() / f64::from(names) * 1e9);
    }
    println!(
        "flush, {names} names, {lines} lines: {:.1} ns a line; {:.1} ns a record of a plain pass; {steady:.0} MB anonymous, {peak:.2} times at most",
        median(&mut costs),
        median(&mut walks),
    );
    server.server.stop().unwrap();
}

/// Flushes of many names while more comes in.
fn meanwhile(names: u32) {
    let load = Load::new(names, PACKET, 8);
    for rate in [1e6, 5e6] {
        let server = Ours::start(true);
        apart(|| load.send_once(server.address));
        server.drained();
        let before = server.received();
        let (sent, flushes) = thread::scope(|scope| {
            let sender =
                scope.spawn(|| load.send(server.address, rate, u64::MAX, Duration::from_secs(5)));
            let mut flushes = 0;
            while !sender.is_finished() {
                server.server.flush_now();
                flushes += 1;
                thread::sleep(Duration::from_millis(900));
            }
            (sender.join().unwrap(), flushes)
        });
        let received = server.drained().0 - before;
        println!(
            "meanwhile, {names} names, {:.0} million a second, {flushes} flushes in 5 s: {:.4} % lost ({} of {sent})",
            rate / 1e6,
            (sent - received) as f64 / sent as f64 * 100.0,
            sent - received,
        );
        server.server.stop().unwrap();
    }
}

/// A long time at a high rate, flushed every ten seconds.
fn soak(rate: f64, time: Duration) {
    let load = Load::new(1_000, PACKET, 8);
    let server = Ours::with(true, Options::default().receive_buffer);
    apart(|| load.send_once(server.address));
    let before = server.drained().0;
    let mut memories = Vec::new();
    let sent = thread::scope(|scope| {
        let sender = scope.spawn(|| load.send(server.address, rate, u64::MAX, time));
        let mut next = Instant::now() + Duration::from_secs(10);
        while !sender.is_finished() {
            thread::sleep(Duration::from_millis(500));
            memories.push(memory());
            if Instant::now() >= next {
                server.server.flush_now();
                next += Duration::from_secs(10);
            }
        }
        sender.join().unwrap()
    });
    let received = server.drained().0 - before;
    let tenth = memories.len().div_ceil(10).max(1);
    let most: Vec<f64> = memories
        .chunks(tenth)
        .map(|part| part.iter().fold(0.0, |a: f64, b| a.max(*b)).round())
        .collect();
    println!(
        "soak, {:.1} million a second, {} s: {sent} sent, {received} received, {} missing; anonymous MB at most, by tenths: {most:?}",
        rate / 1e6,
        time.as_secs(),
        sent - received,
    );
    server.server.stop().unwrap();
}
