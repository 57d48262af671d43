//! Requests and senders that would take all memory, under a limit of the system that turns any
//! allocation past it into the end of the process.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};
use support::{Answer, Server, now};

/// What the system lets a server of these tests have.
const LIMIT: u64 = 1_536 << 20;

/// A server that the system lets have no more than [`LIMIT`] of `resource`.
fn limited(resource: Resource, settings: &[(&str, &str)]) -> Server {
    // A child inherits the limits of this process.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let before = getrlimit(resource);
    let current = Some(LIMIT);
    setrlimit(resource, Rlimit { current, ..before }).unwrap();
    let server = Server::with(settings);
    setrlimit(resource, before).unwrap();
    server
}

/// `inner` in `n` calls.
fn nested(n: usize, call: &str, inner: &str, arguments: &str) -> String {
    let arguments = format!(",{arguments})");
    format!(
        "{}{inner}{}",
        format!("{call}(").repeat(n),
        arguments.repeat(n)
    )
}

/// The parameters of each request, and whether they are posted.
fn requests() -> Vec<(&'static str, String, bool)> {
    let targets = |n: usize, name: &str| format!("&target={name}").repeat(n);
    let long = |format: &str, n| format!("format={format}&from=-5y{}", targets(n, "a"));
    let tenfold = r#""(.*)","\1\1\1\1\1\1\1\1\1\1""#;
    let growing = nested(11, "aliasSub", "a", tenfold);
    let mut variables = format!("target=template(a.{})&format=json", "$a".repeat(100));
    for n in 1..25 {
        let (name, next) = ("a".repeat(n), "a".repeat(n + 1));
        let value = format!("${next}").repeat(4);
        write!(variables, "&template[{name}]={value}").unwrap();
    }
    let template = format!(
        r#"target=template(h.{},a="{}",b="{}",c="{}",d="xxxxxxxxxxxxxxxx")"#,
        "$a".repeat(10),
        "$b".repeat(1_000),
        "$c".repeat(1_000),
        "$d".repeat(1_000)
    );
    let scaled = vec!["scale(b,2)"; 1_500].join(",");
    vec![
        ("CSV", long("csv", 4_000), false),
        ("JSON", long("json", 3_000), false),
        ("msgpack", long("msgpack", 4_000), false),
        ("pickle", long("pickle", 4_000), false),
        ("rickshaw", long("rickshaw", 4_000), false),
        ("SVG", long("svg", 4_000), false),
        (
            "posted",
            format!("format=json&from=-2y{}", targets(100_000, "a")),
            true,
        ),
        ("names", format!("target={growing}&format=json"), false),
        ("template", template, false),
        ("variables", variables, false),
        (
            "columns",
            format!("target=group({scaled})&from=-5y&format=json"),
            false,
        ),
    ]
}

fn ask(server: &Server, parameters: &str, posted: bool) -> Answer {
    let parameters = parameters.replace('"', "%22").replace('\\', "%5C");
    if posted {
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        server.http("POST", "/render", form, parameters.as_bytes())
    } else {
        server.get(&format!("/render?{parameters}"))
    }
}

fn requests_are_refused_under(resource: Resource) {
    let server = limited(resource, &[("stats.self", "false")]);
    let pid = server.pid();
    server.lines(format!("a 1 {0}\nb 2 {0}\n", now()));
    server.wait_for("b", |values| values == [2.0]);
    for (name, parameters, posted) in requests() {
        let answer = ask(&server, &parameters, posted);
        let said = answer.text();
        let said = said.chars().take(500).collect::<String>();
        assert!(
            matches!(answer.status, 400 | 413),
            "{name}: {} {said}",
            answer.status
        );
        if answer.status == 413 {
            assert!(said.contains("render.max_"), "{name}: {said}");
        }
    }
    // Together they may take no more than one of them.
    std::thread::scope(|scope| {
        for n in 0..8 {
            let server = &server;
            scope.spawn(move || {
                let scaled = vec!["scale(b,2)"; 40 + n].join(",");
                let parameters = format!("target=group({scaled})&from=-5y&format=raw");
                let answer = ask(server, &parameters, false);
                assert!(matches!(answer.status, 200 | 413), "{}", answer.status);
            });
        }
    });
    assert_eq!(server.get("/healthz").status, 200);
    server.lines(format!("after 3 {}\n", now()));
    server.wait_for("after", |values| values == [3.0]);
    assert_eq!(server.pid(), pid);
}

