//! The whole server over real sockets. Intervals end when the tests say so, not by the clock.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use carbon::{Datapoint, NameError, SeriesId, Sink};
use settings::Span;
use statsd::options::{Output, RepeaterProtocol};
use statsd::{Event, EventSink, OnDeath, Options, Server, Sockets};

/// Remembers names and the last value of each.
#[derive(Default)]
struct Memory {
    ids: Mutex<Vec<String>>,
    values: Mutex<HashMap<String, f64>>,
    times: Mutex<HashMap<String, u32>>,
    events: Mutex<Vec<Event>>,
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
            self.times
                .lock()
                .unwrap()
                .insert(name.clone(), point.at.timestamp().0);
            self.values.lock().unwrap().insert(name, point.value);
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
    }
}

impl Memory {
    fn value(&self, name: &str) -> Option<f64> {
        self.values.lock().unwrap().get(name).copied()
    }
}

impl Memory {
    fn time(&self, name: &str) -> Option<u32> {
        self.times.lock().unwrap().get(name).copied()
    }
}

/// No thread of the server may die.
fn alive() -> OnDeath {
    Arc::new(|thread| panic!("{thread} has died"))
}

fn options() -> Options {
    Options {
        flush_interval: Span::seconds(86_400),
        ..Options::default()
    }
}

fn udp(address: &str) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn tcp() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Waits for something that another thread is about to do.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn wait_for(server: &Server, metrics: u64) {
    let stats = server.stats();
    eventually("metrics arrive", || {
        stats.metrics.load(Ordering::Relaxed) >= metrics
    });
}

#[test]
fn every_input_feeds_one_flush() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let (v4, v4_address) = udp("127.0.0.1:0");
    let (v6, v6_address) = udp("[::1]:0");
    let (lines, lines_address) = tcp();
    let datagram_path = folder.path().join("datagram");
    let stream_path = folder.path().join("stream");
    let sockets = Sockets {
        udp: vec![v4, v6],
        tcp: vec![lines],
        unix: vec![UnixDatagram::bind(&datagram_path).unwrap()],
        unix_stream: vec![UnixListener::bind(&stream_path).unwrap()],
        admin: Vec::new(),
    };
    let memory = Arc::new(Memory::default());
    let server = Server::start(
        Options {
            unix_mode: "0600".to_owned(),
            ..options()
        },
        sockets,
        memory.clone(),
        memory.clone(),
        None,
        alive(),
    )
    .unwrap();

    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"hits:1|c\nbad", v4_address).unwrap();
    sender
        .send_to(b"_e{6,2}:deploy|v2|#web", v4_address)
        .unwrap();
    let sender = UdpSocket::bind("[::1]:0").unwrap();
    sender.send_to(b"hits:10|c", v6_address).unwrap();
    let mut stream = TcpStream::connect(lines_address).unwrap();
    stream.write_all(b"hits:100|c\nhits:10").unwrap();
    stream.write_all(b"00|c\nhits:10000|c").unwrap();
    // The line without an end counts when the connection closes.
    drop(stream);
    UnixDatagram::unbound()
        .unwrap()
        .send_to(b"hits:100000|c", &datagram_path)
        .unwrap();
    let mut stream = UnixStream::connect(&stream_path).unwrap();
    stream.write_all(b"hits:1000000|c\n").unwrap();

    wait_for(&server, 9);
    server.flush_now();
    assert_eq!(memory.value("stats_counts.hits"), Some(1_111_111.0));
    assert_eq!(
        memory.value("stats_counts.statsd.metrics_received"),
        Some(9.0)
    );
    assert_eq!(
        memory.value("stats_counts.statsd.bad_lines_seen"),
        Some(1.0)
    );
    eventually("the event arrives", || {
        !memory.events.lock().unwrap().is_empty()
    });
    assert_eq!(memory.events.lock().unwrap()[0].what, "deploy");
    assert_eq!(
        server.stats().bad_lines_by_sender(),
        [(Some("127.0.0.1".parse().unwrap()), 1)]
    );
    // Bad lines are series of their own, from the first one on.
    let own = |name: &str| memory.value(&format!("stats.statsd.bad_lines.{name}"));
    assert_eq!(own("by_reason.no_colon"), Some(1.0));
    assert_eq!(own("by_sender.127_0_0_1"), Some(1.0));
    assert_eq!(own("by_reason.no_type"), None);
    sender.send_to(b"x:1|zzz\nx:1|zzz", v6_address).unwrap();
    wait_for(&server, 11);
    server.flush_now();
    assert_eq!(own("by_reason.no_colon"), Some(0.0));
    assert_eq!(own("by_sender.127_0_0_1"), Some(0.0));
    assert_eq!(own("by_reason.unknown_type"), Some(2.0));
    assert_eq!(own("by_sender.__1"), Some(2.0));
    server.stop().unwrap();
}

