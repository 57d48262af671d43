//! `plumbago statsd-proxy` in front of servers: each name goes to the server that StatsD's proxy would choose, one that
//! is not well leaves the ring, and gets its names back when it is.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use support::plumbago;

const PATIENCE: Duration = Duration::from_secs(180);

/// A server of StatsD as far as the proxy sees it.
struct Node {
    udp: UdpSocket,
    admin_port: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Node {
    fn new() -> Self {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut node = Self {
            udp,
            admin_port: 0,
            stop: Arc::default(),
            thread: None,
        };
        node.come();
        node
    }

    /// Answers that it is well, on the same port as before.
    fn come(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.admin_port)).unwrap();
        self.admin_port = listener.local_addr().unwrap().port();
        self.stop = Arc::default();
        let stop = Arc::clone(&self.stop);
        self.thread = Some(std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                let _ = (&stream).write_all(b"health: up\n\n");
            }
        }));
    }

    fn go(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.admin_port));
        self.thread.take().unwrap().join().unwrap();
    }

    fn name(&self) -> String {
        self.udp.local_addr().unwrap().to_string()
    }

    /// The lines of the next `n` packets.
    fn lines(&self, n: usize) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        let mut packet = [0; 65_536];
        while lines.len() < n {
            let length = self.udp.recv(&mut packet).unwrap();
            let text = std::str::from_utf8(&packet[..length]).unwrap();
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }
}

struct Proxy {
    child: Child,
    udp: String,
    admin: String,
}

impl Proxy {
    fn start(nodes: &[Node]) -> Self {
        let mut command = plumbago();
        command.args([
            "statsd-proxy",
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        command.args(["--check-interval", "50ms"]);
        for node in nodes {
            command.args(["--node", &format!("{}:{}", node.name(), node.admin_port)]);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let (udp, admin) = line
            .trim()
            .strip_prefix("statsd-proxy listens on ")
            .and_then(|both| both.split_once(" and "))
            .unwrap_or_else(|| panic!("{line:?}"));
        let (udp, admin) = (udp.to_owned(), admin.to_owned());
        Self { child, udp, admin }
    }

    fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        write!(stream, "{command}\nquit\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Waits until the ring is of these nodes.
    fn wait_for(&self, nodes: &[&Node]) {
        let names: String = nodes.iter().map(|node| node.name() + " ").collect();
        let wanted = format!("nodes: {names}\n");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.ask("status");
            if status.contains(&wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{wanted} is not in {status}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn send(&self, lines: &[String]) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for packet in lines.chunks(20) {
            let packet = packet.join("\n");
            socket.send_to(packet.as_bytes(), &self.udp).unwrap();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where npm's hashring puts `name`: 40 places for each node, the next one clockwise.
fn place(nodes: &[&Node], name: &str) -> usize {
    let hash = |text: &str| {
        let digest = Md5::digest(text);
        u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
    };
    let places = nodes.iter().enumerate().flat_map(|(number, node)| {
        (0..40).map(move |place| (hash(&format!("{}-{place}", node.name())), number))
    });
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    let next = places.iter().find(|(at, _)| *at >= hash(name));
    next.unwrap_or(&places[0]).1
}

#[test]
fn the_management_interface_has_a_bound() {
    let proxy = Proxy::start(&[Node::new()]);
    let mut clients: Vec<TcpStream> = (0..65)
        .map(|_| TcpStream::connect(&proxy.admin).unwrap())
        .collect();
    let ask = |stream: &mut TcpStream| {
        let mut answer = String::new();
        let asked = stream.write_all(b"health\nquit\n");
        // Of a connection that was closed, the one or the other fails.
        let _ = asked.and_then(|()| stream.read_to_string(&mut answer).map(drop));
        answer
    };
    let mut last = clients.pop().unwrap();
    assert_eq!(ask(&mut last), "");
    assert!(ask(&mut clients[0]).contains("health: up"));
}

#[test]
fn names_go_where_statsds_proxy_sends_them_and_come_back_with_their_server() {
    let mut nodes = [Node::new(), Node::new(), Node::new()];
    let proxy = Proxy::start(&nodes);
    let names: Vec<String> = (0..200).map(|n| format!("shop.page{n}.views")).collect();
    let check = |nodes: &[&Node], round: u32| {
        proxy.wait_for(nodes);
        let line = |name: &String| format!("{name}:{round}|c|#of:{round}");
        proxy.send(&names.iter().map(line).collect::<Vec<_>>());
        for (number, node) in nodes.iter().enumerate() {
            let mine = names.iter().filter(|name| place(nodes, name) == number);
            let wanted: BTreeSet<String> = mine.map(line).collect();
            assert!(!wanted.is_empty());
            assert_eq!(node.lines(wanted.len()), wanted);
        }
    };
    check(&[&nodes[0], &nodes[1], &nodes[2]], 1);
    nodes[1].go();
    check(&[&nodes[0], &nodes[2]], 2);
    nodes[1].come();
    check(&[&nodes[0], &nodes[1], &nodes[2]], 3);
    assert!(proxy.ask("status").contains("dropped: 0\n"));

    for node in &mut nodes {
        node.go();
    }
    proxy.wait_for(&[]);
    proxy.send(&names[..7]);
    let deadline = Instant::now() + PATIENCE;
    while !proxy.ask("status").contains("dropped: 7\n") {
        assert!(Instant::now() < deadline, "{}", proxy.ask("status"));
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