#[test]
fn requests_that_need_too_much_are_refused_in_a_limited_address_space() {
    requests_are_refused_under(Resource::As);
}

#[test]
fn requests_that_need_too_much_are_refused_in_a_limited_data_segment() {
    requests_are_refused_under(Resource::Data);
}

/// The anonymous memory of a server, in bytes.
fn anonymous(server: &Server) -> u64 {
    let status = format!("/proc/{}/status", server.pid().as_raw_nonzero());
    let status = fs::read_to_string(status).unwrap();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = kib.unwrap().trim_end_matches("kB").trim();
    kib.parse::<u64>().unwrap() << 10
}

/// The most anonymous memory that a server has while `work` goes on.
fn peak(server: &Server, work: impl FnOnce()) -> u64 {
    /// Ends the watch however the work ends.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Acquire) {
                most = most.max(anonymous(server));
                std::thread::yield_now();
            }
            most
        });
        let end = Done(&done);
        work();
        drop(end);
        watch.join().unwrap()
    })
}

/// A server with [`BUDGET`] for requests and the series `f.s0` to `f.s199`, all in their files.
fn with_series() -> Server {
    let server = limited(
        Resource::As,
        &[
            ("stats.self", "false"),
            ("render.max_memory", "128MiB"),
            ("render.concurrency", "4"),
            ("carbon.infer_step", "false"),
        ],
    );
    let mut lines = String::new();
    for series in 0..200 {
        writeln!(lines, "f.s{series} {series} {}", now()).unwrap();
    }
    server.lines(&lines);
    server.wait_until("files", |server| {
        let text = server.get("/metrics").text();
        text.contains("plumbago_carbon_creates_total 200\n")
            && text.contains("plumbago_carbon_cache_size 0\n")
    });
    server
}

/// What requests may hold together.
const BUDGET: u64 = 128 << 20;

/// Each request holds many small columns, nearly as much as there is, and gives them back to the heap
/// of its thread, from where the next one cannot take them.
#[test]
fn what_threads_keep_free_counts_as_memory_of_requests() {
    let server = with_series();
    let request = |n: usize| {
        let scaled = (0..22).map(|by| format!("scale(f.*,{n}.{by})"));
        let scaled = scaled.collect::<Vec<_>>().join(",");
        format!("target=sumSeries(group({scaled}))&from=-2d&format=json")
    };
    let at_once = |ask: &(dyn Fn(usize) + Sync)| {
        std::thread::scope(|scope| {
            for client in 0..6 {
                scope.spawn(move || (0..5).for_each(|round| ask(10 * client + round)));
            }
        });
    };
    // What is set up once, also for as many clients: connections, threads and their stacks.
    at_once(&|n| {
        let small = format!("target=sumSeries(scale(f.*,{n}))&from=-2d&format=json");
        ask(&server, &small, false);
    });
    let idle = anonymous(&server);
    let most = peak(&server, || {
        at_once(&|n| {
            let answer = ask(&server, &request(n), false);
            match answer.status {
                200 => {}
                413 => assert!(answer.text().contains("render.max_memory")),
                other => panic!("{other} {}", answer.text()),
            }
        });
    });
    let beyond = most.saturating_sub(idle + BUDGET) >> 20;
    assert_eq!(
        beyond,
        0,
        "MiB: {} idle, {} at most",
        idle >> 20,
        most >> 20
    );
    // What threads kept free goes back: a request alone has room.
    server.wait_until("a request alone", |server| {
        ask(server, &request(0), false).status == 200
    });
}

