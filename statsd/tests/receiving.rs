//! What arrives over each kind of socket is in the flush, and what is too much is not.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};

use std::sync::atomic::Ordering;
use std::time::Duration;

use statsd::{Event, Options, Sockets};
use support::{
    PATIENCE, eventually, only_udp, options, runtime, start, tcp, udp, udp_sender, wait_for,
};

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
    let (server, memory) = start(
        Options {
            unix_mode: "0600".to_owned(),
            ..options()
        },
        sockets,
    );

    let sender = udp_sender();
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
    memory.wait_for_events(1);
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

/// A line for each letter and each notation.
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

/// What a flush of [`LINES`] stores.
const VALUES: &[(&str, f64)] = &[
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
];

/// The events in [`LINES`].
fn expected_events() -> [Event; 3] {
    let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect();
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
                "env:prod",
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
}

/// Each letter, each notation of tags, both packings, events and checks: over UDP, over TCP and
/// over a Unix socket.
#[test]
fn every_type_and_notation_arrives_over_sockets() {
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
        let (server, memory) = start(options(), sockets);
        let text = LINES.join("\n");
        match way {
            "udp" => {
                let sender = udp_sender();
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
        for &(name, value) in VALUES {
            assert_eq!(memory.value(name), Some(value), "{name} over {way}");
        }
        assert_eq!(memory.time("r"), Some(1_700_000_000));
        assert_eq!(memory.time("stats_counts.then"), Some(1_700_000_060));
        assert_eq!(memory.time("stats.gauges.then;x=y"), Some(1_700_000_120));
        memory.wait_for_events(3);
        let events = memory.events.lock().unwrap();
        assert_eq!(*events, expected_events());
        drop(events);
        server.stop().unwrap();
    }
}

/// A point at time 0 would be counted, and never written.
#[test]
fn points_at_time_0_are_bad_lines() {
    let (sockets, address) = only_udp();
    let (server, memory) = start(options(), sockets);
    let sender = udp_sender();
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

/// Clients that open all connections and send nothing lock nobody out.
#[test]
fn silent_connections_make_room() {
    let (stream, address) = tcp();
    let (admin, admin_address) = tcp();
    let runtime = runtime();
    let _guard = runtime.enter();
    let (server, _) = start(
        Options {
            max_connections: 2,
            ..options()
        },
        Sockets {
            tcp: vec![stream],
            admin: vec![admin],
            ..Sockets::default()
        },
    );
    let mut first = TcpStream::connect(address).unwrap();
    first.set_read_timeout(Some(PATIENCE)).unwrap();
    first.write_all(b"a:1|c\na:1").unwrap();
    wait_for(&server, 1);
    let mut second = TcpStream::connect(address).unwrap();
    second.write_all(b"a:1|c\n").unwrap();
    wait_for(&server, 2);
    // One may be closed once it has been silent for a second: until then, others are refused.
    let pause = || std::thread::park_timeout(Duration::from_millis(10));
    eventually("a connection is taken", || {
        pause();
        let mut stream = TcpStream::connect(address).unwrap();
        let _ = stream.write_all(b"a:1|c\n");
        let _ = stream.shutdown(Shutdown::Write);
        // The server closes it: at once, or when it has read the line.
        let _ = stream.read(&mut [0]);
        server.stats().metrics.load(Ordering::Relaxed) >= 3
    });
    assert_eq!(first.read(&mut [0]).unwrap(), 0);
    // The part of a line that it had sent is no line.
    assert_eq!(server.stats().bad_lines_by_reason(), [("unfinished", 1)]);
    // The management interface has room of its own, on the same terms.
    let clients: Vec<_> = (0..2)
        .map(|_| TcpStream::connect(admin_address).unwrap())
        .collect();
    eventually("a command is answered", || {
        pause();
        let mut admin = TcpStream::connect(admin_address).unwrap();
        let _ = admin.write_all(b"counts\nquit\n");
        let mut counts = String::new();
        let _ = admin.read_to_string(&mut counts);
        counts.contains("connections_displaced: ")
    });
    let displaced = &server.stats().connections_displaced;
    assert!(displaced.load(Ordering::Relaxed) >= 2);
    drop(clients);
    server.stop().unwrap();
}

/// What `max_names` limits is to be seen: one series may take many entries.
#[test]
fn entries_of_names_are_counted() {
    let (sockets, address) = only_udp();
    let (server, _) = start(options(), sockets);
    let sender = udp_sender();
    sender
        .send_to(b"a_b:1|c\na b:1|c\na  b:1|c\nt:1|c|#x:1,y:2", address)
        .unwrap();
    wait_for(&server, 4);
    server.flush_now();
    let stats = server.stats();
    // Three spellings of one, two of the other. The names include those of our own.
    let own = ["packets_received", "metrics_received", "bad_lines_seen"].len() as u64;
    assert_eq!((stats.name_entries.get(), stats.names.get()), (5, 2 + own));
    server.stop().unwrap();
}
