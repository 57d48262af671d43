//! A server with a store in memory, over real sockets. Intervals end when the tests say so, not by the
//! clock.

#![allow(dead_code, reason = "each test uses its part")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use carbon::{Datapoint, NameError, SeriesId, Sink};
use settings::Span;
use statsd::{Event, EventSink, OnDeath, Options, Server, Sockets};

/// Nothing takes this long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Remembers names and the last point of each.
#[derive(Default)]
pub(crate) struct Memory {
    ids: Mutex<Vec<String>>,
    points: Mutex<HashMap<String, Datapoint>>,
    pub(crate) events: Mutex<Vec<Event>>,
    arrived: Condvar,
}

impl Sink for Memory {
    fn intern(&self, name: &[u8]) -> Result<SeriesId, NameError> {
        let name = String::from_utf8(name.to_vec()).unwrap();
        let mut ids = self.ids.lock().unwrap();
        let at = ids.iter().position(|known| *known == name);
        Ok(SeriesId(at.unwrap_or_else(|| {
            ids.push(name);
            ids.len() - 1
        }) as u32))
    }

    fn submit(&self, points: &[Datapoint]) {
        let ids = self.ids.lock().unwrap();
        for point in points {
            let name = ids[point.series.0 as usize].clone();
            self.points.lock().unwrap().insert(name, *point);
        }
    }

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        self.submit(points);
        points.len()
    }
}

impl EventSink for Memory {
    fn event(&self, event: Event) {
        self.events.lock().unwrap().push(event);
        self.arrived.notify_all();
    }
}

impl Memory {
    /// The last value of `name`.
    pub(crate) fn value(&self, name: &str) -> Option<f64> {
        Some(self.point(name)?.value)
    }

    /// The timestamp of the last point of `name`.
    pub(crate) fn time(&self, name: &str) -> Option<u32> {
        Some(self.point(name)?.at.timestamp().0)
    }

    /// Waits until there are `count` events.
    pub(crate) fn wait_for_events(&self, count: usize) {
        let events = self.events.lock().unwrap();
        let waited = self
            .arrived
            .wait_timeout_while(events, PATIENCE, |events| events.len() < count);
        assert!(!waited.unwrap().1.timed_out(), "{count} events");
    }

    fn point(&self, name: &str) -> Option<Datapoint> {
        self.points.lock().unwrap().get(name).copied()
    }
}

/// No thread of the server may die.
fn alive() -> OnDeath {
    Arc::new(|thread| panic!("{thread} has died"))
}

/// A server that must not lose a thread, with a store in memory.
pub(crate) fn start(options: Options, sockets: Sockets) -> (Server, Arc<Memory>) {
    let memory = Arc::new(Memory::default());
    let server = start_with(options, sockets, &memory, None);
    (server, memory)
}

/// As [`start`], with a store that is there already and the file for the saved state.
pub(crate) fn start_with(
    options: Options,
    sockets: Sockets,
    memory: &Arc<Memory>,
    state: Option<PathBuf>,
) -> Server {
    let (sink, events) = (memory.clone(), memory.clone());
    Server::start(options, sockets, sink, events, state, alive()).unwrap()
}

/// No interval ends by itself.
pub(crate) fn options() -> Options {
    Options {
        flush_interval: Span::seconds(86_400),
        ..Options::default()
    }
}

pub(crate) fn udp(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

pub(crate) fn tcp() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A UDP socket as all that a server receives by, and where it is.
pub(crate) fn only_udp() -> (Sockets, SocketAddr) {
    let (socket, address) = udp("127.0.0.1:0");
    let sockets = Sockets {
        udp: vec![socket],
        ..Sockets::default()
    };
    (sockets, address)
}

/// A socket to send from.
pub(crate) fn udp_sender() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").unwrap()
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Waits for a counter that another thread is about to change: nothing announces that.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

pub(crate) fn wait_for(server: &Server, metrics: u64) {
    let stats = server.stats();
    eventually("metrics arrive", || {
        stats.metrics.load(Ordering::Relaxed) >= metrics
    });
}

/// Sends a command and reads the reply up to `end`.
pub(crate) fn ask(stream: &mut BufReader<TcpStream>, command: &str, end: &str) -> String {
    stream.get_mut().write_all(command.as_bytes()).unwrap();
    let mut reply = String::new();
    while !reply.ends_with(end) {
        assert_ne!(stream.read_line(&mut reply).unwrap(), 0, "{reply}");
    }
    reply
}
