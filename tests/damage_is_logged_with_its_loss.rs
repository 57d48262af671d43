//! A damaged index and a damaged journal: the server starts, what is sound comes back, and a warning
//! states what is lost.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use support::{Server, now};

const SERIES: usize = 20;

/// What happens to the bytes of a file.
type Damage = fn(&mut Vec<u8>);

fn committed(server: &Server) -> f64 {
    let text = server.get("/metrics").text();
    let name = "plumbago_carbon_journal_committed_points_total ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().parse().unwrap()
}

/// Stores a point of each series and registers a tagged series without one, then kills the server.
fn filled_and_killed(settings: &[(&str, &str)]) -> Server {
    let mut server = Server::prepared(settings);
    server
        .settings
        .insert("stats.self".to_owned(), "false".to_owned());
    // A file for each series, without a wait for its second point.
    server
        .settings
        .insert("carbon.infer_step".to_owned(), "false".to_owned());
    server.run();
    // A frame of the journal for each.
    for n in 0..SERIES {
        server.lines(format!("kept.m{n} {n} {}\n", now()));
        server.wait_until("commit", |server| committed(server) > n as f64);
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let answer = server.http("POST", "/tags/tagSeries", form, b"path=registered;a=b");
    assert_eq!(answer.status, 200, "{}", answer.text());
    server.kill();
    server
}

/// How many series have their value.
fn present(server: &Server) -> usize {
    let series = server.json("/render?format=json&from=-5min&target=kept.*");
    let has_value = |one: &&serde_json::Value| {
        let points = one["datapoints"].as_array().unwrap();
        points.iter().any(|point| !point[0].is_null())
    };
    series.as_array().unwrap().iter().filter(has_value).count()
}

fn warnings(server: &Server) -> String {
    let log = server.log();
    let mut text = String::new();
    for line in log.lines().filter(|line| line.contains("WARN")) {
        writeln!(text, "{line}").unwrap();
    }
    text
}

#[test]
fn of_a_damaged_index_the_log_states_what_is_lost() {
    let damages: [(&str, Damage); 5] = [
        ("cut in half", |bytes| bytes.truncate(bytes.len() / 2)),
        ("zeroed", |bytes| bytes.fill(0)),
        ("another header", |bytes| bytes[..64].fill(b'x')),
        ("longer", |bytes| bytes.extend([0xff; 5_000])),
        ("one byte", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }),
    ];
    let mut server = filled_and_killed(&[]);
    let index = server.data().join("index/names");
    let sound = fs::read(&index).unwrap();
    for (damage, apply) in damages {
        let mut bytes = sound.clone();
        apply(&mut bytes);
        fs::write(&index, bytes).unwrap();
        fs::remove_file(server.dir.path().join("log")).unwrap();
        server.run();
        assert_eq!(present(&server), SERIES, "{damage}");
        let warnings = warnings(&server);
        assert!(
            warnings.contains("index/names: ")
                && warnings.contains("bytes are torn or damaged and were dropped")
                && warnings.contains("registrations of tagged series without data are lost"),
            "{damage}: {}",
            server.log()
        );
        server.kill();
    }
}

#[test]
fn of_a_damaged_journal_the_log_states_what_is_lost() {
    // All points but those of the first file are in the journal alone.
    let mut server = filled_and_killed(&[("carbon.max_creates_per_minute", "1")]);
    let mut segments: Vec<PathBuf> = fs::read_dir(server.data().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    segments.sort();
    let last = segments.pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes.extend([0xff; 100]);
    fs::write(&last, bytes).unwrap();
    server.run();
    let found = present(&server);
    assert!(
        (SERIES - 2..SERIES).contains(&found),
        "one frame is lost: {found}"
    );
    let warnings = warnings(&server);
    assert!(
        warnings.contains("the journal was read back, but for a torn or damaged part of"),
        "{}",
        server.log()
    );
    assert!(server.stop().success());
}

#[test]
fn of_a_sound_index_and_journal_the_log_has_no_warning() {
    let mut server = filled_and_killed(&[]);
    server.run();
    assert_eq!(present(&server), SERIES);
    assert_eq!(warnings(&server), "", "{}", server.log());
    let tagged = server.get("/tags/findSeries?expr=a=b").text();
    assert!(tagged.contains("registered;a=b"), "{tagged}");
    assert!(server.stop().success());
}
