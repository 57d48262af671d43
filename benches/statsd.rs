//! StatsD: what a metric costs from the socket into the table, and a series at the flush.
//!
//! ```text
//! cargo bench --bench statsd              # 1,000, 100,000 and 1,000,000 names
//! cargo bench --bench statsd -- 1000      # these numbers of names only
//! ```
//!
//! Data: names of 38 bytes, 70 % counters, 20 % timers, 10 % gauges, shuffled, packed to 1,432 bytes
//! or one per datagram; fixed. They are sent over loopback by a thread of this process.
//! The server is the real one: sample rates, tags, validation, sanitising and limits are in. Its
//! output is a sink that does nothing, so that only StatsD is measured. Processor time is that of the
//! server's own threads (`schedstat`), per metric that it counted; what the kernel dropped is shown.
//! The reference, in the same run and on the same datagrams: one thread with a blocking `recv`,
//! `str::split`, `str::parse` and a `HashMap<String, …>` of sums, values and vectors, which is what one
//! writes first. It does no flush.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use carbon::options::Span;
use carbon::{Datapoint, NameError, SeriesId, Sink};
use statsd::{Mark, Marks, Options, Server, Sockets};

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

impl Marks for Counting {
    fn mark(&self, _mark: Mark) {}
}

fn main() {
    let wanted: Vec<u32> = std::env::args().filter_map(|n| n.parse().ok()).collect();
    let sizes = if wanted.is_empty() {
        vec![1_000, 100_000, 1_000_000]
    } else {
        wanted
    };
    for names in sizes {
        let packed = datagrams(names, 1_432);
        receiving(&format!("{names} names, packed"), &packed);
        if names == 1_000 {
            receiving("1000 names, one per datagram", &datagrams(names, 0));
        }
        flushing(names, &packed);
    }
}

/// One shuffled pass over all names (several, if they are few).
fn datagrams(names: u32, limit: usize) -> Vec<Vec<u8>> {
    let mut state = 1_u64;
    let mut random = |bound: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    };
    let rounds = (20_000 / names).max(1);
    let mut order: Vec<u32> = (0..rounds).flat_map(|_| 0..names).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, random(at as u64 + 1) as usize);
    }
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for name in order {
        let path = format!(
            "prod.web.host{:04}.svc{:02}.ep{:03}",
            name % 1_000,
            name / 1_000 % 40,
            name / 40_000
        );
        let line = match name.wrapping_mul(0x9e37_79b9) >> 16 {
            n if n % 10 < 7 => format!("{path}.requests:1|c"),
            n if n % 10 < 9 => format!("{path}.duration:{}|ms", random(2_000)),
            _ => format!("{path}.capacity:{}|g", random(1_000_000)),
        };
        match packets.last_mut() {
            Some(packet) if packet.len() + 1 + line.len() <= limit => {
                packet.push(b'\n');
                packet.extend_from_slice(line.as_bytes());
            }
            _ => packets.push(line.into_bytes()),
        }
    }
    packets
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

fn start() -> (Server, Arc<Counting>, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let sink = Arc::new(Counting::default());
    let options = Options {
        flush_interval: Span::seconds(86_400),
        ..Options::default()
    };
    let sockets = Sockets {
        udp: vec![socket],
        ..Sockets::default()
    };
    let server = Server::start(options, sockets, sink.clone(), sink.clone(), None).unwrap();
    (server, sink, address)
}

/// Sends flat out for `time`, at least one whole pass.
fn send(packets: &[Vec<u8>], address: SocketAddr, time: Duration) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    let start = Instant::now();
    loop {
        for (at, packet) in packets.iter().enumerate() {
            let _ = socket.send(packet);
            if at % 64 == 0 && start.elapsed() > time {
                return;
            }
        }
    }
}

