//! Slow, silent, greedy and foreign clients: none of them keeps an answer from the others.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must say where"
)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::{Server, reserved};

const PATIENCE: Duration = Duration::from_secs(60);

/// A connection on which `bytes` were sent.
fn connect(address: &str, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A server at its cap may have closed it by now: that shows when it is read.
    let _ = stream.write_all(bytes.as_bytes());
    stream
}

/// What comes until the server closes, which it must.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    if let Err(why) = stream.read_to_end(&mut bytes) {
        let waits = matches!(
            why.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        );
        assert!(!waits, "the connection is still open");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The answer to one request, whatever its `Host`.
fn ask(address: &str, request: &str) -> String {
    rest(connect(
        address,
        &format!("{request}Connection: close\r\n\r\n"),
    ))
}

fn count(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {text}"))
        .parse()
        .unwrap()
}

#[test]
fn unfinished_and_idle_connections_go_away_and_make_room() {
    let server = Server::with(&[
        ("render.max_connections", "20"),
        ("render.header_timeout", "1s"),
        ("render.idle_timeout", "1s"),
    ]);
    let limits = fs::read_to_string(format!("/proc/{}/limits", server.pid().as_raw_nonzero()));
    let limits = limits.unwrap();
    let open = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<&str> = open.unwrap().split_whitespace().collect();
    assert_eq!(numbers[3], numbers[4], "the soft limit is the hard one");

    let address = server.address("render.http");
    let half = "GET /render HTTP/1.1\r\nHost: localhost\r\nX-";
    let halves: Vec<TcpStream> = (0..100).map(|_| connect(address, half)).collect();
    assert_eq!(server.get("/healthz").status, 200);
    for stream in halves {
        assert_eq!(rest(stream), "");
    }
    let keep = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let idle: Vec<TcpStream> = (0..100).map(|_| connect(address, keep)).collect();
    assert_eq!(server.get("/healthz").status, 200);
    for stream in idle {
        let text = rest(stream);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 200"),
            "{text}"
        );
    }
    assert!(count(&server, "plumbago_http_connections_displaced_total") >= 160.0);
    assert!(count(&server, "plumbago_http_connections") <= 20.0);
    assert!(count(&server, "plumbago_http_idle_timeouts_total") >= 1.0);
}

#[test]
fn exports_that_are_not_read_cost_little_and_end() {
    let server = Server::with(&[("render.write_timeout", "2s")]);
    let data = "d".repeat(9_000);
    let line = |id| {
        let event = serde_json::json!({
            "id": id, "what": "e", "tags": ["x"], "when": id, "data": data,
        });
        format!("{event}\n")
    };
    for first in [1, 501, 1_001] {
        let lines: String = (first..first + 500).map(line).collect();
        let imported = server.http("POST", "/events/import", "", lines.as_bytes());
        assert_eq!(imported.status, 200, "{}", imported.text());
    }
    let address = server.address("render.http");
    let export = "GET /events/export HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let unread: Vec<TcpStream> = (0..8).map(|_| connect(address, export)).collect();
    for stream in &unread {
        // The answer has begun.
        stream.peek(&mut [0]).unwrap();
    }
    let whole = server.get("/events/export");
    assert_eq!(whole.status, 200);
    assert_eq!(whole.text().lines().count(), 1_500);
    assert_eq!(server.post("/events/", "{\"what\": \"y\"}").status, 200);
    assert_eq!(server.get("/events/get_data?tags=y").status, 200);
    server.wait_until("end of the exports that nobody reads", |server| {
        count(server, "plumbago_http_write_timeouts_total") >= 8.0
    });
    drop(unread);
}

