//! storage-schemas.conf, storage-aggregation.conf and the files of rules for names: a changed file is
//! read again when it changes and on SIGHUP, and a bad one leaves the old rules in effect.

#![allow(clippy::unwrap_used, reason = "a test ends where it goes wrong")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use support::{Server, now};
use whisper::Header;

/// Writes a file as editors do; its path.
fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let (new, path) = (directory.join("new"), directory.join(name));
    fs::write(&new, text).unwrap();
    fs::rename(&new, &path).unwrap();
    path
}

/// Waits until so many files were read again, and so many refused.
#[track_caller]
fn read_again(server: &Server, reloads: u32, refused: u32) {
    let read = |server: &Server| {
        let names = ["reloads", "reloads_refused"];
        names.map(|name| server.metric(&format!("plumbago_carbon_rules_{name}_total")))
    };
    let what = format!("{reloads} reloads and {refused} refusals");
    server.wait_until(&what, |server| {
        read(server) == [f64::from(reloads), f64::from(refused)]
    });
}

/// Sends the first point of a series and returns the finest step and the method of its file.
fn new_file(server: &Server, name: &str) -> (u32, &'static str) {
    server.lines(format!("{name} 1 {}\n", now()));
    let path = server.data().join("whisper");
    let path = path.join(format!("{}.wsp", name.replace('.', "/")));
    server.wait_until(&format!("the file of {name}"), |_| {
        Header::read(&path).is_ok()
    });
    let header = Header::read(&path).unwrap();
    (
        header.archives()[0].step.seconds(),
        header.aggregation.name(),
    )
}

fn schemas(retentions: &str) -> String {
    format!("[all]\npattern = .*\nretentions = {retentions}\n")
}

fn aggregation(method: &str) -> String {
    format!("[all]\npattern = .*\nxFilesFactor = 0\naggregationMethod = {method}\n")
}

#[test]
fn storage_files_are_read_again_by_change_and_by_sighup() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| format!("{:?}", write(directory.path(), name, text));
    let settings = [
        (
            "carbon.schemas",
            file("storage-schemas.conf", &schemas("1s:1h")),
        ),
        (
            "carbon.aggregation",
            file("storage-aggregation.conf", &aggregation("max")),
        ),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(k, v)| (*k, v.as_str())).collect();
    let server = Server::with(&[&settings[..], &[("stats.self", "false")]].concat());
    assert_eq!(new_file(&server, "a.first"), (1, "max"));
    read_again(&server, 0, 0);

    file("storage-schemas.conf", &schemas("60s:1d"));
    read_again(&server, 1, 0);
    assert_eq!(new_file(&server, "a.second"), (60, "max"));

    file("storage-aggregation.conf", &aggregation("last"));
    read_again(&server, 2, 0);
    assert_eq!(new_file(&server, "a.third"), (60, "last"));

    // SIGHUP reads files that have not changed, too.
    server.signal(Signal::HUP);
    read_again(&server, 4, 0);

    // A bad file is named with line and key, each time that it is read, and changes nothing.
    let bad = schemas("60s:1d").replace("60s:1d", "sometimes");
    file("storage-schemas.conf", &bad);
    read_again(&server, 4, 1);
    let fault =
        "storage-schemas.conf:3: [all] retentions: invalid retention definition \"sometimes\"";
    assert!(server.log().contains(fault), "{}", server.log());
    server.signal(Signal::HUP);
    read_again(&server, 5, 2);
    assert_eq!(new_file(&server, "a.fourth"), (60, "last"));

    // So does a file that is gone; one that comes again is read.
    fs::remove_file(directory.path().join("storage-schemas.conf")).unwrap();
    read_again(&server, 5, 3);
    assert_eq!(new_file(&server, "a.fifth"), (60, "last"));
    file("storage-schemas.conf", &schemas("10s:1d"));
    read_again(&server, 6, 3);
    assert_eq!(new_file(&server, "a.sixth"), (10, "last"));
}

#[test]
fn rules_for_names_are_read_again_by_change_and_by_sighup() {
    let directory = tempfile::tempdir().unwrap();
    let file = |text: &str| format!("{:?}", write(directory.path(), "rewrite-rules.conf", text));
    let settings = file("[pre]\n^in\\. = one.\n");
    let server = Server::with(&[("carbon.rewrite_rules", &settings), ("stats.self", "false")]);
    let sent = |n: u32| server.lines(format!("in.m{n} {n} {}\n", now()));
    sent(1);
    server.wait_for("one.m1", |values| values == [1.0]);

    file("[pre]\n^in\\. = two.\n");
    read_again(&server, 1, 0);
    // The rules are put into use by a thread: a point may still go by the old ones.
    server.wait_until("the new rule", |server| {
        sent(2);
        !server.points("two.m2").is_empty()
    });

    server.signal(Signal::HUP);
    read_again(&server, 2, 0);

    file("[pre]\n^in\\. = \\1\n");
    read_again(&server, 2, 1);
    let fault = "rewrite-rules.conf:2: ^in\\\\.: \"\\\\1\": the pattern has no group";
    assert!(server.log().contains(fault), "{}", server.log());
    server.signal(Signal::HUP);
    read_again(&server, 2, 2);
    sent(3);
    server.wait_for("two.m3", |values| values == [3.0]);

    // A line without effect does not hold up the others, and is named.
    file("[pre]\n^in -> x\n^in\\. = three.\n");
    read_again(&server, 3, 2);
    let ignored =
        "rewrite-rules.conf:2: \"^in -> x\" is neither a section nor a rule and is ignored";
    assert!(server.log().contains(ignored), "{}", server.log());
    server.wait_until("the rule beside it", |server| {
        sent(4);
        !server.points("three.m4").is_empty()
    });
}