/// Events of 200 KB each, on pages that many clients ask for at the same time.
#[test]
fn pages_with_events_count_as_memory_of_requests() {
    let server = limited(
        Resource::As,
        &[("stats.self", "false"), ("render.max_memory", "128MiB")],
    );
    let data = "d".repeat(200_000);
    for part in 0..4 {
        let lines: String = (1..=25)
            .map(|n| {
                let id = 25 * part + n;
                let event = serde_json::json!({
                    "id": id, "what": "e", "tags": ["deploy"], "when": now() - id, "data": data,
                });
                format!("{event}\n")
            })
            .collect();
        let imported = server.http("POST", "/events/import", "", lines.as_bytes());
        assert_eq!(imported.status, 200, "{}", imported.text());
    }
    let pages = |limit: usize| {
        let list = format!("/events/?limit={limit}");
        [
            list.as_str(),
            "/changes",
            "/events/1/",
            "/deploy/1",
            "/explore",
        ]
        .map(str::to_owned)
    };
    let at_once = |limit: usize| {
        let n_lists = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..12 {
                for page in pages(limit) {
                    let (server, n_lists) = (&server, &n_lists);
                    scope.spawn(move || {
                        let answer = server.http("GET", &page, "Accept: text/html\r\n", b"");
                        match answer.status {
                            200 if answer.body.len() > 20_000_000 => {
                                n_lists.fetch_add(1, Ordering::Relaxed);
                            }
                            200 => assert!(!page.contains("limit=100"), "{page}"),
                            413 => assert!(answer.text().contains("render.max_memory")),
                            503 => assert!(answer.text().contains("try again later")),
                            other => panic!("{page}: {other} {}", answer.text()),
                        }
                    });
                }
            }
        });
        n_lists.into_inner()
    };
    assert_eq!(at_once(1), 0);
    let idle = anonymous(&server);
    let most = peak(&server, || assert!(at_once(100) > 0));
    // A quarter for the store's own buffers, and for what lies free between two looks at the memory.
    let allowed = idle + BUDGET + BUDGET / 4;
    assert!(
        most <= allowed,
        "MiB: {} idle, {} at most",
        idle >> 20,
        most >> 20
    );
}

/// Bodies that are still arriving, and the parameters that were read from others.
#[test]
fn bodies_and_parameters_count_as_memory_of_requests() {
    let server = with_series();
    ask(&server, "target=f.s1&format=json", true);
    let idle = anonymous(&server);
    let head = |length: usize| {
        format!(
            "POST /render HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        )
    };
    const LENGTH: usize = 7 << 20;
    let body = "x".repeat(LENGTH);
    let most = peak(&server, || {
        // All but the last byte of each body.
        let mut clients: Vec<TcpStream> = Vec::new();
        for _ in 0..24 {
            let mut client = TcpStream::connect(server.address("render.http")).unwrap();
            client.write_all(head(LENGTH).as_bytes()).unwrap();
            client.write_all(&body.as_bytes()[1..]).unwrap();
            clients.push(client);
        }
        // Others are answered all the same.
        let answer = ask(&server, "target=f.s1&format=json", true);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answers = clients.iter_mut().map(|client| {
            client.write_all(b"x").unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        });
        let refused = answers.filter(|answer| answer.starts_with("HTTP/1.1 413"));
        let refused: Vec<String> = refused.collect();
        assert!(refused.len() > 12, "{}", refused.len());
        assert!(
            refused
                .iter()
                .all(|answer| answer.contains("a quarter of render.max_memory"))
        );
        // Forms of many parameters, together.
        std::thread::scope(|scope| {
            for n in 0..12 {
                let server = &server;
                scope.spawn(move || {
                    let form = format!("target=f.s{n}&format=json{}", "&abc=defg".repeat(190_000));
                    let answer = ask(server, &form, true);
                    let status = answer.status;
                    assert!(matches!(status, 200 | 413), "{status} {}", answer.text());
                });
            }
        });
    });
    let beyond = most.saturating_sub(idle + BUDGET) >> 20;
    assert_eq!(
        beyond,
        0,
        "MiB: {} idle, {} at most",
        idle >> 20,
        most >> 20
    );
    let answer = ask(&server, "target=f.s1&format=json", true);
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_small_address_space_suffices_for_files_and_names() {
    let mut server = Server::prepared(&[
        ("stats.self", "false"),
        // A file for each series, without a wait for its second point.
        ("carbon.infer_step", "false"),
    ]);
    server.first = Some(format!("ulimit -v {}", 400 << 10));
    server.run();
    let pid = server.pid();
    let mut lines = String::new();
    for series in 0..1_000 {
        writeln!(lines, "f.h{}.m{series} {series} {}", series % 50, now()).unwrap();
    }
    server.lines(&lines);
    server.wait_until("files", |server| {
        let text = server.get("/metrics").text();
        text.contains("plumbago_carbon_creates_total 1000\n")
            && text.contains("plumbago_carbon_cache_size 0\n")
    });
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for packet in 0..100 {
        let names: Vec<String> = (0..40).map(|n| format!("n{packet}.m{n}:1|c")).collect();
        let sent = socket.send_to(names.join("\n").as_bytes(), server.address("statsd.udp"));
        sent.unwrap();
    }
    server.wait_for_sum("sumSeries(stats_counts.n*.m7)", 100.0);
    let sum = (0..1_000).sum::<i32>();
    server.wait_for_sum("sumSeries(f.*.*)", f64::from(sum));
    assert_eq!(server.pid(), pid);
    assert!(server.stop().success(), "{}", server.log());
}

/// Whether names were refused for want of memory.
fn refuses_names(server: &Server) -> bool {
    let name = "plumbago_statsd_names_refused_total ";
    let text = server.try_get("/metrics").map(|(_, text)| text);
    let value = text.and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.parse::<f64>().ok()
    });
    value.is_some_and(|value| value > 0.0)
}

