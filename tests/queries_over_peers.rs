//! Queries over a server and its peers: tags of all, and no waiting for a peer that is slow.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Server, now};

const QUIET: (&str, &str) = ("stats.self", "false");

fn texts(value: &Value) -> Vec<&str> {
    let all = value.as_array().unwrap().iter();
    all.map(|one| one.as_str().unwrap()).collect()
}

#[test]
fn tags_and_their_completion_are_those_of_all() {
    let there = Server::with(&[QUIET]);
    let url = format!("http://{}", there.address("render.http"));
    let here = Server::with(&[QUIET, ("render.peers", &url)]);
    let at = now();
    here.lines(format!("cpu;host=a;dc=x 1 {at}\ndisk;host=a 1 {at}\n"));
    there.lines(format!(
        "cpu;host=b;rack=7 2 {at}\ncpu;host=a;dc=x 5 {at}\n"
    ));
    let names = "/tags/findSeries?expr=name=cpu";
    here.wait_until("series of both", |here| {
        texts(&here.json(names)) == ["cpu;dc=x;host=a", "cpu;host=b;rack=7"]
    });
    let tags = here.json("/tags");
    let tags = tags.as_array().unwrap().iter();
    let tags: Vec<_> = tags.map(|tag| tag["tag"].as_str().unwrap()).collect();
    assert_eq!(tags, ["dc", "host", "name", "rack"]);
    let hosts = here.json("/tags/host");
    let hosts: Vec<_> = hosts["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|value| {
            (
                value["value"].as_str().unwrap(),
                value["count"].as_u64().unwrap(),
            )
        })
        .collect();
    // Two series with host=a here; the one that both have counts once.
    assert_eq!(hosts, [("a", 2), ("b", 1)]);
    let completed = here.json("/tags/autoComplete/tags?expr=name=cpu");
    assert_eq!(texts(&completed), ["dc", "host", "rack"]);
    let completed = here.json("/tags/autoComplete/values?expr=name=cpu&tag=host");
    assert_eq!(texts(&completed), ["a", "b"]);
    let limited = here.json("/tags/autoComplete/values?expr=name=cpu&tag=host&limit=1");
    assert_eq!(texts(&limited), ["a"]);
    // What is known here comes first; the other one's series is there, too.
    let query = "/render?format=json&from=-5min&target=seriesByTag('name=cpu')";
    let series = here.json(query);
    let values = series.as_array().unwrap().iter().map(|one| {
        let points = one["datapoints"].as_array().unwrap().iter();
        let last = points.filter_map(|point| point[0].as_f64()).next_back();
        (one["target"].as_str().unwrap(), last.unwrap())
    });
    assert_eq!(
        values.collect::<Vec<_>>(),
        [("cpu;dc=x;host=a", 1.0), ("cpu;host=b;rack=7", 2.0)]
    );
}

#[test]
fn a_peer_that_answers_too_slowly_is_left_out_counted_and_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // The head of an answer at once, then a byte at a time, for ever.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 65_536];
                let _ = stream.read(&mut request);
                let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
                let mut sent = stream.write_all(head);
                while sent.is_ok() {
                    std::thread::park_timeout(Duration::from_millis(20));
                    sent = stream.write_all(b" ");
                }
            });
        }
    });
    let timeout = Duration::from_millis(1_500);
    let here = Server::with(&[
        QUIET,
        ("render.peers", &url),
        ("render.peer_timeout", "1500ms"),
    ]);
    here.lines(format!("a.b 7 {}\n", now()));
    let begun = Instant::now();
    let values = here.wait_for("a.b", |values| !values.is_empty());
    assert_eq!(values, [7.0]);
    let first = begun.elapsed();
    assert!(first >= timeout, "{first:?}");
    let counter = |name: &str| here.metric(&format!("plumbago_peers_{name}_total{{peer={url:?}}}"));
    let failed = counter("failed");
    assert!(failed >= 1.0);
    assert!(
        here.log().contains("a peer is left out of answers"),
        "{}",
        here.log()
    );
    // Left out from now on for a while: the query does not wait for it again.
    let skipped = counter("skipped");
    let found = here.json("/metrics/find?query=a.*");
    assert_eq!(found[0]["text"], json!("b"));
    assert!(counter("skipped") > skipped || counter("failed") > failed);
}
