//! Two servers over one ClickHouse have the same events, by a table; while ClickHouse is away they stay, and go later.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use support::{Server, now};

/// As much of ClickHouse as the table of events needs: rows are kept, and all are answered.
#[derive(Default)]
struct Table {
    /// By id and version, with the second of arrival.
    rows: BTreeMap<(Vec<u8>, u64), (Vec<u8>, u32)>,
    is_away: bool,
}

#[derive(Clone)]
struct StandIn {
    url: String,
    table: Arc<Mutex<Table>>,
}

impl StandIn {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            table: Arc::default(),
        };
        let serving = this.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(&stream.unwrap()));
            }
        });
        this
    }

    fn server(&self) -> Server {
        Server::with(&[
            ("stats.self", "false"),
            ("store.engine", "clickhouse"),
            ("store.clickhouse.url", &self.url),
        ])
    }

    /// Loses the rows of which `is_lost` says so, given what is in them.
    fn lose(&self, is_lost: impl Fn(&str) -> bool) {
        let mut table = self.table.lock().unwrap();
        table
            .rows
            .retain(|_, (row, _)| !is_lost(&String::from_utf8_lossy(row)));
    }

    /// Whether a row has this in it.
    fn has(&self, text: &str) -> bool {
        let table = self.table.lock().unwrap();
        let mut rows = table.rows.values();
        rows.any(|(row, _)| String::from_utf8_lossy(row).contains(text))
    }

    fn set_away(&self, is_away: bool) {
        self.table.lock().unwrap().is_away = is_away;
    }

    fn serve(&self, stream: &TcpStream) {
        let mut input = BufReader::new(stream);
        let mut output = stream;
        loop {
            let (mut first, mut length) = (String::new(), 0);
            if input.read_line(&mut first).unwrap_or(0) == 0 {
                return;
            }
            loop {
                let mut line = String::new();
                if input.read_line(&mut line).unwrap_or(0) == 0 || line.trim().is_empty() {
                    break;
                }
                if let Some(text) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = text.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            if input.read_exact(&mut body).is_err() {
                return;
            }
            let (status, answer) = self.answer(&first, &body);
            let head = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            if output
                .write_all(&[head.as_bytes(), &answer].concat())
                .is_err()
            {
                return;
            }
        }
    }

    fn answer(&self, request: &str, body: &[u8]) -> (u16, Vec<u8>) {
        let mut table = self.table.lock().unwrap();
        let sql = String::from_utf8_lossy(body);
        if table.is_away {
            return (500, b"Code: 210, Connection refused".to_vec());
        }
        if sql == "SELECT version()" {
            return (200, b"18.16.1\n".to_vec());
        }
        if request.contains("INSERT+INTO+graphite_events")
            || request.contains("INSERT%20INTO%20graphite_events")
        {
            let mut rest = body;
            while !rest.is_empty() {
                let (key, row) = row(&mut rest);
                table.rows.insert(key, (row, now() as u32));
            }
            return (200, Vec::new());
        }
        if sql.contains("FROM graphite_events") {
            // In the order of arrival, after the place that is asked for.
            let after = sql.split("Received > ").nth(1).unwrap();
            let after: u32 = after.split(' ').next().unwrap().parse().unwrap();
            let id = sql
                .split("Id > '")
                .nth(1)
                .unwrap()
                .split('\'')
                .next()
                .unwrap();
            let mut rows: Vec<_> = table.rows.iter().collect();
            rows.retain(|((row_id, _), (_, at))| (*at, row_id.as_slice()) > (after, id.as_bytes()));
            rows.sort_by_key(|((id, version), (_, at))| (*at, id.clone(), u64::MAX - version));
            let bytes = rows
                .iter()
                .flat_map(|(_, (row, at))| [row.clone(), at.to_le_bytes().to_vec()].concat());
            return (200, bytes.collect());
        }
        // Points and names are taken and not looked at.
        (200, Vec::new())
    }
}

/// Takes a row from the front of `rest`; its id and version come first.
fn row(rest: &mut &[u8]) -> ((Vec<u8>, u64), Vec<u8>) {
    fn length(rest: &mut &[u8]) -> usize {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = rest[0];
            *rest = &rest[1..];
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return length;
            }
        }
    }
    fn take<'a>(rest: &mut &'a [u8], n: usize) -> &'a [u8] {
        let (taken, left) = rest.split_at(n);
        *rest = left;
        taken
    }
    fn text<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
        let n = length(rest);
        take(rest, n)
    }
    let whole = *rest;
    let id = text(rest).to_vec();
    let version = u64::from_le_bytes(take(rest, 8).try_into().unwrap());
    // Two more versions, whether it is deleted, its time.
    take(rest, 16 + 1 + 8);
    if take(rest, 1) == [0] {
        take(rest, 8);
    }
    for _ in 0..3 {
        text(rest);
    }
    let tags = length(rest);
    for _ in 0..tags + 3 {
        text(rest);
    }
    ((id, version), whole[..whole.len() - rest.len()].to_vec())
}

