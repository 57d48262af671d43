//! What a server leaves to the one after it and to remote carbons, and what the death of a thread means.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use carbon::{Datapoint, NameError, SeriesId, Sink};
use settings::ByteSize;
use statsd::options::{Output, RepeaterProtocol};
use statsd::{OnDeath, Options, Server, Sockets};
use support::{
    Memory, PATIENCE, ask, eventually, only_udp, options, runtime, start, start_with, tcp, udp,
    udp_sender, wait_for,
};

/// The length of the first line of the saved state.
const HEAD: usize = "plumbago statsd interval 1".len();

#[test]
fn a_restart_continues_the_interval() {
    let folder = tempfile::tempdir().unwrap();
    let state: PathBuf = folder.path().join("statsd-state");
    let memory = Arc::new(Memory::default());
    let sender = udp_sender();
    let start = |exact| {
        let (sockets, address) = only_udp();
        let options = Options {
            timer_exact_samples: exact,
            ..options()
        };
        let server = start_with(options, sockets, &memory, Some(state.clone()));
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

    // A start that fails afterwards must find it again.
    let (server, address) = start(1_000);
    assert!(state.exists());
    sender
        .send_to(b"c:0.2|c\ng:+1|g\nt:6|ms\ns:c|s\ns:d|s\nm:6|a", address)
        .unwrap();
    wait_for(&server, 6);
    server.flush_now();
    assert!(!state.exists());
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
fn a_damaged_line_of_the_state_costs_no_other_and_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("statsd-state");
    let mut saved = b"plumbago statsd interval 1\ng a 5\nc b \xff1\nc c 2\nend 3\n".to_vec();
    std::fs::write(&state, &saved).unwrap();
    let memory = Arc::new(Memory::default());
    let (sockets, _) = only_udp();
    let server = start_with(options(), sockets, &memory, Some(state.clone()));
    assert_eq!(server.stats().state_unread.get(), 1);
    server.flush_now();
    assert_eq!(memory.value("stats.gauges.a"), Some(5.0));
    assert_eq!(memory.value("stats_counts.b"), None);
    assert_eq!(memory.value("stats_counts.c"), Some(2.0));
    server.stop().unwrap();

    // Another version means something else by the same lines.
    saved[HEAD - 1] = b'2';
    std::fs::write(&state, &saved).unwrap();
    let memory = Arc::new(Memory::default());
    let (sockets, _) = only_udp();
    let server = start_with(options(), sockets, &memory, Some(state.clone()));
    server.flush_now();
    assert_eq!(memory.value("stats.gauges.a"), None);
    assert_eq!(std::fs::read(&state).unwrap(), saved);
    server.stop().unwrap();
}

#[test]
fn remote_carbons_get_every_interval() {
    // An address without a listener.
    let (listener, carbon_address) = tcp();
    drop(listener);
    let (pickle, pickle_address) = tcp();
    let (other, other_address) = udp("127.0.0.1:0");
    let (sockets, address) = only_udp();
    let (server, memory) = start(
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
    );
    let sender = udp_sender();
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
    let (dies, deaths) = mpsc::channel();
    let on_death: OnDeath = Arc::new(move |thread| dies.send(thread.to_owned()).unwrap());
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
    let died = deaths.recv_timeout(Duration::from_secs(60));
    assert_eq!(died.as_deref(), Ok("statsd-aggregate"));
    // A query has an answer.
    let mut admin = BufReader::new(TcpStream::connect(admin_address).unwrap());
    assert_eq!(ask(&mut admin, "counters\n", "\n"), "ERROR\n");
    let start = Instant::now();
    server.stop().unwrap();
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(deaths.try_recv().is_err());
    drop(carbon);
}

/// What clients had sent before the stop is in the kernel; none of it may be missing afterwards.
#[test]
fn what_waits_in_sockets_at_the_stop_counts() {
    const EACH: usize = 50;
    let runtime = runtime();
    let _guard = runtime.enter();
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("statsd-state");
    let path = folder.path().join("socket");
    let (udp_socket, udp_address) = udp("127.0.0.1:0");
    let (tcp_socket, tcp_address) = tcp();
    let unix_stream = UnixListener::bind(&path).unwrap();
    let lines = "hits:1|c\n".repeat(EACH * 100);
    let sender = udp_sender();
    for _ in 0..EACH {
        let datagram = &lines.as_bytes()[..900];
        sender.send_to(datagram, udp_address).unwrap();
    }
    let mut stream = TcpStream::connect(tcp_address).unwrap();
    stream.write_all(lines.as_bytes()).unwrap();
    let mut unix = UnixStream::connect(&path).unwrap();
    unix.write_all(lines.as_bytes()).unwrap();
    let sockets = Sockets {
        udp: vec![udp_socket],
        tcp: vec![tcp_socket],
        unix_stream: vec![unix_stream],
        ..Sockets::default()
    };
    let memory = Arc::new(Memory::default());
    let server = start_with(options(), sockets, &memory, Some(state.clone()));
    server.stop().unwrap();

    let (sockets, _) = only_udp();
    let server = start_with(options(), sockets, &memory, Some(state));
    server.flush_now();
    let expected = (3 * EACH * 100) as f64;
    assert_eq!(memory.value("stats_counts.hits"), Some(expected));
    server.stop().unwrap();
}

/// The remote carbon is there, but reads nothing.
#[test]
fn a_stalled_carbon_does_not_hold_up_the_stop() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("statsd-state");
    let (carbon, carbon_address) = tcp();
    let (sockets, address) = only_udp();
    let memory = Arc::new(Memory::default());
    let options = Options {
        output: vec![Output::Tcp(carbon_address.to_string())],
        output_queue: ByteSize(100_000),
        ..options()
    };
    let server = start_with(options, sockets, &memory, Some(state.clone()));
    server.flush_now();
    let connection = carbon.accept().unwrap();
    let sender = udp_sender();
    let node = "x".repeat(200);
    let mut sent = 0;
    for at in 0..450 {
        let lines: Vec<_> = (0..100).map(|n| format!("{node}{at}.{n}:1|g")).collect();
        sender
            .send_to(lines.join("\n").as_bytes(), address)
            .unwrap();
        sent += 100;
        wait_for(&server, sent);
    }
    let (stops, stopped) = mpsc::channel();
    std::thread::spawn(move || stops.send(server.stop()).unwrap());
    let result = stopped.recv_timeout(Duration::from_secs(60));
    assert!(matches!(result, Ok(Ok(()))), "{result:?}");
    let saved = std::fs::read_to_string(state).unwrap();
    assert_eq!(saved.matches(&node).count(), sent as usize);
    drop(connection);
}