/// Each letter, each notation of tags, both packings, events and checks: over UDP, over TCP and
/// over a Unix socket.
#[test]
fn every_type_and_notation_arrives_over_sockets() {
    const LINES: &[&str] = &[
        "c:2|c|@0.5",
        "m:3|m",
        "ms:4|ms|@0.25",
        "h:5|h",
        "d:6|d",
        "set:7|g",
        "add:+8|g",
        "add:-1.5|g",
        "minus: -9|g",
        "s:ann|s",
        "s:bob|s",
        "s:ann|s",
        "a:10|a",
        "a:13|a",
        "r:14|r|1700000000",
        "kv:15|kv",
        "then:16|c|@0.5|T1700000060",
        "then:17|g|#x:y|T1700000120",
        "dog:1|c|#host:a,env:prod",
        "graphite;host=a;env=prod:2|c",
        "influx,host=a,env=prod:3|c",
        "fx[host=a,env=prod]:4|c",
        "librato#host=a,env=prod:5|c",
        "bare:6|c|#canary",
        "packed:1|c:2|c|@0.5:4|ms",
        "values:1:2:3|ms|#k:v",
        "chunks:1|c|c:ci-abc|e:it-false|#k:v|card:low|later:on",
        "_e{6,9}:deploy|v1|\\n a:b|d:1700000000|h:h1|k:key|p:low|s:src|t:error|#web,env:prod",
        "_sc|db.up|2|d:1700000000|h:h1|#env:prod|m:down: so it is",
        "_sc|cache.up|0",
    ];
    let runtime = runtime();
    let _guard = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("datagram");
    for way in ["udp", "tcp", "unix"] {
        let (socket, address) = udp("127.0.0.1:0");
        let (stream, stream_address) = tcp();
        let _ = std::fs::remove_file(&path);
        let sockets = Sockets {
            udp: vec![socket],
            tcp: vec![stream],
            unix: vec![UnixDatagram::bind(&path).unwrap()],
            ..Sockets::default()
        };
        let memory = Arc::new(Memory::default());
        let server = Server::start(
            options(),
            sockets,
            memory.clone(),
            memory.clone(),
            None,
            alive(),
        )
        .unwrap();
        let text = LINES.join("\n");
        match way {
            "udp" => {
                let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
                sender.send_to(text.as_bytes(), address).unwrap();
            }
            "tcp" => {
                let mut stream = TcpStream::connect(stream_address).unwrap();
                stream.write_all(text.as_bytes()).unwrap();
            }
            _ => {
                let sender = UnixDatagram::unbound().unwrap();
                sender.send_to(text.as_bytes(), &path).unwrap();
            }
        }
        wait_for(&server, LINES.len() as u64);
        server.flush_now();
        for (name, value) in [
            ("stats_counts.c", 4.0),
            ("stats.c", 4.0 / 86_400.0),
            ("stats_counts.m", 3.0),
            ("stats.timers.ms.sum", 4.0),
            ("stats.timers.ms.count", 4.0),
            ("stats.timers.h.upper", 5.0),
            ("stats.timers.d.mean_90", 6.0),
            ("stats.gauges.set", 7.0),
            ("stats.gauges.add", 6.5),
            ("stats.gauges.minus", -9.0),
            ("stats.sets.s.count", 2.0),
            ("stats.averages.a", 11.5),
            ("r", 14.0),
            ("kv", 15.0),
            ("stats_counts.then", 16.0),
            ("stats.gauges.then;x=y", 17.0),
            ("stats_counts.dog;env=prod;host=a", 1.0),
            ("stats_counts.graphite;env=prod;host=a", 2.0),
            ("stats_counts.influx;env=prod;host=a", 3.0),
            ("stats_counts.fx;env=prod;host=a", 4.0),
            ("stats_counts.librato;env=prod;host=a", 5.0),
            ("stats_counts.bare;canary=true", 6.0),
            ("stats_counts.packed", 5.0),
            ("stats.timers.packed.sum", 4.0),
            ("stats.timers.values.sum;k=v", 6.0),
            ("stats.timers.values.count;k=v", 3.0),
            ("stats_counts.chunks;k=v", 1.0),
            ("stats.gauges.service_checks.db.up;env=prod;host=h1", 2.0),
            ("stats.gauges.service_checks.cache.up", 0.0),
            ("stats_counts.statsd.bad_lines_seen", 0.0),
        ] {
            assert_eq!(memory.value(name), Some(value), "{name} over {way}");
        }
        assert_eq!(memory.time("r"), Some(1_700_000_000));
        assert_eq!(memory.time("stats_counts.then"), Some(1_700_000_060));
        assert_eq!(memory.time("stats.gauges.then;x=y"), Some(1_700_000_120));
        eventually("events arrive", || memory.events.lock().unwrap().len() >= 3);
        let events = memory.events.lock().unwrap();
        let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
        assert_eq!(
            *events,
            [
                Event {
                    what: "deploy".to_owned(),
                    data: "v1|\n a:b".to_owned(),
                    tags: tags(&[
                        "host:h1",
                        "priority:low",
                        "source:src",
                        "error",
                        "web",
                        "env:prod"
                    ]),
                    when: Some(1_700_000_000),
                    key: Some("key".to_owned()),
                },
                Event {
                    what: "db.up".to_owned(),
                    data: "down: so it is".to_owned(),
                    tags: tags(&["service_check", "critical", "host:h1", "env:prod"]),
                    when: Some(1_700_000_000),
                    key: None,
                },
                Event {
                    what: "cache.up".to_owned(),
                    data: String::new(),
                    tags: tags(&["service_check", "ok"]),
                    when: None,
                    key: None,
                },
            ]
        );
        drop(events);
        server.stop().unwrap();
    }
}

