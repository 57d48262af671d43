//! The real binary on free ports in a fresh directory, talked to in raw bytes.
//!
//! Nothing here sleeps for luck: a start is over when the server says `READY=1` on the socket of
//! a service manager, a stop when the process has ended, and a value that comes with the next
//! flush is asked for until it is there or a deadline says that it will not come.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on must say where"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

/// Nothing takes this long unless it is broken, work of the lowest priority on a busy machine included.
const PATIENCE: Duration = Duration::from_secs(180);

/// A plumbago to be started, stopped and started again in one directory.
pub(crate) struct Server {
    pub(crate) dir: TempDir,
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) addresses: BTreeMap<String, Vec<String>>,
    /// Further arguments.
    pub(crate) extra: Vec<String>,
    /// A configuration file, if any.
    pub(crate) config: Option<PathBuf>,
    /// A command for the shell that starts it, such as one that sets limits.
    pub(crate) first: Option<String>,
    /// Variables of its environment.
    pub(crate) environment: Vec<(String, String)>,
    child: Option<Child>,
}

/// An HTTP answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Server {
    /// A server that flushes every second and writes its files at once, all usual listeners on free ports.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// The same with further settings.
    pub(crate) fn with(settings: &[(&str, &str)]) -> Self {
        let mut server = Self::prepared(settings);
        server.run();
        server
    }

    /// Everything but the start.
    pub(crate) fn prepared(settings: &[(&str, &str)]) -> Self {
        let usual = [
            ("statsd.udp", "127.0.0.1:0"),
            ("statsd.admin", "127.0.0.1:0"),
            ("statsd.flush_interval", "1s"),
            ("carbon.line_tcp", "127.0.0.1:0"),
            ("carbon.line_udp", "127.0.0.1:0"),
            ("carbon.pickle", "127.0.0.1:0"),
            // Many tests look at files.
            ("carbon.persist_within", "1s"),
            ("render.http", "127.0.0.1:0"),
        ];
        let all = usual.iter().chain(settings);
        Self {
            dir: tempfile::tempdir().unwrap(),
            settings: all
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            addresses: BTreeMap::new(),
            extra: Vec::new(),
            config: None,
            first: None,
            environment: Vec::new(),
            child: None,
        }
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The arguments that start it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "serve".to_owned(),
            "--data".to_owned(),
            self.data().display().to_string(),
            "--ready-file".to_owned(),
            self.dir.path().join("ready.json").display().to_string(),
        ];
        arguments.extend(self.extra.clone());
        if let Some(file) = &self.config {
            arguments.extend(["--config".to_owned(), file.display().to_string()]);
        }
        for (key, value) in &self.settings {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        arguments
    }

    /// Starts it and returns when it is ready.
    pub(crate) fn run(&mut self) {
        let manager_path = self.dir.path().join("notify");
        let _ = fs::remove_file(&manager_path);
        let manager = UnixDatagram::bind(&manager_path).unwrap();
        manager
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        self.launch();
        let mut state = [0; 64];
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(n) = manager.recv(&mut state) {
                assert_eq!(&state[..n], b"READY=1");
                break;
            }
            if let Some(status) = self.ended() {
                panic!("ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "not ready:\n{}", self.log());
        }
        let ready = fs::read(self.dir.path().join("ready.json")).unwrap();
        self.addresses = serde_json::from_slice(&ready).unwrap();
    }

    /// Starts it and returns at once. Only addresses with a fixed port are known.
    pub(crate) fn launch(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.path().join("log"))
            .unwrap();
        let mut command = match &self.first {
            None => plumbago(),
            Some(first) => {
                let program = plumbago();
                let mut shell = Command::new("sh");
                shell
                    .args(["-c", &format!("{first} && exec \"$0\" \"$@\"")])
                    .arg(program.get_program())
                    .env_remove("RUST_LOG");
                shell
            }
        };
        let child = command
            .args(self.arguments())
            .current_dir(self.dir.path())
            .env("NOTIFY_SOCKET", self.dir.path().join("notify"))
            .envs(self.environment.clone())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.addresses = self
            .settings
            .iter()
            .filter(|(_, value)| !value.ends_with(":0"))
            .map(|(key, value)| (key.clone(), vec![value.clone()]))
            .collect();
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut().expect("not running");
        child.try_wait().unwrap()
    }

    /// Waits for its end, which must come soon.
    pub(crate) fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.ended() {
                self.child = None;
                return status;
            }
            assert!(Instant::now() < deadline, "still running:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// The process.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("not running"))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// SIGTERM, and the wait for the end.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.take().unwrap().wait().unwrap()
    }

    /// SIGTERM that must end well, and a new start.
    pub(crate) fn restart(&mut self) {
        let status = self.stop();
        assert!(status.success(), "{status}:\n{}", self.log());
        self.run();
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("not running");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The first address of a listener.
    pub(crate) fn address(&self, key: &str) -> &str {
        let bound = self.addresses.get(key).and_then(|bound| bound.first());
        bound.unwrap_or_else(|| panic!("{key} does not listen: {:?}", self.addresses))
    }

    /// Sends one datagram to statsd.
    pub(crate) fn statsd(&self, datagram: impl AsRef<[u8]>) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let sent = socket.send_to(datagram.as_ref(), self.address("statsd.udp"));
        sent.unwrap();
    }

    /// Asks statsd's management interface `command` until its answer has `word` in it.
    pub(crate) fn wait_for_admin(&self, command: &str, word: &str) {
        let mut stream = TcpStream::connect(self.address("statsd.admin")).unwrap();
        let mut answers = BufReader::new(stream.try_clone().unwrap());
        let deadline = Instant::now() + PATIENCE;
        loop {
            writeln!(stream, "{command}").unwrap();
            let mut text = String::new();
            while !text.ends_with("END\n\n") {
                let read = answers.read_line(&mut text).unwrap();
                assert_ne!(read, 0, "closed after {text:?}");
            }
            if text.contains(word) {
                return;
            }
            assert!(Instant::now() < deadline, "{command}: {text}");
        }
    }

    /// Sends bytes to carbon's line receiver over TCP.
    pub(crate) fn lines(&self, bytes: impl AsRef<[u8]>) {
        let mut stream = TcpStream::connect(self.address("carbon.line_tcp")).unwrap();
        stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Asks over HTTP.
    pub(crate) fn http(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let address = self.address("render.http");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n{headers}\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no HTTP: {:?}", String::from_utf8_lossy(&bytes)));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut body = bytes[end + 4..].to_vec();
        if head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked")
        {
            body = unchunked(&body);
        }
        let status = head[9..12].parse().unwrap();
        Answer { status, head, body }
    }

    /// GET.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.http("GET", path, "", b"")
    }

    /// Asks for an answer that does not end, and returns when its first message is there.
    pub(crate) fn stream(&self, path: &str) -> TcpStream {
        let address = self.address("render.http");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        let mut begun = Vec::new();
        let mut byte = [0];
        while !begun.ends_with(b"\n\n") {
            stream.read_exact(&mut byte).unwrap();
            begun.extend(byte);
        }
        stream
    }

    /// The status and the body of a GET, if something answers.
    pub(crate) fn try_get(&self, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.address("render.http")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let status = answer.get(9..12)?.parse().ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        Some((status, body.to_owned()))
    }

    /// POST of JSON.
    pub(crate) fn post(&self, path: &str, body: &str) -> Answer {
        let headers = "Content-Type: application/json\r\n";
        self.http("POST", path, headers, body.as_bytes())
    }

    /// The value of the metric `name` on `/metrics`.
    #[track_caller]
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.unwrap_or_else(|| panic!("no {name}:\n{text}"));
        value.parse().unwrap()
    }

    /// The answer to a GET, which must be 200 and JSON.
    pub(crate) fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// The present values, with their times, of the series that `target` gives.
    pub(crate) fn points(&self, target: &str) -> Vec<(f64, i64)> {
        let series = self.json(&format!("/render?format=json&from=-15min&target={target}"));
        let series = series.as_array().unwrap();
        assert!(series.len() <= 1, "{target}: {} series", series.len());
        let points = series.first().and_then(|one| one["datapoints"].as_array());
        points
            .into_iter()
            .flatten()
            .filter_map(|point| Some((point[0].as_f64()?, point[1].as_i64()?)))
            .collect()
    }

    /// Waits for something that is bound to happen.
    #[track_caller]
    pub(crate) fn wait_until(&self, what: &str, happened: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !happened(self) {
            assert!(Instant::now() < deadline, "no {what}:\n{}", self.log());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Waits until the values of `target` are as they must be, and returns them.
    #[track_caller]
    pub(crate) fn wait_for(&self, target: &str, enough: impl Fn(&[f64]) -> bool) -> Vec<f64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let values: Vec<f64> = self
                .points(target)
                .into_iter()
                .map(|point| point.0)
                .collect();
            if enough(&values) {
                return values;
            }
            assert!(
                Instant::now() < deadline,
                "{target}: {values:?}\n{}",
                self.log()
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Waits until the values of `target` add up to `total`.
    #[track_caller]
    pub(crate) fn wait_for_sum(&self, target: &str, total: f64) {
        let sum = |values: &[f64]| values.iter().sum::<f64>();
        self.wait_for(target, |values| {
            (sum(values) - total).abs() < 1e-9 && !values.is_empty()
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Answer {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    loop {
        let end = body
            .windows(2)
            .position(|window| window == b"\r\n")
            .unwrap();
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            return whole;
        }
        whole.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
}

/// Addresses for servers that have to know each other's before they start. Their ports stay bound, without being
/// listened on, until this process ends: the system gives them to nobody who asks for any port.
pub(crate) fn reserved<const N: usize>() -> [String; N] {
    static KEPT: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
    [(); N].map(|()| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        KEPT.lock().unwrap().push(socket);
        address.to_string()
    })
}

/// The binary, with nothing from the tester's environment that would change what it does.
pub(crate) fn plumbago() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plumbago"));
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
    command
}

/// Runs it to its end.
pub(crate) fn run(arguments: &[&str]) -> Output {
    plumbago().args(arguments).output().unwrap()
}

/// Unix seconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    since.as_secs() as i64
}

/// The names of all files below `directory`, relative to it, sorted.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    let mut names: Vec<String> = found
        .iter()
        .map(|path| path.strip_prefix(directory).unwrap().display().to_string())
        .collect();
    names.sort();
    names
}
