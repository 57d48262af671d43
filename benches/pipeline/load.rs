//! The names, and a thread that sends each of them once in every interval.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::baseline;

const PACKET: usize = 1_432;
/// Datagrams that one call sends.
const TOGETHER: usize = 8;
/// The part of an interval after which all names have been sent.
const SENT_BY: f64 = 0.7;

/// The type of a name, by the mix of the bench: 70 % counters, 20 % timers, 10 % gauges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Timer,
    Gauge,
}

pub(crate) fn kind(name: u32) -> Kind {
    match (name.wrapping_mul(0x9e37_79b9) >> 16) % 10 {
        0..7 => Kind::Counter,
        7..9 => Kind::Timer,
        _ => Kind::Gauge,
    }
}

/// A name of 38 bytes.
pub(crate) fn path(name: u32) -> String {
    let (host, service, endpoint) = (name % 1_000, name / 1_000 % 40, name / 40_000);
    format!("prod.web.host{host:04}.svc{service:02}.ep{endpoint:03}.requests")
}

/// The same numbers in every run.
fn random() -> impl FnMut(u64) -> u64 {
    let mut state = 1_u64;
    move |bound| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % bound
    }
}

/// All names once, shuffled: packed into equally long datagrams, several of them a call.
pub(crate) struct Pass {
    segment: usize,
    /// What is sent in an interval, and in the next ones until it begins again.
    turns: Vec<Vec<Vec<u8>>>,
    /// The order in which the names are sent.
    pub(crate) order: Vec<u32>,
}

impl Pass {
    /// Each name has the same value in every interval, or so many in turn.
    pub(crate) fn new(names: u32, values: u32) -> Self {
        Self::of((0..names).collect(), values)
    }

    /// A pass over these names.
    pub(crate) fn of(mut order: Vec<u32>, values: u32) -> Self {
        let mut random = random();
        for at in (1..order.len()).rev() {
            order.swap(at, random(at as u64 + 1) as usize);
        }
        let turns: Vec<_> = (1..=values)
            .map(|turn| packets(&order, turn, &mut random))
            .collect();
        let lengths = turns.iter().flatten().map(Vec::len);
        let segment = lengths.max().unwrap_or(1);
        Self {
            segment,
            turns: turns.iter().map(|turn| calls(turn, segment)).collect(),
            order,
        }
    }

    /// What is sent in the interval of this number.
    fn calls(&self, interval: u64) -> &[Vec<u8>] {
        &self.turns[interval as usize % self.turns.len()]
    }

    /// How many metrics a call sends: lines that are not empty, of each datagram.
    fn metrics_of(&self, call: &[u8]) -> u64 {
        let datagrams = call.chunks(self.segment);
        let lines = datagrams.flat_map(|datagram| datagram.split(|byte| *byte == b'\n'));
        lines.filter(|line| !line.is_empty()).count() as u64
    }
}

/// Datagrams with each of the names once.
fn packets(order: &[u32], turn: u32, random: &mut impl FnMut(u64) -> u64) -> Vec<Vec<u8>> {
    let mut packets: Vec<Vec<u8>> = Vec::new();
    for name in order {
        let path = path(*name);
        let line = match kind(*name) {
            Kind::Counter => format!("{path}:{turn}|c"),
            Kind::Timer => format!("{path}:{}|ms", random(2_000)),
            Kind::Gauge => format!("{path}:{}|g", random(1_000_000)),
        };
        match packets.last_mut() {
            Some(packet) if packet.len() + 1 + line.len() <= PACKET => {
                packet.push(b'\n');
                packet.extend_from_slice(line.as_bytes());
            }
            _ => packets.push(line.into_bytes()),
        }
    }
    packets
}

/// Calls that send `packets`, as datagrams of `segment` bytes.
fn calls(packets: &[Vec<u8>], segment: usize) -> Vec<Vec<u8>> {
    let calls = packets.chunks(TOGETHER).map(|packets| {
        let mut call = Vec::with_capacity(segment * TOGETHER);
        for packet in packets {
            call.extend_from_slice(packet);
            // Empty lines fill the datagrams up.
            call.resize(call.len().next_multiple_of(segment), b'\n');
        }
        call
    });
    calls.collect()
}

/// The time since 1970.
pub(crate) fn now() -> Duration {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970")
}

/// Sleeps until that time since 1970.
pub(crate) fn sleep_until(at: Duration) {
    std::thread::sleep(at.saturating_sub(now()));
}