#[test]
fn a_flood_of_names_without_memory_is_refused_or_ends_the_process() {
    // Nothing is stored: what is asked is whether names are taken.
    let mut server = Server::with(&[("stats.self", "false"), ("statsd.output", "discard")]);
    let status = format!("/proc/{}/status", server.pid().as_raw_nonzero());
    let status = fs::read_to_string(status).unwrap();
    let now = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let now = now.unwrap().trim_end_matches("kB").trim();
    let now = now.parse::<u64>().unwrap() << 10;
    let (current, maximum) = (Some(now), None);
    let before = prlimit(
        Some(server.pid()),
        Resource::Data,
        Rlimit { current, maximum },
    );
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut n = 0;
    let ended = loop {
        for _ in 0..50 {
            let names: Vec<String> = (0..60).map(|at| format!("n{n}.{at}:1|c")).collect();
            let _ = socket.send_to(names.join("\n").as_bytes(), server.address("statsd.udp"));
            n += 1;
        }
        if let Some(status) = server.ended() {
            break Some(status);
        }
        if refuses_names(&server) {
            break None;
        }
        assert!(
            Instant::now() < deadline,
            "neither of both:\n{}",
            server.log()
        );
    };
    if let Some(status) = ended {
        // Nothing can be done without memory: the process ends at once and says why.
        assert!(!status.success());
        let log = server.log();
        assert!(log.contains("memory allocation of"), "{log}");
        return;
    }
    prlimit(Some(server.pid()), Resource::Data, before.unwrap()).unwrap();
    // Every thread is alive: there is memory again, and names are taken again.
    server.statsd("after:1|g");
    server.wait_for_admin("gauges", "after");
    assert_eq!(server.get("/readyz").status, 200);
    assert!(server.stop().success(), "{}", server.log());
}

/// Names that do not fit into the entries of the table are kept beside them, in memory that grows with them.
#[test]
fn long_names_without_memory_are_refused() {
    // Nothing is stored: what is asked is whether names are taken.
    let mut server = Server::prepared(&[
        ("stats.self", "false"),
        ("statsd.output", "discard"),
        ("statsd.tcp", "127.0.0.1:0"),
    ]);
    server.first = Some(format!("ulimit -v {}", 400 << 10));
    server.run();
    let pid = server.pid();
    // No datagram that the kernel may drop.
    let mut stream = TcpStream::connect(server.address("statsd.tcp")).unwrap();
    stream.write_all(b"known:1|g\n").unwrap();
    server.wait_for_admin("gauges", "known");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let long = "x".repeat(900);
    let mut n = 0;
    let mut flood = || {
        for _ in 0..20 {
            let names: Vec<String> = (0..60).map(|at| format!("{long}{n}.{at}:1|c")).collect();
            let _ = socket.send_to(names.join("\n").as_bytes(), server.address("statsd.udp"));
            n += 1;
        }
        assert!(Instant::now() < deadline, "{}", server.log());
    };
    while !refuses_names(&server) {
        flood();
    }
    // They go on being refused.
    (0..100).for_each(|_| flood());
    // Names that are known are not affected.
    stream.write_all(b"known:234|g\n").unwrap();
    server.wait_for_admin("gauges", "234");
    assert_eq!(server.get("/readyz").status, 200);
    assert_eq!(server.pid(), pid);
    assert!(server.stop().success(), "{}", server.log());
}
