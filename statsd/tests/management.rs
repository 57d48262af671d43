//! The management interface, over its socket.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use statsd::{Options, Sockets};
use support::{PATIENCE, ask, options, runtime, start, tcp, udp, udp_sender, wait_for};

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
    let (server, memory) = start(options(), sockets);
    let sender = udp_sender();
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
    let options = Options {
        delete_idle_stats: true,
        ..options()
    };
    let (server, _) = start(options, sockets);
    let sender = udp_sender();
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

/// A page in a browser can send such a request to this machine, with a body of its choice.
#[test]
fn http_requests_hold_no_commands() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (sockets, _, admin_address) = with_management();
    let (server, _) = start(options(), sockets);
    for version in ["1.0", "1.1"] {
        let mut stream = TcpStream::connect(admin_address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "POST /health HTTP/{version}\r\nHost: localhost\r\nContent-Length: 12\r\n\r\nhealth down\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        if let Err(why) = stream.read_to_end(&mut answer) {
            // It may close before it has read the whole request.
            assert_eq!(why.kind(), ErrorKind::ConnectionReset);
        }
        assert_eq!(String::from_utf8_lossy(&answer), "", "HTTP/{version}");
        assert!(!server.is_down(), "HTTP/{version}");
    }
    server.stop().unwrap();
}