#[test]
fn senders_that_do_not_pause_keep_no_server_from_stopping() {
    let runtime = runtime();
    let _guard = runtime.enter();
    let (udp_socket, udp_address) = udp("127.0.0.1:0");
    let (tcp_socket, tcp_address) = tcp();
    let sockets = Sockets {
        udp: vec![udp_socket],
        tcp: vec![tcp_socket],
        ..Sockets::default()
    };
    // What a receive buffer holds is read in any case: a small one soon.
    let options = Options {
        receive_buffer: ByteSize(100_000),
        ..options()
    };
    let (server, _) = start(options, sockets);
    let lines = b"hits:1|c|#a:b\n".repeat(4_000);
    let has_stopped = Arc::new(AtomicBool::new(false));
    let (datagrams, has_ended) = (lines.clone(), has_stopped.clone());
    let datagrams = std::thread::spawn(move || {
        let sender = udp_sender();
        while !has_ended.load(Ordering::Relaxed) {
            let _ = sender.send_to(&datagrams, udp_address);
        }
    });
    let has_ended = has_stopped.clone();
    let stream = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(tcp_address).unwrap();
        while !has_ended.load(Ordering::Relaxed) && stream.write_all(&lines).is_ok() {}
    });
    wait_for(&server, 100_000);
    let (stops, stopped) = mpsc::channel();
    let stopping = std::thread::spawn(move || {
        server.stop().unwrap();
        stops.send(()).unwrap();
    });
    let result = stopped.recv_timeout(Duration::from_secs(60));
    has_stopped.store(true, Ordering::Relaxed);
    datagrams.join().unwrap();
    stream.join().unwrap();
    stopping.join().unwrap();
    assert_eq!(result, Ok(()));
}

/// Another server that takes nothing keeps no packet from the one beside it.
#[test]
fn a_stalled_target_of_the_repeater_holds_up_no_other() {
    const PACKETS: u64 = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (stalled, stalled_address) = tcp();
    let (other, other_address) = tcp();
    let sockets = Sockets {
        unix: vec![UnixDatagram::bind(&path).unwrap()],
        ..Sockets::default()
    };
    let options = Options {
        repeater: vec![stalled_address.to_string(), other_address.to_string()],
        repeater_protocol: RepeaterProtocol::Tcp,
        ..options()
    };
    let (server, _) = start(options, sockets);
    // All of this is more than the kernel takes of a connection that is not read, and less than may
    // wait for a target.
    let line = format!("{}:1|c", "x".repeat(1_000));
    let packet = [&line[..]; 4].join("\n");
    let expected = PACKETS * (packet.len() as u64 + 1);
    let reading = std::thread::spawn(move || {
        let (stream, _) = other.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        std::io::copy(&mut stream.take(expected), &mut std::io::sink()).unwrap_or(0)
    });
    let sender = UnixDatagram::unbound().unwrap();
    for sent in 1..=PACKETS {
        sender.send_to(packet.as_bytes(), &path).unwrap();
        wait_for(&server, 4 * sent);
    }
    assert_eq!(reading.join().unwrap(), expected);
    let readings = server.stats().all_readings();
    let label = Some(("target", other_address.to_string()));
    let dropped = readings.iter().find(|reading| reading.label == label);
    assert_eq!(dropped.map(|reading| reading.value), Some(0.0));
    server.stop().unwrap();
    drop(stalled);
}
