//! A ClickHouse server in this process: it keeps what is inserted, and fails when a test wants it.

#![allow(dead_code, reason = "each test binary uses its part of this")]
#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long a test waits for something that has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What the server does with inserts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Keeps the rows and says so.
    Well,
    /// Answers with an error and keeps nothing.
    Refuses,
    /// Keeps the rows and closes the connection without an answer.
    Cuts,
    /// Closes the connection before it has read anything.
    Away,
}

/// A row of points: value, version.
pub(crate) type Row = (u64, u32);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) mood: Mood,
    /// The rows of points, by path and time, as they came.
    pub(crate) points: BTreeMap<(String, u32), Vec<Row>>,
    /// Bytes inserted into other tables, by statement.
    pub(crate) others: BTreeMap<String, Vec<u8>>,
    /// Statements that are not inserts.
    pub(crate) asked: Vec<String>,
    /// Inserts that were not acknowledged.
    pub(crate) refused: usize,
    /// The answers to queries that contain these texts. `None`: no answer until a KILL QUERY has come.
    pub(crate) answers: Vec<(&'static str, Option<Vec<u8>>)>,
}

pub(crate) struct Fake {
    pub(crate) url: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State {
            mood: Mood::Well,
            points: BTreeMap::new(),
            others: BTreeMap::new(),
            asked: Vec::new(),
            refused: 0,
            answers: Vec::new(),
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let for_threads = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&for_threads);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { url, shared }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.0.lock());
        self.shared.1.notify_all();
    }

    /// Waits until `holds`, and returns what `holds` returned.
    pub(crate) fn until<T>(&self, what: &str, mut holds: impl FnMut(&State) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let mut state = self.shared.0.lock();
        loop {
            if let Some(found) = holds(&state) {
                return found;
            }
            let waited = self.shared.1.wait_until(&mut state, end);
            assert!(
                !waited.timed_out(),
                "waited too long until {what}: {:?}",
                state.mood
            );
        }
    }

    /// What a reader finds at each path and time: the row with the highest version, the last of equals.
    pub(crate) fn table(&self) -> BTreeMap<(String, u32), f64> {
        let state = self.shared.0.lock();
        let rows = state.points.iter();
        rows.map(|(key, rows)| {
            let last = rows.iter().max_by_key(|(_, version)| *version).unwrap();
            (key.clone(), f64::from_bits(last.0))
        })
        .collect()
    }
}

fn serve(stream: TcpStream, shared: &(Mutex<State>, Condvar)) {
    let Ok(mut out) = stream.try_clone() else {
        return;
    };
    let mut input = BufReader::new(stream);
    loop {
        if shared.0.lock().mood == Mood::Away {
            return;
        }
        let mut target = String::new();
        if input.read_line(&mut target).unwrap_or(0) == 0 {
            return;
        }
        let mut length = 0;
        loop {
            let mut line = String::new();
            if input.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(text) = line.strip_prefix("content-length:") {
                length = text.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        if input.read_exact(&mut body).is_err() {
            return;
        }
        let target = decode(target.split(' ').nth(1).unwrap_or_default());
        let answer = match target.find("query=INSERT INTO ") {
            Some(at) => insert(&target[at + 6..], &body, shared),
            None => ask(&String::from_utf8_lossy(&body), shared),
        };
        shared.1.notify_all();
        let Some((status, answer)) = answer else {
            return;
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        if out.write_all(head.as_bytes()).is_err() || out.write_all(&answer).is_err() {
            return;
        }
    }
}

type Answer = Option<(u16, Vec<u8>)>;

fn insert(statement: &str, body: &[u8], shared: &(Mutex<State>, Condvar)) -> Answer {
    let mut state = shared.0.lock();
    if matches!(state.mood, Mood::Refuses | Mood::Away) {
        state.refused += 1;
        return Some((
            500,
            b"Code: 241, e.displayText() = DB::Exception: Memory limit".to_vec(),
        ));
    }
    if statement.starts_with("INSERT INTO graphite ") {
        for (path, time, row) in points(body) {
            state.points.entry((path, time)).or_default().push(row);
        }
    } else {
        let statement = statement.split('&').next().unwrap().to_owned();
        state.others.entry(statement).or_default().extend(body);
    }
    if state.mood == Mood::Cuts {
        state.refused += 1;
        return None;
    }
    Some((200, Vec::new()))
}

fn ask(sql: &str, shared: &(Mutex<State>, Condvar)) -> Answer {
    let mut state = shared.0.lock();
    if sql == "SELECT version()" {
        return Some((200, b"18.16.1\n".to_vec()));
    }
    state.asked.push(sql.to_owned());
    let answer = state.answers.iter().find(|(text, _)| sql.contains(text));
    match answer.map(|(_, answer)| answer.clone()) {
        Some(Some(answer)) => Some((200, answer)),
        Some(None) => {
            shared.1.notify_all();
            let is_killed =
                |state: &State| state.asked.iter().any(|sql| sql.starts_with("KILL QUERY"));
            while !is_killed(&state) {
                shared.1.wait(&mut state);
            }
            Some((500, b"Code: 394, Query was cancelled".to_vec()))
        }
        None if sql.starts_with("KILL QUERY") => Some((200, Vec::new())),
        None => Some((500, b"Code: 60, Table doesn't exist".to_vec())),
    }
}

/// Rows of points in RowBinary.
fn points(mut rows: &[u8]) -> Vec<(String, u32, Row)> {
    let mut read = Vec::new();
    while let Some((length, rest)) = rows.split_first() {
        assert!(*length < 0x80, "names are short here");
        let (path, rest) = rest.split_at(usize::from(*length));
        let (row, rest) = rest.split_at(18);
        let word = |at: usize| u32::from_le_bytes(row[at..at + 4].try_into().unwrap());
        let value = u64::from_le_bytes(row[..8].try_into().unwrap());
        assert_eq!(
            u32::from(u16::from_le_bytes([row[12], row[13]])),
            word(8) / 86_400
        );
        let path = String::from_utf8(path.to_vec()).unwrap();
        read.push((path, word(8), (value, word(14))));
        rows = rest;
    }
    read
}

fn decode(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap();
                out.push(u8::from_str_radix(digits, 16).unwrap());
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap()
}
