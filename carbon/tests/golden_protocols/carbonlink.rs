//! CarbonLink over a real socket, with points that are in the cache and files that have methods.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use carbon::listener::Listeners;
use carbon::options::{JournalOptions, Options, Span, SyncPolicy};
use carbon::protocol::carbonlink::MAX_REQUEST;
use carbon::protocol::pickle::{self, Machine};
use carbon::protocol::{Resolver, line};
use carbon::series::{canonical, file_path, is_tagged};
use carbon::{Carbon, Setup, Sink, Timestamp};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use whisper::{Aggregation, CreateOptions, Retention};

use crate::golden::recording;
use crate::recorded::{hex, quirk};

const NOW: Timestamp = Timestamp(1_700_001_000);

/// A server with the recorded state.
struct Server {
    carbon: Carbon,
    address: std::net::SocketAddr,
    methods: Vec<(String, Aggregation)>,
    _runtime: Runtime,
    _dir: tempfile::TempDir,
}

/// Whether a name has nodes that no path has; such a name is that of another series here.
fn has_empty_nodes(name: &str) -> bool {
    !is_tagged(name) && name.split('.').any(str::is_empty)
}

fn method(name: &str) -> Aggregation {
    let found = Aggregation::ALL
        .into_iter()
        .find(|method| method.name() == name);
    found.unwrap()
}

impl Server {
    fn start(state: &Value) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("whisper");
        let files: Map<String, Value> = state["files"].as_object().unwrap().clone();
        let methods: Vec<(String, Aggregation)> = files
            .iter()
            .map(|(name, value)| (name.clone(), method(value.as_str().unwrap())))
            .collect();
        for (name, method) in &methods {
            let mut path = PathBuf::new();
            file_path(&root, name, &mut path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let retentions = vec![Retention::new(60, 1_000).unwrap()];
            let options = CreateOptions {
                aggregation: *method,
                ..CreateOptions::new(retentions)
            };
            whisper::create(&path, &options).unwrap();
        }
        // One file may be created: points of all other series stay in the cache.
        let options = Options {
            max_creates_per_minute: 1,
            ..Options::default()
        };
        let journal = JournalOptions {
            sync: SyncPolicy::Off,
            ..JournalOptions::default()
        };
        let carbon = Carbon::open(
            Setup {
                clock: Arc::new(|| NOW),
                ..Setup::new(options, journal, Span::seconds(10))
            },
            dir.path(),
        )
        .unwrap();
        submit(&carbon, &format!("the.created.one 1 {}\n", NOW.0));
        carbon.persist();
        let lines = state["lines"].as_str().unwrap().lines();
        let lines = lines.filter(|line| !has_empty_nodes(line.split(' ').next().unwrap()));
        let lines: Vec<&str> = lines.collect();
        submit(&carbon, &(lines.join("\n") + "\n"));
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(Listeners::new(&carbon).carbonlink(listener, std::future::pending()));
        Self {
            carbon,
            address,
            methods,
            _runtime: runtime,
            _dir: dir,
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream
    }
}

fn submit(carbon: &Carbon, lines: &str) {
    let mut points = Vec::new();
    let _pin = carbon.index().pin();
    let mut resolver = Resolver::new(carbon.index(), carbon.stats(), NOW, &mut points);
    line::read(lines.as_bytes(), &mut resolver);
    drop(resolver);
    carbon.submit(&points);
}

/// The next answer; `None` if the connection has ended.
fn answer(stream: &mut TcpStream) -> Option<Value> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).ok()?;
    let mut body = vec![0; u32::from_be_bytes(header) as usize];
    stream.read_exact(&mut body).unwrap();
    assert_eq!(&body[..2], b"\x80\x02", "protocol 2");
    let mut machine = Machine::default();
    let whole = machine.read(&body).unwrap();
    Some(decoded(&machine, whole, &body))
}

fn decoded(machine: &Machine, value: pickle::Value, frame: &[u8]) -> Value {
    if let Some(members) = machine.members(value) {
        return members
            .iter()
            .map(|one| decoded(machine, *one, frame))
            .collect();
    }
    if let Some(entries) = machine.entries(value) {
        let entries = entries.map(|(key, value)| {
            let key = match decoded(machine, key, frame) {
                Value::String(text) => text,
                Value::Null => "None".to_owned(),
                other => other.to_string(),
            };
            (key, decoded(machine, value, frame))
        });
        return Value::Object(entries.collect());
    }
    match value {
        pickle::Value::None => Value::Null,
        pickle::Value::Bool(bool) => json!(bool),
        pickle::Value::Int(integer) => json!(integer),
        pickle::Value::Float(float) => json!(float),
        value => {
            let text = machine.text(value, frame).unwrap();
            json!(String::from_utf8(text.to_vec()).unwrap())
        }
    }
}

