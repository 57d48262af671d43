//! Commands of StatsD's management interface, over a real connection to a real server: each is
//! answered to its end, names are deleted as a model of them says, and tables name what is left.
#![no_main]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use carbon::options::Span;
use carbon::{Datapoint, NameError, SeriesId, Sink};
use libfuzzer_sys::fuzz_target;
use plumbago_fuzz::bytes::Bytes;
use statsd::options::Output;
use statsd::{Event, EventSink, Options, Server, Sockets};

const KINDS: [(&str, &str); 3] = [("counters", "c"), ("timers", "ms"), ("gauges", "g")];
const NAMES: [&str; 8] = ["a", "a.b", "a.b.c", "a.bc", "a.*", "b", "b.10", "0"];

struct Nowhere;

impl Sink for Nowhere {
    fn intern(&self, _: &[u8]) -> Result<SeriesId, NameError> {
        Ok(SeriesId(0))
    }

    fn submit(&self, _: &[Datapoint]) {}

    fn try_submit(&self, points: &[Datapoint]) -> usize {
        points.len()
    }
}

impl EventSink for Nowhere {
    fn event(&self, _: Event) {}
}

/// A running server and the connections to it.
struct Running {
    _runtime: tokio::runtime::Runtime,
    server: Server,
    address: SocketAddr,
    lines: TcpStream,
    admin: BufReader<TcpStream>,
    sent: u64,
}

fn start() -> Running {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let guard = runtime.enter();
    let options = Options {
        flush_interval: Span::seconds(86_400),
        output: vec![Output::Discard],
        ..Options::default()
    };
    let [tcp, admin] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [to_lines, address] = [&tcp, &admin].map(|socket| socket.local_addr().unwrap());
    let sockets = Sockets {
        tcp: vec![tcp],
        admin: vec![admin],
        ..Sockets::default()
    };
    let nowhere = Arc::new(Nowhere);
    let on_death = Arc::new(|thread: &str| panic!("{thread} has died"));
    let server = Server::start(options, sockets, nowhere.clone(), nowhere, None, on_death);
    let server = server.unwrap();
    drop(guard);
    Running {
        _runtime: runtime,
        server,
        address,
        lines: TcpStream::connect(to_lines).unwrap(),
        admin: connect(address),
        sent: 0,
    }
}

fn connect(address: SocketAddr) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    BufReader::new(stream)
}

impl Running {
    /// Sends one command, in two pieces, and reads its answer; `None` if the server said goodbye.
    fn ask(&mut self, command: &[u8], cut: usize) -> Option<String> {
        let line = [command, b"\n"].concat();
        let (first, second) = line.split_at(cut % line.len());
        for piece in [first, second]
            .into_iter()
            .filter(|piece| !piece.is_empty())
        {
            self.admin.get_mut().write_all(piece).unwrap();
        }
        let mut answer = Vec::new();
        loop {
            let before = answer.len();
            let read = self
                .admin
                .read_until(b'\n', &mut answer)
                .expect("an answer");
            if read == 0 {
                assert!(answer.is_empty(), "cut off");
                self.admin = connect(self.address);
                return None;
            }
            let line = &answer[before..];
            // An answer of one line, or one that ends in a blank line.
            if before == 0 && (line == b"ERROR\n" || line.starts_with(b"health: ")) {
                break;
            }
            if line == b"\n"
                && before > 0
                && (answer.ends_with(b"END\n\n") || answer.starts_with(b"Commands"))
            {
                break;
            }
        }
        Some(String::from_utf8_lossy(&answer).into_owned())
    }
}

fuzz_target!(|data: &[u8]| {
    static RUNNING: Mutex<Option<Running>> = Mutex::new(None);
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    let running = running.get_or_insert_with(start);
    let mut input = Bytes(data);
    let mut model: [BTreeSet<String>; 3] = Default::default();
    let mut text = String::new();
    for _ in 0..input.below(12) {
        let kind = input.below(3);
        let name = NAMES[input.below(NAMES.len())];
        // The server makes names good: a star is not in one.
        let name = if name == "a.*" { "a.x" } else { name };
        text += &format!("{name}:{}|{}\n", input.byte(), KINDS[kind].1);
        model[kind].insert(name.to_owned());
        running.sent += 1;
    }
    running.lines.write_all(text.as_bytes()).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while running.server.stats().metrics.load(Ordering::Relaxed) < running.sent {
        assert!(Instant::now() < until, "metrics arrive");
        std::thread::yield_now();
    }
    while !input.is_empty() {
        let cut = input.below(256);
        if input.below(4) == 0 {
            let len = input.below(40);
            let line = input
                .take(len)
                .split(|byte| *byte == b'\n')
                .next()
                .unwrap_or_default();
            let text = String::from_utf8_lossy(line).trim().to_owned();
            let command = text.split(' ').next().unwrap_or_default().trim();
            // The options are answered without an end.
            if !command.starts_with("del") && command != "config" {
                let answer = running.ask(line, cut);
                assert_eq!(answer.is_none(), command == "quit", "{text:?}");
            }
            continue;
        }
        let kind = input.below(3);
        let (table, _) = KINDS[kind];
        if input.below(3) == 0 {
            check_table(running, kind, &model[kind]);
            continue;
        }
        let wanted: Vec<&str> = (0..input.below(4))
            .map(|_| NAMES[input.below(NAMES.len())])
            .collect();
        let mut expected = Vec::new();
        for name in &wanted {
            let folder = name.strip_suffix('*');
            let is_meant = |own: &String| folder.is_some_and(|f| own.starts_with(f)) || own == name;
            let found: Vec<String> = model[kind]
                .iter()
                .filter(|own| is_meant(own))
                .cloned()
                .collect();
            if found.is_empty() {
                expected.push(format!("metric {name} not found"));
            }
            for name in found {
                model[kind].remove(&name);
                expected.push(format!("deleted: {name}"));
            }
        }
        let command = format!("del{table} {}", wanted.join(" "));
        let answer = running
            .ask(command.trim().as_bytes(), cut)
            .expect("an answer");
        let mut found: Vec<&str> = answer
            .strip_suffix("END\n\n")
            .expect("an end")
            .lines()
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{command:?}");
    }
    for (kind, names) in model.iter().enumerate() {
        check_table(running, kind, names);
        let (table, _) = KINDS[kind];
        let all = names.iter().cloned().collect::<Vec<_>>().join(" ");
        running.ask(format!("del{table} {all}").trim().as_bytes(), 0);
        check_table(running, kind, &BTreeSet::new());
    }
});

/// The table of a kind names `names` and no other of ours.
fn check_table(running: &mut Running, kind: usize, names: &BTreeSet<String>) {
    let answer = running.ask(KINDS[kind].0.as_bytes(), 0).expect("a table");
    for name in NAMES.iter().chain(&["a.x"]) {
        let keys = [format!("'{name}': "), format!(" {name}: ")];
        let is_there = keys.iter().any(|key| answer.contains(key));
        assert_eq!(is_there, names.contains(*name), "{name:?} in {answer}");
    }
}
