//! `plumbago statsd-proxy`: shares StatsD's metrics out among several servers by their names, as StatsD's own
//! `proxy.js` does, so that all packets of a metric go to the same server.
//!
//! 1. The key of a line is the text before its first `:`. Lines are not read otherwise: a bad one is counted
//!    by the server that it goes to.
//! 2. Lines of a packet that go to the same server stay in one packet, which proxy.js takes apart.
//! 3. Each server's management interface is asked `health` every `--check-interval`. An answer with `up` is
//!    healthy; any other answer, an error, or silence takes the server out of the ring at once.

mod ring;

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use parking_lot::RwLock;
use settings::Span;

use self::ring::Ring;
use crate::terminal::{complain, say};

/// How long a client of the management interface may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// Most bytes of a command.
const MAX_COMMAND: u64 = 1_024;
/// Most clients of the management interface at once; further ones are closed.
const MAX_MANAGED: usize = 64;
/// The pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Shares StatsD's metrics out among several servers by their names.
///
/// All packets of a metric go to the same server, chosen as StatsD's proxy chooses it. Servers whose management
/// interface does not answer "health: up" are left out until it does again.
#[derive(clap::Args, Debug)]
#[command(
    name = "statsd-proxy",
    after_help = "Example:\n  plumbago statsd-proxy --listen 0.0.0.0:8125 --node 10.0.0.1:8125:8126 --node 10.0.0.2:8125:8126"
)]
pub struct Args {
    /// Where datagrams are received.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8125")]
    listen: String,
    /// The management interface: help, health [up|down], status, quit.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8126")]
    admin: String,
    /// A server: its host, its port for datagrams, the port of its management interface.
    #[arg(long = "node", value_name = "HOST:PORT:ADMINPORT", required = true)]
    nodes: Vec<Node>,
    /// How often servers are checked.
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    check_interval: Span,
}

/// A server that gets metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    host: String,
    port: u16,
    admin_port: u16,
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = || {
            let (rest, admin_port) = text.rsplit_once(':')?;
            let (host, port) = rest.rsplit_once(':')?;
            let node = Self {
                host: host.to_owned(),
                port: port.parse().ok()?,
                admin_port: admin_port.parse().ok()?,
            };
            (!host.is_empty() && (!host.contains(':') || host.starts_with('['))).then_some(node)
        };
        parts().ok_or_else(|| format!("{text:?} is not a node, write \"10.0.0.1:8125:8126\""))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A node and what is known of it.
struct Known {
    node: Node,
    name: String,
    /// Changed together with the ring, while that is locked.
    is_up: AtomicBool,
    /// Where its datagrams go; looked up when it is checked.
    address: RwLock<Option<SocketAddr>>,
}

struct Proxy {
    nodes: Vec<Known>,
    ring: RwLock<Arc<Ring>>,
    begun: Instant,
    /// What `health` answers.
    is_up: AtomicBool,
    /// Lines that no node could take.
    dropped: AtomicU64,
}

/// Runs the verb until the process is ended.
///
/// # Errors
/// An address cannot be listened on.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let interval = args.check_interval.0;
    if interval < Duration::from_millis(10) {
        bail!(
            "--check-interval {} is too short, write \"10s\"",
            args.check_interval
        );
    }
    for (n, node) in args.nodes.iter().enumerate() {
        if args.nodes[..n]
            .iter()
            .any(|other| (&other.host, other.port) == (&node.host, node.port))
        {
            bail!("--node {node} is there twice");
        }
    }
    let socket =
        UdpSocket::bind(&args.listen).with_context(|| format!("--listen {}", args.listen))?;
    let admin =
        TcpListener::bind(&args.admin).with_context(|| format!("--admin {}", args.admin))?;
    // A burst waits in the kernel.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20);
    let proxy = Arc::new(Proxy::new(&args.nodes));
    proxy.check_all(interval.min(Duration::from_secs(2)));
    // The work goes on although this cannot be said.
    let _ = say(&format!(
        "statsd-proxy listens on {} and {}\n",
        socket.local_addr()?,
        admin.local_addr()?
    ));
    for number in 0..proxy.nodes.len() {
        let proxy = Arc::clone(&proxy);
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(interval);
                proxy.check(number, interval);
            }
        });
    }
    {
        let proxy = Arc::clone(&proxy);
        std::thread::spawn(move || {
            proxy.manage_all(&admin);
        });
    }
    proxy.forward(&socket)
}

impl Proxy {
    fn new(nodes: &[Node]) -> Self {
        let nodes = nodes.iter().map(|node| Known {
            node: node.clone(),
            name: node.to_string(),
            is_up: AtomicBool::new(false),
            address: RwLock::new(None),
        });
        Self {
            nodes: nodes.collect(),
            ring: RwLock::default(),
            begun: Instant::now(),
            is_up: AtomicBool::new(true),
            dropped: AtomicU64::new(0),
        }
    }