/// An answer with its points in the order of time, without those that no file can hold.
fn comparable(answer: &Value) -> Value {
    match answer {
        Value::Array(points) => {
            let mut points: Vec<(i64, f64)> = points
                .iter()
                .filter_map(|point| {
                    let at = point[0].as_f64().unwrap().floor();
                    let value = point[1].as_f64()?;
                    let stored = (1.0..=f64::from(u32::MAX)).contains(&at);
                    stored.then_some((at as i64, value))
                })
                .collect();
            points.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            json!(points)
        }
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| (key.clone(), comparable(value)))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn golden_carbonlink() {
    let all = recording("carbonlink");
    let (state, cases) = all.split_first().unwrap();
    let server = Server::start(state);
    let mut wrong = Vec::new();
    for case in cases {
        if let Err(why) = replay(&server, case) {
            wrong.push(format!("{}: {why}", case["name"].as_str().unwrap()));
        }
        for (name, method) in &server.methods {
            server.carbon.set_aggregation(name, *method).unwrap();
        }
    }
    assert!(!cases.is_empty());
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

fn replay(server: &Server, case: &Value) -> Result<(), String> {
    let mut stream = server.connect();
    let chunks = case["in"].as_array().unwrap().iter();
    let chunks: Vec<Vec<u8>> = chunks.map(|chunk| hex(chunk.as_str().unwrap())).collect();
    for chunk in &chunks {
        // The server may have closed the connection.
        let _ = stream.write_all(chunk);
    }
    // A query after it, whose answer no other request has.
    let after = hex(
        "0000003c80027d7100285804000000747970657101580b00000063616368652d717565727971\
                     0258060000006d657472696371035803000000696e747104752e",
    );
    let _ = stream.write_all(&after);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answers = Vec::new();
    while let Some(answer) = answer(&mut stream) {
        answers.push(answer);
    }
    let last = json!({ "datapoints": [[1_700_000_000.0, 7.0]] });
    let open = answers.last() == Some(&last);
    if open {
        answers.pop();
    }
    let recorded: Vec<Value> = case["replies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|reply| comparable(&reply["answer"]))
        .collect();
    let found: Vec<Value> = answers.iter().map(comparable).collect();
    let too_long = chunks[0].len() >= 4 && {
        let length = u32::from_be_bytes(chunks[0][..4].try_into().unwrap());
        length as usize > MAX_REQUEST
    };
    let metric = case["request"]["metric"].as_str().unwrap_or_default();
    let fits = match quirk(case) {
        // Longer than any request: the bytes after it cannot be divided into frames.
        _ if too_long => {
            return if open {
                Err("still open".to_owned())
            } else {
                Ok(())
            };
        }
        // Answered with an error, after the answers before it.
        Some("bad-request-closes" | "answers-lost") => {
            let errors = found.iter().filter(|answer| answer.get("error").is_some());
            open && errors.count() == 1 && found.len() >= recorded.len()
        }
        // Found under its canonical name.
        Some("query-not-canonical" | "bytes-name") => {
            open && found.len() == recorded.len() && found[0].get("error").is_none()
        }
        Some("traceback-as-error") => {
            open && found.len() == 1
                && found[0]["error"]
                    .as_str()
                    .is_some_and(|why| !why.contains('\n'))
        }
        _ if has_empty_nodes(metric) && !metric.is_empty() => {
            let name = canonical(metric.as_bytes()).unwrap();
            open && found == [comparable(&query(server, &name))]
        }
        _ => found == recorded && open == case["open"].as_bool().unwrap(),
    };
    if !fits {
        return Err(format!(
            "answered {found:?}, recorded {recorded:?}; open is {open}"
        ));
    }
    compare_files(server, case)
}

/// Compares how files aggregate after the case.
fn compare_files(server: &Server, case: &Value) -> Result<(), String> {
    for (name, recorded) in case["files_after"].as_object().into_iter().flatten() {
        let found = server.carbon.aggregation(&format!("meta.{name}")).unwrap();
        if Some(found.name()) != recorded.as_str() {
            return Err(format!("{name} is {} afterwards", found.name()));
        }
    }
    Ok(())
}

/// The answer to a query of one name.
fn query(server: &Server, name: &str) -> Value {
    let mut request = Vec::new();
    pickle::write::frame(&mut request, |out| {
        pickle::write::dict(out, |out| {
            for text in ["type", "cache-query", "metric", name] {
                pickle::write::text(out, text);
            }
        });
    });
    let mut stream = server.connect();
    stream.write_all(&request).unwrap();
    answer(&mut stream).unwrap()
}