/// Sends a command and reads the reply up to `end`.
fn ask(stream: &mut BufReader<TcpStream>, command: &str, end: &str) -> String {
    stream.get_mut().write_all(command.as_bytes()).unwrap();
    let mut reply = String::new();
    while !reply.ends_with(end) {
        assert_ne!(stream.read_line(&mut reply).unwrap(), 0, "{reply}");
    }
    reply
}

/// A UDP socket and a management interface, and where they are.
fn with_management() -> (Sockets, SocketAddr, SocketAddr) {
    let (socket, address) = udp("127.0.0.1:0");
    let (admin, admin_address) = tcp();
    let sockets = Sockets {
        udp: vec![socket],
        admin: vec![admin],
        ..Sockets::default()
    };
    (sockets, address, admin_address)
}

#[test]
fn the_management_interface_answers_as_the_reference() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (sockets, address, admin_address) = with_management();
    let memory = Arc::new(Memory::default());
    let server = Server::start(
        options(),
        sockets,
        memory.clone(),
        memory.clone(),
        None,
        alive(),
    )
    .unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender
        .send_to(
            b"a.b:3|c\na.c:4|c\nd:5|c\nt:7|ms\nt:8|ms\ng:1|g\ng:+2|g\nbad",
            address,
        )
        .unwrap();
    wait_for(&server, 8);

    let mut stream = BufReader::new(TcpStream::connect(admin_address).unwrap());
    assert!(ask(&mut stream, "help\n", "\n\n").starts_with("Commands: stats, counters, timers"));
    let counters = ask(&mut stream, "counters\n", "END\n\n");
    assert!(counters.contains("'a.b': 3"), "{counters}");
    assert!(
        counters.contains("'statsd.metrics_received': 8"),
        "{counters}"
    );
    assert_eq!(
        ask(&mut stream, "timers\n", "END\n\n"),
        "{ t: [ 7, 8 ] }\nEND\n\n"
    );
    assert_eq!(
        ask(&mut stream, "gauges\r\n", "END\n\n"),
        "{ g: 3 }\nEND\n\n"
    );
    let stats = ask(&mut stream, "stats\n", "END\n\n");
    assert!(stats.contains("messages.bad_lines_seen: 1\n"), "{stats}");
    assert!(stats.contains("graphite.flush_length: 0\n"), "{stats}");
    let bad = ask(&mut stream, "bad_lines\n", "END\n\n");
    assert_eq!(bad, "reason.no_colon: 1\nsender.127.0.0.1: 1\nEND\n\n");
    assert!(ask(&mut stream, "counts\n", "END\n\n").contains("metrics_received: 8\n"));
    // Two commands in one segment, and one in two.
    assert_eq!(
        ask(&mut stream, "delcounters a.* nothing\nhealth\n", "up\n"),
        "deleted: a.b\ndeleted: a.c\nmetric nothing not found\nEND\n\nhealth: up\n"
    );
    stream.get_mut().write_all(b"hea").unwrap();
    assert_eq!(ask(&mut stream, "lth down\n", "down\n"), "health: down\n");
    assert!(server.is_down());
    assert_eq!(ask(&mut stream, "health maybe\n", "\n"), "health: down\n");
    assert_eq!(ask(&mut stream, "health up\n", "\n"), "health: up\n");
    assert_eq!(ask(&mut stream, "STATS\n", "\n"), "ERROR\n");
    assert_eq!(ask(&mut stream, "\n", "\n"), "ERROR\n");
    assert_eq!(ask(&mut stream, "delgauges\n", "\n\n"), "END\n\n");
    let config = ask(&mut stream, "config\n", "unix_mode: \n");
    assert!(config.contains("output > 0: embedded\n"), "{config}");
    stream.get_mut().write_all(b"quit\n").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("ERROR"));

    server.flush_now();
    assert_eq!(memory.value("stats_counts.d"), Some(5.0));
    assert_eq!(memory.value("stats_counts.a.b"), None);
    server.stop().unwrap();
}

