//! Routes to other machines: nothing that was taken is lost while a destination is away or the relay is
//! killed, the order of a series is kept, and two servers with routes to each other make no loop.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use support::{Server, now, plumbago};

/// A destination that keeps the lines it gets.
struct Destination {
    port: u16,
    lines: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Destination {
    fn new() -> Self {
        let mut destination = Self {
            port: 0,
            lines: Arc::default(),
            stop: Arc::default(),
            streams: Arc::default(),
            thread: None,
        };
        destination.come();
        destination
    }

    /// Listens, on the same port as before.
    fn come(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        self.port = listener.local_addr().unwrap().port();
        self.stop = Arc::default();
        let (lines, stop, streams) = (
            Arc::clone(&self.lines),
            Arc::clone(&self.stop),
            Arc::clone(&self.streams),
        );
        self.thread = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                // One connection after the other: the relay has one at a time.
                for line in BufReader::new(&stream).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
                // Read to its end: the relay learns that everything has arrived.
                let _ = stream.shutdown(Shutdown::Both);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        }));
    }

    /// Closes its connections and listens no more.
    fn go(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        self.thread.take().unwrap().join().unwrap();
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The values of the series `name` in the order in which they first came.
    fn values(&self, name: &str) -> Vec<u32> {
        let mut seen = std::collections::HashSet::new();
        let lines = self.lines.lock().unwrap();
        let values = lines.iter().filter_map(|line| {
            let rest = line.strip_prefix(name)?.strip_prefix(' ')?;
            let (value, _) = rest.split_once(' ')?;
            value.parse().ok()
        });
        values.filter(|value| seen.insert(*value)).collect()
    }
}

fn config(server: &mut Server, text: &str) {
    let path = server.dir.path().join("plumbago.toml");
    fs::write(&path, text).unwrap();
    server.config = Some(path);
}

fn relay(text: &str, settings: &[(&str, &str)]) -> Server {
    let quiet = [("stats.self", "false")];
    let mut server = Server::prepared(&[&quiet, settings].concat());
    config(&mut server, text);
    server.run();
    server
}

fn send(server: &Server, name: &str, range: std::ops::Range<u32>) {
    let at = now();
    let lines: String = range.map(|n| format!("{name} {n} {at}\n")).collect();
    server.lines(lines);
}

fn reading(server: &Server, name: &str, destination: &str) -> f64 {
    server.metric(&format!(
        "plumbago_relay_{name}{{destination=\"{destination}\"}}"
    ))
}

#[test]
fn a_destination_that_was_away_gets_everything_in_order_although_the_relay_was_killed() {
    let mut three = [Destination::new(), Destination::new(), Destination::new()];
    let addresses: Vec<String> = three.iter().map(Destination::address).collect();
    let route = format!("[[carbon.routes]]\ndestinations = {addresses:?}\nkeep = \"never\"\n");
    let mut server = relay(&route, &[]);
    send(&server, "a.b", 0..1_000);
    let has =
        |destination: &Destination, end: u32| destination.values("a.b").last() == Some(&(end - 1));
    server.wait_until("lines", |_| three.iter().all(|one| has(one, 1_000)));

    three[2].go();
    send(&server, "a.b", 1_000..30_000);
    server.wait_until("lines", |_| three[..2].iter().all(|one| has(one, 30_000)));
    // What waits is on disk, and may have been sent before: all of the 30,000 are on disk or have arrived.
    server.wait_until("queue", |server| {
        let of = |name| reading(server, name, &addresses[2]);
        of("sent_total") - of("sent_again_total") + of("waiting") >= 30_000.0
    });
    assert_eq!(reading(&server, "up", &addresses[2]), 0.0);
    let ready = server.get("/readyz");
    assert_eq!(ready.status, 200);
    assert!(
        ready
            .text()
            .contains(&format!("{} is away (", addresses[2])),
        "{}",
        ready.text()
    );
    server.kill();
    server.run();
    send(&server, "a.b", 30_000..31_000);
    server.wait_until("queue", |server| {
        reading(server, "waiting", &addresses[2]) >= 30_000.0
    });
    server.restart();

    three[2].come();
    server.wait_until("the rest", |_| three.iter().all(|one| has(one, 31_000)));
    for destination in &three {
        assert_eq!(destination.values("a.b"), (0..31_000).collect::<Vec<_>>());
    }
    // Not kept here.
    assert!(server.points("a.b").is_empty());
    // Everything is confirmed at an orderly end, and nothing is left.
    server.wait_until("empty queues", |server| {
        reading(server, "waiting", &addresses[2]) == 0.0
    });
    assert!(server.stop().success());
    assert_eq!(
        support::files(&server.data().join("relay")),
        [""; 0],
        "{}",
        server.log()
    );
}

