//! Each receiver of carbon over real sockets: several addresses, bad input beside good, a full cache.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use carbon::protocol::pickle::{Machine, write};
use flate2::Compression;
use flate2::write::GzEncoder;
use support::{Server, now};

/// A frame of points as carbon's relays pickle them.
fn pickled(points: &[(String, i64, f64)]) -> Vec<u8> {
    let mut out = Vec::new();
    write::frame(&mut out, |out| {
        write::list(out, |out| {
            for (name, at, value) in points {
                write::text(out, name);
                write::integer(out, *at as u32);
                write::float(out, *value);
                write::pair(out);
                write::pair(out);
            }
        });
    });
    out
}

/// A framed protobuf payload of one point. All lengths are below 128.
fn protobuf(name: &str, at: i64, value: f64) -> Vec<u8> {
    let mut point = vec![0x08];
    let mut rest = at as u64;
    while rest >= 0x80 {
        point.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    point.extend([rest as u8, 0x11]);
    point.extend(value.to_le_bytes());
    let mut metric = vec![0x0a, name.len() as u8];
    metric.extend(name.as_bytes());
    metric.extend([0x12, point.len() as u8]);
    metric.extend(point);
    let mut payload = vec![0x0a, metric.len() as u8];
    payload.extend(metric);
    [&(payload.len() as u32).to_be_bytes()[..], &payload].concat()
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Posts a body in chunks of ten bytes; the whole answer.
fn post(address: &str, headers: &str, body: &[u8]) -> String {
    let mut request = format!(
        "POST /write HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Transfer-Encoding: chunked\r\n{headers}\r\n"
    )
    .into_bytes();
    for chunk in body.chunks(10) {
        request.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend(chunk);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    // At once: a request that is refused ends before its body has been read.
    let mut stream = send(address, &request);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn send(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[test]
fn on_each_of_its_addresses() {
    let two = "[\"127.0.0.1:0\", \"127.0.0.1:0\"]";
    let server = Server::with(&[
        // A file for each series, without a wait for its second point.
        ("carbon.infer_step", "false"),
        ("carbon.line_tcp", two),
        ("carbon.line_udp", two),
        ("carbon.pickle", two),
        ("carbon.protobuf", two),
        ("carbon.http", two),
        ("carbon.carbonlink", two),
    ]);
    let at = now() - 20;
    let line = |name: &str| format!("{name} 1 {at}\n");
    for n in 0..2 {
        let address = |key: &str| server.addresses[key][n].clone();
        send(
            &address("carbon.line_tcp"),
            line(&format!("tcp.n{n}")).as_bytes(),
        );
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let datagram = line(&format!("udp.n{n}"));
        socket
            .send_to(datagram.as_bytes(), address("carbon.line_udp"))
            .unwrap();
        let points = [(format!("pickle.n{n}"), at, 1.0)];
        send(&address("carbon.pickle"), &pickled(&points));
        let payload = protobuf(&format!("protobuf.n{n}"), at, 1.0);
        send(&address("carbon.protobuf"), &payload);
        let answer = post(
            &address("carbon.http"),
            "",
            line(&format!("http.n{n}")).as_bytes(),
        );
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let headers = "Content-Encoding: gzip\r\n";
        let body = gzipped(&line(&format!("gzip.n{n}")));
        let answer = post(&address("carbon.http"), headers, &body);
        assert!(answer.contains("\"accepted\":1"), "{answer}");
    }
    for receiver in ["tcp", "udp", "pickle", "protobuf", "http", "gzip"] {
        server.wait_for_sum(&format!("sumSeries({receiver}.n*)"), 2.0);
    }
    let request = [
        "type",
        "get-metadata",
        "metric",
        "tcp.n0",
        "key",
        "aggregationMethod",
    ];
    for address in &server.addresses["carbon.carbonlink"] {
        // The persister creates the file.
        server.wait_until("file", |_| {
            carbonlink(address, &request) == [("value".to_owned(), "average".to_owned())]
        });
    }
}

/// The texts of the answer to a request of texts.
fn carbonlink(address: &str, request: &[&str]) -> Vec<(String, String)> {
    let mut bytes = Vec::new();
    write::frame(&mut bytes, |out| {
        write::dict(out, |out| {
            for text in request {
                write::text(out, text);
            }
        });
    });
    let mut stream = send(address, &bytes);
    let mut header = [0; 4];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut body).unwrap();
    let mut machine = Machine::default();
    let whole = machine.read(&body).unwrap();
    let text = |value| {
        let text = machine.text(value, &body).unwrap_or(b"(no text)");
        String::from_utf8(text.to_vec()).unwrap()
    };
    let entries = machine.entries(whole).unwrap();
    entries
        .map(|(key, value)| (text(key), text(value)))
        .collect()
}

#[test]
fn bad_input_is_counted_beside_good_and_its_sender_is_in_the_log() {
    let server = Server::with(&[
        ("carbon.protobuf", "127.0.0.1:0"),
        ("carbon.http", "127.0.0.1:0"),
        ("carbon.max_frame_size", "10KiB"),
    ]);
    let at = now() - 20;
    let point = |name: &str| pickled(&[(name.to_owned(), at, 1.0)]);
    let code = b"\0\0\0\x17cos\nsystem\n(S'true'\ntR.";
    let nonsense = b"\0\0\0\x05hello";
    let too_long = b"\0\x10\0\0";
    let frames = [
        &point("a.first")[..],
        code,
        nonsense,
        &point("a.second"),
        too_long,
    ];
    let mut stream = send(server.address("carbon.pickle"), &frames.concat());
    // The frame that is too long ends the connection.
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
    let payload = protobuf("a.third", at, 1.0);
    let bad = b"\0\0\0\x02\xff\xff";
    send(
        server.address("carbon.protobuf"),
        &[bad, &payload[..]].concat(),
    );
    let body = format!("a.fourth 1 {at}\nbad line\n");
    let answer = post(server.address("carbon.http"), "", body.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("\"line\":2"), "{answer}");
    // Pages of other hosts cannot send.
    let origin = "Origin: http://elsewhere.example\r\n";
    let answer = post(server.address("carbon.http"), origin, b"a.fifth 1 N\n");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    server.wait_for_sum("sumSeries(a.*)", 4.0);
    for (counter, n) in [
        ("rejects_code", 1.0),
        ("rejects_frame", 2.0),
        ("rejects_frame_length", 1.0),
        ("rejects_fields", 1.0),
    ] {
        let name = format!("plumbago_carbon_{counter}_total");
        assert_eq!(metric(&server, &name), n, "{counter}");
    }
    let log = server.log();
    let line = log
        .lines()
        .find(|line| line.contains("refused: the pickle refers to code"));
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("carbon.pickle"), "{line}");
    assert!(
        line.contains(&stream.local_addr().unwrap().to_string()),
        "{line}"
    );
}

#[test]
fn a_full_cache_holds_up_every_sender_and_loses_nothing() {
    const EACH: usize = 30_000;
    let server = Server::with(&[
        ("carbon.max_cache_size", "64KiB"),
        ("carbon.protobuf", "127.0.0.1:0"),
        ("carbon.http", "127.0.0.1:0"),
        ("stats.self", "false"),
    ]);
    let at = now() - 1_520;
    // Few series of many points: the cache is full of their first points at once.
    let point = |receiver: &str, n: usize| (format!("{receiver}.m{}", n % 20), at + n as i64 / 20);
    let lines: String = (0..EACH)
        .map(|n| {
            let (name, at) = point("lines", n);
            format!("{name} {n} {at}\n")
        })
        .collect();
    let pickles: Vec<u8> = (0..EACH)
        .collect::<Vec<_>>()
        .chunks(500)
        .flat_map(|chunk| {
            let points: Vec<_> = chunk
                .iter()
                .map(|n| {
                    let (name, at) = point("pickle", *n);
                    (name, at, *n as f64)
                })
                .collect();
            pickled(&points)
        })
        .collect();
    let payloads: Vec<u8> = (0..EACH)
        .flat_map(|n| {
            let (name, at) = point("protobuf", n);
            protobuf(&name, at, n as f64)
        })
        .collect();
    let posted = lines.replace("lines.", "http.");
    std::thread::scope(|scope| {
        let server = &server;
        scope.spawn(|| send(server.address("carbon.line_tcp"), lines.as_bytes()));
        scope.spawn(|| send(server.address("carbon.pickle"), &pickles));
        scope.spawn(|| send(server.address("carbon.protobuf"), &payloads));
        scope.spawn(|| {
            let answer = post(server.address("carbon.http"), "", posted.as_bytes());
            assert!(answer.contains("\"accepted\":30000"), "{answer}");
        });
    });
    server.wait_until("all points", |server| {
        metric(server, "plumbago_carbon_metrics_received_total ") >= 4.0 * EACH as f64
    });
    assert!(metric(&server, "plumbago_carbon_cache_waits_total") > 0.0);
    for receiver in ["lines", "pickle", "protobuf", "http"] {
        let last = (EACH - 1) as f64;
        server.wait_for(&format!("{receiver}.m19"), |values| {
            values.last() == Some(&last)
        });
    }
}