fn events(server: &Server) -> Vec<(String, String)> {
    let all = server.json("/events/get_data");
    let mut events: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            (text("what"), text("status"))
        })
        .collect();
    events.sort();
    events
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(what, status)| ((*what).to_owned(), (*status).to_owned()))
        .collect()
}

#[test]
fn what_is_posted_changed_and_deleted_at_one_is_so_at_the_other() {
    let clickhouse = StandIn::start();
    let (one, mut two) = (clickhouse.server(), clickhouse.server());
    one.post(
        "/events/",
        r#"{"what": "deploy", "tags": "deploy", "key": "k", "status": "started"}"#,
    );
    one.post("/events/", r#"{"what": "gone", "tags": "deploy"}"#);
    let both = pairs(&[("deploy", "started"), ("gone", "")]);
    two.wait_until("events", |two| events(two) == both);

    clickhouse.set_away(true);
    let failed = format!(
        "plumbago_events_exchange_failed_total{{with=\"{} graphite_events\"}}",
        clickhouse.url
    );
    two.wait_until("a failure", |two| two.metric(&failed) >= 1.0);
    two.post(
        "/events/",
        r#"{"what": "deploy", "key": "k", "status": "succeeded"}"#,
    );
    let all = two.json("/events/get_data");
    let gone = all
        .as_array()
        .unwrap()
        .iter()
        .find(|event| event["what"] == "gone")
        .unwrap();
    let path = format!("/events/{}/", gone["id"]);
    assert_eq!(two.http("DELETE", &path, "", b"").status, 204);
    two.post("/events/", r#"{"what": "later", "tags": "deploy"}"#);
    let changed = pairs(&[("deploy", "succeeded"), ("later", "")]);
    assert_eq!(events(&two), changed);
    assert_eq!(events(&one), both);
    assert!(
        two.log().contains("events are not exchanged with"),
        "{}",
        two.log()
    );
    // What waits survives the end of the process.
    two.kill();
    two.run();
    assert_eq!(events(&two), changed);

    clickhouse.set_away(false);
    one.wait_until("changes", |one| events(one) == changed);
    // A server that joins gets all; what it has got it does not write again.
    let rows = || clickhouse.table.lock().unwrap().rows.len();
    let before = rows();
    let three = clickhouse.server();
    three.wait_until("events", |three| events(three) == changed);
    let sent = format!(
        "plumbago_events_exchange_sent_total{{with=\"{} graphite_events\"}}",
        clickhouse.url
    );
    assert_eq!((three.metric(&sent), rows()), (0.0, before));
}

#[test]
fn a_table_that_was_emptied_is_filled_again() {
    let clickhouse = StandIn::start();
    let (one, two) = (clickhouse.server(), clickhouse.server());
    one.post("/events/", r#"{"what": "first", "tags": "deploy"}"#);
    two.post("/events/", r#"{"what": "second", "tags": "deploy"}"#);
    let both = pairs(&[("first", ""), ("second", "")]);
    one.wait_until("events", |one| events(one) == both);
    two.wait_until("events", |two| events(two) == both);
    let is_known = |server: &Server| {
        let text = fs::read_to_string(server.data().join("events-exchange"));
        text.is_ok_and(|text| !text.contains(r#""last": """#))
    };
    one.wait_until("it has read the rows", is_known);
    two.wait_until("it has read the rows", is_known);
    clickhouse.lose(|_| true);
    // Of each server, whichever was the first to write it.
    one.wait_until("all rows", |_| {
        clickhouse.has("first") && clickhouse.has("second")
    });
    let three = clickhouse.server();
    three.wait_until("events", |three| events(three) == both);
    assert_eq!((events(&one), events(&two)), (both.clone(), both));
}

#[test]
fn a_server_that_was_away_for_a_month_takes_the_state_of_the_table() {
    let clickhouse = StandIn::start();
    let mut one = clickhouse.server();
    one.post("/events/", r#"{"what": "gone", "tags": "deploy"}"#);
    one.post("/events/", r#"{"what": "kept", "tags": "deploy"}"#);
    one.wait_until("rows", |_| clickhouse.has("gone") && clickhouse.has("kept"));
    let path = one.data().join("events-exchange");
    one.wait_until("it has read the rows", |_| {
        fs::read_to_string(&path).is_ok_and(|text| text.contains(r#""given": 2"#))
    });
    clickhouse.set_away(true);
    one.post("/events/", r#"{"what": "later", "tags": "deploy"}"#);
    one.stop();
    // Meanwhile the table was emptied and filled again by servers that knew of the deletion, and forgot it.
    clickhouse.lose(|row| row.contains("gone"));
    let mut positions: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for position in positions.as_object_mut().unwrap().values_mut() {
        position["met"] = (now() - 31 * 86_400).into();
    }
    fs::write(&path, positions.to_string()).unwrap();
    clickhouse.set_away(false);
    one.run();
    let left = pairs(&[("kept", ""), ("later", "")]);
    one.wait_until("the state of the table", |one| events(one) == left);
    one.wait_until("what came later", |_| clickhouse.has("later"));
    assert!(!clickhouse.has("gone"));
    assert!(one.log().contains("were forgotten"), "{}", one.log());
}