#[test]
fn what_a_broken_connection_has_swallowed_is_sent_again() {
    let mut destination = Destination::new();
    let address = destination.address();
    let server = relay(
        &format!("[[carbon.routes]]\ndestinations = [{address:?}]\n"),
        &[],
    );
    send(&server, "a", 0..5_000);
    server.wait_until("lines", |_| destination.values("a").len() == 5_000);
    // Gone with what its kernel had taken: the relay believes that it was sent.
    destination.go();
    destination.lines.lock().unwrap().clear();
    destination.come();
    server.wait_until("repetition", |_| destination.values("a").len() == 5_000);
    assert!(reading(&server, "sent_again_total", &address) >= 5_000.0);
    // Kept here, too.
    server.wait_for("a", |values| values.last() == Some(&4_999.0));
}

#[test]
fn two_servers_with_routes_to_each_other_have_the_same_points_once() {
    let reserve = || {
        TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .to_string()
    };
    let (one, two) = (reserve(), reserve());
    let pair = format!(
        "[[carbon.routes]]\nmethod = \"carbon_ch\"\nreplication = 2\nkeep = \"placed\"\n\
         destinations = [\"{one}:a\", \"{two}:b\"]\n"
    );
    let start = |own: &str, instance: &str| {
        let own_name = format!("{own}:{instance}");
        relay(
            &pair,
            &[
                ("carbon.relay_line_tcp", own),
                ("carbon.relay_self", &own_name),
            ],
        )
    };
    let (mut a, b) = (start(&one, "a"), start(&two, "b"));
    send(&a, "from.a", 0..100);
    send(&b, "from.b", 0..100);
    for server in [&a, &b] {
        for name in ["from.a", "from.b"] {
            server.wait_for(name, |values| values.last() == Some(&99.0));
        }
        assert_eq!(
            server.metric("plumbago_carbon_metrics_received_total"),
            200.0
        );
    }
    // While one is away, the other keeps its points for it.
    a.kill();
    send(&b, "from.b", 100..300);
    let name = format!("{one}:a");
    b.wait_until("queue", |b| reading(b, "waiting", &name) >= 200.0);
    a.run();
    a.wait_for("from.b", |values| values.last() == Some(&299.0));
    // What was on its way when one was killed may come twice, and no more often.
    let received = b.metric("plumbago_carbon_metrics_received_total");
    assert!((400.0..=500.0).contains(&received), "{received}");
}