#[test]
fn the_management_interface_shows_what_the_interval_has() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (sockets, address, admin_address) = with_management();
    let memory = Arc::new(Memory::default());
    let options = Options {
        delete_idle_stats: true,
        ..options()
    };
    let server = Server::start(
        options,
        sockets,
        memory.clone(),
        memory.clone(),
        None,
        alive(),
    )
    .unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender
        .send_to(b"t:1|ms\nu:2|ms\n10:1|c\na:1|c\n2:1|c", address)
        .unwrap();
    wait_for(&server, 5);
    server.flush_now();
    let mut stream = BufReader::new(TcpStream::connect(admin_address).unwrap());
    let mut table = |name: &str| ask(&mut stream, &format!("{name}\n"), "END\n\n");
    assert_eq!(table("timers"), "{}\nEND\n\n");
    // The table of the first timer is all that this interval has so far.
    sender
        .send_to(b"t:7|ms\n10:2|c\na:1|c\n2:1|c", address)
        .unwrap();
    wait_for(&server, 9);
    assert_eq!(table("timers"), "{ t: [ 7 ] }\nEND\n\n");
    let counters = table("counters");
    assert!(
        counters.starts_with("{\n  '2': 1,\n  '10': 2,\n"),
        "{counters}"
    );
    assert_eq!(
        table("deltimers u t t"),
        "metric u not found\ndeleted: t\nmetric t not found\nEND\n\n"
    );
    server.stop().unwrap();
}

#[test]
fn a_restart_continues_the_interval() {
    let folder = tempfile::tempdir().unwrap();
    let state: PathBuf = folder.path().join("statsd-state");
    let memory = Arc::new(Memory::default());
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let start = |exact| {
        let (socket, address) = udp("127.0.0.1:0");
        let sockets = Sockets {
            udp: vec![socket],
            ..Sockets::default()
        };
        let server = Server::start(
            Options {
                timer_exact_samples: exact,
                ..options()
            },
            sockets,
            memory.clone(),
            memory.clone(),
            Some(state.clone()),
            alive(),
        )
        .unwrap();
        (server, address)
    };
    let (server, address) = start(1_000);
    sender
        .send_to(
            b"c:0.1|c\ng:5|g\nt:1|ms|@0.5\nt:2|ms\ns:a b|s\ns:c|s\nm:1|a\nm:2|a\nu;x=y:1|c",
            address,
        )
        .unwrap();
    wait_for(&server, 9);
    server.stop().unwrap();
    assert_eq!(memory.value("stats_counts.c"), None);
    assert!(state.exists());

    let (server, address) = start(1_000);
    assert!(!state.exists());
    sender
        .send_to(b"c:0.2|c\ng:+1|g\nt:6|ms\ns:c|s\ns:d|s\nm:6|a", address)
        .unwrap();
    wait_for(&server, 6);
    server.flush_now();
    for (name, value) in [
        ("stats_counts.c", 0.1 + 0.2),
        ("stats.gauges.g", 6.0),
        ("stats.timers.t.count", 4.0),
        ("stats.timers.t.sum", 9.0),
        ("stats.timers.t.median", 2.0),
        ("stats.sets.s.count", 3.0),
        ("stats.averages.m", 3.0),
        ("stats_counts.u;x=y", 1.0),
        ("stats_counts.statsd.metrics_received", 15.0),
    ] {
        assert_eq!(memory.value(name), Some(value), "{name}");
    }
    // Gauges live on, the flushed interval does not come back.
    server.stop().unwrap();
    let (server, address) = start(1_000);
    sender.send_to(b"g:+1|g\nc:1|c", address).unwrap();
    wait_for(&server, 2);
    server.flush_now();
    assert_eq!(memory.value("stats.gauges.g"), Some(7.0));
    assert_eq!(memory.value("stats_counts.c"), Some(1.0));
    server.stop().unwrap();
}