    /// The first round of checks, of all nodes at once.
    fn check_all(&self, timeout: Duration) {
        std::thread::scope(|scope| {
            for number in 0..self.nodes.len() {
                scope.spawn(move || self.check(number, timeout));
            }
        });
    }

    /// Checks a node, and puts it into the ring or takes it out.
    fn check(&self, number: usize, timeout: Duration) {
        let known = &self.nodes[number];
        let outcome = health(&known.node, timeout);
        let is_up = outcome.is_ok();
        if let Ok(address) = &outcome {
            *known.address.write() = Some(*address);
        }
        // Otherwise, of two nodes that fail at the same time, the slower check could put the other one back.
        let mut ring = self.ring.write();
        if known.is_up.swap(is_up, Ordering::SeqCst) == is_up {
            return;
        }
        let up = self.nodes.iter().enumerate();
        let up = up.filter(|(_, known)| known.is_up.load(Ordering::SeqCst));
        let up = up.map(|(number, known)| (number, known.name.as_str()));
        *ring = Arc::new(Ring::new(up));
        drop(ring);
        match outcome {
            Ok(_) => complain(format_args!("{} is in the ring", known.name)),
            Err(why) => complain(format_args!("{} is not in the ring: {why:#}", known.name)),
        }
    }

    /// Hands datagrams on.
    fn forward(&self, socket: &UdpSocket) -> anyhow::Result<ExitCode> {
        let out4 = UdpSocket::bind("0.0.0.0:0")?;
        let out6 = UdpSocket::bind("[::]:0").ok();
        let mut packet = vec![0; 64 << 10];
        let mut batches: Vec<Vec<u8>> = vec![Vec::new(); self.nodes.len()];
        loop {
            let n = match socket.recv(&mut packet) {
                Ok(n) => n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let ring = Arc::clone(&self.ring.read());
            share_out(&ring, &packet[..n], &mut batches, &self.dropped);
            for (known, batch) in self.nodes.iter().zip(&mut batches) {
                if batch.is_empty() {
                    continue;
                }
                let address = *known.address.read();
                let sent = address.map(|address| match (&out6, address.is_ipv6()) {
                    (Some(out), true) => out.send_to(batch, address),
                    _ => out4.send_to(batch, address),
                });
                if !matches!(sent, Some(Ok(_))) {
                    let lines = batch.split(|byte| *byte == b'\n').count() as u64;
                    self.dropped.fetch_add(lines, Ordering::Relaxed);
                }
                batch.clear();
            }
        }
    }

    /// Serves the clients of the management interface, each on a thread.
    fn manage_all(self: &Arc<Self>, listener: &TcpListener) {
        // Each thread has a clone.
        let place = Arc::new(());
        for stream in listener.incoming() {
            let stream = match stream {
                Ok(stream) => stream,
                Err(why) => {
                    complain(format_args!("the management interface: {why}"));
                    // Without a free descriptor, the next attempt fails at once, too.
                    std::thread::sleep(ACCEPT_PAUSE);
                    continue;
                }
            };
            if Arc::strong_count(&place) > MAX_MANAGED {
                continue;
            }
            let (proxy, held) = (Arc::clone(self), Arc::clone(&place));
            // Without a thread, the connection is closed.
            let _ = std::thread::Builder::new().spawn(move || {
                let _held = held;
                proxy.manage(&stream);
            });
        }
    }

    /// Serves a client of the management interface.
    fn manage(&self, stream: &TcpStream) {
        let _ = stream.set_read_timeout(Some(SILENCE));
        let _ = stream.set_write_timeout(Some(SILENCE));
        let mut input = BufReader::new(stream);
        loop {
            let mut line = String::new();
            let read = input.by_ref().take(MAX_COMMAND).read_line(&mut line);
            // What follows the beginning of a long line is no command, nor is the body of an HTTP request, which a
            // page in a browser can send here.
            let is_cut = line.len() as u64 == MAX_COMMAND && !line.ends_with('\n');
            if !matches!(read, Ok(1..)) || is_cut || statsd::is_http_request(&line) {
                return;
            }
            let Some(answer) = self.answer(line.trim()) else {
                return;
            };
            let mut stream = stream;
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    /// The answer to a command, in the words of StatsD's proxy; `None`: quit.
    fn answer(&self, command: &str) -> Option<String> {
        let mut words = command.split_whitespace();
        Some(
            match (words.next(), words.next().map(str::to_lowercase).as_deref()) {
                (Some("quit"), _) => return None,
                (Some("help"), _) => "Commands: health, status, quit\n\n".to_owned(),
                (Some("health"), wanted) => {
                    match wanted {
                        Some("up") => self.is_up.store(true, Ordering::SeqCst),
                        Some("down") => self.is_up.store(false, Ordering::SeqCst),
                        _ => {}
                    }
                    let is_up = self.is_up.load(Ordering::SeqCst);
                    format!("health: {}\n", if is_up { "up" } else { "down" })
                }
                (Some("status"), _) => {
                    let _unchanged = self.ring.read();
                    let up = self
                        .nodes
                        .iter()
                        .filter(|known| known.is_up.load(Ordering::SeqCst));
                    let nodes: String = up.map(|known| format!("{} ", known.name)).collect();
                    let dropped = self.dropped.load(Ordering::Relaxed);
                    format!(
                        "uptime: {}\nnodes: {nodes}\ndropped: {dropped}\n",
                        self.begun.elapsed().as_secs()
                    )
                }
                _ => "ERROR\n".to_owned(),
            },
        )
    }
}

/// Puts the lines of a packet into the batches of their nodes.
fn share_out(ring: &Ring, packet: &[u8], batches: &mut [Vec<u8>], dropped: &AtomicU64) {
    for line in packet
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let key = line.split(|byte| *byte == b':').next().unwrap_or(line);
        let Some(batch) = ring.node(key).and_then(|node| batches.get_mut(node)) else {
            dropped.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        if !batch.is_empty() {
            batch.push(b'\n');
        }
        batch.extend_from_slice(line);
    }
}

/// Asks a node's management interface; where its datagrams go, if it is well.
fn health(node: &Node, timeout: Duration) -> anyhow::Result<SocketAddr> {
    let host = node.host.trim_start_matches('[').trim_end_matches(']');
    let mut addresses = (host, node.admin_port).to_socket_addrs()?;
    let mut admin = addresses
        .next()
        .ok_or_else(|| anyhow!("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&admin, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(b"health\r\n")?;
    let mut answer = [0; 256];
    let n = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..n]);
    if !answer.contains("up") {
        bail!("it answers {:?}", answer.trim());
    }
    admin.set_port(node.port);
    Ok(admin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_packet_stay_together_by_node() {
        let ring = Ring::new([(0, "10.0.0.1:8125"), (1, "10.0.0.2:8125")].into_iter());
        let mut batches = vec![Vec::new(); 2];
        let dropped = AtomicU64::new(0);
        let packet: Vec<String> = (0..20)
            .map(|n| format!("a.m{}:1|c|#t:{n}", n % 10))
            .collect();
        share_out(&ring, packet.join("\n").as_bytes(), &mut batches, &dropped);
        let texts: Vec<String> = batches
            .iter()
            .map(|batch| String::from_utf8(batch.clone()).unwrap())
            .collect();
        assert_eq!(
            texts.iter().map(|text| text.lines().count()).sum::<usize>(),
            20
        );
        for n in 0..10 {
            let on = |text: &String| {
                text.lines()
                    .filter(|line| line.starts_with(&format!("a.m{n}:")))
                    .count()
            };
            assert!(
                texts.iter().all(|text| [0, 2].contains(&on(text))),
                "{texts:?}"
            );
        }
        share_out(&Ring::default(), b"a:1|c\nb:1|c\n", &mut batches, &dropped);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn nodes_read_back_and_commands_are_answered() {
        for text in ["", "a:1", "a:b:c", ":1:2", "::1:2:3"] {
            assert!(text.parse::<Node>().is_err(), "{text}");
        }
        let node: Node = "10.0.0.1:8125:8126".parse().unwrap();
        let proxy = Proxy::new(&[node]);
        assert_eq!(proxy.answer("health"), Some("health: up\n".to_owned()));
        assert_eq!(
            proxy.answer("health down"),
            Some("health: down\n".to_owned())
        );
        assert!(proxy.answer("status").unwrap().contains("nodes: \n"));
        assert_eq!(proxy.answer("quit"), None);
    }

    #[test]
    fn no_command_is_read_out_of_something_else() {
        let proxy = Proxy::new(&["10.0.0.1:8125:8126".parse().unwrap()]);
        let long = "x".repeat(MAX_COMMAND as usize);
        for sent in [
            "POST / HTTP/1.1\r\nHost: localhost\r\n\r\nhealth down\n".to_owned(),
            format!("POST /{long} HTTP/1.1\r\n\r\nhealth down\n"),
            format!("{long}health down\n"),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            client.write_all(sent.as_bytes()).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            proxy.manage(&listener.accept().unwrap().0);
            assert!(proxy.is_up.load(Ordering::SeqCst), "{sent:.30}");
        }
    }
}