#[test]
fn pickles_of_a_route_are_read_by_the_receiver_of_pickles() {
    let there = Server::with(&[("stats.self", "false")]);
    let address = there.address("carbon.pickle").to_owned();
    let here = relay(
        &format!(
            "[[carbon.routes]]\ndestinations = [{address:?}]\nprotocol = \"pickle\"\nkeep = \"never\"\n"
        ),
        &[],
    );
    // More than fit into a frame, and what is odd in names and values.
    send(&here, "many", 0..2_000);
    let at = now();
    let odd = [
        ("a.ümlaut.é", "0.1"),
        ("t;host=a b;dc=x", "-1e300"),
        ("whole", "9007199254740992"),
        ("small", "5e-324"),
    ];
    let lines: String = odd
        .iter()
        .map(|(name, value)| format!("{} {value} {at}\n", name.replace(' ', "_")))
        .collect();
    here.lines(lines);
    there.wait_for("many", |values| values.last() == Some(&1_999.0));
    for (name, value) in odd {
        let name = name.replace(' ', "_");
        let target = match name.split_once(';') {
            Some((metric, _)) => format!("seriesByTag('name={metric}')"),
            None => name,
        };
        let value: f64 = value.parse().unwrap();
        let target: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
        there.wait_for(&target, |values| values == [value]);
    }
    here.wait_until("everything to be sent", |here| {
        reading(here, "waiting", &address) == 0.0
    });
    let received = there.metric("plumbago_carbon_metrics_received_total");
    assert_eq!(received, 2_004.0);
    assert!(here.points("many").is_empty());
}

#[test]
fn routes_choose_by_pattern_and_failover_takes_the_next() {
    let mut three = [Destination::new(), Destination::new(), Destination::new()];
    let [one, two, other] = [0, 1, 2].map(|n: usize| three[n].address());
    let text = format!(
        "[[carbon.routes]]\nmatch = [\"^web\\\\.\"]\nmethod = \"failover\"\ndestinations = [{one:?}, {two:?}]\n\
         [[carbon.routes]]\nmatch = [\"^all\\\\.\", \"copy$\"]\ncontinue = true\nprotocol = \"line\"\n\
         destinations = [{other:?}]\nkeep = \"never\"\n"
    );
    let server = relay(&text, &[]);
    server.wait_until("connections", |server| {
        [&one, &two, &other]
            .iter()
            .all(|name| reading(server, "connects_total", name) >= 1.0)
    });
    send(&server, "web.x", 0..10);
    send(&server, "all.x", 0..10);
    send(&server, "rest.x", 0..10);
    server.wait_until("lines", |_| three[0].values("web.x").len() == 10);
    server.wait_until("lines", |_| three[2].values("all.x").len() == 10);
    assert!(three[1].lines.lock().unwrap().is_empty());
    server.wait_for("rest.x", |values| values.last() == Some(&9.0));
    three[0].go();
    server.wait_until("its end", |server| reading(server, "up", &one) == 0.0);
    send(&server, "web.x", 10..20);
    server.wait_until("lines", |_| three[1].values("web.x").last() == Some(&19));
    assert_eq!(three[2].lines.lock().unwrap().len(), 10);
}

#[test]
fn what_is_wrong_with_routes_is_named_with_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plumbago.toml");
    let text = "[carbon]\nrelay_self = \"x\"\n\n[[carbon.routes]]\nmatch = [\"(\"]\n\
                destinations = [\"a:1\", \"b\"]\n\n[[carbon.routes]]\ndestinations = [\"127.0.0.1:2003\"]\n\n\
                [[carbon.routes]]\ndestinations = [\"c:1\"]\nreplication = 2\n\n\
                [[carbon.routes]]\ndestinations = []\nmetod = \"all\"\n";
    fs::write(&path, text).unwrap();
    let output = plumbago()
        .args(["config", "--check"])
        .arg(&path)
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stderr).replace(&path.display().to_string(), "F");
    assert!(!output.status.success(), "{shown}");
    for expected in [
        "F:2: carbon.relay_self: \"x\" is not a destination",
        "F:5: carbon.routes.match: \"(\" is not a regular expression",
        "F:6: carbon.routes.destinations: \"b\" is not a destination",
        "F:9: carbon.routes.destinations: 127.0.0.1:2003 is this server's own carbon.line_tcp",
        "carbon.routes: no name reaches it: route 2 takes all of its names",
        "F:13: carbon.routes.replication: it has no effect on this method",
        "carbon.routes: a route without \"destinations\", write \"host:port\"",
        "F:17: carbon.routes.metod",
    ] {
        assert!(shown.contains(expected), "{expected}\n{shown}");
    }
}