/// Sends one pass slowly enough that nothing is lost.
fn send_gently(packets: &[Vec<u8>], address: SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(address).unwrap();
    for (at, packet) in packets.iter().enumerate() {
        socket.send(packet).unwrap();
        if at % 256 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn settled(count: impl Fn() -> u64) -> u64 {
    let mut last = count();
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = count();
        if now == last {
            return now;
        }
        last = now;
    }
}

fn receiving(what: &str, packets: &[Vec<u8>]) {
    const TIME: Duration = Duration::from_millis(700);
    let mut ours = Vec::new();
    let mut theirs = Vec::new();
    let mut dropped = 0.0;
    for _ in 0..5 {
        let (server, _, address) = start();
        send_gently(packets, address);
        let metrics = || server.stats().metrics.load(Ordering::Relaxed);
        let before = (
            settled(metrics),
            processor_time(&["statsd-receive", "statsd-aggreg"]),
        );
        send(packets, address, TIME);
        let after = (
            settled(metrics),
            processor_time(&["statsd-receive", "statsd-aggreg"]),
        );
        ours.push((after.1 - before.1) / (after.0 - before.0) as f64 * 1e9);
        server.flush_now();
        let stats = server.stats();
        dropped = stats.kernel_drops.load(Ordering::Relaxed) as f64
            / (stats.kernel_drops.load(Ordering::Relaxed) + stats.packets.load(Ordering::Relaxed))
                as f64;
        server.stop().unwrap();
        theirs.push(reference(packets, TIME));
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!(
        "statsd/receive, {what:<32} ours {ours:>7.1} ns   reference {theirs:>7.1} ns   {:>5.2}x   ({:.0} % dropped under this load)",
        theirs / ours,
        dropped * 100.0,
    );
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Nanoseconds per metric of the plain server.
fn reference(packets: &[Vec<u8>], time: Duration) -> f64 {
    enum Value {
        Number(f64),
        Times(Vec<f64>),
    }
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let count = Arc::new(AtomicU64::new(0));
    let thread = std::thread::Builder::new()
        .name("reference".to_owned())
        .spawn({
            let (stop, count) = (stop.clone(), count.clone());
            move || {
                let mut table: HashMap<String, Value> = HashMap::new();
                let mut buffer = [0; 65_536];
                while !stop.load(Ordering::Relaxed) {
                    let Ok(length) = socket.recv(&mut buffer) else {
                        continue;
                    };
                    let Ok(text) = std::str::from_utf8(&buffer[..length]) else {
                        continue;
                    };
                    let mut lines = 0;
                    for line in text.split('\n') {
                        lines += 1;
                        let Some((name, rest)) = line.split_once(':') else {
                            continue;
                        };
                        let Some((value, kind)) = rest.split_once('|') else {
                            continue;
                        };
                        let Ok(value) = value.parse::<f64>() else {
                            continue;
                        };
                        let entry = table.entry(name.to_owned());
                        match kind {
                            "ms" => match entry.or_insert_with(|| Value::Times(Vec::new())) {
                                Value::Times(times) => times.push(value),
                                Value::Number(_) => {}
                            },
                            _ => match entry.or_insert(Value::Number(0.0)) {
                                Value::Number(sum) if kind == "c" => *sum += value,
                                Value::Number(last) => *last = value,
                                Value::Times(_) => {}
                            },
                        }
                    }
                    count.fetch_add(lines, Ordering::Relaxed);
                }
            }
        });
    let thread = thread.unwrap();
    send_gently(packets, address);
    let counted = || count.load(Ordering::Relaxed);
    let before = (settled(counted), processor_time(&["reference"]));
    send(packets, address, time);
    let after = (settled(counted), processor_time(&["reference"]));
    stop.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    (after.1 - before.1) / (after.0 - before.0) as f64 * 1e9
}

/// First sight of names, memory, and flushes.
fn flushing(names: u32, packets: &[Vec<u8>]) {
    let empty = memory();
    let (server, sink, address) = start();
    let before = processor_time(&["statsd-receive", "statsd-aggreg"]);
    send_gently(packets, address);
    let metrics = settled(|| server.stats().metrics.load(Ordering::Relaxed));
    // Names are reported in batches: only the flush makes sure that all are known.
    let first = processor_time(&["statsd-receive", "statsd-aggreg"]) - before;
    server.flush_now();
    let mut costs = Vec::new();
    let mut peak = 0.0_f64;
    for _ in 0..5 {
        send_gently(packets, address);
        settled(|| server.stats().metrics.load(Ordering::Relaxed));
        let steady = memory();
        let before = (
            processor_time(&["statsd-receive", "statsd-aggreg"]),
            sink.points.load(Ordering::Relaxed),
        );
        let running = Arc::new(AtomicBool::new(true));
        let watch = std::thread::spawn({
            let running = running.clone();
            move || {
                let mut most = 0.0_f64;
                while running.load(Ordering::Relaxed) {
                    most = most.max(memory());
                    std::thread::sleep(Duration::from_millis(2));
                }
                most
            }
        });
        server.flush_now();
        let cost = processor_time(&["statsd-receive", "statsd-aggreg"]) - before.0;
        running.store(false, Ordering::Relaxed);
        peak = peak.max(watch.join().unwrap() / steady);
        costs.push(cost / (sink.points.load(Ordering::Relaxed) - before.1) as f64 * 1e9);
    }
    println!(
        "statsd/flush,   {names:>7} names: {:.0} ns a line; first pass {:.0} ns a metric; {:.0} MB (names and series ids), peak in a flush {peak:.2}x",
        median(&mut costs),
        first / metrics as f64 * 1e9,
        memory() - empty,
    );
    server.stop().unwrap();
}