#[test]
fn a_damaged_state_file_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("statsd-state");
    std::fs::write(&state, "plumbago statsd interval 1\nc a 1\n").unwrap();
    let (socket, _) = udp("127.0.0.1:0");
    let memory = Arc::new(Memory::default());
    let sockets = Sockets {
        udp: vec![socket],
        ..Sockets::default()
    };
    let server = Server::start(
        options(),
        sockets,
        memory.clone(),
        memory.clone(),
        Some(state.clone()),
        alive(),
    )
    .unwrap();
    assert!(state.exists());
    server.flush_now();
    assert_eq!(memory.value("stats_counts.a"), None);
    server.stop().unwrap();
}

#[test]
fn remote_carbons_get_every_interval() {
    // An address without a listener.
    let (listener, carbon_address) = tcp();
    drop(listener);
    let (pickle, pickle_address) = tcp();
    let (other, other_address) = udp("127.0.0.1:0");
    let (socket, address) = udp("127.0.0.1:0");
    let sockets = Sockets {
        udp: vec![socket],
        ..Sockets::default()
    };
    let memory = Arc::new(Memory::default());
    let server = Server::start(
        Options {
            output: vec![
                Output::Tcp(carbon_address.to_string()),
                Output::Pickle(pickle_address.to_string()),
                Output::Discard,
            ],
            repeater: vec![other_address.to_string()],
            repeater_protocol: RepeaterProtocol::Udp4,
            ..options()
        },
        sockets,
        memory.clone(),
        memory.clone(),
        None,
        alive(),
    )
    .unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(b"a:1|c\nbad line", address).unwrap();
    let mut repeated = [0; 100];
    let length = other.recv(&mut repeated).unwrap();
    assert_eq!(&repeated[..length], b"a:1|c\nbad line");
    wait_for(&server, 2);
    server.flush_now();
    eventually("the first attempt fails", || {
        server.stats().output_errors.load(Ordering::Relaxed) > 0
    });
    // Now there is one; what was flushed before is not lost.
    let listener = TcpListener::bind(carbon_address).unwrap();
    sender.send_to(b"a:2|c", address).unwrap();
    wait_for(&server, 3);
    server.flush_now();
    sender.send_to(b"a:4|c", address).unwrap();
    wait_for(&server, 4);
    let stopping = std::thread::spawn(move || server.stop());
    let (stream, _) = listener.accept().unwrap();
    let mut text = String::new();
    let mut stream = BufReader::new(stream);
    stream.read_to_string(&mut text).unwrap();
    for count in ["1", "2", "4"] {
        assert!(text.contains(&format!("stats_counts.a {count} ")), "{text}");
    }
    stopping.join().unwrap().unwrap();

    let (mut stream, _) = pickle.accept().unwrap();
    let mut frames = Vec::new();
    stream.read_to_end(&mut frames).unwrap();
    let mut count = 0;
    let mut rest = &frames[..];
    while let Some((length, body)) = rest.split_first_chunk::<4>() {
        let (frame, after) = body.split_at(u32::from_be_bytes(*length) as usize);
        assert!(frame.starts_with(b"\x80\x02](") && frame.ends_with(b"e."));
        count += 1;
        rest = after;
    }
    assert_eq!(count, 3);
    assert_eq!(memory.value("stats_counts.a"), None);
}