#[test]
fn standard_output_that_is_not_read_holds_up_no_flush_and_no_end() {
    let mut server = Server::prepared(&[("statsd.output", "[\"embedded\", \"console\"]")]);
    // A pipe that stays open and is never read.
    server.first = Some("mkfifo out && exec 1<>out".to_owned());
    server.run();
    // Printed, these are more than a pipe holds.
    let node = "n".repeat(100);
    for batch in 0..20 {
        let lines: Vec<String> = (0..50).map(|n| format!("{node}.{batch}.{n}:1|g")).collect();
        server.statsd(lines.join("\n"));
    }
    server.wait_until("report that is dropped", |server| {
        server.metric("plumbago_statsd_console_dropped_total") >= 1.0
    });
    server.statsd("later:1|g");
    server.wait_for("stats.gauges.later", |values| values.contains(&1.0));
    assert!(server.stop().success(), "{}", server.log());
}

#[test]
fn a_log_that_is_not_read_holds_nothing_up() {
    let mut server = Server::prepared(&[]);
    // A pipe that stays open, is never read, and is full.
    let full = "dd if=/dev/zero of=unread bs=4096 count=64 oflag=nonblock 2>/dev/null";
    server.first = Some(format!("mkfifo unread && exec 2<>unread && ! {full}"));
    server.run();
    server.statsd("a.b:1|c");
    server.wait_for_sum("stats_counts.a.b", 1.0);
    assert!(server.stop().success());
}

#[test]
fn a_damaged_event_store_does_not_keep_metrics_away() {
    let mut server = Server::start();
    assert_eq!(server.post("/events/", "{\"what\": \"x\"}").status, 200);
    assert!(server.stop().success());
    let path = server.data().join("events.db");
    fs::write(&path, "this is no database").unwrap();
    server.run();
    let log = server.log();
    assert!(
        log.contains("ERROR") && log.contains("events.db.corrupt"),
        "{log}"
    );
    assert_eq!(count(&server, "plumbago_events_set_aside_total"), 1.0);
    let aside = fs::read_to_string(server.data().join("events.db.corrupt"));
    assert_eq!(aside.unwrap(), "this is no database");
    assert_eq!(server.post("/events/", "{\"what\": \"y\"}").status, 200);
    server.statsd("a.b:1|c");
    server.wait_for_sum("stats_counts.a.b", 1.0);
}

#[test]
fn a_page_whose_name_was_pointed_at_us_reads_nothing() {
    let server = Server::with(&[("auth.hosts", "graphs.example.com")]);
    let address = server.address("render.http");
    for path in [
        "/render?target=a",
        "/metrics",
        "/",
        "/events/get_data",
        "/tags",
        "/healthz",
    ] {
        let get = |host: &str| ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n"));
        let refused = get("evil.example:8080");
        assert!(refused.starts_with("HTTP/1.1 403 "), "{path}: {refused}");
        assert!(refused.contains("auth.hosts"), "{path}: {refused}");
        for host in [
            "localhost",
            "127.0.0.1:8080",
            "[::1]:8080",
            "graphs.example.com",
            "a.localhost",
        ] {
            let answer = get(host);
            assert!(
                answer.starts_with("HTTP/1.1 200 "),
                "{path} {host}: {answer}"
            );
        }
    }
    // The first of two names would pass.
    let two = ask(
        address,
        "GET /render?target=a HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
    );
    assert!(two.starts_with("HTTP/1.1 4"), "{two}");
    let post = "POST /render HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 8\r\nConnection: close\r\n\r\ntarget=a";
    let refused = rest(connect(address, post));
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
}