/// The thread that sends, until it is dropped. Passes begin and end with the intervals of the server.
pub(crate) struct Sender {
    stop: Arc<AtomicBool>,
    passes: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    /// Sends one pass in each interval from now on.
    pub(crate) fn start(pass: &Arc<Pass>, address: &str, interval: Duration) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(address).expect("the server's address");
        if pass.calls(0)[0].len() > pass.segment {
            baseline::segment(&socket, pass.segment);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let passes = Arc::new(AtomicU64::new(0));
        let (pass, stopped, passed) = (pass.clone(), stop.clone(), passes.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let number = passed.load(Ordering::Relaxed);
                send_one(pass.calls(number), &socket, interval);
                passed.store(number + 1, Ordering::Relaxed);
                sleep_until(next_multiple(interval));
            }
        });
        Self {
            stop,
            passes,
            thread: Some(thread),
        }
    }

    /// How many passes have been sent.
    pub(crate) fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A thread that sends at a steady rate, some of whose names are replaced by new ones with each interval,
/// until it is dropped.
pub(crate) struct Renewing {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    /// What it sends at present.
    pass: Arc<Mutex<Arc<Pass>>>,
    thread: Option<JoinHandle<()>>,
}

impl Renewing {
    /// Sends `rate` metrics a second of `names` names, of which one in `lives` is new in each interval: a
    /// name lives for that many intervals.
    pub(crate) fn start(
        (names, lives): (u32, u32),
        rate: f64,
        address: &str,
        interval: Duration,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(address).expect("the server's address");
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let pass = Arc::new(Mutex::new(Arc::new(Pass::new(names, 1))));
        let (stopped, count, present) = (stop.clone(), sent.clone(), pass.clone());
        let thread = std::thread::spawn(move || {
            for number in 1.. {
                let pass = present.lock().expect("no panic").clone();
                send_at(rate, &pass, &socket, interval, &stopped, &count);
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // The name of a slot, in its generation: slots of one class are renewed together.
                let name = |slot: u32| {
                    let class = slot % lives;
                    slot + names * ((number + lives - 1 - class) / lives)
                };
                let next = Pass::of((0..names).map(name).collect(), 1);
                *present.lock().expect("no panic") = Arc::new(next);
            }
        });
        Self {
            stop,
            sent,
            pass,
            thread: Some(thread),
        }
    }

    /// Ends it. Returns how many metrics were sent.
    pub(crate) fn end(self) -> u64 {
        let sent = self.sent.clone();
        drop(self);
        sent.load(Ordering::Relaxed)
    }

    /// What is sent at present.
    pub(crate) fn pass(&self) -> Arc<Pass> {
        self.pass.lock().expect("no panic").clone()
    }
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Repeats the pass until the interval ends, at `rate` metrics a second.
fn send_at(
    rate: f64,
    pass: &Pass,
    socket: &UdpSocket,
    interval: Duration,
    stopped: &AtomicBool,
    sent: &AtomicU64,
) {
    if pass.calls(0)[0].len() > pass.segment {
        baseline::segment(socket, pass.segment);
    }
    let calls = pass.calls(0);
    let metrics: Vec<u64> = calls.iter().map(|call| pass.metrics_of(call)).collect();
    let (begin, end) = (now(), next_multiple(interval));
    let mut done = 0_u64;
    for (call, metrics) in calls.iter().zip(&metrics).cycle() {
        let due = begin + Duration::from_secs_f64(done as f64 / rate);
        let ahead = due.saturating_sub(now());
        // A sleep for each call would cost more than the call.
        if ahead > Duration::from_millis(2) {
            std::thread::sleep(ahead);
        }
        if now() >= end || stopped.load(Ordering::Relaxed) {
            return;
        }
        socket.send(call).expect("the server receives");
        done += metrics;
        sent.fetch_add(*metrics, Ordering::Relaxed);
    }
}

/// The end of the present interval.
pub(crate) fn next_multiple(interval: Duration) -> Duration {
    let nanoseconds = interval.as_nanos() as u64;
    let at = now().as_nanos() as u64 / nanoseconds + 1;
    Duration::from_nanos(at * nanoseconds)
}

/// Sends a pass, evenly, within the interval that begins next or has just begun.
fn send_one(calls: &[Vec<u8>], socket: &UdpSocket, interval: Duration) {
    let end = next_multiple(interval);
    let begin = end.saturating_sub(interval);
    let begin = if now() - begin > interval / 10 {
        sleep_until(end);
        end
    } else {
        begin
    };
    for (at, call) in calls.iter().enumerate() {
        let due = begin + interval.mul_f64(SENT_BY * at as f64 / calls.len() as f64);
        let ahead = due.saturating_sub(now());
        // A sleep for each call would cost more than the call.
        if ahead > Duration::from_millis(2) {
            std::thread::sleep(ahead);
        }
        let sent = socket.send(call);
        sent.expect("the server receives");
    }
}
