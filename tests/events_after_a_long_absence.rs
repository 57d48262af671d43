//! A server that was away for longer than deletions are remembered brings no deleted event back, and loses none that the
//! others have not heard of.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Server, now, reserved};

const MONTH: i64 = 31 * 86_400;

fn names(server: &Server) -> Vec<String> {
    let all = server.json("/events/get_data");
    let all = all.as_array().unwrap().iter();
    let mut names: Vec<String> = all
        .map(|event| event["what"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

fn post(server: &Server, what: &str) {
    server.post(
        "/events/",
        &format!(r#"{{"what": "{what}", "tags": "deploy"}}"#),
    );
}

fn positions(server: &Server) -> Value {
    let text = fs::read(server.data().join("events-exchange")).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

#[test]
fn what_was_deleted_meanwhile_stays_deleted() {
    let addresses = reserved::<2>();
    let urls = addresses.clone().map(|address| format!("http://{address}"));
    let server = |own: usize| {
        Server::with(&[
            ("stats.self", "false"),
            ("render.http", &addresses[own]),
            ("render.peers", &urls[1 - own]),
        ])
    };
    let (mut here, mut there) = (server(0), server(1));
    post(&here, "gone");
    post(&here, "kept");
    post(&there, "theirs");
    let all = ["gone", "kept", "theirs"];
    here.wait_until("events", |here| names(here) == all);
    there.wait_until("events", |there| names(there) == all);
    there.wait_until("a note that its changes were taken", |there| {
        positions(there)[&urls[0]]["given"].as_i64() >= Some(3)
    });
    here.stop();
    post(&there, "unheard of");
    there.stop();

    here.run();
    let events = here.json("/events/get_data");
    let mut events = events.as_array().unwrap().iter();
    let gone = events.find(|event| event["what"] == "gone").unwrap();
    let path = format!("/events/{}/", gone["id"]);
    assert_eq!(here.http("DELETE", &path, "", b"").status, 204);
    here.stop();
    // A month later the deletion is forgotten.
    let events = rusqlite::Connection::open(here.data().join("events.db")).unwrap();
    let forgotten = events.execute("DELETE FROM revisions WHERE event IS NULL", []);
    assert_eq!(forgotten.unwrap(), 1);
    drop(events);
    let mut positions = positions(&there);
    positions[&urls[0]]["met"] = (now() - MONTH).into();
    fs::write(there.data().join("events-exchange"), positions.to_string()).unwrap();

    here.run();
    there.run();
    let left = ["kept", "theirs", "unheard of"];
    there.wait_until("its events are those of the other server", |there| {
        names(there) == left
    });
    here.wait_until("what it had not heard of", |here| names(here) == left);
    assert!(there.log().contains("were forgotten"), "{}", there.log());
    assert!(!here.log().contains("were forgotten"), "{}", here.log());
}
