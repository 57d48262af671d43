//! A peer whose answers are larger than the memory of the request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use prost::Message;
use render::protobuf::v3;
use render::source::{Source, Tags};

use super::*;

/// Nothing.
struct Empty;

impl Source for Empty {
    fn find(&self, _: &str, _: &Budget) -> Result<Vec<Node>, SourceError> {
        Ok(Vec::new())
    }

    fn find_tagged(&self, _: &[&str], _: &Budget) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn fetch(&self, _: &str, _: FetchRange) -> Result<Option<Fetched>, SourceError> {
        Ok(None)
    }
}

impl Tags for Empty {
    fn tags(&self, _: &Budget) -> Result<Vec<(u32, String)>, SourceError> {
        Ok(Vec::new())
    }

    fn values(&self, _: &str, _: &Budget) -> Result<Option<(u32, Vec<TagValue>)>, SourceError> {
        Ok(None)
    }

    fn complete_tags(&self, _: &Completion<'_>, _: &Budget) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn complete_values(
        &self,
        _: &str,
        _: &Completion<'_>,
        _: &Budget,
    ) -> Result<Vec<String>, SourceError> {
        Ok(Vec::new())
    }

    fn register(&self, path: &str) -> Result<String, SourceError> {
        Ok(path.to_owned())
    }

    fn unregister(&self, _: &str) -> Result<(), SourceError> {
        Ok(())
    }
}

/// A peer that answers all requests with `body`.
fn peer(body: Vec<u8>) -> Peered {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|_| line.trim() != "") {
                let lower = line.to_ascii_lowercase();
                if let Some(text) = lower.strip_prefix("content-length:") {
                    length = text.trim().parse().unwrap();
                }
                line.clear();
            }
            let _ = stream.read_exact(&mut vec![0; length]);
            let head = format!(
                "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            // A client that has enough may be gone.
            let stream = stream.get_mut();
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&body);
        }
    });
    let asked = Asked {
        source: Arc::new(Empty),
        tags: Arc::new(Empty),
    };
    Peered::new(asked, &[url], Duration::from_secs(60)).unwrap()
}

fn budget(bytes: u64) -> Budget {
    Budget::new(Memory::new(bytes), None)
}

fn is_refused<T>(answer: Result<T, SourceError>) -> bool {
    let Err(SourceError::Budget(error)) = answer else {
        return false;
    };
    error.to_string().contains("render.max_memory")
}

const RANGE: FetchRange = FetchRange {
    from: Timestamp(0),
    until: Timestamp(1_000),
    now: Timestamp(1_000),
};

#[test]
fn nodes_of_a_peer_are_reserved_while_they_arrive_and_before_they_are_decoded() {
    let node = v3::GlobMatch {
        path: "a".to_owned(),
        is_leaf: true,
    };
    let one = v3::GlobResponse {
        name: String::new(),
        matches: vec![node; 50_000],
    };
    let answer = v3::MultiGlobResponse { metrics: vec![one] };
    let body = answer.encode_to_vec();
    let n_bytes = body.len() as u64;
    let peered = peer(body);
    // The bytes do not fit; what is found does, but not what it is decoded to.
    for bytes in [n_bytes / 2, 5_000_000] {
        assert!(is_refused(peered.find("*", &budget(bytes))));
        assert!(is_refused(peered.find_series("*", &budget(bytes))));
    }
    // The peer is not to blame: it is asked again.
    let enough = budget(100 * n_bytes);
    assert_eq!(peered.find("*", &enough).unwrap().len(), 1);
    assert_eq!(
        enough.reserved(),
        50_000 * 65,
        "what is found stays reserved"
    );
    assert_eq!(peered.readings().len(), 3);
    assert_eq!(
        peered.peers[0]
            .counts
            .failed
            .load(std::sync::atomic::Ordering::Relaxed),
        0
    );
}

#[test]
fn texts_of_a_peer_are_reserved_before_they_are_read() {
    let names = serde_json::to_vec(&vec!["a"; 50_000]).unwrap();
    let n_bytes = names.len() as u64;
    let peered = peer(names);
    for bytes in [n_bytes / 2, 5_000_000] {
        assert!(is_refused(peered.find_tagged(&["name=a"], &budget(bytes))));
    }
    let found = peered.find_tagged(&["name=a"], &budget(200 * n_bytes));
    assert_eq!(found.unwrap(), ["a"]);
}

#[test]
fn values_of_a_peer_that_do_not_fit_are_refused() {
    let series = v3::FetchResponse {
        name: "a".to_owned(),
        step_time: 1,
        values: vec![1.0; 10_000],
        ..v3::FetchResponse::default()
    };
    let answer = v3::MultiFetchResponse {
        metrics: vec![series],
    };
    let body = answer.encode_to_vec();
    let n_bytes = body.len() as u64;
    let peered = peer(body);
    let names = ["a".to_owned()];
    for bytes in [n_bytes / 2, 2 * n_bytes] {
        let budget = budget(bytes);
        let mut next = peered.announce(&names, RANGE, &budget);
        next(0);
        assert!(is_refused(peered.fetch("a", RANGE)));
    }
    let enough = budget(10 * n_bytes);
    let mut next = peered.announce(&names, RANGE, &enough);
    next(0);
    let fetched = peered.fetch("a", RANGE).unwrap().unwrap();
    assert_eq!(fetched.values.len(), 10_000);
    drop(next);
    assert_eq!(enough.reserved(), 0);
    // Without an announcement, it is the memory of all requests that counts.
    peered.within(&Memory::new(n_bytes));
    assert!(is_refused(peered.fetch("a", RANGE)));
}