#[test]
fn every_answer_carries_the_security_headers() {
    let server = Server::with(&[("auth.tokens", "secret")]);
    let evil = "Origin: http://evil.example\r\nAuthorization: Bearer secret\r\n";
    for (method, path, headers, status) in [
        ("GET", "/healthz", "", 200),
        ("GET", "/readyz", "", 200),
        ("GET", "/metrics", "", 200),
        ("GET", "/", "", 200),
        ("GET", "/events/", "", 200),
        ("GET", "/events/export", "", 200),
        ("GET", "/events/get_data", "", 200),
        ("GET", "/render?target=a&format=json", "", 200),
        ("GET", "/render?target=a&format=png", "", 200),
        ("GET", "/render?target=a&format=svg", "", 200),
        ("GET", "/events/?limit=x", "", 400),
        ("POST", "/events/", "", 401),
        ("POST", "/events/", evil, 403),
        ("GET", "/nothing", "", 404),
        ("DELETE", "/tags", "", 405),
    ] {
        let answer = server.http(method, path, headers, b"");
        let head = answer.head.to_ascii_lowercase();
        assert_eq!(answer.status, status, "{path}: {head}");
        assert!(
            head.contains("x-content-type-options: nosniff"),
            "{path}: {head}"
        );
        assert!(head.contains("referrer-policy: "), "{path}: {head}");
        let is_picture = head.contains("content-type: image/");
        let framed = !head.contains("x-frame-options: sameorigin");
        assert_eq!(framed, is_picture, "{path}: {head}");
        assert!(
            !head.contains("cross-origin-resource-policy"),
            "{path}: {head}"
        );
        if head.contains("content-type: text/html") {
            assert!(
                head.contains("content-security-policy: default-src "),
                "{path}: {head}"
            );
            assert!(head.contains("frame-ancestors 'self'"), "{path}: {head}");
        }
    }
}

#[test]
fn with_tokens_events_in_datagrams_are_refused_unless_allowed() {
    for (allowed, counter) in [
        ("false", "plumbago_events_datagrams_refused_total"),
        ("true", "plumbago_events_created_total"),
    ] {
        let server = Server::with(&[
            ("auth.event_tokens", "secret"),
            ("events.allow_datagrams", allowed),
        ]);
        server.statsd("_e{3,1}:web|x|#deploy");
        server.wait_until("event in the counters", |server| {
            count(server, counter) == 1.0
        });
        let found = server.json("/events/get_data?tags=deploy");
        let expected = usize::from(allowed == "true");
        assert_eq!(found.as_array().unwrap().len(), expected);
    }
}

/// A server that waits for somebody else's lock while it starts, and what it must not outlive.
struct Starting {
    server: Server,
    child: Child,
    address: String,
}