/// A store that panics takes the aggregator with it; on_death is called once, and stop does not wait.
#[test]
fn a_thread_that_dies_is_reported_once_and_not_waited_for() {
    struct Broken;

    impl Sink for Broken {
        fn intern(&self, _: &[u8]) -> Result<SeriesId, NameError> {
            panic!("broken on purpose")
        }

        fn submit(&self, _: &[Datapoint]) {}

        fn try_submit(&self, points: &[Datapoint]) -> usize {
            points.len()
        }
    }

    let (carbon, carbon_address) = tcp();
    let (socket, address) = udp("127.0.0.1:0");
    let (stream, stream_address) = tcp();
    let (admin, admin_address) = tcp();
    let runtime = runtime();
    let _guard = runtime.enter();
    let died = Arc::new(Mutex::new(Vec::new()));
    let on_death: OnDeath = {
        let died = died.clone();
        Arc::new(move |thread| died.lock().unwrap().push(thread.to_owned()))
    };
    let memory = Arc::new(Memory::default());
    let server = Server::start(
        Options {
            output: vec![Output::Embedded, Output::Tcp(carbon_address.to_string())],
            repeater: vec![address.to_string()],
            ..options()
        },
        Sockets {
            udp: vec![socket],
            tcp: vec![stream],
            admin: vec![admin],
            ..Sockets::default()
        },
        Arc::new(Broken),
        memory,
        None,
        on_death,
    )
    .unwrap();
    let mut lines = TcpStream::connect(stream_address).unwrap();
    lines.write_all(b"a:1|c\n").unwrap();
    wait_for(&server, 1);
    server.flush_now();
    eventually("on_death is called", || !died.lock().unwrap().is_empty());
    assert_eq!(*died.lock().unwrap(), ["statsd-aggregate"]);
    // A query has an answer.
    let mut admin = BufReader::new(TcpStream::connect(admin_address).unwrap());
    assert_eq!(ask(&mut admin, "counters\n", "\n"), "ERROR\n");
    let start = Instant::now();
    server.stop().unwrap();
    assert!(start.elapsed() < Duration::from_secs(30));
    assert_eq!(died.lock().unwrap().len(), 1);
    drop(carbon);
}

/// Further connections are closed, and counted, until there is room again.
#[test]
fn connections_are_limited() {
    let (stream, address) = tcp();
    let (admin, admin_address) = tcp();
    let runtime = runtime();
    let _guard = runtime.enter();
    let memory = Arc::new(Memory::default());
    let server = Server::start(
        Options {
            max_connections: 2,
            ..options()
        },
        Sockets {
            tcp: vec![stream],
            admin: vec![admin],
            ..Sockets::default()
        },
        memory.clone(),
        memory.clone(),
        None,
        alive(),
    )
    .unwrap();
    let send = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"a:1|c\n").unwrap();
        stream
    };
    let first = send();
    let _second = send();
    wait_for(&server, 2);
    let mut third = TcpStream::connect(address).unwrap();
    assert!(matches!(third.read(&mut [0]), Ok(0) | Err(_)));
    let refused = &server.stats().connections_refused;
    assert_eq!(refused.load(Ordering::Relaxed), 1);
    // The management interface has room of its own.
    let mut admin = BufReader::new(TcpStream::connect(admin_address).unwrap());
    let counts = ask(&mut admin, "counts\n", "END\n\n");
    assert!(counts.contains("connections_refused: 1\n"), "{counts}");
    drop(first);
    let mut tries = Vec::new();
    eventually("a connection is taken again", || {
        tries.push(TcpStream::connect(address).unwrap());
        let stream = tries.last_mut().unwrap();
        let _ = stream.write_all(b"a:1|c\n");
        server.stats().metrics.load(Ordering::Relaxed) >= 3
    });
    server.stop().unwrap();
}

/// A point at time 0 would be counted, and never written.
#[test]
fn points_at_time_0_are_bad_lines() {
    let (socket, address) = udp("127.0.0.1:0");
    let memory = Arc::new(Memory::default());
    let sockets = Sockets {
        udp: vec![socket],
        ..Sockets::default()
    };
    let server = Server::start(
        options(),
        sockets,
        memory.clone(),
        memory.clone(),
        None,
        alive(),
    )
    .unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender
        .send_to(b"x:5|c|T0\ny:5|r|0.5\nz:5|g|T0\nw:5|c|T1", address)
        .unwrap();
    wait_for(&server, 4);
    server.flush_now();
    assert_eq!(server.stats().bad_lines_by_reason(), [("timestamp", 3)]);
    assert_eq!(memory.time("stats_counts.w"), Some(1));
    for name in ["stats_counts.x", "y", "stats.gauges.z"] {
        assert_eq!(memory.time(name), None, "{name}");
    }
    server.stop().unwrap();
}