impl Starting {
    fn new() -> (Self, rusqlite::Connection) {
        let [address] = reserved();
        let server = Server::prepared(&[("render.http", &address)]);
        fs::create_dir_all(server.data()).unwrap();
        let other = rusqlite::Connection::open(server.data().join("events.db")).unwrap();
        other.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let log = fs::File::create(server.dir.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_plumbago"))
            .args(server.arguments())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let starting = Self {
            server,
            child,
            address,
        };
        (starting, other)
    }

    /// The answer to a GET once there is somebody to give one.
    fn get(&self, path: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(&self.address).is_err() {
            assert!(Instant::now() < deadline, "{}", self.server.log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n");
        ask(&self.address, &request)
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_server_that_starts_says_so_and_then_answers() {
    let (starting, other) = Starting::new();
    for path in ["/healthz", "/readyz", "/render?target=a", "/events/"] {
        let answer = starting.get(path);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{path}: {answer}");
        assert!(answer.contains("retry-after: "), "{path}: {answer}");
        assert!(
            answer.contains("x-content-type-options: nosniff"),
            "{path}: {answer}"
        );
        let is_json = answer.contains("{\"error\":\"starting\"}");
        assert!(
            is_json || answer.ends_with("starting\n"),
            "{path}: {answer}"
        );
        assert_eq!(is_json, !path.ends_with('z'), "{path}: {answer}");
    }
    other.execute_batch("ROLLBACK").unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !starting.get("/readyz").starts_with("HTTP/1.1 200 ") {
        assert!(Instant::now() < deadline, "{}", starting.server.log());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn a_server_that_is_stopped_while_it_starts_ends_at_once() {
    let (mut starting, other) = Starting::new();
    assert!(starting.get("/readyz").contains("starting"));
    kill_process(Pid::from_child(&starting.child), Signal::TERM).unwrap();
    let status = starting.child.wait().unwrap();
    assert!(status.success(), "{status}: {}", starting.server.log());
    assert!(starting.server.log().contains("stopped during the start"));
    drop(other);
}

#[test]
fn with_few_descriptors_files_and_health_come_before_connections() {
    let mut server = Server::prepared(&[
        ("stats.self", "false"),
        // A file for each series, without a wait for its second point.
        ("carbon.infer_step", "false"),
    ]);
    server.first = Some("ulimit -n 64".to_owned());
    server.run();
    let lines = |prefix: &str| -> String {
        let line = |n| format!("{prefix}.m{n} {n} {}\n", support::now());
        (0..300).map(line).collect()
    };
    server.lines(lines("before"));
    server.wait_for_sum("sumSeries(before.*)", 44_850.0);
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(connect(server.address("carbon.line_tcp"), ""));
        idle.push(connect(server.address("render.http"), ""));
    }
    assert_eq!(server.get("/healthz").status, 200);
    // A connection that has been silent for less than a second makes no room for a new one.
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let during = lines("during");
    let sent = socket.send_to(during.as_bytes(), server.address("carbon.line_udp"));
    assert_eq!(sent.unwrap(), during.len());
    server.statsd("counted:7|c");
    server.wait_for_sum("sumSeries(during.*)", 44_850.0);
    server.wait_for_sum("stats_counts.counted", 7.0);
    server.wait_until("files", |server| {
        count(server, "plumbago_carbon_cache_size") == 0.0
    });
    for counter in ["errors", "files_set_aside", "files_left_out"] {
        let counter = format!("plumbago_carbon_{counter}_total");
        assert_eq!(count(&server, &counter), 0.0, "{counter}");
    }
    drop(idle);
    assert!(server.stop().success(), "{}", server.log());
}

/// A request whose answer is too large to be held.
fn large(server: &Server, nth: usize) -> String {
    let address = server.address("render.http");
    // A value a second for ten days.
    format!(
        "GET /render?format=json&from=-10d&target=time(%22t{nth}%22,1) HTTP/1.1\r\nHost: {address}\r\n\
         Connection: close\r\n\r\n"
    )
}

#[test]
fn clients_that_read_slowly_leave_memory_to_the_others() {
    let server = Server::with(&[
        ("render.max_memory", "96MiB"),
        ("render.write_timeout", "3600s"),
        ("stats.self", "false"),
    ]);
    let address = server.address("render.http").to_owned();
    // It takes its answer at its own pace, which is twice what is asked of it. The pace itself is tested.
    let mut quick = connect(&address, &large(&server, 0));
    let quick = std::thread::spawn(move || {
        let (mut text, mut piece) = (Vec::new(), vec![0; 1 << 20]);
        loop {
            let n = quick.read(&mut piece).unwrap();
            if n == 0 {
                return text;
            }
            text.extend_from_slice(&piece[..n]);
            std::thread::sleep(Duration::from_millis((n >> 10) as u64 / 2));
        }
    });
    // The others read nothing.
    let mut silent = Vec::new();
    loop {
        let stream = connect(&address, &large(&server, 1 + silent.len()));
        let mut head = [0; 12];
        stream.peek(&mut head).unwrap();
        if &head[9..] == b"413" {
            break;
        }
        silent.push(stream);
    }
    assert!(silent.len() >= 3, "{}", silent.len());
    // More than what the quick one holds.
    let path = "/render?format=json&from=-30d&maxDataPoints=10&target=time(%22small%22,1)";
    server.wait_until("memory for others", |server| server.get(path).status == 200);
    assert!(count(&server, "plumbago_http_broken_off_total") >= 1.0);
    let broken = silent.into_iter().filter(|stream| {
        let mut stream = stream;
        stream.set_nonblocking(true).unwrap();
        let ended = stream.read_to_end(&mut Vec::new());
        ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset
    });
    assert!(broken.count() >= 1);
    let text = quick.join().unwrap();
    assert!(text.ends_with(b"]]}]\r\n0\r\n\r\n"), "{} bytes", text.len());
}
